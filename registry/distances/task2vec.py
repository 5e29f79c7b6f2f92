"""The task2vec distance: the cosine distance of a/(a + b) and b/(a + b), quotients filter by filter.

Axes: S source tasks, T target tasks, B sources that fit the cache, D filters of the probe.
"""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RELATIVE_EPSILON = 1e-8

# 2 MB of float32, for a block and each of the two arrays that go with it. On one core anything from an eighth
# of it takes the same time. On two, calls on smaller arrays are over so soon (10 microseconds) that threads
# spend the time they win on waiting for each other; larger ones leave the cache.
CACHE_ELEMENTS = 2**19

# With means in this range and no further apart, no sum or square of the plain formula leaves a float32's.
SMALLEST_MEAN = 1e-12
LARGEST_MEAN = 1e12
LARGEST_RATIO = 1e6


def task2vec(sources: Array, targets: Array) -> Array:
    """Cosine distance between a/(a + b) and b/(a + b), quotients filter by filter.

    From 0 to 1, no unit. Symmetric; zero on itself and on any multiple of itself; unchanged when both are
    multiplied by one factor. Computed in float32 where both are.

    Args:
        sources: ``[S, D]``, finite, non-negative.
        targets: ``[T, D]``, finite, non-negative.

    Returns:
        ``[S, T]``.

    Source:
        Achille et al., 2019, arXiv:1902.03545; aws-cv-task2vec, task_similarity.py, ``cosine``. There 1e-8
        is added to a + b; here 1e-8 times the sum of the two means.
    """
    dtype = np.result_type(sources, targets)
    sources, targets = sources.astype(dtype, copy=False), targets.astype(dtype, copy=False)
    num_blocks = max(1, -(-sources.size // CACHE_ELEMENTS))
    size = max(1, -(-len(sources) // num_blocks))
    distances = np.empty((len(sources), len(targets)))
    for column, target in enumerate(targets):
        plain = _Plain(target, size)
        means, products = plain.means_and_products(sources)
        others = np.flatnonzero(~_in_range(means, plain.target_mean))
        products[:, others] = 0
        distances[:, column] = _cosine_distances(products)
        for start in range(0, len(others), size):
            rows = others[start : start + size]
            distances[rows, column] = _cosine_distances(_scaled_products(sources[rows], target[None]))
    return distances


class _Plain:
    """The formula as it is written, for one target, in memory that every block of sources uses again.

    Both quotients have one denominator, so one division serves: with w the square of its inverse, the
    products are sums of w a a, w a b and w b b. No product of matrices: OpenBLAS would do it on threads of
    its own, and those get in the way of ours.
    """

    def __init__(self, target: Array, num_rows: int) -> None:
        """Make room for blocks of up to ``num_rows``."""
        self._floor_weights = np.full_like(target, RELATIVE_EPSILON / target.size)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            floor = np.vecdot(target, self._floor_weights)
            self.target_mean = float(floor) / RELATIVE_EPSILON
            self._unit = target.dtype.type(self.target_mean)
            self._target = target / self._unit
            self._target_squares = np.square(self._target)
            self._floored_targets, self._weights = _workspace(num_rows, target + floor)

    def means_and_products(self, sources: Array) -> tuple[Array, Array]:
        """Means of the sources ``[S]`` and, of the two quotients, ``[3, S]``: a.a, a.b and b.b."""
        size = len(self._weights)
        floors = np.empty(len(sources), sources.dtype)
        products = np.empty((3, len(sources)), sources.dtype)
        # What overflows here or is 0/0 is not in range.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for start in range(0, len(sources), size):
                part = slice(start, start + size)
                self._block(sources[part], floors[part], products[:, part])
        return floors / RELATIVE_EPSILON, products

    def _block(self, sources: Array, floors: Array, products: Array) -> None:
        """The same for one block, into ``floors`` and ``products``; a is in units of b's mean.

        Threads wait for each other between the calls, so there are few.
        """
        weights = self._weights[: len(sources)]
        np.vecdot(sources, self._floor_weights, out=floors)
        np.add(sources, self._floored_targets[: len(sources)], out=weights)
        np.add(weights, floors[:, None], out=weights)
        np.divide(self._unit, weights, out=weights)
        np.square(weights, out=weights)
        np.vecdot(weights, self._target_squares, out=products[2])
        np.multiply(weights, sources, out=weights)
        np.vecdot(weights, self._target, out=products[1])
        np.vecdot(weights, sources, out=products[0])


_OF_THREAD = threading.local()


def _workspace(num_rows: int, row: Array) -> tuple[Array, Array]:
    """A row ``[D]`` repeated, and room for results, ``[num_rows, D]`` each, in memory of this thread.

    numpy takes twice as long over a row that it has to repeat as over arrays of one shape, and new memory
    costs as much as the sums. So both are kept, with the row: the next block is mostly for the same target.
    """
    repeated: Array | None = getattr(_OF_THREAD, "repeated", None)
    if (
        repeated is None
        or len(repeated) < num_rows
        or repeated.shape[1:] != row.shape
        or repeated.dtype != row.dtype
    ):
        repeated = _OF_THREAD.repeated = np.repeat(row[None], num_rows, axis=0)
        _OF_THREAD.results = np.empty_like(repeated)
    elif not np.array_equal(repeated[0], row):
        repeated[:] = row
    return repeated[:num_rows], _OF_THREAD.results[:num_rows]


def _in_range(means: Array, target_mean: float) -> NDArray[np.bool_]:
    """Which means of sources ``[S]`` the plain formula takes, with this mean of the target."""
    if not SMALLEST_MEAN <= target_mean <= LARGEST_MEAN:
        return np.zeros(len(means), dtype=bool)
    lowest = max(SMALLEST_MEAN, target_mean / LARGEST_RATIO)
    highest = min(LARGEST_MEAN, target_mean * LARGEST_RATIO)
    return np.asarray((means >= lowest) & (means <= highest))


def _scaled_products(sources: Array, target: Array) -> Array:
    """a.a, a.b and b.b ``[3, B]`` of the quotients with a target ``[1, D]``, for any scales.

    A cosine does not change when one side or the common denominator is scaled, so each task is divided by its
    largest filter first and no square leaves the range of a float32.
    """
    dtype = sources.dtype
    sources, source_scales, source_means = _scaled(sources)
    target, target_scale, target_mean = _scaled(target)
    total = source_scales + target_scale
    total[total == 0] = 1
    # Each share by its own division: one minus the other would lose the digits of a small one.
    source_share, target_share = source_scales / total, target_scale / total
    floor = RELATIVE_EPSILON * (source_share * source_means + target_share * target_mean)
    floor[floor == 0] = 1
    of_source, of_target, small = (part.astype(dtype) for part in (source_share, target_share, floor))
    weights = 1 / (of_source * sources + of_target * target + small)
    left, right = sources * weights, target * weights
    return np.stack([np.vecdot(left, left), np.vecdot(left, right), np.vecdot(right, right)])


def _scaled(rows: Array) -> tuple[Array, NDArray[np.float64], NDArray[np.float64]]:
    """Rows divided by their largest value (zero rows left alone), that value and the mean, both ``[N, 1]``."""
    scales = rows.max(axis=1, keepdims=True)
    scaled = rows / np.where(scales > 0, scales, 1)
    return scaled, scales.astype(np.float64), scaled.mean(axis=1, keepdims=True).astype(np.float64)


def _cosine_distances(products: Array) -> NDArray[np.float64]:
    """1 - a.b / (||a|| ||b||) of rows of a.a, a.b and b.b: 0 where both are zero, 1 where one is."""
    left_square, inner, right_square = products.astype(np.float64)
    product = left_square * right_square
    distance = np.clip(1 - inner / np.sqrt(np.where(product > 0, product, 1)), 0, 1)
    return np.asarray(np.where((left_square == 0) & (right_square == 0), 0, distance))
