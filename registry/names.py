"""Names: of tasks and experts, what ``name@version`` stands for, and the datasets and metrics of the field."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple, Self

from registry.errors import InvalidRecordError
from registry.gate import checked_name

Key = tuple[str, int]
"""Name and version of a task."""

LATEST = "latest"
"""``name@latest`` is the latest version, as ``name`` alone is."""


def checked_alias(alias: str) -> str:
    """Return ``alias`` if it may name a version of a task, as in ``name@alias``.

    Raises:
        InvalidRecordError: If it could not name a task, or could be taken for a version.
    """
    checked_name("alias", alias)
    if alias.isdecimal() or alias == LATEST:
        raise InvalidRecordError(
            f"{alias!r} cannot be an alias: name@{alias} is a version; use a word of your own"
        )
    return alias


class Reference(NamedTuple):
    """The name of a task and the version that is wanted: a number, an alias or ``latest``."""

    name: str
    wanted: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name``, ``name@version`` or ``name@alias``."""
        name, mark, wanted = text.partition("@")
        return cls(name, wanted if mark else LATEST)

    @property
    def is_latest(self) -> bool:
        """Whether the latest version is meant."""
        return self.wanted == LATEST

    def fits(self, version: int, aliases: Collection[str]) -> bool:
        """Whether a version of the task with these aliases is the one that is meant."""
        return self.wanted == str(version) or self.wanted in aliases


_MILLION, _BILLION = 10**6, 10**9

DATASETS: Mapping[str, int] = {
    "imagenet1k": 1_281_167,
    "imagenet12k": 12_000_000,
    "imagenet21k": 14_197_122,
    "tiny_imagenet": 100_000,
    "inat21": 2_686_843,
    "jft300m": 300 * _MILLION,
    "instagram1b": 940 * _MILLION,  # of hashtags of ImageNet-1k: 1.5 thousand; Mahajan et al. 2018
    "instagram3b": 3_600 * _MILLION,
    "yfcc100m": 99 * _MILLION,
    "yfcc15m": 15 * _MILLION,
    "cc12m": 12 * _MILLION,
    "wit400m": 400 * _MILLION,  # of OpenAI
    "laion400m": 413 * _MILLION,
    "laion2b": 2_320 * _MILLION,
    "laion5b": 5_850 * _MILLION,
    "laion_aesthetic": 900 * _MILLION,
    "datacomp_s": 1_400_000,
    "datacomp_m": 14 * _MILLION,
    "datacomp_l": 140 * _MILLION,
    "datacomp1b": 1_400 * _MILLION,
    "commonpool_s": 12_800_000,
    "commonpool_m": 128 * _MILLION,
    "commonpool_l": 1_280 * _MILLION,
    "commonpool_xl": 12_800 * _MILLION,
    "dfn2b": 2 * _BILLION,
    "dfn5b": 5 * _BILLION,
    "metaclip400m": 400 * _MILLION,
    "metaclip2b": 2_500 * _MILLION,
    "merged2b": 2 * _BILLION,
    "merged38m": 38 * _MILLION,
    "merged30m": 30 * _MILLION,
    "webli": 10 * _BILLION,
    "lvd142m": 142 * _MILLION,
    "lvd1689m": 1_689 * _MILLION,
    "sat493m": 493 * _MILLION,
    "sa1b": 11 * _MILLION,
    "align": 1_800 * _MILLION,
    "places365": 1_803_460,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "mnist": 60_000,
    "caltech101": 3_030,
    "stanford_dogs": 12_000,
    "oxford_pets": 3_680,
    "cub200": 5_994,
    "nabirds": 23_929,
    "aircraft": 6_667,
    "cars": 8_144,
    "dtd": 3_760,
    "eurosat": 27_000,
    "flowers102": 2_040,
    "food101": 75_750,
    "resisc45": 31_500,
    "sun397": 76_127,
    "svhn": 73_257,
    "smallnorb": 24_300,
    "stl10": 5_000,
    "voc2007": 5_011,
    "fer2013": 28_709,
    "beans": 1_034,
}
"""Datasets that networks are trained on, and how many images or pairs each has for that, as papers say."""


SHARES = (
    "accuracy", "balanced_accuracy", "mean_accuracy", "top1", "top5", "f1", "macro_f1", "micro_f1", "precision",
    "recall", "map", "mean_average_precision", "auroc", "roc_auc", "auprc", "iou", "kappa", "mcc", "r2",
)  # fmt: skip
"""Metrics of which higher is better and 1 is perfect; ``kappa``, ``mcc`` and ``r2`` may be negative."""

ERROR_SHARES = ("error_rate", "top1_error", "top5_error")
"""Metrics from 0 to 1 of which lower is better: one minus an accuracy."""

LOSSES = (
    "loss", "log_loss", "cross_entropy", "nll", "mae", "mse", "rmse", "perplexity", "brier_score",
    "calibration_error",
)  # fmt: skip
"""Metrics from 0 upwards of which lower is better."""

MAY_BE_NEGATIVE = frozenset({"kappa", "mcc", "r2"})


def is_lower_better(metric: str) -> bool:
    """Whether lower values of a known metric are better.

    Raises:
        InvalidRecordError: If the metric is not known, so that whoever records the result has to say it.
    """
    if metric in SHARES:
        return False
    if metric in ERROR_SHARES or metric in LOSSES:
        return True
    raise InvalidRecordError(
        f"metric {metric!r} is not known: say whether lower or higher values are better "
        "(lower_is_better=True or lower_is_better=False), or use a known metric such as accuracy or error_rate"
    )


def check_value(metric: str, value: float, *, lower_is_better: bool) -> None:
    """Check that a value can be one of a metric.

    Raises:
        InvalidRecordError: If it is not finite, or out of the range of the metric; a value that looks like a
            percentage is named as one.
    """
    low, high = _range(metric, lower_is_better=lower_is_better)
    if math.isfinite(value) and low <= value <= high:
        return
    span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"a number from {low:g} upwards"
    percent = high == 1 and math.isfinite(value) and 2 < value <= 100
    hint = f"; if it is in per cent, write {value / 100:g}" if percent else ""
    raise InvalidRecordError(f"{metric} must be {span}, got {value}{hint}")


def score_of(metric: str, value: float, *, lower_is_better: bool) -> float:
    """A value of any metric as a number from 0 to 1 of which higher is better.

    A share stays what it is, negative ones are 0; an error share is one minus itself; any other metric of
    which lower is better becomes exp(-value), which keeps the order.
    """
    if not lower_is_better:
        return max(value, 0.0)
    return 1.0 - value if metric in ERROR_SHARES else math.exp(-value)


def _range(metric: str, *, lower_is_better: bool) -> tuple[float, float]:
    if lower_is_better and metric not in ERROR_SHARES:
        return 0.0, math.inf
    return (-1.0 if metric in MAY_BE_NEGATIVE else 0.0), 1.0
