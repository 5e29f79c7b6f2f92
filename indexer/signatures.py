"""What a file is that cannot be read as what it was taken for: told by its first bytes, whatever its name."""

import codecs
import io
import re

_SIGNATURES = (
    (0, b"version https://git-lfs", "pointer of git LFS, which `git lfs pull` replaces by the file"),
    (4, b"ftypheic", "HEIC image, which is not supported: convert it to JPEG or PNG"),
    (4, b"ftypheix", "HEIC image, which is not supported: convert it to JPEG or PNG"),
    (4, b"ftypmif1", "HEIF image, which is not supported: convert it to JPEG or PNG"),
    (4, b"ftypavi", "damaged AVIF, or one that this Pillow cannot read"),
    (4, b"ftyp", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (8, b"AVI ", "video"),
    (4, b"jP  \r\n", "JPEG 2000 image, which is not supported: convert it to JPEG or PNG"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000 image, which is not supported: convert it to JPEG or PNG"),
    (4, b"JXL \r\n", "JPEG XL image, which is not supported: convert it to JPEG or PNG"),
    (0, b"\xff\x0a", "JPEG XL image, which is not supported: convert it to JPEG or PNG"),
    (0, b"8BPS", "Photoshop file"),
    (0, b"%!PS", "PostScript file"),
    (0, b"%PDF", "PDF document"),
    (128, b"DICM", "DICOM file, which is not supported: convert it to PNG or arrays"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"\x89HDF", "HDF5 file"),
    (0, b"PK\x03\x04", "zip archive"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"7z\xbc\xaf", "7z archive"),
    (0, b"Rar!", "RAR archive"),
    (0, b"\xff\xd8\xff", "damaged JPEG"),
    (0, b"\x89PNG", "damaged PNG"),
    (0, b"GIF8", "damaged GIF"),
    (8, b"WEBP", "damaged WebP"),
    (0, b"II*\0", "damaged TIFF, or one that Pillow cannot read"),
    (0, b"MM\0*", "damaged TIFF, or one that Pillow cannot read"),
    (0, b"BM", "damaged BMP"),
)
_MARKUP = (
    (b"<!doctype html", "web page, as a failed download leaves it"),
    (b"<html", "web page, as a failed download leaves it"),
    (b"<svg", "SVG drawing, which is not supported: convert it to PNG"),
    (b"<?xml", "XML document, as a failed download or a drawing leaves it"),
)
_LOOKED_AT = 512
_BANDS = 277  # tag of TIFF


def content_kind(content: bytes) -> str:
    """What the first bytes of a file say that it is, in a few words; empty if they say nothing."""
    head = content[:_LOOKED_AT]
    if not head:
        return "empty file"
    for offset, signature, words in _SIGNATURES:
        if head.startswith(signature, offset):
            return words
    if not head.strip(b"\0"):
        return "file that begins with nothing but zeros"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, words in _MARKUP:
        if text.startswith(start):
            return words
    try:
        characters = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(content) <= _LOOKED_AT)
    except UnicodeDecodeError:
        return ""
    return "text file" if all(char.isprintable() or char.isspace() for char in characters) else ""


def image_fault(content: bytes, error: Exception) -> str:
    """Why Pillow cannot decode a file, in words that are the same for all files of which the same is wrong."""
    from PIL import UnidentifiedImageError

    problem = str(error)
    if re.search("truncated|end of file", problem, re.IGNORECASE):
        return "truncated image"
    kind = content_kind(content)
    if "TIFF" in kind and (bands := _tiff_bands(content)) not in {1, 3, 4}:
        return f"TIFF of {bands} bands, which no picture has: put the pixels into arrays, as of an .npz"
    if isinstance(error, UnidentifiedImageError):  # names an object in memory
        return kind or "no image of a known format"
    return f"{kind}: {problem}" if kind.startswith("damaged") else problem or type(error).__name__


def _tiff_bands(content: bytes) -> int:
    """Bands of a TIFF that Pillow does not open; 1 where it does not say."""
    from PIL import TiffImagePlugin

    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        return int(tags.get(_BANDS, 1))
    except Exception:  # damaged, it makes Pillow raise nearly anything
        return 1
