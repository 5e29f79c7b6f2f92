"""The index of a tar file: which files it holds, and where. Nothing is extracted, so a name is never a path.

Members with unsafe names, links and hidden files are passed over.
"""

import re
import tarfile
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

from indexer.errors import DataError

_DRIVE = re.compile(r"[A-Za-z]:")


class Member(NamedTuple):
    """A file in a tar: the bytes of the tar at ``path`` from ``offset`` on."""

    path: str
    offset: int
    size: int


def index_tar(spec: str, path: str, is_wanted: Callable[[str], bool]) -> dict[str, Member]:
    """Files of a tar by name, in order; of two of one name the later counts, as when extracting.

    Args:
        spec: The data spec, for messages.
        path: Of the tar.
        is_wanted: Whether a file of that name is listed.

    Raises:
        DataError: If it is no complete, uncompressed tar file.
        OSError: If it cannot be read.
    """
    try:
        return _index(path, is_wanted)
    except OSError:
        raise
    except Exception as error:  # a damaged header makes tarfile raise nearly anything, up to RecursionError
        inside = "" if path == spec else f"shard {path} "
        raise DataError(spec, f"{inside}is not a complete, uncompressed tar file: {error}") from error


def _index(path: str, is_wanted: Callable[[str], bool]) -> dict[str, Member]:
    """Files by name.

    Raises:
        ReadError: If it is no tar file or a damaged one.
    """
    members: dict[str, Member] = {}
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            if archive.offset <= info.offset:  # of a negative size; tarfile would go round in a circle
                raise tarfile.ReadError(f"member {info.name!r} has a size of {info.size} bytes")
            if is_wanted(info.name) and (name := _safe_name(info)):
                members.pop(name, None)
                members[name] = Member(path, info.offset_data, info.size)
        last = f"after member {info.name!r}" if archive.getmembers() else "at the start"
        # tarfile takes a damaged header for the end; a whole archive ends with blocks of zeros.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it is damaged or cut {last}")
    return members


def _safe_name(info: tarfile.TarInfo) -> str:
    """Name of a plain file with forward slashes; empty for what is none or has no safe name."""
    if not info.isreg() or info.issparse():
        return ""
    parts = PurePosixPath(info.name).parts
    if any(part.startswith(("/", ".")) for part in parts) or _DRIVE.match(info.name):
        return ""
    return "/".join(parts)
