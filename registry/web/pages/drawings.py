"""Small drawings as SVG: bars, intervals, and the map of a task. Colours come from the style sheet."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from registry.map_answers import LayerProfile

WIDTH, HEIGHT = 160, 16
EDGE = 4  # room for a dot at either end
MAP_WIDTH, MAP_HEIGHT, MAP_EDGE = 420, 300, 18
MAP_POINTS = 1500
"""Most points in the background of the map of one task."""


def interval(value: float, low: float, high: float, span: tuple[float, float], what: str) -> Markup:
    """A value with its interval on the line from the lower to the upper end of ``span``.

    Args:
        value: Marked by a dot.
        low: Lower end of the interval.
        high: Upper end.
        span: What the line stands for, the same for all rows of a table.
        what: What it is, for who cannot see it.
    """
    left, middle, right = (_place(number, span) for number in (low, value, high))
    return _svg(
        f"{what} {value:.3f}, from {low:.3f} to {high:.3f}",
        _element("line", "axis", x1=EDGE, x2=WIDTH - EDGE, y1=HEIGHT / 2, y2=HEIGHT / 2),
        _element("rect", "range", x=left, y=3, width=max(right - left, 1), height=10, rx=2),
        _element("circle", "value", cx=middle, cy=HEIGHT / 2, r=3),
    )


def bar(value: float, largest: float, what: str) -> Markup:
    """A value as a bar from zero; the longest stands for ``largest``."""
    length = (WIDTH - 2 * EDGE) * min(max(value / largest, 0), 1) if largest > 0 else 0
    return _svg(
        f"{what} {value:.3g}",
        _element("line", "axis", x1=EDGE, x2=WIDTH - EDGE, y1=HEIGHT / 2, y2=HEIGHT / 2),
        _element("rect", "range", x=EDGE, y=5, width=max(round(length, 1), 1), height=6, rx=1),
    )


def span_of(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """The line on which intervals of accuracies are drawn: their range, out to the next twentieth."""
    low, high = np.floor(min(lows) * 20) / 20, np.ceil(max(highs) * 20) / 20
    return float(max(low, 0)), float(min(max(high, low + 0.05), 1))


def task_map(
    positions: np.ndarray, marked: int, near: Sequence[int], names: Sequence[str], *, seed: int = 0
) -> Markup:
    """The map with one task marked, and its neighbours named.

    Args:
        positions: ``[T, 2]``.
        marked: Row of the task.
        near: Rows of its neighbours.
        names: Of the task and its neighbours, in that order.
        seed: Of the sample of other tasks that is drawn where there are more than ``MAP_POINTS``.
    """
    places = _placed(positions)
    rows = np.arange(len(places))
    if len(rows) > MAP_POINTS:
        rows = np.random.default_rng(seed).choice(rows, MAP_POINTS, replace=False)
    # Dots by way of round caps of strokes without length: a tenth of the text that circles take.
    dots = "".join(f"M{x:g} {y:g}h0" for x, y in places[rows].tolist())
    parts = [_element("path", "others", d=dots)]
    parts += [_dot(places[row], "near", 5, name) for row, name in zip(near, names[1:], strict=True)]
    parts += [_dot(places[marked], "marked", 7, names[0])]
    parts += _labels(places, [marked, *near], names)
    title = f"Map of all tasks; {names[0]} and its {len(near)} nearest are marked"
    return _svg(title, *parts, size=(MAP_WIDTH, MAP_HEIGHT), kind="task-map")


def _placed(positions: np.ndarray) -> np.ndarray:
    """Positions in pixels of the small map, up being up, both axes in one scale."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    room = np.array([MAP_WIDTH - 2 * MAP_EDGE, MAP_HEIGHT - 2 * MAP_EDGE])
    scale = float((room / np.maximum(high - low, 1e-12)).min())
    placed = (positions - (low + high) / 2) * [scale, -scale] + [MAP_WIDTH / 2, MAP_HEIGHT / 2]
    return np.asarray(placed).round(1)


def _labels(places: np.ndarray, rows: Sequence[int], names: Sequence[str]) -> list[Markup]:
    """Names beside their points, on the side with room, left out where they would cover another one."""
    taken: list[tuple[float, float, float, float]] = []
    labels = []
    for place, (row, name) in enumerate(zip(rows, names, strict=True)):
        shown = name if len(name) <= 28 else f"{name[:27]}…"
        x, y = places[row].tolist()
        width, to_left = 7.2 * len(shown), x > MAP_WIDTH / 2
        box = (x - 10 - width, y - 9, x - 10, y + 9) if to_left else (x + 10, y - 9, x + 10 + width, y + 9)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        labels.append(
            Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>').format(
                "label" if place else "label strong", x - 10 if to_left else x + 10, y + 4.5,
                "end" if to_left else "start", shown,
            )
        )  # fmt: skip
    return labels


def _dot(place: np.ndarray, kind: str, radius: float, name: str) -> Markup:
    x, y = place.tolist()
    dot = Markup('<circle class="{}" cx="{:g}" cy="{:g}" r="{:g}"><title>{}</title></circle>')
    return dot.format(kind, x, y, radius, name)


def _place(value: float, span: tuple[float, float]) -> float:
    """Where a value is on the line, within its ends."""
    share = (value - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
    return round(EDGE + (WIDTH - 2 * EDGE) * min(max(share, 0), 1), 1)


def _element(tag: str, kind: str, **values: object) -> Markup:
    attributes = Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in values.items())
    return Markup('<{} class="{}"{}/>').format(Markup(tag), kind, attributes)


def _svg(title: str, *parts: Markup, size: tuple[float, float] = (WIDTH, HEIGHT), kind: str = "bar") -> Markup:
    width, height = size
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">')
    opened = head.format(kind, width, height, width, height, title)
    return opened + Markup("").join(parts) + Markup("</svg>")


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
