"""Datasets become embeddings, in this process or in shards, and embeddings become records and warnings.

Axes: D filters of the probe, C classes, T targets.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Unpack

from registry.errors import IngestError
from registry.ingest.data import (
    NORM_POOLING,
    absolute_data,
    absolute_loader,
    head_metric,
    make_settings,
    refuse_missing,
    settings_key,
    translated_errors,
)
from registry.ingest.runs import make_run
from registry.options import DataOptions, EngineOptions, OneOptions, Progress
from registry.records import EmbeddingRecord, SpaceRecord, TaskRecord
from registry.task_answers import AddedTask
from registry.wording import counted

if TYPE_CHECKING:
    from indexer.data.samples import Sample
    from indexer.engines.shards import ShardedSample, Workers
    from indexer.networks.run import PretrainedNetwork
    from indexer.records import ContactSheet, DatasetDescription, EmbeddingSettings
    from indexer.records import (
        TaskEmbedding as TaskEmbedding,  # the library and the faces name it in signatures
    )


@dataclass(frozen=True, eq=False)
class PreparedTask:
    """A sampled and decoded dataset, ready to be embedded; knows its fingerprint and its space already."""

    sample: "Sample"
    probe: "PretrainedNetwork"
    settings: "EmbeddingSettings"

    @property
    def space_id(self) -> str:
        """Id of the space that it will be embedded in."""
        from indexer.embed import space_of

        return space_of(self.probe, self.settings).space_id

    @property
    def fingerprint(self) -> str:
        """Content hash of the dataset."""
        return self.sample.description.fingerprint

    @property
    def settings_key(self) -> str:
        """What the embedding depends on beside the data and the space, as one canonical string."""
        return settings_key(self.settings)

    def embed(self, progress: Progress | None = None) -> "TaskEmbedding":
        """Compute the embedding.

        Raises:
            IngestError: If the probe has a layer without a Fisher rule, or the device does not exist.
        """
        from indexer.embed import embed_sample

        with translated_errors():
            return embed_sample(self.sample, self.probe, self.settings, progress=progress)

    def sheet(self) -> "ContactSheet | None":
        """A few samples as a picture, without embedding; ``None`` where the samples are not at hand."""
        from indexer.data.sampling import contact_sheet

        sample = self.sample
        return contact_sheet(sample.description, sample.labels, self.settings.seed, sample.inputs.__getitem__)

    def space_record(self) -> SpaceRecord:
        """The space of the embedding, with its trivial task measured."""
        return space_record(self.probe, self.settings)

    def task_record(self, name: str, version: int, tags: tuple[str, ...]) -> TaskRecord:
        """The dataset as a task under a name and version."""
        return task_record(self.sample.description, self.settings, name, version, tags)

    def added(
        self,
        task: TaskRecord,
        embedding: EmbeddingRecord,
        *,
        created: bool,
        fallbacks: Sequence[str] = (),
        notes: tuple[str, ...] = (),
    ) -> AddedTask:
        """What adding the task under a name and version did; ``fallbacks`` are those of ``TaskEmbedding``."""
        dataset = self.sample.description
        return AddedTask(
            task=task.name,
            version=task.version,
            created=created,
            kind=task.kind,
            space=self.space_id,
            num_samples_drawn=task.num_samples_drawn,
            num_samples_used=embedding.num_samples_used,
            tolerance=self.settings.tolerance,
            head_metric=head_metric(task.kind),
            head_accuracy=embedding.head_accuracy,
            norm=embedding.norm,
            relative_error=embedding.relative_error,
            skipped_files=dataset.num_skipped,
            seconds=embedding.seconds,
            num_samples=dataset.num_samples,
            class_names=dataset.class_names,
            class_sizes=dataset.class_sizes,
            taken=dataset.taken,
            passed_over=dict(dataset.passed_over),
            warnings=embedding_warnings(
                embedding,
                dataset,
                max_samples=self.settings.max_samples,
                tolerance=self.settings.tolerance,
                fallbacks=fallbacks,
            ),
            notes=notes,
        )


@dataclass(frozen=True, eq=False)
class ShardedTask(PreparedTask):
    """A dataset whose samples are with many workers, ready to be embedded."""

    sample: "ShardedSample"  # type: ignore[assignment]  # which has a description too
    workers: "Workers"

    def sheet(self) -> None:
        """None: the samples are with the workers."""

    def embed(self, progress: Progress | None = None) -> "TaskEmbedding":
        """Compute the embedding.

        Raises:
            IngestError: If the data has changed meanwhile, or workers are lost again and again.
        """
        from indexer.engines.shards import embed_shards

        with translated_errors():
            return embed_shards(self.sample, self.probe, self.settings, self.workers, progress=progress)


def prepare_task(data: str, settings: "EmbeddingSettings", progress: Progress | None = None) -> PreparedTask:
    """Load the probe, then sample and decode the dataset.

    Raises:
        IngestError: If the data cannot be read or makes no task, or the probe cannot be loaded.
        NotFoundError: If there is no such probe or estimator.
    """
    refuse_missing(data)
    with translated_errors():
        from indexer.embed import load_task_sample
        from indexer.fisher.estimate import get_estimator
        from indexer.networks.load import load_network

        get_estimator(settings.estimator)  # whether there is one is known before the images are decoded
        probe = load_network(settings.probe)
        return PreparedTask(load_task_sample(data, probe, settings, progress=progress), probe, settings)


def prepare_one(data: str, progress: Progress | None, **options: Unpack[OneOptions]) -> PreparedTask:
    """Sample and decode a dataset, here or, if there are shards, by workers.

    Raises:
        IngestError: If the data cannot be read or makes no task, the probe cannot be loaded, or an option is
            out of its range or would change nothing.
        NotFoundError: If there is no such probe, estimator or engine.
        MissingExtraError: If the engine needs a library that is not installed.
    """
    given: dict[str, Any] = dict(options)
    shards = given.pop("shards", None)
    where = {name: given.pop(name) for name in EngineOptions.__annotations__ if name in given}
    settings = make_settings(**given)
    if shards is None:
        if useless := sorted(name for name, value in where.items() if value is not None):
            raise IngestError(
                f"{' and '.join(useless)} would change nothing: one dataset is embedded in this process, "
                "unless its samples are split by shards"
            )
        return prepare_task(data, settings, progress)
    run = make_run(settings, **where)
    with translated_errors():
        from indexer.engines.shards import Workers, load_shards

        workers = Workers(shards, run.engine, run.engine_settings)
        sample = load_shards(data, run.probe, settings, workers, progress=progress)
    return ShardedTask(sample, run.probe, settings, workers)


def embed_in_space(
    data: str, space: SpaceRecord, progress: Progress | None = None, **options: Unpack[DataOptions]
) -> "TaskEmbedding":
    """Embed data so that it can be compared with the tasks of a space.

    Raises:
        IngestError: If the data or the probe cannot be read, or what this package makes of them now is not of
            that space.
        NotFoundError: If there is no such estimator any more.
    """
    estimator, pooling = space.recipe
    settings = make_settings(
        probe=space.probe_source, estimator=estimator or None, norm_weights=pooling == NORM_POOLING, **options
    )
    prepared = prepare_task(data, settings, progress)
    if prepared.space_id != space.space_id:
        raise IngestError(
            f"{data} cannot be compared with the tasks of space {space.space_id}: the weights of "
            f"{space.probe_source}, or how this version embeds, are not what those were embedded with; "
            "add the tasks again"
        )
    return prepared.embed(progress)


def space_record(probe: "PretrainedNetwork", settings: "EmbeddingSettings") -> SpaceRecord:
    """The space of a probe's embeddings, with its trivial task measured."""
    from indexer.embed import embed_trivial, space_of

    space = space_of(probe, settings)
    with translated_errors():
        trivial = embed_trivial(probe, settings)
    return SpaceRecord(
        space_id=space.space_id,
        probe=space.probe,
        description=json.dumps(asdict(space), sort_keys=True),
        probe_source=absolute_loader(probe.loader),
        trivial=trivial,
        domain_dim=probe.num_features,
    )


