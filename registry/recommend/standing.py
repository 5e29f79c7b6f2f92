"""Rows of results taken apart into the level of a task and the standing of experts, each told by the other.

Axes: R rows, M experts.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from registry.recommend.facts import Features
from registry.recommend.gaussian_process import Cell, Distances, RowKernel, RowProcess, list_patterns
from registry.recommend.levels import Levels
from registry.recommend.results import Table, logit_noise, to_logit
from registry.recommend.weights import Weights, WeightSolver

SWEEPS = 4
DEFAULT_SPREAD = 0.65
"""Sd of experts about the level of a task, in log odds, before any result."""
SPREAD_PSEUDO_RESULTS = 4.0
SPREAD_PSEUDO_ROWS = 3.0
MEASUREMENT_SD = 0.002
"""Between repeated measurements of one expert on one task, in accuracy."""
MOST_NOISE = 2.0
CLIP = 4.0
"""Standings farther from 0 than this, in sd of experts, are failures to run rather than results."""

MIN_BULK, FAILURE_REACH = 8, 3.0
"""In rows of at least so many results, those so many robust sd from the middle do not widen the spread."""

SOURCE_REACH = 0.2
"""How far the source of an expert reaches, in units of the median distance of tasks."""
SOURCE_GAIN, SOURCE_GAIN_SD = 3.2, 0.3
"""What an expert gains, in sd of experts, where a task is as its source: assumed before any result."""
SOURCE_SD = 0.8
"""How far apart experts are in that."""


@dataclass(frozen=True)
class Components:
    """Variances in units of the spread of a row.

    Attributes:
        standing: What is an expert's own in all rows.
        benchmark: What is its own in a published benchmark, whose tasks and recipes are of one kind; those of a
            registry are one too.
        protocol: What is its own in a protocol.
        task: What is its own on a task.
        noise: What does not repeat.
    """

    standing: float = 0.14
    benchmark: float = 0.26
    protocol: float = 0.12
    task: float = 0.475
    noise: float = 0.005


PSEUDO_EXPERTS, PSEUDO_RESULTS = 12.0, 40.0
"""How many the assumed components count for."""
MOST_EXPERTS = 40
"""How many experts of one protocol count for components at most: a thousand networks compared on ImageNet alone
say little of how experts differ elsewhere."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of the rows of a table.

    Attributes:
        table: The results.
        tasks: ``[R]`` number of the task.
        protocols: ``[R]`` number of the way.
        num_protocols: How many ways there are.
        benchmarks: ``[R]`` name of the benchmark that a task is of, empty for tasks of a registry.
        sides: ``[R, 2]`` a number that stands for the protocol, and one for the protocol and the benchmark.
        covariates: ``[R, 3]`` NaN where not known.
        distances: ``[R, R]`` by descriptor.
        nearness: ``[R, M]`` how near a task is to the source of an expert, 0 to 1, 0 where not known.
    """

    table: Table
    tasks: np.ndarray
    protocols: np.ndarray
    num_protocols: int
    benchmarks: np.ndarray
    sides: np.ndarray
    covariates: np.ndarray
    distances: Distances
    nearness: np.ndarray

    def in_protocol(self, task: Any, protocol: Any) -> Any:
        """Number of a task in a protocol: what covariates leave of a level says nothing of other protocols."""
        return np.where(np.asarray(task) < 0, -1, np.asarray(task) * (self.num_protocols + 1) + protocol)

    @cached_property
    def at(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of every result: of thousands of experts and hundreds of rows, a few in a hundred."""
        rows, columns = np.nonzero(self.table.known)
        return rows, columns

    def means(self, values: np.ndarray) -> np.ndarray:
        """Mean ``[R]`` over each row of one value for every result; 0 of a row without any."""
        size = len(self.tasks)
        counts = np.bincount(self.at[0], minlength=size)
        return np.asarray(np.bincount(self.at[0], values, size) / np.maximum(counts, 1))

    @property
    def placed(self) -> np.ndarray:
        """``[R]`` bool: rows of tasks that have an embedding."""
        has_place = np.isfinite(self.covariates).all(axis=1)
        for values in self.distances.values():
            has_place = has_place | np.isfinite(np.diag(values))
        return np.asarray(has_place)


