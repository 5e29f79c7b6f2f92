"""One gate for all records: what may stand in a field, by its type and name, whatever door it comes through.

Numbers are whole or finite, and in range; ``True`` is no number. Texts are Unicode of bounded length.
"""

import json
import math
import re
from collections.abc import Callable, Hashable
from datetime import datetime
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from registry.errors import InvalidRecordError

if TYPE_CHECKING:
    import numpy as np

NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,128}")

EXPERT_PATTERN = re.compile(r"(?!(?:.*/)?\.{0,2}(?:/|$))[A-Za-z0-9._/:-]{1,160}")
"""Names of experts as timm, torchvision, open_clip and the Hugging Face hub write them; no part of a path."""

# No name is "." or "..": it is looked for in a folder.
CACHED_AS_PATTERN = re.compile(r"torch:(?!\.)[\w.+-]+|hf:(?!\.)[\w.-]+/(?!\.)[\w.-]+", re.ASCII)

MAX_VERSION = 1_000_000
"""No task has more versions: a number above it is a mistake."""

OTHER_DATA = -1
"""Version of a result that was measured on data that is no version of its task."""

MAX_WIDTH = 2**20
"""Most numbers of a vector."""

MAX_MAGNITUDE = 1e15
"""Of a number in a vector: that many can be squared and summed in float32."""

MAX_TEXT, MAX_JSON, MAX_WORDS = 2**16, 2**20, 2**20
"""Most characters of a text and of one that is JSON, and most texts of a list."""

_COUNT, _INT64 = (1, 2**53), (-(2**63), 2**63 - 1)
_RANGES: dict[str, tuple[float, float]] = {
    "version": (1, MAX_VERSION),
    "task_version": (OTHER_DATA, MAX_VERSION),
    **dict.fromkeys(("num_classes", "num_samples", "num_params", "flops", "input_size"), _COUNT),
    "num_samples_used": (2, 2**53),
    "domain_dim": (1, MAX_WIDTH),
    "checksum": (0, 2**63 - 1),
    "process_id": (0, 2**63 - 1),
    "seconds": (0, math.inf),
    "head_accuracy": (-math.inf, 1),
    "source_accuracy": (0, 1),
}
_OBJECTS = {"description", "details", "versions"}
_TIMES = {"created_at", "at", "removed_at"}
_BY_METRIC = "accuracy"  # of a result: its range is that of its metric, see ``registry.names``

_Check = Callable[[Any], Any]


def checked_name(kind: str, name: str) -> str:
    """Return ``name`` if it may name a ``kind``.

    Raises:
        InvalidRecordError: If it is not 1 to 128 of the letters a to z, digits and ``._-``; the name of an
            expert may have 160 characters, ``/`` and ``:`` too, but no part that is empty, ``.`` or ``..``.
    """
    is_expert = kind == "expert"
    if not (isinstance(name, str) and (EXPERT_PATTERN if is_expert else NAME_PATTERN).fullmatch(name)):
        article = "an" if kind[0] in "aeiou" else "a"
        allowed = (
            "1 to 160 of the characters A-Z a-z 0-9 . _ - / :, as in timm/resnet50.a1_in1k"
            if is_expert
            else "1 to 128 of the characters A-Z a-z 0-9 . _ -"
        )
        raise InvalidRecordError(f"{name!r:.200} cannot name {article} {kind}: allowed are {allowed}")
    return name


