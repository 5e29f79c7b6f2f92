"""Gaussian processes over tasks: what rows of a table say of another row, by how alike their tasks are.

Of one column, values on T tasks have the covariance ``constant + (1 - constant) k + noise I``, where k is
the product over descriptors of ``exp(-d / tau)``. Constant, noise and tau are not picked but averaged over a
grid of cells, each weighted by how well it predicts tasks left out. Half of the weight before seeing any value
is on the static cell, of which k is nothing: its prediction is the plain mean, shrunk by n/(n+1). Where
distances say nothing, the answer stays static.

A column needs the Cholesky factor of a matrix of its known rows, once for all columns that are known in the
same rows. So a fit takes time in proportion to the cells, and to the sum over such groups of n cubed.

Source:
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning: (2.25) and (2.26) for the
    prediction, (5.12) for leaving rows out in closed form; here, all rows of a task at once.

Axes: T rows, C columns, N known values, G cells, B groups of columns, n rows of a group.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from registry.threads import one_thread

Likeness = Mapping[str, np.ndarray]
"""Distances by name of the descriptor that they compare."""

BANDWIDTHS = (1.0, 4.0)
"""tau, in units of (median distance - median distance of a task to its nearest)."""
CONSTANTS = (0.2, 0.5)
NOISES = (0.005, 0.05, 0.5)
STATIC_WEIGHT = 0.5
SMALLEST_UNIT = 1e-12  # of a difference of distances; below it is rounding
MAX_BATCH = 2**20
"""Most numbers in the matrices that are inverted in one call."""
LAPACK_FROM = 200  # rows; smaller matrices are inverted faster in one call

_Kernel = tuple[tuple[str, ...], float]  # descriptors and bandwidth: what k depends on


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


def list_cells(descriptors: Iterable[str]) -> list[Cell]:
    """The static cell, then the grid for each descriptor and for all of them together."""
    names = tuple(sorted(descriptors))
    sets = [(name,) for name in names] + ([names] if len(names) > 1 else [])
    return [Cell(), *(Cell(*values) for values in product(sets, BANDWIDTHS, CONSTANTS, NOISES))]


@dataclass(frozen=True, eq=False)
class TaskKernels:
    """Covariances between rows, and from rows to a query, for every cell.

    Attributes:
        units: Spread of the distances, by descriptor, of those that are known somewhere.
        num_rows: T.
    """

    units: Mapping[str, float]
    num_rows: int
    _likeness: Mapping[_Kernel, np.ndarray]  # k between rows [T, T]
    _share: Mapping[_Kernel, float]  # of k that is left when it is made positive semidefinite

    @classmethod
    def of(cls, between: Likeness, other: np.ndarray) -> "TaskKernels":
        """From distances ``[T, T]`` between rows, of which those ``other`` are of different tasks."""
        units = {name: _unit(distances, other) for name, distances in between.items()}
        units = {name: unit for name, unit in units.items() if unit > 0}
        likeness, share = {}, {}
        for kernel in {(cell.descriptors, cell.bandwidth) for cell in list_cells(units)}:
            likeness[kernel], share[kernel] = _positive(_decay(kernel, units, between, other.shape))
        return cls(units, len(other), likeness, share)

    def matrix(self, cell: Cell) -> np.ndarray:
        """Covariance ``[T, T]`` without noise."""
        return cell.constant + (1 - cell.constant) * self._likeness[cell.descriptors, cell.bandwidth]

    def to_query(self, cell: Cell, distances: Likeness) -> np.ndarray:
        """Covariance ``[T]`` with a query at those distances ``[T]``."""
        kernel = cell.descriptors, cell.bandwidth
        likeness = self._share[kernel] * _decay(kernel, self.units, distances, (self.num_rows,))
        return cell.constant + (1 - cell.constant) * likeness


def _decay(
    kernel: _Kernel, units: Mapping[str, float], distances: Likeness, shape: tuple[int, ...]
) -> np.ndarray:
    """k; 0 where a distance is not known."""
    names, bandwidth = kernel
    if not names or not all(name in distances for name in names):
        return np.zeros(shape)
    exponent = sum(distances[name] / (bandwidth * units[name]) for name in names)
    known = np.isfinite(exponent)
    return np.where(known, np.exp(-np.maximum(np.where(known, exponent, 0.0), 0.0)), 0.0)


def _positive(likeness: np.ndarray) -> tuple[np.ndarray, float]:
    """Make k ``[T, T]`` a covariance; also the share of it that is left off the diagonal.

    Distances that are not known, differ by direction or are none of a Euclidean space may leave it with
    negative eigenvalues. Then it is mixed with as much noise as makes them 0.
    """
    likeness = (likeness + likeness.T) / 2
    np.fill_diagonal(likeness, 1.0)
    try:
        np.linalg.cholesky(likeness)
    except np.linalg.LinAlgError:  # it takes a fifth of the time, and hardly ever comes to this
        share = 1 / (1 - float(np.linalg.eigvalsh(likeness).min(initial=0.0)))
        likeness *= share
        np.fill_diagonal(likeness, 1.0)
        return likeness, share
    return likeness, 1.0


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
        left_out: ``[T, C]`` predictions of every known value by other tasks, under weights from these tasks;
            0 elsewhere.
        left_out_variance: ``[T, C]`` their variance under the most likely cell, in units of its k; 1 elsewhere.
    """

    kernels: TaskKernels
    cells: list[Cell]
    weights: np.ndarray
    known: np.ndarray
    left_out: np.ndarray
    left_out_variance: np.ndarray
    _dual: np.ndarray = field(repr=False)  # [G, N] inverse covariance times values
    _whitening: list[tuple["_Batch", np.ndarray]] = field(repr=False)  # under the most likely cell

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
            tasks: ``[T]`` task of each row, as numbers from 0: rows of one task are left out together.
        """
        cells, batches = list_cells(kernels.units), _list_batches(mask, tasks)
        dual, errors = np.zeros((2, len(cells), int(mask.sum())))
        for number, cell in enumerate(cells):
            matrix = kernels.matrix(cell)
            for batch in batches:
                part = _fit_batch(matrix, cell.noise, values, batch)
                dual[number, batch.places], errors[number, batch.places] = part.dual, part.error
        weights, without = _weigh(errors**2, mask, tasks)
        left_out, variance = np.zeros(mask.shape), np.ones(mask.shape)
        left_out[mask] = values[mask] - (without[:, mask.nonzero()[0]] * errors).sum(axis=0)
        best, whitening = cells[int(np.argmax(weights))], []
        matrix = kernels.matrix(best)
        for batch in batches:
            part = _fit_batch(matrix, best.noise, values, batch)
            whitening.append((batch, part.whitening))
            variance[batch.rows[:, :, None], batch.columns[:, None, :]] = part.variance[..., None]
        return cls(kernels, cells, weights, mask, left_out, variance, dual, whitening)

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
        rows, columns = self.known.nonzero()
        parts = ((self.weights[:, None] * covariances)[:, rows] * self._dual).sum(axis=0)
        mean = np.bincount(columns, parts, minlength=self.known.shape[1])
        best = int(np.argmax(self.weights))
        variance = np.full(self.known.shape[1], 1.0 + self.cells[best].noise)
        for batch, whitening in self._whitening:
            white = whitening @ covariances[best][batch.rows][:, :, None]
            variance[batch.columns] -= (white**2).sum(axis=1)
        return mean, np.maximum(variance, self.cells[best].noise)


@dataclass(frozen=True, eq=False)
class _Batch:
    """B groups of k columns; those of a group are known in the same n rows, and every group has as many.

    Attributes:
        rows: ``[B, n]``.
        columns: ``[B, k]``.
        places: ``[B, n, k]`` of their values among the N that are known, which are in the order of rows.
        repeated: For every s above 1: groups ``[K]`` that have s rows of one task, and which of their rows
            these are ``[K, s]``.
    """

    rows: np.ndarray
    columns: np.ndarray
    places: np.ndarray
    repeated: list[tuple[np.ndarray, np.ndarray]]


def _list_batches(mask: np.ndarray, tasks: np.ndarray) -> list[_Batch]:
    """Columns that are known in the same rows need one inverse, those known in as many rows one call."""
    patterns, of_column = np.unique(mask, axis=1, return_inverse=True)
    sizes: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for number in range(patterns.shape[1]):
        rows, columns = np.flatnonzero(patterns[:, number]), np.flatnonzero(of_column == number)
        if rows.size:
            sizes[len(rows), len(columns)].append((rows, columns))
    place = np.cumsum(mask).reshape(mask.shape) - 1
    batches = []
    for (num_rows, _), groups in sizes.items():
        step = max(MAX_BATCH // num_rows**2, 1)
        for start in range(0, len(groups), step):
            rows, columns = (np.stack(part) for part in zip(*groups[start : start + step], strict=True))
            places = place[rows[:, :, None], columns[:, None, :]]
            batches.append(_Batch(rows, columns, places, _list_repeated(tasks[rows])))
    return batches


def _list_repeated(tasks: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of one task, of groups whose rows are of those ``[B, n]`` tasks: see ``_Batch.repeated``."""
    found: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for group, names in enumerate(tasks):
        order = np.argsort(names, kind="stable")
        _, starts, counts = np.unique(names[order], return_index=True, return_counts=True)
        for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
            found[int(count)].append((group, order[start : start + count]))
    return [
        (np.array([group for group, _ in pairs]), np.stack([rows for _, rows in pairs]))
        for pairs in found.values()
    ]


