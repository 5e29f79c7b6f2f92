"""Slow, obviously right twins of parts of registry.recommend: loops, dense algebra and integrals."""

import itertools
import math

import numpy as np
from scipy import integrate, stats


def logistic(value):
    """Accuracies of log odds."""
    return 1 / (1 + np.exp(-np.asarray(value)))


def condition_reference(prediction, measured, noise_sd, offset_sd=0.0):
    """Log odds ``[M]`` and covariance ``[M, M]`` by dense conditioning on accuracies ``[M]`` or NaN."""
    covariance = prediction.covariance + prediction.level_sd**2
    known = [i for i in range(len(measured)) if not math.isnan(measured[i])]
    share = measured[known]
    noise = np.broadcast_to(noise_sd, measured.shape)[known] / (share * (1 - share))
    observed = covariance[np.ix_(known, known)] + np.diag(noise**2) + offset_sd**2
    gain = covariance[:, known] @ np.linalg.inv(observed)
    logit = prediction.logit + gain @ (np.log(share / (1 - share)) - prediction.logit[known])
    return logit, covariance - gain @ covariance[known, :]


def regret_reference(prediction):
    """Expected best of all minus each, the best integrated over a grid of three experts, level apart."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    factor = np.linalg.cholesky(prediction.covariance)
    best = total = 0.0
    for (x, y, z), (a, b, c) in zip(
        itertools.product(nodes, repeat=3), itertools.product(weights, repeat=3), strict=True
    ):
        draw = logistic(prediction.logit + factor @ np.array([x, y, z]))
        best, total = best + a * b * c * draw.max(), total + a * b * c
    return best / total - logistic(prediction.logit)


def improvement_reference(gap, sd):
    """The positive part of each Gaussian, integrated over its density."""
    return np.array(
        [
            integrate.quad(lambda y, m=m, s=s: y * stats.norm.pdf(y, m, s), 0.0, max(0.0, m) + 12 * s)[0]
            for m, s in zip(gap, sd, strict=True)
        ]
    )


def gather_reference(results, sources, way, asked, alias):
    """Mean accuracy by task, way and expert of the other rows; that of the asked one by expert; counts."""
    cells, counts = {}, dict.fromkeys(sources, 0)
    for task, metric, protocol, name in {
        (r.task, r.metric, r.protocol, alias.get(r.expert, r.expert)) for r in results
    }:
        if name not in sources or sources[name] == task:
            continue
        told = {
            (r.seed, r.accuracy)
            for r in results
            if (r.task, r.metric, r.protocol) == (task, metric, protocol)
            and alias.get(r.expert, r.expert) == name
        }
        counts[name] += len(told)
        cells[task, (metric, protocol), name] = sum(value for _, value in told) / len(told)
    own = {key[2]: value for key, value in cells.items() if key[:2] == (asked, way)}
    return {key: value for key, value in cells.items() if key[:2] != (asked, way)}, own, counts
