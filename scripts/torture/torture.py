"""Let many processes write and read one registry while they are killed, and count what was lost or doubled.

    python scripts/torture/torture.py --minutes 5 --writers 8 --readers 4
    python scripts/torture/torture.py --during optimize --kills 200
    python scripts/torture/torture.py --during index-save --kills 200

Writers do random operations: tasks of own names and of names that all want, next versions, experts, results,
tags, aliases, removing, restoring, optimizing. Readers compare what is shown with what was acknowledged before,
and ask for near tasks, which also saves the index. Random ones are killed with SIGKILL at random instants, and
others take their place. At the end everything is compared, repaired and verified.

With ``--during`` one process does one thing over and over and is killed in the middle of it. It says when it
goes in and out, so only kills inside are counted. After each the registry is opened, read, asked and verified.

The processes come from multiprocessing's fork server, which has imported everything and opened nothing; a fresh
interpreter for each would spend two seconds of importing between kills.
"""

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import torture_workers
from machine import print_machine, save_figures
from torture_workers import Acknowledged

from registry import TaskRegistry
from registry.errors import RegistryError
from registry.storage.store import Store

DURING = {"optimize": torture_workers.optimize_forever, "index-save": torture_workers.save_index_forever}
FAULTS = (
    "lost",
    "doubled",
    "failed_opens",
    "failed_writes",
    "wrong_reads",
    "crashed_workers",
    "dirty_after_repair",
)
SHOWN_FAULTS = 20
JOIN_SECONDS = 60


