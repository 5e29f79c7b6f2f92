"""Results that model folders of the Hugging Face hub report: in model cards, and in ``.eval_results``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.experts.model_cards import CARD, front_matter, letters_of, names_of
from registry.experts.plain_files import read_text
from registry.experts.yaml_files import read_yaml
from registry.trackers.runs import NOT_MEASURED, Run, content_id, number, settings

TRACKER = "Hugging Face"
EVALUATIONS = ".eval_results"
PROTOCOL = "model_card"

_CACHED = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?", re.ASCII)  # a folder of the hub's own cache


def read_model(folder: Path, root: Path) -> Iterator[Run]:
    """A run for each result that a model folder reports."""
    card, evaluated = folder / CARD, (folder / EVALUATIONS).is_dir()
    if not evaluated and "model-index" not in read_text(card):
        return
    said = front_matter(card) if card.is_file() else {}
    base = _words(said.get("base_model"))
    about = {"run:name": model_name(folder, root)} | settings({"base_model": base[0] if base else ""})
    trained_on = {letters_of(name.rpartition("/")[2]) for name in _words(said.get("datasets"))}
    for count, (place, entry) in enumerate([*_index(card, said), *_evaluations(folder)], 1):
        yield _run(place, count, entry, about, trained_on)


def model_name(folder: Path, root: Path) -> str:
    """What the hub calls the model of a folder: ORG/NAME, as far as the way to it from the place says."""
    place, top = folder.resolve(), root.resolve()
    parts = place.relative_to(top).parts[-2:] or place.parts[-1:]
    for part in reversed(place.parts):
        if cached := _CACHED.fullmatch(part):
            parts = tuple(filter(None, cached.groups()))
            break
    return "/".join(parts)


def _index(card: Path, said: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Entries of the ``model-index`` of a card."""
    models = said.get("model-index") or []
    for model in models if isinstance(models, list) else [models]:
        entries = model.get("results") if isinstance(model, dict) else None
        for entry in entries if isinstance(entries, list) else [None]:
            yield card, entry


def _evaluations(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Entries of the files in ``.eval_results``, in the form of those of a card."""
    for path in sorted((folder / EVALUATIONS).glob("*.y*ml")):
        entries = read_yaml(path, read_text(path))
        for entry in entries if isinstance(entries, list) else [entries]:
            try:
                dataset, task = str(entry["dataset"]["id"]), str(entry["dataset"].get("task_id") or "")
            except (TypeError, KeyError, AttributeError):
                yield path, None
                continue
            metrics = [{"type": "value", "value": entry.get("value")}]
            asked = {"type": dataset, "config": task, "task": task, "whole": dataset}
            yield path, entry | {"dataset": asked, "metrics": metrics}


def _run(place: Path, count: int, entry: Any, about: dict[str, str], trained_on: set[str]) -> Run:
    """One entry as a run; what is not of the form that the hub describes is left out."""
    name = f"{about['run:name']} (result {count})"
    try:
        dataset, names = entry["dataset"], names_of(entry["dataset"])
        pairs = [(str(one["type"]), number(one["value"])) for one in entry["metrics"]]
        split = str(dataset.get("split") or "")
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        reason = err if type(err) is ValueError else "it has no dataset with a name, or no list of metrics"
        return Run(TRACKER, f"{place}:{count}", name, place, left_out=f"not as the hub has it: {reason}")
    source = entry.get("source")
    source = source if isinstance(source, dict) else {}
    tuned = bool(trained_on & set(map(letters_of, names))) and "param:base_model" in about
    parts = {"name": names[0], "alias": names[-1], "task": dataset.get("task"), "whole": dataset.get("whole")}
    model = about["param:base_model" if tuned else "run:name"]
    return Run(
        TRACKER,
        content_id(
            about["run:name"].rpartition("/")[2], repr((names, split, pairs)), str(entry.get("date", ""))
        ),
        name,
        place,
        about | settings(parts, "dataset:") | {"run:model": model},
        {metric: NOT_MEASURED.then(value) for metric, value in pairs if value is not None},
        user=str(source.get("user") or source.get("org") or source.get("name") or ""),
        date=str(entry.get("date") or "")[:10],
        left_out="measured on training samples" if split.casefold().startswith("train") else "",
        protocol="fine_tuned" if tuned else PROTOCOL,
    )


def _words(value: Any) -> list[str]:
    return [word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str)]
