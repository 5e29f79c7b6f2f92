"""The application: routers, error pages and what every request goes through, wired together."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from registry.core import TaskRegistry
from registry.web import pages
from registry.web.settings import ServeSettings

STATIC = Path(__file__).parent / "static"


def create_app(settings: ServeSettings) -> FastAPI:
    """The server of one registry, as an ASGI application.

    ``app.state`` holds ``settings`` and ``registry``.
    """
    app = FastAPI(title="task2vec-registry", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    app.state.settings = settings
    app.state.registry = TaskRegistry(settings.uri, builtin=settings.builtin)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(pages.router)
    return app
