"""Tasks by the million, drawn around the 31 real ones that ship: a smoothed bootstrap of log embeddings.

A registry of a million real tasks does not exist, so one is drawn that has what makes nearest neighbours hard
or easy in the real ones. With C the logs of the T real embeddings, each minus its own mean, a synthetic task is

    log h = scale + m + r (base - m) + w (a g (C - m) / sqrt(T - 1) + b t R) + e

- base: a real task, or, as often, a convex mix of two in log space: tasks lie in clumps and between them.
- W, the variance within a kind, is measured: half the mean square difference between a real task and its
  nearest real neighbour (0.79 per filter, of 1.95 in all). r = sqrt(1 - W/total) shrinks towards the mean m,
  so that the smoothing adds no spread (Silverman and Young, 1987, the smoothed bootstrap).
- A real task is not a linear mix of the others: on average 39% of its square lies outside the space of the
  other 30. So a part of W of that size is laid into new directions R, the rest (g, standard normal) into the
  directions of the real tasks, with their own covariance. R continues the real spectrum, which falls about as
  1/rank: 226 random directions from rank 31 on, louder in filters that vary more. Without them every synthetic
  task would lie in 30 dimensions, which any index finds easy.
- w: how unusual a task is for its kind, with mean square 1: that of a random real task, by the distance from
  its nearest neighbour. Without it no task has neighbours as near, or as far, as some real ones have.
- e: what measuring adds, normal with the stored standard error of each filter, relative to its value.
- scale: a common factor, with the spread of the real ones. A filter that is dead in the first parent is dead.

More filters than the probe has (``num_filters``) are copies of randomly chosen ones; new directions and errors
are drawn for each copy, so copies are alike, not the same.

Task number i of a seed is the same in whatever pieces it is drawn, as long as they start at multiples of
``CHUNK_ROWS``. Nothing larger than a chunk is ever held.

Axes: N tasks drawn, D filters, F features, T real tasks.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from registry.builtin.starter import Starter, load_starter
from registry.bundles.contents import described_id
from registry.distances import pairwise
from registry.distances.formulas import RELATIVE_EPSILON
from registry.records import EmbeddingRecord, SpaceRecord, TaskRecord

CHUNK_ROWS = 2000
NEW_DIRECTIONS = 226
MAX_RELATIVE_ERROR = 0.5  # a filter known no better than that would be pure noise in its log
SPREAD_OF_SAMPLES = 10_000  # num_samples is uniform up to here, so that a filter can pick one task in so many

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some tasks in a row.

    Attributes:
        first: Number of the first one.
        fisher: ``[N, D]`` float32.
        standard_error: ``[N, D]`` float32.
        domain: ``[N, F]`` float32.
        parents: ``[N]`` real task each is drawn around.
        num_samples: ``[N]`` uniform from 1 to ``SPREAD_OF_SAMPLES``.
    """

    first: int
    fisher: Array
    standard_error: Array
    domain: Array
    parents: Array
    num_samples: Array


