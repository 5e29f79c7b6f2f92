"""Logging in by a form, and out."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from registry.web.http.access import address_of, cookie_name
from registry.web.http.faults import RefusedError
from registry.web.http.sessions import SESSION_SECONDS
from registry.web.pages.pages import local_path, login_page

router = APIRouter(include_in_schema=False)


@router.post("/login")
def log_in(
    request: Request, token: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Take the token, and let the browser come back with a cookie; the same page says if it is wrong."""
    target = local_path(next)
    try:
        session = request.app.state.access.log_in(token, address_of(request))
    except RefusedError as error:
        page = login_page(request, target, problem=error.message, status=error.status)
        page.headers.update({**error.headers, "Cache-Control": "no-store"})
        return page
    answer = RedirectResponse(target, 303, {"Cache-Control": "no-store"})
    answer.set_cookie(
        cookie_name(request),
        session,
        max_age=int(SESSION_SECONDS),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Forget the session, and have the browser forget the cookie."""
    name = cookie_name(request)
    request.app.state.access.log_out(request.cookies.get(name, ""))
    answer = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
    answer.delete_cookie(name, secure=request.url.scheme == "https", httponly=True, samesite="strict")
    return answer
