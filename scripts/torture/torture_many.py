"""Kill what adding many tasks needs, in the middle of it, and count what was lost or doubled.

    python scripts/torture/torture_many.py --tasks 200
    python scripts/torture/torture_many.py --only ray-node --tasks 60

Each scenario adds the same tasks to a registry of its own, in a process that writes down each task as soon as
it is said to be on disk. Part of the way something is killed with SIGKILL:

    worker      a process of the engine processes, three times
    ray-worker  a worker of a Ray cluster, three times
    ray-node    a node of a Ray cluster of two on loopback, raylet and workers at once
    driver      the process that adds, with the engine processes; its workers must end by themselves
    s3-server   what answers for the object store, which keeps its data, as a server on a disk does

Then the same is run again to its end. Printed are the tasks that were asked for, those on disk after the first
run and after the second, those lost (said to be on disk and not there, or not there in the end) and doubled
(more than one row or version), and whether the reports were true.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from machine import print_machine, save_figures
from many_tasks import make_tasks
from ray_nodes import is_alive, kill, ray_cluster, wait_until, workers_of

from registry import TaskRegistry
from registry.storage.schema import embeddings_table_name
from registry.storage.store import Store

TOLD = Path(__file__).parents[1] / "lib" / "add_many_told.py"
TESTS = Path(__file__).parents[2] / "tests" / "support"
PROBE = "resnet14w32.mnist"
BATCH = 8
KILLS = 3
WAIT_SECONDS = 600.0
FAULTS = ("lost", "doubled", "wrong_reports", "problems", "left_running")
SHARE_BEFORE_KILL = 0.25


@dataclass
class Run:
    """One run of adding.

    Attributes:
        process: That adds.
        told: File of what was said to be on disk.
        at_kill: How many were when something was killed first.
    """

    process: subprocess.Popen[str]
    told: Path
    at_kill: int = 0

    def told_tasks(self) -> list[str]:
        """Names of the tasks that were said to be on disk."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return [line.split()[0] for line in lines if line.count(" ") == 2 and not line.endswith("None")]

    def wait_for(self, count: int) -> None:
        """Wait until so many tasks are said to be on disk.

        Raises:
            SystemExit: If the run ends before.
        """
        wait_until(lambda: len(self.told_tasks()) >= count or self.process.poll() is not None, WAIT_SECONDS)
        if self.process.poll() is not None:
            raise SystemExit("the run ended before anything was killed")
        self.at_kill = self.at_kill or len(self.told_tasks())

    def end(self) -> dict[str, Any]:
        """Wait for its end; what it printed, or why it did not."""
        out, err = self.process.communicate(timeout=WAIT_SECONDS)
        summary = json.loads(out) if out.strip() else {}
        reason = err.strip().splitlines()[-1][:200] if err.strip() and not summary else ""
        return {"code": self.process.returncode, "summary": summary, "reason": reason}


