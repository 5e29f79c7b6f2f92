"""What past results say about experts on a new task: near tasks count more, few results are shrunk.

Axes: T rows of a table (a task, measured in one way), M experts, Q targets (rows held out, or the one
query), S scenarios.

The model. Within a row the accuracy of expert i on task u is ``level_u + spread_u * z_iu``. For a new
task t, ``z_it`` is the mean of the expert's ``z_iu`` weighted by ``exp(-(d(u->t) - d0) / tau)``, shrunk by
``kappa`` pseudo-results towards the static prior, the expert's mean over all tasks, which is itself
shrunk by n/(n+1). Level and spread of the new task are predicted by the same formula. ``tau`` and
``kappa`` are not picked but averaged over a grid, each cell weighted by how well it predicts tasks left
out. Half of the weight before seeing any result is on the static prior, which is the cell of infinite
``kappa``: where distances say nothing the answer stays static.

Source:
    The kernel-weighted, shrunk mean is the recommender of docs/method.md. We depart from plain z-scores
    in that level and expert means are fitted together (a row in which only good experts were tried is not
    taken for an easy task) and spreads of short rows are shrunk. The interval is hierarchical conformal
    prediction, Lee, Barber and Willett 2023, arXiv:2306.06342: tasks, not results, are exchangeable. Its
    calibration set is the tasks left out one by one rather than a split, so coverage holds as measured (in
    docs/benchmarks.md), not by theorem.
"""

from dataclasses import dataclass

import numpy as np

from registry.kernel_average import Columns, Kernel
from registry.result_table import DEFAULT_SPREAD, MIN_SPREAD, Normalised, ResultTable, normalise

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
MIN_SCENARIOS = 256


@dataclass(frozen=True, eq=False)
class Prediction:
    """Expected accuracies on one new task, before clipping to 0..1.

    The accuracy of expert i is ``level + deviation_i``: the error of the level is common to all experts
    and decides nothing between them, the errors of the deviations do.

    Attributes:
        mean: ``[M]``.
        deviation_sd: ``[M]``, positive: standard deviation of the error of the deviation.
        level_sd: Standard deviation of the error of the level.
        sd: ``[M]``, positive: of the whole error.
    """

    mean: np.ndarray
    deviation_sd: np.ndarray
    level_sd: float
    sd: np.ndarray


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


@dataclass(frozen=True)
class _Errors:
    """How far predictions of tasks left out were off."""

    within: float  # variance of standings about a well-known expert's prediction
    between: float  # variance of true means between experts
    level_sd: float  # in accuracy

    def standing_sd(self, results: np.ndarray) -> np.ndarray:
        """Standard deviation of the error of a standing after so many results of the expert."""
        return np.asarray(np.sqrt(self.within + self.between / (results + 1.0)))

    @classmethod
    def of(
        cls, misses: np.ndarray, results: np.ndarray, static: np.ndarray, level_misses: np.ndarray
    ) -> "_Errors":
        """From errors of standings ``[n]`` after so many ``results`` ``[n]``, and errors of levels.

        With too little to estimate one, a standing has variance 1, as z-scores do.
        """
        between = float(np.var(static)) if len(static) > 1 else 1.0
        within = 1.0
        if len(misses) > 1:
            total = float(np.mean(misses**2))
            # at least a quarter of the error is not for want of results
            within = max(total - between * float(np.mean(1.0 / (results + 1.0))), 0.25 * total, 1e-6)
        level_sd = DEFAULT_LEVEL_SD
        if len(level_misses) > 1:
            level_sd = max(float(np.sqrt(np.mean(level_misses**2))), MIN_SPREAD)
        return cls(within, between, level_sd)


