"""Interactive pictures: maps, matrices and profiles as figures of plotly, in plain dictionaries.

Axes: T tasks, L layers.
"""

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.pictures import figures, plotly_page

if TYPE_CHECKING:
    from registry.map_answers import Clustering, LayerProfile, TaskMap

WEBGL_FROM = 5000
"""Tasks from which on points are drawn by the graphics card."""

TABLE_UP_TO = 500
"""Tasks up to which a table says the same as the picture."""

SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "triangle-down",
    "cross",
    "x",
    "hexagon",
)
QUERY_SYMBOL = "star-open"

Figure = dict[str, Any]


def map_page(
    shown: "TaskMap", colour: str = "cluster", clustering: "Clustering | None" = None, theme: str | None = None
) -> str:
    """A map of tasks: hover tells about each, the legend hides groups, and the wheel zooms.

    Args:
        shown: The map.
        colour: Of ``plots.COLOURINGS``.
        clustering: Of the same tasks, for ``cluster``.
        theme: ``light`` or ``dark``; what the reader's system prefers if ``None``.

    Raises:
        MissingExtraError: If plotly is not installed.
    """
    groups = figures.groups_of(shown, colour, clustering)
    texts = figures.point_texts(shown, "<br>", escape)
    kind = "scattergl" if len(shown) > WEBGL_FROM else "scatter"
    size = 10 if len(shown) <= 300 else 6 if len(shown) <= WEBGL_FROM else 4
    traces: list[Figure] = []
    colours: list[int | str | None] = []
    for group in groups:
        traces.append(_points(kind, shown.positions[group.members], group.label, size))
        traces[-1]["text"] = [texts[place] for place in group.members.tolist()]
        traces[-1]["marker"]["symbol"] = SYMBOLS[group.shape]
        colours.append(group.colour)
    for place, query in enumerate(shown.queries):
        traces.append(_points("scatter", shown.query_positions[[place]], f"asked about: {query}", 18))
        near = escape(figures.nearest_text(shown.query_nearest[place]))
        traces[-1]["text"] = [f"<b>{escape(query)}</b><br>nearest: {near}"]
        traces[-1]["marker"] |= {"symbol": QUERY_SYMBOL, "line": {"width": 2}}  # what is there shows through
        colours.append(figures.NUM_COLOURS - 1)
    if clustering is not None and len(shown) <= WEBGL_FROM and (names := _names(shown, clustering)):
        traces.append(names)
        colours.append("text")
    label = figures.axis_label(shown.distance)
    figure: Figure = {
        "data": traces,
        "layout": _layout(
            xaxis={"title": {"text": label}, "zeroline": False},
            yaxis={"title": {"text": label}, "zeroline": False, "scaleanchor": "x", "scaleratio": 1},
            legend={"title": {"text": f"by {colour}"}, "itemsizing": "constant"},
            dragmode="pan",
            hovermode="closest",
        ),
    }
    sentences = [
        figures.caption_of(shown),
        "Tasks that are drawn near are alike; the axes have no meaning of their own.",
        *(() if shown.nearest else ("`t2v nearest NAME` tells the tasks that are nearest to one.",)),
        *shown.notes,
    ]
    table = _map_table(shown, groups) if len(shown) <= TABLE_UP_TO else ""
    return plotly_page.page(figures.title_of(shown), sentences, figure, colours, table, theme)


