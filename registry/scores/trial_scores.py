"""What one pass over a small sample tells of an expert: three scores of its features, and what they weigh.

Within a task, log odds of experts' accuracies rise with a weighted sum of these scores, with the same weights
on all tasks. How high the sum is says little of how well experts do: the sample is small, and classes are few
or many. So trials by scores compare experts; only an accuracy measured in the asked way says how well they do.

Axes: N samples, D features, C classes, R directions.
"""

from collections.abc import Mapping

import numpy as np

STRENGTHS = 10.0 ** np.arange(-4, 1.1, 0.5)
"""Of the ridge, in units of the mean squared singular value."""
NUM_NEIGHBORS = 5
WEIGHTS = {"linear_probe": 0.37, "linear_fit": 0.4, "knn": 0.42}
"""Of log odds of ``linear_probe`` and ``knn`` and of ``linear_fit``: least squares over 15 real networks within
31 tasks, each task predicted by the others."""
SCORE_SD = 0.15
"""Of what these leave, in log odds of accuracy."""
SCORE_OFFSET_SD = 1.0
"""Of the error that all experts tried on a sample have in common, in log odds."""


def trial_scores(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores of the features of a sample; features that say nothing score chance, however many they are.

    Args:
        features: ``[N, D]`` of the penultimate layer.
        labels: ``[N]``, every class twice at least.

    Returns:
        ``linear_probe``: balanced accuracy, 0 to 1, of samples left out of a ridge regression;
        ``linear_fit``: minus the log of its mean squared error; ``knn``: balanced accuracy of five neighbours.
    """
    rows, squares = span_coordinates(features)
    targets = np.eye(int(labels.max()) + 1)[labels][:, np.unique(labels)]
    probe, fit = left_out_ridge(rows, squares, targets)
    return {"linear_probe": probe, "linear_fit": fit, "knn": left_out_neighbors(features, targets)}


def composite(scores: Mapping[str, float]) -> float:
    """What scores let expect in log odds of accuracy, but for what all experts of a task have in common.

    NaN where a score is missing.
    """
    total = 0.0
    for name, weight in WEIGHTS.items():
        value = scores.get(name, np.nan)
        total += weight * (value if name == "linear_fit" else _log_odds(value))
    return total


def span_coordinates(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors ``[N, R]`` of centred features, and squared singular values ``[R]``."""
    rows = np.asarray(features, dtype=np.float64)
    rows = rows - rows.mean(axis=0)
    gram = rows @ rows.T
    squares, vectors = np.linalg.eigh(gram)
    kept = squares > 1e-9 * max(float(squares[-1]), 1e-300)
    return vectors[:, kept], squares[kept]


def left_out_ridge(left: np.ndarray, squares: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy and minus log squared error of predicting each sample by a ridge on the others.

    Exact: with h the diagonal of the hat matrix, constant included, a prediction without the sample is
    ``y - (y - fit) / (1 - h)``. Of each is taken off what the share of its class among the others says, so
    that a sample's own class, rarer without it, is at no disadvantage.
    """
    size, counts = len(targets), targets.sum(axis=0)
    shares = (counts - targets) / (size - 1)
    error, best = np.inf, -shares
    for strength in STRENGTHS * (squares.mean() if squares.size else 1.0):
        kept = squares / (squares + strength)
        fit = targets.mean(axis=0) + left @ (kept[:, None] * (left.T @ targets))
        hat = (left**2) @ kept + 1 / size
        residual = (targets - fit) / np.maximum(1 - hat, 1e-6)[:, None]
        squared = float((residual**2).mean())
        if squared < error:
            error, best = squared, targets - residual - shares
    return balanced(best, targets), -float(np.log(max(error, 1e-6)))


def left_out_neighbors(features: np.ndarray, targets: np.ndarray) -> float:
    """Balanced accuracy of the mean label of the five nearest other samples, by cosine."""
    rows = np.asarray(features, dtype=np.float64)
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    similarity = units @ units.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : min(NUM_NEIGHBORS, len(rows) - 1)]
    return balanced(targets[order].mean(axis=1), targets)


def balanced(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy, every class with the same weight; ties count in part."""
    rounded = np.round(predictions, 9)
    best = rounded == rounded.max(axis=1, keepdims=True)
    credit = (best * targets).sum(axis=1) / best.sum(axis=1)
    return float((credit @ targets / targets.sum(axis=0)).mean())


def _log_odds(share: float) -> float:
    """Log odds of a share, drawn in from 0 and 1 as samples are few."""
    inside = float(np.clip(share, 0.01, 0.99))
    return float(np.log(inside / (1 - inside)))
