"""Transferability scores made sample by sample: LEEP, NLEEP and NCE, PARC, nearest neighbours and linear probe.

Axes: N samples, D features, K classes of the source head, C classes, T targets, R principal directions. Labels
``[N]`` are whole numbers; classes are those that occur. Targets ``[N, T]`` are classes as 0 and 1, labels as 0
and 1, or numbers.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.recommend.moment_scores import centred, occurring, one_hot, principal_coordinates

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

    Args:
        logits: ``[N, K]``; of probabilities, their logarithms.
        labels: ``[N]``.

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


def nleep(features: Array, labels: Array, *, seed: int = 0) -> float:
    """LEEP with the components of a Gaussian mixture in place of the classes of a source head.

    Principal directions that hold 80% of the variance, then a mixture of V = 5 C Gaussians, whose posteriors
    are the theta of ``leep``.

    Range: -ln(N V) to 0. Constant features give minus the entropy of the class sizes.

    Args:
        features: ``[N, D]``.
        labels: ``[N]``.
        seed: Of the start of the mixture; another order of the samples is another start.

    Source:
        Li et al. 2021, "Ranking neural checkpoints", arXiv:2011.11200. Ours: covariances are
        diagonal, as full ones have more numbers than there are samples; V is at most N / 4; variances are at
        least 1e-3 of the mean one; at most 50 steps.
    """
    codes, counts = occurring(labels)
    rows = principal_coordinates(centred(features))
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


def held_out_score(predictions: Array, targets: Array, kind: str) -> float:
    """How good predictions ``[N, T]`` of samples left out are, by the kind of the labels.

    Returns:
        ``single_label``: accuracy, every class with the same weight; a sample whose own class is tied with
        others for the best counts in part. ``multi_label``: mean over labels of the average precision.
        ``regression``: mean over targets of R^2.
    """
    predictions = np.round(predictions, TIE_DIGITS)
    if kind == "regression":
        errors = ((targets - predictions) ** 2).sum(axis=0)
        return float(1 - (errors / ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)).mean())
    if kind == "multi_label":
        from sklearn.metrics import average_precision_score

        return float(average_precision_score(targets, predictions, average="macro"))
    best = predictions == predictions.max(axis=1, keepdims=True)
    credit = (best * targets).sum(axis=1) / best.sum(axis=1)
    return float((credit @ targets / targets.sum(axis=0)).mean())


def knn(features: Array, targets: Array, kind: str) -> float:
    """How well the mean label of the five nearest other samples, by cosine, predicts each sample.

    Range: 0 to 1, for a regression up to 1. Neighbours that are tied for the last place share it. With constant
    features all are tied; a sample then meets less of its own class than of others, so equally large classes
    give 0.

    Args:
        features: ``[N, D]``, not centred; zeros are at a right angle to all.
        targets: ``[N, T]``.
        kind: Of the labels; says how predictions are scored, see ``held_out_score``.

    Source:
        The usual k-nearest-neighbour evaluation of frozen features, for example Caron et al. 2021,
        arXiv:2104.14294. There are no weights by similarity.
    """
    units = _unit_rows(np.asarray(features, dtype=np.float64))
    num_samples = len(units)
    k = min(NUM_NEIGHBORS, num_samples - 1)
    predictions = np.empty(targets.shape)
    for start in range(0, num_samples, KNN_BLOCK):
        block = slice(start, min(start + KNN_BLOCK, num_samples))
        similarity = np.round(units[block] @ units.T, TIE_DIGITS)
        similarity[np.arange(len(similarity)), np.arange(block.start, block.stop)] = -np.inf
        last = np.partition(similarity, num_samples - k, axis=1)[:, num_samples - k, None]
        closer, tied = similarity > last, similarity == last
        share = (k - closer.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
        predictions[block] = (closer + share * tied) @ targets / k
    return held_out_score(predictions, targets, kind)


def linear_probe(features: Array, targets: Array, kind: str) -> float:
    """How well a ridge regression on the features, fitted without the sample, predicts each sample.

    With h the diagonal of the hat matrix, the prediction without sample n is exactly
    ``y_n - (y_n - fit_n) / (1 - h_n)``, so nothing is fitted twice. The strength is the one of 17 with the
    least squared error so predicted; a class is predicted where the prediction of its 0 and 1 is the largest.
    The means of features and targets are those of all samples: without a sample its own class is rarer, and
    features that say nothing would fall below chance.

    Range: 0 to 1, for a regression up to 1. Constant features predict the mean: the same chance for equally
    large classes, 0 for a regression.

    Args:
        features: ``[N, D]``.
        targets: ``[N, T]``.
        kind: Of the labels; says how predictions are scored, see ``held_out_score``.

    Source:
        The linear probe of frozen features, Alain and Bengio 2016, arXiv:1610.01644, with squares in place of
        the logistic loss; leaving out in closed form: Allen 1974. The strength is chosen by the same errors,
        which flatters a little.
    """
    rows = principal_coordinates(centred(features))
    squares, mean = (rows**2).sum(axis=0), targets.mean(axis=0)
    left = rows / np.sqrt(squares)
    along = left.T @ targets
    least, predictions = np.inf, np.broadcast_to(mean, targets.shape)
    for strength in RIDGE_STRENGTHS * squares.max(initial=0):
        kept = squares / (squares + strength)
        residuals = (targets - mean - left @ (kept[:, None] * along)) / (1 - left**2 @ kept)[:, None]
        error = float((residuals**2).mean())
        if error < least:
            least, predictions = error, targets - residuals
    return held_out_score(predictions, targets, kind)
