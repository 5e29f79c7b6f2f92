"""Which experts are worth trying, one after another, and when to stop.

Nothing here knows how an expert is run: that is a function from the place of an expert to what was found.

Axes: M experts.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from registry.errors import InvalidQueryError
from registry.recommend.prediction import Prediction, condition, condition_logit, improvement
from registry.scores.trial_scores import SCORE_OFFSET_SD, SCORE_SD, composite

TRIAL_SD = 0.015
"""Of an accuracy measured in a trial about what a full measurement would say, unless told."""


@dataclass(frozen=True)
class TrialEvidence:
    """What a trial told of one expert.

    Attributes:
        place: Of the expert in the prediction.
        accuracy: Measured in the asked way, 0 to 1; ``None`` where the sample or the task does not allow that.
        sd: Of that, in accuracy.
        scores: Of the sample's features, by name.
    """

    place: int
    accuracy: float | None = None
    sd: float = TRIAL_SD
    scores: Mapping[str, float] = field(default_factory=dict)


def fold_in(prediction: Prediction, trials: Sequence[TrialEvidence]) -> Prediction:
    """Fold trials into what is expected.

    Args:
        prediction: Before any of these trials.
        trials: All of them, in any order, one for an expert.

    Returns:
        What is expected after them.
    """
    accuracy = np.full(len(prediction.logit), np.nan)
    sd = np.full(len(prediction.logit), TRIAL_SD)
    for trial in trials:
        if trial.accuracy is not None:
            accuracy[trial.place], sd[trial.place] = trial.accuracy, trial.sd
    compared = [(trial.place, composite(trial.scores)) for trial in trials if trial.accuracy is None]
    places = np.array([place for place, value in compared if np.isfinite(value)], dtype=np.intp)
    values = np.array([value for _, value in compared if np.isfinite(value)])
    if len(places) > 1:  # one expert compares with none
        noise = np.full(len(places), SCORE_SD)
        prediction = condition_logit(prediction, places, values, noise, SCORE_OFFSET_SD)
    return condition(prediction, accuracy, sd)


MAX_FAILURES = 10
"""Experts that may fail before trying is given up: what fails so often is not the experts."""


OnTrial = Callable[[TrialEvidence, tuple[float, float]], None]


class TrialFailedError(Exception):
    """Why an expert cannot be tried, in a sentence; caught by ``try_experts``, which goes on with the next."""


@dataclass(frozen=True)
class TrialPlan:
    """How many experts to try, and when to stop before.

    Attributes:
        num_trials: Most experts that are tried; 0 for none.
        time_budget: Most seconds that trials take together, as far as that can be predicted. Only with it does
            the time of a trial count: without it the trial that promises most goes first.
        stop_below: Expected improvement, in accuracy, below which no expert is worth a trial.
    """

    num_trials: int = 0
    time_budget: float | None = None
    stop_below: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidQueryError: If a value is out of its range, or there is nothing that it could change.
        """
        if self.num_trials < 0:
            raise InvalidQueryError(f"the number of trials must be 0 or more, got {self.num_trials}")
        named = {"time budget": self.time_budget, "gain to stop below": self.stop_below}
        given = [name for name, value in named.items() if value is not None]
        if given and not self.num_trials:
            raise InvalidQueryError(
                f"{' and '.join(given)} would change nothing without trials; say how many to make"
            )
        if self.time_budget is not None and not 0 < self.time_budget < math.inf:
            raise InvalidQueryError(f"the time budget must be above 0 seconds, got {self.time_budget:g}")
        if self.stop_below is not None and not 0 <= self.stop_below <= 1:
            raise InvalidQueryError(f"the gain to stop below must be from 0 to 1, got {self.stop_below:g}")


@dataclass(frozen=True, eq=False)
class TrialOutcome:
    """What trials came to.

    Attributes:
        prediction: What is expected after them.
        evidence: In the order run.
        expected: Accuracy that was expected of each before it was tried, and the improvement that it promised.
        warnings: Experts that failed, and why fewer were tried than asked for.
    """

    prediction: Prediction
    evidence: tuple[TrialEvidence, ...] = ()
    expected: tuple[tuple[float, float], ...] = ()
    warnings: tuple[str, ...] = ()


