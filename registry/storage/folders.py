"""A registry in a folder of this machine, see ``registry.storage.places``; and what a power cut leaves in it.

A version of a table that its writer got to list in ``seals/`` was acknowledged, and only `t2v verify --repair`
gives it up. One that is not listed and not whole was not, since a write returns once all of it is on disk:
whoever meets it gives it up. Under ``--durability normal`` writes return before, so it is said what went.
"""

import logging
import os
import shutil
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import StorageError
from registry.files import is_durable, share, sync_folder, write_atomically
from registry.storage.cache import FOLDER, Fragment, ReadCache, read_fragments, unneeded_files
from registry.storage.checksums import (
    CHECKSUMS_FOLDER,
    TABLE_SUFFIX,
    FileChecksums,
    manifests,
    needed_files,
    version_number,
)
from registry.storage.locks import FILES, IMPORT_FILE, LOCK_FILE, check_folder_lock, folder_lock, held_file
from registry.storage.places import META_TABLE, NOTES_FOLDER, STAGING_FOLDER, Place, storage_errors
from registry.storage.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from registry.storage.database import Database

MOST_NAMED = 5  # writes in a message
PAGE_ROWS = 8192  # read at a time

_LOG = logging.getLogger("registry")


class LocalPlace(FileChecksums, Place):
    """A folder on this machine."""

    def __init__(self, uri: str | Path, durability: str | None = None) -> None:
        self.uri = str(uri)
        self.durability = durability
        self.path = Path(uri).expanduser().absolute()
        self.connect_target = str(self.path)
        self.storage_options: dict[str, str] = {}
        self.staging_uri = str(self.path / STAGING_FOLDER)
        self._versions, self._tables = {}, {}
        self.cache = ReadCache(self.path, SCHEMA_VERSION)

    def _table_path(self, name: str) -> Path:
        return self.path / f"{name}{TABLE_SUFFIX}"

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
        """Fail at a file; ``StorageError`` if the place is one."""
        if self.path.is_file():
            raise StorageError(f"{self.uri} is a file; a registry needs a folder of its own")

    def check(self) -> None:
        """Fail, by a ``StorageError``, at a file or a folder of something else."""
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
        return not self._versions and os.access(self.path, os.W_OK)

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
            if is_durable(self.durability):
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
        """Beside the tables; of the past nothing is kept, so that is where no folder can be."""
        return Path(os.devnull if self._versions else self.path, FOLDER)

    def holding(self) -> object:
        """The open file by which this thread holds the lock."""
        file = held_file(self.path / LOCK_FILE)
        return weakref.ref(file) if file else None  # of one file always the same; it keeps none open

    def versions(self, name: str) -> list[int]:
        """By the names of the manifests."""
        return [version_number(path) for path in reversed(manifests(self._table_path(name)))]

    def as_of(self, versions: Mapping[str, int]) -> "LocalPlace":
        """This folder as it was."""
        place = LocalPlace(self.uri, self.durability)
        place._versions = versions
        return place

    def note_names(self) -> list[str]:
        """Names of the files in their folder, without what a kill left."""
        folder = self.path / NOTES_FOLDER
        return [path.name for path in folder.iterdir() if path.suffix != ".tmp"] if folder.is_dir() else []

    def read_note(self, name: str) -> bytes:
        """The file, or nothing."""
        try:
            return (self.path / NOTES_FOLDER / name).read_bytes()
        except FileNotFoundError:
            return b""
        except (IsADirectoryError, PermissionError):
            return b"unreadable"

    def write_note(self, name: str, content: bytes) -> None:
        """Write a file whole."""
        path = self.path / NOTES_FOLDER / name
        path.parent.mkdir(exist_ok=True)
        if path.is_dir():
            _delete(path)
        write_atomically(path, content, durable=is_durable(self.durability))
        for made in (path.parent, path):
            share(made, self.path)

    def delete_notes(self, names: Collection[str]) -> None:
        """Delete files, for good once this returns."""
        for name in names:
            _delete(self.path / NOTES_FOLDER / name)
        if names:
            self._sync(self.path / NOTES_FOLDER)

    def needed_files(self, name: str) -> list[str]:
        """By what the newest manifest names."""
        return [f"{name}{TABLE_SUFFIX}/{path}" for path in needed_files(self._table_path(name))]

    def damaged_files(self, name: str, versions: Collection[int]) -> tuple[list[str], list[str]]:
        """Every file that is not what was written; of versions, also what is missing."""
        table = self._table_path(name)
        damaged, newest = self.changed_files(name), manifests(table)[:1]
        needed = {*newest, *_files_of(table, [path for path in newest if path not in damaged])}
        names = {version_number(path): path for path in manifests(table)}
        former = [names[version] for version in versions if version in names]
        files = _files_of(table, [path for path in former if path not in damaged])
        past = {path for path in files if not (table / path).is_file()}.union(damaged) - needed
        gone = [f"version {version}" for version in versions if version not in names]
        return [path for path in damaged if path in needed], [*sorted(past), *gone]

    def fragments(self, name: str) -> list[Fragment]:
        """By the newest manifest."""
        table = self._table_path(name)
        return [fragment for path in manifests(table)[:1] for fragment in read_fragments(table / path)]

    def prune(self, table: Any, needed: Sequence[int], age: timedelta) -> None:
        """In files, all but the versions needed and what came after the last of them.

        Manifests go first: what a kill leaves, no version needs, and the next time deletes it.
        """
        folder, seconds, last = self._table_path(table.name), age.total_seconds(), max(needed, default=0)
        kept, names = [manifests(folder)[0]], manifests(folder)[1:]
        for manifest in names:
            version, path = version_number(manifest), folder / manifest
            is_young = seconds and time.time() - path.stat().st_mtime < seconds
            if version in needed or version >= last > 0 or is_young:
                kept.append(manifest)
            else:
                _delete(path)
        for path in unneeded_files(folder, kept):
            _delete(path)

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


