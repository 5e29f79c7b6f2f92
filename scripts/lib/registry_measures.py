"""What is measured of a registry, each in a process of its own: time, memory, recall.

Axes: N tasks, Q queries, K neighbours, D filters.
"""

import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_tasks import CHUNK_ROWS, SyntheticTasks, task_name

from registry import TaskRegistry
from registry.distances import DEFAULT_ALPHA, pairwise
from registry.index.vector_index import VectorIndex
from registry.storage.store import Store

K = 10
TIE = 2e-6  # the two task2vec distances are right to about 1e-6 in float32
BATCH_BYTES = 160 * 2**20
PART_ROWS = 20_000
FEWEST = 5  # measurements of a series, however long one takes
FOREIGN_WRITES = 5
PYTHON = sys.executable
T2V = str(Path(sys.executable).with_name("t2v"))

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Alone:
    """What came of a function in a fresh process, and the most memory that process held."""

    value: Any
    peak_bytes: int


@dataclass(frozen=True, eq=False)
class Series:
    """Seconds of each query ``[Q]``; numbers of the tasks found ``[Q, K]``, -1 where there were fewer."""

    seconds: Array
    found: Array


def run_alone(function: Callable[..., Any], *args: Any) -> Alone:
    """Call ``function(*args)``, all picklable, in a new process that inherits nothing."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, function, args).result()


def _with_peak(function: Callable[..., Any], args: tuple[Any, ...]) -> Alone:
    value = function(*args)
    return Alone(value, memory()["peak"])


def memory() -> dict[str, int]:
    """Bytes this process holds: at ``peak``; ``resident`` now, of that ``anonymous`` and mapped ``files``."""
    wanted = {"VmHWM": "peak", "VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "files"}
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {wanted[words[0][:-1]]: int(words[1]) * 1024 for words in lines if words and words[0][:-1] in wanted}


def folder_size(folder: Path) -> dict[str, int]:
    """Files below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def percentiles(seconds: Array) -> dict[str, float]:
    """Median and 99th percentile in milliseconds, and of how many."""
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return {"p50_ms": float(p50), "p99_ms": float(p99), "queries": len(seconds)}


def recall(distances: Array, kth: Array) -> float:
    """Part of the true K neighbours that was found; ties of the last one count as it.

    Args:
        distances: Exact distances ``[Q, K]`` of what was found, infinite where nothing was.
        kth: ``[Q]`` exact distance of the true K-th neighbour.
    """
    return float((distances <= kth[:, None] + TIE).mean())


# The truth


def kth_distances(path: Path, rows: Array, trivial: Array) -> dict[str, Array]:
    """Distance of the true K-th neighbour of some tasks, over the whole table, by distance: ``[Q]`` each.

    Args:
        path: Of the table ``[N, D]``.
        rows: ``[Q]`` the tasks that are asked for; a task is no neighbour of its own.
        trivial: ``[D]`` trivial task of the space.
    """
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    parts = [_nearest_of_part(table, rows, trivial, start) for start in range(0, len(table), PART_ROWS)]
    return {
        name: np.sort(np.concatenate([part[name] for part in parts], axis=1), axis=1)[:, K - 1]
        for name in parts[0]
    }


def _nearest_of_part(table: Array, rows: Array, trivial: Array, start: int) -> dict[str, Array]:
    """The K smallest distances ``[Q, K]`` to tasks of one part."""
    part = table[start : start + PART_ROWS]
    matrix = pairwise("task2vec", part, np.concatenate([table[rows], trivial[None]]))
    # The asymmetric distance by its definition; computing it anew would double the longest part.
    found = {"task2vec": matrix[:, :-1], "task2vec_asymmetric": matrix[:, :-1] - DEFAULT_ALPHA * matrix[:, -1:]}
    inside = np.flatnonzero((rows >= start) & (rows < start + len(part)))
    for distances in found.values():
        distances[rows[inside] - start, inside] = np.inf
    return {
        name: np.partition(distances, min(K, len(part)) - 1, axis=0)[:K].T for name, distances in found.items()
    }


def exact_distances(table: Array, rows: Array, found: Array, name: str, trivial: Array) -> Array:
    """Exact distances ``[Q, K]`` from what was found to the tasks asked for; infinite where it is -1."""
    distances = np.full(found.shape, np.inf)
    for query, numbers in enumerate(found):
        valid = numbers >= 0
        if valid.any():
            target = table[rows[query]][None]
            distances[query, valid] = pairwise(name, table[numbers[valid]], target, trivial=trivial)[:, 0]
    return distances


# Writing


