"""What the folders around images mean: splits, masks, what only lies around the data, and which name a class.

Where no class level is asked for, folders one level deep are classes. Of several levels, those count that
would make a task, two classes or more with two images each. If only one does, it is the class; so are folders
that each hold a single one, or numbered ones of their own such as patients. Else nobody knows, and it is asked.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from indexer.layouts.names import (
    IMAGE_NAMES,
    MASK_NAMES,
    ODD_NAMES,
    PLURAL_MASK_NAMES,
    UNLABELLED,
    class_name,
    is_counted,
    plain,
    speaks_of_masks,
    split_in,
    split_kind,
    without_split,
)


@dataclass(eq=False)
class Node:
    """A folder."""

    name: str = ""
    path: str = ""  # where it is below the place, with forward slashes; empty for the place itself
    samples: int = 0
    texts: int = 0
    bare: int = 0  # files without a suffix, which are texts where there are no others
    masks: int = 0  # images in it that are masks of others beside them
    masked: frozenset[str] = frozenset()  # stems of the images that have such masks
    others: Counter[str] = field(default_factory=Counter)
    tables: list[str] = field(default_factory=list)  # names of files in it that may say what images show
    children: dict[str, "Node"] = field(default_factory=dict)

    def walk(self) -> Iterator["Node"]:
        """This folder and all below it, in order of name."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children[name] for name in sorted(node.children, reverse=True))

    @property
    def total(self) -> int:
        """Samples in it and below it."""
        return sum(node.samples for node in self.walk())

    @property
    def full(self) -> list["Node"]:
        """Folders in it that hold samples somewhere, in order of name."""
        return [child for name, child in sorted(self.children.items()) if child.holds_samples]

    @property
    def holds_samples(self) -> bool:
        """Whether there is a sample in it or below it."""
        return any(node.samples for node in self.walk())


Place = tuple[tuple[str, ...], Node]
"""A folder that holds samples, and the names of the folders around it that may name its class."""


@dataclass(eq=False)
class Notes:
    """What was taken for what, in sentences, and files that are no samples, by reason."""

    taken: list[str] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int) -> None:
        """Count files that are passed over."""
        if count:
            self.passed_over[reason] = self.passed_over.get(reason, 0) + count

    def take_back(self, reason: str) -> None:
        """One file is not passed over after all."""
        self.passed_over[reason] = self.passed_over.get(reason, 1) - 1
        if not self.passed_over[reason]:
            del self.passed_over[reason]


def drop_masks(root: Node, notes: Notes) -> None:
    """Take folders of masks that lie beside images out of the tree, and say how many masks there are."""
    dropped: set[str] = set()
    for node in list(root.walk()):
        kids = node.full
        pictures = any(plain(kid.name) in IMAGE_NAMES for kid in kids)
        masks = [kid for kid in kids if _means_masks(kid.name) or (pictures and speaks_of_masks(kid.name))]
        beside = [kid for kid in kids if kid not in masks]
        if not masks or not (beside or node.samples):
            continue
        if not node.samples and not any(
            plain(kid.name) in IMAGE_NAMES or split_kind(kid.name) for kid in beside
        ):
            # They lie beside class folders, of which "mask" and "no_mask" may well be two.
            if any(speaks_of_masks(kid.name) for kid in beside):
                continue
            masks = [kid for kid in masks if plain(kid.name) in PLURAL_MASK_NAMES]
        for kid in masks:
            notes.leave_out("mask", kid.total)
            dropped.add(kid.name)
            if any(below.tables for below in kid.walk()):
                for below in kid.walk():
                    below.samples = 0
            else:
                del node.children[kid.name]
    beside_images = sum(node.masks for node in root.walk())
    notes.leave_out("mask", beside_images)
    if dropped:
        notes.taken.append(f"{', '.join(map(repr, sorted(dropped)))} as masks of the images beside, left out")
    if beside_images:
        notes.taken.append("names such as x_mask.png as masks of the images x, left out")


def drop_unlabelled(root: Node, notes: Notes) -> None:
    """Take folders called ``unsup`` and the like, which lie beside two classes, out of the tree."""
    for node in list(root.walk()):
        kids = node.full
        without = [kid for kid in kids if plain(kid.name) in UNLABELLED]
        if without and len(kids) - len(without) > 1:
            for kid in without:
                notes.leave_out("without a class", kid.total)
                notes.taken.append(f"{kid.path!r} as samples without a class, left out")
                del node.children[kid.name]


