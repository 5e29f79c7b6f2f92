"""How fast a server is over 10,000 tasks: each page and route, and 50 clients while tasks are being added.

    python scripts/bench/bench_web.py
    python scripts/bench/bench_web.py --tasks 1000 --quick

A real `t2v serve` on loopback, over the starter content and tasks drawn around the real ones
(`scripts/lib/synthetic_tasks.py` says how). First every page and route is asked by one client, one request
after the other. Then 50 clients ask for the neighbours of registered tasks, as fast as they are answered:
alone, while another process adds tasks one by one, and while uploads trickle in as well. They are `wrk` if it
is installed, otherwise connections of this program. Clients and server share the cores of this machine. Peers
in the same run: `/api/v1/version`, which does next to no work, and `TaskRegistry.nearest` in this process.
"""

import http.client
import multiprocessing
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import numpy as np
from machine import print_machine, save_figures
from registry_measures import percentiles
from synthetic_tasks import CHUNK_ROWS, SyntheticTasks, task_name
from web_clients import load

from registry import TaskRegistry
from registry.storage.store import Store

EXPERT = "resnet14w32.mnist"
STARTER_TASK = "mnist"
NAMES = 500
SLOW_UPLOADS = 5
QUERIES = {
    "/compare": f"?a={task_name(0)}&b={task_name(1)}",
    "/compare/tasks": f"?tasks={task_name(0)},{task_name(1)}",
    "/compare/experts": f"?experts={EXPERT},resnet14w32.tiny_imagenet",
    "/compare/profile": f"?a={task_name(0)}&b={task_name(1)}",
    "/api/v1/distance": f"?source={task_name(0)}&target={task_name(1)}",
    "/results": f"?task={STARTER_TASK}",
}
"""What is asked of routes that need a question."""

Figures = dict[str, Any]


@click.command()
@click.option("--tasks", "count", default=10_000, show_default=True, help="Number of tasks.")
@click.option("--clients", default=50, show_default=True, help="Clients at once.")
@click.option("--seconds", default=20.0, show_default=True, help="Of each load.")
@click.option("--requests", default=60, show_default=True, help="Of each page and route.")
@click.option("--wrk/--no-wrk", "use_wrk", default=True, show_default=True, help="Load by wrk if it is there.")
@click.option("--quick", is_flag=True, help="Loads of 2 seconds, 8 requests of each page.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True)
def main(count: int, clients: int, json_path: Path | None, quick: bool, seed: int, **options: Any) -> None:
    """Measure and print."""
    if quick:
        options |= {"seconds": 2.0, "requests": 8}
    figures: Figures = {"machine": print_machine(), "options": {"tasks": count, "clients": clients, **options}}
    with tempfile.TemporaryDirectory() as folder:
        uri = Path(folder) / "registry"
        fill(uri, count, seed)
        with serving(uri, Path(folder)) as url:
            figures["routes"] = measure_routes(url, requests_each=options["requests"])
            names = np.random.default_rng(seed).choice(count, min(NAMES, count), replace=False)
            paths = [f"/api/v1/tasks/{task_name(int(it))}/neighbors" for it in names]
            figures["loads"] = measure_loads(
                url, uri, paths, clients, options["seconds"], seed, use_wrk=options["use_wrk"]
            )
        figures["in process"] = tell("TaskRegistry.nearest here, one caller", in_process(uri, names))
    loads = figures["loads"]
    figures["5xx and broken answers"] = sum(it["failed"] for it in loads.values())
    click.echo(f"\nAnswers of the loads that failed: {figures['5xx and broken answers']}")
    save_figures(json_path, figures)
    if figures["5xx and broken answers"]:
        sys.exit(1)


def tell(title: str, figures: Figures) -> Figures:
    """Print figures on one line, and return them."""
    shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    click.echo(f"{title:<44}  {shown}")
    return figures


def fill(uri: Path, count: int, seed: int) -> None:
    """The starter content, and tasks in its space."""
    registry, tasks = TaskRegistry(uri), SyntheticTasks(seed)
    registry.init()
    space_id, store = registry.space().space_id, Store(uri)
    for chunk in tasks.chunks(count):
        store.add_tasks(tasks.records(chunk), space_id)


@contextmanager
def serving(uri: Path, folder: Path) -> Iterator[str]:
    """The URL of a real server, once it answers.

    Raises:
        ClickException: If it ends instead.
    """
    program, log = str(Path(sys.executable).with_name("t2v")), folder / "log"
    command = [program, "--registry", str(uri), "serve", "--port", "0", "--rate", "0"]
    command += ["--state", str(folder / "state")]
    token = secrets.token_urlsafe(32)
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, env={**os.environ, "T2V_TOKEN": token})
    try:
        while not (found := re.search(r" at (http://\S+)", log.read_text())):
            if process.poll() is not None:
                raise click.ClickException(log.read_text())
            time.sleep(0.02)
        os.environ["T2V_TOKEN"] = token  # for slow uploads
        yield found[1]
        click.echo(f"\nThe server held {resident_mb(process.pid):.0f} MB at the end.")
    finally:
        process.terminate()
        process.wait(20)


