"""Static files: those asked for by the hash of their content may be kept for good."""

from typing import Any
from urllib.parse import parse_qs

from fastapi import Response
from fastapi.staticfiles import StaticFiles

from registry.web.pages.templating import STATIC, static_path

FOR_GOOD = "public, max-age=31536000, immutable"


class HashedFiles(StaticFiles):
    """The folders of static files: those of the pages, and those that pictures use too."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC, packages=[("registry.pictures", "static")])

    async def get_response(self, path: str, scope: Any) -> Response:
        """A file, with leave to keep it where the address names its content."""
        answer = await super().get_response(path, scope)
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("v")
        if answer.status_code == 200 and asked and static_path(path).endswith(f"?v={asked[0]}"):
            answer.headers["Cache-Control"] = FOR_GOOD
        return answer
