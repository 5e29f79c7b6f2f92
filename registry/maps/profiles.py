"""Which depths of the probe two tasks agree on: their distance and Fisher information layer by layer.

The layers of a space, names and numbers of filters, follow from its probe, which takes seconds to load. So they
are kept in a small file beside the index, keyed by the space, whose id knows the weights.

Axes: D filters of the probe, L layers.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from registry.answers import Apart
from registry.distances import pairwise
from registry.errors import IngestError
from registry.files import write_atomically
from registry.map_answers import LayerAgreement, LayerProfile
from registry.records import SpaceRecord

Layers = tuple[tuple[str, int], ...]
"""Names and numbers of filters, in order of the embedding, which is that of depth."""


def layers_of(space: SpaceRecord, folder: Path, measure: Callable[[SpaceRecord], Layers]) -> Layers:
    """The layers of a space: as kept in a folder, or measured now and kept there if it can be written.

    Raises:
        IngestError: If the probe, as it is now, does not have the filters of the space.
    """
    path = folder / f"layers-{space.space_id}.json"
    saved = _read(path, space)
    if saved is not None:
        return saved
    layers = measure(space)
    total = sum(count for _, count in layers)
    if total != space.dim:
        raise IngestError(
            f"the layers of {space.probe_source} have {total} filters, and tasks of space {space.space_id} "
            f"have {space.dim}; the probe is not the one they were embedded with, so add them again"
        )
    _write(path, space, layers)
    return layers


def profile_of(
    names: tuple[str, str],
    space: SpaceRecord,
    layers: Sequence[tuple[str, int]],
    fisher: tuple[np.ndarray, np.ndarray],
    standard_error: tuple[np.ndarray, np.ndarray],
) -> LayerProfile:
    """Compare two tasks in each layer.

    Args:
        names: Names of source and target.
        space: The space of both.
        layers: Names and numbers of filters, which sum to D.
        fisher: Fisher information ``[D]`` of each.
        standard_error: Standard error ``[D]`` of each.
    """
    source, target = (np.asarray(vector, np.float32) for vector in fisher)
    profile, start = [], 0
    for layer, count in layers:
        part = slice(start, start + count)
        start += count
        distance = float(pairwise("task2vec", source[None, part], target[None, part])[0, 0])
        means = [float(vector[part].mean(dtype=np.float64)) for vector in fisher]
        errors = [float(np.linalg.norm(error[part].astype(np.float64)) / count) for error in standard_error]
        profile.append(LayerAgreement(layer, count, distance, means[0], errors[0], means[1], errors[1]))
    over_all = float(pairwise("task2vec", source[None], target[None])[0, 0])
    return LayerProfile(*names, space.space_id, space.probe, Apart(over_all), tuple(profile))


def _read(path: Path, space: SpaceRecord) -> Layers | None:
    """The layers that were kept for a space, if the file is whole."""
    try:
        document = json.loads(path.read_bytes())
        layers = tuple((str(name), int(count)) for name, count in document["layers"])
        whole = document["checksum"] == _checksum(space, layers)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return layers if whole and sum(count for _, count in layers) == space.dim else None


def _write(path: Path, space: SpaceRecord, layers: Layers) -> None:
    """Keep the layers, unless the folder cannot be written; nobody ever sees half a file."""
    document = {"layers": layers, "checksum": _checksum(space, layers)}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document).encode())


def _checksum(space: SpaceRecord, layers: Layers) -> str:
    content = json.dumps([space.space_id, space.dim, layers])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