@dataclass(frozen=True, eq=False)
class _BatchFit:
    """One cell's view of the values of one batch."""

    whitening: np.ndarray  # [B, n, n], of which the square is the inverse covariance
    dual: np.ndarray  # [B, n, k]
    error: np.ndarray  # [B, n, k] of predicting by other tasks
    variance: np.ndarray  # [B, n] of these errors


def _fit_batch(kernel: np.ndarray, noise: float, values: np.ndarray, batch: _Batch) -> _BatchFit:
    """Leave each task out in turn, in closed form."""
    covariance = kernel[batch.rows[:, :, None], batch.rows[:, None, :]]
    np.einsum("bii->bi", covariance)[...] += noise
    whitening = _whiten(covariance)
    white = whitening @ values[batch.rows[:, :, None], batch.columns[:, None, :]]
    dual = whitening.transpose(0, 2, 1) @ white
    variance = 1 / np.einsum("bji,bji->bi", whitening, whitening)
    error = dual * variance[..., None]
    for groups, rows in batch.repeated:
        some = whitening[groups[:, None], :, rows]  # [K, s, n]
        together = np.linalg.inv(some @ some.transpose(0, 2, 1))
        error[groups[:, None], rows] = together @ dual[groups[:, None], rows]
        variance[groups[:, None], rows] = np.diagonal(together, axis1=1, axis2=2)
    return _BatchFit(whitening, dual, error, variance)


