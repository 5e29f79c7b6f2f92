"""Groups of tasks with their colours and shapes, titles and captions: what images and pages share.

Axes: T tasks.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from registry.errors import InvalidQueryError
from registry.pictures.palette import SERIES
from registry.wording import KINDS

if TYPE_CHECKING:
    from registry.map_answers import Clustering, LayerProfile, TaskMap

NUM_COLOURS = len(SERIES)
NUM_SHAPES = 8
LABEL_LENGTH = 44
CLUSTERS_NAMED = 24
"""Number of clusters that a legend names; smaller ones share one entry."""

REST = -1
"""Colour of groups that have none of their own."""


@dataclass(frozen=True, eq=False)
class Group:
    """Tasks that are drawn alike."""

    label: str
    members: NDArray[np.int64] = field(repr=False)  # which of the T
    colour: int  # number of a colour of the palette, or ``REST``
    shape: int  # 0 to ``NUM_SHAPES`` - 1


def groups_of(shown: "TaskMap", colour: str, clustering: "Clustering | None" = None) -> list[Group]:
    """Tasks in groups that together hold all of them; those with the most tasks first."""
    if colour == "cluster" and clustering is not None:
        return _by_cluster(shown, clustering)
    if colour == "tag":
        return _by_tag(shown)
    counts = Counter(shown.kinds)
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return [
        _group(KINDS[kind], np.flatnonzero([one == kind for one in shown.kinds]), n)
        for n, kind in enumerate(kinds)
    ]


def _by_cluster(shown: "TaskMap", clustering: "Clustering") -> list[Group]:
    number_of = dict(zip(clustering.names, clustering.labels.tolist(), strict=True))
    labels = np.array([number_of.get(name, 0) for name in shown.names], np.int64)
    alone = np.zeros(len(labels), dtype=bool)
    groups: list[Group] = []
    for cluster in clustering.clusters:
        members = np.flatnonzero(labels == cluster.number)
        if cluster.size == 1:
            alone[members] = True
        elif len(members):
            groups.append(_group(shortened(cluster.label), members, len(groups)))
    smaller = np.zeros(len(labels), dtype=bool)
    for group in groups[CLUSTERS_NAMED:]:
        smaller[group.members] = True
    del groups[CLUSTERS_NAMED:]
    rest = (("in smaller clusters", smaller), ("alone in a cluster", alone), ("in no cluster", labels == 0))
    return groups + [_rest(label, np.flatnonzero(mask)) for label, mask in rest if mask.any()]


def _by_tag(shown: "TaskMap") -> list[Group]:
    """Each task by the first of eight tags that it has: those which together, one by one, cover the most."""
    left, groups = dict(enumerate(shown.tags)), list[Group]()
    while left and len(groups) < NUM_COLOURS:
        counts = Counter(tag for tags in left.values() for tag in tags)
        if not counts:
            break
        tag = min(counts, key=lambda tag: (-counts[tag], tag))
        members = [place for place, tags in left.items() if tag in tags]
        groups.append(_group(shortened(tag), np.array(members, np.int64), len(groups)))
        for place in members:
            del left[place]
    if left:
        label = "other tags" if any(left.values()) else "no tag"
        groups.append(_rest(label, np.array(sorted(left), np.int64)))
    return groups


def _group(label: str, members: NDArray[np.int64], number: int) -> Group:
    shape = (number + number // NUM_COLOURS) % NUM_SHAPES
    return Group(f"{label}: {len(members):,}", members, number % NUM_COLOURS, shape)


def _rest(label: str, members: NDArray[np.int64]) -> Group:
    return Group(f"{label}: {len(members):,}", members, REST, 0)


def shortened(label: str, length: int = LABEL_LENGTH) -> str:
    """A label that fits a legend, or so many characters."""
    return label if len(label) <= length else f"{label[: length - 1].rstrip(' ,(')}…"


def nearest_text(nearest: Sequence[tuple[str, float]]) -> str:
    """Tasks with their distances."""
    return ", ".join(f"{name} {distance:.3f}" for name, distance in nearest)


def title_of(shown: "TaskMap") -> str:
    """Title of a map."""
    tasks = f"{len(shown):,} {'task' if len(shown) == 1 else 'tasks'}"
    return f"Map of {tasks}" + (f", and {' and '.join(shown.queries)}" if shown.queries else "")


def caption_of(shown: "TaskMap") -> str:
    """How a map was made and how far it can be trusted, in one line."""
    over = f" on {shown.num_measured:,} tasks" if shown.num_landmarks else ""
    landmarks = f" of {shown.num_landmarks:,} landmarks" if shown.num_landmarks else ""
    return (
        f"{shown.distance} distances, {shown.method}{landmarks}, seed {shown.seed}. Trustworthiness "
        f"{shown.trustworthiness:.3f} ({shown.num_neighbors} neighbours), stress-1 {shown.stress:.3f}{over}."
    )


def axis_label(distance: str) -> str:
    """The label of the axes of a map."""
    return f"{distance} distance ({unit_of(distance)})"


def unit_of(distance: str) -> str:
    """Unit of a distance, in words."""
    from registry.distances import get_distance

    unit = get_distance(distance).unit
    return "no unit" if unit == "none" else unit


def matrix_title(clustering: "Clustering") -> str:
    """Title of a matrix of distances."""
    return f"{clustering.distance} distances between {len(clustering.names):,} tasks"


def profile_title(profile: "LayerProfile") -> str:
    """Title of a profile."""
    return f"{profile.source} and {profile.target}, layer by layer"


def matrix_of(clustering: "Clustering") -> NDArray[np.float64]:
    """The distances ``[T, T]`` of a clustering; ``InvalidQueryError`` if they are too many to be drawn."""
    if clustering.matrix is None:
        raise InvalidQueryError(
            f"a matrix of {len(clustering.names):,} tasks is too large to draw; filter them, or draw a map"
        )
    return clustering.matrix


def tree_of(clustering: "Clustering") -> tuple[list[int], list[tuple[list[float], list[float]]]]:
    """Order of the tasks in the tree of average linkage, and its lines, tasks at 0 to T - 1.

    Returns:
        The order, and of each merge the corners ``[4]`` of its bracket: places and heights.

    Raises:
        InvalidQueryError: If the tasks are too many to be drawn.
    """
    matrix_of(clustering)
    if len(clustering.names) < 2 or clustering.tree is None:
        return list(range(len(clustering.names))), []
    from scipy.cluster.hierarchy import dendrogram

    drawn = dendrogram(clustering.tree, no_plot=True)
    lines = [
        ([(x - 5) / 10 for x in places], list(heights))
        for places, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]
    return [int(leaf) for leaf in drawn["leaves"]], lines


def runs(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of at least two tasks of one cluster, in an order of tasks."""
    start = 0
    for end in range(1, len(labels) + 1):
        if end == len(labels) or labels[end] != labels[start]:
            if end - start > 1 and labels[start]:
                yield start, end
            start = end
