"""Checksums of the files that tables consist of, so that a damaged file is reported and never believed.

LanceDB keeps none: a bit that flips in a data file is read as if it had been written, and a deleted manifest
silently brings back the version before it. Checksums of rows would not do: only embeddings have them, and they
say nothing about rows that are missing. Of 160 damages that ``tests/registry/storage/test_damage.py`` does to
files of every kind, four gave wrong answers or ended the process where these checksums were not compared:
three deleted manifests, and a bit that flipped in another.

Files of LanceDB are never changed once they are written, only added and, when they are old, deleted. So after
each write the new files are listed, a line ``checksum size path line-checksum`` each, in ``seals/<table>``. A
file without a line, as a kill between the write and the listing leaves it, is taken as it is, and listed by the
next write. Object stores keep checksums themselves; these are for local folders.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from registry.errors import StorageError
from registry.files import is_durable, share, sync_file, sync_folder, write_atomically

CHECKSUMS_FOLDER = "seals"
TABLE_SUFFIX = ".lance"
LISTED_FOLDERS = ("_versions", "data", "_deletions", "_indices")
DATA_FOLDER, VERSIONS_FOLDER = "data", "_versions"
CHUNK_BYTES = 2**20
LAST_VERSION, MAGIC = (
    2**64 - 1,
    b"LANC",
)  # manifests are numbered downwards; the end of manifests and data files

# Names the newest version and is rewritten in place: a hint that LanceDB checks itself.
UNLISTED = frozenset({"latest_version_hint.json"})


@dataclass
class _Table:
    """The checksums of one table as this process last read them.

    Attributes:
        listed: Checksum and size of each file by its path within the table.
        verified: Paths of the files that this process has compared.
        passed: Paths of the files that only older versions of the table need, which are not compared.
    """

    stamp: tuple[int, int, int] = (0, 0, 0)
    listed: dict[str, tuple[str, int]] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    num_lines: int = 0


class FileChecksums:
    """The checksums of one registry folder, a part of it. Recording needs the write lock, checking does not."""

    path: Path
    durability: str | None
    _versions: Mapping[str, int]  # of the tables that are read as they were
    _tables: dict[str, _Table]

    if TYPE_CHECKING:

        def _table_path(self, name: str) -> Path: ...

    def sync_table(self, name: str) -> None:
        """Wait until the files that are not listed yet are on disk, manifests after what they name."""
        if not is_durable(self.durability):
            return
        table_path = self._table_path(name)
        listed = self._load(table_path).listed
        new = [table_path / file for file in _file_names(str(table_path)) if file not in listed]
        for are_manifests in (False, True):
            paths = [path for path in new if (path.parent.name == VERSIONS_FOLDER) == are_manifests]
            for path in paths:
                sync_file(path)
            for folder in sorted({path.parent for path in paths}):
                sync_folder(folder)
        if not listed:  # a new table
            sync_folder(table_path)
            sync_folder(self.path)

    def torn_versions(self, name: str) -> list[int]:
        """Versions whose manifests are empty or cut short, as a power cut leaves them; newest first."""
        return [version_number(path) for path in self._torn_manifests(self._table_path(name))]

    def _torn_manifests(self, table_path: Path) -> list[str]:
        listed = self._load(table_path).listed
        return [name for name in manifests(table_path) if _is_torn(table_path / name, listed.get(name))]

    def is_unlisted(self, name: str) -> bool:
        """Whether the newest version is one that no writer got to list; if the list is lost, nobody knows.

        One that is there and holds nothing is not lost: a power cut leaves that.
        """
        table_path = self._table_path(name)
        listed, versions = self._load(table_path).listed, manifests(table_path)
        return bool(versions) and versions[0] not in listed and self._list_path(table_path).exists()

    def go_back(self, name: str, is_readable: Callable[[], bool], *, unlisted_only: bool) -> list[int]:
        """Give up the versions of a table that were never whole, newest first; none where none is whole."""
        table_path, aside = self._table_path(name), dict[str, Path]()
        listed, torn = self._load(table_path).listed, self._torn_manifests(table_path)
        while versions := manifests(table_path):
            newest = versions[0]
            if newest in listed and (unlisted_only or newest not in torn):
                break
            if newest not in listed and newest not in torn and is_readable():
                break
            path = table_path / newest
            aside[newest] = path.rename(path.with_suffix(".torn"))
        if (listed or unlisted_only) and not versions:
            for manifest, path in aside.items():
                path.rename(table_path / manifest)
            return []
        lost = [*aside, *(manifest for manifest in torn if manifest not in aside and not unlisted_only)]
        # What else was cut short, and is not missed by who reads all, belongs to the versions given up.
        others = [file for file in listed if not unlisted_only and _is_torn(table_path / file, listed[file])]
        gone = [*lost, *(others if others and is_readable() else ())]
        for path in (*aside.values(), *(table_path / file for file in gone)):
            path.unlink(missing_ok=True)
        sync_folder(table_path / VERSIONS_FOLDER)
        return [version_number(manifest) for manifest in lost]

    def record_checksums(self, name: str) -> None:
        """List every file of a table, computing the checksums of those that are not listed yet."""
        table_path = self._table_path(name)
        table, path = self._load(table_path), self._list_path(table_path)
        listed = {}
        names = sorted(_file_names(str(table_path)))
        new = [table_path / file for file in names if file not in table.listed]
        if sum(share(made, self.path) for made in new):
            first = min((version_number(made.name) for made in new if made.suffix == ".manifest"), default=1)
            others = [*(table_path / VERSIONS_FOLDER).glob("*.json"), *table_path.glob("_transactions/*.txn")]
            others = [
                made for made in others if made.suffix == ".json" or int(made.name.split("-")[0]) >= first - 1
            ]
            for made in {table_path, *(within.parent for within in (*new, *others)), *others}:
                share(made, self.path)
        for file in names:
            if entry := table.listed.get(file) or _checksum(table_path / file):
                listed[file] = entry
        if listed == table.listed and table.num_lines == len(listed):
            return
        if not path.parent.is_dir():
            path.parent.mkdir()
            share(path.parent, self.path)
        for leftover in path.parent.glob("*.tmp"):  # of a killed writer: this one has the lock
            leftover.unlink()
        if path.is_dir():
            path.rmdir()
        write_atomically(path, "".join(starmap(_line, listed.items())).encode())
        share(path, self.path)
        # In place of the former ones, never into them: another thread may be going through those.
        table.listed, table.verified = listed, table.verified | (listed.keys() - table.listed.keys())
        table.num_lines, table.stamp, table.passed = len(listed), _stamp(path), set()

    def check_files(self, name: str, *, largest: int | None = None) -> None:
        """Compare every file of a table that this process has not yet compared.

        Args:
            name: Of the table.
            largest: Data files above this many bytes are passed over.

        Raises:
            StorageError: If a file is not what was written, or the newest version of the table is missing.
        """
        table_path = self._table_path(name)
        table = self._load(table_path)
        unverified = table.listed.keys() - table.verified - table.passed
        if unverified:
            needed = needed_files(table_path, self._versions.get(name))
            newest = min((file for file in table.listed if file.endswith(".manifest")), default="")
            table.passed |= unverified.difference(needed, [newest])
            unverified -= table.passed
        for file in unverified:
            if largest is not None and table.listed[file][1] > largest and file.startswith(DATA_FOLDER):
                continue
            if _checksum(table_path / file) not in {None, table.listed[file]}:
                raise self._damage(name, f"its file {file} is not what was written")
            table.verified.add(file)
        versions = [file for file in table.listed if file.endswith(".manifest")]
        if self._versions:
            return
        if (unverified or not versions) and _is_newest_torn(table_path, table.listed):
            self._tables.pop(str(table_path), None)
            raise self._damage(name, "its newest version is empty or cut short")
        # A kill in the middle of a compaction leaves a newer version that is not listed, and perhaps no other.
        if unverified and versions and (manifests(table_path) or ["~"])[0] > min(versions):
            self._tables.pop(str(table_path), None)
            raise self._damage(name, f"its newest version, {min(versions)}, is missing")

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file, if it still is what was listed; ``StorageError`` if it is not what was written."""
        table, _, name = path.partition("/")
        shutil.copyfile(self.path / table / name, target)
        listed = self._load(self.path / table).listed.get(name)
        if listed and _checksum(target) != listed:
            raise self._damage(table.removesuffix(TABLE_SUFFIX), f"its file {name} is not what was written")

    def checksums_are_whole(self, name: str) -> bool:
        """Whether there is a list of a table, and every line of it can be read."""
        table = self._load(self._table_path(name))
        return bool(table.listed) and table.num_lines == len(table.listed)

    def forget_checksums(self, name: str) -> None:
        """Remove the list of a table that was dropped."""
        self._list_path(self._table_path(name)).unlink(missing_ok=True)
        self._tables.pop(str(self._table_path(name)), None)

    def forget_files(self) -> None:
        """Forget which files were compared."""
        self._tables = {}

    def changed_files(self, name: str) -> list[str]:
        """Every listed file that is there and is not what was written, by comparing all of them again."""
        table_path = self._table_path(name)
        table = self._load(table_path)
        actual = {file: _checksum(table_path / file) for file in sorted(table.listed)}
        table.verified = {file for file, checksum in actual.items() if checksum == table.listed[file]}
        return [file for file, checksum in actual.items() if checksum not in {None, table.listed[file]}]

    def _load(self, table_path: Path) -> _Table:
        """The list as it is on disk now; read only if it has changed."""
        table = self._tables.setdefault(str(table_path), _Table())
        path = self._list_path(table_path)
        try:
            if (stamp := _stamp(path)) != table.stamp:
                lines = path.read_bytes().decode("utf-8", "replace").splitlines()
                listed = dict(entry for line in lines if (entry := _parse(line)))
                table.listed, table.stamp, table.num_lines, table.passed = listed, stamp, len(lines), set()
        except (FileNotFoundError, IsADirectoryError):
            self._tables[str(table_path)] = table = _Table()
        return table

    def _damage(self, name: str, what: str) -> StorageError:
        return StorageError(f"{self.path}: table {name} is damaged: {what}; restore the registry from a copy")

    def _list_path(self, table_path: Path) -> Path:
        return self.path / CHECKSUMS_FOLDER / table_path.stem


