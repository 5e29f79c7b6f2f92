"""registry.distances.formulas: task2vec against plain loops, at every scale that a float32 has."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from references_distances import task2vec as slow_task2vec

from registry.distances import formulas
from registry.distances.formulas import task2vec

SCALES = st.sampled_from([0.0, 1e-45, 1e-37, 1e-30, 1e-24, 1e-12, 1e-8, 1e-2, 1.0, 1e6, 1e12, 1e24, 1e30, 3e36])
ENTRIES = st.one_of(st.just(0.0), st.sampled_from([1e-12, 1e-8, 1e-7, 1e-3, 100.0]), st.floats(0.01, 100.0))


@st.composite
def embeddings(draw):
    """Rows of all scales, of which some filters are dead or close to the floor."""
    count, width = draw(st.integers(2, 9)), draw(st.integers(1, 12))
    rows = draw(st.lists(st.lists(ENTRIES, min_size=width, max_size=width), min_size=count, max_size=count))
    scales = draw(st.lists(SCALES, min_size=count, max_size=count))
    return np.array(rows) * np.array(scales)[:, None]


def slow(sources, targets):
    return np.array([[slow_task2vec(a, b) for b in targets.tolist()] for a in sources.tolist()])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@settings(deadline=None, max_examples=300)
@given(rows=embeddings())
@example(rows=np.zeros((3, 2)))
@example(rows=np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1e-30, 1e30]]))
def test_kernel_matches_plain_loop_at_any_scale(dtype, tolerance, rows):
    rows = rows.astype(dtype)
    np.testing.assert_allclose(task2vec(rows, rows[:2]), slow(rows, rows[:2]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_ways_to_compute_agree_where_one_gives_over_to_the_other(dtype, generator, monkeypatch):
    target = np.exp(2 * generator.standard_normal((1, 300)))
    ratios = 10.0 ** np.arange(-12, 13)
    sources = (ratios[:, None] * np.exp(2 * generator.standard_normal((len(ratios), 300)))).astype(dtype)
    target = target.astype(dtype)
    found = task2vec(sources, target)
    monkeypatch.setattr(formulas, "LARGEST_MEAN", 0.0)
    np.testing.assert_allclose(found, task2vec(sources, target), rtol=0, atol=5e-7)
    np.testing.assert_allclose(found, slow(sources, target), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_does_not_depend_on_those_beside_it(dtype, generator):
    scales = 10.0 ** generator.uniform(-30, 30, size=(40, 1))
    sources = (scales * np.exp(generator.standard_normal((40, 33)))).astype(dtype)
    targets = np.exp(generator.standard_normal((2, 33))).astype(dtype)
    expected = np.vstack([task2vec(row[None], targets) for row in sources])
    np.testing.assert_array_equal(task2vec(sources, targets), expected)


@pytest.fixture
def generator():
    return np.random.default_rng(0)
