"""registry.distances against plain loops, and the properties that its docstrings promise."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references_distances import ASYMMETRIC, SYMMETRIC, reference, reference_code_cosine

from registry.distances import DISTANCES, get_distance, list_distances, pairwise, symmetric_distances
from registry.errors import InvalidQueryError, NotFoundError

SYMMETRIC_NAMES = sorted(name for name, distance in DISTANCES.items() if distance.symmetric)
ASYMMETRIC_NAMES = sorted(DISTANCES.keys() - set(SYMMETRIC_NAMES))
ALPHA = 0.3

# Dead filters, denormal ones, those at the end of float32, and everyday ones.
ENTRIES = st.one_of(
    st.just(0.0),
    st.sampled_from([1e-45, 1e-38, 1e38, 3.4e38]),
    st.integers(-40, 38).map(lambda power: 10.0**power),
    st.floats(0.01, 100.0),
)


@st.composite
def embeddings(draw, count):
    width = draw(st.integers(1, 12))
    rows = draw(st.lists(st.lists(ENTRIES, min_size=width, max_size=width), min_size=count, max_size=count))
    return np.array(rows)


def log_normal(generator, num_tasks, dim, centre=1e-7):
    return centre * np.exp(2 * generator.standard_normal((num_tasks, dim)))


def test_every_distance_has_a_reference():
    assert sorted(SYMMETRIC) == SYMMETRIC_NAMES
    assert sorted(ASYMMETRIC) == ASYMMETRIC_NAMES


@pytest.mark.parametrize("name", DISTANCES)
@settings(deadline=None, max_examples=60)
@given(rows=embeddings(count=3))
def test_distance_matches_plain_loop(name, rows):
    a, b, trivial = rows
    expected = reference(name, a.tolist(), b.tolist(), trivial.tolist(), ALPHA)
    found = pairwise(name, [a], [b], trivial=trivial, alpha=ALPHA).item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
@settings(deadline=None, max_examples=60)
@given(rows=embeddings(count=3))
def test_distance_of_stored_float32_is_finite_and_within_bounds(name, rows):
    a, b, trivial = rows.astype(np.float32)
    low, high = DISTANCES[name].bounds
    found = pairwise(name, [a, b, trivial], [b, a], trivial=trivial)
    assert np.isfinite(found).all()
    assert (found >= low - 1e-6).all()
    assert (found <= high + 1e-6).all()


@pytest.mark.parametrize("name", SYMMETRIC_NAMES)
@settings(deadline=None, max_examples=40)
@given(rows=embeddings(count=3))
def test_symmetric_distance_is_symmetric_and_zero_on_itself(name, rows):
    found = pairwise(name, rows, rows)
    np.testing.assert_allclose(found, found.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.diag(found), 0, atol=1e-12)


@pytest.mark.parametrize("name", ASYMMETRIC_NAMES)
def test_asymmetric_distance_depends_on_the_direction(name, generator):
    rows = log_normal(generator, 3, 40)
    forward = pairwise(name, rows[:1], rows[1:2], trivial=rows[2]).item()
    backward = pairwise(name, rows[1:2], rows[:1], trivial=rows[2]).item()
    assert abs(forward - backward) > 1e-3


def test_task2vec_asymmetric_subtracts_what_depends_on_the_source_only(generator):
    sources, targets, trivial = log_normal(generator, 4, 30), log_normal(generator, 3, 30), np.full(30, 1e-7)
    expected = pairwise("task2vec", sources, targets) - 0.15 * pairwise("task2vec", sources, [trivial])
    np.testing.assert_allclose(pairwise("task2vec_asymmetric", sources, targets, trivial=trivial), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None, max_examples=40)
@given(rows=embeddings(count=1), factor=st.sampled_from([1e-20, 1e-3, 2.0, 1e6]))
def test_task2vec_is_zero_between_proportional_embeddings(dtype, rows, factor):
    multiple = np.minimum(rows, 1e30) * factor
    rows = np.minimum(rows, 1e30).astype(dtype)
    multiple = multiple.astype(dtype)
    # Denormal float32 values have too few digits left to stay proportional.
    kept = (rows[0] == 0) | ((rows[0] > 1e-30) & (multiple[0] > 1e-30))
    if kept.any() and rows[:, kept].any():
        assert pairwise("task2vec", rows[:, kept], multiple[:, kept]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("factor", [1e-12, 1e9])
def test_task2vec_does_not_change_when_both_are_multiplied_by_one_factor(generator, factor):
    sources, targets = log_normal(generator, 4, 50), log_normal(generator, 3, 50)
    sources[:, :5] = 0
    np.testing.assert_allclose(
        pairwise("task2vec", sources * factor, targets * factor),
        pairwise("task2vec", sources, targets),
        rtol=1e-9,
    )


def test_task2vec_agrees_with_reference_code_where_its_epsilon_is_small(generator):
    a, b = log_normal(generator, 2, 60, centre=1.0)
    expected = reference_code_cosine(a.tolist(), b.tolist())
    assert pairwise("task2vec", [a], [b]).item() == pytest.approx(expected, rel=1e-6)


def test_task2vec_does_not_depend_on_the_scale_where_reference_code_does(generator):
    """Reference E1.12: 1e-8 is not small beside embeddings of 1e-8."""
    a, b = log_normal(generator, 2, 60, centre=1e-8)
    at_one = reference_code_cosine((a * 1e8).tolist(), (b * 1e8).tolist())
    assert abs(reference_code_cosine(a.tolist(), b.tolist()) - at_one) > 0.01
    assert pairwise("task2vec", [a], [b]).item() == pytest.approx(at_one, rel=1e-6)


def test_zero_embedding_is_at_one_from_others_and_at_zero_from_itself():
    rows = [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]
    for name in ("cosine", "task2vec"):
        np.testing.assert_allclose(pairwise(name, rows, rows), [[0, 1], [1, 0]], atol=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize(("num_sources", "num_targets"), [(50, 3), (3, 50), (0, 2), (2, 0)])
def test_blocks_and_orientation_do_not_change_distances(name, num_sources, num_targets, generator, monkeypatch):
    monkeypatch.setitem(DISTANCES, name, replace(DISTANCES[name], block_elements=100))
    sources, targets = log_normal(generator, num_sources, 15), log_normal(generator, num_targets, 15)
    trivial = np.full(15, 1e-7)
    found = pairwise(name, sources, targets, trivial=trivial, alpha=ALPHA)
    assert found.shape == (num_sources, num_targets)
    assert found.dtype == np.float64
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            expected = reference(name, source.tolist(), target.tolist(), trivial.tolist(), ALPHA)
            assert found[i, j] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
def test_float32_is_as_good_as_float64(name, generator):
    sources = log_normal(generator, 200, 1100).astype(np.float32)
    targets = log_normal(generator, 2, 1100).astype(np.float32)
    trivial = np.full(1100, 1e-7, dtype=np.float32)
    expected = pairwise(name, sources.astype(float), targets.astype(float), trivial=trivial)
    np.testing.assert_allclose(
        pairwise(name, sources, targets, trivial=trivial), expected, rtol=1e-9, atol=2e-6
    )


def test_inputs_are_left_as_they_were(generator):
    rows = log_normal(generator, 5, 10).astype(np.float32)
    before = rows.copy()
    for name in DISTANCES:
        pairwise(name, rows, rows, trivial=rows[0])
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e-9, 1e39])
@pytest.mark.parametrize("what", ["sources", "targets", "trivial"])
def test_bad_value_is_named_with_its_place(bad, what):
    inputs = {"sources": np.ones((3, 4)), "targets": np.ones((2, 4)), "trivial": np.ones(4)}
    row = len(np.atleast_2d(inputs[what])) - 1
    np.atleast_2d(inputs[what])[row, 1] = bad
    message = f"{what}: an embedding must be finite and non-negative, but row {row} has {bad} at filter 1"
    with pytest.raises(InvalidQueryError, match=re.escape(message)):
        pairwise("task2vec_asymmetric", **inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"targets": np.ones((1, 5))},
            "targets has 5 filters but sources has 4: only embeddings of the same space can be compared",
        ),
        ({"trivial": np.ones(3)}, "trivial has 3 filters but sources has 4"),
        (
            {"sources": np.ones(4)},
            "sources must hold one embedding a row, as [N, D] with D at least 1; got shape [4]",
        ),
        ({"sources": np.ones((2, 0))}, "with D at least 1; got shape [2, 0]"),
        ({"selection": [0, 2]}, "selection must be positions of the 2 sources, whole numbers from 0, one axis"),
        ({"selection": [-1]}, "selection must be positions of the 2 sources"),
        ({"selection": [True, False]}, "selection must be positions of the 2 sources"),
        ({"selection": [[0]]}, "selection must be positions of the 2 sources"),
        ({"alpha": -0.1}, "alpha must be a finite number of at least 0, got -0.1"),
        ({"alpha": math.nan}, "alpha must be a finite number of at least 0, got nan"),
        ({"trivial": None}, "distance task2vec_asymmetric needs the trivial embedding of the space"),
    ],
)
def test_bad_input_is_refused(inputs, message):
    good = {"sources": np.ones((2, 4)), "targets": np.ones((1, 4)), "trivial": np.ones(4)}
    with pytest.raises(InvalidQueryError, match=re.escape(message)):
        pairwise("task2vec_asymmetric", **(good | inputs))


def test_unknown_distance_offers_close_names():
    with pytest.raises(
        NotFoundError,
        match=re.escape("no distance is named 'euclid'; did you mean euclidean or log_euclidean?"),
    ):
        get_distance("euclid")


def test_catalogue_is_keyed_by_name_and_listed_in_order():
    assert all(name == distance.name for name, distance in DISTANCES.items())
    assert [distance.name for distance in list_distances()] == sorted(DISTANCES)


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_function_documents_range_and_symmetry(name):
    text = DISTANCES[name].function.__doc__
    assert "From 0" in text
    assert "Symmetric; zero on itself" in text


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize("selection", [None, [3, 0]])
def test_kept_distances_to_the_trivial_task_change_nothing(selection):
    generator = np.random.default_rng(4)
    sources, target, trivial = (
        generator.lognormal(size=shape).astype(np.float32) for shape in ((5, 7), (1, 7), (7,))
    )
    kept = symmetric_distances("task2vec_asymmetric", sources, trivial)
    expected = pairwise("task2vec_asymmetric", sources, target, trivial=trivial, selection=selection)
    found = pairwise(
        "task2vec_asymmetric", sources, target, trivial=trivial, selection=selection, to_trivial=kept
    )
    np.testing.assert_array_equal(found, expected)
