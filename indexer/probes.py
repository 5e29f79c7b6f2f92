"""Pretrained networks by name: what measures tasks (probes) and what is recommended for them (experts).

A network is named by its *loader*, one of

    resnet14w32.tiny_imagenet      weights that ship with this package (``BUILTIN``)
    resnet18.IMAGENET1K_V1         torchvision's weights, downloaded and cached by torchvision
    resnet18@my.safetensors        any known architecture with weights from a local file

Axes: N samples, F features, S pixels of the input's side.
"""

import hashlib
import pickle
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from indexer.errors import UnknownNameError, WeightsError
from indexer.networks import SmallResNet
from indexer.records import InputTransform

BUILTIN_FOLDER = Path(__file__).parent / "builtin"


@dataclass(frozen=True)
class Architecture:
    """A network without weights: ``build(num_classes)`` makes it, ``transform`` is what it expects."""

    build: Callable[[int], nn.Module]
    transform: InputTransform


_CIFAR = InputTransform(resize=32, crop=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))

ARCHITECTURES = {
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


@dataclass(frozen=True, eq=False)
class PretrainedNetwork:
    """A frozen network without its head.

    Attributes:
        name: ``architecture.weights``.
        loader: What ``load_network`` was given.
        body: Maps normalised images ``[N, 3, S, S]`` to features ``[N, F]``; in evaluation mode.
        num_features: F.
        num_params: Parameters including the head the network came with.
        transform: How an image becomes an input.
        weights_hash: blake2b over the body's tensors, hexadecimal.
    """

    name: str
    loader: str
    body: nn.Module
    num_features: int
    num_params: int
    transform: InputTransform
    weights_hash: str

    def normalize(self, images: Tensor) -> Tensor:
        """Map uint8 images ``[N, 3, S, S]`` to the float inputs that ``body`` expects."""
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.transform.mean, device=images.device).view(shape)
        std = torch.tensor(self.transform.std, device=images.device).view(shape)
        return (images.float() / 255 - mean) / std


@dataclass(frozen=True)
class NetworkDescription:
    """A network that can be named: where its weights come from, its parameters, its input's side in pixels."""

    name: str
    source: str
    num_params: int
    input_size: int


def list_builtin() -> list[str]:
    """Names of the networks whose weights ship with this package, sorted."""
    return sorted(path.name.removesuffix(".safetensors") for path in BUILTIN_FOLDER.glob("*.safetensors"))


def list_torchvision() -> list[str]:
    """Names ``architecture.WEIGHTS`` of torchvision's pretrained classification networks, sorted."""
    from indexer.vision import models

    return sorted(
        f"{architecture}.{weights.name}"
        for architecture in models.list_models(module=models)
        for weights in models.get_model_weights(architecture)
    )


def describe_networks() -> list[NetworkDescription]:
    """Every network that has weights by name: the built-in ones, then torchvision's."""
    from indexer.vision import models

    found = []
    for name in list_builtin():
        network = load_network(name)
        found.append(NetworkDescription(name, "builtin", network.num_params, network.transform.crop))
    for name in list_torchvision():
        architecture, _, weights = name.partition(".")
        entry = models.get_model_weights(architecture)[weights]
        size = _torchvision_transform(entry).crop
        found.append(NetworkDescription(name, "torchvision", entry.meta["num_params"], size))
    return found


def count_flops(network: PretrainedNetwork) -> int:
    """Multiply-adds of a network's body for one image."""
    size = network.transform.crop
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.body(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops()) // 2  # it counts a multiply-add as two operations


def get_architecture(name: str) -> Architecture:
    """One of ``ARCHITECTURES``, or torchvision's network of that name with the transform of its first weights.

    Raises:
        UnknownNameError: If neither has that name.
    """
    if name in ARCHITECTURES:  # before the import below, which takes seconds
        return ARCHITECTURES[name]
    from indexer.vision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError("architecture", name, [*ARCHITECTURES, *known])
    first_weights = next(iter(models.get_model_weights(name)))
    options = _TORCHVISION_OPTIONS.get(name, {})
    return Architecture(
        lambda num_classes: models.get_model(name, num_classes=num_classes, **options),
        _torchvision_transform(first_weights),
    )


def load_network(loader: str) -> PretrainedNetwork:
    """Load a network by its loader, without its head, frozen and in evaluation mode.

    Args:
        loader: ``architecture.weights`` or ``architecture@FILE``, see the module.

    Returns:
        The network on the CPU in float32.

    Raises:
        UnknownNameError: If there is no such architecture or weights.
        WeightsError: If the weights cannot be read, or do not fit the architecture.
    """
    network, name, transform = _load_with_head(loader)
    num_params = sum(parameter.numel() for parameter in network.parameters())
    num_features = _remove_head(network)
    network.eval().requires_grad_(requires_grad=False)
    return PretrainedNetwork(name, loader, network, num_features, num_params, transform, _hash_weights(network))


