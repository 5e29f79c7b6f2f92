"""Slow, obviously right twins of registry.prior and what it is made of: loops, dense algebra and refits.

They repeat the formulas of the docstrings, not the code. Tables are ``[T, M]`` with NaN where there is no
result, distances of a process a dict of ``[T, T]`` by descriptor, ``tasks`` the names of the tasks of the rows.
"""

import itertools
import math

import numpy as np
from scipy import integrate, stats

from registry.recommend.calibration import CLIP, LEVEL_VARIANCE, SCALE_PSEUDO_TASKS, SHRINKAGES
from registry.recommend.gaussian_process import BANDWIDTHS, CONSTANTS, NOISES, STATIC_WEIGHT
from registry.recommend.prior import DEFAULT_LEVEL_SD, MAX_SOURCE_SHIFT, UNMEASURED_PENALTY
from registry.recommend.results import SPREAD_PSEUDO_RESULTS

STATIC = ((), 1.0, 1.0, 1.0)
"""Descriptors, bandwidth, constant and noise of the static cell."""


def normalise_reference(accuracy):
    """Levels, spreads and standings; levels and shrunk expert means from one dense least-squares problem.

    Minimises ``sum ((r - level_u - spread_u g_i) / 1)^2 / spread_u^2 + sum g_i^2``.
    """
    num_tasks, num_experts = accuracy.shape
    rows = [[r for r in row if not math.isnan(r)] for row in accuracy.tolist()]
    squares = [sum((r - sum(row) / len(row)) ** 2 for r in row) for row in rows]
    pooled = sum(squares) / sum(len(row) - 1 for row in rows)
    spread = [
        math.sqrt((square + SPREAD_PSEUDO_RESULTS * pooled) / (len(row) - 1 + SPREAD_PSEUDO_RESULTS))
        for square, row in zip(squares, rows, strict=True)
    ]
    equations, targets = [], []
    for u in range(num_tasks):
        for i in range(num_experts):
            if not math.isnan(accuracy[u, i]):
                equation = np.zeros(num_tasks + num_experts)
                equation[u], equation[num_tasks + i] = 1 / spread[u], 1
                equations.append(equation)
                targets.append(accuracy[u, i] / spread[u])
    for i in range(num_experts):
        equations.append(np.eye(num_tasks + num_experts)[num_tasks + i])
        targets.append(0.0)
    level = np.linalg.lstsq(np.array(equations), np.array(targets))[0][:num_tasks]
    return level, np.array(spread), (accuracy - level[:, None]) / np.array(spread)[:, None]


# One process over tasks


def unit_reference(distances, tasks):
    """Median distance between different tasks less the median distance to the nearest."""
    size = range(len(tasks))
    pairs = [(a, b) for a in size for b in size if tasks[a] != tasks[b] and not math.isnan(distances[a, b])]
    nearest = [min(distances[a, b] for a, b in pairs if b == column) for column in {b for _, b in pairs}]
    return float(np.median([distances[pair] for pair in pairs])) - float(np.median(nearest))


def cells_reference(between):
    """The static cell, then the grid of each descriptor, then that of all."""
    sets = [(name,) for name in sorted(between)] + ([tuple(sorted(between))] if len(between) > 1 else [])
    return [STATIC, *itertools.product(sets, BANDWIDTHS, CONSTANTS, NOISES)]


def covariance_reference(cell, units, distances):
    """Of the values on two tasks at these distances, one by descriptor, without noise."""
    descriptors, bandwidth, constant, _ = cell
    likeness = 1.0 if descriptors else 0.0
    for name in descriptors:
        known = not math.isnan(distances[name])
        likeness *= math.exp(-distances[name] / (bandwidth * units[name])) if known else 0.0
    return constant + (1 - constant) * likeness


