"""A registry under a prefix of an object store, such as ``s3://bucket/prefix``.

The one door to obstore, which reaches the stores by the same code as LanceDB. Endpoint, region and credentials
come from the environment, under the names that the store's own tools use (``AWS_ACCESS_KEY_ID``, ...); they are
neither stored nor printed.

Objects cannot be moved, so a new registry is built under ``.creating`` and copied into place, ``meta`` last.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from registry.errors import MissingExtraError, StorageError
from registry.storage.checksums import TABLE_SUFFIX, version_number
from registry.storage.locks import LOCK_FILE, Lease, Version
from registry.storage.places import META_TABLE, NOTES_FOLDER, STAGING_FOLDER, Place

try:
    import obstore
    from obstore import exceptions
    from obstore.store import from_url
except ImportError as error:
    raise MissingExtraError("a registry in an object store", "obstore", "s3") from error

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
RETRY_SECONDS = 10.0  # below the time that a lock lives without being renewed
MAX_RETRIES = 4

# Processes that reached a store, here or before a fork; the threads of obstore and LanceDB do not survive one.
_PROCESSES: set[int] = set()

# One lock per registry, so that all stores of this process share it.
_LEASES: dict[tuple[str, str], Lease] = {}

_REQUEST = re.compile(r"^Generic \w+ error: (.*?Error performing .*? - )?", re.DOTALL)


class ObjectPlace(Place):
    """A prefix of a bucket; see ``registry.storage.places.Place``."""

    def __init__(self, uri: str) -> None:
        """Remember the place; nothing is reached yet.

        Args:
            uri: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.

        Raises:
            StorageError: If it is another URL.
        """
        parts = urlsplit(uri)
        if "@" in parts.netloc:  # what stands before it may be a password
            shown = f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}"
            raise StorageError(f"{shown}: a URL must not hold credentials; set them in the environment")
        if parts.scheme not in SCHEMES or not parts.netloc or parts.query or parts.fragment:
            allowed = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
            raise StorageError(f"{uri}: a registry lies in a local folder or at one of {allowed}")
        self.uri = uri
        self.connect_target = f"{parts.scheme}://{parts.netloc}/{parts.path.strip('/')}".rstrip("/")
        self._endpoint = _endpoint()
        self._is_plain = self._endpoint.startswith("http://")
        self.storage_options = {
            "client_max_retries": str(MAX_RETRIES),
            "client_retry_timeout": f"{RETRY_SECONDS:.0f}",
            **({"allow_http": "true"} if self._is_plain else {}),
        }
        self.staging_uri = f"{self.connect_target}/{STAGING_FOLDER}"
        self._is_there = self._is_past = False

    def has_table(self, name: str) -> bool:
        """Whether a version of a table is there. A registry that was there is taken to be there still."""
        if name == META_TABLE and self._is_there:
            return True
        there = not self.has_no_version(name)
        self._is_there |= there and name == META_TABLE
        return there

    def has_no_version(self, name: str) -> bool:
        """Whether no version of a table is there."""
        return not self.versions(name)

    def versions(self, name: str) -> list[int]:
        """By the names of the manifests."""
        paths = self._list(f"{name}{TABLE_SUFFIX}/_versions")
        return sorted(version_number(path) for path in paths if path.endswith(".manifest"))

    def as_of(self, versions: Mapping[str, int]) -> "ObjectPlace":
        """The same place, never to be written."""
        place = ObjectPlace(self.uri)
        place._is_past = True
        return place

    def needed_files(self, name: str) -> list[str]:
        """Not known by what lies in the store.

        Raises:
            StorageError: Always.
        """
        raise StorageError(
            f"{self.uri}: a backup is made of a folder only; `t2v export` copies this registry to a file"
        )

    def fetch(self, path: str, target: Path) -> None:
        """Not needed, as there is no backup."""

    def holding(self) -> object:
        """The claim by which this process holds the lock."""
        return self._lease.token

    def note_names(self) -> list[str]:
        """Names of the objects."""
        return [path.rpartition("/")[2] for path in self._list(NOTES_FOLDER)]

    def read_note(self, name: str) -> bytes:
        """The object, or nothing."""
        with self._errors("cannot be read"):
            try:
                return bytes(obstore.get(self._reached(), f"{NOTES_FOLDER}/{name}").bytes())
            except FileNotFoundError:
                return b""

    def write_note(self, name: str, content: bytes) -> None:
        """Write an object."""
        with self._errors("cannot be written"):
            obstore.put(self._reached(), f"{NOTES_FOLDER}/{name}", content)

    def delete_notes(self, names: Collection[str]) -> None:
        """Delete objects."""
        self._delete([f"{NOTES_FOLDER}/{name}" for name in names])

    def is_being_created(self) -> bool:
        """Whether there are objects of a creation."""
        return any(True for _ in self._list(STAGING_FOLDER))

    def check_kind(self) -> None:
        """A prefix is never of a wrong kind."""

    def check(self) -> None:
        """Fail where a registry neither is nor can be made.

        Raises:
            StorageError: If the bucket cannot be reached, or something else lies under the prefix.
        """
        # In this order: a registry that appears in between is then not taken for something else.
        names = {path.partition("/")[0] for path in self._list()}
        if STAGING_FOLDER not in names and not names <= {LOCK_FILE} and not self.has_table(META_TABLE):
            raise StorageError(f"{self.uri} is not empty and holds no registry; give a new or empty prefix")

    def is_writable(self) -> bool:
        """Whether this process may write; asked by a write whose condition never holds."""
        if self._is_past:
            return False
        try:
            _LockSlot(self).replace(b"", {"e_tag": '"never"', "version": "1"})
        except StorageError:
            return False
        return True

    def lock(self) -> AbstractContextManager[None]:
        """The lock of this registry."""
        self._reached()
        return self._lease.hold()

    def check_lock(self) -> None:
        """Make sure that the lock is still held; ``StorageError`` if another process has taken over."""
        self._lease.check()

    def publish(self) -> None:
        """Copy the tables into place, the manifest of ``meta`` last."""
        meta = f"{STAGING_FOLDER}/{META_TABLE}{TABLE_SUFFIX}/"
        staged = [path for path in self._list(STAGING_FOLDER) if path.split("/")[1].endswith(TABLE_SUFFIX)]
        *others, last = sorted(staged, key=lambda path: (path.startswith(meta), path.endswith(".manifest")))
        with self._errors("cannot be written"):
            for path in others:
                obstore.copy(self._reached(), path, path.partition("/")[2])
            self.check_lock()
            obstore.copy(self._reached(), last, last.partition("/")[2])

    def remove_staging(self) -> None:
        """Delete what lies under the staging prefix."""
        self._delete(list(self._list(STAGING_FOLDER)))

    def remove_leftovers(self) -> None:
        """Delete what a creation that was cut short left.

        The staging prefix goes last: while it is there, the rest is known to be ours.
        """
        self._delete([path for path in self._list() if path.partition("/")[0].endswith(TABLE_SUFFIX)])
        self.remove_staging()

    def cache_folder(self, registry_id: str) -> Path:
        """A folder of this registry in the user's cache."""
        if self._is_past:
            return Path(os.devnull) / registry_id
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return cache / "task2vec" / registry_id

    def table_size(self, name: str) -> tuple[int, int]:
        """Number of objects of a table, and their bytes in total."""
        with self._errors("cannot be read"):
            pages = obstore.list(self._reached(), f"{name}{TABLE_SUFFIX}")
            sizes = [meta["size"] for page in pages for meta in page]
        return len(sizes), sum(sizes)

    @property
    def _lease(self) -> Lease:
        key = (self._endpoint, self.connect_target)
        return _LEASES.setdefault(key, Lease(self.uri, _LockSlot(self)))

    @cached_property
    def _store(self) -> "ObjectStore":
        with self._errors("cannot be opened"):
            return from_url(
                self.connect_target,
                client_options={"allow_http": self._is_plain},
                retry_config={"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
            )

    def _reached(self) -> "ObjectStore":
        """The store; ``StorageError`` in a process forked from one that had reached it."""
        if _PROCESSES - {os.getpid()}:
            raise StorageError(
                f"{self.uri} cannot be opened in a process forked from one that had opened a registry; "
                "start processes by 'spawn' (multiprocessing.get_context('spawn'))"
            )
        _PROCESSES.add(os.getpid())
        return self._store

    def _list(self, prefix: str = "") -> Iterator[str]:
        """Paths of all objects under a prefix, relative to the registry."""
        with self._errors("cannot be read"):
            for objects in obstore.list(self._reached(), prefix or None):
                yield from (meta["path"] for meta in objects)

    def _delete(self, paths: list[str]) -> None:
        if paths:
            with self._errors("cannot be written"):
                obstore.delete(self._reached(), paths)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn errors of the store into one sentence; ``StorageError`` if the block raises one."""
        try:
            yield
        except StorageError:
            raise
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise StorageError(f"{self.uri} {what}: {_reason(error)}") from error


class _LockSlot:
    """The object that names the holder of the lock; see ``registry.storage.locks.Slot``."""

    def __init__(self, place: ObjectPlace) -> None:
        self._place = place

    def read(self) -> tuple[bytes, Version] | None:
        """Content and version, or ``None`` if there is no object."""
        with self._place._errors("cannot be read"):
            try:
                answer = obstore.get(self._place._reached(), LOCK_FILE)
            except FileNotFoundError:  # of the object, or of the bucket, which the write that follows finds out
                return None
            return bytes(answer.bytes()), _version(answer.meta)

    def replace(self, content: bytes, version: Version | None) -> Version | None:
        """Write it, if its version still is this one."""
        mode: Any = version or "create"
        # An object that is to be replaced may be gone; where none is expected, it is the bucket that is.
        gone = () if version is None else (FileNotFoundError,)
        with self._place._errors("cannot be written"):
            try:
                written = obstore.put(self._place._reached(), LOCK_FILE, content, mode=mode)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError, *gone):
                return None
            return _version(written)


def _version(meta: Any) -> Version:
    """What distinguishes a version of an object from others; some stores have one of the two."""
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}


def _reason(error: Exception) -> str:
    """What went wrong, in words; listings show by a status what other requests show by the kind of error."""
    text = _REQUEST.sub("", str(error).partition("\n")[0])
    if isinstance(error, FileNotFoundError) or "404 Not Found" in text:
        return "there is no such bucket"
    denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
    if isinstance(error, denied) or "401 Unauthorized" in text or "403 Forbidden" in text:
        return "access is denied; credentials are taken from the environment"
    return text


def _endpoint() -> str:
    """The server that the user named instead of the store's own, such as one for tests."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
