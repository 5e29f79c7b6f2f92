"""VectorIndex: a quick shortlist of tasks for the ``task2vec`` distance. The sole importer of faiss.

Axes: R rows of the index, N further rows, D filters of the probe, P principal directions.

``task2vec`` depends on each filter through log(h_a/h_b) alone and hardly on a common factor, so near tasks
are near in Euclidean distance between log embeddings from which each task's own mean log was subtracted.
Those are projected to at most 64 principal directions and compared in the inverted lists near the query, eight
bits a coordinate.
"""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_COMPONENTS = 64

# Filters below this share of their task's mean count as equally dead. Without it dead filters make the widest
# directions of all: on 6,000 synthetic tasks with 2% of the filters dead, the first 200 rows held 61% of the
# true nearest 10 at a floor of 1e-8, 97% at 1e-4 and 98% at 1e-2; with no dead filters all held 100%.
LOG_FLOOR = 1e-2

PCA_ROWS = 4096
CHUNK_ROWS = 4096
ROWS_PER_LIST = 40  # faiss wants 39 training points for each inverted list
LISTS_PER_PROBE = 8

Float32 = NDArray[np.float32]


@cache
def _faiss() -> Any:
    """The library, loaded for the first index: few tasks need none."""
    import faiss

    return faiss


class VectorIndex:
    """Searches log embeddings by the number of their row; never changed, so threads may share it."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._lists = _faiss().downcast_index(engine.index)
        projection = _faiss().downcast_VectorTransform(engine.chain.at(0))  # by A ``[P, D]``, plus b ``[P]``
        self._directions = _faiss().vector_to_array(projection.A).reshape(projection.d_out, projection.d_in)
        self._offset = _faiss().vector_to_array(projection.b)

    def __len__(self) -> int:
        """R."""
        return int(self._engine.ntotal)

    @property
    def dim(self) -> int:
        """D."""
        return int(self._engine.d)

    @classmethod
    def build(cls, rows: Float32) -> "VectorIndex":
        """Fit the principal directions and index every row. The same rows give the same index.

        Args:
            rows: ``[R, D]``, finite, non-negative, at least ``ROWS_PER_LIST``; may be mapped from a file.
        """
        projection = _fit_projection(rows)
        projected = np.concatenate([projection.apply(chunk) for chunk in _chunks_of_logs(rows)])
        lists = _train_inverted_lists(projected)
        lists.add(projected)
        return cls(_faiss().IndexPreTransform(projection, lists))

    def extended(self, rows: Float32) -> "VectorIndex":
        """An index with further rows ``[N, D]`` after those of this one, which stays as it is."""
        engine = _faiss().clone_index(self._engine)
        for chunk in _chunks_of_logs(rows):
            engine.add(chunk)
        return VectorIndex(engine)

    def project(self, rows: Float32) -> Float32:
        """Log embeddings of ``[N, D]`` in the principal directions, ``[N, P]``: what is compared.

        By numpy, as faiss takes a hundred times as long for one row where its threads wait for each other.
        """
        return np.asarray(_centred_logs(np.asarray(rows, np.float32)) @ self._directions.T + self._offset)

    def search(
        self, query: Float32, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], Float32]:
        """Rows that are likely the nearest.

        Args:
            query: ``[P]``, from ``project``.
            k: Most rows wanted, at least 1.
            allowed: ``[R]``, the rows that may be found; all if not given. The fewer they are, the more lists
                are looked into.

        Returns:
            Up to ``[k]`` numbers of rows and their squared distances, likely nearest first.
        """
        options: dict[str, Any] = {"nprobe": self._lists.nprobe}
        if allowed is not None:
            share = max(float(allowed.mean()), 1 / len(allowed))
            options["nprobe"] = min(self._lists.nlist, math.ceil(self._lists.nprobe / share))
            bitmap: Any = _faiss().IDSelectorBitmap
            options["sel"] = bitmap(np.packbits(allowed, bitorder="little"))
        make: Any = _faiss().SearchParametersIVF
        parameters = make(**options)
        distances, rows = self._lists.search(query[None], min(k, len(self)), params=parameters)
        # faiss fills up with -1 where the lists it looked into hold fewer than k rows.
        hits = rows[0] >= 0
        return rows[0][hits], distances[0][hits]

    def to_bytes(self) -> bytes:
        """What ``from_bytes`` reads; checked by nobody, so to be kept with a checksum."""
        return bytes(_faiss().serialize_index(self._engine))

    @classmethod
    def from_bytes(cls, payload: bytes) -> "VectorIndex":
        """The index of ``to_bytes``; ``ValueError`` if this version of faiss does not understand it."""
        try:
            return cls(_faiss().deserialize_index(np.frombuffer(payload, dtype=np.uint8)))
        except RuntimeError as err:
            raise ValueError(f"not understood by faiss {_faiss().__version__} ({err})") from err


def _centred_logs(rows: Float32) -> Float32:
    """Log embeddings ``[N, D]`` minus each task's own mean log."""
    largest = rows.max(axis=1, keepdims=True)
    scaled = rows / np.where(largest > 0, largest, 1)  # now no float32 underflows that matters
    floor = np.maximum(LOG_FLOOR * scaled.mean(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    logs = np.log(scaled + floor)
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def _chunks_of_logs(rows: Float32) -> Iterator[Float32]:
    for start in range(0, len(rows), CHUNK_ROWS):
        yield _centred_logs(np.ascontiguousarray(rows[start : start + CHUNK_ROWS], np.float32))


def _fit_projection(rows: Float32) -> Any:
    """Principal directions of the log embeddings, as a faiss transform from D to P."""
    sample = np.random.default_rng(0).permutation(len(rows))[:PCA_ROWS]
    logs = _centred_logs(rows[np.sort(sample)])
    mean = logs.mean(axis=0)
    directions = np.linalg.svd(logs - mean, full_matrices=False)[2][:NUM_COMPONENTS]
    projection = _faiss().LinearTransform(rows.shape[1], len(directions), True)
    _faiss().copy_array_to_vector(np.ascontiguousarray(directions, np.float32).ravel(), projection.A)
    _faiss().copy_array_to_vector(np.ascontiguousarray(-directions @ mean, np.float32), projection.b)
    projection.is_trained = True
    return projection


def _train_inverted_lists(projected: Float32) -> Any:
    """An empty index of about sqrt(R) lists, trained on a sample of the rows it will hold."""
    num_rows, dim = projected.shape
    num_lists = max(1, min(math.isqrt(num_rows), num_rows // ROWS_PER_LIST))
    lists = _faiss().IndexIVFScalarQuantizer(
        _faiss().IndexFlatL2(dim), dim, num_lists, _faiss().ScalarQuantizer.QT_8bit, _faiss().METRIC_L2
    )
    sample = np.random.default_rng(0).permutation(num_rows)[: 2 * ROWS_PER_LIST * num_lists]
    lists.train(projected[np.sort(sample)])
    lists.nprobe = max(8, num_lists // LISTS_PER_PROBE)
    return lists
