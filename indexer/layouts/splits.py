"""Which folders are splits, which are masks or only lie around the data, and what is left of the tree."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from indexer.layouts.names import (
    IMAGE_NAMES,
    MASK_NAMES,
    PLURAL_MASK_NAMES,
    plain,
    speaks_of_masks,
    split_kind,
)


@dataclass(eq=False)
class Node:
    """A folder.

    Attributes:
        name: Its name; empty for the place itself.
        path: Where it is below the place, with forward slashes; empty for the place itself.
        samples: Samples that lie in it directly.
        texts: Files that are texts in it.
        masks: Images in it that are masks of others beside them.
        masked: Stems of the images that have such masks.
        others: Files in it that are no samples, by reason.
        tables: Names of files in it that may say what images show.
        children: Folders in it, by name.
    """

    name: str = ""
    path: str = ""
    samples: int = 0
    texts: int = 0
    masks: int = 0
    masked: frozenset[str] = frozenset()
    others: Counter[str] = field(default_factory=Counter)
    tables: list[str] = field(default_factory=list)
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
        masks = [kid for kid in kids if _means_masks(kid.name)]
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
            del node.children[kid.name]
    beside_images = sum(node.masks for node in root.walk())
    notes.leave_out("mask", beside_images)
    if dropped:
        notes.taken.append(f"{_quoted(sorted(dropped))} as masks of the images beside, left out")
    if beside_images:
        notes.taken.append("names such as x_mask.png as masks of the images x, left out")


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
    """
    kids = root.full
    named = [kid for kid in kids if split_kind(kid.name)]
    kinds = {split_kind(kid.name) for kid in named}
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
    return {kid.name.lower(): _inside_split(kid) for kid in named}


def _inside_split(node: Node) -> Node:
    """Past folders inside a split that are called like it or like images, or are around all of it."""
    kind = split_kind(node.name)
    while not node.samples and len(kids := node.full) == 1:
        (kid,) = kids
        if kid.samples and plain(kid.name) not in IMAGE_NAMES and split_kind(kid.name) != kind:
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


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names))
