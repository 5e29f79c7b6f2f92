"""Rules: which value of a run names its task and its expert, which metric counts, and how it was measured."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import InvalidQueryError
from registry.experts.plain_files import read_text
from registry.gate import checked_name

KINDS = ("param", "tag", "dataset", "run", "name")
STEPS = ("last", "best")

_WORDS = {"lower", "higher", "percent", "share", *STEPS}
_KEYS = ("task_from", "expert_from", "metric", "protocol", "step", "task", "expert")

_DATA = (
    "dataset dataset_name dataset_id dataset.name data.dataset data.name data data_dir data_path task task_name"
)
_MODEL = (
    "expert model model_name model_name_or_path model.name base_model backbone model.backbone architecture "
    "arch model.arch encoder pretrained_model"
)
TASK_GUESSES = tuple(f"{kind}:{key}" for key in _DATA.split() for kind in ("param", "tag")) + tuple(
    f"dataset:{key}" for key in ("name", "task", "alias", "whole")
)
EXPERT_GUESSES = ("run:model", *(f"{kind}:{key}" for key in _MODEL.split() for kind in ("param", "tag")))
IF_REGISTERED = ("run:experiment", "run:project", "run:group", "run:folder", "run:name")
"""What names a task or expert only where one of that name is there."""


@dataclass(frozen=True)
class MetricRule:
    """A metric of a tracker, called ``theirs``, and what it counts as."""

    theirs: str
    ours: str
    lower: bool | None = None  # whether lower values are better; by its name if ``None``
    scale: str = ""  # ``percent`` or ``share``; by its values if empty
    step: str = ""  # ``last`` or ``best``; as the rules say if empty


@dataclass(frozen=True)
class Rules:
    """What was said on the command line, in a file or in a call; what was not is guessed.

    Attributes:
        task_from: Values that name the task, the first that a run has; ``expert_from`` likewise.
        names: What names of tasks and experts there are called here.
    """

    task_from: tuple[str, ...] = ()
    expert_from: tuple[str, ...] = ()
    metrics: tuple[MetricRule, ...] = ()  # what counts, the first that a run has for each metric here
    protocol: str = ""  # a protocol, or ``KIND:KEY`` of a value that names it; that of the tracker if empty
    step: str = "last"  # which step counts
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def make_rules(
    file: str | Path | None = None,
    *,
    task_from: str | Sequence[str] = (),
    expert_from: str | Sequence[str] = (),
    metric: str | Sequence[str] | Mapping[str, str] = (),
    protocol: str = "",
    step: str = "",
) -> Rules:
    """Check rules; what is said goes before what a TOML file says.

    Raises:
        InvalidQueryError: If one is not of its form, or the file is none of rules.
    """
    said = _of_file(Path(file)) if file else {}
    where = f"{file}: " if file else ""
    step = step or said.get("step") or "last"
    protocol = protocol or said.get("protocol") or ""
    if step not in STEPS:
        raise InvalidQueryError(f"{where}step must be {' or '.join(STEPS)}, got {step!r}")
    if not isinstance(protocol, str):
        raise InvalidQueryError(f"{where}protocol must be a text, got {protocol!r}")
    if protocol:
        _places("protocol", protocol) if ":" in protocol else checked_name("protocol", protocol)
    return Rules(
        _places("task_from", task_from or said.get("task_from") or ()),
        _places("expert_from", expert_from or said.get("expert_from") or ()),
        _metrics(metric or said.get("metric") or ()),
        protocol,
        step,
        {kind: _table(where, kind, said.get(kind, {})) for kind in ("task", "expert")},
    )


def _of_file(path: Path) -> dict[str, Any]:
    """The rules of a TOML file; a name may be written with ``-`` or ``_``.

    Raises:
        InvalidQueryError: If it is not TOML, or says something else.
    """
    text = read_text(path)
    try:
        said = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        raise InvalidQueryError(f"{path}: cannot be read as TOML rules: {err}") from err
    said = {key.replace("-", "_"): value for key, value in said.items()}
    if other := sorted(set(said) - set(_KEYS)):
        raise InvalidQueryError(f"{path}: there is no rule {other[0]!r}; rules are {', '.join(_KEYS)}")
    return said


def _texts(value: Any) -> list[str]:
    """One text or several."""
    return [str(one) for one in ([value] if isinstance(value, str) else value)]


def _table(where: str, kind: str, value: Any) -> dict[str, str]:
    if not (isinstance(value, dict) and all(isinstance(name, str) for name in value.values())):
        raise InvalidQueryError(f"{where}{kind} must be a table of names there = names here")
    return {theirs: checked_name(kind, ours) for theirs, ours in value.items()}


def _places(rule: str, value: Any) -> tuple[str, ...]:
    """Places of values such as ``param:dataset``; ``InvalidQueryError`` if one is of another form."""
    for place in _texts(value):
        kind, mark, key = place.partition(":")
        if kind not in KINDS or not mark or not key:
            raise InvalidQueryError(
                f"{rule}= must be KIND:KEY with {', '.join(KINDS)} as the kind, such as "
                f"param:dataset, or name:NAME for all runs; got {place!r}"
            )
    return tuple(_texts(value))


def _metrics(value: Any) -> tuple[MetricRule, ...]:
    if isinstance(value, Mapping):
        value = [f"{theirs}={ours}" for theirs, ours in value.items()]
    return tuple(map(_metric, _texts(value)))


def _metric(text: str) -> MetricRule:
    """A rule such as ``test_acc1=accuracy:percent``; ``InvalidQueryError`` if it is of another form."""
    theirs, mark, said = text.rpartition("=")
    ours, *words = said.split(":")
    if not mark or not theirs or not re.fullmatch(r"[\w.-]+", ours) or not _WORDS.issuperset(words):
        raise InvalidQueryError(
            f"metric must be THEIRS=OURS, such as val_acc=accuracy, then any of :{', :'.join(sorted(_WORDS))}; "
            f"got {text!r}"
        )
    lower = True if "lower" in words else False if "higher" in words else None
    scale, step = (next((word for word in words if word in few), "") for few in (("percent", "share"), STEPS))
    return MetricRule(theirs, checked_name("metric", ours), lower, scale, step)
