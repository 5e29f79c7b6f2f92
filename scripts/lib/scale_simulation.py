"""A run of `t2v task add-many` on many workers, simulated event by event.

What is simulated is what `indexer/engines/processes.py` and `registry/ingest/writer.py` do, and closely enough
what `indexer/engines/ray_cluster.py` does. A driver hands tasks out in order, `depth` to a worker, hears of
each one that is done, and writes embeddings in one commit for `batch` of them or after `max_wait` seconds.
While it hears or writes it does nothing else, so a worker that has no task left waits. A worker that dies loses
the task it is at; that task and those it had ahead go to others, and a fresh worker takes its place.

Times are seconds. Axes: N tasks, K workers.
"""

import heapq
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DONE, DEATH, START, LOOK = range(4)
"""What happens: a worker is done with a task, dies, is ready; the driver looks whether a commit is due."""

WINDOW_SECONDS = 60.0


@dataclass(frozen=True)
class Cluster:
    """What a run is made of.

    Attributes:
        workers: K.
        start: From the start of a worker until it is ready.
        mean_life: Mean time until a worker dies, exponential; infinite without failures.
        slow_share: Share of workers that are slow.
        slowdown: How much longer tasks take on those.
        straggle_share: Share of attempts that straggle.
        straggle_shape: Of the Pareto law of how much longer these take, twice as long or more,
        straggle_most: and so many times as long at most.
        depth: Tasks that a worker has, with the one it is at.
        hear: Of the driver, for each task: to hear of it, and to hand another one out.
        batch: Embeddings of a commit.
        max_wait: Longest that an embedding is kept back.
        commit: Of each commit.
        commit_row: Of each embedding in it.
        commit_table: Of each embedding that is in the registry by then, in each commit.
    """

    workers: int
    start: float = 0.0
    mean_life: float = np.inf
    slow_share: float = 0.0
    slowdown: float = 1.0
    straggle_share: float = 0.0
    straggle_shape: float = 1.5
    straggle_most: float = 20.0
    depth: int = 2
    hear: float = 0.0
    batch: int = 64
    max_wait: float = 5.0
    commit: float = 0.0
    commit_row: float = 0.0
    commit_table: float = 0.0


@dataclass
class Run:
    """What came of a simulated run; worker-seconds unless it says otherwise.

    Attributes:
        seconds: From the start to the last commit.
        busy: Spent on attempts that were finished.
        lost: Spent on attempts that a death ended.
        starting: Spent on starting workers.
        hearing: Seconds that the driver spent on hearing and handing out.
        committing: Seconds that it spent on commits.
        tail: Seconds from when the last task was handed out for the first time to the end.
        commits: Number of commits.
        most_commits: Most commits in a minute, per second.
        deaths: Number of workers that died.
        attempts: Number of attempts that were begun.
        most_waiting: Most embeddings that waited for the driver or for a commit.
        finished: ``[N]`` how often each task was finished; once, if all is well.
        workers: K.
    """

    seconds: float = 0.0
    busy: float = 0.0
    lost: float = 0.0
    starting: float = 0.0
    hearing: float = 0.0
    committing: float = 0.0
    tail: float = 0.0
    commits: int = 0
    most_commits: float = 0.0
    deaths: int = 0
    attempts: int = 0
    most_waiting: int = 0
    finished: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    workers: int = 0

    @property
    def idle(self) -> float:
        """Worker-seconds without a task."""
        return self.workers * self.seconds - self.busy - self.lost - self.starting

    @property
    def efficiency(self) -> float:
        """Share of the worker-seconds that went into what was finished."""
        return self.busy / (self.workers * self.seconds) if self.seconds else 1.0


def simulate(costs: NDArray[np.float64], cluster: Cluster, seed: int = 0) -> Run:
    """Simulate a run.

    Args:
        costs: ``[N]`` that each task takes on a worker that is not slow, in the order of the manifest.
        cluster: What it runs on.
        seed: Of deaths, slow workers and stragglers; the same seed gives the same run.
    """
    return _Simulation(costs, cluster, seed).run()


