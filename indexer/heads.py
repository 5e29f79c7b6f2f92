"""The head: a linear classifier on features of a frozen network.

Axes: N samples, F features, C classes.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from indexer.errors import DataError
from indexer.records import Kind

L2 = 0.003
"""Weight of the penalty ``l2/2 * ||w||^2`` beside the mean loss, for a head that predicts well."""

FISHER_L2 = 1.0
"""The same for the head that a task is embedded with. With ``L2`` most of the noise of an embedding was that of
its head: log embeddings of two halves of cifar10 correlated .96 at .03 and .987 at 1, of mnist .982 and .996.
"""

MAX_STEPS = 1000


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier or regression on features.

    Attributes:
        weight: ``[C, F]`` float64; ``[T, F]`` of a regression.
        bias: ``[C]`` float64: logits are ``features @ weight.T + bias``.
        kind: What the logits are of: one class of C, C independent labels, or T standardised targets.
        variance: ``[T]`` float64 of a regression: of the residuals, in units of the targets' variance.
    """

    weight: np.ndarray
    bias: np.ndarray
    kind: Kind = "single_label"
    variance: np.ndarray | None = None

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
    fixed start. For the fit, features are centred on their class-balanced mean and divided by one number, the
    root of their mean variance; both are folded back into the weights. One scale for all features leaves those
    of little variance, which are mostly noise, as small as they are.

    Args:
        features: ``[N, F]``.
        labels: ``[N]`` integers 0 to C-1, each present.
        l2: Weight of the penalty beside the mean loss, positive.

    Returns:
        The head, for features as given.

    Raises:
        DataError: If the fit does not converge.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    features = np.asarray(features, dtype=np.float64)
    counts = np.bincount(labels)
    share = 1 / (len(counts) * counts[labels])  # of a sample in the balanced mean
    mean = share @ features
    scale = float(np.sqrt((share @ (features - mean) ** 2).mean()))
    if scale <= 1e-12 * np.abs(mean).max():  # constant, up to rounding
        scale = 1.0
    strength = 1 / (l2 * len(labels))
    if len(counts) == 2:  # scikit-learn fits the difference d of the two weights: ||w||^2 is ||d||^2 / 2
        strength *= 2
    regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=MAX_STEPS, tol=1e-5)
    # One thread: these matrices are small, and two were seen to take 40 times as long on a busy machine.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", UserWarning)  # of few samples a class, and of no convergence, see below
        regression.fit((features - mean) / scale, labels)
    if regression.n_iter_.max() >= MAX_STEPS:
        raise DataError(
            "features", f"the head did not converge in {MAX_STEPS} steps; check the probe's weights"
        )
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:
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
