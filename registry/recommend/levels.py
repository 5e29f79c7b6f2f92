"""The level of a task in a protocol: the log odds that an expert of usual standing reaches there.

It is told by what is known of every embedded task: the held-out score of the probe's head, the number of
classes, samples a class. Every protocol has its own offset; what covariates weigh is shared. Likeness of
tasks tells of what these leave.

Axes: R rows, K covariates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registry.recommend.gaussian_process import Distances, RowKernel, RowProcess
from registry.recommend.results import to_logit


@dataclass(frozen=True)
class TaskFacts:
    """What is known of a task beside its embedding; ``None`` where it is not.

    Attributes:
        head_accuracy: Held-out score of the probe's head, at most 1.
        num_classes: C.
        num_samples: Of the dataset.
    """

    head_accuracy: float | None = None
    num_classes: int | None = None
    num_samples: int | None = None


ASSUMED_MEAN = np.array([0.4, 0.65, -0.2, 0.0])
ASSUMED_SD = np.array([0.8, 0.25, 0.2, 0.1])
"""Of the level, and of what log odds of the head, log classes and log samples a class weigh."""
PROTOCOL_SD, NEW_PROTOCOL_SD = 2.5, 1.2
"""How far apart levels of protocols may be: one that was seen takes any level, so that what lies in the level
moves no expert; of one that was not seen the usual ones are expected."""
RESIDUAL_VARIANCE, UNKNOWN_VARIANCE = 0.25, 0.9
"""Of levels about what covariates say, and of tasks without any."""
PSEUDO_ROWS = 5.0


def covariates(facts: Sequence[TaskFacts | None]) -> np.ndarray:
    """``[R, 3]`` centred on usual tasks, NaN where not known."""
    rows = np.full((len(facts), 3), np.nan)
    for number, fact in enumerate(facts):
        if fact and fact.head_accuracy is not None and fact.num_classes:
            per_class = (fact.num_samples or 100 * fact.num_classes) / fact.num_classes
            rows[number] = (
                float(to_logit(max(fact.head_accuracy, 0.02))) - 0.8,
                np.log(fact.num_classes / 7),
                np.log(np.clip(per_class, 5, 5000) / 100),
            )
    return rows


@dataclass(frozen=True, eq=False)
class Levels:
    """Fitted levels.

    Attributes:
        fitted: ``[R]`` what covariates and protocol say of each row.
        variance: ``[R]`` about that.
        residual: Variance about covariates, where they are known.
        left_out: ``[R]`` level of each row as predicted by other rows.
        left_out_variance: ``[R]`` of the error of that.
    """

    fitted: np.ndarray
    variance: np.ndarray
    residual: float
    left_out: np.ndarray
    left_out_variance: np.ndarray
    _weights: np.ndarray
    _covariance: np.ndarray
    _process: RowProcess | None
    _rows: np.ndarray
    _seen: frozenset[int]

    @classmethod
    def fit(
        cls,
        levels: np.ndarray,
        noise: np.ndarray,
        protocols: np.ndarray,
        num_protocols: int,
        known: np.ndarray,
        tasks: np.ndarray,
        distances: Distances | None,
    ) -> "Levels":
        """Fit levels ``[R]`` that are known with a variance of ``noise`` ``[R]``.

        Args:
            levels: In log odds.
            noise: Of each.
            protocols: ``[R]`` number of the protocol.
            num_protocols: One more than the largest of these, at least.
            known: ``[R, 3]`` covariates.
            tasks: ``[R]`` number of the task.
            distances: ``[R, R]`` by descriptor; ``None`` leaves likeness out, which changes nothing of what is
                fitted of the rows themselves and takes most of the time.
        """
        design = _design(known, protocols, num_protocols)
        placed = np.isfinite(known).all(axis=1)
        weights, covariance, residual, unknown = _fit_covariates(levels, noise, design, placed)
        total = np.where(placed, residual, unknown) + noise
        leverage = np.minimum(np.einsum("rk,kl,rl->r", design, covariance, design) / total, 0.7)
        left = levels - (levels - design @ weights) / (1 - leverage)
        left_variance = total * (1 + leverage)
        process, rows = None, np.flatnonzero(placed)
        if distances is not None and len(rows) > 2:
            process, left[rows], left_variance[rows] = _fit_process(
                levels, noise, design, weights, covariance, residual, tasks, rows, distances
            )
        return cls(
            fitted=design @ weights,
            variance=np.where(placed, residual, unknown),
            residual=residual,
            left_out=left,
            left_out_variance=left_variance,
            _weights=weights,
            _covariance=covariance,
            _process=process,
            _rows=rows,
            _seen=frozenset(protocols.tolist()),
        )

    def predict(self, known: np.ndarray, protocol: int, task: int, distances: Distances) -> tuple[float, float]:
        """Level of another row and the variance of its error.

        Args:
            known: ``[3]`` covariates.
            protocol: Number of the protocol.
            task: Number of the task, -1 for a new one.
            distances: ``[R]`` from each row's task, by descriptor.
        """
        num_protocols = len(self._weights) - 4
        design = _design(known[None], np.array([protocol]), num_protocols)[0]
        level = float(design @ self._weights)
        variance = float(design @ self._covariance @ design)
        if protocol not in self._seen:
            variance -= PROTOCOL_SD**2 - NEW_PROTOCOL_SD**2
        if not np.isfinite(known).all():
            return level, variance + float(np.max(self.variance, initial=UNKNOWN_VARIANCE))
        if self._process is None:
            return level, variance + self.residual
        near = {name: values[self._rows] for name, values in distances.items()}
        more = self._process.predict(np.zeros(len(self._rows)), 0.0, task, near)
        return level + float(more.mean[0]), variance + float(more.variance[0])


def _design(known: np.ndarray, protocols: np.ndarray, num_protocols: int) -> np.ndarray:
    """``[R, 4 + P]``: a constant, covariates, the protocol."""
    indicator = protocols[:, None] == np.arange(num_protocols)
    filled = np.where(np.isfinite(known), known, 0.0)
    return np.hstack([np.ones((len(known), 1)), filled, indicator.astype(np.float64)])


def _fit_covariates(
    levels: np.ndarray, noise: np.ndarray, design: np.ndarray, placed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Weights and their covariance, and the variance of levels about them where covariates are known or not."""
    num_protocols = design.shape[1] - len(ASSUMED_MEAN)
    mean = np.concatenate([ASSUMED_MEAN, np.zeros(num_protocols)])
    prior = np.concatenate([ASSUMED_SD**2, np.full(num_protocols, PROTOCOL_SD**2)])
    residual, unknown = RESIDUAL_VARIANCE, UNKNOWN_VARIANCE
    for _ in range(3):
        variance = np.where(placed, residual, unknown) + noise
        covariance = np.linalg.inv((design.T / variance) @ design + np.diag(1 / prior))
        weights = covariance @ ((design.T / variance) @ levels + mean / prior)
        off = (levels - design @ weights) ** 2 + np.einsum("rk,kl,rl->r", design, covariance, design)
        residual = _pooled(off[placed], noise[placed], RESIDUAL_VARIANCE)
        unknown = max(_pooled(off[~placed], noise[~placed], UNKNOWN_VARIANCE), residual)
    return weights, covariance, residual, unknown


