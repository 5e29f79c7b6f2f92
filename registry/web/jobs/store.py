"""Jobs as they are stored: rows of an SQLite file, which a crash leaves whole."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from registry.errors import StorageError
from registry.web.http.faults import UnknownIdError

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
UNFINISHED: tuple[State, ...] = ("queued", "running")
_SCHEMA_VERSION = 2
_JSON = ("data", "options", "tags", "progress", "result", "error")
_COLUMNS = (
    "id", "kind", "state", "data", "options", "name", "tags", "created_at", "started_at", "finished_at",
    "progress", "result", "error", "actor",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Work that takes longer than a reader waits."""

    id: str  # random, so that only those know it who got it
    kind: str  # ``recommend``, ``nearest`` or ``add_task``
    state: str  # queued, running, or how it ended
    data: dict[str, str]  # ``{"upload": ID}``, ``{"path": PATH}`` or ``{"task": NAME}``
    options: dict[str, Any]  # as given, see ``registry.web.jobs.requests``
    name: str | None  # name of the task that is added, or what the data is called
    tags: tuple[str, ...]
    created_at: str  # when the job was queued, in ISO 8601, UTC
    started_at: str | None = None  # when it began to run, or ``None`` before that
    finished_at: str | None = None  # when it ended, or ``None`` before that
    progress: dict[str, Any] | None = None  # ``stage``, ``done`` and ``total``, or ``None`` before there is any
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    actor: str = ""  # who the audit says it is from; the user of the server if empty

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, one way or another."""
        return self.state not in UNFINISHED


class JobStore:
    """The jobs of one state folder; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; ``StorageError`` if that fails, or a newer version wrote it."""
        self._path = path
        self._lock = threading.Lock()
        with self._reporting_errors():
            # One connection, autocommitting; the lock lets one thread at a time use it.
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                columns = ", ".join(_COLUMNS[1:])
                self._database.execute(f"CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, {columns})")
                self._database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version == 1:
                added = "ALTER TABLE jobs ADD COLUMN actor TEXT NOT NULL DEFAULT ''"
                self._database.executescript(f"BEGIN; {added}; PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT")
        if version > _SCHEMA_VERSION:
            self.close()
            raise StorageError(
                f"{path}: a newer version of task2vec-registry wrote it; use that, or another --state"
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def add(self, job: Job) -> None:
        """Store a new job."""
        marks = ", ".join("?" * len(_COLUMNS))
        self._run(f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({marks})", _to_row(job))

    def update(self, job: Job) -> None:
        """Store a job as it is now."""
        settings = ", ".join(f"{column} = ?" for column in _COLUMNS)
        self._run(f"UPDATE jobs SET {settings} WHERE id = ?", [*_to_row(job), job.id])

    def get(self, job_id: str) -> Job:
        """One job; ``UnknownIdError`` if it is not there."""
        rows = self._run(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE id = ?", [job_id])
        if not rows:
            raise UnknownIdError("job", job_id)
        return _from_row(rows[0])

    def latest(self, *, limit: int, offset: int = 0) -> list[Job]:
        """Some jobs, the newest first."""
        order = "ORDER BY created_at DESC, rowid DESC LIMIT ? OFFSET ?"
        rows = self._run(f"SELECT {', '.join(_COLUMNS)} FROM jobs {order}", [limit, offset])
        return [_from_row(row) for row in rows]

    def count(self) -> int:
        """Number of all jobs."""
        return int(self._run("SELECT count(*) FROM jobs")[0][0])

    def unfinished(self) -> list[Job]:
        """Jobs that are queued or running, the oldest first."""
        columns = ", ".join(_COLUMNS)
        rows = self._run(
            f"SELECT {columns} FROM jobs WHERE state IN (?, ?) ORDER BY created_at, rowid", list(UNFINISHED)
        )
        return [_from_row(row) for row in rows]

    def finished_before(self, moment: str) -> list[str]:
        """Ids of the jobs that were over before a moment, in ISO 8601, UTC."""
        return [row[0] for row in self._run("SELECT id FROM jobs WHERE finished_at < ?", [moment])]

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        self._run("DELETE FROM jobs WHERE id = ?", [job_id])

    def _run(self, statement: str, values: list[Any] | tuple[Any, ...] = ()) -> list[Any]:
        with self._reporting_errors(), self._lock:
            return self._database.execute(statement, values).fetchall()

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Report errors of SQLite as ours.

        Raises:
            StorageError: In place of an error of SQLite.
        """
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: the jobs cannot be read or written: {error}") from error


def _to_row(job: Job) -> list[Any]:
    values = {column: getattr(job, column) for column in _COLUMNS}
    return [json.dumps(value) if column in _JSON else value for column, value in values.items()]


def _from_row(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_COLUMNS, row, strict=True))
    values.update({column: json.loads(values[column]) for column in _JSON})
    return Job(**{**values, "tags": tuple(values["tags"])})
