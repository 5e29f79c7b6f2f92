"""What a job reads, and the files that it leaves.

state/vectors/ID.npz             vectors of what a job embedded
state/data/NAME-ID/              images of a task that a job registered from an upload
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from registry.core import TaskRegistry
from registry.errors import NotFoundError, StorageError
from registry.web.http.faults import UnknownIdError
from registry.web.http.settings import ServeSettings
from registry.web.jobs.store import Job
from registry.web.uploads.roots import allowed_path
from registry.web.uploads.uploads import Uploads

UPLOAD_LABEL = "upload"
"""What uploaded data without a name is called in answers."""


class JobFiles:
    """The files of the jobs of one server."""

    def __init__(self, settings: ServeSettings, registry: TaskRegistry, uploads: Uploads) -> None:
        self._settings = settings
        self._registry = registry
        self._uploads = uploads

    def check(self, data: Mapping[str, str]) -> None:
        """Check that the data of a job is there and may be read.

        Raises:
            InvalidQueryError: If the path may not be.
            NotFoundError: If there is no such upload, path or task.
        """
        if upload := data.get("upload"):
            self._uploads.get(upload)
        elif path := data.get("path"):
            allowed_path(path, self._settings.roots)
        else:
            self._registry.task(data["task"])

    def command(self, job: Job) -> dict[str, Any]:
        """The command for the process of a job; moves the images of a task to be to where they stay.

        Raises:
            InvalidQueryError: If the path may not be read any more.
            NotFoundError: If the data is not there any more.
        """
        command: dict[str, Any] = {
            "uri": self._registry.uri,
            "builtin": self._settings.builtin,
            "kind": job.kind,
            "name": job.name,
            "tags": list(job.tags),
            "options": job.options,
            "actor": job.actor,
            "vectors": str(self._vectors(job.id)),
        }
        if upload := job.data.get("upload"):
            path = self._uploads.data(upload)
            if job.kind == "add_task":
                path = path.rename(self._data(job))
            return {**command, "path": str(path), "label": job.name or UPLOAD_LABEL}
        if given := job.data.get("path"):
            path = allowed_path(given, self._settings.roots)
            return {
                **command,
                "path": str(path),
                "label": job.name or given,
                "roots": [str(root.resolve()) for root in self._settings.roots],
            }
        return {**command, "task": job.data["task"]}

    def give_back(self, job: Job) -> None:
        """Put the images of an upload back, unless a task is made of them now."""
        folder, upload = self._data(job), job.data.get("upload", "")
        if job.kind != "add_task" or not upload or not folder.exists():
            return
        if self._is_data_of_a_task(job, folder):
            with contextlib.suppress(NotFoundError):
                self._uploads.remove(upload)
            return
        try:
            folder.rename(self._uploads.folder_of(upload))
        except (OSError, NotFoundError):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_vectors(self, job_id: str) -> None:
        """Remove what a job embedded."""
        self._vectors(job_id).unlink(missing_ok=True)

    def vectors(self, job_id: str, *names: str) -> list[np.ndarray]:
        """What a job embedded: ``fisher`` ``[D]``, or ``sheet``, ``columns`` and ``rows`` of its sheet.

        Raises:
            UnknownIdError: If it did not embed that.
        """
        try:
            with np.load(self._vectors(job_id), allow_pickle=False) as vectors:
                return [vectors[name] for name in names]
        except (OSError, ValueError, KeyError) as error:
            raise UnknownIdError("embedding of job", job_id) from error

    def _is_data_of_a_task(self, job: Job, folder: Path) -> bool:
        """Whether a version of the task was registered with this folder as its data."""
        try:
            versions = self._registry.history(str(job.name), limit=0).versions
        except NotFoundError:
            return False
        except StorageError:  # there is none, or it cannot be read: nothing is deleted then
            return bool(self._registry.version())
        return any(Path(version.data) == folder.resolve() for version in versions)

    def _vectors(self, job_id: str) -> Path:
        return self._settings.state / "vectors" / f"{job_id}.npz"

    def _data(self, job: Job) -> Path:
        return self._settings.state / "data" / f"{job.name}-{job.id[:12]}"
