"""The lock that lets one process at a time write to a registry folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from registry.errors import StorageError

LOCK_FILE = "write.lock"
HOLDER_FILE = "write.lock.pid"
TIMEOUT_SECONDS = 60.0


@contextmanager
def folder_lock(folder: Path, *, timeout_seconds: float | None = None) -> Iterator[None]:
    """Hold the write lock of a folder; re-entrant within a thread, exclusive between threads and processes.

    The operating system frees the lock of a process that dies, so a kill never leaves a folder locked.

    Args:
        folder: An existing folder; the lock file is made inside it and stays there.
        timeout_seconds: How long to wait for another holder, ``TIMEOUT_SECONDS`` unless told.

    Raises:
        StorageError: If the folder is not writable, or another process holds the lock for too long.
    """
    timeout = TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
    try:
        # One object per path: two stores in one thread share the lock instead of waiting for each other.
        lock = FileLock(folder / LOCK_FILE, is_singleton=True)
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise StorageError(
            f"{folder} is being written by {_holder(folder)}, which did not finish within {timeout:g} seconds; "
            "try again later, or end that process if it hangs"
        ) from error
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        _name_holder(folder)
        yield
    finally:
        lock.release()


def _name_holder(folder: Path) -> None:
    """Leave our process id where others find it; in a file apart, since locking may truncate its own.

    Raises:
        StorageError: If the file cannot be written, such as on a full disk.
    """
    try:
        (folder / HOLDER_FILE).write_text(str(os.getpid()), encoding="ascii")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error


def _holder(folder: Path) -> str:
    """Who holds the lock, in words."""
    try:
        return f"process {int((folder / HOLDER_FILE).read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return "another process"
