"""Jobs: stored, queued, run one after the other in processes of their own, cancelled, and cleaned up.

A server that stops ends its running jobs; a server that was killed leaves them for the next one to find. Both
are then ``interrupted``, and their files are removed. Queued jobs run after a restart.
"""

import dataclasses
import logging
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from registry.core import TaskRegistry
from registry.errors import RegistryError, StorageError
from registry.records import utc_now
from registry.web.http.faults import RefusedError
from registry.web.http.settings import ServeSettings
from registry.web.http.tokens import Tokens
from registry.web.jobs.files import JobFiles
from registry.web.jobs.requests import check_request
from registry.web.jobs.runs import JobRun
from registry.web.jobs.store import Job, JobStore
from registry.web.uploads.uploads import Uploads
from registry.wording import INTERNAL

LOG = logging.getLogger("t2v.serve")
MAX_WAITING = 100
EXPIRE_SECONDS = 600.0
CANCEL_SECONDS = 30.0
FAILED_SECONDS = 1.0
INTERRUPTED = "the server stopped while this ran; ask again"


class Jobs:
    """The jobs of one server; threads may share it."""

    def __init__(self, settings: ServeSettings, registry: TaskRegistry, uploads: Uploads) -> None:
        self._settings = settings
        self._uploads = uploads
        self._files = JobFiles(settings, registry, uploads)
        self._tokens, self._note = Tokens(settings.state), registry.note_token
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._live: dict[str, Job] = {}
        self._runs: dict[str, JobRun] = {}
        self._cancelled: dict[str, str] = {}  # and why, unless somebody asked for it
        self._workers: list[threading.Thread] = []
        self._store: JobStore | None = None
        # One thread takes the lock, and another one releases it.
        self._owner = FileLock(settings.state / "lock", thread_local=False)
        self._is_closing = False
        self._next_sweep = 0.0

    # The server

    def open(self) -> None:
        """Take the state folder, clean up after a server that was killed, and start with the queued jobs.

        A second call changes nothing.

        Raises:
            StorageError: If the folder cannot be used, or another server uses it.
        """
        if self._store is not None:
            return
        state = self._settings.state
        try:
            for folder in (state, state / "vectors", state / "data"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._owner.acquire(timeout=0)
        except Timeout as error:
            raise StorageError(
                f"{state}: another server uses this state folder; give another --state"
            ) from error
        except OSError as error:
            raise StorageError(
                f"{state}: the state folder cannot be written: {error.strerror}; give another --state"
            ) from error
        self._is_closing = False
        try:
            self._uploads.open()
            self._store = JobStore(state / "jobs.sqlite")
            self._recover()
        except BaseException:
            self._owner.release()
            raise
        for number in range(self._settings.workers):
            worker = threading.Thread(target=self._work, name=f"jobs-{number}", daemon=True)
            self._workers.append(worker)
            worker.start()

    def close(self) -> None:
        """End running jobs and release the state folder; returns when that is done."""
        self.stop()
        for worker in self._workers:
            worker.join()
        self._workers.clear()
        if self._store is not None:
            self._store.close()
            self._store = None
            self._live.clear()
            self._waiting.clear()
        self._owner.release()

    def stop(self) -> None:
        """Start nothing more, and end running jobs; whoever follows one is notified."""
        with self._changed:
            self._is_closing = True
            runs = list(self._runs.values())
            self._changed.notify_all()
        for run in runs:
            run.end()

    def announce_end(self) -> None:
        """Mark the server as stopping; takes no lock, so that a signal handler may call it."""
        self._is_closing = True

    @property
    def is_closing(self) -> bool:
        """Whether the server is stopping."""
        return self._is_closing

    # Requests

    def submit(
        self,
        kind: str,
        data: Mapping[str, str],
        *,
        name: str | None = None,
        tags: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        actor: str = "",
    ) -> Job:
        """Queue a job.

        Args:
            kind: One of ``registry.web.jobs.requests.OPTIONS``.
            data: ``{"upload": ID}``, ``{"path": PATH}`` or ``{"task": NAME}``.
            name: Name of the task that is added; otherwise what the data is called in the answer.
            tags: Tags of the task that is added.
            options: See ``registry.web.jobs.requests``; those that are ``None`` are left out.
            actor: Who the audit says it is from; the user of the server if empty.

        Raises:
            InvalidQueryError: If the request is not valid, or the path may not be read.
            NotFoundError: If there is no such upload, path or task.
            RefusedError: If too many are waiting, or the server stops.
        """
        given = {option: value for option, value in (options or {}).items() if value is not None}
        check_request(kind, data, name=name, tags=tags, options=given)
        self._files.check(data)
        about = dict(data), given, name, tuple(tags)
        job = Job(secrets.token_urlsafe(18), kind, "queued", *about, utc_now(), actor=actor)
        with self._changed:
            if self._is_closing:
                raise RefusedError(503, "the server is stopping; ask again in a moment")
            if len(self._waiting) >= MAX_WAITING:
                raise RefusedError(429, f"{MAX_WAITING} jobs are waiting already; ask again later")
            self._kept.add(job)
            self._live[job.id] = job
            self._waiting.append(job.id)
            self._changed.notify_all()
        return job

    def get(self, job_id: str) -> Job:
        """One job as it is now; ``UnknownIdError`` if there is no such job."""
        return self.peek(job_id) or self._kept.get(job_id)

    def peek(self, job_id: str) -> Job | None:
        """A job that has not ended, without reading the disk; ``None`` for others."""
        with self._changed:
            return self._live.get(job_id)

    def list(self, *, limit: int = 50, offset: int = 0) -> Sequence[Job]:
        """Some jobs, the newest first."""
        return [self.peek(job.id) or job for job in self._kept.latest(limit=limit, offset=offset)]

    def count(self) -> int:
        """Number of all jobs."""
        return self._kept.count()

    def cancel(self, job_id: str) -> Job:
        """End a job and remove its files; one that has ended stays; ``UnknownIdError`` if it is not there."""
        with self._changed:
            run = self._runs.get(job_id)
            if job_id in self._live:
                self._cancel(job_id)
        if run is not None:
            run.end()
        with self._changed:
            self._changed.wait_for(lambda: job_id not in self._live, timeout=CANCEL_SECONDS)
        return self.get(job_id)

    def end_revoked(self) -> None:
        """Cancel what was asked with a token that was revoked since: what waits, and what runs.

        It is looked for when a job begins, and whenever one tells how far it is.

        Raises:
            StorageError: If the tokens cannot be read.
        """
        ended, runs = defaultdict[str, Counter[str]](Counter), list[JobRun]()
        with self._changed:
            for job in [job for job in self._live.values() if job.id not in self._cancelled]:
                if token := self._tokens.revoked(job.actor, job.created_at):
                    runs += [self._runs[job.id]] if job.id in self._runs else []
                    ended[token.name]["cancelled" if job.state == "queued" else "stopped"] += 1
                    by = f"{token.revoked_by or 'somebody'}, {token.revoked_at[:16]} UTC"
                    self._cancel(job.id, f"the token {token.name} was revoked by {by}")
        for run in runs:
            run.end()
        for name, counts in ended.items():
            try:
                self._note("jobs", name, **{how: str(number) for how, number in counts.items()})
            except RegistryError as error:
                LOG.warning("that jobs of the token %s ended is not in the history: %s", name, error)

    def _cancel(self, job_id: str, why: str = "") -> None:
        """End what waits; note of what runs that it is to end."""
        self._cancelled[job_id] = why
        if job_id in self._waiting:
            self._waiting.remove(job_id)
            self._end(job_id, state="cancelled")

    def remove(self, job_id: str) -> None:
        """Remove a job that has ended, with its vectors.

        Raises:
            UnknownIdError: If it is not there.
            RefusedError: If it has not ended.
        """
        if not self.get(job_id).is_over:
            raise RefusedError(409, "this job has not ended; cancel it first")
        self._kept.remove(job_id)
        self._files.remove_vectors(job_id)

    def vectors(self, job_id: str, *names: str) -> Sequence[np.ndarray]:
        """What a job embedded, see ``JobFiles.vectors``; ``UnknownIdError`` if nothing of that name."""
        self.get(job_id)
        return self._files.vectors(job_id, *names)

    # Running

    @property
    def _kept(self) -> JobStore:
        """The store of a server that has started; ``StorageError`` if it has not."""
        if self._store is None:
            raise StorageError("the server has not started, or has stopped")
        return self._store

    def _work(self) -> None:
        """Run jobs until the server stops; the loop of each worker."""
        while not self._is_closing:
            try:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closing or self._waiting, timeout=EXPIRE_SECONDS)
                self.end_revoked()
                with self._changed:
                    job_id = self._waiting.pop(0) if self._waiting and not self._is_closing else None
                if job_id:
                    self._run_one(job_id)
                self._sweep()
            except Exception:  # such as a full disk: the next job may fare better
                LOG.exception("a worker failed")
                time.sleep(FAILED_SECONDS)

    def _run_one(self, job_id: str) -> None:
        """Run a job, whatever happens."""
        try:
            with self._changed:
                self._change(job_id, state="running", started_at=utc_now())
            self._run(self._live[job_id])
        except Exception:
            LOG.exception("a job could not be run")
            with self._changed:
                if job_id in self._live:
                    self._end(job_id, state="failed", error=_error(INTERNAL))

    def _run(self, job: Job) -> None:
        """Run a job and store its outcome."""
        outcome: dict[str, Any] = {"code": 0}
        try:
            command = self._files.command(job)
            with self._changed:
                is_wanted = job.id not in self._cancelled and not self._is_closing
                run = JobRun(command) if is_wanted else None
                if run is not None:
                    self._runs[job.id] = run
            if run is not None:
                outcome = run.follow(lambda progress: self._progress(job.id, progress))
        except (RegistryError, RefusedError, OSError) as error:
            outcome = {"error": str(error)}
        self._files.give_back(job)
        with self._changed:
            self._runs.pop(job.id, None)
            if "result" in outcome:
                self._end(job.id, state="done", result=outcome["result"])
            elif job.id in self._cancelled:
                self._end(job.id, state="cancelled")
            elif self._is_closing:
                self._end(job.id, state="interrupted", error=_error(INTERRUPTED))
            else:
                self._end(job.id, state="failed", error=_error(outcome.get("error") or _died(outcome["code"])))

    # Keeping track

    def _change(self, job_id: str, **values: Any) -> None:
        job = dataclasses.replace(self._live[job_id], **values)
        self._live[job_id] = job
        self._kept.update(job)

    def _progress(self, job_id: str, progress: dict[str, Any]) -> None:
        """Show progress to readers at once; it is stored when the job ends, not on every step."""
        with self._changed:
            self._live[job_id] = dataclasses.replace(self._live[job_id], progress=progress)
        with suppress(StorageError):  # no other job begins then
            self.end_revoked()

    def _end(self, job_id: str, **values: Any) -> None:
        """Store the end of a job; for readers it has ended even where that cannot be stored."""
        if (why := self._cancelled.pop(job_id, "")) and values["state"] == "cancelled":
            values["error"] = _error(why)
        job = dataclasses.replace(self._live.pop(job_id), finished_at=utc_now(), **values)
        self._changed.notify_all()
        if job.state != "done":
            self._files.remove_vectors(job_id)
        self._kept.update(job)

    def _recover(self) -> None:
        """Mark jobs that ran when the last server was killed as interrupted, and queue the others."""
        for job in self._kept.unfinished():
            if job.state == "running":
                self._files.give_back(job)
                self._files.remove_vectors(job.id)
                over = dataclasses.replace(
                    job, state="interrupted", finished_at=utc_now(), error=_error(INTERRUPTED)
                )
                self._kept.update(over)
            else:
                self._live[job.id] = job
                self._waiting.append(job.id)

    def _sweep(self) -> None:
        """Remove expired jobs and uploads, every now and then."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + EXPIRE_SECONDS
        oldest = datetime.now(UTC) - timedelta(seconds=self._settings.job_seconds)
        for job_id in self._kept.finished_before(oldest.isoformat()):
            self.remove(job_id)
        with self._changed:
            used = frozenset(job.data.get("upload", "") for job in self._live.values())
        self._uploads.expire(used)


def _error(message: str) -> dict[str, Any]:
    return {"message": " ".join(message.split())}


def _died(code: int) -> str:
    """Why a process ended without an outcome."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"the process of this job {how}; the log of the server says more"
