"""Nearest tasks: filter, shortlist where the table is large, then exact distances.

Axes: T tasks of the table, D filters of the probe.
"""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.distances import DEFAULT_ALPHA, checked_rows, pairwise
from registry.errors import InvalidQueryError

Key = tuple[str, int]

# With fewer tasks than this left after filtering, every distance is computed: it takes well under a second.
EXACT_BELOW = 20_000

# The distances that the index stands for. It knows nothing of the trivial task, whose share in the asymmetric
# distance is small beside the rest; a long list makes up for it and costs a few milliseconds to re-rank.
SHORTLISTED_DISTANCES = ("task2vec", "task2vec_asymmetric")
SHORTLIST_SIZE = 1000
SHORTLIST_PER_NEIGHBOR = 20


class Shortlist(Protocol):
    """What ``registry.index.VectorIndex`` is to this module."""

    @property
    def keys(self) -> Sequence[Key]:
        """Name and version of the task in each row."""

    def search(self, query: ArrayLike, k: int, /) -> NDArray[np.int64]:
        """Up to k positions in ``keys``, likely nearest first."""


def nearest(
    query: ArrayLike,
    table_keys: Sequence[Key],
    fisher: ArrayLike,
    *,
    k: int,
    distance: str = "task2vec",
    trivial: ArrayLike | None = None,
    alpha: float = DEFAULT_ALPHA,
    shortlist: Shortlist | None = None,
    exclude: Collection[str] = (),
    allowed: ArrayLike | None = None,
    exact_below: int = EXACT_BELOW,
) -> list[tuple[int, float]]:
    """The k tasks of the table that are nearest to the query.

    Filters come first, so k tasks are found wherever k are left. The distances are exact always; which
    tasks are compared is approximate where a shortlist is given, at least ``exact_below`` tasks are left and
    the distance is one of ``SHORTLISTED_DISTANCES``. An unknown distance is a ``NotFoundError``.

    Args:
        query: ``[D]``; the target, where the distance has a direction, and the tasks are the sources.
        table_keys: Name and version of the T tasks.
        fisher: ``[T, D]``, rows in the order of ``table_keys``.
        k: Most neighbours wanted, at least 1.
        distance: Name in ``registry.distances.DISTANCES``.
        trivial: ``[D]`` embedding of the trivial task, for asymmetric distances.
        alpha: Weight of the distance to the trivial task, for asymmetric distances.
        shortlist: Index of these tasks, or of more or fewer, in any order.
        exclude: Names of tasks left out, such as the query's own.
        allowed: ``[T]`` bool, the tasks that pass the caller's filter; all if not given.
        exact_below: See above.

    Returns:
        Position in the table and distance of up to k tasks, nearest first, ties in order of name and version.

    Raises:
        InvalidQueryError: If k is below 1 or the shapes disagree.
    """
    check_k(k)
    targets, table = checked_rows("query", np.asarray(query)[None]), np.asarray(fisher)
    _check_table(table, table_keys, targets.shape[1])
    candidates = _allowed_positions(table_keys, exclude, allowed)
    if shortlist is not None and distance in SHORTLISTED_DISTANCES and len(candidates) >= exact_below:
        candidates = _shortlisted(targets[0], table_keys, candidates, shortlist, k)
    rows = table if len(candidates) == len(table) else table[candidates]
    distances = pairwise(distance, rows, targets, trivial=trivial, alpha=alpha)[:, 0]
    return _closest(distances, candidates, table_keys, k)


def check_k(k: int) -> None:
    """Check a number of answers before the work that leads to them.

    Raises:
        InvalidQueryError: If it is below 1.
    """
    if k < 1:
        raise InvalidQueryError(f"k must be at least 1, got {k}")


def _check_table(table: NDArray[Any], table_keys: Sequence[Key], dim: int) -> None:
    if len(table) != len(table_keys):
        raise InvalidQueryError(f"{len(table_keys)} tasks need as many embeddings, got {len(table)}")
    if table.shape[1:] != (dim,):
        raise InvalidQueryError(
            f"the query has {dim} filters but the embeddings of the tasks have {table.shape[-1]}: "
            "only embeddings of the same space can be compared"
        )


def _allowed_positions(
    table_keys: Sequence[Key], exclude: Collection[str], allowed: ArrayLike | None
) -> NDArray[np.int64]:
    """Positions that pass both filters, rising.

    Raises:
        InvalidQueryError: If the mask is not of one value a task.
    """
    mask = np.ones(len(table_keys), dtype=bool) if allowed is None else np.array(allowed, dtype=bool)
    if mask.shape != (len(table_keys),):
        raise InvalidQueryError(
            f"{len(table_keys)} tasks need a filter of as many, got shape {list(mask.shape)}"
        )
    if exclude:
        mask &= np.fromiter((name not in exclude for name, _ in table_keys), dtype=bool, count=len(table_keys))
    return np.flatnonzero(mask)


def _shortlisted(
    query: NDArray[Any],
    table_keys: Sequence[Key],
    candidates: NDArray[np.int64],
    shortlist: Shortlist,
    k: int,
) -> NDArray[np.int64]:
    """The candidates that are likely the nearest; rows of the index are matched by key."""
    wanted = max(SHORTLIST_SIZE, SHORTLIST_PER_NEIGHBOR * k)
    # A filter takes its part of the shortlist too, so ask for that much more.
    asked = wanted * len(shortlist.keys) // len(candidates) + 1
    positions = {table_keys[position]: position for position in candidates.tolist()}
    keys = (shortlist.keys[row] for row in shortlist.search(query, asked).tolist())
    found = [positions[key] for key in keys if key in positions]
    # An index of other tasks, lists that ran dry, or a filter for what is far away: do not trust the few.
    if len(found) < min(wanted // 2, len(candidates)):
        return candidates
    return np.array(found, dtype=np.int64)


def _closest(
    distances: NDArray[np.float64], candidates: NDArray[np.int64], table_keys: Sequence[Key], k: int
) -> list[tuple[int, float]]:
    if not len(distances):
        return []
    last = min(k, len(distances)) - 1
    # Everything at the k-th distance takes part, so that a tie is decided by name and not by place.
    near = np.flatnonzero(distances <= np.partition(distances, last)[last])
    found = [(float(distances[index]), table_keys[candidates[index]], int(candidates[index])) for index in near]
    return [(position, distance) for distance, _, position in sorted(found)[:k]]
