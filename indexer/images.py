"""Image files to network inputs: decode anything to RGB, then resize and crop.

Axes: H height, W width, C channels.
"""

import io

import numpy as np
from PIL import Image, ImageOps

from indexer.records import InputTransform

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 100_000_000

# Pillow goes by content, not by suffix. The other formats it knows stay closed: some start programs (EPS).
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_MAX_ASPECT = 16


class UnreadableImageError(ValueError):
    """Bytes that are no image, or a broken one; ``indexer.datasets`` counts and skips it."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image: a known suffix, in any case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def decode_image(raw: bytes | np.ndarray) -> Image.Image:
    """Decode one image to 8-bit RGB, upright.

    Orientation in EXIF is applied, colour profiles are not. The first frame of an animation or of a file of
    several pages stands for it. Transparency is laid over white. 16-bit grey is divided by 257, so that
    65,535 becomes 255. Integer or float grey that declares no range has its own minimum and maximum
    stretched to 0 and 255; values that are not finite become 0.

    Args:
        raw: Content of a file, or decoded pixels ``[H, W]`` or ``[H, W, C]`` uint8 with C 1, 3 or 4.

    Returns:
        A loaded image of mode RGB.

    Raises:
        UnreadableImageError: If Pillow cannot decode it or it has more than ``MAX_PIXELS`` pixels.
    """
    try:
        return _array_to_rgb(raw) if isinstance(raw, np.ndarray) else _file_to_rgb(raw)
    except Exception as error:  # broken files make Pillow raise nearly anything, from OSError to struct.error
        raise UnreadableImageError(str(error)) from error


def fit_image(image: Image.Image, transform: InputTransform) -> np.ndarray:
    """Resize the shorter side to ``transform.resize`` and cut out the centre.

    Bilinear with antialiasing. Images longer than 16:1 lose their ends before, not after, being enlarged:
    the crop never shows them, and a line of 1 by 100,000 pixels would fill the memory.

    Args:
        image: Of mode RGB.
        transform: With ``resize >= crop >= 1``; mean and standard deviation are left to the network.

    Returns:
        ``[3, crop, crop]`` uint8, channels red, green, blue.

    Source:
        torchvision.transforms.Resize and CenterCrop, whose roundings it follows: the tests hold both equal.
    """
    width, height = (min(side, _MAX_ASPECT * min(image.size)) for side in image.size)
    if (width, height) != image.size:
        image = _centre(image, width, height)
    short = min(width, height)
    image = image.resize(
        (transform.resize * width // short, transform.resize * height // short), Image.Resampling.BILINEAR
    )
    return np.asarray(_centre(image, transform.crop, transform.crop)).transpose(2, 0, 1)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _array_to_rgb(pixels: np.ndarray) -> Image.Image:
    return _to_rgb(Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


def _file_to_rgb(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
        image.load()
        return _to_rgb(_upright(image), image.format)


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
