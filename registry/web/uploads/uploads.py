"""Uploads: a file that is being sent becomes a folder of data, or nothing at all.

state/uploads/ID/upload.json     what it is
state/uploads/ID/data/           its files, see ``registry.web.uploads.contents``
state/uploads/.part-ID/          one that is not whole yet; removed when the server starts
"""

import asyncio
import json
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from registry.errors import RegistryError, StorageError
from registry.ingest.networks import DataSurvey, survey_data
from registry.options import in_fields, spelled
from registry.web.http.faults import RefusedError, UnknownIdError
from registry.web.http.settings import UploadLimits
from registry.web.uploads.contents import lay_out

TYPES = {
    **dict.fromkeys(("application/zip", "application/x-zip-compressed", "application/octet-stream"), ""),
    **dict.fromkeys(("application/gzip", "application/x-gzip", "application/x-tar"), ""),
    "text/csv": "a.csv",
    "text/tab-separated-values": "a.tsv",
    "application/json": "a.json",
    "application/x-ndjson": "a.jsonl",
    "application/vnd.apache.parquet": "a.parquet",
}
"""Types of what may be sent, and the names that these stand for, where there is none."""

T = TypeVar("T")
RECEIVED = "received"
FIELD = "file"
CARD = "upload.json"
DATA = "data"
PART = ".part-"
WRITE_BYTES = 2**20
UNPACKED_AT_ONCE = 2
_ID = re.compile(r"[A-Za-z0-9_-]{20,64}")


@dataclass(frozen=True)
class Upload:
    """Data that was uploaded."""

    id: str  # random, so that only those know it who got it
    files: int
    bytes: int
    classes: dict[str, int]  # number of samples of each class, by name, as far as reading needs no option
    created_at: str  # when it was received, in ISO 8601, UTC
    expires_at: str  # when it is removed, in ISO 8601, UTC
    kind: str | None = None
    samples: int = 0
    taken: Sequence[str] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""  # what leaves a doubt, with the option that settles it; empty if nothing does


class NotStoredError(RefusedError):
    """An upload cannot be written to the disk."""

    def __init__(self, error: OSError) -> None:
        super().__init__(503, f"the upload cannot be stored: {error.strerror or error}")

    def __reduce__(self) -> tuple[type, tuple[OSError]]:
        """Rebuild from the message of the error."""
        return type(self), (OSError(self.message),)


