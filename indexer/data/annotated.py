"""Images whose classes are written in a file beside them, rather than named by the folders around them.

Such a file is recognised by its name, see ``indexer.layouts.annotations``, or it is a table with a row for each
image, see ``indexer.data.manifests``. Labels and names are held in memory.
"""

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from indexer.data.listings import Entry, Listing, Tree, chosen_split, printable, reason_of
from indexer.data.manifests import Files, open_manifest
from indexer.data.named_images import Image, Images
from indexer.errors import DataError
from indexer.layouts.annotations import READERS, Reader, read_lists, read_tabs, read_xml
from indexer.layouts.folders import LayoutError, Node, Notes, unwrap
from indexer.layouts.names import plain, split_in, split_kind
from indexer.records import Kind, Reading
from indexer.tables.delimited import suffix_of
from indexer.tables.plain_files import first_words

MAX_SOURCES_NAMED = 3


def open_annotated(spec: str, tree: Tree, root: Node, reading: Reading, notes: Notes) -> Listing | None:
    """List images by files of a known form; ``None`` if there is none."""
    sources = [
        _Source(node, name, *READERS[name]) for node in root.walk() for name in node.tables if name in READERS
    ]
    if not sources:
        sources = [
            _Source(node, name, name, read_lists)
            for node in root.walk()
            for name in node.tables
            if plain(node.name) == "meta" and name.endswith(".txt") and split_kind(name.removesuffix(".txt"))
        ]
    return _open_sources(spec, tree, root, sources, reading, notes) if sources else None


def _open_sources(
    spec: str,
    tree: Tree,
    root: Node,
    sources: Sequence["_Source"],
    reading: Reading,
    notes: Notes,
    scope: Node | None = None,
) -> Listing | None:
    """List images by files of a known form; ``None`` if there is no image.

    Raises:
        DataError: If a file is not what its name says, or names no image, or there is no such split.
    """
    images = Images(tree, scope or root)
    if not images.count:
        return None
    by_split: dict[str, dict[str, _Labelled]] = {}
    texts: dict[str, Callable[[str], str]] = {}
    for source in sources:
        try:
            text = texts.setdefault(source.node.path, read_texts(tree, source.node))
            _join(text, source, images, by_split, notes)
        except LayoutError as error:
            raise DataError(spec, _below(root, source.node, str(error))) from error
    if not by_split:
        raise DataError(spec, f"{sources[0].path(root)} names no image that is there")
    chosen = chosen_split(spec, by_split, reading.split)
    others = ", ".join(sorted(map(repr, by_split.keys() - {chosen, ""})))
    paths = sorted({source.path(root) for source in sources})
    more = f" and {len(paths) - 1} more" if len(paths) > MAX_SOURCES_NAMED else ""
    named = paths[0] + more if more else ", ".join(paths)
    of = f" of split {chosen!r}" * bool(chosen) + f", and not {others}," * bool(others)
    notes.taken.append(f"labels{of} from {named}")
    for source in sources:
        notes.take_back(reason_of(PurePosixPath(source.name).suffix.lower()))
    notes.leave_out("not annotated", images.count - sum(len(held) for held in by_split.values()))
    return _listing(spec, tree, root, list(by_split[chosen].values()), notes)


class _Source(NamedTuple):
    """A file of annotations: the folder it lies in, its name, which file is read first, and what reads it."""

    node: Node
    name: str
    first: str
    reader: Reader

    def path(self, root: Node) -> str:
        """Path of the file that is read first, below a folder."""
        return _below(root, self.node, self.first)


def _below(root: Node, node: Node, name: str) -> str:
    return f"{node.path}/{name}"[len(root.path) :].lstrip("/")


class _Labelled(NamedTuple):
    """An image and what it shows."""

    image: Image
    labels: set[str]


