"""Gaussian processes over tasks: what rows of a table say of another row, by how alike their tasks are.

Of one column, values on T tasks have the covariance ``constant + (1 - constant) k + noise I``, where k is
the product over descriptors of ``exp(-d / tau)``. Constant, noise and tau are not picked but averaged over a
grid of cells, each weighted by how well it predicts tasks left out. Half of the weight before seeing any value
is on the static cell, of which k is nothing: its prediction is the plain mean, shrunk by n/(n+1). Where
distances say nothing, the answer stays static.

A column needs the inverse of a matrix of its known rows, once for all columns that are known in the same rows.
So a fit takes time in proportion to the cells, and to the sum over such groups of n cubed.

Source:
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning: (2.25) and (2.26) for the
    prediction, (5.12) for leaving rows out in closed form; here, all rows of a task at once.

Axes: T rows, C columns, G cells, D descriptors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

Likeness = Mapping[str, np.ndarray]
"""Distances by name of the descriptor that they compare."""

BANDWIDTHS = (0.5, 1.0, 2.0)
"""tau, in units of (median distance - median distance of a task to its nearest)."""
CONSTANTS = (0.2, 0.5, 0.8)
NOISES = (0.25, 1.0)
STATIC_WEIGHT = 0.5
SMALLEST_UNIT = 1e-12  # of a difference of distances; below it is rounding


@dataclass(frozen=True)
class Cell:
    """One choice of everything that is not known of the covariance.

    Attributes:
        descriptors: Whose distances make k.
        bandwidth: tau, in units of the distances' spread.
        constant: Share of the variance that all tasks have in common, 0 to 1.
        noise: Variance of what does not depend on likeness, the rest being 1.
    """

    descriptors: tuple[str, ...] = ()
    bandwidth: float = 1.0
    constant: float = 1.0
    noise: float = 1.0


def list_cells(likeness: Likeness) -> list[Cell]:
    """The static cell, then the grid for each descriptor and for all of them together."""
    names = tuple(sorted(likeness))
    sets = [(name,) for name in names] + ([names] if len(names) > 1 else [])
    return [Cell(), *(Cell(*values) for values in product(sets, BANDWIDTHS, CONSTANTS, NOISES))]


@dataclass(frozen=True, eq=False)
class TaskKernels:
    """Covariances between rows, and from rows to a query, for every cell."""

    between: Likeness  # [T, T] each
    units: Mapping[str, float]
    num_rows: int

    @classmethod
    def of(cls, between: Likeness, other: np.ndarray) -> "TaskKernels":
        """From distances ``[T, T]`` between rows, of which those ``other`` are of different tasks."""
        units = {name: _unit(distances, other) for name, distances in between.items()}
        return cls({name: between[name] for name, unit in units.items() if unit > 0}, units, len(other))

    def matrix(self, cell: Cell) -> np.ndarray:
        """Covariance ``[T, T]`` without noise."""
        likeness = self._likeness(cell, self.between, (self.num_rows, self.num_rows))
        np.fill_diagonal(likeness, 1.0)
        return cell.constant + (1 - cell.constant) * likeness

    def to_query(self, cell: Cell, distances: Likeness) -> np.ndarray:
        """Covariance ``[T]`` with a query at those distances ``[T]``."""
        return cell.constant + (1 - cell.constant) * self._likeness(cell, distances, (self.num_rows,))

    def _likeness(self, cell: Cell, distances: Likeness, shape: tuple[int, ...]) -> np.ndarray:
        """k; 0 where a distance is not known."""
        if not cell.descriptors or not all(name in distances for name in cell.descriptors):
            return np.zeros(shape)
        exponent = sum(distances[name] / (cell.bandwidth * self.units[name]) for name in cell.descriptors)
        known = np.isfinite(exponent)
        return np.where(known, np.exp(-np.maximum(np.where(known, exponent, 0.0), 0.0)), 0.0)


def _unit(distances: np.ndarray, other: np.ndarray) -> float:
    """Median distance between different tasks less that to the nearest; 0 if none is known."""
    known = np.where(other & np.isfinite(distances), distances, np.inf)
    finite = known[np.isfinite(known)]
    if not finite.size:
        return 0.0
    nearest = known.min(axis=0)
    nearest = float(np.median(nearest[np.isfinite(nearest)]))
    unit = float(np.median(finite)) - nearest
    # All tasks are equally far: any unit will do, as long as it is of their size.
    return unit if unit >= SMALLEST_UNIT else max(abs(nearest), SMALLEST_UNIT)


@dataclass(frozen=True, eq=False)
class TaskProcess:
    """Columns of values that are predicted for other tasks, after ``fit``.

    Attributes:
        kernels: Of the rows.
        cells: G of them, the static one first.
        weights: ``[G]``, sum 1.
        known: ``[T, C]`` which values there are.
        left_out: ``[T, C]`` predictions of every known value by other tasks, under weights from the other rows;
            0 elsewhere.
        left_out_variance: ``[T, C]`` their variance under the most likely cell, in units of its k; 1 elsewhere.
    """

    kernels: TaskKernels
    cells: list[Cell]
    weights: np.ndarray
    known: np.ndarray
    left_out: np.ndarray
    left_out_variance: np.ndarray
    _dual: np.ndarray = field(repr=False)  # [G, T, C] inverse covariance times values
    _groups: list["_Group"] = field(repr=False)  # under the most likely cell

    @classmethod
    def fit(
        cls, kernels: TaskKernels, values: np.ndarray, mask: np.ndarray, tasks: np.ndarray
    ) -> "TaskProcess":
        """Weigh the cells by how well they predict tasks left out.

        A cell's weight is its prior times the profile likelihood of one Gaussian error per row: values in
        a row err together, so a row counts once.

        Args:
            kernels: Of the rows.
            values: ``[T, C]``, of mean zero as far as is known.
            mask: ``[T, C]`` which are known.
            tasks: ``[T]`` task of each row, as numbers: rows of one task are left out together.
        """
        cells = list_cells(kernels.between)
        fits = [_fit_cell(kernels.matrix(cell), cell.noise, values, mask, tasks) for cell in cells]
        left_out = np.stack([fit.left_out for fit in fits])
        squares = np.where(mask, left_out - values, 0.0) ** 2
        loss = squares.sum(axis=2) / np.maximum(mask.sum(axis=1), 1)  # [G, T]
        rows = np.asarray(mask.any(axis=1))
        total, num_rows = loss.sum(axis=1, keepdims=True), int(rows.sum())
        prior = np.full(len(cells), (1 - STATIC_WEIGHT) / max(len(cells) - 1, 1))
        prior[0] = STATIC_WEIGHT if len(cells) > 1 else 1.0
        weights = _likelihood_weights(total, num_rows, prior)[:, 0]
        without = _likelihood_weights(np.maximum(total - loss, 0.0), np.asarray(num_rows - rows), prior)
        best = fits[int(np.argmax(weights))]
        return cls(
            kernels,
            cells,
            weights,
            mask,
            np.einsum("gt,gtc->tc", without, left_out),
            best.variance,
            np.stack([fit.dual for fit in fits]),
            best.groups,
        )

    @property
    def static_weight(self) -> float:
        """Weight of the static cell, 0 to 1: high where distances say little."""
        return float(self.weights[0])

    def predict(self, distances: Likeness) -> tuple[np.ndarray, np.ndarray]:
        """What is expected on another task.

        Args:
            distances: ``[T]`` from each row, by descriptor; NaN where not known.

        Returns:
            Mean ``[C]``, and variance ``[C]`` in units of k under the most likely cell.
        """
        covariances = np.stack([self.kernels.to_query(cell, distances) for cell in self.cells])
        mean = np.einsum("g,gt,gtc->c", self.weights, covariances, self._dual, optimize=True)
        best = int(np.argmax(self.weights))
        variance = np.full(self._dual.shape[2], 1.0 + self.cells[best].noise)
        for group in self._groups:
            near = covariances[best, group.rows]
            variance[group.columns] -= near @ group.precision @ near
        return mean, np.maximum(variance, self.cells[best].noise)


@dataclass(frozen=True, eq=False)
class _Group:
    """Columns that are known in the same rows, and the inverse of the covariance of these."""

    columns: np.ndarray
    rows: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True, eq=False)
class _CellFit:
    """One cell's view of the values: ``[T, C]`` each."""

    dual: np.ndarray
    left_out: np.ndarray
    variance: np.ndarray
    groups: list[_Group]


