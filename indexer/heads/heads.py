"""Heads, linear classifiers or regressions on features of a frozen network, and how well they predict.

There is one score and one loss for each kind of task. Axes: N samples, F features, C classes or labels, T
targets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from indexer.errors import DataError, TooFewSamplesError
from indexer.heads.logistic import fit_logistic, one_thread, span_of
from indexer.records import Kind

L2 = 0.003
"""Weight of the penalty ``l2/2 * ||w||^2`` beside the mean loss, for a head that predicts well."""

FISHER_L2 = 1.0
"""Weight of the penalty for the head that a task is embedded with. With ``L2`` most of the noise of an
embedding was that of its head: log embeddings of two halves of cifar10 correlated .96 at .03 and .987 at 1, of
mnist .982 and .996.
"""

VARIANCE_FLOOR = 1e-4
"""Least variance of the residuals of a regression: they deviate by a hundredth of what the targets deviate.
Pixels of 8 bits show little that is finer, and the Fisher information, which is divided by the variance, must
not grow without bound where a head happens to fit exactly.
"""


@dataclass(frozen=True)
class HeadScore:
    """How a head does on samples it was not fitted on."""

    accuracy: float  # at most 1, by ``indexer.records.HEAD_METRICS``
    loss: float  # negative log likelihood, in nats, mean over classes, labels or targets


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


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier or regression on features.

    Attributes:
        kind: What the logits are of: one class of C, C independent labels, or T standardised targets.
        variance: ``[T]`` float64 of a regression: of the residuals, in units of the targets' variance.
    """

    weight: np.ndarray  # ``[C, F]`` float64; ``[T, F]`` of a regression
    bias: np.ndarray  # ``[C]`` float64: logits are ``features @ weight.T + bias``
    kind: Kind = "single_label"
    variance: np.ndarray | None = None

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits ``[N, C]`` of features ``[N, F]``."""
        return np.asarray(features @ self.weight.T + self.bias)


def fit_head(
    features: np.ndarray, labels: np.ndarray, kind: Kind = "single_label", *, l2: float = L2
) -> LinearHead:
    """Fit a head to convergence.

    - ``single_label``: multinomial logistic regression. Every class weighs the same, whatever its number of
      samples.
    - ``multi_label``: a logistic regression of each label against its absence. For each, samples with it and
      samples without it weigh the same.
    - ``regression``: ridge regression on targets standardised to mean 0 and variance 1 over the samples, so
      that nothing that is made of the head has their unit. The loss of a sample is half its squared residual.

    Each minimises the mean loss plus ``l2/2 * ||w||^2``, biases free; of labels and of targets each has this
    objective of its own. Deterministic: convex problems from a fixed start, or a closed form. For the fit,
    features are centred on their balanced mean and divided by one number, the root of their mean balanced
    variance; both are folded back into the weights. One scale for all features leaves those of little variance,
    which are mostly noise, as small as they are. Balanced means weighted as in the loss, mean over labels.

    Args:
        features: ``[N, F]``.
        labels: By kind: ``[N]`` integers 0 to C-1, each present; ``[N, C]`` of 0 and 1, both in each column; or
            ``[N, T]`` finite numbers, at least two rows.
        kind: What the labels are.
        l2: Weight of the penalty beside the mean loss, positive.

    Raises:
        DataError: If features are not finite, the fit does not converge, or a label is on all samples or none.
    """
    fit = {"single_label": _fit_classes, "multi_label": _fit_labels, "regression": _fit_targets}[kind]
    features = np.asarray(features, dtype=np.float64)
    if not np.isfinite(features).all():
        raise DataError("features", "hold NaN or infinity; check the network's weights")
    return fit(features, labels, l2)


def _fit_classes(features: np.ndarray, labels: np.ndarray, l2: float) -> LinearHead:
    counts = np.bincount(labels)
    share = 1 / (len(counts) * counts[labels])  # of a sample in the balanced mean
    mean, scale = _centre_and_scale(features, share)
    if len(counts) == 2:  # one row d is fitted, the difference of the two weights: ||w||^2 is ||d||^2 / 2
        l2 = l2 / 2
    # One thread: these matrices are small, and two were seen to take 40 times as long on a busy machine.
    with one_thread():
        span = span_of((features - mean) / scale)
        weight, bias = fit_logistic(span.coordinates, labels, share, l2)
        weight = weight @ span.basis / scale
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return LinearHead(weight, bias - weight @ mean)


def _fit_labels(features: np.ndarray, labels: np.ndarray, l2: float) -> LinearHead:
    """One label after the other, in the one span of the samples.

    A single L-BFGS over all labels shares one model of their unlike curvatures, and stops all at once.

    Raises:
        DataError: If a fit does not converge, or a label is on all samples or on none.
    """
    constant = np.flatnonzero((labels == labels[0]).all(axis=0))
    if len(constant):
        where = "all" if labels[0, constant[0]] else "none"
        raise DataError(
            "labels",
            f"label {constant[0]} is on {where} of the {len(labels)} samples; a head needs samples with and "
            "without it, so leave it out or add samples",
        )
    shares = label_weights(labels)
    mean, scale = _centre_and_scale(features, shares.mean(axis=1))
    with one_thread():  # as of _fit_classes
        span = span_of((features - mean) / scale)
        fits = [
            fit_logistic(span.coordinates, column, share, l2)
            for column, share in zip(labels.T, shares.T, strict=True)
        ]
        weight = np.concatenate([row for row, _ in fits]) @ span.basis / scale
    return LinearHead(weight, np.concatenate([bias for _, bias in fits]) - weight @ mean, "multi_label")


def _fit_targets(features: np.ndarray, labels: np.ndarray, l2: float) -> LinearHead:
    """Ridge regression, with the variance of its residuals out of sample.

    With the singular values s and left vectors u of the inputs, both read off their span, the fit is ``H y`` of
    the centred targets y, ``H = u diag(s²/(s² + N l2)) uᵀ``. A residual r becomes ``r / (1 - 1/N - H_ii)``
    where sample i is left out of the fit, the sum ``N l2`` of the penalties and the standardisation held: of N
    residuals fitted with F features those in the sample say little.

    Source:
        Allen 1974, the PRESS statistic; the 1/N is that of the bias.
    """
    num_samples = len(labels)
    mean, scale = _centre_and_scale(features, np.full(num_samples, 1 / num_samples))
    targets = standardise(labels, labels)
    with one_thread():  # as of _fit_classes
        span = span_of((features - mean) / scale)
        singular = np.sqrt((span.coordinates**2).sum(axis=0))
        left = span.coordinates / singular
        kept = singular**2 / (singular**2 + num_samples * l2)
        along = left.T @ targets  # [rank, T]
        weight = (singular / (singular**2 + num_samples * l2) * along.T) @ span.basis / scale
        residuals = targets - left @ (kept[:, None] * along)
    left_out = residuals / (1 - 1 / num_samples - left**2 @ kept)[:, None]
    variance = np.maximum((left_out**2).mean(axis=0), VARIANCE_FLOOR)
    variance[targets.var(axis=0) < 0.5] = 1.0  # it is 1, or 0 of a constant target, which has no scale
    return LinearHead(weight, -weight @ mean, "regression", variance)


def _centre_and_scale(features: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean ``[F]`` and root mean variance of features; ``share`` ``[N]``, of sum 1, weighs the samples."""
    mean = share @ features
    scale = float(np.sqrt((share @ (features - mean) ** 2).mean()))
    if scale <= 1e-12 * np.abs(mean).max():  # constant, up to rounding
        scale = 1.0
    return mean, scale