def task_record(
    dataset: "DatasetDescription", settings: "EmbeddingSettings", name: str, version: int, tags: tuple[str, ...]
) -> TaskRecord:
    """A dataset as a task under a name and version."""
    return TaskRecord(
        name=name,
        version=version,
        data=absolute_data(dataset.spec),
        num_classes=dataset.num_classes,
        num_samples=dataset.num_samples,
        class_names=dataset.class_names,
        fingerprint=dataset.fingerprint,
        settings=settings_key(settings),
        tags=tags,
        kind=dataset.kind,
    )


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


SAMPLE_FLOOR = 100
"""Below this many samples an embedding is warned about."""

SAMPLES_PER_CLASS_FLOOR = 5
"""Below this many samples a class or label the head is warned about."""

IMBALANCE_FLOOR = 10
"""From this ratio of the largest class to the smallest on, imbalance is warned about."""

NUM_LAYERS_NAMED = 3

EXPECTED_REASONS = frozenset({"hidden", "mask", "split unlabelled"})
"""Why files are passed over of which a layout has many, see ``indexer.data.folders``."""


def embedding_warnings(
    embedding: EmbeddingRecord,
    dataset: "DatasetDescription",
    *,
    max_samples: int,
    tolerance: float | None = None,
    fallbacks: Sequence[str] = (),
) -> tuple[str, ...]:
    """Sentences on what makes an embedding less sure than it looks."""
    return (
        *_of_few_samples(embedding, dataset, max_samples),
        *_of_tolerance(embedding, dataset, max_samples, tolerance),
        *_of_imbalance(dataset),
        *_of_passed_over(dataset),
        *_of_skipped_files(dataset),
        *_of_copies(dataset, max_samples),
        *_of_fallbacks(fallbacks),
    )


