"""Whether data and weights are still what was registered: told by their content, not by their name or place."""

from datetime import UTC, datetime
from pathlib import Path

from registry.errors import IngestError
from registry.ingest.data import (
    HUB_DATA,
    IN_MEMORY,
    NO_PATH,
    is_there,
    make_settings,
    reading_options,
    translated_errors,
)
from registry.records import ExpertRecord, TaskRecord

NAMES_SHOWN = 3
HASH_SHOWN = 8


def is_at_hand(task: TaskRecord) -> bool:
    """Whether the data of a task is on this machine and may change, so that it can be compared for little."""
    return not task.data.startswith((NO_PATH, HUB_DATA, IN_MEMORY)) and is_there(task.data)


def data_difference(task: TaskRecord, data: str | None = None) -> str:
    """What tells the data at a place from what a task was registered with; empty if nothing does.

    The listing is compared first: names, sizes and labels of all samples. Only then are the files read that
    the sample of the task was drawn from.
    """
    settings = make_settings(
        max_samples=task.asked["max_samples"], seed=task.asked["seed"], **reading_options(task)
    )
    registered = _summary(task.num_samples, task.class_names, task.fingerprint)
    try:
        with translated_errors():
            from indexer.data.samples import SurveyedDataset

            listed = SurveyedDataset.open(data or task.data, settings)
            names, count = listed.listing.class_names, listed.survey.num_samples
            if (listed.listing.kind, names, count) != (task.kind, task.class_names, task.num_samples):
                return f"registered: {registered}; now: {_summary(count, names)}"
            fingerprint = listed.fingerprint()
    except IngestError as err:
        return f"registered: {registered}; now it makes no task: {err}"
    if fingerprint == task.fingerprint:
        return ""
    return f"registered: {registered}; now: {_summary(count, names, fingerprint)}"


def _summary(num_samples: int, names: tuple[str, ...], fingerprint: str = "") -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    content = f", fingerprint {fingerprint[:HASH_SHOWN]}" if fingerprint else ""
    return f"{num_samples} samples of {', '.join(names[:NAMES_SHOWN])}{more}{content}"


def weights_difference(expert: ExpertRecord, weights_hash: str) -> str:
    """What tells weights that were read now from those that are registered; empty if nothing does."""
    if expert.weights_hash in {"", weights_hash}:
        return ""
    return f"registered: hash {expert.weights_hash[:HASH_SHOWN]}; now: {weights_hash[:HASH_SHOWN]}"


def changed_weights_message(expert: ExpertRecord, difference: str) -> str:
    """Why other weights under the name of an expert are refused, and the ways out."""
    return (
        f"the weights of {expert.name} are not those that were registered ({difference}): register these under "
        f"another name (`t2v expert add {expert.loader} --name NAME`), or let anyway=True go on and mark "
        "results as of other weights"
    )


def changed_weights(expert: ExpertRecord) -> str:
    """The hash of weights in a local file that is not what was registered; empty where nothing says so.

    Weights are read only if their files were written since the expert was added.
    """
    if not expert.weights_hash or not _is_written_since(expert):
        return ""
    with translated_errors():
        from indexer.networks.load import load_network

        weights_hash = load_network(expert.loader).weights_hash
    return "" if weights_hash == expert.weights_hash else weights_hash


def _is_written_since(expert: ExpertRecord) -> bool:
    """Whether a file that the loader of an expert names was written, or put in place, after it was added."""
    from indexer.networks.loaders import parse_loader

    with translated_errors():
        loader = parse_loader(expert.loader)
    place = loader.file or (Path(loader.name) if loader.source == "hf" and loader.is_folder else None)
    if place is None or not place.exists():
        return False
    times = [path.stat() for path in ([place] if place.is_file() else place.rglob("*"))]
    last = max((max(one.st_mtime, one.st_ctime) for one in times), default=0.0)
    return datetime.fromtimestamp(last, UTC) > datetime.fromisoformat(expert.created_at).astimezone(UTC)
