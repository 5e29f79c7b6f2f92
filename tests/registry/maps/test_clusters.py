"""Clusters: against scipy, loops and what is known of the data."""

import re
from collections import Counter

import numpy as np
import pytest
from builders_maps import grouped
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.distances import pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.maps import clusters
from registry.options import CLUSTER_METHODS


def matrix(fisher):
    lower = np.tril(pairwise("task2vec", fisher, fisher), -1)
    return lower + lower.T


def random_distances(count, seed):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def same_partition(one, other):
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def naive_silhouette(distances, labels):
    """Rousseeuw's definition, task by task."""
    values = []
    for row, own in enumerate(labels):
        others = [place for place, label in enumerate(labels) if label == own and place != row]
        if not others:
            values.append(0.0)
            continue
        inner = np.mean([distances[row, place] for place in others])
        outer = min(
            np.mean([distances[row, place] for place, label in enumerate(labels) if label == other])
            for other in set(labels) - {own}
        )
        values.append((outer - inner) / max(inner, outer))
    return float(np.mean(values))


def naive_average_linkage(distances, num_clusters):
    """Merge the two groups with the smallest mean distance until so many are left."""
    groups = [[place] for place in range(len(distances))]
    while len(groups) > num_clusters:
        pairs = [(a, b) for a in range(len(groups)) for b in range(a)]
        a, b = min(pairs, key=lambda pair: distances[np.ix_(groups[pair[0]], groups[pair[1]])].mean())
        groups[b] += groups.pop(a)
    labels = np.zeros(len(distances), int)
    for number, members in enumerate(groups):
        labels[members] = number
    return labels


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 14), st.integers(0, 2**31), st.data())
def test_average_linkage_matches_a_loop(count, seed, data):
    distances = random_distances(count, seed)
    wanted = data.draw(st.integers(1, count))
    partition = clusters.partition(distances, num_clusters=wanted)
    assert same_partition(partition.labels.tolist(), naive_average_linkage(distances, wanted).tolist())
    assert len(set(partition.labels.tolist())) == wanted
    again = clusters.cut_at(partition.tree, clusters.height_of(partition.tree, wanted))
    assert same_partition(again.tolist(), partition.labels.tolist())


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 14), st.integers(0, 2**31), st.floats(0, 3))
def test_a_cut_at_a_height_is_that_of_scipy(count, seed, height):
    from scipy.cluster.hierarchy import fcluster

    partition = clusters.partition(random_distances(count, seed), cut_height=height)
    assert same_partition(partition.labels.tolist(), fcluster(partition.tree, height, "distance").tolist())
    assert partition.cut_height == height


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 12), st.integers(2, 3), st.integers(0, 2**31))
def test_silhouette_matches_a_loop(count, wanted, seed):
    distances = random_distances(count, seed)
    labels = clusters.partition(distances, num_clusters=wanted).labels
    assert clusters.silhouette(distances, labels) == pytest.approx(naive_silhouette(distances, labels.tolist()))


@pytest.mark.parametrize("method", CLUSTER_METHODS)
def test_groups_are_found(method):
    distances = matrix(grouped(30, spread=0.2))
    partition = clusters.partition(distances, method=method)
    inside = partition.labels != clusters.NOISE
    assert inside.mean() > 0.8
    assert same_partition(partition.labels[inside].tolist(), (np.arange(30)[inside] % 3).tolist())
    assert partition.silhouette > 0.5


def test_the_number_of_clusters_has_the_highest_silhouette():
    distances = matrix(grouped(24, spread=0.8))
    partition = clusters.partition(distances)
    best = max(partition.tried, key=lambda pair: (pair[1], -pair[0]))
    assert best == (len(set(partition.labels.tolist())), pytest.approx(partition.silhouette))
    assert max(number for number, _ in partition.tried) == 12


def test_one_odd_task_is_no_cluster_by_itself():
    """A silhouette alone would cut it off and be content."""
    fisher = grouped(21, spread=0.3)
    fisher[0] = fisher[0][::-1] ** 3
    distances = matrix(fisher)
    assert clusters.silhouette(distances, clusters.cut_into(clusters.average_linkage(distances), 2)) is not None
    partition = clusters.partition(distances)
    assert sorted(Counter(partition.labels.tolist()).values())[-2] >= 2


def test_many_numbers_are_tried_in_steps():
    numbers = clusters._numbers(1000)
    assert numbers[:49] == list(range(2, 51))
    assert numbers[-1] <= 1000 < 1.1 * numbers[-1] + 1
    assert clusters._numbers(1) == []


@pytest.mark.parametrize("method", CLUSTER_METHODS)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_few_tasks_are_parted(method, count):
    partition = clusters.partition(random_distances(count, 0), method=method)
    assert len(partition.labels) == count
    assert partition.silhouette is None
    assert set(partition.labels.tolist()) <= {0, 1}


