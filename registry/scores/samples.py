"""Transferability scores made sample by sample: LEEP, NLEEP and NCE, PARC, nearest neighbours and linear probe.

Axes: N samples, D features, K classes of the source head, C classes, T targets, R principal directions. Labels
``[N]`` are whole numbers; classes are those that occur. Targets ``[N, T]`` are classes as 0 and 1, labels as 0
and 1, or numbers.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.scores.moments import centred, occurring, one_hot, principal_coordinates

Array = NDArray[Any]

NLEEP_COMPONENTS = 5
"""Components of the mixture for each class."""
NLEEP_SAMPLES = 4
"""Samples for each component, at least: with fewer, every sample would have a component of its own."""
NLEEP_VARIANCE = 0.8
NLEEP_ITERATIONS = 50

PARC_DIRECTIONS = 32
PARC_SAMPLES = 1000
"""Pairs grow with the square; of more samples this many are drawn."""

NUM_FOLDS = 10
NUM_NEIGHBORS = 5
KNN_BLOCK = 1024

RIDGE_STRENGTHS = 10.0 ** np.arange(-6, 2.5, 0.5)
"""Strengths tried, in units of the largest squared singular value."""

# Numbers that differ by less than this are tied: rounding must not order what is the same.
TIE_DIGITS = 9


def softmax(logits: Array) -> Array:
    """Probabilities ``[N, K]`` of logits."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = shares / shares.sum(axis=1, keepdims=True)
    return probabilities


def _log_expected(probabilities: Array, codes: Array) -> float:
    """Mean log of ``sum_k P(y_n | k) theta(x_n)_k``, with P from the same probabilities ``[N, K]``."""
    joint = one_hot(codes).T @ probabilities
    totals = joint.sum(axis=0)
    conditional = np.divide(joint, totals, out=np.zeros_like(joint), where=totals > 0)
    return float(np.log(np.einsum("nk,nk->n", conditional[codes], probabilities)).mean())


def leep(logits: Array, labels: Array) -> float:
    """Mean log probability of the labels when they are read off the classes of the source head.

        (1/N) sum_n ln sum_k P(y_n | k) theta(x_n)_k,   P(y, k) = (1/N) sum over n with y_n = y of theta(x_n)_k

    with theta the softmax of the logits.

    Range: -ln(N K) to 0. Logits that are the same for all samples give minus the entropy of the class sizes.

    Source:
        Nguyen et al. 2020, "LEEP", arXiv:2002.12462. Source classes of probability zero
        are left out; no departure.
    """
    return _log_expected(softmax(logits), occurring(labels)[0])


def nce(logits: Array, labels: Array) -> float:
    """Negative entropy of the label, in nats, when the most likely source class is known: ``-H(Y | K)``.

    Range: -ln C to 0. One source class for all samples gives minus the entropy of the class sizes.

    Args:
        logits: ``[N, K]``; of equal ones the first counts.
        labels: ``[N]``.

    Source:
        Tran, Nguyen and Hassner 2019, "Transferability and hardness of supervised classification tasks",
        arXiv:1908.08142. There labels of the source data are known; here the source head says them, as in the
        LEEP paper.
    """
    codes, _ = occurring(labels)
    joint = one_hot(codes).T @ one_hot(occurring(logits.argmax(axis=1))[0]) / len(codes)
    totals = np.broadcast_to(joint.sum(axis=0), joint.shape)
    seen = joint > 0
    return min(0.0, float((joint[seen] * np.log(joint[seen] / totals[seen])).sum()))


def _mixture(rows: Array, num_components: int, seed: int) -> Array:
    """Posterior ``[N, V]`` of the components of a Gaussian mixture with diagonal covariances."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(
        num_components,
        covariance_type="diag",
        reg_covar=1e-3,
        tol=1e-3,
        max_iter=NLEEP_ITERATIONS,
        random_state=seed,
    )
    with warnings.catch_warnings():  # rows that are the same, and an end before convergence, are both foreseen
        warnings.simplefilter("ignore", ConvergenceWarning)
        posterior: Array = model.fit(rows).predict_proba(rows)
    return posterior


def nleep(features: Array, labels: Array, *, seed: int = 0, coordinates: Array | None = None) -> float:
    """LEEP with the components of a Gaussian mixture in place of the classes of a source head.

    Principal directions that hold 80% of the variance, then a mixture of V = 5 C Gaussians, whose posteriors
    are the theta of ``leep``.

    Range: -ln(N V) to 0. Constant features give minus the entropy of the class sizes.

    Args:
        features: ``[N, D]``.
        labels: ``[N]``.
        seed: Of the start of the mixture; another order of the samples is another start.
        coordinates: Principal coordinates of the centred features, where they are known.

    Source:
        Li et al. 2021, "Ranking neural checkpoints", arXiv:2011.11200. Ours: covariances are
        diagonal, as full ones have more numbers than there are samples; V is at most N / 4; variances are at
        least 1e-3 of the mean one; at most 50 steps.
    """
    codes, counts = occurring(labels)
    rows = principal_coordinates(centred(features)) if coordinates is None else coordinates
    squares = (rows**2).sum(axis=0)
    num_directions = int((np.cumsum(squares) < NLEEP_VARIANCE * squares.sum()).sum()) + 1
    rows = rows[:, :num_directions]
    num_components = max(1, min(NLEEP_COMPONENTS * len(counts), len(rows) // NLEEP_SAMPLES))
    if not rows.shape[1] or num_components == 1:
        return _log_expected(np.ones((len(rows), 1)), codes)
    return _log_expected(_mixture(rows / np.sqrt((rows**2).mean()), num_components, seed), codes)


def _unit_rows(rows: Array) -> Array:
    """Rows divided by their norm; a row of zeros stays."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Array = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return units


