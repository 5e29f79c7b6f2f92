"""How the errors of predictions go together over experts: what one measured expert says of the others.

Experts of one kind are wrong together: where one does better on a new task than was expected, those that did
so with it on past tasks do as well. The correlation is that of the errors on past tasks, of which there are
few, so it is shrunk towards none by as much as predicts the errors on tasks left out best.

Source:
    Under a separable model of tasks and experts the errors on a task have one covariance of experts on
    every task, Bonilla, Chai and Williams 2007, Multi-task Gaussian process prediction; the shrinkage is that
    of Ledoit and Wolf 2004, its strength by held-out likelihood, because errors are not Gaussian.

Axes: T tasks, M experts.
"""

from dataclasses import dataclass

import numpy as np

SHRINKAGES = (0.2, 0.4, 0.6, 0.8)
CLIP = 4.0
"""Most that one error counts, in sd: experts fail on a task now and then, by a lot, which says little."""
SCALE_PSEUDO_TASKS = 3.0
LEVEL_VARIANCE = 25.0
"""Of an error common to all experts, which decides nothing between them."""
MAX_JUDGED = 100
"""Tasks that the strength is judged by, at most."""


@dataclass(frozen=True, eq=False)
class ExpertCovariance:
    """Of errors in sd.

    Attributes:
        scale: ``[M]`` sd of each expert's errors, about 1.
        correlation: ``[M, M]``, positive definite.
    """

    scale: np.ndarray
    correlation: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """Covariance ``[M, M]``."""
        return np.asarray(self.scale[:, None] * self.correlation * self.scale)


def estimate_covariance(errors: np.ndarray) -> ExpertCovariance:
    """Scale and correlation of errors on past tasks.

    Args:
        errors: ``[T, M]`` in sd, mean square about 1; NaN where there is none.
    """
    known = np.isfinite(errors)
    measured = np.flatnonzero(known.any(axis=0))
    if len(measured) < errors.shape[1]:  # there may be thousands of others
        scale, correlation = np.ones(errors.shape[1]), np.eye(errors.shape[1])
        among = estimate_covariance(errors[:, measured])
        scale[measured], correlation[np.ix_(measured, measured)] = among.scale, among.correlation
        return ExpertCovariance(scale, correlation)
    clipped = np.where(known, np.clip(errors, -CLIP, CLIP), 0.0)
    counts = known.sum(axis=0)
    scale = np.sqrt(((clipped**2).sum(axis=0) + SCALE_PSEUDO_TASKS) / (counts + SCALE_PSEUDO_TASKS))
    units = clipped / scale
    rows = np.flatnonzero(known.sum(axis=1) > 1)
    if len(rows) < 3:
        return ExpertCovariance(scale, np.eye(errors.shape[1]))
    products = units[rows].T @ units[rows]
    judged = rows[np.unique(np.linspace(0, len(rows) - 1, MAX_JUDGED).astype(int))]
    likelihood = [
        sum(_log_likelihood(units[row], known[row], products, len(rows), shrinkage) for row in judged)
        for shrinkage in SHRINKAGES
    ]
    best = SHRINKAGES[int(np.argmax(likelihood))]
    return ExpertCovariance(scale, _shrunk(products / len(rows), best))


def _shrunk(sample: np.ndarray, shrinkage: float) -> np.ndarray:
    """Correlation ``[M, M]`` from mean products ``[M, M]``, 0 for experts never known together."""
    size = np.sqrt(np.maximum(np.diag(sample), 1.0))
    correlation = (1 - shrinkage) * sample / size[:, None] / size
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)


def _log_likelihood(
    row: np.ndarray, known: np.ndarray, products: np.ndarray, num_rows: int, shrinkage: float
) -> float:
    """Of one row ``[M]``, under the correlation of the others, up to a constant."""
    among = np.flatnonzero(known)
    units = row[among]
    sample = (products[np.ix_(among, among)] - np.outer(units, units)) / (num_rows - 1)
    factor = np.linalg.cholesky(_shrunk(sample, shrinkage) + LEVEL_VARIANCE)
    white = np.linalg.solve(factor, units)
    return float(-0.5 * white @ white - np.log(np.diag(factor)).sum())
