"""What the routes of the REST API share: errors that may come, who may write, pages and their links."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from registry.core import TaskRegistry
from registry.faces import documents
from registry.web.api.models import ErrorAnswer
from registry.web.http.etags import fresh
from registry.web.http.faults import RefusedError
from registry.web.http.security import demand_writer

Model = TypeVar("Model", bound=BaseModel)

PREFIX = "/api/v1"
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request was refused; the message says why."},
    "5XX": {"model": ErrorAnswer, "description": "The server or its registry cannot answer."},
}
UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "What was asked for has the ETag of If-None-Match."}
}
_bearer = HTTPBearer(
    auto_error=False, bearerFormat="opaque", description="The token that `t2v serve` prints, or was given."
)


def _writer(request: Request, token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    demand_writer(request)


def json_only(request: Request) -> None:
    """Let only bodies on that are said to be JSON; other sites cannot have a browser send these unasked.

    Raises:
        RefusedError: If it is said to be something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, f"send the body as application/json; this came as {kind[:80] or 'nothing'}")


READS = Depends(fresh)
"""For routes that only read the registry: their answers are not sent again while it stays as it is."""

WRITES = Depends(_writer)
"""For routes that change something."""

JSON = Depends(json_only)


def new_router(tag: str) -> APIRouter:
    """A router below ``/api/v1``, with the errors that any route may answer."""
    return APIRouter(prefix=PREFIX, tags=[tag], responses=ERRORS)


def registry_of(request: Request) -> TaskRegistry:
    """The registry that is served."""
    registry: TaskRegistry = request.app.state.registry
    return registry


Registry = Annotated[TaskRegistry, Depends(registry_of)]


def known_task(registry: TaskRegistry, reference: str) -> str:
    """A reference that names a registered task, so that a question about it embeds nothing.

    Raises:
        NotFoundError: If it names none.
    """
    if not registry.has_task(reference):
        registry.task(reference)  # says what is known instead
    return reference


def example(status: int, document: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The example of an answer that is a dataclass of the registry, for the OpenAPI document."""
    return {status: {"content": {"application/json": {"example": document}}}}


def answered(model: type[Model], document: Any) -> Model:
    """The document of the command line, which the model of the route checks and describes."""
    return model.model_validate(documents.to_values(document))


def paged(
    model: type[Model],
    request: Request,
    response: Response,
    found: Mapping[str, Sequence[Any]],
    total: int,
    limit: int,
    offset: int,
) -> Model:
    """A page as JSON, with the addresses of the others in its ``Link`` header.

    Args:
        model: Of the page.
        request: That is answered.
        response: Its answer.
        found: The rows of this page, under their name.
        total: How many there are.
        limit: Most of a page.
        offset: How many come before this page.
    """
    last = max(0, (total - 1) // limit * limit)
    others = {"first": 0, "prev": offset - limit, "next": offset + limit, "last": last}
    links = [
        f'<{_address(request, limit, start)}>; rel="{name}"'
        for name, start in others.items()
        if name in {"first", "last"} or 0 <= start < total
    ]
    response.headers["Link"] = ", ".join(links)
    return answered(model, {"total": total, "offset": offset, "limit": limit, **found})


def _address(request: Request, limit: int, offset: int) -> str:
    kept = [
        (name, value) for name, value in request.query_params.multi_items() if name not in {"limit", "offset"}
    ]
    return f"{request.url.path}?{urlencode([*kept, ('limit', limit), ('offset', offset)])}"
