"""What is expected of experts on one task, and what measurements there change of it.

Axes: M experts, S scenarios.
"""

from dataclasses import dataclass

import numpy as np

from registry.threads import one_thread

NUM_SCENARIOS = 512
JITTER = 1e-9


@dataclass(frozen=True, eq=False)
class Prediction:
    """Expected accuracies on one new task, before clipping to 0..1.

    The accuracy of expert i is ``level + deviation_i``: the error of the level is common to all experts
    and decides nothing between them, the errors of the deviations do.

    Attributes:
        mean: ``[M]``.
        covariance: ``[M, M]`` of the errors of the deviations.
        level_sd: Standard deviation of the error of the level.
    """

    mean: np.ndarray
    covariance: np.ndarray
    level_sd: float

    @property
    def sd(self) -> np.ndarray:
        """``[M]`` of the whole error."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0) + self.level_sd**2)

    def of(self, places: np.ndarray) -> "Prediction":
        """The same of some of the experts."""
        return Prediction(self.mean[places], self.covariance[np.ix_(places, places)], self.level_sd)

    def scenarios(self) -> np.ndarray:
        """``[S, M]`` accuracies as they may be, but for the level: draws of a fixed seed, and their mirrors."""
        scale = float(np.diag(self.covariance).max(initial=0.0))
        with one_thread():  # small: threads would wait for each other
            factor = np.linalg.cholesky(self.covariance + (JITTER + 1e-6 * scale) * np.eye(len(self.mean)))
        draws = np.random.default_rng(0).standard_normal((NUM_SCENARIOS // 2, len(self.mean))) @ factor.T
        return np.concatenate([self.mean + draws, self.mean - draws])


def condition(
    prediction: Prediction, measured: np.ndarray, noise_sd: float | np.ndarray, *, offset_sd: float = 0.0
) -> Prediction:
    """Fold in accuracies measured on the new task itself: one expert moves the level, and those like it.

    Args:
        prediction: What was expected.
        measured: ``[M]`` accuracies on the new task, NaN where there is none.
        noise_sd: Of a measurement, in accuracy, positive; one for all or ``[M]``.
        offset_sd: Of an error that all measurements have in common.

    Returns:
        What is expected now.
    """
    known = np.flatnonzero(np.isfinite(measured))
    if not known.size:
        return prediction
    noise = np.broadcast_to(np.asarray(noise_sd, dtype=np.float64), measured.shape)[known] ** 2
    level = prediction.level_sd**2
    covariance = prediction.covariance + level
    among = covariance[np.ix_(known, known)] + np.diag(noise) + offset_sd**2
    gain = np.linalg.solve(among, covariance[known]).T  # [M, known]
    mean = prediction.mean + gain @ (measured[known] - prediction.mean[known])
    left = covariance - gain @ covariance[known]
    # What is left has no common part that is known apart from the rest: it is all in the covariance.
    return Prediction(mean, (left + left.T) / 2, 0.0)


def expected_regret(prediction: Prediction) -> np.ndarray:
    """How much better the best expert is expected to be.

    The mean over scenarios of the best accuracy among all experts, minus the expert's expected accuracy. The
    best of several uncertain experts is better than the expected best, so that it is positive even for the
    first.

    Returns:
        ``[M]`` in accuracy, 0 to 1, rising as the expected accuracy falls.
    """
    best = prediction.scenarios().max(axis=1).mean()
    return np.asarray(np.clip(best - prediction.mean, 0.0, 1.0))


def improvement(gap: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Expected positive part of Gaussians: how much experts are expected to be better than another.

    Args:
        gap: ``[M]`` by how much they are expected to be better or, below 0, worse.
        sd: ``[M]`` of that difference.

    Returns:
        ``[M]``, not negative.

    Source:
        Jones, Schonlau and Welch 1998, Efficient global optimization, (15).
    """
    from scipy.special import ndtr

    sd = np.maximum(sd, 1e-12)
    ratio = gap / sd
    return np.asarray(sd * (ratio * ndtr(ratio) + np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi)))
