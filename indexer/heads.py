"""The head: a linear classifier on features of a frozen network.

Axes: N samples, F features, C classes.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

L2 = 0.01
"""Weight of the penalty ``l2/2 * ||w||^2`` beside the mean loss, on standardised features."""


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Logits are ``features @ weight.T + bias``; ``weight`` ``[C, F]`` and ``bias`` ``[C]`` are float64."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits ``[N, C]`` of features ``[N, F]``."""
        return np.asarray(features @ self.weight.T + self.bias)


@dataclass(frozen=True)
class HeadScore:
    """How a head does on samples it was not fitted on.

    Attributes:
        accuracy: Mean over classes of the share of right answers, 0 to 1.
        loss: Mean over classes of the cross-entropy, in nats.
    """

    accuracy: float
    loss: float


def fit_head(features: np.ndarray, labels: np.ndarray, *, l2: float = L2) -> LinearHead:
    """Fit multinomial logistic regression to convergence.

    Every class weighs the same, whatever its number of samples. Deterministic: a convex problem from a
    fixed start. Features are standardised for the fit and the scaling is folded back into the weights.

    Args:
        features: ``[N, F]``.
        labels: ``[N]`` integers 0 to C-1, each present.
        l2: Weight of the penalty beside the mean loss, positive.

    Returns:
        The head, for features as given.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    features = np.asarray(features, dtype=np.float64)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1.0
    regression = LogisticRegression(C=1 / (l2 * len(labels)), class_weight="balanced", max_iter=1000, tol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        regression.fit((features - mean) / scale, labels)
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # two classes: scikit-learn keeps the difference of the two logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scale
    return LinearHead(weight, bias - weight @ mean)


def score_head(head: LinearHead, features: np.ndarray, labels: np.ndarray) -> HeadScore:
    """Class-balanced accuracy and cross-entropy of a head on features ``[N, F]`` with labels ``[N]``."""
    logits = head.logits(features)
    log_norm = np.logaddexp.reduce(logits, axis=1)
    loss = log_norm - logits[np.arange(len(labels)), labels]
    hit = logits.argmax(axis=1) == labels
    classes = np.unique(labels)
    return HeadScore(
        accuracy=float(np.mean([hit[labels == c].mean() for c in classes])),
        loss=float(np.mean([loss[labels == c].mean() for c in classes])),
    )


def choose_per_class(labels: np.ndarray, number: Callable[[int], int], seed: int) -> np.ndarray:
    """Draw samples from each class without replacement.

    Args:
        labels: ``[N]`` integers.
        number: How many to draw from a class of that many samples.
        seed: Of the draw.

    Returns:
        ``[N]`` bool, true for the samples drawn.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[generator.permutation(members)[: number(len(members))]] = True
    return chosen


def held_out_score(features: np.ndarray, labels: np.ndarray, seed: int, *, l2: float = L2) -> HeadScore:
    """Score, on a quarter of each class (at least one sample), of a head fitted on the rest.

    Args:
        features: ``[N, F]``.
        labels: ``[N]`` integers 0 to C-1, each at least twice.
        seed: Of the split.
        l2: As of ``fit_head``.

    Returns:
        The score on the samples held out.
    """
    test = choose_per_class(labels, lambda count: max(1, count // 4), seed)
    return score_head(fit_head(features[~test], labels[~test], l2=l2), features[test], labels[test])
