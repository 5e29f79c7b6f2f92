"""What torchvision and timm say of their pretrained networks, from metadata alone: no weights, no networks.

Figures are those that the libraries publish; what they do not say stays unknown.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

from indexer.errors import WeightsError
from indexer.networks.loaders import Loader


@dataclass(frozen=True)
class ZooNetwork:
    """A pretrained network as its library describes it."""

    name: str
    loader: str  # what ``indexer.networks.load.load_network`` takes
    source_task: str = ""  # what it was last trained on, or empty
    source_accuracy: float | None = None  # on held-out samples of that, 0 to 1, as published
    num_params: int | None = None
    flops: int | None = None  # multiply-adds for one image
    input_size: int | None = None
    license: str = ""  # SPDX identifier, or what the library calls a licence that has none; empty if not known
    cached_as: str = ""  # what the weights are called once they were fetched: ``torch:FILE`` or ``hf:ORG/NAME``


# Torchvision's own licence is that of its code. It names one of weights in few entries, by its address.
_TORCHVISION_LICENSES = {"https://github.com/facebookresearch/SWAG/blob/main/LICENSE": "cc-by-nc-4.0"}

# What the last of these words in a tag of timm stands for, if the head has the classes of that dataset: of
# ImageNet-21k (or 22k) there are releases and selections of several sizes.
_TIMM_SOURCES = {
    "in1k": ("imagenet1k", {1000}),
    "in12k": ("imagenet12k", {11821}),
    "in21k": ("imagenet21k", {10450, 11221, 21841, 21842, 21843}),
    "in22k": ("imagenet21k", {10450, 11221, 21841, 21842, 21843}),
}


def describe_torchvision() -> list[ZooNetwork]:
    """Torchvision's classification networks, one for each of their weights, in order of name.

    ``vgg16.IMAGENET1K_FEATURES`` is none of them: its last layers are not filled, and its accuracy is NaN.
    """
    from indexer.networks.torchvision import models

    networks = (
        _of_torchvision(architecture, entry)
        for architecture in models.list_models(module=models)
        for entry in models.get_model_weights(architecture)
        if math.isfinite(_top1(entry))
    )
    return sorted(networks, key=lambda network: network.name)


def describe_timm() -> list[ZooNetwork]:
    """Networks of timm that take square images of three channels, one for each of their weights, by name."""
    from indexer.networks.hubs import timm_configs

    return [
        _of_timm(name, config)
        for name, config in sorted(timm_configs().items())
        if config.input_size[0] == 3 and config.input_size[1] == config.input_size[2]
    ]


ZOOS: dict[str, Callable[[], list[ZooNetwork]]] = {"torchvision": describe_torchvision, "timm": describe_timm}
"""Libraries that describe their networks."""


def cached_name(loader: Loader) -> str:
    """What the weights of a loader are called once a library has fetched them; empty where none does.

    Nothing is looked up but metadata, and what is no network of a library that is installed has no name.
    """
    if loader.file or loader.is_folder:
        return ""
    if loader.source == "hf":
        return f"hf:{loader.name}" if "/" in loader.name else ""
    if loader.source == "named":
        from indexer.networks.torchvision import models

        is_model = loader.architecture in models.list_models(module=models)
        entries = models.get_model_weights(loader.architecture) if is_model else ()
        return next((_torch_file(entry.url) for entry in entries if entry.name == loader.weights), "")
    if loader.source == "timm":
        from indexer.networks.hubs import timm_config

        try:
            config = timm_config(loader.name)
        except WeightsError:  # it is not installed
            return ""
        return _timm_cached_as(config) if config else ""
    return ""


def _of_torchvision(architecture: str, entry: Any) -> ZooNetwork:
    meta, name = entry.meta, f"{architecture}.{entry.name}"
    return ZooNetwork(
        name,
        name,
        source_task="imagenet1k",
        source_accuracy=round(_top1(entry) / 100, 6),
        num_params=meta["num_params"],
        flops=round(meta["_ops"] * 1e9),  # in billions of multiply-adds
        input_size=entry.transforms().crop_size[0],
        license=_TORCHVISION_LICENSES.get(meta.get("license", ""), ""),
        cached_as=_torch_file(entry.url),
    )


def _top1(entry: Any) -> float:
    """Accuracy on ImageNet-1k in percent."""
    return float(entry.meta["_metrics"]["ImageNet-1K"]["acc@1"])


def _of_timm(name: str, config: Any) -> ZooNetwork:
    license_name = (config.license or "").lower()
    return ZooNetwork(
        name,
        f"timm:{name}",
        source_task=_timm_source(config.tag or "", config.num_classes),
        input_size=config.input_size[1],
        license="" if license_name == "unknown" else license_name,
        cached_as=_timm_cached_as(config),
    )


def _timm_source(tag: str, num_classes: int) -> str:
    """Task that weights were last trained on, as their tag says; empty where it does not."""
    words = [word for word in tag.split("_") if word in _TIMM_SOURCES]
    name, sizes = _TIMM_SOURCES[words[-1]] if words else ("", set())
    return name if num_classes in sizes else ""


def _timm_cached_as(config: Any) -> str:
    """What timm's weights are called in a cache: the hub takes precedence over the address, as in timm."""
    if config.hf_hub_id:
        return f"hf:{config.hf_hub_id}"
    return _torch_file(config.url) if config.url else ""


def _torch_file(url: str) -> str:
    return f"torch:{PurePosixPath(urlparse(url).path).name}"
