"""YAML that anybody may have written, read into plain values. The one door to PyYAML.

Deep nesting, and aliases, by which a few lines grow without bound, are refused before anything is built.
"""

from pathlib import Path
from typing import Any

from registry.errors import InvalidRecordError, MissingExtraError

MAX_DEPTH = 64


def read_yaml(path: Path, text: str, what: str = "it", *, texts: bool = False) -> Any:
    """What YAML stands for, in plain values.

    Args:
        path: Where it is from.
        text: The YAML.
        what: What it is of the file, for messages.
        texts: Every value as the text that stands there, whatever its tag; aliases, as programs write them
            for values that two names share, are followed.

    Raises:
        InvalidRecordError: If it is none, or could grow without bound.
        MissingExtraError: If PyYAML is not installed.
    """
    try:
        import yaml  # type: ignore[import-untyped]  # ships no types
    except ImportError as err:
        raise MissingExtraError("reading model cards and other YAML", "PyYAML", "hub") from err
    name = "BaseLoader" if texts else "SafeLoader"
    loader = getattr(yaml, f"C{name}", getattr(yaml, name))  # the first is not in every build
    wrong = (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError)  # of dates and numbers too
    try:
        line = _unbounded_line(yaml, text, loader, aliases=texts)
        values = None if line else _plain_values(loader(text))
    except wrong as err:
        mark = getattr(err, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark is not None else f"{path}"
        reason = str(getattr(err, "problem", None) or err).partition("\n")[0]
        raise InvalidRecordError(f"{where}: {what} is not YAML: {reason}") from err
    if line:
        raise InvalidRecordError(
            f"{path}, line {line}: {what} has an alias or is nested more than {MAX_DEPTH} deep, "
            "which it does not need"
        )
    return values


def _plain_values(loader: Any) -> Any:
    """What ``yaml.load`` gives, by the loader that is written in C where there is one."""
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _unbounded_line(yaml: Any, text: str, loader: Any, *, aliases: bool) -> int:
    """The first line of YAML, from 1, at which it has an alias or is nested too deep; 0 if there is none."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or (isinstance(event, yaml.AliasEvent) and not aliases):
            return int(event.start_mark.line) + 1
    return 0
