"""Nearest tasks: filter, shortlist where the table is large, then exact distances.

Axes: R rows of the table, N of them that are compared, D filters of the probe.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.distances import DEFAULT_ALPHA
from registry.options import check_k
from registry.records import Key

# With fewer rows than this left after filtering, every distance is computed: it takes a few milliseconds.
EXACT_BELOW = 20_000

# The distances that the index stands for. It knows nothing of the trivial task, whose share in the asymmetric
# distance is small beside the rest; a long list makes up for it and costs a few milliseconds to re-rank.
SHORTLISTED_DISTANCES = ("task2vec", "task2vec_asymmetric")
SHORTLIST_SIZE = 1000
SHORTLIST_PER_NEIGHBOR = 20


class Rows(Protocol):
    """What ``registry.index.rows.EmbeddingRows`` is to this module."""

    def __len__(self) -> int:
        """R."""

    def shortlist(self, query: NDArray[Any], k: int, allowed: NDArray[np.bool_], /) -> NDArray[np.int64]:
        """Up to k of the allowed rows that are likely the nearest."""

    def distances(
        self, name: str, query: NDArray[Any], rows: NDArray[np.int64], /, *, trivial: NDArray[Any], alpha: float
    ) -> NDArray[np.float64]:
        """Distance from each of some rows to the query."""


def nearest(
    query: NDArray[Any],
    rows: Rows,
    *,
    k: int,
    distance: str,
    trivial: NDArray[Any],
    allowed: NDArray[np.bool_],
    exclude: int | None,
    key_of: Callable[[int], Key],
    alpha: float = DEFAULT_ALPHA,
) -> list[tuple[int, float]]:
    """The k rows of the table that are nearest to the query.

    Filters come first, so k are found wherever k are left. The distances are exact always; which rows are
    compared is approximate where at least ``EXACT_BELOW`` are left and the distance is one of
    ``SHORTLISTED_DISTANCES``.

    Args:
        query: ``[D]``; the target, where the distance has a direction, and the rows are the sources.
        rows: The table.
        k: Most neighbours wanted, at least 1.
        distance: Name in ``registry.distances.DISTANCES``.
        trivial: ``[D]`` embedding of the trivial task, for asymmetric distances.
        allowed: ``[R]``, the rows that pass the caller's filter.
        exclude: A row left out, such as the query's own.
        key_of: Name and version of the task in a row.
        alpha: Weight of the distance to the trivial task, for asymmetric distances.

    Returns:
        Number and distance of up to k rows, nearest first, ties in order of name and version.

    Raises:
        InvalidQueryError: If k is below 1.
    """
    check_k(k)
    candidates = _candidates(query, rows, k, distance, allowed)
    if exclude is not None:
        candidates = candidates[candidates != exclude]
    distances = rows.distances(distance, query, candidates, trivial=trivial, alpha=alpha)
    return _closest(distances, candidates, key_of, k)


def _candidates(
    query: NDArray[Any], rows: Rows, k: int, distance: str, allowed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The rows to compare: all that are allowed, or a shortlist where they are many."""
    count = int(np.count_nonzero(allowed))
    if count >= EXACT_BELOW and distance in SHORTLISTED_DISTANCES:
        wanted = max(SHORTLIST_SIZE, SHORTLIST_PER_NEIGHBOR * k)
        found = rows.shortlist(query, wanted + 1, allowed)  # one more, for the row that is left out
        # Lists that ran dry: do not trust the few.
        if len(found) >= min(wanted // 2, count):
            return found
    return np.flatnonzero(allowed)


def _closest(
    distances: NDArray[np.float64], candidates: NDArray[np.int64], key_of: Callable[[int], Key], k: int
) -> list[tuple[int, float]]:
    if not len(distances):
        return []
    last = min(k, len(distances)) - 1
    # Everything at the k-th distance takes part, so that a tie is decided by name and not by place.
    near = np.flatnonzero(distances <= np.partition(distances, last)[last])
    found = [
        (float(distances[index]), key_of(int(candidates[index])), int(candidates[index])) for index in near
    ]
    return [(row, distance) for distance, _, row in sorted(found)[:k]]
