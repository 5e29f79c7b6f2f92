"""Other ways to find the nearest tasks: numpy over the whole table, and LanceDB's own vector indexes.

LanceDB searches what our index searches: log embeddings, each minus its own mean, projected to 64 principal
directions; and, where asked, the logs themselves under the cosine distance. Its shortlist is then compared by
the exact distance, as ours is. How much effort it has to spend for the recall that is wanted is swept.

Axes: N tasks, Q queries, K neighbours, D filters, P principal directions.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("LANCE_LOG", "error")

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import HnswSq, IvfPq, IvfRq, IvfSq
from registry_measures import K, Series, exact_distances, folder_size, percentiles, recall, timed

from registry.distances import pairwise
from registry.index.vector_index import LOG_FLOOR, NUM_COMPONENTS

FIT_ROWS = 4096
CHUNK_ROWS = 4096
SHORTLISTS = (30, 100, 300, 1000, 3000)
SCANNED_QUERIES = 40  # that show whether an effort can reach the recall at all
PROBED_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of the partitions
HNSW = "IVF_HNSW_SQ"
ROWS_PER_PARTITION = 256  # LanceDB trains no more partitions than that

Array = np.ndarray[Any, Any]
Vectorise = Callable[[Array], Array]


@dataclass(frozen=True)
class Setting:
    """How hard LanceDB looks, and how many of what it finds are compared exactly."""

    shortlist: int
    nprobes: int | None = None
    ef_factor: float | None = None
    refine: int | None = None

    def search(self, table: Any, vector: Array, metric: str) -> Array:
        """Rows found, likely nearest first."""
        query = table.search(vector).distance_type(metric).limit(self.shortlist)
        query = query.nprobes(self.nprobes) if self.nprobes else query
        query = query.ef(int(self.ef_factor * self.shortlist)) if self.ef_factor else query
        query = query.refine_factor(self.refine) if self.refine else query
        return np.asarray(query.select(["id", "_distance"]).to_arrow()["id"].to_numpy())


@dataclass(frozen=True)
class Contest:
    """What a peer is asked.

    Attributes:
        path: Of the table ``[N, D]``.
        rows: ``[Q]`` tasks asked for.
        kth: ``[Q]`` distance of their true K-th neighbour.
        wanted: Recall to be reached.
        budget: Most seconds of a series of queries.
    """

    path: Path
    rows: Array
    kth: Array
    wanted: float
    budget: float

    @property
    def table(self) -> Array:
        """``[N, D]``, mapped."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def judge(self, series: Series) -> dict[str, float]:
        """Latency and recall of some of the queries."""
        count = len(series.found)
        distances = exact_distances(self.table, self.rows[:count], series.found, "task2vec", self.table[0])
        return percentiles(series.seconds) | {"recall": recall(distances, self.kth[:count])}


def brute_force(contest: Contest) -> dict[str, float]:
    """The exact distance to every task."""
    table = contest.table

    def answer(query: int) -> Array:
        return closest(table, None, contest.rows[query])

    answer(0)
    return contest.judge(timed(answer, len(contest.rows), contest.budget))


def closest(table: Array, candidates: Array | None, row: int) -> Array:
    """Up to K candidates, all rows if ``None``, nearest to a row by the exact distance; never itself."""
    others = None if candidates is None else candidates[candidates != row]
    distances = pairwise("task2vec", table, table[row][None], selection=others, checked=True)[:, 0]
    if others is None:
        distances[row] = np.inf
    few = np.argpartition(distances, K - 1)[:K] if len(distances) > K else np.arange(len(distances))
    few = few[np.argsort(distances[few])]
    return few if others is None else np.asarray(others[few])


def centred_logs(rows: Array) -> Array:
    """Log embeddings ``[N, D]`` minus each task's own mean log, with the floor of our index."""
    rows = np.asarray(rows, dtype=np.float32)
    logs = np.log(rows + np.float32(LOG_FLOOR) * rows.mean(axis=1, keepdims=True))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def fit_projection(table: Array) -> Vectorise:
    """A function from embeddings ``[N, D]`` to the first P principal directions of their logs, ``[N, P]``."""
    sample = np.sort(np.random.default_rng(0).permutation(len(table))[:FIT_ROWS])
    logs = centred_logs(table[sample])
    mean = logs.mean(axis=0)
    directions = np.linalg.svd(logs - mean, full_matrices=False)[2][:NUM_COMPONENTS]
    return lambda rows: (centred_logs(rows) - mean) @ directions.T


def _batches(table: Array, vectorise: Vectorise, width: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(table), CHUNK_ROWS):
        vectors = np.ascontiguousarray(vectorise(table[start : start + CHUNK_ROWS]), dtype=np.float32)
        columns = [
            pa.array(np.arange(start, start + len(vectors))),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        ]
        yield pa.RecordBatch.from_arrays(columns, names=["id", "vector"])


