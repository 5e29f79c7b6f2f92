"""Folders of samples, on disk or in an archive, listed without holding what is in them.

Samples are images, or texts (``.txt``) where there is no image. What folders mean is decided by rules on names
and numbers, see ``indexer.layouts``; memory grows with the number of folders, not of samples. Where no folder
names a class, a file with labels beside the images may, see ``indexer.data.annotated``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from indexer.data.annotated import open_annotated, open_tables
from indexer.data.arrays import find_pair, open_array_file
from indexer.data.images import IMAGE_SUFFIXES, UnreadableImageError, decode_image
from indexer.data.listings import (
    TEXT_SUFFIX,
    Entry,
    FolderTree,
    Listing,
    Tree,
    chosen_split,
    is_mask,
    printable,
    survey_tree,
    totals,
)
from indexer.errors import DataError, TooFewSamplesError
from indexer.layouts.folders import (
    LayoutError,
    Node,
    Notes,
    Place,
    drop_masks,
    drop_unlabelled,
    find_splits,
    label_places,
    places,
    split_below,
    unpack,
    unwrap,
)
from indexer.layouts.names import (
    ASIDE_NAMES,
    UNREAD,
    are_parts,
    counts_people,
    is_hidden,
    plain,
    speaks_of_masks,
    split_in,
)
from indexer.networks.tokens import UnreadableTextError, decode_text
from indexer.records import Content, Reading


def open_folder(spec: str, reading: Reading) -> Listing:
    """List a folder; of arrays in .npy files, those of the images and of their labels.

    Raises:
        DataError: If it is not clear what its folders mean, one of them holds no samples, or there is no such
            split.
    """
    ends = (".npy", "-ubyte", "-ubyte.gz")
    if any(path.name.lower().endswith(ends) for path in Path(spec).iterdir()) and (
        pair := find_pair(Path(spec))
    ):
        listing = open_array_file(str(pair), reading)
        return replace(listing, spec=spec, taken=(f"images from {pair.name}", *listing.taken))
    return open_tree(spec, FolderTree(spec), reading)


def open_tree(spec: str, tree: Tree, reading: Reading) -> Listing:
    """List folders of samples, wherever they are.

    Raises:
        DataError: As ``open_folder``.
    """
    (root, content), notes = survey_tree(tree), Notes()
    for reason, count in sorted(totals(root).items()):
        notes.leave_out(reason, count)
    drop_masks(root, notes)
    drop_unlabelled(root, notes)
    if content == "texts" and any(node.bare for node in root.walk()):
        notes.taken.append("files without a suffix as texts")
    root = unpack(root)
    tables = any(node.tables for node in root.walk())
    if tables and (annotated := open_annotated(spec, tree, root, reading, notes)):
        return annotated
    inside = unwrap(root)
    splits = find_splits(inside, notes)
    named = reading.label_col or reading.target_col or reading.image_col
    bare = _without_classes(spec, inside, splits, reading)
    flat = bare or (inside if named else None)
    if flat and (listing := open_tables(spec, tree, root, root if flat is inside else flat, reading, notes)):
        return listing
    if not root.holds_samples or bare:
        _refuse_unread(spec, tree, root)
    inside, held = _class_folders(spec, inside, splits, reading, notes)
    held = _without_bad(spec, inside, held, reading, content, notes)
    try:
        labelled = label_places(held, reading.class_level, notes)
    except LayoutError as error:
        raise DataError(spec, f"{error}{_or_table(root)}") from error
    names = {label for label, _ in labelled}
    if reading.class_level is None and all(map(counts_people, names)) and _or_table(root):
        shown = ", ".join(sorted(names)[:3])
        raise DataError(
            spec,
            f"its folders ({shown}, ...) count things: class_level=1 takes them as classes{_or_table(root)}",
        )
    if reading.skip_bad:
        labelled = _decodable(tree, labelled, content, notes)
    return _listing(spec, tree, inside, labelled, content, notes)


def _without_classes(spec: str, inside: Node, splits: dict[str, Node], reading: Reading) -> Node | None:
    """The folder of which no folder names a class, so that a table must: all of it, or the split asked for."""
    if splits:
        if not any(node.full for node in splits.values()):
            return inside
        asked = splits.get(chosen_split(spec, splits, reading.split)) if reading.split else None
        return asked if asked and not asked.full else None
    kids = inside.full
    if not kids or reading.class_level:
        return None if kids else inside
    others = [name for name in inside.children if name != kids[0].name and not _is_aside(name)]
    alone = len(kids) == 1 and not kids[0].full and not others and not inside.samples
    return inside if alone or are_parts([kid.name for kid in kids]) else None


def _or_table(root: Node) -> str:
    """The way out where folders leave a doubt and there is a table."""
    paths = [f"{node.path}/{name}".lstrip("/") for node in root.walk() for name in node.tables]
    tables = [path[len(root.path) :].lstrip("/") for path in paths if path.lower().endswith((".csv", ".tsv"))]
    return f", or say by label_col= which column of {tables[0]} holds the classes" if tables else ""


def _refuse_unread(spec: str, tree: Tree, root: Node) -> None:
    """Refuse a place without classes that holds files which are not read; ``DataError`` if there are any."""
    for node in root.walk():
        for name, kind, where in tree.items(node.path):
            suffix = PurePosixPath(name).suffix.lower()
            is_pickle = kind == "file" and not suffix and tree.read(where)[:1] == b"\x80"
            if kind == "file" and (suffix in UNREAD or is_pickle):
                path = f"{node.path}/{name}".lstrip("/")
                raise DataError(spec, f"{path} is {UNREAD['.pkl' if is_pickle else suffix]}")
            if kind == "file" and suffix == ".mat" and root.holds_samples:
                raise DataError(
                    spec,
                    f"holds images without class folders; labels in MATLAB files such as {name} are not "
                    "joined with images: write them as a CSV with the columns path,label beside these",
                )


def _class_folders(
    spec: str, root: Node, splits: dict[str, Node], reading: Reading, notes: Notes
) -> tuple[Node, list[Place]]:
    """The folder that entries are named from, and the folders of the split that is asked for.

    Raises:
        DataError: If no folder holds class folders, or there is no such split.
    """
    labelled = {name: node for name, node in splits.items() if node.full}
    for name in sorted(splits.keys() - labelled.keys()):
        notes.taken.append(f"split {name!r} left out, since its {splits[name].total} samples have no labels")
        notes.leave_out("split unlabelled", splits[name].total)
    if splits and not labelled:
        raise DataError(spec, NO_CLASSES.format(f" in {' and '.join(map(repr, sorted(splits)))}") + OR_TABLE)
    if splits:
        asked = reading.split and chosen_split(spec, splits, reading.split)
        if asked and asked not in labelled:
            raise DataError(
                spec,
                f"split {asked!r} holds samples without class folders or a table that names them; splits with "
                f"classes are {', '.join(sorted(labelled))}",
            )
        chosen = chosen_split(spec, labelled, reading.split)
        _note_split(notes, chosen, labelled)
        return labelled[chosen], places(labelled[chosen])
    held = places(root)
    if by_split := split_below(held):
        chosen = chosen_split(spec, by_split, reading.split)
        _note_split(notes, chosen, by_split)
        return root, by_split[chosen]
    chosen_split(spec, (), reading.split)
    if len(root.full) != 1 and _without_classes(spec, root, splits, reading):
        raise DataError(spec, NO_CLASSES.format("") + OR_TABLE * root.holds_samples)
    return root, held


NO_CLASSES = "holds no class folders{}; expected images in <class>/<name>.jpg inside it"
OR_TABLE = ", or a table that names its images, such as a CSV with the columns path,label"


def _note_split(notes: Notes, chosen: str, names: Iterable[str]) -> None:
    others = sorted(set(names) - {chosen})
    kind = split_in(chosen) or chosen
    of = f"folder {chosen!r} as split {kind}" if kind != chosen else f"split {chosen!r}"
    notes.taken.append(of + (f", and not {', '.join(map(repr, others))}" if others else ""))


def _without_bad(
    spec: str, root: Node, held: list[Place], reading: Reading, content: Content, notes: Notes
) -> list[Place]:
    """Class folders that hold samples.

    Raises:
        DataError: If one holds none, unless such are to be left out.
        TooFewSamplesError: If one holds a single one, likewise.
    """
    if reading.class_level is not None or any(len(parts) > 1 for parts, _ in held):
        return held
    empty = [
        name
        for name, node in root.children.items()
        if not node.holds_samples and not _is_aside(name) and not is_hidden(name)
    ]
    kind = f"images ({' '.join(IMAGE_SUFFIXES)})" if content == "images" else f"texts ({TEXT_SUFFIX})"
    if empty and not reading.skip_bad:
        raise DataError(
            spec,
            f"class folder {empty[0]!r} holds no {kind}; put some into it, remove it, leave it out with "
            "skip_bad=True, or name the folder that holds the class folders",
        )
    few = [parts[0] for parts, node in held if parts and node.samples < 2]
    if few and len(held) > 1 and not reading.skip_bad:
        raise TooFewSamplesError(
            spec,
            f"class {printable(few[0])!r} has one sample; every class needs at least two, or is left out with "
            "skip_bad=True",
        )
    if not reading.skip_bad:
        return held
    if few and len(few) == len(held):
        raise DataError(spec, f"holds no class folder of at least two {kind}")
    if bad := sorted([*empty, *few]):
        notes.taken.append(f"class folders but {', '.join(map(repr, bad))}, left out as bad")
    notes.leave_out("in a bad class folder", len(few))
    return [place for place in held if not place[0] or place[0][0] not in few]


def _decodable(
    tree: Tree, labelled: list[tuple[str, Place]], content: Content, notes: Notes
) -> list[tuple[str, Place]]:
    """The folders of classes of which some sample can be decoded; the others are named."""
    by_class: dict[str, list[Node]] = {}
    for label, (_, node) in labelled:
        by_class.setdefault(label, []).append(node)
    bad = {
        label: why
        for label, nodes in by_class.items()
        if (
            why := _why_undecodable(
                (where for node in nodes for _, where in samples_in(tree, node, content)), tree, content
            )
        )
    }
    if bad:
        said = ", ".join(f"{label!r} ({why})" for label, why in sorted(bad.items()))
        notes.taken.append(f"classes but {said}, of which no file can be decoded, left out as bad")
        notes.leave_out(
            "in a class that cannot be decoded", sum(node.samples for label in bad for node in by_class[label])
        )
    return [one for one in labelled if one[0] not in bad]


def _why_undecodable(places: Iterator[object], tree: Tree, content: Content) -> str:
    """Why no file can be decoded; empty once one can be."""
    why = ""
    for where in places:
        try:
            raw = tree.read(where)
            decode_image(raw) if content == "images" else decode_text(raw)
        except (OSError, UnreadableImageError, UnreadableTextError) as error:
            why = why or str(error)
            continue
        return ""
    return why


def _is_aside(name: str) -> bool:
    return plain(name) in ASIDE_NAMES or split_in(name) is not None or speaks_of_masks(name)


def _listing(
    spec: str, tree: Tree, root: Node, labelled: list[tuple[str, Place]], content: Content, notes: Notes
) -> Listing:
    class_names = sorted({label for label, _ in labelled})
    label_of = {name: (label,) for label, name in enumerate(class_names)}
    start = len(root.path) + bool(root.path)

    def scan() -> Iterator[Entry]:
        for label, (_, node) in labelled:
            folder, labels = node.path[start:], label_of[label]
            for name, where in samples_in(tree, node, content):
                yield Entry(f"{folder}/{name}", where, labels)

    return Listing(
        spec=spec,
        kind="single_label",
        class_names=tuple(printable(name) for name in class_names),
        scan=scan,
        size=lambda entry: tree.size(entry.where),
        read=lambda entry: tree.read(entry.where),
        content=content,
        taken=tuple(notes.taken),
        passed_over=dict(notes.passed_over),
    )


def samples_in(tree: Tree, node: Node, content: Content) -> Iterator[tuple[str, object]]:
    """Name and place of each sample that lies in a folder."""
    suffixes = IMAGE_SUFFIXES if content == "images" else TEXT_SUFFIX
    for name, kind, where in tree.items(node.path):
        fits = name.lower().endswith(suffixes) or (node.bare and content == "texts" and "." not in name)
        if fits and kind == "file" and name[0] != "." and not is_mask(node, name):
            yield name, where
