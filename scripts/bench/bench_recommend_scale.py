"""How long a recommendation takes: warm, and in a fresh process.

    python scripts/bench/bench_recommend_scale.py [--quick] [--json FILE] [--seed 0]

Two registries. The catalogue: starter content, the published results that ship, and every network that timm
and torchvision list, as ``t2v expert import`` adds them (without timm installed, torchvision's only). The
large one: 1,000 tasks drawn around the real ones, 300 experts and 10,000 results at random. Warm is the next
answer of a process that keeps what it fitted; its peers are the answer about another task and that after a new
result, for which all is fitted anew, and the cold one of a fresh process, imports and all. Processor seconds,
user and system together, say what it takes where other work runs on the machine.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from machine import print_machine, save_figures
from synthetic_tasks import SyntheticTasks

from registry import TaskRegistry
from registry.records import ExpertRecord, ResultRecord
from registry.storage.store import Store

REPEATS = 7
COLD = "import sys; from registry import TaskRegistry; TaskRegistry(sys.argv[1]).recommend(sys.argv[2])"


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of the large registry, and torchvision's networks only.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True)
@click.option("--tasks", "num_tasks", default=1000, show_default=True)
@click.option("--experts", "num_experts", default=300, show_default=True)
@click.option("--results", "num_results", default=10_000, show_default=True)
def main(
    quick: bool, json_path: Path | None, seed: int, num_tasks: int, num_experts: int, num_results: int
) -> None:
    """Print the seconds that ``TaskRegistry.recommend`` of a registered task takes."""
    about = print_machine()
    if quick:
        num_tasks, num_experts, num_results = num_tasks // 10, num_experts // 10, num_results // 10
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        registry = TaskRegistry(folder)
        registry.init()
        for library in ("torchvision",) if quick else ("torchvision", "timm"):
            if importlib.util.find_spec(library):
                registry.import_experts(library)
            else:
                print(f"{library} is not installed: its networks are skipped")
        figures[f"catalogue of {len(registry.experts())} experts"] = measure(folder, "cifar10")
    with tempfile.TemporaryDirectory() as folder:
        name = build(folder, seed, num_tasks, num_experts, num_results)
        title = f"{num_tasks} tasks, {num_experts} experts, {num_results} results"
        figures[title] = measure(folder, name)
    for title, seconds in figures.items():
        print(f"\n{title}; medians of seconds and of processor seconds")
        for way, (passed, processor) in seconds.items():
            print(f"{way:28}{passed:8.2f}{processor:8.2f}")
    save_figures(json_path, {"machine": about, "seed": seed, "seconds": figures})


def measure(folder: str, name: str) -> dict[str, list[float]]:
    """Seconds and processor seconds of recommendations of a task, by how they are asked for."""
    registry = TaskRegistry(folder)
    expert = next(row.expert for row in registry.results(task=name))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", COLD, folder, name]
    registry.recommend(name)
    warm = timed(lambda: registry.recommend(name), REPEATS)
    others = iter(sorted({row.task for row in registry.results(expert=expert)} - {name}))
    another = timed(lambda: registry.recommend(next(others)), 3)
    anew = []
    for seed in range(3):
        registry.add_result(
            name, expert, accuracy=0.5 + seed / 10, protocol="linear_probe_20shot", seed=100 + seed
        )
        anew.append(timed(lambda: registry.recommend(name), 1))
    cold = timed(lambda: subprocess.run(command, env=environment, check=True), 3)
    return {
        "warm": warm,
        "another task": another,
        "after a new result": np.median(anew, axis=0).tolist(),
        "cold, a fresh process": cold,
    }


def build(folder: str, seed: int, num_tasks: int, num_experts: int, num_results: int) -> str:
    """Fill a registry; returns the name of a task that has results."""
    drawn = SyntheticTasks(seed)
    store = Store.create(Path(folder))
    store.add_space(drawn.space)
    chunk = next(iter(drawn.chunks(num_tasks)))
    records = drawn.records(chunk)[:num_tasks]
    store.add_tasks(records, drawn.space.space_id)
    experts = [
        ExpertRecord(f"expert{i:04}.synthetic", f"expert{i:04}.synthetic", num_params=10**6 + i)
        for i in range(num_experts)
    ]
    store.add_experts(experts)
    generator = np.random.default_rng(seed)
    cells = generator.choice(num_tasks * num_experts, num_results, replace=False)
    store.add_results(
        [
            ResultRecord(
                records[cell // num_experts][0].name,
                experts[cell % num_experts].name,
                float(generator.uniform(0.3, 0.9)),
                protocol="synthetic",
            )
            for cell in cells.tolist()
        ]
    )
    return str(records[int(cells[0]) // num_experts][0].name)


def timed(ask: Callable[[], object], repeats: int) -> list[float]:
    """Median seconds, and median processor seconds, those of processes it started too."""
    seconds = []
    for _ in range(repeats):
        start, begun = time.perf_counter(), sum(os.times()[:4])
        ask()
        seconds.append((time.perf_counter() - start, sum(os.times()[:4]) - begun))
    return np.median(seconds, axis=0).tolist()


if __name__ == "__main__":
    main()
