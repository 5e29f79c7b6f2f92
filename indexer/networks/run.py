"""Networks without their heads: how heads come off, and how the rest is run over a sample.

Axes: N samples, F features, S pixels of the input's side, L tokens.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from indexer.errors import IndexerError, NetworkError, SettingsError, WeightsError
from indexer.networks.tokens import MASK, Tokenizer, text_lengths
from indexer.records import Content, InputTransform, TextTransform, Transform, content_of

IMAGENET_TRANSFORM = InputTransform(resize=256, crop=224)
"""What a network that says nothing of its input is given."""


@dataclass(frozen=True, eq=False)
class Body:
    """What a source of networks gives.

    Attributes:
        network: Maps normalised images ``[N, 3, S, S]`` or encoded texts ``[N, 2, L]`` to features ``[N, F]``.
    """

    name: str  # ``architecture.weights``, made of characters that names in a registry may have
    network: nn.Module
    transform: Transform
    num_params: int  # parameters including the head the network came with
    num_features: int | None = None  # F; ``None`` if it is known only from running the network
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True, eq=False)
class PretrainedNetwork:
    """A frozen network without its head.

    Attributes:
        body: Maps normalised images ``[N, 3, S, S]`` or encoded texts ``[N, 2, L]`` to features ``[N, F]``; in
            evaluation mode.
    """

    name: str
    loader: str  # what ``load_network`` was given; of a text encoder, with all that it may say of texts
    body: nn.Module
    num_features: int  # F
    num_params: int  # parameters including the head the network came with
    transform: Transform
    weights_hash: str  # blake2b over the body's tensors, hexadecimal
    tokenizer: Tokenizer | None = None

    @property
    def takes(self) -> Content:
        """What its inputs are made of."""
        return content_of(self.transform)

    def normalize(self, images: Tensor) -> Tensor:
        """Map uint8 images ``[N, 3, S, S]``, or texts ``[N, 2, L]``, to the inputs that ``body`` expects."""
        if isinstance(self.transform, TextTransform):
            return images.long()
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.transform.mean, device=images.device).view(shape)
        std = torch.tensor(self.transform.std, device=images.device).view(shape)
        return (images.float() / 255 - mean) / std


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
    """Refuse features that are not finite, all zero or the same for every sample, by a ``WeightsError``."""
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


Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""


@contextlib.contextmanager
def running(loader: str) -> Iterator[None]:
    """Say in a sentence why a network cannot be run: it may be code of anybody, and raise anything.

    Raises:
        IndexerError: As it is.
        NetworkError: In place of any other.
    """
    try:
        yield
    except IndexerError:  # which has its sentence
        raise
    except (MemoryError, torch.OutOfMemoryError) as err:
        raise NetworkError(f"{loader}: does not fit into the memory; try it on another device") from err
    except Exception as err:
        raise NetworkError(f"{loader}: does not run ({type(err).__name__}: {err})") from err


def choose_device(name: str) -> torch.device:
    """The device of a name, ``auto`` for CUDA where there is one; ``SettingsError`` if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise SettingsError(f"no device is named {name!r}; expected auto, cpu, cuda or cuda:N") from err
    available = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(device.type, 0)
    if (device.index or 0) >= available:
        raise SettingsError(f"this machine has no device {name!r}; use auto or cpu")
    return device


def move_to_device(network: PretrainedNetwork, name: str) -> None:
    """Put a network where it is to compute, with channels last, which convolutions on CPUs prefer.

    Raises:
        SettingsError: If there is no such device on this machine.
    """
    network.body.to(choose_device(name)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def full_precision() -> contextlib.AbstractContextManager[None]:
    """Keep convolutions on CUDA in float32 and deterministic, so that they give what CPUs give, each time."""
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of inputs with their labels, as often as one goes through them."""

    network: PretrainedNetwork
    inputs: np.ndarray  # images, uint8 ``[N, 3, S, S]``, or encoded texts, int32 ``[N, 2, L]``
    labels: np.ndarray
    batch_size: int  # most samples in each
    order: np.ndarray | None = None  # indices of the samples, in order; as they are if ``None``

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images ``[B, 3, S, S]`` or texts ``[B, 2, L]``, and labels ``[B, ...]``, in order.

        Texts are cut to the longest of their batch.
        """
        device = next(self.network.body.parameters()).device
        order = np.arange(len(self.inputs)) if self.order is None else self.order
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            chosen = self.inputs[rows]
            if self.network.takes == "texts":
                chosen = np.ascontiguousarray(chosen[..., : text_lengths(chosen).max()])
            inputs, labels = torch.from_numpy(chosen), torch.from_numpy(self.labels[rows])
            if device.type == "cuda":  # from pinned memory the copy runs beside the computation before it
                inputs, labels = inputs.pin_memory(), labels.pin_memory()
            inputs = self.network.normalize(inputs.to(device, non_blocking=True))
            if self.network.takes == "images":
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            yield inputs, labels.to(device, non_blocking=True)


def by_length(network: PretrainedNetwork, inputs: np.ndarray) -> np.ndarray:
    """Order ``[N]`` in which batches have least padding: short texts first; images as they are."""
    if network.takes == "images":
        return np.arange(len(inputs))
    return np.argsort(text_lengths(inputs), kind="stable")


def extract_features(
    network: PretrainedNetwork, inputs: np.ndarray, *, batch_size: int = 64, progress: Progress | None = None
) -> np.ndarray:
    """Features of images or texts.

    Args:
        network: On the device that is to compute.
        inputs: Images, uint8 ``[N, 3, S, S]``, RGB, or encoded texts, int32 ``[N, 2, L]``.
        batch_size: Samples per pass.
        progress: Called after each batch, with the stage ``features``.

    Returns:
        ``[N, F]`` float32, finite and not the same for all samples, if there are several.

    Raises:
        WeightsError: If what the network computes is not so.
        NetworkError: If it does not run.
    """
    features, order = [], by_length(network, inputs)
    with running(network.loader), torch.inference_mode():
        for batch, _ in Batches(network, inputs, np.zeros(len(inputs)), batch_size, order):
            features.append(network.body(batch).float().cpu().numpy())
            if progress:
                progress("features", sum(map(len, features)), len(inputs))
    stacked = np.concatenate(features)
    stacked[order] = stacked.copy()
    if len(stacked) > 1:
        check_alive(stacked, network.loader)
    return stacked
