"""What a listing is: the samples of a dataset one after the other, nothing decoded and nothing kept.

A listing streams. A folder of a million files is gone over as often as it takes, never held, so what a caller
makes of it in passing decides the memory.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from indexer.errors import DataError
from indexer.layouts.names import split_kind
from indexer.records import Content, Kind

DEFAULT_SPLIT = "train"
TEXT_SUFFIX = ".txt"
MAX_FILE_BYTES = 2**30
"""Bytes of one image file. Larger ones count as unreadable; no image of ``images.MAX_PIXELS`` needs as many."""

T = TypeVar("T")


class Entry(NamedTuple):
    """One listed sample.

    Attributes:
        name: Unlike that of any other: path below the folder, path as the manifest has it, or tar member, all
            with forward slashes; of arrays the row number from 0.
        where: What the container needs to find it again.
        labels: Rising indices into the class names: one of a single-label task, any number of a multi-label
            task, none of a regression.
        targets: The T numbers of a regression.
    """

    name: str
    where: Any
    labels: tuple[int, ...] = ()
    targets: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Listing:
    """A listing: which samples there are, nothing decoded.

    Attributes:
        spec: The data spec it was opened by.
        kind: What the labels are.
        class_names: Names of the C classes, labels or targets; sorted, or by number where labels are numbers of
            an array.
        scan: Start going over the samples, in any order; may be called again, and meets at least one sample.
        size: Bytes of a sample: of its file, or of its pixels in memory.
        read: The bytes of a sample's file, or its pixels ``[H, W]`` or ``[H, W, C]`` of any numbers. May be
            called from several threads; raises OSError where the file is gone, or has more than
            ``MAX_FILE_BYTES``.
        order: What samples are sorted by.
        content: What the samples are; of texts, ``read`` gives UTF-8.
        taken: What was taken for what, in sentences; empty where nothing had to be told apart.
        passed_over: Files that are no samples, by reason, as far as anybody would miss them.
    """

    spec: str
    kind: Kind
    class_names: tuple[str, ...]
    scan: Callable[[], Iterable[Entry]] = field(repr=False)
    size: Callable[[Entry], int] = field(repr=False)
    read: Callable[[Entry], bytes | np.ndarray] = field(repr=False)
    order: Callable[[Entry], Any] = field(default=attrgetter("name"), repr=False)
    content: Content = "images"
    taken: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)


def choose_split(spec: str, parts: Mapping[str, T], split: str | None) -> T:
    """The part of a dataset that a split names.

    Args:
        spec: The data spec, for messages.
        parts: The splits by lower-case name, and under "" what is in none of them.
        split: As in ``indexer.data.specs.open_dataset``.

    Raises:
        DataError: If there is no such split.
    """
    return parts[chosen_split(spec, parts, split)]


def chosen_split(spec: str, parts: Iterable[str], split: str | None) -> str:
    """The name of the part that a split names, as itself or by what it usually means: ``Training`` for train.

    Raises:
        DataError: If there is no such split, or several are meant.
    """
    names = sorted(name for name in parts if name)
    if not names:
        if split is not None:
            raise DataError(spec, f"has no splits, so split {split!r} cannot be chosen; leave the split out")
        return ""
    wanted = DEFAULT_SPLIT if split is None else split.lower()
    kind = split_kind(wanted)
    alike = [wanted] if wanted in names else [name for name in names if kind and split_kind(name) == kind]
    if len(alike) != 1:
        which = f"splits {', '.join(alike)} may be" if alike else "has no split"
        raise DataError(spec, f"{which} {wanted!r}; its splits are {', '.join(names)}")
    return alike[0]


def printable(name: str) -> str:
    """The name as valid Unicode: file names may hold bytes that are not, and records may not."""
    return name.encode(errors="backslashreplace").decode()


def read_file(path: str | os.PathLike[str], offset: int = 0, size: int | None = None) -> bytes:
    """Content of a file, or ``size`` bytes of it from ``offset`` on.

    Raises:
        OSError: If it cannot be read, or if that is more than ``MAX_FILE_BYTES``.
    """
    with Path(path).open("rb") as file:  # a handle per read: threads share no position
        if size is None:
            size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"{size} bytes are more than {MAX_FILE_BYTES}", str(path))
        file.seek(offset)
        return file.read(size)


@contextlib.contextmanager
def system_errors(spec: str) -> Iterator[None]:
    """Turn what the system says of a file or folder into a sentence.

    Raises:
        DataError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        inside = f"{error.filename}: " if error.filename not in (None, spec) else ""
        raise DataError(spec, f"cannot be read: {inside}{error.strerror or error}") from error
