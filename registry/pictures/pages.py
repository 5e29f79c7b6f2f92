"""Pictures as HTML: one file with style, scripts and data inside, which loads nothing from anywhere.

A map is drawn by the scripts of the web page; a matrix and the layers of a probe are drawings in SVG.

Axes: T tasks, L layers.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from registry.options import COLOURINGS
from registry.pictures import figures
from registry.pictures.columns import cluster_columns, compact, map_columns
from registry.pictures.layers import draw_layers
from registry.pictures.matrix import draw_matrix, packed

if TYPE_CHECKING:
    from registry.map_answers import Clustering, LayerProfile, TaskMap

STATIC = Path(__file__).parent / "static"
"""The style sheet and the scripts of maps, which the web page serves too."""

TABLE_UP_TO = 500
"""Tasks up to which a table says what the map says."""

PREFERS_DARK = "(prefers-color-scheme: dark)"
MAP_SCRIPTS = ("map-points.js", "map-draw.js", "map.js")


def map_page(
    shown: "TaskMap", colour: str = "cluster", clustering: "Clustering | None" = None, theme: str | None = None
) -> str:
    """A map of tasks: pointing at one says what it is, the legend picks out groups, and the wheel zooms."""
    colourings = [name for name in COLOURINGS if name != "cluster" or clustering]
    options = "".join(f"<option{' selected' if name == colour else ''}>{name}</option>" for name in colourings)
    clusters = cluster_columns(shown.names, clustering) if clustering else None
    data = _script_text(compact({"points": map_columns(shown), "clusters": clusters}))
    sentences = [
        figures.caption_of(shown),
        "Tasks that are drawn near each other are alike; the axes have no unit and no direction.",
        *(() if shown.nearest else ("`t2v nearest NAME` lists the tasks that are nearest to one.",)),
        *shown.notes,
    ]
    body = (
        _MAP.format(options=options, label=escape(figures.title_of(shown), quote=True))
        + _paragraphs(sentences)
        + (_map_table(shown, clustering) if len(shown) <= TABLE_UP_TO else "")
        + f'<script type="application/json" id="map-data">{data}</script>'
    )
    return _page(figures.title_of(shown), body, theme, MAP_SCRIPTS)


def matrix_page(clustering: "Clustering", theme: str | None = None) -> str:
    """A matrix of distances in the order of its tree; pointing at a cell says which two tasks and how far."""
    order, _ = figures.tree_of(clustering)
    data = {
        "names": [clustering.names[row] for row in order],
        "largest": float(figures.matrix_of(clustering).max()),
        "shares": packed(clustering),
    }
    clusters = "; ".join(
        f"{cluster.number}. {cluster.label}, {cluster.size:,}"
        for cluster in clustering.clusters
        if cluster.size > 1
    )
    sentences = [
        "Dark is near. The tree joins the two groups with the smallest mean distance first.",
        f"Clusters ({clustering.method}): {clusters}."
        if clusters
        else f"{clustering.method} found no cluster.",
    ]
    body = (
        _DRAWING.format(label="Matrix", drawing=draw_matrix(clustering))
        + '<div class="map-card fixed" id="matrix-card" role="status" hidden></div>'
        + _paragraphs(sentences)
        + _cluster_table(clustering)
        + f'<script type="application/json" id="matrix-data">{_script_text(compact(data))}</script>'
    )
    return _page(figures.matrix_title(clustering), body, theme, ("matrix.js",))


def profile_page(profile: "LayerProfile", theme: str | None = None) -> str:
    """The distance of two tasks in each layer, below the Fisher information of each."""
    sentences = [
        f"Probe {profile.probe}. The distance over all layers is {profile.distance:.3f}.",
        "A low bar is a depth at which the two tasks need the same filters.",
        "Lines at the points are standard errors.",
    ]
    drawing = _DRAWING.format(label="Layers", drawing=draw_layers(profile))
    body = drawing + _paragraphs(sentences) + _profile_table(profile)
    return _page(figures.profile_title(profile), body, theme, ())


def _page(title: str, body: str, theme: str | None, scripts: Sequence[str]) -> str:
    """A whole page."""
    style = (STATIC / "style.css").read_text(encoding="utf-8")
    if theme:
        style = style.replace("color-scheme: light dark", f"color-scheme: {theme}")
        style = style.replace(PREFERS_DARK, "all" if theme == "dark" else "not all")
    codes = "".join(f"<script>{(STATIC / name).read_text(encoding='utf-8')}</script>" for name in scripts)
    return _PAGE.format(title=escape(title), style=style, body=body, scripts=codes)


def _paragraphs(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _script_text(text: str) -> str:
    """JSON that cannot end the script that it is part of."""
    return text.replace("<", "\\u003c")


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that is folded until it is wanted, everything escaped."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td class="wrap">{escape(str(cell))}</td>' for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<details><summary>{escape(title)}</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(title)}"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
        "</details>"
    )


def _map_table(shown: "TaskMap", clustering: "Clustering | None") -> str:
    clusters = clustering.clusters if clustering else ()
    cluster_of = {name: cluster.label for cluster in clusters for name in cluster.members}
    rows = [
        (
            name,
            cluster_of.get(name, ""),
            ", ".join(shown.tags[place]),
            figures.nearest_text(shown.nearest[place]) if shown.nearest else "",
        )
        for place, name in enumerate(shown.names)
    ]
    rows += [
        (query, "asked about", "", figures.nearest_text(near))
        for query, near in zip(shown.queries, shown.query_nearest, strict=True)
    ]
    return _table("All tasks as a table", ("task", "cluster", "tags", "nearest"), rows)


def _cluster_table(clustering: "Clustering") -> str:
    rows: list[tuple[object, ...]] = [
        (cluster.number, cluster.label, cluster.size, ", ".join(cluster.members))
        for cluster in clustering.clusters
    ]
    if clustering.noise:
        rows.append(("", "in no cluster", len(clustering.noise), ", ".join(clustering.noise)))
    return _table("All clusters as a table", ("cluster", "label", "tasks", "members"), rows)


def _profile_table(profile: "LayerProfile") -> str:
    rows = [
        (
            layer.layer,
            layer.num_filters,
            f"{layer.distance:.3f}",
            f"{layer.source_mean:.3g} ± {layer.source_error:.2g}",
            f"{layer.target_mean:.3g} ± {layer.target_error:.2g}",
        )
        for layer in profile.layers
    ]
    head = ("layer", "filters", "distance", f"Fisher of {profile.source}", f"Fisher of {profile.target}")
    return _table("All layers as a table", head, rows)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main class="wide">
<div class="heading"><h1>{title}</h1></div>
{body}
</main>
{scripts}
</body>
</html>
"""

