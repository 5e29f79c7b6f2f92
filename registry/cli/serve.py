"""The commands that serve the registry to browsers and programs, and say who may use that: serve, token."""

import importlib.util
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.main import pass_registry
from registry.cli.options import Duration, Size, json_option
from registry.errors import InvalidQueryError, MissingExtraError, StorageError
from registry.faces import documents, terminal
from registry.options import ROLES

if TYPE_CHECKING:
    from registry.core import TaskRegistry
    from registry.web.http.settings import ServeSettings
    from registry.web.http.tokens import Tokens

NEEDED = ("fastapi", "uvicorn", "jinja2", "python_multipart")
SHORTEST_TOKEN = 16
TOKEN_VARIABLE = "T2V_TOKEN"
STATE_FOLDER = "serve"
GRACE_SECONDS = 3
FOLDER = click.Path(file_okay=False, path_type=Path)
LOOPBACK = "127.0.0.1"
state_option = click.option(
    "--state",
    type=FOLDER,
    metavar="DIR",
    help="Where uploads, jobs and tokens are kept. [default: beside the registry, its name and .serve]",
)


@click.command()
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for any that is free.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read the token from this file. [default: $T2V_TOKEN, or a new one that is printed]",
)
@click.option(
    "--allow-root",
    "roots",
    type=FOLDER,
    multiple=True,
    metavar="DIR",
    help="Take data below this folder by its path; may be repeated.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Answer to this host name too, such as that of a reverse proxy; may be repeated.",
)
@click.option(
    "--proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Believe what a reverse proxy at this address says of its clients; may be repeated.",
)
@state_option
@click.option("--max-upload", type=Size(), metavar="SIZE", help="Most bytes of an upload. [default: 512 MiB]")
@click.option(
    "--rate",
    type=click.IntRange(0, 10**6),
    default=50,
    show_default=True,
    help="Requests a second that one token, or one address without one, may send; 0 for any number.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Jobs that run at once."
)
@pass_registry
def serve(
    registry: "TaskRegistry",
    /,
    host: str,
    port: int,
    token_file: Path | None,
    roots: tuple[Path, ...],
    hosts: tuple[str, ...],
    proxies: tuple[str, ...],
    state: Path | None,
    max_upload: float | None,
    rate: int,
    workers: int,
) -> None:
    """Serve pages for people, and the REST API, of the registry.

    Only this machine can reach it unless --host says otherwise. Reading needs no token then; writing, and
    reading from elsewhere, needs one: the one of --token-file or $T2V_TOKEN, which may do everything, or one of
    `t2v token add`. Stop it with Ctrl-C; running jobs are then interrupted.

    \b
    Example:
      t2v serve
      t2v serve --port 9000 --allow-root /data
      T2V_TOKEN=$(cat token) t2v serve --host 0.0.0.0 --allow-host registry.example.org
    """
    for library in NEEDED:
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError("t2v serve", library, "web")
    from dataclasses import replace

    if registry.as_of:
        raise click.UsageError("serve answers as of now; leave out --at")
    from registry.web.http.settings import ServeSettings, UploadLimits

    limits = UploadLimits()
    settings = ServeSettings(
        uri=registry.uri,
        token="",
        state=_state_folder(registry.uri, state),
        host=host,
        port=port,
        builtin=registry.builtin,
        roots=tuple(map(_existing, roots)),
        hosts=hosts,
        proxies=tuple(map(_address, proxies)),
        rate=rate,
        workers=workers,
        limits=replace(limits, upload_bytes=int(max_upload)) if max_upload else limits,
    )
    token = _given_token(token_file)
    named = [one.name for one in _tokens(registry, state).all() if one.state == "active"]
    if token is None and not settings.is_local and not named:
        raise InvalidQueryError(
            f"other machines can reach {host}, so a token is needed that you know: make one with `t2v token "
            f"add`, or put one into a file for --token-file, or into ${TOKEN_VARIABLE}"
        )
    is_new = token is None and settings.is_local
    _run(replace(settings, token=secrets.token_urlsafe(32) if is_new else token or ""), is_new=is_new)


@click.group()
def token() -> None:
    """Let others use the server: make tokens, list them, revoke them.

    A token is of a role: read asks questions; write also adds, uploads, tags and removes; admin also purges,
    trusts what was imported, and makes tokens. Only `t2v serve` asks for tokens: the command line and Python
    may do what the permissions of files allow.
    """


