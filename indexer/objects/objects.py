"""Data that a Python program holds: frames, arrays, datasets of torch and Hugging Face, lists of pairs.

    DataFrame                 rows as of a manifest; a column may hold images, arrays or bytes in place of paths
    (images, labels)          arrays of numpy or tensors, in any layout of an .npz; or a list of images
    [(sample, label), ...]    samples are paths, texts, bytes, arrays or images of Pillow
    torch Dataset, DataLoader  what its items are; a loader stands for the dataset behind it, in its own order
    Dataset, DatasetDict      of Hugging Face, as ``hf-data:`` reads them

They are known by what they can do, so that no library is imported for them. They are read where they are, and
never kept.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.data.arrays import open_arrays_in_memory
from indexer.data.hugging_face import open_splits
from indexer.data.images import is_image_name
from indexer.data.listings import Listing, read_file
from indexer.data.manifests import open_rows
from indexer.errors import DataError
from indexer.records import PythonData, Reading
from indexer.tables.files import Row, Table

EXPECTED = (
    "expected a data spec, a path, a DataFrame, (images, labels), a list of (sample, label), a torch Dataset "
    "or DataLoader, or a Dataset of Hugging Face"
)
SAMPLE_KEYS = ("image", "img", "pixel_values", "text", "path")
LABEL_KEYS = ("label", "labels", "target")


def spec_of(data: Any) -> PythonData:
    """The data spec of data that a program holds."""
    return PythonData(data, open_object)


def open_object(spec: str, reading: Reading) -> Listing:
    """List the samples of data that a program holds.

    Raises:
        DataError: If it is no data, has no labels, or is not laid out as its kind asks.
    """
    assert isinstance(spec, PythonData)  # noqa: S101  # it is what carries this function
    data: Any = spec.content
    taken: tuple[str, ...] = ()
    if hasattr(data, "batch_sampler") and hasattr(data, "dataset"):
        data, taken = data.dataset, ("the dataset behind the DataLoader is read, in an order of its own",)
    tensors = getattr(data, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) == 2:
        data = tensors
    if isinstance(data, Mapping) and data and all(hasattr(rows, "column_names") for rows in data.values()):
        return open_splits(spec, {str(name).lower(): rows for name, rows in data.items()}, reading)
    if hasattr(data, "column_names") and hasattr(data, "features"):
        return open_splits(spec, {"": data}, reading)
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return _open_columns(spec, {str(name): data[name].tolist() for name in data.columns}, reading)
    if _is_array(data):
        raise DataError(spec, "is an array without labels; expected (images, labels)")
    if (
        isinstance(data, tuple)
        and len(data) == 2
        and all(isinstance(part, list) or _is_array(part) for part in data)
    ):
        return _open_pair(spec, *data, reading)
    parts = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, tuple) else ()
    if len(parts) and all(isinstance(part, tuple) and len(part) == 2 and _is_array(part[0]) for part in parts):
        raise DataError(spec, "is several pairs of arrays, as of splits; give one of them as (images, labels)")
    if isinstance(data, Mapping):
        images = [name for name, column in data.items() if _is_array(column) and len(column.shape) > 2]
        if len(images) == 1 and len(data) == 2:
            (label,) = data.keys() - images
            return _open_pair(spec, data[images[0]], data[label], reading)
        return _open_columns(spec, {str(name): _cells(column) for name, column in data.items()}, reading)
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(spec, f"is {type(data).__name__}, which is no data that can be indexed; {EXPECTED}")
    return _open_items(spec, data, reading, taken)


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "dtype") and not hasattr(data, "columns")


def _array(data: Any) -> np.ndarray:
    """An array, or a tensor of any device, as an array of numpy."""
    for method in ("detach", "cpu"):
        data = getattr(data, method)() if hasattr(data, method) else data
    return np.asarray(data)


def _plain(value: Any) -> Any:
    """Numbers and lists of Python in place of those of numpy, torch and pandas."""
    return value.tolist() if hasattr(value, "tolist") else value


def _cells(column: Any) -> Any:
    """The cells of a column; those of an array of images are arrays."""
    return list(column) if _is_array(column) and len(column.shape) > 2 else _plain(column)


def _open_pair(spec: PythonData, images: Any, labels: Any, reading: Reading) -> Listing:
    """Images and labels, each an array or a list; ``DataError`` if they are not equally many."""
    if len(images) != len(labels):
        raise DataError(spec, f"images and labels must be equally many, got {len(images)} and {len(labels)}")
    if _is_array(images):
        return open_arrays_in_memory(spec, _array(images), _array(labels), reading)
    return _open_columns(spec, {"image": list(images), "label": list(map(_plain, labels))}, reading)


def _open_columns(spec: PythonData, columns: dict[str, Sequence[Any]], reading: Reading) -> Listing:
    """Columns of equal length, of which one may hold the images themselves.

    Raises:
        DataError: If they are not equally long, or hold nothing.
    """
    sizes = {name: len(cells) for name, cells in columns.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(spec, f"its columns are not equally long: {sizes}")
    if not sizes or not next(iter(sizes.values())):
        raise DataError(spec, "holds no samples")
    first = {name: next((cell for cell in cells if cell is not None), None) for name, cells in columns.items()}
    blobs = [name for name, cell in first.items() if _holds_image(cell) and name not in LABEL_KEYS]
    if reading.image_col in blobs:
        blobs = [str(reading.image_col)]
    if columns.keys() == {"image", "label"} and isinstance(first["image"], str | Path):
        columns = {_role(first["image"]): columns["image"], "label": columns["label"]}
    held = {
        name: [str(cell) if isinstance(cell, Path) else cell for cell in cells]
        for name, cells in columns.items()
    }
    return _open_table(
        spec, held, len(next(iter(columns.values()))), blobs, lambda row: held[blobs[0]][row], reading
    )


def _holds_image(cell: Any) -> bool:
    """Whether a cell is an image itself: of Pillow, an array, bytes, or a pair of bytes and path."""
    is_record = isinstance(cell, Mapping) and {"bytes", "path"} & cell.keys()
    return (
        isinstance(cell, bytes | bytearray) or _is_array(cell) or hasattr(cell, "getbands") or bool(is_record)
    )


def _role(sample: Any) -> str:
    """The column of a sample that is a text or a path."""
    is_path = (
        isinstance(sample, Path)
        or is_image_name(sample)
        or ("\n" not in sample and Path(sample).suffix != "" and Path(sample).is_file())
    )
    return "path" if is_path else "text"


def _open_items(spec: PythonData, data: Any, reading: Reading, taken: tuple[str, ...]) -> Listing:
    """Pairs of a sample and its label, each got by its number.

    Raises:
        DataError: If there is none, an item is no pair, or it is another each time.
    """
    if not len(data):
        raise DataError(spec, "holds no samples")
    sample = _item(spec, data, 0)[0]
    if not _holds_image(sample):
        if not isinstance(sample, str | Path):
            raise DataError(
                spec, f"its first sample is {type(sample).__name__}; expected an image, a path or a text"
            )
        items = [_item(spec, data, row) for row in range(len(data))]
        cells = {_role(sample): [str(one) for one, _ in items], "label": [_plain(label) for _, label in items]}
        return _open_table(spec, cells, len(data), [], None, reading, taken)
    if _digest(sample) != _digest(_item(spec, data, 0)[0]):
        raise DataError(
            spec,
            "its first sample is another each time, as by random augmentation; give it without its transform",
        )
    lazy: dict[str, Any] = {"image": _Lazy(), "label": _labels(spec, data)}
    return _open_table(spec, lazy, len(data), ["image"], lambda row: _item(spec, data, row)[0], reading, taken)


class _Lazy:
    """Cells that are read one at a time, when they are drawn."""

    def __getitem__(self, row: int) -> Any:
        """Something, whatever the sample is."""
        return self


def _item(spec: PythonData, data: Any, row: int) -> tuple[Any, Any]:
    """Sample and label of an item; ``DataError`` if it is something else, or cannot be had."""
    try:
        item = data[row]
    except Exception as error:  # code of others may raise anything
        raise DataError(spec, f"item {row} cannot be had ({type(error).__name__}: {error})") from error
    if isinstance(item, Mapping):
        sample = next((item[key] for key in SAMPLE_KEYS if key in item), None)
        label = next((item[key] for key in LABEL_KEYS if key in item), None)
        if sample is not None and label is not None:
            return sample, label
        raise DataError(spec, f"item {row} has the keys {', '.join(map(str, item))}; expected image and label")
    if not isinstance(item, tuple | list) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise DataError(spec, f"item {row} is {type(item).__name__}{size}; expected (sample, label)")
    return item[0], item[1]


def _labels(spec: PythonData, data: Any) -> list[Any]:
    """Labels of all items: those that a dataset says, as torchvision's do, else of each item as it is got."""
    names = _class_names(data)
    said = _said_labels(data)
    labels = [
        _plain(label)
        for label in (said if said is not None else (_item(spec, data, row)[1] for row in range(len(data))))
    ]
    if names and all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        return [names[label] for label in labels]
    return labels


