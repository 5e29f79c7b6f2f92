"""How long it takes to try an expert on this machine: guessed at first, then learned from the trials done.

Axes: M experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

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
        is_finite = np.isfinite(seconds)
        usual = float(np.median(seconds[is_finite])) if is_finite.any() else UNKNOWN_SECONDS
        return np.where(is_finite, seconds, usual)

    def learn(
        self, expert: ExpertRecord, *, num_images: int, loading_seconds: float, feature_seconds: float | None
    ) -> "CostModel":
        """What is known after a trial; ``feature_seconds`` is ``None`` where features were cached."""
        learned = replace(self, num_images=num_images)
        if expert.num_params:
            learned = replace(
                learned,
                loaded_params=self.loaded_params + expert.num_params,
                loading_seconds=self.loading_seconds + loading_seconds,
            )
        if expert.flops and feature_seconds is not None:
            learned = replace(
                learned,
                computed_flops=self.computed_flops + expert.flops * num_images,
                feature_seconds=self.feature_seconds + feature_seconds,
            )
        return learned

    def _seconds(self, expert: ExpertRecord) -> float:
        if not expert.num_params or not expert.flops:
            return float("nan")
        loading = self.seconds_per_param * expert.num_params
        return loading + self.seconds_per_flop * expert.flops * self.num_images
