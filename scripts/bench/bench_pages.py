"""How long the pages of a large registry take in a real browser, and how smoothly its map moves.

    python scripts/bench/bench_pages.py [--tasks 10000] [--quick] [--seed 0] [--json FILE]

``t2v serve`` in a process of its own over synthetic tasks (``synthetic_tasks.py``) beside the starter content.
A headless Chromium without a graphics processor waits for the map, then opens each page ``REPEATS`` times.
Time is from the start of the navigation to the end of the load event; what a page loads later is waited for
between. Beside it, as a peer, that of the bare answer without a browser.
"""

import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browsing
import click
from machine import print_machine, save_figures
from synthetic_tasks import SyntheticTasks, task_name

from registry import TaskRegistry
from registry.storage.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

REPEATS = 7
QUICK_TASKS = 1000
FRAME_SECONDS = 1.0
MAP_MILLISECONDS = 1_800_000
PAGES = {
    "tasks": "/",
    "tasks, searched and sorted": "/?search=task0000&sort=num_samples&order=down",
    "tasks, filtered": "/?where=num_classes+%3C+20+and+tags+%3D+%27photo%27",
    "tasks, last page": "/?page={last}",
    "task": "/tasks/{task}",
    "task with results": "/tasks/mnist",
    "recommendation": "/tasks/mnist/recommendation",
    "history": "/tasks/mnist/history",
    "map (then loads its points)": "/map",
    "map around a task": "/map?task=mnist",
    "experts": "/experts",
    "expert": "/experts/resnet14w32.mnist",
    "results": "/results",
    "leaderboard": "/results?task=mnist",
    "compare": "/compare?a=mnist&b={task}",
    "recommend": "/recommend",
    "login": "/login",
}
LOAD_EVENT = "performance.getEntriesByType('navigation')[0].loadEventEnd"
FRAMES = """async (seconds) => {
    const map = window.taskMap, began = performance.now();
    let frames = 0;
    while (performance.now() - began < 1000 * seconds) {
        map.view.x += 2 / map.view.scale;
        map.redraw();
        await new Promise((next) => requestAnimationFrame(next));
        frames++;
    }
    return frames / seconds;
}"""


@click.command()
@click.option("--quick", is_flag=True, help=f"{QUICK_TASKS:,} tasks.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True)
@click.option("--tasks", "num_tasks", default=10_000, show_default=True)
def main(quick: bool, json_path: Path | None, seed: int, num_tasks: int) -> None:
    """Print milliseconds of every page, and frames per second of the map."""
    about = print_machine()
    num_tasks = QUICK_TASKS if quick else num_tasks
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        total = build(work / "registry", seed, num_tasks)
        with browsing.open_server(work / "registry", work) as server, browsing.open_browser() as browser:
            page = browser.new_context(base_url=server.url, viewport={"width": 1280, "height": 900}).new_page()
            places = {"last": -(-total // 50), "task": task_name(num_tasks // 2)}
            addresses = {name: path.format(**places) for name, path in PAGES.items()}
            moved = measure_map(page)
            pages = {name: measure_page(page, server.url, path) for name, path in addresses.items()}
    click.echo(f"{total:,} tasks; milliseconds to the load event, {REPEATS} times, and of the bare answer")
    for name, of_page in pages.items():
        click.echo(
            f"{name:30}first {of_page['first']:6.0f}  median {of_page['median']:6.0f}  "
            f"worst {of_page['worst']:6.0f}  answer {of_page['answer']:6.1f}"
        )
    click.echo(f"map: laid out and drawn after {moved['ready_seconds']:.1f} s the first time, "
               f"{moved['again_seconds']:.2f} s the next; {moved['frame_ms']:.1f} ms a frame, "
               f"{moved['frames_per_second']:.0f} frames a second while it is moved")  # fmt: skip
    figures = {"tasks": total, "pages_ms": pages, "map": moved}
    save_figures(json_path, {"machine": about, "seed": seed, **figures})


def build(folder: Path, seed: int, num_tasks: int) -> int:
    """Make the registry; returns how many tasks it has."""
    registry = TaskRegistry(folder)
    registry.init()
    store, drawn = Store(folder), SyntheticTasks(seed)
    (space,) = store.spaces()
    for chunk in drawn.chunks(num_tasks):
        store.add_tasks(drawn.records(chunk), space.space_id)
    return len(registry.tasks())


def measure_page(page: "Page", url: str, path: str) -> dict[str, float]:
    """Milliseconds until a page has loaded, and of its answer alone, median."""
    loads = []
    for _ in range(REPEATS):
        page.goto(path)
        loads.append(float(page.evaluate(LOAD_EVENT)))
        browsing.settle(page)
    answers = [_answer_milliseconds(f"{url}{path}") for _ in range(REPEATS)]
    return {
        "first": loads[0],
        "median": statistics.median(loads),
        "worst": max(loads),
        "answer": statistics.median(answers),
    }


def measure_map(page: "Page") -> dict[str, Any]:
    """Seconds until the map is there, and how it moves."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        page.goto("/map")
        page.locator("#map[data-ready]").wait_for(timeout=MAP_MILLISECONDS)
        seconds.append(time.perf_counter() - began)
    frames_per_second = float(page.evaluate(FRAMES, FRAME_SECONDS))
    return {
        "ready_seconds": seconds[0],
        "again_seconds": seconds[1],
        "frames_per_second": frames_per_second,
        "frame_ms": float(page.get_attribute("#map", "data-frame") or "nan"),
    }


def _answer_milliseconds(address: str) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(address) as answer:
        answer.read()
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
