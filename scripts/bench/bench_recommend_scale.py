"""How long a recommendation takes in a large registry: the first of a process, and warm, when fits are kept.

    python scripts/bench/bench_recommend_scale.py [--tasks 1000] [--experts 300] [--results 10000] [--json FILE]

Tasks are drawn around the real ones as ``synthetic_tasks.py`` says, results at random. The peer is the fit of
the model alone, which a recommendation would take each time if it were not kept.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from machine import print_machine, save_figures
from synthetic_tasks import SyntheticTasks

from registry import TaskRegistry
from registry.recommend import prior
from registry.records import ExpertRecord, ResultRecord
from registry.storage.store import Store

REPEATS = 7


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of everything.")
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
    with tempfile.TemporaryDirectory() as folder:
        name, other = build(folder, seed, num_tasks, num_experts, num_results)
        registry = TaskRegistry(folder)
        figures = {"first": timed(lambda: registry.recommend(name), 1)}
        figures["warm"] = timed(lambda: registry.recommend(name), REPEATS)

        def fit_again() -> None:
            prior.forget()
            registry.recommend(name)

        figures["warm, fit not kept"] = timed(fit_again, 3)
        registry.add_result(other, "expert0000.synthetic", accuracy=0.5, protocol="synthetic")
        figures["after a result elsewhere"] = timed(lambda: registry.recommend(name), 1)
    print(f"{num_tasks} tasks, {num_experts} experts, {num_results} results; seconds, medians")
    for title, seconds in figures.items():
        print(f"{title:28}{seconds:8.3f}")
    save_figures(json_path, {"machine": about, "seed": seed, "seconds": figures})


def build(folder: str, seed: int, num_tasks: int, num_experts: int, num_results: int) -> tuple[str, str]:
    """Fill a registry; returns the names of two tasks that have results."""
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
    first, second = (cells[:2] // num_experts).tolist()
    return records[first][0].name, records[second][0].name


def timed(ask: Callable[[], object], repeats: int) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
