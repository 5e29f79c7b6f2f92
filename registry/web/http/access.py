"""Who a request is from: the holder of a token, by its header or the cookie of a login; and what they may."""

import hmac
from typing import Any

from fastapi import Request

from registry.errors import StorageError
from registry.web.http.faults import RefusedError
from registry.web.http.sessions import Sessions, Throttle, client_of
from registry.web.http.settings import ServeSettings
from registry.web.http.tokens import ACTOR, SINGLE, Token, Tokens, digest_of

BEARER = {"WWW-Authenticate": "Bearer"}


class Access:
    """The tokens and sessions of one server; threads may share it."""

    def __init__(self, settings: ServeSettings) -> None:
        self.tokens = Tokens(settings.state)
        self._sessions, self._throttle = Sessions(), Throttle()
        self._single = Token(SINGLE, "admin", digest_of(settings.token), "", "") if settings.token else None

    def check(self, given: str, client: str) -> Token:
        """The token that somebody gave, compared in a time that reveals nothing.

        A named one is 256 random bits, which nobody guesses, so it is taken however often its client has
        guessed at others; nobody can lock out its holder.

        Raises:
            RefusedError: If it is wrong or not active, or the client has guessed too often.
        """
        digest = digest_of(given)
        named = self._named(digest)
        if named and named.state != "active":
            raise RefusedError(401, f"the token {named.name} is {named.state}; ask for another one", BEARER)
        if named:
            return named
        if seconds := self._throttle.seconds_to_wait(client):
            wait = str(int(seconds) + 1)
            raise RefusedError(
                429, f"too many wrong tokens; try again in {wait} seconds", {"Retry-After": wait}
            )
        if self._single is None or not hmac.compare_digest(digest, self._single.digest):
            self._throttle.failed(client, given)
            raise RefusedError(
                401,
                "this is not the token of this server; `t2v serve` prints it when it starts, or reads it from "
                "--token-file or $T2V_TOKEN, and `t2v token add` makes further ones",
                BEARER,
            )
        return self._single

    def _named(self, digest: str) -> Token | None:
        """The named token of a digest, whatever its state; ``RefusedError`` if the tokens cannot be read."""
        try:
            return self.tokens.of(digest)
        except StorageError as error:
            raise RefusedError(503, str(error)) from error

    def by_header(self, request: Request) -> Token | None:
        """The token that came with a request, if any; ``RefusedError`` if it is wrong, or too many were."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":  # other schemes are meant for a proxy in front of this server
            return None
        return self.check(given.strip(), address_of(request))

    def by_cookie(self, request: Request) -> Token | None:
        """The token with which somebody logged in, if it still is one."""
        digest = self._sessions.digest(request.cookies.get(cookie_name(request), ""))
        if self._single and self._single.digest == digest:
            return self._single
        named = self._named(digest) if digest else None
        return named if named and named.may("read") else None

    def log_in(self, given: str, client: str) -> str:
        """Open a session."""
        return self._sessions.open(self.check(given, client).digest)

    def log_out(self, session: str) -> None:
        """End a session."""
        self._sessions.close(session)


class NotLoggedInError(RefusedError):
    """A request that needs a token came without one."""

    def __init__(self) -> None:
        super().__init__(
            401,
            "this needs a token of the server; send it as Authorization: Bearer TOKEN, or log in at /login",
            BEARER,
        )

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Rebuild from nothing."""
        return type(self), ()


def may(request: Request, role: str) -> bool:
    """Whether a request may do what a role may."""
    holder: Token | None = getattr(request.state, "holder", None)
    return holder is not None and holder.may(role)


def demand(request: Request, role: str) -> None:
    """Refuse those who may not do what a role may.

    Raises:
        NotLoggedInError: If the request came without a token.
        RefusedError: If it came with one of a lesser role.
    """
    if may(request, role):
        return
    if request.state.holder is None:
        raise NotLoggedInError
    holder = request.state.holder
    raise RefusedError(
        403, f"this needs a token of the role {role}, and the token {holder.name} is of the role {holder.role}"
    )


def actor_of(request: Request) -> str:
    """Who the audit says a request is from; empty for the single token, which is of the server's user."""
    holder: Token | None = getattr(request.state, "holder", None)
    return f"{ACTOR}{holder.name}" if holder and holder.name != SINGLE else ""


def cookie_name(request: Request) -> str:
    """The name of the session cookie; it has the port, as the ports of one host share cookies."""
    server = request.scope.get("server") or ("", 0)
    return f"t2v_session_{server[1] or 0}"


def address_of(request: Request) -> str:
    """Whom a request comes from, as far as the connection or a proxy that was named says."""
    return client_of(request.client.host if request.client else "")
