"""Distances between embeddings, in plain numpy."""

from registry.distances.distances import (
    DEFAULT_ALPHA,
    DISTANCES,
    Distance,
    check_trivial,
    checked_rows,
    get_distance,
    list_distances,
    pairwise,
    symmetric_distances,
)
from registry.distances.formulas import cosine_distances

__all__ = [
    "DEFAULT_ALPHA",
    "DISTANCES",
    "Distance",
    "check_trivial",
    "checked_rows",
    "cosine_distances",
    "get_distance",
    "list_distances",
    "pairwise",
    "symmetric_distances",
]
