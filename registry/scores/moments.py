"""Transferability scores made of means and covariances of features: LogME, H-score, TransRate, GBC and SFDA.

Axes: N samples, D features, C classes, T targets, R principal directions. Labels ``[N]`` are whole numbers;
classes are those that occur, so numbers may have holes; there are two at least. ``coordinates`` are principal
coordinates of the centred features, where known.

All of them stay the same when features are rotated or multiplied by a number, so all of them work on
``principal_coordinates``: at most min(N, D) columns, in which the covariance is diagonal.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Features are made in float32: a column that varies by less than its rounding is constant, ...
ROUNDING = float(np.finfo(np.float32).eps)
# ... and a direction with less of the variance of the largest one than this is noise.
RELATIVE_VARIANCE = 1e-10

LOGME_RATIOS = 10.0 ** np.linspace(-10, 10, 81)
"""Ratios alpha/beta tried first, in units of the largest squared singular value."""
LOGME_REFINEMENTS = 30

TRANSRATE_EPSILON = 1e-4
GBC_DIRECTIONS = 64
# In units of the mean variance of a feature; without it, classes that are points have no finite density.
VARIANCE_FLOOR = 1e-6


def occurring(labels: Array) -> tuple[Array, Array]:
    """Number the classes that occur 0 to C - 1: code of each sample ``[N]``, samples of each class ``[C]``."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return codes, counts


def one_hot(codes: Array) -> Array:
    """``[N, C]``: 1 where a sample has the class, else 0."""
    return np.eye(int(codes.max()) + 1)[codes]


def centred(features: Array) -> Array:
    """Features ``[N, D]`` less their mean; columns that vary by rounding only are exactly zero."""
    features = np.asarray(features, dtype=np.float64)
    is_constant = np.ptp(features, axis=0) <= ROUNDING * np.abs(features).max(axis=0)
    deviations: Array = features - features.mean(axis=0)
    deviations[:, is_constant] = 0
    return deviations


def principal_coordinates(features: Array) -> Array:
    """Rotate features ``[N, D]`` so that columns are orthogonal: ``[N, R]``, the largest first.

    Directions without variance are dropped, so R may be 0. The smaller Gram matrix is decomposed, which for
    N = 800 and D = 256 takes a third of the time of a singular value decomposition.
    """
    num_samples, num_features = features.shape
    if num_samples < num_features:
        squares, vectors = np.linalg.eigh(features @ features.T)
    else:
        squares, vectors = np.linalg.eigh(features.T @ features)
    kept = np.flatnonzero(squares > RELATIVE_VARIANCE * max(squares[-1], 0.0))[::-1]
    vectors = vectors[:, kept]
    rows: Array = vectors * np.sqrt(squares[kept]) if num_samples < num_features else features @ vectors
    return rows


def class_means(rows: Array, codes: Array, counts: Array) -> Array:
    """Mean of the rows ``[N, R]`` of each class: ``[C, R]``."""
    means: Array = one_hot(codes).T @ rows / counts[:, None]
    return means


