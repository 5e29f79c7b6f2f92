"""The drawing of two tasks in each layer of the probe, as SVG; a style sheet gives the colours.

Axes: L layers.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.pictures.svg import element, text

if TYPE_CHECKING:
    from registry.map_answers import LayerProfile

LEFT, RIGHT, TOP = 64, 16, 34
UPPER, LOWER, GAP, BOTTOM = 210, 110, 26, 92
"""Heights of the two parts, of the gap between them, and of the names of the layers."""

STEP, LEAST_WIDTH, MOST_WIDTH = 68, 640, 1400
DECADE = 10.0
LINE_HEIGHT = 15


def draw_layers(profile: "LayerProfile") -> str:
    """Both tasks in each layer: means with their standard errors above, on a log scale, distances below."""
    layers = profile.layers
    width = min(max(LEAST_WIDTH, LEFT + RIGHT + STEP * len(layers)), MOST_WIDTH)
    height = TOP + UPPER + GAP + LOWER + BOTTOM
    step = (width - LEFT - RIGHT) / max(len(layers), 1)
    across = [LEFT + step * (number + 0.5) for number in range(len(layers))]
    source = [(layer.source_mean, layer.source_error) for layer in layers]
    target = [(layer.target_mean, layer.target_error) for layer in layers]
    decades = _decades([mean for mean, _ in (*source, *target)])
    parts = [
        _decade_lines(decades, width),
        _series(across, source, decades, 1, -3.0),
        _series(across, target, decades, 2, 3.0),
        _key(profile.source, 1, LEFT),
        _key(profile.target, 2, LEFT + 40 + 7.5 * len(profile.source)),
        text("tick", 14, TOP + UPPER / 2, "Fisher information", turned=-90),
        _distances(across, [layer.distance for layer in layers], step, width),
        text("tick", 14, TOP + UPPER + GAP + LOWER / 2, "distance", turned=-90),
        _names(across, [layer.layer for layer in layers], step),
    ]
    title = f"Fisher information of {profile.source} and {profile.target} by layer, and their distance there"
    size = {"viewBox": f"0 0 {width:g} {height}", "width": width, "height": height}
    return element("svg", "profile", **size, role="img", aria_label=title, inside="".join(parts))


def _decades(means: Sequence[float]) -> tuple[int, int]:
    """Powers of ten below and above all means that are not zero."""
    positive = [mean for mean in means if mean > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return low, max(high, low + 1)


def _height(value: float, decades: tuple[int, int]) -> float:
    """Where a value is on the log scale; what is not above its lower end is drawn there."""
    low, high = decades
    share = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
    return TOP + UPPER * (1 - min(max(share, 0.0), 1.0))


def _decade_lines(decades: tuple[int, int], width: float) -> str:
    heights = {f"1e{power}": _height(DECADE**power, decades) for power in range(decades[0], decades[1] + 1)}
    return "".join(_tick_line(y, label, width) for label, y in heights.items())


def _tick_line(y: float, label: str, width: float) -> str:
    line = element("line", "axis", x1=LEFT, y1=y, x2=width - RIGHT, y2=y)
    return line + text("tick", LEFT - 8, y + 4, label, anchor="end")


def _series(
    across: Sequence[float],
    values: Sequence[tuple[float, float]],
    decades: tuple[int, int],
    number: int,
    aside: float,
) -> str:
    """The line of one task, with points and error bars a little beside those of the other."""
    places = [(x + aside, _height(mean, decades)) for x, (mean, _) in zip(across, values, strict=True)]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [element("polyline", f"line-{number}", points=joined)]
    for (x, y), (mean, error) in zip(places, values, strict=True):
        ends = _height(mean - error, decades), _height(mean + error, decades)
        parts.append(element("line", f"error-{number}", x1=x, y1=ends[0], x2=x, y2=ends[1]))
        parts.append(
            element("circle", "point-1", cx=x, cy=y, r=3.5)
            if number == 1
            else element("rect", f"point-{number}", x=x - 3.5, y=y - 3.5, width=7, height=7)
        )
    return "".join(parts)


def _distances(across: Sequence[float], distances: Sequence[float], step: float, width: float) -> str:
    """A bar for each layer, from 0 to 1."""
    floor = TOP + UPPER + GAP + LOWER
    parts = [_tick_line(floor - LOWER * value, f"{value:g}", width) for value in (0.0, 0.5, 1.0)]
    for x, value in zip(across, distances, strict=True):
        tall = LOWER * min(max(value, 0.0), 1.0)
        parts.append(element("rect", "range", x=x - step * 0.35, y=floor - tall, width=step * 0.7, height=tall))
    return "".join(parts)


def _names(across: Sequence[float], names: Sequence[str], step: float) -> str:
    """Names of layers, turned; some are left out where they would be closer than a line of text."""
    every = max(1, math.ceil(LINE_HEIGHT / step))
    y = TOP + UPPER + GAP + LOWER + 14
    return "".join(
        text("tick", x + 4, y, name if len(name) <= 18 else f"…{name[-17:]}", anchor="end", turned=-35)
        for x, name in list(zip(across, names, strict=True))[::every]
    )


def _key(name: str, number: int, x: float) -> str:
    """An entry of the legend."""
    return element("line", f"line-{number}", x1=x, y1=16, x2=x + 26, y2=16) + text("", x + 32, 20.5, name)
