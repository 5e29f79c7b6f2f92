"""VectorIndex: a quick shortlist of tasks for the ``task2vec`` distance. The sole importer of faiss.

Axes: T tasks of the table, R rows of the index, D filters of the probe, P principal directions.

``task2vec`` depends on each filter through log(h_a/h_b) alone and hardly on a common factor, so near tasks
are near in Euclidean distance between log embeddings from which each task's own mean log was subtracted.
Those are projected to at most 64 principal directions; up to ``EXACT_BELOW`` rows they are compared one by
one, above that in the inverted lists near the query, eight bits a coordinate.

The file is a cache. It is trusted only where its checksum, its space and its rows are those expected;
otherwise it is extended or built again, and a folder that cannot be written costs time, not an answer.
"""

import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import InvalidQueryError, InvalidRecordError
from registry.neighbors import EXACT_BELOW, Key

NUM_COMPONENTS = 64

# Filters below this share of their task's mean count as equally dead. Without it dead filters make the widest
# directions of all: on 6,000 synthetic tasks with 2% of the filters dead, the first 200 rows held 61% of the
# true nearest 10 at a floor of 1e-8, 97% at 1e-4 and 98% at 1e-2; with no dead filters all held 100%.
LOG_FLOOR = 1e-2

PCA_ROWS = 4096
CHUNK_ROWS = 4096
ROWS_PER_LIST = 40  # faiss wants 39 training points for each inverted list
LISTS_PER_PROBE = 8
MAX_GROWTH = 2  # principal directions are fitted again once the rows have doubled
STALE_TEMPORARY_SECONDS = 3600

# Part of every manifest: an index made in another way is not extended but built again.
FORMAT = {"version": 1, "num_components": NUM_COMPONENTS, "log_floor": LOG_FLOOR}

Float32 = NDArray[np.float32]

logger = logging.getLogger(__name__)


class _UnusableError(Exception):
    """Why an index file cannot be used; never leaves this module."""