def standardise(targets: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Targets ``[N, T]`` in units in which ``reference`` ``[M, T]`` has mean 0 and variance 1, float64.

    A target that is constant in the reference keeps its unit.
    """
    reference = np.asarray(reference, dtype=np.float64)
    mean, deviation = reference.mean(axis=0), reference.std(axis=0)
    constant = deviation <= 1e-12 * np.abs(mean)  # up to rounding
    return np.asarray((targets - mean) / np.where(constant, 1.0, deviation))


def score_head(head: LinearHead, features: np.ndarray, labels: np.ndarray) -> HeadScore:
    """How a head does on features ``[N, F]``, by its kind.

    Args:
        head: The head.
        features: ``[N, F]``.
        labels: As in ``fit_head``; each label on at least one sample; targets standardised as the head's, see
            ``standardise``.
    """
    logits = head.logits(features)
    if head.variance is not None:
        return score_targets(logits, labels, head.variance)
    return (score_labels if head.kind == "multi_label" else score_classes)(logits, labels)


def held_out_score(
    features: np.ndarray, labels: np.ndarray, seed: int, kind: Kind = "single_label", *, l2: float = L2
) -> HeadScore:
    """Score, on a quarter of the samples, of a head fitted on the rest.

    - ``single_label``: a quarter of each class, at least one sample.
    - ``multi_label``: a quarter stratified by ``indexer.heads.heads.choose_quarter_per_label``. Labels that
      lack samples with them or without them on one side of the split are left out.
    - ``regression``: any quarter, at least two samples.

    Args:
        features: ``[N, F]``.
        labels: By kind: ``[N]`` integers 0 to C-1, each at least twice; ``[N, C]`` of 0 and 1, each at least
            twice in each column; or ``[N, T]`` finite numbers, at least four rows.
        seed: What the split is drawn with.
        kind: What the labels are.
        l2: As in ``fit_head``.

    Raises:
        DataError: If a fit does not converge.
        TooFewSamplesError: If a regression has less than four samples, or all labels had to be left out.
    """
    if kind == "single_label":
        test = choose_per_class(labels, lambda count: max(1, count // 4), seed)
    elif kind == "multi_label":
        test = choose_quarter_per_label(labels, seed)
        varies = [(side != side[0]).any(axis=0) for side in (labels[test], labels[~test])]
        labels = labels[:, varies[0] & varies[1]]
        if not labels.shape[1]:
            raise TooFewSamplesError(
                "labels",
                f"no label has samples with it and without it for both sides of a split of {len(labels)} "
                "samples; add samples or raise max_samples",
            )
    else:
        if len(labels) < 4:
            raise TooFewSamplesError(
                "labels",
                f"a regression needs at least four samples, two to fit a head and two to score it, got "
                f"{len(labels)}; add samples or raise max_samples",
            )
        test = choose_per_class(np.zeros(len(labels)), lambda count: max(2, count // 4), seed)
        # By all samples first, so that a target that is constant in the rest still has a unit.
        labels = standardise(labels, labels)
        labels = standardise(labels, labels[~test])
    head = fit_head(features[~test], labels[~test], kind, l2=l2)
    return score_head(head, features[test], labels[test])
