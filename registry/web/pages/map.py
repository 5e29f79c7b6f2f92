"""The page of the map, and the points that its script draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from registry.answers import Neighbor
from registry.caching import LastAnswers
from registry.core import TaskRegistry
from registry.errors import InvalidQueryError, NotFoundError
from registry.map_answers import TaskMap
from registry.pictures.columns import cluster_columns, compact, map_columns
from registry.web.pages import drawings
from registry.web.pages.spaces import default_space, in_shared_space
from registry.web.pages.templating import render, render_if_missing

router = APIRouter(include_in_schema=False)

NUM_NEIGHBORS = 12
NUM_NAMED = 6
"""Tasks named on the small map: those that were added last."""
WAIT_SECONDS = 20.0
"""Time after which a reader is asked to try again."""

MANY_TASKS, OF_MANY_SECONDS = 1000, 3.0
"""Of so many tasks a reader is told sooner how long a layout takes."""


@router.get("/map")
def map_page(request: Request, task: str = "", job: str = "", space: str = "") -> HTMLResponse:
    """The map of all tasks; with a task, or the data of a job, marked on it, and what is nearest to that."""
    registry: TaskRegistry = request.app.state.registry
    if missing := render_if_missing(request, "Map of tasks"):
        return missing
    shown: dict[str, Any] = {
        "task": task,
        "job": job,
        "spaces": registry.spaces(),
        "space": space or default_space(registry) or "",
        "neighbors": (),
        "label": "",
        "problem": "",
    }
    try:
        if job:
            done = request.app.state.jobs.get(job)
            shown |= {"label": _label(done), "neighbors": _neighbors_of(done), "space": _space_of(done)}
        elif task:
            shown["label"] = registry.task(task).name
            shown["neighbors"] = nearest_to(registry, task, NUM_NEIGHBORS, space or None)
    except (NotFoundError, InvalidQueryError) as err:
        status = 404 if isinstance(err, NotFoundError) else 400
        return render(request, "map.html", {**shown, "job": "", "task": "", "problem": str(err)}, status=status)
    return render(request, "map.html", shown)


@router.get("/map/points")
def points(request: Request, job: str = "", space: str = "") -> Response:
    """The points as columns; 202 while the map is being laid out."""
    registry, kept = request.app.state.registry, request.app.state.kept
    version = registry.version()
    tag = f'"{version}"'
    if not job and request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    text: str | None
    if job:
        text = _placed_text(registry, request.app.state.jobs, kept, job)
    else:
        shown = map_of(registry, kept, space or default_space(registry), _patience(registry))
        text = kept.get(("points", version, space), lambda: _columns_text(registry, shown)) if shown else None
    if text is None:
        return unfinished(registry.find_tasks(limit=1).total)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"} if not job else {"Cache-Control": "no-store"}
    return Response(text, headers=headers, media_type="application/json")


@router.get("/map/overview")
def overview(request: Request) -> HTMLResponse:
    """A small map of all tasks, for the first page."""
    registry, kept = request.app.state.registry, request.app.state.kept
    shown = map_of(registry, kept, default_space(registry), _patience(registry))
    key = ("overview", registry.version())

    def draw(shown: TaskMap) -> Any:
        rows = {name: row for row, name in enumerate(shown.names)}
        last = registry.find_tasks(sort="created_at", descending=True, limit=NUM_NAMED).tasks
        names = [task.name for task in last if task.name in rows]
        return drawings.task_map(shown.positions, None, [rows[name] for name in names], names)

    drawn = kept.get(key, lambda: draw(shown)) if shown else None
    return render(request, "place.html", {"task": None, "drawn": drawn})


@router.get("/map/clusters")
def clusters(request: Request, space: str = "") -> Response:
    """The cluster of each point, in order of the points; 202 while they are being found."""
    registry, kept = request.app.state.registry, request.app.state.kept
    version = registry.version()

    def make() -> str:
        probe = space or default_space(registry)
        names = registry.map(probe=probe).names
        return compact(cluster_columns(names, registry.clusters(probe=probe)))

    text = kept.wait(("clusters", version, space), make, WAIT_SECONDS)
    if text is None:
        return unfinished()
    return Response(text, headers={"Cache-Control": "private, no-cache"}, media_type="application/json")


def _patience(registry: TaskRegistry) -> float:
    """Seconds after which a reader is asked to try again for the map."""
    return OF_MANY_SECONDS if registry.find_tasks(limit=1).total > MANY_TASKS else WAIT_SECONDS


def unfinished(num_tasks: int = 0) -> Response:
    """The answer while something is still being made: ask again; with how long a layout takes."""
    few = min(num_tasks, 3000)
    seconds = max(1, round(40 * (few / 3000) ** 1.35 + (num_tasks - few) / 1500))  # docs/maps.md#what-it-costs
    text = compact({"unfinished": True, "tasks": num_tasks, "seconds": seconds})
    return Response(text, 202, {"Cache-Control": "no-store"}, "application/json")


def _columns_text(registry: TaskRegistry, shown: TaskMap) -> str:
    """A map as columns, with the tasks that have contact sheets or that experts were trained on."""
    number_of = {name: number for number, name in enumerate(shown.names)}
    versions = dict(zip(shown.names, shown.versions.tolist(), strict=True))
    sheets = {
        number_of[name]: (len(sheet.columns), sheet.rows)
        for (name, version), sheet in registry.sheet_layouts().items()
        if versions.get(name) == version
    }
    experts: dict[int, list[str]] = {}
    for expert in registry.experts():
        if (number := number_of.get(expert.source_task)) is not None and len(experts.get(number, ())) < 5:
            experts.setdefault(number, []).append(expert.name)
    return compact(map_columns(shown) | {"sheets": sheets, "experts": experts})


def map_of(registry: TaskRegistry, kept: LastAnswers, space: str | None, seconds: float) -> TaskMap | None:
    """The map of all tasks of a space as of now; ``None`` if it is not made within ``seconds``."""
    return kept.wait(("map", registry.version(), space), lambda: registry.map(probe=space), seconds)


def nearest_to(registry: TaskRegistry, task: str, k: int, space: str | None = None) -> Sequence[Neighbor]:
    """The nearest tasks: in a space, or in the one that pages compare the task in."""
    if space:
        return registry.nearest(task, k=k, probe=space)[1]
    return in_shared_space(registry, [task], lambda shared: registry.nearest(task, k=k, probe=shared))[1]


def _placed_text(registry: TaskRegistry, jobs: Any, kept: LastAnswers, job: str) -> str | None:
    """The points with the data of a job among them."""
    done = jobs.get(job)
    query, space = (_label(done), jobs.vectors(job, "fisher")[0]), _space_of(done)

    def make() -> str:
        return compact(map_columns(registry.map([query], probe=space or None)))

    return kept.wait(("map", registry.version(), job), make, WAIT_SECONDS)


def _label(job: Any) -> str:
    """What the data of a job is called on the map."""
    return str(job.name or job.data.get("task") or Path(job.data.get("path", "")).name or "your data")


def _neighbors_of(job: Any) -> Any:
    return ((job.result or {}).get("neighbors") or {}).get("neighbors", ())[:NUM_NEIGHBORS]


def _space_of(job: Any) -> str:
    """Id of the space that a job compared tasks in; empty if it did not."""
    return str((((job.result or {}).get("neighbors") or {}).get("query") or {}).get("space", ""))