def _said_labels(data: Any) -> Sequence[Any] | None:
    """Labels that a dataset has as a list, also of a part of another; ``None`` if items say other ones."""
    if hasattr(data, "indices") and hasattr(data, "dataset"):
        whole = _said_labels(data.dataset)
        return None if whole is None else [whole[row] for row in data.indices]
    said = next((getattr(data, name) for name in ("targets", "labels") if hasattr(data, name)), None)
    if said is None or getattr(data, "target_transform", None) is not None or not hasattr(said, "__len__"):
        return None
    return said if len(said) == len(data) else None


def _class_names(data: Any) -> list[str]:
    names = getattr(getattr(data, "dataset", data) if hasattr(data, "indices") else data, "classes", None)
    return list(map(str, names)) if isinstance(names, list | tuple) else []


def _open_table(
    spec: PythonData,
    columns: Mapping[str, Any],
    count: int,
    blobs: Sequence[str],
    get: Callable[[int], Any] | None,
    reading: Reading,
    taken: tuple[str, ...] = (),
) -> Listing:
    """Columns as a manifest has them."""

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        for row in range(count):
            cells = {name: columns[name][row] for name in wanted}
            yield (f"row {row}", {name: _size(cell) if name in blobs else cell for name, cell in cells.items()})

    table = Table(
        spec,
        tuple(columns),
        read,
        taken,
        tuple(blobs),
        read_blob=(lambda row: _pixels(get(row))) if get else None,
    )
    return open_rows(table, reading)


