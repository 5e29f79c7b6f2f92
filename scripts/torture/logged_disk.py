"""A disk that logs what is written to it and when it is flushed, to cut its power at any moment.

    python scripts/torture/logged_disk.py FOLDER IMAGE LOG

serves, by FUSE, two files in a folder until it is unmounted: ``disk``, whose bytes are those of an image and
which a loop device can use, and ``marks``, to which anybody writes what happened just now. Both go to the log
in the order in which they came. It speaks the protocol of /dev/fuse itself, so it needs root and Linux alone.

``Log.cut`` makes the disk as a power cut leaves it: all that was written before the last flush is there; of
what was written since, a random part, by writes or by sectors, as a disk's cache writes what it likes first.
"""

import ctypes
import os
import random
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR_BYTES = 512
MOST_BYTES = 2**17
ENTRY = struct.Struct("<cQI")  # what, where, how many bytes follow
WRITE, FLUSH, MARK = b"W", b"F", b"M"
DISK, MARKS = 2, 3  # numbers of the files
NAMES = {b"disk\0": DISK, b"marks\0": MARKS}

HEADER, REPLY = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITING, STATFS, RELEASE, FSYNC = (
    1,
    2,
    3,
    4,
    14,
    15,
    16,
    17,
    18,
    20,
)
FLUSHING, INIT, ACCESS, DESTROY, BATCH_FORGET = 25, 26, 34, 38, 42
NO_ENTRY, NOT_IMPLEMENTED = -2, -38


