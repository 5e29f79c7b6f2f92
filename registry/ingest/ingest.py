"""The bridge to the indexer: data specs become records, experts are measured.

With ``embedding_runs``, ``expert_sources`` and ``trial_runs`` the sole importer of ``indexer``, and only inside
functions: torch is loaded when something is computed, not when something is looked up. Errors of the indexer
become ``IngestError`` here.

Axes: D filters of the probe.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from registry.answers import AddedTask
from registry.cautions import embedding_warnings
from registry.errors import IngestError, MissingExtraError, NotFoundError
from registry.options import DataOptions, EmbeddingOptions, Progress
from registry.records import EmbeddingRecord, Kind, SpaceRecord, TaskRecord

if TYPE_CHECKING:
    from indexer.data.samples import Sample
    from indexer.fisher.costs import ProbeCosts
    from indexer.fisher.estimate import Estimator
    from indexer.networks.load import NetworkDescription, PretrainedNetwork
    from indexer.records import DatasetDescription, EmbeddingSettings, ProbeResult
    from indexer.records import TaskEmbedding as TaskEmbedding  # core and the faces name it in signatures

DATA_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet", ".npz", ".tar"})

NOT_SHIPPED = "not shipped: "
"""Start of the data specs of starter tasks, whose images are no part of this package."""

NO_PATH = "sklearn:"
"""Start of the data specs that name no path."""

HUB_DATA = "hf-data:"
"""Start of the data specs that the library datasets loads."""

POOLING, NORM_POOLING = "filter_mean", "filter_mean+norm"
"""Of spaces without and with the affine weights of normalisation layers, see ``indexer.records.Space``."""

KEY_SETTINGS = ("max_samples", "seed", "split")
"""What every task remembers of its settings."""

KEY_SETTINGS_IF_CHANGED = ("channels", "value_range", "tolerance")
"""What a task remembers only if it is not the default: the settings of tasks that were added before these
existed must stay what they are, byte by byte."""


READING_SETTINGS = ("split", "channels", "value_range")
"""Those of both that say which images there are and what they look like."""


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Make errors of the indexer ours.

    Raises:
        NotFoundError: In place of its ``UnknownNameError``.
        MissingExtraError: In place of its ``MissingLibraryError``.
        IngestError: In place of any other.
    """
    from indexer.errors import IndexerError, MissingLibraryError, UnknownNameError

    try:
        yield
    except UnknownNameError as err:
        raise NotFoundError(err.kind, err.name, err.known) from err
    except MissingLibraryError as err:
        raise MissingExtraError(err.what, err.library, err.extra) from err
    except IndexerError as err:
        raise IngestError(str(err)) from err


def is_there(data: str) -> bool:
    """Whether a data spec names a path that is there, or data that needs none."""
    try:
        if _is_composed(data):
            from indexer.data import specs

            return specs.is_there(data)
        return data.startswith(NO_PATH) or Path(data).exists()
    except OSError:  # too long to be the name of a file
        return False


def absolute_loader(loader: str) -> str:
    """A loader that means the same from every working folder, see ``indexer.networks.loaders``.

    Raises:
        NotFoundError: If there is no such kind of loader.
    """
    from indexer.networks import loaders

    with translated_errors():
        return loaders.absolute_loader(loader)


def meant_loader(loader: str, registered: Sequence[str]) -> str:
    """The registered loader that another means, which says less of how texts are read; else its absolute form.

    Raises:
        NotFoundError: If there is no such kind of loader.
        IngestError: If what it says of texts is not understood.
    """
    from indexer.networks import loaders

    with translated_errors():
        asked = loaders.absolute_loader(loader)
        meant = {known for known in registered if takes_texts(known) and loaders.is_meant(asked, known)}
    return asked if asked in registered or len(meant) != 1 else meant.pop()


def takes_texts(loader: str) -> bool:
    """Whether a registered network is a text encoder, as its loader says."""
    if not loader.startswith("hf:"):
        return False
    from indexer.networks import loaders

    return loaders.takes_texts(loader)


def _absolute_data(spec: str) -> str:
    if spec.startswith(NO_PATH):
        return spec
    if _is_composed(spec):
        from indexer.data import specs

        with translated_errors():
            return specs.absolute_spec(spec)
    return str(Path(spec).resolve())


def _is_composed(spec: str) -> bool:
    """Whether a data spec is more than a path: several tars, or what a library loads."""
    return spec.startswith(HUB_DATA) or ("{" in spec and spec.endswith(".tar") and not Path(spec).exists())


def default_probe() -> str:
    """Loader of the probe that is used unless another is asked for."""
    from indexer.records import DEFAULT_PROBE

    return DEFAULT_PROBE


def default_recipe() -> tuple[str, str]:
    """Estimator and pooling of the space that tasks are embedded in unless another is asked for."""
    return make_settings().estimator, POOLING


def head_metric(kind: Kind) -> str:
    """What the head of a task of that kind is scored by, in words."""
    from indexer.records import HEAD_METRICS

    return HEAD_METRICS[kind]


def make_settings(**options: Unpack[EmbeddingOptions]) -> "EmbeddingSettings":
    """Embedding settings; options of ``None`` stand for the defaults.

    Raises:
        IngestError: If a value is out of its range.
    """
    values: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "value_range" in values:  # whole numbers mean the same, and must make the same settings
        values["value_range"] = tuple(map(float, values["value_range"]))
    if "memory_budget" in values:
        values["memory_budget"] = int(values["memory_budget"])
    with translated_errors():
        from indexer.records import EmbeddingSettings

        return EmbeddingSettings(**values)


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

    def added(
        self, task: TaskRecord, embedding: EmbeddingRecord, *, created: bool, fallbacks: Sequence[str] = ()
    ) -> AddedTask:
        """What adding it under a name and version did; ``fallbacks`` as of ``TaskEmbedding``."""
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
            warnings=embedding_warnings(
                embedding,
                dataset,
                max_samples=self.settings.max_samples,
                tolerance=self.settings.tolerance,
                fallbacks=fallbacks,
            ),
        )

    def task_record(self, name: str, version: int, tags: tuple[str, ...]) -> TaskRecord:
        """The task under a name and version."""
        return task_record(self.sample.description, self.settings, name, version, tags)