def list_indexes(count: int) -> dict[str, tuple[Any, list[dict[str, Any]]]]:
    """LanceDB's indexes by name: how each is built, and the efforts that are tried."""
    partitions = max(1, min(math.isqrt(count), count // ROWS_PER_PARTITION))
    probes = sorted({max(1, round(share * partitions)) for share in PROBED_SHARES})
    plain = [{"nprobes": number} for number in probes]
    refined = [{"nprobes": number, "refine": 4} for number in probes]
    return {
        "IVF_SQ": (IvfSq(distance_type="l2", num_partitions=partitions), plain),
        "IVF_PQ": (
            IvfPq(distance_type="l2", num_partitions=partitions, num_sub_vectors=NUM_COMPONENTS // 4),
            plain + refined,
        ),
        "IVF_RQ": (IvfRq(distance_type="l2", num_partitions=partitions), plain + refined),
        HNSW: (HnswSq(distance_type="l2"), [{"ef_factor": factor} for factor in (1.0, 2.0)]),
    }


def lance_projected(contest: Contest, folder: Path, name: str) -> dict[str, Any]:
    """One of LanceDB's indexes on the projected logs."""
    index, efforts = list_indexes(len(contest.table))[name]
    vectorise = fit_projection(contest.table)
    return _measure(contest, folder, index, efforts, vectorise, NUM_COMPONENTS, "l2")


def lance_raw(contest: Contest, folder: Path) -> dict[str, Any]:
    """IVF_PQ, LanceDB's default, on the logs themselves under the cosine distance."""
    dim, count = contest.table.shape[1], len(contest.table)
    partitions = max(1, min(math.isqrt(count), count // ROWS_PER_PARTITION))
    index = IvfPq(distance_type="cosine", num_partitions=partitions, num_sub_vectors=dim // 16)
    probes = sorted({max(1, round(share * partitions)) for share in PROBED_SHARES})
    return _measure(
        contest, folder, index, [{"nprobes": number} for number in probes], centred_logs, dim, "cosine"
    )


def _measure(
    contest: Contest,
    folder: Path,
    index: Any,
    efforts: list[dict[str, Any]],
    vectorise: Vectorise,
    width: int,
    metric: str,
) -> dict[str, Any]:
    """Build a table and its index, and ask it."""
    schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), width))])
    start = time.perf_counter()
    table = lancedb.connect(folder).create_table(
        "vectors", data=_batches(contest.table, vectorise, width), schema=schema
    )
    added = time.perf_counter()
    table.create_index("vector", config=index)
    built = {"add_seconds": added - start, "build_seconds": time.perf_counter() - added}
    return built | folder_size(folder) | _best(contest, table, efforts, vectorise, metric)


def _best(
    contest: Contest, lance: Any, efforts: list[dict[str, Any]], vectorise: Vectorise, metric: str
) -> dict[str, Any]:
    """The fastest setting that reaches the recall that is wanted, else the one that finds most."""
    table = contest.table

    def ask(setting: Setting, count: int) -> dict[str, Any]:
        def answer(query: int) -> Array:
            row = contest.rows[query]
            vector = vectorise(table[row][None])[0]
            return closest(table, setting.search(lance, vector, metric), row)

        answer(0)
        return contest.judge(timed(answer, count, contest.budget)) | {"setting": describe(setting)}

    everyone, few = len(contest.rows), min(SCANNED_QUERIES, len(contest.rows))
    most = min(SHORTLISTS[-1], len(table))
    reached: list[dict[str, Any]] = []
    failed: list[tuple[float, Setting]] = []
    for effort in efforts:
        found = ask(Setting(most, **effort), few)["recall"]
        if found < contest.wanted:
            failed.append((found, Setting(most, **effort)))
            continue
        for shortlist in (*(size for size in SHORTLISTS if size < most), most):
            figures = ask(Setting(shortlist, **effort), everyone)
            if figures["recall"] >= contest.wanted:
                reached.append(figures)
                break
        else:
            failed.append((figures["recall"], Setting(most, **effort)))
    if reached:
        return min(reached, key=lambda figures: figures["p50_ms"]) | {"reached": True}
    _, setting = max(failed, key=lambda it: it[0])
    return ask(setting, everyone) | {"reached": False}


def describe(setting: Setting) -> str:
    """A setting in a few words."""
    parts = {"nprobes": setting.nprobes, "ef/shortlist": setting.ef_factor, "refine": setting.refine}
    chosen = [f"{name} {value:g}" for name, value in parts.items() if value]
    return ", ".join([f"shortlist {setting.shortlist}", *chosen])
