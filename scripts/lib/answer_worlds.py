"""Worlds that answers are judged in: real experts, the first day, small networks, results in two protocols.

Axes: T tasks, M experts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from answer_data import (
    BENCHMARK,
    SHARED,
    SHIPPED,
    WAY,
    Measured,
    Tasks,
    published_facts,
    read_published,
    read_real,
    read_starter,
)
from answer_rules import Figures, first_three_measured, judge, nearest_scores, static_scores

from registry.recommend.facts import ExpertFacts
from registry.recommend.prediction import Prediction, condition
from registry.recommend.prior import Asked, Prior, fit_prior
from registry.recommend.results import Way, gather
from registry.recommend.trials import TrialEvidence, TrialPlan, try_experts
from registry.scores.trial_scores import trial_scores

TRIALS = (1, 3, 5)
DEVELOPMENT = {
    "ants_bees",
    "blood_cells",
    "cats_dogs",
    "clothing",
    "fer2013",
    "flowers5",
    "neu_defects",
    "omniglot_latin",
    "pacs_photo",
    "rsscn7",
    "thai_digits",
    "trashnet",
}
"""Image sets of the benchmark of toys that choices were made on in the past; figures are of the others."""


@dataclass(frozen=True, eq=False)
class World:
    """Experts, results, and tasks with embeddings; a fit is asked about what was left out of it."""

    tasks: Tasks
    experts: list[ExpertFacts]
    results: list[Measured]

    def fit(self, left: Iterable[str] = (), *, unknown: Iterable[str] = (), asked: str = "") -> Prior:
        """The model without results on some tasks, and without any of some experts."""
        tasks, experts = set(left), set(unknown)
        rows = [row for row in self.results if row.task not in tasks and row.expert not in experts]
        sources = {expert.name: expert.source_task for expert in self.experts}
        table = gather(rows, sources, way=WAY, asked=asked or None).table
        between = self.tasks.among(table.tasks, table.tasks)
        source = self.tasks.among(sources.values(), table.tasks)["domain"]
        return fit_prior(table, self.experts, self.tasks.facts, between, source)

    def predict(self, prior: Prior, task: str, way: Way = WAY) -> Prediction:
        """What a fit expects of a task."""
        near = self.tasks.among(prior.table.tasks, [task])
        source = self.tasks.among([expert.source_task for expert in self.experts], [task])["domain"][:, 0]
        distances = {name: values[:, 0] for name, values in near.items()}
        return prior.predict(Asked(way, self.tasks.facts[task], distances, source, task))

    def truth(self, names: Sequence[str], way: Way = WAY) -> np.ndarray:
        """``[T, M]`` accuracies on some tasks, NaN where there is none or the expert was trained there."""
        place = {expert.name: number for number, expert in enumerate(self.experts)}
        row_of = {name: number for number, name in enumerate(names)}
        table = np.full((len(names), len(self.experts)), np.nan)
        for row in self.results:
            if row.task not in row_of or row.expert not in place or (row.metric, row.protocol) != way:
                continue
            if self.experts[place[row.expert]].source_task != row.task:
                table[row_of[row.task], place[row.expert]] = row.accuracy
        return table


def real_world() -> World:
    """Real experts on the tasks of the starter content that they were measured on; toys say nothing of them."""
    tasks, _, _ = read_starter()
    experts, results = read_real()
    return World(tasks, experts, results)


def bench_real(world: World, *, families: bool, quick: bool) -> Figures:
    """Every rule and number of trials, each task (and its family) left out in turn."""
    names = sorted({row.task for row in world.results})
    truth = world.truth(names)
    experts = tuple(expert.name for expert in world.experts)
    sizes = np.array([expert.num_params or 0 for expert in world.experts])
    rows: Figures = {}
    for number in range(0, len(names), 5 if quick else 1):
        task = names[number]
        left = world.tasks.without_family(task) if families else world.tasks.without_task(task)
        rest = [i for i, name in enumerate(names) if name not in left]
        static = static_scores(truth[rest])
        near = world.tasks.among([names[i] for i in rest], [task])["domain"][:, 0]
        prediction = world.predict(world.fit(left), task)
        scores = sample_scores(task, experts)
        add = _adder(rows, truth[number])
        add("static", static)
        add("largest", sizes)
        add("nearest", nearest_scores(truth[rest], near, static))
        add("static, first 3 measured", first_three_measured(static, truth[number]))
        add("ours", prediction.logit, prediction)
        for count in (*TRIALS, len(world.experts)):
            title = "ours, all tried" if count == len(world.experts) else f"ours, --try {count}"
            tried = try_experts(
                experts,
                prediction,
                np.isfinite(truth[number]),
                plan=TrialPlan(count),
                run=lambda place, scores=scores: TrialEvidence(place, scores=scores[place]),  # type: ignore[misc]
            ).prediction
            add(title, tried.logit, tried)
    return rows


def bench_few(world: World, *, seed: int, quick: bool) -> dict[int, Figures]:
    """Few known tasks, drawn at random, against static."""
    names = sorted({row.task for row in world.results})
    truth, generator = world.truth(names), np.random.default_rng(seed)
    worlds: dict[int, Figures] = {}
    for count in (3, 5, 10, 20):
        rows: Figures = {}
        for number in range(0, len(names), 5 if quick else 1):
            for _ in range(1 if quick else 3):
                others = [name for name in names if name != names[number]]
                kept = set(generator.choice(others, count, replace=False).tolist())
                rest = [i for i, name in enumerate(names) if name in kept]
                prediction = world.predict(world.fit(set(names) - kept), names[number])
                add = _adder(rows, truth[number])
                add("static", static_scores(truth[rest]))
                add("ours", prediction.logit, prediction)
        worlds[count] = rows
    return worlds


def bench_own(world: World, *, seed: int, quick: bool) -> dict[int, Figures]:
    """Some experts measured on the very task, drawn at random: the others are judged, against static."""
    names = sorted({row.task for row in world.results})
    truth, generator = world.truth(names), np.random.default_rng(seed)
    worlds: dict[int, Figures] = {count: {} for count in (1, 3, 5)}
    for number in range(0, len(names), 5 if quick else 1):
        left = world.tasks.without_task(names[number])
        static = static_scores(truth[[i for i, name in enumerate(names) if name not in left]])
        before = world.predict(world.fit(left), names[number])
        for count, rows in worlds.items():
            for _ in range(1 if quick else 3):
                there = np.flatnonzero(np.isfinite(truth[number]))
                measured = generator.choice(there, count, replace=False)
                own = np.full(len(static), np.nan)
                own[measured] = truth[number, measured]
                rest, after = np.setdiff1d(there, measured), condition(before, own)
                add = _adder(rows, truth[number, rest])
                add("static", static[rest])
                add("ours", after.logit[rest], after.of(rest))
    return worlds


def bench_first_day(real: World, *, published: bool, quick: bool) -> Figures:
    """Real experts that were never measured, beside starter content, and published results too if asked."""
    tasks, toys, results = read_starter()
    more = read_published(SHIPPED) if published else []
    facts = published_facts(sorted({row.expert for row in more}))
    world = World(tasks, [*real.experts, *toys, *facts], results + more)
    names = sorted({row.task for row in real.results})
    truth, count = real.truth(names), len(real.experts)
    sizes = np.array([expert.num_params or 0 for expert in real.experts])
    imagenet = np.array([expert.imagenet_accuracy or 0 for expert in real.experts])
    rows: Figures = {}
    for number in range(0, len(names), 5 if quick else 1):
        prior = world.fit(tasks.without_task(names[number]))
        prediction = world.predict(prior, names[number]).of(np.arange(count))
        add = _adder(rows, truth[number])
        add("largest", sizes)
        add("ImageNet order", imagenet)
        add("ours", prediction.logit, prediction)
    return rows


def bench_toys(*, families: bool, quick: bool) -> dict[str, Figures]:
    """The benchmark of 30 small networks on 107 tasks, of which many share images and differ in labels."""
    tasks, experts, results = read_starter(BENCHMARK, toys=False)
    world = World(tasks, experts, results)
    judged = [name for name in tasks.names if not tasks.images[name] <= DEVELOPMENT]
    truth = world.truth(tasks.names)
    worlds: dict[str, Figures] = {"own labels": {}, "relabelled": {}}
    for name in judged[:: 10 if quick else 1]:
        number = tasks.names.index(name)
        if np.isfinite(truth[number]).sum() < 3:
            continue
        left = tasks.without_family(name) if families else tasks.without_task(name)
        rest = [i for i, other in enumerate(tasks.names) if other not in left]
        prediction = world.predict(world.fit(left), name)
        rows = worlds["own labels" if tasks.images[name] == {name} else "relabelled"]
        add = _adder(rows, truth[number])
        add("static", static_scores(truth[rest]))
        add("ours", prediction.logit, prediction)
    return worlds


def bench_protocols(real: World, *, seed: int, quick: bool) -> Figures:
    """Answers about linear probes, with and without own fine-tuned results, and answers about these.

    Fine-tuned accuracies are made up: those of linear probes with a third of the log odds' spread, 1.5 higher.
    """
    names = sorted({row.task for row in real.results})
    generator = np.random.default_rng(seed)
    logits = {row: float(np.log(row.accuracy / (1 - row.accuracy))) for row in real.results}
    level = {
        name: float(np.mean([logit for row, logit in logits.items() if row.task == name])) for name in names
    }
    drawn = [row for row in real.results if generator.random() < 0.25]
    tuned = []
    for row in drawn:
        value = level[row.task] + 1.5 + (logits[row] - level[row.task]) / 3 + 0.15 * generator.standard_normal()
        tuned.append(Measured(row.task, row.expert, float(1 / (1 + np.exp(-value))), WAY[0], "fine_tuned"))
    mixed = World(real.tasks, real.experts, real.results + tuned)
    truth, after = real.truth(names), mixed.truth(names, (WAY[0], "fine_tuned"))
    rows: Figures = {}
    for number in range(0, len(names), 5 if quick else 1):
        left = real.tasks.without_task(names[number])
        alone = real.predict(real.fit(left), names[number])
        prior = mixed.fit(left)
        beside = mixed.predict(prior, names[number])
        other = mixed.predict(prior, names[number], (WAY[0], "fine_tuned"))
        add = _adder(rows, truth[number])
        add("probes alone", alone.logit, alone)
        add("probes, fine-tuned beside", beside.logit, beside)
        if np.isfinite(after[number]).sum() > 1:
            rows.setdefault("fine-tuned", []).append(judge(other.logit, after[number], other))
    return rows


@cache
def sample_scores(task: str, experts: tuple[str, ...]) -> list[dict[str, float]]:
    """Scores of every expert on the one sample of a task that trials see."""
    with np.load(SHARED / "real" / "features" / f"{task}.npz", allow_pickle=False) as arrays:
        labels = arrays["labels"].astype(np.intp)
        return [trial_scores(arrays[name], labels) for name in experts]


def _adder(rows: Figures, truth: np.ndarray):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a closure
    """A function that judges scores on one task and keeps the figures."""

    def add(name: str, scores: np.ndarray, prediction: Prediction | None = None) -> None:
        rows.setdefault(name, []).append(judge(scores, truth, prediction))

    return add
