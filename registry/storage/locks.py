"""The two write locks: of a folder, and of an object store that several machines can reach.

A folder is locked by the operating system. An object store locks nothing, but can replace an object only if it
still is what the writer read. So whoever holds that lock writes its name into an object, goes on renewing it
(a lease), and writes once more to release it. A holder that dies stops renewing, and a process that waits and
sees the object unchanged for ``TTL_SECONDS`` of its own clock takes over; no two clocks are ever compared. A
holder that was paused for so long finds out before it commits, by ``Lease.check``.
"""

import fcntl
import json
import logging
import math
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from random import uniform
from typing import Any, Protocol

from registry.errors import StorageError
from registry.files import open_shared

LOCK_FILE, HOLDER_FILE, IMPORT_FILE = "write.lock", "write.lock.pid", "import.lock"
FILES = frozenset({LOCK_FILE, HOLDER_FILE, IMPORT_FILE, f"{IMPORT_FILE}.pid"})
TIMEOUT_SECONDS = 60.0  # that a holder may stand still
TELL_SECONDS = 2.0  # of waiting, before it is said for whom

TTL_SECONDS = 15.0
RENEWALS_PER_TTL = 3
FIRST_WAIT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 0.2
TURN_SECONDS = 0.1
"""How long a process that released a lease leaves it to others, who only ask for it now and then."""

# A clock that goes on while the machine sleeps, where there is one: a lease runs out all the same.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

_HELD = threading.local()  # by path, the open file of this thread that holds a lock, as a weak reference
_PATIENT: ContextVar[bool] = ContextVar("patient", default=False)
_LOG = logging.getLogger("registry")


@contextmanager
def patience() -> Iterator[None]:
    """Within the block, wait for as long as the holder of a lock lives and is not stopped, even if it idles."""
    token = _PATIENT.set(True)
    try:
        yield
    finally:
        _PATIENT.reset(token)


@contextmanager
def folder_lock(folder: Path, *, name: str = LOCK_FILE, timeout_seconds: float | None = None) -> Iterator[None]:
    """Hold a lock of a folder; re-entrant within a thread, exclusive between threads and processes.

    An open file holds it, so it is free when a process dies, and when an interrupt at any line ends the block.
    Whoever waits does so for as long as the holder works.

    Args:
        folder: An existing folder; the lock file is made inside it and stays there.
        name: Of the file.
        timeout_seconds: How long to wait for a holder that stands still, ``TIMEOUT_SECONDS`` if not given.

    Raises:
        StorageError: If the folder is not writable, or the holder stands still for too long.
    """
    path = folder / name
    if held_file(path):
        yield
        return
    timeout = TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
    with _locked_file(path, timeout) as file:
        _HELD.__dict__[str(path)] = weakref.ref(file)
        _name_holder(path)
        yield


def check_folder_lock(folder: Path) -> None:
    """Make sure, before a commit, that the lock is still the file that this thread holds.

    Raises:
        StorageError: If somebody deleted or replaced the file, so that another writer may hold the new one.
    """
    path = folder / LOCK_FILE
    file = held_file(path)
    if file is not None and not _is_file_of(file, path):
        raise StorageError(
            f"{path} was deleted or replaced while this process held the lock; nothing more was "
            "written, try again"
        )


def held_file(path: Path) -> FileIO | None:
    """The open file by which this thread holds a lock."""
    reference = _HELD.__dict__.get(str(path))
    file: FileIO | None = reference() if reference else None
    return None if file is None or file.closed else file


