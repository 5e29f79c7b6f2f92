"""How long it takes to try an expert on this machine: guessed at first, then learned from the trials done.

Axes: M experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from registry.recommend.prediction import Prediction, condition
from registry.records import ExpertRecord

LOADING_SECONDS_PER_PARAM = 1e-8
"""Until measured: 100 million parameters a second."""
FEATURE_SECONDS_PER_FLOP = 5e-11
"""Until measured: 20 billion multiply-adds a second, as two cores do."""
GUESS_SECONDS = 1.0
"""What the guess of a coefficient weighs, in seconds of measured work."""
UNKNOWN_SECONDS = 10.0
"""Of a trial where the cost of no expert is known."""


@dataclass(frozen=True)
class CostModel:
    """Seconds of a trial: those to load parameters, and those to compute features of images.

    A coefficient is the time measured over the work done, with ``GUESS_SECONDS`` of work at the guessed speed
    added to both.

    Attributes:
        num_images: Of the sample.
        loaded_params: That were loaded so far.
        loading_seconds: Which that took.
        computed_flops: Multiply-adds of all images so far.
        feature_seconds: Which these took.
    """

    num_images: int
    loaded_params: float = 0.0
    loading_seconds: float = 0.0
    computed_flops: float = 0.0
    feature_seconds: float = 0.0

    @property
    def seconds_per_param(self) -> float:
        """To load."""
        guessed = GUESS_SECONDS / LOADING_SECONDS_PER_PARAM
        return (GUESS_SECONDS + self.loading_seconds) / (guessed + self.loaded_params)

    @property
    def seconds_per_flop(self) -> float:
        """To compute features."""
        guessed = GUESS_SECONDS / FEATURE_SECONDS_PER_FLOP
        return (GUESS_SECONDS + self.feature_seconds) / (guessed + self.computed_flops)

    def predict(self, experts: Sequence[ExpertRecord]) -> NDArray[np.float64]:
        """Seconds to try each expert ``[M]``, the median of the others where its cost is not known."""
        seconds = np.array([self._seconds(expert) for expert in experts], dtype=np.float64)
        known = np.isfinite(seconds)
        usual = float(np.median(seconds[known])) if known.any() else UNKNOWN_SECONDS
        return np.where(known, seconds, usual)

    def learn(
        self, expert: ExpertRecord, *, num_images: int, loading_seconds: float, feature_seconds: float | None
    ) -> "CostModel":
        """What is known after a trial; ``feature_seconds`` is ``None`` where features were cached."""
        known = replace(self, num_images=num_images)
        if expert.num_params:
            known = replace(
                known,
                loaded_params=self.loaded_params + expert.num_params,
                loading_seconds=self.loading_seconds + loading_seconds,
            )
        if expert.flops and feature_seconds is not None:
            known = replace(
                known,
                computed_flops=self.computed_flops + expert.flops * num_images,
                feature_seconds=self.feature_seconds + feature_seconds,
            )
        return known

    def _seconds(self, expert: ExpertRecord) -> float:
        if not expert.num_params or not expert.flops:
            return float("nan")
        loading = self.seconds_per_param * expert.num_params
        return loading + self.seconds_per_flop * expert.flops * self.num_images


TRIAL_SD = 0.02
"""Of a few-shot accuracy in a trial about the accuracy that is predicted."""
OFFSET_SD = 1.0
"""Of the common error of scores, in accuracy: of it nothing is known."""


@dataclass(frozen=True)
class Calibration:
    """How differences of scores become differences of accuracy.

    Attributes:
        weights: By score.
        sd: Of what is left, in accuracy.
    """

    weights: Mapping[str, float]
    sd: float


CALIBRATIONS = (
    Calibration({"logme": 0.25, "linear_probe": 0.42, "knn": 0.24}, sd=0.015),
    Calibration({"logme": 0.72}, sd=0.025),
)
"""The first for which all trials have the scores. Least squares over experts within the tasks of the
development split of scripts/lib/recommend_worlds.py, of accuracies by ``indexer.experts.few_shot.PROTOCOL``."""


@dataclass(frozen=True)
class TrialEvidence:
    """What a trial told of one expert.

    Attributes:
        place: Of the expert in the prediction.
        scores: Transferability scores by their names in ``registry.recommend.scores.SCORES``.
        accuracy: Of a few-shot linear probe, 0 to 1; ``None`` where the task is not single-label.
    """

    place: int
    scores: Mapping[str, float]
    accuracy: float | None


def fold_in(prediction: Prediction, trials: Sequence[TrialEvidence]) -> Prediction:
    """Fold trials into what is expected.

    Args:
        prediction: Before any of these trials.
        trials: All of them, in any order, one for an expert.

    Returns:
        What is expected after them.
    """
    accuracy = np.full(len(prediction.mean), np.nan)
    for trial in trials:
        if trial.accuracy is not None:
            accuracy[trial.place] = trial.accuracy
    prediction = condition(prediction, accuracy, TRIAL_SD)
    calibration = next(
        (it for it in CALIBRATIONS if all(it.weights.keys() <= t.scores.keys() for t in trials)), None
    )
    if calibration is None or len(trials) < 2:  # one expert compares with none
        return prediction
    composite = np.full(len(prediction.mean), np.nan)
    for trial in trials:
        composite[trial.place] = sum(
            weight * trial.scores[name] for name, weight in calibration.weights.items()
        )
    return condition(prediction, composite, calibration.sd, offset_sd=OFFSET_SD)