@dataclass(frozen=True, eq=False)
class VectorIndex:
    """Searches log embeddings; immutable, so that threads may share it.

    Attributes:
        keys: Name and version of the task in each of the R rows.
        signatures: One number a row that changes with the embedding it was made from.
        built_rows: Rows the principal directions were fitted on; the others were added later.
        token: State of the table it was saved for; empty if it was never saved.
    """

    keys: tuple[Key, ...] = field(repr=False)
    signatures: tuple[int, ...] = field(repr=False)
    built_rows: int
    engine: Any = field(repr=False)
    token: str = ""

    def __len__(self) -> int:
        """R."""
        return len(self.keys)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.engine.d)

    @classmethod
    def build(cls, keys: Sequence[Key], fisher: ArrayLike, *, exact_below: int = EXACT_BELOW) -> "VectorIndex":
        """Fit the principal directions and index every task. The same rows give the same index.

        Args:
            keys: Name and version of T tasks, each once.
            fisher: ``[T, D]``, finite, non-negative.
            exact_below: From this many tasks on, the search is approximate.
        """
        rows = _checked_table(keys, fisher)
        projection = _fit_projection(rows)
        projected = np.concatenate([projection.apply(chunk) for chunk in _chunks_of_logs(rows)])
        flat = len(rows) < exact_below
        inner = faiss.IndexFlatL2(projection.d_out) if flat else _train_inverted_lists(projected)
        inner.add(projected)
        engine = faiss.IndexPreTransform(projection, inner)
        return cls(_plain(keys), _signatures(rows), len(rows), engine)

    def extend(self, keys: Sequence[Key], fisher: ArrayLike) -> "VectorIndex":
        """Return an index with more rows after those of this one, which stays as it is.

        Args:
            keys: Name and version of T further tasks.
            fisher: ``[T, D]``, finite, non-negative.

        Raises:
            InvalidRecordError: If a task is in the index already, or D differs.
        """
        rows = _checked_table(keys, fisher)
        if rows.shape[1] != self.dim:
            raise InvalidRecordError(f"the index holds embeddings of {self.dim} filters, got {rows.shape[1]}")
        known = set(self.keys).intersection(keys)
        if known:
            raise InvalidRecordError(f"{_spelled(min(known))} is in the index already")
        engine = faiss.clone_index(self.engine)
        for chunk in _chunks_of_logs(rows):
            engine.add(chunk)
        return VectorIndex(
            self.keys + _plain(keys), self.signatures + _signatures(rows), self.built_rows, engine
        )

    def search(self, query: ArrayLike, k: int) -> NDArray[np.int64]:
        """Rows whose tasks are likely the nearest.

        Args:
            query: ``[D]``, finite, non-negative.
            k: Most rows wanted, at least 1.

        Returns:
            Up to ``[k]`` positions in ``keys``, likely nearest first.

        Raises:
            InvalidQueryError: If the query is no embedding of the space, or k is below 1.
        """
        vector = np.ascontiguousarray(query, dtype=np.float32)
        if vector.shape != (self.dim,) or not _all_valid(vector):
            raise InvalidQueryError(
                f"the index is asked with one finite, non-negative embedding of {self.dim} filters"
            )
        if k < 1:
            raise InvalidQueryError(f"k must be at least 1, got {k}")
        _, found = self.engine.search(_centred_logs(vector[None]), min(k, max(1, len(self))))
        # faiss fills up with -1 where the lists it looked into hold fewer than k rows.
        return np.asarray(found[0][found[0] >= 0], dtype=np.int64)

    def save(self, folder: Path, space_id: str, token: str) -> "VectorIndex":
        """Write the index; the manifest's rename is the commit, and a reader sees the old pair or the new one.

        Args:
            folder: Made if it is not there.
            space_id: Names the files ``<space_id>.json`` and ``<space_id>.<checksum>.faiss``.
            token: State of the table that the rows are.

        Returns:
            The index with that token.
        """
        payload = faiss.serialize_index(self.engine).tobytes()
        manifest = {
            "format": FORMAT,
            "space_id": space_id,
            "token": token,
            "num_rows": len(self),
            "dim": self.dim,
            "built_rows": self.built_rows,
            "keys": self.keys,
            "signatures": self.signatures,
        }
        checksum = _checksum(payload, manifest)
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(_data_path(folder, space_id, checksum), payload)
        _write_atomically(_manifest_path(folder, space_id), _canonical(manifest | {"checksum": checksum}))
        _remove_leftovers(folder, space_id, kept=_data_path(folder, space_id, checksum))
        return replace(self, token=token)

    @classmethod
    def load(cls, folder: Path, space_id: str) -> tuple["VectorIndex | None", str]:
        """Read what ``save`` wrote, trusting nothing.

        Returns:
            The index and an empty string; or ``None`` and why there is none.
        """
        try:
            manifest, payload = _read_checked(folder, space_id)
            engine = faiss.deserialize_index(np.frombuffer(payload, dtype=np.uint8))
        except _UnusableError as err:
            return None, str(err)
        except RuntimeError as err:  # a faiss that cannot read what another version of it wrote
            return None, f"not understood by faiss {faiss.__version__} ({err})"
        keys = tuple((name, version) for name, version in manifest["keys"])
        return cls(keys, tuple(manifest["signatures"]), manifest["built_rows"], engine, manifest["token"]), ""