def _whiten(covariances: np.ndarray) -> np.ndarray:
    """Inverses of the lower Cholesky factors of ``[B, n, n]``: what they turn values into is white."""
    if covariances.shape[1] < LAPACK_FROM:
        return np.linalg.inv(np.linalg.cholesky(covariances))
    from scipy.linalg.lapack import dpotrf, dtrtri

    whitening = np.empty(covariances.shape)
    with one_thread():  # as of fit_prior, for what was loaded just now
        for inverse, covariance in zip(whitening, covariances, strict=True):
            upper, _ = dpotrf(
                covariance.T, overwrite_a=True
            )  # its transpose, as these want columns in one piece
            inverse[:] = dtrtri(upper, overwrite_c=True)[0].T
    return whitening


def _weigh(squares: np.ndarray, mask: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of cells ``[G]``, and those without the task of each row ``[G, T]``.

    Args:
        squares: ``[G, N]`` of errors, in the order of rows.
        mask: ``[T, C]`` where these are.
        tasks: ``[T]`` task of each row.
    """
    rows = mask.nonzero()[0]
    counts = mask.sum(axis=1)
    sums = np.stack([np.bincount(rows, square, minlength=len(mask)) for square in squares])
    loss = sums / np.maximum(counts, 1)
    used = (counts > 0).astype(np.float64)
    total, of_task = loss.sum(axis=1, keepdims=True), np.stack([np.bincount(tasks, row)[tasks] for row in loss])
    prior = np.full(len(squares), (1 - STATIC_WEIGHT) / max(len(squares) - 1, 1))
    prior[0] = STATIC_WEIGHT if len(squares) > 1 else 1.0
    weights = _likelihood_weights(total, used.sum(), prior)[:, 0]
    others = used.sum() - np.bincount(tasks, used)[tasks]
    return weights, _likelihood_weights(np.maximum(total - of_task, 0.0), others, prior)


def _likelihood_weights(loss: np.ndarray, num_rows: float | np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weights ``[G, Q]`` summing to 1 over cells, from summed losses ``[G, Q]`` over ``num_rows`` rows."""
    mean_loss = loss / np.maximum(num_rows, 1) + 1e-12
    log_weight = np.log(prior)[:, None] - 0.5 * num_rows * np.log(mean_loss)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.asarray(weight / weight.sum(axis=0))
