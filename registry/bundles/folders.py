"""A bundle as a folder that can be pushed to a hub as a dataset repository: its members as files, and a card.

    README.md                          the card, for people and the hub; never read
    manifest.json                      as in the file, with the same checksums
    tasks.parquet ...                  as in the file, byte for byte

What hubs and Git keep beside it, ``HUB_ENTRIES``, is passed over. Anything else that the manifest does not name
is refused, and so are links, which could lead anywhere.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from registry.bundles.format import MANIFEST, RECORD_TABLES, BundleWriter, member_name
from registry.bundles.reader import EMBEDDINGS_MEMBER, MAX_MANIFEST_BYTES, Bundle, checked_manifest
from registry.errors import BundleError, StorageError
from registry.files import sync_folder
from registry.storage.places import storage_errors

CARD = "README.md"
HUB_ENTRIES = {".git", ".gitattributes", ".gitignore", ".cache", ".huggingface"}

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # neither links nor waits at a pipe


class FolderWriter(BundleWriter):
    """Writes the members of one bundle as files of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda name: (folder / name).open("xb"), (folder / MANIFEST).write_bytes)
        self._folder = folder

    def add_card(self, text: str) -> None:
        """Write the card."""
        (self._folder / CARD).write_text(text, encoding="utf-8")


@contextmanager
def writing_folder(path: Path) -> Iterator[FolderWriter]:
    """Write a bundle into a folder, in place of the one that is there.

    It is written beside the folder and moved when it is whole, its manifest last: what was there stays if
    writing fails, and a folder in which moving was cut short has no manifest and is no bundle.

    Raises:
        StorageError: If it cannot be written, or the folder holds what is none of ours.
    """
    with storage_errors(f"{path}: the folder cannot be written"):
        _check_replaceable(path)
        place = path.resolve()
        temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.mkdir()
            yield FolderWriter(temporary)
            _sync_files(temporary)
            _move(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_ours(name: str) -> bool:
    """Whether a file of this name may be one of a bundle, beside its card."""
    return (
        name == MANIFEST or name in map(member_name, RECORD_TABLES) or bool(EMBEDDINGS_MEMBER.fullmatch(name))
    )


def _check_replaceable(path: Path) -> None:
    """Refuse a folder whose files an export would bury or leave lying about.

    Raises:
        StorageError: If there is anything but a former export and what hubs keep.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise StorageError(f"{path} is a file; give the folder to write, or leave format='folder' out")
    names = {entry.name for entry in path.iterdir()}
    if foreign := sorted(name for name in names - HUB_ENTRIES - {CARD} if not _is_ours(name)):
        raise StorageError(
            f"{path} holds {foreign[0]!r}, which no export writes; give a new or an empty folder"
        )
    if names == {CARD}:
        raise StorageError(f"{path} holds a {CARD} that no export wrote; give a new or an empty folder")


def _sync_files(folder: Path) -> None:
    for entry in folder.iterdir():
        with entry.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def _move(source: Path, target: Path) -> None:
    """Put a written bundle where it goes."""
    if not target.exists():
        source.replace(target)
    else:
        names = {entry.name for entry in source.iterdir()}
        (target / MANIFEST).unlink(missing_ok=True)
        for former in [entry for entry in target.iterdir() if _is_ours(entry.name) and entry.name not in names]:
            former.unlink()
        for name in sorted(names, key=lambda name: name == MANIFEST):
            (source / name).replace(target / name)
        sync_folder(target)
    sync_folder(target.parent)


@contextmanager
def open_folder(path: Path) -> Iterator[Bundle]:
    """Open a bundle in a folder, checking its files against its manifest, byte for byte.

    Raises:
        BundleError: If it is none, or damaged.
        SchemaVersionError: If a newer version of this package wrote it.
        StorageError: If it cannot be read.
    """
    with ExitStack() as stack:
        files = _open_files(path, stack)
        if MANIFEST not in files:
            raise BundleError(f"{path}: there is no {MANIFEST} in it, so it is no bundle")
        sizes = {name: os.fstat(file.fileno()).st_size for name, file in files.items()}
        if sizes[MANIFEST] > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: {MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
        manifest = checked_manifest(path, files[MANIFEST].read(), sizes)
        yield Bundle(path, manifest, {name: (file, 0) for name, file in files.items()})


def _open_files(path: Path, stack: ExitStack) -> dict[str, IO[bytes]]:
    """The files of a bundle, open, so that what was checked is what is read; the card is not among them.

    Raises:
        BundleError: If something is neither a file of a bundle nor kept there by a hub.
        StorageError: If one cannot be opened.
    """
    files: dict[str, IO[bytes]] = {}
    try:
        with os.scandir(path) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if entry.name in HUB_ENTRIES:
                continue
            if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                raise BundleError(f"{path}: {entry.name!r} is no plain file; nothing was imported")
            if entry.name == CARD:
                continue
            if not _is_ours(entry.name):
                raise BundleError(f"{path}: {entry.name!r} has no place in a bundle; nothing was imported")
            files[entry.name] = stack.enter_context(os.fdopen(os.open(entry.path, _OPEN_FLAGS), "rb"))
    except BundleError:
        raise
    except OSError as err:
        raise StorageError(f"{path}: the folder cannot be read: {err.strerror or err}") from err
    return files
