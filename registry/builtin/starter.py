"""The starter content that ships with this package: tasks, embeddings, experts and results.

The content lies in ``registry/builtin``, as text where a person may want to read it: ``starter.json`` (tasks,
spaces and experts), ``results.csv``, and ``embeddings.npz``. ``CARD.md`` beside them says how it was made.

Axes: T tasks, D filters of the probe, F features of the probe.
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from registry.notebooks import to_json
from registry.records import EmbeddingRecord, ExpertRecord, ResultRecord, SpaceRecord, TaskRecord
from registry.storage.store import Store

FOLDER = Path(__file__).parent
VECTORS = ("fisher", "standard_error", "domain")
RESULT_COLUMNS = ("task", "expert", "accuracy", "metric", "protocol", "seed", "source", "created_at")

Record = TypeVar("Record", TaskRecord, ExpertRecord, ResultRecord)


@dataclass(frozen=True, eq=False)
class Starter:
    """A small registry as plain records; ``embeddings`` are in order of ``tasks``, all in ``space``."""

    space: SpaceRecord
    tasks: tuple[TaskRecord, ...]
    embeddings: tuple[EmbeddingRecord, ...]
    experts: tuple[ExpertRecord, ...]
    results: tuple[ResultRecord, ...]


def populate(store: Store, folder: Path = FOLDER) -> None:
    """Fill an empty store with the starter content."""
    starter = load_starter(folder)
    store.add_space(starter.space)
    store.add_experts(starter.experts)
    store.add_results(starter.results)
    store.add_tasks(list(zip(starter.tasks, starter.embeddings, strict=True)), starter.space.space_id)


def load_starter(folder: Path = FOLDER) -> Starter:
    """Read the starter content; every record is tagged as built in."""
    document = json.loads((folder / "starter.json").read_text(encoding="utf-8"))
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with np.load(folder / "embeddings.npz", allow_pickle=False) as arrays:
        vectors = {name: arrays[name] for name in (*VECTORS, "trivial")}
    return Starter(
        space=SpaceRecord(**document["space"], trivial=vectors["trivial"], builtin=True),
        tasks=tuple(_record(TaskRecord, values) for values in document["tasks"]),
        embeddings=tuple(
            EmbeddingRecord(**values, **{name: vectors[name][row] for name in VECTORS})
            for row, values in enumerate(document["embeddings"])
        ),
        experts=tuple(_record(ExpertRecord, values) for values in document["experts"]),
        results=tuple(_record(ResultRecord, row | _numbers(row)) for row in rows),
    )


def shipped_loaders() -> dict[tuple[str, str], str]:
    """What loads the experts and the space of the starter content, by kind and name."""
    document = json.loads((FOLDER / "starter.json").read_text(encoding="utf-8"))
    space = document["space"]
    loaders = {("expert", expert["name"]): expert["loader"] for expert in document["experts"]}
    return loaders | {("space", space["space_id"]): space["probe_source"]}


def save_starter(starter: Starter, folder: Path = FOLDER) -> None:
    """Write the starter content: text where a change should be seen in a diff, accuracies to four decimals."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "space": _plain(starter.space, without={"trivial", "builtin"}),
        "tasks": [_plain(task, without={"builtin"}) for task in starter.tasks],
        "embeddings": [_plain(embedding, without=set(VECTORS)) for embedding in starter.embeddings],
        "experts": [_plain(expert, without={"builtin"}) for expert in starter.experts],
    }
    (folder / "starter.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    arrays: dict[str, Any] = {
        name: np.stack([getattr(record, name) for record in starter.embeddings]) for name in VECTORS
    }
    np.savez(folder / "embeddings.npz", **arrays, trivial=starter.space.trivial)
    _save_results(starter.results, folder / "results.csv")


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    """What is not text in a row of ``results.csv``."""
    return {
        "accuracy": float(row["accuracy"]),
        "seed": int(row["seed"]) if row["seed"] else None,
        "lower_is_better": {"True": True, "False": False}.get(row.get("lower_is_better", "")),
        "task_version": int(row.get("task_version") or 0),
    }


def _save_results(results: Sequence[ResultRecord], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, RESULT_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for result in results:
            writer.writerow(_plain(result, without={"builtin"}) | {"accuracy": f"{result.accuracy:.4f}"})


def _plain(record: Any, *, without: set[str]) -> dict[str, Any]:
    return {
        field.name: to_json(getattr(record, field.name))
        for field in dataclasses.fields(record)
        if field.name not in without
    }


def _record(kind: Callable[..., Record], values: dict[str, Any]) -> Record:
    """A built-in record; JSON's lists become the tuples that records hold."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return kind(**plain, builtin=True)
