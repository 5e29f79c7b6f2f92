"""The pages that ask for a recommendation on new data, and show the progress of the job."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from registry.errors import InvalidQueryError, RegistryError
from registry.web.http.access import actor_of, demand
from registry.web.http.faults import RefusedError
from registry.web.pages import drawings
from registry.web.pages.assets import sheet_of_job, sheets_of
from registry.web.pages.templating import render, render_if_missing

router = APIRouter(include_in_schema=False)

JOBS_SHOWN = 100
NUM_EXPERTS = 8
NUM_TRIALS = 3
"""How many experts a button tries."""

MILLION = 1e6
NUMBERS: dict[str, float] = {
    "k": 1,
    "num_trials": 1,
    "max_samples": 1,
    "class_level": 1,
    "max_params": MILLION,
    "max_flops": MILLION,
}
"""Numbers of the form of a recommendation, each with its unit."""

TEXTS = {
    "split": ("Split", "train"),
    "image_col": ("Column of the images", "by its name"),
    "text_col": ("Column of the texts", "by its name"),
    "label_col": ("Column of the classes", "by its name"),
    "target_col": ("Column of measured numbers", "none"),
    "split_col": ("Column of the split", "by its name"),
    "image_root": ("Folder of the images", "beside the table"),
    "image_suffix": ("What names of images end in", "as written"),
    "delimiter": ("What stands between cells", "as it fits"),
    "encoding": ("Encoding of texts", "UTF-8"),
}
"""Options on reading data that the form asks for: what they are called, and what holds without them."""

SWITCHES = {
    "skip_bad": "Leave out class folders without samples and rows without a file",
    "anyway": "Try on data or weights that are not what was registered",
    "as_new_version": "Register other data as the next version of the task",
}
"""Options of the form that are on or off."""


@router.get("/recommend")
def recommend(
    request: Request, task: str = "", path: str = "", num_trials: int = Query(0, ge=0, le=50)
) -> HTMLResponse:
    """The form that uploads a dataset, or names one that is here, and asks which expert to start from."""
    if missing := render_if_missing(request, "Which expert should I start from?"):
        return missing
    source = "path" if path else "task" if task else "upload"
    return _form(request, {"source": source, "task": task, "path": path, "num_trials": str(num_trials)})


@router.post("/recommend")
async def ask(request: Request) -> Response:
    """Start a job, for those without scripts; a problem is shown above the form as it was filled in."""
    demand(request, "write")
    said = {name: str(value) for name, value in (await request.form()).items()}
    return await run_in_threadpool(_asked, request, said)


def _asked(request: Request, said: Mapping[str, str]) -> Response:
    source = said.get("source", "")
    try:
        if source not in {"task", "path"}:
            raise InvalidQueryError(
                "a zip cannot be sent without scripts; give a path or a task, or use the API"
            )
        data = {source: said.get(source, "").strip()}
        started = request.app.state.jobs.submit(
            "recommend", data, options=_options(said), actor=actor_of(request)
        )
    except (RegistryError, RefusedError) as err:
        status = err.status if isinstance(err, RefusedError) else 404 if isinstance(err, LookupError) else 400
        return _form(request, said, problem=str(err), status=status)
    return RedirectResponse(f"/jobs/{started.id}", 303)


def _form(request: Request, said: Mapping[str, str], *, problem: str = "", status: int = 200) -> HTMLResponse:
    registry, settings = request.app.state.registry, request.app.state.settings
    shown = {
        "said": {"k": str(NUM_EXPERTS), "num_trials": "0", **said},
        "roots": settings.roots,
        "limits": settings.limits,
        "licenses": sorted({expert.license for expert in registry.experts() if expert.license}),
        "problem": problem,
        "texts": TEXTS,
        "switches": SWITCHES,
    }
    return render(request, "recommend.html", shown, status=status)


def _options(said: Mapping[str, str]) -> dict[str, Any]:
    """The options of a job, from the texts of the form; ``InvalidQueryError`` if one is no number."""
    options: dict[str, Any] = {"licenses": [said["licenses"]]} if said.get("licenses") else {}
    options |= {name: said[name].strip() for name in TEXTS if said.get(name, "").strip()}
    options |= dict.fromkeys((name for name in SWITCHES if said.get(name)), True)
    for name, unit in NUMBERS.items():
        text = said.get(name, "").strip()
        try:
            if text:
                options[name] = float(text) * unit if unit > 1 else int(text)
        except ValueError:
            raise InvalidQueryError(f"{name} must be a number, got {text!r}") from None
    return options


@router.get("/jobs")
def list_jobs(request: Request) -> HTMLResponse:
    """The last jobs; needs a login."""
    demand(request, "write")
    return render(request, "jobs.html", {"jobs": request.app.state.jobs.list(limit=JOBS_SHOWN)})


@router.get("/jobs/{job_id}")
def show_job(request: Request, job_id: str) -> HTMLResponse:
    """A job: its progress, or its outcome."""
    return job_page(request, request.app.state.jobs.get(job_id))


def job_page(
    request: Request, job: Any, *, said: Mapping[str, str] | None = None, problem: str = "", status: int = 200
) -> HTMLResponse:
    """The page of a job; with a problem, if its form for the registration was sent and refused."""
    answer = (job.result or {}).get("recommendation")
    is_new = job.state == "done" and job.kind != "add_task" and "task" not in job.data
    neighbors = ((job.result or {}).get("neighbors") or {}).get("neighbors", ())
    return render(
        request,
        "job.html",
        {
            "job": job,
            "said": {"name": job.name or "", "tags": "", **(said or {})},
            "problem": problem,
            "can_be_registered": is_new,
            "title": title_of(job),
            "unfinished": not job.is_over,
            "answer": answer,
            "span": _span(answer),
            "neighbors": neighbors,
            "sheet": sheet_of_job(request.app.state.jobs, job.id),
            "sheets": sheets_of(request.app.state.registry, {near["task"] for near in neighbors})
            if neighbors
            else {},
            "embedding": (job.result or {}).get("embedding"),
            "added": (job.result or {}).get("task"),
            "again": _again(job),
        },
        status=status,
    )


@router.post("/jobs/{job_id}/cancel")
def cancel(request: Request, job_id: str) -> Response:
    """Cancel a job, for those without scripts; then show it."""
    demand(request, "write")
    request.app.state.jobs.cancel(job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)


def title_of(job: Any) -> str:
    """What a job is about, in a few words."""
    return str(job.name or job.data.get("task") or job.data.get("path") or "uploaded data")


def _span(answer: Any) -> tuple[float, float]:
    experts = (answer or {}).get("recommendations") or ()
    if not experts:
        return 0.0, 1.0
    lows, highs = zip(*(expert["interval"] for expert in experts), strict=True)
    return drawings.span_of(lows, highs)


def _again(job: Any) -> dict[str, str]:
    """What fills in the form again for the same question; an upload has to be sent once more."""
    return {name: str(job.data[name]) for name in ("task", "path") if job.data.get(name)}
