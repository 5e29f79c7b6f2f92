"""The pages for people: each asks one or two methods of ``TaskRegistry`` and fills a template."""

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(directory=Path(__file__).parent / "templates")


@router.get("/")
def tasks(request: Request) -> HTMLResponse:
    """All tasks."""
    registry = request.app.state.registry
    return templates.TemplateResponse(request, "tasks.html", {"tasks": registry.tasks()})