@pytest.mark.parametrize("method", CLUSTER_METHODS)
def test_tasks_that_are_all_the_same_are_one_cluster_or_none(method):
    partition = clusters.partition(np.zeros((12, 12)), method=method)
    assert len(set(partition.labels.tolist())) == 1


@pytest.mark.parametrize("method", CLUSTER_METHODS)
def test_duplicates_are_parted(method):
    fisher = grouped(12, spread=0.2)
    partition = clusters.partition(matrix(np.concatenate([fisher, fisher])), method=method)
    assert (partition.labels[:12] == partition.labels[12:]).all()


def test_hdbscan_leaves_out_what_belongs_nowhere():
    fisher = grouped(31, spread=0.1)
    fisher[30] = np.random.default_rng(9).lognormal(0, 3, fisher.shape[1])
    assert clusters.partition(matrix(fisher), method="hdbscan").labels[30] == clusters.NOISE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clusters": 0}, "the number of clusters must be at least 1, got 0"),
        ({"num_clusters": 5}, "there are 4 tasks, which make no 5 clusters; ask for at most 4"),
        ({"cut_height": -1.0}, "the height to cut at must be at least 0, got -1"),
        ({"cut_height": float("nan")}, "the height to cut at must be at least 0, got nan"),
        (
            {"num_clusters": 2, "cut_height": 0.3},
            "a number of clusters and a height to cut at exclude each other; give one",
        ),
        (
            {"method": "hdbscan", "num_clusters": 2},
            "hdbscan finds the number of clusters itself; leave it out, or use the method agglomerative",
        ),
    ],
)
def test_what_cannot_be_asked_is_reported(options, message):
    with pytest.raises(InvalidQueryError, match=f"^{re.escape(message)}$"):
        clusters.partition(random_distances(4, 0), **options)


def test_an_unknown_method_is_reported():
    with pytest.raises(NotFoundError, match="no method of clustering is named 'kmeans'"):
        clusters.partition(random_distances(4, 0), method="kmeans")


def test_the_medoid_is_in_the_middle_and_the_first_of_equals():
    places = np.array([0.0, 1.0, 2.0, 9.0])
    assert clusters.medoid(np.abs(places[:, None] - places)) == 1
    assert clusters.medoid(np.ones((3, 3)) - np.eye(3)) == 0


def test_tags_are_told_by_their_odds():
    inside = Counter({"rare": 3, "common": 4, "once": 1})
    shares = clusters.distinguishing_tags(inside, 4, Counter({"common": 8}), 10)
    assert [(share.tag, share.inside, share.outside) for share in shares] == [
        ("rare", 0.75, 0.0),
        ("common", 1.0, 0.8),
    ]


def test_tags_with_the_same_odds_come_in_order_of_the_alphabet():
    shares = clusters.distinguishing_tags(Counter("dcba"), 1, Counter(), 5)
    assert [share.tag for share in shares] == ["a", "b", "c"]


def test_tags_that_others_have_more_often_are_not_named():
    assert clusters.distinguishing_tags(Counter({"a": 1}), 2, Counter({"a": 9}), 10) == ()
    assert clusters.distinguishing_tags(Counter({"a": 2}), 2, Counter(), 0)[0].outside == 0


def test_clusters_are_described_by_size_medoid_and_tags():
    names = [f"t{place}" for place in range(6)]
    tags = [("a",), ("a", "x"), ("a",), ("b",), ("b",), ()]
    distances = np.abs(np.subtract.outer(np.array([0, 1, 2, 10, 11, 50.0]), np.array([0, 1, 2, 10, 11, 50.0])))
    described, labels = clusters.describe(names, tags, np.array([7, 7, 7, 4, 4, 0]), np.arange(6), distances)
    assert [
        (cluster.number, cluster.label, cluster.size, cluster.medoid, cluster.radius) for cluster in described
    ] == [(1, "t1 (a, x)", 3, "t1", 1.0), (2, "t3 (b)", 2, "t3", 1.0)]
    assert labels.tolist() == [1, 1, 1, 2, 2, 0]
    assert described[1].members == ("t3", "t4")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from(CLUSTER_METHODS))
def test_every_task_is_in_one_cluster_or_in_none(count, seed, method):
    distances = random_distances(count, seed)
    parted = clusters.partition(distances, method=method)
    names = [f"t{place:02}" for place in range(count)]
    partition, labels = clusters.describe(names, [()] * count, parted.labels, np.arange(count), distances)
    members = [name for cluster in partition for name in cluster.members]
    noise = [name for name, label in zip(names, labels, strict=True) if label == clusters.NOISE]
    assert sorted(members + noise) == names
    assert [it.size for it in partition] == sorted((it.size for it in partition), reverse=True)
    assert all(it.medoid in it.members and it.radius >= 0 for it in partition)
