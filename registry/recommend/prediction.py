"""What is expected of experts on one task, and what measurements there change of it.

Axes: M experts, S scenarios, K measured ones.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from registry.recommend.results import from_logit, logit_noise, to_logit

NUM_SCENARIOS = 512
MOST_SCENARIO_EXPERTS = 200
JITTER = 1e-6
QUANTILE = 1.645
"""Half of a 90% interval in sd, before any calibration."""
MEASUREMENT_SD = 0.012
SPREAD_FACTORS = np.exp(np.linspace(-1.2, 1.2, 13))
SPREAD_FACTOR_SD = 0.5
"""How far apart, in logs, spreads of experts are from task to task, before a task has results."""
LEVEL_VARIANCE = 25.0
"""Of a level that may be any: how far apart measured experts are says how a task spreads them, not how high."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Expected log odds of accuracy on one new task.

    The log odds of expert i are ``level + deviation_i``: the error of the level is common to all experts and
    decides nothing between them, the errors of the deviations do.

    Attributes:
        logit: ``[M]`` expected.
        covariance: ``[M, M]`` of the errors of the deviations.
        level_sd: Of the error of the level.
        quantile: ``[M]`` half-width of the 90% interval in sd.
        measured: ``[M]`` accuracy measured on this very task, NaN where there is none.
    """

    logit: np.ndarray
    covariance: np.ndarray
    level_sd: float
    quantile: np.ndarray
    measured: np.ndarray

    @classmethod
    def of_accuracies(cls, accuracy: np.ndarray, sd: float = 0.1) -> "Prediction":
        """Independent expectations, for what has no model: tests and examples."""
        logit = to_logit(accuracy)
        noise = logit_noise(logit, sd)
        size = len(logit)
        return cls(logit, np.diag(noise**2), 0.0, np.full(size, QUANTILE), np.full(size, np.nan))

    @property
    def mean(self) -> np.ndarray:
        """``[M]`` expected accuracies, as likely to be passed as not."""
        return from_logit(self.logit)

    @property
    def sd(self) -> np.ndarray:
        """``[M]`` of the whole error, in log odds."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0) + self.level_sd**2)

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """``[M]`` ends of the 90% intervals, 0 to 1."""
        half = self.quantile * self.sd
        return from_logit(self.logit - half), from_logit(self.logit + half)

    def of(self, places: np.ndarray) -> "Prediction":
        """The same of some of the experts."""
        return Prediction(
            self.logit[places],
            self.covariance[np.ix_(places, places)],
            self.level_sd,
            self.quantile[places],
            self.measured[places],
        )

    def contenders(self) -> np.ndarray:
        """Places of those that may be the best, at most 200, in order of place."""
        reach = self.logit + 1.3 * np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        chosen = np.argsort(-reach, kind="stable")[:MOST_SCENARIO_EXPERTS]
        return np.sort(chosen)

    def scenarios(self) -> np.ndarray:
        """``[S, M]`` accuracies as they may be, at the expected level: draws of a fixed seed, and mirrors."""
        jitter = 1e-9 + JITTER * np.diag(self.covariance)
        factor = np.linalg.cholesky(self.covariance + np.diag(jitter))
        # Drawn one expert after the other, so that those that come last change nothing of the first.
        draws = (factor @ np.random.default_rng(0).standard_normal((len(self.logit), NUM_SCENARIOS // 2))).T
        return from_logit(np.concatenate([self.logit + draws, self.logit - draws]))

    def difference_sd(self, place: int) -> np.ndarray:
        """``[M]`` sd of the difference between each expert and one of them, in log odds."""
        own = np.diag(self.covariance)
        return np.asarray(np.sqrt(np.maximum(own + own[place] - 2 * self.covariance[place], 0.0)))


def beside(first: Prediction, *others: Prediction) -> Prediction:
    """Predictions of one task by models that share nothing but its level, of which the first knows most.

    Where measurements told the first its level, what the others do not know of it is among the errors of their
    deviations.
    """
    parts = (first, *others)
    sizes = np.cumsum([0, *(len(part.logit) for part in parts)])
    covariance = np.zeros((sizes[-1], sizes[-1]))
    for part, start, end in zip(parts, sizes, sizes[1:], strict=False):
        covariance[start:end, start:end] = part.covariance + (0.0 if first.level_sd else part.level_sd**2)
    logit, quantile, measured = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("logit", "quantile", "measured")
    )
    return Prediction(logit, covariance, first.level_sd, quantile, measured)


def condition(
    prediction: Prediction,
    observed: np.ndarray,
    noise_sd: float | np.ndarray = MEASUREMENT_SD,
    *,
    offset_sd: float = 0.0,
    exact: bool = True,
) -> Prediction:
    """Fold in accuracies measured on the task itself: one expert moves the level, and those like it.

    Args:
        prediction: What was expected.
        observed: ``[M]`` accuracies on the task, NaN where there is none.
        noise_sd: Of a measurement, in accuracy, positive; one for all or ``[M]``.
        offset_sd: Of an error that all measurements have in common, in log odds.
        exact: Whether these measure what is predicted: then they are the expectation.

    Returns:
        What is expected now.
    """
    places = np.flatnonzero(np.isfinite(observed))
    if not places.size:
        return prediction
    noise = np.broadcast_to(np.asarray(noise_sd, dtype=np.float64), observed.shape)[places]
    value = to_logit(observed[places])
    sd = logit_noise(value, noise)
    if exact:
        prediction = _respread(prediction, places, value, sd)
    after = condition_logit(prediction, places, value, sd, offset_sd)
    if not exact:
        return after
    logit = after.logit.copy()
    logit[places] = value
    measured = prediction.measured.copy()
    measured[places] = observed[places]
    quantile = after.quantile.copy()
    quantile[places] = QUANTILE
    return replace(after, logit=logit, measured=measured, quantile=quantile)


def _respread(prediction: Prediction, known: np.ndarray, value: np.ndarray, noise: np.ndarray) -> Prediction:
    """The same with experts as far apart as those measured ``[K]`` say, for tasks differ in that.

    A factor of the spread, about the mean of the measured ones, is averaged over a grid. Its square is larger
    than that of its mean, for the spread of a task is not known; where nothing is measured, what is not known
    of the level outweighs that.
    """
    own, logs = prediction.logit[known], np.log(SPREAD_FACTORS)
    weight = -0.5 * (logs / SPREAD_FACTOR_SD) ** 2
    for number, factor in enumerate(SPREAD_FACTORS):
        among = factor**2 * prediction.covariance[np.ix_(known, known)] + np.diag(noise**2) + LEVEL_VARIANCE
        root = np.linalg.cholesky(among)
        white = np.linalg.solve(root, value - own.mean() - factor * (own - own.mean()))
        weight[number] -= 0.5 * white @ white + np.log(np.diag(root)).sum()
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    moved = own.mean() + np.exp(weight @ logs) * (prediction.logit - own.mean())
    return replace(prediction, logit=moved, covariance=(weight @ SPREAD_FACTORS**2) * prediction.covariance)


def condition_logit(
    prediction: Prediction, known: np.ndarray, value: np.ndarray, noise: np.ndarray, offset_sd: float
) -> Prediction:
    """The same of log odds ``[K]`` at places ``[K]`` with errors of sd ``[K]``."""
    level = prediction.level_sd**2
    cross = prediction.covariance[:, known] + level
    among = cross[known] + np.diag(noise**2) + offset_sd**2
    factor = np.linalg.cholesky(among + 1e-12 * np.eye(len(known)))
    white = np.linalg.solve(factor, cross.T)  # [K, M]
    move = np.linalg.solve(factor, value - prediction.logit[known])
    # What is left has no common part that is known apart from the rest: it is all in the covariance.
    left = prediction.covariance + level - white.T @ white
    return replace(prediction, logit=prediction.logit + move @ white, covariance=left, level_sd=0.0)


def expected_regret(prediction: Prediction) -> np.ndarray:
    """How much better the best expert is expected to be.

    The mean over scenarios of the best accuracy, minus that of the expert. The best of several uncertain
    experts is better than the expected best, so that it is positive even for the first.

    Returns:
        ``[M]`` in accuracy, 0 to 1.
    """
    places = prediction.contenders()
    best = float(prediction.of(places).scenarios().max(axis=1).mean())
    return np.asarray(np.clip(best - prediction.mean, 0.0, 1.0))


def normal_cdf(value: np.ndarray) -> np.ndarray:
    """Chances that a standard normal variable is at most so much; scipy's takes long to import."""
    return np.asarray(0.5 * _erfc(-np.asarray(value) / math.sqrt(2)), dtype=np.float64)


_erfc = np.frompyfunc(math.erfc, 1, 1)


def improvement(gap: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Expected positive part of Gaussians: how much experts are expected to be better than another.

    Args:
        gap: ``[M]`` by how much they are expected to be better or, below 0, worse.
        sd: ``[M]`` of that difference.

    Returns:
        ``[M]``, not negative.

    Source:
        Jones, Schonlau and Welch 1998, Efficient global optimization, (15).
    """
    sd = np.maximum(sd, 1e-12)
    ratio = gap / sd
    return np.asarray(sd * (ratio * normal_cdf(ratio) + np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi)))


SURE = 0.95
"""Chance of being better, before anything was measured here, from which an expert may pass a measured one."""
MARGIN = 0.02
"""How far below the measured one others are kept, in log odds; their order stays."""


def shielded(before: Prediction, after: Prediction, toys: np.ndarray) -> Prediction:
    """Keep unmeasured experts below the best measured one where only the level lifted them past it.

    An expert passes the best measured one if it was expected above what that one measured, or was clearly
    expected to be better than it, before; or if nothing was measured. A toy passes no real one.

    Args:
        before: What was expected before anything was measured on the task.
        after: The same experts afterwards.
        toys: ``[M]`` bool: small networks that were never measured in the protocol of the answer: where they
            stand in another says nothing of how they compare with a real network here.
    """
    measured = np.isfinite(after.measured)
    if not measured.any() or measured.all():
        return after
    best = int(np.argmax(np.where(measured, after.logit, -np.inf)))
    top = after.logit[best]
    chance = normal_cdf((before.logit - before.logit[best]) / np.maximum(before.difference_sd(best), 1e-9))
    after = _below(top, after, ~measured & (before.logit < top + MARGIN) & (chance < SURE))
    real = after.logit[measured & ~toys]
    return _below(float(real.max()), after, toys & ~measured) if real.size else after


def _below(top: float, after: Prediction, places: np.ndarray) -> Prediction:
    """The same with the experts at some places ``[M]`` below some log odds, in the order that they had."""
    over = after.logit - (top - MARGIN)
    kept = top - MARGIN * np.exp(-np.maximum(over, 0.0) / MARGIN / 50) - 1e-4
    return replace(after, logit=np.where(places & (over > 0), kept, after.logit))
