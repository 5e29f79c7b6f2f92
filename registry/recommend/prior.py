"""What past results say about experts on a new task.

Within a row of results (a task, measured in one way) the log odds of the accuracy of expert i are
``level + spread * standing_i``. Level: ``registry.recommend.levels``. Standing: what attributes give
(``weights``), nearness of the expert's source, and a Gaussian process over the rows of the expert
(``gaussian_process``): what all its rows have in common, what those of a protocol have, what near tasks have.

Intervals are calibrated by leaving out: tasks, for experts that were measured; experts, for those that were
not.

Source:
    Linear mixed model with known components: Henderson 1975. Intervals: hierarchical conformal prediction, Lee,
    Barber and Willett 2023, arXiv:2306.06342, with tasks (or experts) left out one by one in place of a split,
    and with some assumed errors of Gaussian shape, so that few tasks give usual intervals rather than none.

Axes: R rows, M experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np

from registry.caching import LastAnswers
from registry.recommend.calibration import Calibration, calibrate
from registry.recommend.facts import ExpertFacts, make_features
from registry.recommend.gaussian_process import Distances
from registry.recommend.levels import TaskFacts, covariates
from registry.recommend.prediction import Prediction
from registry.recommend.results import Table, Way
from registry.recommend.standing import (
    SOURCE_REACH,
    SOURCE_SD,
    Rows,
    Standing,
    fit_standing,
    usual_spread,
)

SOURCE_DESCRIPTOR = "domain"
"""What distances from source tasks are told in."""


FOREIGN_LEVEL_SD = 0.5
"""Error of the level of experts in use, in log odds, where only toys or none were measured in a protocol."""


@dataclass(frozen=True, eq=False)
class Asked:
    """The row that is asked for.

    Attributes:
        way: Metric and protocol.
        facts: What is known of the task.
        distances: ``[R]`` from each row's task, by descriptor; NaN where not known.
        source: ``[M]`` distance from each expert's source task, NaN where not known.
        task: Its name where the table has results of it (in other ways), or empty.
    """

    way: Way
    facts: TaskFacts
    distances: Distances
    source: np.ndarray
    task: str = ""


@dataclass(frozen=True, eq=False)
class Prior:
    """A fitted model of past results.

    Attributes:
        table: What it was fitted on.
        ways: By number.
        sides: Numbers of ways, and of ways and benchmarks.
        standing: Levels and standings.
        calibration: How far predictions of what was left out were off.
        counts: ``[M]`` rows in which the expert has a result.
        usual: ``[M]`` bool: experts that are no toys, or all of them if there are only toys.
    """

    table: Table
    ways: tuple[Way, ...]
    sides: Mapping[Way | tuple[Way, str], int]
    standing: Standing
    calibration: Calibration
    counts: np.ndarray
    usual: np.ndarray
    _source_unit: float

    @property
    def static(self) -> np.ndarray:
        """``[M]`` mean standing over all rows, shrunk by n/(n+1)."""
        standing = self.standing
        z = np.where(
            self.table.known, (standing.logits - standing.level[:, None]) / standing.spread[:, None], 0.0
        )
        return np.asarray(z.sum(axis=0) / (self.counts + 1))

    def predict(self, asked: Asked, places: np.ndarray | None = None) -> Prediction:
        """Expected log odds of experts on the task that is asked about.

        Args:
            asked: The row that is asked for.
            places: Of the experts that may be recommended, and their order; all if ``None``.
        """
        standing, rows = self.standing, self.standing.rows
        protocol = self.ways.index(asked.way) if asked.way in self.ways else len(self.ways)
        here = (rows.protocols == protocol).astype(np.float64)
        sides = self.sides.get(asked.way, -1), self.sides.get((asked.way, ""), -1)
        task = _task_number(rows, asked.task)
        parts = standing.components
        base = parts.standing + parts.protocol * here + parts.benchmark * (rows.benchmarks == "")
        own = parts.standing + parts.protocol + parts.benchmark
        more = standing.process.predict(base, own, task, asked.distances)
        nearness = source_nearness(asked.source, self._source_unit)
        z = standing.weights.of_sides(sides) + more.mean + standing.source_gain * nearness
        chosen = np.arange(len(z)) if places is None else places
        variance = more.variance + (SOURCE_SD * nearness) ** 2
        loadings = standing.weights.loadings(
            sides, more.gains.sum(axis=0), (more.gains * here[:, None]).sum(axis=0)
        )[chosen]
        covariance = _deviations(self.calibration, variance, parts.noise, chosen)
        among = {name: np.where(here > 0, values, np.nan) for name, values in asked.distances.items()}
        level, level_variance = standing.levels.predict(
            covariates([asked.facts])[0], protocol, int(rows.in_protocol(task, protocol)), among
        )
        if not (self.usual & self.table.known[rows.protocols == protocol].any(axis=0)).any():
            level_variance += FOREIGN_LEVEL_SD**2
        spread = usual_spread(standing, protocol)
        quantile = np.where(self.counts > 0, self.calibration.measured, self.calibration.unmeasured)
        return Prediction(
            logit=level + spread * z[chosen],
            covariance=spread**2 * (covariance + loadings @ loadings.T),
            level_sd=float(np.sqrt(level_variance)),
            quantile=quantile[chosen],
            measured=np.full(len(chosen), np.nan),
        )


def fit_prior(
    table: Table,
    experts: Sequence[ExpertFacts],
    facts: Mapping[str, TaskFacts],
    between: Distances | None = None,
    source: np.ndarray | None = None,
) -> Prior:
    """Fit the model of past results.

    Args:
        table: Past results; columns in the order of ``experts``.
        experts: What is known of each.
        facts: What is known of tasks, by name; those without are tasks without data.
        between: ``[R, R]`` distance between the tasks of rows, by descriptor, NaN where not known.
        source: ``[M, R]`` distance from the source task of an expert to the task of a row, likewise.
    """
    kept = table.known.sum(axis=1) > 0
    placed = np.isfinite(covariates([facts.get(task) for task in table.tasks])).all(axis=1)
    kept &= placed | (table.known.sum(axis=1) > 1)  # one result of an unknown level says nothing
    table = table.rows(kept)
    distances = {name: values[np.ix_(kept, kept)] for name, values in (between or {}).items()}
    reach = np.full((len(experts), len(kept)), np.nan) if source is None else source
    unit = source_unit(distances.get(SOURCE_DESCRIPTOR, reach))
    ways = tuple(sorted(set(table.ways)))
    benchmarks = [_benchmark(task, facts) for task in table.tasks]
    pairs = list(zip(table.ways, benchmarks, strict=True))
    sides: dict[Way | tuple[Way, str], int] = {way: number for number, way in enumerate(ways)}
    sides |= {pair: len(ways) + number for number, pair in enumerate(sorted(set(pairs)))}
    rows = Rows(
        table=table,
        tasks=np.unique(np.asarray(table.tasks, dtype=str), return_inverse=True)[1].reshape(-1),
        protocols=np.array([ways.index(way) for way in table.ways], dtype=np.intp),
        num_protocols=len(ways) + 1,
        benchmarks=np.array(benchmarks, dtype=str),
        sides=np.array([(sides[pair[0]], sides[pair]) for pair in pairs], dtype=np.intp).reshape(-1, 2),
        covariates=covariates([facts.get(task) for task in table.tasks]),
        distances=distances,
        nearness=source_nearness(reach[:, kept].T, unit),
    )
    toys = np.array([expert.toy for expert in experts], dtype=bool)
    usual = np.ones(len(experts), bool) if toys.all() else ~toys
    standing = fit_standing(rows, make_features(experts), usual)
    counts = table.known.sum(axis=0)
    return Prior(table, ways, sides, standing, calibrate(standing, usual), counts, usual, unit)


def _benchmark(task: str, facts: Mapping[str, TaskFacts]) -> str:
    """The benchmark in ``BENCHMARK.TASK``, as tasks without data are named; empty for tasks of the registry."""
    name, dot, _ = task.partition(".")
    return name if dot and task not in facts else ""


def source_unit(distances: np.ndarray) -> float:
    """Median of the known distances between tasks; 0 if there are none."""
    apart = distances[np.isfinite(distances) & (distances > 1e-9)]
    return float(np.median(apart)) if apart.size else 0.0


def source_nearness(source: np.ndarray, unit: float) -> np.ndarray:
    """How near tasks are to the source of an expert, 0 to 1; 0 where not known."""
    if unit <= 0:
        return np.zeros(np.shape(source))
    is_finite = np.isfinite(source)
    distance = np.where(is_finite, np.maximum(np.where(is_finite, source, 0.0), 0.0), np.inf)
    return np.asarray(np.exp(-distance / (SOURCE_REACH * unit)))


def _task_number(rows: Rows, name: str) -> int:
    """Number of a task among the rows, -1 if there is none of that name."""
    places = [place for place, task in enumerate(rows.table.tasks) if name and task == name]
    return int(rows.tasks[places[0]]) if places else -1


def _deviations(calibration: Calibration, variance: np.ndarray, noise: float, places: np.ndarray) -> np.ndarray:
    """Covariance ``[m, m]`` of what is each expert's own, of the experts at some places."""
    sd = np.sqrt(variance + noise)
    sd[calibration.columns] *= calibration.experts.scale
    covariance = np.diag(sd[places] ** 2)
    where = {int(column): number for number, column in enumerate(calibration.columns)}
    here = np.array([number for number, place in enumerate(places) if int(place) in where], dtype=np.intp)
    if here.size:
        there = np.array([where[int(places[number])] for number in here])
        among = sd[places[here]]
        correlation = calibration.experts.correlation[np.ix_(there, there)]
        covariance[np.ix_(here, here)] = among[:, None] * correlation * among
    return covariance


