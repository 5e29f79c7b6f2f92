"""Manifests of texts: rows of text and label or target, gone over as often as it takes and never held.

text,label,split             one class each; or, if any label of the file holds "|", any number of labels
"a fine film",good,train     between bars, where an empty label is none at all
text,target                  a number, or as many for each text between bars: a regression
"a fine film",4.5
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from indexer.cells import SEPARATOR, label_names, manifest_columns, target_numbers
from indexer.errors import DataError
from indexer.listings import Dataset, Entry, choose_split, printable, target_names
from indexer.records import Kind
from indexer.tables import MAX_TEXT, table_texts


class _Text(NamedTuple):
    """A text of a manifest; ``number`` counts the rows of all splits from 1."""

    number: int
    content: bytes


@dataclass(eq=False)
class _Split:
    """What the rows of a split hold.

    Attributes:
        cells: Their different labels.
        unlabelled: Place of the first without one.
        targets: Place and count of the first numbers.
    """

    cells: set[str] = field(default_factory=set)
    unlabelled: str = ""
    targets: tuple[str, int] | None = None


def open_text_manifest(spec: str, split: str | None) -> Dataset:
    """List the texts of a manifest.

    The name of a sample is its row with a hash of its text, so that what was hashed of all samples changes
    with any text.

    Raises:
        DataError: If it cannot be parsed, a cell is empty or of a wrong form, or there is no such split.
    """
    kind, by_split = _survey(spec)
    wanted = choose_split(spec, by_split, split)
    chosen = next(name for name, found in by_split.items() if found is wanted)
    if wanted.targets is not None:
        class_names = list(target_names(wanted.targets[1]))
    elif kind == "multi_label":
        class_names = sorted({name for cell in wanted.cells for name in label_names(spec, "", cell)})
    else:
        class_names = sorted(wanted.cells)
    label_of = {name: label for label, name in enumerate(class_names)}

    def scan() -> Iterator[Entry]:
        for number, (place, texts) in enumerate(_rows(spec), start=1):
            if texts.get("split", "").lower() != chosen:
                continue
            text = _Text(number, texts["text"].encode())
            name = f"{number}:{hashlib.blake2b(text.content, digest_size=8).hexdigest()}"
            if "target" in texts:
                yield Entry(name, text, targets=target_numbers(spec, place, texts["target"], wanted.targets))
                continue
            cell = texts["label"]
            names = label_names(spec, place, cell) if kind == "multi_label" else [cell]
            if unknown := [name for name in names if name not in label_of]:
                raise DataError(spec, f"{place}: label {unknown[0]!r} is new; the file changed meanwhile")
            yield Entry(name, text, tuple(sorted(label_of[name] for name in names)))

    return Dataset(
        spec=spec,
        kind=kind,
        class_names=tuple(printable(name) for name in class_names),
        scan=scan,
        size=lambda entry: len(entry.where.content),
        read=lambda entry: bytes(entry.where.content),
        order=lambda entry: entry.where.number,
        content="texts",
    )


def _survey(spec: str) -> tuple[Kind, dict[str, _Split]]:
    """What the labels of the whole file are, and what its splits hold.

    Raises:
        DataError: If there are no rows, or one has no label.
    """
    by_split: dict[str, _Split] = {}
    kind: Kind = "single_label"
    held = 0
    for place, texts in _rows(spec):
        of_split = by_split.setdefault(texts.get("split", "").lower(), _Split())
        if "target" in texts:
            kind = "regression"
            numbers = target_numbers(spec, place, texts["target"], of_split.targets)
            of_split.targets = of_split.targets or (place, len(numbers))
            continue
        cell = texts["label"]
        if SEPARATOR in cell:
            kind = "multi_label"
        of_split.unlabelled = of_split.unlabelled or ("" if cell else place)
        if cell not in of_split.cells:
            if SEPARATOR in cell:
                label_names(spec, place, cell)  # a wrong one is refused with its place
            of_split.cells.add(cell)
            held += len(cell)
        if held > MAX_TEXT:
            raise DataError(spec, f"{place}: more than {MAX_TEXT} characters of labels are not held")
    if not by_split:
        raise DataError(spec, "lists no samples; expected a row with text and label for each")
    without = [found.unlabelled for found in by_split.values() if found.unlabelled]
    if without and kind == "single_label":
        raise DataError(spec, f"{without[0]}: label is empty")
    return kind, by_split


def _rows(spec: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of every row.

    Raises:
        DataError: If a text is no Unicode, as JSON allows.
    """
    for place, texts in table_texts(spec, manifest_columns, optional=("label",)):
        try:
            texts["text"].encode()
        except UnicodeEncodeError as error:
            raise DataError(spec, f"{place}: text is no valid Unicode: {error.reason}") from error
        yield place, texts