@token.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES)), required=True, help="What it is for.")
@click.option("--expires", type=Duration(), metavar="TIME", help="When it ends, such as 30d. [default: never]")
@state_option
@json_option
@pass_registry
def add_token(
    registry: "TaskRegistry", /, name: str, role: str, expires: float | None, state: Path | None, as_json: bool
) -> None:
    """Make a token, and print it, once.

    Only its hash is kept. A server that runs takes it at once. Pass on what is printed: it is sent as
    `Authorization: Bearer TOKEN`, or typed at /login.

    \b
    Example:
      t2v token add ada --role read
      t2v token add ci --role write --expires 30d
    """
    text, made = _tokens(registry, state).add(name, role, expires)
    registry.note_token("add", name, role=role, expires_at=made.expires_at)
    click.echo(documents.to_text({**made.shown(), "token": text}) if as_json else text)
    if not as_json:
        until = f" until {made.expires_at[:16]} UTC" if made.expires_at else ""
        terminal.message(f"Token {name} of the role {role}{until}; it is not shown again.")


@token.command("list")
@state_option
@json_option
@pass_registry
def list_tokens(registry: "TaskRegistry", state: Path | None, as_json: bool) -> None:
    """List all tokens, those that were revoked or have expired too.

    \b
    Example:
      t2v token list
    """
    tokens = [one.shown() for one in _tokens(registry, state).all()]
    if as_json:
        click.echo(documents.to_text(tokens))
    elif tokens:
        columns = (
            "name", "role", "state", "created_at", "created_by", "expires_at", "revoked_at", "revoked_by",
        )  # fmt: skip
        rows = [[one[name][:16] if name.endswith("_at") else one[name] for name in columns] for one in tokens]
        terminal.table([name.replace("_", " ") for name in columns], rows)
    else:
        terminal.message("No token was made; `t2v token add` makes one.")


@token.command("revoke")
@click.argument("name")
@state_option
@pass_registry
def revoke_token(registry: "TaskRegistry", /, name: str, state: Path | None) -> None:
    """End a token for good, at once, and the logins with it.

    \b
    Example:
      t2v token revoke ci
    """
    _tokens(registry, state).revoke(name)
    registry.note_token("revoke", name)
    terminal.message(f"Revoked {name}.")


def _tokens(registry: "TaskRegistry", state: Path | None) -> "Tokens":
    """The named tokens of the server of a registry."""
    from registry.web.http.tokens import Tokens

    return Tokens(_state_folder(registry.uri, state))


def _address(text: str) -> str:
    """An address of a proxy.

    Raises:
        InvalidQueryError: If it is none.
    """
    import ipaddress

    try:
        return str(ipaddress.ip_network(text, strict=False) if "/" in text else ipaddress.ip_address(text))
    except ValueError:
        raise InvalidQueryError(
            f"--proxy {text}: that is no address; write one such as 127.0.0.1 or 10.0.0.0/8"
        ) from None


def _run(settings: "ServeSettings", *, is_new: bool) -> None:
    """Listen, and serve until somebody ends it."""
    from registry.web.serving import Serving

    serving = Serving(settings)
    _log_to_stderr()
    terminal.message(f"Serving {settings.uri} at {serving.url} (Ctrl-C stops it).")
    if is_new:
        terminal.message(f"Token for writing, until the server stops: {settings.token}")
    serving.run(grace_seconds=GRACE_SECONDS)
    terminal.message("Stopped.")


def _log_to_stderr() -> None:
    """Log a line for each request and for each problem; the token is in none."""
    from registry.web.http.connections import MOST_REFUSED, FewProblems

    handler, few, refused = logging.StreamHandler(sys.stderr), FewProblems(), FewProblems(MOST_REFUSED)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    levels = {"t2v.serve": logging.INFO, "uvicorn.error": logging.WARNING, "asyncio": logging.WARNING}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.addFilter(refused if name == "t2v.serve" else few)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False


def _given_token(path: Path | None) -> str | None:
    """The token that a user chose, if one did.

    Raises:
        StorageError: If the file cannot be read.
        InvalidQueryError: If it is too short to be one.
    """
    if path is not None:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"{path}: the token cannot be read: {error}") from error
        where = str(path)
    else:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        where = f"${TOKEN_VARIABLE}"
        if not token:
            return None
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidQueryError(
            f"the token in {where} must be {SHORTEST_TOKEN} or more printable ASCII characters without spaces; "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` makes one"
        )
    return token


def _state_folder(uri: str, state: Path | None) -> Path:
    """Where uploads and jobs are kept.

    Raises:
        InvalidQueryError: If it has to be given and was not.
    """
    if state is not None:
        return state.absolute()
    if "://" in uri:
        raise InvalidQueryError(
            f"{uri} is no folder of this machine; say with --state DIR where uploads, jobs and tokens are kept"
        )
    return Path(f"{Path(uri).absolute()}.{STATE_FOLDER}")


def _existing(root: Path) -> Path:
    """A root that is there.

    Raises:
        InvalidQueryError: If it is not.
    """
    if not root.is_dir():
        raise InvalidQueryError(f"--allow-root {root}: there is no such folder")
    return root.resolve()
