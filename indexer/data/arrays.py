"""Arrays of images and labels, held in memory: .npz, .npy and .mat files, and the digits of scikit-learn.

Their names are ``images`` and ``labels``, or others that leave no doubt, such as ``x_train`` and ``y_train``,
which hold the name of a split. Labels are classes if they are integers ``[N]``, subsets of C labels if they are
0 and 1 ``[N, C]``, and targets of a regression if they are floats, see ``indexer.tables.label_arrays``.

Axes: N samples, H height, W width, C channels of an image or labels, T targets.
"""

import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import numpy as np

from indexer.data.listings import Entry, Listing, choose_split
from indexer.errors import DataError
from indexer.records import Reading
from indexer.tables.array_files import IDX, Arrays, open_arrays
from indexer.tables.columns import plain
from indexer.tables.label_arrays import read_label_array

_IMAGES = ("images", "image", "imgs", "img", "x", "xs", "data", "arr0")
_LABELS = ("labels", "label", "y", "ys", "targets", "target", "classes", "arr1")
_SPLITS = ("training", "train", "validation", "valid", "val", "testing", "test", "t10k")
_CHANNELS = (1, 3, 4)


def open_array_file(spec: str, reading: Reading) -> Listing:
    """List a file of arrays that holds images and labels.

    Raises:
        DataError: If it is none, arrays are missing or in doubt, of a wrong type or shape, would not fit the
            memory or are far larger than the file, or there is no such split.
        OSError: If it cannot be read.
    """
    arrays = open_arrays(spec)
    by_split = _pairs(spec, arrays, reading)
    image_name, label_name = choose_split(spec, by_split, reading.split)
    images, labels = arrays.read(image_name), arrays.read(label_name)
    taken: tuple[str, ...] = ()
    if (image_name, label_name) != ("images", "labels"):
        taken = (f"array {image_name!r} as the images and {label_name!r} as the labels",)
        others = sorted({name for pair in by_split.values() for name in pair} - {image_name, label_name})
        taken = (f"{taken[0]}; not read: {', '.join(others)}",) if others else taken
    numbers = True if reading.target_col is not None else False if reading.label_col is not None else None
    return _array_listing(spec, images, labels, numbers, label_name, taken)


def open_arrays_in_memory(spec: str, images: np.ndarray, labels: np.ndarray, reading: Reading) -> Listing:
    """List images and labels that a program holds."""
    choose_split(spec, {"": images}, reading.split)
    return _array_listing(spec, images, labels, True if reading.target_col else None)