def _join(
    text: Callable[[str], str],
    source: _Source,
    images: Images,
    by_split: dict[str, dict[str, _Labelled]],
    notes: Notes,
) -> None:
    """Add what a file says of images; what it says of others is counted."""
    for said in source.reader(source.first, text):
        image = images.only(said.image, source.node.path)
        if image is None:
            notes.leave_out(f"row of {source.first} without its image", 1)
            continue
        held = by_split.setdefault(said.split or image.split, {})
        labels = held.setdefault(image.path, _Labelled(image, set())).labels
        if said.label:
            labels.add(said.label)


def read_texts(tree: Tree, node: Node) -> Callable[[str], str]:
    """What gives the text of a file in a folder; none is an empty one."""
    places = {
        name: where for name, kind, where in tree.items(node.path) if kind == "file" and name in node.tables
    }

    def text(name: str) -> str:
        if name not in places:
            return ""
        try:
            return tree.read(places[name]).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise LayoutError(f"{name}: is no text in UTF-8: {error.reason}") from error

    return text


def _listing(spec: str, tree: Tree, root: Node, held: list[_Labelled], notes: Notes) -> Listing:
    kind: Kind = "single_label" if all(len(one.labels) == 1 for one in held) else "multi_label"
    class_names = sorted({label for one in held for label in one.labels})
    label_of = {name: label for label, name in enumerate(class_names)}
    start = len(path := unwrap(root).path) + bool(path)
    entries = [
        Entry(one.image.path[start:], one.image.where, tuple(sorted(label_of[label] for label in one.labels)))
        for one in held
    ]
    if kind == "multi_label":
        notes.taken.append("several labels, since not every image has one")
    return Listing(
        spec=spec,
        kind=kind,
        class_names=tuple(printable(name) for name in class_names),
        scan=lambda: entries,
        size=lambda entry: tree.size(entry.where),
        read=lambda entry: tree.read(entry.where),
        taken=tuple(notes.taken),
        passed_over=dict(notes.passed_over),
    )


# Tables of labels


class _Table(NamedTuple):
    """A table that may say what images show: its folder, name and place, and of which split it speaks."""

    node: Node
    name: str
    where: Any
    kind: str | None

    def path(self, root: Node) -> str:
        """Path of the table below a folder."""
        return _below(root, self.node, self.name)


class _TableImages:
    """The images that the rows of a table name, of one split; see ``indexer.data.manifests.Files``."""

    def __init__(
        self, spec: str, tree: Tree, images: Images, table: _Table, reading: Reading, start: int
    ) -> None:
        self._spec, self._images, self._start, self._tree = spec, images, start, tree
        self._base = str(PurePosixPath(table.node.path) / (reading.image_root or ""))
        self._suffix = reading.image_suffix or ""
        self.kind: str | None = None
        self.taken: tuple[str, ...] = ()

    def find(self, place: str, named: str) -> tuple[str, Any, int] | None:
        """Name, place and size of an image; ``None`` for another split's; ``DataError`` unless one is meant."""
        alike = self._images.find(f"{named}{self._suffix}", self._base)
        mine = [image for image in alike if self.kind in (None, split_kind(image.split))]
        if len(mine) == 1:
            return mine[0].path[self._start :], mine[0].where, self._tree.size(mine[0].where)
        if alike and not mine:
            return None
        problem = (
            f"{named!r} could be {mine[0].path} or {mine[1].path}" if mine else f"there is no image {named!r}"
        )
        raise DataError(self._spec, f"{place}: {problem}; skip_bad=True leaves such rows out")

    def read(self, where: Any) -> bytes:
        """Content of an image."""
        return self._tree.read(where)


