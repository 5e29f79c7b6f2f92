"""The one writer of many tasks: few large commits, and nothing is told before it is on disk.

What is kept back is written once there are ``batch`` embeddings, or the oldest has waited for some seconds.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.answers import AddedOfMany
from registry.cautions import embedding_warnings
from registry.ingest import ingest
from registry.ingest.manifests import TaskRow
from registry.ingest.runs import Embedded
from registry.records import EmbeddingRecord, TaskRecord
from registry.storage.store import Store

if TYPE_CHECKING:
    from registry.ingest.ingest import TaskEmbedding

BATCH = 64
"""Embeddings of a commit; each commit adds a file to a table, and reading slows down with their number."""

MAX_WAIT_SECONDS = 5.0
"""Longest that an embedding is kept back: what a killed run has to do again."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    row: TaskRow
    embedding: "TaskEmbedding"
    seconds: float


class TaskWriter:
    """Writes embeddings of tasks of one space.

    Args:
        store: A registry that has the space.
        space_id: Of the embeddings.
        tags: Of all tasks, besides their own.
        batch: Embeddings of a commit.
        max_wait: Seconds after which what there is is written.

    Attributes:
        commits: How many writes there were.
    """

    def __init__(
        self,
        store: Store,
        space_id: str,
        *,
        tags: tuple[str, ...] = (),
        batch: int = BATCH,
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._store = store
        self._space_id = space_id
        self._tags = tags
        self._batch = batch
        self._max_wait = max_wait
        self._waiting: list[_Waiting] = []
        self._since = 0.0
        self.commits = 0

    def take(self, row: TaskRow, embedded: Embedded) -> None:
        """Keep an embedding until it is written."""
        assert embedded.embedding is not None  # noqa: S101  # what has an error never comes here
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(_Waiting(row, embedded.embedding, embedded.seconds))

    @property
    def is_due(self) -> bool:
        """Whether it is time to write."""
        waited = time.monotonic() - self._since
        return len(self._waiting) >= self._batch or (bool(self._waiting) and waited >= self._max_wait)

    def write(self) -> list[AddedOfMany]:
        """Write what waits, in one commit a table.

        Returns:
            What became of each.

        Raises:
            StorageError: If the registry cannot be written; what waits goes on waiting.
        """
        if not self._waiting:
            return []
        with self._store.write_lock():
            added = self._write_all()
        self._waiting = []
        return added

    def _write_all(self) -> list[AddedOfMany]:
        names = {waiting.row.name for waiting in self._waiting}
        latest = self._store.latest_tasks(names)
        embedded = self._store.embedded_keys(self._space_id, names)
        following = self._store.next_versions(names)
        new_tasks: list[tuple[TaskRecord, EmbeddingRecord]] = []
        new_embeddings: list[EmbeddingRecord] = []
        added = []
        for waiting in self._waiting:
            found, row = waiting.embedding, waiting.row
            known = latest.get(row.name)
            if known and has_content(known, found.dataset.fingerprint, ingest.settings_key(found.settings)):
                record = ingest.embedding_record(row.name, known.version, found)
                is_new = (row.name, known.version) not in embedded
                if is_new:
                    new_embeddings.append(record)
                added.append(self._told(waiting, known, record, is_new=is_new))
                continue
            kept = known.tags if known else ()
            tags = (*kept, *row.tags, *self._tags)
            task = ingest.task_record(found.dataset, found.settings, row.name, following[row.name], tags)
            record = ingest.embedding_record(row.name, task.version, found)
            new_tasks.append((task, record))
            added.append(self._told(waiting, task, record, is_new=True))
        if new_embeddings:
            self._store.add_embeddings(self._space_id, new_embeddings)
        if new_tasks:
            self._store.add_tasks(new_tasks, self._space_id)
        self.commits += bool(new_embeddings) + bool(new_tasks)
        return added

    @staticmethod
    def _told(waiting: _Waiting, task: TaskRecord, record: EmbeddingRecord, *, is_new: bool) -> AddedOfMany:
        found = waiting.embedding
        return AddedOfMany(
            task=task.name,
            place=waiting.row.place,
            data=waiting.row.data,
            status="added" if is_new else "unchanged",
            version=task.version,
            num_samples_used=record.num_samples_used,
            head_accuracy=record.head_accuracy,
            relative_error=record.relative_error,
            seconds=waiting.seconds,
            warnings=embedding_warnings(
                record,
                found.dataset,
                max_samples=found.settings.max_samples,
                tolerance=found.settings.tolerance,
                fallbacks=found.fallbacks,
            ),
        )


def has_content(task: TaskRecord, fingerprint: str, settings: str) -> bool:
    """Whether a task is of this data and these settings."""
    return (task.fingerprint, task.settings) == (fingerprint, settings)
