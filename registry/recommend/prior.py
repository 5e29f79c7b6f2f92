"""What past results say about experts on a new task: near tasks count more, few results are shrunk.

Axes: T rows of a table (a task, measured in one way), M experts.

The model. Within a row the accuracy of expert i on task u is ``level_u + spread_u * z_iu``. Standings z are a
Gaussian process over pairs of expert and task whose covariance is that of tasks
(``registry.recommend.gaussian_process``: what all tasks have in common, likeness, noise) times that of experts
(``registry.recommend.expert_covariance``). Where every expert was measured on every task, the expectation on a
new one is that of each expert by itself, so it is computed so; the covariance of experts says what a
measurement on the new task tells of the others. Without distances the expectation is the static prior, the
expert's mean standing shrunk by n/(n+1). Level and spread of the new task are predicted by processes of the
same kind. The mean function of standings falls with the distance of the expert's source task, by as much as
past results show. Source: Gaussian process with a separable covariance: Bonilla, Chai and Williams 2007, Multi-
task Gaussian process prediction, which also shows that the mean of each column stands alone. We depart in that
level and expert means are fitted together (a row in which only good experts were tried is not taken for an easy
task) and spreads of short rows are shrunk. The interval is hierarchical conformal prediction, Lee, Barber and
Willett 2023, arXiv:2306.06342: tasks, not results, are exchangeable. Its calibration set is the tasks left out
one by one rather than a split, so coverage holds as measured (in docs/benchmarks.md), not by theorem.
"""

from dataclasses import dataclass

import numpy as np

from registry.recommend.expert_covariance import ExpertCovariance, estimate_covariance
from registry.recommend.gaussian_process import Likeness, TaskKernels, TaskProcess
from registry.recommend.prediction import Prediction
from registry.recommend.results import DEFAULT_SPREAD, Normalised, ResultTable, normalise
from registry.threads import one_thread

COVERAGE = 0.9
MIN_INTERVAL_TASKS = 9
"""Fewer tasks bound no error with probability 0.9: coverage / (1 - coverage)."""

DEFAULT_LEVEL = 0.5
DEFAULT_LEVEL_SD = 0.25
"""What is assumed of a task's mean accuracy before any result."""
UNMEASURED_PENALTY = 0.25
"""How far below the average, in sd of experts, one starts that was never measured."""
MAX_SOURCE_SHIFT = 2.0
"""Most that the distance of its source moves an expert, in sd of experts."""


@dataclass(frozen=True)
class _SourceSlope:
    """How the standing of an expert falls with the distance of its source task.

    Distances are centred within a task over its measured experts, as standings are.
    """

    slope: float = 0.0  # sd of experts per unit of distance, never positive

    @classmethod
    def of(cls, source: np.ndarray | None, normal: Normalised) -> "_SourceSlope":
        """Least squares, shrunk by its standard error over tasks (positive-part James-Stein)."""
        if source is None:
            return cls()
        known = normal.mask & np.isfinite(source)
        x = _centred(source, known)
        z = _centred(normal.z, known)
        power = float((x * x).sum())
        if power <= 1e-12 * float((np.where(known, source, 0.0) ** 2).sum()):  # rounding, or nothing at all
            return cls()
        slope = float((x * z).sum()) / power
        scores = (x * (z - slope * x)).sum(axis=1)
        variance = float(scores @ scores) / power**2
        rows = int((known.sum(axis=1) > 1).sum())
        if slope >= 0 or rows < 2:
            return cls()
        return cls(slope * max(0.0, 1.0 - variance * rows / (rows - 1) / slope**2))

    def prior(self, source: np.ndarray | None, others: np.ndarray) -> np.ndarray:
        """Where experts start before their own results.

        Args:
            source: ``[Q, M]`` distance from the expert's source task, NaN where not known.
            others: ``[Q, M]`` results of the expert that may be used.

        Returns:
            ``[Q, M]`` in sd of experts.
        """
        measured = others > 0
        start = np.where(measured | ~measured.any(axis=1, keepdims=True), 0.0, -UNMEASURED_PENALTY)
        if source is None:
            return start
        known = np.isfinite(source)
        anchor = np.where((known & measured).any(axis=1, keepdims=True), known & measured, known)
        shift = self.slope * np.where(known, _deviation(source, anchor), 0.0)
        return np.asarray(start + np.clip(shift, -MAX_SOURCE_SHIFT, MAX_SOURCE_SHIFT))


