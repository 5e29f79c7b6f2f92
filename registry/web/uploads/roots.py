"""Paths on the server that may be given as data: below a root, wherever links lead.

A path is resolved before it is compared, and so is every link inside a folder. The process that reads the data
checks once more. Somebody who may write below a root can still change it while it is read.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from registry.errors import InvalidQueryError, NotFoundError
from registry.wording import printable

SUFFIXES = frozenset({".npz", ".tar"})
"""Endings of files that name no other files; a manifest could name any file of the server."""


def allowed_path(given: str, roots: Sequence[Path]) -> Path:
    """The path that was given, resolved, if it lies below one of the roots with all that is in it.

    Raises:
        InvalidQueryError: If it does not.
        NotFoundError: If there is nothing at that path.
    """
    shown = repr(printable(given[:300]))
    if not roots:
        raise InvalidQueryError(
            "this server takes no paths; upload the data, or start it with `t2v serve --allow-root DIR`"
        )
    if "\0" in given or not Path(given).is_absolute():
        raise InvalidQueryError(f"{shown} is no absolute path; write it out from the root of the file system")
    places = [root.resolve() for root in roots]
    try:
        path = Path(given).resolve()
    except (OSError, RuntimeError) as error:
        raise InvalidQueryError(f"{shown} leads nowhere") from error
    if not _is_below(path, places):  # before anything is said about what is there
        raise InvalidQueryError(
            f"{shown} is not below a folder that this server may read; allowed are {', '.join(map(str, roots))}"
        )
    _check_content(path, shown, places)
    return path


def _check_content(path: Path, shown: str, places: Sequence[Path]) -> None:
    """Check the kind of a path, and where the links in it lead.

    Raises:
        InvalidQueryError: If it is of another kind, or a link leads out of the roots.
        NotFoundError: If there is nothing at that path.
    """
    try:
        if path.is_dir():
            _check_links(path, places)
        elif path.is_file() and path.suffix.lower() not in SUFFIXES:
            raise InvalidQueryError(
                f"{shown} is no data that may be named here: give a folder of class folders, an .npz or a .tar"
            )
        elif not path.is_file():
            raise NotFoundError("data", printable(str(path)[:300]), [])
    except OSError as error:
        raise InvalidQueryError(f"{shown} cannot be read: {error.strerror}") from error


def _check_links(folder: Path, places: Sequence[Path]) -> None:
    """Check that no link in a folder leads out of the roots; ``InvalidQueryError`` if one does."""
    left = [str(folder)]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    if not _is_below(Path(entry.path).resolve(), places):
                        raise InvalidQueryError(
                            f"{printable(entry.path)!r} is a link that leads out of the folders that this "
                            "server may read; replace it by what it stands for"
                        )
                    if entry.is_dir():
                        raise InvalidQueryError(
                            f"{printable(entry.path)!r} is a link to a folder; give the folder itself"
                        )
                elif entry.is_dir():
                    left.append(entry.path)


def _is_below(path: Path, places: Sequence[Path]) -> bool:
    return any(path == place or place in path.parents for place in places)
