"""Pictures as PNG and SVG. The only importer of matplotlib, which draws without a screen.

The same figures give the same bytes: no date is written, and ids in an SVG follow from its content.

Axes: T tasks, L layers.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import MissingExtraError, StorageError
from registry.pictures import figures
from registry.pictures.palette import THEMES, Theme

if TYPE_CHECKING:
    from registry.map_answers import Clustering, LayerProfile, TaskMap

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")
QUERY_MARKER = "*"
DPI = 150
SALT = "task2vec-registry"
POINT_RADIUS = 8.0
LABELS_UP_TO = 150
"""Tasks up to which all are named, as far as there is room; of more, medoids and queries only."""


def save_map(
    shown: "TaskMap",
    path: Path,
    colour: str = "cluster",
    clustering: "Clustering | None" = None,
    theme: str | None = None,
) -> None:
    """Draw a map of tasks."""
    groups = figures.groups_of(shown, colour, clustering)
    with _figure(path, theme, (12.5, 8.6)) as (figure, look):
        axes = figure.add_subplot()
        size = 62 if len(shown) <= 300 else 22 if len(shown) <= 5000 else 5
        for group in groups:
            axes.scatter(
                *shown.positions[group.members].T,
                s=size,
                c=look.rest if group.colour == figures.REST else look.series[group.colour],
                marker=MARKERS[group.shape],
                edgecolors=look.edge,
                linewidths=0.6 if size > 5 else 0,
                label=group.label,
                rasterized=len(shown) > 5000,
            )
        for query, position in zip(shown.queries, shown.query_positions, strict=True):
            label = figures.shortened(f"asked about: {query}")
            style = {"facecolors": "none", "edgecolors": look.ink}  # what is registered shows through
            axes.scatter(*position, s=480, marker=QUERY_MARKER, linewidths=1.6, label=label, zorder=4, **style)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.07)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(figures.title_of(shown), loc="left", fontsize=15, pad=12)
        _dressed(axes, look)
        _legend(axes, look, f"by {colour}")
        meaning = "Tasks drawn near each other are alike; the axes have no meaning of their own."
        _caption(figure, look, f"{figures.caption_of(shown)} {meaning}", 150)
        figure.canvas.draw()  # so that the size of text is known
        _name_points(axes, look, *_to_name(shown, clustering))


def save_matrix(clustering: "Clustering", path: Path, theme: str | None = None) -> None:
    """Draw the distances of a clustering in the order of its tree, which stands above."""
    order, lines = figures.tree_of(clustering)
    matrix = figures.matrix_of(clustering)[np.ix_(order, order)]
    names = [clustering.names[place] for place in order]
    side = min(max(7.0, 0.2 * len(names) + 3), 24)
    with _figure(path, theme, (side + 1, side + 1.6)) as (figure, look):
        tree, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, 5])
        for places, heights in lines:
            tree.plot(places, heights, color=look.ink, linewidth=1)
        if clustering.cut_height is not None and lines:
            tree.axhline(clustering.cut_height, color=look.series[3], linestyle="--", linewidth=1.4)
            cut = f"cut at {clustering.cut_height:.3f}"
            tree.set_title(cut, loc="right", fontsize=11, color=look.ink)
        tree.set_ylabel("height")
        tree.set_title(figures.matrix_title(clustering), loc="left", fontsize=15, pad=10)
        _dressed(tree, look)
        tree.grid(visible=False, axis="x")
        tree.tick_params(bottom=False)
        image = axes.imshow(matrix, cmap="cividis", aspect="auto", interpolation="nearest")
        _frame_clusters(axes, clustering, order, look)
        _dressed(axes, look)
        axes.grid(visible=False)
        few = len(names) <= 120
        ticks = range(len(names)) if few else []
        text_size = max(5.0, min(10.0, 560 / max(len(names), 1)))
        axes.set_xticks(ticks, names if few else [], rotation=90, fontsize=text_size)
        axes.set_yticks(ticks, names if few else [], fontsize=text_size)
        bar = figure.colorbar(image, ax=axes, label=figures.axis_label(clustering.distance), fraction=0.04)
        bar.outline.set_edgecolor(look.soft)
        bar.ax.tick_params(colors=look.ink)
        bar.ax.yaxis.label.set_color(look.ink)


def save_profile(profile: "LayerProfile", path: Path, theme: str | None = None) -> None:
    """Draw the distance of two tasks layer by layer, over the Fisher information of each."""
    places = np.arange(len(profile.layers))
    with _figure(path, theme, (max(8.0, 0.42 * len(places) + 3), 8.2)) as (figure, look):
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.bar(
            places,
            [layer.distance for layer in profile.layers],
            color=look.series[5],
            edgecolor=look.edge,
            linewidth=0.8,
            label="in the layer",
        )
        upper.axhline(
            profile.distance,
            color=look.ink,
            linestyle="--",
            linewidth=1.4,
            label=f"over all layers: {profile.distance:.3f}",
        )
        upper.set_ylabel(figures.axis_label("task2vec"))
        upper.set_ylim(bottom=0)
        upper.set_title(figures.profile_title(profile), loc="left", fontsize=15, pad=12)
        for side, colour, marker in (("source", 0, "o"), ("target", 3, "s")):
            _errorbars(lower, profile, side, look, look.series[colour], marker)
        if any(layer.source_mean > 0 or layer.target_mean > 0 for layer in profile.layers):
            lower.set_yscale("log", nonpositive="mask")
        lower.set_ylabel("mean Fisher information")
        lower.set_xlabel("layer of the probe (filters), from input to output")
        labels = [f"{layer.layer} ({layer.num_filters})" for layer in profile.layers]
        lower.set_xticks(places, labels, rotation=90 if len(places) > 6 else 0, fontsize=9.5)
        for axes in (upper, lower):
            _dressed(axes, look)
            axes.grid(visible=False, axis="x")
            _legend(axes, look, "", inside=True)
        meaning = (
            "A low bar is a depth at which both need the same filters; lines at points are standard errors."
        )
        _caption(figure, look, f"Probe {profile.probe}. {meaning}", 110)


def _errorbars(axes: Any, profile: "LayerProfile", side: str, look: Theme, colour: str, marker: str) -> None:
    """The mean Fisher information of one task in each layer, with its standard errors."""
    axes.errorbar(
        np.arange(len(profile.layers)),
        [getattr(layer, f"{side}_mean") for layer in profile.layers],
        yerr=[getattr(layer, f"{side}_error") for layer in profile.layers],
        color=colour,
        marker=marker,
        markersize=6.5,
        markeredgecolor=look.edge,
        markeredgewidth=0.6,
        linewidth=1.6,
        ecolor=look.ink,
        elinewidth=1,
        capsize=2.5,
        label=figures.shortened(getattr(profile, side)),
    )


def _caption(figure: Any, look: Theme, text: str, width: int) -> None:
    lines = "\n".join(textwrap.wrap(text, width))
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=9.5, color=look.soft)


@contextmanager
def _figure(path: Path, theme: str | None, inches: tuple[float, float]) -> Iterator[tuple[Any, Theme]]:
    """A figure in the colours of a theme, written to a file afterwards.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        StorageError: If the file cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a picture as PNG or SVG", "matplotlib", "plot") from error
    look = THEMES[theme or "light"]
    settings = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so that pictures are the same everywhere
        "font.size": 11,
        "text.color": look.ink,
        "axes.labelcolor": look.ink,
        "xtick.color": look.ink,
        "ytick.color": look.ink,
        "svg.hashsalt": SALT,
        "svg.fonttype": "path",
    }
    with mpl.rc_context({**mpl.rcParamsDefault, **settings}):
        figure = Figure(figsize=inches, dpi=DPI, layout="constrained", facecolor=look.ground)
        FigureCanvasAgg(figure)
        yield figure, look
        suffix = path.suffix.removeprefix(".").lower()
        metadata = {"Date": None, "Creator": None} if suffix == "svg" else {"Software": None}
        try:
            figure.savefig(path, format=suffix, metadata=metadata, facecolor=look.ground)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error


