"""Where a registry lies: a local folder, or a prefix of an object store.

A place knows files, not tables: whether a table's files are there, how writers keep out of each other's way,
and where the rebuildable index of the registry goes. What goes wrong there is said in one sentence of ours.
"""

import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from registry.errors import RegistryError, StorageError
from registry.files import is_durable, share, sync_folder
from registry.storage.cache import FOLDER, ReadCache
from registry.storage.checksums import CHECKSUMS_FOLDER, FileChecksums, version_number
from registry.storage.locks import FILES, IMPORT_FILE, check_folder_lock, folder_lock
from registry.storage.schema import SCHEMA_VERSION

META_TABLE = "meta"
STAGING_FOLDER = ".creating"
TABLE_SUFFIX = ".lance"

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

Answer = TypeVar("Answer")


class Place(Protocol):
    """What the database asks of the place it lies in; what is the same in most places is done here.

    Attributes:
        uri: As the user gave it.
        connect_target: What LanceDB connects to.
        storage_options: How LanceDB reaches it.
        staging_uri: Where a new registry is built before it is published.
        cache: The read cache; only a folder has one.
    """

    cache: ReadCache | None = None
    uri: str
    connect_target: str
    storage_options: dict[str, str]
    staging_uri: str

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

    def damaged_files(self, name: str) -> list[str]:
        """Every file of a table that is not what was written, by comparing all of them."""
        return []

    def checksums_are_whole(self, name: str) -> bool:
        """Whether what is remembered of the files of a table is there and can be read."""
        return True

    def forget_checksums(self, name: str) -> None:
        """Drop what is remembered of a table that was dropped."""
        return


