"""Averages over rows weighted by nearness, shrunk towards the plain mean, over a grid of both strengths.

Axes: T rows that are learnt from, Q targets (rows held out, or the one query), C columns to be predicted
(experts; or level and spread of a task), G cells of the grid.
"""

from dataclasses import dataclass, field

import numpy as np

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0)
"""tau, in units of (median distance - d0); d0 is the median distance from a task to its nearest."""
SHRINKAGES = (0.25, 1.0, 4.0, 16.0)
"""kappa, in results at distance d0."""
STATIC_WEIGHT = 0.5
SMALLEST_UNIT = 1e-12  # of a difference of distances; below it is rounding
MAX_EXPONENT = 30.0


@dataclass(frozen=True)
class Kernel:
    """``exp(-(d - origin) / tau)`` for every tau; no distance, no weight."""

    origin: float = 0.0
    taus: tuple[float, ...] = ()

    @classmethod
    def of(cls, between: np.ndarray | None, other: np.ndarray) -> "Kernel":
        """Origin and bandwidths from the distances ``[T, T]`` between different tasks."""
        if between is None:
            return cls()
        known = np.where(other & np.isfinite(between), between, np.inf)
        finite = known[np.isfinite(known)]
        if not finite.size:
            return cls()
        nearest = known.min(axis=0)
        origin = float(np.median(nearest[np.isfinite(nearest)]))
        unit = float(np.median(finite)) - origin
        if unit < SMALLEST_UNIT:  # all tasks are equally far: any unit will do, as long as it is of their size
            unit = max(abs(origin), SMALLEST_UNIT)
        return cls(origin, tuple(unit * bandwidth for bandwidth in BANDWIDTHS))

    def weights(self, distances: np.ndarray) -> list[np.ndarray]:
        """One array like ``distances`` per tau."""
        known = np.isfinite(distances)
        gap = np.where(known, distances, 0.0) - self.origin
        return [np.where(known, np.exp(np.clip(-gap / tau, -200.0, MAX_EXPONENT)), 0.0) for tau in self.taus]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, 0 where the denominator is 0."""
    return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0))


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of a table that are predicted for other rows, and the grid weights they were given."""

    values: np.ndarray  # [T, C], 0 where masked
    mask: np.ndarray  # [T, C] bool
    pseudo_results: float  # at the prior, in the static mean
    cell_weights: np.ndarray = field(default_factory=lambda: np.ones(1))  # [G]

    def cells(self, flat: np.ndarray, kernels: list[np.ndarray], prior: np.ndarray) -> np.ndarray:
        """Every cell's prediction ``[G, Q, C]``, the static one first.

        Args:
            flat: ``[Q, T]`` 0 or 1: rows that a target may learn from.
            kernels: The same rows weighted by nearness, one array per bandwidth.
            prior: ``[Q, C]`` where the static mean starts.
        """
        static = _ratio(
            flat @ self.values + self.pseudo_results * prior, flat @ self.mask + self.pseudo_results
        )
        cells = [static]
        for kernel in kernels:
            total, weight = kernel @ self.values, kernel @ self.mask
            cells.extend((total + kappa * static) / (weight + kappa) for kappa in SHRINKAGES)
        return np.stack(cells)

    def fit(self, cells: np.ndarray) -> tuple["Columns", np.ndarray]:
        """Weigh the cells by their errors on rows left out.

        A cell's weight is its prior times the profile likelihood of one Gaussian error per row: results in
        a row err together, so a row counts once.

        Args:
            cells: ``[G, T, C]`` predictions of every row by rows of other tasks.

        Returns:
            Columns with their weights, and the predictions ``[T, C]`` of every row under weights from the
            errors on the other rows.
        """
        count = self.mask.sum(axis=1)
        rows = count > 0
        squares = np.where(self.mask, cells - self.values, 0.0) ** 2
        loss = squares.sum(axis=2) / np.maximum(count, 1)  # [G, T]
        total, num_rows = loss.sum(axis=1, keepdims=True), int(rows.sum())
        prior = np.full(len(cells), (1 - STATIC_WEIGHT) / max(len(cells) - 1, 1))
        prior[0] = STATIC_WEIGHT
        weights = _likelihood_weights(total, num_rows, prior)[:, 0]
        without = _likelihood_weights(np.maximum(total - loss, 0.0), num_rows - rows, prior)
        return (
            Columns(self.values, self.mask, self.pseudo_results, weights),
            np.einsum("gt,gtc->tc", without, cells),
        )

    def predict(self, flat: np.ndarray, kernels: list[np.ndarray], prior: np.ndarray) -> np.ndarray:
        """Average ``[Q, C]`` of the cells under the fitted weights; arguments as of ``cells``."""
        cells = self.cells(flat, kernels, prior)
        return np.tensordot(self.cell_weights, cells, axes=1)


def _likelihood_weights(loss: np.ndarray, num_rows: int | np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weights ``[G, Q]`` summing to 1 over cells, from summed losses ``[G, Q]`` over ``num_rows`` rows."""
    mean_loss = loss / np.maximum(num_rows, 1) + 1e-12
    log_weight = np.log(prior)[:, None] - 0.5 * num_rows * np.log(mean_loss)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.asarray(weight / weight.sum(axis=0))
