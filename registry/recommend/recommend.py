"""Which expert to start from: past results, likeness of tasks and what is known of experts in; a ranking out.

The model of past results is ``registry.recommend.prior``; here its inputs are put together and its answer is
written out beside the baselines. What was measured on this task, in this protocol, is what is expected.

Axes: R rows of results, M experts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.answers import Verdict
from registry.caching import one_thread
from registry.recommend.facts import ExpertFacts, facts_of
from registry.recommend.levels import TaskFacts
from registry.recommend.prediction import Prediction, beside, condition, expected_regret, shielded
from registry.recommend.prior import SOURCE_DESCRIPTOR, Asked, Prior, PriorFiles, kept_prior
from registry.recommend.results import Gathered, Result, TaskDistances, Way, choose_way, gather
from registry.recommend.trials import TrialOutcome
from registry.recommend.verdict import make_verdict

NUM_NEIGHBORS = 3
MIN_REAL_TASKS = 8
"""Once real experts have results on so many embedded tasks, toys say nothing of them any more."""

Trier = Callable[[Sequence[str], Prediction, NDArray[np.bool_], Callable[[Way], Prediction]], TrialOutcome]
"""From names, what is expected, who may be tried, and what is expected in other ways: what trials came to."""


@dataclass(frozen=True)
class Asking:
    """A question.

    Attributes:
        task: Name of the task, or the data spec if it is not registered.
        registered: Whether it is a task of the registry, whose own results count.
        facts: What is known of it.
        protocol: The answer is about this one; that of one's own results, else of all, if ``None``.
    """

    task: str
    registered: bool = False
    facts: TaskFacts = field(default_factory=TaskFacts)
    protocol: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class Ranked:
    """One expert of the answer.

    Attributes:
        rank: From 1.
        expected_accuracy: Or what was measured.
        interval: 90%.
        expected_regret: How much better the best is expected to be.
        measured: Whether it was measured on this task in this way, or in a trial now.
        num_results: On other tasks.
        neighbors: Its results on the nearest tasks: name, distance, accuracy.
    """

    rank: int
    expert: str
    expected_accuracy: float
    interval: tuple[float, float]
    expected_regret: float
    measured: bool
    num_results: int
    neighbors: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """A ranking.

    Attributes:
        way: Metric and protocol that accuracies are of.
        ranked: Best first.
        baselines: What simple rules would pick and what is expected of that: expert or ``None``, accuracy.
        verdict: What to do; ``None`` if there is no expert.
        trials: What they came to, if any were made.
        prediction: Of all candidates, ``experts``, in that order.
    """

    way: Way
    ranked: tuple[Ranked, ...]
    baselines: Mapping[str, tuple[str | None, float]]
    verdict: Verdict | None
    warnings: tuple[str, ...]
    trials: TrialOutcome | None
    prediction: Prediction | None
    experts: tuple[ExpertFacts, ...]


def answer(
    asking: Asking,
    experts: Iterable[Any],
    results: Sequence[Result],
    *,
    tasks: Mapping[str, TaskFacts],
    descriptors: Mapping[str, TaskDistances] | None = None,
    candidates: Iterable[str] | None = None,
    alias: Mapping[str, str] | None = None,
    is_own: Callable[[Result], bool] = lambda result: True,
    k: int = 5,
    trier: Trier | None = None,
    left_out: Mapping[str, int] | None = None,
    files: PriorFiles | None = None,
) -> Answer:
    """Rank experts by expected accuracy on the task that is asked about.

    The order of the inputs does not matter. Equal experts go by name.

    Args:
        asking: The question.
        experts: All that are known.
        results: All that are known, turned so that higher is better.
        tasks: What is known of embedded tasks, by name.
        descriptors: Likeness of tasks by descriptor.
        candidates: Names of those that may be recommended, all if ``None``; the others lend their results.
        alias: Name that counts for other names of the same weights.
        is_own: Whether a result is the user's own rather than shipped or published.
        k: Most experts to list.
        trier: Tries experts on the task; none is tried if ``None``.
        left_out: How many experts each limit removed, for the verdict.
        files: Where fitted models are kept; nowhere if ``None``.
    """
    sizes = {name: fact.num_samples or 0 for name, fact in tasks.items()}
    facts = tuple(
        facts_of(expert, sizes)
        for expert in sorted({it.name: it for it in experts}.values(), key=lambda it: it.name)
    )
    wanted = {expert.name for expert in facts} if candidates is None else set(candidates)
    way = choose_way(results, asking.protocol, asking.metric, is_own)
    if not any(expert.name in wanted for expert in facts):
        note = "there is no expert to recommend: add one, or ask for less"
        return Answer(way, (), {}, None, (note,), None, None, ())
    known = _Known(asking, facts, results, way, tasks, descriptors or {}, alias or {}, files)
    with one_thread():  # many small matrices: threads would wait for each other
        work = _Work.of(known, wanted)
    return work.answer(k, trier, left_out or {})


@dataclass(frozen=True, eq=False)
class _Known:
    """Everything that an answer may rest on, whoever may be recommended."""

    asking: Asking
    facts: tuple[ExpertFacts, ...]
    results: Sequence[Result]
    way: Way
    tasks: Mapping[str, TaskFacts]
    descriptors: Mapping[str, TaskDistances]
    alias: Mapping[str, str]
    files: PriorFiles | None

    @property
    def asked(self) -> str | None:
        """Name of the task, if its own results count."""
        return self.asking.task if self.asking.registered else None

    def measured_here(self) -> set[str]:
        """Experts with a result on the very task in the way that is asked about."""
        return {
            self.alias.get(row.expert, row.expert)
            for row in self.results
            if row.task == self.asked and (row.metric, row.protocol) == self.way
        }

    def counting(self) -> tuple[ExpertFacts, ...]:
        """Experts whose results count for real ones: toys only until there are enough results of real ones."""
        real = {expert.name for expert in self.facts if not expert.toy}
        measured = {
            row.task
            for row in self.results
            if row.task in self.tasks and self.alias.get(row.expert, row.expert) in real
        }
        if len(measured) < MIN_REAL_TASKS:
            return self.facts
        return tuple(expert for expert in self.facts if not expert.toy)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The model of the past results of some experts, and the row that is asked of it."""

    facts: tuple[ExpertFacts, ...]
    gathered: Gathered
    prior: Prior
    row: Asked

    @classmethod
    def of(cls, known: _Known, facts: tuple[ExpertFacts, ...]) -> "_Fit":
        """Fit the model to results of these experts, but those that are asked for."""
        sources = {expert.name: expert.source_task for expert in facts}
        gathered = gather(known.results, sources, way=known.way, asked=known.asked, alias=known.alias)
        rows = gathered.table.tasks
        between = {name: distances.between(rows, rows) for name, distances in known.descriptors.items()}
        origin, names = known.descriptors.get(SOURCE_DESCRIPTOR), list(sources.values())
        source = np.full((len(facts), len(rows)), np.nan) if origin is None else origin.between(names, rows)
        placed = {task: known.tasks[task] for task in rows if task in known.tasks}
        prior = kept_prior(gathered.table, facts, placed, between, source, known.files)
        near = np.full(len(facts), np.nan) if origin is None else origin.from_tasks(names)
        to_query = {name: it.from_tasks(prior.table.tasks) for name, it in known.descriptors.items()}
        row = Asked(known.way, known.asking.facts, to_query, near, known.asked or "")
        return cls(facts, gathered, prior, row)

    @cached_property
    def place(self) -> dict[str, int]:
        """Column of each expert, by name."""
        return {expert.name: number for number, expert in enumerate(self.facts)}

    def places(self, experts: Sequence[ExpertFacts]) -> np.ndarray:
        """Columns of some experts."""
        return np.array([self.place[expert.name] for expert in experts], dtype=np.intp)

    def predict(self, experts: Sequence[ExpertFacts], way: Way) -> Prediction:
        """What is expected of some experts in a way of measuring, before own results of the asked way."""
        return self.prior.predict(replace(self.row, way=way), self.places(experts))

    @property
    def distance(self) -> np.ndarray:
        """``[R]`` of the task of each row to the one asked about, NaN where not known."""
        unknown = np.full(len(self.prior.table.tasks), np.nan)
        return self.row.distances.get(SOURCE_DESCRIPTOR, next(iter(self.row.distances.values()), unknown))

    @property
    def here(self) -> np.ndarray:
        """``[R]`` bool: rows in the way that is asked about."""
        return np.array([way == self.row.way for way in self.prior.table.ways], dtype=bool)

    def neighbors(self, expert: ExpertFacts) -> tuple[tuple[str, float, float], ...]:
        """Results of an expert on the nearest tasks, in the asked way: name, distance, accuracy."""
        table, distance = self.prior.table, self.distance
        accuracy = table.accuracy[:, self.place[expert.name]]
        usable = np.isfinite(accuracy) & np.isfinite(distance) & self.here
        rows = [row for row in np.argsort(distance, kind="stable") if usable[row]][:NUM_NEIGHBORS]
        return tuple((table.tasks[row], float(distance[row]), float(accuracy[row])) for row in rows)


