"""Writes a picture to the file that is named: an HTML page, PNG or SVG, as its ending says."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import InvalidQueryError, MissingExtraError, StorageError
from registry.pictures import images, pages

if TYPE_CHECKING:
    from registry.map_answers import Clustering, LayerProfile, TaskMap

HTML = ".html"
FORMATS = (HTML, ".png", ".svg")


def check_path(path: Path) -> None:
    """Check before the work that a picture can be written there.

    Raises:
        InvalidQueryError: If the ending is of no picture, or the folder is missing.
        MissingExtraError: If what draws it is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidQueryError(f"{path}: a picture ends in .html, .png or .svg; name such a file")
    if not path.absolute().parent.is_dir():
        raise InvalidQueryError(f"{path}: there is no folder {path.parent}; make it first")
    if path.suffix.lower() != HTML and find_spec("matplotlib") is None:
        raise MissingExtraError(f"a picture as {path.suffix.lower()}", "matplotlib", "plot")


def write_map(
    path: Path,
    shown: "TaskMap",
    *,
    colour: str = "cluster",
    clustering: "Clustering | None" = None,
    theme: str | None = None,
) -> None:
    """Write a map of tasks.

    Raises:
        InvalidQueryError: If the ending is of no picture, or the folder is missing.
        MissingExtraError: If what draws it is not installed.
        StorageError: If the file cannot be written.
    """
    check_path(path)
    if path.suffix.lower() == HTML:
        _write(path, pages.map_page(shown, colour, clustering, theme))
    else:
        images.save_map(shown, path, colour, clustering, theme)


def write_matrix(path: Path, clustering: "Clustering", theme: str | None = None) -> None:
    """Write the distances of a clustering in the order of its tree.

    Raises:
        InvalidQueryError: If the ending is of no picture, the folder is missing, or the tasks are too many.
        MissingExtraError: If what draws it is not installed.
        StorageError: If the file cannot be written.
    """
    check_path(path)
    if path.suffix.lower() == HTML:
        _write(path, pages.matrix_page(clustering, theme))
    else:
        images.save_matrix(clustering, path, theme)


def write_profile(path: Path, profile: "LayerProfile", theme: str | None = None) -> None:
    """Write two tasks layer by layer.

    Raises:
        InvalidQueryError: If the ending is of no picture, or the folder is missing.
        MissingExtraError: If what draws it is not installed.
        StorageError: If the file cannot be written.
    """
    check_path(path)
    if path.suffix.lower() == HTML:
        _write(path, pages.profile_page(profile, theme))
    else:
        images.save_profile(profile, path, theme)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
