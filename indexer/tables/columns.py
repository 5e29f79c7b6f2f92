"""Which columns of a table hold the samples, their labels and their split: as asked, or as the header says.

A header that leaves a doubt is refused, with the option that settles it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from indexer.errors import DataError
from indexer.records import Content, Reading
from indexer.tables.files import Table


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGE_NAMES = _words(
    "path paths filepath filepaths imagepath imgpath file filename filenames fname image images imagefile "
    "imagefilename imagename imgname img imgs imgfile picture photo"
)
ID_NAMES = _words("imageid imgid id idcode imageindex photoid")
TEXT_NAMES = _words("text texts sentence content review tweet message body utterance headline")
LABEL_NAMES = (
    _words("label labels"),
    _words(
        "class classes classname classlabel category categories categoryname diagnosis dx sentiment emotion "
        "species breed variety labelname target targets"
    ),
    _words("classid labelid categoryid classindex y"),
)
SPLIT_COLUMNS = _words("split splits subset partition set dataset datasplit usage phase")
USUAL_SPLITS = _words(
    "train training trainingset trainset val valid validation dev test testing testset publictest privatetest"
)
_PEEKED = 1000
_NAMED = 4


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Attributes:
        labels: The column of labels; or several, which hold 0 or 1 for each label, or a target each.
        numbers: Whether the labels are targets: ``True`` or ``False`` if that was asked for or goes without
            saying, ``None`` for a column that is only called so.
    """

    content: Content
    sample: str  # the column of paths of images, of their bytes, or of texts
    labels: tuple[str, ...]
    numbers: bool | None
    split: str | None
    taken: tuple[str, ...] = ()  # what was taken for what, in a sentence, if the header left anything open

    @property
    def read(self) -> tuple[str, ...]:
        """All of them."""
        return (self.sample, *self.labels, *([self.split] if self.split else []))


def plain(name: str) -> str:
    """A name without what people write differently: case, blanks, dashes and the like."""
    return "".join(char for char in name.casefold() if char.isalnum())


def choose_columns(table: Table, asked: Reading, endings: Sequence[str]) -> Columns:
    """The columns that are read; ``DataError`` if one is missing or twice there, or in doubt."""
    if not table.columns:
        raise DataError(table.spec, "is empty; expected a header such as path,label and a row for each sample")
    header = _Header(table, asked, endings)
    content, sample = header.sample()
    labels, numbers = header.labels(sample)
    split = header.split((sample, *labels))
    chosen = Columns(content, sample, labels, numbers, split)
    for column in chosen.read:
        if (count := table.columns.count(column)) > 1:
            raise DataError(table.spec, f"has {count} columns {column!r}; keep the one that is meant")
    plain_names = {"path", "text", "label", "target", "split"} | {"image"}.intersection(table.blobs)
    if set(chosen.read) <= plain_names:
        return chosen
    return Columns(content, sample, labels, numbers, split, (header.sentence(chosen),))


