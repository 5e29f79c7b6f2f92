"""The JSON documents of the commands, as plain values; the contract is in the docs of the command line.

Axes: D filters of the probe.
"""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.distances import Distance
    from registry.ingest import TaskEmbedding
    from registry.records import EmbeddingRecord, ExpertRecord, Neighbor, Query, SpaceRecord, TaskRecord


def to_text(document: Any) -> str:
    """One JSON document of plain values and records; numbers that are not finite become null."""
    from registry.records import to_json

    return json.dumps(_finite(to_json(document)), indent=2, allow_nan=False)


def of_task(task: "TaskRecord") -> dict[str, Any]:
    """A task in a list."""
    return {
        "task": task.name,
        "version": task.version,
        "num_classes": task.num_classes,
        "num_samples": task.num_samples,
        "fingerprint": task.fingerprint,
        "tags": task.tags,
        "created_at": task.created_at,
    }


def of_task_card(
    task: "TaskRecord", embeddings: Sequence[tuple["SpaceRecord", "EmbeddingRecord"]]
) -> dict[str, Any]:
    """A task with everything known of it, one embedding for each space."""
    return {
        **of_task(task),
        "data": task.data,
        "settings": task.settings,
        "class_names": task.class_names,
        "builtin": task.builtin,
        "embeddings": [
            {
                "space": space.space_id,
                "probe": space.probe,
                "num_samples_used": embedding.num_samples_used,
                "head_accuracy": embedding.head_accuracy,
                "head_loss": embedding.head_loss,
                "norm": embedding.norm,
                "relative_error": embedding.relative_error,
                "seed": embedding.seed,
                "seconds": embedding.seconds,
            }
            for space, embedding in embeddings
        ],
    }


def of_expert(expert: "ExpertRecord") -> dict[str, Any]:
    """An expert, in a list or alone."""
    return {
        "expert": expert.name,
        "loader": expert.loader,
        "source_task": expert.source_task,
        "num_params": expert.num_params,
        "flops": expert.flops,
        "input_size": expert.input_size,
        "license": expert.license,
        "builtin": expert.builtin,
        "created_at": expert.created_at,
    }


def of_neighbors(query: "Query", distance: str, neighbors: Sequence["Neighbor"]) -> dict[str, Any]:
    """The answer of *nearest*."""
    return {"query": query, "distance": distance, "neighbors": neighbors}


def of_embedding(embedding: "TaskEmbedding") -> dict[str, Any]:
    """What made an embedding and how sure it is; its vectors are left to a file."""
    from registry.ingest import embedding_record, embedding_warnings

    dataset, record = embedding.dataset, embedding_record(embedding.dataset.spec, 0, embedding)
    return {
        "data": dataset.spec,
        "space": embedding.space.space_id,
        "probe": embedding.space.probe,
        "fingerprint": dataset.fingerprint,
        "class_names": dataset.class_names,
        "num_classes": dataset.num_classes,
        "num_samples": dataset.num_samples,
        "num_samples_used": record.num_samples_used,
        "dim": len(record.fisher),
        "head_accuracy": record.head_accuracy,
        "head_loss": record.head_loss,
        "norm": record.norm,
        "relative_error": record.relative_error,
        "seed": record.seed,
        "skipped_files": dataset.num_skipped,
        "seconds": record.seconds,
        "warnings": embedding_warnings(record.num_samples_used, dataset),
    }


def of_network(network: Any) -> dict[str, Any]:
    """A network that can be named as a probe or an expert, from ``ingest.list_networks``."""
    return {
        "network": network.name,
        "source": network.source,
        "num_params": network.num_params,
        "input_size": network.input_size,
    }


def of_distance(distance: "Distance") -> dict[str, Any]:
    """A distance of the catalogue; a bound that is infinite becomes null."""
    return {
        "distance": distance.name,
        "summary": distance.summary,
        "symmetric": distance.symmetric,
        "bounds": distance.bounds,
        "unit": distance.unit,
    }


def _finite(value: Any) -> Any:
    """The same plain values with ``None`` for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
