"""What the routes of the REST API share: documented errors, the token, pages and their links."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from registry.core import TaskRegistry
from registry.errors import NoRegistryError, StorageError
from registry.faces import documents
from registry.web.api.models import ErrorAnswer
from registry.web.http.access import demand
from registry.web.http.etags import fresh
from registry.web.http.faults import RefusedError
from registry.web.uploads.uploads import TYPES

Model = TypeVar("Model", bound=BaseModel)

PREFIX = "/api/v1"
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request was refused; the message says why."},
    "5XX": {"model": ErrorAnswer, "description": "The server or its registry cannot answer."},
}
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "The answer has the ETag of If-None-Match."}}
_bearer = HTTPBearer(
    auto_error=False, bearerFormat="opaque", description="The token that `t2v serve` prints, or was given."
)


Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _writer(request: Request, token: Bearer) -> None:
    demand(request, "write")
    if "at" in request.query_params:
        raise RefusedError(400, "what was can be read only; leave out at to write")


def _admin(request: Request, token: Bearer) -> None:
    demand(request, "admin")


def json_only(request: Request) -> None:
    """Refuse bodies that are not declared as JSON; other sites cannot make a browser send JSON unasked.

    Raises:
        RefusedError: If it is declared as something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, f"send the body as application/json; this came as {kind[:80] or 'nothing'}")


def registry_of(request: Request) -> TaskRegistry:
    """The registry that is served."""
    registry: TaskRegistry = request.app.state.registry
    return registry


def registry_at(
    request: Request,
    response: Response,
    at: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=64,
            description="Ask the registry as it was: after a write by its number, at a time such as "
            "2026-11-30T14:00, or so long ago, such as 2h or 3d; `t2v --at`.",
        ),
    ] = None,
) -> TaskRegistry:
    """The registry that is served, or as it was, which the header ``T2V-As-Of`` says in words.

    Raises:
        NoRegistryError: If there is no registry.
        RefusedError: If what was then is not kept.
    """
    registry = registry_of(request)
    if at is None:
        return registry
    try:
        past = registry.at(at)
    except NoRegistryError:
        raise
    except StorageError as error:
        raise RefusedError(404, str(error)) from error
    response.headers["T2V-As-Of"] = past.as_of
    return past


Registry = Annotated[TaskRegistry, Depends(registry_of)]
Then = Annotated[TaskRegistry, Depends(registry_at)]


def _reads(request: Request, response: Response, registry: Then) -> None:
    fresh(request, response, registry.version())


READS = Depends(_reads)
"""For routes that only read the registry: an answer is not sent again while the registry stays the same."""

WRITES = Depends(_writer)
"""For routes that change something; they need the role write."""

ADMIN = Depends(_admin)
"""For routes of admins."""

JSON = Depends(json_only)

FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
"""What a route takes that takes a file."""


def new_router(tag: str) -> APIRouter:
    """A router below ``/api/v1``, with the errors that any route may answer."""
    return APIRouter(prefix=PREFIX, tags=[tag], responses=ERRORS)


def known_task(registry: TaskRegistry, reference: str) -> str:
    """Check that a reference names a registered task, not data; ``NotFoundError`` if it names none."""
    if not registry.has_task(reference):
        registry.task(reference)  # raises an error with close matches
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
    rows: Mapping[str, Sequence[Any]],
    total: int,
    limit: int,
    offset: int,
) -> Model:
    """A page as JSON, with the addresses of the others in its ``Link`` header."""
    last = max(0, (total - 1) // limit * limit)
    others = {"first": 0, "prev": offset - limit, "next": offset + limit, "last": last}
    links = [
        f'<{_address(request, limit, start)}>; rel="{name}"'
        for name, start in others.items()
        if name in {"first", "last"} or 0 <= start < total
    ]
    response.headers["Link"] = ", ".join(links)
    return answered(model, {"total": total, "offset": offset, "limit": limit, **rows})


def _address(request: Request, limit: int, offset: int) -> str:
    kept = [
        (name, value) for name, value in request.query_params.multi_items() if name not in {"limit", "offset"}
    ]
    return f"{request.url.path}?{urlencode([*kept, ('limit', limit), ('offset', offset)])}"
