"""Many embeddings at once, by an engine of the indexer: in processes, or on a cluster."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from registry.errors import IngestError, RegistryError
from registry.ingest.data import translated_errors
from registry.options import EngineOptions

if TYPE_CHECKING:
    from indexer.engines.work import EngineSettings
    from indexer.networks.run import PretrainedNetwork
    from indexer.records import EmbeddingSettings, TaskEmbedding


@dataclass(frozen=True, eq=False)
class Embedded:
    """The outcome of one dataset."""

    number: int
    embedding: "TaskEmbedding | None"
    error: RegistryError | None
    seconds: float


@dataclass(frozen=True, eq=False)
class EmbeddingRun:
    """Datasets to be embedded in one space."""

    settings: "EmbeddingSettings"  # how to embed; single datasets may have others, but for what makes the space
    probe: "PretrainedNetwork"
    engine: str
    engine_settings: "EngineSettings"

    @property
    def space_id(self) -> str:
        """Id of the space that datasets are embedded in."""
        from indexer.embed import space_of

        return space_of(self.probe, self.settings).space_id

    def settings_of(self, **changes: Any) -> "EmbeddingSettings":
        """The settings of the run with some replaced for one dataset."""
        from dataclasses import replace

        with translated_errors():
            return replace(self.settings, **changes)

    def fingerprint(self, data: str, settings: "EmbeddingSettings") -> str:
        """Content hash of a dataset; its sample is read, and not decoded."""
        with translated_errors():
            from indexer.data.samples import fingerprint_dataset

            return fingerprint_dataset(data, settings)

    def embed(self, datasets: Iterable[tuple[str, "EmbeddingSettings"]]) -> Iterator[Embedded | None]:
        """Embed datasets, as they come; ``None`` about once a second while nothing comes.

        Raises:
            IngestError: If the engine cannot work, or is asked for what it does not heed.
        """
        from indexer.engines.engines import run_works
        from indexer.engines.work import EmbedWork

        works = (EmbedWork(data, settings) for data, settings in datasets)
        with translated_errors():
            for outcome in run_works(works, self.engine, self.engine_settings):
                if outcome is None:
                    yield None
                    continue
                error = _translated(outcome.error) if outcome.error else None
                yield Embedded(outcome.number, outcome.value, error, outcome.seconds)


def make_run(settings: "EmbeddingSettings", **options: Unpack[EngineOptions]) -> EmbeddingRun:
    """Load the probe and check what is asked for, before anything is computed.

    Raises:
        IngestError: If the probe cannot be loaded, or an option is out of its range or not heeded.
        NotFoundError: If there is no such probe, estimator or engine.
    """
    with translated_errors():
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


def _translated(error: Exception) -> RegistryError:
    """An error of the indexer as one of the registry."""
    try:
        with translated_errors():
            raise error
    except RegistryError as err:
        return err
    except Exception as err:
        return IngestError(str(err))
