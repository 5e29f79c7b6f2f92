"""What trials change of a prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from registry.prediction import Prediction, condition

TRIAL_SD = 0.02
"""Of a few-shot accuracy in a trial about the accuracy that is predicted."""


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
    return condition(prediction, accuracy, TRIAL_SD)
