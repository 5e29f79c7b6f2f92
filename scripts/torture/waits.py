"""Measure how long one write has to wait while another process writes much at once.

    python scripts/torture/waits.py --tasks 50000 --during import
    python scripts/torture/waits.py --tasks 50000 --during optimize
    python scripts/torture/waits.py --tasks 300000 --during results

A registry of that many tasks drawn from the real ones is exported once. While another process imports the file
into a second registry, or optimizes that one, or imports a CSV file of as many results, this process sets a tag
of one task over and over. Printed are the longest and the median wait, beside that of a tag with nobody else,
and how long the other process took.
"""

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import click
from machine import print_machine, save_figures
from registry_measures import bulk_add

from registry import TaskRegistry

DURING = ("import", "optimize", "results")


def tag_until(registry: TaskRegistry, over: "multiprocessing.Process | None", count: int) -> list[float]:
    """Set tags while a process runs, or so many times; the seconds of each."""
    seconds = list[float]()
    while over.is_alive() if over else len(seconds) < count:
        start = time.perf_counter()
        registry.tag_task("own", add=[f"n{len(seconds)}"], remove=[f"n{len(seconds) - 1}"])
        seconds.append(time.perf_counter() - start)
        time.sleep(0.02)
    return seconds


def work(during: str, place: str, file: str) -> None:
    """What the other process does."""
    registry = TaskRegistry(place)
    match during:
        case "import":
            registry.import_bundle(file)
        case "results":
            registry.import_results(file, unregistered=True)
        case _:
            registry.optimize()


def write_results(file: Path, rows: int) -> None:
    """A CSV file of results of one expert on one task, each by a protocol of its own."""
    lines = (f"own,e.x,{row % 1000 / 1000},fold{row}" for row in range(rows))
    file.write_text("\n".join(["task,expert,accuracy,protocol", *lines]) + "\n")


@click.command()
@click.option("--tasks", default=50_000, show_default=True, help="Tasks in the file.")
@click.option("--dim", default=256, show_default=True, help="Numbers of each embedding.")
@click.option("--during", type=click.Choice(DURING), default="import", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to keep the file for further runs.")
@click.option("--quick", is_flag=True, help="2,000 tasks.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures to a file.")
def main(tasks: int, dim: int, during: str, folder: Path | None, quick: bool, json_file: Path | None) -> None:
    """Run it; see the first lines of this file.

    Raises:
        SystemExit: If the other process failed.
    """
    print_machine()
    tasks = 2000 if quick else tasks
    with tempfile.TemporaryDirectory() as scratch:
        place = (folder or Path(scratch)) / f"{tasks}-{dim}"
        file, target = place.with_suffix(".t2v"), str(Path(scratch, "target"))
        if during == "results":
            write_results(file := Path(scratch, "results.csv"), tasks)
        elif not file.exists():
            bulk_add(str(place), 0, dim, tasks)
            TaskRegistry(place).export(file)
        registry = TaskRegistry(target)
        registry.init(empty=True)
        if during == "optimize":
            registry.import_bundle(file)
        registry.add_task("own", "sklearn:digits", max_samples=20)
        alone = tag_until(registry, None, 20)
        other = multiprocessing.get_context("spawn").Process(target=work, args=(during, target, str(file)))
        start = time.perf_counter()
        other.start()
        waits = tag_until(registry, other, 0)
        took = time.perf_counter() - start
        if other.exitcode or {problem.kind for problem in registry.verify()} - {"dangling"}:
            raise SystemExit(f"the {during} failed, or left a problem")
    figures = {
        "during": during,
        "tasks": tasks,
        "tags": len(waits),
        "longest_seconds": max(waits),
        "median_seconds": statistics.median(waits),
        "alone_median_seconds": statistics.median(alone),
        "alone_longest_seconds": max(alone),
        "other_seconds": took,
    }
    for name, value in figures.items():
        click.echo(f"{name:24} {value:.3f}" if isinstance(value, float) else f"{name:24} {value}")
    save_figures(json_file, figures)


if __name__ == "__main__":
    main()
