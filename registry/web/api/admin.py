"""What admins do over HTTP: tokens, trust in what was imported, and a look at the settings."""

from typing import Annotated, Any, Literal

from fastapi import Path, Request, Response
from pydantic import Field

from registry.web.api import models
from registry.web.api.routes import ADMIN, JSON, Registry, answered, new_router
from registry.web.http.tokens import Tokens

router = new_router("admin")
NO_STORE = {"Cache-Control": "no-store"}


class NewToken(models.Body):
    """A token to be made."""

    name: str = Field(pattern=models.NAME, examples=["ci"])
    role: Literal["read", "write", "admin"] = Field(examples=["write"])
    expires_seconds: float | None = Field(None, gt=0, le=1e11, description="After which it ends; else never.")


class Token(models.Answer):
    """A token, without what is secret."""

    name: str = Field(examples=["ci"])
    role: str = Field(examples=["write"])
    state: str = Field(examples=["active"])
    created_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])
    created_by: str = Field(examples=["ada"])
    expires_at: str = Field(examples=[""])
    revoked_at: str = Field(examples=[""])
    revoked_by: str = Field(examples=[""])


class MadeToken(Token):
    """A token, and its text, which is given this once."""

    token: str = Field(examples=["t2v_..."])


class TokenList(models.Answer):
    """All tokens, those that ended too."""

    tokens: list[Token]


class ToTrust(models.Body):
    """What may be loaded from now on."""

    name: str = Field(min_length=1, max_length=4096, description="An expert, a space, or the imported file.")


class Origin(models.Answer):
    """Where an imported expert or space came from, and who trusted it."""

    kind: str = Field(examples=["expert"])
    name: str = Field(examples=["a.b"])
    at: str = Field(examples=["2026-01-31T12:00:00+00:00"])
    by: str = Field(examples=["ada"])
    file: str = Field(examples=["/data/theirs.t2v"])
    checksum: str = Field(examples=["7a9c"])
    loader: str = Field(examples=["their_code:network"])
    trusted_at: str = Field(examples=[""])
    trusted_by: str = Field(examples=[""])


class Origins(models.Answer):
    """What was imported."""

    origins: list[Origin]


class Settings(models.Answer):
    """How the server was started; another start changes it."""

    host: str = Field(examples=["127.0.0.1"])
    hosts: list[str] = Field(examples=[["registry.example.org"]])
    proxies: list[str] = Field(examples=[["127.0.0.1"]])
    roots: list[str] = Field(examples=[["/data"]])
    rate: float = Field(examples=[50.0])
    workers: int = Field(examples=[1])
    max_upload: int = Field(examples=[536870912])


@router.get("/tokens", dependencies=[ADMIN])
def list_tokens(request: Request, response: Response) -> TokenList:
    """All tokens, those that were revoked or have expired too; `t2v token list`."""
    response.headers.update(NO_STORE)
    return answered(TokenList, {"tokens": [token.shown() for token in _tokens(request).all()]})


@router.post("/tokens", dependencies=[ADMIN, JSON], status_code=201)
def add_token(new: NewToken, request: Request, response: Response, registry: Registry) -> MadeToken:
    """Make a token; its text is in this answer and nowhere else; `t2v token add`."""
    response.headers.update(NO_STORE)
    text, token = _tokens(request).add(new.name, new.role, new.expires_seconds)
    registry.note_token("add", new.name, role=new.role, expires_at=token.expires_at)
    return answered(MadeToken, {**token.shown(), "token": text})


@router.delete("/tokens/{name}", dependencies=[ADMIN], status_code=204)
def revoke_token(
    name: Annotated[str, Path(pattern=models.NAME, description="Name of an active token.", examples=["ci"])],
    request: Request,
    registry: Registry,
) -> None:
    """End a token for good, with its sessions and its jobs; `t2v token revoke`."""
    _tokens(request).revoke(name)
    registry.note_token("revoke", name)
    request.app.state.jobs.end_revoked()


@router.get("/trust", dependencies=[ADMIN])
def list_origins(registry: Registry) -> Origins:
    """Where imported experts and spaces came from; `t2v trust`."""
    return answered(Origins, {"origins": registry.origins()})


@router.post("/trust", dependencies=[ADMIN, JSON])
def trust(asked: ToTrust, registry: Registry) -> Origins:
    """Allow what was imported to be loaded, its code to be run; `t2v trust NAME`."""
    return answered(Origins, {"origins": registry.trust(asked.name)})


@router.get("/settings", dependencies=[ADMIN])
def get_settings(request: Request) -> Settings:
    """How the server was started; `t2v serve`."""
    settings: Any = request.app.state.settings
    shown = {name: getattr(settings, name) for name in ("host", "hosts", "proxies", "rate", "workers")}
    roots = [str(root) for root in settings.roots]
    return answered(Settings, {**shown, "roots": roots, "max_upload": settings.limits.upload_bytes})


def _tokens(request: Request) -> Tokens:
    tokens: Tokens = request.app.state.access.tokens
    return tokens
