"""Many tasks at once: what is done already is left alone, and one that fails stops no other."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from registry.answers import AddedMany, AddedOfMany, ManyProgress
from registry.errors import IngestError, InvalidRecordError, StorageError
from registry.ingest import ingest, manifests
from registry.ingest.manifests import TaskRow
from registry.ingest.runs import EmbeddingRun, make_run
from registry.ingest.writer import BATCH, TaskWriter
from registry.library.lifecycle import Lifecycle
from registry.options import EngineOptions, ManyOptions
from registry.records import TaskRecord, checked_name

Report = Callable[[ManyProgress, Sequence[AddedOfMany]], None]
"""Called as ``report(progress, news)``: the news are tasks that are on disk by now, or have failed."""

CHECKING_THREADS = 8
MAX_PROBLEMS_TOLD = 100


class ManyTasks(Lifecycle, ABC):
    """The part of ``TaskRegistry`` that adds many tasks."""

    @abstractmethod
    def _create_if_missing(self) -> None:
        """Make the registry, with the starter content, unless it is there."""

    def add_many(
        self,
        tasks: str | Path | Iterable[TaskRow],
        *,
        tags: Sequence[str] = (),
        skip_bad: bool = False,
        batch: int = BATCH,
        report: Report | None = None,
        **options: Unpack[ManyOptions],
    ) -> AddedMany:
        """Embed many labelled datasets and remember them.

        A task that is registered with the same data and settings is left alone; its sample is read to find that
        out, but not embedded. So a run that was interrupted, or in which tasks failed, is finished by the same
        call. What was reported as added is on disk. If the run is interrupted, what is embedded by then is
        written first.

        Args:
            tasks: A .csv, .parquet or .jsonl file, a folder of task folders, see ``registry.ingest.manifests``,
                or rows that a program made.
            tags: Free words for all of them, besides their own.
            skip_bad: Go on without rows that are no task; without it nothing is done if there is one.
            batch: Embeddings of a commit, at least 1; fewer where they come slowly.
            report: Called about once a second, and whenever there is news.
            **options: How to embed, as of ``add_task``, and where, see ``registry.options.EngineOptions``.

        Returns:
            What became of each task.

        Raises:
            InvalidRecordError: If the file cannot be read, a tag is not allowed, or a row is no task.
            IngestError: If the probe cannot be loaded, an option is out of its range, or an engine cannot work.
            NotFoundError: If there is no such probe, estimator or engine.
            MissingExtraError: If the engine needs a library that is not installed.
            StorageError: If the registry cannot be written.
        """
        start = time.monotonic()
        if batch < 1:
            raise InvalidRecordError(f"batch must be at least 1, got {batch}")
        all_tags = tuple(checked_name("tag", tag) for tag in tags)
        rows, problems = _rows_of(tasks)
        if problems and not skip_bad:
            raise InvalidRecordError(_told(problems))
        given: dict[str, Any] = dict(options)
        where = {name: given.pop(name) for name in EngineOptions.__annotations__ if name in given}
        self._store.check_place()
        run = make_run(ingest.make_settings(**given), **where)
        self._create_if_missing()
        if run.space_id not in {space.space_id for space in self._store.spaces()}:
            self._store.add_space(run.space_record())
        writer = TaskWriter(self._store, run.space_id, tags=all_tags, batch=batch)
        found = _Found(len(rows) + len(problems), len(problems), report, start)
        left = self._without_unchanged(rows, run, found)
        found.begin_embedding(len(left))
        _embed_all(left, run, writer, found)
        return found.summary(rows, run, writer, problems)

    def _without_unchanged(self, rows: list[TaskRow], run: EmbeddingRun, found: "_Found") -> list[TaskRow]:
        """The rows that are to be embedded; the others are told."""
        names = {row.name for row in rows}
        latest = self._store.latest_tasks(names)
        embedded = self._store.embedded_keys(run.space_id, names)
        known = {name: task for name, task in latest.items() if (name, task.version) in embedded}
        if not known:
            return rows

        def check(row: TaskRow) -> AddedOfMany | None:
            task = known.get(row.name)
            return _unchanged(row, task, run) if task else None

        left = []
        with ThreadPoolExecutor(CHECKING_THREADS) as pool:
            for row, unchanged in zip(rows, pool.map(check, rows), strict=True):
                if unchanged:
                    found.tell([unchanged])
                else:
                    left.append(row)
        return left


def _unchanged(row: TaskRow, task: TaskRecord, run: EmbeddingRun) -> AddedOfMany | None:
    """Say so if a task is of the data and settings of a row."""
    start = time.monotonic()
    settings = run.settings_of(**row.options)
    if task.settings != ingest.settings_key(settings):
        return None
    try:
        fingerprint = run.fingerprint(row.data, settings)
    except IngestError:  # whoever embeds it says what is wrong
        return None
    if fingerprint != task.fingerprint:
        return None
    seconds = time.monotonic() - start
    return AddedOfMany(row.name, row.place, row.data, "unchanged", task.version, seconds=seconds)


def _embed_all(rows: list[TaskRow], run: EmbeddingRun, writer: TaskWriter, found: "_Found") -> None:
    """Embed and write; whatever ends it, what is embedded by then is written.

    Raises:
        StorageError: If that is what cannot be done.
    """

    def datasets() -> Iterator[tuple[str, Any]]:
        for row in rows:
            yield row.data, run.settings_of(**row.options)

    outcomes = run.embed(datasets())
    try:
        for outcome in outcomes:
            if outcome and outcome.embedding:
                writer.take(rows[outcome.number], outcome)
            elif outcome:
                row = rows[outcome.number]
                error = str(outcome.error)
                found.tell(
                    [AddedOfMany(row.name, row.place, row.data, "failed", seconds=outcome.seconds, error=error)]
                )
            found.tell(writer.write() if writer.is_due else [])
    except StorageError:
        raise
    except BaseException:
        found.tell(writer.write())
        raise
    finally:
        outcomes.close()  # type: ignore[attr-defined]
    found.tell(writer.write())


@dataclass
class _Found:
    """What is known of a run so far."""

    total: int
    num_problems: int
    report: Report | None
    start: float
    by_name: dict[str, AddedOfMany] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"added": 0, "unchanged": 0, "failed": 0})
    checking_since: float = field(default_factory=time.monotonic)
    embedding_since: float = 0.0
    to_embed: int = 0
    checked: int = 0

    def begin_embedding(self, number: int) -> None:
        """From here on so many tasks are embedded."""
        self.embedding_since, self.to_embed = time.monotonic(), number
        self.checked = len(self.by_name)

    def tell(self, news: Sequence[AddedOfMany]) -> None:
        """Take and report what is certain."""
        for one in news:
            self.by_name[one.task] = one
            self.counts[one.status] += 1
        if self.report:
            self.report(self.progress(), news)

    def progress(self) -> ManyProgress:
        """How far it is."""
        rate = self._rate()
        left = self.to_embed - self._embedded
        return ManyProgress(
            total=self.total,
            added=self.counts["added"],
            unchanged=self.counts["unchanged"],
            failed=self.counts["failed"] + self.num_problems,
            seconds=time.monotonic() - self.start,
            per_second=rate,
            seconds_left=left / rate if rate else None,
        )

    @property
    def _embedded(self) -> int:
        return len(self.by_name) - self.checked if self.embedding_since else 0

    def _rate(self) -> float:
        seconds = time.monotonic() - self.embedding_since
        return self._embedded / seconds if self._embedded and seconds > 0 else 0.0

    def summary(
        self,
        rows: Sequence[TaskRow],
        run: EmbeddingRun,
        writer: TaskWriter,
        problems: Sequence[str],
    ) -> AddedMany:
        """What all of it did."""
        progress = self.progress()
        return AddedMany(
            asked=progress.total,
            added=progress.added,
            unchanged=progress.unchanged,
            failed=progress.failed,
            space=run.space_id,
            engine=run.engine,
            commits=writer.commits,
            check_seconds=self.embedding_since - self.checking_since,
            seconds=progress.seconds,
            per_second=progress.per_second,
            problems=tuple(problems),
            tasks=tuple(self.by_name[row.name] for row in rows),
        )


def _rows_of(tasks: str | Path | Iterable[TaskRow]) -> tuple[list[TaskRow], list[str]]:
    """Rows, and what is wrong with others."""
    if isinstance(tasks, str | Path):
        return manifests.read_task_rows(Path(tasks))
    return manifests.checked_rows(tasks), []


def _told(problems: Sequence[str]) -> str:
    """All that is wrong with the rows of a file, in one sentence."""
    more = len(problems) - MAX_PROBLEMS_TOLD
    shown = "; ".join(problems[:MAX_PROBLEMS_TOLD]) + (f"; and {more} more" if more > 0 else "")
    rows = "1 row is no task" if len(problems) == 1 else f"{len(problems)} rows are no tasks"
    return f"{rows}, so nothing was started: {shown}; mend them, or go on without them with --skip-bad"
