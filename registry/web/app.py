"""The application: routers, error pages and what every request goes through, wired together."""

from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from registry.core import TaskRegistry
from registry.web import faults, login, pages
from registry.web.security import Guard
from registry.web.sessions import Sessions, Throttle
from registry.web.settings import ServeSettings

STATIC = Path(__file__).parent / "static"


def create_app(settings: ServeSettings) -> FastAPI:
    """The server of one registry, as an ASGI application.

    ``app.state`` holds ``settings``, ``registry``, ``sessions`` and ``throttle``.
    """
    app = FastAPI(
        title="task2vec-registry",
        version=version("task2vec-registry"),
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.registry = TaskRegistry(settings.uri, builtin=settings.builtin)
    app.state.sessions, app.state.throttle = Sessions(), Throttle()
    app.add_middleware(Guard, settings=settings, sessions=app.state.sessions, throttle=app.state.throttle)
    faults.install(app, pages.error_page)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(login.router)
    pages.install(app)
    return app
