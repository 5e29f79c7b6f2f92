"""What was measured stands: nothing unmeasured passes it because one measurement lifted all.

Axes: M experts.
"""

from dataclasses import replace

import numpy as np

from registry.recommend.prediction import Prediction

SURE = 0.95
"""Chance of being better, before anything was measured here, from which an expert may pass a measured one."""
MARGIN = 0.02
"""How far below the measured one others are kept, in log odds; their order stays."""


def shielded(before: Prediction, after: Prediction) -> Prediction:
    """Keep unmeasured experts below the best measured one where only the level lifted them past it.

    An expert passes the best measured one if it was expected above what that one measured, or was clearly
    expected to be better than it, before; or if nothing was measured.

    Args:
        before: What was expected before anything was measured on the task.
        after: The same experts afterwards.
    """
    from scipy.special import ndtr

    measured = np.isfinite(after.measured)
    if not measured.any() or measured.all():
        return after
    best = int(np.argmax(np.where(measured, after.logit, -np.inf)))
    top = after.logit[best]
    chance = ndtr((before.logit - before.logit[best]) / np.maximum(before.difference_sd(best), 1e-9))
    lifted = ~measured & (before.logit < top) & (chance < SURE) & (after.logit > top - MARGIN)
    if not lifted.any():
        return after
    over = after.logit - (top - MARGIN)
    kept = top - MARGIN * np.exp(-np.maximum(over, 0.0) / MARGIN / 50) - 1e-4
    return replace(after, logit=np.where(lifted, kept, after.logit))
