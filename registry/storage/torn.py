"""What a power cut leaves of a write: versions of tables that are empty, cut short or without their data.

A version that its writer got to list in ``seals/`` was acknowledged, and only ``t2v verify --repair`` gives it
up. One that is not listed and not whole was not, since a write returns once all of it is on disk: whoever meets
it gives it up. Under ``--durability normal`` writes return before, so it is said what went.
"""

import logging
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING

from registry.answers import Problem
from registry.errors import StorageError
from registry.storage.places import META_TABLE, storage_errors

if TYPE_CHECKING:
    from registry.storage.database import Database

MOST_NAMED = 5  # writes in a message
PAGE_ROWS = 8192  # read at a time

_LOG = logging.getLogger("registry")


def give_up_unfinished(database: "Database", name: str) -> bool:
    """Give up the newest version of a table if its writer did not get to list it and it is not whole.

    Returns:
        Whether one was; not where the registry cannot be written.
    """
    lost = list[int]()
    with suppress(OSError, StorageError):  # what is wrong is said by whoever met it
        if database.place.is_unlisted(name) and database.place.is_writable():
            with database.write_lock():  # a writer that is at work lists its version before it lets go
                still = database.place.is_unlisted(name)
                lost = go_back(database, name, unlisted_only=True) if still else []
    if lost:
        said = "%s: a write to table %s was cut short and is given up: %s"
        _LOG.warning(said, database.uri, name, _lost(database, name, lost))
    return bool(lost)


def torn_tables(database: "Database", *, repair: bool) -> list[Problem]:
    """Tables with versions that a power cut left empty or cut short; repair goes back to what is whole."""
    problems = []
    names = sorted(database.table_names(), key=lambda name: (name != META_TABLE, name != "audit", name))
    for name in names:
        with suppress(StorageError), storage_errors(name):  # which is reported by the checks that follow
            torn = database.place.torn_versions(name)
            if not torn and (not database.place.is_unlisted(name) or is_readable(database, name)):
                continue
            lost = go_back(database, name) if repair else []
            version = f"version {', '.join(map(str, lost or torn))}" if lost or torn else "the newest version"
            message = f"{version} is empty, cut short or without its data, as a power cut leaves it"
            if lost:
                message += f": {_lost(database, name, lost)}"
            elif repair:
                message += "; none of before is whole: restore the registry from a copy"
            problems.append(Problem("torn", name, message, bool(lost)))
    return problems


def is_readable(database: "Database", name: str) -> bool:
    """Whether all that a table holds can be read, whatever its checksums say."""
    try:
        with storage_errors(name):
            for _ in database.connect(database.place).open_table(name).search().to_batches(PAGE_ROWS):
                pass
    except StorageError:
        return False
    return True


def go_back(database: "Database", name: str, *, unlisted_only: bool = False) -> list[int]:
    """Give up the versions of a table that were never whole, unless none is; newest first."""
    with database.write_lock():
        lost = database.place.go_back(name, lambda: is_readable(database, name), unlisted_only=unlisted_only)
        if lost:
            database.reopen()
            if not database.place.has_no_version(name):
                database.place.record_checksums(name)
    return lost


def _lost(database: "Database", name: str, lost: list[int]) -> str:
    """What went with the versions of a table that were given up, by the audit, which is written before."""
    try:
        with storage_errors(name):
            newest = max(database.open_table(name).list_versions(), key=lambda version: version["version"])
        at = newest["timestamp"].astimezone(UTC).isoformat(timespec="milliseconds")
        if newest["version"] > max(lost):
            return "nothing is lost, as a later version is whole"
        lines = database.read("audit").to_pylist() if name != "audit" else []
    except StorageError as error:
        return f"what was lost is not known: {error}"
    lines = sorted((row for row in lines if row["at"] >= at), key=lambda row: row["at"])
    begun = [f"{row['action']} {row['subject']}" for row in lines]
    shown = ", ".join(begun[-MOST_NAMED:]) + (
        f" and {len(begun) - MOST_NAMED} before" if begun[MOST_NAMED:] else ""
    )
    since = f"; begun since in the registry, by the audit: {shown}" if begun else ""
    return f"it is as of {at} again, and what was written to it since is lost{since}"
