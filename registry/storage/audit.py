"""Who writes, with what: the lines of the audit."""

import functools
import getpass
import json
import os
import platform
import socket
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from registry.records import AuditRecord, utc_now

LIBRARIES = ("task2vec-registry", "lancedb", "numpy", "torch", "torchvision")


def audit_lines(action: str, subjects: Iterable[str], **details: Any) -> list[AuditRecord]:
    """One line a subject, all of one write; the details are plain values."""
    text = json.dumps(details, sort_keys=True)
    now, who, where = utc_now(), _actor(), socket.gethostname()
    return [
        AuditRecord(action, subject, text, who, where, os.getpid(), installed_versions(), now)
        for subject in subjects
    ]


def _actor() -> str:
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