def _pooled(squares: np.ndarray, noise: np.ndarray, assumed: float) -> float:
    """Variance of levels, of squared errors less what is noise, with some assumed rows."""
    total = float(np.maximum(squares - noise, 0.0).sum())
    return (total + PSEUDO_ROWS * assumed) / (len(squares) + PSEUDO_ROWS)


def _fit_process(
    levels: np.ndarray,
    noise: np.ndarray,
    design: np.ndarray,
    weights: np.ndarray,
    covariance: np.ndarray,
    residual: float,
    tasks: np.ndarray,
    rows: np.ndarray,
    distances: Distances,
) -> tuple[RowProcess, np.ndarray, np.ndarray]:
    """Likeness on what covariates leave: the process, and every level as predicted without its task."""
    x = design[rows]
    total = residual + noise[rows]
    leverage = np.einsum("rk,kl,rl->r", x, covariance, x) / total
    off = levels[rows] - x @ weights
    among = {name: values[np.ix_(rows, rows)] for name, values in distances.items()}
    kernel = RowKernel.of(tasks[rows], np.zeros((len(rows),) * 2), residual, noise[rows], among)
    fitted = RowProcess.fit(kernel, off[:, None], np.ones((len(rows), 1), bool), np.ones(len(rows), bool))
    errors = (off - fitted.left_out[:, 0]) / np.maximum(1 - leverage, 0.3)
    variance = fitted.left_out_variance[:, 0] + leverage * total
    return fitted, levels[rows] - errors, variance