class _Header:
    """The header of a table, and what its first rows say where it is not enough."""

    def __init__(self, table: Table, asked: Reading, endings: Sequence[str]) -> None:
        self._table, self._asked, self._endings = table, asked, tuple(endings)
        self._spec = table.spec
        self._names = [name for name in dict.fromkeys(table.columns) if not plain(name).startswith("unnamed")]
        self._names = [name for name in self._names if name]
        self._rows: list[dict[str, str]] | None = None

    def _values(self, column: str) -> list[str]:
        if self._rows is None:
            self._rows = self._table.peek(_PEEKED)
        return [row.get(column, "") for row in self._rows]

    def _all(self, column: str, test: Callable[[str], bool]) -> bool:
        """Whether the first rows have values in a column, all of which pass."""
        values = [value for value in self._values(column) if value]
        return bool(values) and all(map(test, values))

    def _called(self, names: Iterable[str], of: Sequence[str] | None = None) -> list[str]:
        return [name for name in (self._names if of is None else of) if plain(name) in names]

    def _named(self, option: str, column: str) -> str:
        """The column that an option names, in any spelling; ``DataError`` if there is none."""
        alike = [column] if column in self._table.columns else self._called({plain(column)})
        if len(alike) != 1:
            raise DataError(
                self._spec, f"{option}={column!r}: there is no such column; its columns are {self._listed()}"
            )
        return alike[0]

    def _listed(self, names: Sequence[str] | None = None) -> str:
        names = self._names if names is None else names
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return (", ".join(names[:20]) or "none") + more

    def _doubt(self, what: str, option: str, names: Sequence[str]) -> DataError:
        return DataError(
            self._spec,
            f"{what} could be in the columns {self._listed(names)}; say which by {option}={names[0]!r}",
        )

    def sample(self) -> tuple[Content, str]:
        """What the samples are, and their column; ``DataError`` if there is none, or a doubt."""
        image, text = self._asked.image_col, self._asked.text_col
        if image is not None and text is not None:
            raise DataError(self._spec, "samples are images or texts; give image_col= or text_col=, not both")
        if image is not None:
            return "images", self._named("image_col", image)
        if text is not None:
            return "texts", self._named("text_col", text)
        images = self._exact("path") or list(self._table.blobs) or self._exact("pixels")
        images = images or self._called(IMAGE_NAMES)
        texts = self._exact("text") or ([] if self._exact("path") else self._called(TEXT_NAMES))
        if self._exact("text") and not self._exact("path") and not self._table.blobs:
            images = []
        if images and texts:
            raise DataError(
                self._spec,
                f"has both a column {images[0]!r} and a column {texts[0]!r}; say what the samples are by "
                f"image_col={images[0]!r} or text_col={texts[0]!r}",
            )
        images = images or ([] if texts else self._called(ID_NAMES)) or ([] if texts else self._by_value())
        if len(candidates := images or texts) > 1:
            raise self._doubt("the samples", "image_col" if images else "text_col", candidates)
        if not candidates:
            self._check_is_header()
            raise DataError(
                self._spec,
                "column 'path' is missing, or 'text' of texts; name it by image_col= or text_col=, of "
                f"{self._listed()}",
            )
        return ("images" if images else "texts"), candidates[0]

    def _exact(self, name: str) -> list[str]:
        return [name] if name in self._names else []

    def _by_value(self) -> list[str]:
        """Columns whose values are names of images."""
        if any(name.lower().endswith(self._endings) for name in self._names):
            return []  # a row of data in place of the header
        return [
            name
            for name in self._names
            if name not in self._table.blobs
            and self._all(name, lambda value: value.lower().endswith(self._endings))
        ]

    def _check_is_header(self) -> None:
        """Refuse a first row that is none; ``DataError`` if it looks like data."""
        for name in self._names:
            if name.lower().endswith(self._endings) or _is_number(name) or len(name) > 80:
                raise DataError(
                    self._spec,
                    f"its first row holds {name[:80]!r} and no names of columns; put a header above it, such "
                    "as path,label",
                )

    def labels(self, sample: str) -> tuple[tuple[str, ...], bool | None]:
        """The columns of labels, and whether they are targets; ``DataError`` if there is none, or a doubt."""
        label, target = self._asked.label_col, self._asked.target_col
        if label is not None and target is not None:
            raise DataError(self._spec, "give label_col= for classes or target_col= for numbers, not both")
        if label is not None:
            return self._several("label_col", label), False
        if target is not None:
            return self._several("target_col", target), True
        rest = [name for name in self._names if name != sample and name not in self._table.blobs]
        if "label" in rest and "target" in rest:
            raise DataError(
                self._spec,
                "has both a column 'label' and a column 'target'; say which is the task by label_col='label' "
                "or target_col='target'",
            )
        for names in LABEL_NAMES:
            called = self._called(names, rest)
            called = [name for name in called if name in ("label", "target")] or called
            if len(called) > 1:
                raise self._doubt("the labels", "label_col", called)
            if called:
                return (called[0],), None if plain(called[0]) in ("target", "targets") else False
        return self._labels_by_value(rest), False

    def _several(self, option: str, named: str) -> tuple[str, ...]:
        """The columns that an option names, between commas if they are several."""
        if named in self._table.columns or "," not in named:
            return (self._named(option, named),)
        return tuple(self._named(option, name.strip()) for name in named.split(","))

    def _labels_by_value(self, rest: list[str]) -> tuple[str, ...]:
        """The only column left, or those of 0 and 1; ``DataError`` if none, or others could be meant."""
        split = self._split_of(rest)
        rest = [name for name in rest if name != split and plain(name) not in ID_NAMES]
        if len(rest) == 1:
            return (rest[0],)
        binary = [
            name
            for name in rest
            if self._all(name, lambda value: value in _ONES or value in _ZEROS or value == "-1")
        ]
        if len(binary) > 1:
            rows = zip(*map(self._values, binary), strict=True)
            if binary == rest or all(sum(value in _ONES for value in row) == 1 for row in rows):
                return tuple(binary)
        if not rest:
            self._check_is_header()
            raise DataError(
                self._spec, f"column 'label' is missing; name it by label_col=, of {self._listed()}"
            )
        raise self._doubt("the labels", "label_col", rest)

    def split(self, others: Sequence[str]) -> str | None:
        """The column of splits, if there is one."""
        if self._asked.split_col is not None:
            return self._named("split_col", self._asked.split_col)
        return self._split_of([name for name in self._names if name not in others])

    def _split_of(self, names: Sequence[str]) -> str | None:
        if "split" in names:
            return "split"
        called = [
            name
            for name in self._called(SPLIT_COLUMNS, names)
            if self._all(name, lambda value: plain(value) in USUAL_SPLITS)
        ]
        return called[0] if len(called) == 1 else None

    def sentence(self, chosen: Columns) -> str:
        """What was taken for what."""
        labels = self._short(chosen.labels)
        what = "targets" if chosen.numbers else "labels"
        parts = [f"column {chosen.sample!r} as the {chosen.content}", f"{labels} as the {what}"]
        parts += [f"{chosen.split!r} as the splits"] if chosen.split else []
        unread = [name for name in self._names if name not in chosen.read]
        left = f"; not read: {self._short(unread)}" if unread else ""
        return f"{', '.join(parts[:-1])} and {parts[-1]}{left}"

    @staticmethod
    def _short(names: Sequence[str]) -> str:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ", ".join(map(repr, names[:_NAMED])) + more


_ONES = frozenset(("1", "1.0", "True", "true", "TRUE"))
_ZEROS = frozenset(("0", "0.0", "False", "false", "FALSE"))


def as_bit(value: str) -> bool | None:
    """Whether a cell says yes, ``None`` if it says neither yes nor no."""
    return True if value in _ONES else False if value in _ZEROS else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ by case, blanks or the form of accents only, in groups."""
    import unicodedata

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(unicodedata.normalize("NFC", name).casefold().split()), []).append(name)
    return [tuple(sorted(group)) for group in groups.values() if len(group) > 1]
