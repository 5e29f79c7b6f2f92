"""Metrics of results: which way is better, and one scale on which results of any metric are compared."""

import math

from registry.errors import InvalidRecordError

SHARES = (
    "accuracy",
    "balanced_accuracy",
    "mean_accuracy",
    "top1",
    "top5",
    "f1",
    "macro_f1",
    "micro_f1",
    "precision",
    "recall",
    "map",
    "mean_average_precision",
    "auroc",
    "roc_auc",
    "auprc",
    "iou",
    "kappa",
    "mcc",
    "r2",
)
"""Metrics of which higher is better and 1 is perfect; ``kappa``, ``mcc`` and ``r2`` may be negative."""

ERROR_SHARES = ("error_rate", "top1_error", "top5_error")
"""Metrics from 0 to 1 of which lower is better: one minus an accuracy."""

LOSSES = (
    "loss",
    "log_loss",
    "cross_entropy",
    "nll",
    "mae",
    "mse",
    "rmse",
    "perplexity",
    "brier_score",
    "calibration_error",
)
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
        "(--lower-is-better or --higher-is-better), or use a known metric such as accuracy or error_rate"
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
