"""Distances between embeddings by name, in plain numpy: the truth that every index is tested against.

Axes: S source tasks, T target tasks, B sources of one block, D filters of the probe. An embedding h is the
diagonal of a Fisher information, so a precision; v = 1/h is the variance that goes with it.

A filter that a task never excites has h = 0, where 1/h, log h and 0/0 are not defined. Each formula
therefore adds a floor of ``RELATIVE_EPSILON`` times the task's own mean: an absolute constant such as the
1e-8 of the reference code is not small beside embeddings of 1e-8 to 1e-6. An embedding that is zero
everywhere points nowhere: it is at 0 from another such embedding, and where a distance is a cosine, at 1
from everything else.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.distances.blockwise import Kernel, in_blocks
from registry.distances.task2vec import RELATIVE_EPSILON, task2vec
from registry.errors import InvalidQueryError, NotFoundError

DEFAULT_ALPHA = 0.15

# Embeddings are stored as float32, so nothing larger is one; it also keeps every formula finite in float64.
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).tiny)

# 256 KB of float32: the handful of temporaries of a kernel stay in the processor's cache.
BLOCK_ELEMENTS = 2**16
# That kernel sees to the cache itself, and has work to do for every block.
TASK2VEC_BLOCK_ELEMENTS = 2**21

Array = NDArray[Any]


@dataclass(frozen=True)
class Distance:
    """A way to compare two embeddings; it falls with likeness.

    Attributes:
        name: Key in ``DISTANCES``.
        summary: One line for help texts and docs.
        symmetric: Whether d(a, b) = d(b, a). Exactly these are also zero between an embedding and itself.
        bounds: Lowest and highest value it can take; for an asymmetric one at ``DEFAULT_ALPHA``.
        unit: Of the value.
        function: ``[B, D]`` and ``[T, D]``, both checked, to ``[B, T]``. For an asymmetric distance the
            symmetric term; ``pairwise`` subtracts the other one.
        block_elements: Numbers in the ``[B, D]`` that ``function`` is given at a time, about.
    """

    name: str
    summary: str
    symmetric: bool
    bounds: tuple[float, float]
    unit: str
    function: Kernel
    block_elements: int = BLOCK_ELEMENTS


def get_distance(name: str) -> Distance:
    """Return the distance of that name.

    Raises:
        NotFoundError: If there is none.
    """
    if name not in DISTANCES:
        raise NotFoundError("distance", name, DISTANCES)
    return DISTANCES[name]


def list_distances() -> list[Distance]:
    """All distances, in order of name."""
    return [DISTANCES[name] for name in sorted(DISTANCES)]


def pairwise(
    name: str,
    sources: ArrayLike,
    targets: ArrayLike,
    *,
    trivial: ArrayLike | None = None,
    alpha: float = DEFAULT_ALPHA,
    selection: ArrayLike | None = None,
    checked: bool = False,
    to_trivial: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Distance from every source to every target.

    An unknown name is a ``NotFoundError``. Works through blocks of sources, so memory stays at a few
    megabytes a core beside the answer, and takes every core where there is enough to do; the answer does not
    depend on their number. The two ``task2vec`` distances compute in float32 where both inputs are float32,
    as stored embeddings are, with an absolute error of about 1e-6; all else computes in float64.

    Args:
        name: Key in ``DISTANCES``.
        sources: ``[S, D]``, finite, non-negative; may be mapped from a file.
        targets: ``[T, D]``, finite, non-negative.
        trivial: ``[D]`` embedding of the trivial task t0; only asymmetric distances need it.
        alpha: Weight of the distance to the trivial task, non-negative; only asymmetric distances use it.
        selection: Positions of the sources that are meant, from 0; all if not given.
        checked: Whether ``checked_rows`` has seen these sources before. Looking at every number once more
            takes a third of the time of the distances.
        to_trivial: ``[S]`` from ``trivial_distances``, where a caller keeps them; half of the work of an
            asymmetric distance.

    Returns:
        ``[S, T]``, in the unit of the distance; row i is about ``sources[i]``, or ``sources[selection[i]]``.

    Raises:
        InvalidQueryError: If an input is not as told above, or the widths differ.

    Source:
        Achille et al., 2019, arXiv:1902.03545, asymmetric distance: d(a -> b) = d(a, b) - alpha d(a, t0).

    Example:
        >>> pairwise("task2vec", [[1.0, 2.0]], [[2.0, 4.0], [2.0, 1.0]]).round(6).tolist()
        [[0.0, 0.2]]
    """
    distance = get_distance(name)
    source_rows = np.asarray(sources) if checked else checked_rows("sources", sources)
    target_rows = checked_rows("targets", targets)
    _check_widths("targets", target_rows, source_rows)
    positions = None if selection is None else _checked_selection(selection, len(source_rows))

    def to(others: Array) -> NDArray[np.float64]:
        elements = distance.block_elements
        return in_blocks(distance.function, source_rows, others, block_elements=elements, selection=positions)

    if distance.symmetric:
        return to(target_rows)
    if not (math.isfinite(alpha) and alpha >= 0):
        raise InvalidQueryError(f"alpha must be a finite number of at least 0, got {alpha}")
    if trivial is None:
        raise InvalidQueryError(
            f"distance {name} needs the trivial embedding of the space; pass it as trivial, or use task2vec"
        )
    if to_trivial is not None:
        kept = np.asarray(to_trivial)[:, None]
        return to(target_rows) - alpha * (kept if positions is None else kept[positions])
    trivial_row = checked_rows("trivial", np.asarray(trivial)[None])
    _check_widths("trivial", trivial_row, source_rows)
    return to(target_rows) - alpha * to(trivial_row)