def matrix_page(clustering: "Clustering", theme: str | None = None) -> str:
    """A matrix of distances in the order of its tree, which stands above it.

    Raises:
        MissingExtraError: If plotly is not installed.
        InvalidQueryError: If the clustering has no matrix.
    """
    order, lines = figures.tree_of(clustering)
    matrix, names = (
        figures.matrix_of(clustering)[np.ix_(order, order)],
        [clustering.names[place] for place in order],
    )
    places = list(range(len(names)))
    tree_x = [value for line in lines for value in (*line[0], None)]
    tree_y = [value for line in lines for value in (*line[1], None)]
    unit = figures.axis_label(clustering.distance)
    figure: Figure = {
        "data": [
            {
                "type": "heatmap",
                "z": _packed(matrix.astype(np.float32)),
                "x": places,
                "y": places,
                "text": [[f"{a}<br>{b}" for b in names] for a in names] if len(names) <= 200 else None,
                "hovertemplate": "%{text}<br>%{z:.3f}<extra></extra>"
                if len(names) <= 200
                else "%{z:.3f}<extra></extra>",
                "colorscale": "Cividis",
                "colorbar": {"title": {"text": unit, "side": "right"}, "len": 0.76, "y": 0.38},
            },
            {
                "type": "scatter",
                "mode": "lines",
                "x": tree_x,
                "y": tree_y,
                "xaxis": "x",
                "yaxis": "y2",
                "hoverinfo": "skip",
                "showlegend": False,
                "line": {"width": 1},
            },
        ],
        "layout": _layout(
            xaxis={
                "automargin": True,
                "tickfont": {"size": 11},
                "tickvals": places,
                "ticktext": names,
                "tickangle": -90,
                "showgrid": False,
                "zeroline": False,
            },
            yaxis={
                "automargin": True,
                "tickfont": {"size": 11},
                "tickvals": places,
                "ticktext": names,
                "domain": [0, 0.76],
                "autorange": "reversed",
                "showgrid": False,
                "zeroline": False,
            },
            yaxis2={"domain": [0.78, 1], "title": {"text": "height"}, "zeroline": False},
            dragmode="pan",
        ),
    }
    figure["layout"]["height"] = max(700, 220 + 16 * len(names)) if len(names) <= 120 else 900
    told = "; ".join(f"{it.number}. {it.label}, {it.size:,}" for it in clustering.clusters if it.size > 1)
    sentences = [
        "Dark is near. The tree joins the two groups with the smallest mean distance first.",
        f"Clusters ({clustering.method}): {told}." if told else f"{clustering.method} found no cluster.",
    ]
    table = _cluster_table(clustering)
    return plotly_page.page(figures.matrix_title(clustering), sentences, figure, [None, "ink"], table, theme)


def profile_page(profile: "LayerProfile", theme: str | None = None) -> str:
    """The distance of two tasks layer by layer, over the Fisher information of each.

    Raises:
        MissingExtraError: If plotly is not installed.
    """
    layers = [f"{it.layer} ({it.num_filters})" for it in profile.layers]
    traces: list[Figure] = [
        {
            "type": "bar",
            "name": f"distance in the layer ({figures.unit_of('task2vec')})",
            "x": layers,
            "y": [it.distance for it in profile.layers],
            "hovertemplate": "%{x}<br>distance %{y:.3f}<extra></extra>",
            "marker": {"line": {"width": 1}},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"over all layers: {profile.distance:.3f}",
            "x": [layers[0], layers[-1]],
            "y": [profile.distance] * 2,
            "hoverinfo": "skip",
            "line": {"dash": "dash", "width": 2},
        },
    ]
    for side, symbol in (("source", "circle"), ("target", "square")):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": getattr(profile, side),
                "x": layers,
                "y": [getattr(it, f"{side}_mean") for it in profile.layers],
                "error_y": {"array": [getattr(it, f"{side}_error") for it in profile.layers], "thickness": 1.2},
                "yaxis": "y2",
                "hovertemplate": "%{x}<br>%{y:.3g}<extra>%{fullData.name}</extra>",
                "marker": {"symbol": symbol, "size": 8, "line": {"width": 1}},
            }
        )
    figure: Figure = {
        "data": traces,
        "layout": _layout(
            xaxis={
                "title": {"text": "layer of the probe (filters), from input to output", "standoff": 12},
                "anchor": "y2",
                "automargin": True,
                "tickangle": -90,
            },
            yaxis={
                "title": {"text": figures.axis_label("task2vec")},
                "domain": [0.56, 1],
                "rangemode": "tozero",
            },
            yaxis2={
                "title": {"text": "mean Fisher information"},
                "domain": [0, 0.46],
                "type": "log",
                "dtick": 1,
                "exponentformat": "power",
            },
            hovermode="x",
        ),
    }
    figure["layout"]["height"] = 780
    sentences = [
        f"Probe {profile.probe}. Distance over all layers {profile.distance:.3f}.",
        "A low bar is a depth at which the two tasks need the same filters.",
        "Bars at the points are standard errors.",
    ]
    return plotly_page.page(
        figures.profile_title(profile), sentences, figure, [5, "ink", 0, 3], _profile_table(profile), theme
    )


