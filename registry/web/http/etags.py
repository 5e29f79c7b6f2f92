"""Conditional GET: what a reader has already is not sent again while the registry stays as it is."""

import hashlib
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response

_PACKAGE = version("task2vec-registry")


class UnchangedError(Exception):
    """What was asked for is what the reader has; answered by 304, with this tag."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        super().__init__(tag)


def install(app: FastAPI) -> None:
    """Answer ``UnchangedError`` by 304."""

    async def unchanged(request: Request, error: Exception) -> Response:
        return Response(status_code=304, headers={"ETag": getattr(error, "tag", "")})

    app.add_exception_handler(UnchangedError, unchanged)


def tag_of(request: Request, *more: Any) -> str:
    """The tag of an answer: of the address, the state of the registry, this version, and who asks.

    Args:
        request: That is answered.
        *more: What else the answer depends on.
    """
    state = request.app.state.registry.version()
    query = request.scope.get("query_string", b"").decode("latin-1")
    said = (_PACKAGE, request.url.path, query, state, request.state.may_write, *more)
    return f'W/"{hashlib.blake2b(repr(said).encode(), digest_size=12).hexdigest()}"'


def fresh(request: Request, response: Response) -> None:
    """Tag the answer, unless it is what the reader has; a dependency of routes that only read the registry.

    The tag is taken before the answer is made: of a write in between, the next request learns.

    Raises:
        UnchangedError: If it is.
    """
    tag = tag_of(request)
    known = {it.strip() for it in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, tag.removeprefix("W/"), "*"}:
        raise UnchangedError(tag)
    response.headers["ETag"] = tag