def load_expert(loader: str, num_classes: int | None = None) -> nn.Module:
    """Load a network ready to be fine-tuned.

    Args:
        loader: As of ``load_network``.
        num_classes: Outputs C of a fresh linear head; without it, the network returns its features.

    Returns:
        A module in training mode that maps normalised images ``[N, 3, S, S]`` to logits ``[N, C]`` or to
        features ``[N, F]``.

    Raises:
        UnknownNameError: If there is no such architecture or weights.
        WeightsError: If the weights cannot be read, or do not fit the architecture.
    """
    network = load_network(loader)
    body = network.body.requires_grad_(requires_grad=True).train()
    return body if num_classes is None else nn.Sequential(body, nn.Linear(network.num_features, num_classes))


def _load_with_head(loader: str) -> tuple[nn.Module, str, InputTransform]:
    """A network as it was trained, its name, and its input transform."""
    architecture, at, file = loader.partition("@")
    if at:
        path = Path(file).expanduser()
        weights = path.name.removesuffix(path.suffix).removeprefix(f"{architecture}.")
        return (
            _from_file(architecture, path),
            f"{architecture}.{weights}",
            get_architecture(architecture).transform,
        )
    if loader in list_builtin():
        architecture = loader.partition(".")[0]
        path = BUILTIN_FOLDER / f"{loader}.safetensors"
        return _from_file(architecture, path), loader, ARCHITECTURES[architecture].transform
    network, transform = _from_torchvision(loader)
    return network, loader, transform


def _from_file(architecture: str, path: Path) -> nn.Module:
    """Build an architecture for the number of classes that a weights file has, and load the file into it.

    Raises:
        WeightsError: If the file does not fit.
    """
    build = get_architecture(architecture).build
    state = _read_weights(path)
    head = _head_name(_build_unfilled(build, 1000)) + ".weight"
    num_classes = len(state[head]) if head in state and state[head].ndim else 0
    if not num_classes:
        problem = f"there is no {head} with a row per class"
        raise WeightsError(f"{path}: weights do not fit {architecture}: {problem}")
    network = _build_unfilled(build, num_classes)
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as err:
        problem = textwrap.shorten(" ".join(str(err).splitlines()[1:]), 120, placeholder=" ...")
        raise WeightsError(f"{path}: weights do not fit {architecture}: {problem}") from err
    return network


def _build_unfilled(build: Callable[[int], nn.Module], num_classes: int) -> nn.Module:
    """A network whose weights are about to be replaced: without memory for them where that is possible."""
    try:
        with torch.device("meta"):
            return build(num_classes)
    except NotImplementedError:  # torchvision's RegNets compute their widths with tensors
        return build(num_classes)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a PyTorch checkpoint; pickled objects are never executed.

    Raises:
        WeightsError: If it is neither.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; expected .safetensors or a PyTorch checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # a damaged pickle raises nearly anything: IndexError, struct.error, UnicodeError
        raise WeightsError(f"{path}: not a safetensors file or a PyTorch checkpoint of plain tensors") from err
    if isinstance(state, dict):
        state = state.get("state_dict", state.get("model", state))
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{path}: holds no state dict (a mapping from parameter names to tensors)")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _from_torchvision(loader: str) -> tuple[nn.Module, InputTransform]:
    """Torchvision's network with one of its own weights, from its cache or the network.

    Raises:
        UnknownNameError: If torchvision has no such network or weights.
        WeightsError: If they cannot be downloaded, or what was downloaded is damaged.
    """
    from indexer.vision import models

    architecture, _, weights = loader.partition(".")
    if architecture not in models.list_models(module=models):
        raise UnknownNameError("network", loader, [*list_builtin(), *list_torchvision()])
    entries = models.get_model_weights(architecture)
    if weights not in entries.__members__:
        raise UnknownNameError("network", loader, [f"{architecture}.{entry.name}" for entry in entries])
    entry = entries[weights]
    try:
        return models.get_model(architecture, weights=entry), _torchvision_transform(entry)
    except OSError as err:
        raise WeightsError(
            f"{loader}: cannot download {entry.url} ({err}); "
            f"fetch it elsewhere and name the file as {architecture}@FILE"
        ) from err
    except (EOFError, RuntimeError, pickle.UnpicklingError) as err:
        raise WeightsError(
            f"{loader}: the copy of {entry.url} in {torch.hub.get_dir()} is damaged ({err}); "
            "delete it and try again"
        ) from err


def _torchvision_transform(weights: Any) -> InputTransform:
    preset = weights.transforms()
    return InputTransform(preset.resize_size[0], preset.crop_size[0], tuple(preset.mean), tuple(preset.std))


def _head_name(network: nn.Module) -> str:
    """Name of the layer that makes the logits: the last linear one, or SqueezeNet's last convolution."""
    layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return layers[-1] if layers else "classifier.1"


def _remove_head(network: nn.Module) -> int:
    """Make a network return the inputs of its head; returns their number F."""
    name = _head_name(network)
    head = network.get_submodule(name)
    if isinstance(head, nn.Conv2d):  # SqueezeNet classifies every pixel, then averages; we average first
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return head.in_channels
    if hasattr(network, "aux_logits"):  # GoogLeNet and Inception return further logits in training mode
        network.aux_logits = False  # type: ignore[assignment]  # a module's attributes are not typed
        for auxiliary in {"aux1", "aux2", "AuxLogits"} & set(dict(network.named_children())):
            setattr(network, auxiliary, None)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return int(head.in_features)  # type: ignore[arg-type]  # a layer's attributes are not typed


def _hash_weights(network: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
