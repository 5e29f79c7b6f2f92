"""The files of a vector index: a cache beside the tables, trusted only where its checksums say so.

Of a space there are four: the vectors as they are, which are mapped into memory and read a row at a time (the
thousand rows of a shortlist take .6 ms so, and 14 ms by ``take`` from LanceDB's table); the identity and
checksum of each row; the faiss index; and a manifest that names the three. The manifest's rename
is the commit. Vectors are only ever appended, after those that the manifest counts.

Axes: R rows, D filters of the probe.
"""

import json
import mmap
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from registry.files import write_atomically
from registry.index.vector_index import LOG_FLOOR, NUM_COMPONENTS, VectorIndex

# Part of every manifest: an index made in another way is not extended but built again.
FORMAT = {"version": 2, "num_components": NUM_COMPONENTS, "log_floor": LOG_FLOOR}
LOCK_FILE = "lock"
BUILD_TIMEOUT_SECONDS = 600.0
CHECKED_ROWS = 4096  # at a time

# What a file that was not written by this module may raise.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException)
ROW_COLUMNS = pa.schema([("identity", pa.string()), ("checksum", pa.uint64())])

Float32 = NDArray[np.float32]


class UnusableIndexError(Exception):
    """Why index files cannot be used; caught by whoever builds them again."""


class BusyIndexError(Exception):
    """Another process is writing the index files."""


@dataclass(frozen=True, eq=False)
class SavedIndex:
    """What the files of an index hold.

    Attributes:
        vectors: ``[R, D]`` float32, mapped; a row is what was written only if its checksum says so.
        verified: ``[R]`` bool, the rows that were compared with their checksums; all of those in memory.
    """

    vectors: Float32 = field(repr=False)
    identities: pa.StringArray = field(repr=False)  # identity of each row, in text
    checksums: NDArray[np.uint64] = field(repr=False)  # ``[R]`` uint64, of each row of ``vectors``
    index: VectorIndex = field(repr=False)
    built_rows: int  # rows that the principal directions were fitted on; the others were added later
    generation: str  # names the file of the vectors; empty where they are in no file
    verified: NDArray[np.bool_] = field(repr=False)

    def damaged_row(self, rows: NDArray[np.int64]) -> int | None:
        """The first of some rows that is not what was written; ``None`` if all are."""
        wrong = np.flatnonzero(row_checksums(self.vectors[rows]) != self.checksums[rows])
        return int(rows[wrong[0]]) if len(wrong) else None


class IndexFiles:
    """The index files of one space in one folder, which need not be there nor be writable."""

    def __init__(self, folder: Path, registry_id: str, space_id: str) -> None:
        self._folder = folder
        self._registry_id = registry_id
        self._space_id = space_id

    @contextmanager
    def writing(self, *, wait: bool) -> Iterator[None]:
        """Keep other writers of this index out.

        Whatever the block leaves unfinished by an error, such as that of a full disk, is removed.

        Raises:
            BusyIndexError: If another process holds it.
            OSError: If the folder cannot be written.
        """
        from filelock import FileLock, Timeout  # a question about few tasks needs neither

        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._folder / LOCK_FILE, timeout=BUILD_TIMEOUT_SECONDS if wait else 0):
                try:
                    yield
                except BaseException:
                    with suppress(OSError):
                        self._remove_others()
                    raise
        except Timeout as err:
            raise BusyIndexError("another process writes them") from err

    def load(self) -> SavedIndex:
        """Read what ``save`` wrote, trusting nothing; ``UnusableIndexError`` if it is not all of that."""
        seen = self.generation()
        try:
            return self._load()
        except UnusableIndexError:
            if seen == self.generation():
                raise
            return self._load()  # another process saved, and removed the files of before, in the middle of it

    def _load(self) -> SavedIndex:
        """Read what ``save`` wrote, if nobody saves meanwhile; ``UnusableIndexError`` as of ``load``."""
        try:
            manifest = self._manifest()
            rows = pa.ipc.open_file(self._checked(manifest, "rows")).read_all().combine_chunks()
            index = VectorIndex.from_bytes(self._checked(manifest, "faiss"))
            shape = (manifest["num_rows"], manifest["dim"])
            vectors = _mapped(self._vectors_path(manifest["generation"]), shape)
        except FileNotFoundError:
            raise UnusableIndexError("missing") from None
        except UNREADABLE as err:
            raise UnusableIndexError(f"unreadable ({err})") from err
        return SavedIndex(
            vectors,
            rows["identity"].combine_chunks(),
            rows["checksum"].combine_chunks().to_numpy(),
            index,
            manifest["built_rows"],
            manifest["generation"],
            np.zeros(len(rows), dtype=bool),
        )

    def generation(self) -> str | None:
        """Generation and number of rows of the files that are there now; ``None`` if there are none."""
        try:
            manifest = self._manifest()
        except (*UNREADABLE, UnusableIndexError):
            return None
        return f"{manifest['generation']}:{manifest['num_rows']}"

    def new_vectors(self, dim: int) -> "VectorsWriter":
        """A file for the vectors of a new generation; call within ``writing``."""
        return VectorsWriter(self, uuid.uuid4().hex[:16], dim, 0)

    def further_vectors(self, saved: SavedIndex) -> "VectorsWriter":
        """The file of a saved index, for rows after those that are counted; call within ``writing``."""
        writer = VectorsWriter(self, saved.generation, saved.vectors.shape[1], len(saved.vectors))
        writer.checksums.append(saved.checksums)
        return writer

    def save(
        self, index: VectorIndex, identities: pa.ChunkedArray, vectors: "VectorsWriter", *, built_rows: int
    ) -> None:
        """Write index and manifest, and remove the files of before; call within ``writing``."""
        rows = pa.table({"identity": identities, "checksum": np.concatenate(vectors.checksums)}, ROW_COLUMNS)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, ROW_COLUMNS) as writer:
            writer.write_table(rows)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "registry_id": self._registry_id,
            "space_id": self._space_id,
            "generation": vectors.generation,
            "num_rows": len(rows),
            "dim": index.dim,
            "built_rows": built_rows,
            "files": {},
        }
        for kind, payload in (("rows", sink.getvalue().to_pybytes()), ("faiss", index.to_bytes())):
            checksum = xxhash.xxh3_64_hexdigest(payload)
            manifest["files"][kind] = checksum
            write_atomically(self._path(f"{checksum}.{kind}"), payload, durable=True)
        manifest["checksum"] = xxhash.xxh3_64_hexdigest(_canonical(manifest))
        write_atomically(self._manifest_path, _canonical(manifest), durable=True)
        with suppress(OSError):  # the next save tries again
            self._remove_others()

    def damage(self) -> str:
        """What is wrong with the files, in a few words; empty if nothing is, or there are none."""
        try:
            saved = self.load()
        except UnusableIndexError as error:
            return "" if str(error) == "missing" else str(error)
        for start in range(0, len(saved.vectors), CHECKED_ROWS):
            rows = np.arange(start, min(start + CHECKED_ROWS, len(saved.vectors)))
            if (row := saved.damaged_row(rows)) is not None:
                return f"damaged (row {row} of its vectors is not what was written)"
        return ""

    def removed(self) -> bool:
        """Delete every file, to be built again when it is next needed; whether that could be done."""
        with suppress(OSError, BusyIndexError), self.writing(wait=True):
            for path in self._folder.glob(f"{self._space_id}.*"):
                path.unlink(missing_ok=True)
            return True
        return False

    def _manifest(self) -> dict[str, Any]:
        """The manifest; ``UnusableIndexError`` if damaged, or of another registry, space or format."""
        manifest: dict[str, Any] = json.loads(self._manifest_path.read_bytes())
        checksum = manifest.pop("checksum")
        if checksum != xxhash.xxh3_64_hexdigest(_canonical(manifest)):
            raise UnusableIndexError("damaged (its manifest is not what was written)")
        if manifest["format"] != FORMAT:
            raise UnusableIndexError("of another format")
        if (manifest["registry_id"], manifest["space_id"]) != (self._registry_id, self._space_id):
            raise UnusableIndexError("of another registry or space")
        return manifest

    def _checked(self, manifest: dict[str, Any], kind: str) -> bytes:
        """Content of a file that the manifest names; ``UnusableIndexError`` if it is not what was written."""
        checksum = manifest["files"][kind]
        payload = self._path(f"{checksum}.{kind}").read_bytes()
        if xxhash.xxh3_64_hexdigest(payload) != checksum:
            raise UnusableIndexError(f"damaged (its {kind} file is not what was written)")
        return payload

    def _remove_others(self) -> None:
        """Remove what the manifest does not name, or no longer, and what killed writers left."""
        kept = set()
        with suppress(*UNREADABLE, UnusableIndexError):
            manifest = self._manifest()
            kept = {self._manifest_path, self._vectors_path(manifest["generation"])}
            kept |= {self._path(f"{checksum}.{kind}") for kind, checksum in manifest["files"].items()}
        for path in self._folder.glob(f"{self._space_id}.*"):
            if path not in kept:
                path.unlink(missing_ok=True)

    @property
    def _manifest_path(self) -> Path:
        return self._path("json")

    def _vectors_path(self, generation: str) -> Path:
        return self._path(f"{generation}.vectors")

    def _path(self, end: str) -> Path:
        return self._folder / f"{self._space_id}.{end}"


class VectorsWriter:
    """Appends vectors to the file of a generation, after those that are counted."""

    def __init__(self, files: IndexFiles, generation: str, dim: int, num_rows: int) -> None:
        self.generation = generation
        self.checksums: list[NDArray[np.uint64]] = []
        self._path = files._vectors_path(generation)
        self._row_bytes = 4 * dim
        self._num_rows = num_rows

    def append(self, rows: Float32) -> None:
        """Write rows ``[N, D]`` after the last ones, over what a killed writer may have left there."""
        values = np.ascontiguousarray(rows, dtype="<f4")
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            file.seek(self._num_rows * self._row_bytes)
            file.write(values.data)
        self._num_rows += len(values)
        self.checksums.append(row_checksums(values))

    def mapped(self) -> Float32:
        """All rows so far, mapped from the file."""
        dim = self._row_bytes // 4
        return np.memmap(self._path, "<f4", "r", shape=(self._num_rows, dim))  # read through, once


def _mapped(path: Path, shape: tuple[int, int]) -> Float32:
    """Vectors ``[R, D]`` in a file, of which a row here and there is read.

    The system is advised of it: else it reads the pages around each, and soon the whole file is in memory.
    """
    vectors = np.memmap(path, "<f4", "r", shape=shape)
    memory: Any = getattr(vectors, "_mmap", None)  # numpy has no public way to what it mapped
    if hasattr(memory, "madvise"):
        memory.madvise(mmap.MADV_RANDOM)
    return vectors


def row_checksums(rows: Float32) -> NDArray[np.uint64]:
    """Checksum of each row of ``[N, D]``, ``[N]``."""
    values = np.ascontiguousarray(rows, dtype="<f4")
    return np.fromiter((xxhash.xxh3_64_intdigest(row.data) for row in values), np.uint64, len(values))


def _canonical(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
