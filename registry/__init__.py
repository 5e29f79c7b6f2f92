"""Keep every task and expert of a team; ask which task is like a new one and which expert to start from.

    from registry import TaskRegistry

Names are imported when they are first used, so that ``t2v --help`` does not wait for a database.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.answers import (
        ExportSummary,
        ImportedExperts,
        ImportedResults,
        ImportSummary,
        Measurement,
        Neighbor,
        Query,
        Recommendation,
        Trial,
    )
    from registry.core import TaskRegistry
    from registry.errors import RegistryError
    from registry.ingest.manifests import TaskRow
    from registry.map_answers import Clustering, LayerProfile, TaskMap
    from registry.records import EmbeddingRecord, ExpertRecord, ResultRecord, SpaceRecord, TaskRecord
    from registry.task_answers import AddedMany, AddedTask, TaskPage

_HOMES = {
    "TaskRegistry": "registry.core",
    "RegistryError": "registry.errors",
    "AddedMany": "registry.task_answers",
    "AddedTask": "registry.task_answers",
    "Clustering": "registry.map_answers",
    "EmbeddingRecord": "registry.records",
    "ExpertRecord": "registry.records",
    "ExportSummary": "registry.answers",
    "ImportSummary": "registry.answers",
    "ImportedExperts": "registry.answers",
    "ImportedResults": "registry.answers",
    "LayerProfile": "registry.map_answers",
    "Measurement": "registry.answers",
    "Neighbor": "registry.answers",
    "Query": "registry.answers",
    "Recommendation": "registry.answers",
    "ResultRecord": "registry.records",
    "SpaceRecord": "registry.records",
    "TaskMap": "registry.map_answers",
    "TaskPage": "registry.task_answers",
    "TaskRecord": "registry.records",
    "TaskRow": "registry.ingest.manifests",
    "Trial": "registry.answers",
}

__all__ = [
    "AddedMany",
    "AddedTask",
    "Clustering",
    "EmbeddingRecord",
    "ExpertRecord",
    "ExportSummary",
    "ImportSummary",
    "ImportedExperts",
    "ImportedResults",
    "LayerProfile",
    "Measurement",
    "Neighbor",
    "Query",
    "Recommendation",
    "RegistryError",
    "ResultRecord",
    "SpaceRecord",
    "TaskMap",
    "TaskPage",
    "TaskRecord",
    "TaskRegistry",
    "TaskRow",
    "Trial",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use; ``AttributeError`` if there is no such name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