class LoggedDisk:
    """Answers the requests of the kernel, one after another."""

    def __init__(self, folder: Path, image: Path, log: Path) -> None:
        """Mount; ``serve`` answers.

        Raises:
            OSError: If this is not root or not Linux.
        """
        self._image = os.open(image, os.O_RDWR)
        self._log = log.open("ab", buffering=0)
        self._bytes = image.stat().st_size
        self._fuse = os.open("/dev/fuse", os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self._fuse},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"logged", os.fsencode(folder), b"fuse.logged", 0, options):
            raise OSError(ctypes.get_errno(), "a FUSE file system cannot be mounted")

    def serve(self) -> None:
        """Until it is unmounted."""
        answers = {
            LOOKUP: self._lookup,
            GETATTR: lambda node, _: struct.pack("<QII", 1, 0, 0) + self._attributes(node),
            SETATTR: lambda node, _: struct.pack("<QII", 1, 0, 0) + self._attributes(node),
            OPEN: lambda node, _: struct.pack("<QII", node, node == MARKS, 0),
            READ: self._read,
            WRITING: self._write,
            FSYNC: self._flush,
            INIT: self._init,
            STATFS: lambda *_: struct.pack("<QQQQQIIII24x", 0, 0, 0, 0, 0, 512, 255, 512, 0),
            **dict.fromkeys((RELEASE, FLUSHING, ACCESS), lambda *_: b""),
        }
        while True:
            try:
                request = os.read(self._fuse, MOST_BYTES + 4096)
            except OSError as error:
                if error.errno == 19:  # ENODEV: unmounted
                    return
                continue
            _, what, unique, node, *_ = HEADER.unpack_from(request)
            if what in {FORGET, BATCH_FORGET}:
                continue
            answer = answers.get(what, lambda *_: NOT_IMPLEMENTED)(node, request[HEADER.size :])
            status, content = (answer, b"") if isinstance(answer, int) else (0, answer)
            os.write(self._fuse, REPLY.pack(REPLY.size + len(content), status, unique) + content)
            if what == DESTROY:
                return

    def _attributes(self, node: int) -> bytes:
        is_file = node in {DISK, MARKS}
        size = self._bytes if node == DISK else 0
        mode = 0o100600 if is_file else 0o40700
        return ATTRIBUTES.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _lookup(self, _: int, body: bytes) -> bytes | int:
        if (node := NAMES.get(body)) is None:
            return NO_ENTRY
        return struct.pack("<QQQQII", node, 0, 1, 1, 0, 0) + self._attributes(node)

    def _init(self, _: int, body: bytes) -> bytes:
        flags = 1 << 5  # writes larger than a page
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, MOST_BYTES, flags, 16, 12, MOST_BYTES, 1, 0, 0, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(self._image, size, offset) if node == DISK else b""

    def _write(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        content = body[40 : 40 + size]
        if node == DISK:
            os.pwrite(self._image, content, offset)
        self._log.write(ENTRY.pack(WRITE if node == DISK else MARK, offset, size) + content)
        return struct.pack("<II", size, 0)

    def _flush(self, node: int, _: bytes) -> bytes:
        if node == DISK:
            self._log.write(ENTRY.pack(FLUSH, 0, 0))
        return b""


@dataclass(frozen=True)
class Event:
    """One entry of a log.

    Attributes:
        kind: ``WRITE``, ``FLUSH`` or ``MARK``.
        offset: Where on the disk, in bytes.
        content: What was written.
    """

    kind: bytes
    offset: int
    content: bytes


class Log:
    """What was written to a disk, and how the disk looks at cuts, which have to be asked for in order.

    Attributes:
        events: In the order in which they came.
    """

    def __init__(self, path: Path, image: Path) -> None:
        """Read a log.

        Args:
            path: Of the log.
            image: The disk as it was before the first event; it is brought forward with each cut.
        """
        self.events = list(_read(path))
        self._image = image
        self._done = 0

    def cut(self, position: int, to: Path, chooser: random.Random) -> int:
        """Write the disk as a cut before the event at a position leaves it.

        Returns:
            How many writes had not been flushed.
        """
        flushed = max(
            (i for i in range(self._done, position) if self.events[i].kind == FLUSH), default=self._done
        )
        with self._image.open("r+b") as file:
            for event in self.events[self._done : flushed]:
                _put(file, event)
        self._done = flushed
        with self._image.open("rb") as source, to.open("wb") as file:
            _copy_sparse(source, file)
        pending = [event for event in self.events[flushed:position] if event.kind == WRITE]
        share = chooser.choice((0.0, 1.0, chooser.random(), chooser.random(), chooser.random()))
        is_torn = chooser.random() < 0.5
        with to.open("r+b") as file:
            for event in pending:
                if is_torn:
                    _put_some_sectors(file, event, share, chooser)
                elif chooser.random() < share:
                    _put(file, event)
        return len(pending)


def _put(file: BinaryIO, event: Event) -> None:
    if event.kind == WRITE:
        file.seek(event.offset)
        file.write(event.content)


def _put_some_sectors(file: BinaryIO, event: Event, share: float, chooser: random.Random) -> None:
    for start in range(0, len(event.content), SECTOR_BYTES):
        if chooser.random() < share:
            file.seek(event.offset + start)
            file.write(event.content[start : start + SECTOR_BYTES])


def _copy_sparse(source: BinaryIO, to: BinaryIO) -> None:
    size, end = os.fstat(source.fileno()).st_size, 0
    os.truncate(to.fileno(), size)
    while end < size:
        try:
            start = os.lseek(source.fileno(), end, os.SEEK_DATA)
        except OSError:  # nothing but a hole follows
            return
        end = os.lseek(source.fileno(), start, os.SEEK_HOLE)
        source.seek(start)
        to.seek(start)
        while (left := end - source.tell()) > 0:
            to.write(source.read(min(left, 2**20)))


def _read(path: Path) -> list[Event]:
    events = []
    with path.open("rb") as file:
        while len(header := file.read(ENTRY.size)) == ENTRY.size:
            kind, offset, size = ENTRY.unpack(header)
            events.append(Event(kind, offset, file.read(size)))
    return events


if __name__ == "__main__":
    LoggedDisk(*map(Path, sys.argv[1:4])).serve()
