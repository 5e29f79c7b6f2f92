"""The pages of tasks: the list, the card of one, and the parts of it that take longer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from registry.answers import Recommendation
from registry.caching import LastAnswers
from registry.core import TaskRegistry
from registry.errors import InvalidQueryError, NotFoundError
from registry.filters import FIELDS, parse_where
from registry.ingest.data import head_metric
from registry.options import DEFAULT_DISTANCE
from registry.records import EmbeddingRecord, SpaceRecord, TaskRecord
from registry.web.pages import drawings
from registry.web.pages.assets import sheets_of
from registry.web.pages.experts import results_of
from registry.web.pages.listings import MEASURED, PAGE_ROWS, Listing, facet_number, page_of, rows_of
from registry.web.pages.map import map_of, nearest_to
from registry.web.pages.spaces import in_shared_space
from registry.web.pages.templating import render, render_if_missing
from registry.wording import KINDS

router = APIRouter(include_in_schema=False)

CSV_ROWS = 1000
TAGS_OFFERED = 100
NUM_NEIGHBORS = 10
NUM_EXPERTS = 8
NUM_MARKED = 5
NUM_RECENT = 6
NUM_LINES = 100
PLACE_SECONDS = 2.0
NUM_CLASSES_SHOWN = 24
NORMAL_95 = 1.96


@router.get("/")
def tasks(
    request: Request,
    search: str = "",
    tag: str = "",
    kind: str = "",
    measured: str = "",
    min_samples: str = "",
    max_classes: str = "",
    where: str = "",
    sort: str = "name",
    order: str = "up",
    page: int = Query(1, ge=1, le=10**9),
) -> HTMLResponse:
    """All tasks: searched, filtered, sorted, a page at a time."""
    registry, kept = request.app.state.registry, request.app.state.kept
    if missing := render_if_missing(request, "Tasks"):
        return missing
    said = {
        "tag": tag,
        "kind": kind,
        "measured": measured,
        "min_samples": min_samples,
        "max_classes": max_classes,
    }
    shown: dict[str, Any] = {
        "search": search,
        "where": where,
        "said": said,
        "facets": kept.get(("facets", registry.version()), lambda: _facets(registry)),
        "sort": sort,
        "descending": order == "down",
        "fields": list(FIELDS),
        "problem": "",
        "home": None,
        "empty": False,
        "listing": Listing(0, 0, PAGE_ROWS, ()),
    }
    try:
        if where:
            parse_where(where)  # by itself, so that its problem is about what was typed
        asked = {"search": search or None, "where": _narrowed(registry, kept, where, said) or None}
        shown["listing"] = _listed(
            registry, {**asked, "sort": sort, "descending": order == "down"}, request, page
        )
    except InvalidQueryError as err:
        return render(request, "tasks.html", {**shown, "problem": str(err)}, status=400)
    if not request.query_params:
        shown["home"] = _home(registry, kept, shown["listing"].total)
    shown["empty"] = not (shown["listing"].total or search or where or any(said.values()))
    return render(request, "tasks.html", shown)


def _home(registry: TaskRegistry, kept: LastAnswers, num_tasks: int) -> dict[str, Any]:
    """What the first page shows above the list: how much there is, and what was added last."""
    recent = registry.find_tasks(sort="created_at", descending=True, limit=NUM_RECENT).tasks
    return {
        "tasks": num_tasks,
        "experts": kept.get(("num experts", registry.version()), lambda: len(registry.experts())),
        "results": len(results_of(registry, kept)),
        "recent": recent,
        "sheets": sheets_of(registry, {task.name for task in recent}),
    }


def _listed(
    registry: TaskRegistry, asked: Mapping[str, Any], request: Request, page: int
) -> Listing[TaskRecord]:
    """A page of tasks; all of them where they are wanted as CSV."""
    if rows_of(request) == PAGE_ROWS:
        found = registry.find_tasks(**asked, limit=PAGE_ROWS, offset=(page - 1) * PAGE_ROWS)
        return Listing(found.total, found.offset, found.limit, found.tasks)
    tasks: list[TaskRecord] = []
    while part := registry.find_tasks(**asked, limit=CSV_ROWS, offset=len(tasks)).tasks:
        tasks += part
    return page_of(tasks, 1, rows_of(request))


def _facets(registry: TaskRegistry) -> dict[str, tuple[str, list[tuple[str, int]]]]:
    """What tasks can be chosen by: the title of each facet, and its values with how many tasks have them."""
    return {
        "tag": ("Tag", list(registry.tag_counts().items())[:TAGS_OFFERED]),
        "kind": ("Kind", [(words, 0) for words in KINDS.values()]),
        "measured": ("Measured", [(words, 0) for words in MEASURED.values()]),
    }


def _narrowed(registry: TaskRegistry, kept: LastAnswers, where: str, said: Mapping[str, str]) -> str:
    """A filter with what the facets say added to it."""
    parts = [f"({where})"] if where else []
    if said["tag"]:
        parts.append("tags = '{}'".format(said["tag"].replace("'", "''")))
    kinds = {words: kind for kind, words in KINDS.items()}
    if said["kind"] in kinds:
        parts.append(f"kind = '{kinds[said['kind']]}'")
    for name, comparison in (("min_samples", "num_samples >="), ("max_classes", "num_classes <=")):
        if (number := facet_number(name, said[name])) is not None:
            parts.append(f"{comparison} {number:.0f}")
    if said["measured"] in MEASURED.values():
        tasks = sorted({f"'{result.task}'" for result in results_of(registry, kept)}) or ["''"]
        parts.append(f"name {'not ' * (said['measured'] != MEASURED[True])}in ({', '.join(tasks)})")
    return " and ".join(parts)


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
            "sheets": sheets_of(registry, {record.name, *(neighbor.task for neighbor in neighbors)}),
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
    return render(
        request, "history.html", {"history": request.app.state.registry.history(name, limit=NUM_LINES)}
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
    return render(
        request,
        "recommendation.html",
        {"name": name, "num_classes": registry.task(name).num_classes, **recommended(answer)},
    )


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
