"""Static files and contact sheets: what is asked for by a hash of its content may be kept for good."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.staticfiles import StaticFiles

from registry.core import TaskRegistry
from registry.errors import NotFoundError
from registry.names import Key
from registry.web.pages.listings import link
from registry.web.pages.templating import STATIC, static_path

FOR_GOOD = "max-age=31536000, immutable"
router = APIRouter(include_in_schema=False)


class HashedFiles(StaticFiles):
    """The folders of static files: those of the pages, and those that pictures use too."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC, packages=[("registry.pictures", "static")])

    async def get_response(self, path: str, scope: Any) -> Response:
        """A file, with leave to keep it where the address names its content."""
        answer = await super().get_response(path, scope)
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("v")
        if answer.status_code == 200 and asked and static_path(path).endswith(f"?v={asked[0]}"):
            answer.headers["Cache-Control"] = f"public, {FOR_GOOD}"
        return answer


class Sheet(NamedTuple):
    """A contact sheet as a page shows it: where it is, what its columns of tiles show, how many rows it has."""

    address: str
    columns: tuple[str, ...]
    rows: int


@router.get("/tasks/{name}/sheet")
def task_sheet(
    request: Request, name: str, version: int | None = Query(None, ge=1), checksum: int | None = None
) -> Response:
    """The contact sheet of a task; for good where the address names its content.

    Raises:
        NotFoundError: If there is none.
    """
    registry: TaskRegistry = request.app.state.registry
    sheet = registry.sheet(name if version is None else f"{name}@{version}")
    if sheet is None:
        raise NotFoundError("contact sheet", name, ())
    tag = f'"{sheet.checksum:x}"'
    headers = {
        "ETag": tag,
        "Cache-Control": f"private, {FOR_GOOD}" if checksum == sheet.checksum else "private, no-cache",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(sheet.image, media_type="image/webp", headers=headers)


@router.get("/jobs/{job_id}/sheet")
def job_sheet(request: Request, job_id: str) -> Response:
    """The contact sheet of what a job embedded."""
    (image,) = request.app.state.jobs.vectors(job_id, "sheet")
    return Response(image.tobytes(), media_type="image/webp", headers={"Cache-Control": "no-store"})


def sheets_of(registry: TaskRegistry, names: Collection[str]) -> dict[Key, Sheet]:
    """The contact sheets of the versions of some tasks, by name and version."""
    return {
        (name, version): Sheet(
            link(f"/tasks/{name}/sheet", {"version": version, "checksum": checksum}), columns, rows
        )
        for (name, version), (columns, rows, checksum) in registry.sheet_layouts(set(names)).items()
    }


def sheet_of_job(jobs: Any, job_id: str) -> Sheet | None:
    """The contact sheet of what a job embedded, if it has one."""
    with suppress(NotFoundError):
        columns, rows = jobs.vectors(job_id, "columns", "rows")
        return Sheet(f"/jobs/{job_id}/sheet", tuple(columns.tolist()), int(rows))
    return None
