"""A backup of a registry in a folder, and how it comes back.

A backup holds the files that the newest version of each table needs, under ``tables``, and ``backup.json``,
which lists them with their checksums. Files of LanceDB never change, so a further backup to the same folder
copies only what is new. The list is replaced once all files are there and a trial restore was checked: a
kill before that leaves the backup of before. What the list does not name is deleted afterwards.
"""

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from registry.answers import Origin
from registry.errors import StorageError
from registry.files import share, sync_file, sync_folder, write_atomically
from registry.records import utc_now
from registry.storage.checksums import TABLE_SUFFIX
from registry.storage.database import Database
from registry.storage.folders import LocalPlace
from registry.storage.locks import HOLDER_FILE, LOCK_FILE, folder_lock
from registry.storage.places import META_TABLE, storage_errors
from registry.storage.rows import actor, audit_lines, read_origins, write_origins
from registry.storage.store import Store
from registry.task_answers import BackupSummary

LIST, TABLES, TRIAL = "backup.json", "tables", "trial-"
UNFINISHED = "restoring"  # in what is to take the place of a registry, until it has
FORMAT = 1
ATTEMPTS = 3
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux

Files = Mapping[str, tuple[int, str]]


@dataclass(frozen=True)
class Backup:
    """What a folder of a backup lists."""

    registry_id: str
    at: str
    files: Files
    format: int = FORMAT


