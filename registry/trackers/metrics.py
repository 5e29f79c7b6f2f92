"""Metrics of trackers: what their names stand for, and their values on our scale."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from registry.errors import InvalidRecordError
from registry.experts.model_cards import METRICS, letters_of
from registry.names import ERROR_SHARES, SHARES, is_lower_better
from registry.trackers.model_cards import TRACKER
from registry.trackers.rules import MetricRule, Rules
from registry.trackers.runs import Metric, Run

IN_PERCENT = 1.5
"""A share above this is in per cent; rounding leaves some just above 1."""

_ACCURACY = """
    value top1 top1acc acctop1 accuracyscore multiclassaccuracy categoricalaccuracy sparsecategoricalaccuracy
    binaryaccuracy
"""  # value is of .eval_results, which name no metric
_OTHERS = """
    balancedaccuracyscore=balanced_accuracy f1score=f1 auroc=roc_auc rocaucscore=roc_auc r2=r2 r2score=r2
    error=error_rate err=error_rate errorrate=error_rate top1error=top1_error loss=loss logloss=log_loss
    crossentropy=cross_entropy rmse=rmse mse=mse mae=mae meansquarederror=mse rootmeansquarederror=rmse
    meanabsoluteerror=mae top5=top5 acc5=top5 accuracytop5=top5
"""
NAMES = dict.fromkeys(_ACCURACY.split(), "accuracy") | METRICS
NAMES |= dict(pair.split("=") for pair in _OTHERS.split())
"""Names here by the letters of names there, without the part that says of which samples; those that go before
others stand first."""

_TRAIN, _TEST, _VALIDATION = {"train", "training"}, {"test"}, {"val", "valid", "validation", "eval", "dev"}
_BEST = {"best", "max"}
_SAID = _TEST | _VALIDATION | _BEST | {"metrics", "epoch", "neg", "final"}


class Measured(NamedTuple):
    """A value of a run: by which rule, and whether it was in per cent."""

    rule: MetricRule
    value: float
    percent: bool


def guess(name: str) -> tuple[int, int, MetricRule] | None:
    """What a metric stands for by its name, and how soon it is taken: by what it is, then by its samples.

    Training samples say nothing of an expert, so their metrics are never taken.
    """
    words = _words(name)
    if _TRAIN.intersection(words):
        return None
    ours = NAMES.get(letters_of("".join(word for word in words if word not in _SAID)))
    if ours is None:
        return None
    samples = 0 if _TEST.intersection(words) else 1 if _VALIDATION.intersection(words) else 2
    later = 3 * bool(_BEST.intersection(words))  # what was best of the steps flatters
    return list(NAMES.values()).index(ours), samples + later, MetricRule(name, ours)


def _words(name: str) -> list[str]:
    """Words of a name, such as val, top, k of ``val/topK``."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold())


def choose(run: Run, rules: Rules) -> list[MetricRule]:
    """The metrics of a run that count: those of the rules, one for each name here, else the best guess."""
    if rules.metrics:
        there = [rule for rule in rules.metrics if rule.theirs in run.metrics]
        return list({rule.ours: rule for rule in reversed(there)}.values())[::-1]
    guesses = sorted((one for one in map(guess, run.metrics) if one), key=lambda one: (*one[:2], one[2].theirs))
    return [guesses[0][2]] if guesses else []


def percents(runs: Iterable[Run]) -> set[tuple[str, str]]:
    """Metrics, by ``scale_of``, of which some run has a value that no share has."""
    highest: dict[tuple[str, str], float] = defaultdict(float)
    for run in runs:
        for name, metric in run.metrics.items():
            highest[scale_of(run, name)] = max(highest[scale_of(run, name)], metric.highest)
    return {key for key, value in highest.items() if IN_PERCENT < value <= 100}


def scale_of(run: Run, name: str) -> tuple[str, str]:
    """What shares one scale: a metric of one tracker; results of model cards are from anybody."""
    return (run.run_id if run.tracker == TRACKER else run.tracker), name


def measure(run: Run, rule: MetricRule, rules: Rules, in_percent: set[tuple[str, str]]) -> Measured:
    """The value of a metric on our scale.

    Raises:
        InvalidRecordError: If it is not finite, cannot be told from a percentage, or goes no known way.
    """
    metric = run.metrics[rule.theirs]
    try:
        lower = is_lower_better(rule.ours) if rule.lower is None else rule.lower
    except InvalidRecordError as err:
        said = f"{rule.theirs}={rule.ours}:lower"
        raise InvalidRecordError(
            f"which way {rule.ours} goes is not known: metric={said!r}, or :higher"
        ) from err
    value = _at(metric, rule, rule.step or rules.step, lower=lower)
    if not math.isfinite(value):
        raise InvalidRecordError(f"{rule.theirs} is not finite ({value})")
    percent = rule.scale == "percent"
    if rule.ours in (*SHARES, *ERROR_SHARES) and not rule.scale and scale_of(run, rule.theirs) in in_percent:
        percent = metric.highest > IN_PERCENT
        if not percent and metric.highest > 0:
            raise InvalidRecordError(
                f"{rule.theirs} is at most 1, and in per cent in other runs; say which with "
                f"metric={f'{rule.theirs}={rule.ours}:percent'!r}, or :share"
            )
    return Measured(rule, value / 100 if percent else value, percent)


def _at(metric: Metric, rule: MetricRule, step: str, *, lower: bool) -> float:
    """The value of the last step, or the best of all; scikit-learn writes losses with the other sign."""
    negative = "neg" in _words(rule.theirs)
    value = metric.last if step == "last" else metric.lowest if lower and not negative else metric.highest
    return -value if negative else value


def described(measured: Measured, rules: Rules) -> str:
    """A metric that was taken, in words."""
    rule, _, percent = measured
    step = rule.step or rules.step
    return f"{rule.theirs} as {rule.ours}{', in per cent' if percent else ''} ({step} step)"
