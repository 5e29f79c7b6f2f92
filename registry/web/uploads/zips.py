"""Zips from anybody: checked entry by entry, and unpacked within limits.

Nothing that a zip says is believed before it is measured: sizes are counted while unpacking, names are taken
only if they can lead nowhere else, and the pixels of images are counted before anything decodes them. Whatever
is wrong is reported in one sentence, and the caller removes what was written by then. What the files mean is
said by the reader of folders.
"""

import contextlib
import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from registry.errors import IngestError
from registry.ingest import networks
from registry.web.http.faults import RefusedError
from registry.web.http.settings import UploadLimits
from registry.wording import printable

MAX_RATIO = 100
"""Most bytes that one byte of a zip may unpack to; images hardly shrink at all."""

SMALL_BYTES = 2**20
"""Below this the ratio of an entry does not matter."""

MAX_NAME_BYTES = 255
COPY_BYTES = 2**16  # less than the least that a list may have, see _Bounded
DIRECTORY_BYTES_PER_FILE = 512
_DIRECTORY_ENTRY = b"PK\x01\x02"
_LOCAL_HEADER_BYTES = 30
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DRIVE = re.compile(r"^[A-Za-z]:")
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


def unpack(path: Path, folder: Path, limits: UploadLimits) -> None:
    """Check a zip and unpack it; ``RefusedError`` if it is no zip, or holds more than it may."""
    with refusing_bad_zips(), path.open("rb", buffering=0) as raw, _Bounded(raw, limits) as file:
        _check_start(file)
        with zipfile.ZipFile(file) as archive:
            entries = _checked_entries(archive, limits)
            folder.mkdir()
            _write(archive, entries, folder, limits)


class _Bounded(io.BufferedReader):
    """A file of which no piece is read that is larger than the list of entries may be."""

    def __init__(self, raw: io.FileIO, limits: UploadLimits) -> None:
        super().__init__(raw)
        self._files = limits.files
        self._most = max(2**17, limits.files * DIRECTORY_BYTES_PER_FILE)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or all there are, if that is not too much; ``RefusedError`` if it is."""
        content = super().read(self._most + 1 if size is None or size < 0 else min(size, self._most + 1))
        is_list = content.startswith(_DIRECTORY_ENTRY)
        if len(content) > self._most or (is_list and content.count(_DIRECTORY_ENTRY) > 2 * self._files):
            raise RefusedError(413, too_many(self._files))
        return content


@contextmanager
def refusing_bad_zips() -> Iterator[None]:
    """Report errors of a damaged zip as refusals.

    Raises:
        RefusedError: In place of errors of the zip.
    """
    try:
        yield
    except _BAD_ZIP as error:
        raise RefusedError(
            400, f"the file is damaged or cut off: {printable(str(error))[:200] or 'it cannot be read'}"
        ) from error


def _check_start(file: BinaryIO) -> None:
    start = file.read(4)
    file.seek(0)
    if start not in {b"PK\x03\x04", b"PK\x05\x06"}:
        raise RefusedError(
            400, "what was sent is no zip file; send a .zip of a folder, or another file of data by its name"
        )


def _checked_entries(archive: zipfile.ZipFile, limits: UploadLimits) -> list[zipfile.ZipInfo]:
    """The entries that are files, checked one by one and together; ``RefusedError`` if one is wrong."""
    entries = archive.infolist()
    for entry in entries:
        _check_entry(entry)
    _check_overlap(entries, archive.start_dir)
    files = [entry for entry in entries if not entry.is_dir()]
    if not files:
        raise RefusedError(400, "the zip holds no files; zip a folder of data")
    if len(files) > limits.files:
        raise RefusedError(413, too_many(limits.files))
    unpacked = sum(entry.file_size for entry in files)
    if unpacked > limits.unpacked_bytes:
        raise RefusedError(413, too_much(limits.unpacked_bytes))
    packed = sum(entry.compress_size for entry in files)
    if unpacked > max(SMALL_BYTES, MAX_RATIO * packed):
        raise RefusedError(413, _bomb("the zip"))
    _check_collisions(files)
    return files


def _check_entry(entry: zipfile.ZipInfo) -> None:
    """Check an entry of the list; ``RefusedError`` if it is no plain file or folder below the zip's own."""
    shown = repr(printable(entry.orig_filename[:200]))
    _check_name(entry.orig_filename, shown)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR} or (kind == stat.S_IFDIR and not entry.is_dir()):
        what = "a link" if kind == stat.S_IFLNK else "neither a file nor a folder"
        raise RefusedError(400, f"{shown} in the zip is {what}; only files and folders are taken")
    if entry.flag_bits & _ENCRYPTED:
        raise RefusedError(400, f"{shown} in the zip is encrypted; zip it without a password")
    if entry.compress_type not in _METHODS:
        raise RefusedError(400, f"{shown} in the zip is packed in an unusual way; use deflate, the usual one")
    if entry.file_size > max(SMALL_BYTES, MAX_RATIO * entry.compress_size):
        raise RefusedError(413, _bomb(shown))