def open_index(
    folder: Path,
    space_id: str,
    token: str,
    keys: Sequence[Key],
    fisher: ArrayLike,
    *,
    exact_below: int = EXACT_BELOW,
) -> VectorIndex:
    """Return an index of exactly these tasks: the saved one, or that extended, or a new one; and keep it.

    Args:
        folder: Where index files lie; need not be there nor be writable.
        space_id: Of the embeddings.
        token: Any string that changes when the table does.
        keys: Name and version of all T tasks of the table, each once, in any order.
        fisher: ``[T, D]``, finite, non-negative.
        exact_below: From this many tasks on, the search is approximate.
    """
    saved, reason = VectorIndex.load(folder, space_id)
    index = None
    if saved is not None:
        same_tasks = len(saved) == len(keys) and set(saved.keys) == set(keys)
        if saved.token == token and same_tasks and np.shape(fisher)[1] == saved.dim:
            return saved
        index, reason = _brought_up_to_date(saved, keys, _checked_table(keys, fisher), exact_below)
    if index is None:
        logger.info("index of space %s is built, not loaded: the saved one is %s", space_id, reason)
        index = VectorIndex.build(keys, fisher, exact_below=exact_below)
    try:
        return index.save(folder, space_id, token)
    except OSError as err:
        logger.warning("index of space %s cannot be kept and will be built again: %s", space_id, err)
        return index


def _brought_up_to_date(
    saved: VectorIndex, keys: Sequence[Key], rows: Float32, exact_below: int
) -> tuple[VectorIndex | None, str]:
    """Add what is missing; ``None`` and why, where that does not give what a build would."""
    if rows.shape[1] != saved.dim:
        return None, f"of {saved.dim} filters"
    if len(keys) > MAX_GROWTH * saved.built_rows or saved.built_rows < exact_below <= len(keys):
        return None, f"fitted on {saved.built_rows} tasks only"
    present = dict(zip(keys, _signatures(rows), strict=True))
    if any(present.get(key) != signature for key, signature in zip(saved.keys, saved.signatures, strict=True)):
        return None, "of tasks that were removed or replaced"
    known = set(saved.keys)
    missing = [position for position, key in enumerate(keys) if key not in known]
    return saved.extend([keys[position] for position in missing], rows[missing]), ""


def _checked_table(keys: Sequence[Key], fisher: ArrayLike) -> Float32:
    """Everything that faiss would take silently.

    Raises:
        InvalidRecordError: If the shapes disagree, a value is no Fisher information or a key is there twice.
    """
    rows = np.ascontiguousarray(fisher, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != len(keys):
        raise InvalidRecordError(f"{len(keys)} tasks need as many embeddings, got shape {list(rows.shape)}")
    if not _all_valid(rows):
        bad = np.flatnonzero([not _all_valid(row) for row in rows])[0]
        raise InvalidRecordError(f"the embedding of {_spelled(keys[bad])} must be finite and non-negative")
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise InvalidRecordError(f"{_spelled(twice)} has two embeddings; run `t2v verify --repair`")
    return rows


def _plain(keys: Sequence[Key]) -> tuple[Key, ...]:
    """Keys that JSON can write, whatever integers the table came with."""
    return tuple((name, int(version)) for name, version in keys)


def _all_valid(values: Float32) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all())


def _spelled(key: Key) -> str:
    return f"task {key[0]}@{key[1]}"


def _signatures(rows: Float32) -> tuple[int, ...]:
    """Sum of the bit patterns of each row: exact, the same on every machine, and quick."""
    return tuple(rows.view(np.uint32).sum(axis=1, dtype=np.uint64).tolist())


