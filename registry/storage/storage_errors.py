"""What surrounds a call into the database: conflicts are retried, foreign errors become ours."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa

from registry.errors import RegistryError, StorageError

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.05

# What LanceDB and pyarrow raise for a missing file, a full disk, a damaged table or a lost race alike.
FOREIGN_ERRORS = (OSError, RuntimeError, ValueError, pa.ArrowException)

# What a damaged file can make of Rust code. It derives from BaseException and cannot be imported.
_PANIC = "PanicException"
_CONFLICT = re.compile(r"commit conflict|too many concurrent writers", re.IGNORECASE)
_VANISHED = re.compile(r"not found", re.IGNORECASE)
_RUST_PREFIX = re.compile(r"^(lance error: |LanceError\(\w+\): |Invalid input, )+")
_RUST_REQUEST = re.compile(r"Generic \w+ error: (?:.*? - )+")
_RUST_LOCATION = re.compile(r",? (location: )?/\S+\.rs:\d+.*", re.DOTALL)

Answer = TypeVar("Answer")


def retried(operation: Callable[[], Answer]) -> Answer:
    """Run a write; where another one got in between, wait a little and run it again.

    Args:
        operation: A write that either commits as a whole or raises.

    Returns:
        Its answer. Its error is passed on if it is no conflict, or after ``ATTEMPTS`` conflicts.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return operation()
        except FOREIGN_ERRORS as error:
            if not _CONFLICT.search(str(error)):
                raise
        # Random, so that two writers that collided once do not collide again.
        time.sleep(FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.0))
    return operation()


def reread(operation: Callable[[], Answer], attempts: int) -> Answer:
    """Run a read; where the files of its version were deleted meanwhile, run it again on the newest.

    Args:
        operation: A read that looks for the newest version.
        attempts: How often at most.

    Returns:
        Its answer. Its error is passed on if it is another one, or after so many attempts.
    """
    for _ in range(attempts - 1):
        try:
            return operation()
        except FOREIGN_ERRORS as error:
            if not _VANISHED.search(str(error)):
                raise
    return operation()


@contextmanager
def storage_errors(what: str, hint: str = "") -> Iterator[None]:
    """Turn errors of the database and the operating system into one sentence of ours.

    Args:
        what: Start of the sentence: the place, and what cannot be done.
        hint: End of the sentence: what to do about it.

    Raises:
        StorageError: If the block raises any of ``FOREIGN_ERRORS``, or the database's own code panics.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        if isinstance(error, RegistryError):
            raise
        raise StorageError(f"{what}: {_reason(error)}{hint and '; '}{hint}") from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise StorageError(f"{what}: its files make no sense{hint and '; '}{hint}") from error


def _reason(error: Exception) -> str:
    """The message of a foreign error without requests and places in Rust source files."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = _RUST_REQUEST.sub("", _RUST_PREFIX.sub("", str(error)))
    return _RUST_LOCATION.sub("", text) or type(error).__name__
