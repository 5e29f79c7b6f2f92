"""The layout of a space on disk: a cache beside the index, trusted only where its checksum says so.

A file holds one layout: its checksum, then an Arrow table of the tasks with what is known of the whole in its
schema. Whoever cannot write it keeps the layout in memory.

Axes: T tasks.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from registry.files import write_atomically

FORMAT = 1
"""Part of every file: a layout made in another way is not extended but made again. Raise it with the method."""

LAID_OUT, PLACED, LATER = 0, 1, 2
"""Roles of a task: laid out by all distances; placed between those at the same time; placed later."""

LOCK_FILE = "map-lock"  # no ending: a purge deletes all files of the folder that have one
LOCK_TIMEOUT_SECONDS = 600.0
SCHEMA = {"identity": pa.string(), "x": pa.float64(), "y": pa.float64(), "role": pa.uint8()}
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException)


class UnusableLayoutError(Exception):
    """Why a layout cannot be used; caught by whoever makes it again."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where tasks lie, and how well that shows their distances."""

    identities: pa.StringArray = field(repr=False)  # ``[T]`` which embedding of which task
    positions: NDArray[np.float64] = field(repr=False)
    roles: NDArray[np.uint8] = field(repr=False)  # ``[T]`` of ``LAID_OUT``, ``PLACED`` and ``LATER``
    stress: float  # stress-1 of the layout when it was made
    trustworthiness: float
    num_measured: int  # number of tasks that both were measured on
    method: str  # how the layout was made, in words
    seed: int

    def __len__(self) -> int:
        """The number of tasks, T."""
        return len(self.identities)

    def with_placed(self, identities: pa.StringArray, positions: NDArray[np.float64], kept: Any) -> "Layout":
        """The layout with tasks that were placed later after those of ``kept`` ``[T]``, a mask."""
        return replace(
            self,
            identities=pa.chunked_array([self.identities.filter(kept), identities]).combine_chunks(),
            positions=np.concatenate([self.positions[np.asarray(kept)], positions]),
            roles=np.concatenate([self.roles[np.asarray(kept)], np.full(len(positions), LATER, np.uint8)]),
        )


class LayoutFiles:
    """The layouts of one space in one folder, which need not be there nor be writable; one for each seed."""

    def __init__(self, folder: Path, registry_id: str, space_id: str) -> None:
        self._folder = folder
        self._owner = {"registry_id": registry_id, "space_id": space_id}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep others who make layouts out, or go on without a lock where there can be none."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / LOCK_FILE, timeout=LOCK_TIMEOUT_SECONDS)
            lock.acquire()
        except (OSError, Timeout):
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def load(self, seed: int) -> Layout:
        """Read what ``save`` wrote, trusting nothing; ``UnusableLayoutError`` if it is not all of that."""
        try:
            return self._load(seed)
        except FileNotFoundError:
            raise UnusableLayoutError("missing") from None
        except UNREADABLE as err:
            raise UnusableLayoutError(f"unreadable ({err})") from err

    def _load(self, seed: int) -> Layout:
        content = self._path(seed).read_bytes()
        checksum, payload = content[:32], content[32:]
        if hashlib.blake2b(payload, digest_size=32).digest() != checksum:
            raise UnusableLayoutError("damaged")
        table = pa.ipc.open_file(payload).read_all().combine_chunks()
        about = json.loads(table.schema.metadata[b"layout"])
        if about.pop("owner") != {**self._owner, "format": FORMAT, "seed": seed}:
            raise UnusableLayoutError("of another registry, space or format")
        if table.schema.names != list(SCHEMA) or len(table) == 0:
            raise UnusableLayoutError("of other columns")
        positions = np.stack([table[axis].to_numpy() for axis in "xy"], axis=1)
        if not np.isfinite(positions).all():
            raise UnusableLayoutError("not finite")
        identities = table["identity"].combine_chunks()
        return Layout(identities, positions, table["role"].to_numpy(), seed=seed, **about)

    def save(self, layout: Layout) -> None:
        """Write a layout in place of the one of its seed; nobody ever sees half a file."""
        about = {
            "owner": {**self._owner, "format": FORMAT, "seed": layout.seed},
            "stress": layout.stress,
            "trustworthiness": layout.trustworthiness,
            "num_measured": layout.num_measured,
            "method": layout.method,
        }
        schema = pa.schema(SCHEMA).with_metadata({"layout": json.dumps(about, sort_keys=True)})
        columns = (layout.identities, *layout.positions.T.copy(), layout.roles)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(pa.table(dict(zip(SCHEMA, columns, strict=True)), schema))
        payload = sink.getvalue().to_pybytes()
        self._folder.mkdir(parents=True, exist_ok=True)
        checksum = hashlib.blake2b(payload, digest_size=32).digest()
        write_atomically(self._path(layout.seed), checksum + payload)

    def _path(self, seed: int) -> Path:
        return self._folder / f"map-{self._owner['space_id']}-{seed}.arrow"
