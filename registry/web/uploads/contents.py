"""What was sent: a zip, a tar, a table or a file of arrays becomes a folder that is read as any other.

A zip is unpacked. A tar is decompressed, and stays one: it is read in place. A table lies alone in its folder,
so that it names no file of the server.
"""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from registry.ingest import networks
from registry.web.http.faults import RefusedError
from registry.web.http.settings import UploadLimits
from registry.web.uploads.zips import COPY_BYTES, check_pixels, refusing_bad_zips, too_many, too_much, unpack

STEM = "upload"
TABLES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather"))
ARRAYS = frozenset((".npz", ".mat"))
RESULTS = frozenset((".db", ".sqlite", ".sqlite3", ".wandb"))
_PACKED: Mapping[bytes, Any] = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ": lzma}
_MAGIC = {b"PAR1": ".parquet", b"ARROW1": ".arrow", b"MATLAB": ".mat", b"SQLite": ".db", b":W&B": ".wandb"}


def lay_out(path: Path, name: str, folder: Path, limits: UploadLimits) -> None:
    """Turn what was sent into a folder; ``RefusedError`` if of no kind that is taken, damaged or too large."""
    suffix = _suffix(path, name)
    if suffix == ".zip":
        unpack(path, folder, limits)
        path.unlink()
        return
    folder.mkdir()
    if suffix == ".tar":
        _lay_out_tar(path, folder / f"{STEM}.tar", limits)
        path.unlink()
        return
    if suffix == ".npz":
        with refusing_bad_zips(), zipfile.ZipFile(path) as archive:
            if (size := sum(entry.file_size for entry in archive.infolist())) > limits.unpacked_bytes:
                raise RefusedError(413, too_much(min(size, limits.unpacked_bytes)))
    path.rename(folder / f"{STEM}{suffix}")


def _suffix(path: Path, name: str) -> str:
    """The kind of a file, by its first bytes, else its name; ``RefusedError`` if none that is taken."""
    with path.open("rb") as file:
        head = file.read(512)
    low = name.lower()
    named = PurePath(low.removesuffix(".gz")).suffix
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return ".npz" if named == ".npz" or _holds_arrays(path) else ".zip"
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return suffix
    packer = _packer_of(head)
    if packer is gzip and named in TABLES:
        return f"{named}.gz"
    if packer or head[257:262] == b"ustar" or named == ".tar":
        return ".tar"
    if named in TABLES | ARRAYS:
        return named
    if not low and head[:1] in (b"{", b"["):
        return ".jsonl" if b"}\n" in head else ".json"
    if not named and head and b"\0" not in head and b"," in head.partition(b"\n")[0]:
        return ".csv"
    kinds = ", ".join(sorted({".zip", ".tar", ".tar.gz"} | TABLES | ARRAYS))
    raise RefusedError(
        400, f"what was sent is no zip file, nor any other file of data that is taken: send one of {kinds}"
    )


def _packer_of(head: bytes) -> Any:
    """The module that opens what begins with these bytes; ``None`` if it is not compressed."""
    return next((packer for magic, packer in _PACKED.items() if head.startswith(magic)), None)


def _holds_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return bool(names) and all(name.endswith(".npy") and "/" not in name for name in names)


def _lay_out_tar(path: Path, target: Path, limits: UploadLimits) -> None:
    """Decompress a tar, and count its files and their pixels; nothing is extracted.

    Raises:
        RefusedError: If it is damaged, or holds more than it may.
        OSError: If the disk fails.
    """
    with path.open("rb") as file:
        packer = _packer_of(file.read(6))
    files = 0
    try:
        with packer.open(path) if packer else path.open("rb") as source, target.open("xb") as file:
            while piece := source.read(COPY_BYTES):
                if file.tell() + len(piece) > limits.unpacked_bytes:
                    raise RefusedError(413, too_much(limits.unpacked_bytes))
                file.write(piece)
        with tarfile.open(target, "r:") as archive:
            for member in archive:
                files += 1
                if files > limits.files:
                    raise RefusedError(413, too_many(limits.files))
                if member.isreg() and member.name.lower().endswith(networks.image_suffixes()):
                    content = archive.extractfile(member)
                    check_pixels(content.read() if content else b"", member.name, limits)
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, error.strerror) from error  # of the disk
        raise RefusedError(400, "what was sent is no zip file, and no complete tar") from error