def _files_of(table: Path, paths: Sequence[str]) -> list[str]:
    """Paths within a table of the files that some of its manifests name."""
    return [file for path in paths for fragment in read_fragments(table / path) for file in fragment.files]


def _delete(path: Path) -> None:
    """Remove a file, or what is in its place."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def give_up_unfinished(database: "Database", name: str) -> bool:
    """Give up the newest version of a table if its writer did not get to list it and it is not whole.

    Returns:
        Whether one was; not where the registry cannot be written.
    """
    lost = list[int]()
    with suppress(OSError, StorageError):  # what is wrong is said by whoever met it
        if database.place.is_unlisted(name) and database.place.is_writable():
            # A writer that is at work lists its version before it lets go. Not write_lock, under which an undo
            # that was cut short is finished first: it needs what is mended here.
            with database.place.lock():
                still = database.place.is_unlisted(name)
                lost = go_back(database, name, unlisted_only=True) if still else []
    if lost:
        said = "%s: a write to table %s was cut short and is given up: %s"
        _LOG.warning(said, database.uri, name, lost_since(database, name, lost))
    return bool(lost)


def is_readable(database: "Database", name: str) -> bool:
    """Whether all that a table holds can be read, whatever its checksums say."""
    try:
        with storage_errors(name):
            for _ in database.connect(database.place).open_table(name).search().to_batches(PAGE_ROWS):
                pass
    except StorageError:
        return False
    return True


def go_back(database: "Database", name: str, *, unlisted_only: bool = False) -> list[int]:
    """Give up the versions of a table that were never whole, unless none is; newest first."""
    with database.place.lock():
        if not unlisted_only:
            database.moments.give_up("versions of its tables were lost")
        lost = database.place.go_back(name, lambda: is_readable(database, name), unlisted_only=unlisted_only)
        if lost:
            database.reopen()
            if not database.place.has_no_version(name):
                database.place.record_checksums(name)
    return lost


def lost_since(database: "Database", name: str, lost: list[int]) -> str:
    """What went with the versions of a table that were given up, by the audit, which is written before."""
    try:
        with storage_errors(name):
            newest = max(database.open_table(name).list_versions(), key=lambda version: version["version"])
        at = newest["timestamp"].astimezone(UTC).isoformat(timespec="milliseconds")
        if newest["version"] > max(lost):
            return "nothing is lost, as a later version is whole"
        lines = database.read("audit").to_pylist() if name != "audit" else []
    except StorageError as error:
        return f"what was lost is not known: {error}"
    lines = sorted((row for row in lines if row["at"] >= at), key=lambda row: row["at"])
    begun = [f"{row['action']} {row['subject']}" for row in lines]
    shown = ", ".join(begun[-MOST_NAMED:]) + (
        f" and {len(begun) - MOST_NAMED} before" if begun[MOST_NAMED:] else ""
    )
    since = f"; begun since in the registry, by the audit: {shown}" if begun else ""
    return f"it is as of {at} again, and what was written to it since is lost{since}"
