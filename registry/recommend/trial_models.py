"""What trials change of a prediction.

An accuracy that a trial measured in the asked way is what the answer says. Scores of a small sample compare the
experts tried: see ``registry.scores.trial_scores``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from registry.recommend.prediction import Prediction, condition, condition_logit
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