class SyntheticTasks:
    """Draws tasks; deterministic in the seed, whatever is drawn before.

    Attributes:
        space: Of the tasks, with the trivial task of the real one.
    """

    def __init__(self, seed: int = 0, num_filters: int | None = None, starter: Starter | None = None) -> None:
        """Learn the spread of the real tasks.

        Args:
            seed: Of everything drawn.
            num_filters: D; that of the real tasks if ``None``.
            starter: The real tasks; of those that ship, the ones with images of their own if ``None``.
        """
        self._starter = starter or with_own_images(load_starter())
        self._seed = seed
        real = np.stack([it.fisher for it in self._starter.embeddings]).astype(np.float64)
        error = np.stack([it.standard_error for it in self._starter.embeddings]).astype(np.float64)
        logs = real_logs(real)
        generator = np.random.default_rng([seed, 0])
        dim = num_filters or real.shape[1]
        copied = np.arange(dim) if dim == real.shape[1] else generator.integers(real.shape[1], size=dim)
        variances, total, outside = within_variances(real, logs), total_variance(logs), outside_share(logs)
        within = float(variances.mean())
        self._unusual = np.sqrt(variances / within).astype(np.float32)
        mean, deviations = logs.mean(axis=0), logs - logs.mean(axis=0)
        known = np.sqrt((1 - outside) * within / total / (len(logs) - 1)) * deviations
        self._mean = mean[copied].astype(np.float32)
        self._bases = (np.sqrt(1 - within / total) * deviations)[:, copied].astype(np.float32)
        self._directions = np.concatenate(
            [known[:, copied], _new_directions(deviations[:, copied], outside * within, generator)]
        ).astype(np.float32)
        relative = np.divide(error, real, out=np.zeros_like(real), where=real > 0)
        self._errors = np.minimum(relative, MAX_RELATIVE_ERROR)[:, copied].astype(np.float32)
        self._alive = (real > 0)[:, copied]
        self._scales = np.log(np.where(real > 0, real, np.nan))
        self._scales = np.nanmean(self._scales, axis=1).astype(np.float32)
        self._domains = np.log(np.stack([it.domain for it in self._starter.embeddings]) + np.float32(1e-6))
        self.space = _space(self._starter.space, copied)

    @property
    def dim(self) -> int:
        """D."""
        return len(self._mean)

    def chunks(self, count: int, first: int = 0) -> Iterator[Chunk]:
        """Tasks ``first`` (a multiple of ``CHUNK_ROWS``) to ``first + count``, some at a time."""
        for start in range(first, first + count, CHUNK_ROWS):
            yield self._chunk(start, min(CHUNK_ROWS, first + count - start))

    def _chunk(self, first: int, count: int) -> Chunk:
        # A whole chunk is drawn always, so that a short one is the beginning of a long one.
        generator = np.random.default_rng([self._seed, 1, first // CHUNK_ROWS])
        parents = generator.integers(len(self._bases), size=CHUNK_ROWS)
        others = generator.integers(len(self._bases), size=CHUNK_ROWS)
        mixed = generator.random(CHUNK_ROWS) < 0.5
        weights = np.where(mixed, generator.uniform(0.5, 1, CHUNK_ROWS), 1).astype(np.float32)[:, None]
        samples = generator.integers(1, SPREAD_OF_SAMPLES + 1, size=CHUNK_ROWS)
        scale = generator.normal(self._scales.mean(), self._scales.std(), (CHUNK_ROWS, 1)).astype(np.float32)
        unusual = generator.choice(self._unusual, size=(CHUNK_ROWS, 1))
        loadings = generator.standard_normal((CHUNK_ROWS, len(self._directions)), dtype=np.float32)
        smooth = generator.standard_normal((CHUNK_ROWS, self._domains.shape[1]), dtype=np.float32)
        parents, others, weights, samples, scale = (
            drawn[:count] for drawn in (parents, others, weights, samples, scale)
        )
        logs = weights * self._bases[parents] + (1 - weights) * self._bases[others]
        logs += loadings[:count] * unusual[:count] @ self._directions
        logs += self._mean + scale
        noise = generator.standard_normal((count, self.dim), dtype=np.float32)
        noise *= self._errors[parents]
        logs += noise
        fisher = np.exp(logs, out=logs)
        fisher *= self._alive[parents]
        domains = weights * self._domains[parents] + (1 - weights) * self._domains[others]
        return Chunk(
            first,
            fisher,
            fisher * self._errors[parents],
            np.exp(domains + 0.1 * smooth[:count]),
            parents,
            samples,
        )

    def records(self, chunk: Chunk) -> list[tuple[TaskRecord, EmbeddingRecord]]:
        """What ``Store.add_tasks`` takes; tags and classes are those of the real task it is drawn around."""
        entries = []
        for row, parent in enumerate(chunk.parents.tolist()):
            name, task = task_name(chunk.first + row), self._starter.tasks[parent]
            known = self._starter.embeddings[parent]
            record = TaskRecord(
                name=name,
                version=1,
                data=f"/data/{name}",
                num_classes=task.num_classes,
                num_samples=int(chunk.num_samples[row]),
                class_names=task.class_names,
                fingerprint=f"synthetic-{self._seed}-{chunk.first + row}",
                settings=task.settings,
                tags=task.tags,
            )
            vectors = (chunk.fisher[row], chunk.standard_error[row], chunk.domain[row])
            measured = (known.num_samples_used, known.head_accuracy, known.head_loss, known.seed, known.seconds)
            entries.append((record, EmbeddingRecord(name, 1, *vectors, *measured)))
        return entries


def with_own_images(starter: Starter) -> Starter:
    """Without the tasks that are made of other tasks' images: these are nearer than tasks are."""
    pairs = zip(starter.tasks, starter.embeddings, strict=True)
    kept = [pair for pair in pairs if "relabelled" not in pair[0].tags]
    tasks, embeddings = zip(*kept, strict=True)
    return dataclasses.replace(starter, tasks=tasks, embeddings=embeddings)


def task_name(number: int) -> str:
    """Name of a synthetic task; names sort as their numbers."""
    return f"task{number:08}"


def write_table(tasks: SyntheticTasks, count: int, path: Path) -> Array:
    """Write the embeddings ``[N, D]`` to a ``.npy`` file, some at a time; returned mapped, read only."""
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, tasks.dim))
    for chunk in tasks.chunks(count):
        table[chunk.first : chunk.first + len(chunk.fisher)] = chunk.fisher
    table.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)