def cell_reference(column, rows, cell, units, between, to_query):
    """One cell's mean and variance of one column on a query, by those of the rows that are known."""
    rows = [u for u in rows if not math.isnan(column[u])]
    noise = cell[3]
    if not rows:
        return 0.0, 1 + noise
    covariance = np.empty((len(rows), len(rows)))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            pair = {name: distances[a, b] for name, distances in between.items()}
            covariance[i, j] = 1 + noise if a == b else covariance_reference(cell, units, pair)
    near = np.array([covariance_reference(cell, units, {n: d[u] for n, d in to_query.items()}) for u in rows])
    gain = np.linalg.solve(covariance, near)
    return gain @ column[rows], 1 + noise - gain @ near


def left_out_reference(values, tasks, cell, units, between):
    """Means and variances of every known value, by fits without its task; NaN elsewhere."""
    means, variances = np.full((2, *values.shape), np.nan)
    for t, c in zip(*np.nonzero(~np.isnan(values)), strict=True):
        others = [u for u in range(len(tasks)) if tasks[u] != tasks[t]]
        to_row = {name: distances[:, t] for name, distances in between.items()}
        means[t, c], variances[t, c] = cell_reference(values[:, c], others, cell, units, between, to_row)
    return means, variances


def weights_reference(values, tasks, left_out, without=None):
    """Weight of each cell from its predictions of tasks left out, not counting the task ``without``."""
    losses = []
    for predicted in left_out:
        squares = [
            (predicted[t] - values[t])[~np.isnan(values[t])] ** 2
            for t in range(len(tasks))
            if tasks[t] != without and not np.isnan(values[t]).all()
        ]
        losses.append([square.mean() for square in squares])
    shares = [STATIC_WEIGHT] + [(1 - STATIC_WEIGHT) / max(len(left_out) - 1, 1)] * (len(left_out) - 1)
    logs = [
        math.log(share) - len(loss) / 2 * math.log(sum(loss) / max(len(loss), 1) + 1e-12)
        for share, loss in zip(shares, losses, strict=True)
    ]
    weights = np.array([math.exp(log - max(logs)) for log in logs])
    return weights / weights.sum()


def process_reference(values, tasks, between, to_query):
    """Weights ``[G]``, left out and their variances ``[T, C]``, and mean and variance ``[C]`` on the query."""
    units = {name: unit_reference(distances, tasks) for name, distances in between.items()}
    cells = cells_reference(between)
    fits = [left_out_reference(values, tasks, cell, units, between) for cell in cells]
    means = [mean for mean, _ in fits]
    weights = weights_reference(values, tasks, means)
    without = [weights_reference(values, tasks, means, without=task) for task in tasks]
    left_out = np.stack(
        [sum(w * m[t] for w, m in zip(without[t], means, strict=True)) for t in range(len(tasks))]
    )
    every = range(len(tasks))
    answers = [
        [cell_reference(column, every, cell, units, between, to_query) for column in values.T] for cell in cells
    ]
    best = int(np.argmax(weights))
    return (
        weights,
        left_out,
        fits[best][1],
        sum(
            weight * np.array([mean for mean, _ in answer])
            for weight, answer in zip(weights, answers, strict=True)
        ),
        np.array([variance for _, variance in answers[best]]),
    )


# How errors go together over experts


def correlation_reference(units, shrinkage):
    """Mean products of pairs of columns, an unknown value (NaN) being none, shrunk towards 0."""
    num_rows, size = units.shape
    correlation = np.eye(size)
    for i in range(size):
        for j in range(size):
            if i != j:
                rows = [u for u in range(num_rows) if not np.isnan(units[u, [i, j]]).any()]
                power = [max(np.nansum(units[:, k] ** 2) / num_rows, 1.0) for k in (i, j)]
                product = sum(units[u, i] * units[u, j] for u in rows) / num_rows
                correlation[i, j] = (1 - shrinkage) * product / math.sqrt(power[0] * power[1])
    return correlation


