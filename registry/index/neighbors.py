"""The embeddings of a space as rows, and which are near: filter, shortlist where they are many, compare.

Rows lie in memory, or are mapped from the files of the index; they never change.

Axes: R rows, M of them in memory, N some of them, D filters of the probe, P principal directions.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from registry.distances import DEFAULT_ALPHA, check_trivial, get_distance, pairwise, symmetric_distances
from registry.errors import InvalidQueryError, StorageError
from registry.index.files import SavedIndex
from registry.names import Key

# With fewer rows than this left after filtering, every distance is computed: it takes a few milliseconds.
EXACT_BELOW = 20_000

# The distances that the index stands for. It knows nothing of the trivial task, whose share in the asymmetric
# distance is small beside the rest; a long list makes up for it and costs a few milliseconds to re-rank.
SHORTLISTED_DISTANCES = ("task2vec", "task2vec_asymmetric")
SHORTLIST_SIZE = 1000
SHORTLIST_PER_NEIGHBOR = 20

Float32 = NDArray[np.float32]
Positions = NDArray[np.int64]

BATCH_ROWS = 4096
MOST_ROWS = 0.9  # from this share on, all rows are compared and those that are asked for are taken
NO_KEY = ""
KEPT_BYTES = 2**26
"""Of distances to what was asked about last, in one space: 800 questions about 10,000 tasks."""


class DamagedIndexError(StorageError):
    """A mapped row is not what was written; caught by who owns the rows, who then builds the index again."""

    def __init__(self, path: str, generation: str, row: int) -> None:
        super().__init__(f"{path}: row {row} is not what was written, once more; check the disk for errors")
        self.path = path
        self.generation = generation
        self.row = row

    def __reduce__(self) -> tuple[type, tuple[str, str, int]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.path, self.generation, self.row)


class KeptDistances:
    """Distances from rows in memory to what was asked about last; threads may share it.

    Rows never change, and further ones come after them: of what is asked again only those are compared.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, bytes], NDArray[np.float64]] = OrderedDict()
        self._bytes = 0

    def to(self, name: str, target: Float32, rows: Float32) -> NDArray[np.float64]:
        """The symmetric term of a distance, from each row ``[M, D]`` to a target ``[D]``: ``[M]``."""
        key = name, target.tobytes()
        kept = self._kept.get(key, np.empty(0))
        if len(kept) < len(rows):
            kept = np.concatenate([kept, symmetric_distances(name, rows[len(kept) :], target)])
        with self._lock:
            self._bytes += kept.nbytes - self._kept.pop(key, np.empty(0)).nbytes
            self._kept[key] = kept
            while self._bytes > KEPT_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return kept[: len(rows)]