def resident_mb(process_id: int) -> float:
    """Memory that a process holds now."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))


def routes() -> list[str]:
    """Paths of all pages and routes that can be asked for by GET, names filled in; without those of jobs."""
    from fastapi.routing import APIRoute

    from registry.web.app import create_app
    from registry.web.http.settings import ServeSettings

    def walk(found: Sequence[Any]) -> Iterator[APIRoute]:
        for route in found:
            if isinstance(route, APIRoute):
                yield route
            else:
                yield from walk(getattr(getattr(route, "original_router", None), "routes", []))

    app = create_app(ServeSettings(uri=None, token="none", state=Path("none")))
    paths = [route.path for route in walk(app.routes) if "GET" in (route.methods or ())]
    filled = []
    for path in paths:
        name = EXPERT if "/experts/" in path else task_name(0)
        if "_id}" not in path and not path.endswith("/sheet"):  # tasks that were made here have no pictures
            filled.append(path.replace("{name:path}", name).replace("{name}", name) + QUERIES.get(path, ""))
    return filled


def measure_routes(url: str, requests_each: int) -> Figures:
    """Time of each page and route for one client: the first request, and those after it."""
    click.echo("\nOne client, one request after the other, in milliseconds")
    connection, figures = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300), {}
    headers = {"Authorization": f"Bearer {os.environ['T2V_TOKEN']}"}
    for path in routes():
        seconds, size, status = [], 0, 0
        for _ in range(requests_each + 1):
            started = time.perf_counter()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            size, status = len(answer.read()), answer.status
            seconds.append(time.perf_counter() - started)
        after = percentiles(np.array(seconds[1:]))
        figures[path] = {"status": status, "first_ms": seconds[0] * 1e3, **after, "kB": size / 1e3}
        figures[path].pop("queries")
        tell(path, figures[path])
    return figures


def measure_loads(
    url: str, uri: Path, paths: list[str], clients: int, seconds: float, seed: int, *, use_wrk: bool
) -> Figures:
    """Answers of many clients: alone, while tasks are added, and while uploads trickle in too."""
    how = "wrk" if use_wrk and shutil.which("wrk") else "connections of this program"
    click.echo(f"\n{clients} clients by {how}, {seconds:g} s each")
    run = {"clients": clients, "seconds": seconds, "use_wrk": use_wrk, "seed": seed}
    figures: Figures = {"version": tell("version, alone", load(url, ["/api/v1/version"], **run))}
    figures["nearest"] = tell("nearest, alone", load(url, paths, **run))
    with adding(uri, seed) as added:
        figures["nearest, adding"] = load(url, paths, **run)
    figures["nearest, adding"]["added_per_s"] = added[0] / seconds
    tell("nearest, while tasks are added", figures["nearest, adding"])
    with adding(uri, seed + 1) as added, trickling(url):
        figures["nearest, adding, uploads"] = load(url, paths, **run)
    figures["nearest, adding, uploads"]["added_per_s"] = added[0] / seconds
    tell(f"the same, and {SLOW_UPLOADS} slow uploads", figures["nearest, adding, uploads"])
    return figures


@contextmanager
def adding(uri: Path, seed: int) -> Iterator[list[int]]:
    """Have another process add tasks one by one; in the end the list holds how many."""
    context = multiprocessing.get_context("spawn")
    stop, numbers, added = context.Event(), context.Queue(), [0]
    process = context.Process(target=add_until, args=(str(uri), seed, stop, numbers))
    process.start()
    numbers.get()  # it has begun
    try:
        yield added
    finally:
        stop.set()
        added[0] = numbers.get()
        process.join()


def add_until(uri: str, seed: int, stop: Event, numbers: Any) -> None:
    """Add tasks one by one until asked to stop, then say how many."""
    store, tasks, count = Store(uri), SyntheticTasks(seed + 1000), 0
    space_id = TaskRegistry(uri).space().space_id
    first = (100 + seed) * 1000 * CHUNK_ROWS  # numbers that no task has
    entries = [entry for chunk in tasks.chunks(CHUNK_ROWS, first=first) for entry in tasks.records(chunk)]
    numbers.put(0)
    while not stop.is_set() and count < len(entries):
        store.add_task(entries[count][0], space_id, entries[count][1])
        count += 1
    numbers.put(count)


@contextmanager
def trickling(url: str) -> Iterator[None]:
    """Uploads that send a little now and then, and never end."""
    host, port = urlsplit(url).netloc.split(":")
    head = (
        f"POST /api/v1/uploads HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {os.environ['T2V_TOKEN']}\r\n"
        "Content-Type: application/zip\r\nContent-Length: 100000000\r\n\r\n"
    )
    lines = [socket.create_connection((host, int(port))) for _ in range(SLOW_UPLOADS)]
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.02):
            for line in lines:
                line.sendall(b"x" * 2000)

    for line in lines:
        line.sendall(head.encode())
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()
        for line in lines:
            line.close()


def in_process(uri: Path, names: Sequence[int]) -> Figures:
    """The same question without a server, by one caller."""
    registry, seconds = TaskRegistry(uri), []
    registry.nearest(task_name(int(names[0])))
    for number in names[:200]:
        started = time.perf_counter()
        registry.nearest(task_name(int(number)))
        seconds.append(time.perf_counter() - started)
    figures = percentiles(np.array(seconds))
    figures.pop("queries")
    return figures


if __name__ == "__main__":
    main()
