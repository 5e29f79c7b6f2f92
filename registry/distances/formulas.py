"""Formulas of the distances between embeddings, in plain numpy: the truth that every index is tested against.

Axes: S source tasks, T target tasks, D filters of the probe. An embedding h is the diagonal of a Fisher
information, so a precision; v = 1/h is the variance that goes with it. Each function takes two arrays of valid
embeddings, ``[S, D]`` and ``[T, D]``, and returns ``[S, T]``.

A filter that a task never excites has h = 0, where 1/h, log h and 0/0 are not defined. Each formula
therefore adds a floor of ``RELATIVE_EPSILON`` times the task's own mean: an absolute constant such as the
1e-8 of the reference code is not small beside embeddings of 1e-8 to 1e-6. An embedding that is zero
everywhere points nowhere: it is at 0 from another such embedding, and where a distance is a cosine, at 1
from everything else.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

RELATIVE_EPSILON = 1e-8

SMALLEST = float(np.finfo(np.float32).tiny)

# With means in this range and no further apart, no sum or square of task2vec leaves a float32's range.
SMALLEST_MEAN = 1e-12
LARGEST_MEAN = 1e12
LARGEST_RATIO = 1e6
# Far below the smallest floor of a float32: it only keeps filters that are dead in both tasks from being 0/0.
NO_FLOOR = 1e-100

Array = NDArray[Any]


def task2vec(sources: Array, targets: Array) -> NDArray[np.float64]:
    """1 - cos of the quotients a/(a + b) and b/(a + b), taken filter by filter.

    From 0 to 1, no unit. Symmetric; zero on itself and on any multiple of itself; unchanged when both are
    multiplied by one factor. Computed in float32 where both are, and where that is precise.

    Both quotients have one denominator, so one division serves: with w the square of its inverse, the products
    are sums of w a a, w a b and w b b, all in one piece of memory. Written as two quotients, it takes 1.2 to
    1.4 times as long (measured: 30 ms in place of 22 for 20,000 tasks of 928 filters, 67 in place of 55 for
    10,000 of 4,800). No product of matrices: OpenBLAS would do it on threads of its own, in the way of ours.

    Source:
        Achille et al., 2019, arXiv:1902.03545; aws-cv-task2vec, task_similarity.py, ``cosine``. There 1e-8
        is added to a + b; here 1e-8 times the sum of the two means.
    """
    dtype = np.result_type(sources, targets)
    sources, targets = sources.astype(dtype, copy=False), targets.astype(dtype, copy=False)
    floor_weights = np.full(sources.shape[1], RELATIVE_EPSILON / sources.shape[1], dtype)
    floors, room = np.vecdot(sources, floor_weights), np.empty(sources.shape, dtype)
    distances = np.empty((len(sources), len(targets)))
    for column, target in enumerate(targets):
        floor = np.vecdot(target, floor_weights)
        distances[:, column] = _compared(sources, floors, target, floor, room)
        if dtype != np.float64:
            others = np.flatnonzero(
                ~_in_range(floors / np.float64(RELATIVE_EPSILON), float(floor) / RELATIVE_EPSILON)
            )
            if len(others):
                rows = sources[others].astype(np.float64), target[None].astype(np.float64)
                distances[others, column] = task2vec(*rows)[:, 0]
    return distances


def _compared(sources: Array, floors: Array, target: Array, floor: Any, room: Array) -> NDArray[np.float64]:
    """Distances ``[S]`` to one target ``[D]``, computed in ``room`` ``[S, D]``.

    In float32 the unit is the mean of the target, so that squares stay in range.
    Threads wait for each other between the calls of numpy, so there are few.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        unit = sources.dtype.type(1) if sources.dtype == np.float64 else floor / np.float32(RELATIVE_EPSILON)
        scaled = target / unit
        np.add(sources, target + floor + sources.dtype.type(NO_FLOOR), out=room)
        np.add(room, floors[:, None], out=room)
        np.divide(unit, room, out=room)
        np.square(room, out=room)
        right_squares = np.vecdot(room, np.square(scaled))
        np.multiply(room, sources, out=room)
        inner, left_squares = np.vecdot(room, scaled), np.vecdot(room, sources)
        return _cosine_distances(left_squares, inner, right_squares)