def open_tables(
    spec: str, tree: Tree, root: Node, scope: Node, reading: Reading, notes: Notes
) -> Listing | None:
    """List images by the only table that says what they show; ``None`` if there is no table.

    Raises:
        DataError: If no table says what the images are, several do, or there is no such split.
    """
    texts = [(node, name) for node in root.walk() for name in node.tables if name.endswith("_annotations.txt")]
    if texts:
        sources = [_Source(node, name, name, read_tabs) for node, name in texts]
        return _open_sources(spec, tree, root, sources, reading, notes, scope)
    images = Images(tree, scope)
    if not images.count:
        return _open_text_table(spec, tree, root, reading, notes)
    kinds = {kind for kind in map(split_kind, images.splits) if kind}
    read: list[tuple[_Table, Listing]] = []
    problems: list[str] = []
    for tables in _tables(tree, root, images):
        if tables and tables[0].name.endswith(".xml"):
            sources = [_Source(table.node, table.name, table.name, read_xml) for table in tables]
            return _open_sources(spec, tree, root, sources, reading, notes, scope)
        wanted = _wanted(spec, kinds, tables, reading)
        for table in tables:
            if table.kind not in (None, wanted):
                continue
            try:
                read.append((table, _read_table(spec, tree, root, images, table, reading, wanted, kinds)))
            except DataError as error:
                problems.append(f"{table.path(root)}: {error.problem}")
        if read:
            table, listing = _the_one(spec, root, read)
            return _of_table(spec, root, images, table, listing, wanted if kinds else None, notes)
    if problems:
        raise DataError(spec, f"no table says what the images show: {'; '.join(problems)}")
    return None


def _the_one(spec: str, root: Node, read: list[tuple[_Table, Listing]]) -> tuple[_Table, Listing]:
    """The table that is meant, with what it lists; ``DataError`` if it could be several."""
    meant = [pair for pair in read if pair[0].kind]
    meant = meant if len(meant) == 1 else read
    if len(meant) > 1:
        paths = " and ".join(table.path(root) for table, _ in read)
        raise DataError(
            spec,
            f"{paths} both say what the images show; give the one that is meant as the data, with image_root=, "
            "or take out the other",
        )
    return meant[0]


def _of_table(
    spec: str, root: Node, images: Images, table: _Table, listing: Listing, split: str | None, notes: Notes
) -> Listing:
    """What a table lists of a split, or of all images; what it leaves out is noted."""
    entries = list(listing.scan())
    others = sorted({other for other in images.splits if split and split_kind(other) not in (None, split)})
    of = f" of split {split!r}, and not {', '.join(map(repr, others))}," if others else ""
    notes.taken.append(f"labels of the images{of} from {table.path(root)}")
    meant = [count for other, count in images.splits.items() if not split or split_kind(other) == split]
    notes.leave_out("not in the table", sum(meant) - len(entries))
    notes.take_back(reason_of(PurePosixPath(table.name).suffix.lower()))
    for reason, count in listing.passed_over.items():
        notes.leave_out(reason, count)
    return replace(
        _with_used_classes(listing, entries),
        spec=spec,
        taken=(*notes.taken, *listing.taken),
        passed_over=dict(notes.passed_over),
    )


def _wanted(spec: str, kinds: set[str], tables: Sequence[_Table], reading: Reading) -> str | None:
    """The split that is read, if images or tables are of any."""
    if not kinds and not {table.kind for table in tables} - {None}:
        return None
    return split_kind(chosen_split(spec, kinds or {table.kind or "" for table in tables}, reading.split))


def _open_text_table(spec: str, tree: Tree, root: Node, reading: Reading, notes: Notes) -> Listing | None:
    """List the texts, or the images, that lie in the only table of a split; ``None`` if there is no table.

    Raises:
        DataError: If there are several, or as ``open_manifest``.
    """
    is_alone = sum(sum(node.others.values()) for node in root.walk()) == 1
    groups = _tables(tree, root, None)
    tables = groups[0] or (groups[-1] if is_alone else [])
    if not tables:
        return None
    wanted = _wanted(spec, set(), tables, reading)
    mine = [table for table in tables if table.kind in (None, wanted)]
    if len(mine) != 1:
        raise DataError(
            spec,
            f"holds {len(mine)} tables of samples, {mine[0].path(root)} and {mine[1].path(root)} among them; "
            "give one of them as the data, or all of a split by hf-data:FOLDER",
        )
    others = ", ".join(table.path(root) for table in tables if table not in mine)
    said = f"table {mine[0].path(root)}" + f", and not {others}" * bool(others)
    how = replace(reading, split=None if mine[0].kind else reading.split)
    listing = _as_manifest(tree, mine[0], how, None, Path(spec))
    return replace(listing, spec=spec, taken=(*notes.taken, *(() if is_alone else (said,)), *listing.taken))