# Pieces


def _points(kind: str, positions: np.ndarray, name: str, size: int) -> Figure:
    return {
        "type": kind,
        "mode": "markers",
        "name": escape(name),
        "x": _packed(positions[:, 0].astype(np.float32)),
        "y": _packed(positions[:, 1].astype(np.float32)),
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"size": size, "opacity": 0.95, "line": {"width": 0.8 if size > 4 else 0}},
    }


def _names(shown: "TaskMap", clustering: "Clustering") -> Figure | None:
    """The name of each medoid above it, so that a picture can be read before it is pointed at."""
    place_of = {name: place for place, name in enumerate(shown.names)}
    medoids = [
        it.medoid
        for it in clustering.clusters[: figures.CLUSTERS_TOLD]
        if it.size > 1 and it.medoid in place_of
    ]
    if not medoids:
        return None
    positions = shown.positions[[place_of[name] for name in medoids]]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "names of medoids",
        "x": positions[:, 0].tolist(),
        "y": positions[:, 1].tolist(),
        "text": [escape(name) for name in medoids],
        "textposition": "top center",
        "textfont": {"size": 12},
        "marker": {"size": 16, "opacity": 0},  # keeps the text off the point
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _packed(values: np.ndarray) -> Figure:
    """An array as plotly.js reads it without a number being written out."""
    found: Figure = {"dtype": f"f{values.itemsize}", "bdata": base64.b64encode(values.tobytes()).decode()}
    if values.ndim > 1:
        found["shape"] = ", ".join(map(str, values.shape))
    return found


def _layout(**parts: Any) -> Figure:
    return {
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 14},
        "margin": {"l": 70, "r": 20, "t": 20, "b": 70},
        "hoverlabel": {"align": "left"},
        "autosize": True,
        **parts,
    }


def _map_table(shown: "TaskMap", groups: Sequence[figures.Group]) -> str:
    group_of = {place: group.label for group in groups for place in group.members.tolist()}
    rows = [
        (
            name,
            group_of.get(place, ""),
            ", ".join(shown.tags[place]),
            figures.nearest_text(shown.nearest[place]) if shown.nearest else "",
        )
        for place, name in enumerate(shown.names)
    ]
    rows += [
        (query, "asked about", "", figures.nearest_text(near))
        for query, near in zip(shown.queries, shown.query_nearest, strict=True)
    ]
    return plotly_page.table("All tasks as a table", ("task", "group", "tags", "nearest"), rows)


def _cluster_table(clustering: "Clustering") -> str:
    rows: list[tuple[object, ...]] = [
        (it.number, it.label, it.size, ", ".join(it.members)) for it in clustering.clusters
    ]
    if clustering.noise:
        rows.append(("", "in no cluster", len(clustering.noise), ", ".join(clustering.noise)))
    return plotly_page.table("All clusters as a table", ("cluster", "label", "tasks", "members"), rows)


def _profile_table(profile: "LayerProfile") -> str:
    rows = [
        (
            it.layer,
            it.num_filters,
            f"{it.distance:.3f}",
            f"{it.source_mean:.3g} ± {it.source_error:.2g}",
            f"{it.target_mean:.3g} ± {it.target_error:.2g}",
        )
        for it in profile.layers
    ]
    head = ("layer", "filters", "distance", f"Fisher of {profile.source}", f"Fisher of {profile.target}")
    return plotly_page.table("All layers as a table", head, rows)