@dataclass(frozen=True, eq=False)
class Prior:
    """A fitted model of past results.

    Attributes:
        table: What it was fitted on.
        num_tasks: Tasks with a result in the reference way.
        static: ``[M]`` the static prior: mean standing over all tasks, shrunk by n/(n+1).
        counts: ``[M]`` rows in which the expert has a result.
        quantile: Half-width of the 90% interval in sd; infinite with fewer than 9 tasks.
        held_out: Predictions ``[T, M]`` of every row by rows of other tasks.
        scenarios: ``[S, M]`` errors of deviations in sd as past tasks had them, mean 0 for each expert.
    """

    table: ResultTable
    num_tasks: int
    static: np.ndarray
    counts: np.ndarray
    quantile: float
    held_out: np.ndarray
    scenarios: np.ndarray
    _kernel: Kernel
    _slope: _SourceSlope
    _standings: Columns
    _rows: Columns
    _errors: _Errors
    _centre: np.ndarray

    @property
    def static_weight(self) -> float:
        """Weight of the static prior among the cells, 0 to 1: high where distances say little."""
        return float(self._standings.cell_weights[0])

    def predict(self, to_query: np.ndarray | None = None, source: np.ndarray | None = None) -> Prediction:
        """Expected accuracy of every expert on a new task.

        Args:
            to_query: ``[T]`` distance from each row's task to the new one, NaN where not known.
            source: ``[M]`` distance from each expert's source task to the new one, NaN where not known.

        Returns:
            Means and errors in the order of ``table.experts``.
        """
        flat = np.ones((1, len(self.table.tasks)))
        kernels = [] if to_query is None else self._kernel.weights(np.atleast_2d(to_query))
        if not kernels:  # without distances every cell is the static one
            kernels = [np.zeros_like(flat)] * len(self._kernel.taus)
        prior = self._slope.prior(None if source is None else np.atleast_2d(source), self.counts[None])
        standing = self._standings.predict(flat, kernels, prior)[0]
        level, log_spread = self._rows.predict(flat, kernels, np.zeros((1, 2)))[0] + self._centre
        spread = float(np.exp(log_spread))
        deviation_sd = spread * self._errors.standing_sd(self.counts)
        level_sd = self._errors.level_sd
        return Prediction(
            level + spread * standing, deviation_sd, level_sd, np.sqrt(deviation_sd**2 + level_sd**2)
        )


def fit_prior(table: ResultTable, between: np.ndarray | None = None, source: np.ndarray | None = None) -> Prior:
    """Fit the model of past results.

    Every row is predicted by the rows of other tasks; these predictions choose the weights of the grid
    and set the errors. An expert's results on its own source task must have been left out of the table.

    Args:
        table: Past results.
        between: ``[T, T]`` distance from the task of a row to the task of a column, NaN where not known.
        source: ``[M, T]`` distance from the source task of an expert to the task of a row, likewise.

    Returns:
        The fitted prior. It cannot tell tasks apart without ``between``, and then is the static prior.
    """
    normal = normalise(table.accuracy)
    names = np.asarray(table.tasks, dtype=object)
    other = names[:, None] != names[None, :]
    other = np.asarray(other, dtype=bool).reshape(len(names), len(names))
    kernel = Kernel.of(between, other)
    flat = other.T.astype(np.float64)
    kernels = [] if between is None else [weights * flat for weights in kernel.weights(between.T)]
    others = flat @ normal.mask
    to_rows = None if source is None else source.T
    slope = _SourceSlope.of(to_rows, normal)
    standings = Columns(normal.z, normal.mask, pseudo_results=1.0)
    standings, z = standings.fit(standings.cells(flat, kernels, slope.prior(to_rows, others)))
    rows, centre, row_values = _fit_rows(table, normal, flat, kernels)
    held_out = row_values[:, :1] + np.exp(row_values[:, 1:]) * z

    mask, counts = normal.mask, normal.mask.sum(axis=0)
    static = normal.z.sum(axis=0) / (counts + 1)
    used = rows.mask[:, 0]
    errors = _Errors.of(
        (normal.z - z)[mask], others[mask], static[counts > 0], (normal.level - row_values[:, 0])[used]
    )
    standing_sd = errors.standing_sd(others)
    sd = np.hypot(np.exp(row_values[:, 1:]) * standing_sd, errors.level_sd)
    scores = np.where(mask & used[:, None], np.abs(table.accuracy - held_out) / sd, np.nan)
    misses = np.where(mask, (normal.z - z) / standing_sd, np.nan)
    return Prior(
        table=table,
        num_tasks=len({task for task, is_used in zip(table.tasks, used, strict=True) if is_used}),
        static=static,
        counts=counts,
        quantile=conformal_quantile(scores),
        held_out=held_out,
        scenarios=_scenarios(misses),
        _kernel=kernel,
        _slope=slope,
        _standings=standings,
        _rows=rows,
        _errors=errors,
        _centre=centre,
    )