def _file_names(table_path: str) -> Iterator[str]:
    """Paths within a table of the files that last; in plain text, as there may be thousands.

    Passed over are the hint, and what LanceDB had not finished when it was killed.
    """
    for folder in LISTED_FOLDERS:
        for root, _, names in os.walk(f"{table_path}/{folder}"):
            within = root[len(table_path) + 1 :].replace(os.sep, "/")
            yield from (f"{within}/{name}" for name in names if name not in UNLISTED and name[0] != ".")


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does."""
    status = path.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def manifests(table_path: Path) -> list[str]:
    """Paths within a table of its manifests, newest first."""
    return sorted(
        f"{VERSIONS_FOLDER}/{path.name}" for path in (table_path / VERSIONS_FOLDER).glob("*.manifest")
    )


def needed_files(table_path: Path, version: int | None = None) -> list[str]:
    """Paths within a table of the files that a version of it needs, its newest if none is given.

    That is its manifest, the data files that the manifest names, and all that is beside the data.
    """
    names = sorted(_file_names(str(table_path)))
    others = [name for name in names if name.startswith(VERSIONS_FOLDER)]
    chosen = [name for name in others if version in (None, version_number(name))][:1]
    content = b"".join((table_path / name).read_bytes() for name in chosen)
    data = [name for name in names if name.startswith(DATA_FOLDER)]
    others += [name for name in data if Path(name).name.encode() not in content]
    return sorted(set(names).difference(others).union(chosen))


def version_number(name: str) -> int:
    """The version of a manifest."""
    return LAST_VERSION - int(Path(name).stem)


def _is_newest_torn(table_path: Path, listed: dict[str, tuple[str, int]]) -> bool:
    return any(_is_torn(table_path / name, listed.get(name)) for name in manifests(table_path)[:1])


def _is_torn(path: Path, entry: tuple[str, int] | None) -> bool:
    """Whether a file is empty, cut short or all zeros, rather than changed; by what is listed of it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(MAGIC)))
            end = file.read()
    except FileNotFoundError:
        return False
    if entry:
        return size < entry[1] or (not any(end) and _checksum(path) != entry)
    return end != MAGIC


def _checksum(path: Path) -> tuple[str, int] | None:
    """Checksum and size of a file; ``None`` where it is gone, as old ones go."""
    digest, size = xxhash.xxh3_64(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        return "a folder", 0
    return digest.hexdigest(), size


def _line(name: str, entry: tuple[str, int]) -> str:
    checksum, size = entry
    content = f"{checksum} {size} {name}"
    return f"{content} {xxhash.xxh3_64_hexdigest(content.encode())}\n"


def _parse(line: str) -> tuple[str, tuple[str, int]] | None:
    """Path, checksum and size in a line; ``None`` for one that is cut off or damaged."""
    content, _, line_checksum = line.rpartition(" ")
    if xxhash.xxh3_64_hexdigest(content.encode()) != line_checksum:
        return None
    checksum, size, name = content.split(" ", 2)
    return name, (checksum, int(size))
