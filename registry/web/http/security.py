"""What every request goes through: checks of host, origin, token and size; and a line in the log.

``request.state.holder``, the token, is set here. A reader of a server that only this machine can reach needs
none; everything else does: as ``Authorization: Bearer TOKEN``, or by the cookie of a login. What a token may is
asked by the routes.
"""

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.storage.rows import acting_as
from registry.web.http import faults
from registry.web.http.access import Access, NotLoggedInError, actor_of, address_of
from registry.web.http.faults import RefusedError
from registry.web.http.settings import ServeSettings
from registry.web.http.shares import Share, Shares
from registry.web.http.tokens import Token
from registry.wording import INTERNAL, printable

LOG = logging.getLogger("t2v.serve")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = ("/login", "/logout", "/static/")
"""Paths that are open to everybody, on a server that other machines can reach."""

UPLOADS = "/api/v1/uploads"
OTHER_SITE = "this was sent by another site; send it from a page of this server"
MAX_BODY_BYTES = 2**20
FORM_BYTES = 2**16
"""Bytes that a form may add to the file in it."""

AHEAD_BYTES, AHEAD_SECONDS = 2**16, 30.0
"""Of a body that are there, in so long, before anything is done: who sends it slowly costs next to nothing."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send forms as of origin null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SECRET_PART = re.compile(r"(?<=/jobs/)[^/]+|(?<=/uploads/)[^/]+")


class Guard:
    """The outermost layer of the application."""

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, access: Access, note: Callable[[str, str], None]
    ) -> None:
        self._app = app
        self._settings = settings
        self._access = access
        self._hosts = allowed_hosts(settings)
        self._shares = Shares(settings.rate, note)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, started = Request(scope), time.perf_counter()
        reply = _Reply(send)
        try:
            self._check(request)
            holder: Token | None = request.state.holder
            share = self._shares.open(
                holder.name if holder else address_of(request), is_token=holder is not None
            )
            try:
                await self._take_turn(share, request, receive, reply)
            finally:
                share.open -= 1
        except RefusedError as error:
            refusal = faults.answer(request, error.status, error.message, headers=error.headers)
            await refusal(scope, receive, reply)
        except Exception:
            LOG.exception("%s %s failed", request.method, path_for_log(request.url.path))
            if not reply.status:
                await faults.answer(request, 500, INTERNAL)(scope, receive, reply)
        finally:
            seconds = time.perf_counter() - started
            where = path_for_log(request.url.path)
            line = printable(request.method), where, reply.status or "-", seconds * 1e3
            LOG.info("%s %s %s %.1f ms", *line, extra={"no_success": not 0 < reply.status < 400})

    async def _take_turn(self, share: Share, request: Request, receive: Receive, reply: "_Reply") -> None:
        """Answer a request once its body is there and its holder has few others that are being answered."""
        scope = request.scope
        # HEAD is answered as GET: routes know no other way, and the server sends no body.
        answered = {**scope, "method": "GET"} if request.method == "HEAD" else scope
        body = _Bounded(receive, request, self._settings)
        if request.url.path != UPLOADS:  # which has a clock of its own, and whose time is spent on sending
            if not await body.ahead():
                return
            await share.turns.acquire()
            reply.on_start = share.turns.release  # sending for long, such as events of a job, is free
        try:
            with acting_as(actor_of(request)):
                await self._app(answered, body, reply)
        finally:
            reply.begin()

    def _check(self, request: Request) -> None:
        """Whether a request may be answered; sets ``request.state.holder``.

        Raises:
            NotLoggedInError: If it needs a token.
            RefusedError: If it may not for another reason.
        """
        request.state.holder = None
        self._check_host(request.headers.get("host", ""))
        check_site(request)
        by_header, by_cookie = self._access.by_header(request), self._access.by_cookie(request)
        if request.method not in SAFE_METHODS and not by_header:
            check_origin(request, is_required=by_cookie is not None)
        request.state.holder = holder = by_header or by_cookie
        if not (holder or self._settings.is_local or request.url.path.startswith(OPEN_PATHS)):
            raise NotLoggedInError

    def _check_host(self, host: str) -> None:
        """Refuse host names that are not ours, by a ``RefusedError``: another site may point its name here."""
        name = host_name(host)
        if name in self._hosts or (not self._settings.is_local and _is_address(name)):
            return
        raise RefusedError(
            400,
            f"this server does not answer to the host {printable(host[:100])!r}; reach it as "
            f"{' or '.join(sorted(self._hosts))}, or start it with --allow-host",
        )


def check_site(request: Request) -> None:
    """Refuse what a page of another site loads, even for reading; links to pages are allowed.

    Raises:
        RefusedError: If it is such a request; browsers say so.
    """
    site, mode = (request.headers.get(f"sec-fetch-{name}") for name in ("site", "mode"))
    is_link = mode == "navigate" and request.method in SAFE_METHODS and not faults.is_api(request.url.path)
    if site in {"cross-site", "same-site"} and not is_link:
        raise RefusedError(403, OTHER_SITE)


def check_origin(request: Request, *, is_required: bool) -> None:
    """Refuse what another site made a browser send.

    Args:
        request: A request that would change something.
        is_required: Whether the browser must say where the request comes from, since it sent a cookie.

    Raises:
        RefusedError: If it comes from elsewhere.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin is None:
        is_ours = not is_required
    else:
        is_ours = site in {None, "same-origin"} and (
            origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
        )
    if not is_ours:
        raise RefusedError(403, OTHER_SITE)


