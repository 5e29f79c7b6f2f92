"""Runs of experiments as every tracker has them: values that were set, metrics that were measured.

Files may be from anybody: their size is bounded, and a run that cannot be read says so and stops no other.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from registry.experts.model_cards import GENERIC_DATASETS
from registry.experts.plain_files import read_rows

MAX_VALUES = 10_000
MAX_DEPTH = 20

GENERIC = GENERIC_DATASETS | {"", "dataset", "data", "train", "training", "val", "valid", "validation"}
GENERIC |= {"test", "eval", "images", "folder", "default", "full", "all"}
"""Names that say nothing of which dataset it is."""

_NONE = {"", "none", "null", "~", "nan"}


class Metric(NamedTuple):
    """What was measured of one metric over the steps of a run."""

    last: float
    lowest: float
    highest: float

    def then(self, value: float) -> "Metric":
        """With one step more; what is not finite is never the lowest or highest."""
        if not math.isfinite(value):
            return self._replace(last=value)
        return Metric(value, min(value, self.lowest), max(value, self.highest))


NOT_MEASURED = Metric(math.nan, math.inf, -math.inf)


@dataclass(frozen=True)
class Run:
    """One run of a tracker, at a place, by what people call it.

    Attributes:
        values: What was set, by ``param:KEY``, ``tag:KEY``, ``dataset:KEY`` or ``run:KEY``.
    """

    tracker: str
    run_id: str  # its id in the tracker, else a hash of what it holds
    name: str
    place: Path
    values: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    user: str = ""
    date: str = ""  # when, in ISO 8601, if known
    parent: str = ""  # id of the run that it is a part of
    left_out: str = ""  # why it cannot count, such as ``failed``; empty if it can
    protocol: str = "fine_tuned"  # how trackers of its kind measure


def unreadable(tracker: str, error: Exception) -> Run:
    """A run of which nothing is known but that its file cannot be read: ``PATH: why``."""
    path, _, reason = str(error).partition(": ")
    return Run(tracker, path, path, Path(path), left_out=reason)


def history(path: Path) -> dict[str, Metric]:
    """What a CSV file with a row for each step says of each column; empty cells are passed over."""
    return measured(pair for row in read_rows(path) for pair in row.items())


def measured(pairs: Iterable[tuple[str, Any]]) -> dict[str, Metric]:
    """What was measured of each metric, from names and values in order of steps; what is no number is not."""
    metrics: dict[str, Metric] = {}
    for name, cell in pairs:
        if (value := number(cell)) is not None:
            metrics[name] = metrics.get(name, NOT_MEASURED).then(value)
    return metrics


def number(value: Any) -> float | None:
    """A number, NaN and infinity too; ``None`` of anything else."""
    try:
        return float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None


def flat(values: Any, prefix: str, separator: str = ".") -> dict[str, Any]:
    """Leaves of nested objects by the way to them, such as ``param:data.name``; lists are passed over."""
    leaves: dict[str, Any] = {}
    open_ones: list[tuple[str, Any, int]] = [(prefix, values, 0)]
    while open_ones and len(leaves) < MAX_VALUES:
        way, value, depth = open_ones.pop()
        if isinstance(value, dict) and depth < MAX_DEPTH:
            between = separator if depth and way else ""
            open_ones += [(f"{way}{between}{key}", child, depth + 1) for key, child in value.items()]
        elif isinstance(value, str | int | float):
            leaves[way] = value
    return leaves


def settings(values: Any, prefix: str = "param:") -> dict[str, str]:
    """Leaves of nested objects as texts; those that say nothing, such as ``null``, are left out."""
    leaves = {key: str(value).strip() for key, value in flat(values, prefix).items()}
    return {key: text for key, text in leaves.items() if text.casefold() not in _NONE}


def content_id(*parts: bytes | str) -> str:
    """Id of a run that has none: a hash of what it holds."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode(errors="replace"))
        digest.update(b"\0")
    return digest.hexdigest()[:20]


def day(seconds: Any) -> str:
    """The day of a time in seconds since 1970, empty if it is none."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC).date().isoformat()
    except (ValueError, TypeError, OverflowError, OSError):
        return ""


def dataset_values(datasets: list[tuple[str, str, str]]) -> dict[str, str]:
    """Values of the one dataset of a run."""
    tested = [one for one in datasets if re.search("eval|test|val", one[2], re.IGNORECASE)]
    chosen = {name: digest for name, digest, _ in tested or datasets}
    if len(chosen) != 1:
        return {"dataset:several": ", ".join(sorted(chosen)[:5])} if chosen else {}
    ((name, digest),) = chosen.items()
    if name.casefold() in GENERIC:
        name = f"{name}.{digest}" if digest else ""
    both = {"dataset:name": name, "dataset:digest": digest}
    return {key: text for key, text in both.items() if text}