class LocalPlace(Place):
    """A folder on this machine.

    Attributes:
        path: The folder, absolute.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        self.path = Path(uri).expanduser().absolute()
        self.connect_target = str(self.path)
        self.storage_options: dict[str, str] = {}
        self.staging_uri = str(self.path / STAGING_FOLDER)
        self.cache = ReadCache(self.path, SCHEMA_VERSION)

    @cached_property
    def _checksums(self) -> FileChecksums:
        return FileChecksums(self.path)

    def has_table(self, name: str) -> bool:
        """Whether a table's folder is there."""
        return self._table_path(name).is_dir()

    def has_no_version(self, name: str) -> bool:
        """Whether a table's folder holds no version of it."""
        return not any((self._table_path(name) / "_versions").glob("*.manifest"))

    def is_being_created(self) -> bool:
        """Whether the folder of a creation is there."""
        return (self.path / STAGING_FOLDER).is_dir()

    def check_kind(self) -> None:
        """Fail at a file.

        Raises:
            StorageError: If the place is one.
        """
        if self.path.is_file():
            raise StorageError(f"{self.uri} is a file; a registry needs a folder of its own")

    def check(self) -> None:
        """Fail where a registry neither is nor can be made.

        Raises:
            StorageError: If the place is a file or a folder of something else.
        """
        self.check_kind()
        # In this order: a registry that appears in between is then not taken for something else.
        if self.path.is_dir() and not self._is_ours() and not self.has_table(META_TABLE):
            raise StorageError(f"{self.uri} is not empty and holds no registry; give a new or empty folder")

    def _is_ours(self) -> bool:
        """Whether the folder is empty but for the lock, or holds what a killed creation left."""
        names = {child.name for child in self.path.iterdir()}
        return STAGING_FOLDER in names or names <= FILES

    def is_writable(self) -> bool:
        """Whether this process may write in the folder; false on a disk that is mounted read-only."""
        return os.access(self.path, os.W_OK)

    def lock(self) -> AbstractContextManager[None]:
        """The lock of the folder."""
        return folder_lock(self.path)

    def import_lock(self) -> AbstractContextManager[None]:
        """A lock of its own: an import takes that of the folder for each of its commits."""
        return folder_lock(self.path, name=IMPORT_FILE)

    def check_lock(self) -> None:
        """Fail if somebody deleted the lock file while this thread holds it."""
        check_folder_lock(self.path)

    def prepare(self) -> None:
        """Make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._sync(self.path.parent)

    def publish(self) -> None:
        """Rename the tables and their checksums one by one, ``meta`` last."""
        staging = Path(self.staging_uri)
        meta = f"{META_TABLE}{TABLE_SUFFIX}"
        for child in sorted(staging.iterdir(), key=lambda child: child.name == meta):
            if child.name == CHECKSUMS_FOLDER or child.suffix == TABLE_SUFFIX:
                for path in (child, *child.rglob("*")):
                    share(path, self.path)
                if child.name == meta:
                    self._sync(self.path)
                child.rename(self.path / child.name)
        self._sync(self.path)

    def _sync(self, folder: Path) -> None:
        with suppress(PermissionError):  # the folder around a registry may be of another user
            if is_durable():
                sync_folder(folder)

    def remove_staging(self) -> None:
        """Remove the staging folder."""
        shutil.rmtree(self.staging_uri, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Remove what a creation that was cut short left."""
        for leftover in (self.path / CHECKSUMS_FOLDER, *self.path.glob(f"*{TABLE_SUFFIX}")):
            shutil.rmtree(leftover, ignore_errors=True)
        self.remove_staging()

    def cache_folder(self, registry_id: str) -> Path:
        """Beside the tables."""
        return self.path / FOLDER

    def sync_table(self, name: str) -> None:
        """Wait until the new files of a table are on disk."""
        self._checksums.sync(self._table_path(name))

    def torn_versions(self, name: str) -> list[int]:
        """Versions whose manifests are empty or cut short."""
        return [version_number(path) for path in self._checksums.torn_versions(self._table_path(name))]

    def is_unlisted(self, name: str) -> bool:
        """Whether the manifest of the newest version is not among the checksums."""
        return self._checksums.is_unlisted(self._table_path(name))

    def go_back(self, name: str, is_readable: Callable[[], bool], *, unlisted_only: bool) -> list[int]:
        """Remove the manifests of versions that were never whole."""
        path = self._table_path(name)
        given_up = self._checksums.go_back(path, is_readable, unlisted_only=unlisted_only)
        return [version_number(manifest) for manifest in given_up]

    def record_checksums(self, name: str) -> None:
        """List the checksums of the files of a table."""
        self._checksums.record(self._table_path(name))

    def check_files(self, name: str, *, largest: int | None = None) -> None:
        """Compare the files of a table with their checksums.

        Args:
            name: Name of the table.
            largest: Data files above this many bytes are passed over.

        Raises:
            StorageError: If one differs.
        """
        self._checksums.check(self._table_path(name), largest=largest)

    def damaged_files(self, name: str) -> list[str]:
        """Every file of a table that is not what was written."""
        return self._checksums.damaged_files(self._table_path(name))

    def checksums_are_whole(self, name: str) -> bool:
        """Whether the checksums of a table are there and none is damaged."""
        return self._checksums.are_whole(self._table_path(name))

    def forget_checksums(self, name: str) -> None:
        """Remove the checksums of a table."""
        self._checksums.forget(self._table_path(name))

    def table_size(self, name: str) -> tuple[int, int]:
        """Number of files of a table, and their bytes in total."""
        sizes = [path.stat().st_size for path in self._table_path(name).rglob("*") if path.is_file()]
        return len(sizes), sum(sizes)

    def identity(self) -> str:
        """Device and number of the folder."""
        try:
            status = self.path.stat()
        except OSError:
            return ""
        return f"{status.st_dev}.{status.st_ino}"

    def version_stamp(self, name: str, version: int) -> str:
        """Number, size and time of the manifest of a version."""
        versions = self._table_path(name) / "_versions"
        for manifest in (f"{2**64 - 1 - version:020}.manifest", f"{version}.manifest"):
            try:
                status = (versions / manifest).stat()
            except OSError:
                continue
            return f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}"
        return ""

    def forget_files(self) -> None:
        """Forget which files were compared."""
        self._checksums = FileChecksums(self.path)

    def _table_path(self, name: str) -> Path:
        return self.path / f"{name}{TABLE_SUFFIX}"


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

    Args:
        what: Start of the sentence: the place, and what cannot be done.
        hint: End of the sentence: what to do about it.

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
