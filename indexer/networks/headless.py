"""Networks without their heads: what every source of networks gives, and how heads come off.

Axes: N samples, F features, S pixels of the input's side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from indexer.errors import WeightsError
from indexer.networks.tokens import MASK, Tokenizer
from indexer.records import InputTransform, TextTransform, Transform

IMAGENET_TRANSFORM = InputTransform(resize=256, crop=224)
"""What a network that says nothing of its input is given."""


@dataclass(frozen=True, eq=False)
class Body:
    """What a source of networks gives.

    Attributes:
        name: ``architecture.weights``, made of characters that names in a registry may have.
        network: Maps normalised images ``[N, 3, S, S]`` or encoded texts ``[N, 2, L]`` to features ``[N, F]``.
        transform: How an image or a text becomes an input.
        num_params: Parameters including the head the network came with.
        num_features: F; ``None`` if it is known only from running the network.
        tokenizer: What encodes texts, for a text encoder.
    """

    name: str
    network: nn.Module
    transform: Transform
    num_params: int
    num_features: int | None = None
    tokenizer: Tokenizer | None = None


def count_params(network: nn.Module) -> int:
    """Numbers in all parameters; those that several layers share count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def blank_input(transform: Transform, num_tokens: int | None = None) -> Tensor:
    """A black image ``[1, 3, S, S]``, or a text of one token again and again ``[1, 2, L]`` without padding.

    Args:
        transform: What the network expects.
        num_tokens: L of a text; by default the most that the network sees.
    """
    if isinstance(transform, InputTransform):
        return torch.zeros(1, 3, transform.crop, transform.crop)
    text = torch.zeros(1, 2, num_tokens or transform.max_tokens, dtype=torch.long)
    text[:, MASK] = 1
    return text


def on_device_of(parameter: Tensor, inputs: Tensor) -> Tensor:
    """Inputs on the device of a parameter, and in its precision unless they are whole numbers, as texts are."""
    return inputs.to(parameter) if inputs.is_floating_point() else inputs.to(parameter.device)


def measure_features(body: Body, where: str) -> int:
    """F, from a forward pass of two images or texts and one of the first of them alone.

    Args:
        body: In evaluation mode.
        where: What errors begin with.

    Raises:
        WeightsError: If the network gives no ``[N, F]`` for inputs of its transform, nothing that says
            anything of them, or if what it gives for one depends on the others of its batch.
    """
    if isinstance(body.transform, TextTransform):
        images = blank_input(body.transform, num_tokens=3).repeat(2, 1, 1)
        images[1, 0, 1] = 1  # another token
        what, expected = "texts", "expected a network that maps texts to [N, features]"
    else:
        size = body.transform.crop
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        what = f"images of {size} pixels"
        expected = f"expected a network that maps [N, 3, {size}, {size}] to [N, features]"
    try:
        with torch.no_grad():
            features, alone = body.network(images), body.network(images[:1])
    except Exception as err:  # code of others may raise anything
        problem = str(err).strip().splitlines()[-1:] or [type(err).__name__]
        raise WeightsError(f"{where}: fails on {what} ({problem[0]}); {expected}") from err
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise WeightsError(f"{where}: gives {got} for two images; {expected}")
    check_alive(features.numpy(), where)
    if not torch.allclose(features[:1], alone, rtol=1e-2, atol=1e-3 * float(features.abs().max())):
        raise WeightsError(
            f"{where}: what it gives for an image changes with the rest of the batch or from call to call, "
            "as by batch statistics or dropout; call eval() on the network before it is saved or traced"
        )
    return features.shape[1]


def check_alive(features: np.ndarray, where: str) -> None:
    """Refuse features from which nothing can be learned.

    Args:
        features: ``[N, F]`` of samples that differ.
        where: What errors begin with.

    Raises:
        WeightsError: If they are not finite, all zero, or the same for every sample.
    """
    if not np.isfinite(features).all():
        problem = "features that are NaN or infinite"
    elif not features.any():
        problem = "features that are all zero"
    elif np.ptp(features, axis=0).max() <= 1e-6 * np.abs(features).max():
        problem = "the same features for every sample"
    else:
        return
    raise WeightsError(
        f"{where}: gives {problem}; its weights may be those of a training that diverged or never began"
    )


def head_name(network: nn.Module) -> str:
    """Name of the layer that makes the logits: the last linear one, or SqueezeNet's last convolution."""
    layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return layers[-1] if layers else "classifier.1"


def remove_head(network: nn.Module) -> int:
    """Make a network of torchvision or this package return the inputs of its head; returns their number F."""
    name = head_name(network)
    head = network.get_submodule(name)
    if isinstance(head, nn.Conv2d):  # SqueezeNet classifies every pixel, then averages; we average first
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return head.in_channels
    if hasattr(network, "aux_logits"):  # GoogLeNet and Inception return further logits in training mode
        network.aux_logits = False  # type: ignore[assignment]  # a module's attributes are not typed
        for auxiliary in {"aux1", "aux2", "AuxLogits"} & set(dict(network.named_children())):
            setattr(network, auxiliary, None)
    network.set_submodule(name, nn.Identity())
    return int(head.in_features)  # type: ignore[arg-type]  # a layer's attributes are not typed


def drop_unfilled_pooler(network: nn.Module, report: Mapping[str, Any], where: str) -> None:
    """Remove a pooler that the checkpoint does not hold: transformers has filled it with random numbers.

    Raises:
        WeightsError: If anything else was not filled.
    """
    unfilled = sorted(str(name) for name in [*report["missing_keys"], *report["mismatched_keys"]])
    pooler = [name for name in unfilled if "pooler." in name]
    if len(pooler) < len(unfilled):
        raise WeightsError(
            f"{where}: the checkpoint holds no {next(name for name in unfilled if name not in pooler)} "
            f"of the right shape, nor {len(unfilled) - len(pooler) - 1} others; expected all weights"
        )
    for name in {name.partition("pooler.")[0] + "pooler" for name in pooler}:
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, None)
