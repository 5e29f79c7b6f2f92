"""What the recommender is measured on: results, likeness of tasks, scores; and what must be left out together.

Axes: T tasks, M experts.
"""

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np

from indexer.records import EmbeddingSettings
from registry.builtin.starter import Starter, load_starter
from registry.distances import cosine_distances, pairwise
from registry.errors import NotFoundError
from registry.ingest.prepare import embedding_record, prepare_task
from registry.ingest.tables import read_results
from registry.records import ExpertRecord, ResultRecord, TaskRecord

RELATIVE_ERROR_TABLES = {"cub_inat_50"}
IMAGES_TAG = "images."
"""Tag of a task of another task's images, before the name of that task."""
GENERALIST = "resnet14w32.tiny_imagenet"

FAMILIES = (
    {"omniglot_balinese", "omniglot_korean", "omniglot_latin", "hiragana"},
    {"pacs_art", "pacs_photo", "pacs_sketch"},
    {"mnist", "thai_digits"},
    {"fer2013", "ck_expressions", "face_masks"},
    {"asl_letters", "sign_digits"},
    {"caltech101", "cats_dogs", "cifar10", "natural_images"},
    {"magnetic_tile", "neu_defects"},
    {"brain_tumor", "breast_ultrasound"},
)
"""Image sets that show the same things; any other is a family of its own."""

SAME_QUESTION = {
    "pacs_objects": {"pacs_art", "pacs_photo", "pacs_sketch"},
    "digits_values": {"mnist", "thai_digits", "sign_digits"},
}
"""Tasks that hold the samples of others with the same labels: they are left out together."""

DEVELOPMENT = {
    "ants_bees",
    "blood_cells",
    "cats_dogs",
    "clothing",
    "fer2013",
    "flowers5",
    "neu_defects",
    "omniglot_latin",
    "pacs_photo",
    "rsscn7",
    "thai_digits",
    "trashnet",
}
"""Image sets whose tasks everything was chosen on; what is reported is of the others."""


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """Results and what is known beside them.

    Attributes:
        tasks: Names.
        experts: Names.
        accuracy: ``[T, M]``, NaN where there is no result or the expert has seen the images.
        likeness: Distances ``[T, T]`` by descriptor; empty of published tables.
        source: Distances ``[M, T]`` from each expert's source, by descriptor.
        sizes: ``[M]`` parameters, or ``None``.
        scores: ``[T, M]`` by name, NaN where not scored.
        images: Image sets of each task.
        relative_error: Whether regret is given as the increase of the least error.
        own: Tasks of the user's own, if there are any.
    """

    tasks: list[str]
    experts: list[str]
    accuracy: np.ndarray
    likeness: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    source: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sizes: np.ndarray | None = None
    scores: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    images: list[set[str]] = dataclasses.field(default_factory=list)
    relative_error: bool = False
    own: frozenset[str] = frozenset()

    def without_task(self, task: int) -> np.ndarray:
        """Rows that may be learnt from: all but the task, and those that ask the same of its images."""
        names = {self.tasks[task], *SAME_QUESTION.get(self.tasks[task], ())}
        names |= {name for name, parts in SAME_QUESTION.items() if self.tasks[task] in parts}
        return np.flatnonzero([name not in names for name in self.tasks])

    def without_family(self, task: int) -> np.ndarray:
        """Rows that share neither images nor what they show with the task."""
        family = _family(self.images[task])
        return np.flatnonzero([not family & _family(images) for images in self.images])

    def is_reported(self, task: int) -> bool:
        """Whether it is one of the user's own or, if there are none, nothing was chosen on its images alone."""
        return self.tasks[task] in self.own if self.own else not self.images[task] <= DEVELOPMENT

    def is_relabelled(self, task: int) -> bool:
        """Whether there are other tasks of its images."""
        return self.images[task] != {self.tasks[task]}


def images_of(task: TaskRecord) -> set[str]:
    """Names of the tasks whose images it has; its own, unless it was made of others."""
    return {tag.removeprefix(IMAGES_TAG) for tag in task.tags if tag.startswith(IMAGES_TAG)} or {task.name}


def _family(images: Iterable[str]) -> set[str]:
    found = set(images)
    for family in FAMILIES:
        if found & family:
            found |= family
    return found


