"""Templates: what they can call, and how a page is answered."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from registry.names import score_of
from registry.pictures import pages as pictures
from registry.records import ResultRecord
from registry.task_answers import NO_VERSION
from registry.web.http.access import may
from registry.web.pages import drawings
from registry.web.pages.csv_tables import csv_of
from registry.web.pages.listings import link
from registry.wording import GROUPS, KINDS, STAGES, left_out, nearer, share, short, size, sureness

FOLDER = Path(__file__).parents[1]
STATIC = FOLDER / "static"
NAVIGATION = {
    "/": "Tasks",
    "/map": "Map",
    "/experts": "Experts",
    "/results": "Results",
    "/compare": "Compare",
    "/recommend": "Recommend",
    "/jobs": "Jobs",
}
UPLOAD_KINDS = ".zip,.tar,.gz,.tgz,.bz2,.xz,.npz,.mat,.csv,.tsv,.json,.jsonl,.ndjson,.parquet,.arrow,.feather"
NOTHING = "\N{EN DASH}"
"""Shown where a value is not known."""


def render(
    request: Request, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
) -> HTMLResponse:
    """A page: a template filled with its own values and with those that every page shows."""
    path = request.url.path
    shared = {
        "path": path,
        "query": dict(request.query_params),
        "here": _section(path),
        "holder": getattr(request.state, "holder", None),
        "may_write": may(request, "write"),
        "returning": path + (f"?{request.url.query}" if request.url.query else ""),
    }
    text = _environment().get_template(template).render({**shared, **(context or {})})
    if status == 200 and (title := request.query_params.get("csv")):
        headers = {
            "Content-Disposition": 'attachment; filename="table.csv"',
            "Cache-Control": "private, no-cache",
        }
        return HTMLResponse(csv_of(text, title), headers=headers, media_type="text/csv")
    return HTMLResponse(text, status_code=status, headers={"Cache-Control": "private, no-cache"})


def render_if_missing(request: Request, title: str) -> HTMLResponse | None:
    """The page of a list where there is no registry yet: what to do first; ``None`` where there is one."""
    if request.app.state.registry.version() != NO_VERSION:
        return None
    return render(request, "missing.html", {"title": title, "starter": request.app.state.settings.builtin})


def task_path(name: str, version: int | None = None) -> str:
    """Where the page of a task is; ``.`` and ``..``, which no address can end in, are found in the list."""
    if name in {".", ".."}:
        return link("/", {"where": f"name = '{name}'"})
    return link(f"/tasks/{name}", {"version": version})


def expert_path(name: str) -> str:
    """Where the page of an expert is."""
    return link("/results", {"expert": name}) if name in {".", ".."} else f"/experts/{name}"


def scored(result: ResultRecord) -> float:
    """A result as a number from 0 to 1 of which higher is better, whatever its metric."""
    return score_of(result.metric, result.accuracy, lower_is_better=bool(result.lower_is_better))


@cache
def static_path(name: str) -> str:
    """Where a static file is, with a hash of its content, so that it may be kept for good."""
    file = next(folder / name for folder in (STATIC, pictures.STATIC) if (folder / name).is_file())
    return f"/static/{name}?v={hashlib.blake2b(file.read_bytes(), digest_size=6).hexdigest()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        navigation=NAVIGATION,
        link=link,
        task_path=task_path,
        expert_path=expert_path,
        static_path=static_path,
        bar=drawings.bar,
        interval=drawings.interval,
        stages=STAGES,
        sureness=sureness,
        nearer=nearer,
        left_out=left_out,
        score=scored,
        load_code=load_code,
        upload_kinds=UPLOAD_KINDS,
    )
    environment.filters.update(
        share=lambda value: NOTHING if value is None else share(value),
        of_pairs=lambda value: NOTHING if value is None else f"{value:.0%} of pairs",
        percent=lambda value: f"{100 * value:.1f}%",
        short=_short,
        size=lambda value: NOTHING if value is None else size(value),
        count=lambda value: f"{value:,}",
        day=lambda stamp: stamp[:10],
        moment=lambda stamp: f"{stamp[:10]} {stamp[11:19]} UTC" if stamp else NOTHING,
        kind=KINDS.__getitem__,
        groups=GROUPS.__getitem__,
        stage=lambda name: STAGES.get(name, name.capitalize()),
        took=_took,
    )
    return environment


def _short(value: float | None) -> str:
    """A number of any scale, without an exponent where it is large."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1e4 else short(value)


def load_code(line: str, num_classes: int = 0) -> str:
    """The line that loads an expert as a few lines, with a head for so many classes and what its inputs are."""
    imports, _, last = line.partition("; network = load_expert(")
    if not last:  # it says why it is not to be loaded
        return line
    loader = last.removesuffix(")")
    head = f", num_classes={num_classes}" if num_classes else ""
    inputs = f"inputs = load_network({loader}).transform  # of images: size, mean, std"
    return f"{imports}, load_network\n\nnetwork = load_expert({loader}{head})\n{inputs}"


def _took(job: Any) -> str:
    """How long a job took, in words."""
    if not (job.started_at and job.finished_at):
        return NOTHING
    seconds = (datetime.fromisoformat(job.finished_at) - datetime.fromisoformat(job.started_at)).total_seconds()
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _section(path: str) -> str:
    """The entry of the navigation that a path belongs to; none for login and errors."""
    first = "/" + path.split("/")[1]
    return "/" if first in {"/", "/tasks"} else first
