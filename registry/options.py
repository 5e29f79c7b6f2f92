"""What may be said about embedding data, by name; what is left out or ``None`` is as by default.

The names, ranges and defaults are those of ``indexer.records.EmbeddingSettings``.
"""

import ast
import json
import re
import shlex
from collections.abc import Callable
from typing import Any, Literal, TypedDict, get_args

from registry.errors import InvalidQueryError
from registry.wording import parse_size

DEFAULT_PLACE = "~/.task2vec"
"""Where the registry is, unless something else is said."""

BATCH = 64
"""Embeddings of a commit; each commit adds a file to a table, and reading slows down with their number."""

DEFAULT_DISTANCE = "task2vec"
"""Name of the distance that is meant unless another is named."""

Data = Any
"""A data spec or a path; or data that a program holds: a DataFrame, ``(images, labels)``, a list of ``(sample,
label)``, a torch Dataset or DataLoader, a Dataset or DatasetDict of Hugging Face. It is read, and not kept."""

Size = float | str
"""A number, or a text such as ``30M``."""

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""


def read_size(name: str, value: Size | None) -> float | None:
    """A size as a number; ``InvalidQueryError`` if it is none."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    number = parse_size(value) if isinstance(value, str) else None
    if number is None:
        raise InvalidQueryError(f"{name} must be a positive number such as 30M, 2G or 1500, got {value!r}")
    return number


class ReadingOptions(TypedDict, total=False):
    """How data is read and computed with, whatever the seed; any of it goes with any space.

    Fields are those of ``indexer.records.Reading`` and ``EmbeddingSettings``, where each is described. A
    ``memory_budget`` may be a text such as ``500M``.
    """

    max_samples: int | None
    split: str | None
    class_level: int | None
    skip_bad: bool | None
    image_col: str | None
    text_col: str | None
    label_col: str | None
    target_col: str | None
    split_col: str | None
    image_root: str | None
    image_suffix: str | None
    delimiter: str | None
    encoding: str | None
    channels: str | None
    value_range: tuple[float, float] | None
    tolerance: float | None
    memory_budget: Size | None
    batch_size: int | None
    device: str | None


TABLE_OPTIONS = (
    "image_col", "text_col", "label_col", "target_col", "split_col", "image_root", "image_suffix", "delimiter",
    "encoding",
)  # fmt: skip
"""Fields of ``indexer.records.Reading`` that say how a table or a file of arrays is read."""

LAYOUT_OPTIONS = ("class_level", *TABLE_OPTIONS)
"""Fields of ``indexer.records.Reading`` beside the split that a task remembers if they were given."""


class DataOptions(ReadingOptions, total=False):
    """How data is read, and the seed; 0 by default."""

    seed: int | None


class EmbeddingOptions(DataOptions, total=False):
    """How data is read, and what makes the space, see ``indexer.records.EmbeddingSettings``."""

    probe: str | None
    estimator: str | None
    norm_weights: bool | None


class EngineOptions(TypedDict, total=False):
    """Where embeddings are computed; fields but the first are those of ``indexer.engines.work.EngineSettings``.

    Attributes:
        engine: Name in ``indexer.engines.engines.ENGINES``: ``serial``, the default, ``processes`` or ``ray``.
    """

    engine: str | None
    jobs: int | None
    threads: int | None
    address: str | None
    gpus_per_task: float | None
    memory_per_task: float | None
    retries: int | None


class ManyOptions(EmbeddingOptions, EngineOptions, total=False):
    """How many datasets are embedded, and where."""


class OneOptions(ManyOptions, total=False):
    """How one dataset is embedded, and where if it is huge.

    Attributes:
        shards: Parts that its samples are split into, which are computed as ``EngineOptions`` say; without it
            there is no engine.
    """

    shards: int | None


ExportFormat = Literal["file", "folder"]

EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
"""How an export is written: as one file, or as a folder that can be pushed to a hub."""

ClusterMethod = Literal["agglomerative", "hdbscan"]
CLUSTER_METHODS: tuple[ClusterMethod, ...] = get_args(ClusterMethod)

Colouring = Literal["cluster", "tag", "kind"]
COLOURINGS: tuple[Colouring, ...] = get_args(Colouring)
"""What the colours of a map stand for."""

Policy = Literal["fail", "keep", "take"]

POLICIES: dict[Policy, str] = {
    "fail": "import nothing",
    "keep": "keep what is here; take nothing of the tasks and experts that differ",
    "take": "take what the file has: a task as its next version, an expert in place of the one here",
}
"""What an import does where the file and the registry say different things of one name."""

ROLES = {
    "read": "ask questions",
    "write": "and add, upload, tag, remove and restore",
    "admin": "and purge, trust what was imported, and make tokens",
}
"""What a token of the server is for; each may do what those before it may, see docs/security-server.md."""

_SPOKEN = (
    "allow_older anyway as_new_version builtin download experts expert_from format from_dir lower_is_better"
)
_SPOKEN += " metric on_conflict task_from unregistered"
_OPTION = re.compile(
    rf"(?<![\w.-])({'|'.join({*OneOptions.__annotations__, *_SPOKEN.split()})})="
    r"""('[^']*'|"[^"]*"|\([^()]*\)|True|False|-?\d+|(?![^\s,.;:)]))"""
)
"""How sentences name an option and perhaps its value, as Python has both: ``label_col='breed'``."""

Spell = Callable[[str, str], str]


def in_commands(name: str, value: str) -> str:
    """An option as the command line has it: ``--label-col breed``."""
    option = f"--{name.replace('_', '-')}"
    if value in ("", "True"):
        return option
    if value == "False":
        return "--higher-is-better" if name == "lower_is_better" else f"--no-{option[2:]}"
    if value[0] in "'\"":
        return f"{option} {shlex.quote(ast.literal_eval(value))}"
    return f"{option} {value.strip('()').replace(', ', ',')}"


def in_fields(name: str, value: str) -> str:
    """An option as a field of JSON: ``"label_col": "breed"``."""
    if value == "":
        return name
    return f'"{name}": {json.dumps(ast.literal_eval(value))}' if value[0] != "(" else f"{name} {value}"


def spelled(said: Any, spell: Spell) -> Any:
    """What sentences say, those in lists and dictionaries too, with options named as a face has them."""
    if isinstance(said, str):
        return _OPTION.sub(lambda found: spell(found[1], found[2]), said)
    if isinstance(said, dict):
        return {key: spelled(value, spell) for key, value in said.items()}
    return [spelled(value, spell) for value in said] if isinstance(said, list) else said
