"""Data specs, loaders and settings on their way to the indexer, and its errors on the way back.

Files of this room and ``registry.experts.sources`` are the only ones that import ``indexer``, and only inside
functions: torch is loaded when something is computed, not when something is looked up.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from registry.errors import IngestError, MissingExtraError, NotFoundError, UntrustedError
from registry.options import LAYOUT_OPTIONS, Data, EmbeddingOptions, read_size

if TYPE_CHECKING:
    from indexer.records import EmbeddingSettings, TaskEmbedding
    from registry.answers import Origin
    from registry.records import ExpertRecord, Kind, TaskRecord

POOLING, NORM_POOLING = "filter_mean", "filter_mean+norm"
"""Pooling without and with the affine weights of normalisation layers, see ``indexer.records.Space``."""

KEY_SETTINGS = ("max_samples", "seed", "split")
"""What every task remembers of its settings."""

KEY_SETTINGS_IF_CHANGED = ("channels", "value_range", "tolerance", *LAYOUT_OPTIONS)
"""What a task remembers only if it is not the default: the settings of tasks that were added before these
existed must stay what they are, byte by byte."""


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn errors of the indexer into errors of the registry.

    Raises:
        NotFoundError: In place of its ``UnknownNameError``.
        MissingExtraError: In place of its ``MissingLibraryError``.
        IngestError: In place of any other.
    """
    from indexer.errors import IndexerError, MissingLibraryError, UnknownNameError

    try:
        yield
    except UnknownNameError as err:
        raise NotFoundError(err.kind, err.name, err.known) from err
    except MissingLibraryError as err:
        raise MissingExtraError(err.what, err.library, err.extra) from err
    except IndexerError as err:
        raise IngestError(str(err)) from err


def make_settings(**options: Unpack[EmbeddingOptions]) -> "EmbeddingSettings":
    """Embedding settings; ``None`` stands for a default; ``IngestError`` if a value is out of its range."""
    values: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "value_range" in values:  # whole numbers mean the same, and must make the same settings
        values["value_range"] = tuple(map(float, values["value_range"]))
    if "memory_budget" in values:
        values["memory_budget"] = int(read_size("memory_budget", values["memory_budget"]) or 0)
    with translated_errors():
        from indexer.records import EmbeddingSettings

        return EmbeddingSettings(**values)


def settings_key(settings: "EmbeddingSettings") -> str:
    """What an embedding depends on beside the data and the space, as one canonical string."""
    values, defaults = asdict(settings), asdict(make_settings())
    changed = [name for name in KEY_SETTINGS_IF_CHANGED if values[name] != defaults[name]]
    return json.dumps({name: values[name] for name in (*KEY_SETTINGS, *changed)}, sort_keys=True)


def default_probe() -> str:
    """Loader of the probe that is used unless another is asked for."""
    from indexer.records import DEFAULT_PROBE

    return DEFAULT_PROBE


def default_recipe() -> tuple[str, str]:
    """Estimator and pooling of the space that tasks are embedded in unless another is asked for."""
    return make_settings().estimator, POOLING


def head_metric(kind: "Kind") -> str:
    """The score of the head of a task of that kind, in words."""
    from indexer.records import HEAD_METRICS

    return HEAD_METRICS[kind]


DATA_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet", ".npz", ".tar", ".zip", ".tgz", ".gz"})

NOT_SHIPPED = "not shipped: "
"""Start of the data specs of starter tasks, whose images are no part of this package."""

NO_PATH = "sklearn:"
"""Start of the data specs that name no path."""

IN_MEMORY = "python:"
"""Start of what stands for data that a Python program held, see ``indexer.records.PythonData``."""

HUB_DATA = "hf-data:"
"""Start of the data specs that the library datasets loads."""

READING_SETTINGS = ("split", *LAYOUT_OPTIONS, "channels", "value_range")
"""The settings of a registered task that say which images there are and what they look like."""


def data_spec(data: Data) -> str:
    """A data spec for what a caller gave: itself, that of a path, or one that carries an object."""
    if isinstance(data, str):
        return data
    if isinstance(data, os.PathLike):  # always data, never the name of a task
        path = os.fspath(data)
        return path if os.sep in path else f".{os.sep}{path}"
    from indexer.objects.objects import spec_of

    return spec_of(data)


def refuse_missing(spec: str) -> None:
    """Refuse a path at which there is nothing, before anything is loaded that would read it.

    Raises:
        IngestError: If there is nothing; in the words of the indexer.
    """
    named = re.match(r"[A-Za-z]\w+:", spec) or ("{" in spec and spec.lower().endswith(".tar"))
    with contextlib.suppress(OSError):  # too long to be the name of a file, as the indexer will say
        if spec and not named and not Path(spec).exists():
            from indexer.errors import SUPPORTED_KINDS, DataSpecError

            raise IngestError(str(DataSpecError(spec, f"no such file or folder; {SUPPORTED_KINDS}")))


def as_query(query: Data) -> "str | TaskEmbedding":
    """What is asked about: a name or a data spec, or what ``embed`` made of data."""
    is_embedding = hasattr(query, "fisher") and hasattr(query, "dataset")
    return query if is_embedding else data_spec(query)


