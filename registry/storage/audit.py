"""Who writes, with what: the lines of the audit; and where experts and spaces came from.

Origins are rows of ``meta``, which no export carries and no import writes: ``origin.expert.NAME`` and
``origin.space.ID``. What has no row is shipped, or was registered here.
"""

import functools
import getpass
import json
import os
import platform
import socket
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from registry.answers import Origin
from registry.records import AuditRecord, utc_now
from registry.storage import schema

if TYPE_CHECKING:
    from registry.storage.database import Database

LIBRARIES = ("task2vec-registry", "lancedb", "numpy", "torch", "torchvision")


def audit_lines(action: str, subjects: Iterable[str], **details: Any) -> list[AuditRecord]:
    """One line a subject, all of one write; the details are plain values."""
    text = json.dumps(details, sort_keys=True)
    now, who, where = utc_now(), actor(), socket.gethostname()
    return [
        AuditRecord(action, subject, text, who, where, os.getpid(), installed_versions(), now)
        for subject in subjects
    ]


def actor() -> str:
    """Who runs this process; ``unknown`` where the system knows no name, as in some containers."""
    try:
        return os.environ.get("T2V_USER") or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


@functools.cache
def installed_versions() -> str:
    """Versions of the libraries that are installed, without importing them."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return json.dumps(versions, sort_keys=True)


_ORIGIN = "origin."


def read_origins(database: "Database") -> dict[tuple[str, str], Origin]:
    """Origins by kind and name."""
    rows = database.read("meta", where=f"starts_with(key, '{_ORIGIN}')")["value"].to_pylist()
    origins = (Origin(**json.loads(value)) for value in rows)
    return {(origin.kind, origin.name): origin for origin in origins}


def write_origins(database: "Database", origins: Iterable[Origin]) -> None:
    """Write origins, in place of those of the same things, in one commit."""
    rows = [
        {"key": f"{_ORIGIN}{origin.kind}.{origin.name}", "value": json.dumps(asdict(origin))}
        for origin in origins
    ]
    if rows:
        merged = pa.Table.from_pylist(rows, schema=schema.META)
        database.commit("meta", lambda table: _upsert(table, merged))


def note_registered(database: "Database", kind: str, name: str, loader: str, folder: str) -> None:
    """Say that something was registered here, its Python module in a folder; no row for what needs none."""
    if folder or (kind, name) in read_origins(database):
        write_origins(database, [Origin(kind, name, utc_now(), actor(), folder=folder, loader=loader)])


def note_trusted(database: "Database", origins: Iterable[Origin]) -> list[Origin]:
    """Remember that what these name may be opened and run; they, as they are now."""
    trusted = [replace(origin, trusted_at=utc_now(), trusted_by=actor()) for origin in origins]
    with database.write_lock():
        database.append("audit", audit_lines("trust", [origin.name for origin in trusted]))
        write_origins(database, trusted)
    return trusted


def _upsert(table: Any, rows: pa.Table) -> None:
    table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all().execute(rows)