def bulk_add(uri: str, seed: int, dim: int | None, count: int) -> dict[str, float]:
    """Fill a new registry; seconds without those that drawing the tasks takes."""
    tasks = SyntheticTasks(seed, dim)
    store, seconds = Store.create(uri), []
    store.add_space(tasks.space)
    batch = CHUNK_ROWS * max(1, BATCH_BYTES // (8 * tasks.dim * CHUNK_ROWS))
    for first in range(0, count, batch):
        chunks = tasks.chunks(min(batch, count - first), first)
        entries = [entry for chunk in chunks for entry in tasks.records(chunk)]
        start = time.perf_counter()
        store.add_tasks(entries, tasks.space.space_id)
        seconds.append(time.perf_counter() - start)
    return {"seconds": sum(seconds), "tasks_per_second": count / sum(seconds), "batches": len(seconds)}


def single_adds(
    uri: str, seed: int, dim: int | None, first: int, count: int, budget: float
) -> dict[str, float]:
    """Add tasks one by one, for at most ``budget`` seconds, to a registry that is created if there is none."""
    tasks = SyntheticTasks(seed, dim)
    store, seconds = Store.create(uri), []
    store.add_space(tasks.space)
    for chunk in tasks.chunks(count, first):
        for task, embedding in tasks.records(chunk):
            start = time.perf_counter()
            store.add_task(task, tasks.space.space_id, embedding)
            seconds.append(time.perf_counter() - start)
            if sum(seconds) > budget and len(seconds) >= FEWEST:
                return _rate(seconds)
    return _rate(seconds)


def _rate(seconds: list[float]) -> dict[str, float]:
    return {"adds": len(seconds), "adds_per_second": len(seconds) / sum(seconds)} | {
        name: value for name, value in percentiles(np.array(seconds)).items() if name != "queries"
    }


def optimised_copy(source: Path, target: Path) -> float:
    """Copy a registry and optimise the copy; seconds of that."""
    shutil.copytree(source, target)
    start = time.perf_counter()
    Store(target).optimize()
    return time.perf_counter() - start


def index_costs(path: Path, file: Path) -> dict[str, float]:
    """Seconds to build the FAISS index of a table, to write it to a file and to read it back."""
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    times = [time.perf_counter()]
    index = VectorIndex.build(table)
    times.append(time.perf_counter())
    file.write_bytes(index.to_bytes())
    times.append(time.perf_counter())
    VectorIndex.from_bytes(file.read_bytes())
    times.append(time.perf_counter())
    steps = zip(("build_seconds", "save_seconds", "load_seconds"), np.diff(times).tolist(), strict=True)
    return dict(steps) | {"bytes": file.stat().st_size}


# Asking


def first_question(uri: str, name: str) -> dict[str, float]:
    """Seconds to open a registry and answer one question, all modules imported before."""
    return {"seconds": _open(uri, name)[1]}


def _open(uri: str, name: str) -> tuple[TaskRegistry, float]:
    start = time.perf_counter()
    registry = TaskRegistry(uri)
    registry.nearest(name, k=K)
    return registry, time.perf_counter() - start


def timed(answer: Callable[[int], Sequence[int]], count: int, budget: float) -> Series:
    """Ask up to ``count`` queries, at least ``FEWEST`` of them and then for at most ``budget`` seconds."""
    seconds: list[float] = []
    found = np.full((count, K), -1)
    for query in range(count):
        start = time.perf_counter()
        numbers = answer(query)
        seconds.append(time.perf_counter() - start)
        found[query, : len(numbers)] = numbers
        if sum(seconds) > budget and len(seconds) >= FEWEST:
            break
    return Series(np.array(seconds), found[: len(seconds)])


def ask_warm(uri: str, names: list[str], wheres: dict[str, str], write: tuple[Any, ...], budget: float) -> dict:
    """Everything that one process sees that opens a registry and asks.

    Args:
        uri: Of the registry.
        names: Of the Q tasks asked for.
        wheres: Filters by what they are called.
        write: Seed, D and first number of tasks that another process adds in the end.
        budget: Most seconds of a series.
    """
    imported = memory()
    registry, _ = _open(uri, names[0])

    def ask(query: int, **options: Any) -> list[int]:
        _, neighbors = registry.nearest(names[query], k=K, **options)
        return [int(neighbor.task.removeprefix("task")) for neighbor in neighbors]

    results: dict[str, Any] = {"imported": imported, "opened": memory()}
    results["first time"] = timed(ask, len(names), budget)
    results["task2vec"] = timed(ask, len(names), budget)
    results["asked"] = memory()
    results["task2vec_asymmetric"] = timed(partial(ask, distance="task2vec_asymmetric"), len(names), budget)
    for title, where in wheres.items():
        ask(0, where=where)
        results[title] = timed(partial(ask, where=where), len(names), budget)
    results["after write"] = _after_foreign_writes(ask, uri, *write)
    return results


def _after_foreign_writes(
    ask: Callable[[int], list[int]], uri: str, seed: int, dim: int | None, first: int
) -> Array:
    """Seconds of the first query after another process added a task, some times over."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_add_when_told, args=(there, uri, seed, dim, first))
    process.start()
    seconds = []
    for query in range(FOREIGN_WRITES):
        here.send(query)
        here.recv()
        start = time.perf_counter()
        ask(query % 2)
        seconds.append(time.perf_counter() - start)
    process.join()
    return np.array(seconds)


def _add_when_told(connection: Connection, uri: str, seed: int, dim: int | None, first: int) -> None:
    tasks = SyntheticTasks(seed, dim)
    for task, embedding in tasks.records(next(tasks.chunks(FOREIGN_WRITES, first))):
        connection.recv()
        Store(uri).add_task(task, tasks.space.space_id, embedding)
        connection.send(task.name)


def cold_ratio(uri: str, number: int, repeats: int) -> dict[str, float]:
    """Median seconds of ``t2v nearest NAME`` and of importing LanceDB, processes in turn; and their ratio."""
    commands = {
        "t2v_seconds": [T2V, "--registry", uri, "nearest", task_name(number)],
        "import_seconds": [PYTHON, "-c", "import lancedb"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    warm_up = min(1, repeats - 1)  # brings files into the page cache
    for _ in range(warm_up + repeats):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values[warm_up:])) for name, values in seconds.items()}
    return medians | {"ratio": medians["t2v_seconds"] / medians["import_seconds"]}
