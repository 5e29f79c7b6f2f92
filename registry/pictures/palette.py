"""Colours that everybody can distinguish, on light and dark ground, for pages and pictures alike.

The eight of Okabe and Ito differ for people of every kind of colour vision. Some are too pale to stand out from
white, so what is drawn in them has an edge in ``Theme.edge``. Wherever there is a legend, shapes differ too.

Source:
    Okabe and Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/.
"""

from dataclasses import dataclass

SERIES = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#000000")
"""On light ground: blue, orange, green, vermilion, purple, sky, yellow, black."""

SERIES_DARK = (*SERIES[:-1], "#ffffff")
"""On dark ground, where white takes the place of black."""


SEQUENCE = (
    "#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838",
)  # fmt: skip
"""From low to high, eight equal steps of Cividis (Nunez, Anderton and Renslow, PLOS ONE 13, 2018)."""


@dataclass(frozen=True)
class Theme:
    """The colours of a picture."""

    name: str  # ``light`` or ``dark``
    ground: str
    ink: str
    soft: str  # colour of text that matters less
    line: str  # colour of grids
    edge: str  # colour around what is drawn in a colour of ``series``
    rest: str  # colour of what has none of its own
    series: tuple[str, ...]  # the eight colours of groups


THEMES: dict[str, Theme] = {
    theme.name: theme
    for theme in (
        Theme("light", "#ffffff", "#17202b", "#52606f", "#d9dee5", "#17202b", "#a9b3bf", SERIES),
        Theme("dark", "#10151b", "#e7ecf2", "#a3b0be", "#2d3844", "#e7ecf2", "#6b7886", SERIES_DARK),
    )
}


def rgb(colour: str) -> tuple[float, float, float]:
    """Red, green and blue of ``#rrggbb``, 0 to 1."""
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue
