"""Manifests: a CSV, TSV, JSON, Parquet, Arrow or Excel file of samples with labels or targets.

    path,label,split             one class each; or, if any label of the file holds "|", any number of labels
    a/1.png,red|round,train      between bars, where an empty label is none at all
    path,target                  a number, or as many for each file between bars: a regression
    a/1.png,0.5|12
    text,label                   texts in place of files; with target or split likewise
    "Fine, thanks.",positive
    filename,cat,dog             0 or 1 for each label
    a/1.png,1,0

Columns of other names are recognised or named, see ``indexer.tables.columns``. Paths are relative to the
manifest. Rows without a sample or a label are left out and counted. Paths and labels are held in memory; texts
are not, so their file is gone over again for every pass; nor are images in Parquet.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from indexer.data.images import IMAGE_SUFFIXES
from indexer.data.listings import Entry, Listing, choose_split, printable, read_file
from indexer.data.row_files import RowFiles
from indexer.errors import DataError
from indexer.records import Reading
from indexer.tables.columns import choose_columns
from indexer.tables.files import MAX_TEXT, Table, cell_text, open_table
from indexer.tables.labels import Labels, LabelSurvey
from indexer.tables.parquet import ParquetImages
from indexer.tables.pixels import PIXELS, pixels_of, with_pixels


class _Row(NamedTuple):
    """One row of a manifest."""

    number: int  # counts the rows of all splits from 1
    place: str  # its line or row number, in words
    sample: Any  # its path or text; of the bytes of an image ``(size, path)``
    labels: tuple[str, ...]
    split: str


class _File(NamedTuple):
    """A file that a row names."""

    path: Any
    size: int


class _Text(NamedTuple):
    """A text of a manifest; ``number`` counts the rows of all splits from 1."""

    number: int
    content: bytes


class _Bytes(NamedTuple):
    """An image in a row of Parquet, counted from 0; ``path`` is set where it is a file of its own."""

    row: int
    size: int
    path: str


class Files(Protocol):
    """Where the files are that rows name."""

    @property
    def taken(self) -> tuple[str, ...]:
        """How rows and files were matched, in sentences."""

    def find(self, place: str, named: str) -> tuple[str, Any, int] | None:
        """Name, place and size of a file; ``None`` if its row is none of those that are asked for."""

    def read(self, where: Any) -> bytes:
        """Content of a file."""


def open_manifest(
    spec: str, reading: Reading, within: Path | None = None, files: Files | None = None
) -> Listing:
    """List the files, or the texts, that a manifest names.

    Args:
        spec: The manifest.
        reading: What the spec leaves open.
        within: Folder that no file may lie outside of; ``None`` for any that the manifest names.
        files: Where the files are; ``None`` for below the folder of the manifest.

    Raises:
        DataError: If it cannot be parsed, a column is missing or in doubt, a cell is of a wrong form, a file is
            listed twice or does not exist, or there is no such split.
        MissingLibraryError: If it is an Excel file, and the library that reads these is not installed.
    """
    return open_rows(open_table(spec, reading.encoding, reading.delimiter), reading, within, files)


def open_rows(
    table: Table, reading: Reading, within: Path | None = None, files: Files | None = None
) -> Listing:
    """List what the rows of a table name, as ``open_manifest`` does of one in a file."""
    manifest = _Manifest(table, reading, within, files)
    return manifest.listing(choose_split(table.spec, manifest.survey(), reading.split))


class _Manifest:
    """A manifest while it is read."""

    def __init__(self, table: Table, reading: Reading, within: Path | None, files: Files | None) -> None:
        self._spec, self._reading, self._within, self._given = table.spec, reading, within, files
        self._table = with_pixels(table)
        self._columns = choose_columns(self._table, reading, IMAGE_SUFFIXES)
        self._is_bytes = self._columns.sample in self._table.blobs
        self._is_pixels = self._columns.sample == PIXELS and not self._is_bytes
        self._held: list[_Row] = []
        self._counts: dict[str, _Counts] = {}
        named = reading.label_col is not None or reading.target_col is not None
        self._labels = LabelSurvey(table.spec, self._columns.labels, self._columns.numbers, is_asked=named)

    def _rows(self) -> Iterator[_Row]:
        """Every row; ``DataError`` if a cell is of a wrong form."""
        columns = self._columns
        for number, (place, cells) in enumerate(self._table.rows(columns.read), start=1):
            sample = cells[columns.sample]
            if isinstance(sample, list | dict):
                raise DataError(self._spec, f"{place}: {columns.sample} must be text or a number")
            split = cell_text(cells[columns.split]).lower() if columns.split else ""
            if columns.split and not split:
                raise DataError(self._spec, f"{place}: {columns.split} is empty")
            labels = tuple(cell_text(cells[name]) for name in columns.labels)
            yield _Row(number, place, sample if self._is_bytes else cell_text(sample), labels, split)

    def survey(self) -> dict[str, str]:
        """Go over the file; the names of its splits; ``DataError`` without rows, or for an odd cell."""
        is_held = self._columns.content == "images" and not self._is_bytes and not self._is_pixels
        shared: dict[Any, Any] = {}
        held = 0
        for row in self._rows():
            counts = self._counts.setdefault(row.split, _Counts())
            counts.rows += 1
            if not row.sample:
                counts.note("sample", row.place)
                continue
            self._check_lines(row)
            if not self._labels.take(row.place, row.labels, row.split):
                counts.note("label", row.place)
            if is_held:
                held += len(row.sample) + (0 if row.labels in shared else sum(map(len, row.labels)))
                labels = shared.setdefault(row.labels, row.labels)
                self._held.append(row._replace(labels=labels, split=shared.setdefault(row.split, row.split)))
            if held > MAX_TEXT:
                raise DataError(
                    self._spec, f"{row.place}: more than {MAX_TEXT} characters are not held; split it"
                )
        if not self._counts:
            what = " and ".join((self._columns.sample, self._columns.labels[0]))
            raise DataError(self._spec, f"lists no samples; expected a row with {what} for each")
        return {split: split for split in self._counts}

    def _check_lines(self, row: _Row) -> None:
        """Refuse paths and labels of several lines: a quote that is not closed makes them.

        Raises:
            DataError: If there is one, or a text is no Unicode.
        """
        paths = (row.sample,) if self._columns.content == "images" and not self._is_bytes else ()
        if self._columns.content == "texts":
            self._encoded(row)
        if self._is_pixels and pixels_of(row.sample) is None:
            raise DataError(
                self._spec,
                f"{row.place}: {self._columns.sample} must be whole numbers from 0 to 255 with blanks between, "
                "as many as a square image has",
            )
        if any("\n" in cell for cell in (*paths, *row.labels)):
            raise DataError(
                self._spec, f"{row.place}: a cell holds several lines; a quote before it may not be closed"
            )

    def _check_swallowed(self, labels: Labels) -> None:
        """Refuse texts that hold rows, of a label that is one elsewhere, by a ``DataError``."""
        for place, cells in self._table.suspects:
            values = [cells.get(name, "") for name in self._columns.labels]
            try:
                is_row = any(values) and labels.of(place, values) is not None
            except DataError:
                continue
            if is_row:
                raise DataError(
                    self._spec,
                    f"{place}: a cell of several lines holds what looks like rows, the last labelled "
                    f"{'|'.join(values)!r}; close the quote before it, or put two quotes for one in the text",
                )

    def listing(self, split: str) -> Listing:
        """The samples of a split; ``DataError`` if none is left, or a file is not there or listed twice."""
        labels = self._labels.of_split(split)
        self._check_swallowed(labels)
        if self._columns.content == "texts" or self._is_bytes or self._is_pixels:
            return self._streamed(labels, split)
        files = self._given or self._files()
        entries: dict[str, Entry] = {}
        counts = self._counts[split]
        for row in self._held:
            if row.split != split or (meant := labels.of(row.place, row.labels)) is None:
                continue
            try:
                if (found_at := files.find(row.place, row.sample)) is None:
                    continue
                name, path, size = found_at
                if name in entries:
                    raise DataError(
                        self._spec, f"{row.place}: path {row.sample!r} is listed before; list each file once"
                    )
            except DataError as error:
                if not self._reading.skip_bad:
                    raise
                counts.note("listed before" if "listed before" in str(error) else "missing", row.place)
                continue
            entries[name] = Entry(name, _File(path, size), *meant)
        held = list(entries.values())
        return self._of(
            labels,
            split,
            scan=lambda: held,
            size=lambda entry: int(entry.where.size),
            read=lambda entry: files.read(entry.where.path),
            taken=files.taken,
        )

    def _files(self) -> RowFiles:
        return RowFiles(self._spec, self._reading.image_root, self._reading.image_suffix, self._within)

    def _streamed(self, labels: Labels, split: str) -> Listing:
        """The texts or the images in the rows of a split.

        The name of a text is its row with a hash of it, so that what was hashed of all samples changes with any
        text; that of an image is its row.
        """

        def scan() -> Iterator[Entry]:
            for row in self._rows():
                if row.split != split or not row.sample:
                    continue
                if (meant := labels.of(row.place, row.labels)) is not None:
                    yield Entry(*self._sample(row), *meant)

        if not self._is_bytes:
            return self._of(
                labels,
                split,
                scan=scan,
                size=lambda entry: len(entry.where.content),
                read=lambda entry: (
                    pixels_of(entry.where.content.decode()) if self._is_pixels else bytes(entry.where.content)
                ),
                order=lambda entry: entry.where.number,
                content=self._columns.content,
            )
        files = self._files()
        read_blob = self._table.read_blob or ParquetImages(self._spec, self._columns.sample).read
        return self._of(
            labels,
            split,
            scan=scan,
            size=lambda entry: int(entry.where.size),
            read=lambda entry: (
                read_file(files.find(f"row {entry.where.row + 1}", entry.where.path)[1])
                if entry.where.path
                else read_blob(entry.where.row)
            ),
            order=lambda entry: entry.where.row,
        )

    def _sample(self, row: _Row) -> tuple[str, _Text | _Bytes]:
        """Name and place of a sample that is in the manifest itself."""
        if self._is_bytes:
            return str(row.number - 1), _Bytes(row.number - 1, *row.sample)
        content = self._encoded(row)
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        return f"{row.number}:{digest}", _Text(row.number, content)

    def _encoded(self, row: _Row) -> bytes:
        """A text in UTF-8; ``DataError`` if it is no Unicode, as JSON allows."""
        try:
            return bytes(row.sample.encode())
        except UnicodeEncodeError as error:
            raise DataError(self._spec, f"{row.place}: text is no valid Unicode: {error.reason}") from error

    def _of(self, labels: Labels, split: str, *, taken: tuple[str, ...] = (), **how: Any) -> Listing:
        """A listing, and what is said of it; ``DataError`` if no row is left."""
        counts = self._counts[split]
        used = counts.rows - sum(
            count
            for reason, (count, _) in counts.left_out.items()
            if reason != "label" or not labels.may_be_none
        )
        one = "image" if self._columns.content == "images" else "text"
        words = {"sample": f"without {'an' if one == 'image' else 'a'} {one}", "label": "without a label"}
        passed_over = {
            f"row {words.get(reason, reason)} (on {place})"
            if count == 1
            else f"rows {words.get(reason, reason)} (the first on {place})": count
            for reason, (count, place) in counts.left_out.items()
            if reason != "label" or not labels.may_be_none
        }
        if used <= 0:
            why = " and ".join(f"{count} {reason}" for reason, count in passed_over.items())
            raise DataError(self._spec, f"no row is left: {why}")
        others = {name: other.rows for name, other in self._counts.items() if name != split}
        splits = ", ".join(f"{rows} of {name}" for name, rows in others.items())
        said = (f"the {counts.rows} rows of split {split!r}, and not {splits}",) if others else ()
        return Listing(
            spec=self._spec,
            kind=labels.kind,
            class_names=tuple(printable(name) for name in labels.class_names),
            taken=(*self._table.taken, *self._columns.taken, *labels.taken, *taken, *said),
            passed_over=passed_over,
            **how,
        )


@dataclass(eq=False)
class _Counts:
    """Rows of a split: how many, and how many are left out, by reason, with the place of the first."""

    rows: int = 0
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, reason: str, place: str) -> None:
        """One more is left out."""
        count, first = self.left_out.get(reason, (0, place))
        self.left_out[reason] = (count + 1, first)
