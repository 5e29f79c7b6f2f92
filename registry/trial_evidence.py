"""What trials change of a prediction.

A trial gives transferability scores and, on single-label tasks, a few-shot accuracy. The accuracy is an
observation of what is predicted. Scores are not in its unit, but differences of them are: within a task, the
accuracy of experts rises with a weighted sum of scores, with the same weights on all tasks. So that sum is an
observation too, with an error that all experts tried have in common and of which nothing is known: scores
say how experts compare, not how well they do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from registry.prediction import Prediction, condition

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
development split of scripts/recommend_worlds.py, of accuracies by ``indexer.measure.PROTOCOL``."""


@dataclass(frozen=True)
class TrialEvidence:
    """What a trial told of one expert.

    Attributes:
        place: Of the expert in the prediction.
        scores: Transferability scores by their names in ``registry.transferability.SCORES``.
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
