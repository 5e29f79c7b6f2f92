"""Folders of class folders, listed without holding what is in them.

Images lie directly in their class folder; hidden files and files of other kinds are passed over. Folders named
like a split that hold class folders are splits; then what lies outside of them is passed over too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from indexer.errors import DataError
from indexer.images import IMAGE_SUFFIXES, is_image_name
from indexer.listings import SPLIT_NAMES, Dataset, Entry, choose_split, printable, read_file


def open_folder(spec: str, split: str | None) -> Dataset:
    """List a folder; memory grows with the number of class folders, not of images.

    Raises:
        DataError: If it holds no class folders, one of them holds no images, or there is no such split.
    """
    splits = {
        folder.name.lower(): Path(folder)
        for folder in _visible(spec)
        if folder.name.lower() in SPLIT_NAMES and folder.is_dir() and _holds_class_folders(folder)
    }
    root = choose_split(spec, {"": Path(spec), **splits}, split)
    folders = sorted((entry for entry in _visible(root) if entry.is_dir()), key=lambda entry: entry.name)
    if not folders:
        raise DataError(spec, "holds no class folders; expected images in <class>/<name>.jpg inside it")
    for folder in folders:
        if next(_images(folder), None) is None:
            raise DataError(
                spec,
                f"class folder {folder.name!r} holds no images ({' '.join(IMAGE_SUFFIXES)}); put some into it, "
                "remove it, or name the folder that holds the class folders",
            )

    def scan() -> Iterator[Entry]:
        for label, folder in enumerate(folders):
            for file in _images(folder):
                yield Entry(f"{folder.name}/{file.name}", file, (label,))

    return Dataset(
        spec=spec,
        kind="single_label",
        class_names=tuple(printable(folder.name) for folder in folders),
        scan=scan,
        size=lambda entry: int(entry.where.stat().st_size),
        read=lambda entry: read_file(entry.where),
    )


def _visible(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _images(folder: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    return (file for file in _visible(folder) if is_image_name(file.name) and file.is_file())


def _holds_class_folders(folder: os.DirEntry[str]) -> bool:
    """Whether a folder named like a split is one, not a class that is called so."""
    holds_folders = False
    for entry in _visible(folder):
        if is_image_name(entry.name):
            return False
        holds_folders = holds_folders or entry.is_dir()
    return holds_folders
