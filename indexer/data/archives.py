"""Archives of folders: zips, whose members are read where they lie, and compressed tars.

A compressed tar cannot be read in place: it is decompressed once into a temporary file without a name, which is
gone with the listing. Nothing is extracted from either, so a name is never a path.
"""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tempfile
import weakref
import zipfile
from pathlib import Path
from typing import IO, Any

from indexer.data.folders import open_tree
from indexer.data.listings import MAX_FILE_BYTES, Listing, MemberTree
from indexer.data.tars import Member, index_tar, open_indexed, safe_name
from indexer.errors import DataError
from indexer.records import Reading

COMPRESSED = {
    **dict.fromkeys((".tar.gz", ".tgz", ".taz"), gzip.open),
    **dict.fromkeys((".tar.bz2", ".tbz", ".tbz2"), bz2.open),
    **dict.fromkeys((".tar.xz", ".txz"), lzma.open),
}
"""What opens a compressed tar, by the end of its name."""

MAX_RATIO = 200
"""How many times its size in the archive a file may have, beyond ``ALWAYS_ALLOWED_BYTES``."""

ALWAYS_ALLOWED_BYTES = 2**26


def open_compressed_tar(spec: str, reading: Reading) -> Listing:
    """List a compressed tar.

    Raises:
        DataError: If it is none or a damaged one, would not fit the disk, or as ``indexer.data.tars.open_tar``.
        OSError: If it cannot be read.
    """
    opener = next(opener for end, opener in COMPRESSED.items() if spec.lower().endswith(end))
    file = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the listing is used)

    def read(member: Member) -> bytes:
        return os.pread(file.fileno(), _bounded(member.size), member.offset)

    weakref.finalize(read, file.close)
    try:
        _decompress(spec, opener, file)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(spec, f"is not a complete compressed tar: {error}") from error
    return open_indexed(spec, {spec: index_tar(spec, spec, file)}, read, reading)


def _decompress(spec: str, opener: Any, target: IO[bytes]) -> None:
    """Decompress a file into another, within limits.

    Raises:
        DataError: If it is too large.
        OSError: If it is damaged; or another error of its format.
    """
    packed = Path(spec).stat().st_size
    most = min(
        max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * packed), shutil.disk_usage(tempfile.gettempdir()).free // 2
    )
    with opener(spec) as source:
        while piece := source.read(2**20):
            if target.tell() + len(piece) > most:
                raise DataError(
                    spec, f"decompresses to more than {most} bytes; decompress it yourself, where it fits"
                )
            target.write(piece)


def open_zip(spec: str, reading: Reading) -> Listing:
    """List a zip.

    Raises:
        DataError: If it is none or a damaged one, or as ``indexer.data.folders.open_folder``.
        OSError: If it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(spec)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DataError(spec, f"is not a complete zip file: {error}") from error
    members = {}
    for info in archive.infolist():
        if name := safe_name(info.filename):
            name += "/" * info.is_dir()
            is_link = stat.S_ISLNK(info.external_attr >> 16)
            members[name] = (
                None if is_link or info.is_dir() else Member(info.filename, info.compress_size, info.file_size)
            )

    def read(member: Member) -> bytes:
        """Content of a member; ``OSError`` if it is encrypted, damaged or too large."""
        most = max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * member.offset)
        try:
            with archive.open(member.path) as file:
                return file.read(_bounded(min(member.size, most)) + 1)[: member.size]
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, EOFError) as error:
            raise OSError(f"{member.path}: {error}") from error

    return open_tree(spec, MemberTree(members, read), reading)


def _bounded(size: int) -> int:
    """The size, if a file may have it; ``OSError`` if it may not."""
    if size > MAX_FILE_BYTES:
        raise OSError(f"{size} bytes are more than {MAX_FILE_BYTES}")
    return size
