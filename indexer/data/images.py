"""Image files and arrays to network inputs: decode anything to RGB, then resize and crop.

Pixels may have any number of channels and hold any numbers. Each of red, green and blue is the mean of some
channels, by a rule:

    auto, tile   of channels 0, 3, 6, ..., of 1, 4, 7, ... and of 2, 5, 8, ...; one channel is all three, and
                 two are a, b, a. Where C is a multiple of three, this is what a first convolution sees whose
                 weights are repeated over the channels and scaled by 3/C, as timm makes it.
    mean         of all channels, three times
    i,j,k        of one channel each, counted from 0

Axes: H height, W width, C channels.
"""

import io
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from indexer.records import InputTransform
from indexer.signatures import image_fault

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
)  # fmt: skip
MAX_PIXELS = 100_000_000

# Pillow goes by content, not by suffix. The other formats it knows stay closed: some start programs (EPS).
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
_MAX_ASPECT = 16
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
_PNG_WORDS = frozenset({b"iCCP", b"tEXt", b"zTXt", b"iTXt"})  # chunks of a colour profile and of text

Groups = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""For each of red, green and blue the channels that it is the mean of."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else a line on stderr for each odd file

Read = TypeVar("Read")
Picture = Image.Image | list[Image.Image]
"""A loaded image of mode RGB, or red, green and blue of mode F from 0 to 255; one where the three are equal."""


class UnreadableImageError(ValueError):
    """Bytes that are no image, or a broken one, and why; ``indexer.data.samples`` counts and skips it."""


class UnfitPixelsError(ValueError):
    """Pixels that the rule for channels or the range of values does not fit; no fault of a single image."""


class _Decoding:
    """Keeps the memory of several threads to that of one large image, and what Pillow warns of to itself.

    Both are of the process. Pixels wait until those of other threads are done; no image has more than
    ``MAX_PIXELS``, so each has its turn. The filters of warnings are changed by the first that comes and put
    back by the last that goes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pixels = 0
        self._quiet = 0
        self._filters = warnings.catch_warnings()

    @contextmanager
    def room_for(self, pixels: int) -> Iterator[None]:
        """Wait for room, and hold it; ``ValueError`` if there never is."""
        if pixels > MAX_PIXELS:
            raise ValueError(f"{pixels} pixels are more than {MAX_PIXELS}")
        with self._changed:
            self._changed.wait_for(lambda: self._pixels + pixels <= MAX_PIXELS)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Without the warnings that Pillow gives of odd files that it reads all the same."""
        with self._changed:
            if not self._quiet:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._quiet += 1
        try:
            yield
        finally:
            with self._changed:
                self._quiet -= 1
                if not self._quiet:
                    self._filters.__exit__(None, None, None)


_DECODING = _Decoding()


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image: a known suffix, in any case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def decode_image(
    raw: bytes | np.ndarray, channels: str = "auto", value_range: tuple[float, float] | None = None
) -> Picture:
    """Decode one image to RGB, upright.

    Of files: orientation in EXIF is applied, colour profiles are not. The first frame of an animation or of a
    file of several pages stands for it. Transparency is laid over white. 16-bit grey is divided by 257, so that
    65,535 becomes 255. Integer or float grey that declares no range has its own minimum and maximum
    stretched to 0 and 255; values that are not finite become 0. A declared range is that of 16-bit, integer and
    float grey, but for PGM, which declares its own. What comes out has three channels, which ``channels``
    may mix.

    Of arrays: all channels are mixed, but four of 8 bits without a declared range
    are red, green, blue and opacity under ``auto``, laid over white like those of files.

    Args:
        raw: Content of a file, or pixels ``[H, W]`` or ``[H, W, C]``.
        channels: As in ``EmbeddingSettings``.
        value_range: As in ``EmbeddingSettings``.

    Raises:
        UnreadableImageError: If Pillow cannot decode it or it has more than ``MAX_PIXELS`` pixels.
        UnfitPixelsError: If the channels or the values are not what ``channels`` and ``value_range`` ask for.
    """
    with ExitStack() as held:
        return _decode(raw, channels, value_range, held)


