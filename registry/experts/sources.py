"""How experts become known: one by loading it, many from a library or a CSV file; and which are at hand."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from registry.builtin.published import canonical_name, published_experts
from registry.errors import DuplicateError, InvalidRecordError, NotFoundError
from registry.ingest.data import absolute_loader, is_there, translated_errors
from registry.ingest.tables import read_experts
from registry.records import ExpertRecord

LIBRARIES = ("timm", "torchvision")
"""What may be named in place of a CSV file: libraries that describe their networks, see
``indexer.networks.zoo``."""

_COMPARED = (
    "source_task", "source_accuracy", "num_params", "flops", "input_size", "license", "cached_as",
)  # fmt: skip


@dataclass(frozen=True)
class MergedExperts:
    """The experts of a source, by what is to be done with them."""

    new: list[ExpertRecord]
    changed: list[ExpertRecord]  # registered ones, as they are to be
    unchanged: int  # how many are registered with all that the source says of them
    left: tuple[str, ...]  # names that another network has here, or that were removed


def describe_expert(
    name: str | None,
    loader: str,
    *,
    source_task: str = "",
    source_accuracy: float | None = None,
    license: str = "",
) -> ExpertRecord:
    """Load an expert once and describe it: parameters, multiply-adds and input size are measured.

    Raises:
        IngestError: If its weights cannot be read or do not fit.
        NotFoundError: If there is no such network.
    """
    with translated_errors():
        from indexer.networks.load import count_flops, load_network
        from indexer.networks.loaders import parse_loader
        from indexer.networks.zoo import cached_name

        network = load_network(loader)
        return ExpertRecord(
            name=name or network.name,
            loader=absolute_loader(network.loader),
            source_task=source_task,
            num_params=network.num_params,
            flops=count_flops(network),
            input_size=getattr(network.transform, "crop", None),  # texts have no size in pixels
            license=license,
            source_accuracy=source_accuracy,
            cached_as=cached_name(parse_loader(loader)),
            weights_hash=network.weights_hash,
        )


def is_library(source: str | Path) -> bool:
    """Whether a source is a library; a file of that name is ``./timm``."""
    return str(source) in LIBRARIES


def read_source(source: str | Path) -> list[ExpertRecord]:
    """The experts of a library or a CSV file; no weights are read.

    Raises:
        InvalidRecordError: If the file or a row is bad; every bad row is named.
        NotFoundError: If it is a plain word, and neither a library nor a file.
        IngestError: If the library is not installed.
    """
    if is_library(source):
        return _of_library(str(source))
    if str(source).isidentifier() and not is_there(str(source)):
        raise NotFoundError("library or CSV file", str(source), LIBRARIES)
    experts, problems = read_experts(Path(source))
    if problems:
        raise InvalidRecordError("; ".join(problems))
    return experts


def _of_library(library: str) -> list[ExpertRecord]:
    with translated_errors():
        from indexer.networks.zoo import ZOOS

        # timm's own tests use networks of a quarter of a million parameters, which it names so.
        return [
            _with_published(ExpertRecord(**asdict(network), toy=network.name.startswith("test_")))
            for network in ZOOS[library]()
        ]


def _with_published(expert: ExpertRecord) -> ExpertRecord:
    """With published figures where its library says none, as timm does of its networks."""
    published = published_experts().get(canonical_name(expert.name))
    if published is None:
        return expert
    said: dict[str, Any] = {"num_params": published.num_params, "flops": published.flops}
    if expert.source_task == "imagenet1k":
        said["source_accuracy"] = published.imagenet_accuracy
    missing = {name: value for name, value in said.items() if getattr(expert, name) is None}
    return replace(expert, **missing)


def merge(
    described: Sequence[ExpertRecord],
    present: Mapping[str, ExpertRecord],
    removed: Collection[str],
    *,
    library: bool,
) -> MergedExperts:
    """Compare what a source says of experts with what is registered.

    What the source says takes precedence over what is registered; where it says nothing, that stays.

    Args:
        described: Experts of the source.
        present: Registered experts by name.
        removed: Names of experts that were removed from it.
        library: Whether the source is a library: then what was removed stays removed, and a name that stands
            for another network goes on to. A row of a file is meant for the expert that it names.

    Raises:
        DuplicateError: If a row of a file gives a name to another network.
    """
    new: list[ExpertRecord] = []
    changed, left, unchanged = [], list[ExpertRecord](), 0
    for expert in described:
        registered = present.get(expert.name)
        if registered is None:
            (left if library and expert.name in removed else new).append(expert)
        elif expert.loader != registered.loader and (library or expert.loader != expert.name):
            if not library:
                raise DuplicateError(
                    f"expert {expert.name} is registered already, loaded as {registered.loader}; "
                    "remove it first or choose another name"
                )
            left.append(expert)
        elif different := _differences(expert, registered):
            changed.append(replace(registered, **different))
        else:
            unchanged += 1
    return MergedExperts(new, changed, unchanged, tuple(expert.name for expert in left))


def _differences(expert: ExpertRecord, registered: ExpertRecord) -> dict[str, Any]:
    """What is said of an expert, and is not what is known."""
    said = {name: getattr(expert, name) for name in _COMPARED}
    return {
        name: value
        for name, value in said.items()
        if value not in {None, ""} and value != getattr(registered, name)
    }
