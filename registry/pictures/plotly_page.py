"""A figure as one HTML file with plotly's script inside: nothing is loaded from anywhere.

The one importer of plotly. A page follows what the reader prefers, dark or light.
"""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from registry.errors import MissingExtraError
from registry.pictures import figures
from registry.pictures.palette import THEMES, Theme

Figure = dict[str, Any]


def page(
    title: str,
    sentences: Sequence[str],
    figure: Figure,
    colours: Sequence[int | str | None],
    table: str,
    theme: str | None,
) -> str:
    """A whole page around a figure.

    Args:
        title: Of page and picture.
        sentences: Below it.
        figure: In the colours of no theme.
        colours: Of each trace: number in the palette, ``plots.REST``, ``ink`` or ``text``, or ``None``.
        table: HTML that says the same without a picture, or nothing.
        theme: The only one, or ``None`` for what the reader prefers.

    Raises:
        MissingExtraError: If plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("a picture as HTML", "plotly", "plot") from error
    used = {name: it for name, it in THEMES.items() if theme in {None, name}}
    looks = {
        name: {"layout": _themed_layout(it, figure), "traces": _themed(it, colours, figure)}
        for name, it in used.items()
    }
    height = figure["layout"].get("height")
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return _PAGE.format(
        title=escape(title),
        styles="".join(_style(it, number > 0) for number, it in enumerate(used.values())),
        height=f"{height}px" if height else "calc(100vh - 15rem)",
        label=escape(f"{title}. {' '.join(sentences)}"),
        plotly=get_plotlyjs(),
        figure=_script_text(figure),
        looks=_script_text(looks),
        told=told,
        table=table,
    )


def _style(theme: Theme, only_preferred: bool) -> str:
    rule = (
        f":root{{color-scheme:{theme.name};--ground:{theme.ground};--ink:{theme.ink};--soft:{theme.soft};"
        f"--line:{theme.line}}}"
    )
    return f"@media(prefers-color-scheme:{theme.name}){{{rule}}}" if only_preferred else rule


def _themed_layout(theme: Theme, figure: Figure) -> Figure:
    """What of a layout depends on the theme, by the paths of plotly."""
    found: Figure = {
        "paper_bgcolor": theme.ground,
        "plot_bgcolor": theme.ground,
        "font.color": theme.ink,
        "hoverlabel.bgcolor": theme.ground,
        "hoverlabel.bordercolor": theme.ink,
        "hoverlabel.font.color": theme.ink,
    }
    for axis in (name for name in figure["layout"] if name.startswith(("xaxis", "yaxis"))):
        found |= {
            f"{axis}.gridcolor": theme.line,
            f"{axis}.linecolor": theme.soft,
            f"{axis}.tickcolor": theme.soft,
        }
    return found


def _themed(theme: Theme, colours: Sequence[int | str | None], figure: Figure) -> list[Figure]:
    """What of each trace depends on the theme, by the paths of plotly; only parts that a trace has."""
    found = []
    for colour, trace in zip(colours, figure["data"], strict=True):
        has = {
            "marker",
            "line" if "lines" in trace.get("mode", "") else "",
            "error_y" if "error_y" in trace else "",
        }
        looks = _trace_colours(theme, colour)
        found.append({path: it for path, it in looks.items() if path.split(".")[0] in has | {"textfont"}})
    return found


def _trace_colours(theme: Theme, colour: int | str | None) -> Figure:
    if colour is None:
        return {}
    if isinstance(colour, str):
        return {"textfont.color" if colour == "text" else "line.color": theme.ink}
    fill = theme.rest if colour == figures.REST else theme.series[colour]
    edge = {"marker.color": fill, "marker.line.color": theme.edge}
    return {**edge, "line.color": fill, "error_y.color": theme.soft}


def _script_text(value: Any) -> str:
    """JSON that cannot end the script it stands in."""
    return json.dumps(value, sort_keys=True).replace("<", "\\u003c")


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that is folded until it is wanted, everything escaped."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<details><summary>{escape(title)}</summary><div class=wide><table><thead><tr>{top}</tr></thead>"
        f"<tbody>{body}</tbody></table></div></details>"
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{styles}
body{{margin:0;padding:1rem 1.25rem;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}}
h1{{font-size:1.35rem;margin:0 0 .5rem}}
p{{margin:.25rem 0;color:var(--soft)}}
summary{{cursor:pointer;margin:.75rem 0}}
.wide{{overflow-x:auto}}
table{{border-collapse:collapse;font-size:.9rem}}
th,td{{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line)}}
#picture{{height:{height};min-height:26rem}}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<div id="picture" role="img" aria-label="{label}"></div>
{told}
{table}
</main>
<script>{plotly}</script>
<script>
(function () {{
  var figure = {figure};
  var looks = {looks};
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function put(target, path, value) {{
    var parts = path.split("."), last = parts.pop();
    parts.forEach(function (part) {{ target = target[part] = target[part] || {{}}; }});
    target[last] = value;
  }}
  function draw() {{
    var look = looks[dark.matches ? "dark" : "light"] || looks.light || looks.dark;
    Object.keys(look.layout).forEach(function (path) {{ put(figure.layout, path, look.layout[path]); }});
    look.traces.forEach(function (trace, number) {{
      Object.keys(trace).forEach(function (path) {{ put(figure.data[number], path, trace[path]); }});
    }});
    figure.layout.datarevision = dark.matches ? 1 : 0;
    var config = {{scrollZoom: true, displaylogo: false, responsive: true}};
    Plotly.react(document.getElementById("picture"), figure.data, figure.layout, config);
  }}
  draw();
  dark.addEventListener("change", draw);
}})();
</script>
</body>
</html>
"""