def _fit_cell(
    kernel: np.ndarray, noise: float, values: np.ndarray, mask: np.ndarray, tasks: np.ndarray
) -> _CellFit:
    """Leave each task out in turn, in closed form."""
    dual, left_out, variance = np.zeros(values.shape), np.zeros(values.shape), np.ones(values.shape)
    groups = []
    for columns, rows in _known_together(mask):
        place = np.ix_(rows, columns)
        precision = np.linalg.inv(kernel[np.ix_(rows, rows)] + noise * np.eye(len(rows)))
        groups.append(_Group(columns, rows, precision))
        dual[place] = precision @ values[place]
        error, variance[place] = _errors(precision, dual[place], tasks[rows])
        left_out[place] = values[place] - error
    return _CellFit(dual, left_out, variance, groups)


def _known_together(mask: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of columns that are known in the same rows, and these rows; none of columns known nowhere."""
    patterns, of_column = np.unique(mask, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        rows = np.flatnonzero(patterns[:, number])
        if rows.size:
            yield np.flatnonzero(of_column == number), rows


def _errors(precision: np.ndarray, dual: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of predicting every row by rows of other tasks, and their variances as a column."""
    error = dual / np.diag(precision)[:, None]
    variance = 1 / np.diag(precision)
    names, counts = np.unique(tasks, return_counts=True)
    for name in names[counts > 1]:
        block = np.flatnonzero(tasks == name)
        covariance = np.linalg.inv(precision[np.ix_(block, block)])
        error[block] = covariance @ dual[block]
        variance[block] = np.diag(covariance)
    return error, variance[:, None]


def _likelihood_weights(loss: np.ndarray, num_rows: int | np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weights ``[G, Q]`` summing to 1 over cells, from summed losses ``[G, Q]`` over ``num_rows`` rows."""
    mean_loss = loss / np.maximum(num_rows, 1) + 1e-12
    log_weight = np.log(prior)[:, None] - 0.5 * num_rows * np.log(mean_loss)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.asarray(weight / weight.sum(axis=0))
