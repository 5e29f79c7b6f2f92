"""Tar files, read in place, one or several as one dataset; their index is held, their samples are not.

images.tar                 members <class>/<name>.jpg, below any folders, of which the last may be a split
shards-{000..009}.tar      the same in several, or shards of webdataset: KEY.jpg (of texts KEY.txt) with its
                           class in KEY.cls or KEY.json, see indexer.webdatasets
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from indexer.errors import DataError
from indexer.images import is_image_name
from indexer.listings import SPLIT_NAMES, Dataset, Entry, choose_split, printable, read_file
from indexer.tars import Member, index_tar
from indexer.webdatasets import CLASS_SUFFIXES, TEXT_SUFFIX, is_webdataset, open_webdataset

MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_shard_pattern(spec: str) -> bool:
    """Whether a data spec names several tars by braces, such as ``shards-{000..009}.tar``."""
    return spec.lower().endswith(".tar") and bool(_BRACES.search(spec))


def open_tar(spec: str, split: str | None) -> Dataset:
    """List a tar file.

    Raises:
        DataError: If it is no complete, uncompressed tar file, holds no samples or has no such split.
        OSError: If it cannot be read.
    """
    return _open(spec, [spec], split)


def open_shards(spec: str, split: str | None) -> Dataset:
    """List several tar files as one dataset.

    Raises:
        DataError: If one is not there, or as ``open_tar``.
        OSError: If one cannot be read.
    """
    paths = list(expand_braces(spec))
    for path in paths:
        if not Path(path).is_file():
            raise DataError(spec, f"shard {path} is not there; expected {len(paths)} tar files")
    return _open(spec, paths, split)


def expand_braces(spec: str) -> Iterator[str]:
    """Paths that a pattern stands for: ``{000..009}`` for numbers of as many digits, ``{a,b}`` for words.

    Raises:
        DataError: If braces hold neither, or stand for more than ``MAX_SHARDS`` files.
    """
    parts = _BRACES.split(spec)  # what is outside of braces and inside, in turn
    choices = [[part] if place % 2 == 0 else _choices(spec, part) for place, part in enumerate(parts)]
    count = 1
    for options in choices:
        count *= len(options)
    if count > MAX_SHARDS:
        raise DataError(spec, f"stands for {count} files; at most {MAX_SHARDS} are read as one dataset")
    return ("".join(chosen) for chosen in itertools.product(*choices))


def _choices(spec: str, inside: str) -> list[str]:
    if found := _RANGE.fullmatch(inside):
        first, last = int(found[1]), int(found[2])
        if first <= last < first + MAX_SHARDS:
            return [f"{number:0{len(found[1])}d}" for number in range(first, last + 1)]
    elif "," in inside:
        return inside.split(",")
    raise DataError(spec, f"{{{inside}}} is no rising range; expected braces such as {{000..009}} or {{a,b}}")


def _open(spec: str, paths: list[str], split: str | None) -> Dataset:
    shards = {path: index_tar(spec, path, _is_wanted) for path in paths}
    if is_webdataset(shards):
        return open_webdataset(spec, shards, split)
    by_split: dict[str, dict[str, Member]] = {}
    for path, members in shards.items():
        for name, member in members.items():
            parts = name.split("/")
            if len(parts) < 2 or not is_image_name(name):
                continue
            of_split = parts[-3].lower() if len(parts) > 2 and parts[-3].lower() in SPLIT_NAMES else ""
            unique = name if len(paths) == 1 else f"{PurePosixPath(path).name}/{name}"
            by_split.setdefault(of_split, {})[unique] = member
    if not by_split:
        raise DataError(spec, "holds no images; expected members <class>/<name>.jpg, or KEY.jpg with KEY.cls")
    return _of_class_folders(spec, choose_split(spec, by_split, split))


def _of_class_folders(spec: str, members: Mapping[str, Member]) -> Dataset:
    class_names = sorted({name.split("/")[-2] for name in members})
    label_of = {name: label for label, name in enumerate(class_names)}
    return Dataset(
        spec=spec,
        kind="single_label",
        class_names=tuple(printable(name) for name in class_names),
        scan=lambda: (
            Entry(name, member, (label_of[name.split("/")[-2]],)) for name, member in members.items()
        ),
        size=lambda entry: int(entry.where.size),
        read=lambda entry: read_file(*entry.where),
    )


def _is_wanted(name: str) -> bool:
    return is_image_name(name) or name.lower().endswith((TEXT_SUFFIX, *CLASS_SUFFIXES))
