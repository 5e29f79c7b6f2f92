"""The table of roles in docs/security-server.md, and the routes of a server."""

import re

from markdown_pages import ROOT

from registry.options import ROLES

PARTIES = ("nobody", *ROLES)


def documented() -> dict[tuple[str, str], dict[str, bool]]:
    """Requests in the table of docs/security-server.md, and who may send them."""
    page = (ROOT / "docs" / "security-server.md").read_text()
    rows = re.findall(r"^\|(.*)\| (yes|no) \| (yes|no) \| (yes|no) \| (yes|no) \|$", page, re.MULTILINE)
    return {
        request: dict(zip(PARTIES, (word == "yes" for word in words), strict=True))
        for requests, *words in rows
        for request in re.findall(r"`([A-Z]+) (/\S*)`", requests) or [("GET", "*")]
    }


def routes_of(app) -> set[tuple[str, str]]:
    """Every method and path of an application."""
    routes = [
        route
        for top in app.routes
        for route in (top.effective_route_contexts() if hasattr(top, "effective_route_contexts") else [top])
    ]
    return {
        (method, route.path.replace(":path}", "}"))
        for route in routes
        for method in (getattr(route, "methods", None) or {"GET"}) - {"HEAD"}
    }