@dataclass(frozen=True, eq=False)
class Standing:
    """Results taken apart.

    Attributes:
        rows: The results.
        logits: ``[R, M]`` log odds of accuracies, NaN where there is none.
        level: ``[R]``.
        spread: ``[R]`` sd of experts about it.
        values: ``[R, M]`` standings less what sources give, 0 where there is no result.
        levels: What tells the level.
        weights: What attributes give.
        process: Of what attributes leave.
        components: Variances.
        source_gain: See ``SOURCE_GAIN``.
        solver: What the weights were found with.
    """

    rows: Rows
    logits: np.ndarray
    level: np.ndarray
    spread: np.ndarray
    values: np.ndarray
    levels: Levels
    weights: Weights
    process: RowProcess
    components: Components
    source_gain: float
    solver: WeightSolver


def fit_standing(rows: Rows, features: Features, usual: np.ndarray) -> Standing:
    """Fit levels and standings in turn; see the class.

    Args:
        rows: The results.
        features: Of the experts.
        usual: ``[M]`` bool: experts that say how far apart experts are; toys are all alike.
    """
    measured = rows.table.known
    logits = to_logit(rows.table.accuracy)
    spread = _spreads(np.where(usual, logits, np.nan), rows.protocols, rows.num_protocols)
    level = rows.means(logits[rows.at])
    noise = _noise(rows, logits, spread)
    components, gain, explained = Components(), SOURCE_GAIN, np.zeros(logits.shape)

    def solve(solver: WeightSolver, *, last: bool = False) -> tuple[Weights, Levels]:
        nonlocal level, gain, explained
        uncertainty = solver.covariance()
        for sweep in range(SWEEPS):
            values = _values(rows, logits, level, spread, gain, explained)
            weights = solver.solve(values, uncertainty)
            explained = weights.rows(rows.sides)
            expected = _expected(rows, solver, explained, values, components)
            level, levels = _levels(
                rows,
                logits,
                spread,
                expected,
                gain,
                components,
                likeness=last and sweep == SWEEPS - 1,
            )
            gain = _source_gain(rows, logits, level, spread, expected, components)
        return weights, levels

    def make_solver() -> WeightSolver:
        covariance = _kernel(rows, components, noise).matrix(Cell())
        return WeightSolver.of(features, list_patterns(measured), covariance, rows.sides)

    weights, _ = solve(make_solver())
    left = _values(rows, logits, level, spread, gain, explained) - explained
    components = _components(rows, np.where(measured & usual, left, np.nan), weights.uncertainty())
    solver = make_solver().learned(weights)
    weights, levels = solve(solver, last=True)
    values = _values(rows, logits, level, spread, gain, explained)
    left = np.where(measured, values - explained, 0.0)
    process = RowProcess.fit(_kernel(rows, components, noise), left, measured, rows.placed)
    return Standing(rows, logits, level, spread, values, levels, weights, process, components, gain, solver)


def usual_spread(standing: Standing, protocol: int) -> float:
    """Sd of experts on a new task of a protocol, in log odds; of all rows if the protocol has none.

    Rows of a published benchmark count as one: they compare the same few networks on data of one kind.
    """
    rows = standing.rows
    here = rows.protocols == protocol if (rows.protocols == protocol).any() else np.ones(len(rows.tasks), bool)
    logs, benchmarks = np.log(standing.spread[here]), rows.benchmarks[here]
    own = logs[benchmarks == ""]
    others = [float(logs[benchmarks == name].mean()) for name in np.unique(benchmarks).tolist() if name]
    total = float(own.sum()) + sum(others) + 2 * np.log(DEFAULT_SPREAD)
    return float(np.exp(total / (len(own) + len(others) + 2)))