def _of_few_samples(
    embedding: EmbeddingRecord, dataset: "DatasetDescription", max_samples: int
) -> Iterator[str]:
    """The head learns from all samples that were drawn, also where a tolerance stopped the embedding before."""
    used = embedding.num_samples_used
    learned = min(dataset.num_samples, max_samples) - dataset.num_skipped
    if used < SAMPLE_FLOOR:
        yield f"only {used} samples; below {SAMPLE_FLOOR} an embedding is a rough guess"
    elif dataset.kind != "regression" and learned < SAMPLES_PER_CLASS_FLOOR * dataset.num_classes:
        many = "classes" if dataset.kind == "single_label" else "labels"
        yield f"only {learned} samples for {dataset.num_classes} {many}: the head is a rough guess"


def _of_tolerance(
    embedding: EmbeddingRecord, dataset: "DatasetDescription", max_samples: int, tolerance: float | None
) -> Iterator[str]:
    error = embedding.relative_error
    if tolerance is None or error < tolerance:
        return
    some_left = dataset.num_samples > max_samples
    why = f"max_samples is {max_samples}" if some_left else "there are no more samples"
    yield f"relative error {error:.3g} is above the tolerance {tolerance:g} asked for: {why}"


def _of_imbalance(dataset: "DatasetDescription") -> Iterator[str]:
    sizes = dataset.class_sizes
    if not sizes or max(sizes) < IMBALANCE_FLOOR * min(sizes):
        return
    one, many = ("class", "classes") if dataset.kind == "single_label" else ("label", "labels")
    yield (
        f"{one} sizes run from {min(sizes)} to {max(sizes)} samples: the sample is as even as they allow, and "
        f"{many} weigh the same in the head and in its score"
    )


def _of_passed_over(dataset: "DatasetDescription") -> Iterator[str]:
    counts = {reason: count for reason, count in dataset.passed_over if reason not in EXPECTED_REASONS}
    if 10 * (count := sum(counts.values())) > count + dataset.num_samples:
        yield f"more than a tenth of the files were passed over: {counted(counts)}"


def _of_skipped_files(dataset: "DatasetDescription") -> Iterator[str]:
    if count := dataset.num_skipped:
        counted = "1 unreadable file was" if count == 1 else f"{count} unreadable files were"
        yield f"{counted} skipped: {dataset.skipped_why}"


def _of_copies(dataset: "DatasetDescription", max_samples: int) -> Iterator[str]:
    drawn = min(dataset.num_samples, max_samples) - dataset.num_skipped
    if 2 * dataset.num_alike > drawn:
        yield f"{dataset.num_alike} of the {drawn} samples are the same, byte for byte: little can be learned"


def _of_fallbacks(fallbacks: Sequence[str]) -> Iterator[str]:
    if len(fallbacks) == 1:
        yield f"the probe's layer {fallbacks[0]} has no rule of its own and took a slow exact route"
    elif fallbacks:
        named = ", ".join(fallbacks[:NUM_LAYERS_NAMED])
        more = ", ..." if len(fallbacks) > NUM_LAYERS_NAMED else ""
        yield (
            f"{len(fallbacks)} layers of the probe have no rule of their own and took a slow exact route: "
            f"{named}{more}"
        )
