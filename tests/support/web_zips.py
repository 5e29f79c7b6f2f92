"""Zips for tests: good ones, and those that an attacker would make."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (24, 24), form: str = "PNG") -> bytes:
    """A small image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def tiled(seed: int) -> bytes:
    """A BMP of 97 kB that repeats itself, and so can be packed well, but not as well as a bomb."""
    pixels = np.tile(np.random.default_rng(seed).integers(0, 256, (45, 45, 3), dtype=np.uint8), (4, 4, 1))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def images(classes: tuple[str, ...] = ("cats", "dogs"), count: int = 3, top: str = "") -> dict[str, bytes]:
    """Contents by name."""
    return {
        f"{top}{name}/{number}.png": picture(seed=17 * position + number)
        for position, name in enumerate(classes)
        for number in range(count)
    }


def packed(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def good() -> bytes:
    """A zip that is taken."""
    return packed(images())


def with_entry(name: str, content: bytes | None = None, **changes: int) -> bytes:
    """A good zip with one entry more, which may have other flags."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for each, pixels in images().items():
            archive.writestr(each, pixels)
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = name
        for field, value in changes.items():
            setattr(entry, field, value)
        archive.writestr(entry, picture(99) if content is None else content)
    return file.getvalue()


def renamed(old: str, new: str) -> bytes:
    """A good zip in which the bytes of a name are others of the same length, in both places."""
    assert len(old) == len(new)
    return packed({**images(), f"cats/{old}": picture(98)}).replace(old.encode(), new.encode())


def patched_directory(content: bytes, offset: int, value: bytes, entry: int = 0) -> bytes:
    """A zip with other bytes at an offset of an entry of its list."""
    found = -1
    for _ in range(entry + 1):
        found = content.index(b"PK\x01\x02", found + 1)
    return content[: found + offset] + value + content[found + offset + len(value) :]


def encrypted() -> bytes:
    """Flag bit 0 set in both headers of each entry."""
    content = bytearray(good())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + offset] |= 1
            start = content.find(mark, start + 4)
    return bytes(content)


def overlapping(entries: int = 20) -> bytes:
    """Many entries of the list that stand for one and the same local entry, as in Fifield's bomb of 2019."""
    content = zlib.compress(bytes(60_000))[2:-4]
    name = b"cats/0.png"
    checksum = zlib.crc32(bytes(60_000))
    local = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, checksum, len(content), 60_000, len(name), 0
    )
    body = local + name + content
    listed = b""
    for number in range(entries):
        other = b"%s/%d.png" % (b"cats" if number % 2 else b"dogs", number)
        listed += (
            struct.pack(
                "<4s6H3I5H2I",
                b"PK\x01\x02",
                20,
                20,
                0,
                8,
                0,
                0,
                checksum,
                len(content),
                60_000,
                len(other),
                0,
                0,
                0,
                0,
                0,
                0,
            )
            + other
        )
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, entries, entries, len(listed), len(body), 0)
    return body + listed + end


def zip64_lie() -> bytes:
    """A list whose zip64 field says that an entry is 2**62 bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in images().items():
            archive.writestr(name, content)
        entry = zipfile.ZipInfo("dogs/huge.png")
        entry.extra = struct.pack("<HHQ", 1, 8, 2**62)
        archive.writestr(entry, picture(97))
    content = file.getvalue()
    last = content.rindex(b"PK\x01\x02")
    return content[: last + 24] + b"\xff\xff\xff\xff" + content[last + 28 :]


def too_many_names(count: int) -> bytes:
    """Very many empty entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            archive.writestr(f"cats/{number}.png", b"")
    return file.getvalue()


def huge_picture() -> bytes:
    """A PNG that announces 60,000 by 60,000 pixels and holds none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )
