"""The one door to the library datasets of Hugging Face, which comes with the extra ``data``.

    hf-data:./folder                 images in class folders, Parquet, CSV and so on, or what save_to_disk wrote
    hf-data:./part-*.parquet         Parquet files
    hf-data:ORG/NAME?config=NAME     a data set of the hub, downloaded and cached by the library
    hf-data:./folder?text=body&label=stars      which columns are meant

Nothing here runs code that comes with data. What is read is the column of images, or else of texts, and that of
labels: classes, lists of classes, words, whole numbers, or other numbers, which make a regression.

Axes: T targets.
"""

import glob
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np

from indexer.data.listings import Entry, Listing, choose_split, printable, read_file
from indexer.errors import DataError, MissingLibraryError
from indexer.records import Content, Kind, Reading
from indexer.tables.label_arrays import ArrayLabels, hot_names, hot_rows, read_hot_rows, read_label_array
from indexer.tables.labels import fit_float32

PREFIX = "hf-data:"
OPTIONS = ("config", "image", "label", "revision", "text")
LABEL_COLUMNS = ("label", "labels", "target")
TEXT_COLUMNS = ("text", "sentence", "content")
_BATCH_ROWS = 1000
_FOLDER = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class HubData:
    """A data spec taken apart."""

    spec: str
    place: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The data spec that says this."""
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{PREFIX}{self.place}{query}"

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine: by how it is written, or since it is there."""
        return bool(_FOLDER.match(self.place)) or Path(self.place).exists() or self.place.endswith(".parquet")


def parse_hub_data(spec: str) -> HubData:
    """Take a data spec apart; ``DataError`` if it names nothing, or an option is none of ours."""
    place, mark, query = spec.removeprefix(PREFIX).rpartition("?")
    if not mark or not re.fullmatch(r"\w+=[^?]*", query):
        place, query = spec.removeprefix(PREFIX), ""
    if not place:
        raise DataError(spec, f"names no data; expected {PREFIX}./FOLDER, Parquet files or {PREFIX}ORG/NAME")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise DataError(spec, f"no option is named {unknown[0]!r}; known are {', '.join(OPTIONS)}")
    return HubData(spec, place, options)


def open_hub_data(spec: str, reading: Reading) -> Listing:
    """List the rows of a data set that the library datasets loads.

    Raises:
        DataError: If it cannot be loaded, has no such split, or no column of samples or labels.
        MissingLibraryError: If the library is not installed.
    """
    data = parse_hub_data(spec)
    library = _import_datasets(spec)
    with _translated(spec, library):
        splits = _load(library, data)
    return open_splits(spec, splits, reading, data)


def open_splits(spec: str, splits: Mapping[str, Any], reading: Reading, data: HubData | None = None) -> Listing:
    """List the rows of a split of a loaded data set."""
    data = _as_asked(data or HubData(spec, ""), reading)
    library = _import_datasets(spec)
    with _translated(spec, library):
        rows = choose_split(spec, splits, reading.split)
        content, column = _sample_column(library, data, rows.features)
        label = _label_column(library, data, rows.features, column)
        if content == "images":
            rows = rows.cast_column(column, library.Image(decode=False))
        labels = _Labels.from_column(library, spec, label, rows, is_number=bool(reading.target_col))
    table = rows.select_columns([column]).with_format("arrow")

    def scan() -> Iterator[Entry]:
        for start in range(0, len(table), _BATCH_ROWS):
            batch = table[start : start + _BATCH_ROWS][column]
            samples = batch.to_pylist() if content == "texts" else [None] * len(batch)
            sizes = _sizes(spec, start, samples) if content == "texts" else _image_sizes(batch)
            for offset, (sample, size) in enumerate(zip(samples, sizes, strict=True)):
                row = start + offset
                name = f"{row}:{_digest(sample)}" if content == "texts" else str(row)
                yield labels.entry(name, (row, size), row)

    return Listing(
        spec=spec,
        kind=labels.kind,
        class_names=tuple(printable(name) for name in labels.class_names),
        scan=scan,
        size=lambda entry: int(entry.where[1]),
        read=lambda entry: _content(rows[entry.where[0]][column]),
        order=lambda entry: entry.where[0],
        content=content,
        taken=labels.taken,
    )


def _as_asked(data: HubData, reading: Reading) -> HubData:
    """A data spec with the columns that were named beside it."""
    named = {
        "image": reading.image_col,
        "text": reading.text_col,
        "label": reading.target_col or reading.label_col,
    }
    return replace(data, options={**data.options, **{key: column for key, column in named.items() if column}})


