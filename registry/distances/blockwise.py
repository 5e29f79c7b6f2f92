"""Compare many rows with a few: block by block, so that temporaries stay small, on every core where it pays.

Axes: S rows, T others, B rows of one block, D numbers of a row.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kernel = Callable[[Array, Array], Array]

# Numbers read, counted once for every other row, that take long enough (2 ms or more) to be worth a thread.
ELEMENTS_PER_THREAD = 2**20


def in_blocks(
    kernel: Kernel, rows: Array, others: Array, *, block_elements: int, selection: Array | None = None
) -> NDArray[np.float64]:
    """Apply a symmetric kernel to a block of rows of the longer side at a time.

    Where the blocks begin depends on the shapes only, so the answer is the same on any number of threads.

    Args:
        kernel: ``[B, D]`` and ``[T, D]`` to ``[B, T]``, each row by itself; safe on several threads.
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
        return in_blocks(kernel, others, chosen, block_elements=block_elements).T
    found = np.empty((num_rows, len(others)))
    size = max(1, block_elements // rows.shape[1])
    # All workers draw from one iterator, so a core that is busy with something else draws less.
    starts = iter(range(0, num_rows, size))

    def work() -> None:
        for start, block in _blocks(rows, selection, starts, size):
            found[start : start + size] = kernel(block, others)

    num_threads = _num_threads(found.size * rows.shape[1], -(-num_rows // size))
    if num_threads > 1:
        pool = _helpers(os.getpid(), num_threads - 1)
        others_at_work = [pool.submit(work) for _ in range(num_threads - 1)]
        work()
        for other in others_at_work:
            other.result()
    else:
        work()
    return found


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
