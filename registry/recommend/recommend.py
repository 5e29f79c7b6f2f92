"""Which expert to start from: past results, likeness of tasks and what is known of experts in; a ranking out.

What others call:

    from registry.recommend.recommend import Asking, answer
    found = answer(asking, experts, results, tasks=facts, descriptors=distances, k=5)

- ``Asking``: the task (registered or not), what is known of it (``levels.TaskFacts``), the way (metric and
  protocol) if told.
- ``experts``: records with ``name``, ``source_task``, ``num_params``, ``flops``, ``input_size``,
  ``source_accuracy`` and, where there, ``source_dataset``, ``architecture``, ``training``, ``toy``;
  ``candidates`` names those that may be recommended (all of them unless told), the others only lend their
  results.
- ``results``: records with ``task, expert, metric, protocol, accuracy, seed``, already turned so that higher is
  better and from 0 to 1.
- ``descriptors``: ``likeness.TaskDistances`` by name, ``domain`` and ``root_ratio``; tasks without data are
in none.
- ``alias``: name of the expert that counts, for every other name of the same weights.
- ``trier``: from a prediction and which experts may be tried to a ``trials.TrialOutcome``.

The model of past results is ``registry.recommend.prior``; here its inputs are put together and its answer is
written out beside the baselines. What was measured on this task in this protocol is the expectation of that
expert.

Axes: R rows of results, M candidates.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.answers import Verdict
from registry.caching import one_thread
from registry.recommend.facts import ExpertFacts, facts_of
from registry.recommend.levels import TaskFacts
from registry.recommend.prediction import Prediction, condition, expected_regret, shielded
from registry.recommend.prior import SOURCE_DESCRIPTOR, Asked, Prior, PriorFiles, kept_prior
from registry.recommend.results import Gathered, Result, TaskDistances, Way, choose_way, gather
from registry.recommend.trials import TrialOutcome
from registry.recommend.verdict import make_verdict

NUM_NEIGHBORS = 3
MIN_REAL_TASKS = 8
"""Once real experts have results on so many embedded tasks, toys say nothing of them any more."""

Trier = Callable[[Sequence[str], Prediction, NDArray[np.bool_]], TrialOutcome]
"""From names, what is expected, and which may be tried: what trials came to."""


@dataclass(frozen=True)
class Asking:
    """A question.

    Attributes:
        task: Name of the task, or the data spec if it is not registered.
        registered: Whether it is a task of the registry, whose own results count.
        facts: What is known of it.
        protocol: The answer is about this one; that of one's own results, else of all, if ``None``.
        metric: The same.
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
        expert: Name.
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
        ranked: Best first, at most k.
        baselines: What simple rules would pick and what is expected of that: expert or ``None``, accuracy.
        verdict: What to do; ``None`` if there is no expert.
        warnings: In sentences.
        trials: What they came to, if any were made.
        prediction: Of all candidates, in the order of ``experts``.
        experts: The candidates.
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
        results: All that are known.
        tasks: What is known of embedded tasks, by name.
        descriptors: Likeness of tasks by descriptor.
        candidates: Names of those that may be recommended; all if ``None``.
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
    with one_thread():  # many small matrices: threads would wait for each other
        work = _Work.of(asking, facts, wanted, results, way, tasks, descriptors or {}, alias or {}, files)
    return work.answer(k, trier, left_out or {})


