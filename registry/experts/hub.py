"""Model folders become experts and results: what their files and cards say, without loading anything."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import InvalidRecordError
from registry.experts.model_cards import CARD, CardResult, ModelCard, letters_of, read_card
from registry.experts.model_folders import FolderFacts, find_folders, read_folder
from registry.gate import NAME_PATTERN, checked_name
from registry.ingest.data import absolute_loader
from registry.records import ExpertRecord, ResultRecord

SOURCE = "hf"
"""What is named in place of a library or a CSV file."""

PROTOCOL = "model_card"
"""How results of cards were measured: as their authors did."""

LOADABLE = {
    "image-classification", "image-feature-extraction", "image-to-text", "image-segmentation",
    "object-detection", "depth-estimation", "zero-shot-image-classification", "feature-extraction", "fill-mask",
    "question-answering", "sentence-similarity", "text-classification", "text-ranking", "token-classification",
    "zero-shot-classification",
}  # fmt: skip
"""Values of ``pipeline_tag`` of models of images or texts, which the loader ``hf:`` may take."""

# Where torchvision and timm say otherwise; see ``indexer.networks.zoo``.
_SOURCE_TASKS = {"imagenet1k": "imagenet1k", "imagenet12k": "imagenet12k", "imagenet21k": "imagenet21k"}
_TRAINING = re.compile(r"train", re.IGNORECASE)
_SHOWN = 5


@dataclass(frozen=True)
class Model:
    """A model folder: its name as an expert, what its files say, and its card if it has one."""

    name: str
    folder: Path
    facts: FolderFacts
    card: ModelCard | None


@dataclass(frozen=True)
class DescribedExpert:
    """A model folder as an expert."""

    expert: ExpertRecord
    results: list[ResultRecord] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)  # what else its card says, for the audit
    notes: list[str] = field(default_factory=list)  # what of its card is not kept, in sentences


def read_models(root: Path) -> tuple[list[Model], list[str]]:
    """The models in a folder, and a sentence for each that cannot be an expert.

    Raises:
        InvalidRecordError: If the folder cannot be read or holds no model.
        MissingExtraError: If PyYAML is not installed.
    """
    models: dict[str, Model] = {}
    problems = []
    for name, folder in find_folders(root):
        try:
            if name in models:
                raise InvalidRecordError(f"{folder}: {models[name].folder} has the name {name} already")
            models[name] = _model(name, folder)
        except InvalidRecordError as err:
            problems.append(str(err) if str(folder) in str(err) else f"{folder}: {err}")
    return list(models.values()), problems


def _model(name: str, folder: Path) -> Model:
    """One model; ``InvalidRecordError`` if a file is missing or damaged, or no loader takes its kind."""
    checked_name("expert", name)
    facts = read_folder(folder)
    if not (folder / CARD).is_file():
        return Model(name, folder, facts, None)
    card = read_card(folder / CARD)
    if card.pipeline_tag and card.pipeline_tag not in LOADABLE:
        raise InvalidRecordError(
            f"{folder}: its card says {card.pipeline_tag[:64]!r}; expected a model of images or texts"
        )
    return Model(name, folder, facts, card)


def as_experts(models: Sequence[Model], tasks: Collection[str]) -> list[DescribedExpert]:
    """Models as experts, with the results on registered tasks that their cards report."""
    by_letters: dict[str, str] = {}
    for task in tasks:
        letters = letters_of(task)
        by_letters[letters] = (
            "" if letters in by_letters else task
        )  # two that are written alike stand for neither
    return [_expert(model, by_letters) for model in models]


def _expert(model: Model, tasks: Mapping[str, str]) -> DescribedExpert:
    """One model as an expert."""
    card, place = model.card or ModelCard(), model.folder / CARD
    source_task = _source_task(card, tasks)
    options = f"?pooling={model.facts.pooling}" if model.facts.pooling else ""
    expert = ExpertRecord(
        model.name,
        absolute_loader(f"hf:{model.folder.resolve()}{options}"),
        source_task=source_task,
        num_params=model.facts.num_params,
        input_size=model.facts.input_size,
        license=card.license,
        source_accuracy=_source_accuracy(card, source_task),
    )
    results, left = _results(model.name, card, tasks, source_task)
    notes = [*card.left_out, *left]
    if model.card is None:
        notes.append("there is no model card, so licence, datasets and results are not known")
    if card.datasets and not source_task:
        notes.append(f"{card.datasets[0]!r} cannot name a task, so the source task is not known")
    about = {
        "datasets": card.datasets,
        "base_model": card.base_models,
        "pipeline_tag": card.pipeline_tag,
        "tags": card.tags,
        "metrics": card.metrics,
    }
    said = {name: value for name, value in about.items() if value}
    return DescribedExpert(expert, results, said, [f"{place}: {note}" for note in notes])


def _source_task(card: ModelCard, tasks: Mapping[str, str]) -> str:
    """Name of the task that a model was trained on: a registered one, else the first that its card names."""
    names = [dataset.rpartition("/")[2] for dataset in card.datasets]
    for name in names:
        if task := tasks.get(letters_of(name)):
            return task
    first = names[0] if names else ""
    first = _SOURCE_TASKS.get(letters_of(first), first)
    return first if NAME_PATTERN.fullmatch(first) else ""


def _is_of(result: CardResult, task: str) -> bool:
    return letters_of(task) in map(letters_of, result.datasets)


def _source_accuracy(card: ModelCard, source_task: str) -> float | None:
    """The best accuracy that a card reports on held-out samples of the source task."""
    accuracies = [
        result.accuracy
        for result in card.results
        if result.metric == "accuracy" and _is_of(result, source_task) and not _TRAINING.match(result.split)
    ]
    return max(accuracies) if source_task and accuracies else None


def _results(
    expert: str, card: ModelCard, tasks: Mapping[str, str], source_task: str
) -> tuple[list[ResultRecord], list[str]]:
    """Results on registered tasks, each once, and sentences on those that are left."""
    results: list[ResultRecord] = []
    training: list[str] = []
    foreign: list[str] = []
    for result in card.results:
        task = next((task for name in result.datasets if (task := tasks.get(letters_of(name)))), None)
        if _TRAINING.match(result.split):
            training.append(result.datasets[0])
        elif task is None:
            if not (
                _is_of(result, source_task) and result.metric == "accuracy"
            ):  # that is kept with the expert
                foreign.append(result.datasets[0])
        else:
            split = f", {result.split}" if result.split else ""
            source = f"model card of {expert}: {result.datasets[0]}{split}"
            results.append(ResultRecord(task, expert, result.accuracy, result.metric, PROTOCOL, source=source))
    left = []
    if training:
        left.append(f"{_counted(training)}, measured on training samples")
    if foreign:
        left.append(f"{_counted(foreign)}, where no one task is registered under that name")
    distinct = {(one.task, one.metric, one.accuracy, one.source): one for one in results}
    return list(distinct.values()), left


def _counted(datasets: Sequence[str]) -> str:
    names = list(dict.fromkeys(datasets))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    count = f"{len(datasets)} result" + ("s are" if len(datasets) > 1 else " is")
    return f"{count} not stored: on {', '.join(names[:_SHOWN])}{more}"


def without_taken(
    described: Sequence[DescribedExpert], present: Mapping[str, ExpertRecord]
) -> tuple[list[DescribedExpert], list[str]]:
    """Those whose name is free or theirs already, and a sentence for each other one."""
    free, taken = [], []
    for model in described:
        registered = present.get(model.expert.name)
        if registered is None or registered.loader == model.expert.loader:
            free.append(model)
        else:
            taken.append(
                f"expert {model.expert.name} is registered already, loaded as {registered.loader}; "
                "remove it first or rename the folder"
            )
    return free, taken


def new_results(described: Sequence[DescribedExpert], present: Sequence[ResultRecord]) -> list[ResultRecord]:
    """Results that are not there: importing again adds none."""

    def key(result: ResultRecord) -> tuple[object, ...]:
        return result.task, result.expert, result.metric, result.protocol, result.accuracy, result.source

    keys = set(map(key, present))
    return [result for model in described for result in model.results if key(result) not in keys]
