"""Slow, obviously right twins of the transferability scores: loops, full inverses, textbook formulas.

They repeat the formulas of the docstrings, not the code, and take features without ties or constant columns.
Features are ``[N, D]`` arrays, labels lists of class numbers 0 to C - 1.
"""

import math

import numpy as np
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score
from sklearn.mixture import GaussianMixture

from registry.recommend.sample_scores import RIDGE_STRENGTHS, folds


def classes_reference(labels):
    return sorted(set(labels))


def hot_reference(labels):
    return np.array([[float(label == c) for c in classes_reference(labels)] for label in labels])


def rows_reference(features, labels, wanted):
    return np.array([row for row, label in zip(features, labels, strict=True) if label == wanted])


def mean_reference(rows):
    return sum(rows) / len(rows)


def covariance_reference(rows):
    """Mean outer product of the deviations from the mean."""
    mean = mean_reference(rows)
    return sum(np.outer(row - mean, row - mean) for row in rows) / len(rows)


def shrinkage_reference(rows):
    """Ledoit and Wolf: squared error of the covariance over its squared distance from the identity."""
    size, width = rows.shape
    covariance, mean = covariance_reference(rows), mean_reference(rows)
    target = np.trace(covariance) / width * np.eye(width)
    distance = np.sum((covariance - target) ** 2)
    error = sum(np.sum((np.outer(row - mean, row - mean) - covariance) ** 2) for row in rows) / size**2
    return min(error, distance) / distance


def log_evidence_reference(features, y, alpha, beta):
    """Log evidence of one column per sample, at given precisions of the prior and of the noise."""
    size, width = features.shape
    a = alpha * np.eye(width) + beta * features.T @ features
    m = beta * np.linalg.inv(a) @ features.T @ y
    residual = np.sum((features @ m - y) ** 2)
    return (
        size / 2 * math.log(beta)
        + width / 2 * math.log(alpha)
        - size / 2 * math.log(2 * math.pi)
        - beta / 2 * residual
        - alpha / 2 * np.sum(m**2)
        - np.linalg.slogdet(a)[1] / 2
    ) / size


def logme_reference(features, targets, steps=3000):
    """The fixed point of the paper, with a full inverse at every step."""
    size, width = features.shape
    squares = np.linalg.svd(features, compute_uv=False) ** 2
    evidences = []
    for y in targets.T:
        alpha = beta = 1.0
        for _ in range(steps):
            a = alpha * np.eye(width) + beta * features.T @ features
            m = beta * np.linalg.inv(a) @ features.T @ y
            gamma = sum(beta * s / (alpha + beta * s) for s in squares)
            alpha = gamma / np.sum(m**2)
            beta = (size - gamma) / np.sum((features @ m - y) ** 2)
        evidences.append(log_evidence_reference(features, y, alpha, beta))
    return sum(evidences) / len(evidences)


def h_score_reference(features, labels):
    covariance, shrinkage = covariance_reference(features), shrinkage_reference(features)
    level = np.trace(covariance) / features.shape[1]
    between = np.zeros_like(covariance)
    for c in classes_reference(labels):
        rows = rows_reference(features, labels, c)
        shift = mean_reference(rows) - mean_reference(features)
        between += len(rows) / len(features) * np.outer(shift, shift)
    shrunk = (1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance))
    return (1 - shrinkage) * np.trace(np.linalg.inv(shrunk) @ between)


def log_expected_reference(theta, labels):
    size, num_sources = theta.shape
    joint = {c: [0.0] * num_sources for c in classes_reference(labels)}
    for n, label in enumerate(labels):
        for k in range(num_sources):
            joint[label][k] += theta[n, k] / size
    total = 0.0
    for n, label in enumerate(labels):
        expected = 0.0
        for k in range(num_sources):
            expected += joint[label][k] / sum(joint[c][k] for c in joint) * theta[n, k]
        total += math.log(expected)
    return total / size


def leep_reference(logits, labels):
    return log_expected_reference(softmax(logits, axis=1), labels)


def nce_reference(logits, labels):
    sources = [max(range(len(row)), key=lambda k, row=row: row[k]) for row in logits.tolist()]
    total = 0.0
    for label, source in zip(labels, sources, strict=True):
        pairs = sum((y, k) == (label, source) for y, k in zip(labels, sources, strict=True))
        total += math.log(pairs / sources.count(source))
    return total / len(labels)


