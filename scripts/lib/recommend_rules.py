"""What the recommender is compared with, and ours in its variants: scores of experts on a task left out.

Axes: T tasks, M experts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from recommend_worlds import GENERALIST, World

from registry.recommend.prediction import Prediction, condition
from registry.recommend.prior import Prior, fit_prior
from registry.recommend.results import ResultTable
from registry.recommend.trials import TrialEvidence, fold_in
from registry.recommend.trials import improvements

Scored = tuple[str, np.ndarray, int]
"""Name of a rule, scores ``[M]``, and experts that had to be run on the task."""

SOURCE = "asymmetric"
TRIALS = (1, 3, 5)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A task and the rows that may be learnt from."""

    world: World
    task: int
    rest: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Experts ``[M]`` that can be judged on the task."""
        return np.isfinite(self.world.accuracy[self.task])

    def fit(self, descriptors: Sequence[str]) -> tuple[Prior, Prediction]:
        """The model of the other tasks, and its prediction for this one."""
        world, rest, task = self.world, self.rest, self.task
        table = ResultTable(tuple(world.tasks[u] for u in rest), tuple(world.experts), world.accuracy[rest])
        likeness = {name: world.likeness[name] for name in descriptors if name in world.likeness}
        source = world.source.get(SOURCE)
        prior = fit_prior(
            table,
            {name: distances[np.ix_(rest, rest)] for name, distances in likeness.items()},
            None if source is None else source[:, rest],
        )
        to_query = {name: distances[rest, task] for name, distances in likeness.items()}
        return prior, prior.predict(to_query, None if source is None else source[:, task])

    def trial(self, expert: int) -> TrialEvidence:
        """What running an expert on the task gives: the scores that were stored."""
        scores = {name: float(table[self.task, expert]) for name, table in self.world.scores.items()}
        return TrialEvidence(
            expert, {name: value for name, value in scores.items() if np.isfinite(value)}, None
        )


def static_scores(accuracy: np.ndarray) -> np.ndarray:
    """Mean z-score ``[M]`` over the tasks, shrunk by n/(n+1)."""
    deviations = accuracy - np.nanmean(accuracy, axis=1, keepdims=True)
    z = deviations / np.maximum(np.nanstd(accuracy, axis=1, keepdims=True), 1e-12)
    return np.nansum(z, axis=0) / (np.isfinite(z).sum(axis=0) + 1)


def simple_rules(left: LeftOut) -> Iterator[Scored]:
    """Rules without a model, as far as the world allows them."""
    world, rest, task = left.world, left.rest, left.task
    static = static_scores(world.accuracy[rest])
    yield "static", static, 0
    if world.sizes is not None:
        yield "largest", world.sizes, 0
    for name in ("imagenet", GENERALIST):
        if name in world.experts:
            yield "generalist", static + 1e3 * (np.array(world.experts) == name), 0
    for name, distances in world.likeness.items():
        nearest = rest[np.argmin(distances[rest, task])]
        accuracy = world.accuracy[nearest]
        # Experts without a result there come last, by static rank.
        yield f"nearest task, {name}", np.where(np.isfinite(accuracy), accuracy, static - 1e3), 0
    for name, distances in world.source.items():
        distance = distances[:, task]
        yield f"source distance, {name}", -np.where(np.isfinite(distance), distance, 1e3), 0
    for name, table in world.scores.items():
        score = table[task]
        if np.isfinite(score).any():
            yield f"score: {name}", np.where(np.isfinite(score), score, -1e9), int(left.known.sum())


def with_trials(
    left: LeftOut, prediction: Prediction, numbers: Sequence[int]
) -> Iterator[tuple[int, Prediction]]:
    """Run the expert of the highest expected improvement, fold in its scores, and so on."""
    known = np.flatnonzero(left.known)
    trials: list[TrialEvidence] = []
    current = prediction
    for number in range(1, max(numbers) + 1):
        untried = np.setdiff1d(known, [trial.place for trial in trials])
        if not untried.size:
            break
        tried = np.isin(np.arange(len(current.mean)), [trial.place for trial in trials])
        chosen = untried[int(np.argmax(improvements(current, tried)[untried]))]
        trials.append(left.trial(int(chosen)))
        current = fold_in(prediction, trials)
        if number in numbers:
            yield number, current


def sequential_picks(left: LeftOut, prediction: Prediction, number: int) -> list[int]:
    """Experts picked one after the other by expected improvement, each measured before the next is picked."""
    truth = left.world.accuracy[left.task]
    known = np.flatnonzero(left.known)
    picks = [int(known[np.argmax(prediction.mean[known])])]
    measured = np.full(len(truth), np.nan)
    while len(picks) < min(number, len(known)):
        measured[picks[-1]] = truth[picks[-1]]
        current = condition(prediction, measured, 1e-3)
        untried = np.setdiff1d(known, picks)
        gain = improvements(current, np.isin(np.arange(len(truth)), picks))
        picks.append(int(untried[int(np.argmax(gain[untried]))]))
    return picks
