"""The bridge to the indexer: data specs and experts become records.

The sole importer of ``indexer``, and only inside functions: torch is loaded when something is computed, not
when something is looked up. Errors of the indexer become ``IngestError`` here.

Axes: D filters of the probe.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import IngestError, NotFoundError
from registry.records import AddedTask, EmbeddingRecord, ExpertRecord, SpaceRecord, TaskRecord

if TYPE_CHECKING:
    from indexer.datasets import Sample
    from indexer.probes import NetworkDescription, PretrainedNetwork
    from indexer.records import DatasetDescription, EmbeddingSettings, ProbeResult
    from indexer.records import TaskEmbedding as TaskEmbedding  # core and the faces name it in signatures

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""

SAMPLE_FLOOR = 100
"""Below this many samples an embedding is warned about."""

SAMPLES_PER_CLASS_FLOOR = 5
"""Below this many samples a class its head is warned about."""

DATA_SUFFIXES = frozenset({".csv", ".parquet", ".npz", ".tar"})

NOT_SHIPPED = "not shipped: "
"""Start of the data specs of starter tasks, whose images are no part of this package."""

NO_PATH = "sklearn:"
"""Start of the data specs that name no path."""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    from indexer.errors import IndexerError, UnknownNameError

    try:
        yield
    except UnknownNameError as err:
        raise NotFoundError(err.kind, err.name, err.known) from err
    except IndexerError as err:
        raise IngestError(str(err)) from err


def is_there(data: str) -> bool:
    """Whether a data spec names a path that is there, or data that needs none."""
    try:
        return data.startswith(NO_PATH) or Path(data).exists()
    except OSError:  # too long to be the name of a file
        return False


def absolute_loader(loader: str) -> str:
    """A loader that means the same from every working folder."""
    architecture, at, file = loader.partition("@")
    return f"{architecture}@{Path(file).expanduser().resolve()}" if at else loader


def _absolute_data(spec: str) -> str:
    return spec if spec.startswith(NO_PATH) else str(Path(spec).resolve())


def default_probe() -> str:
    """Loader of the probe that is used unless another is asked for."""
    from indexer.records import DEFAULT_PROBE

    return DEFAULT_PROBE


def make_settings(**values: Any) -> "EmbeddingSettings":
    """Embedding settings; values of ``None`` stand for the defaults.

    Raises:
        IngestError: If a value is out of its range.
    """
    with _translated():
        from indexer.records import EmbeddingSettings

        return EmbeddingSettings(**{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True, eq=False)
class PreparedTask:
    """A sampled and decoded dataset, ready to be embedded; knows its fingerprint and its space already."""

    sample: "Sample"
    probe: "PretrainedNetwork"
    settings: "EmbeddingSettings"

    @property
    def space_id(self) -> str:
        """Of the embedding to come."""
        from indexer.embed import space_of

        return space_of(self.probe, self.settings).space_id

    @property
    def fingerprint(self) -> str:
        """Content hash of the dataset."""
        return self.sample.description.fingerprint

    @property
    def settings_key(self) -> str:
        """What the embedding depends on beside the data and the space, as one canonical string."""
        values = asdict(self.settings)
        return json.dumps({name: values[name] for name in ("max_samples", "seed", "split")}, sort_keys=True)

    def embed(self, progress: Progress | None = None) -> "TaskEmbedding":
        """Compute the embedding.

        Raises:
            IngestError: If the probe has a layer without a Fisher rule, or the device does not exist.
        """
        from indexer.embed import embed_sample

        with _translated():
            return embed_sample(self.sample, self.probe, self.settings, progress=progress)

    def space_record(self) -> SpaceRecord:
        """The space of the embedding, with its trivial task measured."""
        from indexer.embed import embed_trivial, space_of

        space = space_of(self.probe, self.settings)
        with _translated():
            trivial = embed_trivial(self.probe, self.settings)
        return SpaceRecord(
            space_id=space.space_id,
            probe=space.probe,
            description=json.dumps(asdict(space), sort_keys=True),
            probe_source=absolute_loader(self.probe.loader),
            trivial=trivial,
            domain_dim=self.probe.num_features,
        )

    def added(self, task: TaskRecord, embedding: EmbeddingRecord, *, created: bool) -> AddedTask:
        """What adding it under a name and version did."""
        dataset = self.sample.description
        return AddedTask(
            task=task.name,
            version=task.version,
            created=created,
            space=self.space_id,
            num_samples_used=embedding.num_samples_used,
            head_accuracy=embedding.head_accuracy,
            norm=embedding.norm,
            relative_error=embedding.relative_error,
            skipped_files=dataset.num_skipped,
            seconds=embedding.seconds,
            warnings=embedding_warnings(embedding.num_samples_used, dataset),
        )

    def task_record(self, name: str, version: int, tags: tuple[str, ...]) -> TaskRecord:
        """The task under a name and version."""
        dataset = self.sample.description
        return TaskRecord(
            name=name,
            version=version,
            data=_absolute_data(dataset.spec),
            num_classes=dataset.num_classes,
            num_samples=dataset.num_samples,
            class_names=dataset.class_names,
            fingerprint=dataset.fingerprint,
            settings=self.settings_key,
            tags=tags,
        )


def prepare_task(data: str, settings: "EmbeddingSettings", progress: Progress | None = None) -> PreparedTask:
    """Load the probe, then sample and decode the dataset.

    Raises:
        IngestError: If the data cannot be read or makes no task, or the probe cannot be loaded.
        NotFoundError: If there is no such probe or estimator.
    """
    with _translated():
        from indexer.embed import load_task_sample
        from indexer.probes import load_network

        probe = load_network(settings.probe)
        return PreparedTask(load_task_sample(data, probe, settings, progress=progress), probe, settings)


def embed_in_space(data: str, space: SpaceRecord, progress: Progress | None = None) -> "TaskEmbedding":
    """Embed data so that it can be compared with the tasks of a space.

    Raises:
        IngestError: If the data or the probe cannot be read, or what this package makes of them now is not of
            that space.
    """
    prepared = prepare_task(data, make_settings(probe=space.probe_source), progress)
    if prepared.space_id != space.space_id:
        raise IngestError(
            f"{data} cannot be compared with the tasks of space {space.space_id}: the weights of "
            f"{space.probe_source}, or how this version embeds, are not what those were embedded with; "
            "add the tasks again"
        )
    return prepared.embed(progress)


def embedding_record(name: str, version: int, embedding: "TaskEmbedding") -> EmbeddingRecord:
    """An embedding under the name and version of a task."""
    return EmbeddingRecord(
        task=name,
        version=version,
        fisher=embedding.fisher,
        standard_error=embedding.standard_error,
        domain=embedding.domain,
        num_samples_used=embedding.num_samples_used,
        head_accuracy=embedding.head_accuracy,
        head_loss=embedding.head_loss,
        seed=embedding.settings.seed,
        seconds=embedding.seconds,
    )


def embedding_warnings(num_samples_used: int, dataset: "DatasetDescription") -> tuple[str, ...]:
    """Sentences on what makes an embedding less sure than it looks."""
    warnings = []
    if num_samples_used < SAMPLE_FLOOR:
        warnings.append(f"only {num_samples_used} samples; below {SAMPLE_FLOOR} an embedding is a rough guess")
    elif num_samples_used < SAMPLES_PER_CLASS_FLOOR * dataset.num_classes:
        warnings.append(
            f"only {num_samples_used} samples for {dataset.num_classes} classes: the head is a rough guess"
        )
    if dataset.num_skipped:
        more = ", ..." if dataset.num_skipped > len(dataset.skipped_files) else ""
        counted = (
            "1 unreadable file was"
            if dataset.num_skipped == 1
            else f"{dataset.num_skipped} unreadable files were"
        )
        warnings.append(f"{counted} skipped: {', '.join(dataset.skipped_files)}{more}")
    return tuple(warnings)


def looks_like_data(query: str) -> bool:
    """Whether a query that names no task may be a data spec: a path that is there, or one written as such."""
    return is_there(query) or any(mark in query for mark in "/:") or Path(query).suffix in DATA_SUFFIXES


def describe_expert(name: str | None, loader: str, *, source_task: str = "", license: str = "") -> ExpertRecord:
    """Load an expert once and describe it: parameters, multiply-adds and input size are measured.

    Raises:
        IngestError: If its weights cannot be read or do not fit.
        NotFoundError: If there is no such network.
    """
    with _translated():
        from indexer.probes import count_flops, load_network

        network = load_network(loader)
        return ExpertRecord(
            name=name or network.name,
            loader=absolute_loader(loader),
            source_task=source_task,
            num_params=network.num_params,
            flops=count_flops(network),
            input_size=network.transform.crop,
            license=license,
        )


def measure_expert(
    loader: str, task: TaskRecord, *, seed: int, device: str, progress: Progress | None
) -> "ProbeResult":
    """Few-shot linear-probe accuracy of an expert on the data of a task, see ``indexer.measure``.

    Raises:
        IngestError: If the data or the expert cannot be read, or the seed is out of its range.
        NotFoundError: If there is no such network.
    """
    make_settings(seed=seed)  # a seed that embeds is one that measures, and that the store can hold
    _check_data_is_there(task)
    split = json.loads(task.settings)["split"]
    with _translated():
        from indexer.measure import measure_expert

        return measure_expert(loader, task.data, split=split, seed=seed, device=device, progress=progress)


def _check_data_is_there(task: TaskRecord) -> None:
    """Say why a task's data cannot be read in the words of the registry, where the indexer knows a path only.

    Raises:
        IngestError: If the data did not ship, or is not where it was.
    """
    if task.data.startswith(NOT_SHIPPED):
        raise IngestError(
            f"task {task.name} is starter content, whose images do not ship with this package; "
            "experts can be measured on tasks that you add"
        )
    if not is_there(task.data):
        raise IngestError(
            f"the data of task {task.name} is no longer at {task.data}; put it back, or remove the task and "
            "add it again from its new place"
        )


def list_networks() -> list["NetworkDescription"]:
    """What may be named as a probe or an expert."""
    from indexer.probes import describe_networks

    return describe_networks()
