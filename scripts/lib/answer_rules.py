"""Simple rules that answers are judged beside, and what is measured of both.

Axes: T tasks, M experts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import beta, weightedtau

from registry.recommend.prediction import Prediction

MEASURES = ("tau_w", "regret@1", "regret@3", "covered", "width")
Figures = dict[str, list[list[float]]]
"""Rows of ``MEASURES``, one for a task, by rule."""


def judge(scores: np.ndarray, truth: np.ndarray, prediction: Prediction | None = None) -> list[float]:
    """``MEASURES`` of one task; NaN where not defined.

    Args:
        scores: ``[M]`` of a rule, the higher the better.
        truth: ``[M]`` accuracies, NaN where not known.
        prediction: Whose intervals are judged, if there are any.
    """
    judged = np.isfinite(truth)
    accuracy, given = truth[judged], scores[judged]
    order = np.argsort(-given, kind="stable")
    regrets = [float(accuracy.max() - accuracy[order[:k]].max()) for k in (1, 3)]
    tied = len(accuracy) < 3 or np.ptp(given) == 0 or np.ptp(accuracy) == 0
    tau = float("nan") if tied else float(weightedtau(given, accuracy).statistic)
    if prediction is None:
        return [tau, *regrets, float("nan"), float("nan")]
    low, high = (end[judged] for end in prediction.interval)
    covered = float(np.mean((low <= accuracy) & (accuracy <= high)))
    return [tau, *regrets, covered, float(np.mean(high - low))]


def static_scores(accuracy: np.ndarray) -> np.ndarray:
    """Mean z-score ``[M]`` over the tasks, shrunk by n/(n+1)."""
    used = accuracy[np.isfinite(accuracy).sum(axis=1) > 1]
    off = used - np.nanmean(used, axis=1, keepdims=True)
    z = off / np.maximum(np.nanstd(used, axis=1, keepdims=True), 1e-12)
    return np.asarray(np.nansum(z, axis=0) / (np.isfinite(z).sum(axis=0) + 1))


def first_three_measured(static: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Scores of a rule that measures the first three of the static ranking and takes the best of them."""
    scores = static.copy()
    first = np.argsort(-np.where(np.isfinite(truth), static, -np.inf), kind="stable")[:3]
    scores[first] = 100 + truth[first]
    return scores


def nearest_scores(accuracy: np.ndarray, distances: np.ndarray, static: np.ndarray) -> np.ndarray:
    """Accuracies on the nearest task; experts without a result there come last, by static rank."""
    near = accuracy[int(np.argmin(distances))]
    return np.where(np.isfinite(near), near, static - 1e3)


def summarise(rows: Figures, *, draws: int, seed: int) -> dict[str, dict[str, Any]]:
    """Mean over tasks and 90% interval of each figure; ``None`` where there is none.

    Intervals are bootstrapped over tasks, but for coverage, of which all of a few tasks say little: it has the
    exact binomial one, a task counting once, since experts of one task are off together.
    """
    summary: dict[str, dict[str, Any]] = {}
    for rule, values in rows.items():
        table = np.array(values)
        summary[rule] = {}
        for column, name in enumerate(MEASURES):
            figures = table[:, column][np.isfinite(table[:, column])]
            if not figures.size:
                summary[rule][name] = None
                continue
            if name == "covered":
                interval = binomial_interval(float(figures.sum()), len(figures))
            else:
                sample = np.random.default_rng(seed).integers(len(figures), size=(draws, len(figures)))
                interval = np.quantile(figures[sample].mean(axis=1), [0.05, 0.95]).tolist()
            summary[rule][name] = {"mean": float(figures.mean()), "interval": interval}
    return summary


def binomial_interval(successes: float, trials: int) -> list[float]:
    """90% interval of a share, after Clopper and Pearson 1934."""
    failures = trials - successes
    low = float(beta.ppf(0.05, successes, failures + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(0.95, successes + 1, failures)) if failures > 0 else 1.0
    return [low, high]


def show(title: str, summary: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one table."""
    print(f"\n{title}")
    print(f"{'':28}" + "".join(f"{name:>24}" for name in MEASURES))
    for rule, figures in summary.items():
        cells = []
        for name in MEASURES:
            figure = figures[name]
            if figure is None:
                cells.append("-")
            else:
                low, high = figure["interval"]
                cells.append(f"{figure['mean']:.4f} [{low:.4f}, {high:.4f}]")
        print(f"{rule:28}" + "".join(f"{cell:>24}" for cell in cells))


COVERAGE_BOUNDS = (0.85, 0.95)
"""Of what intervals that are meant to cover 90% should cover."""


def show_coverage(title: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    """Print whether a coverage is inside of its bounds, outside, or outside by no more than chance."""
    (low, high), mean = figure["interval"], figure["mean"]
    least, most = COVERAGE_BOUNDS
    inside = least <= round(mean, 3) <= most
    said = "inside " if inside else "CHANCE " if low <= most and high >= least else "OUTSIDE"
    print(f"  {said} coverage, {title}: {mean:.3f} [{low:.3f}, {high:.3f}]")
    return {"name": title, "figure": mean, "interval": [low, high], "holds": inside}


def show_lines(lines: Sequence[tuple[str, float, str, float]]) -> list[dict[str, Any]]:
    """Print figures beside what they must be: name, figure, ``<=`` or ``>=``, bound."""
    print("\nacceptance")
    rows = []
    for name, figure, sign, bound in lines:
        good = figure <= bound + 1e-9 if sign == "<=" else figure >= bound - 1e-9
        print(f"  {'holds ' if good else 'FAILS '} {name}: {figure:.4f} {sign} {bound:.4f}")
        rows.append({"name": name, "figure": figure, "sign": sign, "bound": bound, "holds": bool(good)})
    return rows
