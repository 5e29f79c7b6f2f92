"""Requests for jobs: their kinds, the data of each, and the options of each."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from registry.errors import InvalidQueryError
from registry.gate import checked_name
from registry.options import DataOptions

DATA_OPTIONS = frozenset(DataOptions.__annotations__) - {"device"}
"""Options on reading data, see ``registry.options.DataOptions``."""

RECOMMEND_OPTIONS = frozenset((
    "k", "num_trials", "record", "time_budget", "stop_below", "given", "max_params", "max_flops", "licenses",
    "input_size", "loadable_offline", "protocol", "metric", "experts", "toys", "published", "download",
    "anyway", "as_new_version", "probe",
))  # fmt: skip
NEAREST_OPTIONS = frozenset({"k", "distance", "where", "probe"})
JobKind = Literal["recommend", "nearest", "add_task"]
OPTIONS: dict[str, frozenset[str]] = {
    "recommend": RECOMMEND_OPTIONS | DATA_OPTIONS,
    "nearest": NEAREST_OPTIONS | DATA_OPTIONS,
    "add_task": DATA_OPTIONS,
}
"""Options by kind of job; their meaning is that of the method of ``TaskRegistry``."""

RANGES = {
    "k": (1, 1000),
    "num_trials": (0, 1000),
    "max_samples": (2, 10**9),
    "class_level": (-100, 100),
    "seed": (0, 2**32 - 1),
    **dict.fromkeys(("max_params", "max_flops", "input_size"), (0, 1e18)),
}
"""From and to which number an option may go, whatever door it comes through."""

SOURCES = ("upload", "path", "task")


def check_request(
    kind: str, data: Mapping[str, str], *, name: str | None, tags: Sequence[str], options: Mapping[str, Any]
) -> None:
    """Check what can be checked without looking at the data.

    Raises:
        InvalidQueryError: If there is no such kind of job, or it does not take what is given.
        InvalidRecordError: If the name or a tag is not allowed.
    """
    if kind not in OPTIONS:
        raise InvalidQueryError(f"kind must be {' or '.join(OPTIONS)}, got {kind!r}")
    sources = [source for source in SOURCES if data.get(source)]
    if len(sources) != 1 or set(data) - {sources[0]}:
        raise InvalidQueryError("data must be one of upload, path and task, such as {'upload': ID}")
    if kind == "add_task" and sources == ["task"]:
        raise InvalidQueryError("a task that is registered need not be added; give an upload or a path as data")
    if kind == "add_task" and not name:
        raise InvalidQueryError("add_task needs the name of the task to be")
    if tags and kind != "add_task":
        raise InvalidQueryError(f"tags would change nothing: {kind} registers no task; leave them out")
    for sort, word in (*((("task", name),) if name else ()), *(("tag", tag) for tag in tags)):
        checked_name(sort, word)
    if unknown := sorted(set(options) - OPTIONS[kind]):
        raise InvalidQueryError(
            f"{' and '.join(unknown)} is no option of {kind}; there are {', '.join(sorted(OPTIONS[kind]))}"
        )
    for option, (low, high) in RANGES.items():
        if option in options and not low <= options[option] <= high:  # NaN neither
            raise InvalidQueryError(f"{option} must be from {low:g} to {high:g}, got {options[option]:g}")
