"""Interrupt the Python API at random lines, and see that the lock is free and the next write works.

    python scripts/torture/interrupts.py --interrupts 1000

One process does one thing after another with one registry: adds tasks, results and tags, removes, restores,
purges, imports, exports, optimizes, asks. Each is interrupted once, as by Ctrl-C: every second time at a random
line of ours, else by a signal at a random moment, wherever the process is then. After each, another open file
must get the lock at once, and the next write must work and be read back; at the end the registry must be whole.
Printed is how many there were of each, and what was wrong.
"""

import fcntl
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from machine import print_machine, save_figures

import registry
from registry import TaskRegistry
from registry.errors import NotFoundError
from registry.storage.locks import LOCK_FILE

OURS = str(Path(registry.__file__).parent)
OF_A_KILL = {"orphan", "dangling", "stale"}  # what a write that was cut short may leave


class Interrupter:
    """Raises ``KeyboardInterrupt`` in what it runs; knows how many lines and seconds each kind takes."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator
        self._lines: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def at_line(self, name: str, work: Callable[[], Any]) -> bool:
        """Interrupt at a random line of ours; whether it came to that."""
        return self._traced(name, work, self._random.randint(1, self._lines[name]))

    def at_moment(self, name: str, work: Callable[[], Any]) -> bool:
        """Interrupt at a random moment; whether it came to that."""
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(1e-4, self._seconds[name]))
            work()
            return False
        except KeyboardInterrupt:
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def learn(self, name: str, work: Callable[[], Any]) -> None:
        """Run it once, and count."""
        start = time.perf_counter()
        self._traced(name, work, 0)
        self._seconds[name] = time.perf_counter() - start

    def _traced(self, name: str, work: Callable[[], Any], stop: int) -> bool:
        lines = 0

        def local(frame: Any, event: str, arg: Any) -> Any:
            nonlocal lines
            if event == "line":
                lines += 1
                if lines == stop:
                    raise KeyboardInterrupt
            return local

        sys.settrace(lambda frame, event, arg: local if frame.f_code.co_filename.startswith(OURS) else None)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
            self._lines[name] = max(lines, self._lines.get(name, 1))
        return False


class Works:
    """What is interrupted, by name; each may be done again and again."""

    def __init__(self, place: Path, bundle: Path) -> None:
        self.registry = TaskRegistry(place / "registry")
        self._number = 0
        self._data, self._bundle, self._export = "sklearn:digits", bundle, place / "out.t2v"

    def all(self) -> dict[str, Callable[[], Any]]:
        """Names and functions."""
        one, expert = self.registry, "resnet14w32.mnist"
        return {
            "add": lambda: one.add_task(f"t{self._next()}", self._data, max_samples=20),
            "add again": lambda: one.add_task("base", self._data, max_samples=20 + self._next() % 1000),
            "tag": lambda: one.tag_task("base", add=[f"n{self._next()}"]),
            "alias": lambda: one.alias_task("base", f"a{self._next()}"),
            "result": lambda: one.add_result("base", expert, accuracy=self._next() / 1e6),
            "remove": lambda: self._quietly(one.remove_task, "other"),
            "restore": lambda: self._quietly(one.restore_task, "other"),
            "purge": lambda: self._quietly(lambda: one.remove_task(f"t{self._number}", purge=True)),
            "import": lambda: one.import_bundle(self._bundle, on_conflict="take"),
            "export": lambda: one.export(self._export),
            "optimize": one.optimize,
            "nearest": lambda: one.nearest("base"),
            "recommend": lambda: one.recommend("base", published=False),
        }

    def _next(self) -> int:
        self._number += 1
        return self._number

    @staticmethod
    def _quietly(work: Callable[..., Any], *names: str) -> None:
        try:
            work(*names)
        except NotFoundError:
            return


def is_free(place: str) -> bool:
    """Whether another process could take the lock."""
    with Path(place, LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _chain(error: BaseException | None) -> set[type]:
    """The kinds of an error, and of those that it came from."""
    kinds = set[type]()
    while error:
        kinds.add(type(error))
        error = error.__cause__ or error.__context__
    return kinds


def torture(place: Path, interrupts: int, seed: int) -> dict[str, Any]:
    """Interrupt so many times; counts."""
    source = TaskRegistry(place / "source")
    source.add_task("imported", "sklearn:digits", max_samples=24)
    source.export(place / "source.t2v")
    works = Works(place, place / "source.t2v")
    one, generator = works.registry, random.Random(seed)
    for name in ("base", "other"):
        one.add_task(name, "sklearn:digits", max_samples=20)
    interrupter, counts, wrong = Interrupter(generator), Counter[str](), Counter[str]()
    for name, work in works.all().items():
        interrupter.learn(name, work)
    done = number = 0
    while done < interrupts:
        number += 1
        name, work = generator.choice(list(works.all().items()))
        how = interrupter.at_line if number % 2 else interrupter.at_moment
        try:
            if not how(name, work):
                continue
        except Exception as error:  # an interrupt may be turned into another error, but nothing may follow it
            wrong["failed without interrupt"] += KeyboardInterrupt not in _chain(error)
            click.echo(f"{name}: {type(error).__name__}: {error}", err=True)
        done += 1
        counts[f"{name}, at a {'line' if number % 2 else 'moment'}"] += 1
        wrong["lock held"] += not is_free(one.uri)
        word = f"after-{done}"
        try:
            one.tag_task("base", add=[word], remove=[f"after-{done - 1}"])
            wrong["next write lost"] += word not in TaskRegistry(one.uri).task("base").tags
        except Exception as error:  # whatever it is, it is counted and shown
            wrong["next write failed"] += 1
            click.echo(f"after {name}: {type(error).__name__}: {error}", err=True)
    problems = Counter(problem.kind for problem in one.verify())
    wrong["problems"] = sum(number for kind, number in problems.items() if kind not in OF_A_KILL)
    wrong["problems after repair"] = sum(
        p.kind != "dangling" for p in (one.verify(repair=True), one.verify())[1]
    )
    return {
        "interrupts": done,
        "of": dict(sorted(counts.items())),
        "left": dict(problems),
        "wrong": dict(wrong),
    }


@click.command()
@click.option("--interrupts", default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="40 interrupts.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures to a file.")
def main(interrupts: int, seed: int, quick: bool, json_file: Path | None) -> None:
    """Run it; see the first lines of this file.

    Raises:
        SystemExit: If anything was wrong.
    """
    print_machine()
    with tempfile.TemporaryDirectory() as scratch:
        figures = torture(Path(scratch), 40 if quick else interrupts, seed)
    for name, value in figures.items():
        click.echo(f"{name:12} {value}")
    save_figures(json_file, figures)
    if any(figures["wrong"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