def _centred_logs(rows: Float32) -> Float32:
    """Log embeddings ``[N, D]`` minus each task's own mean log."""
    largest = rows.max(axis=1, keepdims=True)
    scaled = rows / np.where(largest > 0, largest, 1)  # now no float32 underflows that matters
    floor = np.maximum(LOG_FLOOR * scaled.mean(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    logs = np.log(scaled + floor)
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def _chunks_of_logs(rows: Float32) -> Iterator[Float32]:
    """At least one chunk, so that an empty table keeps its width."""
    for start in range(0, max(1, len(rows)), CHUNK_ROWS):
        yield _centred_logs(rows[start : start + CHUNK_ROWS])


def _fit_projection(rows: Float32) -> Any:
    """Principal directions of the log embeddings, as a faiss transform from D to P."""
    sample = np.random.default_rng(0).permutation(len(rows))[:PCA_ROWS]
    logs = _centred_logs(rows[np.sort(sample)])
    mean = logs.mean(axis=0) if len(logs) else np.zeros(rows.shape[1], np.float32)
    directions = np.linalg.svd(logs - mean, full_matrices=False)[2][:NUM_COMPONENTS]
    if not len(directions):  # faiss knows no space of no dimensions
        directions = np.eye(1, rows.shape[1], dtype=np.float32)
    projection = faiss.LinearTransform(rows.shape[1], len(directions), True)
    faiss.copy_array_to_vector(np.ascontiguousarray(directions, np.float32).ravel(), projection.A)
    faiss.copy_array_to_vector(np.ascontiguousarray(-directions @ mean, np.float32), projection.b)
    projection.is_trained = True
    return projection


def _train_inverted_lists(projected: Float32) -> Any:
    """An empty index of about sqrt(T) lists, trained on a sample of the rows it will hold."""
    num_rows, dim = projected.shape
    num_lists = max(1, min(math.isqrt(num_rows), num_rows // ROWS_PER_LIST))
    inner = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(dim), dim, num_lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2
    )
    sample = np.random.default_rng(0).permutation(num_rows)[: 2 * ROWS_PER_LIST * num_lists]
    inner.train(projected[np.sort(sample)])
    inner.nprobe = max(8, num_lists // LISTS_PER_PROBE)
    return inner


def _manifest_path(folder: Path, space_id: str) -> Path:
    return folder / f"{space_id}.json"


def _data_path(folder: Path, space_id: str, checksum: str) -> Path:
    return folder / f"{space_id}.{checksum[:16]}.faiss"


def _canonical(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def _checksum(payload: bytes, manifest: dict[str, Any]) -> str:
    """One sum over both files, so that neither can change without the other."""
    return hashlib.blake2b(_canonical(manifest) + payload, digest_size=32).hexdigest()


def _read_checked(folder: Path, space_id: str) -> tuple[dict[str, Any], bytes]:
    """Manifest and index bytes that belong together, to this space and to this version of the code.

    Raises:
        _UnusableError: If there is no such pair.
    """
    path = _manifest_path(folder, space_id)
    try:
        manifest = json.loads(path.read_bytes())
        checksum = str(manifest.pop("checksum"))
        payload = _data_path(folder, space_id, checksum).read_bytes()
    except FileNotFoundError:
        raise _UnusableError("missing") from None
    except OSError as err:
        raise _UnusableError(f"unreadable ({err})") from err
    except (ValueError, AttributeError, KeyError, TypeError) as err:
        raise _UnusableError(f"corrupt ({path.name} is no manifest)") from err
    if checksum != _checksum(payload, manifest):
        raise _UnusableError("corrupt (its checksum differs)")
    if manifest["format"] != FORMAT:
        raise _UnusableError(f"of format {manifest['format']}, not {FORMAT}")
    if manifest["space_id"] != space_id:
        raise _UnusableError(f"foreign (of space {manifest['space_id']})")
    return manifest, payload


def _write_atomically(path: Path, content: bytes) -> None:
    """Write beside ``path`` and rename, so that nobody ever sees half a file.

    Raises:
        OSError: If the folder cannot be written; nothing is left behind then.
    """
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _remove_leftovers(folder: Path, space_id: str, *, kept: Path) -> None:
    """Remove index files that no manifest names any more, and what killed writers left an hour ago or more."""
    for path in folder.glob(f"{space_id}.*.faiss"):
        if path != kept:
            path.unlink(missing_ok=True)
    oldest = time.time() - STALE_TEMPORARY_SECONDS
    for path in folder.glob(f"{space_id}.*.tmp"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
