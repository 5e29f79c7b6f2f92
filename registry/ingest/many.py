"""Many tasks at once: what is done already is left alone, and one that fails stops no other."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from registry.errors import IngestError, StorageError
from registry.ingest.data import settings_key
from registry.ingest.manifests import TaskRow
from registry.ingest.runs import EmbeddingRun
from registry.ingest.writer import TaskWriter, has_content, refreshed
from registry.records import TaskRecord
from registry.storage.store import Store
from registry.task_answers import AddedMany, AddedOfMany, ManyProgress, Report

CHECKING_THREADS = 8


def add_rows(
    rows: list[TaskRow],
    problems: Sequence[str],
    run: EmbeddingRun,
    writer: TaskWriter,
    store: Store,
    *,
    report: Report | None,
    start: float,
) -> AddedMany:
    """Embed the rows that are not registered with this data and these settings, and write them."""
    tally = _Tally(len(rows) + len(problems), len(problems), report, start)
    left = _without_unchanged(rows, run, store, tally, writer.tags)
    tally.begin_embedding(len(left))
    _embed_all(left, run, writer, tally)
    return tally.summary(rows, run, writer, problems)


def _without_unchanged(
    rows: list[TaskRow], run: EmbeddingRun, store: Store, tally: "_Tally", tags: Sequence[str]
) -> list[TaskRow]:
    """The rows that are to be embedded; the others are reported."""
    names = {row.name for row in rows}
    latest = store.latest_tasks(names)
    embedded = store.embedded_keys(run.space_id, names)
    registered = {name: task for name, task in latest.items() if (name, task.version) in embedded}
    if not registered:
        return rows

    def check(row: TaskRow) -> AddedOfMany | None:
        task = registered.get(row.name)
        return _unchanged(row, task, run) if task else None

    left = []
    with ThreadPoolExecutor(CHECKING_THREADS) as pool:
        for row, unchanged in zip(rows, pool.map(check, rows), strict=True):
            if unchanged:
                _, notes = refreshed(store, registered[row.name], row.data, (*row.tags, *tags))
                tally.count([replace(unchanged, notes=notes)])
            else:
                left.append(row)
    return left


def _unchanged(row: TaskRow, task: TaskRecord, run: EmbeddingRun) -> AddedOfMany | None:
    """The outcome of a row whose data and settings are those of a task; ``None`` if they are not."""
    start = time.monotonic()
    settings = run.settings_of(**row.options)
    if task.settings != settings_key(settings):  # reading the data can be saved
        return None
    try:
        fingerprint = run.fingerprint(row.data, settings)
    except IngestError:  # whoever embeds it says what is wrong
        return None
    if not has_content(task, fingerprint, task.settings):
        return None
    seconds = time.monotonic() - start
    return AddedOfMany(row.name, row.place, row.data, "unchanged", task.version, seconds=seconds)


def _embed_all(rows: list[TaskRow], run: EmbeddingRun, writer: TaskWriter, tally: "_Tally") -> None:
    """Embed and write; whatever ends it, what is embedded is written, unless a ``StorageError`` forbids."""

    def datasets() -> Iterator[tuple[str, Any]]:
        for row in rows:
            yield row.data, run.settings_of(**row.options)

    outcomes = run.embed(datasets())
    try:
        for outcome in outcomes:
            if outcome and outcome.embedding:
                writer.take(rows[outcome.number], outcome.embedding, outcome.seconds)
            elif outcome:
                row = rows[outcome.number]
                error = str(outcome.error)
                tally.count(
                    [AddedOfMany(row.name, row.place, row.data, "failed", seconds=outcome.seconds, error=error)]
                )
            tally.count(writer.write() if writer.is_due else [])
    except StorageError:
        raise
    except BaseException:
        tally.count(writer.write())
        raise
    finally:
        outcomes.close()  # type: ignore[attr-defined]
    tally.count(writer.write())


@dataclass
class _Tally:
    """The outcomes of a run so far, by name, and how fast they come."""

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

    def count(self, news: Sequence[AddedOfMany]) -> None:
        """Take and report outcomes that are certain."""
        for one in news:
            self.by_name[one.task] = one
            self.counts[one.status] += 1
        if self.report:
            self.report(self.progress(), news)

    def progress(self) -> ManyProgress:
        """How far the run is."""
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
        self, rows: Sequence[TaskRow], run: EmbeddingRun, writer: TaskWriter, problems: Sequence[str]
    ) -> AddedMany:
        """The outcome of the whole run."""
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