def _deviation(values: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """Values less their row's mean over ``anchor``; 0 for values that are not finite."""
    finite = np.where(np.isfinite(values), values, 0.0)
    count = np.maximum(anchor.sum(axis=1, keepdims=True), 1)
    return np.asarray(finite - np.where(anchor, finite, 0.0).sum(axis=1, keepdims=True) / count)


def _centred(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values less their row's mean over ``known``, 0 elsewhere."""
    return np.where(known, _deviation(values, known), 0.0)


@dataclass(frozen=True, eq=False)
class Prior:
    """A fitted model of past results.

    Attributes:
        table: What it was fitted on.
        num_tasks: Tasks with a result in the reference way.
        static: ``[M]`` the static prior: mean standing over all tasks, shrunk by n/(n+1).
        counts: ``[M]`` rows in which the expert has a result.
        quantile: Half-width of the 90% interval in sd; infinite with fewer than 9 tasks.
        left_out: ``[T, M]`` every result as predicted by rows of other tasks, NaN where there is none.
    """

    table: ResultTable
    num_tasks: int
    static: np.ndarray
    counts: np.ndarray
    quantile: float
    left_out: np.ndarray
    _slope: _SourceSlope
    _standings: TaskProcess
    _rows: TaskProcess
    _errors: "_Errors"
    _centre: np.ndarray

    @property
    def static_weight(self) -> float:
        """Weight of the static prior among the cells, 0 to 1: high where distances say little."""
        return self._standings.static_weight

    def predict(self, to_query: Likeness | None = None, source: np.ndarray | None = None) -> Prediction:
        """Expected accuracy of every expert on a new task.

        Args:
            to_query: ``[T]`` distance from each row's task to the new one, by descriptor; NaN where not known.
            source: ``[M]`` distance from each expert's source task to the new one, NaN where not known.

        Returns:
            Means and errors in the order of ``table.experts``.
        """
        distances = to_query or {}
        shift = self._slope.prior(None if source is None else np.atleast_2d(source), self.counts[None])[0]
        standing, variance = self._standings.predict(distances)
        (level, log_spread), _ = self._rows.predict(distances)
        spread = float(np.exp(log_spread + self._centre[1]))
        deviation_sd = spread * self._errors.scale * np.sqrt(variance)
        return Prediction(
            mean=level + self._centre[0] + spread * (standing + shift),
            covariance=deviation_sd[:, None] * self._errors.experts.matrix * deviation_sd,
            level_sd=self._errors.level_sd,
        )


@dataclass(frozen=True, eq=False)
class _Errors:
    """How far predictions of tasks left out were off.

    Attributes:
        scale: Root mean square error of a standing, in units of the process's sd, with one assumed task more.
        experts: Covariance of these errors, in units of ``scale``.
        level_sd: Of the error of a level, in accuracy.
    """

    scale: float
    experts: ExpertCovariance
    level_sd: float

    @classmethod
    def of(cls, misses: np.ndarray, variance: np.ndarray, level_misses: np.ndarray) -> "_Errors":
        """From errors of standings in sd of the process, its variance, and errors of levels.

        What is assumed of each counts as one task, so that a few which happen to be alike do not make the next
        one certain: of a standing the variance 1 that z-scores have, of a level ``DEFAULT_LEVEL_SD``.

        Args:
            misses: ``[T, M]``, NaN where there is none.
            variance: ``[T, M]``, in units of the process.
            level_misses: One for each row in the reference way.
        """
        known = np.isfinite(misses)
        num_rows = int(known.any(axis=1).sum())
        scale = 1.0
        if num_rows:
            squares = num_rows * float(np.mean(misses[known] ** 2)) + 1 / float(np.mean(variance[known]))
            scale = float(np.sqrt(squares / (num_rows + 1)))
        squares = float(level_misses @ level_misses) + DEFAULT_LEVEL_SD**2
        level_sd = float(np.sqrt(squares / (len(level_misses) + 1)))
        return cls(scale, estimate_covariance(misses / scale), level_sd)


def fit_prior(table: ResultTable, between: Likeness | None = None, source: np.ndarray | None = None) -> Prior:
    """Fit the model of past results.

    Every row is predicted by the rows of other tasks; these predictions choose the weights of the grid
    and set the errors. An expert's results on its own source task must have been left out of the table.

    Args:
        table: Past results.
        between: ``[T, T]`` distance from the task of a row to the task of a column, by descriptor, NaN where
            not known.
        source: ``[M, T]`` distance from the source task of an expert to the task of a row, likewise.

    Returns:
        The fitted prior. It cannot tell tasks apart without ``between``, and then is the static prior.
    """
    with one_thread():  # many small matrices: threads would wait for each other
        return _fit(table, between or {}, source)


def _fit(table: ResultTable, between: Likeness, source: np.ndarray | None) -> Prior:
    """``fit_prior`` on one thread."""
    normal = normalise(table.accuracy)
    mask, counts = normal.mask, normal.mask.sum(axis=0)
    _, tasks = np.unique(np.asarray(table.tasks, dtype=str), return_inverse=True)
    other = tasks[:, None] != tasks[None, :]
    kernels = TaskKernels.of(between, other)
    to_rows = None if source is None else source.T
    slope = _SourceSlope.of(to_rows, normal)
    shift = slope.prior(to_rows, other.T.astype(np.float64) @ mask)
    standings = TaskProcess.fit(kernels, np.where(mask, normal.z - shift, 0.0), mask, tasks)
    rows, centre, row_values = _fit_rows(table, normal, kernels, tasks)

    used = np.asarray(rows.known.any(axis=1))
    z, sd = standings.left_out + shift, np.sqrt(standings.left_out_variance)
    misses = np.where(mask, (normal.z - z) / sd, np.nan)
    errors = _Errors.of(misses, standings.left_out_variance, (normal.level - row_values[:, 0])[used])
    spread = np.exp(row_values[:, 1:])
    left_out = np.where(mask, row_values[:, :1] + spread * z, np.nan)
    total_sd = np.hypot(spread * errors.scale * errors.experts.scale * sd, errors.level_sd)
    scores = np.where(used[:, None], np.abs(table.accuracy - left_out) / total_sd, np.nan)
    return Prior(
        table=table,
        num_tasks=len({task for task, is_used in zip(table.tasks, used, strict=True) if is_used}),
        static=normal.z.sum(axis=0) / (counts + 1),
        counts=counts,
        quantile=conformal_quantile(scores),
        left_out=left_out,
        _slope=slope,
        _standings=standings,
        _rows=rows,
        _errors=errors,
        _centre=centre,
    )


def _fit_rows(
    table: ResultTable, normal: Normalised, kernels: TaskKernels, tasks: np.ndarray
) -> tuple[TaskProcess, np.ndarray, np.ndarray]:
    """Fit level and log spread of rows measured in the reference way.

    Returns:
        The process of the two, less their means; the means ``[2]``; and both of every row ``[T, 2]`` as
        predicted by other tasks.
    """
    used = table.reference_rows & normal.mask.any(axis=1)
    values = np.stack([normal.level, np.log(normal.spread)], axis=1)
    centre = values[used].mean(axis=0) if used.any() else np.array([DEFAULT_LEVEL, np.log(DEFAULT_SPREAD)])
    mask = np.repeat(used[:, None], 2, axis=1)
    process = TaskProcess.fit(kernels, np.where(mask, values - centre, 0.0), mask, tasks)
    return process, centre, process.left_out + centre


def conformal_quantile(scores: np.ndarray, coverage: float = COVERAGE) -> float:
    """Bound that the score of a result on a new task stays under with probability ``coverage``.

    Args:
        scores: ``[T, M]`` errors in sd, NaN where there is none. Rows are exchangeable; the entries of
            a row share its weight, and the new task has the weight of one row at infinity.
        coverage: 0 to 1.

    Returns:
        The bound; infinite if there are fewer than coverage / (1 - coverage) rows.
    """
    known = np.isfinite(scores)
    rows = known.any(axis=1)
    share = np.broadcast_to(1.0 / np.maximum(known.sum(axis=1, keepdims=True), 1), scores.shape)[known]
    order = np.argsort(scores[known], kind="stable")
    mass = np.cumsum(share[order]) / (rows.sum() + 1)
    enough = np.flatnonzero(mass >= coverage - 1e-9)
    return float(scores[known][order][enough[0]]) if enough.size else float("inf")