@dataclass
class Case:
    """What a scenario works with."""

    uri: str
    manifest: Path
    folder: Path
    count: int
    options: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, told: str) -> Run:
        """Begin to add."""
        path = self.folder / told
        options = json.dumps({"probe": PROBE, "batch": BATCH, **self.options})
        process = subprocess.Popen(
            [sys.executable, str(TOLD), self.uri, str(self.manifest), str(path), options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.environment,
        )
        return Run(process, path)


@click.command()
@click.option("--tasks", "num_tasks", default=200, show_default=True)
@click.option("--only", multiple=True, help="Only these scenarios; all by default.")
@click.option("--quick", is_flag=True, help="24 tasks; a worker and the driver only.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True)
def main(num_tasks: int, only: tuple[str, ...], quick: bool, json_path: Path | None, seed: int) -> None:
    """Run, print the counts, and exit 1 if anything was lost, doubled or reported wrongly."""
    figures: dict[str, Any] = {"machine": print_machine()}
    names = only or (("worker", "driver") if quick else tuple(SCENARIOS))
    count = 24 if quick else num_tasks
    with tempfile.TemporaryDirectory() as name:
        manifest = make_tasks(Path(name) / "tasks", count, images_per_class=2, side=16, seed=seed)
        for scenario in names:
            folder = Path(name) / scenario
            folder.mkdir()
            with SCENARIOS[scenario](folder, manifest, count) as (case, kill_it):
                figures[scenario] = run_case(case, kill_it)
            tell(scenario, figures[scenario])
    save_figures(json_path, figures)
    sys.exit(any(figures[scenario][fault] for scenario in names for fault in FAULTS))


def run_case(case: Case, kill_it: Callable[[Run], int]) -> dict[str, Any]:
    """Add, kill, add again, compare."""
    with_environment = os.environ.copy()
    os.environ |= case.environment
    try:
        TaskRegistry(case.uri).init(empty=True)
        start = time.monotonic()
        first = case.start("first.txt")
        left_running = kill_it(first)
        ended = first.end()
        seconds = time.monotonic() - start
        told = set(first.told_tasks())
        before = {task.name for task in TaskRegistry(case.uri).tasks()}
        second = case.start("second.txt").end()
        return compare(case, told, before, ended, second) | {
            "at_kill": first.at_kill,
            "left_running": left_running,
            "first_seconds": round(seconds, 1),
        }
    finally:
        os.environ.clear()
        os.environ |= with_environment


def compare(
    case: Case, told: set[str], before: set[str], first: dict[str, Any], second: dict[str, Any]
) -> dict[str, Any]:
    """Counts."""
    store = Store(case.uri)
    asked = {f"task-{number:05d}" for number in range(case.count)}
    rows = store.database.read("tasks", columns=["name", "version"]).to_pylist()
    after = {row["name"] for row in rows}
    space = embeddings_table_name(store.spaces()[0].space_id)
    embeddings = store.database.read(space, columns=["task", "version"]).to_pylist()
    per_task = Counter(row["name"] for row in rows)
    per_embedding = Counter((row["task"], row["version"]) for row in embeddings)
    summary = second["summary"]
    expected = {"added": len(asked - before), "unchanged": len(before), "failed": 0}
    wrong = {name: summary.get(name) for name, value in expected.items() if summary.get(name) != value}
    if first["summary"] and first["summary"]["added"] != len(before):
        wrong["first"] = first["summary"]["added"]
    return {
        "asked": len(asked),
        "told_before": len(told),
        "done_before": len(before),
        "done_after": len(after & asked),
        "lost": len(told - before) + len(asked - after),
        "doubled": sum(count > 1 for count in per_task.values())
        + sum(count > 1 for count in per_embedding.values()),
        "first_code": first["code"],
        "first_reason": first["reason"],
        "first_failed": first["summary"].get("failed"),
        "second": {name: summary.get(name) for name in ("added", "unchanged", "failed", "check_seconds")},
        "wrong_reports": len(wrong),
        "problems": len(TaskRegistry(case.uri).verify()),
    }


def tell(scenario: str, found: dict[str, Any]) -> None:
    """A line of counts, and what there is besides."""
    counts = ("asked", "at_kill", "done_before", "done_after", "lost", "doubled", "wrong_reports", "problems")
    click.echo(f"{scenario:>11}  " + "  ".join(f"{name} {found[name]}" for name in counts))
    click.echo(
        f"{'':>13}first run: code {found['first_code']}, failed {found['first_failed']}, "
        f"{found['first_seconds']} s {found['first_reason']}; second: {found['second']}; "
        f"workers left running {found['left_running']}"
    )


Scenario = tuple[Case, Callable[[Run], int]]


@contextmanager
def worker(folder: Path, manifest: Path, count: int) -> Iterator[Scenario]:
    """A process of the engine processes dies, three times."""
    case = Case(str(folder / "registry"), manifest, folder, count, {"engine": "processes", "jobs": 2})

    def kill_it(run: Run) -> int:
        for number in range(KILLS):
            run.wait_for(int(count * SHARE_BEFORE_KILL * (number + 1) * 0.8))
            kill(workers_of({run.process.pid}, "indexer.engines.worker")[0])
        return 0

    yield case, kill_it


@contextmanager
def driver(folder: Path, manifest: Path, count: int) -> Iterator[Scenario]:
    """The process that adds dies, and its workers must end by themselves."""
    case = Case(str(folder / "registry"), manifest, folder, count, {"engine": "processes", "jobs": 2})

    def kill_it(run: Run) -> int:
        run.wait_for(int(count * SHARE_BEFORE_KILL))
        workers = workers_of({run.process.pid}, "indexer.engines.worker")
        kill(run.process.pid)
        wait_until(lambda: not any(map(is_alive, workers)), 10)
        return sum(map(is_alive, workers))

    yield case, kill_it


def raylets(cluster: Any) -> list[int]:
    """Process ids of the raylet of each node, the head first."""
    nodes = [cluster.head_node, *cluster.worker_nodes]
    return [node.all_processes["raylet"][0].process.pid for node in nodes]


@contextmanager
def ray_worker(folder: Path, manifest: Path, count: int) -> Iterator[Scenario]:
    """A worker of Ray dies, three times."""
    with ray_cluster(2) as cluster:
        options = {"engine": "ray", "address": cluster.address}
        case = Case(str(folder / "registry"), manifest, folder, count, options)

        def kill_it(run: Run) -> int:
            for number in range(KILLS):
                run.wait_for(int(count * SHARE_BEFORE_KILL * (number + 1) * 0.8))
                wait_until(lambda: workers_of(set(raylets(cluster)), "ray::attempt"), 30)
                kill(workers_of(set(raylets(cluster)), "ray::attempt")[0])
            return 0

        yield case, kill_it


@contextmanager
def ray_node(folder: Path, manifest: Path, count: int) -> Iterator[Scenario]:
    """A node of Ray dies with all its workers; the second run finds a new one in its place."""
    with ray_cluster(2) as cluster:
        options = {"engine": "ray", "address": cluster.address, "retries": 3}
        case = Case(str(folder / "registry"), manifest, folder, count, options)

        def kill_it(run: Run) -> int:
            run.wait_for(int(count * SHARE_BEFORE_KILL))
            raylet = raylets(cluster)[1]
            workers = workers_of({raylet}, "ray::")
            for pid in (raylet, *workers):
                kill(pid)
            return 0

        yield case, kill_it


@contextmanager
def s3_server(folder: Path, manifest: Path, count: int) -> Iterator[Scenario]:
    """What answers for the object store dies, and is back for the second run with its data."""
    sys.path.append(str(TESTS))
    from s3_server import S3Server

    with ExitStack() as stack:
        server = stack.enter_context(S3Server())
        bucket = server.new_bucket()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        relay = start_relay(port, server.url)
        environment = server.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        options = {"engine": "processes", "jobs": 2}
        case = Case(f"s3://{bucket}/registry", manifest, folder, count, options, environment)
        relays = [relay]
        stack.callback(lambda: [it.kill() for it in relays])

        def kill_it(run: Run) -> int:
            run.wait_for(int(count * SHARE_BEFORE_KILL))
            kill(relay.pid)
            relay.wait()
            try:
                run.process.wait(WAIT_SECONDS)
            finally:
                relays.append(start_relay(port, server.url))
            return 0

        yield case, kill_it


def start_relay(port: int, url: str) -> subprocess.Popen[str]:
    """Answer at a port for the server of a URL."""
    command = [sys.executable, str(Path(__file__).with_name("tcp_relay.py")), str(port), url.rpartition(":")[2]]
    relay = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if relay.stdout:
        relay.stdout.readline()  # it says when it listens
    return relay


SCENARIOS = {
    "worker": worker,
    "ray-worker": ray_worker,
    "ray-node": ray_node,
    "driver": driver,
    "s3-server": s3_server,
}

if __name__ == "__main__":
    main()