def expert_covariance_reference(errors):
    """Scale ``[M]`` and correlation ``[M, M]``; the shrinkage under which rows left out are likeliest."""
    clipped = np.clip(errors, -CLIP, CLIP)

    def mean_square(columns):
        return [
            (np.nansum(column**2) + SCALE_PSEUDO_TASKS) / (np.sum(~np.isnan(column)) + SCALE_PSEUDO_TASKS)
            for column in columns.T
        ]

    scale = np.sqrt(mean_square(clipped))
    units = clipped / scale
    units = units[(~np.isnan(units)).sum(axis=1) > 1]
    if len(units) < 3:
        return scale, np.eye(errors.shape[1])
    likelihoods = []
    for shrinkage in SHRINKAGES:
        total = 0.0
        for t in range(len(units)):
            known = ~np.isnan(units[t])
            correlation = correlation_reference(np.delete(units, t, axis=0), shrinkage)
            covariance = correlation[np.ix_(known, known)] + LEVEL_VARIANCE
            total += stats.multivariate_normal.logpdf(units[t, known], cov=covariance)
        likelihoods.append(total)
    return scale, correlation_reference(units, SHRINKAGES[int(np.argmax(likelihoods))])


# The prior


def slope_reference(source, z):
    """Slope of standings over source distances ``[T, M]``, least squares within rows, shrunk by its error."""
    xs, zs = [], []
    for distances, standings in zip(source, z, strict=True):
        known = ~np.isnan(distances) & ~np.isnan(standings)
        if known.sum() > 1:
            xs.append(distances[known] - distances[known].mean())
            zs.append(standings[known] - standings[known].mean())
    power = sum(float(x @ x) for x in xs)
    slope = sum(float(x @ z) for x, z in zip(xs, zs, strict=True)) / power
    scores = [float(x @ (z - slope * x)) for x, z in zip(xs, zs, strict=True)]
    variance = sum(score**2 for score in scores) / power**2 * len(xs) / (len(xs) - 1)
    return slope * max(0.0, 1 - variance / slope**2) if slope < 0 else 0.0


def start_reference(slope, source, measured):
    """Standing of each expert before its own results, by the distance of its source; ``measured`` elsewhere."""
    known = [i for i in range(len(source)) if not math.isnan(source[i])]
    anchor = [i for i in known if measured[i]] or known
    centre = sum(source[i] for i in anchor) / len(anchor) if anchor else 0.0
    start = []
    for i in range(len(source)):
        penalty = UNMEASURED_PENALTY if any(measured) and not measured[i] else 0.0
        shift = slope * (source[i] - centre) if i in known else 0.0
        start.append(min(max(shift, -MAX_SOURCE_SHIFT), MAX_SOURCE_SHIFT) - penalty)
    return np.array(start)


