"""Which of the folders around an image names its class: the one that is asked for, or the only one that can.

The rule, where nothing is asked for: folders one level deep are classes. Of several levels, those count that
would make a task, two classes or more with two images each. If only one does, it is the class; so are folders
that each hold a single one, or numbered ones of their own such as patients. Else nobody knows, and it is asked.
"""

from collections import Counter
from collections.abc import Sequence

from indexer.layouts.names import ODD_NAMES, class_name, is_counted, plain, split_kind
from indexer.layouts.splits import Notes, Place

NUM_NAMED = 3
"""Classes named in a sentence."""


class LayoutError(ValueError):
    """A layout that is no task, or may be several; the message lacks only the data spec."""


def label_places(held: Sequence[Place], class_level: int | None, notes: Notes) -> list[tuple[str, Place]]:
    """The class of each folder; those that have none are counted.

    Args:
        held: Folders that hold samples, at least one.
        class_level: As in ``indexer.records.Reading``.
        notes: What was taken for what.

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
    """The level that names the class, where only one can.

    Raises:
        LayoutError: If several can.
    """
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
            f"--class-level {level} makes {len(sizes)} class{'es' * (len(sizes) != 1)} "
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
