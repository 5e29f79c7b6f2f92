"""registry.neighbors against brute force, with filters, ties and shortlists."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references_distances import reference

from registry.distances import DISTANCES, pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.index import VectorIndex
from registry.neighbors import nearest

DIM = 24
TRIVIAL = np.full(DIM, 2e-8, dtype=np.float32)


def tasks_around_centres(num_tasks, *, dim=DIM, seed=0):
    generator = np.random.default_rng(seed)
    centres = 1.5 * generator.standard_normal((6, dim))
    logs = centres[generator.integers(6, size=num_tasks)] + 0.5 * generator.standard_normal((num_tasks, dim))
    keys = [(f"task{i:04}", 1 + i % 3) for i in generator.permutation(num_tasks)]
    return keys, (1e-7 * np.exp(logs)).astype(np.float32)


class WatchedShortlist:
    """A shortlist that answers with the given rows and remembers what it was asked."""

    def __init__(self, keys, rows):
        self.keys = keys
        self.rows = rows
        self.asked = []

    def search(self, query, k, /):
        self.asked.append(k)
        return np.array(self.rows[:k], dtype=np.int64)


@pytest.mark.parametrize("distance", DISTANCES)
def test_nearest_matches_brute_force(distance):
    keys, fisher = tasks_around_centres(40)
    query = fisher[7] * 1.5
    expected = sorted(
        (reference(distance, row.tolist(), query.tolist(), TRIVIAL.tolist(), 0.15), keys[position], position)
        for position, row in enumerate(fisher.astype(float))
    )
    found = nearest(query, keys, fisher, k=12, distance=distance, trivial=TRIVIAL)
    assert [position for position, _ in found] == [position for *_, position in expected[:12]]
    assert [value for _, value in found] == pytest.approx(
        [value for value, *_ in expected[:12]], rel=1e-5, abs=2e-6
    )


def test_registered_task_is_the_source_and_query_the_target():
    keys, fisher = tasks_around_centres(5)
    expected = pairwise("task2vec_asymmetric", fisher[1:], fisher[:1], trivial=TRIVIAL, alpha=0.4)[:, 0]
    found = nearest(
        fisher[0], keys[1:], fisher[1:], k=4, distance="task2vec_asymmetric", trivial=TRIVIAL, alpha=0.4
    )
    assert dict(found) == pytest.approx(dict(enumerate(expected)))


def test_k_larger_than_the_table_gives_all():
    keys, fisher = tasks_around_centres(5)
    assert len(nearest(fisher[0], keys, fisher, k=50)) == 5


def test_empty_table_has_no_neighbours():
    assert nearest(np.ones(DIM), [], np.empty((0, DIM), dtype=np.float32), k=3) == []


@settings(deadline=None, max_examples=40)
@given(names=st.permutations("abcdefgh"), k=st.integers(1, 8), copies=st.integers(2, 8))
def test_ties_are_broken_by_name_wherever_they_stand(names, k, copies):
    """The first ``copies`` rows are one embedding, farther than the rest."""
    fisher = np.geomspace(1, 2, 8)[:, None] ** np.arange(DIM)
    fisher[:copies] = fisher[0]
    found = nearest(fisher[-1], [(name, 1) for name in names], fisher, k=k)
    farther = sorted(names[:copies])
    expected = [*names[copies:][::-1], *farther]
    assert [names[position] for position, _ in found] == expected[:k]


def test_ties_within_a_name_are_broken_by_version():
    keys = [("a", 10), ("a", 9), ("a", 2)]
    found = nearest(np.ones(DIM), keys, np.ones((3, DIM)), k=2)
    assert [keys[position] for position, _ in found] == [("a", 2), ("a", 9)]


def test_filters_come_before_counting():
    keys, fisher = tasks_around_centres(60)
    allowed = np.arange(60) % 5 == 0
    exclude = {keys[0][0], keys[5][0]}
    found = nearest(fisher[0], keys, fisher, k=10, exclude=exclude, allowed=allowed)
    left = [position for position in range(60) if allowed[position] and keys[position][0] not in exclude]
    assert sorted(position for position, _ in found) == left
    np.testing.assert_array_equal(allowed, np.arange(60) % 5 == 0)


def test_nothing_left_by_the_filters_is_no_error():
    keys, fisher = tasks_around_centres(6)
    assert nearest(fisher[0], keys, fisher, k=3, allowed=np.zeros(6, dtype=bool)) == []


@pytest.mark.parametrize("index_below", [10_000, 100], ids=["flat", "inverted_lists"])
@pytest.mark.parametrize("distance", ["task2vec", "task2vec_asymmetric"])
def test_shortlisted_neighbours_are_the_exact_ones(distance, index_below, monkeypatch):
    monkeypatch.setattr("registry.neighbors.SHORTLIST_SIZE", 200)
    keys, fisher = tasks_around_centres(1515, dim=96)
    queries, fisher, keys = fisher[:15], fisher[15:], keys[15:]
    order = np.random.default_rng(1).permutation(1500)
    shortlist = VectorIndex.build([keys[i] for i in order], fisher[order], exact_below=index_below)
    trivial = np.full(96, 2e-8)
    hits = 0
    for query in queries:
        options = {"k": 10, "distance": distance, "trivial": trivial}
        exact = dict(nearest(query, keys, fisher, **options))
        found = nearest(query, keys, fisher, **options, shortlist=shortlist, exact_below=100)
        assert [value for _, value in found] == sorted(value for _, value in found)
        assert all(value == pytest.approx(exact.get(position, value), abs=1e-6) for position, value in found)
        hits += len(exact.keys() & dict(found).keys())
    assert hits >= 0.95 * 150


def test_shortlist_is_matched_by_key_and_ranked_exactly(monkeypatch):
    monkeypatch.setattr("registry.neighbors.SHORTLIST_SIZE", 4)
    monkeypatch.setattr("registry.neighbors.SHORTLIST_PER_NEIGHBOR", 1)
    keys, fisher = tasks_around_centres(50)
    other_order = keys[::-1]
    shortlist = WatchedShortlist(other_order, [3, 9, 20, 30, 40, 5])
    found = nearest(fisher[0], keys, fisher, k=3, shortlist=shortlist, exact_below=10)
    assert shortlist.asked == [5]
    candidates = [keys.index(other_order[row]) for row in (3, 9, 20, 30, 40)]
    distances = dict(zip(candidates, pairwise("task2vec", fisher[candidates], fisher[:1])[:, 0], strict=True))
    assert [position for position, _ in found] == sorted(candidates, key=distances.__getitem__)[:3]


@pytest.mark.parametrize(
    "options",
    [{"exact_below": 51}, {"exact_below": 10, "distance": "euclidean"}],
    ids=["small_table", "euclidean"],
)
def test_shortlist_is_not_asked_where_it_is_no_use(options):
    keys, fisher = tasks_around_centres(50)
    shortlist = WatchedShortlist(keys, [0])
    assert len(nearest(fisher[0], keys, fisher, k=5, shortlist=shortlist, **options)) == 5
    assert shortlist.asked == []


@pytest.mark.parametrize("rows", [[], [0, 1]], ids=["empty", "few"])
def test_shortlist_that_runs_dry_is_replaced_by_exact_search(rows):
    keys, fisher = tasks_around_centres(50)
    shortlist = WatchedShortlist(keys, rows)
    found = nearest(fisher[9], keys, fisher, k=5, shortlist=shortlist, exact_below=10)
    assert len(shortlist.asked) == 1
    assert found == nearest(fisher[9], keys, fisher, k=5)


def test_shortlist_of_other_tasks_is_replaced_by_exact_search():
    keys, fisher = tasks_around_centres(50)
    strangers = VectorIndex.build([(f"stranger{i}", 1) for i in range(50)], fisher)
    found = nearest(fisher[9], keys, fisher, k=5, shortlist=strangers, exact_below=10)
    assert found == nearest(fisher[9], keys, fisher, k=5)


def test_filter_that_the_shortlist_mostly_misses_still_gives_k():
    keys, fisher = tasks_around_centres(300)
    query = fisher[0]
    allowed = pairwise("task2vec", fisher, [query])[:, 0] > 0.3
    shortlist = VectorIndex.build(keys, fisher)
    options = {"k": 10, "allowed": allowed}
    found = nearest(query, keys, fisher, **options, shortlist=shortlist, exact_below=10)
    assert found == nearest(query, keys, fisher, **options)
    assert len(found) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"query": np.ones(DIM - 1)}, "the query has 23 filters but the embeddings of the tasks have 24"),
        (
            {"query": np.full(DIM, np.nan)},
            "query: an embedding must be finite and non-negative, but row 0 has nan",
        ),
        ({"allowed": [True]}, "5 tasks need a filter of as many, got shape [1]"),
        ({"table_keys": [("a", 1)]}, "1 tasks need as many embeddings, got 5"),
        ({"distance": "task2vec_asymmetric"}, "needs the trivial embedding of the space"),
    ],
)
def test_bad_question_is_refused(changes, message):
    keys, fisher = tasks_around_centres(5)
    good = {"query": fisher[0], "table_keys": keys, "fisher": fisher, "k": 3}
    with pytest.raises(InvalidQueryError, match=re.escape(message)):
        nearest(**(good | changes))


def test_unknown_distance_is_not_found_even_with_a_shortlist():
    keys, fisher = tasks_around_centres(5)
    with pytest.raises(
        NotFoundError, match=re.escape("no distance is named 'task3vec'; did you mean task2vec")
    ):
        nearest(
            fisher[0],
            keys,
            fisher,
            k=3,
            distance="task3vec",
            shortlist=WatchedShortlist(keys, []),
            exact_below=1,
        )
