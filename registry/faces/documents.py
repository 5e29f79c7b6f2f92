"""The JSON documents of commands and REST API, as plain values; docs/cli.md has the contract.

Axes: D filters of the probe.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from registry.faces.terminal import as_spelled

if TYPE_CHECKING:
    from registry.answers import ImportedResults, Neighbor, Query
    from registry.distances import Distance
    from registry.ingest.networks import ProbeDescription
    from registry.ingest.prepare import TaskEmbedding
    from registry.map_answers import Clustering, TaskMap
    from registry.records import AuditRecord, EmbeddingRecord, ExpertRecord, SpaceRecord, TaskRecord
    from registry.task_answers import TaskHistory


def to_text(document: Any) -> str:
    """One JSON document of plain values and records; numbers that are not finite become null."""
    return json.dumps(as_spelled(to_values(document)), indent=2, allow_nan=False)


def to_values(document: Any) -> Any:
    """A document as plain values, for code that makes JSON of it itself."""
    from registry.notebooks import to_json

    return _finite(to_json(document))


def _fields(record: Any, names: str) -> dict[str, Any]:
    """Some fields of a record, as they are."""
    return {name: getattr(record, name) for name in names.split()}


def of_task(task: "TaskRecord") -> dict[str, Any]:
    """A task in a list; of a regression, ``num_classes`` is the number of targets."""
    from registry.ingest.data import head_metric

    return {
        "task": task.name,
        **_fields(task, "version kind"),
        "head_metric": head_metric(task.kind),
        **_fields(task, "num_classes num_samples fingerprint tags aliases created_at"),
    }


def of_task_card(
    task: "TaskRecord", embeddings: Sequence[tuple["SpaceRecord", "EmbeddingRecord"]]
) -> dict[str, Any]:
    """A task with its data, settings, and an embedding for each space."""
    measured = "num_samples_used head_accuracy head_loss norm relative_error seed seconds"
    return {
        **of_task(task),
        **_fields(task, "data settings class_names builtin num_samples_drawn"),
        "tolerance": task.asked.get("tolerance"),
        "embeddings": [
            {
                "space": space.space_id,
                "probe": space.probe,
                "estimator": space.recipe[0],
                "pooling": space.recipe[1],
                **_fields(embedding, measured),
            }
            for space, embedding in embeddings
        ],
    }


def of_history(history: "TaskHistory") -> dict[str, Any]:
    """All versions of a task, and who changed it."""
    versions = [
        of_task(task) | _fields(task, "data settings builtin") | {"removed_at": task.removed_at or None}
        for task in history.versions
    ]
    return {
        "task": history.task,
        "versions": versions,
        "audit": [of_audit_line(line) for line in history.audit],
    }


def of_audit_line(line: "AuditRecord") -> dict[str, Any]:
    """Who wrote what, when, with which versions of the libraries."""
    said = _fields(line, "at actor host process_id action subject")
    return {**said, "details": line.values, "versions": json.loads(line.versions)}


def of_imported_results(imported: "ImportedResults", *, dry_run: bool) -> dict[str, Any]:
    """What an import of results did, or would do."""
    added, problems = imported
    keys = ("results", "present", "runs", "taken")
    return {"added": 0 if dry_run else added, "problems": problems} | {k: getattr(imported, k) for k in keys}


def of_space(space: "SpaceRecord") -> dict[str, Any]:
    """A space that tasks were embedded in; its trivial task is left out."""
    estimator, pooling = space.recipe
    return {
        "space": space.space_id,
        **_fields(space, "probe probe_source"),
        "estimator": estimator,
        "pooling": pooling,
        **_fields(space, "dim domain_dim builtin"),
    }


def of_expert(expert: "ExpertRecord") -> dict[str, Any]:
    """An expert, in a list or alone."""
    measured = "loader source_task source_accuracy num_params flops input_size"
    return {"expert": expert.name} | _fields(
        expert, f"{measured} license cached_as toy aliases builtin created_at"
    )


def of_neighbors(query: "Query", distance: str, neighbors: Sequence["Neighbor"]) -> dict[str, Any]:
    """The answer of *nearest*."""
    return {"query": query, "distance": distance, "neighbors": neighbors}


def of_embedding(embedding: "TaskEmbedding") -> dict[str, Any]:
    """How an embedding was made and how sure it is, without its vectors."""
    from registry.ingest.data import head_metric
    from registry.ingest.prepare import embedding_record, embedding_warnings

    dataset, settings = embedding.dataset, embedding.settings
    record = embedding_record("unregistered", 1, embedding)  # for its norm and error; no name is shown
    asked = _fields(settings, "max_samples tolerance")
    return {
        "data": dataset.spec,
        "space": embedding.space.space_id,
        **_fields(embedding.space, "probe estimator pooling"),
        **_fields(dataset, "kind fingerprint class_names num_classes class_sizes taken"),
        "passed_over": dict(dataset.passed_over),
        "num_samples": dataset.num_samples,
        "num_samples_drawn": min(dataset.num_samples, settings.max_samples),
        "tolerance": settings.tolerance,
        "num_samples_used": record.num_samples_used,
        "dim": len(record.fisher),
        "head_metric": head_metric(dataset.kind),
        **_fields(record, "head_accuracy head_loss norm relative_error seed"),
        "skipped_files": dataset.num_skipped,
        "seconds": record.seconds,
        "warnings": embedding_warnings(record, dataset, fallbacks=embedding.fallbacks, **asked),
    }


def of_network(network: Any) -> dict[str, Any]:
    """A network that can be named as a probe or an expert, from ``ingest.list_networks``."""
    return {"network": network.name} | _fields(network, "source num_params input_size")


def of_probe(probe: "ProbeDescription") -> dict[str, Any]:
    """The card of a network; ``costs`` is null unless they were asked for."""
    from registry.notebooks import to_json

    network, costs = probe.network, probe.costs
    return {
        "network": network.name,
        **_fields(network, "loader num_params"),
        "flops": probe.flops,
        "takes": network.takes,
        **_input_of(network),
        "num_features": network.num_features,
        "dim": probe.dim,
        "weights_hash": network.weights_hash,
        "costs": {"memory_budget": probe.memory_budget, **to_json(costs)} if costs else None,
    }


def _input_of(network: Any) -> dict[str, Any]:
    """How an image or a text becomes an input of a network."""
    transform = asdict(network.transform)
    if network.takes == "images":
        transform = {"input_size": transform.pop("crop")} | transform
    return transform


def of_estimator(estimator: Any) -> dict[str, Any]:
    """An estimator of the catalogue, from ``ingest.list_estimators``."""
    return {"estimator": estimator.name, "summary": estimator.summary}


def of_distance(distance: "Distance") -> dict[str, Any]:
    """A distance of the catalogue; a bound that is infinite becomes null."""
    return {"distance": distance.name} | _fields(distance, "summary symmetric bounds unit")


def _finite(value: Any) -> Any:
    """Plain values with ``None`` in place of numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def of_map(shown: "TaskMap") -> dict[str, Any]:
    """A map: where each task lies, in units of the distance; and how far it can be trusted."""
    columns = zip(
        shown.names, shown.versions.tolist(), shown.positions.tolist(), shown.placed.tolist(), strict=True
    )
    asked = zip(shown.queries, shown.query_positions.tolist(), shown.query_nearest, strict=True)
    measured = (
        "space distance method seed stress trustworthiness num_neighbors num_measured num_landmarks notes"
    )
    return {
        **_fields(shown, measured),
        "tasks": [
            {"task": name, "version": version, "x": x, "y": y, "placed": placed}
            for name, version, (x, y), placed in columns
        ],
        "queries": [
            {
                "query": query,
                "x": x,
                "y": y,
                "nearest": [{"task": name, "distance": distance} for name, distance in nearest],
            }
            for query, (x, y), nearest in asked
        ],
    }


def of_clustering(clustering: "Clustering") -> dict[str, Any]:
    """Clusters with their members, and what was compared to choose them."""
    return {
        **_fields(clustering, "space distance method silhouette cut_height num_landmarks notes"),
        "tried": [{"number": number, "silhouette": value} for number, value in clustering.tried],
        "clusters": [
            {
                "cluster": cluster.number,
                **_fields(cluster, "label size medoid radius"),
                "tags": [_fields(tag, "tag inside outside") for tag in cluster.tags],
                "tasks": cluster.members,
            }
            for cluster in clustering.clusters
        ],
        "noise": clustering.noise,
    }