def _expect(real: _Fit, wide: _Fit, experts: Sequence[ExpertFacts], way: Way) -> Prediction:
    """What is expected of experts in a way of measuring, by the model that counts for each."""
    aside = [expert for expert in experts if expert.name not in real.place]
    first = real.predict([expert for expert in experts if expert.name in real.place], way)
    return beside(first, wide.predict(aside, way)) if aside else first


@dataclass(frozen=True, eq=False)
class _Work:
    """Everything that the parts of an answer are read from.

    Attributes:
        known: What the answer may rest on.
        real: The model of those whose results count for real experts.
        wide: The model of all, where toys are asked for too; else the same.
        experts: Those compared, real ones first: candidates, and whoever was measured on the very task.
        chosen: Places of the candidates among them.
        before: What is expected of them before own results.
        own: Their accuracies on the very task.
    """

    known: _Known
    real: _Fit
    wide: _Fit
    experts: tuple[ExpertFacts, ...]
    chosen: np.ndarray
    before: Prediction
    own: np.ndarray

    @classmethod
    def of(cls, known: _Known, wanted: set[str]) -> "_Work":
        """Fit the model, predict the task before its own results.

        Who may be recommended changes nothing of what is expected of the others. So toys, where their results
        do not count for real experts, are expected by a model of their own.
        """
        counting = known.counting()
        real = wide = _Fit.of(known, counting)
        compared = wanted | (known.measured_here() & set(real.place))
        experts = tuple(sorted((it for it in known.facts if it.name in compared), key=lambda it: it.toy))
        if any(expert.name not in real.place for expert in experts):
            wide = _Fit.of(known, known.facts)
        own = wide.gathered.own[wide.places(experts)]
        chosen = np.array([place for place, it in enumerate(experts) if it.name in wanted], dtype=np.intp)
        return cls(known, real, wide, experts, chosen, _expect(real, wide, experts, known.way), own)

    def _after_own(self) -> Prediction:
        """What is expected after own results, of which those of toys say nothing of real experts."""
        split = sum(expert.name in self.real.place for expert in self.experts)
        parts = np.split(np.arange(len(self.experts)), [split])
        return beside(*(condition(self.before.of(part), self.own[part]) for part in parts if part.size))

    def _in_way(self, way: Way) -> Prediction:
        """What is expected of the candidates in another way of measuring."""
        return _expect(self.real, self.wide, self.experts, way).of(self.chosen)

    def _fit_of(self, expert: ExpertFacts) -> _Fit:
        """The model that says what is expected of an expert."""
        return self.real if expert.name in self.real.place else self.wide

    def answer(self, k: int, trier: Trier | None, left_out: Mapping[str, int]) -> Answer:
        """Fold in own results and trials, and write the answer out."""
        toys, before = self._strange_toys(), self.before
        after, outcome = self._after_own(), None
        experts = tuple(self.experts[place] for place in self.chosen)
        if trier:
            before, after, toys = before.of(self.chosen), after.of(self.chosen), toys[self.chosen]
            unseen = np.array([expert.source_task != self.known.asked for expert in experts])
            untried = ~np.isfinite(after.measured) & unseen
            outcome = trier([expert.name for expert in experts], after, untried, self._in_way)
            after = shielded(before, outcome.prediction, toys)
        else:
            after = shielded(before, after, toys).of(self.chosen)
        order = sorted(range(len(experts)), key=lambda i: (-round(float(after.logit[i]), 9), experts[i].name))
        regret = expected_regret(after)
        counts = [self._fit_of(expert).gathered.counts[expert.name] for expert in experts]
        return Answer(
            way=self.known.way,
            ranked=tuple(
                self._ranked(experts[i], i, rank, after, regret) for rank, i in enumerate(order[:k], start=1)
            ),
            baselines=self._baselines(experts, after),
            verdict=make_verdict(experts, after, order, way=self.known.way, counts=counts, left_out=left_out),
            warnings=tuple(self._warnings(experts, order[:k], counts)) + (outcome.warnings if outcome else ()),
            trials=outcome,
            prediction=after,
            experts=experts,
        )

    def _strange_toys(self) -> np.ndarray:
        """Toys ``[M]`` bool without a result in the protocol of the answer."""
        known = self.wide.prior.table.known[self.wide.here].any(axis=0)[self.wide.places(self.experts)]
        return np.asarray(np.array([expert.toy for expert in self.experts], dtype=bool) & ~known)

    def _ranked(
        self, expert: ExpertFacts, number: int, rank: int, after: Prediction, regret: np.ndarray
    ) -> Ranked:
        """One line of the answer."""
        (low, high), fit = after.interval, self._fit_of(expert)
        return Ranked(
            rank=rank,
            expert=expert.name,
            expected_accuracy=float(after.mean[number]),
            interval=(float(low[number]), float(high[number])),
            expected_regret=float(regret[number]),
            measured=bool(np.isfinite(after.measured[number])),
            num_results=fit.gathered.counts[expert.name],
            neighbors=fit.neighbors(expert),
        )

    def _baselines(
        self, experts: Sequence[ExpertFacts], after: Prediction
    ) -> dict[str, tuple[str | None, float]]:
        """What simple rules would pick; one that has nothing to go by is the mean over all, like ``random``."""
        average, places, prior = float(np.mean(after.mean)), self.wide.places(experts), self.wide.prior
        counts = prior.counts[places]
        static = np.where(counts > 0, np.round(prior.static[places], 12), -np.inf)
        sizes = np.array([expert.num_params or 0 for expert in experts], dtype=np.float64)
        picks: dict[str, int | None] = {
            "static": int(np.argmax(static)) if counts.any() else None,
            "nearest": self._nearest(places),
            "largest": int(np.argmax(sizes)) if sizes.any() else None,
            "random": None,
        }
        return {
            name: (None, average) if place is None else (experts[place].name, float(after.mean[place]))
            for name, place in picks.items()
        }

    def _nearest(self, places: np.ndarray) -> int | None:
        """Best on the nearest task on which a candidate was measured."""
        accuracy = self.wide.prior.table.accuracy[:, places]
        distance = self.wide.row.distances.get(SOURCE_DESCRIPTOR, np.full(len(accuracy), np.nan))
        usable = np.isfinite(distance) & np.isfinite(accuracy).any(axis=1)
        if not usable.any():
            return None
        return int(np.nanargmax(accuracy[int(np.argmin(np.where(usable, distance, np.inf)))]))

    def _warnings(
        self, experts: Sequence[ExpertFacts], order: Sequence[int], counts: Sequence[int]
    ) -> list[str]:
        """Caveats of the experts listed."""
        sentences, own, asked = [], self.own[self.chosen], self.known.asked
        unmeasured = [experts[i].name for i in order if not counts[i] and not np.isfinite(own[i])]
        if unmeasured:
            more = f" and {len(unmeasured) - 5} more" if len(unmeasured) > 5 else ""
            sentence = "never measured, so placed by size, source and architecture alone"
            sentences.append(f"{sentence}: {', '.join(unmeasured[:5])}{more}")
        trained = [experts[i].name for i in order if asked and experts[i].source_task == asked]
        if trained:
            sentences.append(f"trained on {asked} itself, results there not counted: {', '.join(trained)}")
        distance = self.wide.row.distances.get(SOURCE_DESCRIPTOR)
        if self.wide.prior.table.tasks and (distance is None or not np.isfinite(distance).any()):
            sentences.append("no distance to any task with results is known: ranked by average past results")
        return sentences
