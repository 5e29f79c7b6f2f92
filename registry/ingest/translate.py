"""Errors and settings on their way to the indexer and back.

Files of this room and ``registry.experts.sources`` are the only ones that import ``indexer``, and only inside
functions: torch is loaded when something is computed, not when something is looked up.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Unpack

from registry.errors import IngestError, MissingExtraError, NotFoundError
from registry.options import LAYOUT_OPTIONS, EmbeddingOptions, read_size
from registry.records import Kind

if TYPE_CHECKING:
    from indexer.records import EmbeddingSettings

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
    """Embedding settings; options of ``None`` stand for the defaults.

    Raises:
        IngestError: If a value is out of its range.
    """
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


def head_metric(kind: Kind) -> str:
    """The score of the head of a task of that kind, in words."""
    from indexer.records import HEAD_METRICS

    return HEAD_METRICS[kind]