def _tables(tree: Tree, root: Node, images: Images | None) -> list[list[_Table]]:
    """Files that may say what images show, those first that are meant to: tables, XML, then JSON and lists."""
    tables = []
    for node in root.walk():
        folder = next((kind for part in node.path.split("/") if (kind := split_kind(part))), None)
        for name, kind, where in tree.items(node.path) if node.tables else ():
            stem = name.lower().removesuffix(".gz").rpartition(".")[0]
            if kind == "file" and name in node.tables and "submission" not in stem:
                tables.append(_Table(node, name, where, folder or split_in(stem)))
    tables.sort(key=lambda table: table.path(root))
    named = [table for table in tables if table.name.lower().rpartition(".")[0] in ("_classes", "metadata")]
    of = {table: suffix_of(table.name) for table in tables}
    lists = [table for table in tables if of[table] == ".txt" and _is_list(tree, table, images)]
    return [
        named or [table for table in tables if of[table] not in (".json", ".txt", ".xml")],
        [table for table in tables if of[table] == ".xml" and images],
        [table for table in tables if of[table] == ".json"] + lists,
    ]


def _is_list(tree: Tree, table: _Table, images: Images | None) -> bool:
    """Whether most of the first lines of a file begin with an image that is there."""
    stem = table.name.rpartition(".")[0]
    if images is None or images.find(stem) or re.search("split|partition|fold", stem.lower()):
        return False  # boxes of the image that is called so, or what is of which split
    first = set(first_words(tree.read(table.where)))
    return len(first) > 1 and 2 * sum(bool(images.find(word, table.node.path)) for word in first) > len(first)


def _read_table(
    spec: str,
    tree: Tree,
    root: Node,
    images: Images,
    table: _Table,
    reading: Reading,
    wanted: str | None,
    kinds: set[str],
) -> Listing:
    start = len(path := unwrap(root).path) + bool(path)
    files = _TableImages(spec, tree, images, table, reading, start)
    files.kind = wanted if kinds else None
    how = replace(reading, split=None if wanted else reading.split, class_level=None)
    return _as_manifest(tree, table, how, files)


def _as_manifest(
    tree: Tree, table: _Table, how: Reading, files: Files | None, within: Path | None = None
) -> Listing:
    """A table of a folder as a manifest, which names no file outside of the folder."""
    if isinstance(table.where, os.DirEntry):
        return open_manifest(table.where.path, how, within, files)
    copy = Path(tempfile.mkdtemp()) / table.name
    try:
        copy.write_bytes(tree.read(table.where))
        listing = open_manifest(str(copy), how, copy.parent, files)
    except BaseException:
        shutil.rmtree(copy.parent)
        raise
    weakref.finalize(listing.read, shutil.rmtree, copy.parent)  # texts are read from it again
    return listing


def _with_used_classes(listing: Listing, entries: list[Entry]) -> Listing:
    """A listing of some of its entries, with the classes that these have."""
    if listing.kind != "regression":
        used = sorted({label for entry in entries for label in entry.labels})
        label_of = {label: new for new, label in enumerate(used)}
        entries = [entry._replace(labels=tuple(label_of[label] for label in entry.labels)) for entry in entries]
        listing = replace(listing, class_names=tuple(listing.class_names[label] for label in used))
    return replace(listing, scan=lambda: entries)
