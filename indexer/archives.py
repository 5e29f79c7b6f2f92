"""Tar files of images ``<class>/<name>.jpg``, read in place; their index is held, their images are not.

Below any folders, of which the last may be a split. Members with unsafe names, links and hidden files are
passed over. Nothing is extracted, so a name is never a path.
"""

import re
import tarfile
from pathlib import PurePosixPath
from typing import NamedTuple

from indexer.errors import DataError
from indexer.images import is_image_name
from indexer.listings import SPLIT_NAMES, Dataset, Entry, choose_split, printable, read_file

_DRIVE = re.compile(r"[A-Za-z]:")


class _Member(NamedTuple):
    """An image in a tar: its class, and the bytes from ``offset`` on that are its file."""

    class_name: str
    offset: int
    size: int


def open_tar(spec: str, split: str | None) -> Dataset:
    """List a tar file.

    Raises:
        DataError: If it is no complete, uncompressed tar file, holds no images or has no such split.
        OSError: If it cannot be read.
    """
    try:
        by_split = _index(spec)
    except OSError:
        raise
    except Exception as error:  # a damaged header makes tarfile raise nearly anything, up to RecursionError
        raise DataError(spec, f"is not a complete, uncompressed tar file: {error}") from error
    if not by_split:
        raise DataError(spec, "holds no images; expected members <class>/<name>.jpg")
    members = choose_split(spec, by_split, split)
    class_names = sorted({member.class_name for member in members.values()})
    label_of = {name: label for label, name in enumerate(class_names)}

    return Dataset(
        spec=spec,
        kind="single_label",
        class_names=tuple(printable(name) for name in class_names),
        scan=lambda: (Entry(name, member, (label_of[member.class_name],)) for name, member in members.items()),
        size=lambda entry: int(entry.where.size),
        read=lambda entry: read_file(spec, entry.where.offset, entry.where.size),
    )


def _index(spec: str) -> dict[str, dict[str, _Member]]:
    """Images by split ("" for none) and name.

    Raises:
        ReadError: If it is no tar file or a damaged one.
    """
    by_split: dict[str, dict[str, _Member]] = {}
    with tarfile.open(spec, "r:") as archive:
        for info in archive:
            if archive.offset <= info.offset:  # of a negative size; tarfile would go round in a circle
                raise tarfile.ReadError(f"member {info.name!r} has a size of {info.size} bytes")
            if listed := _image_member(info):
                of_split, name, member = listed
                # A later member of the same name replaces the earlier one, as when extracting.
                by_split.setdefault(of_split, {})[name] = member
        last = f"after member {info.name!r}" if archive.getmembers() else "at the start"
        # tarfile takes a damaged header for the end; a whole archive ends with blocks of zeros.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it is damaged or cut {last}")
    return by_split


def _image_member(info: tarfile.TarInfo) -> tuple[str, str, _Member] | None:
    """Split ("" for none), name and place of an image; ``None`` for what is none or has no safe name."""
    if not info.isreg() or info.issparse() or not is_image_name(info.name):
        return None
    parts = PurePosixPath(info.name).parts
    unsafe = any(part.startswith(("/", ".")) for part in parts) or _DRIVE.match(info.name)
    if len(parts) < 2 or unsafe:
        return None
    split = parts[-3].lower() if len(parts) > 2 and parts[-3].lower() in SPLIT_NAMES else ""
    return split, "/".join(parts), _Member(parts[-2], info.offset_data, info.size)
