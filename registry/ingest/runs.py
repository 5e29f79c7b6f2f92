"""Many embeddings at once, by an engine of the indexer: in processes, or on a cluster."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from registry.errors import IngestError, RegistryError
from registry.ingest import ingest
from registry.options import EngineOptions, OneOptions, Progress
from registry.records import SpaceRecord

if TYPE_CHECKING:
    from indexer.engines.shards import ShardedSample, Workers
    from indexer.engines.work import EngineSettings
    from indexer.networks.load import PretrainedNetwork
    from indexer.records import EmbeddingSettings, TaskEmbedding


@dataclass(frozen=True, eq=False)
class Embedded:
    """What came of one dataset.

    Attributes:
        number: Its place in the order in which data was given, from 0.
        embedding: ``None`` if there is an error.
        error: Why it could not be embedded.
        seconds: That it took.
    """

    number: int
    embedding: "TaskEmbedding | None"
    error: RegistryError | None
    seconds: float


@dataclass(frozen=True, eq=False)
class EmbeddingRun:
    """Datasets to be embedded in one space.

    Attributes:
        settings: How; of single datasets some of it may differ, but not what makes the space.
        probe: The network of the space.
        engine: Name of the engine.
        engine_settings: How much at once.
    """

    settings: "EmbeddingSettings"
    probe: "PretrainedNetwork"
    engine: str
    engine_settings: "EngineSettings"

    @property
    def space_id(self) -> str:
        """Of the embeddings to come."""
        from indexer.embed import space_of

        return space_of(self.probe, self.settings).space_id

    def space_record(self) -> SpaceRecord:
        """The space, with its trivial task measured."""
        return ingest.space_record(self.probe, self.settings)

    def settings_of(self, **changes: Any) -> "EmbeddingSettings":
        """The settings with those of one dataset in their place.

        Raises:
            IngestError: If a value is out of its range.
        """
        from dataclasses import replace

        with ingest.translated_errors():
            return replace(self.settings, **changes)

    def fingerprint(self, data: str, settings: "EmbeddingSettings") -> str:
        """Content hash of a dataset; its sample is read, and not decoded.

        Raises:
            IngestError: If the data cannot be read or makes no task.
        """
        with ingest.translated_errors():
            from indexer.data.samples import fingerprint_dataset

            return fingerprint_dataset(
                data, max_samples=settings.max_samples, seed=settings.seed, split=settings.split
            )

    def embed(self, datasets: Iterable[tuple[str, "EmbeddingSettings"]]) -> Iterator[Embedded | None]:
        """Embed datasets, as they come; ``None`` about once a second while nothing comes.

        Raises:
            IngestError: If the engine cannot work, or is asked for what it does not heed.
        """
        from indexer.engines.engines import run_works
        from indexer.engines.work import EmbedWork

        works = (EmbedWork(data, settings) for data, settings in datasets)
        with ingest.translated_errors():
            for outcome in run_works(works, self.engine, self.engine_settings):
                if outcome is None:
                    yield None
                    continue
                error = _ours(outcome.error) if outcome.error else None
                yield Embedded(outcome.number, outcome.value, error, outcome.seconds)


def make_run(settings: "EmbeddingSettings", **options: Unpack[EngineOptions]) -> EmbeddingRun:
    """Load the probe and check what is asked for, before anything is computed.

    Raises:
        IngestError: If the probe cannot be loaded, or an option is out of its range or not heeded.
        NotFoundError: If there is no such probe, estimator or engine.
    """
    with ingest.translated_errors():
        from indexer.engines.engines import DEFAULT_ENGINE, check_heeded, get_engine
        from indexer.engines.work import EngineSettings
        from indexer.fisher.estimate import get_estimator
        from indexer.networks.load import load_network

        values: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        engine = values.pop("engine", DEFAULT_ENGINE)
        if "memory_per_task" in values:
            values["memory_per_task"] = int(values["memory_per_task"])
        engine_settings = EngineSettings(**values)
        check_heeded(get_engine(engine), engine_settings)
        get_estimator(settings.estimator)
        return EmbeddingRun(settings, load_network(settings.probe), engine, engine_settings)


@dataclass(frozen=True, eq=False)
class ShardedTask(ingest.PreparedTask):
    """A dataset whose samples are with many workers, ready to be embedded."""

    sample: "ShardedSample"  # type: ignore[assignment]  # which has a description too
    workers: "Workers"

    def embed(self, progress: Progress | None = None) -> "TaskEmbedding":
        """Compute the embedding.

        Raises:
            IngestError: If the data has changed meanwhile, or workers are lost again and again.
        """
        from indexer.engines.shards import embed_shards

        with ingest.translated_errors():
            return embed_shards(self.sample, self.probe, self.settings, self.workers, progress=progress)


def prepare_one(data: str, progress: Progress | None, **options: Unpack[OneOptions]) -> ingest.PreparedTask:
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
    settings = ingest.make_settings(**given)
    if shards is None:
        if told := sorted(name for name, value in where.items() if value is not None):
            raise IngestError(
                f"{' and '.join(told)} would change nothing: one dataset is embedded in this process, unless "
                "its samples are split by shards"
            )
        return ingest.prepare_task(data, settings, progress)
    run = make_run(settings, **where)
    with ingest.translated_errors():
        from indexer.engines.shards import Workers, load_shards

        workers = Workers(shards, run.engine, run.engine_settings)
        sample = load_shards(data, run.probe, settings, workers, progress=progress)
    return ShardedTask(sample, run.probe, settings, workers)


def _ours(error: Exception) -> RegistryError:
    """An error of the indexer as one of ours."""
    try:
        with ingest.translated_errors():
            raise error
    except RegistryError as err:
        return err
    except Exception as err:
        return IngestError(str(err))
