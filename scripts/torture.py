"""Kill `t2v task add` with SIGKILL at random moments and count what was lost.

    python scripts/torture.py --kills 20

Each round adds a task in a process of its own and kills it at a moment drawn from its usual duration. A task is
acknowledged once its JSON is printed. At the end: the registry opens, `t2v verify --repair` leaves it clean,
and every acknowledged task is there.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from machine import print_machine, save_figures

from registry import TaskRegistry

T2V = [str(Path(sys.executable).with_name("t2v"))]


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--data", default="sklearn:digits", show_default=True)
@click.option("--samples", default=200, show_default=True)
@click.option("--quick", is_flag=True, help="Five kills.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True)
def main(kills: int, data: str, samples: int, quick: bool, json_path: Path | None, seed: int) -> None:
    """Run the rounds and print the counts; exits 1 if anything was lost."""
    figures = {"machine": print_machine()}
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "registry")
        command = [
            *T2V,
            "--registry",
            uri,
            "task",
            "add",
            "NAME",
            data,
            "--max-samples",
            str(samples),
            "--json",
        ]
        usual = add(command, "unharmed", None)[1]
        acknowledged, failed_opens, dirty = ["unharmed"], 0, 0
        rounds = 5 if quick else kills
        for number in range(rounds):
            name = f"task{number}"
            printed, _ = add(command, name, generator.uniform(0, 1.1 * usual))
            acknowledged += [name] if is_acknowledged(printed, name) else []
            check = subprocess.run([*T2V, "--registry", uri, "verify"], capture_output=True, check=False)
            failed_opens += check.returncode not in (0, 1)
            dirty += check.returncode == 1
        registry = TaskRegistry(uri)
        registry.verify(repair=True)
        clean = registry.verify() == []
        present = [task.name for task in registry.tasks()]
    counts = {
        "kills": rounds,
        "acknowledged": len(acknowledged),
        "lost": len(set(acknowledged) - set(present)),
        "doubled": len(present) - len(set(present)),
        "failed_opens": failed_opens,
        "rounds_with_something_to_repair": dirty,
        "clean_after_repair": clean,
    }
    click.echo("  ".join(f"{name} {value}" for name, value in counts.items()))
    save_figures(json_path, figures | counts)
    sys.exit(not (counts["lost"] == counts["doubled"] == failed_opens == 0 and clean))


def add(command: list[str], name: str, kill_after: float | None) -> tuple[str, float]:
    """Run one `task add`, killed after so many seconds if asked; what it printed, and how long it took."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [name if part == "NAME" else part for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        printed, _ = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _ = process.communicate()
    return printed, time.perf_counter() - start


def is_acknowledged(printed: str, name: str) -> bool:
    """Whether the whole JSON document was printed."""
    try:
        return bool(json.loads(printed)["task"] == name)
    except json.JSONDecodeError:
        return False


if __name__ == "__main__":
    main()