def _in_range(means: Array, target_mean: float) -> NDArray[np.bool_]:
    """Whether float32 is precise for sources of these means ``[S]`` and a target of that one."""
    lowest = max(SMALLEST_MEAN, target_mean / LARGEST_RATIO)
    highest = min(LARGEST_MEAN, target_mean * LARGEST_RATIO)
    return np.asarray((lowest <= means) & (means <= highest) & (SMALLEST_MEAN <= target_mean <= LARGEST_MEAN))


def _cosine_distances(left_squares: Array, inner: Array, right_squares: Array) -> NDArray[np.float64]:
    """1 - a.b / (||a|| ||b||) from a.a, a.b and b.b: 0 where both are zero, 1 where one is."""
    left, right = left_squares.astype(np.float64), right_squares.astype(np.float64)
    product = left * right
    distances = np.clip(1 - inner / np.sqrt(np.where(product > 0, product, 1)), 0, 1)
    return np.asarray(np.where((left == 0) & (right == 0), 0, distances))


def _floored(rows: Array) -> NDArray[np.float64]:
    """Embeddings ``[N, D]`` in float64 with every filter above zero."""
    precise = rows.astype(np.float64)
    floor = RELATIVE_EPSILON * np.maximum(precise.mean(axis=1, keepdims=True), SMALLEST)
    return np.asarray(precise + floor)


def _norms_of_differences(sources: Array, targets: Array) -> Array:
    distances = np.empty((len(sources), len(targets)))
    for column, target in enumerate(targets):
        difference = sources - target
        distances[:, column] = np.sqrt(np.vecdot(difference, difference))
    return distances


def cosine_distances(sources: Array, targets: Array) -> NDArray[np.float64]:
    """1 - cos of rows ``[S, D]`` and ``[T, D]``, which may be negative; zeros are a direction of their own.

    ``[S, T]``, from 0 to 2, no unit. Of embeddings it is ``cosine``, of mean features the domain distance.
    """
    return np.asarray(np.clip(1 - _directions(sources) @ _directions(targets).T, 0, 2))


def _directions(rows: Array) -> Array:
    """Unit vectors ``[N, D + 1]``; the last axis is there for the rows that are zero, which point along it."""
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    zero = norms == 0
    return np.hstack([rows / np.where(zero, 1, norms), zero])


def euclidean(sources: Array, targets: Array) -> Array:
    """||a - b||: follows the few filters with the largest values.

    From 0, in the unit of the embedding. Symmetric; zero on itself.
    """
    return _norms_of_differences(sources.astype(np.float64), targets.astype(np.float64))


def cosine(sources: Array, targets: Array) -> Array:
    """1 - a.b / (||a|| ||b||): blind to the norm, follows the few filters with the largest values.

    From 0 to 1, no unit. Symmetric; zero on itself.
    """
    return cosine_distances(sources, targets)


def correlation(sources: Array, targets: Array) -> Array:
    """1 - Pearson correlation of the variances 1/a and 1/b.

    From 0 to 2, no unit. Symmetric; zero on itself. Variances that are all the same correlate with nothing
    but others of the kind. One filter at zero has so large a variance that it decides alone.

    Source:
        aws-cv-task2vec, task_similarity.py, ``correlation``, with a relative floor under h.
    """
    return cosine_distances(_centred_variances(sources), _centred_variances(targets))


def _centred_variances(rows: Array) -> Array:
    variances = 1 / _floored(rows)
    centred = variances - variances.mean(axis=1, keepdims=True)
    # Rounding of the mean must not make a direction out of equal values.
    return np.where(np.ptp(variances, axis=1, keepdims=True) > 0, centred, 0)