def settings_key(settings: "EmbeddingSettings") -> str:
    """What an embedding depends on beside the data and the space, as one canonical string."""
    values, defaults = asdict(settings), asdict(make_settings())
    changed = [name for name in KEY_SETTINGS_IF_CHANGED if values[name] != defaults[name]]
    return json.dumps({name: values[name] for name in (*KEY_SETTINGS, *changed)}, sort_keys=True)


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
        data=_absolute_data(dataset.spec),
        num_classes=dataset.num_classes,
        num_samples=dataset.num_samples,
        class_names=dataset.class_names,
        fingerprint=dataset.fingerprint,
        settings=settings_key(settings),
        tags=tags,
        kind=dataset.kind,
    )


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


def looks_like_data(query: str) -> bool:
    """Whether a query that names no task may be a data spec: a path that is there, or one written as such."""
    return is_there(query) or any(mark in query for mark in "/:") or Path(query).suffix in DATA_SUFFIXES


def image_suffixes() -> tuple[str, ...]:
    """Ends of the names of image files, in lower case."""
    from indexer.data.images import IMAGE_SUFFIXES

    return IMAGE_SUFFIXES


def split_names() -> frozenset[str]:
    """Names of folders that are splits, in lower case."""
    from indexer.data.listings import SPLIT_NAMES

    return SPLIT_NAMES


def image_pixels(content: bytes) -> int:
    """Number of pixels that a file of an image announces; none is decoded.

    Raises:
        IngestError: If it is no image.
    """
    from indexer.data.images import UnreadableImageError, count_pixels

    try:
        return count_pixels(content)
    except UnreadableImageError as err:
        raise IngestError(str(err)) from err


def check_image(content: bytes) -> None:
    """Decode an image, as embedding it does.

    Raises:
        IngestError: If that is not possible.
    """
    from indexer.data.images import UnreadableImageError, decode_image

    try:
        decode_image(content)
    except UnreadableImageError as err:
        raise IngestError(str(err)) from err


def measure_expert(
    loader: str, task: TaskRecord, *, seed: int, device: str, progress: Progress | None
) -> "ProbeResult":
    """Few-shot linear-probe accuracy of an expert on the data of a task, see ``indexer.experts.few_shot``.

    Raises:
        IngestError: If the data or the expert cannot be read, or the seed is out of its range.
        NotFoundError: If there is no such network.
    """
    make_settings(seed=seed)  # a seed that embeds is one that measures, and that the store can hold
    check_data_is_there(task)
    how = reading_options(task)
    with translated_errors():
        from indexer.experts.few_shot import measure_expert

        return measure_expert(loader, task.data, **how, seed=seed, device=device, progress=progress)


def reading_options(task: TaskRecord) -> dict[str, Any]:
    """How the images of a registered task are read, as far as that was said when it was registered."""
    how = {name: value for name, value in task.asked.items() if name in READING_SETTINGS}
    if how.get("value_range") is not None:
        how["value_range"] = tuple(how["value_range"])
    return how


def check_data_is_there(task: TaskRecord) -> None:
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
    from indexer.networks.load import describe_networks

    return describe_networks()


@dataclass(frozen=True, eq=False)
class ProbeDescription:
    """A network as a probe.

    Attributes:
        network: As it was loaded.
        flops: Multiply-adds of its body for one image.
        dim: D, without the weights of normalisation layers.
        memory_budget: Bytes, of the costs.
        costs: What each layer costs, if that was asked for.
    """

    network: "PretrainedNetwork"
    flops: int
    dim: int
    memory_budget: int
    costs: "ProbeCosts | None"


def describe_probe(loader: str, *, costs: bool = False, memory_budget: float | None = None) -> ProbeDescription:
    """Load a network and say what it is and, if asked for, what embedding with it costs.

    Raises:
        IngestError: If its weights cannot be read, or the memory budget is out of its range.
        NotFoundError: If there is no such network.
    """
    budget = make_settings(memory_budget=memory_budget).memory_budget
    with translated_errors():
        from indexer.fisher.costs import probe_costs
        from indexer.fisher.square_grads import SquareGrads
        from indexer.networks.load import count_flops, load_network

        network = load_network(loader)
        with SquareGrads(network.body) as square_grads:
            dim = square_grads.dim
        found = probe_costs(network, memory_budget=budget) if costs else None
        return ProbeDescription(network, count_flops(network), dim, budget, found)


def list_estimators() -> list["Estimator"]:
    """The estimators of Fisher information, in the order of their catalogue."""
    from indexer.fisher.estimate import ESTIMATORS

    return list(ESTIMATORS.values())


def probe_layers(space: SpaceRecord) -> tuple[tuple[str, int], ...]:
    """Names and numbers of filters of the layers of a space, in order of its embeddings; loads the probe.

    Raises:
        IngestError: If its weights cannot be read.
        NotFoundError: If there is no such network any more.
    """
    with translated_errors():
        from indexer.fisher.square_grads import SquareGrads
        from indexer.networks.load import load_network

        network = load_network(space.probe_source)
        with SquareGrads(network.body, norm_weights=space.recipe[1] == NORM_POOLING) as square_grads:
            return tuple((name, part.stop - part.start) for name, part in square_grads.slices.items())