@dataclass(frozen=True, eq=False)
class _Work:
    """Everything that the parts of an answer are read from; candidates in the order of ``places``."""

    asking: Asking
    facts: tuple[ExpertFacts, ...]
    places: np.ndarray
    gathered: Gathered
    prior: Prior
    before: Prediction
    to_query: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        asking: Asking,
        facts: tuple[ExpertFacts, ...],
        wanted: set[str],
        results: Sequence[Result],
        way: Way,
        tasks: Mapping[str, TaskFacts],
        descriptors: Mapping[str, TaskDistances],
        alias: Mapping[str, str],
        files: PriorFiles | None,
    ) -> "_Work":
        """Fit the model, predict the task, before its own results."""
        asked = asking.task if asking.registered else None
        used = _without_toys(facts, wanted, results, tasks)
        facts = tuple(expert for expert in facts if expert.name in used)
        sources = {expert.name: expert.source_task for expert in facts}
        gathered = gather(results, sources, way=way, asked=asked, alias=alias)
        rows = gathered.table.tasks
        between = {name: distances.between(rows, rows) for name, distances in descriptors.items()}
        origin = descriptors.get(SOURCE_DESCRIPTOR)
        names = [expert.source_task for expert in facts]
        source = np.full((len(facts), len(rows)), np.nan) if origin is None else origin.between(names, rows)
        among = {task: tasks[task] for task in rows if task in tasks}
        prior = kept_prior(gathered.table, facts, among, between, source, files)
        places = np.array([number for number, expert in enumerate(facts) if expert.name in wanted])
        to_query = {name: distances.from_tasks(prior.table.tasks) for name, distances in descriptors.items()}
        near = np.full(len(facts), np.nan) if origin is None else origin.from_tasks(names)
        asked_row = Asked(way, asking.facts, to_query, near, asked or "")
        return cls(asking, facts, places, gathered, prior, prior.predict(asked_row, places), to_query)

    def answer(self, k: int, trier: Trier | None, left_out: Mapping[str, int]) -> Answer:
        """Fold in own results and trials, and write the answer out."""
        after = condition(self.before, self.gathered.own[self.places])
        outcome = None
        experts = tuple(self.facts[place] for place in self.places)
        if trier:
            asked = self.asking.task if self.asking.registered else None
            untried = ~np.isfinite(after.measured) & np.array([it.source_task != asked for it in experts])
            outcome = trier([expert.name for expert in experts], after, untried)
            after = outcome.prediction
        after = shielded(self.before, after, self._strange_toys())
        order = sorted(range(len(experts)), key=lambda i: (-round(float(after.logit[i]), 9), experts[i].name))
        regret = expected_regret(after)
        counts = [self.gathered.counts[expert.name] for expert in experts]
        return Answer(
            way=self.gathered.way,
            ranked=tuple(self._ranked(i, rank, after, regret) for rank, i in enumerate(order[:k], start=1)),
            baselines=self._baselines(experts, after),
            verdict=make_verdict(
                experts, after, order, way=self.gathered.way, counts=counts, left_out=left_out
            ),
            warnings=tuple(self._warnings(experts, order[:k], counts)) + (outcome.warnings if outcome else ()),
            trials=outcome,
            prediction=after,
            experts=experts,
        )

    def _strange_toys(self) -> np.ndarray:
        """``[M]`` bool: candidates that are toys without a result in the protocol of the answer."""
        table = self.prior.table
        here = np.array([way == self.gathered.way for way in table.ways], dtype=bool)
        toys = np.array([expert.toy for expert in self.facts], dtype=bool)
        return np.asarray((toys & ~table.known[here].any(axis=0))[self.places])

    def _ranked(self, number: int, rank: int, after: Prediction, regret: np.ndarray) -> Ranked:
        """One line of the answer."""
        expert = self.facts[self.places[number]]
        low, high = after.interval
        return Ranked(
            rank=rank,
            expert=expert.name,
            expected_accuracy=float(after.mean[number]),
            interval=(float(low[number]), float(high[number])),
            expected_regret=float(regret[number]),
            measured=bool(np.isfinite(after.measured[number])),
            num_results=self.gathered.counts[expert.name],
            neighbors=self._neighbors(int(self.places[number])),
        )

    def _neighbors(self, column: int) -> tuple[tuple[str, float, float], ...]:
        """The expert's results on the nearest tasks, in the asked way."""
        if not self.to_query:
            return ()
        distance = self.to_query.get(SOURCE_DESCRIPTOR, next(iter(self.to_query.values())))
        table = self.prior.table
        same = np.array([way == self.gathered.way for way in table.ways], dtype=bool)
        usable = np.isfinite(table.accuracy[:, column]) & np.isfinite(distance) & same
        rows = [row for row in np.argsort(distance, kind="stable") if usable[row]][:NUM_NEIGHBORS]
        return tuple(
            (table.tasks[row], float(distance[row]), float(table.accuracy[row, column])) for row in rows
        )

    def _baselines(
        self, experts: Sequence[ExpertFacts], after: Prediction
    ) -> dict[str, tuple[str | None, float]]:
        """What simple rules would pick; one that has nothing to go by is the mean over all, like ``random``."""
        average = float(np.mean(after.mean))
        counts = self.prior.counts[self.places]
        static = np.where(counts > 0, np.round(self.prior.static[self.places], 12), -np.inf)
        sizes = np.array([expert.num_params or 0 for expert in experts], dtype=np.float64)
        picks = {
            "static": int(np.argmax(static)) if counts.any() else None,
            "nearest": self._nearest(),
            "largest": int(np.argmax(sizes)) if sizes.any() else None,
        }
        named: dict[str, tuple[str | None, float]] = {
            name: (None, average) if place is None else (experts[place].name, float(after.mean[place]))
            for name, place in picks.items()
        }
        return {**named, "random": (None, average)}

    def _nearest(self) -> int | None:
        """Best on the nearest task on which a candidate was measured."""
        table = self.prior.table
        accuracy = table.accuracy[:, self.places]
        distance = self.to_query.get(SOURCE_DESCRIPTOR, np.full(len(table.tasks), np.nan))
        usable = np.isfinite(distance) & np.isfinite(accuracy).any(axis=1)
        if not usable.any():
            return None
        return int(np.nanargmax(accuracy[int(np.argmin(np.where(usable, distance, np.inf)))]))

    def _warnings(
        self, experts: Sequence[ExpertFacts], order: Sequence[int], counts: Sequence[int]
    ) -> list[str]:
        """What to be wary of in the experts listed."""
        sentences = []
        own = self.gathered.own[self.places]
        unmeasured = [experts[i].name for i in order if not counts[i] and not np.isfinite(own[i])]
        if unmeasured:
            named = ", ".join(unmeasured[:5]) + (
                f" and {len(unmeasured) - 5} more" if len(unmeasured) > 5 else ""
            )
            sentences.append(f"never measured, so placed by size, source and architecture alone: {named}")
        asked = self.asking.task
        trained = [experts[i].name for i in order if self.asking.registered and experts[i].source_task == asked]
        if trained:
            sentences.append(f"trained on {asked} itself, results there not counted: {', '.join(trained)}")
        distance = self.to_query.get(SOURCE_DESCRIPTOR)
        if self.prior.table.tasks and (distance is None or not np.isfinite(distance).any()):
            sentences.append("no distance to any task with results is known: ranked by average past results")
        return sentences


def _without_toys(
    facts: Sequence[ExpertFacts], wanted: set[str], results: Sequence[Result], tasks: Mapping[str, TaskFacts]
) -> set[str]:
    """Names of the experts whose results count: toys too, until there are enough of real ones."""
    toys = {expert.name for expert in facts if expert.toy}
    everyone = {expert.name for expert in facts}
    if not toys or wanted & toys:
        return everyone
    real = wanted - toys
    measured = {result.task for result in results if result.expert in real and result.task in tasks}
    return everyone - toys if len(measured) >= MIN_REAL_TASKS else everyone
