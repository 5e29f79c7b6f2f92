"""The application: routers, error pages and what every request goes through, wired together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from registry.caching import LastAnswers
from registry.core import TaskRegistry
from registry.web.api import admin, experts, jobs, maps, questions, tasks
from registry.web.http import etags, faults
from registry.web.http.access import Access
from registry.web.http.security import Guard
from registry.web.http.settings import ServeSettings
from registry.web.jobs.jobs import Jobs
from registry.web.pages import login, pages
from registry.web.pages.assets import HashedFiles
from registry.web.uploads.uploads import Uploads


def create_app(settings: ServeSettings) -> FastAPI:
    """The server of one registry, as an ASGI application.

    ``app.state`` holds ``settings``, ``registry``, ``uploads``, ``jobs`` and ``access``.
    Jobs run from the start of the server to its end.
    """
    app = FastAPI(
        title="task2vec-registry",
        version=version("task2vec-registry"),
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
        lifespan=_running,
    )
    app.state.settings = settings
    app.state.registry = TaskRegistry(settings.uri, builtin=settings.builtin)
    app.state.uploads = Uploads(settings.state / "uploads", settings.limits, settings.upload_seconds)
    app.state.jobs = Jobs(settings, app.state.registry, app.state.uploads)
    app.state.access = Access(settings)
    note = app.state.registry.note_token
    app.add_middleware(Guard, settings=settings, access=app.state.access, note=note)
    faults.install(app, pages.error_page)
    etags.install(app)
    app.mount("/static", HashedFiles(), name="static")
    api = (routes.router for routes in (tasks, experts, questions, maps, jobs, admin))
    for router in (login.router, *api, *pages.ROUTERS):
        app.router.routes.extend(router.routes)  # as they are: `include_router` would build each a second time
    app.state.kept = LastAnswers()
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # as FastAPI documents it
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; all fields of what the API gives are always there, those with a default too."""
    document = FastAPI.openapi(app)
    for schema in document["components"]["schemas"].values():
        if "properties" in schema and schema.get("additionalProperties") is not False:
            schema["required"] = list(schema["properties"])
    return document


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """From the start of the server to its end."""
    jobs: Jobs = app.state.jobs
    jobs.open()
    try:
        yield
    finally:
        await run_in_threadpool(jobs.close)
