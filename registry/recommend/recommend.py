"""Which expert to start from: past results and distances in, ranked experts with intervals out.

The model of past results is ``registry.recommend.prior``; here its inputs are put together and its answer is
written out beside the baselines.

Axes: T rows of the result table, M experts, U tasks with known distances.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from registry.answers import (
    Baseline,
    Evidence,
    EvidenceNeighbor,
    Query,
    Recommendation,
    RecommendedExpert,
    TrialScores,
)
from registry.errors import InvalidRecordError
from registry.recommend.prediction import Prediction, condition, expected_regret
from registry.recommend.prior import MIN_INTERVAL_TASKS, Prior
from registry.recommend.prior_cache import kept_prior
from registry.recommend.results import Gathered, gather, with_given
from registry.recommend.trials import Tried, Trier
from registry.records import ExpertRecord, ResultRecord

MEASUREMENT_SD = 0.01
"""Between repeated measurements of one expert on one task, in accuracy."""
NUM_EVIDENCE_NEIGHBORS = 3
MOST_NAMED = 5
"""Experts in one warning."""


@dataclass(frozen=True, eq=False)
class TaskDistances:
    """What is known of the likeness of tasks; what is not known is NaN or left out.

    Attributes:
        tasks: Names of U tasks: those with results, and the sources of experts.
        matrix: ``[U, U]`` distance from the task of the row to the task of the column.
        to_query: ``[U]`` distance from each task to the query.
    """

    tasks: tuple[str, ...]
    matrix: np.ndarray
    to_query: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            InvalidRecordError: If the arrays do not fit the names, or a name comes twice.
        """
        size = len(self.tasks)
        if len(set(self.tasks)) != size:
            raise InvalidRecordError("task distances: every task must be named once")
        for name, expected in (("matrix", (size, size)), ("to_query", (size,))):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != expected:
                raise InvalidRecordError(
                    f"task distances: {name} must have shape {expected}, got {values.shape}"
                )
            object.__setattr__(self, name, values)

    def between(self, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """Distances ``[len(sources), len(targets)]``, NaN where not known."""
        padded = np.pad(self.matrix, ((0, 1), (0, 1)), constant_values=np.nan)
        return np.asarray(padded[np.ix_(self._places(sources), self._places(targets))])

    def from_tasks(self, sources: Sequence[str]) -> np.ndarray:
        """Distances to the query ``[len(sources)]``, NaN where not known."""
        return np.asarray(np.append(self.to_query, np.nan)[self._places(sources)])

    def _places(self, names: Sequence[str]) -> np.ndarray:
        """Place of each name; U, which holds NaN, for a name that is not there."""
        place = {name: number for number, name in enumerate(self.tasks)}
        return np.array([place.get(name, len(self.tasks)) for name in names], dtype=np.intp)


def recommend(
    query: Query,
    experts: Iterable[ExpertRecord],
    results: Iterable[ResultRecord],
    *,
    k: int = 5,
    distances: TaskDistances | None = None,
    descriptors: Mapping[str, TaskDistances] | None = None,
    source_distances: TaskDistances | None = None,
    given: Mapping[str, float] | None = None,
    trier: Trier | None = None,
) -> Recommendation:
    """Rank experts by expected accuracy on the query.

    Ties, and experts of which nothing is known, go by distance of the source task, then accuracy on it,
    then the larger expert, then name. The order of the inputs does not matter.

    Args:
        query: What is asked about. If it is a registered task (``version`` from 1) its own results count.
        experts: Candidates, already filtered. Results of other experts are not looked at.
        results: Everything measured.
        k: Most experts to return.
        distances: Between tasks with results, and from them to the query; the static prior if ``None``.
        descriptors: What the model measures likeness by, each as ``distances``, of which it knows nothing but
            the name; ``distances`` alone if ``None``.
        source_distances: From source tasks of experts; ``distances`` if ``None``.
        given: Accuracies of some of the experts on the query that are in no result, 0 to 1.
        trier: Tries experts on the query, see ``registry.recommend.trials``; none is tried if ``None``.

    Returns:
        The ``k`` best, the baselines by name (``static``, ``nearest``, ``largest``, ``random``; a
        baseline that has nothing to go by is the mean over all experts, as ``random`` is), and warnings.
    """
    candidates = tuple(sorted({expert.name: expert for expert in experts}.values(), key=lambda e: e.name))
    if not candidates:
        return Recommendation(query, (), {}, ("there is no expert to recommend: add one, or ask for less",))
    answer = _Answer.of(
        query, candidates, results, distances, descriptors, source_distances or distances, given or {}
    )
    if trier:
        answer = answer.after(trier)
    order = answer.ranking()[:k]
    return Recommendation(
        query,
        tuple(answer.entry(place, rank) for rank, place in enumerate(order, start=1)),
        answer.baselines(),
        tuple(answer.warnings(order)),
        answer.tried.trials if answer.tried else (),
    )


def load_line(expert: ExpertRecord) -> str:
    """One line of Python that loads the expert."""
    return f"from indexer import load_expert; network = load_expert({json.dumps(expert.loader)})"


@dataclass(frozen=True, eq=False)
class _Answer:
    """Everything that the parts of a recommendation are read from; arrays in the order of ``experts``."""

    query: Query
    experts: tuple[ExpertRecord, ...]
    gathered: Gathered
    prior: Prior
    prediction: Prediction
    to_query: np.ndarray  # [T]
    between: np.ndarray  # [T, T]
    source: np.ndarray  # [M] distance from the source task to the query
    regret: np.ndarray  # [M]
    tried: Tried | None = None

    @classmethod
    def of(
        cls,
        query: Query,
        experts: tuple[ExpertRecord, ...],
        results: Iterable[ResultRecord],
        distances: TaskDistances | None,
        descriptors: Mapping[str, TaskDistances] | None,
        source_distances: TaskDistances | None,
        given: Mapping[str, float],
    ) -> "_Answer":
        """Fit the prior, predict the query, fold in its own results."""
        gathered = with_given(gather(query, experts, results), given)
        tasks = gathered.table.tasks
        sources = [expert.source_task for expert in experts]
        unknown = TaskDistances((), np.zeros((0, 0)), np.zeros(0))
        like, origin = distances or unknown, source_distances or unknown
        between, to_query, source = (
            like.between(tasks, tasks),
            like.from_tasks(tasks),
            origin.from_tasks(sources),
        )
        likeness = descriptors or {"task": like}
        prior = kept_prior(
            gathered.table,
            {name: known.between(tasks, tasks) for name, known in likeness.items()},
            origin.between(sources, tasks),
        )
        expected = prior.predict({name: known.from_tasks(tasks) for name, known in likeness.items()}, source)
        prediction = condition(expected, gathered.own, MEASUREMENT_SD)
        regret = expected_regret(prediction)
        return cls(query, experts, gathered, prior, prediction, to_query, between, source, regret)

    def after(self, trier: Trier) -> "_Answer":
        """The same after trials of experts that were neither measured on the query nor trained on it."""
        measured = np.isfinite(self.gathered.own)
        asked = self.query.task if self.query.version else None
        untried = ~measured & np.array([expert.source_task != asked for expert in self.experts])
        tried = trier(self.experts, self.prediction, untried, measured)
        return replace(self, prediction=tried.prediction, regret=expected_regret(tried.prediction), tried=tried)

    def ranking(self) -> list[int]:
        """Places of the experts, best first."""
        far = np.where(np.isfinite(self.source), self.source, np.inf)
        mean = np.round(self.prediction.mean, 12)  # equal experts must tie, whatever the last bits are
        return sorted(
            range(len(self.experts)),
            key=lambda i: (
                -mean[i],
                far[i],
                -(self.experts[i].source_accuracy or 0),
                -(self.experts[i].num_params or 0),
                self.experts[i].name,
            ),
        )

    def entry(self, place: int, rank: int) -> RecommendedExpert:
        """One expert of the answer."""
        expert = self.experts[place]
        low, high = self._interval(place)
        return RecommendedExpert(
            rank=rank,
            expert=expert.name,
            expected_accuracy=self._accuracy(place),
            interval=(low, high),
            expected_regret=float(self.regret[place]),
            num_params=expert.num_params,
            license=expert.license,
            load=load_line(expert),
            evidence=Evidence(
                self._neighbors(place), self.gathered.counts[expert.name], self._found().get(expert.name)
            ),
        )

    def baselines(self) -> dict[str, Baseline]:
        """What simple rules would have picked, and what the model expects of that."""
        average = Baseline(None, float(np.mean([self._accuracy(i) for i in range(len(self.experts))])))
        picks = {"static": self._static(), "nearest": self._nearest(), "largest": self._largest()}
        named = {
            name: average if place is None else Baseline(self.experts[place].name, self._accuracy(place))
            for name, place in picks.items()
        }
        return {**named, "random": average}

    def warnings(self, order: Sequence[int]) -> list[str]:
        """What to be wary of in the answer that lists the experts ``order``."""
        found = [self._few_results(), self._unlike(), self._several_ways()]
        known = self.gathered.counts.keys() | self._found().keys()
        unmeasured = [
            self.experts[i].name
            for i in order
            if self.experts[i].name not in known and not np.isfinite(self.gathered.own[i])
        ]
        if unmeasured and self.gathered.counts:
            named = ", ".join(unmeasured[:MOST_NAMED])
            more = f" and {len(unmeasured) - MOST_NAMED} more" if len(unmeasured) > MOST_NAMED else ""
            found.append(f"without any result, so placed by source task alone: {named}{more}")
        trained = [self.experts[i].name for i in order if self.experts[i].source_task == self.query.task]
        if trained and self.query.version > 0:
            found.append(
                f"trained on {self.query.task} itself, results there not counted: {', '.join(trained)}"
            )
        found += self.tried.warnings if self.tried else ()
        return [warning for warning in found if warning]

    def _found(self) -> dict[str, TrialScores]:
        """What trials found, by expert."""
        return {trial.expert: trial.found for trial in self.tried.trials} if self.tried else {}

    def _accuracy(self, place: int) -> float:
        return float(np.clip(self.prediction.mean[place], 0.0, 1.0))

    def _interval(self, place: int) -> tuple[float, float]:
        """90% interval, within 0 to 1."""
        mean, half = self.prediction.mean[place], self.prior.quantile * self.prediction.sd[place]
        return float(np.clip(mean - half, 0.0, 1.0)), float(np.clip(mean + half, 0.0, 1.0))

    def _neighbors(self, place: int) -> tuple[EvidenceNeighbor, ...]:
        """The expert's results that weigh most: on the query itself, then on the nearest tasks."""
        table, own = self.gathered.table, self.gathered.own[place]
        found = [EvidenceNeighbor(self.query.task, 0.0, float(own))] if np.isfinite(own) else []
        known = np.isfinite(table.accuracy[:, place]) & np.isfinite(self.to_query)
        rows = [row for row in np.argsort(self.to_query, kind="stable") if known[row]]
        found += [
            EvidenceNeighbor(table.tasks[row], float(self.to_query[row]), float(table.accuracy[row, place]))
            for row in rows[:NUM_EVIDENCE_NEIGHBORS]
        ]
        return tuple(found[:NUM_EVIDENCE_NEIGHBORS])

    def _static(self) -> int | None:
        """Best on average so far."""
        if not self.prior.counts.any():
            return None
        return int(np.argmax(np.where(self.prior.counts > 0, np.round(self.prior.static, 12), -np.inf)))

    def _nearest(self) -> int | None:
        """Best on the nearest task with results, measured in the reference way if it was."""
        accuracy = self.gathered.table.accuracy
        if not np.isfinite(self.to_query).any():
            return None
        nearest = self.to_query == np.nanmin(self.to_query)
        preferred = nearest & self.gathered.table.reference_rows
        row = int(np.argmax(preferred if preferred.any() else nearest))
        return int(np.nanargmax(accuracy[row]))

    def _largest(self) -> int | None:
        """Most parameters."""
        sizes = [expert.num_params or 0 for expert in self.experts]
        return int(np.argmax(sizes)) if any(sizes) else None

    def _few_results(self) -> str:
        """Whether there is enough to learn from."""
        if not self.gathered.counts:
            return (
                "there is no result of these experts to learn from: ranked by distance of the source task, "
                "then by accuracy on it, then by size; expected accuracies are a guess"
            )
        if self.prior.num_tasks < MIN_INTERVAL_TASKS:
            return (
                f"results on {self.prior.num_tasks} other tasks only: a 90% interval needs "
                f"{MIN_INTERVAL_TASKS}, until then it is 0 to 1"
            )
        return ""

    def _unlike(self) -> str:
        """Whether the tasks with results are too far to tell anything."""
        if not self.gathered.table.tasks:
            return ""
        if not np.isfinite(self.to_query).any():
            return "no distance to any task with results is known: ranked by average past results"
        names = np.asarray(self.gathered.table.tasks)
        others = np.where((names[:, None] != names) & np.isfinite(self.between), self.between, np.inf).min(
            axis=0
        )
        usual = others[np.isfinite(others)]
        nearest = float(np.nanmin(self.to_query))
        if usual.size and nearest > usual.max():
            return (
                f"unlike all tasks with results: the nearest is at distance {nearest:.3g}, while each of them "
                f"has another within {usual.max():.3g}; expect little more than average past results"
            )
        return ""

    def _several_ways(self) -> str:
        """Whether accuracies of different meaning were mixed."""
        ways, reference = self.gathered.ways, self.gathered.reference or self.gathered.own_way
        if len(ways) < 2 or reference is None:
            return ""
        named = f"{reference[0]} by {reference[1]}"
        warning = f"results were measured in {len(ways)} ways: expected accuracies refer to {named}"
        if self.gathered.own_way not in {None, reference}:
            warning += f", moved by results on {self.query.task} by {self.gathered.own_way[1]}"
        return warning