def nleep_reference(features, labels, seed=0):
    rows = PCA(n_components=0.8, svd_solver="full").fit_transform(features)
    num_components = min(5 * len(set(labels)), len(labels) // 4)
    model = GaussianMixture(
        num_components, covariance_type="diag", reg_covar=1e-3, max_iter=50, random_state=seed
    )
    theta = model.fit(rows / math.sqrt(np.mean(rows**2))).predict_proba(rows / math.sqrt(np.mean(rows**2)))
    return log_expected_reference(theta, labels)


def transrate_reference(features, labels, epsilon=1e-4):
    z = features - mean_reference(features)
    z = z / math.sqrt(sum(row @ row for row in z) / len(z))

    def rate(rows):
        inside = np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * epsilon)
        return sum(math.log(value) for value in np.linalg.eigvalsh(inside)) / 2

    by_class = 0.0
    for c in classes_reference(labels):
        rows = rows_reference(z, labels, c)
        by_class += len(rows) / len(z) * rate(rows)
    return rate(z) - by_class


def gbc_reference(features, labels):
    rows = PCA(n_components=min(64, features.shape[1], len(features) - 1), svd_solver="full").fit_transform(
        features
    )
    width = rows.shape[1]
    parts = [rows_reference(rows, labels, c) for c in classes_reference(labels)]
    squares = [sum(np.sum((row - mean_reference(part)) ** 2) for row in part) / width for part in parts]
    pooled = sum(squares) / len(rows)
    variances = [(square + pooled) / (len(part) + 1) for square, part in zip(squares, parts, strict=True)]
    total = 0.0
    for i, first in enumerate(parts):
        for j, second in enumerate(parts):
            if i != j:
                middle = (variances[i] + variances[j]) / 2
                apart = np.sum((mean_reference(first) - mean_reference(second)) ** 2) / middle / 8
                apart += width / 2 * math.log(middle / math.sqrt(variances[i] * variances[j]))
                total += math.exp(-apart)
    return -total


def parc_reference(features, targets):
    rows = PCA(n_components=min(32, features.shape[1], len(features) - 1), svd_solver="full").fit_transform(
        features
    )
    first, second = [], []
    for m in range(len(rows)):
        for n in range(m):
            cosine = rows[m] @ rows[n] / math.sqrt(rows[m] @ rows[m]) / math.sqrt(rows[n] @ rows[n])
            first.append(1 - cosine)
            second.append(round(float(np.sum((targets[m] - targets[n]) ** 2)), 9))
    return 100 * spearmanr(first, second).statistic


def within_reference(parts, size):
    return sum(len(part) * covariance_reference(part) for part in parts) / size


def discriminant_reference(rows, labels, shrinkage):
    """Probabilities of the classes as shares of weighted Gaussian densities."""
    parts = [rows_reference(rows, labels, c) for c in classes_reference(labels)]
    within, width = within_reference(parts, len(rows)), rows.shape[1]
    level = shrinkage * np.trace(within) / width + 1e-6 * np.trace(covariance_reference(rows)) / width
    inverse = np.linalg.inv((1 - shrinkage) * within + level * np.eye(width))
    logits = np.empty((len(rows), len(parts)))
    for n, row in enumerate(rows):
        for c, part in enumerate(parts):
            mean = mean_reference(part)
            logits[n, c] = -(row - mean) @ inverse @ (row - mean) / 2 + math.log(len(part) / len(rows))
    return softmax(logits, axis=1)


def sfda_reference(features, labels):
    parts = [rows_reference(features, labels, c) for c in classes_reference(labels)]
    largest = max(np.linalg.eigvalsh(within_reference(parts, len(features))))
    shrinkage = math.exp(-5 * largest / np.trace(covariance_reference(features)))
    first = discriminant_reference(features, labels, shrinkage)
    harder = []
    for n, label in enumerate(labels):
        p = first[n, label]
        others = mean_reference([mean_reference(part) for c, part in enumerate(parts) if c != label])
        harder.append(p * features[n] + (1 - p) * others)
    second = discriminant_reference(np.array(harder), labels, shrinkage)
    return sum(second[n, label] for n, label in enumerate(labels)) / len(labels)


