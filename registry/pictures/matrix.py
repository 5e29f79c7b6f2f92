"""The drawing of a matrix of distances in the order of its tree, as SVG around one small image.

Axes: T tasks.
"""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from registry.pictures import figures
from registry.pictures.palette import SEQUENCE, rgb
from registry.pictures.svg import element, text

if TYPE_CHECKING:
    from registry.map_answers import Clustering

NAMED_UP_TO = 120
"""Tasks up to which each row and column has its name."""

CELL, LETTER, MARGIN = 14.0, 6.4, 16.0
LARGE_SIDE = 900.0
TREE_HEIGHT, TOP = 150.0, 26.0
BAR_WIDTH, BAR_ROOM = 14.0, 70.0
NAME_LENGTH = 28


def draw_matrix(clustering: "Clustering") -> str:
    """The matrix with its tree above, the clusters framed, and what the colours stand for."""
    order, lines = figures.tree_of(clustering)
    matrix = figures.matrix_of(clustering)[np.ix_(order, order)]
    names = [figures.shortened(clustering.names[row], NAME_LENGTH) for row in order]
    named = len(names) <= NAMED_UP_TO
    side = max(CELL * len(names), 120.0) if named else LARGE_SIDE
    cell, room = side / len(names), LETTER * max(map(len, names)) + MARGIN if named else MARGIN
    top = TOP + TREE_HEIGHT
    parts = [
        _tree(clustering, lines, room, cell, side),
        _image(matrix / (matrix.max() or 1.0), "cells", room, top, side, side),
        _frames(clustering, order, room, top, cell),
        _colour_bar(float(matrix.max()), room + side + MARGIN, top, min(side, 300.0)),
    ]
    for number, name in enumerate(names if named else ()):
        middle = (number + 0.5) * cell
        parts.append(text("tick", room - 6, top + middle + 4, name, anchor="end"))
        parts.append(text("tick", room + middle + 4, top + side + 8, name, anchor="end", turned=-90))
    width, height = room + side + MARGIN + BAR_ROOM, top + side + room
    title = f"{figures.matrix_title(clustering)}, in the order of the tree above them"
    size = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": round(width), "height": round(height)}
    return element("svg", "matrix", **size, role="img", aria_label=title, inside="".join(parts))


def packed(clustering: "Clustering") -> str:
    """The distances ``[T, T]`` in the order of the tree as text: 16 bits each, of which all are the largest."""
    order, _ = figures.tree_of(clustering)
    matrix = figures.matrix_of(clustering)[np.ix_(order, order)]
    shares = np.round(matrix / (matrix.max() or 1.0) * 65_535).astype("<u2")
    return base64.b64encode(shares.tobytes()).decode()


def _tree(
    clustering: "Clustering",
    lines: list[tuple[list[float], list[float]]],
    left: float,
    cell: float,
    side: float,
) -> str:
    """The merges as brackets, and the height at which they were cut."""
    tallest = max((max(heights) for _, heights in lines), default=0.0) or 1.0
    foot = TOP + TREE_HEIGHT - 4

    def height(value: float) -> float:
        return foot - (TREE_HEIGHT - 14) * value / tallest

    path = "".join(
        "M" + "L".join(f"{left + (x + 0.5) * cell:.1f} {height(y):.1f}" for x, y in zip(*line, strict=True))
        for line in lines
    )
    parts = [element("path", "tree", d=path)] if lines else []
    if clustering.cut_height is not None and lines:
        y = height(min(clustering.cut_height, tallest))
        parts.append(element("line", "line-2", x1=left, y1=y, x2=left + side, y2=y))
        parts.append(text("tick", left + side + 6, y + 4, f"cut at {clustering.cut_height:.3f}"))
    return "".join(parts)


def _image(shares: np.ndarray, name: str, x: float, y: float, width: float, height: float) -> str:
    """Values from 0 to 1 as coloured cells."""
    anchors = np.array([rgb(colour) for colour in SEQUENCE])
    steps = np.linspace(0, len(SEQUENCE) - 1, 256)
    colours = [np.interp(steps, range(len(SEQUENCE)), anchors[:, part]) for part in range(3)]
    image = Image.fromarray(np.round(shares * 255).astype(np.uint8))
    image.putpalette(np.round(255 * np.stack(colours, axis=1)).astype(np.uint8).tobytes())
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    address = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    fill = {"preserveAspectRatio": "none", "href": address}
    return element("image", name, inside="", x=x, y=y, width=width, height=height, **fill)


def _frames(clustering: "Clustering", order: list[int], left: float, top: float, cell: float) -> str:
    """A frame around each run of tasks of one cluster."""
    parts = []
    for start, end in figures.runs(clustering.labels[order].tolist()):
        size = (end - start) * cell
        parts.append(
            element("rect", "frame", x=left + start * cell, y=top + start * cell, width=size, height=size)
        )
    return "".join(parts)


def _colour_bar(largest: float, x: float, y: float, height: float) -> str:
    """What the colours stand for, the largest distance on top."""
    bar = _image(np.linspace(1, 0, 256)[:, None], "cells-key", x, y, BAR_WIDTH, height)
    ticks = [(0.0, f"{largest:.2f}"), (0.5, f"{largest / 2:.2f}"), (1.0, "0")]
    marks = "".join(text("tick", x + BAR_WIDTH + 6, y + 4 + height * at, label) for at, label in ticks)
    return bar + marks
