"""Pretrained networks by name: what measures tasks (probes) and what is recommended for them (experts).

How a network is named, its *loader*, is said in ``indexer.networks.loaders``.

Axes: N samples, F features, S pixels of the input's side.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from indexer.errors import UnknownNameError, WeightsError
from indexer.networks.checkpoints import without_pickled_objects
from indexer.networks.loaders import BUILTIN_FOLDER, Loader, list_builtin, parse_loader, text_options
from indexer.networks.packaged import PACKAGED, load_packaged
from indexer.networks.run import (
    Body,
    PretrainedNetwork,
    blank_input,
    count_params,
    head_name,
    measure_features,
    remove_head,
)
from indexer.networks.small_resnet import SmallResNet
from indexer.networks.weights import (
    build_unfilled,
    check_finite,
    fill,
    forget_interrupted,
    hash_weights,
    misfit,
    read_shapes,
    read_weights,
    without_prefix,
)
from indexer.records import InputTransform, TextTransform


@dataclass(frozen=True)
class Architecture:
    """A network without weights: ``build(num_classes)`` makes it, ``transform`` is what it expects."""

    build: Callable[[int], nn.Module]
    transform: InputTransform


_CIFAR = InputTransform(resize=32, crop=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))

ARCHITECTURES = {
    "resnet8w32": Architecture(partial(SmallResNet, 8, width=32, stem_stride=2), InputTransform(64, 64)),
    "resnet14w16": Architecture(partial(SmallResNet, 14, width=16, stem_stride=2), InputTransform(64, 64)),
    "resnet14w32": Architecture(partial(SmallResNet, 14, width=32, stem_stride=2), InputTransform(64, 64)),
    "resnet20": Architecture(partial(SmallResNet, 20), _CIFAR),
    "resnet56": Architecture(partial(SmallResNet, 56), _CIFAR),
}
"""Architectures that torchvision does not have."""

# Torchvision's first weights of these two were ported with another normalisation, which transform_input undoes.
# Without init_weights, building them warns.
_TORCHVISION_OPTIONS = {
    name: {"transform_input": True, "init_weights": False} for name in ("googlenet", "inception_v3")
}


@dataclass(frozen=True)
class NetworkDescription:
    """A network that can be named: where its weights come from, its parameters, its input's side in pixels."""

    name: str
    source: str
    num_params: int
    input_size: int


def list_torchvision() -> list[str]:
    """Names ``architecture.WEIGHTS`` of torchvision's pretrained classification networks, sorted."""
    from indexer.networks.torchvision import models

    return sorted(
        f"{architecture}.{weights.name}"
        for architecture in models.list_models(module=models)
        for weights in models.get_model_weights(architecture)
    )


def describe_networks() -> list[NetworkDescription]:
    """Every network that has weights by a name known here: the built-in ones, then torchvision's.

    No weights are read. Those of timm and of the hub are too many to list, see ``indexer.networks.loaders``.
    """
    from indexer.networks.torchvision import models

    descriptions = []
    for name in list_builtin():
        architecture = ARCHITECTURES[name.partition(".")[0]]
        path = BUILTIN_FOLDER / f"{name}.safetensors"
        network = build_unfilled(
            architecture.build,
            _count_classes(build_unfilled(architecture.build, 1000), read_shapes(path), path, name),
        )
        descriptions.append(
            NetworkDescription(name, "builtin", count_params(network), architecture.transform.crop)
        )
    for name in list_torchvision():
        architecture_name, _, weights = name.partition(".")
        entry = models.get_model_weights(architecture_name)[weights]
        size = _torchvision_transform(entry).crop
        descriptions.append(NetworkDescription(name, "torchvision", entry.meta["num_params"], size))
    return descriptions


def count_flops(network: PretrainedNetwork) -> int:
    """Multiply-adds of a network's body for one image, or for the longest text that it sees.

    Attention is made of plain matrix products for it: fused kernels are not counted by ``FlopCounterMode``.
    """
    blank = blank_input(network.transform)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            network.body(blank)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) // 2  # it counts a multiply-add as two operations