def _means_masks(name: str) -> bool:
    return plain(name) in MASK_NAMES or (speaks_of_masks(name) and split_kind(_without_masks(name)) is not None)


def _without_masks(name: str) -> str:
    """A name such as ``train_masks`` without its word for masks."""
    return "_".join(word for word in name.replace("-", "_").split("_") if plain(word) not in MASK_NAMES)


def unpack(node: Node) -> Node:
    """Past folders that hold nothing but one folder, as archives have them around all."""
    while not node.samples and not node.tables and len(node.children) == 1:
        (kid,) = node.children.values()
        if kid.samples or split_kind(kid.name):
            break
        node = kid
    return node


def unwrap(node: Node) -> Node:
    """The folder inside of which data begins: past folders around all of it that name no class and no split."""
    while not node.samples and len(kids := node.full) == 1:
        (kid,) = kids
        if split_kind(kid.name) or (kid.samples and plain(kid.name) not in IMAGE_NAMES):
            break
        node = kid
    return node


def find_splits(root: Node, notes: Notes) -> dict[str, Node]:
    """Folders that are splits, by lower-case name; what lies beside them is counted.

    A single folder named like a split, which holds images and lies beside others, is a class that is called so.
    Folders whose names are the same but for their splits, such as ``cars_train`` and ``cars_test``, are splits.
    """
    kids = root.full
    named = [kid for kid in kids if split_kind(kid.name)]
    alike = [kid for kid in kids if split_in(kid.name)]
    if not named and len(alike) > 1 and len({without_split(kid.name) for kid in alike}) == 1:
        named = alike
        said = " and ".join(f"{kid.name!r} as split {split_in(kid.name)}" for kid in named)
        notes.taken.append(f"folders {said}")
    kinds = {split_in(kid.name) for kid in named}
    if not named or root.samples > sum(kid.total for kid in named):
        return {}
    if len(kinds) < 2 and not any(kid.full and not kid.samples for kid in named):
        if len(kids) == 1 and split_kind(kids[0].name):
            return {kids[0].name.lower(): _inside_split(kids[0])}
        return {}
    for other in kids:
        if other not in named:
            notes.leave_out("outside of the splits", other.total)
    notes.leave_out("outside of the splits", root.samples)
    return {
        (str(split_in(kid.name)) if named is alike else kid.name.lower()): _inside_split(kid) for kid in named
    }


def _inside_split(node: Node) -> Node:
    """Past folders inside a split that are called like it or like images, or are around all of it."""
    kind = split_in(node.name)
    while not node.samples and len(kids := node.full) == 1:
        (kid,) = kids
        if kid.samples and plain(kid.name) not in IMAGE_NAMES and split_in(kid.name) != kind:
            break
        node = kid
    return node


def places(root: Node) -> list[Place]:
    """Folders that hold samples below a folder, without ``images`` and the like that are alone in theirs."""
    held: list[Place] = []
    stack: list[Place] = [((), root)]
    while stack:
        parts, node = stack.pop()
        if node.samples:
            held.append((parts, node))
        kids = node.full
        alone = len(kids) == 1 and not node.samples and bool(parts) and plain(kids[0].name) in IMAGE_NAMES
        stack.extend((parts if alone else (*parts, kid.name), kid) for kid in reversed(kids))
    return held


def split_below(held: list[Place]) -> dict[str, list[Place]]:
    """Places by the split that lies below the class, such as ``cat/train``; none if there is no such level."""
    depth = min((len(parts) for parts, _ in held), default=0)
    for level in range(1, depth):
        names = {parts[level] for parts, _ in held}
        if len({split_kind(name) for name in names} - {None}) > 1 and all(map(split_kind, names)):
            by_split: dict[str, list[Place]] = {}
            for parts, node in held:
                rest = (parts[:level] + parts[level + 1 :], node)
                by_split.setdefault(parts[level].lower(), []).append(rest)
            return by_split
    return {}


NUM_NAMED = 3
"""Classes named in a sentence."""


class LayoutError(ValueError):
    """A layout that is no task, or may be several; the message lacks only the data spec."""


