"""Conditional GET: answers are not sent again to a reader who has them, while the registry stays the same."""

import hashlib
from importlib.metadata import version

from fastapi import FastAPI, Request, Response

_PACKAGE = version("task2vec-registry")


class UnchangedError(Exception):
    """The reader has the answer already; becomes a 304 with this tag."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        super().__init__(tag)


def install(app: FastAPI) -> None:
    """Answer ``UnchangedError`` by 304."""

    async def unchanged(request: Request, error: Exception) -> Response:
        return Response(status_code=304, headers={"ETag": getattr(error, "tag", "")})

    app.add_exception_handler(UnchangedError, unchanged)


def tag_of(request: Request, state: str) -> str:
    """The tag of an answer, from the address, the state of the registry, this version, and who reads."""
    query = request.scope.get("query_string", b"").decode("latin-1")
    parts = (_PACKAGE, request.url.path, query, state, request.state.holder)
    return f'W/"{hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()}"'


def fresh(request: Request, response: Response, state: str) -> None:
    """Tag the answer that is made of a state of the registry, unless the reader has it.

    The tag is taken before the answer is made: a write in between shows in the next request.

    Raises:
        UnchangedError: If the reader has it.
    """
    tag = tag_of(request, state)
    held = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if held & {tag, tag.removeprefix("W/"), "*"}:
        raise UnchangedError(tag)
    response.headers["ETag"] = tag
