"""One shape for every error: JSON under ``/api``, a page elsewhere; the same status and sentence in both.

{"error": {"status": 404, "code": "not_found", "message": "one sentence", "details": []}}
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from registry.errors import NoRegistryError, NotFoundError, RegistryError, StorageError
from registry.options import in_fields, spelled
from registry.wording import printable

ErrorPage = Callable[[Request, int, str], Response]
LOG = logging.getLogger("t2v.serve")
API = "/api/"
MAX_DETAILS = 20
CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}
"""Every status of an error, with what the JSON calls it."""


class RefusedError(Exception):
    """A request that is answered by an error.

    Attributes:
        status: One of ``CODES``.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        super().__init__(message)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.status, self.message, self.headers)


class UnknownIdError(NotFoundError):
    """A random id that stands for nothing; close matches are not listed, as ids are secret."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name[:64], [])
        self.args = (f"there is no {kind} {name[:64]!r}; it never existed, was used up, or has expired",)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.kind, self.name)


def error_body(status: int, message: str, details: Sequence[Any] = ()) -> dict[str, Any]:
    """The JSON document of an error."""
    code = CODES.get(status, "error")
    return {"error": {"status": status, "code": code, "message": message, "details": list(details)}}


def status_of(error: RegistryError) -> int:
    """The status of an error of the registry."""
    if isinstance(error, LookupError | NoRegistryError):
        return 404
    if isinstance(error, StorageError):
        return 503
    return 400 if isinstance(error, ValueError) else 500


def is_api(path: str) -> bool:
    """Whether a path is for programs."""
    return path.startswith(API)


def answer(
    request: Request,
    status: int,
    message: str,
    details: Sequence[Any] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as the answer to a request: JSON, a page, or a redirect to the login."""
    sent = {**(headers or {}), "Cache-Control": "no-store"}
    message = printable(spelled(" ".join(message.split()), in_fields))
    if is_api(request.url.path):
        return JSONResponse(error_body(status, message, details), status, sent)
    if status == 401 and request.method in {"GET", "HEAD"}:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(here, safe='')}", 303, sent)
    return _page(request, status, message, sent)


def _page(request: Request, status: int, message: str, headers: Mapping[str, str]) -> Response:
    """The page of an error; a plain one where the pages themselves fail."""
    make: ErrorPage = request.app.state.error_page
    try:
        page = make(request, status, message)
    except Exception:
        LOG.exception("the page of an error could not be made")
        text = (
            f"<!doctype html><html lang=en><title>Error</title><h1>Error {status}</h1><p>{escape(message)}</p>"
        )
        page = HTMLResponse(text, status)
    page.headers.update(headers)
    return page


def install(app: FastAPI, error_page: ErrorPage) -> None:
    """Answer every error of an application in the one shape; unexpected ones are left to ``security``."""
    app.state.error_page = error_page
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RegistryError, _of_registry)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101
    return answer(request, error.status, error.message, headers=error.headers)


async def _of_registry(request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)  # noqa: S101
    if isinstance(error, NotFoundError) and error.kind in {"task", "expert"}:
        request.state.close_names = error.kind, error.close
    return answer(request, status_of(error), str(error))


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    headers = dict(error.headers or {})
    where = printable(request.url.path)
    message = {
        404: f"there is nothing at {where}; /api/v1/openapi.json lists what there is",
        405: f"{request.method} is not possible at {where}; allowed is {headers.get('Allow', 'GET')}",
        400: "the body of the request cannot be read; send what /api/v1/openapi.json says",
    }.get(error.status_code, str(error.detail))
    return answer(request, error.status_code, message, headers=headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    details = [
        {"where": _place(problem["loc"]), "message": _sentence(problem)}
        for problem in error.errors()[:MAX_DETAILS]
    ]
    first = details[0] if details else {"where": "request", "message": "is invalid"}
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return answer(request, 422, f"{first['where']}: {first['message']}{more}", details)


def _place(location: Sequence[Any]) -> str:
    """Where in the request something is wrong, such as ``query limit`` or ``body options.k``."""
    kind, *rest = (str(part) for part in location)
    return f"{kind} {'.'.join(rest)}" if rest else kind


def _sentence(problem: Mapping[str, Any]) -> str:
    """The message of pydantic, without what was sent, which may be a secret or endless."""
    text = str(problem.get("msg", "is invalid"))
    return text[:1].lower() + text[1:300]