def label_places(held: Sequence[Place], class_level: int | None, notes: Notes) -> list[tuple[str, Place]]:
    """The class of each folder; those that have none are counted.

    Raises:
        LayoutError: If no folder is so deep, or several levels could name the class.
    """
    depths = {len(parts) for parts, _ in held}
    level = class_level
    if level is None:
        level = _only_level(held, notes) if max(depths) > 1 else 1
    elif abs(level) > max(depths):
        raise LayoutError(
            f"has {max(depths)} levels of class folders, so there is no class level {level}; {_choices(held)}"
        )
    elif max(depths) > 1:
        notes.taken.append(f"folder level {level} as the class")
    labelled: list[tuple[str, Place]] = []
    spellings: dict[str, set[str]] = {}
    for place in held:
        if (folder := _at(place[0], level)) is None:
            notes.leave_out("above the class folders", place[1].samples)
            continue
        label = class_name(folder)
        spellings.setdefault(label, set()).add(folder)
        labelled.append((label, place))
    _note_spellings(spellings, notes)
    return labelled


def _at(parts: tuple[str, ...], level: int) -> str | None:
    """The folder at a level, as in ``indexer.records.Reading``; ``None`` if it is not so deep."""
    if len(parts) < abs(level):
        return None
    return parts[level - 1 if level > 0 else level]


def _only_level(held: Sequence[Place], notes: Notes) -> int:
    """The level that names the class, where only one can; ``LayoutError`` if several can."""
    below = [place for place in held if len(place[0]) > 1]
    tops = {parts[0] for parts, _ in held if len(parts) == 1}
    if mixed := sorted(tops & {parts[0] for parts, _ in below}):
        raise LayoutError(
            f"class folder {mixed[0]!r} holds images and subfolders with images; {_choices(held)}"
        )
    levels = [level for level in _levels(held) if _makes_task(held, level)]
    by_top: dict[str, set[str]] = {}
    for parts, _ in below:
        by_top.setdefault(parts[0], set()).add(parts[-1])
    names = Counter(name for inside in by_top.values() for name in inside)
    single = all(len(inside) == 1 for inside in by_top.values())
    counted = max(names.values()) == 1 and all(map(is_counted, names))
    if 1 in levels and (single or counted):
        levels = [1]
    if len(levels) != 1:
        raise LayoutError(f"holds folders in folders, and it is not clear which is the class; {_choices(held)}")
    others = ", ".join(sorted(names)[:NUM_NAMED])
    what = f"and not those below it ({others}, ...)" if levels == [1] else "and not those above it"
    notes.taken.append(f"folder level {levels[0]} as the class, {what}")
    return levels[0]


def _levels(held: Sequence[Place]) -> list[int]:
    """Levels that every image has, and the folder it lies in, which may be at another level of each."""
    depths = {len(parts) for parts, _ in held}
    return [*range(1, min(depths) + (len(depths) > 1)), -1]


def _sizes(held: Sequence[Place], level: int) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for parts, node in held:
        if (folder := _at(parts, level)) is not None:
            sizes[class_name(folder)] += node.samples
    return sizes


def _makes_task(held: Sequence[Place], level: int) -> bool:
    sizes = _sizes(held, level)
    return len(sizes) > 1 and min(sizes.values()) > 1


def _choices(held: Sequence[Place]) -> str:
    """What to do, with the classes that each level would make."""
    said = []
    for level in _levels(held):
        sizes = sorted(_sizes(held, level))
        more = ", ..." if len(sizes) > NUM_NAMED else ""
        said.append(
            f"class_level={level} makes {len(sizes)} class{'es' * (len(sizes) != 1)} "
            f"({', '.join(sizes[:NUM_NAMED])}{more})"
        )
    return ", ".join(said[:-1]) + f" and {said[-1]}" if len(said) > 1 else said[0]


def _note_spellings(spellings: dict[str, set[str]], notes: Notes) -> None:
    """Say where folders are one class, or hardly two."""
    for label, folders in sorted(spellings.items()):
        if len(folders) > 1:
            notes.taken.append(f"{len(folders)} spellings of the folder name {label!r} as one class")
    odd = [label for label in spellings if split_kind(label) or plain(label) in ODD_NAMES]
    if odd:
        notes.taken.append(f"{', '.join(map(repr, sorted(odd)))} as the name of a class")
    by_case: dict[str, list[str]] = {}
    for label in sorted(spellings):
        by_case.setdefault(label.casefold().strip(), []).append(label)
    for labels in by_case.values():
        if len(labels) > 1:
            notes.taken.append(f"{' and '.join(map(repr, labels))} as {len(labels)} classes")