def _common(rows: Rows, some: np.ndarray, components: Components) -> np.ndarray:
    """Covariance among some of the rows of an expert, whatever their tasks."""
    protocols, benchmarks = rows.protocols[some], rows.benchmarks[some]
    return np.asarray(
        components.standing
        + components.protocol * (protocols[:, None] == protocols)
        + components.benchmark * (benchmarks[:, None] == benchmarks)
    )


def _kernel(rows: Rows, components: Components, noise: np.ndarray) -> RowKernel:
    """Of the rows of an expert."""
    base = _common(rows, np.arange(len(rows.tasks)), components)
    return RowKernel.of(rows.tasks, base, components.task, components.noise + noise, rows.distances)


def _values(
    rows: Rows, logits: np.ndarray, level: np.ndarray, spread: np.ndarray, gain: float, explained: np.ndarray
) -> np.ndarray:
    """Standings ``[R, M]`` less what sources give, 0 where there is none.

    Failures are drawn in, but not nearer than what attributes explain ``[R, M]``: an expert that is expected to
    be far down has not failed.
    """
    row, at = rows.at[0], rows.at
    values = np.zeros(logits.shape)
    z = (logits[at] - level[row]) / spread[row] - gain * rows.nearness[at]
    values[at] = np.clip(z, np.minimum(-CLIP, explained[at]), np.maximum(CLIP, explained[at]))
    return values


def _expected(
    rows: Rows, solver: WeightSolver, explained: np.ndarray, values: np.ndarray, components: Components
) -> np.ndarray:
    """Standing ``[R, M]`` that is expected of the expert in such a protocol, whatever the task."""
    expected = explained.copy()
    for pattern, inverse in zip(solver.patterns, solver.inverses, strict=True):
        block = np.ix_(pattern.rows, pattern.columns)
        common = _common(rows, pattern.rows, components)
        expected[block] += common @ inverse @ (values[block] - expected[block])
    return expected


def _levels(
    rows: Rows,
    logits: np.ndarray,
    spread: np.ndarray,
    expected: np.ndarray,
    gain: float,
    components: Components,
    *,
    likeness: bool,
) -> tuple[np.ndarray, Levels]:
    """Level ``[R]`` of each row, from its results and from what is known of the task; and what tells it."""
    count = rows.table.known.sum(axis=1)
    standing = expected[rows.at] + gain * rows.nearness[rows.at]
    levels_of_rows = rows.means(logits[rows.at] - spread[rows.at[0]] * standing)
    noise = spread**2 * (components.task + components.noise + components.protocol) / np.maximum(count, 1)
    same = rows.protocols[:, None] == rows.protocols
    among = (
        {name: np.where(same, values, np.nan) for name, values in rows.distances.items()} if likeness else None
    )
    tasks = rows.in_protocol(rows.tasks, rows.protocols)
    levels = Levels.fit(
        levels_of_rows, noise, rows.protocols, rows.num_protocols, rows.covariates, tasks, among
    )
    share = levels.variance / (levels.variance + noise)
    return levels.fitted + share * (levels_of_rows - levels.fitted), levels


def _source_gain(
    rows: Rows,
    logits: np.ndarray,
    level: np.ndarray,
    spread: np.ndarray,
    expected: np.ndarray,
    components: Components,
) -> float:
    """What nearness of the source gives, by least squares beside what is assumed."""
    row, at = rows.at[0], rows.at
    z, x = (logits[at] - level[row]) / spread[row] - expected[at], rows.nearness[at]
    variance = components.task + components.noise
    precision = float((x * x).sum()) / variance + 1 / SOURCE_GAIN_SD**2
    return (float((x * np.clip(z, -CLIP, CLIP)).sum()) / variance + SOURCE_GAIN / SOURCE_GAIN_SD**2) / precision