class PriorFiles(Protocol):
    """Where fitted models are kept by a digest of what they were fitted to."""

    def load(self, key: bytes) -> Prior | None:
        """A model, if it is there."""

    def save(self, key: bytes, prior: Prior) -> None:
        """Leave a model."""


_KEPT = LastAnswers(4)
"""The models last fitted: a server is asked about many tasks in a row, with the same results."""


def kept_prior(
    table: Table,
    experts: Sequence[ExpertFacts],
    facts: Mapping[str, TaskFacts],
    between: Distances,
    source: np.ndarray,
    files: PriorFiles | None = None,
) -> Prior:
    """``fit_prior``, or what it returned for the same inputs, here or to a process that left it in files."""
    key = _digest(table, experts, facts, between, source)

    def make() -> Prior:
        if files and (prior := files.load(key)):
            return prior
        prior = fit_prior(table, experts, facts, between, source)
        if files:
            files.save(key, prior)
        return prior

    return _KEPT.get(key, make)


def _digest(
    table: Table,
    experts: Sequence[ExpertFacts],
    facts: Mapping[str, TaskFacts],
    between: Distances,
    source: np.ndarray,
) -> bytes:
    """What tells inputs apart."""
    words = (
        table.tasks,
        table.ways,
        tuple(experts),
        tuple(sorted(facts.items(), key=lambda it: it[0])),
        sorted(between),
    )
    digest = blake2b(repr(words).encode(), digest_size=16)
    for array in (table.accuracy, source, *(between[name] for name in sorted(between))):
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
