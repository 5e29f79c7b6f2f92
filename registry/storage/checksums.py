"""Checksums of the files that tables consist of, so that a damaged file is told and never believed.

LanceDB keeps no checksums: a bit that flips in a data file is read as if it had been written. Its files are
never changed once they are written, though, only added and, when they are old, deleted. So after each write the
new files are sealed: a line ``checksum size path line-checksum`` goes to ``seals/<table>``. A file without a
line, as a kill between write and seal leaves it, is taken as it is, and sealed by the next write.

Object stores keep checksums themselves; seals are for local folders.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from registry.errors import StorageError

SEALS_FOLDER = "seals"
SEALED_FOLDERS = ("_versions", "data", "_deletions", "_indices")
DATA_FOLDER, VERSIONS_FOLDER = "data", "_versions"
CHUNK_BYTES = 2**20

# Named by the newest of them and rewritten in place: a hint that LanceDB checks itself.
UNSEALED = frozenset({"latest_version_hint.json"})


@dataclass
class _Table:
    """What is known of the seals of one table in this process."""

    stamp: tuple[int, int, int] = (0, 0, 0)
    seals: dict[str, tuple[str, int]] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    num_lines: int = 0


class Seals:
    """The seals of one registry folder. Sealing needs the write lock, checking does not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: dict[str, _Table] = {}

    def seal(self, table_path: Path) -> None:
        """Add a line for every file of a table that has none; rewrite the list when most of it is history."""
        known = self._load(table_path)
        present = set(_file_names(str(table_path)))
        added = {name: _file_checksum(table_path / name) for name in sorted(present - known.seals.keys())}
        path = self._seals_path(table_path)
        path.parent.mkdir(exist_ok=True)
        history = known.num_lines > 64 + 2 * len(present)
        if history or known.num_lines != len(known.seals):
            known.seals = {name: known.seals[name] for name in sorted(known.seals.keys() & present)} | added
            temporary = path.with_name(f"{path.name}.tmp")
            temporary.write_text(_lines(known.seals), encoding="utf-8")
            temporary.replace(path)
            known.num_lines = len(known.seals)
        elif added:
            _append(path, _lines(added))
            known.seals = known.seals | added  # anew: another thread may be going through them
            known.num_lines += len(added)
        known.verified = known.verified | added.keys()
        known.stamp = _stamp(path)

    def check(self, table_path: Path, *, largest: int | None = None) -> None:
        """Compare every file that this process has not yet compared.

        Args:
            table_path: Folder of the table.
            largest: Data files above this many bytes are passed over.

        Raises:
            StorageError: If a file is not what was written, or the newest version of the table is missing.
        """
        known = self._load(table_path)
        unverified = known.seals.keys() - known.verified
        for name in unverified:
            checksum, size = known.seals[name]
            if largest is not None and size > largest and name.startswith(DATA_FOLDER):
                continue
            if (found := _checksum_if_there(table_path / name)) is not None and found != (checksum, size):
                raise self._damage(table_path, f"its file {name} is not what was written")
            known.verified.add(name)
        versions = [name for name in known.seals if name.startswith(VERSIONS_FOLDER) and not _is_passing(name)]
        # A kill in the middle of a compaction leaves a newer version without a seal, and perhaps none older.
        if unverified and versions and _newest_version(table_path) > min(versions):
            self._tables.pop(str(table_path), None)
            raise self._damage(table_path, f"its newest version, {min(versions)}, is missing")

    def are_whole(self, table_path: Path) -> bool:
        """Whether there is a list of seals, and every line of it can be read."""
        known = self._load(table_path)
        return bool(known.seals) and known.num_lines == len(known.seals)

    def forget(self, table_path: Path) -> None:
        """Drop the seals of a table that was dropped."""
        self._seals_path(table_path).unlink(missing_ok=True)
        self._tables.pop(str(table_path), None)

    def damaged_files(self, table_path: Path) -> list[str]:
        """Every sealed file that is there and is not what was written, by comparing all of them again."""
        known = self._load(table_path)
        found = {name: _checksum_if_there(table_path / name) for name in sorted(known.seals)}
        damaged = [name for name, seal in found.items() if seal is not None and seal != known.seals[name]]
        known.verified = {name for name, seal in found.items() if seal == known.seals[name]}
        return damaged

    def _load(self, table_path: Path) -> _Table:
        """The seals as they are in the file now; read only if it has changed."""
        known = self._tables.setdefault(str(table_path), _Table())
        path = self._seals_path(table_path)
        try:
            stamp = _stamp(path)
            if stamp != known.stamp:
                lines = path.read_bytes().decode("utf-8", "replace").splitlines()
                seals = dict(parsed for line in lines if (parsed := _parse(line)))
                known.seals, known.stamp, known.num_lines = seals, stamp, len(lines)
        except FileNotFoundError:
            self._tables[str(table_path)] = known = _Table()
        return known

    def _damage(self, table_path: Path, what: str) -> StorageError:
        return StorageError(
            f"{self._folder}: table {table_path.stem} is damaged: {what}; restore the registry from a copy"
        )

    def _seals_path(self, table_path: Path) -> Path:
        return self._folder / SEALS_FOLDER / table_path.stem


def _file_names(table_path: str) -> Iterator[str]:
    """Paths within a table of its files that are sealed; in plain text, as there may be thousands."""
    for folder in SEALED_FOLDERS:
        for root, _, names in os.walk(f"{table_path}/{folder}"):
            within = root[len(table_path) + 1 :].replace(os.sep, "/")
            yield from (f"{within}/{name}" for name in names if not _is_passing(name))


def _is_passing(name: str) -> bool:
    """Whether a file is none that lasts: the hint, or what LanceDB had not finished when it was killed."""
    base = name.rpartition("/")[2]
    return base in UNSEALED or base.startswith(".")


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does; zeros where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _newest_version(table_path: Path) -> str:
    """Path within a table of the manifest of its newest version; they are numbered downwards."""
    names = [path.name for path in (table_path / VERSIONS_FOLDER).glob("*.manifest")]
    return f"{VERSIONS_FOLDER}/{min(names, default='~')}"


def _checksum_if_there(path: Path) -> tuple[str, int] | None:
    """Checksum and size; ``None`` where the file is gone, as old ones go."""
    try:
        return _file_checksum(path)
    except FileNotFoundError:
        return None


def _file_checksum(path: Path) -> tuple[str, int]:
    digest, size = xxhash.xxh3_64(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _lines(seals: dict[str, tuple[str, int]]) -> str:
    return "".join(_line(checksum, size, name) for name, (checksum, size) in seals.items())


def _line(checksum: str, size: int, name: str) -> str:
    content = f"{checksum} {size} {name}"
    return f"{content} {xxhash.xxh3_64_hexdigest(content.encode())}\n"


def _parse(line: str) -> tuple[str, tuple[str, int]] | None:
    """Path, checksum and size of a line; ``None`` for one that is cut off or damaged."""
    content, _, checksum = line.rpartition(" ")
    if xxhash.xxh3_64_hexdigest(content.encode()) != checksum:
        return None
    of_file, size, name = content.split(" ", 2)
    return name, (of_file, int(size))


def _append(path: Path, text: str) -> None:
    """Add lines after the last whole one."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else f"\n{text}"
        file.write(text.encode())