@dataclass(frozen=True, eq=False)
class EmbeddingRows:
    """R embeddings of one space; immutable.

    Attributes:
        kept: Distances from the rows in memory, shared with the rows that these extend.
        identities: ``name@version:checksum`` of each row, whether or not it has a key; the keys if not given.
    """

    keys: pa.StringArray = field(repr=False)  # ``name@version`` of each row, or ``NO_KEY``
    memory: Float32 = field(repr=False)  # ``[M, D]`` float32: all rows, or those after the rows of the index
    saved: SavedIndex | None = field(repr=False)  # the index over the rows before those, if there are so many
    projected: Float32 | None = field(repr=False)  # ``[M, P]``, rows in memory as the index compares them
    token: int  # state of the table
    extends: int | None = None  # token of the rows that these begin with, if they begin with some
    kept: KeptDistances = field(default_factory=KeptDistances, repr=False)
    identities: pa.StringArray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """R."""
        return len(self.keys)

    @property
    def num_mapped(self) -> int:
        """R - M."""
        return len(self.saved.vectors) if self.saved else 0

    def take(self, rows: Positions) -> Float32:
        """Embeddings ``[N, D]`` of some rows; ``DamagedIndexError`` if a mapped one is not what was written."""
        if self.saved is None:
            return self.memory[rows]
        mapped = rows < self.num_mapped
        self._check(rows[mapped])
        vectors = np.empty((len(rows), self.memory.shape[1]), np.float32)
        vectors[mapped] = self.saved.vectors[rows[mapped]]
        vectors[~mapped] = self.memory[rows[~mapped] - self.num_mapped]
        return vectors

    def distances(
        self, name: str, query: Float32, rows: Positions, *, trivial: Float32 | None, alpha: float
    ) -> NDArray[np.float64]:
        """Distance from each of some rows to a query ``[D]``; see ``registry.distances.pairwise``.

        Raises:
            DamagedIndexError: If a mapped one is not what was written.
        """
        distances = np.empty(len(rows))
        mapped = rows < self.num_mapped
        if self.saved is not None:
            self._check(rows[mapped])
            how: dict[str, Any] = {"trivial": trivial, "alpha": alpha, "checked": True}
            table, selection = self.saved.vectors, rows[mapped]
            # Rows that lie side by side are read faster, even a few too many.
            most = len(selection) > MOST_ROWS * len(table)
            of_rows = pairwise(name, table, query[None], selection=None if most else selection, **how)[:, 0]
            distances[mapped] = of_rows[selection] if most else of_rows
        distances[~mapped] = self._in_memory(name, query, rows[~mapped] - self.num_mapped, trivial, alpha)
        return distances

    def _in_memory(
        self, name: str, query: Float32, rows: Positions, trivial: Float32 | None, alpha: float
    ) -> NDArray[np.float64]:
        """``distances`` of some rows in memory; where most are meant, of all.

        What is asked again is kept, of the distances that compare each row by itself to the last bit.
        """
        most, to_trivial = len(rows) > MOST_ROWS * len(self.memory), None
        if not get_distance(name).symmetric:
            to_trivial = self.kept.to(name, check_trivial(name, trivial, alpha, self.memory), self.memory)
        if most and name in SHORTLISTED_DISTANCES:
            to_query = self.kept.to(name, query, self.memory)
            return (to_query if to_trivial is None else to_query - alpha * to_trivial)[rows]
        how: dict[str, Any] = {"trivial": trivial, "alpha": alpha, "to_trivial": to_trivial}
        selection = None if most else rows
        of_rows = pairwise(name, self.memory, query[None], selection=selection, checked=True, **how)[:, 0]
        return of_rows[rows] if most else of_rows

    def shortlist(self, query: Float32, k: int, allowed: NDArray[np.bool_]) -> Positions:
        """Up to k of the allowed rows ``[R]`` that are likely the nearest to a query ``[D]``, in no order.

        Without an index, all that are allowed.
        """
        if self.saved is None or self.projected is None:
            return np.flatnonzero(allowed)
        index, size = self.saved.index, self.num_mapped
        projected = index.project(query[None])[0]
        rows, gaps = index.search(projected, k, allowed=None if allowed[:size].all() else allowed[:size])
        further = np.flatnonzero(allowed[size:])
        differences = self.projected[further] - projected
        rows = np.concatenate([rows, further + size])
        gaps = np.concatenate([gaps, np.vecdot(differences, differences)])
        return rows[np.argpartition(gaps, k - 1)[:k]] if len(rows) > k else rows

    def _check(self, rows: Positions) -> None:
        """Compare mapped rows with their checksums, each once; ``DamagedIndexError`` if one differs."""
        if self.saved is None:
            return
        unseen = rows[~self.saved.verified[rows]]
        for start in range(0, len(unseen), BATCH_ROWS):
            part = unseen[start : start + BATCH_ROWS]
            if (row := self.saved.damaged_row(part)) is not None:
                path = str(getattr(self.saved.vectors, "filename", ""))
                raise DamagedIndexError(path, self.saved.generation, row)
            self.saved.verified[part] = True


def check_k(k: int) -> None:
    """Check a number of answers before the work; ``InvalidQueryError`` unless whole and at least 1."""
    if not isinstance(k, int | np.integer):
        raise InvalidQueryError(f"k must be a whole number of at least 1, got {k!r}")
    if k < 1:
        raise InvalidQueryError(f"k must be at least 1, got {k}")


def nearest(
    query: Float32,
    rows: EmbeddingRows,
    *,
    k: int,
    distance: str,
    trivial: Float32,
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
    query: Float32, rows: EmbeddingRows, k: int, distance: str, allowed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The rows to compare: all that are allowed, or a shortlist where they are many."""
    count = int(np.count_nonzero(allowed))
    if count >= EXACT_BELOW and distance in SHORTLISTED_DISTANCES:
        wanted = max(SHORTLIST_SIZE, SHORTLIST_PER_NEIGHBOR * k)
        shortlist = rows.shortlist(query, wanted + 1, allowed)  # one more, for the row that is left out
        # Lists that ran dry: do not trust the few.
        if len(shortlist) >= min(wanted // 2, count):
            return shortlist
    return np.flatnonzero(allowed)


def _closest(
    distances: NDArray[np.float64], candidates: NDArray[np.int64], key_of: Callable[[int], Key], k: int
) -> list[tuple[int, float]]:
    if not len(distances):
        return []
    last = min(k, len(distances)) - 1
    # Everything at the k-th distance takes part, so that a tie is decided by name and not by place.
    near = np.flatnonzero(distances <= np.partition(distances, last)[last])
    neighbors = [
        (float(distances[index]), key_of(int(candidates[index])), int(candidates[index])) for index in near
    ]
    return [(row, distance) for distance, _, row in sorted(neighbors)[:k]]