def _fit_rows(
    table: ResultTable, normal: Normalised, flat: np.ndarray, kernels: list[np.ndarray]
) -> tuple[Columns, np.ndarray, np.ndarray]:
    """Fit level and log spread of rows measured in the reference way.

    Returns:
        The two columns, less their means; the means ``[2]``; and both of every row ``[T, 2]`` as
        predicted by other tasks.
    """
    used = table.reference_rows & normal.mask.any(axis=1)
    values = np.stack([normal.level, np.log(normal.spread)], axis=1)
    centre = values[used].mean(axis=0) if used.any() else np.array([DEFAULT_LEVEL, np.log(DEFAULT_SPREAD)])
    mask = np.repeat(used[:, None], 2, axis=1)
    columns = Columns(np.where(mask, values - centre, 0.0), mask, pseudo_results=0.0)
    columns, held_out = columns.fit(columns.cells(flat, kernels, np.zeros((len(values), 2))))
    return columns, centre, held_out + centre


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


def _scenarios(misses: np.ndarray) -> np.ndarray:
    """Whole rows of errors as they fell on past tasks, so that experts that err together still do.

    Args:
        misses: ``[T, M]`` errors in sd, NaN where there is none: there a normal draw of a fixed seed
            stands in, and rows are repeated so that it is drawn often enough.

    Returns:
        ``[S, M]``, S at least ``MIN_SCENARIOS``, with mean 0 in every column.
    """
    if not len(misses):
        misses = np.full((1, misses.shape[1]), np.nan)
    repeated = np.tile(misses, (-(-MIN_SCENARIOS // len(misses)), 1))
    draws = np.random.default_rng(0).standard_normal(repeated.shape)
    errors = np.where(np.isfinite(repeated), repeated, draws)
    return np.asarray(errors - errors.mean(axis=0))


def condition(prediction: Prediction, measured: np.ndarray, noise_sd: float) -> Prediction:
    """Fold in what was measured on the new task itself.

    Gaussian conditioning under covariance ``level_sd^2 + diag(deviation_sd^2)``, in closed form: one
    measured expert moves the level of all, and its own deviation.

    Args:
        prediction: What was expected.
        measured: ``[M]`` accuracies on the new task, NaN where there is none.
        noise_sd: Of one measurement, in accuracy, positive.

    Returns:
        What is expected now.
    """
    known = np.isfinite(measured)
    own, noise = prediction.deviation_sd**2, noise_sd**2
    surprise = np.where(known, np.where(known, measured, 0.0) - prediction.mean, 0.0)
    precision = np.where(known, 1.0 / (own + noise), 0.0)
    level_variance = 1.0 / (1.0 / prediction.level_sd**2 + precision.sum())
    shift = level_variance * float(precision @ surprise)
    kept = np.where(known, noise / (own + noise), 1.0)  # of what was not known of the deviation
    mean = prediction.mean + shift + (1 - kept) * np.where(known, surprise - shift, 0.0)
    deviation_variance = own * kept
    return Prediction(
        mean,
        np.sqrt(deviation_variance),
        float(np.sqrt(level_variance)),
        np.sqrt(deviation_variance + kept**2 * level_variance),
    )
