"""registry.index.neighbors against brute force, with filters, ties and shortlists."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references_distances import reference

from registry.distances import DISTANCES, pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.index import neighbors
from registry.index.files import SavedIndex, row_checksums
from registry.index.neighbors import EmbeddingRows, KeptDistances, nearest
from registry.index.vector_index import VectorIndex

DIM = 24
TRIVIAL = np.full(DIM, 2e-8, dtype=np.float32)


def tasks_around_centres(num_tasks, *, dim=DIM, seed=0):
    generator = np.random.default_rng(seed)
    centres = 1.5 * generator.standard_normal((6, dim))
    logs = centres[generator.integers(6, size=num_tasks)] + 0.5 * generator.standard_normal((num_tasks, dim))
    keys = [(f"task{i:04}", 1 + i % 3) for i in generator.permutation(num_tasks)]
    return keys, (1e-7 * np.exp(logs)).astype(np.float32)


def rows_of(fisher, *, num_indexed=0):
    """The table of a space, its first rows under an index."""
    fisher = np.asarray(fisher, dtype=np.float32)
    names = pa.array([f"row{row}@1" for row in range(len(fisher))], pa.string())
    if not num_indexed:
        return EmbeddingRows(names, fisher, None, None, 1)
    below, above = fisher[:num_indexed], fisher[num_indexed:]
    index = VectorIndex.build(below)
    verified = np.zeros(num_indexed, dtype=bool)
    saved = SavedIndex(below, names[:num_indexed], row_checksums(below), index, num_indexed, "g", verified)
    return EmbeddingRows(names, above, saved, index.project(above), 1)


class WatchedRows:
    """Rows whose shortlist answers with the given numbers and remembers what it was asked."""

    def __init__(self, fisher, shortlist):
        self.rows = rows_of(fisher)
        self.distances = self.rows.distances
        self.answer = np.array(shortlist, dtype=np.int64)
        self.asked = []

    def __len__(self):
        return len(self.rows)

    def shortlist(self, query, k, allowed, /):
        self.asked.append((k, allowed))
        return self.answer[:k]


def find(query, table, keys, *, k, distance="task2vec", allowed=None, exclude=None, **options):
    return nearest(
        query,
        table,
        k=k,
        distance=distance,
        trivial=options.pop("trivial", TRIVIAL),
        allowed=np.ones(len(table), dtype=bool) if allowed is None else allowed,
        exclude=exclude,
        key_of=keys.__getitem__,
        **options,
    )


@pytest.mark.parametrize("num_indexed", [0, 40, 41, 60], ids=["memory", "most_in_index", "one_less", "index"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_nearest_matches_brute_force(distance, num_indexed, monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 50)
    keys, fisher = tasks_around_centres(60)
    query = fisher[7] * np.float32(1.5)
    expected = sorted(
        (reference(distance, row.tolist(), query.tolist(), TRIVIAL.tolist(), 0.15), keys[position], position)
        for position, row in enumerate(fisher.astype(float))
    )
    found = find(query, rows_of(fisher, num_indexed=num_indexed), keys, k=12, distance=distance)
    assert [position for position, _ in found] == [position for *_, position in expected[:12]]
    assert [value for _, value in found] == pytest.approx(
        [value for value, *_ in expected[:12]], rel=1e-5, abs=2e-6
    )


def test_registered_task_is_the_source_and_query_the_target():
    keys, fisher = tasks_around_centres(5)
    expected = pairwise("task2vec_asymmetric", fisher[1:], fisher[:1], trivial=TRIVIAL, alpha=0.4)[:, 0]
    found = find(fisher[0], rows_of(fisher[1:]), keys[1:], k=4, distance="task2vec_asymmetric", alpha=0.4)
    assert dict(found) == pytest.approx(dict(enumerate(expected)))


def test_k_larger_than_the_table_gives_all():
    keys, fisher = tasks_around_centres(5)
    assert len(find(fisher[0], rows_of(fisher), keys, k=50)) == 5


def test_empty_table_has_no_neighbours():
    assert find(np.ones(DIM), rows_of(np.empty((0, DIM))), [], k=3) == []


@settings(deadline=None, max_examples=40)
@given(names=st.permutations("abcdefgh"), k=st.integers(1, 8), copies=st.integers(2, 8))
def test_ties_are_broken_by_name_wherever_they_stand(names, k, copies):
    """The first ``copies`` rows are one embedding, farther than the rest."""
    fisher = np.geomspace(1, 2, 8)[:, None] ** np.arange(DIM)
    fisher[:copies] = fisher[0]
    found = find(fisher[-1].astype(np.float32), rows_of(fisher), [(name, 1) for name in names], k=k)
    farther = sorted(names[:copies])
    expected = [*names[copies:][::-1], *farther]
    assert [names[position] for position, _ in found] == expected[:k]


def test_ties_are_broken_by_name_across_index_and_memory(monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 10)
    fisher = np.tile(tasks_around_centres(1)[1], (90, 1))
    names = [(f"t{number:02}", 1) for number in np.random.default_rng(0).permutation(90)]
    for num_indexed in (0, 60):
        found = find(fisher[0], rows_of(fisher, num_indexed=num_indexed), names, k=5)
        assert [names[position] for position, _ in found] == sorted(names)[:5]


def test_ties_within_a_name_are_broken_by_version():
    keys = [("a", 10), ("a", 9), ("a", 2)]
    found = find(np.ones(DIM), rows_of(np.ones((3, DIM))), keys, k=2)
    assert [keys[position] for position, _ in found] == [("a", 2), ("a", 9)]


def test_filters_come_before_counting():
    keys, fisher = tasks_around_centres(60)
    allowed = np.arange(60) % 5 == 0
    found = find(fisher[0], rows_of(fisher), keys, k=11, exclude=0, allowed=allowed)
    assert sorted(position for position, _ in found) == list(range(5, 60, 5))
    np.testing.assert_array_equal(allowed, np.arange(60) % 5 == 0)


def test_nothing_left_by_the_filters_is_no_error():
    keys, fisher = tasks_around_centres(6)
    assert find(fisher[0], rows_of(fisher), keys, k=3, allowed=np.zeros(6, dtype=bool)) == []


@pytest.mark.parametrize(
    ("distance", "share", "num_indexed"),
    [("task2vec", 1, 1500), ("task2vec", 0.3, 1400), ("task2vec_asymmetric", 1, 1400)],
    ids=["all_indexed", "filtered", "asymmetric"],
)
def test_shortlisted_neighbours_are_the_exact_ones(distance, share, num_indexed, monkeypatch):
    monkeypatch.setattr(neighbors, "SHORTLIST_SIZE", 200)
    keys, fisher = tasks_around_centres(1515, dim=96)
    queries, fisher, keys = fisher[:15], fisher[15:], keys[15:]
    allowed = np.random.default_rng(1).random(1500) < share
    table, plain = rows_of(fisher, num_indexed=num_indexed), rows_of(fisher)
    hits = 0
    for query in queries:
        options = {"k": 10, "distance": distance, "trivial": np.full(96, 2e-8), "allowed": allowed}
        monkeypatch.setattr(neighbors, "EXACT_BELOW", 10_000)
        exact = dict(find(query, plain, keys, **options))
        monkeypatch.setattr(neighbors, "EXACT_BELOW", 100)
        found = find(query, table, keys, **options)
        assert [value for _, value in found] == sorted(value for _, value in found)
        assert len(found) == 10
        assert all(allowed[position] for position, _ in found)
        assert all(value == pytest.approx(exact.get(position, value), abs=1e-6) for position, value in found)
        hits += len(exact.keys() & dict(found).keys())
    assert hits >= 0.95 * 150


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_k_come_back_where_k_pass_whatever_the_filter(data):
    """Through the selector of the index, with filters from one row to all, near the query or far."""
    fisher, table, keys = indexed_table()
    near_first = np.argsort(pairwise("task2vec", fisher, fisher[:1])[:, 0])
    count = data.draw(st.integers(1, 400))
    start = data.draw(st.integers(0, 400 - count))
    allowed = np.zeros(400, dtype=bool)
    allowed[near_first[start : start + count]] = True
    k = data.draw(st.integers(1, 400))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "EXACT_BELOW", 1)
        patch.setattr(neighbors, "SHORTLIST_SIZE", 20)
        patch.setattr(neighbors, "SHORTLIST_PER_NEIGHBOR", 2)
        exclude = data.draw(st.sampled_from([None, int(near_first[start])]))
        found = find(fisher[0], table, keys, k=k, allowed=allowed, exclude=exclude)
    numbers = [position for position, _ in found]
    assert len(set(numbers)) == len(numbers) == min(k, count - (exclude is not None))
    assert allowed[numbers].all()
    assert exclude not in numbers


CACHE = []


def indexed_table():
    """Four hundred rows, most of them under an index."""
    if not CACHE:
        keys, fisher = tasks_around_centres(400)
        CACHE.append((fisher, rows_of(fisher, num_indexed=350), keys))
    return CACHE[0]


def test_shortlist_is_ranked_exactly(monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 10)
    monkeypatch.setattr(neighbors, "SHORTLIST_SIZE", 4)
    monkeypatch.setattr(neighbors, "SHORTLIST_PER_NEIGHBOR", 1)
    keys, fisher = tasks_around_centres(50)
    table = WatchedRows(fisher, [3, 9, 20, 30, 40, 5])
    found = find(fisher[0], table, keys, k=3)
    assert [k for k, _ in table.asked] == [5]  # one more than wanted, for the row that is left out
    candidates = [3, 9, 20, 30, 40]
    distances = dict(zip(candidates, pairwise("task2vec", fisher[candidates], fisher[:1])[:, 0], strict=True))
    assert [position for position, _ in found] == sorted(candidates, key=distances.__getitem__)[:3]


@pytest.mark.parametrize(
    ("exact_below", "distance"), [(51, "task2vec"), (10, "euclidean")], ids=["small_table", "euclidean"]
)
def test_shortlist_is_not_asked_where_it_is_no_use(exact_below, distance, monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", exact_below)
    keys, fisher = tasks_around_centres(50)
    table = WatchedRows(fisher, [0])
    assert len(find(fisher[0], table, keys, k=5, distance=distance)) == 5
    assert table.asked == []


def test_it_is_what_passes_that_counts_for_the_shortlist(monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 30)
    keys, fisher = tasks_around_centres(50)
    table = WatchedRows(fisher, np.arange(50))
    allowed = np.arange(50) < 29
    assert len(find(fisher[0], table, keys, k=50, allowed=allowed)) == 29
    assert table.asked == []
    allowed[29] = True
    find(fisher[0], table, keys, k=50, allowed=allowed)
    ((_, asked),) = table.asked
    np.testing.assert_array_equal(asked, allowed)


@pytest.mark.parametrize("rows", [[], [0, 1]], ids=["empty", "few"])
def test_shortlist_that_runs_dry_is_replaced_by_exact_search(rows, monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 10)
    keys, fisher = tasks_around_centres(50)
    table = WatchedRows(fisher, rows)
    found = find(fisher[9], table, keys, k=5)
    assert len(table.asked) == 1
    assert found == find(fisher[9], rows_of(fisher), keys, k=5)


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (np.ones(DIM), {"k": 0}, "k must be at least 1, got 0"),
        (np.ones(DIM - 1), {}, "targets has 23 filters but sources has 24"),
        (np.full(DIM, np.nan), {}, "an embedding must be finite and non-negative, but row 0 has nan"),
        (
            np.ones(DIM),
            {"distance": "task2vec_asymmetric", "trivial": None},
            "needs the trivial embedding of the space",
        ),
    ],
    ids=["k", "width", "nan", "trivial"],
)
def test_bad_question_is_refused(query, options, message):
    keys, fisher = tasks_around_centres(5)
    with pytest.raises(InvalidQueryError, match=re.escape(message)):
        find(query, rows_of(fisher), keys, **({"k": 3} | options))


def test_unknown_distance_is_not_found(monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 1)
    keys, fisher = tasks_around_centres(5)
    message = "no distance is named 'task3vec'; did you mean task2vec"
    with pytest.raises(NotFoundError, match=re.escape(message)):
        find(fisher[0], WatchedRows(fisher, []), keys, k=3, distance="task3vec")


@pytest.mark.parametrize("distance", neighbors.SHORTLISTED_DISTANCES)
def test_distances_that_are_kept_are_those_computed_at_once(distance):
    generator = np.random.default_rng(5)
    room = generator.lognormal(size=(700, 928)).astype(np.float32)
    trivial, queries = room[-1], room[:3]
    kept, how = KeptDistances(), {"trivial": trivial, "alpha": 0.15}
    for size in (1, 300, 301, 640, 500):
        keys = pa.array([f"task{row}@1" for row in range(size)])
        rows = EmbeddingRows(keys, room[:size], None, None, token=size, kept=kept)
        for selection in (np.arange(size), np.arange(size)[1:], np.arange(0, size, 3)):
            for query in queries:
                found = rows.distances(distance, query, selection, **how)
                expected = pairwise(distance, room[selection], query[None], trivial=trivial, alpha=0.15)
                np.testing.assert_array_equal(found, expected[:, 0])


def test_no_more_distances_are_kept_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(neighbors, "KEPT_BYTES", 3 * 8 * 5)
    rows, kept = np.ones((5, 4), np.float32), KeptDistances()
    computed = []
    monkeypatch.setattr(
        neighbors,
        "symmetric_distances",
        lambda name, sources, target: computed.append(float(target[0])) or np.full(len(sources), target[0]),
    )
    for number in (1, 2, 3, 1, 4, 1, 2):
        target = np.full(4, number, np.float32)
        assert kept.to("task2vec", target, rows).tolist() == [number] * 5
    assert computed == [1, 2, 3, 4, 2]  # 2 was asked for longest ago
    assert kept._bytes == 3 * 8 * 5
    assert kept.to("task2vec", target, np.ones((7, 4), np.float32)).tolist() == [2] * 7
