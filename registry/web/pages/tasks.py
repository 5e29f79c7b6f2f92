"""The pages of tasks: the list, the card of one, and the parts of it that take longer."""

import math
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from registry.answers import Recommendation
from registry.caching import LastAnswers
from registry.core import TaskRegistry
from registry.errors import InvalidQueryError, NotFoundError
from registry.filters import FIELDS
from registry.ingest.data import head_metric
from registry.options import DEFAULT_DISTANCE
from registry.records import EmbeddingRecord, SpaceRecord, TaskRecord
from registry.web.pages import drawings
from registry.web.pages.listings import PAGE_ROWS, Listing
from registry.web.pages.map import map_of, nearest_to
from registry.web.pages.spaces import in_shared_space
from registry.web.pages.templating import render, render_if_missing

router = APIRouter(include_in_schema=False)

NUM_NEIGHBORS = 10
NUM_EXPERTS = 8
NUM_MARKED = 5
NUM_LINES = 100
PLACE_SECONDS = 2.0
NUM_CLASSES_SHOWN = 24
NORMAL_95 = 1.96


@router.get("/")
def tasks(
    request: Request,
    search: str = "",
    where: str = "",
    sort: str = "name",
    order: str = "up",
    page: int = Query(1, ge=1, le=10**9),
) -> HTMLResponse:
    """All tasks: searched, filtered, sorted, a page at a time."""
    registry: TaskRegistry = request.app.state.registry
    if missing := render_if_missing(request, "Tasks"):
        return missing
    shown: dict[str, Any] = {
        "search": search,
        "where": where,
        "sort": sort,
        "descending": order == "down",
        "fields": list(FIELDS),
        "problem": "",
        "empty": False,
        "listing": Listing(0, 0, PAGE_ROWS, ()),
    }
    try:
        matching = registry.find_tasks(
            search=search or None,
            where=where or None,
            sort=sort,
            descending=order == "down",
            limit=PAGE_ROWS,
            offset=(page - 1) * PAGE_ROWS,
        )
    except InvalidQueryError as err:
        return render(request, "tasks.html", {**shown, "problem": str(err)}, status=400)
    shown["listing"] = Listing(matching.total, matching.offset, matching.limit, matching.tasks)
    shown["empty"] = not (matching.total or search or where)
    return render(request, "tasks.html", shown)


@router.get("/tasks/{name}")
def task(request: Request, name: str, version: int | None = Query(None, ge=1)) -> HTMLResponse:
    """The card of a task: what it is, how it was measured, what it is like."""
    registry: TaskRegistry = request.app.state.registry
    record = registry.task(name if version is None else f"{name}@{version}")
    embeddings = registry.embeddings_of(f"{record.name}@{record.version}")
    neighbors, unplaced = _neighbors(registry, record)
    return render(
        request,
        "task.html",
        {
            "task": record,
            "head_metric": head_metric(record.kind),
            "embeddings": [_measured(record, *pair) for pair in embeddings],
            "neighbors": neighbors,
            "unplaced": unplaced,
            "farthest": max((neighbor.distance for neighbor in neighbors), default=0.0),
            "distance": DEFAULT_DISTANCE,
            "classes_shown": NUM_CLASSES_SHOWN,
            "num_results": len(registry.results(task=record.name)),
            "latest": version is None or registry.task(name).version == record.version,
        },
    )


@router.get("/tasks/{name}/history")
def history(request: Request, name: str) -> HTMLResponse:
    """All versions of a task, and who changed it."""
    task_history = request.app.state.registry.history(name)
    lines = task_history.audit[::-1]
    num_more = max(len(lines) - NUM_LINES, 0)
    return render(
        request, "history.html", {"history": task_history, "lines": lines[:NUM_LINES], "num_more": num_more}
    )


@router.get("/tasks/{name}/recommendation")
def recommendation(request: Request, name: str) -> HTMLResponse:
    """The experts to start from for a registered task."""
    registry, kept = request.app.state.registry, request.app.state.kept
    key = ("recommendation", registry.version(), name)
    answer = kept.get(
        key,
        lambda: in_shared_space(
            registry, [name], lambda space: registry.recommend(name, k=NUM_EXPERTS, probe=space)
        ),
    )
    return render(request, "recommendation.html", {"name": name, **recommended(answer)})


@router.get("/tasks/{name}/place")
def place(request: Request, name: str) -> HTMLResponse:
    """Where a task lies on the map, with its neighbours."""
    registry: TaskRegistry = request.app.state.registry
    record = registry.task(name)
    drawn = _drawn_place(registry, request.app.state.kept, record.name)
    return render(request, "place.html", {"task": record, "drawn": drawn})


def recommended(answer: Recommendation) -> dict[str, Any]:
    """What the pages show of a recommendation."""
    experts = answer.recommendations
    lows, highs = zip(*(expert.interval for expert in experts), strict=True) if experts else ((0.0,), (1.0,))
    span = drawings.span_of(lows, highs)
    return {"answer": answer, "span": span}


def _neighbors(registry: TaskRegistry, record: TaskRecord) -> tuple[Sequence[Any], str]:
    """The nearest tasks; or none, and why there are none: the task is in no space with others."""
    try:
        return nearest_to(registry, record.name, NUM_NEIGHBORS), ""
    except (NotFoundError, InvalidQueryError) as err:
        return (), str(err)


def _measured(record: TaskRecord, space: SpaceRecord, embedding: EmbeddingRecord) -> dict[str, Any]:
    """One embedding with its error bars.

    That of the norm is the typical relative error of a filter, which errs on the large side: the errors of many
    filters cancel in part. That of the accuracy is the normal approximation to counting right answers among the
    samples used, at 95%; scores that are no counts have none.
    """
    accuracy, norm = embedding.head_accuracy, embedding.norm
    around = None
    if record.kind == "single_label":
        half = NORMAL_95 * math.sqrt(accuracy * (1 - accuracy) / embedding.num_samples_used)
        around = (max(accuracy - half, 0.0), min(accuracy + half, 1.0))
    error = norm * embedding.relative_error
    return {
        "space": space,
        "embedding": embedding,
        "accuracy_range": around,
        "norm_range": (norm - error, norm + error),
    }


def _drawn_place(registry: TaskRegistry, kept: LastAnswers, name: str) -> Any:
    """The small map of a task; ``None`` while the large one is being laid out."""
    space = in_shared_space(registry, [name], lambda probe: registry.nearest(name, k=1, probe=probe))[0].space
    shown = map_of(registry, kept, space, PLACE_SECONDS)
    if shown is None:
        return None

    def draw() -> Any:
        rows = {task_name: row for row, task_name in enumerate(shown.names)}
        near = [neighbor.task for neighbor in registry.nearest(name, k=NUM_MARKED, probe=space)[1]]
        return drawings.task_map(shown.positions, rows[name], [rows[other] for other in near], [name, *near])

    return kept.get(("place", registry.version(), name), draw)
