"""What is said of files that are no image: the reason, the same for all files of which the same is wrong."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from indexer.data.images import UnreadableImageError, count_pixels, decode_image
from indexer.signatures import content_kind


def saved(kind):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(bands):
    """An uncompressed 4x4 TIFF of 8 bits."""
    pixels = bytes(16 * bands)
    tags = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: bands, 278: 4, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", 9) + entries + bytes(4)


UNSUPPORTED = "which is not supported: convert it to JPEG or PNG"
FAULTS = {
    "empty": (b"", "empty file"),
    "zeros": (bytes(900), "file that begins with nothing but zeros"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
        "pointer of git LFS, which `git lfs pull` replaces by the file",
    ),
    "html": (b"\n<!DOCTYPE html><html>", "web page, as a failed download leaves it"),
    "bucket": (b"<?xml version='1.0'?><Error>", "XML document, as a failed download or a drawing leaves it"),
    "text": ("héllo".encode(), "text file"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(99), f"HEIC image, {UNSUPPORTED}"),
    "jxl": (b"\xff\x0a12", f"JPEG XL image, {UNSUPPORTED}"),
    "avif": (saved("AVIF")[:99], "damaged AVIF, or one that this Pillow cannot read"),
    "jpeg": (saved("JPEG")[:300], "truncated image"),
    "png": (saved("PNG")[:40] + bytes(300), "damaged PNG"),
    "bands": (tiff(13), "TIFF of 13 bands, which no picture has: put the pixels into arrays, as of an .npz"),
    "noise": (b"\x83\x01\xfe", "no image of a known format"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_why_a_file_is_no_image(case, capfd):
    content, reason = FAULTS[case]
    with pytest.raises(UnreadableImageError, match=f"^{re.escape(reason)}$"):
        decode_image(content)
    assert capfd.readouterr() == ("", "")  # Pillow logs some of them


def test_content_that_says_nothing_of_itself():
    assert content_kind(b"\x83\x01\xfe") == ""


LONG = b"x\0\0" + zlib.compress(bytes(range(256)) * 8000)


@pytest.mark.parametrize(
    "words",
    [
        chunk(b"iCCP", LONG),
        chunk(b"zTXt", LONG),
        b"".join([chunk(b"zTXt", LONG[:3] + zlib.compress(bytes(10**6)))] * 80),
    ],
    ids=["profile", "text", "texts"],
)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_png_with_long_words_is_read(words, at_the_end):
    """Pillow refuses more than 1 MB in a chunk and 64 MB in all."""
    png, place = saved("PNG"), -12 if at_the_end else 33
    content = png[:place] + words + png[place:]
    assert np.array_equal(decode_image(content), decode_image(png))
    assert count_pixels(content) == 600
