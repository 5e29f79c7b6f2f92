"""What an array of labels says: classes, several labels, or numbers that were measured.

Axes: N samples, C classes or labels, T targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from indexer.errors import DataError
from indexer.records import Kind
from indexer.tables.labels import hot_names as hot_names
from indexer.tables.labels import target_names

MAX_LABELS = 100_000
"""Labels or targets of a sample."""

_MAX_WHOLE = 2**53  # up to here each whole number has a float of its own


@dataclass(frozen=True, eq=False)
class ArrayLabels:
    """Labels of all rows.

    Attributes:
        values: ``[N]`` indices of classes, ``[N, C]`` of 0 and 1, or ``[N, T]`` float64.
    """

    kind: Kind
    class_names: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    taken: tuple[str, ...] = ()

    def of(self, row: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Rising indices into the names, and targets, of a row."""
        value = self.values[row]
        if self.kind == "single_label":
            return (int(value),), ()
        if self.kind == "multi_label":
            return tuple(np.flatnonzero(value).tolist()), ()
        return (), tuple(value.tolist())


def read_label_array(
    spec: str, labels: np.ndarray, numbers: bool | None = None, name: str = "labels"
) -> ArrayLabels:
    """What an array of labels says.

    Args:
        spec: The data spec, for messages.
        labels: ``[N]``, ``[N, 1]``, ``[N, C]`` or ``[N, T]``.
        numbers: Whether they are targets; ``None`` if nobody said.
        name: What the array is called, for messages.

    Raises:
        DataError: If they are of a wrong type or shape, or a target is not finite.
    """
    if labels.ndim == 2 and 1 in labels.shape and labels.size:
        labels = labels.reshape(-1)
    if labels.ndim not in (1, 2) or not labels.size:
        raise DataError(
            spec,
            f"{name} must be [N] classes or targets, [N, C] of 0 and 1 or [N, T] targets, "
            f"got shape {list(labels.shape)}",
        )
    if labels.ndim == 2 and labels.shape[1] > MAX_LABELS:
        raise DataError(spec, f"{name} have {labels.shape[1]} columns; at most {MAX_LABELS} are possible")
    if labels.dtype.kind not in "uifb" + "US" * (labels.ndim == 1):
        raise DataError(spec, f"{name} must be integers, words, or floats of a regression, got {labels.dtype}")
    if numbers and labels.dtype.kind in "uif":
        return _targets(spec, name, labels)
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all():
        return _bits(labels, tuple(map(str, range(labels.shape[1]))))
    if labels.ndim == 2 and labels.dtype.kind != "f":
        raise DataError(
            spec,
            f"{name} [N, C] must be 0 or 1, got {labels[~np.isin(labels, (0, 1))][0]}; make classes [N], and "
            "measured numbers floats",
        )
    if labels.dtype.kind != "f":
        return _classes(labels)
    _check_finite(spec, name, labels)
    if labels.ndim == 1 and (numbers is False or _counts_classes(labels)):
        if not (labels == np.rint(labels)).all():
            raise DataError(
                spec, f"{name} are named as classes, and hold {labels[labels != np.rint(labels)][0]}"
            )
        classes = _classes(labels.astype(np.int64))
        said = f"{name}, whole numbers as floats, as {len(classes.class_names)} classes; else say "
        return ArrayLabels(classes.kind, classes.class_names, classes.values, (f"{said}target_col={name!r}",))
    return _targets(spec, name, labels)


def hot_rows(lists: Sequence[Sequence[object]]) -> np.ndarray | None:
    """Lists of equally many 0 and 1 as an array ``[N, C]``; ``None`` if they are something else."""
    size = len(lists[0]) if lists else 0
    if size < 2 or any(len(row) != size or any(value not in (0, 1) for value in row) for row in lists):
        return None
    return np.array(lists, np.uint8)


def read_hot_rows(rows: np.ndarray, names: tuple[str, ...]) -> ArrayLabels:
    """What rows of 0 and 1 say of labels of these names."""
    return _bits(rows, names)


def _bits(labels: np.ndarray, names: tuple[str, ...]) -> ArrayLabels:
    """Labels that are there or not: classes, if each row has one."""
    if not (labels.sum(axis=1) == 1).all():
        said = (f"0 or 1 for each of {len(names)} as several labels",)
        return ArrayLabels("multi_label", names, labels.astype(np.uint8), said * (labels.dtype.kind == "f"))
    used, values = np.unique(labels.argmax(axis=1), return_inverse=True)
    said = (f"the one 1 of each row among {len(names)} labels as its class (one-hot)",)
    return ArrayLabels("single_label", tuple(names[index] for index in used), values, said)


def _classes(labels: np.ndarray) -> ArrayLabels:
    classes, values = np.unique(labels, return_inverse=True)
    words = [
        item.decode(errors="backslashreplace") if isinstance(item, bytes) else str(item) for item in classes
    ]
    return ArrayLabels("single_label", tuple(words), values)


def _counts_classes(labels: np.ndarray) -> bool:
    """Whether floats number classes: all of 0 to C-1 or 1 to C, each more than once on average."""
    values = np.unique(labels)
    first = values[0] if values[0] in (0, 1) else -1
    return (
        first >= 0
        and 2 <= len(values) <= len(labels) / 2
        and bool((values == first + np.arange(len(values))).all())
    )


def _targets(spec: str, name: str, labels: np.ndarray) -> ArrayLabels:
    """Measured numbers; ``DataError`` if one is not finite, or too large for a float of its own."""
    _check_finite(spec, name, labels)
    if labels.dtype.kind in "ui" and int(np.abs(labels.astype(object)).max()) > _MAX_WHOLE:
        raise DataError(
            spec, f"{name} hold numbers beyond 2**53, of which floats tell only some apart; shift them"
        )
    targets = labels.reshape(len(labels), -1).astype(np.float64)
    said: tuple[str, ...] = ()
    if targets.shape[1] > 1 and (targets >= 0).all() and np.allclose(targets.sum(axis=1), 1, atol=1e-4):
        said = (f"rows of {name}, which add up to 1, as measured numbers",)
    return ArrayLabels("regression", target_names(targets.shape[1]), targets, said)


def _check_finite(spec: str, name: str, targets: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused as such
        finite = np.isfinite(targets.astype(np.float32)).reshape(len(targets), -1).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(spec, f"{name} of a regression must be finite numbers, row {row} is {targets[row]}")
