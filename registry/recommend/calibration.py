"""How far predictions were off for what was left out, and what that makes of intervals.

Axes: R rows, M experts.
"""

from dataclasses import dataclass

import numpy as np

from registry.recommend.standing import Standing

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
    is_finite = np.isfinite(errors)
    measured = np.flatnonzero(is_finite.any(axis=0))
    if len(measured) < errors.shape[1]:  # there may be thousands of others
        scale, correlation = np.ones(errors.shape[1]), np.eye(errors.shape[1])
        among = estimate_covariance(errors[:, measured])
        scale[measured], correlation[np.ix_(measured, measured)] = among.scale, among.correlation
        return ExpertCovariance(scale, correlation)
    clipped = np.where(is_finite, np.clip(errors, -CLIP, CLIP), 0.0)
    counts = is_finite.sum(axis=0)
    scale = np.sqrt(((clipped**2).sum(axis=0) + SCALE_PSEUDO_TASKS) / (counts + SCALE_PSEUDO_TASKS))
    units = clipped / scale
    rows = np.flatnonzero(is_finite.sum(axis=1) > 1)
    if len(rows) < 3:
        return ExpertCovariance(scale, np.eye(errors.shape[1]))
    products = units[rows].T @ units[rows]
    judged = rows[np.unique(np.linspace(0, len(rows) - 1, MAX_JUDGED).astype(int))]
    likelihood = [
        sum(_log_likelihood(units[row], is_finite[row], products, len(rows), shrinkage) for row in judged)
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


COVERAGE = 0.9
USUAL = 1.645
ASSUMED_GROUPS = 6.0
"""How many tasks or experts of usual, Gaussian errors count beside those that were left out."""
MOST_LEFT_OUT = 300
"""Experts that are left out, evenly among all."""
BOUNDS = (1.2, 3.0)
"""Of what calibration may make of an interval; of experts never measured it only widens it."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What left-out results showed.

    Attributes:
        columns: Experts that have errors.
        experts: Scale and correlation of these experts' errors of standings.
        measured: Half-width of a 90% interval in sd, of experts that have results.
        unmeasured: The same, of those that have none.
    """

    columns: np.ndarray
    experts: ExpertCovariance
    measured: float
    unmeasured: float


def calibrate(standing: Standing, usual: np.ndarray) -> Calibration:
    """Leave out tasks, then experts; only errors of the ``usual`` experts ``[M]`` count for intervals."""
    rows, known = standing.rows, standing.rows.table.known
    z = (standing.logits - standing.level[:, None]) / standing.spread[:, None]
    explained = standing.weights.rows(rows.sides) + standing.source_gain * rows.nearness
    expected = explained + standing.process.left_out
    sd = np.sqrt(standing.process.left_out_variance)
    misses = np.where(known, (z - expected) / sd, np.nan)
    judged = rows.placed if rows.placed.any() else np.ones(len(known), bool)
    misses = np.where(judged[:, None], misses, np.nan)
    columns = np.flatnonzero(np.isfinite(misses).any(axis=0))
    experts = estimate_covariance(misses[:, columns])
    scale = np.ones(known.shape[1])
    scale[columns] = experts.scale
    level, level_variance = standing.levels.left_out, standing.levels.left_out_variance
    total = np.sqrt(level_variance[:, None] + (standing.spread[:, None] * sd * scale) ** 2)
    off = standing.logits - level[:, None] - standing.spread[:, None] * expected
    measured = quantile(np.where(judged[:, None] & usual, np.abs(off) / total, np.nan))
    others = np.where(usual, _experts_left_out(standing, z, level, level_variance), np.nan)
    return Calibration(columns, experts, measured, max(quantile(others.T), USUAL))


def _experts_left_out(
    standing: Standing, z: np.ndarray, level: np.ndarray, level_variance: np.ndarray
) -> np.ndarray:
    """Errors ``[R, M]`` in sd of predicting experts of which nothing but attributes is known."""
    misses, solver = np.full(z.shape, np.nan), standing.solver
    weights, parts = standing.weights, standing.components
    own = parts.standing + parts.benchmark + parts.protocol + parts.task + parts.noise
    total = sum(len(pattern.columns) for pattern in solver.patterns)
    step = max(1, -(-total // MOST_LEFT_OUT))
    for number, (pattern, inverse) in enumerate(zip(solver.patterns, solver.inverses, strict=True)):
        covariance = np.linalg.inv(inverse)
        here = standing.spread[pattern.rows]
        level_off = standing.level[pattern.rows] - level[pattern.rows]
        for place in range(0, len(pattern.columns), step):
            explained, spread = solver.told(weights, number, place)
            off = standing.values[pattern.rows, pattern.columns[place]] - explained
            freed = covariance - spread + 1e-6 * np.eye(len(off))
            error = covariance @ np.linalg.solve(freed, off)
            uncertain = np.maximum(np.diag(spread @ np.linalg.solve(freed, covariance)), 0.0)
            sd = np.sqrt(here**2 * (own + uncertain) + level_variance[pattern.rows])
            misses[pattern.rows, pattern.columns[place]] = np.abs(here * error + level_off) / sd
    return misses


def quantile(scores: np.ndarray) -> float:
    """Bound of 90% of errors ``[R, M]`` in sd, NaN where there is none; entries of a row share its weight."""
    is_finite = np.isfinite(scores)
    rows = is_finite.any(axis=1)
    if not rows.any():
        return USUAL
    share = np.broadcast_to(1.0 / np.maximum(is_finite.sum(axis=1, keepdims=True), 1), scores.shape)[is_finite]
    order = np.argsort(scores[is_finite], kind="stable")
    mass = np.cumsum(share[order]) / (rows.sum() + 1)
    bound = float(scores[is_finite][order][min(int(np.searchsorted(mass, COVERAGE)), len(mass) - 1)])
    blended = (rows.sum() * bound + ASSUMED_GROUPS * USUAL) / (rows.sum() + ASSUMED_GROUPS)
    return float(np.clip(blended, *BOUNDS))
