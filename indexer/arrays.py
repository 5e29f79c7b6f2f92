"""Arrays of images and labels: .npz files and the digits of scikit-learn, held in memory.

Labels are classes if they are integers ``[N]``, subsets of C labels if they are 0 and 1 ``[N, C]`` of any
integer or boolean type, and targets of a regression if they are floats ``[N]`` or ``[N, T]``.

Axes: N samples, H height, W width, C channels of an image or labels, T targets.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path

import numpy as np

from indexer.errors import DataError
from indexer.listings import Dataset, Entry, choose_split, target_names
from indexer.records import Kind


def open_npz(spec: str, split: str | None) -> Dataset:
    """List an .npz file that holds ``images`` and ``labels``.

    Raises:
        DataError: If it is none, the arrays are of a wrong type or shape, or a split is asked for.
    """
    try:
        with Path(spec).open("rb") as file:  # np.load leaves a broken file open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise DataError(spec, "holds one unnamed array; expected images and labels, as np.savez writes")
            images, labels = (_npz_array(spec, loaded, name) for name in ("images", "labels"))
    except DataError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(spec, f"is not an .npz file of plain number arrays: {error}") from error
    _check_arrays(spec, images, labels)
    return _array_listing(spec, images, labels, split)


def open_digits(spec: str, split: str | None) -> Dataset:
    """List the digits of scikit-learn, 8x8 grey.

    Raises:
        DataError: If a split is asked for.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # the values are 0 to 16
    return _array_listing(spec, grey, digits.target, split)


def _npz_array(spec: str, loaded: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in loaded:
        found = ", ".join(loaded) or "none"
        raise DataError(spec, f"array {name!r} is missing; expected images and labels, got {found}")
    return loaded[name]


def _check_arrays(spec: str, images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype.kind not in "uif":
        raise DataError(spec, f"images must be integers or floats, got {images.dtype}")
    if images.ndim not in (3, 4) or not images.size:
        raise DataError(spec, f"images must be [N, H, W] or [N, H, W, C], got shape {list(images.shape)}")
    if labels.ndim not in (1, 2) or not labels.size:
        raise DataError(
            spec,
            "labels must be [N] classes or targets, [N, C] of 0 and 1 or [N, T] targets, "
            f"got shape {list(labels.shape)}",
        )
    if labels.dtype.kind not in ("uif" if labels.ndim == 1 else "uifb"):
        raise DataError(
            spec, f"labels must be integers, or floats of a regression, got {labels.dtype}; number the classes"
        )
    if len(images) != len(labels):
        raise DataError(spec, f"images and labels must be equally many, got {len(images)} and {len(labels)}")
    if labels.dtype.kind == "f":
        _check_targets(spec, labels)
    elif labels.ndim == 2 and (other := labels[~np.isin(labels, (0, 1))]).size:
        raise DataError(
            spec,
            f"labels [N, C] must be 0 or 1, got {other[0]}; make classes [N], and measured numbers floats",
        )


def _check_targets(spec: str, targets: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused as such
        finite = np.isfinite(targets.astype(np.float32)).reshape(len(targets), -1).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(spec, f"labels of a regression must be finite numbers, row {row} is {targets[row]}")


def _array_listing(spec: str, images: np.ndarray, labels: np.ndarray, split: str | None) -> Dataset:
    choose_split(spec, {"": images}, split)
    kind, class_names, entry = _label_reader(labels)

    def scan() -> Iterator[Entry]:
        return (entry(row) for row in range(len(images)))

    return Dataset(
        spec=spec,
        kind=kind,
        class_names=class_names,
        scan=scan,
        size=lambda entry: images[0].nbytes,
        read=lambda entry: images[entry.where],
        order=attrgetter("where"),
    )


def _label_reader(labels: np.ndarray) -> tuple[Kind, tuple[str, ...], Callable[[int], Entry]]:
    """Kind, class names, and the entry of a row."""
    if labels.dtype.kind == "f":
        targets = labels.reshape(len(labels), -1).astype(np.float64)
        return (
            "regression",
            target_names(targets.shape[1]),
            lambda row: Entry(str(row), row, targets=tuple(targets[row].tolist())),
        )
    if labels.ndim == 2:
        return (
            "multi_label",
            tuple(str(label) for label in range(labels.shape[1])),
            lambda row: Entry(str(row), row, tuple(np.flatnonzero(labels[row]).tolist())),
        )
    classes, indices = np.unique(labels, return_inverse=True)
    return (
        "single_label",
        tuple(str(label) for label in classes),
        lambda row: Entry(str(row), row, (int(indices[row]),)),
    )
