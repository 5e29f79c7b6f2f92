"""What the indexer knows of networks, estimators and images, and what it measures of an expert.

Axes: D filters of the probe.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from registry.errors import IngestError
from registry.ingest.data import (
    NORM_POOLING,
    check_data_is_there,
    make_settings,
    reading_options,
    translated_errors,
)
from registry.options import Progress
from registry.records import Kind, SpaceRecord, TaskRecord

if TYPE_CHECKING:
    from indexer.fisher.costs import ProbeCosts
    from indexer.fisher.estimate import Estimator
    from indexer.networks.load import NetworkDescription
    from indexer.networks.run import PretrainedNetwork
    from indexer.records import ProbeResult


def list_networks() -> list["NetworkDescription"]:
    """The networks that may be named as a probe or an expert."""
    from indexer.networks.load import describe_networks

    return describe_networks()


def list_estimators() -> list["Estimator"]:
    """The estimators of Fisher information, in the order of their catalogue."""
    from indexer.fisher.estimate import ESTIMATORS

    return list(ESTIMATORS.values())


@dataclass(frozen=True, eq=False)
class ProbeDescription:
    """A network as a probe."""

    network: "PretrainedNetwork"
    flops: int  # multiply-adds of its body for one image
    dim: int  # D, without the weights of normalisation layers
    memory_budget: int  # bytes that the costs are reckoned with
    costs: "ProbeCosts | None"  # what each layer costs, if that was asked for


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
        reckoned = probe_costs(network, memory_budget=budget) if costs else None
        return ProbeDescription(network, count_flops(network), dim, budget, reckoned)


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


def measure_expert(
    loader: str, task: TaskRecord, *, seed: int, device: str, progress: Progress | None
) -> "ProbeResult":
    """Few-shot linear-probe accuracy of an expert on the data of a task, see ``indexer.experts.few_shot``.

    Raises:
        IngestError: If the data or the expert cannot be read, or the seed is out of its range.
        NotFoundError: If there is no such network.
    """
    make_settings(seed=seed)  # a bad seed is refused before the data is looked for
    check_data_is_there(task)
    return measure_on_data(
        loader, task.data, **reading_options(task), seed=seed, device=device, progress=progress
    )


def measure_on_data(
    loader: str, data: str, *, seed: int, device: str, progress: Progress | None, **how: Any
) -> "ProbeResult":
    """``measure_expert`` on data that need not be registered, read as ``how`` says."""
    make_settings(seed=seed)  # a seed that embeds is one that measures, and that the store can hold
    with translated_errors():
        from indexer.experts.few_shot import measure_expert

        return measure_expert(loader, data, **how, seed=seed, device=device, progress=progress)


def with_data(task: TaskRecord, data: str) -> TaskRecord:
    """A registered task whose data is given again; ``IngestError`` if it is other data, or cannot be read."""
    how = {name: task.asked[name] for name in ("max_samples", "seed") if name in task.asked}
    settings = make_settings(**how, **reading_options(task))
    with translated_errors():
        from indexer.data.samples import fingerprint_dataset

        fingerprint = fingerprint_dataset(data, settings)
    if fingerprint != task.fingerprint:
        raise IngestError(
            f"{data} is not what task {task.name} was registered with (fingerprint {task.fingerprint[:8]}, now "
            f"{fingerprint[:8]}): register it as a version of its own, by adding it under the same name"
        )
    return replace(task, data=data)


@dataclass(frozen=True)
class DataSurvey:
    """What data is, as listed: nothing of it is decoded."""

    kind: Kind | None
    samples: int
    classes: dict[str, int]  # number of samples of each class or label, by name; none of a regression
    taken: tuple[str, ...]
    passed_over: dict[str, int]


def survey_data(data: str) -> DataSurvey:
    """List and count data as adding it would; ``IngestError`` if it cannot be read or makes no task."""
    with translated_errors():
        from indexer.data.samples import SurveyedDataset
        from indexer.data.sampling import check_sizes

        opened = SurveyedDataset.open(data, make_settings())
        listing, counted = opened.listing, opened.survey
        check_sizes(listing, counted.sizes, counted.num_samples, "sample")
    classes = dict(zip(listing.class_names, counted.sizes, strict=False)) if counted.sizes else {}
    return DataSurvey(listing.kind, counted.num_samples, classes, listing.taken, dict(listing.passed_over))


def image_suffixes() -> tuple[str, ...]:
    """Endings of the names of image files, in lower case."""
    from indexer.data.images import IMAGE_SUFFIXES

    return IMAGE_SUFFIXES


def image_pixels(content: bytes) -> int:
    """Number of pixels that an image file announces; none is decoded; ``IngestError`` if it is none."""
    from indexer.data.images import UnreadableImageError, count_pixels

    try:
        return count_pixels(content)
    except UnreadableImageError as err:
        raise IngestError(str(err)) from err