def log_euclidean(sources: Array, targets: Array) -> Array:
    """||log a - log b||: every filter counts by its ratio, whatever its size.

    From 0, in nats. Symmetric; zero on itself.
    """
    return _norms_of_differences(np.log(_floored(sources)), np.log(_floored(targets)))


def root_ratio(sources: Array, targets: Array) -> Array:
    """Mean over filters of the squared relative difference of roots: ((√a - √b)/(√a + √b))².

    It is the square of tanh of a quarter of log a/b, so it grows as the square of small ratios, as a kernel
    wants it, and no filter counts for more than 1. From 0 to 1, no unit. Symmetric; zero on itself.
    """
    sources, targets = np.sqrt(_floored(sources)), np.sqrt(_floored(targets))
    distances = np.empty((len(sources), len(targets)))
    for column, target in enumerate(targets):
        quotient = (sources - target) / (sources + target)
        distances[:, column] = np.vecdot(quotient, quotient) / quotient.shape[1]
    return distances


def jensen_shannon(sources: Array, targets: Array) -> Array:
    """Mean over filters of the mean divergence of N(0, 1/a) and N(0, 1/b) from N(0, m), m = (1/a + 1/b)/2.

    With k(v, m) = (v/m - 1 + ln m - ln v)/2, the mean of k(1/a, m) and k(1/b, m) is half the log of the
    arithmetic over the geometric mean of the variances: ln((a + b)/2)/2 - (ln a + ln b)/4.
    From 0, in nats per filter. Symmetric; zero on itself.

    Source:
        aws-cv-task2vec, task_similarity.py, ``jsd``, with a relative floor under h. m is a Gaussian, not the
        mixture of the textbook, so ln 2 is no bound.
    """
    sources, targets = _floored(sources), _floored(targets)
    source_logs, target_logs = np.log(sources), np.log(targets)
    distances = np.empty((len(sources), len(targets)))
    for column, (target, logs) in enumerate(zip(targets, target_logs, strict=True)):
        geometric = (source_logs + logs) / 2
        distances[:, column] = (np.log((sources + target) / 2) - geometric).mean(axis=1) / 2
    return np.maximum(distances, 0)


def kl(sources: Array, targets: Array) -> Array:
    """Sum over filters of the larger of the two Kullback-Leibler divergences of N(0, 1/a) and N(0, 1/b).

    With q >= 1 the ratio of the two variances, the larger one is (q - 1 - ln q)/2.
    From 0, in nats. Symmetric; zero on itself. A filter at zero in one of the two decides alone.

    Source:
        aws-cv-task2vec, task_similarity.py, ``kl``, with a relative floor under h.
    """
    sources, targets = _floored(sources), _floored(targets)
    distances = np.empty((len(sources), len(targets)))
    for column, target in enumerate(targets):
        ratio = np.maximum(sources, target) / np.minimum(sources, target)
        distances[:, column] = (ratio - 1 - np.log(ratio)).sum(axis=1) / 2
    return np.maximum(distances, 0)


def entropy(sources: Array, targets: Array) -> Array:
    """Log of 2 minus the mean over filters of the entropy of a coin with bias a/(a + b).

    From 0 to ln 2, in nats per filter. Symmetric; zero on itself.

    Source:
        aws-cv-task2vec, task_similarity.py, ``entropy``, with a relative floor under h.
    """
    sources, targets = _floored(sources), _floored(targets)
    distances = np.empty((len(sources), len(targets)))
    for column, target in enumerate(targets):
        total = sources + target
        heads, tails = sources / total, target / total
        distances[:, column] = math.log(2) + (heads * np.log(heads) + tails * np.log(tails)).mean(axis=1)
    return np.clip(distances, 0, math.log(2))
