"""The pages for people, wired together; login and errors among them."""

import logging
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from registry.core import TaskRegistry
from registry.errors import RegistryError
from registry.web.pages import assets, compare, experts, jobs, map, tasks, writing
from registry.web.pages.templating import render

TITLES = {
    400: "That cannot be asked",
    401: "Log in first",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    408: "Too slow",
    409: "Not now",
    413: "Too large",
    415: "Not a kind of file that is taken",
    422: "That cannot be asked",
    429: "Too many at once",
    500: "Something went wrong",
    503: "The registry cannot be used",
}
"""What people read above an error, where the standard's phrase would not help them."""

router = APIRouter(include_in_schema=False)
ROUTERS = (router, *(part.router for part in (writing, tasks, assets, map, experts, compare, jobs)))
"""All pages but those that take a login."""


def warm(registry: TaskRegistry) -> None:
    """Read ahead what the first reader would wait for: the tasks, their index, experts and results."""
    try:
        registry.experts()
        registry.results()
        for task in registry.find_tasks(limit=1).tasks:
            registry.nearest(task.name, k=1)
            registry.recommend(task.name, k=1)
    except RegistryError as err:  # readers will see it
        logging.getLogger("t2v.serve").info("nothing is read ahead: %s", err)


@router.get("/login")
def login(request: Request, next: str = "/") -> HTMLResponse:
    """The form that takes the token."""
    return login_page(request, next)


def login_page(request: Request, next: str = "/", *, problem: str = "", status: int = 200) -> HTMLResponse:
    """The form that takes the token, with what was wrong with the last one."""
    return render(request, "login.html", {"next": local_path(next), "problem": problem}, status=status)


def local_path(target: str) -> str:
    """Where to go after the login, if that is a page of this server; else the first one."""
    is_local = target.startswith("/") and not target.startswith("//") and "\\" not in target
    return target if is_local and target.isprintable() else "/"


def error_page(request: Request, status: int, message: str) -> HTMLResponse:
    """An error in one sentence, with what to do next."""
    title = TITLES.get(status) or HTTPStatus(status).phrase
    kind, close = getattr(request.state, "close_names", ("", ()))
    shown = {"status": status, "title": title, "message": message, "kind": kind, "close": close}
    return render(request, "error.html", shown, status=status)
