"""Folders of class folders, listed without holding what is in them.

Samples are images, or texts (``.txt``) where no class folder holds an image. They lie directly in their class
folder; hidden files and files of other kinds are passed over. Folders named like a split that hold class
folders are splits; then what lies outside of them is passed over too.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from indexer.data.images import IMAGE_SUFFIXES, is_image_name
from indexer.data.listings import SPLIT_NAMES, TEXT_SUFFIX, Entry, Listing, choose_split, printable, read_file
from indexer.errors import DataError
from indexer.records import Content, Reading


def open_folder(spec: str, reading: Reading) -> Listing:
    """List a folder; memory grows with the number of class folders, not of images.

    Raises:
        DataError: If it holds no class folders, one of them holds no samples, or there is no such split.
    """
    splits = {
        folder.name.lower(): Path(folder)
        for folder in _visible(spec)
        if folder.name.lower() in SPLIT_NAMES and folder.is_dir() and _holds_class_folders(folder)
    }
    root = choose_split(spec, {"": Path(spec), **splits}, reading.split)
    folders = sorted((entry for entry in _visible(root) if entry.is_dir()), key=lambda entry: entry.name)
    if not folders:
        raise DataError(spec, "holds no class folders; expected images in <class>/<name>.jpg inside it")
    content = _content(folders)
    for folder in folders:
        if next(_samples(folder, content), None) is None:
            kind = f"images ({' '.join(IMAGE_SUFFIXES)})" if content == "images" else f"texts ({TEXT_SUFFIX})"
            raise DataError(
                spec,
                f"class folder {folder.name!r} holds no {kind}; put some into it, "
                "remove it, or name the folder that holds the class folders",
            )

    def scan() -> Iterator[Entry]:
        for label, folder in enumerate(folders):
            for file in _samples(folder, content):
                yield Entry(f"{folder.name}/{file.name}", file, (label,))

    return Listing(
        spec=spec,
        kind="single_label",
        class_names=tuple(printable(folder.name) for folder in folders),
        scan=scan,
        size=lambda entry: int(entry.where.stat().st_size),
        read=lambda entry: read_file(entry.where),
        content=content,
    )


def _visible(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _content(folders: Sequence[os.DirEntry[str]]) -> Content:
    """What class folders hold: texts, if there are some and no image in any of them."""
    contents: tuple[Content, ...] = ("images", "texts")
    for content in contents:
        if any(next(_samples(folder, content), None) for folder in folders):
            return content
    return "images"


def _samples(folder: os.DirEntry[str], content: Content) -> Iterator[os.DirEntry[str]]:
    fits = is_image_name if content == "images" else _is_text_name
    return (file for file in _visible(folder) if fits(file.name) and file.is_file())


def _is_text_name(name: str) -> bool:
    return name.lower().endswith(TEXT_SUFFIX)


def _holds_class_folders(folder: os.DirEntry[str]) -> bool:
    """Whether a folder named like a split is one, not a class that is called so."""
    holds_folders = False
    for entry in _visible(folder):
        if is_image_name(entry.name) or _is_text_name(entry.name):
            return False
        holds_folders = holds_folders or entry.is_dir()
    return holds_folders