def _check_name(name: str, shown: str) -> None:
    """Check that a name can lead nowhere else on any system; ``RefusedError`` if it might."""
    parts = name.rstrip("/").split("/")
    if "\0" in name or not name.isprintable():
        problem = "holds characters that cannot be printed"
    elif "\\" in name:
        problem = "holds a backslash"
    elif name.startswith("/") or _DRIVE.match(name):
        problem = "is absolute"
    elif ".." in parts:
        problem = "leads out of the zip"
    elif not name or any(part in {"", "."} or part != part.strip(" ") for part in parts):
        problem = "is empty in part, or begins or ends with a space"
    elif any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        problem = f"is longer than {MAX_NAME_BYTES} bytes in part"
    else:
        return
    raise RefusedError(400, f"the name {shown} in the zip {problem}; name files like class/picture.jpg")


def _check_overlap(entries: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse, by a ``RefusedError``, entries that share bytes: a small zip can unpack to anything that way."""
    taken = sorted(
        (entry.header_offset, entry.header_offset + _LOCAL_HEADER_BYTES + entry.compress_size)
        for entry in entries
    )
    starts = [*(start for start, _ in taken[1:]), end]
    if any(stop > start for (_, stop), start in zip(taken, starts, strict=False)) or (
        taken and taken[0][0] < 0
    ):
        raise RefusedError(413, "entries of the zip overlap, as in a zip bomb; zip the data anew")


def _check_collisions(files: list[zipfile.ZipInfo]) -> None:
    """Refuse, by a ``RefusedError``, two files that would be one where case and accents do not count."""
    counts = Counter(unicodedata.normalize("NFKC", entry.filename).casefold() for entry in files)
    for entry in files:
        if counts[unicodedata.normalize("NFKC", entry.filename).casefold()] > 1:
            shown = repr(printable(entry.filename[:200]))
            raise RefusedError(400, f"{shown} is in the zip twice, or differs from another name only by case")


def _write(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, limits: UploadLimits
) -> None:
    """Unpack every file; the limits are those of what comes out, whatever was announced.

    Raises:
        RefusedError: If an image, or all together, is too large, or a name is that of a file and of a folder.
    """
    total = 0
    for entry in entries:
        target = folder.joinpath(*PurePosixPath(entry.filename).parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            total += _extract(archive, entry, target, limits.unpacked_bytes - total)
        except (FileExistsError, NotADirectoryError) as error:
            shown = repr(printable(entry.filename[:200]))
            raise RefusedError(400, f"{shown} in the zip is a file and a folder; zip the data anew") from error
        if entry.filename.lower().endswith(networks.image_suffixes()):
            check_pixels(target.read_bytes(), entry.filename, limits)


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, room: int) -> int:
    """Write one file, and count its bytes.

    Raises:
        RefusedError: If it is larger than there is room.
        BadZipFile: If it is not as large as was announced.
    """
    size = 0
    with archive.open(entry) as source, target.open("xb") as file:
        while piece := source.read(COPY_BYTES):
            size += len(piece)
            if size > room:
                raise RefusedError(413, too_much(room))
            file.write(piece)
    if size != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename} is not as large as announced")
    return size


def check_pixels(content: bytes, name: str, limits: UploadLimits) -> None:
    """Count the pixels that an image announces; ``RefusedError`` if too many; no image is passed over."""
    with contextlib.suppress(IngestError):
        if (pixels := networks.image_pixels(content)) > limits.pixels:
            raise RefusedError(
                413, f"{printable(name[:200])!r} has {pixels:,} pixels; at most {limits.pixels:,} are taken"
            )


def too_many(files: int) -> str:
    """Why so many files are refused."""
    return f"it holds more than {files:,} files, the most that are taken; send fewer"


def too_much(size: int) -> str:
    """Why so many bytes are refused."""
    return f"what it unpacks to is larger than {size:,} bytes, the most that are taken; send less"


def _bomb(what: str) -> str:
    return f"{what} unpacks to more than {MAX_RATIO} times its size, which images do not; it is not taken"