@click.command()
@click.option("--minutes", default=5.0, show_default=True)
@click.option("--writers", default=8, show_default=True)
@click.option("--readers", default=4, show_default=True)
@click.option("--kills-per-second", default=3.0, show_default=True, help="At most, on average.")
@click.option("--during", type=click.Choice(list(DURING)), help="Kill inside of this instead.")
@click.option("--kills", default=200, show_default=True, help="How many inside, with --during.")
@click.option("--quick", is_flag=True, help="Five seconds with 2 writers and 1 reader, or 3 kills.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True)
def main(
    minutes: float,
    writers: int,
    readers: int,
    kills_per_second: float,
    during: str | None,
    kills: int,
    quick: bool,
    json_path: Path | None,
    seed: int,
) -> None:
    """Run, print the counts, and exit 1 if anything was lost, doubled, wrong or could not be opened."""
    figures: dict[str, Any] = {"machine": print_machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torture_workers.make_registry(folder)
        if during:
            counts = kill_during(during, folder, 3 if quick else kills, seed)
        else:
            torture = Torture(folder, *((2, 1) if quick else (writers, readers)), seed)
            torture.run(5.0 if quick else 60 * minutes, kills_per_second)
            counts = torture.counts()
    for name, value in counts.items():
        click.echo(f"{name:>20} {value}")
    save_figures(json_path, figures | counts)
    sys.exit(any(counts[name] for name in FAULTS))


def fork_server() -> Any:
    """A context whose processes have imported everything and opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torture_workers", "lancedb", "registry.core", "registry.snapshots.snapshots"]
    )
    # The server does not take over sys.path before it imports; this variable it does.
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    return context


class Torture:
    """Writers and readers on one registry, and the killing of them."""

    def __init__(self, folder: Path, num_writers: int, num_readers: int, seed: int) -> None:
        self._folder = folder
        self._context = fork_server()
        self._seed = seed
        self._random = random.Random(seed)
        self._targets = [torture_workers.write] * num_writers + [torture_workers.read] * num_readers
        self._workers: list[Any] = []
        self._started = self.kills = self.crashed = 0
        self.seconds = 0.0

    def run(self, seconds: float, kills_per_second: float) -> None:
        """Let them work and kill them for so long, and all at the end."""
        self._workers = [self._start(target) for target in self._targets]
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            time.sleep(min(self._random.expovariate(kills_per_second), seconds))
            self._kill(self._random.randrange(len(self._workers)), replace=True)
        self.seconds = time.monotonic() - start
        for number in range(len(self._workers)):
            self._kill(number, replace=False)

    def _start(self, target: Any) -> Any:
        self._started += 1
        arguments = (self._folder, f"w{self._started}", self._seed)
        worker = self._context.Process(target=target, args=arguments)
        worker.start()
        return worker

    def _kill(self, number: int, *, replace: bool) -> None:
        worker = self._workers[number]
        worker.kill()
        worker.join(JOIN_SECONDS)
        # One that had ended by itself has met something it did not expect.
        self.crashed += worker.exitcode != -signal.SIGKILL
        self.kills += worker.exitcode == -signal.SIGKILL
        if replace:
            self._workers[number] = self._start(self._targets[number])

    def counts(self) -> dict[str, Any]:
        """Operations, kills and faults."""
        known = Acknowledged(self._folder)
        show(known.told)
        found = compare(self._folder, known)
        operations = {
            f"acknowledged_{kind.replace(' ', '_')}": count
            for kind, count in sorted(known.counts.items())
            if kind not in {"will", *torture_workers.FAULTS}
        }
        return {
            "seconds": round(self.seconds, 1),
            "kills": self.kills,
            **operations,
            **found,
            "failed_opens": found["failed_opens"] + known.counts["failed open"],
            "failed_writes": known.counts["failed write"],
            "wrong_reads": found["wrong_reads"] + known.counts["wrong read"],
            "crashed_workers": self.crashed,
        }


def compare(folder: Path, known: Acknowledged) -> dict[str, int]:
    """Open a registry that nobody writes any more, and count what differs from what was acknowledged."""
    counts = Counter(dict.fromkeys((*FAULTS, "repaired"), 0))
    try:
        store, registry = Store(folder / "registry"), TaskRegistry(folder / "registry")
        faults = known.faults_at_the_end(store)
        visible = [task for task in sorted(known.tasks) if not known.may_be_hidden(task[0])]
        for task in visible[-3:]:
            faults += torture_workers.nearest_faults(registry, store, *task)
        show(faults)
        counts.update(kind if kind in counts else "wrong_reads" for kind, _ in faults)
        problems = [problem for problem in store.verify(repair=True) if problem.kind != "dangling"]
        counts["repaired"] = len(problems)
        left = [problem for problem in Store(folder / "registry").verify() if problem.kind != "dangling"]
        counts["dirty_after_repair"] = len(left)
        show([(problem.kind, problem.message) for problem in left])
        after = Acknowledged(folder).faults_at_the_end(Store(folder / "registry"))
        counts["lost"] += max(0, len(after) - len(faults))
    except RegistryError as error:
        show([("failed open", str(error))])
        counts["failed_opens"] += 1
    return dict(counts)


def show(faults: list[tuple[str, str]]) -> None:
    """Print the first few, for whoever looks for the cause."""
    for kind, what in faults[:SHOWN_FAULTS]:
        click.echo(f"{kind}: {what}", err=True)


def kill_during(what: str, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill a process inside of one operation, and compare everything after each kill."""
    context, chooser = fork_server(), random.Random(seed)
    counts: Counter[str] = Counter(dict.fromkeys(FAULTS, 0))
    usual = 0.05
    while counts["kills_inside"] < kills:
        receiver, sender = context.Pipe(duplex=False)
        name = f"{what}{counts['kills']}"
        worker = context.Process(target=DURING[what], args=(folder, name, seed, sender))
        worker.start()
        sender.close()
        usual = kill_inside(worker, receiver, usual, chooser, counts)
        known = Acknowledged(folder)
        counts.update(compare(folder, known))
        counts["failed_writes"] = known.counts["failed write"]
    return dict(counts)


def kill_inside(
    worker: Any, receiver: Connection, usual: float, chooser: random.Random, counts: Counter[str]
) -> float:
    """Kill a process at a random moment of its second time inside.

    Args:
        worker: Sends when it goes in, and how many seconds that took when it comes out.
        receiver: Of what it sends.
        usual: Seconds that it usually is inside.
        chooser: Of the moment.
        counts: Of kills, and of those inside.

    Returns:
        Seconds it was inside the first time.
    """
    counts["kills"] += 1
    try:
        receiver.recv()
        usual = receiver.recv()
        receiver.recv()
        time.sleep(chooser.uniform(0, usual))
    except EOFError:
        counts["crashed_workers"] += 1
    worker.kill()
    worker.join(JOIN_SECONDS)
    counts["kills_inside"] += not came_out(receiver)
    return usual


def came_out(receiver: Connection) -> bool:
    """Whether a killed process had said so."""
    try:
        receiver.recv()
    except EOFError:
        return False
    return True


if __name__ == "__main__":
    main()
