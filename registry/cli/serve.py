"""The command that serves the registry to browsers and programs: serve."""

import importlib.util
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.options import Size, pass_registry
from registry.errors import InvalidQueryError, MissingExtraError, StorageError
from registry.faces import terminal

if TYPE_CHECKING:
    from registry.core import TaskRegistry
    from registry.web.http.settings import ServeSettings

NEEDED = ("fastapi", "uvicorn", "jinja2", "python_multipart")
SHORTEST_TOKEN = 16
TOKEN_VARIABLE = "T2V_TOKEN"
STATE_FOLDER = "serve"
GRACE_SECONDS = 3
FOLDER = click.Path(file_okay=False, path_type=Path)
LOOPBACK = "127.0.0.1"


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
    "--state",
    type=FOLDER,
    metavar="DIR",
    help="Where uploads and jobs are kept. [default: beside the registry, its name and .serve]",
)
@click.option("--max-upload", type=Size(), metavar="SIZE", help="Most bytes of an upload. [default: 512 MiB]")
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
    state: Path | None,
    max_upload: float | None,
    workers: int,
) -> None:
    """Serve pages for people, and the REST API, of the registry.

    Only this machine can reach it unless --host says otherwise. Reading needs no token then; writing, and
    reading from elsewhere, needs one. Stop it with Ctrl-C; running jobs are then interrupted.

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
        workers=workers,
        limits=replace(limits, upload_bytes=int(max_upload)) if max_upload else limits,
    )
    token = _given_token(token_file)
    if token is None and not settings.is_local:
        raise InvalidQueryError(
            f"other machines can reach {host}, so a token is needed that you know: put it into a file for "
            f"--token-file, or into ${TOKEN_VARIABLE}"
        )
    _run(replace(settings, token=token or secrets.token_urlsafe(32)), is_new=token is None)


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
    from registry.web.http.connections import FewProblems

    handler, few = logging.StreamHandler(sys.stderr), FewProblems()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    levels = {"t2v.serve": logging.INFO, "uvicorn.error": logging.WARNING, "asyncio": logging.WARNING}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        if name != "t2v.serve":
            logger.addFilter(few)
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
            f"{uri} is no folder of this machine; say with --state DIR where uploads and jobs are kept"
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
