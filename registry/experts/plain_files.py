"""Files of text, JSON, YAML and CSV from anybody: of bounded size, and what is wrong is a sentence."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.errors import InvalidRecordError
from registry.experts.yaml_files import read_yaml

MAX_FILE_BYTES = 2**28


def read_bytes(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """A whole plain file; ``InvalidRecordError`` if it is none, too large, or cannot be read."""
    try:
        if not path.is_file():
            raise InvalidRecordError(f"{path}: is no file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as err:
        raise InvalidRecordError(f"{path}: cannot be read: {err.strerror or err}") from err
    if len(content) > most:
        raise InvalidRecordError(f"{path}: is larger than {most // 2**20} MiB")
    return content


def read_text(path: Path) -> str:
    """A whole text file; bytes that are not UTF-8 are replaced."""
    return read_bytes(path).decode("utf-8-sig", errors="replace")


def read_json(path: Path, most: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """An object of JSON; ``InvalidRecordError`` if it is none."""
    try:
        values = json.loads(read_bytes(path, most).decode("utf-8-sig", errors="replace"))
    except (ValueError, RecursionError) as err:
        raise InvalidRecordError(f"{path}: holds no JSON object: {err}") from err
    if not isinstance(values, dict):
        raise InvalidRecordError(f"{path}: holds no JSON object")
    return values


def read_settings(*paths: Path) -> dict[str, Any]:
    """The values of the first YAML file that is there, as texts; none without one.

    Raises:
        InvalidRecordError: If it is not YAML, or has no names with values.
    """
    path = next((path for path in paths if path.is_file()), None)
    values = read_yaml(path, read_text(path), texts=True) if path else {}
    if values and not isinstance(values, dict):
        raise InvalidRecordError(f"{path}: must be names with values")
    return values or {}


def read_rows(path: Path, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Rows of a CSV file by its header, cells stripped; ``InvalidRecordError`` if it is no CSV."""
    try:
        lines = read_text(path).splitlines(keepends=True)
        for row in csv.DictReader(lines, restval="", delimiter=delimiter):
            yield {str(key).strip(): cell.strip() for key, cell in row.items() if isinstance(cell, str)}
    except csv.Error as err:
        raise InvalidRecordError(f"{path}: cannot be read as CSV: {err}") from err
