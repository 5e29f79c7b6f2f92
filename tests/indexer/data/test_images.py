"""Decoding and fitting of single images."""

import importlib
import re

import numpy as np
import pytest
from builders_datasets import encoded, noise_image, png_header
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.data import images
from indexer.data.images import (
    IMAGE_SUFFIXES,
    UnfitPixelsError,
    UnreadableImageError,
    decode_image,
    fit_image,
    is_image_name,
)
from indexer.records import InputTransform


def pixel(image):
    """The colour of a decoded image of one colour."""
    assert image.mode == "RGB"
    colours = np.unique(np.asarray(image).reshape(-1, 3), axis=0)
    assert len(colours) == 1
    return tuple(colours[0].tolist())


def plain(mode, value, size=(3, 2)):
    return Image.new(mode, size, value)


def palette_image(transparency=None):
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return encoded(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


ONE_COLOUR = {
    "grey": (encoded(plain("L", 77), "PNG"), (77, 77, 77)),
    "bilevel": (encoded(plain("1", 1), "PNG"), (255, 255, 255)),
    "rgb": (encoded(plain("RGB", (1, 2, 3)), "PNG"), (1, 2, 3)),
    "palette": (palette_image(), (200, 100, 50)),
    "palette with a transparent entry": (palette_image(transparency=1), (255, 255, 255)),
    "palette with alpha per entry": (palette_image(transparency=b"\xff\x33"), (244, 224, 214)),
    "rgba, opaque": (encoded(plain("RGBA", (9, 8, 7, 255)), "PNG"), (9, 8, 7)),
    "rgba, transparent black": (encoded(plain("RGBA", (0, 0, 0, 0)), "PNG"), (255, 255, 255)),
    "rgba, a fifth red": (encoded(plain("RGBA", (255, 0, 0, 51)), "PNG"), (255, 204, 204)),
    "grey with alpha": (encoded(plain("LA", (0, 51)), "PNG"), (204, 204, 204)),
    "rgb with a transparent colour": (
        encoded(plain("RGB", (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        (255, 255, 255),
    ),
    "cmyk": (encoded(plain("CMYK", (255, 0, 255, 0)), "TIFF"), (0, 255, 0)),
    "16-bit grey png": (encoded(plain("I;16", 257 * 100), "PNG"), (100, 100, 100)),
    "16-bit grey png, just below a half": (encoded(plain("I;16", 257 * 100 + 128), "PNG"), (100, 100, 100)),
    "16-bit grey png, just above a half": (encoded(plain("I;16", 257 * 100 + 129), "PNG"), (101, 101, 101)),
    "16-bit grey tiff": (encoded(plain("I;16", 65535), "TIFF"), (255, 255, 255)),
    "big-endian 16-bit grey tiff": (encoded(plain("I;16B", 257 * 9), "TIFF"), (9, 9, 9)),
    "16-bit pgm": (b"P5 3 2 65535\n" + (257 * 100).to_bytes(2, "big") * 6, (100, 100, 100)),
    "10-bit pgm": (b"P5 3 2 1023\n" + (1023).to_bytes(2, "big") * 6, (255, 255, 255)),
    "constant 32-bit integers": (encoded(plain("I", -70000), "TIFF"), (0, 0, 0)),
    "constant floats": (encoded(plain("F", 0.7), "TIFF"), (0, 0, 0)),
}


@pytest.mark.parametrize(("content", "colour"), ONE_COLOUR.values(), ids=ONE_COLOUR.keys())
def test_decode_gives_the_colour_of_every_mode(content, colour):
    assert pixel(decode_image(content)) == colour


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.array([[-100, 0, 155]], np.int32), [0, 100, 255]),
        (np.array([[0, 65536, 196608]], np.int32), [0, 85, 255]),
        (np.array([[0.0, 0.25, 1.0]], np.float32), [0, 64, 255]),
        (np.array([[2.0, np.nan, np.inf, -np.inf, 4.0]], np.float32), [0, 0, 0, 0, 255]),
    ],
    ids=["signed", "beyond 16 bits", "fractions", "not finite"],
)
def test_decode_stretches_undeclared_ranges(values, grey):
    decoded = decode_image(encoded(Image.fromarray(values), "TIFF"))
    assert np.asarray(decoded)[0].tolist() == [[value] * 3 for value in grey]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
def test_decode_takes_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = np.broadcast_to(pixels.reshape(4, 5, -1), (4, 5, 3))
    assert np.array_equal(decode_image(pixels), expected)


def test_decode_lays_transparent_pixels_over_white():
    assert pixel(decode_image(np.full((2, 2, 4), (255, 0, 0, 51), np.uint8))) == (255, 204, 204)


def fitted(raw, channels="auto", value_range=None, side=None):
    """Decoded and fitted; at its own size by default."""
    picture = decode_image(raw, channels, value_range)
    size = picture.size if isinstance(picture, Image.Image) else picture[0].size
    return fit_image(picture, InputTransform(side or min(size), side or min(size)))


def numbers(*shape, low=0, high=256, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def test_decode_takes_four_channels_of_8_bits_for_opacity_only_if_nothing_else_is_said():
    pixels = numbers(6, 6, 4)
    over_white = fitted(encoded(Image.fromarray(pixels), "PNG"))
    assert np.array_equal(fitted(pixels), over_white)
    tiled = np.stack([pixels[..., [0, 3]].mean(axis=2), pixels[..., 1], pixels[..., 2]])
    assert np.array_equal(fitted(pixels, "tile"), np.rint(tiled))
    assert np.array_equal(fitted(pixels, "auto", (0, 255)), np.rint(tiled))
    assert np.array_equal(fitted(pixels.astype(np.uint16) * 257), np.rint(tiled))
    assert np.array_equal(fitted(pixels, "3,1,0"), pixels.transpose(2, 0, 1)[[3, 1, 0]])


@pytest.mark.parametrize(("num_channels", "order"), [(1, [0, 0, 0]), (2, [0, 1, 0]), (3, [0, 1, 2])])
@pytest.mark.parametrize("rule", ["auto", "tile"])
def test_8_bit_arrays_that_need_no_arithmetic_are_fitted_like_files(num_channels, order, rule):
    pixels = numbers(20, 20, num_channels)
    as_file = encoded(Image.fromarray(pixels[..., order]), "PNG")
    assert np.array_equal(fitted(pixels, rule, side=7), fitted(as_file, side=7))


@pytest.mark.parametrize(
    ("rule", "mixed"),
    [
        ("auto", lambda rgb: rgb),
        ("tile", lambda rgb: rgb),
        ("2,1,0", lambda rgb: rgb[::-1]),
        ("1,1,1", lambda rgb: rgb[[1, 1, 1]]),
        ("mean", lambda rgb: np.rint(rgb.mean(axis=0, keepdims=True)).repeat(3, axis=0)),
    ],
)
def test_rules_mix_the_colours_of_files(rule, mixed):
    pixels = numbers(6, 6, 3)
    content = encoded(Image.fromarray(pixels), "PNG")
    assert np.array_equal(fitted(content, rule), mixed(pixels.transpose(2, 0, 1)))
    grey = encoded(Image.fromarray(pixels[..., 0]), "PNG")
    assert np.array_equal(fitted(grey, rule), np.stack([pixels[..., 0]] * 3))


@pytest.mark.parametrize("value_range", [None, (0, 9)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "F"])
def test_files_have_three_channels(mode, value_range):
    content = encoded(plain(mode, 0), "TIFF")
    problem = "has 3 channels, so there is no channel 3 to take; channels are counted from 0 to 2"
    with pytest.raises(UnfitPixelsError, match=f"^{re.escape(problem)}$"):
        decode_image(content, "3,2,1", value_range)


DEEP = {
    "16-bit png": ("PNG", numbers(6, 6, high=5000, dtype=np.uint16)),
    "16-bit tiff": ("TIFF", numbers(6, 6, high=5000, dtype=np.uint16)),
    "32-bit tiff": ("TIFF", numbers(6, 6, low=-5000, high=5000, dtype=np.int32)),
    "pfm": ("PPM", numbers(6, 6, low=-5000, high=5000, dtype=np.float32) / 3),
    "float tiff": ("TIFF", numbers(6, 6, low=-5000, high=5000, dtype=np.float32) / 3),
}


@pytest.mark.parametrize(("file_format", "pixels"), DEEP.values(), ids=DEEP.keys())
def test_a_declared_range_holds_for_files_of_more_than_8_bits(file_format, pixels):
    content = encoded(Image.fromarray(pixels), file_format)
    for low, high in ((0, 4095), (-1000, 1000), (100.5, 200)):
        expected = np.rint(np.clip((pixels.astype(float) - low) / (high - low), 0, 1) * 255)
        assert np.abs(fitted(content, value_range=(low, high)) - expected).max() <= 1e-9


def test_a_declared_range_makes_black_of_what_is_no_number():
    values = np.array([[np.nan, np.inf], [-np.inf, 4.0]], np.float32)
    content = encoded(Image.fromarray(values), "TIFF")
    assert fitted(content, value_range=(0, 8))[0].tolist() == [[0, 255], [0, 128]]


@pytest.mark.parametrize(
    "content",
    [
        encoded(noise_image(4, 6, 6), "PNG"),
        encoded(noise_image(4, 6, 6), "JPEG"),
        b"P5 2 2 1023\n" + b"".join(value.to_bytes(2, "big") for value in (0, 100, 512, 1023)),
    ],
    ids=["png", "jpeg", "10-bit pgm"],
)
def test_a_declared_range_is_not_that_of_files_that_have_their_own(content):
    assert np.array_equal(fitted(content, value_range=(0, 100)), fitted(content))


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), side=st.integers(1, 20), seed=st.integers(0, 99))
def test_deep_pixels_are_rounded_last(height, width, side, seed):
    """Pillow rounds 8-bit images after each direction, so they are within a level of the same in 16 bits."""
    if max(height, width) > 16 * min(height, width):
        width = height
    pixels = numbers(height, width, 3, seed=seed)
    rounded_twice = fitted(pixels, side=side).astype(int)
    deep = fitted(pixels.astype(np.uint16) * 257, side=side)
    assert deep.dtype == np.uint8
    assert np.abs(deep - rounded_twice).max() <= 1
    planes = decode_image(pixels.astype(np.uint16) * 257)
    short = min(height, width)
    size = (side * width // short, side * height // short)
    exact = np.stack([np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes])
    top, left = round((size[1] - side) / 2), round((size[0] - side) / 2)
    assert np.abs(deep - exact[:, top : top + side, left : left + side]).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_decode_reads_every_suffix(tmp_path, suffix):
    smooth = noise_image(0, 3, 4).resize((80, 60), Image.Resampling.BICUBIC)
    image = smooth.convert("L" if suffix == ".pgm" else "RGB")
    path = tmp_path / f"image{suffix}"
    image.save(path)
    difference = np.asarray(decode_image(path.read_bytes()), float) - np.asarray(image.convert("RGB"), float)
    exact = suffix in {".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
    assert np.abs(difference).mean() <= (0 if exact else 8)
    assert is_image_name(path.name.upper())


def test_decode_takes_the_first_frame():
    frames = [plain("RGB", colour) for colour in ((10, 20, 30), (200, 100, 0))]
    for file_format in ("GIF", "TIFF", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        content = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert pixel(decode_image(content)) == (10, 20, 30)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_decode_applies_exif_orientation(orientation, file_format):
    image = noise_image(1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = np.asarray(decode_image(encoded(image, file_format, exif=exif)))
    assert np.array_equal(decoded, UPRIGHT[orientation](np.asarray(image)))


def test_decode_turns_a_jpeg_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(noise_image(0, 8, 16), "JPEG", exif=exif)).size == (8, 16)


def test_decode_survives_broken_exif():
    content = encoded(plain("L", 50), "PNG", exif=b"Exif\0\0this is no TIFF header")
    assert pixel(decode_image(content)) == (50, 50, 50)


JPEG = encoded(noise_image(2, 60, 60), "JPEG")
UNREADABLE = {
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "truncated image"),
    "truncated png": (encoded(noise_image(2, 60, 60), "PNG")[:3000], "truncated image"),
    "a format beyond the suffixes": (encoded(noise_image(2), "PCX"), "no image of a known format"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript file"),
    "bomb": (png_header(60_000, 60_000), "exceeds limit of"),
    "no finite value": (encoded(plain("F", float("nan")), "TIFF"), "no pixel is a finite number"),
}


@pytest.mark.parametrize(("content", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_decode_refuses(content, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(content)


def test_decode_refuses_what_pillow_only_warns_of():
    with pytest.raises(UnreadableImageError, match=re.escape("110000000 pixels are more than 100000000")):
        decode_image(png_header(11_000, 10_000))


def test_decode_takes_images_up_to_the_limit(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 6)
    assert decode_image(encoded(plain("L", 0, (3, 2)), "PNG")).size == (3, 2)
    with pytest.raises(UnreadableImageError, match="7 pixels are more than 6"):
        decode_image(encoded(plain("L", 0, (7, 1)), "PNG"))


WHOLE_FILES = [encoded(noise_image(3), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(
    content=st.sampled_from(WHOLE_FILES),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_decode_of_a_damaged_file_decodes_or_refuses(content, changes):
    damaged = bytearray(content)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    try:
        assert decode_image(bytes(damaged)).mode == "RGB"
    except UnreadableImageError as error:
        assert isinstance(error.__cause__, Exception)  # noqa: PT017 (either way is right)


@pytest.fixture(scope="module")
def functional():
    """torchvision's transforms, imported after what ``indexer.networks.torchvision`` prepares for it."""
    importlib.import_module("indexer.networks.torchvision")
    return importlib.import_module("torchvision.transforms.functional")


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    resize=st.integers(1, 40),
    margin=st.integers(0, 20),
    seed=st.integers(0, 9),
)
def test_fit_matches_torchvision(functional, height, width, resize, margin, seed):
    if max(height, width) > 16 * min(height, width):
        width = height
    crop = max(1, resize - margin)
    image = noise_image(seed, height, width)
    expected = functional.center_crop(functional.resize(image, resize), crop)
    fitted = fit_image(image, InputTransform(resize, crop))
    assert fitted.shape == (3, crop, crop)
    assert fitted.dtype == np.uint8
    assert np.array_equal(fitted, np.asarray(expected).transpose(2, 0, 1))


def test_fit_enlarges_a_single_pixel():
    fitted = fit_image(plain("RGB", (1, 2, 3), (1, 1)), InputTransform(8, 8))
    assert np.array_equal(fitted, np.broadcast_to(np.array([1, 2, 3], np.uint8)[:, None, None], (3, 8, 8)))


@pytest.mark.parametrize("tall", [False, True], ids=["wide", "tall"])
def test_fit_cuts_a_line_before_enlarging_it(monkeypatch, tall):
    """A line of 100,000 pixels whose middle is white; enlarged whole, it would be 6 million pixels long."""
    line = np.zeros((1, 100_000, 3), np.uint8)
    line[:, 49_980:50_020] = 255
    image = Image.fromarray(line.transpose(1, 0, 2) if tall else line)
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, how: sizes.append(size) or resize(self, size, how)
    )
    assert fit_image(image, InputTransform(64, 56)).min() == 255
    assert sorted(sizes[0]) == [64, 1024]
