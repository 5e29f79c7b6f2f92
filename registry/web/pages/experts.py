"""The pages of experts and results."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from statistics import fmean
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from registry.caching import LastAnswers
from registry.core import TaskRegistry
from registry.gate import OTHER_DATA
from registry.ingest.data import is_inert
from registry.records import ExpertRecord, ResultRecord
from registry.web.pages import drawings
from registry.web.pages.listings import MEASURED, facet_number, page_of, rows_of, sort_rows
from registry.web.pages.templating import expert_path, render, render_if_missing, scored
from registry.wording import describe_way

router = APIRouter(include_in_schema=False)

NUM_BEST = 5
EXPERT_COLUMNS: Mapping[str, Callable[[Any], Any]] = {
    "name": lambda row: row[0].name,
    "source_task": lambda row: row[0].source_task or None,
    "source_accuracy": lambda row: row[0].source_accuracy,
    "num_params": lambda row: row[0].num_params,
    "flops": lambda row: row[0].flops,
    "input_size": lambda row: row[0].input_size,
    "license": lambda row: row[0].license or None,
    "results": lambda row: row[1],
    "mean": lambda row: row[2],
}
EXPERT_KINDS = {False: "real", True: "toy"}
RESULT_COLUMNS: Mapping[str, Callable[[ResultRecord], Any]] = {
    name: attrgetter(name) for name in ("task", "expert", "metric", "protocol", "source", "created_at")
} | {"accuracy": scored}


@router.get("/experts")
def experts(
    request: Request,
    search: str = "",
    license: str = "",
    measured: str = "",
    kind: str = "",
    max_params: str = "",
    sort: str = "name",
    order: str = "up",
    page: int = Query(1, ge=1, le=10**9),
) -> HTMLResponse:
    """All experts, with the number and the mean of their results."""
    registry, kept = request.app.state.registry, request.app.state.kept
    if missing := render_if_missing(request, "Experts"):
        return missing
    rows = kept.get(("experts", registry.version()), lambda: _with_results(registry))
    said = {"license": license, "measured": measured, "kind": kind, "max_params": max_params}
    most = facet_number("max_params", max_params)
    matching = [
        row
        for row in rows
        if _matches(row[0], search)
        and license in {"", row[0].license}
        and measured in {"", MEASURED[row[1] > 0]}
        and kind in {"", EXPERT_KINDS[row[0].toy]}
        and (most is None or (row[0].num_params or math.inf) <= most * 1e6)
    ]
    descending = order == "down"
    listing = page_of(sort_rows(matching, EXPERT_COLUMNS, sort, descending=descending), page, rows_of(request))
    shown = {"search": search, "sort": sort, "descending": descending, "listing": listing, "any": bool(rows)}
    licenses = Counter(row[0].license for row in rows if row[0].license)
    facets = {
        "license": ("Licence", licenses.most_common()),
        "kind": ("Kind", [(name, 0) for name in EXPERT_KINDS.values()]),
        "measured": ("Measured", [(name, 0) for name in MEASURED.values()]),
    }
    standing, what = kept.get(("standing", registry.version()), lambda: _standing(registry))
    points = [
        (one.name, expert_path(one.name), one.num_params, standing[one.name])
        for one, _, _ in matching
        if one.num_params and one.name in standing
    ]
    drawn = drawings.scatter(points, f"{what} against parameters") if len(points) > 1 else ""
    top = max(points, key=lambda point: point[3], default=None)
    return render(
        request,
        "experts.html",
        {**shown, "said": said, "facets": facets, "drawn": drawn, "what": what, "top": top},
    )


@router.get("/experts/{name:path}")
def expert(request: Request, name: str) -> HTMLResponse:
    """The card of an expert, with the tasks that it is best on."""
    registry, kept = request.app.state.registry, request.app.state.kept
    record = registry.expert(name)
    history = sorted(registry.results(expert=name), key=attrgetter("created_at"), reverse=True)
    leading, rivals = _leading(results_of(registry, kept), name)
    standing, what = kept.get(("standing", registry.version()), lambda: _standing(registry))
    origins = {it.name: it for it in registry.origins() if it.kind == "expert"}
    return render(
        request,
        "expert.html",
        {
            "expert": record,
            "history": history,
            "tasks": {result.task for result in history},
            "leading": leading,
            "rivals": rivals,
            "what": what,
            "usual": standing.get(name),
            "rank": 1 + sum(other > standing[name] for other in standing.values()) if name in standing else 0,
            "ranked": len(standing),
            "inert": is_inert(record.loader, origins.get(name)),
            "best": sorted(history, key=scored, reverse=True)[:NUM_BEST],
        },
    )


@router.get("/results")
def results(
    request: Request,
    task: str = "",
    expert: str = "",
    sort: str = "",
    order: str = "",
    page: int = Query(1, ge=1, le=10**9),
) -> HTMLResponse:
    """Results: of a task, best first; of an expert, last first; of both, or all."""
    registry: TaskRegistry = request.app.state.registry
    if missing := render_if_missing(request, "Results"):
        return missing
    task, expert = task.strip(), expert.strip()
    if task:
        registry.task(task)  # raises an error with close matches
    if expert:
        registry.expert(expert)
    kept: LastAnswers = request.app.state.kept
    rows = results_of(registry, kept)
    matching = [row for row in rows if task in {"", row.task} and expert in {"", row.expert}]
    sort = sort or ("accuracy" if task else "created_at" if expert else "task")
    descending = order == "down" if order else sort != "task"
    listing = page_of(sort_rows(matching, RESULT_COLUMNS, sort, descending=descending), page, rows_of(request))
    weights = kept.get(("weights", registry.version()), lambda: _weights(registry))
    shown = {"task": task, "expert": expert, "sort": sort, "descending": descending, "listing": listing}
    shown["marks"] = [_mark(row, weights) for row in listing.rows]
    shown["best"] = _best(matching) if task and not expert else []
    return render(request, "results.html", {**shown, "any": bool(rows)})


def results_of(registry: TaskRegistry, kept: LastAnswers) -> Sequence[ResultRecord]:
    """Every result, read again once the registry has changed."""
    answer: Sequence[ResultRecord] = kept.get(("results", registry.version()), registry.results)
    return answer


def _weights(registry: TaskRegistry) -> dict[str, str]:
    """Hashes of the weights of experts, as far as they were read."""
    return {expert.name: expert.weights_hash for expert in registry.experts() if expert.weights_hash}


def _best(results: Sequence[ResultRecord]) -> list[tuple[str, ResultRecord, int]]:
    """Of each way that a task was measured in, in words: the best result, and of how many; the most first."""
    ways = defaultdict(list)
    for result in results:
        if result.task_version != OTHER_DATA:
            ways[describe_way((result.metric, result.protocol))].append(result)
    ranked = sorted(ways.items(), key=lambda item: -len(item[1]))
    return [(way, max(ones, key=scored), len(ones)) for way, ones in ranked]


def _mark(result: ResultRecord, weights: Mapping[str, str]) -> str:
    """What a result is of, where that is not the latest version of its task and the weights of its expert."""
    data = {OTHER_DATA: "other data", 0: ""}.get(result.task_version, f"version {result.task_version}")
    registered = weights.get(result.expert, result.weights_hash)
    is_other = bool(result.weights_hash) and result.weights_hash != registered
    return ", ".join(filter(None, (data, "other weights" if is_other else "")))


def _with_results(registry: TaskRegistry) -> list[tuple[ExpertRecord, int, float | None]]:
    """Experts with the number and the mean of their results."""
    scores = defaultdict(list)
    for result in registry.results():
        if result.task_version != OTHER_DATA:
            scores[result.expert].append(scored(result))
    return [
        (record, len(scores[record.name]), fmean(scores[record.name]) if scores[record.name] else None)
        for record in registry.experts()
    ]


def _standing(registry: TaskRegistry) -> tuple[dict[str, float], str]:
    """How good each expert is on a typical task, and what that is: of the protocol with the most results.

    It is the mean over all tasks, plus how far the expert is above what all reach on the tasks that it was
    measured on; so who was measured on easy tasks only is not ahead for that.
    """
    counting = [one for one in registry.results() if one.task_version != OTHER_DATA]
    if not counting:
        return {}, ""
    ((metric, protocol), _), *_ = Counter((one.metric, one.protocol) for one in counting).most_common(1)
    of_task, above = defaultdict(list), defaultdict(list)
    for one in counting:
        if (one.metric, one.protocol) == (metric, protocol):
            of_task[one.task, one.task_version].append(one)
    means = {task: fmean(map(scored, ones)) for task, ones in of_task.items()}
    for task, ones in of_task.items():
        for one in ones:
            above[one.expert].append(scored(one) - means[task])
    typical = fmean(means.values())
    return {name: typical + fmean(values) for name, values in above.items()}, describe_way((metric, protocol))


def _matches(record: ExpertRecord, search: str) -> bool:
    """Whether every word is part of the name, the source task or the licence of an expert."""
    words = f"{record.name} {record.source_task} {record.license}".lower()
    return all(word in words for word in search.lower().split())


def _leading(results: Sequence[ResultRecord], name: str) -> tuple[list[ResultRecord], int]:
    """Results of an expert that beat those of all others on that task, by version, metric and protocol.

    Returns:
        Those, the highest first; and how many of its results can be compared with another expert's.
    """
    key = attrgetter("task", "task_version", "metric", "protocol")
    counting = [result for result in results if result.task_version != OTHER_DATA]
    others: dict[Any, float] = {}
    for result in counting:
        if result.expert != name:
            others[key(result)] = max(others.get(key(result), 0.0), scored(result))
    own = [result for result in counting if result.expert == name and key(result) in others]
    leading = [result for result in own if scored(result) > others[key(result)]]
    return sorted(leading, key=scored, reverse=True), len(own)