def is_there(data: str) -> bool:
    """Whether a data spec names a path that is there, or data that needs none."""
    try:
        if _is_composed(data):
            from indexer.data import specs

            return specs.is_there(data)
        return data.startswith(NO_PATH) or Path(data).exists()
    except OSError:  # too long to be the name of a file
        return False


def looks_like_data(query: str) -> bool:
    """Whether a query that names no task may be a data spec: a path that is there, or one written as such."""
    return is_there(query) or any(mark in query for mark in "/:") or Path(query).suffix in DATA_SUFFIXES


def absolute_data(spec: str) -> str:
    """A data spec that means the same from every folder; ``IngestError`` if it is not understood."""
    if spec.startswith((NO_PATH, IN_MEMORY)):
        return str(spec)
    if _is_composed(spec):
        from indexer.data import specs

        with translated_errors():
            return specs.absolute_spec(spec)
    return str(Path(spec).resolve())


def _is_composed(spec: str) -> bool:
    """Whether a data spec is more than a path: several tars, or what a library loads."""
    return spec.startswith(HUB_DATA) or ("{" in spec and spec.endswith(".tar") and not Path(spec).exists())


def check_data_is_there(task: "TaskRecord", place: str | None = None) -> None:
    """Say why a task's data cannot be read in the words of the registry, where the indexer knows a path only.

    Raises:
        IngestError: If the data did not ship, or is not where it was.
    """
    if place is not None:
        if not is_there(place):
            raise IngestError(
                f"there is nothing at {place}, so task {task.name} is still read from {task.data}"
            )
        return
    if task.data.startswith(IN_MEMORY):
        if type(task.data) is str:  # not one that carries the data
            raise IngestError(
                f"the data of task {task.name} was held by a Python program "
                f"({task.data.removeprefix(IN_MEMORY)}), and is not kept: give it again, as "
                "measure(NAME, EXPERT, data=DATA) or recommend(DATA)"
            )
        return
    if task.data.startswith(NOT_SHIPPED):
        raise IngestError(
            f"task {task.name} is starter content, whose images do not ship with this package; "
            "experts can be measured on tasks that you add"
        )
    if not is_there(task.data):
        raise IngestError(
            f"the data of task {task.name} is no longer at {task.data}; put it back, or say where it is now "
            f"with `t2v task move {task.name} NEW-PLACE`"
        )


def reading_options(task: "TaskRecord") -> dict[str, Any]:
    """How the images of a registered task are read: as was said then; what was left out is left out again."""
    how = {name: value for name, value in task.asked.items() if name in READING_SETTINGS} | {"skip_bad": True}
    if how.get("value_range") is not None:
        how["value_range"] = tuple(how["value_range"])
    return how


def absolute_loader(loader: str, folder: Path | None = None) -> str:
    """A loader that means the same from every working folder, see ``indexer.networks.loaders``.

    Raises:
        NotFoundError: If there is no such kind of loader.
    """
    from indexer.networks import loaders

    with translated_errors():
        return loaders.absolute_loader(loader, folder)


def meant_loader(loader: str, registered: Sequence[str]) -> str:
    """The registered loader that another means, which says less of how texts are read; else its absolute form.

    Raises:
        NotFoundError: If there is no such kind of loader.
        IngestError: If what it says of texts is not understood.
    """
    from indexer.networks import loaders

    with translated_errors():
        asked = loaders.absolute_loader(loader)
        meant = {other for other in registered if takes_texts(other) and loaders.is_meant(asked, other)}
    return asked if asked in registered or len(meant) != 1 else meant.pop()


def takes_texts(loader: str) -> bool:
    """Whether a registered network is a text encoder, as its loader says."""
    if not loader.startswith("hf:"):
        return False
    from indexer.networks import loaders

    return loaders.takes_texts(loader)


def is_loadable_offline(expert: "ExpertRecord") -> bool:
    """Whether the weights of an expert are on this machine, see ``indexer.networks.offline``."""
    from indexer.networks import offline

    return offline.is_loadable_offline(expert.loader, expert.cached_as)


def names_only(loader: str) -> bool:
    """Whether a loader is but a name that a library knows, see ``indexer.networks.loaders.names_only``."""
    from indexer.networks import loaders

    return loaders.names_only(loader)


def is_inert(loader: str, origin: "Origin | None") -> bool:
    """Whether a registered loader must not be used: from elsewhere, no mere name, and not trusted."""
    return bool(origin and origin.file and not origin.trusted_at) and not names_only(loader)


@contextmanager
def opening(kind: str, name: str, loader: str, origin: "Origin | None") -> Iterator[None]:
    """Let a registered loader be used within the block, its module not looked for in the working folder.

    Raises:
        UntrustedError: If it came from elsewhere, is no mere name, and is not trusted.
    """
    from indexer.networks import loaders

    if origin and is_inert(loader, origin):
        raise UntrustedError(
            f"{kind} {name} came from {origin.file} and would load {loader}; nothing of it was opened or run: "
            f"look at it, and allow it with `t2v trust {name}`"
        )
    with loaders.searching_modules(origin.folder if origin else ""):
        yield


def module_folder(loader: str) -> str:
    """The working folder, if a Python loader that was just loaded has its module there; else empty."""
    from indexer.networks import loaders

    return loaders.module_folder(loader)
