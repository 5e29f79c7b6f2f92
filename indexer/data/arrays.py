"""Arrays of images and labels: .npz files and the digits of scikit-learn, held in memory.

Labels are classes if they are integers ``[N]``, subsets of C labels if they are 0 and 1 ``[N, C]`` of any
integer or boolean type, and targets of a regression if they are floats ``[N]`` or ``[N, T]``.

Axes: N samples, H height, W width, C channels of an image or labels, T targets.
"""

import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from indexer.data.listings import Entry, Listing, choose_split
from indexer.errors import DataError
from indexer.records import Kind, Reading
from indexer.tables.labels import target_names

MAX_RATIO = 200
"""How many times its size in the file an array may have; deflate makes 1,000 of zeros, images make 10."""

ALWAYS_ALLOWED_BYTES = 2**26
"""Arrays up to this size may be of any ratio."""

MAX_LABELS = 100_000
"""Labels or targets of a sample."""


def open_npz(spec: str, reading: Reading) -> Listing:
    """List an .npz file that holds ``images`` and ``labels``.

    Raises:
        DataError: If it is none, the arrays are of a wrong type or shape, would not fit the memory or are far
            larger than the file, or a split is asked for.
        OSError: If it cannot be read.
    """
    try:
        with Path(spec).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise DataError(spec, "holds one unnamed array; expected images and labels, as np.savez writes")
            with zipfile.ZipFile(file) as archive:
                images, labels = (_npz_array(spec, archive, name) for name in ("images", "labels"))
    except (DataError, OSError):
        raise
    except Exception as error:  # damaged zips and headers raise nearly anything, such as tokenize.TokenError
        raise DataError(spec, f"is not an .npz file of plain number arrays: {error}") from error
    _check_arrays(spec, images, labels)
    return _array_listing(spec, images, labels, reading.split)


def open_digits(spec: str, reading: Reading) -> Listing:
    """List the digits of scikit-learn, 8x8 grey.

    Raises:
        DataError: If a split is asked for.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # the values are 0 to 16
    return _array_listing(spec, grey, digits.target, reading.split)


def _npz_array(spec: str, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an .npz file, once its header is known to be true and its size to be harmless.

    Raises:
        DataError: If it is missing, or one of the two is not so.
    """
    names = archive.namelist()
    if f"{name}.npy" not in names:
        present = ", ".join(other.removesuffix(".npy") for other in names) or "none"
        raise DataError(spec, f"array {name!r} is missing; expected images and labels, got {present}")
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        read_header = {(1, 0): npy.read_array_header_1_0}.get(npy.read_magic(file), npy.read_array_header_2_0)
        shape, _, dtype = read_header(file)
        expected = file.tell() + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and expected != member.file_size:
        raise DataError(
            spec, f"array {name!r} claims the shape {list(shape)} of {dtype}, which is not what the file holds"
        )
    ratio = member.file_size / max(1, min(member.compress_size, Path(spec).stat().st_size))
    if member.file_size > ALWAYS_ALLOWED_BYTES and ratio > MAX_RATIO:
        raise DataError(
            spec,
            f"array {name!r} is {ratio:.0f} times larger than in the file, more than {MAX_RATIO}, as in files "
            "that are made to fill the memory; write it with np.savez, uncompressed, if it is meant",
        )
    if member.file_size > _memory_bytes():
        raise DataError(
            spec, f"array {name!r} of {member.file_size} bytes is larger than the memory; use image files"
        )
    with archive.open(member) as file:
        array: np.ndarray = npy.read_array(file, allow_pickle=False)
        return array


def _memory_bytes() -> float:
    """Memory of this machine; infinite where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf


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
    if labels.ndim == 2 and labels.shape[1] > MAX_LABELS:
        raise DataError(spec, f"labels have {labels.shape[1]} columns; at most {MAX_LABELS} are possible")
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
            spec, f"labels [N, C] must be 0 or 1, got {other[0]}; make classes [N], and measured numbers floats"
        )


def _check_targets(spec: str, targets: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused as such
        finite = np.isfinite(targets.astype(np.float32)).reshape(len(targets), -1).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(spec, f"labels of a regression must be finite numbers, row {row} is {targets[row]}")


def _array_listing(spec: str, images: np.ndarray, labels: np.ndarray, split: str | None) -> Listing:
    choose_split(spec, {"": images}, split)
    kind, class_names, entry = _label_reader(labels)

    def scan() -> Iterator[Entry]:
        return (entry(row) for row in range(len(images)))

    return Listing(
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