def _dressed(axes: Any, look: Theme) -> None:
    """The colours of a theme for ground, frame and grid."""
    axes.set_facecolor(look.ground)
    axes.grid(visible=True, color=look.line, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(look.soft)


def _legend(axes: Any, look: Theme, title: str, *, inside: bool = False) -> None:
    """The legend: beside a map, within a plot that has room."""
    where = (
        {"loc": "best"} if inside else {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0}
    )
    legend = axes.legend(
        title=title or None, alignment="left", fontsize=9.5, facecolor=look.ground, edgecolor=look.line, **where
    )
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_color(look.ink)
    for handle in legend.legend_handles:
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([60])


def _to_name(shown: "TaskMap", clustering: "Clustering | None") -> tuple[list[str], np.ndarray, int]:
    """Names with their positions, those that matter most first; how many of them must be there."""
    place_of = {name: place for place, name in enumerate(shown.names)}
    medoids = (
        [cluster.medoid for cluster in clustering.clusters if cluster.medoid in place_of] if clustering else []
    )
    if len(shown) > LABELS_UP_TO:
        medoids = medoids[:20]
    names = dict.fromkeys(medoids)
    if len(shown) <= LABELS_UP_TO:
        names |= dict.fromkeys(shown.names)
    listed = [name for name in names if name not in shown.queries]
    positions = shown.positions[[place_of[name] for name in listed]]
    return [*shown.queries, *listed], np.concatenate([shown.query_positions, positions]), len(shown.queries)


def _name_points(axes: Any, look: Theme, names: Sequence[str], positions: np.ndarray, num_bold: int) -> None:
    """Write names beside points, each where it covers neither a point nor another name, or not at all.

    Those that must be there are written even where there is no room.
    """
    points = axes.transData.transform(np.concatenate([drawn.get_offsets() for drawn in axes.collections]))
    obstacles = np.column_stack([points - POINT_RADIUS, points + POINT_RADIUS])
    frame, renderer = axes.get_window_extent(), axes.figure.canvas.get_renderer()
    taken = np.empty((0, 4))
    for place, (name, position) in enumerate(zip(names, positions, strict=True)):
        bold = place < num_bold
        style = {
            "fontsize": 10.5 if bold else 8.5,
            "fontweight": "bold" if bold else "normal",
            "color": look.ink,
        }
        text = axes.annotate(
            figures.shortened(name),
            position,
            (0, 0),
            textcoords="offset points",
            ha="left",
            va="bottom",
            **style,
        )
        text.set_zorder(5)
        box = text.get_window_extent(renderer)
        centre = axes.transData.transform(position)
        spots = _spots(centre, box.width, box.height, 30.0 if bold else 15.0)
        free = [spot for spot in spots if _is_free(spot, taken, frame, obstacles, centre)]
        if not free and not bold:
            text.remove()
            continue
        spot = free[0] if free else spots[0]
        taken = np.vstack([taken, spot])
        text.set_position(tuple((spot[:2] - centre) * 72 / axes.figure.dpi))


def _spots(centre: np.ndarray, width: float, height: float, gap: float) -> list[np.ndarray]:
    """Boxes ``[4]`` for a text around a point, the best first."""
    near = 0.7 * gap
    lefts = {"right": gap, "left": -gap - width, "middle": -width / 2, "east": near, "west": -near - width}
    bottoms = {
        "middle": -height / 2,
        "above": gap,
        "below": -gap - height,
        "north": near,
        "south": -near - height,
    }
    sides = ("right middle", "left middle", "middle above", "middle below")
    corners = ("east north", "west north", "east south", "west south")
    offsets = [
        np.array([lefts[across], bottoms[up]]) for across, up in (side.split() for side in sides + corners)
    ]
    return [np.concatenate([centre + offset, centre + offset + (width, height)]) for offset in offsets]


def _is_free(
    spot: np.ndarray, taken: np.ndarray, frame: Any, obstacles: np.ndarray, centre: np.ndarray
) -> bool:
    """Whether a box ``[4]`` lies in the frame and on no other name or point but its own."""
    if spot[0] < frame.x0 or spot[1] < frame.y0 or spot[2] > frame.x1 or spot[3] > frame.y1:
        return False
    others = obstacles[np.abs(obstacles[:, :2] + POINT_RADIUS - centre).max(axis=1) > 0.5]
    boxes = np.vstack([taken, others])
    overlaps = (
        (boxes[:, 0] < spot[2]) & (boxes[:, 2] > spot[0]) & (boxes[:, 1] < spot[3]) & (boxes[:, 3] > spot[1])
    )
    return not overlaps.any()


def _frame_clusters(axes: Any, clustering: "Clustering", order: Sequence[int], look: Theme) -> None:
    """A frame around each run of tasks of one cluster."""
    from matplotlib.patches import Rectangle

    for start, end in figures.runs(clustering.labels[list(order)].tolist()):
        corner, side = (start - 0.5, start - 0.5), end - start
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=look.series[3], linewidth=2))
