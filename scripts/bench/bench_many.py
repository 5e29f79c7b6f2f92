"""Adding many tasks by each engine: the same embeddings, how much faster than serial, what is left over.

    python scripts/bench/bench_many.py --tasks 500
    python scripts/bench/bench_many.py --tasks 500 --data ../shared/data
    python scripts/bench/bench_many.py --only many --many 10000

Tasks are two classes of noise made here or, with `--data`, subsets of classes of real image folders. In each
round every engine adds the same tasks to a registry of its own, in a fresh process: `serial`; `processes` with
as many jobs as cores; `ray` on this machine; `ray` on a cluster of two nodes of one core each over loopback.
Seconds are those of embedding and writing, with the start of workers; speed-ups are over serial in the same
round, and divided by the cores. The peer is the best that this machine gives at that moment: as many serial
commands at once as there are cores, each with its share of the tasks. Embeddings are compared byte by byte.

`--many N` adds N tiny tasks in processes, then opens the registry and asks in fresh processes, in turn with a
freshly optimised copy.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import print_machine, save_figures
from many_tasks import make_subsets, make_tasks, write_manifest
from ray_nodes import ray_cluster
from registry_measures import optimised_copy, run_alone

from registry import TaskRegistry
from registry.storage.store import Store

TOLD = Path(__file__).parents[1] / "lib" / "add_many_told.py"
T2V = str(Path(sys.executable).with_name("t2v"))
CORES = len(os.sched_getaffinity(0))
ENGINES: dict[str, dict[str, Any]] = {
    "serial": {"engine": "serial"},
    "processes": {"engine": "processes", "jobs": CORES},
    "ray": {"engine": "ray", "jobs": CORES},
    "ray, 2 nodes": {"engine": "ray"},
}
warnings.filterwarnings("ignore", message="lancedb fork support")  # the processes started here only exec
ASKS = 7
Figures = dict[str, Any]


@click.command()
@click.option("--tasks", "num_tasks", default=500, show_default=True)
@click.option("--rounds", default=2, show_default=True, help="The tasks are split over them.")
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), help="Folder of image folders to draw from."
)
@click.option("--images", default=8, show_default=True, help="Images of each class.")
@click.option("--side", default=32, show_default=True, help="Of images that are made, in pixels.")
@click.option("--probe", default=None, help="The built-in one by default.")
@click.option("--many", default=10_000, show_default=True, help="Tiny tasks that are added; 0 for none.")
@click.option("--filled", type=click.Path(exists=True), help="A registry that has them already.")
@click.option("--only", type=click.Choice(("engines", "many")), help="Only this part.")
@click.option("--quick", is_flag=True, help="24 tasks in one round without the cluster, and 60 tiny ones.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True)
def main(
    num_tasks: int,
    rounds: int,
    data: Path | None,
    images: int,
    side: int,
    probe: str | None,
    many: int,
    filled: str | None,
    only: str | None,
    quick: bool,
    json_path: Path | None,
    seed: int,
) -> None:
    """Print seconds, speed-ups, differences, and the time to open and ask."""
    figures: Figures = {"machine": print_machine(), "seed": seed}
    if quick:
        num_tasks, rounds, many = 24, 1, 60
    names = [name for name in ENGINES if not (quick and "ray" in name)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if only != "many":
            if data:
                manifest = make_subsets(data, folder / "tasks", num_tasks, images, seed)
            else:
                manifest = make_tasks(folder / "tasks", num_tasks, images, side, seed)
            options = {"probe": probe} if probe else {}
            with ray_cluster(2) if "ray, 2 nodes" in names else nullcontext() as cluster:
                figures["engines"] = compare_engines(folder, manifest, rounds, names, options, cluster)
            save_figures(json_path, figures)
        if only != "engines" and many:
            figures["many"] = measure_many(folder, many, filled, seed)
    save_figures(json_path, figures)


def compare_engines(
    folder: Path, manifest: Path, rounds: int, names: list[str], options: dict[str, Any], cluster: Any
) -> Figures:
    """Add the same tasks by each engine, a share of them in each round."""
    lines = manifest.read_text().splitlines()[1:]
    seconds: dict[str, list[float]] = {name: [] for name in [*names, "peer"]}
    found: Figures = {}
    for number in range(rounds):
        share = write_share(manifest, f"round{number}.csv", lines[number::rounds])
        load = os.getloadavg()[0]
        for name in names:
            where = ENGINES[name] | ({"address": cluster.address} if name == "ray, 2 nodes" else {})
            seconds[name].append(add([(str(folder / name), share)], options | where))
        parts = [
            (
                str(folder / f"peer{core}"),
                write_share(manifest, f"part{core}.csv", lines[number::rounds][core::CORES]),
            )
            for core in range(CORES)
        ]
        seconds["peer"].append(add(parts, options | ENGINES["serial"]))
        click.echo(
            f"round {number + 1} of {rounds}, {len(lines[number::rounds])} tasks, load {load:.1f} before:"
        )
        found = judged(folder, seconds)
    return found


def judged(folder: Path, seconds: dict[str, list[float]]) -> Figures:
    """Speed-ups and differences of the rounds so far."""
    found = {}
    for name, values in seconds.items():
        ratios = [serial / value for serial, value in zip(seconds["serial"], values, strict=True)]
        total = sum(seconds["serial"]) / sum(values)
        found[name] = {"seconds": values, "speed_up": total, "per_core": total / CORES, "of_rounds": ratios}
        if name != "peer":
            found[name] |= differences(str(folder / "serial"), str(folder / name))
        tell_engine(name, found[name])
    return found


def tell_engine(name: str, found: Figures) -> None:
    """One line."""
    line = f"{name:>14}  {sum(found['seconds']):7.1f} s  speed-up {found['speed_up']:.2f}"
    line += f"  per core {found['per_core']:.2f}"
    if "tasks" in found:
        line += (
            f"  {found['tasks']} tasks, {found['same_bytes']} of the same bytes as serial, "
            f"largest relative difference {found['largest']:.1e}"
        )
    click.echo(line)


def write_share(manifest: Path, name: str, lines: list[str]) -> Path:
    """A manifest of some of the tasks, beside the other."""
    return write_manifest(manifest.with_name(name), [(it.split(",")[0], it.split(",")[1]) for it in lines])


def add(parts: list[tuple[str, Path]], options: dict[str, Any]) -> float:
    """Add tasks in fresh processes at once; seconds of embedding and writing of the one that took longest.

    Raises:
        SystemExit: If a task fails.
    """
    started = []
    for uri, manifest in parts:
        if not Path(uri).exists():
            TaskRegistry(uri).init(empty=True)
        command = [sys.executable, str(TOLD), uri, str(manifest), os.devnull, json.dumps(options)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    seconds = []
    for process in started:
        out, _ = process.communicate()
        summary = json.loads(out)
        if summary["failed"]:
            raise SystemExit(f"{summary['failed']} tasks failed: {summary['errors']}")
        seconds.append(summary["added"] / summary["per_second"])
    return max(seconds)


def differences(one: str, other: str) -> Figures:
    """How the embeddings of two registries differ.

    Raises:
        SystemExit: If they are not of the same tasks.
    """
    tables = []
    for uri in (one, other):
        store = Store(uri)
        (space,) = store.spaces()
        rows = store.database.read(
            f"embeddings__{space.space_id}", columns=["task", "fisher", "standard_error"]
        )
        tables.append(
            {row["task"]: np.array([row["fisher"], row["standard_error"]]) for row in rows.to_pylist()}
        )
    first, second = tables
    if first.keys() != second.keys():
        raise SystemExit(f"{one} and {other} hold other tasks")
    same = sum(first[task].tobytes() == second[task].tobytes() for task in first)
    largest = max(float((np.abs(first[it] - second[it]) / first[it].max()).max()) for it in first)
    return {"tasks": len(first), "same_bytes": same, "largest": largest}


def measure_many(folder: Path, count: int, filled: str | None, seed: int) -> Figures:
    """Add tiny tasks, and ask of what that leaves."""
    found: Figures = {"tasks": count}
    uri = filled or str(folder / "many")
    if not filled:
        manifest = make_tiny(folder / "tiny", count, seed)
        options = {"probe": "resnet14w32.mnist", **ENGINES["processes"]}
        found["add_seconds"] = add([(uri, manifest)], options)
        click.echo(f"{count} tiny tasks added in {found['add_seconds']:.0f} s")
    found["optimise_seconds"] = optimised_copy(Path(uri), folder / "optimised")
    names = [task.name for task in TaskRegistry(uri).tasks()]
    chosen = names[len(names) // 2]
    for what, ask in (("process", ask_command), ("open and ask", ask_inside)):
        seconds: dict[str, list[float]] = {"left": [], "optimised": []}
        for _ in range(ASKS + 1):
            seconds["left"].append(ask(uri, chosen))
            seconds["optimised"].append(ask(str(folder / "optimised"), chosen))
        left, optimised = (statistics.median(values[1:]) for values in seconds.values())
        found[what] = {"left": left, "optimised": optimised, "ratio": left / optimised}
        click.echo(
            f"{len(names)} tasks, {what}: {left:.3f} s as left, {optimised:.3f} s freshly optimised, "
            f"ratio {left / optimised:.2f}"
        )
    return found


def ask_command(uri: str, name: str) -> float:
    """Seconds of ``t2v nearest NAME``."""
    start = time.perf_counter()
    subprocess.run([T2V, "--registry", uri, "nearest", name], check=True, capture_output=True)
    return time.perf_counter() - start


def ask_inside(uri: str, name: str) -> float:
    """Seconds to open a registry and ask in a fresh process that has imported everything."""
    return float(run_alone(open_and_ask, uri, name).value)


def open_and_ask(uri: str, name: str) -> float:
    """The same in this process."""
    start = time.perf_counter()
    TaskRegistry(uri).nearest(name)
    return time.perf_counter() - start


def make_tiny(folder: Path, count: int, seed: int) -> Path:
    """Arrays of four small images in two classes."""
    folder.mkdir()
    rows = []
    for number in range(count):
        images = np.random.default_rng([seed, number]).integers(0, 256, (4, 8, 8), dtype=np.uint8)
        name = f"tiny-{number:05d}"
        np.savez(folder / f"{name}.npz", images=images, labels=np.array([0, 0, 1, 1]))
        rows.append((name, f"{name}.npz"))
    return write_manifest(folder / "tasks.csv", rows)


if __name__ == "__main__":
    main()