def count_pixels(content: bytes) -> int:
    """Pixels of an image, of which none is decoded; ``UnreadableImageError`` if Pillow knows no image."""

    def count(content: bytes) -> int:
        with _DECODING.quietly(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return max(image.width * image.height, _tile_pixels(image))

    try:
        return _with_long_words(count, content)
    except Image.DecompressionBombError:  # Pillow opens none that is larger than this
        return 2 * int(Image.MAX_IMAGE_PIXELS or 0) + 1
    except Exception as error:  # as in ``_decode``
        raise UnreadableImageError(_fault(content, error)) from error


def image_input(
    raw: bytes | np.ndarray,
    transform: InputTransform,
    channels: str = "auto",
    value_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """``fit_image`` of ``decode_image``; threads that do this at once take the memory of one large image."""
    with ExitStack() as held:
        return fit_image(_decode(raw, channels, value_range, held), transform)


def _decode(
    raw: bytes | np.ndarray, channels: str, value_range: tuple[float, float] | None, held: ExitStack
) -> Picture:
    """``decode_image``, with room for the pixels that is given back when ``held`` is closed.

    Raises:
        UnreadableImageError: If it cannot be decoded, see ``decode_image``.
    """
    if isinstance(raw, np.ndarray):
        try:
            held.enter_context(_DECODING.room_for(raw.shape[0] * raw.shape[1]))
        except ValueError as error:
            raise UnreadableImageError(str(error)) from error
        return _decode_array(raw, channels, value_range)
    try:
        with _DECODING.quietly():
            picture = _with_long_words(lambda content: _decode_file(content, value_range, held), raw)
    except Exception as error:  # broken files make Pillow raise nearly anything, from OSError to struct.error
        raise UnreadableImageError(_fault(raw, error)) from error
    groups = channel_groups(channels, 3)
    if isinstance(picture, list) or groups == ((0,), (1,), (2,)):
        return picture  # grey is the same in every order
    return _decode_array(np.asarray(picture), channels, None)


def _fault(content: bytes, error: Exception) -> str:
    with _DECODING.quietly():
        return image_fault(content, error)


def _with_long_words(read: Callable[[bytes], Read], content: bytes) -> Read:
    """``read(content)``; once more without text and colour profile if Pillow refuses a PNG for their length.

    Raises:
        ValueError: As Pillow does of anything else.
    """
    try:
        return read(content)
    except ValueError as error:
        if content.startswith(b"\x89PNG") and re.search("text chunks|MAX_TEXT_CHUNK", str(error)):
            return read(_without_words(content))
        raise


def _without_words(content: bytes) -> bytes:
    """A PNG without its chunks of text and colour profile, neither of which changes a pixel here."""
    kept, place = [content[:8]], 8
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] not in _PNG_WORDS:
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def fit_image(picture: Picture, transform: InputTransform) -> np.ndarray:
    """Resize the shorter side to ``transform.resize`` and cut out the centre.

    Bilinear with antialiasing. Images longer than 16:1 lose their ends before, not after, being enlarged:
    the crop never shows them, and a line of 1 by 100,000 pixels would fill the memory. Floats are rounded last.

    Args:
        picture: As ``decode_image`` makes it.
        transform: With ``resize >= crop >= 1``; mean and standard deviation are left to the network.

    Returns:
        ``[3, crop, crop]`` uint8, channels red, green, blue.

    Source:
        torchvision.transforms.Resize and CenterCrop, whose roundings it follows: the tests hold both equal.
    """
    if isinstance(picture, Image.Image):
        return np.asarray(_fit(picture, transform)).transpose(2, 0, 1)
    planes = np.rint([np.asarray(_fit(plane, transform)) for plane in picture]).astype(np.uint8)
    return np.broadcast_to(planes, (3, *planes.shape[1:]))


def _fit(image: Image.Image, transform: InputTransform) -> Image.Image:
    width, height = (min(side, _MAX_ASPECT * min(image.size)) for side in image.size)
    if (width, height) != image.size:
        image = _centre(image, width, height)
    short = min(width, height)
    image = image.resize(
        (transform.resize * width // short, transform.resize * height // short), Image.Resampling.BILINEAR
    )
    return _centre(image, transform.crop, transform.crop)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _decode_array(pixels: np.ndarray, channels: str, value_range: tuple[float, float] | None) -> Picture:
    eight_bit = pixels.dtype == np.uint8 and value_range is None
    if eight_bit and channels == "auto" and pixels.shape[2:] == (4,):
        return _to_rgb(Image.fromarray(pixels))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    groups = channel_groups(channels, pixels.shape[2])
    if eight_bit and all(len(group) == 1 for group in groups):  # nothing to compute, so nothing to round
        return Image.fromarray(np.ascontiguousarray(pixels[..., [group[0] for group in groups]]))
    return [Image.fromarray(plane) for plane in rgb_planes(pixels, groups, value_range)]


def _decode_file(content: bytes, value_range: tuple[float, float] | None, held: ExitStack) -> Picture:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        held.enter_context(_DECODING.room_for(max(image.width * image.height, _tile_pixels(image))))
        image.load()
        upright = _upright(image)
        own_range = image.format == "PPM" and upright.mode == "I"  # what Pillow makes of PGM beyond 8 bits
        if value_range and upright.mode.startswith(("I", "F")) and not own_range:
            return _decode_array(np.asarray(upright), "auto", value_range)
        return _to_rgb(upright, image.format)


def _tile_pixels(image: Image.Image) -> int:
    """Pixels of a tile of a TIFF, which are decoded whole even where the image is smaller; else 0."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block hides the orientation; the pixels are still good
        return image


def _to_rgb(image: Image.Image, file_format: str | None = None) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _stretched(image, 0, 65535)
    if image.mode == "I" and file_format == "PPM":  # Pillow scales PGM of more than 8 bits to 16
        return _stretched(image, 0, 65535)
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        finite = values[np.isfinite(values)]
        if not finite.size:
            raise ValueError("no pixel is a finite number")
        return _stretched(image, float(finite.min()), float(finite.max()))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _stretched(image: Image.Image, low: float, high: float) -> Image.Image:
    """Grey values from ``low`` to ``high`` as 0 to 255; all 0 where the two are equal."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=low, posinf=low, neginf=low)
    scale = 255 / (high - low) if high > low else 0.0
    return Image.fromarray(np.rint((values - low) * scale).astype(np.uint8)).convert("RGB")


def channel_groups(rule: str, num_channels: int) -> Groups:
    """The channels that make red, green and blue; ``UnfitPixelsError`` if one is not there."""
    if rule == "mean":
        everything = tuple(range(num_channels))
        return everything, everything, everything
    if rule in ("auto", "tile"):
        red, green, blue = (tuple(range(first % num_channels, num_channels, 3)) for first in range(3))
        return red, green, blue
    red, green, blue = ((int(index),) for index in rule.split(","))
    highest = max(red + green + blue)
    if highest >= num_channels:
        raise UnfitPixelsError(
            f"has {num_channels} channel{'s' * (num_channels > 1)}, so there is no channel {highest} to take; "
            f"channels are counted from 0 to {num_channels - 1}"
        )
    return red, green, blue


def rgb_planes(
    pixels: np.ndarray, groups: Groups, value_range: tuple[float, float] | None = None
) -> list[np.ndarray]:
    """Scale pixels to 0 to 255 and mix their channels.

    Args:
        pixels: ``[H, W, C]`` integers or floats.
        groups: As ``channel_groups`` makes them.
        value_range: The values that become 0 and 255. ``None`` for the range of an 8- or 16-bit unsigned type,
            and for 0 to 1 of floats that stay within. Values beyond are clipped; what is no number becomes 0.

    Returns:
        Red, green and blue ``[H, W]`` float32 from 0 to 255; one plane where the three are equal.

    Raises:
        UnfitPixelsError: If no range is given and the type has none, or floats go beyond 0 to 1.
    """
    low, high = value_range or _range_of_type(pixels)
    kept = groups[:1] if len(set(groups)) == 1 else groups
    return [
        np.stack([_scaled(pixels[..., channel], low, high) for channel in group]).mean(axis=0) for group in kept
    ]


def _range_of_type(pixels: np.ndarray) -> tuple[float, float]:
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if kind == "u" and size <= 2:
        return 0, 2 ** (8 * size) - 1
    advice = "declare the values of black and white with value_range=(LOW, HIGH)"
    if kind != "f":
        raise UnfitPixelsError(f"has pixels of type {pixels.dtype}, which has no range of its own; {advice}")
    beyond = pixels[(pixels < 0) | (pixels > 1)]
    if beyond.size:
        raise UnfitPixelsError(f"has a pixel of {beyond[0]:g}, and floats without a range are 0 to 1; {advice}")
    return 0, 1


def _scaled(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from ``low`` to ``high`` as 0 to 255, float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are clipped or, times 0, no number
        scaled = np.clip((plane.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    return np.nan_to_num(scaled, copy=False, nan=0.0).astype(np.float32)
