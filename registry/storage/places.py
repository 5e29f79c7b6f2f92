"""Where a registry lies: a local folder, or a prefix of an object store.

A place knows files, not tables: whether a table's files are there, how writers keep out of each other's way,
and where the rebuildable index of the registry goes. What goes wrong there is said in one sentence of ours.
"""

import json
import os
import random
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import xxhash

from registry.errors import RegistryError, StorageError
from registry.records import utc_now
from registry.storage.cache import Fragment, ReadCache
from registry.storage.checksums import LAST_VERSION

META_TABLE = "meta"
STAGING_FOLDER = ".creating"
NOTES_FOLDER = "moments"

# What LanceDB and pyarrow raise for a missing file, a full disk, a damaged table or a lost race alike.
FOREIGN_ERRORS = (OSError, RuntimeError, ValueError, pa.ArrowException)

# What a damaged file can make of Rust code. It derives from BaseException and cannot be imported.
_PANIC = "PanicException"
CONFLICT = re.compile(r"commit conflict|too many concurrent writers", re.IGNORECASE)
VANISHED = re.compile(r"not found", re.IGNORECASE)
_RUST_PREFIX = re.compile(r"^(lance error: |LanceError\(\w+\): |Invalid input, )+")
_RUST_REQUEST = re.compile(r"Generic \w+ error: (?:.*? - )+")
_RUST_WRAPPED = re.compile(r"Generic N/A error: |(?:Not found: )?Wrapped error: ")
_RUST_LOCATION = re.compile(r",? (location: )?/\S+\.rs:\d+.*", re.DOTALL)

WHOLE: ContextVar[str] = ContextVar("whole", default="")  # of which writes are parts
Answer = TypeVar("Answer")


