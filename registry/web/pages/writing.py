"""The forms that write: a job becomes a task, a result is recorded, tags change, experts are tried."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from registry.core import TaskRegistry
from registry.errors import InvalidQueryError, RegistryError
from registry.names import ERROR_SHARES, LOSSES, SHARES
from registry.options import DataOptions
from registry.web.http.access import actor_of, demand
from registry.web.http.faults import RefusedError, status_of
from registry.web.pages.experts import results_of
from registry.web.pages.jobs import NUM_TRIALS, job_page
from registry.web.pages.listings import link
from registry.web.pages.templating import render, render_if_missing, task_path

router = APIRouter(include_in_schema=False)

PROTOCOLS = ("linear_probe_20shot", "fine_tuned")
"""Ways to measure that are offered even where no result was measured like that."""

WAYS = {"": None, "higher": False, "lower": True}
"""Which way a metric goes, as the form asks for it."""


@router.get("/results/new")
def new_result(request: Request, task: str = "", expert: str = "", protocol: str = "") -> HTMLResponse:
    """The form that records a result."""
    if missing := render_if_missing(request, "Record a result"):
        return missing
    return _result_form(request, {"task": task, "expert": expert, "protocol": protocol})


@router.post("/results/new")
async def add_result(request: Request) -> Response:
    """Record a result; a problem is shown above the form as it was filled in."""
    said = await _said(request)
    return await run_in_threadpool(_add_result, request, said)


def _add_result(request: Request, said: Mapping[str, str]) -> Response:
    try:
        for name in ("task", "expert", "accuracy", "protocol"):
            if not said.get(name):
                raise InvalidQueryError(f"{name} is missing; fill it in")
        result = _registry(request).add_result(
            said["task"],
            said["expert"],
            accuracy=_number(said, "accuracy", float),
            metric=said.get("metric") or "accuracy",
            protocol=said["protocol"],
            seed=_number(said, "seed", int),
            source=said.get("source", ""),
            lower_is_better=WAYS.get(said.get("way", "")),
            anyway=bool(said.get("anyway")),
        )
    except RegistryError as err:
        return _result_form(request, said, str(err), status_of(err))
    return RedirectResponse(link("/results", {"task": result.task}) + "#recorded", 303)


def _result_form(
    request: Request, said: Mapping[str, str], problem: str = "", status: int = 200
) -> HTMLResponse:
    measured = results_of(request.app.state.registry, request.app.state.kept)
    usual = [name for name, _ in Counter(result.protocol for result in measured).most_common()]
    shown = {
        "said": said,
        "problem": problem,
        "protocols": list(dict.fromkeys((*usual, *PROTOCOLS))),
        "metrics": (*SHARES, *ERROR_SHARES, *LOSSES),
    }
    return render(request, "new_result.html", shown, status=status)


@router.get("/tasks/{name}/edit")
def edit(request: Request, name: str) -> HTMLResponse:
    """The form that changes the tags of a task."""
    task = _registry(request).task(name)
    return render(request, "edit.html", {"task": task, "tags": " ".join(task.tags), "problem": ""})


@router.post("/tasks/{name}/edit")
async def change(request: Request, name: str) -> Response:
    """Change the tags of a task."""
    said = await _said(request)
    return await run_in_threadpool(_change, request, name, said)


def _change(request: Request, name: str, said: Mapping[str, str]) -> Response:
    registry = _registry(request)
    task = registry.task(name)
    tags = set(_words(said))
    try:
        registry.tag_task(task.name, add=sorted(tags - set(task.tags)), remove=sorted(set(task.tags) - tags))
    except RegistryError as err:
        shown = {"task": task, "tags": said.get("tags", ""), "problem": str(err)}
        return render(request, "edit.html", shown, status=status_of(err))
    return RedirectResponse(task_path(task.name), 303)


@router.post("/tasks/{name}/try")
def try_experts(request: Request, name: str) -> Response:
    """Try the most promising experts on the data of a task, and keep what they reach as results."""
    demand(request, "write")
    options = {"num_trials": NUM_TRIALS, "record": True}
    job = request.app.state.jobs.submit("recommend", {"task": name}, options=options, actor=actor_of(request))
    return RedirectResponse(f"/jobs/{job.id}", 303)


@router.post("/jobs/{job_id}/try")
def try_more(request: Request, job_id: str) -> Response:
    """Ask once more about the data of a job, and try the most promising experts on it."""
    demand(request, "write")
    job = request.app.state.jobs.get(job_id)
    return _asked_again(request, job, "recommend", {**job.options, "num_trials": NUM_TRIALS}, job.name)


@router.post("/jobs/{job_id}/register")
async def register(request: Request, job_id: str) -> Response:
    """Register the data of a job as a task."""
    said = await _said(request)
    job = request.app.state.jobs.get(job_id)
    reading = {name: value for name, value in job.options.items() if name in DataOptions.__annotations__}
    return await run_in_threadpool(_asked_again, request, job, "add_task", reading, None, said)


def _asked_again(
    request: Request,
    job: Any,
    kind: str,
    options: Mapping[str, Any],
    name: str | None,
    said: Mapping[str, str] | None = None,
) -> Response:
    """Another job about the data of one; a problem is shown on the page of that one."""
    named, tags = (said.get("name"), _words(said)) if said is not None else (name, ())
    try:
        started = request.app.state.jobs.submit(
            kind, job.data, name=named, tags=tags, options=options, actor=actor_of(request)
        )
    except (RegistryError, RefusedError) as err:
        status = err.status if isinstance(err, RefusedError) else status_of(err)
        return job_page(request, job, said=said, problem=str(err), status=status)
    return RedirectResponse(f"/jobs/{started.id}", 303)


async def _said(request: Request) -> dict[str, str]:
    """What a form says, of those who may write."""
    demand(request, "write")
    return {name: str(value).strip() for name, value in (await request.form()).items()}


def _words(said: Mapping[str, str]) -> list[str]:
    """Tags, with spaces or commas between them."""
    return said.get("tags", "").replace(",", " ").split()


def _number(said: Mapping[str, str], name: str, kind: type) -> Any:
    """The number in a field, ``None`` where it is empty; ``InvalidQueryError`` if it is none."""
    text = said.get(name, "")
    try:
        return kind(text) if text else None
    except ValueError:
        example = "such as 0.93" if kind is float else "without a point"
        raise InvalidQueryError(f"{name} must be a number {example}, got {text!r:.100}") from None


def _registry(request: Request) -> TaskRegistry:
    registry: TaskRegistry = request.app.state.registry
    return registry