def _components(rows: Rows, left: np.ndarray, uncertainty: np.ndarray) -> Components:
    """Variances of what attributes leave, by moments, beside what is assumed.

    Args:
        rows: The results.
        left: ``[R, M]``, NaN where not known.
        uncertainty: ``[M]`` variance of what attributes give.
    """
    assumed = Components()
    usual = assumed.task + assumed.noise
    within, freedom = PSEUDO_RESULTS * usual, PSEUDO_RESULTS
    common = assumed.standing + assumed.benchmark + assumed.protocol
    between, experts = PSEUDO_EXPERTS * common, PSEUDO_EXPERTS
    parts = []
    for protocol in range(rows.num_protocols):
        among = left[rows.protocols == protocol]
        here = np.isfinite(among)
        count = here.sum(axis=0)
        measured = count > 0
        share = min(1.0, MOST_EXPERTS / max(int(measured.sum()), 1))
        mean = np.where(here, among, 0.0).sum(axis=0) / np.maximum(count, 1)
        within += share * float((np.where(here, among - mean, 0.0) ** 2).sum())
        freedom += share * float(np.maximum(count - 1, 0).sum())
        parts.append((share, mean[measured] ** 2 + uncertainty[measured], count[measured]))
    task = within / freedom
    for share, squares, count in parts:
        between += share * max(float((squares - task / count).sum()), 0.0)
        experts += share * len(count)
    between /= experts
    return Components(
        between * assumed.standing / common,
        between * assumed.benchmark / common,
        between * assumed.protocol / common,
        task * assumed.task / usual,
        task * assumed.noise / usual,
    )


def _noise(rows: Rows, logits: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """``[R]`` variance of a measurement, in units of the spread: large where accuracies are near 0 or 1."""
    variance = (logit_noise(logits[rows.at], MEASUREMENT_SD) / spread[rows.at[0]]) ** 2
    return rows.means(np.minimum(variance, MOST_NOISE))


def _spreads(logits: np.ndarray, protocols: np.ndarray, num_protocols: int) -> np.ndarray:
    """Sd ``[R]`` of each row, shrunk to that of its protocol, which is shrunk to the usual one."""
    measured = np.isfinite(logits)
    count = measured.sum(axis=1)
    squares, freedom = (_without_failures(logits) ** 2).sum(axis=1), np.maximum(count - 1, 0)
    spread = np.zeros(len(logits))
    for protocol in range(num_protocols):
        here = protocols == protocol
        rows = here & (freedom > 0)
        logs = np.log(np.maximum(squares[rows] / np.maximum(freedom[rows], 1), 1e-4)) / 2
        weight = freedom[rows] / (freedom[rows] + SPREAD_PSEUDO_RESULTS)
        total = float((weight * logs).sum()) + SPREAD_PSEUDO_ROWS * np.log(DEFAULT_SPREAD)
        usual = float(np.exp(2 * total / (float(weight.sum()) + SPREAD_PSEUDO_ROWS)))
        pooled = squares[here] + SPREAD_PSEUDO_RESULTS * usual
        spread[here] = np.sqrt(pooled / (freedom[here] + SPREAD_PSEUDO_RESULTS))
    return spread


def _without_failures(logits: np.ndarray) -> np.ndarray:
    """Deviations ``[R, M]`` from the row's mean, 0 where not known; those far outside the bulk are drawn in."""
    off = np.zeros(logits.shape)
    for row, values in enumerate(logits):
        places = np.flatnonzero(np.isfinite(values))
        if not places.size:
            continue
        drawn_in = values[places]
        if places.size >= MIN_BULK:
            middle = np.median(drawn_in)
            reach = FAILURE_REACH * 1.4826 * float(np.median(np.abs(drawn_in - middle)))
            drawn_in = np.clip(drawn_in, middle - reach, middle + reach) if reach > 0 else drawn_in
        off[row, places] = drawn_in - drawn_in.mean()
    return off
