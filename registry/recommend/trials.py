"""Which experts are worth trying, one after another, and when to stop.

Nothing here knows how an expert is run: that is a function from an expert to what was found.

Axes: M experts.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from registry.answers import Trial, TrialScores
from registry.errors import InvalidQueryError
from registry.recommend.prediction import Prediction, improvement
from registry.recommend.trial_models import CostModel, TrialEvidence, fold_in
from registry.records import ExpertRecord

MAX_FAILURES = 10
"""Experts that may fail before trying is given up: what fails so often is not the experts."""


class TrialFailedError(Exception):
    """Why an expert cannot be tried, in a sentence; caught by ``try_experts``, which goes on with the next."""


@dataclass(frozen=True)
class TrialPlan:
    """How many experts to try, and when to stop before.

    Attributes:
        num_trials: Most experts that are tried; 0 for none.
        time_budget: Most seconds that trials take together, as far as that can be predicted.
        stop_below: Expected improvement, in accuracy, below which no expert is worth a trial.
        record: Whether what is measured is to be stored.
    """

    num_trials: int = 0
    time_budget: float | None = None
    stop_below: float | None = None
    record: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidQueryError: If a value is out of its range, or there is nothing that it could change.
        """
        if self.num_trials < 0:
            raise InvalidQueryError(f"the number of trials must be 0 or more, got {self.num_trials}")
        named = {"time budget": self.time_budget, "gain to stop below": self.stop_below, "record": self.record}
        told = [name for name, value in named.items() if value is not None and value is not False]
        if told and not self.num_trials:
            raise InvalidQueryError(
                f"{' and '.join(told)} would change nothing without trials; say how many to make"
            )
        if self.time_budget is not None and not 0 < self.time_budget < math.inf:
            raise InvalidQueryError(f"the time budget must be above 0 seconds, got {self.time_budget:g}")
        if self.stop_below is not None and not 0 <= self.stop_below <= 1:
            raise InvalidQueryError(f"the gain to stop below must be from 0 to 1, got {self.stop_below:g}")


@dataclass(frozen=True)
class TrialRun:
    """What running an expert over a sample gave.

    Attributes:
        scores: Transferability scores by name.
        accuracy: Of a few-shot linear probe, ``None`` where the task is not single-label.
        num_images: Of the sample.
        loading_seconds: Taken to load the expert.
        feature_seconds: Taken by features and scores, ``None`` where the features were cached.
        caution: What is to be told of this trial, in a clause; mostly nothing.
    """

    scores: dict[str, float]
    accuracy: float | None
    num_images: int
    loading_seconds: float
    feature_seconds: float | None
    caution: str = ""


@dataclass(frozen=True, eq=False)
class Tried:
    """What trials came to.

    Attributes:
        prediction: What is expected after them.
        trials: In the order run.
        warnings: Experts that failed, and why fewer were tried than asked for.
    """

    prediction: Prediction
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...]


Trier = Callable[[Sequence[ExpertRecord], Prediction, NDArray[np.bool_], NDArray[np.bool_]], Tried]
"""From experts, what is expected of them, which may be tried, and which were measured: what trials came to."""