def _is_file_of(file: FileIO, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def _locked_file(path: Path, timeout: float) -> FileIO:
    """A lock file, open and locked; closing it lets go of the lock.

    Raises:
        StorageError: If the folder is not writable, or the holder stands still for too long.
    """
    waiting = _Waiting(path, timeout)
    while True:
        try:
            file = open_shared(path)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            waiting.once_more()
            continue
        except OSError as error:
            raise StorageError(f"{path.parent} cannot be written: {error.strerror or error}") from error
        if _is_file_of(file, path):  # else it was deleted in between, and others lock another file
            return file
        file.close()


class _Waiting:
    """A wait for the holder of a lock; it says for whom, and ends once the holder has stood still for long."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout, self._work = path, timeout, ""
        self._moved_at = time.monotonic()
        self._tell_at = self._moved_at + TELL_SECONDS

    def once_more(self) -> None:
        """Wait a moment; a ``StorageError`` if it has been too long."""
        now, process_id = time.monotonic(), _holder_id(self._path)
        holder = f"process {process_id}" if process_id else "another process"
        if (work := _work_of(process_id)) != self._work:
            self._work, self._moved_at = work, now
        if now - self._moved_at >= self._timeout:
            _refuse_to_wait(str(self._path.parent), holder, self._timeout)
        if now >= self._tell_at:
            self._tell_at = math.inf
            _LOG.warning("waiting for %s, which is writing %s", holder, self._path.parent)
        time.sleep(FIRST_WAIT_SECONDS * uniform(0.5, 1.0))


def _work_of(process_id: int) -> str:
    """What differs once a process of this machine has worked; empty of none, and of this one, which asks."""
    if process_id in {0, os.getpid()}:
        return ""
    try:
        os.kill(process_id, 0)
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        if not (_PATIENT.get() and fields[0] not in "TtZX"):
            return f"{process_id} {fields[11]} {fields[12]}"  # its processor time, in and for it
    except ProcessLookupError:
        return ""
    except OSError:  # of another user, or a system without /proc: it is alive
        pass
    return f"{process_id} {time.monotonic()}"


def _name_holder(path: Path) -> None:
    """Leave our process id for others; ``StorageError`` if it cannot be written, as on a full disk."""
    try:
        with open_shared(path.with_name(f"{path.name}.pid")) as file:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
    except OSError as error:
        raise StorageError(f"{path.parent} cannot be written: {error.strerror or error}") from error


def _holder_id(path: Path) -> int:
    """Process id of the holder of a lock; 0 if it is not known."""
    try:
        return int(path.with_name(f"{path.name}.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _refuse_to_wait(where: str, holder: str, timeout: float) -> None:
    """Give up waiting.

    Raises:
        StorageError: Always.
    """
    raise StorageError(
        f"{where} is being written by {holder}, which did not finish within {timeout:g} seconds; "
        "try again later, or end that process if it hangs"
    )


Version = dict[str, str]
"""What distinguishes a version of an object from others, as the store names it."""


class Slot(Protocol):
    """One object of a store. Its methods raise ``StorageError`` where the store cannot be reached."""

    def read(self) -> tuple[bytes, Version] | None:
        """Content and version, or ``None`` if there is no object."""

    def replace(self, content: bytes, version: Version | None) -> Version | None:
        """Write it if its version still is this one, ``None`` for no object; the new version if it was."""


@dataclass(frozen=True)
class _Claim:
    """What the object of a lease says."""

    token: str = field(default_factory=lambda: uuid.uuid4().hex)  # one for each time that the lock is taken
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    ttl_seconds: float = field(default_factory=lambda: TTL_SECONDS)
    renewals: int = 0
    released: bool = False

    @staticmethod
    def from_bytes(content: bytes) -> "_Claim":
        """A claim that cannot be read is that of nobody, who stops renewing it."""
        kinds = {"token": str, "host": str, "pid": int, "ttl_seconds": float, "renewals": int, "released": bool}
        try:
            values = json.loads(content)
            fields: dict[str, Any] = {name: kind(values[name]) for name, kind in kinds.items()}
            return _Claim(**fields)
        except (ValueError, TypeError, LookupError):
            return _Claim(token="", host="", pid=0)

    def to_bytes(self) -> bytes:
        """As JSON; no two are the same, so that a version may be a hash."""
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


class Lease:
    """The lock in one slot, as the threads of this process share it."""

    def __init__(self, where: str, slot: Slot) -> None:
        self.where = where
        self._slot = slot
        self._thread_lock = threading.RLock()
        self._renewing = threading.Lock()
        self._depth = 0
        self._held: _Claim | None = None
        self._version: Version | None = None
        self._renewed_at = 0.0
        self._released_at = 0.0
        self._released = self.token = threading.Event()  # another each time that the lock is taken
        self._heart: threading.Thread | None = None
        self._process_id = os.getpid()

    @contextmanager
    def hold(self, timeout_seconds: float | None = None) -> Iterator[None]:
        """Hold the lock; re-entrant within a thread, exclusive between threads, processes and machines."""
        timeout = TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        if not self._thread_lock.acquire(timeout=timeout):
            _refuse_to_wait(self.where, str(_Claim()), timeout)
        self._depth += 1
        try:
            if self._depth == 1:
                time.sleep(max(0.0, self._released_at + TURN_SECONDS - _now()))
                self._acquire(timeout)
            yield
        finally:
            self._depth -= 1
            if self._depth == 0 and self._process_id == os.getpid():  # a forked child holds nothing
                self._release()
            self._thread_lock.release()

    def check(self) -> None:
        """Make sure, before a commit, that the lock is held; ``StorageError`` if it may be another's."""
        if self._age() > TTL_SECONDS / 2:
            self._renew()
        if self._held is None or self._process_id != os.getpid() or self._age() > TTL_SECONDS:
            raise StorageError(
                f"{self.where}: this process was held up for longer than {TTL_SECONDS:g} s and lost the lock; "
                "nothing more was written, try again"
            )

    def _acquire(self, timeout: float) -> None:
        """Take the lock once it is free or its holder dead; ``StorageError`` if one stands still."""
        claim = _Claim()
        holder: _Claim | None = None
        seen: Version | None = None
        seen_at = deadline = 0.0
        wait = FIRST_WAIT_SECONDS
        while True:
            asked_at = _now()
            content, version = self._slot.read() or (None, None)
            current = _Claim.from_bytes(content) if content is not None else replace(claim, released=True)
            if holder is None or current.token != holder.token:
                deadline = asked_at + timeout
            if version != seen:
                seen, seen_at = version, _now()
            holder = current
            if holder.released or asked_at - seen_at >= holder.ttl_seconds:
                if self._take(claim, version):
                    return
            elif asked_at >= deadline:
                _refuse_to_wait(self.where, str(holder), timeout)
            # Random, so that those who wait together do not ask together.
            time.sleep(wait * uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _take(self, claim: _Claim, version: Version | None) -> bool:
        """Write our claim in place of what was read; whether that succeeded."""
        started_at = _now()
        taken = self._write(claim, version)
        if taken is None:
            return False
        self._held, self._version, self._renewed_at = claim, taken, started_at
        self._released = self.token = threading.Event()
        self._heart = threading.Thread(target=self._keep, args=(self._released,), daemon=True)
        self._heart.start()
        return True

    def _write(self, claim: _Claim, version: Version | None) -> Version | None:
        """Replace a version by a claim of ours; the new version, ``None`` if another process was first."""
        written = self._slot.replace(claim.to_bytes(), version)
        if (
            written is None
            and (current := self._slot.read())
            and _Claim.from_bytes(current[0]).token == claim.token
        ):
            # Not another process, but a write of ours whose answer got lost on the way.
            return self._slot.replace(claim.to_bytes(), current[1])
        return written

    def _keep(self, released: threading.Event) -> None:
        """Renew the lease until it is released or lost; runs in a thread of its own."""
        while self._held and not released.wait(TTL_SECONDS / RENEWALS_PER_TTL):
            self._renew()

    def _renew(self) -> None:
        """Write the claim again; without it, the lock is lost. A store out of reach is asked again later."""
        with self._renewing, suppress(StorageError):
            if self._held is None:
                return
            started_at = _now()
            claim = replace(self._held, renewals=self._held.renewals + 1)
            self._version = self._write(claim, self._version)
            self._held = claim if self._version else None
            self._renewed_at = started_at

    def _release(self) -> None:
        """Say that we are done. Where that fails, the others wait for as long as for a dead holder."""
        self._released.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
        held, self._held = self._held, None
        if held is not None:
            with suppress(StorageError):
                self._write(replace(held, released=True), self._version)
        self._released_at = _now()

    def _age(self) -> float:
        return _now() - self._renewed_at


def _now() -> float:
    """Seconds of a clock that nobody sets."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