_DRAWING = '<div class="scroll drawing" tabindex="0" role="region" aria-label="{label}">{drawing}</div>'

_MAP = """<div class="map-bar">
<div class="field"><label for="map-search">Find</label><input id="map-search" type="search" autocomplete="off"
 spellcheck="false" placeholder="part of a name or tag" aria-describedby="map-found"></div>
<div class="field"><label for="map-colour">Colour by</label><select id="map-colour">{options}</select></div>
<div class="field buttons" role="group" aria-label="Zoom">
<button type="button" class="quiet" id="map-in" aria-label="Zoom in">+</button>
<button type="button" class="quiet" id="map-out" aria-label="Zoom out">&minus;</button>
<button type="button" class="quiet" id="map-fit">Fit</button></div>
<p class="help" id="map-found" aria-live="polite"></p>
</div>
<div class="map-frame">
<canvas id="map" tabindex="0" role="application" aria-label="{label}" aria-describedby="map-help"></canvas>
<div class="map-wait" id="map-wait" role="status"><noscript>The map is drawn by a script.</noscript></div>
<div class="map-card" id="map-card" hidden></div>
</div>
<p class="unseen" id="map-said" aria-live="polite"></p>
<ul class="legend" id="map-legend" aria-label="Legend"></ul>
<p class="note" id="map-help">Drag to move, turn the wheel or pinch to zoom. With the keyboard: arrow keys go
from task to task, + and &minus; zoom, 0 shows everything. An entry of the legend picks out its tasks.</p>
"""
