"""Channels of any number and values of any type as red, green and blue."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.data.images import UnfitPixelsError, channel_groups, rgb_planes


def planes(pixels, rule="auto", value_range=None):
    """The three planes ``[3, H, W]``, repeated where there is one."""
    made = rgb_planes(pixels, channel_groups(rule, pixels.shape[2]), value_range)
    assert all(plane.dtype == np.float32 for plane in made)
    return np.broadcast_to(np.stack(made), (3, *pixels.shape[:2]))


@pytest.mark.parametrize(
    ("rule", "num_channels", "groups"),
    [
        ("auto", 1, ((0,), (0,), (0,))),
        ("auto", 2, ((0,), (1,), (0,))),
        ("auto", 3, ((0,), (1,), (2,))),
        ("tile", 4, ((0, 3), (1,), (2,))),
        ("auto", 12, ((0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11))),
        ("mean", 1, ((0,), (0,), (0,))),
        ("mean", 4, ((0, 1, 2, 3),) * 3),
        ("3,2,1", 12, ((3,), (2,), (1,))),
        ("0,0,0", 1, ((0,), (0,), (0,))),
    ],
)
def test_rules_choose_channels(rule, num_channels, groups):
    assert channel_groups(rule, num_channels) == groups


@settings(max_examples=60, deadline=None)
@given(num_channels=st.integers(3, 20))
def test_tile_gives_every_channel_to_one_colour(num_channels):
    groups = channel_groups("tile", num_channels)
    assert sorted(channel for group in groups for channel in group) == list(range(num_channels))
    assert all(channel % 3 == colour for colour, group in enumerate(groups) for channel in group)


@pytest.mark.parametrize(
    ("rule", "num_channels", "problem"),
    [
        ("3,2,1", 3, "has 3 channels, so there is no channel 3 to take; channels are counted from 0 to 2"),
        ("0,1,0", 1, "has 1 channel, so there is no channel 1 to take; channels are counted from 0 to 0"),
    ],
)
def test_missing_channel_is_refused(rule, num_channels, problem):
    with pytest.raises(UnfitPixelsError, match=f"^{re.escape(problem)}$"):
        channel_groups(rule, num_channels)


def slow_planes(pixels, rule, low, high):
    """Pixel by pixel and channel by channel, in plain Python floats."""
    height, width, num_channels = pixels.shape
    out = np.zeros((3, height, width))
    for colour, y, x in np.ndindex(out.shape):
        if rule == "mean":
            values = [float(value) for value in pixels[y, x]]
        elif rule == "tile":
            values = [float(pixels[y, x, c]) for c in range(num_channels) if c % 3 == colour]
            values = values or [float(pixels[y, x, (0, 1, 0)[colour] % num_channels])]
        else:
            values = [float(pixels[y, x, int(rule.split(",")[colour])])]
        out[colour, y, x] = sum(min(max((v - low) / (high - low), 0), 1) * 255 for v in values) / len(values)
    return out


DTYPES = ["uint8", "uint16", ">u2", "int16", "int64", "uint32", "float16", "float32", "float64"]


@settings(max_examples=120, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    num_channels=st.integers(1, 13),
    rule=st.sampled_from(["auto", "tile", "mean", "i,j,k"]),
    value_range=st.sampled_from([(0, 100), (-50, 50), (10.5, 11), (0, 4095)]),
    seed=st.integers(0, 99),
)
def test_planes_match_the_slow_way(dtype, num_channels, rule, value_range, seed):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 200, (3, 2, num_channels)).astype(dtype)
    if rule == "i,j,k":
        rule = ",".join(map(str, generator.integers(0, num_channels, 3)))
    expected = slow_planes(pixels, "tile" if rule == "auto" else rule, *value_range)
    assert np.allclose(planes(pixels, rule, value_range), expected, atol=1e-4)


@pytest.mark.parametrize("num_channels", [3, 6, 12])
def test_tile_is_a_first_convolution_with_repeated_weights(num_channels):
    """What timm does for other numbers of channels: repeat the weights and scale them by 3/C."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(5, 3))
    pixels = generator.uniform(0, 1, (4, 4, num_channels))
    repeated = np.tile(weight, num_channels // 3) * 3 / num_channels
    expected = 255 * np.einsum("oc,hwc->ohw", repeated, pixels)
    assert np.allclose(np.einsum("oc,chw->ohw", weight, planes(pixels)), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [0, 51, 255], [0, 51, 255]),
        ("uint16", [0, 257 * 51, 65535], [0, 51, 255]),
        (">u2", [0, 257 * 51, 65535], [0, 51, 255]),
        ("float16", [0, 0.25, 1], [0, 63.75, 255]),
        ("float32", [0, 0.2, 1], [0, 51, 255]),
        ("float64", [np.nan, 0.2, 1], [0, 51, 255]),
    ],
)
def test_range_of_the_type(dtype, values, expected):
    assert planes(np.array([values]).astype(dtype)[..., None])[0].tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.array([0.5, 1.25, 7]), "has a pixel of 1.25, and floats without a range are 0 to 1; "),
        (np.array([-0.5, 1]), "has a pixel of -0.5, and floats without a range are 0 to 1; "),
        (np.array([0.5, np.inf]), "has a pixel of inf, and floats without a range are 0 to 1; "),
        (np.array([0, 1], np.int16), "has pixels of type int16, which has no range of its own; "),
        (np.array([0, 1], np.uint32), "has pixels of type uint32, which has no range of its own; "),
    ],
    ids=["above", "below", "infinite", "int16", "uint32"],
)
def test_undeclared_range_is_refused(pixels, problem):
    advice = "declare the values of black and white with value_range=(LOW, HIGH)"
    with pytest.raises(UnfitPixelsError, match=f"^{re.escape(problem + advice)}$"):
        planes(pixels[None, :, None])
    assert planes(pixels[None, :, None], value_range=(0, 10)).shape == (3, 1, len(pixels))


def test_values_beyond_a_declared_range_are_clipped():
    pixels = np.array([[-np.inf, -1e300, 5, 15, 25, 1e300, np.inf, np.nan]])[..., None]
    assert planes(pixels, value_range=(5, 25))[0, 0].tolist() == [0, 0, 0, 127.5, 255, 255, 255, 0]


def test_a_declared_range_may_be_as_wide_as_numbers_are():
    pixels = np.array([[0.0, 1.0, np.inf]])[..., None]
    assert np.isfinite(planes(pixels, value_range=(-1e308, 1e308))).all()
