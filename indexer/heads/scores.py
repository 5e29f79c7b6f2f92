"""How well logits predict labels: one score and one loss for each kind of task, and who is held out for it.

Axes: N samples, C classes or labels, T targets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HeadScore:
    """How a head does on samples it was not fitted on.

    Attributes:
        accuracy: At most 1, by ``indexer.records.HEAD_METRICS``.
        loss: Negative log likelihood, in nats, mean over classes, labels or targets.
    """

    accuracy: float
    loss: float


def score_classes(logits: np.ndarray, labels: np.ndarray) -> HeadScore:
    """Class-balanced accuracy and cross-entropy of logits ``[N, C]`` with labels ``[N]``.

    Chance is ``1/C``. Classes without samples do not count.
    """
    log_norm = np.logaddexp.reduce(logits, axis=1)
    loss = log_norm - logits[np.arange(len(labels)), labels]
    hit = logits.argmax(axis=1) == labels
    classes = np.unique(labels)
    return HeadScore(
        accuracy=float(np.mean([hit[labels == c].mean() for c in classes])),
        loss=float(np.mean([loss[labels == c].mean() for c in classes])),
    )


def score_labels(logits: np.ndarray, labels: np.ndarray) -> HeadScore:
    """Mean average precision and binary cross-entropy of logits ``[N, C]`` with labels ``[N, C]`` of 0 and 1.

    The mean is over labels, every label alike. Chance is the mean share of samples that have a label. In the
    loss, samples with and without a label weigh the same, as in the fit.

    Args:
        logits: ``[N, C]``.
        labels: ``[N, C]``, each on at least one sample.

    Returns:
        The score, 0 to 1, and the loss, of which guessing makes ln 2.
    """
    from sklearn.metrics import average_precision_score

    precisions = [
        average_precision_score(truth, guess) for truth, guess in zip(labels.T, logits.T, strict=True)
    ]
    loss = np.logaddexp(0, logits) - labels * logits
    return HeadScore(
        accuracy=float(np.mean(precisions)), loss=float((label_weights(labels) * loss).sum(axis=0).mean())
    )


def score_targets(predictions: np.ndarray, targets: np.ndarray, variance: np.ndarray) -> HeadScore:
    """R² and Gaussian negative log likelihood of predictions ``[N, T]`` of targets ``[N, T]``, means over T.

    Args:
        predictions: ``[N, T]``.
        targets: ``[N, T]``, in the units of the predictions.
        variance: ``[T]``, positive: of the residuals.

    Returns:
        R², at most 1, that of a prediction of the targets' mean being 0; a target that is the same in all
        samples has 0. And the loss, which is negative where residuals are small beside the unit.
    """
    squares = (targets - predictions) ** 2
    total = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    explained = np.where(total > 0, 1 - squares.sum(axis=0) / np.where(total > 0, total, 1), 0)
    loss = (np.log(2 * np.pi * variance) + squares / variance) / 2
    return HeadScore(accuracy=float(explained.mean()), loss=float(loss.mean()))


def label_weights(labels: np.ndarray) -> np.ndarray:
    """Weights ``[N, C]`` of samples with labels ``[N, C]`` of 0 and 1.

    For each label, samples with it and samples without it weigh one half together; all of them one where there
    are none of the other.
    """
    present = labels.astype(bool)
    weights = present / np.maximum(present.sum(axis=0), 1) + ~present / np.maximum((~present).sum(axis=0), 1)
    return np.asarray(weights / weights.sum(axis=0))


def choose_per_class(labels: np.ndarray, number: Callable[[int], int], seed: int) -> np.ndarray:
    """Draw samples from each class without replacement.

    Args:
        labels: ``[N]`` integers.
        number: How many to draw from a class of that many samples.
        seed: What is drawn with.

    Returns:
        ``[N]`` bool, true for the samples drawn.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[generator.permutation(members)[: number(len(members))]] = True
    return chosen


def choose_quarter_per_label(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw about a quarter of the samples of a multi-label task, stratified by all labels at once.

    The samples that have a label and the samples that have it not are two groups, of which a quarter is wanted,
    but at least one sample. Groups are settled in turn. Next is always the one with the fewest samples that are
    not yet decided, those first that lack a sample on either side. Where small groups share their samples, one
    can still end up on one side: of 20 random labels of 30 samples, one label in 5,000 does.

    Args:
        labels: ``[N, C]`` of 0 and 1, each at least twice in each column.
        seed: What is drawn with.

    Returns:
        ``[N]`` bool, true for the samples drawn.

    Source:
        Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data", whose next label too
        is the one with the fewest samples left. We take a group's samples at one go, and count those without a
        label as a group.
    """
    generator = np.random.default_rng(seed)
    member = np.concatenate([labels, 1 - labels], axis=1).astype(bool)  # [N, 2C]
    sizes = member.sum(axis=0)
    chosen, is_open = np.zeros(len(labels), dtype=bool), np.ones(len(labels), dtype=bool)
    num_open, num_chosen = sizes.copy(), np.zeros_like(sizes)
    while is_open.any():
        lacking = (num_chosen == 0) | (sizes == num_open + num_chosen)
        turn = np.where(num_open > 0, num_open + np.where(lacking, 0, len(labels)), 3 * len(labels))
        group = int(turn.argmin())
        rows = generator.permutation(np.flatnonzero(member[:, group] & is_open))
        drawn = rows[: max(0, max(1, sizes[group] // 4) - num_chosen[group])]
        chosen[drawn] = True
        is_open[rows] = False
        num_open -= member[rows].sum(axis=0)
        num_chosen += member[drawn].sum(axis=0)
    return chosen
