"""How long commands take from the shell, beside bare Python, its libraries, SQLite and git.

    python scripts/bench/bench_cli.py [--repeats 10] [--json FILE]

A registry with the starter content, and modules compiled, as an installation leaves them. A command is cold
where the read cache was deleted before, and warm where it is current. Every line is a process of its own;
lines take turns, so that what else the machine does falls on all; the first turn does not count. Medians of
processor time, which says the same on a busy machine, and of wall time; ratios are of processor times.
"""

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
from machine import print_machine, save_figures

from registry import TaskRegistry

PEERS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import lancedb": [sys.executable, "-c", "import lancedb"],
    "import torch": [sys.executable, "-c", "import torch"],
}
WORDS = {
    "nearest mnist": "import lancedb",
    "task list": "import lancedb",
    "task show mnist": "import lancedb",
    "expert list": "import lancedb",
    "result list": "import lancedb",
    "recommend mnist": "import lancedb",
    "distance mnist hiragana": "import lancedb",
    "history --limit 5": "import lancedb",
    "--help": "python -c pass",
    "nearest /no/such/place": "import torch",
    "task add new /no/such/place": "import torch",
}
"""Commands, each with the peer that it is compared with."""

T2V = [sys.executable, "-c", "from registry.cli.main import main; main(prog_name='t2v')"]
COMPLETE = {"_T2V_COMPLETE": "bash_complete", "COMP_WORDS": "t2v task show mn", "COMP_CWORD": "3"}


def timed(command: list[str], **variables: str) -> tuple[float, float]:
    """Processor and wall milliseconds of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **variables}
    )
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return 1000 * (usage.ru_utime + usage.ru_stime), 1000 * (time.perf_counter() - start)


def peers(folder: Path) -> dict[str, list[str]]:
    """Commands to compare with, by name; those that this machine lacks are left out."""
    file = folder / "tasks.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("create table tasks (name text)")
        database.executemany("insert into tasks values (?)", [(f"task{n}",) for n in range(1000)])
    commands = dict(PEERS)
    if shutil.which("sqlite3"):
        commands["sqlite3 FILE 'select ...'"] = ["sqlite3", str(file), "select count(*) from tasks"]
    if shutil.which("git"):
        commands["git log -1"] = ["git", "-C", str(Path(__file__).parent), "log", "-1"]
    return commands


@click.command()
@click.option("--repeats", default=10, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path))
def main(repeats: int, path: Path | None) -> None:
    """Print a line for each command."""
    machine = print_machine()
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "registry"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{name}/compiled"
        TaskRegistry(place).init()
        others = peers(Path(name))
        for _ in range(repeats + 1):
            for peer, command in others.items():
                times[peer].append(timed(command))
            for words in WORDS:
                asked = [*T2V, "--registry", str(place), *words.split()]
                shutil.rmtree(place / "index", ignore_errors=True)
                times[f"t2v {words}, cold"].append(timed(asked))
                times[f"t2v {words}"].append(timed(asked))
            timed([*T2V, "--registry", str(place), "task", "list"])
            times["completion of a task"].append(timed(T2V, T2V_REGISTRY=str(place), **COMPLETE))
    medians = {line: tuple(map(statistics.median, zip(*each[1:], strict=True))) for line, each in times.items()}
    click.echo(f"{'':42}{'processor ms':>14}{'wall ms':>10}  ratio")
    for line, (processor, wall) in medians.items():
        peer = WORDS.get(line.removeprefix("t2v ").removesuffix(", cold"), "python -c pass")
        ratio = "" if line in others else f"{processor / medians[peer][0]:7.2f} of {peer}"
        click.echo(f"{line:42}{processor:14.0f}{wall:10.0f}{ratio}")
    save_figures(path, {"machine": machine, "milliseconds": json.loads(json.dumps(medians))})


if __name__ == "__main__":
    main()