def nearest_distances(fisher: Array, queries: Array | None = None) -> dict[str, list[float]]:
    """Quantiles 0, .25, .5, .75, 1 of the ``task2vec`` distance from a task to its first and tenth neighbour.

    Args:
        fisher: ``[N, D]``, more than 10.
        queries: Rows that are asked for; all if ``None``.
    """
    rows = np.arange(len(fisher)) if queries is None else queries
    distances = pairwise("task2vec", fisher, fisher[rows]).T
    distances[np.arange(len(rows)), rows] = np.inf
    nearest = np.partition(distances, (0, 9), axis=1)
    return {
        name: np.quantile(nearest[:, rank], [0, 0.25, 0.5, 0.75, 1]).tolist()
        for name, rank in (("d_1", 0), ("d_10", 9))
    }


def real_logs(fisher: Array) -> Array:
    """Logs ``[T, D]`` of embeddings, each minus its own mean; dead filters at the floor of the distances."""
    logs = np.log(np.maximum(fisher, RELATIVE_EPSILON * fisher.mean(axis=1, keepdims=True)))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def total_variance(logs: Array) -> float:
    """Variance per filter of the real tasks around their mean."""
    return float(logs.var(axis=0, ddof=1).mean())


def within_variances(fisher: Array, logs: Array) -> Array:
    """Variance per filter of each real task and its nearest neighbour around their midpoint, ``[T]``."""
    distances = pairwise("task2vec", fisher, fisher)
    np.fill_diagonal(distances, np.inf)
    return np.asarray(np.square(logs - logs[distances.argmin(axis=1)]).mean(axis=1) / 2)


def outside_share(logs: Array) -> float:
    """Part of a real task's square, around the mean of the others, that no linear mix of the others has."""
    products = logs @ logs.T  # all that is needed of D, so that a process can start with it at little cost
    outside = whole = 0.0
    for left_out in range(len(logs)):
        others = np.flatnonzero(np.arange(len(logs)) != left_out)
        from_mean = np.eye(len(logs))
        from_mean[:, others] -= 1 / len(others)
        around = from_mean @ products @ from_mean.T
        with_others = around[others, left_out]
        # Deviations from a mean depend on each other, hence the pseudo-inverse.
        inverse = np.linalg.pinv(around[np.ix_(others, others)], rcond=1e-9, hermitian=True)
        outside += around[left_out, left_out] - with_others @ inverse @ with_others
        whole += around[left_out, left_out]
    return float(outside / whole)


def _new_directions(deviations: Array, variance: float, generator: np.random.Generator) -> Array:
    """Random directions ``[NEW_DIRECTIONS, D]`` with spread falling as 1/rank, in all ``variance``."""
    first = len(deviations)
    share = 1 / np.arange(first, first + NEW_DIRECTIONS)
    loudness = deviations.std(axis=0) / np.sqrt(deviations.var(axis=0).mean())
    directions = generator.standard_normal((NEW_DIRECTIONS, deviations.shape[1])) * loudness
    return np.sqrt(variance * share / share.sum())[:, None] * directions


def _space(real: SpaceRecord, copied: Array) -> SpaceRecord:
    """A space of its own, so that nobody takes synthetic tasks for tasks of the real probe."""
    description = json.dumps({**json.loads(real.description), "synthetic": len(copied)})
    return SpaceRecord(
        space_id=described_id(description),
        probe=real.probe,
        description=description,
        probe_source=real.probe_source,
        trivial=real.trivial[copied],
        domain_dim=real.domain_dim,
    )