def held_out_reference(parts, kind):
    """Of predictions and targets of each fold, and the mean target of the others."""
    truth = np.concatenate([targets for _, targets, _ in parts])
    if kind == "regression":
        errors = sum(np.sum((y - p) ** 2, axis=0) for p, y, _ in parts)
        return np.mean(1 - errors / sum(np.sum((y - mean) ** 2, axis=0) for _, y, mean in parts))
    if kind == "multi_label":
        guess = np.concatenate([predictions - mean for predictions, _, mean in parts])
        return np.mean([average_precision_score(y, p) for y, p in zip(truth.T, guess.T, strict=True)])
    accuracies = []
    for predictions, targets, _ in parts:
        hits = {}
        for prediction, target in zip(np.round(predictions, 9).tolist(), targets.tolist(), strict=True):
            own = target.index(1)
            best = [c for c, value in enumerate(prediction) if value == max(prediction)]
            hits.setdefault(own, []).append(1 / len(best) if own in best else 0)
        accuracies.append(np.mean([np.mean(values) for values in hits.values()]))
    return np.mean(accuracies)


def split_reference(features, targets, fold):
    kept = [m for m in range(len(features)) if m not in set(fold.tolist())]
    return features[kept], targets[kept]


def knn_reference(features, targets, kind, k=5):
    parts = []
    for fold in folds(targets, kind, 0):
        others, known = split_reference(features, targets, fold)
        predictions = []
        for row in features[fold]:
            cosines = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in others]
            nearest = sorted(range(len(others)), key=lambda m, cosines=cosines: -cosines[m])[:k]
            predictions.append(mean_reference([known[m] for m in nearest]))
        parts.append((np.array(predictions), targets[fold], mean_reference(known)))
    return held_out_reference(parts, kind)


def ridge_reference(features, targets, strength, asked):
    """Fit a ridge regression with a free bias, and ask it."""
    ones = np.column_stack([features, np.ones(len(features))])
    penalty = strength * np.diag([1.0] * features.shape[1] + [0.0])
    table = np.linalg.solve(ones.T @ ones + penalty, ones.T @ targets)
    return np.column_stack([asked, np.ones(len(asked))]) @ table


def linear_probe_reference(features, targets, kind):
    """Fit every strength without every fold; of each fold, the strength is the best of the other folds."""
    z = features - mean_reference(features)
    parts = folds(targets, kind, 0)
    guesses, errors = {}, {}
    strengths = RIDGE_STRENGTHS * np.linalg.svd(z, compute_uv=False)[0] ** 2
    for f, fold in enumerate(parts):
        for strength in strengths:
            guess = ridge_reference(*split_reference(z, targets, fold), strength, z[fold])
            guesses[f, strength], errors[f, strength] = guess, np.sum((guess - targets[fold]) ** 2)
    found = []
    for f, fold in enumerate(parts):
        totals = [sum(errors[g, strength] for g in range(len(parts)) if g != f) for strength in strengths]
        guess = guesses[f, strengths[int(np.argmin(totals))]]
        found.append((guess, targets[fold], mean_reference(split_reference(z, targets, fold)[1])))
    return held_out_reference(found, kind)


REFERENCES = {
    "logme": lambda z, y, logits: logme_reference(z, hot_reference(y)),
    "h_score": lambda z, y, logits: h_score_reference(z, y),
    "leep": lambda z, y, logits: leep_reference(logits, y),
    "nleep": lambda z, y, logits: nleep_reference(z, y),
    "nce": lambda z, y, logits: nce_reference(logits, y),
    "transrate": lambda z, y, logits: transrate_reference(z, y),
    "gbc": lambda z, y, logits: gbc_reference(z, y),
    "parc": lambda z, y, logits: parc_reference(z, hot_reference(y)),
    "sfda": lambda z, y, logits: sfda_reference(z, y),
    "knn": lambda z, y, logits: knn_reference(z, hot_reference(y), "single_label"),
    "linear_probe": lambda z, y, logits: linear_probe_reference(z, hot_reference(y), "single_label"),
}
"""Of one class of several: features, labels and logits to the score."""

COLUMN_REFERENCES = {
    "logme": lambda z, targets, kind: logme_reference(z, targets),
    "parc": lambda z, targets, kind: parc_reference(z, targets),
    "knn": knn_reference,
    "linear_probe": linear_probe_reference,
}
"""Of several labels or numbers: features, targets (standardised, if numbers) and kind to the score."""
