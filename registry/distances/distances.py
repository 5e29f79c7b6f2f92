"""The distances by name, and how many rows are compared: block by block, on every core where it pays.

Axes: S source tasks, T target tasks, B sources of one block, D filters of the probe.
"""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.distances.formulas import (
    correlation,
    cosine,
    entropy,
    euclidean,
    jensen_shannon,
    kl,
    log_euclidean,
    root_ratio,
    task2vec,
)
from registry.errors import InvalidQueryError, NotFoundError

DEFAULT_ALPHA = 0.15

# Embeddings are stored as float32, so nothing larger is one; it also keeps every formula finite in float64.
LARGEST = float(np.finfo(np.float32).max)

# 256 KB of float32: the handful of temporaries of a formula stay in the processor's cache.
BLOCK_ELEMENTS = 2**16
# The task2vec distance has one temporary, and every call that is shorter lets threads wait for each other.
TASK2VEC_BLOCK_ELEMENTS = 2**18
# Numbers read, counted once for every target, that take long enough (2 ms or more) to be worth a thread.
ELEMENTS_PER_THREAD = 2**20

Array = NDArray[Any]
Formula = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Distance:
    """A way to compare two embeddings; it falls with likeness.

    Attributes:
        symmetric: Whether d(a, b) = d(b, a). Exactly these are also zero between an embedding and itself.
        bounds: Lowest and highest value it can take; for an asymmetric one at ``DEFAULT_ALPHA``.
        function: ``[B, D]`` and ``[T, D]``, both checked, to ``[B, T]``. For an asymmetric distance the
            symmetric term; ``pairwise`` subtracts the other one.
        block_elements: Numbers in the ``[B, D]`` that ``function`` is given at a time, about.
    """

    name: str
    summary: str
    symmetric: bool
    bounds: tuple[float, float]
    unit: str
    function: Formula
    block_elements: int = BLOCK_ELEMENTS


def get_distance(name: str) -> Distance:
    """Return the distance of that name; ``NotFoundError`` if there is none."""
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
        to_trivial: ``[S]`` from ``symmetric_distances``, where a caller keeps them; half of the work of an
            asymmetric distance.

    Returns:
        ``[S, T]``, in the unit of the distance; row i is about ``sources[i]``, or ``sources[selection[i]]``.

    Raises:
        InvalidQueryError: If an input is not as described above, or the widths differ.

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
    trivial_row = check_trivial(name, trivial, alpha, source_rows)[None]
    if to_trivial is not None:
        kept = np.asarray(to_trivial)[:, None]
        return to(target_rows) - alpha * (kept if positions is None else kept[positions])
    return to(target_rows) - alpha * to(trivial_row)


def check_trivial(name: str, trivial: ArrayLike | None, alpha: float, sources: Array) -> Array:
    """Check what an asymmetric distance subtracts.

    Raises:
        InvalidQueryError: If alpha is no such number, or there is no trivial embedding as wide as the sources.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise InvalidQueryError(f"alpha must be a finite number of at least 0, got {alpha}")
    if trivial is None:
        raise InvalidQueryError(
            f"distance {name} needs the trivial embedding of the space; pass it as trivial, or use task2vec"
        )
    row = checked_rows("trivial", np.asarray(trivial)[None])
    _check_widths("trivial", row, sources)
    return np.asarray(row[0])


def symmetric_distances(name: str, sources: Array, target: Array) -> NDArray[np.float64]:
    """The symmetric term of a distance, of sources ``[S, D]``, which are not checked, to a target ``[D]``.

    Each depends on its source and the target alone, and can be kept.
    """
    distance, target_row = get_distance(name), checked_rows("targets", target[None])
    _check_widths("targets", target_row, sources)
    return in_blocks(distance.function, sources, target_row, block_elements=distance.block_elements)[:, 0]


def _checked_selection(selection: ArrayLike, num_sources: int) -> NDArray[np.int64]:
    """Positions of sources; ``InvalidQueryError`` if one is no whole number, or of no source."""
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


def in_blocks(
    formula: Formula, rows: Array, others: Array, *, block_elements: int, selection: Array | None = None
) -> NDArray[np.float64]:
    """Apply a symmetric formula to a block of rows of the longer side at a time.

    Where the blocks begin depends on the shapes only, so the answer is the same on any number of threads.

    Args:
        formula: ``[B, D]`` and ``[T, D]`` to ``[B, T]``, each row by itself; safe on several threads.
        rows: ``[S, D]``; may be mapped from a file.
        others: ``[T, D]``.
        block_elements: Numbers in a block of rows, about.
        selection: Positions of the rows to compare, in place of all; copied a block at a time.

    Returns:
        ``[S, T]``, or a row for each position.
    """
    num_rows = len(rows) if selection is None else len(selection)
    if len(others) > num_rows:
        chosen = rows if selection is None else rows[selection]
        return in_blocks(formula, others, chosen, block_elements=block_elements).T
    distances = np.empty((num_rows, len(others)))
    size = max(1, block_elements // rows.shape[1])
    # All workers draw from one iterator, so a core that is busy with something else draws less.
    starts = iter(range(0, num_rows, size))

    def work() -> None:
        for start, block in _blocks(rows, selection, starts, size):
            distances[start : start + size] = formula(block, others)

    num_threads = _num_threads(distances.size * rows.shape[1], -(-num_rows // size))
    if num_threads > 1:
        pool = _helpers(os.getpid(), num_threads - 1)
        others_at_work = [pool.submit(work) for _ in range(num_threads - 1)]
        work()
        for other in others_at_work:
            other.result()
    else:
        work()
    return distances


def _blocks(
    rows: Array, selection: Array | None, starts: Iterator[int], size: int
) -> Iterator[tuple[int, Array]]:
    """The block at each start; the next one may take the place of the last in memory."""
    if selection is None:
        for start in starts:
            yield start, rows[start : start + size]
        return
    buffer = np.empty((min(size, len(selection)), rows.shape[1]), rows.dtype)
    for start in starts:
        positions = selection[start : start + size]
        # The mode is there because numpy makes a copy more where it has to raise half way.
        yield start, rows.take(positions, axis=0, out=buffer[: len(positions)], mode="clip")


@cache
def _helpers(process: int, count: int) -> ThreadPoolExecutor:
    """Threads beside the one that asks, kept with the memory they work in; a forked process has none yet."""
    return ThreadPoolExecutor(count, f"blocks-{process}")


def _num_threads(num_elements: int, num_blocks: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, num_blocks, num_elements // ELEMENTS_PER_THREAD)


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