def _size(sample: Any) -> tuple[int, str] | None:
    """What stands for an image among the cells of a row: its bytes, 0 where that would mean to read it."""
    if sample is None or isinstance(sample, float):
        return None
    if isinstance(sample, bytes | bytearray):
        return len(sample), ""
    return int(getattr(sample, "nbytes", 0)), ""


def _pixels(sample: Any) -> bytes | np.ndarray:
    """Bytes of a file, or pixels ``[H, W]`` or ``[H, W, C]``, of an image of any kind.

    Raises:
        OSError: If there is none, or its file cannot be read.
    """
    if isinstance(sample, Mapping):
        sample = sample.get("bytes") or sample.get("path")
    if isinstance(sample, bytes | bytearray):
        return bytes(sample)
    if isinstance(sample, str | Path):
        return read_file(sample)
    if hasattr(sample, "getbands"):
        is_plain = sample.mode in {"L", "RGB", "RGBA", "I;16", "I", "F"}
        return np.asarray(
            sample
            if is_plain
            else sample.convert("RGBA" if "transparency" in sample.info or "A" in sample.mode else "RGB")
        )
    pixels = _array(sample)
    if pixels.ndim not in (2, 3):
        raise OSError(f"array of shape {list(pixels.shape)}")
    is_first = pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0) if is_first else pixels)


def _digest(sample: Any) -> bytes:
    raw = _pixels(sample)
    return hashlib.blake2b(raw if isinstance(raw, bytes) else raw.tobytes()).digest()