def check_fields(record: Any, what: str) -> None:
    """Check every field of a record, and make its numbers plain ones of Python.

    Raises:
        InvalidRecordError: If a field is of another type, out of range, not finite or too long.
    """
    of_type: Any = type(record)
    for name, check in _checks(of_type):
        value = getattr(record, name)
        try:
            checked = check(value)
        except ValueError as err:
            raise InvalidRecordError(f"{what:.400}: {name} must be {err}") from None
        if checked is not value:
            object.__setattr__(record, name, checked)


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in a text; ``ValueError`` if none, nested too deeply, or with a number not finite."""
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as err:
        raise ValueError("a JSON object") from err
    if not isinstance(values, dict):
        raise ValueError("a JSON object")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON without {name}")


@cache
def _checks(record_type: Hashable) -> tuple[tuple[str, _Check], ...]:
    return tuple((name, _check_of(name, hint)) for name, hint in get_type_hints(record_type).items())


def _check_of(name: str, hint: Any) -> _Check:
    """What checks the values of a field."""
    if isinstance(hint, UnionType):
        some = _check_of(name, next(kind for kind in get_args(hint) if kind is not NoneType))
        return lambda value: None if value is None else some(value)
    if hint is bool:
        return _flag
    if hint is int:
        low, high = _RANGES.get(name, _INT64)
        return lambda value: _number(value, Integral, int, low, high)
    if hint is float:
        low, high = _RANGES.get(name, (-math.inf, math.inf))
        return lambda value: _number(value, Real, float, low, high, finite=name != _BY_METRIC)
    if getattr(hint, "__name__", "") == "ndarray":
        return _vector
    if get_origin(hint) is tuple:
        return _texts
    if get_origin(hint) is Literal:
        return lambda value: _one_of(value, get_args(hint))
    return _time if name in _TIMES else _object if name in _OBJECTS else _text


def _number(value: Any, kind: type, plain: type, low: float, high: float, *, finite: bool = True) -> float:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"a {'whole ' if plain is int else ''}number, got {_shown(value)}")
    try:
        number: float = plain(value)
    except OverflowError:
        raise ValueError("a number of at most 1.8e308") from None
    if (low, high) == (0, 1) and not 0 <= number <= 1:  # NaN neither
        raise ValueError(f"from 0 to 1, got {number}")
    if finite and not math.isfinite(number):
        raise ValueError(f"a finite number, got {number}")
    if number < low:
        raise ValueError(f"at least {low}, got {number}")
    if number > high:
        raise ValueError(f"at most {high}, got {number}")
    return number


def _flag(value: Any) -> bool:
    if type(value).__name__ not in {"bool", "bool_"}:  # also those of numpy
        raise ValueError(f"true or false, got {_shown(value)}")
    return bool(value)


def _one_of(value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{' or '.join(allowed)}, got {_shown(value)}")
    return str(value)


def _text(value: Any, most: int = MAX_TEXT) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text, got {_shown(value)}")
    if len(value) > most:
        raise ValueError(f"a text of at most {most} characters, got {len(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"a text of Unicode, got {_shown(value)}") from None
    return value


def _object(value: Any) -> str:
    try:
        json_object(_text(value, MAX_JSON))
    except json.JSONDecodeError:
        raise ValueError("a JSON object") from None
    return str(value)


def _time(value: Any) -> str:
    try:
        datetime.fromisoformat(_text(value) or "2000-01-01")
    except ValueError:
        raise ValueError(f"a time such as 2024-05-06T07:08:09+00:00, got {_shown(value)}") from None
    return str(value)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ValueError(f"a list of texts, got {_shown(value)}")
    texts = value if isinstance(value, tuple) else tuple(value)
    if len(texts) > MAX_WORDS:
        raise ValueError(f"at most {MAX_WORDS} texts, got {len(texts)}")
    for text in texts:
        _text(text)
    return texts


def _vector(value: Any) -> "np.ndarray":
    import numpy as np  # here, not at the top: the command line names things long before it holds a vector

    try:
        vector = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("one finite vector") from None
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ValueError("one finite vector")
    if not 1 <= len(vector) <= MAX_WIDTH:
        raise ValueError(f"1 to {MAX_WIDTH} numbers, got {len(vector)}")
    if (highest := float(np.abs(vector).max())) > MAX_MAGNITUDE:
        raise ValueError(f"at most {MAX_MAGNITUDE:g} in size, got {highest:g}")
    return vector


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