def allowed_hosts(settings: ServeSettings) -> frozenset[str]:
    """Names that a request may call this server by."""
    if settings.is_local:
        return _LOCAL_NAMES | frozenset(map(host_name, settings.hosts))
    own = {settings.host.lower(), socket.gethostname().lower()} - {"0.0.0.0", "::", ""}
    return _LOCAL_NAMES | own | frozenset(map(host_name, settings.hosts))


def host_name(host: str) -> str:
    """The name in a Host header, in lower case, without port and brackets; empty if it is none."""
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", host.lower())
    return match[1].strip("[]").rstrip(".") if match else ""


def path_for_log(path: str) -> str:
    """A path for the log: secret ids are left out, and control characters spelled out."""
    return printable(_SECRET_PART.sub("...", path))[:500]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Reply:
    """Sends an answer with the headers that all answers have, and knows its status once it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.on_start: Callable[[], None] | None = None

    def begin(self) -> None:
        """Note, once, that the answer is made."""
        on_start, self.on_start = self.on_start, None
        if on_start is not None:
            on_start()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.begin()
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "private, no-cache")
        await self._send(message)


class _Bounded:
    """Receives a body, up to the most bytes that are allowed."""

    def __init__(self, receive: Receive, request: Request, settings: ServeSettings) -> None:
        """Choose the limit of this request; ``RefusedError`` if the request announces more."""
        is_upload = request.url.path == UPLOADS
        self._most = settings.limits.upload_bytes + FORM_BYTES if is_upload else MAX_BODY_BYTES
        self._receive = receive
        self._received = 0
        self._ahead = deque[Message]()
        announced = Headers(scope=request.scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._most:
            raise self._too_large(RefusedError)

    async def ahead(self) -> bool:
        """Wait for the body, or the beginning of a long one; whether the client is still there.

        Raises:
            RefusedError: If it takes too long.
        """
        size, more = 0, True
        try:
            async with asyncio.timeout(AHEAD_SECONDS):
                while more and size < AHEAD_BYTES:
                    self._ahead.append(await self._receive())
                    size += len(self._ahead[-1].get("body", b""))
                    more = self._ahead[-1].get("more_body", False)
        except TimeoutError:
            raise RefusedError(
                408, f"the body did not come within {AHEAD_SECONDS:g} s; send it again"
            ) from None
        return bool(self._ahead[-1]["type"] != "http.disconnect")

    async def __call__(self) -> Message:
        """The next part of the body.

        Raises:
            HTTPException: If it is too large by now.
        """
        message = self._ahead.popleft() if self._ahead else await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._most:
            raise self._too_large(HTTPException)  # the one that FastAPI lets through where it reads a body
        return message

    def _too_large(self, kind: type[RefusedError] | type[HTTPException]) -> Exception:
        return kind(
            413, f"the body is larger than {self._most:,} bytes, the most that is taken here; send less"
        )
