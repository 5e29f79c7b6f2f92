"""The engine ``processes``: work in processes of this machine that keep their networks.

Each is a fresh interpreter, so nothing is forked and scripts need no ``__main__`` guard. One that dies takes no
other along: its work is begun again in a fresh one, ``retries`` times, and then reported as an error.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from typing import NamedTuple

from indexer.engines.work import EngineSettings, Outcome, Outcomes, Work
from indexer.engines.worker import READY
from indexer.errors import EngineError

DEPTH = 2
"""Pieces of work that a process has: one it is at, one that it goes on with while nobody looks."""

TICK_SECONDS = 1.0
MAX_FAILED_STARTS = 3
STOP_SECONDS = 5.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class _Asked(NamedTuple):
    number: int
    work: Work
    attempts: int


def run_processes(works: Iterable[Work], settings: EngineSettings) -> Outcomes:
    """Outcomes of work, as they come; at most ``DEPTH`` pieces a process are taken ahead.

    Raises:
        EngineError: If no process can be started.
    """
    pool = _Pool(works, settings)
    try:
        yield from pool.run()
    finally:
        pool.stop()


class _Worker:
    """One process, and what it was given."""

    def __init__(self, threads: int) -> None:
        self.asked: deque[_Asked] = deque()
        self.ready = False
        ours, theirs = Pipe()
        with theirs:
            # Its output goes to stderr, and its group is its own: an interrupt is for whoever started it.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "indexer.engines.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=[theirs.fileno()],
                env=_environment(threads),
                start_new_session=True,
            )
        self.connection: Connection = ours

    def ask(self, asked: _Asked) -> None:
        """Give it something to do; one that has died is noticed where it is listened to."""
        self.asked.append(asked)
        try:
            self.connection.send((asked.number, asked.work))
        except OSError:
            return

    def stop(self) -> None:
        """End it, whatever it is at."""
        self.connection.close()
        self.process.kill()
        self.process.wait(STOP_SECONDS)


class _Pool:
    def __init__(self, works: Iterable[Work], settings: EngineSettings) -> None:
        self._works: Iterator[tuple[int, Work]] = enumerate(works)
        self._settings = settings
        self._again: deque[_Asked] = deque()  # what a process had that died
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def run(self) -> Outcomes:
        """See ``run_processes``."""
        while True:
            self._feed()
            busy = {worker.connection: worker for worker in self._workers if worker.asked}
            if not busy:
                return
            heard = wait(list(busy), timeout=TICK_SECONDS)
            if not heard:
                yield None
            for connection in heard:
                if isinstance(connection, Connection) and (outcome := self._hear(busy[connection])):
                    yield outcome

    def stop(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.stop()

    def _feed(self) -> None:
        """Give every process something to go on with, those first that have least; start those it takes."""
        for depth in range(1, DEPTH + 1):
            for number in range(self._settings.jobs or num_cores()):
                if number < len(self._workers) and len(self._workers[number].asked) >= depth:
                    continue
                asked = self._next()
                if asked is None:
                    return
                if number >= len(self._workers):
                    self._workers.append(_Worker(self._settings.threads))
                    number = len(self._workers) - 1
                self._workers[number].ask(asked)

    def _next(self) -> _Asked | None:
        if self._again:
            return self._again.popleft()
        number, work = next(self._works, (-1, None))
        return None if work is None else _Asked(number, work, 1)

    def _hear(self, worker: _Worker) -> Outcome | None:
        """The outcome that a process sends; ``None`` if it sends none."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._replace(worker)
        if message == READY:
            worker.ready, self._failed_starts = True, 0
            return None
        asked = worker.asked.popleft()
        return Outcome(message.number, message.value, message.error, message.seconds, asked.attempts)

    def _replace(self, worker: _Worker) -> Outcome | None:
        """Put what a dead process had to a fresh one, and give up on what killed too many.

        Raises:
            EngineError: If processes die as soon as they are started.
        """
        worker.stop()
        self._failed_starts += not worker.ready
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise EngineError(
                f"processes cannot be started: {MAX_FAILED_STARTS} ended ({_ending(worker)}) before they could "
                "compute; what they wrote to stderr says why"
            )
        self._workers.remove(worker)
        lost, *others = worker.asked
        self._again.extendleft(reversed(others))
        if worker.ready and lost.attempts > self._settings.retries:
            error = EngineError(
                f"{lost.work.title}: the process that computed it {_ending(worker)}, {lost.attempts} times of "
                f"{lost.attempts}; if the memory does not suffice, use fewer jobs or a smaller memory budget"
            )
            return Outcome(lost.number, error=error, attempts=lost.attempts)
        self._again.appendleft(lost._replace(attempts=lost.attempts + worker.ready))
        return None


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ending(worker: _Worker) -> str:
    code = worker.process.returncode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _environment(threads: int) -> dict[str, str]:
    """The environment of this process, with so many threads and its folders of modules."""
    folders = [folder for folder in sys.path if folder]
    return {
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        "PYTHONPATH": os.pathsep.join(folders),
    }
