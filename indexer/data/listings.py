"""What a listing is: the samples of a dataset one after the other, nothing decoded and nothing kept.

A listing streams. A folder of a million files, on disk or in an archive, is gone over as often as it takes,
never held, so what a caller makes of it in passing decides the memory.
"""

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from indexer.data.images import is_image_name
from indexer.errors import DataError
from indexer.layouts.folders import Node
from indexer.layouts.names import MASK_STEM, is_hidden, may_be_mask, split_kind
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
        labels: Rising indices into the class names: one of a single-label task, any number of a multi-label
            task, none of a regression.
    """

    name: str
    where: Any  # what the container needs to find it again
    labels: tuple[int, ...] = ()
    targets: tuple[float, ...] = ()  # the T numbers of a regression


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


TABLE_SUFFIXES = (
    ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".xlsx", ".xml",
)  # fmt: skip
MAX_TABLES = 200_000
"""Files of a folder that may be annotations."""


Item = tuple[str, str, Any]
"""What a folder holds: its name, ``file``, ``folder`` or ``link`` to nothing, and where a file is."""


class Tree(Protocol):
    """Files in folders. Paths of folders are below the place, with forward slashes, "" for the place itself."""

    def items(self, folder: str) -> Iterator[Item]:
        """What a folder holds, in any order."""
        ...

    def size(self, where: Any) -> int:
        """Bytes of a file."""
        ...

    def read(self, where: Any) -> bytes:
        """Content of a file; may be called from several threads."""
        ...


class FolderTree:
    """A folder on disk; links are followed, but for those that lead back."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def items(self, folder: str) -> Iterator[Item]:
        """What a folder holds."""
        with os.scandir(self._root / folder) as entries:
            for entry in entries:
                if entry.is_file():
                    yield entry.name, "file", entry
                elif entry.is_dir():
                    if not (entry.is_symlink() and self._leads_back(folder, entry)):
                        yield entry.name, "folder", None
                elif entry.is_symlink():
                    yield entry.name, "link", None

    def _leads_back(self, folder: str, entry: os.DirEntry[str]) -> bool:
        inside = PurePosixPath(folder)
        return any(Path(entry).samefile(self._root / above) for above in (inside, *inside.parents))

    def size(self, where: Any) -> int:
        """Bytes of a file."""
        return int(where.stat().st_size)

    def read(self, where: Any) -> bytes:
        """Content of a file."""
        return read_file(where)


class MemberTree:
    """The members of an archive by name: each has a ``size``, is a link (``None``), or a folder (``name/``)."""

    def __init__(self, members: Mapping[str, Any], read: Any) -> None:
        self.read = read
        self._items: dict[str, list[Item]] = {"": []}
        for name, member in members.items():
            folder, _, file = name.rpartition("/")
            if not file:
                self._folder(folder)
                continue
            self._folder(folder).append((file, "file" if member else "link", member))

    def _folder(self, folder: str) -> list[Item]:
        if folder not in self._items:
            self._items[folder] = []
            above, _, name = folder.rpartition("/")
            self._folder(above).append((name, "folder", None))
        return self._items[folder]

    def items(self, folder: str) -> Iterator[Item]:
        """What a folder holds."""
        return iter(self._items[folder])

    def size(self, where: Any) -> int:
        """Bytes of a file."""
        return int(where.size)


def survey_tree(tree: Tree) -> tuple[Node, Content]:
    """Count what is in every folder, in one walk; samples are images, or texts where there is no image."""
    root = Node()
    stack = [root]
    while stack:
        node = stack.pop()
        for name in sorted(_count(tree, node)):
            node.children[name] = Node(name, f"{node.path}/{name}" if node.path else name)
        stack.extend(node.children.values())
    if root.holds_samples:
        return root, "images"
    are_bare = not any(node.texts for node in root.walk())
    for node in root.walk():
        node.samples = node.bare if are_bare else node.texts
        node.others[reason_of("" if are_bare else TEXT_SUFFIX)] -= node.samples
        node.bare *= are_bare
    return root, "texts"


def _count(tree: Tree, node: Node) -> list[str]:
    """Count the files of a folder; the names of the folders in it."""
    folders, stems, samples = [], set(), 0
    for name, kind, _ in tree.items(node.path):
        if is_hidden(name):
            node.others["hidden"] += kind == "file"
        elif kind == "folder":
            folders.append(name)
        elif kind == "link":
            node.others["link to nothing"] += 1
        elif is_image_name(name):
            samples += 1
            if may_be_mask(name) and (mask := MASK_STEM.fullmatch(_stem(name))):
                stems.add(mask[1])
        else:
            _count_other(node, name)
    node.samples = samples
    if stems:  # a second look, at the folders only in which images are named like masks
        images = [name for name, kind, _ in tree.items(node.path) if kind == "file" and is_image_name(name)]
        node.masked = frozenset(_stem(name) for name in images if _stem(name) in stems)
        node.masks = sum(is_mask(node, name) for name in images if not is_hidden(name))
        node.samples -= node.masks
    return folders


def _count_other(node: Node, name: str) -> None:
    suffix = PurePosixPath(name).suffix.lower()
    node.others[reason_of(suffix)] += 1
    node.texts += suffix == TEXT_SUFFIX
    node.bare += not suffix
    if suffix == ".gz":
        suffix = PurePosixPath(name[:-3].lower()).suffix
    if suffix in TABLE_SUFFIXES and len(node.tables) < MAX_TABLES:
        node.tables.append(name)


def reason_of(suffix: str) -> str:
    """Why a file of that suffix is passed over."""
    return f"not an image ({suffix})" if suffix else "not an image"


def is_mask(node: Node, name: str) -> bool:
    """Whether an image is called like the mask of another one beside it."""
    mask = MASK_STEM.fullmatch(_stem(name)) if node.masked else None
    return mask is not None and mask[1] in node.masked


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def totals(root: Node) -> Counter[str]:
    """Files that are no samples, by reason."""
    counted: Counter[str] = Counter()
    for node in root.walk():
        counted.update(node.others)
    return counted
