"""The page that compares two tasks."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup

from registry.answers import Apart
from registry.caching import LastAnswers
from registry.core import TaskRegistry
from registry.distances import DISTANCES
from registry.errors import IngestError, InvalidQueryError, NotFoundError
from registry.gate import OTHER_DATA
from registry.map_answers import LayerProfile
from registry.options import DEFAULT_DISTANCE
from registry.pictures.layers import draw_layers
from registry.records import ResultRecord
from registry.web.pages.experts import results_of
from registry.web.pages.listings import link
from registry.web.pages.spaces import in_shared_space
from registry.web.pages.templating import render, render_if_missing, scored

router = APIRouter(include_in_schema=False)

MOST = 6
"""Most tasks or experts side by side."""


@router.get("/compare")
def compare(
    request: Request, a: str = "", b: str = "", task: Annotated[list[str] | None, Query()] = None
) -> Response:
    """Two tasks side by side: distances, and the experts that were measured on both."""
    registry, kept = request.app.state.registry, request.app.state.kept
    if missing := render_if_missing(request, "Compare two tasks"):
        return missing
    if task and len(chosen := list(dict.fromkeys(task))) > 2:
        return RedirectResponse(link("/compare/tasks", {"tasks": ",".join(chosen)}), 303)
    a, b = (word.strip() for word in (*(task or ()), a, b, "")[:2])
    shown: dict[str, Any] = {"a": a, "b": b, "problem": "", "close": (), "pair": None}
    if not (a and b):
        return render(request, "compare.html", shown)
    try:
        pair = [registry.task(a), registry.task(b)]
        shown["distances"] = _distances(registry, a, b)
    except (NotFoundError, InvalidQueryError) as err:
        status = 404 if isinstance(err, NotFoundError) else 400
        shown["close"] = _closest(err, a, b)
        return render(request, "compare.html", {**shown, "problem": str(err)}, status=status)
    shown["apart"] = next(row["there"] for row in shown["distances"] if row["kind"].name == DEFAULT_DISTANCE)
    shown["place"] = _place(registry, pair[0].name, pair[1].name)
    common = _common_results(registry, kept, [pair[0].name, pair[1].name])
    return render(request, "compare.html", {**shown, "pair": pair, "common": common})


@router.get("/compare/tasks")
def compare_tasks(request: Request, tasks: str) -> HTMLResponse:
    """Several tasks: which are near each other, and the experts that were measured on all."""
    registry, kept = request.app.state.registry, request.app.state.kept
    chosen = [registry.task(name) for name in _several(tasks, "tasks")]
    names = [task.name for task in chosen]

    def ask(space: str | None) -> dict[tuple[str, str], Apart]:
        return {pair: registry.distance(*pair, probe=space) for pair in combinations(names, 2)}

    apart = in_shared_space(registry, names, ask)
    shown = {
        "tasks": chosen,
        "apart": apart | {(b, a): value for (a, b), value in apart.items()},
        "near": min(apart, key=apart.__getitem__),
        "far": max(apart, key=apart.__getitem__),
        "common": _common_results(registry, kept, names),
    }
    return render(request, "compare_tasks.html", shown)


@router.get("/compare/experts")
def compare_experts(
    request: Request, experts: str = "", expert: Annotated[list[str] | None, Query()] = None
) -> Response:
    """Several experts: what they are, and how they do on the tasks that all were measured on."""
    registry, kept = request.app.state.registry, request.app.state.kept
    if expert:
        joined = ",".join(dict.fromkeys(expert))
        return RedirectResponse(link("/compare/experts", {"experts": joined}), 303)
    chosen = [registry.expert(name) for name in _several(experts, "experts")]
    common = _common_results(registry, kept, [it.name for it in chosen], of="expert")
    ahead = Counter(max(row["scores"], key=row["scores"].__getitem__) for row in common)
    return render(
        request,
        "compare_experts.html",
        {"experts": chosen, "common": common, "ahead": ahead.most_common(1)},
    )


def _several(text: str, what: str) -> list[str]:
    """The names in a text with commas between them.

    Raises:
        InvalidQueryError: If there are fewer than two, or too many to be shown side by side.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not 2 <= len(names) <= MOST:
        raise InvalidQueryError(f"select 2 to {MOST} {what} to compare; {len(names)} are")
    return names


def _closest(error: Exception, a: str, b: str) -> list[tuple[str, str]]:
    """Names that may have been meant, each with the address that compares what was meant."""
    if not isinstance(error, NotFoundError) or error.kind != "task":
        return []
    wrong = error.name.partition("@")[0]
    pairs = ((name, [name if it.partition("@")[0] == wrong else it for it in (a, b)]) for name in error.close)
    return [(name, link("/compare", {"a": ends[0], "b": ends[1]})) for name, ends in pairs]


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
            for kind in sorted(DISTANCES.values(), key=lambda kind: kind.name != DEFAULT_DISTANCE)
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


def _common_results(
    registry: TaskRegistry, kept: LastAnswers, names: Sequence[str], *, of: str = "task"
) -> list[dict[str, Any]]:
    """What was measured of all names by the same metric and protocol: the best result of each, best rows first.

    Args:
        registry: The registry that is asked.
        kept: What the pages keep.
        names: Tasks, or experts.
        of: Which they are; a row is of one of the other.
    """
    other = "expert" if of == "task" else "task"
    best: dict[tuple[str, str, str], dict[str, ResultRecord]] = defaultdict(dict)
    for result in results_of(registry, kept):
        if getattr(result, of) in names and result.task_version != OTHER_DATA:
            rows = best[getattr(result, other), result.metric, result.protocol]
            former = rows.get(getattr(result, of))
            if former is None or scored(result) > scored(former):
                rows[getattr(result, of)] = result
    common = [
        {
            "name": name,
            "metric": metric,
            "protocol": protocol,
            "values": {key: result.accuracy for key, result in rows.items()},
            "scores": {key: scored(result) for key, result in rows.items()},
        }
        for (name, metric, protocol), rows in best.items()
        if len(rows) == len(set(names))
    ]
    return sorted(common, key=lambda row: (-sum(row["scores"].values()), row["name"]))
