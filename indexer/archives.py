"""Tar files of images ``<class>/<name>.jpg``, read in place; their index is held, their images are not.

Below any folders, of which the last may be a split. Members with unsafe names, links and hidden files are
passed over.
"""

import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from indexer.errors import DataError
from indexer.images import is_image_name
from indexer.listings import SPLIT_NAMES, Dataset, Entry, choose_split, printable


class _Member(NamedTuple):
    """An image in a tar: its class, and the bytes from ``offset`` on that are its file."""

    class_name: str
    offset: int
    size: int


def open_tar(spec: str, split: str | None) -> Dataset:
    """List a tar file.

    Raises:
        DataError: If it is no complete, uncompressed tar file, holds no images or has no such split.
    """
    by_split: dict[str, dict[str, _Member]] = {}
    try:
        with tarfile.open(spec, "r:") as archive:
            for info in archive:
                if listed := _image_member(info):
                    of_split, name, member = listed
                    # A later member of the same name replaces the earlier one, as when extracting.
                    by_split.setdefault(of_split, {})[name] = member
    except tarfile.TarError as error:
        raise DataError(spec, f"is not a complete, uncompressed tar file: {error}") from error
    if not by_split:
        raise DataError(spec, "holds no images; expected members <class>/<name>.jpg")
    members = choose_split(spec, by_split, split)
    class_names = sorted({member.class_name for member in members.values()})
    label_of = {name: label for label, name in enumerate(class_names)}

    def read(entry: Entry) -> bytes:
        with Path(spec).open("rb") as file:  # a handle per read: threads share no position
            file.seek(entry.where.offset)
            return file.read(entry.where.size)

    return Dataset(
        spec=spec,
        kind="single_label",
        class_names=tuple(printable(name) for name in class_names),
        scan=lambda: (Entry(name, member, (label_of[member.class_name],)) for name, member in members.items()),
        size=lambda entry: int(entry.where.size),
        read=read,
    )


def _image_member(info: tarfile.TarInfo) -> tuple[str, str, _Member] | None:
    """Split ("" for none), name and place of an image; ``None`` for what is none or has no safe name."""
    if not info.isreg() or info.issparse() or not is_image_name(info.name):
        return None
    parts = PurePosixPath(info.name).parts
    if len(parts) < 2 or any(part.startswith(("/", ".")) for part in parts):
        return None
    split = parts[-3].lower() if len(parts) > 2 and parts[-3].lower() in SPLIT_NAMES else ""
    return split, "/".join(parts), _Member(parts[-2], info.offset_data, info.size)
