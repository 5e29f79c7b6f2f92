"""The answer in one breath: which expert to take, how sure that is, what is as good and cheaper, what is next.

The text is composed here and nowhere else.

Axes: M experts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from registry.answers import Confidence, Verdict
from registry.recommend.facts import ExpertFacts
from registry.recommend.prediction import Prediction, normal_cdf
from registry.recommend.results import Way
from registry.recommend.trials import improvements
from registry.wording import describe_way

TIE_CHANCE = 0.25
"""An expert that has this chance of being better cannot be told from the one to take."""
MOST_TIES = 20
NUM_NEXT = 3
CLOSE = 0.01
"""Accuracy that nobody would mind losing."""
SURE, LIKELY = 0.8, 0.5
"""Chances of losing no more than that, for which confidence is high and medium."""


def make_verdict(
    experts: Sequence[ExpertFacts],
    prediction: Prediction,
    order: Sequence[int],
    *,
    way: Way,
    counts: Sequence[int],
    left_out: Mapping[str, int] | None = None,
) -> Verdict:
    """Compose the verdict.

    Args:
        experts: The M candidates.
        prediction: What is expected of them.
        order: Their places, best first.
        way: What the answer is about.
        counts: Results of each, on other tasks.
        left_out: How many experts each limit removed.
    """
    first = order[0]
    gap = prediction.logit - prediction.logit[first]
    sd = prediction.difference_sd(first)
    tied = [place for place in order[1:] if _chance(gap[place], sd[place]) >= TIE_CHANCE]
    close = [first, *(place for place in tied if prediction.mean[first] - prediction.mean[place] <= CLOSE)]
    low, high = prediction.interval
    confidence = _confidence(prediction, first)
    return Verdict(
        take=experts[first].name,
        protocol=describe_way(way),
        expected=float(prediction.mean[first]),
        interval=(float(low[first]), float(high[first])),
        ties=tuple(experts[place].name for place in tied[:MOST_TIES]),
        cheapest=experts[min(close, key=lambda place: _cost(experts[place]))].name,
        confidence=confidence,
        why=_reason(experts, prediction, order, counts, len(tied)),
        next=tuple(experts[place].name for place in _next(prediction, first, tied)),
        left_out={name: count for name, count in (left_out or {}).items() if count},
        compared=len(experts),
    )


def _chance(gap: float, sd: float) -> float:
    """That an expert is better than another, for the gap between their log odds and the sd of that."""
    return float(normal_cdf(np.array(gap / max(sd, 1e-9))))


def _confidence(prediction: Prediction, first: int) -> Confidence:
    """By the chance that the first loses no more than ``CLOSE`` to the best."""
    places = np.union1d(prediction.contenders(), [first])
    draws = prediction.of(places).scenarios()
    lost = draws.max(axis=1) - draws[:, int(np.searchsorted(places, first))]
    chance = float(np.mean(lost <= CLOSE))
    return "high" if chance >= SURE else "medium" if chance >= LIKELY else "low"


def _cost(expert: ExpertFacts) -> tuple[float, float, str]:
    """Multiply-adds, then parameters; what is not known costs most."""
    size = float("inf") if expert.num_params is None else expert.num_params
    flops = (
        20.0 * size if expert.flops is None else expert.flops
    )  # of networks of images about so many a parameter
    return (flops, size, expert.name)


def _next(prediction: Prediction, first: int, tied: Sequence[int]) -> list[int]:
    """Places of those not measured here whose measurement would settle most: the first, its equals by gain."""
    measured = np.isfinite(prediction.measured)
    gain = improvements(prediction, np.arange(len(measured)) == first)
    ranked = sorted((place for place in tied if not measured[place]), key=lambda place: -gain[place])
    return ([] if measured[first] else [first]) + ranked[: NUM_NEXT - int(not measured[first])]


def _reason(
    experts: Sequence[ExpertFacts],
    prediction: Prediction,
    order: Sequence[int],
    counts: Sequence[int],
    num_ties: int,
) -> str:
    """Why the first is taken, in one sentence."""
    first, num_measured = order[0], int(np.isfinite(prediction.measured).sum())
    name = experts[first].name
    if len(experts) == 1:
        said = f"{name} is the only expert that was compared"
    elif np.isfinite(prediction.measured[first]):
        said = f"{name} was measured on this task"
        if num_measured > 1:
            said = f"{name} is the best of {num_measured} that were measured on this task"
    elif counts[first]:
        results = "one result" if counts[first] == 1 else f"{counts[first]} results"
        said = f"{name} promises most, by {results} of its own on other tasks"
    else:
        said = f"{name} promises most, by its size, its source and its architecture, for it has no results"
    if num_ties:
        others = "one other" if num_ties == 1 else f"{num_ties} others"
        said += f"; {others} cannot be told from it"
    return said + "."