def ledoit_wolf(rows: Array, num_features: int) -> float:
    """Shrinkage from 0 to 1 of a covariance towards a multiple of the identity.

    Args:
        rows: ``[N, R]``, mean zero, coordinates of points in a space of ``num_features`` dimensions.
        num_features: D, at least R.

    Source:
        Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    num_samples = len(rows)
    covariance = rows.T @ rows / num_samples
    square = float((covariance**2).sum())
    from_identity = square - float(np.trace(covariance)) ** 2 / num_features
    if from_identity <= 1e-12 * square:  # it is a multiple of the identity already, such as for D = 1
        return 0.0
    noise = (float(((rows**2).sum(axis=1) ** 2).mean()) - square) / num_samples
    return min(max(noise, 0.0) / from_identity, 1.0)


def logme(features: Array, targets: Array, *, coordinates: Array | None = None) -> float:
    """Log evidence per sample of Bayesian linear regression on the features.

    For each column y of the targets, with A = alpha I + beta Z'Z and m = beta A^-1 Z'y,

        (1/N) max over alpha, beta of N/2 ln beta + D/2 ln alpha - N/2 ln 2 pi
            - beta/2 ||Z m - y||^2 - alpha/2 ||m||^2 - 1/2 ln |A|

    and the mean over columns. For a given r = alpha/beta the best beta is N / (||Z m - y||^2 + r ||m||^2), so
    one number is left to maximise over, and one decomposition of Z serves all columns.

    Range: any number. Features of zero give -1/2 ln(2 pi e ||y||^2 / N).

    Args:
        features: ``[N, D]``, not centred, as in the paper.
        targets: ``[N, T]``, no column zero: classes as 0 and 1, or numbers of mean 0 and variance 1.
        coordinates: Principal coordinates of the features, where they are known.

    Source:
        You, Liu, Wang and Long 2021, "LogME", arXiv:2102.11005. There alpha and beta come from a
        fixed-point iteration of at most 11 steps, which may stop early; here from a search over r in 1e-10 to
        1e10 of the largest squared singular value. The lower end bounds the evidence of targets that the
        features fit exactly, which would be infinite. Classes that no sample has are left out.
    """
    rows = principal_coordinates(np.asarray(features, dtype=np.float64)) if coordinates is None else coordinates
    num_samples, squares = len(rows), (rows**2).sum(axis=0)
    totals = (targets**2).sum(axis=0)
    if not len(squares):
        return float(-0.5 * np.log(2 * np.pi * np.e * totals / num_samples).mean())
    squares /= squares[0]
    along = (rows.T @ targets) ** 2 / (rows**2).sum(axis=0)[:, None]
    beyond = np.maximum(totals - along.sum(axis=0), 0)

    def evidence(ratios: Array) -> Array:
        """Evidence ``[T]`` of a ratio for each column ``[T]``."""
        left = beyond + (along * (ratios / (squares[:, None] + ratios))).sum(axis=0)
        complexity = np.log1p(squares[:, None] / ratios).sum(axis=0)
        found: Array = -0.5 * (np.log(2 * np.pi * np.e * left / num_samples) + complexity / num_samples)
        return found

    tried = np.array([evidence(np.full(targets.shape[1], ratio)) for ratio in LOGME_RATIOS])
    best = np.log(LOGME_RATIOS[tried.argmax(axis=0)])
    step = float(np.log(LOGME_RATIOS[1] / LOGME_RATIOS[0]))
    low, high = (np.clip(best + s, *np.log(LOGME_RATIOS[[0, -1]])) for s in (-step, step))
    for _ in range(LOGME_REFINEMENTS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        is_left = evidence(np.exp(left)) >= evidence(np.exp(right))
        low, high = np.where(is_left, low, left), np.where(is_left, right, high)
    return float(np.maximum(evidence(np.exp((low + high) / 2)), tried.max(axis=0)).mean())


def h_score(features: Array, labels: Array, *, coordinates: Array | None = None) -> float:
    """How much of the variance of the features lies between classes, in units of their covariance.

        (1 - a) tr( ((1 - a) S + a s I)^-1 B )

    with S the covariance of the features, s the mean of its diagonal, B the covariance of the class means
    (weighted by class size) and a the Ledoit-Wolf shrinkage of S.

    Range: 0 to C - 1. Constant features give 0.

    Source:
        Ibrahim, Ponomareva and Mazumder 2021, "Newer is not always better", arXiv:2110.06893. The
        score without shrinkage is of Bao et al. 2019, arXiv:2212.10082. No departure.
    """
    codes, counts = occurring(labels)
    rows = principal_coordinates(centred(features)) if coordinates is None else coordinates
    variances = (rows**2).mean(axis=0)
    shrinkage = ledoit_wolf(rows, features.shape[1])
    between = counts @ class_means(rows, codes, counts) ** 2 / len(rows)
    shrunk = (1 - shrinkage) * variances + shrinkage * variances.sum() / features.shape[1]
    return float((1 - shrinkage) * (between / shrunk).sum())


def _coding_rate(rows: Array) -> float:
    """``1/2 ln det(I + rows' rows / (n epsilon))`` of ``[n, R]``, by the smaller Gram matrix."""
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    gram = np.eye(len(gram)) + gram / (len(rows) * TRANSRATE_EPSILON)
    return 0.5 * float(np.linalg.slogdet(gram)[1])


def transrate(features: Array, labels: Array, *, coordinates: Array | None = None) -> float:
    """Nats that the classes save in coding the features up to a given distortion.

        R(Z) - sum over classes of N_c / N R(Z_c),   R(Z) = 1/2 ln det( I + Z'Z / (N epsilon) )

    with Z centred once, on the mean of all samples, and scaled so that the mean squared norm of a row is 1.

    Range: 0 and above. Constant features give 0.

    Source:
        Huang et al. 2022, "Frustratingly easy transferability estimation", arXiv:2106.09362, with
        epsilon = 1e-4. Their code gives every class the same weight; here as in the text, by its size. Scaling
        is ours: else the score grows with the norm of the features.
    """
    codes, counts = occurring(labels)
    rows = principal_coordinates(centred(features)) if coordinates is None else coordinates
    if not rows.shape[1]:
        return 0.0
    rows = rows / np.sqrt((rows**2).sum() / len(rows))
    by_class = sum(
        count / len(rows) * _coding_rate(rows[codes == code]) for code, count in enumerate(counts.tolist())
    )
    return float(_coding_rate(rows) - by_class)


def gbc(features: Array, labels: Array, *, coordinates: Array | None = None) -> float:
    """Overlap of the classes as Gaussians, negative.

        - sum over ordered pairs of classes of exp(-d),
        d = |mu_i - mu_j|^2 / (8 s) + P/2 ln( s / sqrt(s_i s_j) ),   s = (s_i + s_j) / 2

    with P = 64 principal directions (fewer if there are fewer) and s_i the mean variance of class i in one of
    them.

    Range: -C (C - 1) to 0. Constant features give the lowest.

    Source:
        Pándy et al. 2022, "Transferability estimation using Bhattacharyya class separability",
        arXiv:2111.12780, with spherical classes. Each s_i is drawn towards the mean of all classes as if by
        one more sample, and is at least 1e-6 of the variance of the features, so that a class of one sample has
        one. The published code counts the logarithm of a spherical class once and not P times.
    """
    codes, counts = occurring(labels)
    num_classes = len(counts)
    rows = principal_coordinates(centred(features)) if coordinates is None else coordinates
    rows = rows[:, :GBC_DIRECTIONS]
    num_directions = rows.shape[1]
    if not num_directions:
        return -float(num_classes * (num_classes - 1))
    means = class_means(rows, codes, counts)
    within = one_hot(codes).T @ ((rows - means[codes]) ** 2).mean(axis=1)
    variances = (within + within.sum() / len(rows)) / (counts + 1)
    variances = np.maximum(variances, VARIANCE_FLOOR * (rows**2).mean())
    middle = (variances[:, None] + variances) / 2
    apart = ((means[:, None] - means) ** 2).sum(axis=2) / (8 * middle)
    logs = np.log(variances)
    apart += num_directions / 2 * (np.log(middle) - (logs[:, None] + logs) / 2)
    overlap = np.exp(-np.maximum(apart, 0))
    return -float(overlap.sum() - np.trace(overlap))


def _discriminant(rows: Array, codes: Array, counts: Array, num_features: int, shrinkage: float) -> Array:
    """Log probability ``[N, C]`` of each class by linear discriminant analysis with a shrunk covariance."""
    means = class_means(rows, codes, counts)
    within = rows - means[codes]
    covariance = within.T @ within / len(rows)
    level = shrinkage * np.trace(covariance) + VARIANCE_FLOOR * rows.var(axis=0).sum()
    shrunk = (1 - shrinkage) * covariance + np.eye(rows.shape[1]) * level / num_features
    directions = np.linalg.solve(shrunk, means.T)
    logits: Array = rows @ directions - 0.5 * (means * directions.T).sum(axis=1) + np.log(counts / len(rows))
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def sfda(features: Array, labels: Array, *, coordinates: Array | None = None) -> float:
    """Mean probability of the own class in a Fisher space that was made harder.

    A linear discriminant analysis with shrunk within-class covariance, ``(1 - a) W + a w I`` with w the mean of
    the diagonal of W, gives each sample the probability p of its own class. Then every sample z is moved to
    ``p z + (1 - p) o``, with o the mean of the means of the other classes, and a second analysis with the
    same a gives the probabilities that are scored.

    Range: 0 to 1. Constant features give the sum of the squared shares of the classes.

    Source:
        Shao et al. 2022, "Not all models are equal", arXiv:2207.03036. There a = exp(-5 e) with e the largest
        eigenvalue of W, which depends on the unit of the features; here e is divided by the variance of the
        features, and 1e-6 of that variance is added to W, so that classes that are points have a density. The
        paper scores the mean of logarithms and the published code the mean of probabilities. We follow the
        code: in a sample as small as ours one doubted sample would decide.
    """
    codes, counts = occurring(labels)
    own = (np.arange(len(codes)), codes)
    rows = principal_coordinates(centred(features)) if coordinates is None else coordinates
    num_features = features.shape[1]
    if not rows.shape[1]:
        return float(((counts / len(codes)) ** 2).sum())
    means = class_means(rows, codes, counts)
    within = rows - means[codes]
    largest = float(np.linalg.eigvalsh(within.T @ within)[-1])
    shrinkage = math.exp(-5 * largest / float((rows**2).sum()))
    certainty = np.exp(_discriminant(rows, codes, counts, num_features, shrinkage)[own])[:, None]
    others = (means.sum(axis=0) - means) / (len(counts) - 1)
    harder = certainty * rows + (1 - certainty) * others[codes]
    return float(np.exp(_discriminant(harder, codes, counts, num_features, shrinkage)[own]).mean())
