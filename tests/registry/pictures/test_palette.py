"""Colours: everybody can distinguish them, and see them on their ground."""

from itertools import combinations

import numpy as np
import pytest

from registry.pictures.palette import SERIES, SERIES_DARK, THEMES, rgb

# Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009: what is seen without one kind of cone, of linear RGB.
BLINDNESS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
FEWEST_APART = 8.0
"""In CIE 1976 units, of which an eye sees about 2.3."""


def linear(part):
    """The light of a part of a colour, 0 to 1."""
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def contrast(one, other):
    """Contrast of two colours, 1 to 21, by the Web Content Accessibility Guidelines 2.2."""
    lights = sorted(np.dot([0.2126, 0.7152, 0.0722], [*map(linear, rgb(colour))]) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def lab(colour, kind):
    """Colour as seen, in CIE L*a*b*."""
    light = np.array([linear(part) for part in rgb(colour)])
    seen = np.clip(np.array(BLINDNESS[kind]) @ light, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ seen / np.array([0.9505, 1, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("series", [SERIES, SERIES_DARK], ids=["light", "dark"])
def test_any_two_colours_differ_for_everybody(series, kind):
    gaps = {pair: np.linalg.norm(lab(pair[0], kind) - lab(pair[1], kind)) for pair in combinations(series, 2)}
    assert min(gaps.values()) >= FEWEST_APART, min(gaps, key=gaps.get)


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES.values(), ids=lambda theme: theme.name)
def test_everything_stands_out_from_its_ground(theme):
    assert contrast(theme.ink, theme.ground) >= 7
    assert contrast(theme.soft, theme.ground) >= 4.5
    assert contrast(theme.edge, theme.ground) >= 3
    for colour in (*theme.series, theme.rest):
        assert max(contrast(colour, theme.ground), contrast(theme.edge, theme.ground)) >= 3


def test_there_are_eight_colours_of_each_theme():
    assert all(len(set(theme.series)) == 8 for theme in THEMES.values())
