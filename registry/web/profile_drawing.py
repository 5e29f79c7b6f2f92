"""The profile of two tasks as SVG: Fisher information and distance, layer by layer.

Axes: L layers of the probe.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from registry.map_answers import LayerProfile

LEFT, RIGHT, TOP = 64, 16, 34
UPPER, LOWER, GAP, BOTTOM = 210, 110, 26, 92
"""Heights of the two parts, of what is between them, and of the names of the layers."""

STEP, LEAST_WIDTH = 68, 640
MOST_WIDTH = 1400
DECADE = 10.0


def drawn(profile: LayerProfile) -> Markup:
    """Both tasks over the layers: means with their standard errors above, on a log scale, distances below."""
    layers = profile.layers
    width = min(max(LEAST_WIDTH, LEFT + RIGHT + STEP * len(layers)), MOST_WIDTH)
    height = TOP + UPPER + GAP + LOWER + BOTTOM
    step = (width - LEFT - RIGHT) / max(len(layers), 1)
    across = [LEFT + step * (place + 0.5) for place in range(len(layers))]
    source = [(it.source_mean, it.source_error) for it in layers]
    target = [(it.target_mean, it.target_error) for it in layers]
    decades = _decades([mean for mean, _ in (*source, *target)])
    parts = [
        _decade_lines(decades, width),
        _series(across, source, decades, 1, -3.0),
        _series(across, target, decades, 2, 3.0),
        _key(profile.source, 1, LEFT),
        _key(profile.target, 2, LEFT + 40 + 7.5 * len(profile.source)),
        _text("tick", 14, TOP + UPPER / 2, "Fisher information", turned=-90),
        _distances(across, [it.distance for it in layers], step, width),
        _text("tick", 14, TOP + UPPER + GAP + LOWER / 2, "distance", turned=-90),
        _names(across, [it.layer for it in layers], step),
    ]
    title = f"Fisher information of {profile.source} and {profile.target} by layer, and their distance there"
    head = Markup(
        '<svg class="profile" viewBox="0 0 {:g} {}" width="{:g}" height="{}" role="img" aria-label="{}">'
    )
    return head.format(width, height, width, height, title) + Markup("").join(parts) + Markup("</svg>")


def _decades(means: Sequence[float]) -> tuple[int, int]:
    """Powers of ten below and above all means that are not zero."""
    known = [mean for mean in means if mean > 0] or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    return low, max(high, low + 1)


def _height(value: float, decades: tuple[int, int]) -> float:
    """Where a value is on the log scale; what is not above its lower end stands there."""
    low, high = decades
    share = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
    return TOP + UPPER * (1 - min(max(share, 0.0), 1.0))


def _decade_lines(decades: tuple[int, int], width: float) -> Markup:
    parts = []
    for power in range(decades[0], decades[1] + 1):
        y = _height(DECADE**power, decades)
        parts.append(_line("axis", LEFT, y, width - RIGHT, y))
        parts.append(_text("tick", LEFT - 8, y + 4, f"1e{power}", anchor="end"))
    return Markup("").join(parts)


def _series(
    across: Sequence[float],
    values: Sequence[tuple[float, float]],
    decades: tuple[int, int],
    number: int,
    aside: float,
) -> Markup:
    """The line of one task, with points and error bars a little beside those of the other."""
    places = [(x + aside, _height(mean, decades)) for x, (mean, _) in zip(across, values, strict=True)]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [Markup('<polyline class="line-{}" points="{}"/>').format(number, joined)]
    for (x, y), (mean, error) in zip(places, values, strict=True):
        parts.append(
            _line(f"error-{number}", x, _height(mean - error, decades), x, _height(mean + error, decades))
        )
        parts.append(
            Markup('<circle class="point-{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(number, x, y)
            if number == 1
            else Markup('<rect class="point-{}" x="{:.1f}" y="{:.1f}" width="7" height="7"/>').format(
                number, x - 3.5, y - 3.5
            )
        )
    return Markup("").join(parts)


def _distances(across: Sequence[float], distances: Sequence[float], step: float, width: float) -> Markup:
    """A bar for each layer, from 0 to 1."""
    floor = TOP + UPPER + GAP + LOWER
    parts = []
    for value in (0.0, 0.5, 1.0):
        y = floor - LOWER * value
        parts.append(_line("axis", LEFT, y, width - RIGHT, y))
        parts.append(_text("tick", LEFT - 8, y + 4, f"{value:g}", anchor="end"))
    for x, value in zip(across, distances, strict=True):
        tall = LOWER * min(max(value, 0.0), 1.0)
        bar = Markup('<rect class="range" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
        parts.append(bar.format(x - step * 0.35, floor - tall, step * 0.7, tall))
    return Markup("").join(parts)


def _names(across: Sequence[float], names: Sequence[str], step: float) -> Markup:
    """Names of layers, turned; some are left out where they would be closer than a line of text."""
    every = max(1, math.ceil(15 / step))
    y = TOP + UPPER + GAP + LOWER + 14
    shown = list(zip(across, names, strict=True))[::every]
    return Markup("").join(
        _text("tick", x + 4, y, name if len(name) <= 18 else f"…{name[-17:]}", anchor="end", turned=-35)
        for x, name in shown
    )


def _key(name: str, number: int, x: float) -> Markup:
    """What a line stands for."""
    return _line(f"line-{number}", x, 16, x + 26, 16) + _text("", x + 32, 20.5, name)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    line = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return line.format(kind, x1, y1, x2, y2)


def _text(kind: str, x: float, y: float, text: str, *, anchor: str = "", turned: float | None = None) -> Markup:
    turn = (
        Markup("") if turned is None else Markup(' transform="rotate({} {:.1f} {:.1f})"').format(turned, x, y)
    )
    anchor = anchor or ("middle" if turned == -90 else "start")
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>').format(
        kind, x, y, anchor, turn, text
    )
