"""Clusters of tasks by distance: average linkage or HDBSCAN, as many as set themselves apart.

Axes: T tasks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
from numpy.typing import NDArray

from registry.errors import InvalidQueryError, NotFoundError
from registry.map_answers import TagShare, TaskCluster
from registry.options import CLUSTER_METHODS

EACH_TRIED = 50
"""Up to here every number of clusters is tried; beyond, some."""

SMALLEST_SIZES = (2, 3, 4, 5, 8, 12, 20, 30)
"""Smallest sizes of a cluster that are tried with HDBSCAN."""

TAGS_NAMED = 3
SMALLEST_SHARE = 1 / 3
"""The share of the tasks of a cluster that a tag must have to be named."""

NOISE = 0
"""Label of tasks in no cluster; clusters are numbered from 1."""

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Which tasks go together."""

    labels: Labels  # ``[T]`` from 1, or ``NOISE``
    silhouette: float | None  # silhouette of the clusters, noise left out; ``None`` where it is not defined
    tried: tuple[tuple[int, float], ...]  # each number that was compared, with its silhouette
    cut_height: float | None  # where the tree was cut
    tree: Array = field(repr=False)  # ``[T - 1, 4]`` of average linkage


def check_options(method: str, num_clusters: int | None, cut_height: float | None) -> None:
    """Check the options of a clustering before the work.

    Raises:
        NotFoundError: If there is no such method.
        InvalidQueryError: If a number is out of its range, or asks what the method does not take.
    """
    if method not in CLUSTER_METHODS:
        raise NotFoundError("method of clustering", method, CLUSTER_METHODS)
    if num_clusters is not None and cut_height is not None:
        raise InvalidQueryError("a number of clusters and a height to cut at exclude each other; give one")
    if method == "hdbscan" and (num_clusters is not None or cut_height is not None):
        raise InvalidQueryError(
            "hdbscan finds the number of clusters itself; leave it out, or use the method agglomerative"
        )
    if num_clusters is not None and num_clusters < 1:
        raise InvalidQueryError(f"the number of clusters must be at least 1, got {num_clusters}")
    if cut_height is not None and not 0 <= cut_height < np.inf:
        raise InvalidQueryError(f"the height to cut at must be at least 0, got {cut_height:g}")


def partition(
    distances: Array,
    *,
    method: str = "agglomerative",
    num_clusters: int | None = None,
    cut_height: float | None = None,
) -> Partition:
    """Part tasks into clusters.

    Unless a number or a height is given, the number of clusters of average linkage is the one with the highest
    silhouette, from 2 to half the tasks. Cuts that only take single tasks off the rest do not count, as a
    silhouette likes nothing better: the second largest cluster must hold 2 tasks and a hundredth of all. For
    HDBSCAN the smallest size of a cluster is chosen in this way, each silhouette counting for the share of
    tasks that are in a cluster. Among equals the smaller number is taken. Where none has a silhouette above 0,
    average linkage makes one cluster of all.

    Args:
        distances: ``[T, T]`` symmetric, zero on the diagonal.
        method: One of ``CLUSTER_METHODS``.
        num_clusters: Number of clusters asked for.
        cut_height: Distance at which the tree is cut: clusters whose mean distance is at most so much are one.

    Raises:
        InvalidQueryError: If there are fewer tasks than clusters asked for; see ``check_options`` too.

    Source:
        Sokal and Michener, 1958, average linkage. Campello, Moulavi and Sander, PAKDD 2013, HDBSCAN. Rousseeuw,
        Journal of Computational and Applied Mathematics 20, 1987, silhouettes.
    """
    check_options(method, num_clusters, cut_height)
    num_tasks = len(distances)
    if num_clusters is not None and num_clusters > num_tasks:
        raise InvalidQueryError(
            f"there are {num_tasks} tasks, which make no {num_clusters} clusters; ask for at most {num_tasks}"
        )
    tree = average_linkage(distances)
    if method == "hdbscan":
        return _by_density(distances, tree)
    if num_clusters is None and cut_height is None:
        return _by_silhouette(distances, tree)
    if cut_height is None:
        labels, height = cut_into(tree, num_clusters or 1), height_of(tree, num_clusters or 1)
    else:
        labels, height = cut_at(tree, cut_height), cut_height
    return Partition(labels, silhouette(distances, labels), (), height, tree)


def average_linkage(distances: Array) -> Array:
    """The tree ``[T - 1, 4]`` of average linkage, as scipy has it."""
    if len(distances) < 2:
        return np.zeros((0, 4))
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return np.asarray(linkage(squareform(distances, checks=False), "average"))


def cut_into(tree: Array, num_clusters: int) -> Labels:
    """Labels ``[T]`` after all but the last ``num_clusters - 1`` merges: so many clusters, ties or not."""
    num_tasks = len(tree) + 1
    parents = np.arange(2 * num_tasks - 1)
    for merge in range(num_tasks - num_clusters):
        parents[tree[merge, :2].astype(int)] = num_tasks + merge
    for node in range(2 * num_tasks - 2, -1, -1):
        parents[node] = parents[parents[node]]
    return np.unique(parents[:num_tasks], return_inverse=True)[1].astype(np.int64) + 1


def cut_at(tree: Array, height: float) -> Labels:
    """Labels ``[T]`` after every merge up to a height."""
    return cut_into(tree, len(tree) + 1 - int((tree[:, 2] <= height).sum()))


def height_of(tree: Array, num_clusters: int) -> float:
    """A height at which the tree falls into ``num_clusters`` clusters: half way between two merges."""
    heights = [0.0, *tree[:, 2].tolist()]
    merges = len(heights) - num_clusters
    return float(heights[merges] if num_clusters == 1 else (heights[merges] + heights[merges + 1]) / 2)


def silhouette(distances: Array, labels: Labels) -> float | None:
    """Mean silhouette, -1 to 1, of the tasks that are in a cluster; ``None`` where it is not defined."""
    inside = labels != NOISE
    num_inside, num_clusters = int(inside.sum()), len(np.unique(labels[inside]))
    if not 2 <= num_clusters < num_inside:
        return None
    from sklearn.metrics import silhouette_score

    chosen = distances if inside.all() else distances[np.ix_(inside, inside)]
    return float(silhouette_score(chosen, labels[inside], metric="precomputed"))


def _by_silhouette(distances: Array, tree: Array) -> Partition:
    num_tasks = len(distances)
    tried, best = [], (0.0, -1)
    for number in _numbers(num_tasks // 2):
        labels = cut_into(tree, number)
        second = int(np.sort(np.bincount(labels))[-2])
        if second >= max(2, num_tasks / 100) and (score := silhouette(distances, labels)) is not None:
            tried.append((number, score))
            best = max(best, (score, -number))
    number = -best[1] if num_tasks else 0
    labels = cut_into(tree, number) if num_tasks else np.zeros(0, np.int64)
    height = height_of(tree, number) if num_tasks else None
    return Partition(labels, best[0] if number > 1 else None, tuple(tried), height, tree)


def _numbers(most: int) -> list[int]:
    """Numbers of clusters to try: each up to ``EACH_TRIED``, then each a tenth more than the last."""
    numbers = list(range(2, min(most, EACH_TRIED) + 1))
    while numbers and (following := numbers[-1] + max(1, numbers[-1] // 10)) <= most:
        numbers.append(following)
    return numbers


def _by_density(distances: Array, tree: Array) -> Partition:
    tried: list[tuple[int, float]] = []
    best, labels = 0.0, np.zeros(len(distances), np.int64)
    for size in SMALLEST_SIZES:
        if 2 * size > len(distances):
            break
        candidate = _hdbscan(distances, size)
        score = silhouette(distances, candidate)
        weighed = 0.0 if score is None else score * float((candidate != NOISE).mean())
        tried.append((size, weighed))
        if weighed > best:
            best, labels = weighed, candidate
    return Partition(labels, silhouette(distances, labels), tuple(tried), None, tree)


def _hdbscan(distances: Array, size: int) -> Labels:
    if not distances.any():  # all in one place: nothing to tell apart, and densities without end
        return np.ones(len(distances), np.int64)
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(min_cluster_size=size, metric="precomputed", copy=True, n_jobs=1)
    return np.asarray(model.fit_predict(distances), np.int64) + 1


def medoid(distances: Array) -> int:
    """The task with the smallest sum of distances to the others; among equals the first."""
    sums = distances.sum(axis=1)
    return int(np.flatnonzero(sums <= sums.min() + 1e-12 * len(sums))[0])


def distinguishing_tags(
    inside: Counter[str], num_inside: int, outside: Counter[str], num_outside: int
) -> tuple[TagShare, ...]:
    """Tags that set some tasks apart from others, the strongest first, at most ``TAGS_NAMED``.

    A tag counts by the log of its odds inside over its odds outside, half a task added to each count. Only tags
    that at least a third of the tasks inside have are named, and only where the share outside is smaller. Among
    equals the first in the alphabet is taken.
    """

    def weight(tag: str) -> float:
        odds = (inside[tag] + 0.5) / (num_inside - inside[tag] + 0.5)
        return log(odds / ((outside[tag] + 0.5) / (num_outside - outside[tag] + 0.5)))

    shares = [TagShare(tag, inside[tag] / num_inside, outside[tag] / max(num_outside, 1)) for tag in inside]
    apart = [share for share in shares if share.inside >= SMALLEST_SHARE and share.inside > share.outside]
    return tuple(sorted(apart, key=lambda share: (-round(weight(share.tag), 9), share.tag))[:TAGS_NAMED])


def describe(
    names: Sequence[str],
    tags: Sequence[Sequence[str]],
    labels: Labels,
    compared: NDArray[np.int64],
    distances: Array,
) -> tuple[tuple[TaskCluster, ...], Labels]:
    """Clusters by falling size, ties by name of the medoid, and labels ``[T]`` in that order.

    Args:
        names: T tasks, in order of name.
        tags: Tags of each task.
        labels: ``[T]`` in any numbers above ``NOISE``.
        compared: ``[L]`` rising, the tasks whose distances are known; some of each cluster.
        distances: ``[L, L]`` between those.
    """
    total = Counter(tag for of_task in tags for tag in of_task)
    described = []
    for label in np.unique(labels[labels != NOISE]).tolist():
        members = np.flatnonzero(labels == label)
        measured = np.flatnonzero(labels[compared] == label)
        between = distances[np.ix_(measured, measured)]
        centre = medoid(between)
        radius = float(between[centre].sum()) / max(len(measured) - 1, 1)
        described.append((-len(members), names[compared[measured[centre]]], radius, members))
    clusters, numbers = [], np.zeros(len(labels), np.int64)
    for number, (_, name, radius, members) in enumerate(sorted(described, key=lambda row: row[:2]), start=1):
        numbers[members] = number
        inside = Counter(tag for member in members.tolist() for tag in tags[member])
        apart = distinguishing_tags(inside, len(members), total - inside, len(names) - len(members))
        title = f"{name} ({', '.join(share.tag for share in apart)})" if apart else name
        of_cluster = tuple(names[member] for member in members.tolist())
        clusters.append(TaskCluster(number, title, len(members), name, radius, apart, of_cluster))
    return tuple(clusters), numbers