def prior_reference(accuracy, tasks, between, source, to_query, source_to_query):
    """Mean ``[M]``, covariance ``[M, M]`` and level sd on the query, the left out ``[T, M]`` and the quantile.

    Of rows measured in one way; ``source`` is ``[T, M]``.
    """
    level, spread, z = normalise_reference(accuracy)
    known = ~np.isnan(accuracy)
    slope = slope_reference(source, z)
    others = [[t for t in range(len(tasks)) if tasks[t] != task] for task in tasks]
    shift = np.stack(
        [start_reference(slope, source[t], known[others[t]].any(axis=0)) for t in range(len(tasks))]
    )
    _, left_z, variance_z, standing, variance = process_reference(z - shift, tasks, between, to_query)
    rows = np.stack([level, np.log(spread)], axis=1)
    centre = rows.mean(axis=0)
    _, left_rows, _, new_row, _ = process_reference(rows - centre, tasks, between, to_query)
    left_level, left_spread = left_rows[:, :1] + centre[0], np.exp(left_rows[:, 1:] + centre[1])

    misses = (z - shift - left_z) / np.sqrt(variance_z)
    assumed = 1 / np.mean(variance_z[np.isfinite(misses)])
    num_rows = sum(bool(np.isfinite(row).any()) for row in misses)
    scale = math.sqrt((num_rows * np.nanmean(misses**2) + assumed) / (num_rows + 1))
    level_misses = [*(level - left_level[:, 0]), DEFAULT_LEVEL_SD]
    level_sd = math.sqrt(np.mean(np.square(level_misses)))
    expert_scale, correlation = expert_covariance_reference(misses / scale)
    left_out = left_level + left_spread * (left_z + shift)
    left_sd = np.sqrt((left_spread * scale * expert_scale) ** 2 * variance_z + level_sd**2)

    query_spread = math.exp(new_row[1] + centre[1])
    start = start_reference(slope, source_to_query, known.any(axis=0))
    mean = new_row[0] + centre[0] + query_spread * (standing + start)
    sd = query_spread * scale * expert_scale * np.sqrt(variance)
    covariance = np.diag(sd) @ correlation @ np.diag(sd)
    return mean, covariance, level_sd, left_out, conformal_reference(np.abs(accuracy - left_out) / left_sd, 0.9)


def conformal_reference(scores, coverage):
    """Smallest score such that the rows give enough mass to scores up to it."""
    rows = [[s for s in row if not math.isnan(s)] for row in scores.tolist()]
    rows = [row for row in rows if row]
    for bound in sorted(s for row in rows for s in row):
        mass = sum(sum(s <= bound for s in row) / len(row) for row in rows) / (len(rows) + 1)
        if mass >= coverage - 1e-9:
            return bound
    return math.inf


# What measurements change


def condition_reference(prediction, measured, noise_sd):
    """Mean ``[M]`` and covariance ``[M, M]`` by dense Gaussian conditioning."""
    covariance = prediction.covariance + prediction.level_sd**2
    known = [i for i in range(len(measured)) if not math.isnan(measured[i])]
    observed = covariance[np.ix_(known, known)] + np.diag(np.broadcast_to(noise_sd, measured.shape)[known] ** 2)
    gain = covariance[:, known] @ np.linalg.inv(observed)
    mean = prediction.mean + gain @ (measured[known] - prediction.mean[known])
    return mean, covariance - gain @ covariance[known, :]


def regret_reference(prediction):
    """Expected best of all minus each, the best integrated over a grid of three experts, level apart."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    factor = np.linalg.cholesky(prediction.covariance)
    best = total = 0.0
    for (x, y, z), (a, b, c) in zip(
        itertools.product(nodes, repeat=3), itertools.product(weights, repeat=3), strict=True
    ):
        draw = prediction.mean + factor @ np.array([x, y, z])
        best, total = best + a * b * c * draw.max(), total + a * b * c
    return best / total - prediction.mean


def improvement_reference(prediction, best):
    """What each expert is above ``best``, integrated over its density."""
    return np.array(
        [
            integrate.quad(
                lambda y, m=m, s=s: (y - best) * stats.norm.pdf(y, m, s), best, max(best, m) + 12 * s
            )[0]
            for m, s in zip(prediction.mean, prediction.sd, strict=True)
        ]
    )


def static_reference(accuracy):
    """Mean z-score over tasks, shrunk by n/(n+1): the static ranking of the published baselines."""
    num_experts = accuracy.shape[1]
    totals, counts = [0.0] * num_experts, [0] * num_experts
    for row in accuracy.tolist():
        known = [r for r in row if not math.isnan(r)]
        mean = sum(known) / len(known)
        sd = math.sqrt(sum((r - mean) ** 2 for r in known) / len(known))
        for i, r in enumerate(row):
            if not math.isnan(r) and sd > 0:
                totals[i] += (r - mean) / sd
                counts[i] += 1
    return np.array([total / (count + 1) for total, count in zip(totals, counts, strict=True)])
