"""Task2Vec embeddings of labelled datasets, exact per-sample Fisher information, and the networks they need.

    from indexer import EmbeddingSettings, embed_dataset, load_expert

Names are imported when they are first used, so that reading a record does not load torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.embed import embed_dataset
    from indexer.errors import IndexerError
    from indexer.experts.few_shot import measure_expert
    from indexer.networks.load import load_expert, load_network
    from indexer.records import EmbeddingSettings, InputTransform, Space, TaskEmbedding

_HOMES = {
    "EmbeddingSettings": "indexer.records",
    "IndexerError": "indexer.errors",
    "InputTransform": "indexer.records",
    "Space": "indexer.records",
    "TaskEmbedding": "indexer.records",
    "embed_dataset": "indexer.embed",
    "load_expert": "indexer.networks.load",
    "load_network": "indexer.networks.load",
    "measure_expert": "indexer.experts.few_shot",
}

__all__ = [
    "EmbeddingSettings",
    "IndexerError",
    "InputTransform",
    "Space",
    "TaskEmbedding",
    "embed_dataset",
    "load_expert",
    "load_network",
    "measure_expert",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use; ``AttributeError`` if there is no such name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
