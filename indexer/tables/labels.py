"""What cells of labels say: classes, several labels, 0 and 1 for each label, or numbers that were measured.

Axes: C classes or labels, T targets.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from indexer.errors import DataError
from indexer.records import Kind
from indexer.tables.columns import alike, as_bit
from indexer.tables.files import MAX_TEXT

SEPARATOR = "|"
MISSING = frozenset(("", "nan", "<na>", "nat", "#n/a"))
"""Cells that say nothing, lower case: what pandas and spreadsheets write where there is no value."""

NOES = frozenset(("0", "0.0", "-1", "-1.0"))
DOUBTFUL = frozenset(("na", "n/a", "none", "null"))
MAX_FLOAT32 = float(np.finfo(np.float32).max)
_FEW = 20
_MAX_WHOLE = 2**53  # up to here each whole number has a float of its own
_ALIKE_NAMED = 3


def clean(text: str) -> str:
    """A cell of labels in the composed form of its accents; what says nothing is empty."""
    return "" if text.casefold() in MISSING else unicodedata.normalize("NFC", text)


def target_names(count: int) -> tuple[str, ...]:
    """Names of the T targets of a regression, which data does not name."""
    return ("target",) if count == 1 else tuple(f"target_{index}" for index in range(count))


def hot_names(count: int) -> tuple[str, ...]:
    """Names of the labels that lists of 0 and 1 are about, which data does not name."""
    return tuple(f"label_{index}" for index in range(count))


def fit_float32(numbers: Iterable[float]) -> bool:
    """Whether all numbers are finite as 32-bit floats, as targets have to be."""
    return all(abs(number) <= MAX_FLOAT32 for number in numbers)  # which NaN is not


@dataclass(frozen=True)
class Labels:
    """What the labels of a split are."""

    spec: str
    kind: Kind
    class_names: tuple[str, ...]
    taken: tuple[str, ...] = ()
    hot: bool = False
    first: tuple[str, int] | None = None
    places: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def may_be_none(self) -> bool:
        """Whether an empty cell is no label at all, and not one that is missing."""
        return self.kind == "multi_label" and not self.hot

    def of(self, place: str, cells: Sequence[str]) -> tuple[tuple[int, ...], tuple[float, ...]] | None:
        """Rising indices into the names, and targets, of a row; ``None`` for one without a label.

        Raises:
            DataError: If a label is new: the file has changed meanwhile.
        """
        cell = SEPARATOR.join(map(clean, cells))
        if not cell.strip(SEPARATOR) and not self.may_be_none:
            return None
        if self.kind == "regression":
            return (), numbers_of(self.spec, place, cell, self.first)
        if self.hot:
            names = [str(index) for index, bit in enumerate(cell.split(SEPARATOR)) if as_bit(bit)]
        else:
            names = names_of(self.spec, place, cell) if self.kind == "multi_label" else [cell]
        try:
            return tuple(sorted(self.places[name] for name in names)), ()
        except KeyError as error:
            raise DataError(
                self.spec, f"{place}: label {error.args[0]!r} is new; the file changed meanwhile"
            ) from error


@dataclass(eq=False)
class _Split:
    """Different cells of a split, and what is known of its numbers."""

    cells: set[str] = field(default_factory=set)
    first: tuple[str, int] | None = None


class LabelSurvey:
    """What the labels of a whole file are; rows are taken one after the other, and none is held."""

    def __init__(
        self, spec: str, columns: Sequence[str], numbers: bool | None, *, is_asked: bool = False
    ) -> None:
        """Begin."""
        self._spec, self._columns, self._numbers, self._is_asked = spec, tuple(columns), numbers, is_asked
        self._splits: dict[str, _Split] = {}
        self._number, self._word = "", ""
        self._values: set[float] = set()
        self._held = 0
        self._is_several = False
        self._bits: int | None = None  # of each cell, while all are bits between bars
        self._all_bits = True
        self._one_each = True
        self._noes: set[str] = set()

    def take(self, place: str, cells: Sequence[str], split: str) -> bool:
        """Look at the labels of a row; false where there are none; ``DataError`` if of a wrong form."""
        of_split = self._splits.setdefault(split, _Split())
        cleaned = [clean(cell) for cell in cells]
        if not any(cleaned):
            return False
        if len(cells) > 1 and not self._numbers:
            cleaned = self._check_bits(place, cleaned)
        cell = SEPARATOR.join(cleaned)
        if self._numbers is not False and self._take_number(place, cell, of_split):
            return True
        if cell in of_split.cells:
            return True
        self._take_name(place, cell)
        of_split.cells.add(cell)
        self._held += len(cell)
        if self._held > MAX_TEXT:
            raise DataError(self._spec, f"{place}: more than {MAX_TEXT} characters of labels are not held")
        return True

    def _check_bits(self, place: str, cells: Sequence[str]) -> list[str]:
        """The bits of several columns, 0 for -1 where that stands for no in all of them.

        Raises:
            DataError: If one is no bit, or -1 and 0 are there.
        """
        self._noes.update(NOES.intersection(cells))
        if {cell[0] for cell in self._noes} == {"0", "-"}:
            raise DataError(
                self._spec,
                f"{place}: {', '.join(self._columns[:3])} hold -1 as well as 0, as where -1 is unsure; "
                "write 0 or 1, or take one column by label_col=",
            )
        cells = ["0" if cell[:1] == "-" and cell in NOES else cell for cell in cells]
        for column, cell in zip(self._columns, cells, strict=True):
            if as_bit(cell) is None:
                held = f"holds {cell!r}" if cell else "is empty"
                raise DataError(
                    self._spec,
                    f"{place}: {column} {held}, and must be 0 or 1 as one of several columns of labels; name "
                    "those that are meant by label_col='A,B,C'",
                )
        return cells

    def _take_number(self, place: str, cell: str, of_split: _Split) -> bool:
        """Take a cell as targets; ``DataError`` if other cells can be and it cannot, or the reverse."""
        try:
            numbers = numbers_of(self._spec, place, cell, of_split.first)
        except DataError:
            if self._numbers or self._number or any(map(_is_number, cell.split(SEPARATOR))):
                raise
            self._word = self._word or place
            return False
        if self._word:
            raise DataError(
                self._spec,
                f"{place}: {self._columns[0]} {cell!r} is a number and that of {self._word} is not; say what "
                f"they are by label_col={self._columns[0]!r} or target_col={self._columns[0]!r}",
            )
        self._number = self._number or place
        of_split.first = of_split.first or (place, len(numbers))
        if len(self._values) <= _FEW:
            self._values.update(numbers)
        return True

    def _take_name(self, place: str, cell: str) -> None:
        parts = cell.split(SEPARATOR)
        bits = [as_bit(part.strip()) for part in parts]
        is_hot = len(parts) > 1 and None not in bits and self._bits in (None, len(parts))
        self._bits = self._bits or len(parts)
        self._all_bits &= is_hot
        self._one_each &= bits.count(True) == 1
        if len(parts) > 1:
            self._is_several = True
            if not is_hot or len(set(parts)) == len(parts):
                names_of(self._spec, place, cell)  # a wrong one is refused with its place

    def of_split(self, split: str) -> Labels:
        """What the labels of a split are."""
        held = self._splits.get(split, _Split())
        column = self._columns[0]
        if held.first is not None:
            names = self._columns if len(self._columns) > 1 else target_names(held.first[1])
            return Labels(self._spec, "regression", names, self._of_whole_numbers(column), first=held.first)
        if not held.cells:
            return Labels(self._spec, "multi_label" if self._is_several else "single_label", ())
        if self._all_bits:
            return self._of_bits(held.cells)
        self._check_names(held.cells)
        if self._is_several:
            names = tuple(sorted({name for cell in held.cells for name in names_of(self._spec, "", cell)}))
        else:
            names = tuple(sorted(held.cells))
        kind: Kind = "multi_label" if self._is_several else "single_label"
        places = {name: place for place, name in enumerate(names)}
        return Labels(self._spec, kind, names, tuple(_of_names(names)), places=places)

    def _of_whole_numbers(self, column: str) -> tuple[str, ...]:
        whole = len(self._values) <= _FEW and all(value.is_integer() for value in self._values)
        if self._numbers or not whole or len(self._values) < 2:
            return ()
        return (
            (
                f"{column}, whole numbers of {len(self._values)} values, as measured numbers; if they are "
                f"classes, say label_col={column!r}"
            ),
        )

    def _of_bits(self, cells: set[str]) -> Labels:
        """Labels of which each is there or not: classes, if every row of the file has exactly one."""
        rows = [[as_bit(part.strip()) for part in cell.split(SEPARATOR)] for cell in cells]
        names = self._columns if len(self._columns) > 1 else hot_names(len(rows[0]))
        if not self._one_each:
            where = {str(index): index for index in range(len(names))}
            no = "-1" if "-1" in str(sorted(self._noes)) else "0"
            taken = (f"{no} or 1 for each of {len(names)} as several labels",)
            return Labels(self._spec, "multi_label", names, taken, hot=True, places=where)
        used = sorted({row.index(True) for row in rows})
        where = {str(index): place for place, index in enumerate(used)}
        taken = (f"the one 1 of each row among {len(names)} labels as its class (one-hot)",)
        return Labels(
            self._spec, "single_label", tuple(names[index] for index in used), taken, hot=True, places=where
        )

    def _check_names(self, cells: set[str]) -> None:
        """Refuse names that are numbers or lists, unless their column was named; ``DataError`` if they are."""
        column = self._columns[0]
        if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
            raise DataError(
                self._spec, f"{column} holds lists such as {min(cells)}; write several labels as red|round"
            )
        if self._is_asked or not all(map(_is_number, cells)):
            return
        broken = [cell for cell in cells if math.isfinite(float(cell)) and not float(cell).is_integer()]
        if broken:
            raise DataError(
                self._spec,
                f"{column} holds numbers such as {min(broken)}: say target_col={column!r} if they were "
                f"measured, label_col={column!r} if each is a class",
            )


def _of_names(names: Sequence[str]) -> Iterable[str]:
    """What is odd about names of classes, in sentences."""
    groups = alike(names)
    if groups:
        shown = "; ".join(" and ".join(map(repr, group)) for group in groups[:_ALIKE_NAMED])
        more = f"; and {len(groups) - _ALIKE_NAMED} more" if len(groups) > _ALIKE_NAMED else ""
        yield f"labels that differ by case or blanks only as classes of their own: {shown}{more}"
    if doubtful := [name for name in names if name.casefold() in DOUBTFUL]:
        yield f"{doubtful[0]!r} as the name of a class; leave the cell empty where there is none"


def _are_cut(cell: str, numbers: Sequence[float]) -> bool:
    """Whether a whole number in a cell has no float of its own."""
    texts = [text.strip() for text in cell.split(SEPARATOR)]
    return any(
        text.lstrip("+-").isdecimal() and math.isfinite(number) and int(text) != number
        for text, number in zip(texts, numbers, strict=True)
    )


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def names_of(spec: str, place: str, cell: str) -> list[str]:
    """Labels between bars; an empty cell is none at all; ``DataError`` if one is empty or repeated."""
    names = [name.strip() for name in cell.split(SEPARATOR)] if cell else []
    if "" in names or len(set(names)) < len(names):
        raise DataError(spec, f"{place}: label {cell!r} must be names between bars, each of them once")
    return names


def numbers_of(spec: str, place: str, cell: str, first: tuple[str, int] | None = None) -> tuple[float, ...]:
    """Numbers between bars.

    Args:
        spec: The data spec, for messages.
        place: Where the cell is, in words.
        cell: The cell.
        first: Place and count of the numbers before it, of which all cells have equally many.

    Raises:
        DataError: If one is no number, is not finite, or they are not as many.
    """
    try:
        numbers = tuple(float(text) for text in cell.split(SEPARATOR))
    except ValueError as error:
        raise DataError(
            spec, f"{place}: target {cell!r} must be a number, or several between bars such as 1.5|2"
        ) from error
    if any(abs(number) >= _MAX_WHOLE for number in numbers) and _are_cut(cell, numbers):
        raise DataError(
            spec, f"{place}: target {cell!r} is beyond 2**53, where floats tell only some numbers apart"
        )
    if not fit_float32(numbers):
        raise DataError(spec, f"{place}: target {cell!r} must be finite and fit 32-bit floats")
    if first is not None and len(numbers) != first[1]:
        raise DataError(
            spec,
            f"{place}: target {cell!r} holds {len(numbers)} numbers where {first[0]} holds {first[1]}; give "
            "every sample the same targets",
        )
    return numbers