class Place(Protocol):
    """What the database asks of the place it lies in; what is the same in most places is done here."""

    cache: ReadCache | None = None  # the read cache; only a folder has one
    uri: str
    connect_target: str
    storage_options: dict[str, str]
    staging_uri: str  # where a new registry is built before it is published

    def has_table(self, name: str) -> bool:
        """Whether a table's files are there, without opening it."""

    def has_no_version(self, name: str) -> bool:
        """Whether no version of a table is there, as a kill during its creation leaves it."""

    def is_being_created(self) -> bool:
        """Whether a creation is under way, or was cut short."""

    def check_kind(self) -> None:
        """Fail where there cannot be a registry, such as at a file."""

    def check(self) -> None:
        """Fail where a registry neither is nor can be made."""

    def is_writable(self) -> bool:
        """Whether a lock can be taken here."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep other writers out; re-entrant within a thread."""

    def import_lock(self) -> AbstractContextManager[None]:
        """Keep other imports, and repairs, away for the time of an import; writers only where need be."""
        return self.lock()

    def check_lock(self) -> None:
        """Fail if the lock that this thread holds has been lost; the operating system takes none away."""
        return

    def prepare(self) -> None:
        """Make the place itself, so that a lock can be taken; a prefix of an object store needs no making."""
        return

    def publish(self) -> None:
        """Move what was built in the staging place here, ``meta`` last."""

    def remove_staging(self) -> None:
        """Remove the staging place."""

    def remove_leftovers(self) -> None:
        """Remove what a creation that was cut short left, staged or moved."""

    def cache_folder(self, registry_id: str) -> Path:
        """The local folder where the index goes; need not be there."""

    def table_size(self, name: str) -> tuple[int, int]:
        """Number of files of a table, and their bytes in total."""

    def identity(self) -> str:
        """What distinguishes this place from another that is put where it was; empty where nothing does."""
        return ""

    def version_stamp(self, name: str, version: int) -> str:
        """What distinguishes a version of a table from another of that number; empty if that is not known."""
        return ""

    def forget_files(self) -> None:
        """Forget which files were compared."""
        return

    def holding(self) -> object:
        """What stands for the lock that this thread holds: another each time that it is taken."""

    def versions(self, name: str) -> list[int]:
        """The versions of a table that are kept, rising."""

    def as_of(self, versions: Mapping[str, int]) -> "Place":
        """This place as it was, by the version of each table: to be read, never written, without caches."""

    # Notes are small files beside the tables, each written whole or not at all.

    def note_names(self) -> list[str]:
        """Names of all notes."""

    def read_note(self, name: str) -> bytes:
        """A note; empty if it is not there."""

    def write_note(self, name: str, content: bytes) -> None:
        """Write a note, on disk when this returns."""

    def delete_notes(self, names: Collection[str]) -> None:
        """Delete notes."""

    def needed_files(self, name: str) -> list[str]:
        """Paths of the files that the newest version of a table needs, relative to the registry."""

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file of the registry to a new file on this machine."""

    # What only a folder does: object stores leave it to LanceDB.

    def fragments(self, name: str) -> list[Fragment]:
        """The fragments of the newest version of a table, in order; empty where nobody knows."""
        return []

    def prune(self, table: Any, needed: Sequence[int], age: timedelta) -> None:
        """Delete the versions of a table of LanceDB that are older and before those that are needed."""
        first, now = min(needed, default=LAST_VERSION), datetime.now(UTC)
        written = [one["timestamp"] for one in table.list_versions() if one["version"] >= first]
        ages = [now - at.astimezone(UTC) + age for at in written]
        table.optimize(cleanup_older_than=max([age, timedelta(milliseconds=1), *ages]))  # it warns of zero

    # Object stores keep checksums of objects, and what they acknowledge, themselves; a folder does more.

    def sync_table(self, name: str) -> None:
        """Wait until what was written to a table is on disk."""
        return

    def torn_versions(self, name: str) -> list[int]:
        """Versions of a table that are empty or cut short, as a power cut leaves them; newest first."""
        return []

    def is_unlisted(self, name: str) -> bool:
        """Whether the newest version of a table is one that no writer got to list."""
        return False

    def go_back(self, name: str, is_readable: Callable[[], bool], *, unlisted_only: bool) -> list[int]:
        """Give up the versions of a table that were never whole, unless none is; newest first."""
        return []

    def record_checksums(self, name: str) -> None:
        """Remember what the files of a table hold, after a write."""
        return

    def check_files(self, name: str, *, largest: int | None = None) -> None:
        """Fail if a file of a table is not what was written; pass over data files above ``largest`` bytes."""
        return

    def damaged_files(self, name: str, versions: Collection[int]) -> tuple[list[str], list[str]]:
        """Every file of a table that is not what was written, by comparing all of them.

        Returns:
            Those that its newest version needs, and those that only former ones do.
        """
        return [], []

    def checksums_are_whole(self, name: str) -> bool:
        """Whether what is remembered of the files of a table is there and can be read."""
        return True

    def forget_checksums(self, name: str) -> None:
        """Drop what is remembered of a table that was dropped."""
        return


@dataclass(frozen=True, eq=False)
class Moment:
    """The moment before a write."""

    number: int  # of the write, from 1
    at: str
    tables: Mapping[str, int]
    host: str = field(default_factory=socket.gethostname)
    process_id: int = field(default_factory=os.getpid)
    undoes: int = 0  # number of the write that it takes back; 0 if it takes none back
    redoes: int = 0  # number of the write that it does again
    restores: Mapping[str, int] = field(default_factory=dict)  # version of each table that it makes the newest
    whole: str = ""  # what it is a part of, which is taken back as a whole; empty for a write of its own
    bound: str = ""  # why nothing of before can be asked or restored; empty if it can

    @property
    def since(self) -> str:
        """When what it is a part of began; its lines may have been made before it took the lock."""
        return self.whole.rpartition(" ")[2] or self.at

    def sealed(self) -> bytes:
        """The note of it, with its checksum."""
        text = json.dumps(asdict(self)).encode()
        return text + b"\n" + xxhash.xxh3_64_hexdigest(text).encode()

    @staticmethod
    def unsealed(note: bytes) -> "Moment | None":
        """The moment of a note; ``None`` if it is not what was written. Older notes have no checksum."""
        text, _, checksum = note.partition(b"\n")
        try:
            return (
                Moment(**json.loads(text))
                if checksum in {b"", xxhash.xxh3_64_hexdigest(text).encode()}
                else None
            )
        except (ValueError, TypeError):
            return None


def groups_of(moments: list[Moment]) -> list[list[Moment]]:
    """Moments of writes, each with those that are parts of the same and follow one another."""
    groups = list[list[Moment]]()
    for one in moments:
        if groups and one.whole and one.whole == groups[-1][-1].whole:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def standing_of(groups: list[list[Moment]]) -> list[list[Moment]]:
    """The writes that were not taken back, in order."""
    standing, undone = list[list[Moment]](), list[list[Moment]]()
    for group in groups:
        if group[-1].undoes:
            undone += standing[-1:]
            standing = standing[:-1]
        elif group[-1].redoes:
            standing += undone[-1:]
            undone = undone[:-1]
        else:
            standing, undone = [*standing, group], []
    return standing


def last_undo(moments: list[Moment]) -> Moment | None:
    """The last undo that was not done again, if nothing else was written since."""
    undos = list[Moment]()
    for moment in moments:
        if moment.undoes:
            undos.append(moment)
        elif moment.redoes:
            undos = undos[:-1]
        else:
            undos = []
    return undos[-1] if undos else None


def retried(
    operation: Callable[[], Answer], conflict: re.Pattern[str], attempts: int, wait_seconds: float = 0.0
) -> Answer:
    """Run a read or a write, again where another process got in between.

    Args:
        operation: Answers or commits as a whole, or raises.
        conflict: What is in the message of an error after which another attempt makes sense.
        attempts: How often it is run at most; the last error is passed on, and every other one at once.
        wait_seconds: Pause before the second attempt; it doubles with each further one.
    """
    for attempt in range(attempts - 1):
        try:
            return operation()
        except FOREIGN_ERRORS as error:
            if not conflict.search(str(error)):
                raise
        # Random, so that two writers that collided once do not collide again.
        time.sleep(wait_seconds * 2**attempt * random.uniform(0.5, 1.0))
    return operation()


@contextmanager
def storage_errors(what: str, hint: str = "") -> Iterator[None]:
    """Turn errors of the database and the operating system into one sentence of ours.

    Raises:
        StorageError: If the block raises any of ``FOREIGN_ERRORS``, or the database's own code panics.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        if isinstance(error, RegistryError):
            raise
        raise StorageError(f"{what}: {_reason(error)}{hint and '; '}{hint}") from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise StorageError(f"{what}: its files make no sense{hint and '; '}{hint}") from error


def _reason(error: Exception) -> str:
    """The message of a foreign error without requests and places in Rust source files."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = _RUST_WRAPPED.sub("", _RUST_REQUEST.sub("", _RUST_PREFIX.sub("", str(error))))
    return _RUST_LOCATION.sub("", text) or type(error).__name__


@contextmanager
def together() -> Iterator[None]:
    """Let the writes within be parts of one, as far as nobody else writes in between; or of that around it."""
    token = WHOLE.set(WHOLE.get() or f"{socket.gethostname()} {os.getpid()} {utc_now()}")
    try:
        yield
    finally:
        WHOLE.reset(token)