def trivial_distances(name: str, sources: Array, trivial: Array) -> NDArray[np.float64]:
    """Distance ``[S]`` of sources ``[S, D]``, which are not checked, to the trivial task ``[D]``.

    It is that of the symmetric term of an asymmetric distance; it depends on the source alone and can be kept.
    """
    distance = get_distance(name)
    return in_blocks(distance.function, sources, trivial[None], block_elements=distance.block_elements)[:, 0]


def _checked_selection(selection: ArrayLike, num_sources: int) -> NDArray[np.int64]:
    """Positions of sources.

    Raises:
        InvalidQueryError: If one is no whole number, or of no source.
    """
    positions = np.asarray(selection)
    whole = positions.ndim == 1 and (positions.dtype.kind in "iu" or positions.size == 0)
    if not whole or (positions.size and not 0 <= positions.min() <= positions.max() < num_sources):
        raise InvalidQueryError(
            f"selection must be positions of the {num_sources} sources, whole numbers from 0, one axis"
        )
    return positions.astype(np.int64)


def checked_rows(what: str, rows: ArrayLike) -> Array:
    """Return ``rows`` as a float array ``[N, D]`` of valid embeddings.

    Args:
        what: How the sentence of an error names the array.
        rows: ``[N, D]``; float32 is kept as it is, anything else becomes float64.

    Raises:
        InvalidQueryError: If it has not two axes, or a value is negative or does not fit a float32.
    """
    array = np.asarray(rows)
    if array.dtype != np.float32:
        array = array.astype(np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        shape = list(array.shape)
        raise InvalidQueryError(
            f"{what} must hold one embedding a row, as [N, D] with D at least 1; got shape {shape}"
        )
    with np.errstate(invalid="ignore"):
        # Comparisons with NaN are false, so two passes without a temporary find every kind of bad value.
        valid = array.size == 0 or (array.min() >= 0 and array.max() <= LARGEST)
    if not valid:
        row, column = np.argwhere(~((array >= 0) & (array <= LARGEST)))[0]
        raise InvalidQueryError(
            f"{what}: an embedding must be finite and non-negative, "
            f"but row {row} has {array[row, column]} at filter {column}"
        )
    return array


def _check_widths(what: str, rows: Array, sources: Array) -> None:
    if rows.shape[1] != sources.shape[1]:
        raise InvalidQueryError(
            f"{what} has {rows.shape[1]} filters but sources has {sources.shape[1]}: "
            "only embeddings of the same space can be compared"
        )


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


_INFINITE = (0.0, math.inf)

DISTANCES: dict[str, Distance] = {
    distance.name: distance
    for distance in (
        Distance("euclidean", "norm of the difference", True, _INFINITE, "of the embedding", euclidean),
        Distance("cosine", "one minus the cosine", True, (0, 1), "none", cosine),
        Distance(
            "correlation", "one minus the correlation of the variances", True, (0, 2), "none", correlation
        ),
        Distance("log_euclidean", "norm of the difference of logs", True, _INFINITE, "nats", log_euclidean),
        Distance("root_ratio", "mean squared relative difference of roots", True, (0, 1), "none", root_ratio),
        Distance(
            "jensen_shannon",
            "divergence from the mean Gaussian",
            True,
            _INFINITE,
            "nats per filter",
            jensen_shannon,
        ),
        Distance("kl", "larger Kullback-Leibler divergence, filter by filter", True, _INFINITE, "nats", kl),
        Distance(
            "entropy",
            "lack of doubt which task a filter serves",
            True,
            (0, math.log(2)),
            "nats per filter",
            entropy,
        ),
        Distance(
            "task2vec",
            "cosine distance of the two shares of each filter",
            True,
            (0, 1),
            "none",
            task2vec,
            TASK2VEC_BLOCK_ELEMENTS,
        ),
        Distance(
            "task2vec_asymmetric",
            "task2vec minus alpha times the source's distance to the trivial task",
            False,
            (-DEFAULT_ALPHA, 1),
            "none",
            task2vec,
            TASK2VEC_BLOCK_ELEMENTS,
        ),
    )
}