def improvements(prediction: Prediction, measured: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Expected improvement of each expert over the best measured one ``[M]``, in accuracy.

    Over the one expected best, where none was measured. What is not known of the level of the task is common to
    all experts, so it is the error of the difference that counts.
    """
    among = np.where(measured, prediction.mean, -np.inf) if measured.any() else prediction.mean
    best = int(np.argmax(among))
    own = np.diag(prediction.covariance)
    variance = own + own[best] - 2 * prediction.covariance[best] if measured.any() else own
    return improvement(prediction.mean - prediction.mean[best], np.sqrt(np.maximum(variance, 0.0)))


def choose(
    gain: NDArray[np.float64],
    seconds: NDArray[np.float64],
    untried: NDArray[np.bool_],
    *,
    stop_below: float = 0.0,
    seconds_left: float = math.inf,
) -> int | None:
    """The untried expert of the highest expected improvement per second.

    Args:
        gain: Expected improvement ``[M]``.
        seconds: Predicted of a trial ``[M]``, positive.
        untried: Which may be chosen ``[M]``.
        stop_below: Least gain.
        seconds_left: Most seconds.

    Returns:
        Its place, the first among equals; ``None`` if no expert is within both bounds.
    """
    allowed = untried & (gain >= stop_below) & (seconds <= seconds_left)
    return int(np.argmax(np.where(allowed, gain / seconds, -1.0))) if allowed.any() else None


def try_experts(
    experts: Sequence[ExpertRecord],
    prediction: Prediction,
    untried: NDArray[np.bool_],
    measured: NDArray[np.bool_],
    *,
    plan: TrialPlan,
    run: Callable[[ExpertRecord], TrialRun],
    costs: CostModel,
    on_trial: Callable[[Trial], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Tried:
    """Try experts one after another, each chosen by what the ones before it told.

    An expert that fails is told in the warnings and does not count. An interrupt ends the trials, if one is
    done at least.

    Args:
        experts: All that may be recommended.
        prediction: What is expected of them.
        untried: Which may be tried ``[M]``.
        measured: Of which the accuracy on the task is known already ``[M]``.
        plan: When to stop.
        run: Tries an expert; raises ``TrialFailedError`` if that cannot be done.
        costs: What is known of the speed of this machine.
        on_trial: Called after each trial.
        progress: Called as ``progress("trials", done, total)`` at the start and after each trial.
        clock: Seconds that pass.

    Returns:
        What it came to.

    Raises:
        KeyboardInterrupt: If no trial is done yet.
    """
    deadline = math.inf if plan.time_budget is None else clock() + plan.time_budget
    session = _Session(
        experts, prediction, prediction, untried.copy(), measured.copy(), plan, costs, clock, deadline
    )
    try:
        session.run(run, on_trial, progress or (lambda stage, done, total: None))
    except KeyboardInterrupt:
        if not session.trials:
            raise
        session.stopped = "interrupted"
    return session.outcome()


@dataclass(eq=False)
class _Session:
    """Trials as they go on; ``now`` is what is expected after those done."""

    experts: Sequence[ExpertRecord]
    before: Prediction
    now: Prediction
    untried: NDArray[np.bool_]
    measured: NDArray[np.bool_]
    plan: TrialPlan
    costs: CostModel
    clock: Callable[[], float]
    deadline: float
    evidence: list[TrialEvidence] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    stopped: str = ""

    def run(
        self,
        run: Callable[[ExpertRecord], TrialRun],
        on_trial: Callable[[Trial], None] | None,
        progress: Callable[[str, int, int], None],
    ) -> None:
        """Try experts until the plan or ``next`` says to stop."""
        progress("trials", 0, self.plan.num_trials)
        while len(self.trials) < self.plan.num_trials:
            gain = improvements(self.now, self.measured)
            place = self.next(gain)
            if place is None:
                break
            try:
                self.attempt(place, float(gain[place]), run)
            except TrialFailedError as err:
                self.failures.append(f"{self.experts[place].name} could not be tried: {err}")
            else:
                progress("trials", len(self.trials), self.plan.num_trials)
                if on_trial:
                    on_trial(self.trials[-1])

    def next(self, gain: NDArray[np.float64]) -> int | None:
        """Place of the expert to try next; ``None``, with the reason in ``stopped``, if there is none."""
        seconds = self.costs.predict(self.experts)
        least, left = self.plan.stop_below or 0.0, self.deadline - self.clock()
        place = choose(gain, seconds, self.untried, stop_below=least, seconds_left=left)
        if len(self.failures) >= MAX_FAILURES:
            place, self.stopped = None, f"{len(self.failures)} experts failed"
        elif not self.untried.any():
            self.stopped = "no other expert is left to try"
        elif gain[self.untried].max() < least:
            largest = gain[self.untried].max()
            self.stopped = f"no other is expected to improve by {least:g}, the most is {largest:.2g}"
        elif place is None:
            self.stopped = f"the next would pass the time budget of {self.plan.time_budget:g} seconds"
        return place

    def attempt(self, place: int, gain: float, run: Callable[[ExpertRecord], TrialRun]) -> None:
        """Try an expert and fold in what was found."""
        expert, start = self.experts[place], self.clock()
        self.untried[place] = False
        found = run(expert)
        if found.caution:
            self.cautions.append(f"{expert.name}: {found.caution}")
        self.evidence.append(TrialEvidence(place, found.scores, found.accuracy))
        self.trials.append(
            Trial(
                expert=expert.name,
                expected_accuracy=float(np.clip(self.now.mean[place], 0.0, 1.0)),
                expected_improvement=gain,
                found=TrialScores(found.scores, found.accuracy, self.clock() - start),
            )
        )
        self.measured[place] = found.accuracy is not None
        self.now = fold_in(self.before, self.evidence)
        self.costs = self.costs.learn(
            expert,
            num_images=found.num_images,
            loading_seconds=found.loading_seconds,
            feature_seconds=found.feature_seconds,
        )

    def outcome(self) -> Tried:
        """What it came to."""
        warnings = [*self.failures, *self.cautions]
        if self.stopped:
            warnings.append(
                f"stopped after {len(self.trials)} of {self.plan.num_trials} trials: {self.stopped}"
            )
        if self.trials and not self.cautions and not self.measured.any():
            warnings.append(
                "trials of tasks with several labels or numbers to predict give scores only: they compare the "
                "experts tried, and say nothing of how well these do"
            )
        return Tried(self.now, tuple(self.trials), tuple(warnings))