def improvements(prediction: Prediction, measured: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Expected improvement of each expert over the best measured one ``[M]``, in accuracy.

    Over the one expected best, where none was measured. What is not known of the level of the task is common to
    all experts, so it is the error of the difference that counts.
    """
    among = np.where(measured, prediction.logit, -np.inf) if measured.any() else prediction.logit
    best = int(np.argmax(among))
    mean = prediction.mean
    variance = np.diag(prediction.covariance)
    if measured.any():
        variance = prediction.difference_sd(best) ** 2
    slope = np.maximum(mean * (1 - mean), 0.02)
    return improvement(mean - mean[best], slope * np.sqrt(np.maximum(variance, 0.0)))


def choose(
    gain: NDArray[np.float64],
    untried: NDArray[np.bool_],
    *,
    seconds: NDArray[np.float64] | None = None,
    seconds_left: float = math.inf,
    stop_below: float = 0.0,
) -> int | None:
    """The untried expert of the highest expected improvement, by second where seconds are told.

    Args:
        gain: Expected improvement ``[M]``.
        untried: Which may be chosen ``[M]``.
        seconds: Predicted of a trial ``[M]``, positive; given where there is a time budget.
        seconds_left: Most seconds.
        stop_below: Least gain.

    Returns:
        Its place, the first among equals; ``None`` if no expert is within both bounds.
    """
    allowed = untried & (gain >= stop_below)
    worth = gain
    if seconds is not None:
        allowed &= seconds <= seconds_left
        worth = gain / seconds
    return int(np.argmax(np.where(allowed, worth, -1.0))) if allowed.any() else None


def try_experts(
    names: Sequence[str],
    prediction: Prediction,
    untried: NDArray[np.bool_],
    *,
    plan: TrialPlan,
    run: Callable[[int], TrialEvidence],
    seconds: Callable[[], NDArray[np.float64]] | None = None,
    on_trial: OnTrial | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrialOutcome:
    """Try experts one after another, each chosen by what the ones before it told.

    An expert that fails is told in the warnings and does not count. An interrupt ends the trials, if one is
    done at least.

    Args:
        names: Of the experts.
        prediction: What is expected of them; those ``measured`` there are what others must improve on.
        untried: Which may be tried ``[M]``.
        plan: When to stop.
        run: Tries an expert; raises ``TrialFailedError`` if that cannot be done.
        seconds: Predicts the seconds of a trial ``[M]``, asked anew before each; used with a time budget.
        on_trial: Called after each trial, with its accuracy and improvement as they were expected.
        clock: Seconds that pass.

    Returns:
        What it came to.

    Raises:
        KeyboardInterrupt: If no trial is done yet.
    """
    deadline = math.inf if plan.time_budget is None else clock() + plan.time_budget
    session = _Session(names, prediction, prediction, untried.copy(), plan, seconds, clock, deadline)
    try:
        session.run(run, on_trial)
    except KeyboardInterrupt:
        if not session.evidence:
            raise
        session.stopped = "interrupted"
    return session.outcome()


@dataclass(eq=False)
class _Session:
    """Trials as they go on; ``now`` is what is expected after those done."""

    names: Sequence[str]
    before: Prediction
    now: Prediction
    untried: NDArray[np.bool_]
    plan: TrialPlan
    seconds: Callable[[], NDArray[np.float64]] | None
    clock: Callable[[], float]
    deadline: float
    evidence: list[TrialEvidence] = field(default_factory=list)
    expected: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stopped: str = ""

    def run(self, run: Callable[[int], TrialEvidence], on_trial: OnTrial | None) -> None:
        """Try experts until the plan or ``next`` says to stop."""
        while len(self.evidence) < self.plan.num_trials:
            gain = improvements(self.now, self.measured)
            place = self.next(gain)
            if place is None:
                break
            self.untried[place] = False
            try:
                evidence = run(place)
            except TrialFailedError as err:
                self.failures.append(f"{self.names[place]} could not be tried: {err}")
                continue
            self.expected.append((float(self.now.mean[place]), float(gain[place])))
            self.evidence.append(evidence)
            self.now = fold_in(self.before, self.evidence)
            if on_trial:
                on_trial(evidence, self.expected[-1])

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Experts of which something was seen on this task."""
        seen = np.isfinite(self.before.measured)
        seen[[trial.place for trial in self.evidence]] = True
        return np.asarray(seen)

    def next(self, gain: NDArray[np.float64]) -> int | None:
        """Place of the expert to try next; ``None``, with the reason in ``stopped``, if there is none."""
        least = self.plan.stop_below or 0.0
        timed = self.plan.time_budget is not None and self.seconds is not None
        place = choose(
            gain,
            self.untried,
            seconds=self.seconds() if timed and self.seconds else None,
            seconds_left=self.deadline - self.clock(),
            stop_below=least,
        )
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

    def outcome(self) -> TrialOutcome:
        """What it came to."""
        warnings = list(self.failures)
        if self.stopped and len(self.evidence) < self.plan.num_trials:
            count = f"{len(self.evidence)} of {self.plan.num_trials}"
            warnings.append(f"stopped after {count} trials: {self.stopped}")
        return TrialOutcome(self.now, tuple(self.evidence), tuple(self.expected), tuple(warnings))
