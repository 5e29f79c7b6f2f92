"""Small drawings as SVG: bars, intervals, and the map of a task. Colours come from the style sheet."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from registry.wording import size

WIDTH, HEIGHT = 160, 16
EDGE = 4  # room for a dot at either end
MAP_WIDTH, MAP_HEIGHT, MAP_EDGE = 420, 300, 18
SCATTER_WIDTH, SCATTER_HEIGHT, SCATTER_LEFT = 860, 380, 56
MAP_POINTS = 1500
"""Most points in the background of the map of one task."""


def interval(value: float, low: float, high: float, span: tuple[float, float], what: str) -> Markup:
    """A value with its interval on the line from the lower to the upper end of ``span``."""
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
    positions: np.ndarray,
    marked: int | None = None,
    near: Sequence[int] = (),
    names: Sequence[str] = (),
    *,
    seed: int = 0,
) -> Markup:
    """The map with one task marked, and its neighbours named.

    Args:
        positions: ``[T, 2]``.
        marked: Row of the task, if one is marked.
        near: Rows of its neighbours; without a task, of what is to be named.
        names: Names of the task, if one is marked, and of its neighbours, in that order.
        seed: Seed of the sample of other tasks that is drawn where there are more than ``MAP_POINTS``.
    """
    places = _placed(positions)
    rows = np.arange(len(places))
    if len(rows) > MAP_POINTS:
        rows = np.random.default_rng(seed).choice(rows, MAP_POINTS, replace=False)
    # Dots by way of round caps of strokes without length: a tenth of the text that circles take.
    dots = "".join(f"M{x:g} {y:g}h0" for x, y in places[rows].tolist())
    parts = [_element("path", "others", d=dots)]
    others = names if marked is None else names[1:]
    parts += [_dot(places[row], "near", 5, name) for row, name in zip(near, others, strict=True)]
    title = "Map of all tasks"
    if marked is None:
        parts += _labels(places, near, names)
    else:
        parts += [_dot(places[marked], "marked", 7, names[0]), *_labels(places, [marked, *near], names)]
        title += f"; {names[0]} and its {len(near)} nearest are marked"
    return _svg(title, *parts, size=(MAP_WIDTH, MAP_HEIGHT), kind="task-map")


def scatter(points: Sequence[tuple[str, str, int, float]], what: str) -> Markup:
    """Accuracy against parameters; named and joined is the Pareto front, whose points no smaller one reaches.

    Args:
        points: Name, address, parameters and accuracy of each, at least one.
        what: What the accuracy is.
    """
    sizes, values = np.log10([float(point[2]) for point in points]), np.array([point[3] for point in points])
    low, high = span_of(values.tolist(), values.tolist())
    first, last = int(np.floor(sizes.min())), int(np.ceil(sizes.max() + 1e-9))

    def across(size: Any) -> Any:
        return np.round(SCATTER_LEFT + (SCATTER_WIDTH - SCATTER_LEFT - 20) * (size - first) / (last - first), 1)

    def down(value: Any) -> Any:
        return np.round(16 + (SCATTER_HEIGHT - 60) * (high - value) / (high - low), 1)

    places, front, best = np.stack([across(sizes), down(values)], axis=1), list[int](), -np.inf
    for row in np.lexsort((-values, sizes)).tolist():
        if values[row] > best:
            front.append(row)
            best = values[row]
    parts = []
    for share in np.linspace(low, high, 5):
        y, right = down(share), SCATTER_WIDTH - 20
        parts += [_element("line", "axis", x1=SCATTER_LEFT, x2=right, y1=y, y2=y)]
        parts += [_text("tick", SCATTER_LEFT - 8, y + 4, f"{100 * share:.0f}%", "end")]
    for power in range(first, last + 1):
        parts += [_text("tick", across(power), SCATTER_HEIGHT - 24, size(10**power), "middle")]
    parts += [_text("tick", SCATTER_WIDTH / 2, SCATTER_HEIGHT - 4, "parameters", "middle")]
    words = [f"{name}: {100 * value:.1f}%, {size(number)} parameters" for name, _, number, value in points]
    parts += [_dot(places[row], "near", 4, words[row]) for row in sorted(set(range(len(points))) - set(front))]
    steps = "".join(
        f"{'H' if n else 'M'}{x:g}{'V' if n else ' '}{y:g}" for n, (x, y) in enumerate(places[front])
    )
    parts += [_element("path", "front", d=steps)]
    for row in front:
        dot = _dot(places[row], "marked", 6, words[row])
        parts += [Markup('<a href="{}" aria-label="{}">{}</a>').format(points[row][1], words[row], dot)]
    parts += _labels(places - [0, 11], front[::-1], [points[row][0] for row in front[::-1]], SCATTER_WIDTH)
    return _svg(what, *parts, size=(SCATTER_WIDTH, SCATTER_HEIGHT), kind="scatter", role="group")


def _text(kind: str, x: float, y: float, text: str, anchor: str) -> Markup:
    element = Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>')
    return element.format(kind, x, y, anchor, text)


def _placed(positions: np.ndarray) -> np.ndarray:
    """Positions in pixels of the small map, up being up, both axes in one scale."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    room = np.array([MAP_WIDTH - 2 * MAP_EDGE, MAP_HEIGHT - 2 * MAP_EDGE])
    scale = float((room / np.maximum(high - low, 1e-12)).min())
    placed = (positions - (low + high) / 2) * [scale, -scale] + [MAP_WIDTH / 2, MAP_HEIGHT / 2]
    return np.asarray(placed).round(1)


def _labels(
    places: np.ndarray, rows: Sequence[int], names: Sequence[str], whole: float = MAP_WIDTH
) -> list[Markup]:
    """Names beside their points, on the side with room, left out where they would cover another one."""
    taken: list[tuple[float, float, float, float]] = []
    labels = []
    for place, (row, name) in enumerate(zip(rows, names, strict=True)):
        shown = name if len(name) <= 28 else f"{name[:27]}…"
        x, y = places[row].tolist()
        width, to_left = 7.2 * len(shown), x > whole / 2
        box = (x - 10 - width, y - 9, x - 10, y + 9) if to_left else (x + 10, y - 9, x + 10 + width, y + 9)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        beside = (x - 10, y + 4.5, shown, "end") if to_left else (x + 10, y + 4.5, shown, "start")
        labels.append(_text("label" if place else "label strong", *beside))
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


def _svg(
    title: str,
    *parts: Markup,
    size: tuple[float, float] = (WIDTH, HEIGHT),
    kind: str = "bar",
    role: str = "img",
) -> Markup:
    width, height = size
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" width="{}" height="{}" role="{}" aria-label="{}">')
    opened = head.format(kind, width, height, width, height, role, title)
    return opened + Markup("").join(parts) + Markup("</svg>")