def get_architecture(name: str, weights: str = "", image_size: int | None = None) -> Architecture:
    """One of ``ARCHITECTURES``, or torchvision's network of that name.

    Args:
        name: The architecture.
        weights: Name of torchvision's weights whose input transform it has; the first if empty. Those of
            ``ARCHITECTURES`` have one each, whatever the weights.
        image_size: Pixels of the input's side of a vision transformer, whose position embeddings depend on it;
            without ``weights``, it has the transform of the first weights of that size.

    Raises:
        UnknownNameError: If neither has that name, or torchvision has no such weights.
    """
    if name in ARCHITECTURES:  # before the import below, which takes seconds
        return ARCHITECTURES[name]
    from indexer.networks.torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise UnknownNameError("architecture", name, [*ARCHITECTURES, *names])
    entries = models.get_model_weights(name)
    if weights and weights not in entries.__members__:
        raise UnknownNameError("network", f"{name}.{weights}", [f"{name}.{entry.name}" for entry in entries])
    transforms = [_torchvision_transform(entry) for entry in ([entries[weights]] if weights else entries)]
    transform = next((option for option in transforms if option.crop == image_size), transforms[0])
    options: dict[str, Any] = _TORCHVISION_OPTIONS.get(name, {})
    if name.startswith("vit_"):
        size = image_size or transform.crop
        options = {"image_size": size}
        transform = transform if transform.crop == size else replace(transform, resize=size, crop=size)
    return Architecture(
        lambda num_classes: models.get_model(name, num_classes=num_classes, **options), transform
    )


def load_network(loader: str) -> PretrainedNetwork:
    """Load a network by its loader, without its head, frozen and in evaluation mode.

    Args:
        loader: One of the forms of ``indexer.networks.loaders``.

    Returns:
        The network on the CPU in float32.

    Raises:
        UnknownNameError: If there is no such architecture or weights.
        WeightsError: If the weights cannot be read, or do not make a network that maps samples to features.
        SettingsError: If what the loader says of texts is not understood.
    """
    forget_interrupted()
    parsed = parse_loader(loader)
    body = _load_body(parsed)
    if isinstance(body.transform, TextTransform):  # so that a loader says what it takes
        said = text_options(body.transform.pooling, body.transform.max_tokens)
        loader = f"hf:{parsed.name}{said}"
    network = body.network.eval().requires_grad_(requires_grad=False)
    check_finite(network, loader)
    num_features = body.num_features
    if num_features is None or parsed.file:  # weights by name are those that others have used
        num_features = measure_features(body, loader)
    rest = (body.num_params, body.transform, hash_weights(network), body.tokenizer)
    return PretrainedNetwork(body.name, loader, network, num_features, *rest)


def load_expert(loader: str, num_classes: int | None = None) -> nn.Module:
    """Load a network ready to be fine-tuned.

    Args:
        loader: As in ``load_network``.
        num_classes: Outputs C of a fresh linear head; without it, the network returns its features.

    Returns:
        A module in training mode that maps normalised images ``[N, 3, S, S]``, or the texts ``[N, 2, L]`` that
        ``load_network(loader).tokenizer`` encodes, to logits ``[N, C]`` or to features ``[N, F]``.

    Raises:
        UnknownNameError: If there is no such architecture or weights.
        WeightsError: If the weights cannot be read, or do not fit the architecture.
    """
    network = load_network(loader)
    body = network.body.requires_grad_(requires_grad=True).train()
    return body if num_classes is None else nn.Sequential(body, nn.Linear(network.num_features, num_classes))


def load_source_head(loader: str) -> nn.Linear | None:
    """The head that a network came with: what maps its features to logits of its source task.

    SqueezeNet classifies every pixel, rectifies and averages; its head here is of averaged features, without
    the rectification.

    Returns:
        ``[N, F]`` to ``[N, K]``; ``None`` of networks that come without one: those of timm, of Hugging Face, of
        the user's own code and of files without one.

    Raises:
        UnknownNameError: If there is no such architecture or weights.
        WeightsError: If the weights cannot be read, or do not fit the architecture.
    """
    parsed = parse_loader(loader)
    if parsed.source in {"timm", "hf", "python", "torchscript"}:
        return None
    _, network, _ = _load_whole(parsed)
    head = network.get_submodule(head_name(network))
    weight = head.weight.detach().flatten(1)  # type: ignore[operator]  # a layer's attributes
    if not weight.any():  # a file without a head
        return None
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": head.bias.detach()})  # type: ignore[operator]
    return linear.requires_grad_(requires_grad=False)


def _load_body(loader: Loader) -> Body:
    """A network without its head, from the source that its loader names."""
    if loader.source in {"timm", "hf"}:
        from indexer.networks.hubs import load_hugging_face, load_timm

        return load_timm(loader) if loader.source == "timm" else load_hugging_face(loader)
    if loader.source in {"python", "torchscript"}:
        from indexer.networks.own import load_python, load_torchscript

        return load_python(loader) if loader.source == "python" else load_torchscript(loader)
    name, network, transform = _load_whole(loader)
    return Body(name, network, transform, count_params(network), remove_head(network))  # in this order