def _import_datasets(spec: str) -> ModuleType:
    try:
        import datasets
    except ImportError as err:
        raise MissingLibraryError(spec, "datasets", "data") from err
    module: ModuleType = datasets
    return module


@contextmanager
def _translated(spec: str, library: ModuleType) -> Iterator[None]:
    """Keep the library's bars away, and make what it raises one sentence.

    Raises:
        DataError: If it raises anything: its errors and those of the hub share no base but Exception.
    """
    bars = library.is_progress_bar_enabled()
    library.disable_progress_bars()
    try:
        yield
    except DataError:
        raise
    except Exception as err:
        problem = " ".join(str(err).split()) or type(err).__name__
        raise DataError(
            spec,
            f"cannot be loaded ({problem}); without a network, fetch it elsewhere and name its folder as "
            f"{PREFIX}./FOLDER",
        ) from err
    finally:
        if bars:
            library.enable_progress_bars()


def _load(library: ModuleType, data: HubData) -> dict[str, Any]:
    """The splits by lower-case name; ``DataError`` if there is no such folder or file."""
    place = str(Path(data.place).expanduser()) if data.is_local else data.place
    if place.endswith(".parquet"):
        files = sorted(glob.glob(place))  # noqa: PTH207 (the pattern may be absolute)
        if not files:
            raise DataError(data.spec, "no such file; expected Parquet files")
        return {"": library.Dataset.from_parquet(files)}
    if data.is_local and not Path(place).is_dir():
        raise DataError(data.spec, "no such folder; expected one that the library datasets loads")
    if (Path(place) / "dataset_dict.json").is_file() or (Path(place) / "state.json").is_file():
        loaded = library.load_from_disk(place)
    else:
        loaded = library.load_dataset(place, data.options.get("config"), revision=data.options.get("revision"))
    if not isinstance(loaded, dict):
        return {"": loaded}
    return {str(name).lower(): rows for name, rows in loaded.items()}


def _sample_column(library: ModuleType, data: HubData, features: Mapping[str, Any]) -> tuple[Content, str]:
    """What the samples are, and their column; ``DataError`` if there is none, or several and none is named."""
    if (named := data.options.get("image")) is not None:
        return "images", _present(data, named, features)
    if (named := data.options.get("text")) is not None:
        return "texts", _present(data, named, features)
    images = [name for name, feature in features.items() if isinstance(feature, library.Image)]
    texts = [
        name
        for name, feature in features.items()
        if getattr(feature, "dtype", "") in {"string", "large_string"}
    ]
    texts = [name for name in texts if name not in LABEL_COLUMNS]
    if len(images) == 1:
        return "images", images[0]
    usual = next((name for name in TEXT_COLUMNS if name in texts), None)
    if not images and (usual or len(texts) == 1):
        return "texts", usual or texts[0]
    raise DataError(
        data.spec,
        f"has {len(images) or 'no'} columns of images and {len(texts) or 'no'} of texts; name one as "
        f"?image=COLUMN or ?text=COLUMN, of {', '.join(features)}",
    )


def _label_column(library: ModuleType, data: HubData, features: Mapping[str, Any], column: str) -> str:
    """The column of labels; ``DataError`` if there is none, or several and none is named."""
    if (named := data.options.get("label")) is not None:
        return _present(data, named, features)
    others = {name: feature for name, feature in features.items() if name != column}
    usual = [name for name in LABEL_COLUMNS if name in others]
    classes = [name for name, feature in others.items() if isinstance(feature, library.ClassLabel)]
    if chosen := usual or (classes if len(classes) == 1 else []):
        return chosen[0]
    raise DataError(
        data.spec, f"has no column 'label'; name the one of labels as label=COLUMN, of {', '.join(features)}"
    )


def _present(data: HubData, column: str, features: Mapping[str, Any]) -> str:
    if column not in features:
        raise DataError(data.spec, f"has no column {column!r}; its columns are {', '.join(features)}")
    return column


@dataclass(frozen=True, eq=False)
class _Labels:
    """Labels of all rows."""

    kind: Kind
    class_names: tuple[str, ...]
    values: Sequence[tuple[Any, ...]] = field(repr=False)
    taken: tuple[str, ...] = ()

    def entry(self, name: str, where: tuple[int, int], row: int) -> Entry:
        """The sample in a row."""
        if self.kind == "regression":
            return Entry(name, where, targets=self.values[row])
        return Entry(name, where, self.values[row])

    @classmethod
    def from_column(
        cls, library: ModuleType, spec: str, column: str, rows: Any, *, is_number: bool = False
    ) -> "_Labels":
        """Take the labels of a column; ``DataError`` if a row has none, or other than words or numbers."""
        cells: list[Any] = rows.with_format("arrow")[:][column].to_pylist() if len(rows) else []
        if not cells:
            raise DataError(spec, "holds no samples")
        feature = rows.features[column]
        several = isinstance(cells[0], list)
        inner = getattr(feature, "feature", feature) if several else feature
        names = tuple(inner.names) if isinstance(inner, library.ClassLabel) else None
        lists = [cell if isinstance(cell, list) else [cell] for cell in cells]
        for row, values in enumerate(lists):
            _check_cell(spec, f"row {row}: {column}", values, names)
        if names is None and not is_number and (hot := hot_rows(lists)) is not None:
            return cls._of_array(read_hot_rows(hot, hot_names(hot.shape[1])))
        if is_number or (names is None and all(isinstance(one, float) for values in lists for one in values)):
            return cls._of_numbers(spec, column, lists, is_number=is_number)
        if names is None:
            names = tuple(sorted({str(value) for values in lists for value in values}))
            label_of = {name: label for label, name in enumerate(names)}
            lists = [[label_of[str(value)] for value in values] for values in lists]
        used = sorted({value for values in lists for value in values})
        if not several:  # a class of which this split has no sample is none of its task
            names, place = tuple(names[label] for label in used), {label: new for new, label in enumerate(used)}
            lists = [[place[value] for value in values] for values in lists]
        kind: Kind = "multi_label" if several else "single_label"
        return cls(kind, names, [tuple(sorted(set(values))) for values in lists])

    @classmethod
    def _of_array(cls, labels: ArrayLabels) -> "_Labels":
        values = [max(labels.of(row), key=len) for row in range(len(labels.values))]
        return cls(labels.kind, labels.class_names, values, labels.taken)

    @classmethod
    def _of_numbers(cls, spec: str, column: str, lists: list[list[float]], *, is_number: bool) -> "_Labels":
        for row, values in enumerate(lists):
            if len(values) != len(lists[0]):
                raise DataError(
                    spec, f"row {row}: {column} holds {len(values)} numbers where row 0 holds {len(lists[0])}"
                )
            if not fit_float32(values):
                raise DataError(spec, f"row {row}: {column} must be finite and fit 32-bit floats")
        array = np.array(lists)
        if array.dtype.kind not in "uif":
            raise DataError(spec, f"{column} holds words, and is named as numbers")
        return cls._of_array(read_label_array(spec, array, True if is_number else None, column))


def _check_cell(spec: str, place: str, values: Sequence[Any], names: Sequence[str] | None) -> None:
    """Refuse a cell of labels that holds none, or anything else; ``DataError`` if it does."""
    for value in values:
        if value is None or value == "":
            raise DataError(spec, f"{place} is empty")
        if not isinstance(value, str | int | float):
            raise DataError(spec, f"{place} is {type(value).__name__}; expected text or numbers")
        if names is not None and not 0 <= int(value) < len(names):
            raise DataError(spec, f"{place} is {value}, which is no class: this split may have no labels")


def _sizes(spec: str, start: int, samples: Sequence[Any]) -> list[int]:
    """Bytes of texts; ``DataError`` if one is no text, or blank."""
    for row, sample in enumerate(samples, start=start):
        if not isinstance(sample, str) or not sample.strip():
            raise DataError(spec, f"row {row}: text is empty")
    return [len(sample.encode(errors="surrogatepass")) for sample in samples]


def _image_sizes(batch: Any) -> list[int]:
    """Bytes of images in the table; of those that are files of their own, of the file."""
    import pyarrow.compute

    batch = batch.combine_chunks() if hasattr(batch, "combine_chunks") else batch
    content, files = pyarrow.compute.struct_field(batch, "bytes"), pyarrow.compute.struct_field(batch, "path")
    sizes, paths = pyarrow.compute.binary_length(content).to_pylist(), files.to_pylist()
    return [_file_size(path) if size is None else size for size, path in zip(sizes, paths, strict=True)]


def _file_size(path: str | None) -> int:
    try:
        return Path(path).stat().st_size if path else 0
    except OSError:  # reading it will say so
        return 0


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _content(sample: Any) -> bytes:
    """Bytes of a text or an image; ``OSError`` if there is no image, or its file cannot be read."""
    if isinstance(sample, str):
        return sample.encode(errors="surrogatepass")
    if sample and sample["bytes"] is not None:
        return bytes(sample["bytes"])
    if not sample or not sample["path"]:
        raise OSError("no image")
    return read_file(sample["path"])
