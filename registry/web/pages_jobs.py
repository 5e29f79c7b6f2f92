"""The pages that ask for a recommendation on new data, and tell how far the answer is."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from registry.core import TaskRegistry
from registry.web import drawings
from registry.web.faults import RefusedError
from registry.web.templating import render, render_if_missing

router = APIRouter()

JOBS_SHOWN = 100
OPTIONS = {"k": int, "num_trials": int, "max_samples": int, "max_params": float, "max_flops": float}
"""What the form may say of a recommendation, beside licences, and what turns its texts into numbers."""

UNFINISHED = ("queued", "running")


@router.get("/recommend")
def recommend(request: Request, task: str = "", path: str = "") -> HTMLResponse:
    """The form that uploads a dataset, or names one that is here, and asks which expert to start from."""
    registry: TaskRegistry = request.app.state.registry
    if missing := render_if_missing(request, "Which expert should I start from?"):
        return missing
    settings = request.app.state.settings
    licenses = sorted({expert.license for expert in registry.experts() if expert.license})
    shown = {"task": task, "data_path": path, "roots": settings.roots, "limits": settings.limits}
    return render(request, "recommend.html", {**shown, "licenses": licenses, "problem": ""})


@router.get("/jobs")
def jobs(request: Request) -> HTMLResponse:
    """The last jobs, for those who may start one."""
    _demand_login(request)
    return render(request, "jobs.html", {"jobs": request.app.state.jobs.list(limit=JOBS_SHOWN)})


@router.get("/jobs/{job_id}")
def job(request: Request, job_id: str) -> HTMLResponse:
    """A job: how far it is, or what became of it."""
    found = request.app.state.jobs.get(job_id)
    answer = (found.result or {}).get("recommendation")
    return render(
        request,
        "job.html",
        {
            "job": found,
            "title": title_of(found),
            "unfinished": found.state in UNFINISHED,
            "answer": answer,
            "span": _span(answer),
            "neighbors": ((found.result or {}).get("neighbors") or {}).get("neighbors", ()),
            "embedding": (found.result or {}).get("embedding"),
            "again": _again(found),
        },
    )


@router.post("/jobs/{job_id}/cancel")
def cancel(request: Request, job_id: str) -> Response:
    """Cancel a job, for those without scripts; then show what became of it."""
    _demand_login(request)
    request.app.state.jobs.cancel(job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)


def title_of(job: Any) -> str:
    """What a job is about, in a few words."""
    return str(job.name or job.data.get("task") or job.data.get("path") or "uploaded data")


def _demand_login(request: Request) -> None:
    """Check that the reader may write.

    Raises:
        RefusedError: If they may not.
    """
    if not request.state.may_write:
        raise RefusedError(401, "log in first: this needs the token of the server")


def _span(answer: Any) -> tuple[float, float]:
    experts = (answer or {}).get("recommendations") or ()
    if not experts:
        return 0.0, 1.0
    return drawings.span_of([it["interval"][0] for it in experts], [it["interval"][1] for it in experts])


def _again(job: Any) -> dict[str, str]:
    """What the form has to be told to ask the same again; an upload has to be sent once more."""
    return {name: str(job.data[name]) for name in ("task", "path") if job.data.get(name)}