def _load_whole(loader: Loader) -> tuple[str, nn.Module, InputTransform]:
    """Name, network with its head and input transform: of a file, built in, packaged or torchvision's."""
    if loader.file:
        stem = loader.file.name.removesuffix(loader.file.suffix)
        name = f"{loader.architecture}.{stem.removeprefix(f'{loader.architecture}.')}"
        return name, *_from_file(loader, loader.file)
    if loader.name in list_builtin():
        builtin = Loader(loader.name, "named", loader.architecture)
        return loader.name, *_from_file(builtin, BUILTIN_FOLDER / f"{loader.name}.safetensors")
    if loader.name in PACKAGED:
        return loader.name, *load_packaged(loader.name)
    return loader.name, *_from_torchvision(loader)


def _from_file(loader: Loader, path: Path) -> tuple[nn.Module, InputTransform]:
    """Build an architecture for the number of classes that a weights file has, and load the file into it."""
    name = loader.architecture
    usual = build_unfilled(get_architecture(name, loader.weights).build, 1000)  # a wrong name is said first
    state = _with_head(without_prefix(read_weights(path), usual.state_dict()), usual)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    architecture = get_architecture(name, loader.weights, _image_size(shapes))
    network = build_unfilled(architecture.build, _count_classes(usual, shapes, path, name))
    fill(network, state, path, name)
    return network, architecture.transform


def _image_size(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Side of the inputs of a vision transformer of torchvision: a position per patch, and one of the class."""
    positions, patches = shapes.get("encoder.pos_embedding", ()), shapes.get("conv_proj.weight", ())
    if len(positions) != 3 or len(patches) != 4:
        return None
    return math.isqrt(max(positions[1] - 1, 1)) * patches[-1]


def _with_head(state: Mapping[str, Tensor], usual: nn.Module) -> Mapping[str, Tensor]:
    """Weights with a head of zeros for one class where they are those of an architecture but for its head."""
    head = head_name(usual)
    missing = {name: value for name, value in usual.state_dict().items() if name not in state}
    of_head = {name: value for name, value in missing.items() if name.rpartition(".")[0] == head}
    if not of_head or any(name not in of_head and "num_batches" not in name for name in missing):
        return state
    return {**state, **{name: torch.zeros(1, *value.shape[1:]) for name, value in of_head.items()}}


def _count_classes(usual: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: Path, name: str) -> int:
    """Rows of the head in a file; ``WeightsError`` if it has no head of that architecture."""
    head = head_name(usual) + ".weight"
    if not shapes.get(head) or not shapes[head][0]:
        names = ", ".join(list(shapes)[:3])
        raise WeightsError(misfit(path, name, f"there is no {head} with a row per class, but {names}"))
    return shapes[head][0]


def _from_torchvision(loader: Loader) -> tuple[nn.Module, InputTransform]:
    """Torchvision's network with one of its own weights, from its cache or the network.

    Raises:
        UnknownNameError: If torchvision has no such network or weights.
        WeightsError: If they cannot be downloaded, or what was downloaded is damaged.
    """
    from indexer.networks.torchvision import models

    name, architecture = loader.name, loader.architecture
    if architecture not in models.list_models(module=models):
        raise UnknownNameError("network", name, [*list_builtin(), *PACKAGED, *list_torchvision()])
    entries = models.get_model_weights(architecture)
    if loader.weights not in entries.__members__:
        raise UnknownNameError("network", name, [f"{architecture}.{entry.name}" for entry in entries])
    entry = entries[loader.weights]
    try:
        with without_pickled_objects():
            return models.get_model(architecture, weights=entry), _torchvision_transform(entry)
    except OSError as err:
        raise WeightsError(
            f"{name}: cannot download {entry.url} ({err}); fetch it elsewhere and name the file as {name}@FILE"
        ) from err
    except Exception as err:  # a damaged pickle raises nearly anything
        raise WeightsError(
            f"{name}: the copy of {entry.url} in {torch.hub.get_dir()} is damaged "
            f"({type(err).__name__}); delete it and try again"
        ) from err


def _torchvision_transform(weights: Any) -> InputTransform:
    preset = weights.transforms()
    return InputTransform(preset.resize_size[0], preset.crop_size[0], tuple(preset.mean), tuple(preset.std))
