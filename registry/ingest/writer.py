"""The one writer of task versions: for one task, or for many in few large commits.

Nothing is reported before it is on disk. What ``TaskWriter`` keeps back is written once there are ``batch``
embeddings, or the oldest has waited for some seconds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from registry.ingest.data import IN_MEMORY, absolute_data, settings_key
from registry.ingest.manifests import TaskRow
from registry.ingest.prepare import embedding_record, embedding_warnings, task_record
from registry.options import BATCH
from registry.records import EmbeddingRecord, TaskRecord
from registry.storage.locks import patience
from registry.storage.rows import SheetRecord
from registry.storage.store import Store
from registry.task_answers import AddedOfMany

if TYPE_CHECKING:
    from indexer.records import ContactSheet
    from registry.ingest.prepare import PreparedTask, TaskEmbedding

MAX_WAIT_SECONDS = 5.0
"""Longest that an embedding is kept back: what a killed run has to do again."""


class NamedEmbedding(NamedTuple):
    """An embedding that is to be written under a name; ``tags`` are added to those of earlier versions."""

    name: str
    tags: tuple[str, ...]
    embedding: "TaskEmbedding"


class WrittenTask(NamedTuple):
    """A task version with its embedding as they are on disk; ``new`` is what was not there before."""

    task: TaskRecord
    embedding: EmbeddingRecord
    new: Literal["version", "embedding", "nothing"]
    notes: tuple[str, ...] = ()


def refreshed(
    store: Store, task: TaskRecord, data: str, tags: Sequence[str]
) -> tuple[TaskRecord, tuple[str, ...]]:
    """A task whose content was added again, read from where it is now, with the tags that were given besides.

    Returns:
        The version as it is now, and a sentence for each change.
    """
    place, lacking = absolute_data(data), sorted(set(tags) - set(task.tags))
    notes = []
    if place != task.data and not place.startswith(IN_MEMORY):
        store.move_tasks([task], place)
        notes.append(f"its data is now read from {place}, no longer from {task.data}")
    if lacking:
        store.set_tags(task.name, sorted({*task.tags, *lacking}))
        notes.append(f"it got the tags {', '.join(lacking)}")
    return (store.task(f"{task.name}@{task.version}") if notes else task), tuple(notes)


def sheet_again(
    store: Store, task: TaskRecord, prepared: "PreparedTask", *, thumbnails: bool
) -> tuple[str, ...]:
    """Keep a contact sheet of a version that was added again, or delete it; what was done, in sentences."""
    present = store.sheet(task.name, task.version)
    if present and not thumbnails:
        store.purge_sheet(task.name, task.version)
        return ("its contact sheet was deleted for good",)
    if not present and thumbnails and not task.builtin and (sheet := prepared.sheet()):
        store.add_sheets([sheet_record(task.name, task.version, sheet)])
        return ("it got a contact sheet, a small picture of a few samples",)
    return ()


def has_content(task: TaskRecord, fingerprint: str, settings: str) -> bool:
    """Whether a task is of this data and these settings."""
    return (task.fingerprint, task.settings) == (fingerprint, settings)


def sheet_record(name: str, version: int, sheet: "ContactSheet") -> SheetRecord:
    """A contact sheet under the name and version of a task."""
    return SheetRecord(name, version, sheet.seed, sheet.columns, sheet.rows, sheet.image)


def write_tasks(
    store: Store, space_id: str, entries: Sequence[NamedEmbedding], *, thumbnails: bool = True
) -> list[WrittenTask]:
    """Write embeddings, each as one of the latest version of its task or of the next one, as the content asks.

    Data and settings of the latest version make a further embedding of it, or nothing if it has one in this
    space; anything else makes the next version, which keeps the tags of the one before.
    ``thumbnails`` says whether new versions get their contact sheets.

    Returns:
        What is on disk for each, in this order; all of it, or nothing, was written in one commit a table.

    Raises:
        StorageError: If the registry cannot be written.
    """
    with store.write_lock():
        names = {entry.name for entry in entries}
        latest, following = store.latest_tasks(names), store.next_versions(names)
        embedded = store.embedded_keys(space_id, names)
        written = []
        new_versions: list[tuple[TaskRecord, EmbeddingRecord]] = []
        new_embeddings: list[EmbeddingRecord] = []
        for name, tags, embedding in entries:
            task, settings = latest.get(name), embedding.settings
            if task and has_content(task, embedding.dataset.fingerprint, settings_key(settings)):
                task, notes = refreshed(store, task, embedding.dataset.spec, tags)
                record = embedding_record(name, task.version, embedding)
                present = (name, task.version) in embedded
                if not present:
                    new_embeddings.append(record)
                written.append(WrittenTask(task, record, "nothing" if present else "embedding", notes))
                continue
            all_tags = (*(task.tags if task else ()), *tags)
            task = task_record(embedding.dataset, settings, name, following[name], all_tags)
            record = embedding_record(name, task.version, embedding)
            new_versions.append((task, record))
            written.append(WrittenTask(task, record, "version"))
        if new_embeddings:
            store.add_embeddings(space_id, new_embeddings)
        if new_versions:
            versions = {task.name: task.version for task, _ in new_versions}
            sheets = [
                sheet_record(name, versions[name], embedding.sheet)
                for name, _, embedding in entries
                if thumbnails and name in versions and embedding.sheet
            ]
            store.add_tasks(new_versions, space_id, sheets)
    return written


@dataclass(frozen=True, eq=False)
class _Waiting:
    row: TaskRow
    embedding: "TaskEmbedding"
    seconds: float


class TaskWriter:
    """Writes embeddings of many tasks of one space, some at a time.

    Args:
        store: A registry that has the space.
        space_id: Id of the space of the embeddings.
        tags: Tags of all tasks, besides their own.
        batch: Embeddings of a commit.
        thumbnails: Whether new versions get contact sheets.
        max_wait: Seconds after which what there is is written.
    """

    def __init__(
        self,
        store: Store,
        space_id: str,
        *,
        tags: tuple[str, ...] = (),
        batch: int = BATCH,
        thumbnails: bool = True,
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._store = store
        self._space_id = space_id
        self.tags = tags
        self._batch, self._thumbnails = batch, thumbnails
        self._max_wait = max_wait
        self._waiting: list[_Waiting] = []
        self._since = 0.0
        self.commits = 0

    def take(self, row: TaskRow, embedding: "TaskEmbedding", seconds: float) -> None:
        """Keep an embedding, which took so many seconds, until it is written."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(_Waiting(row, embedding, seconds))

    @property
    def is_due(self) -> bool:
        """Whether it is time to write."""
        waited = time.monotonic() - self._since
        return len(self._waiting) >= self._batch or (bool(self._waiting) and waited >= self._max_wait)

    def write(self) -> list[AddedOfMany]:
        """Write what waits, in one commit a table.

        Returns:
            The outcome of each.

        Raises:
            StorageError: If the registry cannot be written; what waits goes on waiting.
        """
        if not self._waiting:
            return []
        named = [
            NamedEmbedding(one.row.name, (*one.row.tags, *self.tags), one.embedding) for one in self._waiting
        ]
        with patience():  # what was embedded is not lost to another writer that takes its time
            written = write_tasks(self._store, self._space_id, named, thumbnails=self._thumbnails)
        added = [_outcome(*pair) for pair in zip(self._waiting, written, strict=True)]
        self._waiting = []
        self.commits += len({task.new for task in written} - {"nothing"})
        return added


def _outcome(waiting: _Waiting, written: WrittenTask) -> AddedOfMany:
    embedding, (task, record, new, _) = waiting.embedding, written
    return AddedOfMany(
        task=task.name,
        place=waiting.row.place,
        data=waiting.row.data,
        status="unchanged" if new == "nothing" else "added",
        version=task.version,
        num_samples_used=record.num_samples_used,
        head_accuracy=record.head_accuracy,
        relative_error=record.relative_error,
        seconds=waiting.seconds,
        notes=written.notes,
        warnings=embedding_warnings(
            record,
            embedding.dataset,
            max_samples=embedding.settings.max_samples,
            tolerance=embedding.settings.tolerance,
            fallbacks=embedding.fallbacks,
        ),
    )
