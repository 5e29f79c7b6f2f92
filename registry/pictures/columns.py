"""A map as the columns that its script draws: on the web page, and in a file of its own.

Axes: T tasks, Q queries.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.pictures.figures import nearest_text
from registry.wording import GROUPS, KINDS

if TYPE_CHECKING:
    from registry.map_answers import Clustering, TaskMap

SCALE = 65_535
"""Positions are whole numbers up to this, in one scale for both axes."""


def map_columns(shown: "TaskMap") -> dict[str, Any]:
    """The tasks as columns, of which words that come often are numbered; and the queries."""
    to_pixels = _scaling(np.concatenate([shown.positions, shown.query_positions]))
    number_of_tags, tag_sets = _numbered(shown.tags)
    number_of_kind, kinds = _numbered(shown.kinds)
    (x, y), (query_x, query_y) = to_pixels(shown.positions), to_pixels(shown.query_positions)
    return {
        "names": list(shown.names),
        "x": x,
        "y": y,
        "classes": shown.num_classes.tolist(),
        "samples": shown.num_samples.tolist(),
        "kinds": [KINDS[kind] for kind in kinds],
        "counted": [GROUPS[kind] for kind in kinds],
        "kind": number_of_kind,
        "tagSets": tag_sets,
        "tagSet": number_of_tags,
        "neighbors": [nearest_text(near) for near in shown.nearest],
        "queries": [
            {"label": label, "x": across, "y": up}
            for label, across, up in zip(shown.queries, query_x, query_y, strict=True)
        ],
        "stress": shown.stress,
        "trustworthiness": shown.trustworthiness,
    }


def cluster_columns(names: Sequence[str], clustering: "Clustering") -> dict[str, Any]:
    """The cluster of each task of a map, from 0, or -1 for none; and what each cluster is called."""
    number_of = dict(zip(clustering.names, clustering.labels.tolist(), strict=True))
    return {
        "cluster": [number_of.get(name, 0) - 1 for name in names],
        "labels": [cluster.label for cluster in clustering.clusters],
        "medoids": [cluster.medoid for cluster in clustering.clusters],
    }


def compact(document: dict[str, Any]) -> str:
    """A document as JSON without spaces."""
    return json.dumps(document, separators=(",", ":"))


def _scaling(positions: np.ndarray) -> Callable[[np.ndarray], tuple[list[int], list[int]]]:
    """What turns positions ``[N, 2]`` into whole numbers, up being up."""
    low = positions.min(axis=0) if len(positions) else np.zeros(2)
    extent = float((positions - low).max()) if len(positions) else 0.0

    def scaled(some: np.ndarray) -> tuple[list[int], list[int]]:
        whole = np.round((some - low) * (SCALE / (extent or 1.0))).astype(np.int64).reshape(-1, 2)
        return whole[:, 0].tolist(), whole[:, 1].tolist()

    return scaled


def _numbered(values: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """The number of each value, and the values by number."""
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values], list(numbers)
