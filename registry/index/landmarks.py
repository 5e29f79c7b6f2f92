"""Some tasks stand for all where they are too many to compare each with each.

Up to ``ALL_PAIRS`` tasks every distance is taken. Of more, ``NUM_LANDMARKS`` are drawn at random, so that they
lie as densely as the tasks do, and each other task is compared with the landmarks near it: a shortlist by the
projected logs that the index searches, then exact distances.

Axes: T tasks, N some of them, L landmarks, K nearest ones, C on a shortlist, D filters, P principal directions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from registry.distances import get_distance, pairwise
from registry.errors import InvalidQueryError
from registry.index.neighbors import SHORTLISTED_DISTANCES, EmbeddingRows
from registry.index.vector_index import ROWS_PER_LIST, VectorIndex

ALL_PAIRS = 3000
NUM_LANDMARKS = 2000
SHORTLIST = 100
SHORTLISTED_FROM = 2**22
"""Distances to landmarks that are worth a shortlist: fewer take a few seconds."""

CHUNK_ROWS = 4096

Rows = NDArray[np.int64]
Array = NDArray[np.float64]
Report = Callable[[int, int], None]
"""Called as ``report(done, total)``."""


@dataclass(frozen=True, eq=False)
class ComparedTasks:
    """Tasks that are compared."""

    embeddings: EmbeddingRows
    rows: Rows  # ``[T]`` row of each task, in an order that does not depend on when they were added
    distance: str = "task2vec"

    def __post_init__(self) -> None:
        """Check the distance; ``InvalidQueryError`` if it depends on the direction."""
        if not get_distance(self.distance).symmetric:
            raise InvalidQueryError(
                f"{self.distance} depends on the direction, and a group has none; use task2vec"
            )

    def __len__(self) -> int:
        """T."""
        return len(self.rows)

    def matrix(self, chosen: Rows | None = None, report: Report | None = None) -> Array:
        """Distances ``[T, T]``, or between those chosen; symmetric to the bit, zero on the diagonal."""
        vectors = self.embeddings.take(self.rows if chosen is None else self.rows[chosen])
        size = len(vectors)
        distances = np.zeros((size, size))
        step = max(1, -(-size // 16))
        for start in range(0, size, step):  # what is above the diagonal, in strips
            part = slice(start, start + step)
            distances[start:, part] = pairwise(self.distance, vectors[start:], vectors[part], checked=True)
            if report:
                report(min(start + step, size), size)
        distances = np.tril(distances, -1)
        return np.asarray(distances + distances.T)

    def to_all(self, chosen: Rows, report: Report | None = None) -> Array:
        """Distances ``[N, T]`` from some tasks to all."""
        distances = np.empty((len(chosen), len(self)))
        for number, vector in enumerate(self.embeddings.take(self.rows[chosen])):
            distances[number] = self.embeddings.distances(
                self.distance, vector, self.rows, trivial=None, alpha=0.0
            )
            distances[number, chosen[number]] = 0
            if report:
                report(number + 1, len(chosen))
        return distances

    def nearest(
        self, wanted: Rows, landmarks: Rows, k: int, report: Report | None = None
    ) -> tuple[Rows, Array]:
        """The landmarks nearest to some tasks.

        Args:
            wanted: ``[N]`` which of the T.
            landmarks: ``[L]`` which of the T.
            k: How many of them.
            report: Called with the progress.

        Returns:
            Numbers of landmarks ``[N, K]``, from 0 to L - 1, nearest first, ties in their order; and distances.
        """
        k = min(k, len(landmarks))
        is_indexed = self.distance in SHORTLISTED_DISTANCES and len(landmarks) >= ROWS_PER_LIST
        if is_indexed and len(wanted) * len(landmarks) >= SHORTLISTED_FROM:
            return self._shortlisted(wanted, landmarks, k, report)
        vectors = self.embeddings.take(self.rows[landmarks])
        numbers, distances = np.empty((len(wanted), k), np.int64), np.empty((len(wanted), k))
        for start in range(0, len(wanted), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            rows = self.embeddings.take(self.rows[wanted[part]])
            compared = pairwise(self.distance, rows, vectors, checked=True)
            numbers[part], distances[part] = _least(compared, k)
            if report:
                report(min(start + CHUNK_ROWS, len(wanted)), len(wanted))
        return numbers, distances

    def _shortlisted(self, wanted: Rows, landmarks: Rows, k: int, report: Report | None) -> tuple[Rows, Array]:
        """The landmarks that are likely the nearest: ``SHORTLIST`` of all are compared exactly."""
        vectors = self.embeddings.take(self.rows[landmarks])
        saved = self.embeddings.saved
        index = saved.index if saved else VectorIndex.build(vectors)
        size = min(max(SHORTLIST, 2 * k), len(landmarks))
        listed = np.empty((len(wanted), size), np.int32)
        projected = index.project(vectors)
        squares = np.vecdot(projected, projected)
        order = np.argsort(self.rows[wanted], kind="stable")  # as they lie in the file
        for start in range(0, len(wanted), CHUNK_ROWS):
            part = order[start : start + CHUNK_ROWS]
            rows = index.project(self.embeddings.take(self.rows[wanted[part]]))
            gaps = squares - 2 * (rows @ projected.T)
            listed[part] = np.argpartition(gaps, size - 1, axis=1)[:, :size]
        return self._compared(wanted, vectors, np.sort(listed, axis=1), k, report)

    def _compared(
        self,
        wanted: Rows,
        vectors: NDArray[np.float32],
        listed: NDArray[np.int32],
        k: int,
        report: Report | None,
    ) -> tuple[Rows, Array]:
        """The K nearest on each shortlist ``[N, C]``, rising numbers of landmarks; a landmark at a time."""
        distances = np.empty(listed.shape)
        flat, values = np.argsort(listed, axis=None, kind="stable"), distances.reshape(-1)
        ends = np.searchsorted(listed.reshape(-1)[flat], np.arange(len(vectors) + 1))
        for number, vector in enumerate(vectors):
            cells = flat[ends[number] : ends[number + 1]]
            rows = self.rows[wanted[cells // listed.shape[1]]]
            if len(rows):
                values[cells] = self.embeddings.distances(self.distance, vector, rows, trivial=None, alpha=0.0)
            if report and number % 100 == 0:
                report(number, len(vectors))
        places, least = _least(distances, k)
        return np.take_along_axis(listed, places, axis=1).astype(np.int64), least


def draw_landmarks(num_tasks: int, seed: int = 0) -> Rows:
    """Which of so many tasks are landmarks, rising; all, where all pairs are compared."""
    if num_tasks <= ALL_PAIRS:
        return np.arange(num_tasks)
    return np.sort(np.random.default_rng(seed).permutation(num_tasks)[:NUM_LANDMARKS])


def _least(distances: Array, k: int) -> tuple[Rows, Array]:
    """Columns of the k smallest of each row, smallest first, ties in order of column; and their values."""
    if k < distances.shape[1]:
        kept = np.sort(np.argpartition(distances, k - 1, axis=1)[:, :k], axis=1)
    else:
        kept = np.broadcast_to(np.arange(distances.shape[1]), distances.shape)
    values = np.take_along_axis(distances, kept, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1), np.take_along_axis(values, order, axis=1)
