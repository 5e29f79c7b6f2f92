"""registry.index.vector_index: what it finds, beside plain numpy, and what it may never find."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.distances import pairwise
from registry.index import vector_index
from registry.index.vector_index import VectorIndex


def synthetic_tasks(num_tasks, dim=96, *, seed=0, dead=0.02):
    """Embeddings drawn around a few log-normal centres, some filters dead."""
    generator = np.random.default_rng(seed)
    centres = 1.5 * generator.standard_normal((8, dim)) + generator.standard_normal(dim)
    logs = generator.dirichlet(np.full(8, 0.2), size=num_tasks) @ centres
    logs += 0.3 * generator.standard_normal((num_tasks, dim)) + generator.standard_normal((num_tasks, 1))
    fisher = 1e-7 * np.exp(logs)
    fisher[generator.random((num_tasks, dim)) < dead] = 0
    return fisher.astype(np.float32)


def search(built, row, k, allowed=None):
    return built.search(built.project(row[None])[0], k, allowed=allowed)[0]


def centred_logs(fisher):
    """Slow twin of what is projected, in float64."""
    floored = fisher.astype(float) + vector_index.LOG_FLOOR * fisher.mean(axis=1, keepdims=True, dtype=float)
    return np.log(floored) - np.log(floored).mean(axis=1, keepdims=True)


def recall(built, rows, queries, size, allowed=None):
    """Share of the true nearest ten that a shortlist holds."""
    distances = pairwise("task2vec", rows, queries)
    if allowed is not None:
        distances[~allowed] = np.inf
    exact = np.argsort(distances, axis=0)[:10].T
    return np.mean(
        [
            len(set(search(built, query, size, allowed)) & set(best)) / 10
            for query, best in zip(queries, exact, strict=True)
        ]
    )


@pytest.fixture(scope="module")
def fisher():
    return synthetic_tasks(3040)


@pytest.fixture(scope="module")
def built(fisher):
    """An index over all but the first forty, which ask."""
    return VectorIndex.build(fisher[40:])


def test_search_orders_rows_as_brute_force_over_projected_logs():
    """With as many directions as filters a projection keeps distances, so plain numpy is the twin."""
    fisher = synthetic_tasks(60, dim=12)
    logs = centred_logs(fisher)
    built = VectorIndex.build(fisher)
    for row in range(0, 60, 7):
        gaps = np.sum((logs - logs[row]) ** 2, axis=1)
        found, squared_distances = built.search(built.project(fisher[row : row + 1])[0], 20)
        # Eight bits a coordinate: neighbours that are as good as equally far may change places.
        np.testing.assert_allclose(gaps[found], np.sort(gaps)[:20], rtol=0.02, atol=0.05)
        np.testing.assert_allclose(squared_distances, gaps[found], rtol=0.02, atol=0.05)
        assert found[0] == row


def test_projection_is_onto_principal_directions():
    fisher = synthetic_tasks(300, dim=20)
    built = VectorIndex.build(fisher)
    logs = centred_logs(fisher)
    projected = built.project(fisher)
    variances = np.linalg.eigvalsh(np.cov(logs.T))[::-1]
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(projected.T), np.diag(variances), atol=2e-3)
    assert built.project(fisher[:0]).shape == (0, 20)


def test_no_more_directions_than_a_shortlist_needs(built, fisher):
    assert (len(built), built.dim) == (3000, 96)
    assert built.project(fisher[:2]).shape == (2, vector_index.NUM_COMPONENTS)


def test_shortlist_holds_the_true_nearest(built, fisher):
    assert recall(built, fisher[40:], fisher[:40], 200) >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_shortlist_of_what_is_allowed_holds_the_true_nearest_of_those(built, fisher, share):
    allowed = np.random.default_rng(1).random(3000) < share
    assert recall(built, fisher[40:], fisher[:40], 200, allowed) >= 0.95


@pytest.mark.slow
def test_shortlist_holds_the_true_nearest_of_many_tasks():
    fisher = synthetic_tasks(25_040, dim=256)
    assert recall(VectorIndex.build(fisher[40:]), fisher[40:], fisher[:40], 1000) >= 0.95


@settings(deadline=None, max_examples=50)
@given(share=st.floats(0, 1), k=st.integers(1, 4000), row=st.integers(0, 39), seed=st.integers(0, 2**32 - 1))
def test_what_is_not_allowed_is_never_found(built, fisher, share, k, row, seed):
    allowed = np.random.default_rng(seed).random(3000) < share
    found = search(built, fisher[row], k, allowed)
    assert len(set(found)) == len(found) <= min(k, allowed.sum())
    assert allowed[found].all()


@pytest.mark.parametrize("row", [0, 1234, 2999])
def test_one_row_among_thousands_is_found(built, fisher, row):
    allowed = np.zeros(3000, dtype=bool)
    allowed[row] = True
    assert search(built, fisher[0], 5, allowed).tolist() == [row]


def test_nothing_allowed_finds_nothing(built, fisher):
    assert search(built, fisher[0], 5, np.zeros(3000, dtype=bool)).tolist() == []


def test_search_for_more_than_there_are_finds_none_twice(built, fisher):
    found = search(built, fisher[0], 5000)
    assert len(set(found)) == len(found) <= 3000
    assert found.min() >= 0


def test_search_ignores_a_factor_common_to_all_filters(built, fisher):
    for factor in (2.0**-20, 1024):
        scaled = search(built, fisher[47] * np.float32(factor), 60)
        np.testing.assert_array_equal(scaled, search(built, fisher[47], 60))
        assert scaled[0] == 7


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.lists(st.sampled_from([0.0, 1e-45, 1e-38, 1e-7, 1.0, 3e38]), min_size=4, max_size=4),
        min_size=1,
        max_size=6,
    ).map(lambda rows: np.array(rows, dtype=np.float32))
)
def test_any_valid_table_can_be_indexed_and_searched(rows):
    table = np.tile(rows, (vector_index.ROWS_PER_LIST, 1))
    built = VectorIndex.build(table)
    assert np.isfinite(built.project(table)).all()
    assert sorted(search(built, rows[0], len(table))) == list(range(len(table)))


def test_build_is_deterministic(fisher):
    assert VectorIndex.build(fisher[:500]).to_bytes() == VectorIndex.build(fisher[:500].copy()).to_bytes()


def test_a_mapped_table_makes_the_same_index(fisher, tmp_path):
    fisher[:500].tofile(tmp_path / "vectors")
    mapped = np.memmap(tmp_path / "vectors", np.float32, "r", shape=(500, 96))
    assert VectorIndex.build(mapped).to_bytes() == VectorIndex.build(fisher[:500]).to_bytes()


def test_pieces_make_the_same_index_up_to_rounding(fisher, monkeypatch):
    whole = VectorIndex.build(fisher[:500])
    monkeypatch.setattr(vector_index, "CHUNK_ROWS", 77)
    pieces = VectorIndex.build(fisher[:500])
    for row in range(0, 500, 50):
        _, expected = whole.search(whole.project(fisher[row : row + 1])[0], 20)
        _, found = pieces.search(pieces.project(fisher[row : row + 1])[0], 20)
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.1)


def test_extended_index_finds_old_and_new_rows_and_leaves_the_old_one(fisher):
    old = VectorIndex.build(fisher[:400])
    before = old.to_bytes()
    new = old.extended(fisher[400:500])
    assert (len(old), len(new)) == (400, 500)
    assert [search(new, fisher[row], 1).item() for row in (3, 450)] == [3, 450]
    assert search(old, fisher[450], 400).max() < 400
    assert old.to_bytes() == before
    np.testing.assert_array_equal(old.project(fisher[:9]), new.project(fisher[:9]))


def test_bytes_make_an_index_that_answers_the_same(built, fisher):
    again = VectorIndex.from_bytes(built.to_bytes())
    assert (len(again), again.dim) == (len(built), built.dim)
    for query in fisher[:40]:
        np.testing.assert_array_equal(search(again, query, 50), search(built, query, 50))
    assert again.to_bytes() == built.to_bytes()
    assert len(again.extended(fisher[:7])) == 3007


@pytest.mark.parametrize("payload", [b"", b"no index", b"IxPT"], ids=["empty", "garbage", "cut"])
def test_bytes_that_faiss_does_not_understand_are_told(payload):
    with pytest.raises(ValueError, match=r"^not understood by faiss [0-9.]+ \("):
        VectorIndex.from_bytes(payload)
