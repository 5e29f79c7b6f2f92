"""What a task, a commit and a hand-out cost on this machine, measured for `scripts/bench/simulate_scale.py`."""

import json
import math
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from many_tasks import write_manifest
from numpy.typing import NDArray
from PIL import Image
from scale_simulation import Cluster, Run, simulate
from synthetic_tasks import SyntheticTasks

from registry import TaskRegistry
from registry.storage.store import Store
from registry.task_answers import AddedMany

CORES = len(os.sched_getaffinity(0))
FILLED = (500, 20_000)
"""Embeddings that a registry has while commits to it are timed."""

COMMITS = 7
Sizes = NDArray[np.int64]


@dataclass(frozen=True)
class Costs:
    """Seconds that things take; docs/scale.md says how the defaults were measured.

    Attributes:
        task: Of each task.
        sample: Of each sample that is used.
        file: Of each file that is listed.
        spread: Standard deviation of the logarithm of what a task takes beside that.
        start: Of a worker.
        hear: Of the driver, for each task.
        commit: Of a commit.
        commit_row: Of each embedding in it.
        commit_table: Of each embedding that is in the registry, in each commit.
    """

    task: float = 0.1
    sample: float = 0.011
    file: float = 8.5e-6
    spread: float = 0.2
    start: float = 6.0
    hear: float = 0.002
    commit: float = 0.114
    commit_row: float = 0.0003
    commit_table: float = 0.0

    def of(self, used: NDArray[np.float64], files: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
        """Seconds ``[N]`` of tasks with so many samples used, of so many files; they have this mean."""
        noise = np.random.default_rng([seed, 1]).normal(-(self.spread**2) / 2, self.spread, len(used))
        seconds = (self.task + self.sample * used + self.file * files) * np.exp(noise)
        return np.asarray(seconds, np.float64)

    def cluster(self, workers: int, **changes: float) -> Cluster:
        """Workers with these costs."""
        values = {
            name: getattr(self, name) for name in ("start", "hear", "commit", "commit_row", "commit_table")
        }
        return replace(Cluster(workers), **{**values, **changes})


def draw_sizes(law: str, count: int, median: float, shape: float, seed: int) -> NDArray[np.float64]:
    """Sizes ``[N]`` of datasets in samples, at least 2: log-normal of a deviation, or Pareto of an exponent.

    Raises:
        SystemExit: If there is no such law.
    """
    generator = np.random.default_rng([seed, 0])
    if law == "lognormal":
        sizes = median * np.exp(shape * generator.standard_normal(count))
    elif law == "pareto":
        sizes = median / 2 ** (1 / shape) * (1 + generator.pareto(shape, count))
    else:
        raise SystemExit(f"no law of sizes is named {law!r}; known are lognormal and pareto")
    return np.maximum(2.0, np.floor(sizes))


def write_skewed(folder: Path, sizes: Sizes, side: int, seed: int) -> Path:
    """Write tasks of two classes of noise, of so many images in all; the manifest that names them."""
    rows = []
    for number, size in enumerate(sizes.tolist()):
        name = f"task-{number:05d}"
        generator = np.random.default_rng([seed, number])
        for label, low in (("dark", 0), ("bright", 60)):
            place = folder / name / label
            place.mkdir(parents=True)
            for image in range(size // 2):
                pixels = generator.integers(low, 196 + low, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{image}.png", compress_level=1)
        rows.append((name, name))
    return write_manifest(folder / "tasks.csv", rows)


def small_sizes(count: int, seed: int) -> Sizes:
    """Sizes ``[N]`` for real runs: Pareto, 8 to 80 images, even numbers."""
    sizes = draw_sizes("pareto", count, 12, 1.2, seed)
    return (np.clip(sizes, 8, 80) // 2 * 2).astype(np.int64)


def run_for_real(folder: Path, manifest: Path, name: str, jobs: int) -> AddedMany:
    """Add the tasks of a manifest to a new registry, in processes."""
    registry = TaskRegistry(folder / name)
    registry.init(empty=True)
    return registry.add_many(manifest, engine="processes", jobs=jobs)


def fit_costs(sizes: Sizes, many: AddedMany, costs: Costs) -> Costs:
    """Costs of tasks from a run: the line through seconds by size, weighted by one over the seconds of each."""
    seconds = np.array([one.seconds for one in many.tasks])
    weights = 1 / seconds
    design = np.stack([np.ones(len(sizes)), sizes.astype(float)], axis=1)
    (task, sample), *_ = np.linalg.lstsq(design * weights[:, None], seconds * weights, rcond=None)
    task, sample = max(float(task), 0.0), max(float(sample), 0.0)
    ratios = seconds / (task + sample * sizes)
    scale = float(seconds.sum() / (task + sample * sizes).sum())  # so that the sum of all is met
    return replace(
        costs, task=task * scale, sample=sample * scale, file=0.0, spread=float(np.log(ratios).std())
    )


def measure_commits(folder: Path, seed: int) -> tuple[float, float, float]:
    """Seconds of a commit, of each row in it, and of each row that is there already."""
    tasks = SyntheticTasks(seed)
    store = Store.create(folder / "commits")
    store.add_space(tasks.space)
    found, filled = {}, 0
    for target in FILLED:
        for chunk in tasks.chunks(target - filled, filled):
            store.add_tasks(list(tasks.records(chunk)), tasks.space.space_id)
        filled = target
        for rows in (1, 64):
            seconds = []
            for number in range(COMMITS):
                entries = []
                for chunk in tasks.chunks(rows, 10**6 * (1 + number + 10 * rows + 1000 * len(found))):
                    entries += tasks.records(chunk)
                names = {task.name for task, _ in entries}
                start = time.perf_counter()
                with store.write_lock():
                    store.latest_tasks(names)
                    store.embedded_keys(tasks.space.space_id, names)
                    store.next_versions(names)
                    store.add_tasks(entries, tasks.space.space_id)
                seconds.append(time.perf_counter() - start)
            found[target, rows] = statistics.median(seconds)
    low, high = FILLED
    row = max(0.0, (found[low, 64] - found[low, 1]) / 63)
    table = max(0.0, (found[high, 64] - found[low, 64]) / (high - low))
    return max(0.0, found[low, 1] - row - table * low), row, table


def measure_hearing(folder: Path, count: int, jobs: int) -> float:
    """Seconds of handing out and hearing of a task, from tasks without data, which fail at once.

    The workers' share of it is not taken off, so it is rather too much.
    """
    few = write_manifest(
        folder / "few.csv", [(f"none-{number}", f"none/{number}") for number in range(2 * jobs)]
    )
    many = write_manifest(
        folder / "none.csv", [(f"none-{number}", f"none/{number}") for number in range(count)]
    )
    seconds = [run_for_real(folder, path, f"hear-{path.stem}", jobs).seconds for path in (few, many)]
    return max(0.0, (seconds[1] - seconds[0]) / (count - 2 * jobs))


def calibrate(folder: Path, *, count: int, side: int, jobs: int, seed: int) -> tuple[Costs, dict[str, float]]:
    """Measure all costs but that of listing files, which is part of the others here."""
    commit, row, table = measure_commits(folder, seed)
    hear = measure_hearing(folder, 40 * count, jobs)
    sizes = small_sizes(count, seed + 1)
    many = run_for_real(folder, write_skewed(folder / "fitted", sizes, side, seed + 1), "calibration", jobs)
    costs = fit_costs(
        sizes, many, Costs(start=0.0, hear=hear, commit=commit, commit_row=row, commit_table=table)
    )
    seconds = np.array([one.seconds for one in many.tasks])
    bare = simulate(seconds, costs.cluster(jobs), seed)
    costs = replace(costs, start=max(0.0, many.seconds - bare.seconds))
    bytes_per_task = sum(it.stat().st_size for it in (folder / "calibration").rglob("*") if it.is_file())
    return costs, {"calibration_seconds": many.seconds, "bytes_per_task_of_few": bytes_per_task / count}


def check(folder: Path, costs: Costs, *, count: int, side: int, jobs: int, seed: int) -> dict[str, float]:
    """Predict a run of other tasks, then make it.

    Raises:
        SystemExit: If a task was not added.
    """
    sizes = small_sizes(count, seed + 2)
    predicted: Run = simulate(costs.of(sizes.astype(float), np.zeros(count), seed), costs.cluster(jobs), seed)
    many = run_for_real(folder, write_skewed(folder / "checked", sizes, side, seed + 2), "check", jobs)
    if many.added != count:
        raise SystemExit(f"{count - many.added} of {count} tasks were not added: {many.failed} failed")
    known = simulate(np.array([one.seconds for one in many.tasks]), costs.cluster(jobs), seed)
    return {
        "tasks": count,
        "predicted_seconds": predicted.seconds,
        "measured_seconds": many.seconds,
        "error": predicted.seconds / many.seconds - 1,
        "with_known_costs_seconds": known.seconds,
        "with_known_costs_error": known.seconds / many.seconds - 1,
        "predicted_commits": predicted.commits,
        "measured_commits": many.commits,
        "load": os.getloadavg()[0],
    }


def save_costs(costs: Costs, path: Path) -> None:
    """Keep costs for later simulations."""
    path.write_text(json.dumps(asdict(costs), indent=1))


def load_costs(path: Path) -> Costs:
    """Costs that ``save_costs`` wrote.

    Raises:
        SystemExit: If the file holds none.
    """
    try:
        costs = Costs(**{name: float(value) for name, value in json.loads(path.read_text()).items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SystemExit(f"{path}: holds no costs as --save-costs writes them ({error})") from error
    if not all(math.isfinite(value) and value >= 0 for value in asdict(costs).values()):
        raise SystemExit(f"{path}: costs must be finite and at least 0")
    return costs