def open_digits(spec: str, reading: Reading) -> Listing:
    """List the digits of scikit-learn, 8x8 grey."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # the values are 0 to 16
    choose_split(spec, {"": grey}, reading.split)
    return _array_listing(spec, grey, digits.target)


def find_pair(folder: Path) -> Path | None:
    """The .npy or idx file of images in a folder that has labels beside it, of a training split first."""
    files = {_stem(path.name): path for path in folder.iterdir() if _PART.search(path.name)}
    roles = {name: _role(name) for name in files}
    splits = {split for split, role in roles.values() if role == "labels"}
    images = [name for name, (split, role) in roles.items() if role == "images" and split in splits]
    first = min(images, key=lambda name: (not roles[name][0].startswith("train"), name), default=None)
    return files[first] if first else None


_PART = re.compile(rf"\.npy$|{IDX.pattern}", re.IGNORECASE)


def _stem(name: str) -> str:
    return _PART.sub("", name)


def _role(name: str) -> tuple[str, str]:
    """The split in the name of an array, and whether it holds images or labels, as far as the name says."""
    stem, split = plain(name), ""
    for word in _SPLITS:
        for rest in (stem.removeprefix(word), stem.removesuffix(word)):
            if rest != stem and (rest in _IMAGES or rest in _LABELS) and not split:
                stem, split = rest, word
    return split, "images" if stem in _IMAGES else "labels" if stem in _LABELS else ""


def _pairs(spec: str, arrays: Arrays, reading: Reading) -> dict[str, tuple[str, str]]:
    """Names of images and labels by split; ``DataError`` if one is missing, or there are several."""
    roles: dict[str, dict[str, list[str]]] = {}
    for name in arrays.names:
        split, role = _role(name)
        if role:
            roles.setdefault(split, {}).setdefault(role, []).append(name)
    image = reading.image_col or (_stem(Path(spec).name) if _PART.search(spec) else None)
    label = reading.target_col or reading.label_col
    whole = {split: named for split, named in roles.items() if len(named) == 2}
    if image is not None or label is not None:
        named = roles.get(_role(image or label or "")[0], {})
        whole = {"": named | ({"images": [image]} if image else {}) | ({"labels": [label]} if label else {})}
    if not whole:
        whole = {"": next(iter(roles.values()), {})}
    return {
        split: (_one(spec, arrays, named, "images"), _one(spec, arrays, named, "labels"))
        for split, named in whole.items()
    }


def _one(spec: str, arrays: Arrays, named: dict[str, list[str]], role: str) -> str:
    """The name of the array of a role; ``DataError`` if there is none, or are several."""
    names, option = named.get(role, []), f"{role[:-1]}_col="
    names = [role] if role in names else names
    if len(names) == 1 and names[0] in arrays.names:
        return names[0]
    if len(names) > 1:
        raise DataError(
            spec, f"{role} could be the arrays {', '.join(names)}; say which by {option}{names[0]!r}"
        )
    present = ", ".join(arrays.names[:20]) or "none"
    raise DataError(
        spec,
        f"array {(names or [role])[0]!r} is missing; expected images and labels, got {present}; "
        f"if one of them is meant, say so by {option}",
    )


def _channels_last(spec: str, images: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Images with their channels in the last axis, and a sentence if they were in another.

    Raises:
        DataError: If the shape leaves a doubt.
    """
    if images.ndim != 4:
        return images, ()
    first, second, last = images.shape[1:]
    could_be_last, could_be_first = first == second, second == last  # squares decide
    if could_be_last == could_be_first:
        could_be_last |= last in _CHANNELS or last < min(first, second)
        could_be_first = not (first == second == last) and (first in _CHANNELS or first < min(second, last))
    if could_be_last and could_be_first:
        raise DataError(
            spec,
            f"images of shape {list(images.shape)} could have their channels in the second axis or the last; "
            "write them as [N, H, W, C], such as by images.transpose(0, 2, 3, 1)",
        )
    if not could_be_first:
        return images, ()
    shape = f"{list(images.shape)}"
    return np.moveaxis(images, 1, -1), (f"images {shape} as [N, C, H, W], their {first} channels first",)


def _samples_first(images: np.ndarray, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Images with their number in the first axis, and a sentence if it was in the last, as MATLAB has it."""
    if images.ndim not in (3, 4) or len(images) == count or images.shape[-1] != count:
        return images, ()
    said = f"images {list(images.shape)} as counted by their last axis, since there are {count} labels"
    return np.moveaxis(images, -1, 0), (said,)


def _array_listing(
    spec: str,
    images: np.ndarray,
    labels: np.ndarray,
    numbers: bool | None = None,
    name: str = "labels",
    taken: tuple[str, ...] = (),
) -> Listing:
    if images.dtype.kind not in "uif":
        raise DataError(spec, f"images must be integers or floats, got {images.dtype}")
    images, moved = _samples_first(images, max(labels.shape, default=0))
    if images.ndim not in (3, 4) or not images.size:
        raise DataError(spec, f"images must be [N, H, W] or [N, H, W, C], got shape {list(images.shape)}")
    images, turned = _channels_last(spec, images)
    meant = read_label_array(spec, labels, numbers, name)
    if len(images) != len(meant.values):
        raise DataError(
            spec, f"images and labels must be equally many, got {len(images)} and {len(meant.values)}"
        )

    def scan() -> Iterator[Entry]:
        return (Entry(str(row), row, *meant.of(row)) for row in range(len(images)))

    return Listing(
        spec=spec,
        kind=meant.kind,
        class_names=meant.class_names,
        scan=scan,
        size=lambda entry: images[0].nbytes,
        read=lambda entry: images[entry.where],
        order=attrgetter("where"),
        taken=(*taken, *moved, *turned, *meant.taken),
    )