class _Simulation:
    """The state of a run."""

    def __init__(self, costs: NDArray[np.float64], cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._generator = np.random.default_rng(seed)
        self._costs = costs.tolist()
        self._next = 0
        self._again: deque[int] = deque()
        self._events: list[tuple[float, int, int, int, int]] = []  # time, order, kind, worker, its life
        self._order = 0
        count = cluster.workers
        self._life = [0] * count
        self._ready = [False] * count
        self._working = [False] * count
        self._queue: list[deque[int]] = [deque() for _ in range(count)]
        self._began = [0.0] * count
        slow = self._generator.random(count) < cluster.slow_share
        self._pace = np.where(slow, cluster.slowdown, 1.0).tolist()
        self._free = 0.0  # when the driver is
        self._waiting = 0
        self._since = 0.0
        self._written = 0
        self._commits: deque[tuple[float, int]] = deque()  # when each is over, and its embeddings
        self._in_commits = 0
        self._minutes: Counter[int] = Counter()
        self._last_handed = 0.0
        self._done = 0
        self._run = Run(finished=np.zeros(len(costs), np.int64), workers=count)

    def run(self) -> Run:
        """Go on until every task is written."""
        for worker in range(self._cluster.workers):
            self._start(worker, 0.0)
        for _ in range(self._cluster.depth):  # each has one before any has two
            for worker in range(self._cluster.workers):
                self._hand(worker, 0.0)
        while self._done < len(self._costs):
            time, _, kind, worker, life = heapq.heappop(self._events)
            if kind == LOOK:
                self._look(time)
            elif life == self._life[worker]:
                (self._finish if kind == DONE else self._die if kind == DEATH else self._begin)(worker, time)
        if self._waiting:
            self._write(self._free)
        run = self._run
        run.seconds = self._free if self._costs else 0.0
        run.tail = run.seconds - self._last_handed
        run.most_commits = max(self._minutes.values(), default=0) / WINDOW_SECONDS
        self._settle(run.seconds)
        return run

    def _at(self, time: float, kind: int, worker: int = 0) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, kind, worker, self._life[worker]))

    def _start(self, worker: int, time: float) -> None:
        self._ready[worker], self._began[worker] = False, time
        self._at(time + self._cluster.start, START, worker)
        if np.isfinite(self._cluster.mean_life):
            self._at(time + self._generator.exponential(self._cluster.mean_life), DEATH, worker)

    def _begin(self, worker: int, time: float) -> None:
        """A worker is ready, or goes on to its next task."""
        if not self._ready[worker]:
            self._run.starting += time - self._began[worker]
            self._ready[worker] = True
        if self._queue[worker]:
            self._attempt(worker, time)

    def _attempt(self, worker: int, time: float) -> None:
        self._run.attempts += 1
        self._working[worker], self._began[worker] = True, time
        cost = self._costs[self._queue[worker][0]] * self._pace[worker]
        share = self._cluster.straggle_share
        if share and self._generator.random() < share:
            longer = 2 * (1 + self._generator.pareto(self._cluster.straggle_shape))
            cost *= min(longer, self._cluster.straggle_most)
        self._at(time + cost, DONE, worker)

    def _finish(self, worker: int, time: float) -> None:
        """A task is done: its worker goes on with the next, and the driver hears of it when it can."""
        task = self._queue[worker].popleft()
        self._working[worker] = False
        self._run.busy += time - self._began[worker]
        self._run.finished[task] += 1
        self._done += 1
        if self._queue[worker]:
            self._attempt(worker, time)
        heard = self._hear(time)
        if not self._waiting:
            self._since = heard
            self._at(heard + self._cluster.max_wait, LOOK)
        self._waiting += 1
        self._count_waiting(time)
        if self._waiting >= self._cluster.batch:
            self._write(heard)
        self._hand(worker, self._free)

    def _hear(self, time: float) -> float:
        """When the driver, which does one thing after the other, has heard of what happened."""
        self._free = max(self._free, time) + self._cluster.hear
        self._run.hearing += self._cluster.hear
        return self._free

    def _hand(self, worker: int, time: float) -> bool:
        """Give a worker a task, if there is one."""
        if self._again:
            task = self._again.popleft()
        elif self._next < len(self._costs):
            task, self._next = self._next, self._next + 1
            self._last_handed = time
        else:
            return False
        self._queue[worker].append(task)
        if len(self._queue[worker]) == 1 and self._ready[worker]:
            self._at(time, START, worker)
        return True

    def _count_waiting(self, time: float) -> None:
        """Embeddings that are not on disk: those kept back, and those of commits that are not over."""
        while self._commits and self._commits[0][0] <= time:
            self._in_commits -= self._commits.popleft()[1]
        self._run.most_waiting = max(self._run.most_waiting, self._waiting + self._in_commits)

    def _look(self, time: float) -> None:
        if self._waiting and time >= self._since + self._cluster.max_wait:
            self._write(max(time, self._free))

    def _write(self, time: float) -> None:
        """Commit what waits; the driver does nothing else."""
        cluster = self._cluster
        seconds = cluster.commit + cluster.commit_row * self._waiting + cluster.commit_table * self._written
        self._free = max(self._free, time) + seconds
        self._commits.append((self._free, self._waiting))
        self._in_commits += self._waiting
        self._written += self._waiting
        self._waiting = 0
        self._run.committing += seconds
        self._run.commits += 1
        self._minutes[int(self._free // WINDOW_SECONDS)] += 1

    def _die(self, worker: int, time: float) -> None:
        """A worker is gone with what it was at; the driver gives its tasks to whoever asks next."""
        self._run.deaths += 1
        self._life[worker] += 1
        spent = time - self._began[worker]
        if not self._ready[worker]:
            self._run.starting += spent
        elif self._working[worker]:
            self._run.lost += spent
        self._working[worker] = False
        self._again.extendleft(reversed(self._queue[worker]))
        self._queue[worker].clear()
        heard = self._hear(time)
        self._start(worker, heard)
        while len(self._queue[worker]) < self._cluster.depth and self._hand(worker, heard):
            pass

    def _settle(self, end: float) -> None:
        """Count what workers were at when the run ended: starting only, for all tasks are done."""
        for worker, ready in enumerate(self._ready):
            if not ready:
                self._run.starting += max(0.0, end - self._began[worker])