class Uploads:
    """The uploads of one server; threads may share it."""

    def __init__(self, folder: Path, limits: UploadLimits, seconds: float) -> None:
        """Remember the folder; ``open`` makes it."""
        self.folder = folder
        self._limits = limits
        self._seconds = seconds
        self._limiter: CapacityLimiter | None = None

    def open(self) -> None:
        """Make the folder, and remove unfinished uploads; ``StorageError`` if it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self.folder.glob(f"{PART}*"):
                shutil.rmtree(left)
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be written: {error.strerror}") from error

    async def receive(self, request: Request) -> Upload:
        """Receive a file of data, as the body of a request or as a field of a form, and lay it out.

        Raises:
            RefusedError: If it is no such file, too large, or too slow; then nothing of it is left.
        """
        return await self.receive_for(request, self._finish)

    async def receive_for(self, request: Request, use: Callable[[Path], T]) -> T:
        """Receive a file, lay it out in a new folder, and use that in a thread; it is removed afterwards.

        Raises:
            RefusedError: If it is no such file, too large, or too slow; then nothing of it is left.
        """
        names: list[str] = []
        body = _file_in(request, names)
        with self._part() as part:
            try:
                async with asyncio.timeout(self._limits.seconds):
                    await self._write(body, part / RECEIVED)
            except TimeoutError as error:
                seconds = f"{self._limits.seconds:g}"
                raise RefusedError(408, f"the upload took longer than {seconds} seconds; send less") from error
            except ClientDisconnect as error:
                raise RefusedError(400, "the upload broke off; send it again") from error

            def lay_out_and_use() -> T:
                try:
                    lay_out(part / RECEIVED, (names or [""])[0], part / DATA, self._limits)
                except OSError as error:
                    raise NotStoredError(error) from error
                return use(part)

            self._limiter = self._limiter or CapacityLimiter(UNPACKED_AT_ONCE)
            return await anyio.to_thread.run_sync(lay_out_and_use, limiter=self._limiter)

    def get(self, upload_id: str) -> Upload:
        """One upload; ``UnknownIdError`` if there is no such upload, or not any more."""
        path = self.folder / upload_id / CARD
        try:
            if _ID.fullmatch(upload_id):
                return Upload(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            pass
        raise UnknownIdError("upload", upload_id)

    def data(self, upload_id: str) -> Path:
        """The folder of the images of an upload.

        Raises:
            UnknownIdError: If there is no such upload, or not any more.
            RefusedError: If a job is making a task of it.
        """
        folder = self.folder_of(upload_id)
        if not folder.is_dir():
            raise RefusedError(409, "a job is making a task of this upload; upload the data again")
        return folder

    def folder_of(self, upload_id: str) -> Path:
        """The folder for an upload's images, there or not; ``UnknownIdError`` if there is no such upload."""
        return self.folder / self.get(upload_id).id / DATA

    def remove(self, upload_id: str) -> None:
        """Remove an upload with its images; ``UnknownIdError`` if there is no such upload."""
        shutil.rmtree(self.folder / self.get(upload_id).id, ignore_errors=True)

    def expire(self, kept: frozenset[str]) -> None:
        """Remove expired uploads."""
        now = datetime.now(UTC)
        for folder in self.folder.iterdir():
            try:
                upload = self.get(folder.name)
            except UnknownIdError:
                continue
            if upload.id not in kept and datetime.fromisoformat(upload.expires_at) < now:
                self.remove(upload.id)

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """A new folder for an upload; removed in the end, unless it became an upload."""
        part = self.folder / f"{PART}{secrets.token_urlsafe(18)}"
        part.mkdir(mode=0o700)
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)

    async def _write(self, body: AsyncIterator[bytes], path: Path) -> None:
        """Write a body to a file in another thread; its bytes; ``RefusedError`` if it is too large."""
        waiting, size = bytearray(), 0
        with path.open("xb", buffering=0) as file:
            async for piece in body:
                size += len(piece)
                if size > self._limits.upload_bytes:
                    most = f"{self._limits.upload_bytes:,}"
                    raise RefusedError(413, f"the file is larger than {most} bytes, the most that are taken")
                waiting += piece
                if len(waiting) >= WRITE_BYTES:
                    await anyio.to_thread.run_sync(_write_all, file.fileno(), bytes(waiting))
                    waiting.clear()
            await anyio.to_thread.run_sync(_write_all, file.fileno(), bytes(waiting))

    def _finish(self, part: Path) -> Upload:
        """Say what an upload is, and move it to its place; ``RefusedError`` if no options make it data."""
        seen, problem = DataSurvey(None, 0, {}, (), {}), ""
        try:
            seen = survey_data(str(part / DATA))
        except RegistryError as error:
            problem = str(error).replace(str(part / DATA), "the upload")
            if spelled(problem, in_fields) == problem:  # it names no option that would settle it
                raise RefusedError(400, problem) from error
        now = datetime.now(UTC)
        files = [path for path in (part / DATA).rglob("*") if path.is_file()]
        upload = Upload(
            part.name.removeprefix(PART),
            len(files),
            sum(path.stat().st_size for path in files),
            seen.classes,
            now.isoformat(),
            (now + timedelta(seconds=self._seconds)).isoformat(),
            seen.kind,
            seen.samples,
            spelled(list(seen.taken), in_fields),
            seen.passed_over,
            spelled(problem, in_fields),
        )
        (part / CARD).write_text(json.dumps(asdict(upload)), encoding="utf-8")
        part.rename(self.folder / upload.id)
        return upload


def _file_in(request: Request, names: list[str]) -> AsyncIterator[bytes]:
    """The pieces of the file that a request brings; its name is added to the names when it is known.

    Raises:
        RefusedError: If it brings something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in TYPES:
        said = parse_options_header(request.headers.get("content-disposition", ""))[1].get(b"filename", b"")
        names.append(said.decode("utf-8", errors="replace") or TYPES[kind])
        return request.stream()
    if kind == "multipart/form-data":
        return _file_in_form(request, names)
    raise RefusedError(
        415,
        f"send a file of data as application/zip, application/octet-stream and the like, or as the field "
        f"{FIELD!r} of a form; this came as {kind[:80] or 'nothing'}",
    )


async def _file_in_form(request: Request, names: list[str]) -> AsyncIterator[bytes]:
    """The pieces of the file in a form; beyond a megabyte it waits in the system's temporary folder.

    Raises:
        RefusedError: If the form is damaged or cut off, or has not one file under that name.
        NotStoredError: If there is no room.
    """
    try:
        async with request.form(max_files=1) as form:
            file = form.get(FIELD)
            if not isinstance(file, UploadFile):
                raise RefusedError(400, f"the form has no file {FIELD!r}, or is cut off; send the data in it")
            names.append(file.filename or "")
            while piece := await file.read(WRITE_BYTES):
                yield piece
    except HTTPException as error:  # what Starlette says of a form that is damaged or too large
        raise RefusedError(error.status_code, f"the form cannot be read: {error.detail}") from error
    except OSError as error:
        raise NotStoredError(error) from error


def _write_all(file: int, content: bytes) -> None:
    """Write bytes to an open file; ``NotStoredError`` if there is no room."""
    view = memoryview(content)
    try:
        while view:
            view = view[os.write(file, view) :]
    except OSError as error:
        raise NotStoredError(error) from error
