"""What the tests of the registry compute once; those of the indexer compute each time."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from unittest import mock

import pytest

from registry.caching import LastAnswers
from registry.recommend import prior

_EMBEDDED: dict[tuple[Any, ...], Any] = {}
_FITTED = LastAnswers(64)


@pytest.fixture(scope="module", autouse=True)
def computed_once() -> Iterator[None]:
    """The same sample is embedded, and the same past results are fitted, once for all tests."""
    with mock.patch.object(prior, "_KEPT", _FITTED):
        if "torch" not in sys.modules:  # no test of this run embeds anything
            yield
            return
        from indexer import embed

        measure = embed.embed_sample

        def embed_sample(sample, probe, settings, *, progress=None):
            content = blake2b(b"".join(array.tobytes() for array in (sample.inputs, sample.labels))).digest()
            shapes = sample.inputs.shape, sample.labels.shape, sample.description.kind
            key = (embed.space_of(probe, settings), replace(settings, probe=""), content, *shapes)
            if key not in _EMBEDDED:
                _EMBEDDED[key] = measure(sample, probe, settings, progress=progress)
            elif progress is not None:
                for stage in ("features", "fisher"):
                    progress(stage, len(sample.labels), len(sample.labels))
            return replace(_EMBEDDED[key], dataset=sample.description, settings=settings)

        with mock.patch.object(embed, "embed_sample", embed_sample):
            yield
