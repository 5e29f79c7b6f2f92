"""Slow, obviously right twins of registry.prior: loops over tasks, experts and cells of the grid.

They repeat the formulas of the docstrings, not the code, and take tables without repeated tasks.
"""

import math

import numpy as np

from registry.kernel_average import BANDWIDTHS, SHRINKAGES, STATIC_WEIGHT
from registry.result_table import SPREAD_PSEUDO_RESULTS


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


def grid_reference(between):
    """Origin of the kernel and the cells ``(tau, kappa)``; ``None`` is the static prior."""
    num_tasks = len(between)
    different = [between[a, b] for a in range(num_tasks) for b in range(num_tasks) if a != b]
    nearest = [min(between[a, b] for a in range(num_tasks) if a != b) for b in range(num_tasks)]
    origin = float(np.median(nearest))
    unit = float(np.median(different)) - origin
    return origin, [None, *((unit * width, kappa) for width in BANDWIDTHS for kappa in SHRINKAGES)]


def cell_reference(column, distances, allowed, cell, origin, pseudo_results):
    """One cell's prediction from the results of one column: D4 of the reference."""
    rows = [u for u in allowed if not math.isnan(column[u])]
    denominator = len(rows) + pseudo_results
    static = sum(column[u] for u in rows) / denominator if denominator else 0.0
    if cell is None:
        return static
    tau, kappa = cell
    weights = [math.exp(-(distances[u] - origin) / tau) for u in rows]
    total = sum(weight * column[u] for weight, u in zip(weights, rows, strict=True))
    return (total + kappa * static) / (sum(weights) + kappa)


def average_reference(values, between, to_query, pseudo_results):
    """Predictions ``[C]`` for the query: the grid averaged by errors on tasks left out."""
    num_tasks, num_columns = values.shape
    origin, cells = grid_reference(between)
    log_weights = []
    for cell in cells:
        losses = []
        for t in range(num_tasks):
            others = [u for u in range(num_tasks) if u != t]
            squares = [
                (
                    cell_reference(values[:, c], between[:, t], others, cell, origin, pseudo_results)
                    - values[t, c]
                )
                ** 2
                for c in range(num_columns)
                if not math.isnan(values[t, c])
            ]
            losses.append(sum(squares) / len(squares))
        share = STATIC_WEIGHT if cell is None else (1 - STATIC_WEIGHT) / (len(cells) - 1)
        log_weights.append(math.log(share) - num_tasks / 2 * math.log(sum(losses) / num_tasks + 1e-12))
    weights = [math.exp(log_weight - max(log_weights)) for log_weight in log_weights]
    every = list(range(num_tasks))
    return np.array(
        [
            sum(
                weight * cell_reference(values[:, c], to_query, every, cell, origin, pseudo_results)
                for weight, cell in zip(weights, cells, strict=True)
            )
            / sum(weights)
            for c in range(num_columns)
        ]
    )


def predict_reference(accuracy, between, to_query):
    """Expected accuracies ``[M]`` on the query of experts that all have a result."""
    level, spread, z = normalise_reference(accuracy)
    rows = np.stack([level, np.log(spread)], axis=1)
    predicted_level, log_spread = rows.mean(axis=0) + average_reference(
        rows - rows.mean(axis=0), between, to_query, pseudo_results=0
    )
    return predicted_level + math.exp(log_spread) * average_reference(z, between, to_query, pseudo_results=1)


def conformal_reference(scores, coverage):
    """Smallest score such that the rows give enough mass to scores up to it."""
    rows = [[s for s in row if not math.isnan(s)] for row in scores.tolist()]
    rows = [row for row in rows if row]
    for bound in sorted(s for row in rows for s in row):
        mass = sum(sum(s <= bound for s in row) / len(row) for row in rows) / (len(rows) + 1)
        if mass >= coverage - 1e-9:
            return bound
    return math.inf


def condition_reference(prediction, measured, noise_sd):
    """Mean ``[M]`` and standard deviation ``[M]`` by dense Gaussian conditioning."""
    size = len(prediction.mean)
    covariance = np.full((size, size), prediction.level_sd**2) + np.diag(prediction.deviation_sd**2)
    known = [i for i in range(size) if not math.isnan(measured[i])]
    observed = covariance[np.ix_(known, known)] + noise_sd**2 * np.eye(len(known))
    gain = covariance[:, known] @ np.linalg.inv(observed)
    mean = prediction.mean + gain @ (measured[known] - prediction.mean[known])
    return mean, np.sqrt(np.diag(covariance - gain @ covariance[known, :]))


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