def back_up(store: Store, place: Path, *, verify: bool) -> BackupSummary:
    """Make a backup, of one moment between writes; others may write meanwhile.

    Raises:
        StorageError: If the folder holds anything else, cannot be written, or the trial fails.
    """
    store.check_writable()
    place, registry_id = place.expanduser().absolute(), store.database.registry_id()
    before = _backup_before(place, registry_id, store)
    with storage_errors(f"{place}: a backup cannot be written"):
        (place / TABLES).mkdir(parents=True, exist_ok=True)
        with folder_lock(place):
            for leftover in place.glob(f"{TRIAL}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            files, copied = _copied_of_one_moment(store, place, _kept(place, before, verify=verify))
            backup = Backup(registry_id, utc_now(), files)
            if verify:
                _try(place, backup)
            write_atomically(place / LIST, _listed(backup), durable=True)
            _delete_others(place, files)
    new = files.keys() - (before.files.keys() if before else set())
    return _summary(place, backup, len(new), copied, verified=verify)


def restore(store: Store, place: Path, *, replace: bool, is_name: Callable[[str], bool]) -> BackupSummary:
    """Bring a backup back, as the registry at the place of a store.

    It is laid out and checked beside that place first, and takes it in one step where the system can do that. A
    registry that was there is kept beside it. Paths and code that it names are inert, unless it may load them.

    Args:
        store: The registry that is to be.
        place: The folder of the backup.
        replace: Whether there may be one already.
        is_name: Whether a loader is a mere name, which opens no path and runs no code.

    Returns:
        What was restored, and where the registry of before is kept.

    Raises:
        StorageError: If there is no backup, it is damaged, or there is a registry that may not be replaced.
    """
    target, place = store.database.place, place.expanduser().absolute()
    store.check_writable()
    if not isinstance(target, LocalPlace):
        raise StorageError(f"{store.uri}: a backup is restored to a folder; export and import that")
    backup, folder = _read(place), target.path.resolve()
    if place.resolve() == folder or folder in place.resolve().parents or place.resolve() in folder.parents:
        raise StorageError(f"{place} and {folder} lie in one another; restore to another folder")
    is_there = target.has_table(META_TABLE) or target.has_table("tasks")
    if is_there and not replace:
        raise StorageError(f"{store.uri}: there is a registry already; give --yes to replace it, it is kept")
    if not is_there:
        target.check()
    with storage_errors(f"{store.uri}: the backup cannot be restored"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = folder.with_name(f".{folder.name}.restoring")
        _tidy(staging, folder)
        try:
            _lay_out_whole(place, backup, staging)
            _distrust(Store(staging).database, place, store.database if is_there else None, is_name)
            kept = _take_place(staging, folder, keep=is_there)
        except BaseException:
            _tidy(staging, folder)
            raise
        store.database.reopen()
    size = sum(size for size, _ in backup.files.values())
    return _summary(place, backup, len(backup.files), size, verified=True, kept=kept)


def _lay_out_whole(place: Path, backup: Backup, staging: Path) -> None:
    """Make the registry that a backup holds, checked, with a line on where it came from."""
    staging.mkdir()
    (staging / UNFINISHED).touch()
    lay_out(place, backup, staging)
    _check(staging, backup)
    restored = Store(staging).database
    with restored.write_lock():
        restored.moments.forget(f"the registry was restored from a backup of {backup.at}")
        restored.append("audit", audit_lines("restore", [place.name], backup_of=backup.at))


def _distrust(restored: Database, place: Path, here: Database | None, is_name: Callable[[str], bool]) -> None:
    """Let no path and no code that a backup names be used before it is trusted, but what may be already."""
    ours = set[tuple[tuple[str, str], str]]()
    if here is not None:
        with suppress(StorageError):  # it may be damaged
            ours = set(_usable(here).items())
    brought = [one for one in _usable(restored).items() if not is_name(one[1]) and one not in ours]
    file, at, by = str(place.resolve()), utc_now(), actor()
    write_origins(restored, [Origin(*key, at, by, file, loader=loader) for key, loader in brought])


def _usable(database: Database) -> dict[tuple[str, str], str]:
    """What loads the experts and spaces that may be loaded."""
    columns = (("space", "spaces", "space_id", "probe_source"), ("expert", "experts", "name", "loader"))
    origins = read_origins(database)
    inert = {key for key, origin in origins.items() if origin.file and not origin.trusted_at}
    return {
        (kind, row[name]): row[loader]
        for kind, table, name, loader in columns
        for row in database.read(table, columns=[name, loader]).to_pylist()
        if (kind, row[name]) not in inert
    }


def _take_place(staging: Path, folder: Path, *, keep: bool) -> str:
    """Put what was restored where the registry was; where that is kept now."""
    if not folder.exists():
        staging.rename(folder)
    else:
        for path in (staging, *staging.rglob("*")):
            share(path, folder)
        with folder_lock(folder):
            _exchange(staging, folder)
    (folder / UNFINISHED).unlink()
    sync_folder(folder.parent)
    if not keep:
        shutil.rmtree(staging, ignore_errors=True)
    return _tidy(staging, folder)


def _tidy(staging: Path, folder: Path) -> str:
    """Remove what a restore that was killed left; what it had replaced by then is kept, where is returned."""
    if (staging / UNFINISHED).exists() or not staging.exists():
        shutil.rmtree(staging, ignore_errors=True)
        return ""
    kept = folder.with_name(f"{folder.name}.before-{datetime.now():%Y%m%d-%H%M%S-%f}")
    staging.rename(kept)
    return str(kept)


def _exchange(first: Path, second: Path) -> None:
    """Let two folders swap their names, in one step where the system can do that."""
    with suppress(OSError, AttributeError):
        paths = os.fsencode(first), os.fsencode(second)
        if not ctypes.CDLL(None).renameat2(_HERE, paths[0], _HERE, paths[1], _EXCHANGE):
            return
    aside = first.with_name(f"{first.name}.aside")
    second.rename(aside)
    first.rename(second)
    aside.rename(first)


def lay_out(place: Path, backup: Backup, folder: Path, *, linked: bool = False) -> None:
    """Put the files of a backup where a registry has them, each compared with its checksum.

    Args:
        place: Folder of the backup.
        backup: What is listed in it.
        folder: Where they go.
        linked: Whether one file may stand in both places, for a trial that is removed.

    Raises:
        StorageError: If a file is missing, or is not what was copied.
    """
    for name, expected in backup.files.items():
        source, target = place / TABLES / name, folder / name
        if not source.is_file() or _fingerprint(source) != expected:
            raise StorageError(f"{place}: file {name} of the backup is missing or not what was written")
        target.parent.mkdir(parents=True, exist_ok=True)
        if linked:
            with suppress(OSError):  # where no link can be, it is copied
                os.link(source, target)
        if not target.exists():
            shutil.copyfile(source, target)
            sync_file(target)
    for made in {} if linked else {parent for name in backup.files for parent in (folder / name).parents[:2]}:
        sync_folder(made)
    for table in {name.partition(TABLE_SUFFIX)[0] for name in backup.files}:
        LocalPlace(folder).record_checksums(table)


def _summary(
    place: Path, backup: Backup, copied: int, size: int, *, verified: bool, kept: str = ""
) -> BackupSummary:
    total = sum(size for size, _ in backup.files.values())
    return BackupSummary(str(place), backup.at, len(backup.files), total, copied, size, verified, kept)


def _backup_before(place: Path, registry_id: str, store: Store) -> Backup | None:
    """The backup that is there; ``StorageError`` if it is of another registry, or something else is there."""
    if place.is_file():
        raise StorageError(f"{place}: a backup needs a folder of its own")
    inside = isinstance(store.database.place, LocalPlace) and store.database.place.path.resolve()
    if inside and (place.resolve() == inside or inside in place.resolve().parents):
        raise StorageError(f"{place} lies in the registry; give a folder elsewhere, best on another disk")
    if (place / LIST).is_file():
        before = _read(place)
        if before.registry_id != registry_id:
            raise StorageError(f"{place} holds a backup of another registry; give another folder")
        return before
    names = {path.name for path in place.iterdir()} if place.is_dir() else set[str]()
    if any(name not in {TABLES, LOCK_FILE, HOLDER_FILE} and not name.startswith(TRIAL) for name in names):
        raise StorageError(f"{place} is not empty and holds no backup; give a new or empty folder")
    return None


def _kept(place: Path, before: Backup | None, *, verify: bool) -> Files:
    """The files of a former backup that need not be copied again: those that are what they were."""
    files = before.files if before else {}
    paths = {name: place / TABLES / name for name in files if (place / TABLES / name).is_file()}
    return {
        name: files[name]
        for name, path in paths.items()
        if (_fingerprint(path) == files[name] if verify else path.stat().st_size == files[name][0])
    }


def _listed(backup: Backup) -> bytes:
    """What is listed, with its checksum."""
    document = asdict(backup)
    return json.dumps(document | {"checksum": _checksum(document)}).encode()


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(document, sort_keys=True).encode(), digest_size=16).hexdigest()


def _read(place: Path) -> Backup:
    """What is listed; ``StorageError`` if there is no backup, or a newer version made it."""
    path = place / LIST
    if not path.is_file():
        raise StorageError(f"{place} holds no backup; give the folder that `t2v backup` wrote")
    try:
        document = json.loads(path.read_bytes())
        if document.pop("checksum", None) not in {None, _checksum(document)}:
            document = {}
        files = {str(name): (int(size), str(checksum)) for name, (size, checksum) in document["files"].items()}
        backup = Backup(str(document["registry_id"]), str(document["at"]), files, int(document["format"]))
    except OSError as err:
        raise StorageError(f"{path} cannot be read: {err.strerror or err}") from err
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        said = "is damaged; restore from another backup, or delete this file and back up again"
        raise StorageError(f"{path} {said}") from err
    if backup.format > FORMAT:
        raise StorageError(f"{place} was written by a newer version of this package; update it")
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise StorageError(f"{path} names files outside of the backup; restore from another")
    return backup


@contextmanager
def _one_moment(store: Store) -> Iterator[None]:
    """Nobody else writes within, where this process can keep them from it."""
    with store.write_lock() if store.database.place.is_writable() else nullcontext():
        yield


def _needed(store: Store) -> list[str]:
    """Files that the newest version of each table needs, of one moment."""
    with _one_moment(store):
        tables = store.database.table_names()
        return [path for name in tables for path in store.database.place.needed_files(name)]


def _copied_of_one_moment(store: Store, place: Path, before: Files) -> tuple[Files, int]:
    """Copy what is needed; where it is deleted meanwhile, as by a purge, again, at last while nobody writes."""
    for _ in range(ATTEMPTS):
        with suppress(FileNotFoundError):
            return _copied(store, place, _needed(store), before)
    with _one_moment(store):
        return _copied(store, place, _needed(store), before)


def _copied(store: Store, place: Path, names: list[str], before: Files) -> tuple[Files, int]:
    """Copy files that are not there yet; size and checksum of each, and the bytes copied."""
    files, copied, folders = {}, 0, set[Path]()
    for name in names:
        target = place / TABLES / name
        if name in before:
            files[name] = before[name]
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.tmp")
        store.database.place.fetch(name, temporary)
        files[name] = _fingerprint(temporary)
        sync_file(temporary)
        temporary.replace(target)
        folders |= {target.parent, target.parent.parent}
        copied += files[name][0]
    for made in folders:
        sync_folder(made)
    return files, copied


def _fingerprint(path: Path) -> tuple[int, str]:
    """Size and checksum of a file."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _try(place: Path, backup: Backup) -> None:
    """Restore on trial, and check every row."""
    with tempfile.TemporaryDirectory(dir=place, prefix=TRIAL) as folder:
        lay_out(place, backup, Path(folder), linked=True)
        _check(Path(folder), backup)


def _check(folder: Path, backup: Backup) -> None:
    """Check every row of what was laid out; ``StorageError`` if it is not a whole registry."""
    store = Store(folder)
    if store.database.registry_id() != backup.registry_id:
        raise StorageError("it is another registry than its list says")
    problems = [problem for problem in store.verify() if problem.kind not in {"dangling", "orphan"}]
    if problems:
        raise StorageError(f"a trial restore was not whole: {problems[0].where}: {problems[0].message}")


def _delete_others(place: Path, files: Files) -> None:
    """Delete what no list names, such as what was purged since."""
    for path in sorted((place / TABLES).rglob("*"), reverse=True):
        if path.is_dir():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path.relative_to(place / TABLES).as_posix() not in files:
            path.unlink()
