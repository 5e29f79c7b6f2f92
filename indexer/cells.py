"""What a cell of a manifest says: a class, labels between bars, or numbers between bars."""

import math
from collections.abc import Sequence

import numpy as np

from indexer.errors import DataError

SEPARATOR = "|"
EXPECTED = "expected path,label or path,target, of texts text in place of path, and optionally split"
MAX_TARGET = float(np.finfo(np.float32).max)


def label_names(spec: str, place: str, value: str) -> list[str]:
    """Labels between bars; an empty cell is none at all.

    Raises:
        DataError: If one is empty or repeated.
    """
    names = [name.strip() for name in value.split(SEPARATOR)] if value else []
    if "" in names or len(set(names)) < len(names):
        raise DataError(spec, f"{place}: label {value!r} must be names between bars, each of them once")
    return names


def target_numbers(
    spec: str, place: str, value: str, first: tuple[str, int] | None = None
) -> tuple[float, ...]:
    """Numbers between bars.

    Args:
        spec: The data spec, for messages.
        place: Of the cell, in words.
        value: The cell.
        first: Place and count of the numbers before it, of which all cells have equally many.

    Raises:
        DataError: If one is no number, is not finite, or they are not as many.
    """
    try:
        numbers = tuple(float(text) for text in value.split(SEPARATOR))
    except ValueError as error:
        raise DataError(
            spec, f"{place}: target {value!r} must be a number, or several between bars such as 1.5|2"
        ) from error
    if not all(math.isfinite(number) and abs(number) <= MAX_TARGET for number in numbers):
        raise DataError(spec, f"{place}: target {value!r} must be finite and fit 32-bit floats")
    if first is not None and len(numbers) != first[1]:
        raise DataError(
            spec,
            f"{place}: target {value!r} holds {len(numbers)} numbers where {first[0]} holds {first[1]}; give "
            "every sample the same targets",
        )
    return numbers


def manifest_columns(spec: str, found: Sequence[str]) -> list[str]:
    """The columns of a manifest that are read, what the samples are made of first.

    Raises:
        DataError: If one is missing or there are too many.
    """
    got = f"{EXPECTED}, got {','.join(found) or 'none'}"
    if "path" in found and "text" in found:
        raise DataError(spec, "has both a column 'path' and a column 'text'; keep the one of the samples")
    if "path" not in found and "text" not in found:
        raise DataError(spec, f"column 'path' is missing; {got}")
    if "label" not in found and "target" not in found:
        raise DataError(spec, f"column 'label' is missing; {got}")
    if "label" in found and "target" in found:
        raise DataError(spec, "has both a column 'label' and a column 'target'; keep the one that is the task")
    columns = [column for column in ("path", "text", "label", "target", "split") if column in found]
    for column in columns:
        if found.count(column) > 1:
            raise DataError(spec, f"has {found.count(column)} columns {column!r}; keep the one that is meant")
    return columns
