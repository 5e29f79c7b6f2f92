"""The page that compares two tasks."""

from collections import defaultdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from registry.caching import LastAnswers
from registry.core import TaskRegistry
from registry.distances import DISTANCES
from registry.errors import IngestError, InvalidQueryError, NotFoundError
from registry.map_answers import LayerProfile
from registry.pictures.layers import draw_layers
from registry.web.pages.experts import results_of
from registry.web.pages.spaces import in_shared_space
from registry.web.pages.templating import render, render_if_missing

router = APIRouter(include_in_schema=False)


@router.get("/compare")
def compare(request: Request, a: str = "", b: str = "") -> HTMLResponse:
    """Two tasks side by side: distances, and the experts that were measured on both."""
    registry, kept = request.app.state.registry, request.app.state.kept
    if missing := render_if_missing(request, "Compare two tasks"):
        return missing
    a, b = a.strip(), b.strip()
    shown: dict[str, Any] = {"a": a, "b": b, "problem": "", "pair": None}
    if not (a and b):
        return render(request, "compare.html", shown)
    try:
        pair = [registry.task(a), registry.task(b)]
        shown["distances"] = _distances(registry, a, b)
    except (NotFoundError, InvalidQueryError) as err:
        status = 404 if isinstance(err, NotFoundError) else 400
        return render(request, "compare.html", {**shown, "problem": str(err)}, status=status)
    shown["place"] = _place(registry, pair[0].name, pair[1].name)
    common = _common_results(registry, kept, pair[0].name, pair[1].name)
    return render(request, "compare.html", {**shown, "pair": pair, "common": common})


@router.get("/compare/profile")
def profile(request: Request, a: str, b: str) -> HTMLResponse:
    """At which depths of the probe two tasks agree; or why its layers cannot be read."""
    registry: TaskRegistry = request.app.state.registry
    kept: LastAnswers = request.app.state.kept
    shown: dict[str, Any] = {
        "a": registry.task(a).name,
        "b": registry.task(b).name,
        "profile": None,
        "problem": "",
    }

    def profiled() -> LayerProfile:
        return in_shared_space(registry, [a, b], lambda space: registry.profile(a, b, probe=space))

    try:
        layers = kept.get(("profile", registry.version(), a, b), profiled)
    except (NotFoundError, InvalidQueryError, IngestError) as err:
        return render(request, "profile.html", {**shown, "problem": str(err)})
    return render(request, "profile.html", {**shown, "profile": layers, "drawn": Markup(draw_layers(layers))})


def _distances(registry: TaskRegistry, a: str, b: str) -> list[dict[str, Any]]:
    """Every distance of the catalogue, in both directions where they differ."""

    def ask(space: str | None) -> list[dict[str, Any]]:
        return [
            {
                "kind": kind,
                "there": registry.distance(a, b, name=kind.name, probe=space),
                "back": None if kind.symmetric else registry.distance(b, a, name=kind.name, probe=space),
            }
            for kind in DISTANCES.values()
        ]

    return in_shared_space(registry, [a, b], ask)


def _place(registry: TaskRegistry, a: str, b: str) -> dict[str, Any] | None:
    """How near ``b`` is to ``a`` among all tasks: distance, rank, number of others; ``None`` for one task."""
    if a == b:
        return None
    count = registry.find_tasks(limit=1).total
    _, ranked = in_shared_space(registry, [a, b], lambda space: registry.nearest(a, k=count, probe=space))
    neighbor = next(near for near in ranked if near.task == b)
    return {"distance": neighbor.distance, "rank": neighbor.rank, "others": len(ranked)}


def _common_results(registry: TaskRegistry, kept: LastAnswers, a: str, b: str) -> list[dict[str, Any]]:
    """Experts measured on both tasks by the same metric and protocol: their best results there, best first."""
    best: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for result in results_of(registry, kept):
        if result.task in {a, b}:
            scores = best[result.expert, result.metric, result.protocol]
            scores[result.task] = max(scores.get(result.task, 0.0), result.accuracy)
    rows = [
        {"expert": expert, "metric": metric, "protocol": protocol, "a": scores[a], "b": scores[b]}
        for (expert, metric, protocol), scores in best.items()
        if len(scores) == len({a, b})
    ]
    return sorted(rows, key=lambda row: (-row["a"] - row["b"], row["expert"]))
