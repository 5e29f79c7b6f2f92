"""Files in folders, whether these are on disk or in an archive: listed one after the other, and counted."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from indexer.data.images import is_image_name
from indexer.data.listings import TEXT_SUFFIX, read_file
from indexer.layouts.names import MASK_STEM, is_hidden, may_be_mask
from indexer.layouts.splits import Node
from indexer.records import Content

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx")
MAX_TABLES = 1000
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
    for node in root.walk():
        node.samples, node.others[reason_of(TEXT_SUFFIX)] = node.texts, 0
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