def parc(features: Array, targets: Array, *, seed: int = 0) -> float:
    """Whether samples that have different labels have different features, as a rank correlation.

        100 Spearman( 1 - cos(z_m, z_n), |y_m - y_n|^2 ) over pairs of samples m < n

    with z the features less their mean in 32 principal directions.

    Range: -100 to 100. Constant features give 0.

    Args:
        features: ``[N, D]``.
        targets: ``[N, T]``. For one class of C the distance of labels ranks pairs as 1 - corr does.
        seed: Of the draw of 1,000 samples, where there are more.

    Source:
        Bolya, Mittapalli and Hoffman 2021, "Scalable diverse model selection for accessible transfer
        learning", arXiv:2111.06977. There features are compared by their correlation over columns
        that were standardised. After a rotation that depends on arbitrary signs, and of few samples it makes
        all pairs alike, so here by the cosine. Labels that are numbers or several are ours.
    """
    from scipy.stats import rankdata

    rows = centred(features)
    if len(rows) > PARC_SAMPLES:
        drawn = np.random.default_rng(seed).choice(len(rows), PARC_SAMPLES, replace=False)
        rows, targets = centred(rows[drawn]), targets[drawn]
    units = _unit_rows(principal_coordinates(rows)[:, :PARC_DIRECTIONS])
    norms = (targets**2).sum(axis=1)
    pairs = np.tril_indices(len(rows), -1)
    cosines = (units @ units.T)[pairs]
    apart = (norms[:, None] + norms - 2 * targets @ targets.T)[pairs]
    ranks = [rankdata(np.round(values, TIE_DIGITS)) for values in (-cosines, apart)]
    first, second = (rank - rank.mean() for rank in ranks)
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(np.clip(100 * float(first @ second) / norm, -100, 100)) if norm > 0 else 0.0