def read_table(path: Path) -> World:
    """A published table; an expert named as a task was trained on it."""
    with path.open(newline="", encoding="utf-8") as file:
        results = {(row["task"], row["expert"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    tasks, experts = sorted({task for task, _ in results}), sorted({expert for _, expert in results})
    nan = float("nan")
    accuracy = np.array([[nan if t == e else results.get((t, e), nan) for e in experts] for t in tasks])
    images = [{task} for task in tasks]
    return World(tasks, experts, accuracy, images=images, relative_error=path.stem in RELATIVE_ERROR_TABLES)


def read_starters(
    folders: Iterable[Path], scores: Iterable[Path] = (), own: tuple[Path, Path] | None = None
) -> World:
    """Starter content and benchmarks of its form, in one; their experts are those of all.

    Args:
        folders: Of starter content.
        scores: Files of ``measure_scores.py``.
        own: A folder of datasets, and a CSV of results on them: tasks that no folder has.
    """
    starters = [load_starter(folder) for folder in folders]
    starters += [own_tasks(*own, starters[0])] if own else []
    tasks = [task for starter in starters for task in starter.tasks]
    names = [task.name for task in tasks]
    experts = {expert.name: expert for starter in starters for expert in starter.experts}
    order = sorted(experts)
    results = {(r.task, r.expert): r.accuracy for starter in starters for r in starter.results}
    accuracy = np.array([[results.get((name, it), np.nan) for it in order] for name in names])
    likeness, directed = _likeness(starters)
    places = [names.index(experts[it].source_task) if experts[it].source_task in names else -1 for it in order]
    source = {name: _from_sources(d, places) for name, d in {**likeness, "asymmetric": directed}.items()}
    return World(
        tasks=names,
        experts=order,
        accuracy=accuracy,
        likeness=likeness,
        source=source,
        sizes=np.array([experts[it].num_params or 0 for it in order], dtype=np.float64),
        scores=_read_scores(scores, names, order),
        images=[images_of(task) for task in tasks],
        own=frozenset(task.name for task in starters[-1].tasks) if own else frozenset(),
    )


def own_tasks(data: Path, results: Path, known: Starter) -> Starter:
    """Embed every folder in ``data``, and read results on them: columns task, expert and accuracy.

    Raises:
        ClickException: If a result cannot be read, or embeddings are not those of the benchmark.
    """
    settings = EmbeddingSettings()
    tasks, embeddings = [], []
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        prepared = prepare_task(str(folder), settings)
        if prepared.space_id != known.space.space_id:
            raise click.ClickException(f"{folder}: embeddings of this version are not those of the benchmark")
        tasks.append(prepared.task_record(folder.name, 1, ()))
        embeddings.append(embedding_record(folder.name, 1, prepared.embed()))
    names = {task.name for task in tasks}
    measured, bad = read_results(results, lambda result: check_known(result, names))
    if bad:
        raise click.ClickException(f"{results}: {bad[0]}")
    unknown = {result.expert for result in measured} - {expert.name for expert in known.experts}
    experts = tuple(ExpertRecord(name, name) for name in sorted(unknown))
    return Starter(known.space, tuple(tasks), tuple(embeddings), experts, tuple(measured))


def check_known(result: ResultRecord, tasks: set[str]) -> None:
    """Refuse a result on a task that has no folder.

    Raises:
        NotFoundError: If it has none.
    """
    if result.task not in tasks:
        raise NotFoundError("task", result.task, tasks)


def _likeness(starters: list[Starter]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    embeddings = [embedding for starter in starters for embedding in starter.embeddings]
    fisher = np.stack([embedding.fisher for embedding in embeddings])
    domain = np.stack([embedding.domain for embedding in embeddings])
    directed = pairwise("task2vec_asymmetric", fisher, fisher, trivial=starters[0].space.trivial)
    return {
        "task2vec": pairwise("task2vec", fisher, fisher),
        "root_ratio": pairwise("root_ratio", fisher, fisher),
        "domain": cosine_distances(domain, domain),
    }, directed


def _from_sources(distances: np.ndarray, places: list[int]) -> np.ndarray:
    unknown = np.full(len(distances), np.nan)
    return np.array([unknown if place < 0 else distances[place] for place in places])


def _read_scores(paths: Iterable[Path], tasks: list[str], experts: list[str]) -> dict[str, np.ndarray]:
    place_of = {name: place for place, name in enumerate(tasks)}
    column_of = {name: column for column, name in enumerate(experts)}
    scores: dict[str, np.ndarray] = {}
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                task, expert = row.pop("task"), row.pop("expert")
                if task not in place_of or expert not in column_of:
                    continue
                for name, value in row.items():
                    table = scores.setdefault(name, np.full((len(tasks), len(experts)), np.nan))
                    table[place_of[task], column_of[expert]] = float(value) if value else np.nan
    return scores
