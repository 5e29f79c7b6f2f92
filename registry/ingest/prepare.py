"""Datasets become embeddings, in this process or in shards, and embeddings become records.

Axes: D filters of the probe.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Unpack

from registry.errors import IngestError
from registry.ingest.cautions import embedding_warnings
from registry.ingest.data import absolute_data, absolute_loader
from registry.ingest.runs import make_run
from registry.ingest.translate import (
    NORM_POOLING,
    head_metric,
    make_settings,
    settings_key,
    translated_errors,
)
from registry.options import DataOptions, EngineOptions, OneOptions, Progress
from registry.records import EmbeddingRecord, SpaceRecord, TaskRecord
from registry.task_answers import AddedTask

if TYPE_CHECKING:
    from indexer.data.samples import Sample
    from indexer.engines.shards import ShardedSample, Workers
    from indexer.networks.load import PretrainedNetwork
    from indexer.records import DatasetDescription, EmbeddingSettings
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
        probe=space.probe_source,
        estimator=estimator or None,
        norm_weights=pooling == NORM_POOLING,
        **options,
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
    dataset: "DatasetDescription",
    settings: "EmbeddingSettings",
    name: str,
    version: int,
    tags: tuple[str, ...],
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