def folds(targets: Array, kind: str, seed: int) -> list[Array]:
    """Samples that are left out together, as indices: ten times a tenth, at least one.

    Of one class of several every fold leaves out a tenth of each class, and of a class with fewer than ten
    samples one that other folds leave out too. So in a fold every class lacks samples alike. Without one
    sample alone its own class is rarer, and features that say nothing would fall below chance. A class of one
    sample is never left out. Fewer folds do where no class has ten samples.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    groups = targets[order].argmax(axis=1) if kind == "single_label" else np.zeros(len(order), dtype=np.int64)
    members = [order[groups == group] for group in np.unique(groups)]
    members = [rows for rows in members if len(rows) > 1]
    num_folds = min(NUM_FOLDS, max(map(len, members), default=0))
    return [
        np.concatenate([rows[fold % len(rows) :: num_folds] for rows in members]) for fold in range(num_folds)
    ]


def held_out_score(parts: Sequence[tuple[Array, Array, Array]], kind: str) -> float:
    """How good predictions of samples left out are, by the kind of the labels.

    Args:
        parts: For each fold predictions ``[n, T]``, targets ``[n, T]``, and the mean ``[T]`` of the targets
            that were not left out.
        kind: Of the labels.

    Returns:
        ``single_label``: mean over folds of the accuracy, every class in the fold with the same weight; a
        sample whose own class is tied with others for the best counts in part. So predictions that know
        nothing of a sample have 1/C, whatever they know of the mixture. ``multi_label``: mean over labels of
        the average precision, of all folds together; predictions count from the mean of their fold, which would
        be lower where more of the label was left out. ``regression``: mean over targets of R^2 of all folds,
        beside predicting the mean of the fold, which has 0.
    """
    if kind == "single_label":
        return float(np.mean([_balanced_accuracy(predictions, targets) for predictions, targets, _ in parts]))
    if kind == "regression":
        errors = np.concatenate([(targets - predictions) ** 2 for predictions, targets, _ in parts])
        totals = np.concatenate([(targets - mean) ** 2 for _, targets, mean in parts])
        return float(1 - (errors.sum(axis=0) / totals.sum(axis=0)).mean())
    from sklearn.metrics import average_precision_score

    targets = np.concatenate([targets for _, targets, _ in parts])
    ranks = np.round(np.concatenate([predictions - mean for predictions, _, mean in parts]), TIE_DIGITS)
    return float(average_precision_score(targets, ranks, average="macro"))


def _balanced_accuracy(predictions: Array, targets: Array) -> float:
    """Accuracy of predictions ``[n, C]`` of classes, each class that occurs with the same weight."""
    predictions = np.round(predictions, TIE_DIGITS)
    best = predictions == predictions.max(axis=1, keepdims=True)
    credit = (best * targets).sum(axis=1) / best.sum(axis=1)
    counts = targets.sum(axis=0)
    occurs = counts > 0
    return float((credit @ targets[:, occurs] / counts[occurs]).mean())


def knn(features: Array, targets: Array, kind: str, *, seed: int = 0) -> float:
    """How well the mean label of the five nearest samples of other folds, by cosine, predicts each sample.

    Range: 0 to 1, for a regression up to 1. Neighbours that are tied for the last place share it. Constant
    features, of which all are tied, have the score of chance: 1/C, also where every class has one sample.

    Args:
        features: ``[N, D]``, not centred; zeros are at a right angle to all.
        targets: ``[N, T]``.
        kind: Of the labels; says how predictions are scored, see ``held_out_score``.
        seed: Of the folds, see ``folds``.

    Source:
        The usual k-nearest-neighbour evaluation of frozen features, for example Caron et al. 2021,
        arXiv:2104.14294. There are no weights by similarity. Leaving out one sample at a time scores features
        that say nothing below chance.
    """
    units = _unit_rows(np.asarray(features, dtype=np.float64))
    parts = []
    for fold in folds(targets, kind, seed):
        kept = np.ones(len(units), dtype=bool)
        kept[fold] = False
        others, targets_kept = units[kept], targets[kept]
        k = min(NUM_NEIGHBORS, len(others))
        predictions = np.empty((len(fold), targets.shape[1]))
        for start in range(0, len(fold), KNN_BLOCK):
            block = slice(start, start + KNN_BLOCK)
            similarity = np.round(units[fold[block]] @ others.T, TIE_DIGITS)
            last = np.partition(similarity, len(others) - k, axis=1)[:, len(others) - k, None]
            closer, tied = similarity > last, similarity == last
            share = (k - closer.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
            predictions[block] = (closer + share * tied) @ targets_kept / k
        parts.append((predictions, targets[fold], targets_kept.mean(axis=0)))
    return held_out_score(parts, kind) if parts else 1 / int(targets.shape[1])


def linear_probe(features: Array, targets: Array, kind: str, *, seed: int = 0) -> float:
    """How well a ridge regression on the features predicts samples that it was not fitted on.

    With H the hat matrix of the regression and its free bias, the residuals r of a fold that is left out
    become exactly ``(I - H_ff)^-1 r_f``: mean and weights are those of the other folds, and nothing is fitted
    twice. The strength is the one of 17 with the least squared error in the other folds; a class is predicted
    where the prediction of its 0 and 1 is the largest.

    Range: 0 to 1, for a regression up to 1. Constant features predict the mean: 1/C for C classes, also where
    every class has one sample, and 0 for a regression.

    Args:
        features: ``[N, D]``.
        targets: ``[N, T]``.
        kind: Of the labels; says how predictions are scored, see ``held_out_score``.
        seed: Of the folds, see ``folds``.

    Source:
        The linear probe of frozen features, Alain and Bengio 2016, arXiv:1610.01644, with squares in place of
        the logistic loss; leaving out in closed form: Allen 1974, here of several samples.
    """
    parts = folds(targets, kind, seed)
    if not parts:
        return 1 / int(targets.shape[1])
    rows = principal_coordinates(centred(features))
    squares, deviations = (rows**2).sum(axis=0), targets - targets.mean(axis=0)
    left = rows / np.sqrt(squares)
    along = left.T @ deviations
    strengths = RIDGE_STRENGTHS * max(squares.max(initial=0), 1e-300)
    residuals = []  # of folds and strengths, [n, T]
    for fold in parts:
        inside, own = left[fold], deviations[fold]
        tried = []
        for strength in strengths:
            kept = squares / (squares + strength)
            hat = (inside * kept) @ inside.T + 1 / len(rows)
            tried.append(np.linalg.solve(np.eye(len(fold)) - hat, own - (inside * kept) @ along))
        residuals.append(tried)
    errors = np.array([[(it**2).sum() for it in tried] for tried in residuals])
    best = (errors.sum(axis=0) - errors).argmin(axis=1) if len(parts) > 1 else errors.argmin(axis=1)
    predictions = []
    for fold, tried, place in zip(parts, residuals, best, strict=True):
        others = np.delete(targets, fold, axis=0).mean(axis=0)
        predictions.append((targets[fold] - tried[place], targets[fold], others))
    return held_out_score(predictions, kind)
