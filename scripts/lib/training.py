"""What ``train_probe.py`` and ``train_experts.py`` share: augmentation, the training loop, saving.

Axes: N samples, C classes, H and W pixels.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from indexer.networks.load import ARCHITECTURES
from indexer.networks.weights import SCALE_SUFFIX
from indexer.records import InputTransform

ARCHITECTURE = "resnet14w32"
TRANSFORM: InputTransform = ARCHITECTURES[ARCHITECTURE].transform
MEAN = torch.tensor(TRANSFORM.mean).view(1, 3, 1, 1)
STD = torch.tensor(TRANSFORM.std).view(1, 3, 1, 1)


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied: smallest share of the area kept, and odds of the rest, 0 to 1."""

    min_scale: float
    flip: float
    grey: float
    invert: float


@dataclass(frozen=True)
class Recipe:
    """One training run: SGD with Nesterov momentum under a one-cycle schedule.

    ``size_at`` gives the side of the training images in pixels at a progress from 0 to 1.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: Augmentation
    size_at: Callable[[float], int]
    label_smoothing: float = 0.1
    weight_decay: float = 5e-4
    bfloat16: bool = False


def augment(images: Tensor, size: int, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Vary uint8 images ``[N, 3, H, W]`` into normalised float inputs ``[N, 3, size, size]``."""
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    scale = uniform(how.min_scale, 1.0).sqrt()
    ratio = torch.exp(uniform(-math.log(4 / 3), math.log(4 / 3)) / 2)
    width, height = (scale * ratio).clamp(max=1), (scale / ratio).clamp(max=1)
    flip = torch.where(uniform(0, 1) < how.flip, -1.0, 1.0)
    zero = torch.zeros(count)
    theta = torch.stack(
        [width * flip, zero, uniform(-1, 1) * (1 - width), zero, height, uniform(-1, 1) * (1 - height)], dim=1
    )
    grid = functional.affine_grid(theta.view(count, 2, 3), [count, 3, size, size], align_corners=False)
    pixels = functional.grid_sample(images.float() / 255, grid, padding_mode="border", align_corners=False)
    grey, invert = (uniform(0, 1) < how.grey, uniform(0, 1) < how.invert)
    pixels = torch.where(grey.view(-1, 1, 1, 1), pixels.mean(dim=1, keepdim=True), pixels)
    pixels = torch.where(invert.view(-1, 1, 1, 1), 1 - pixels, pixels)
    pixels = pixels * uniform(0.7, 1.3).view(-1, 1, 1, 1) + uniform(-0.1, 0.1).view(-1, 1, 1, 1)
    return (pixels - MEAN) / STD


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    report: Callable[[nn.Module], str] = lambda network: "",
) -> None:
    """Train a network in place on uint8 images ``[N, 3, H, W]`` and labels ``[N]``; prints each epoch."""
    steps = max(1, len(labels) // recipe.batch_size)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, recipe.epochs * steps, pct_start=0.15
    )
    start = time.perf_counter()
    for epoch in range(recipe.epochs):
        network.train()
        size = recipe.size_at(epoch / recipe.epochs)
        order = torch.randperm(len(labels), generator=generator)[: steps * recipe.batch_size]
        total = 0.0
        for index in order.split(recipe.batch_size):
            batch = augment(images[index], size, recipe.augmentation, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                logits = network(batch.to(memory_format=torch.channels_last))
                loss = functional.cross_entropy(logits, labels[index], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        click.echo(
            f"epoch {epoch + 1}/{recipe.epochs}  {size} px  loss {total / steps:.3f}  "
            f"{time.perf_counter() - start:.0f} s  {report(network)}",
            err=True,
        )
    network.eval()


def save_8bit(network: nn.Module, path: Path) -> None:
    """Write a network's tensors as safetensors, the weights of its layers in 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = quantise(network.state_dict())
    save_file({name: value.contiguous() for name, value in packed.items()}, path)


def save_fp16(network: nn.Module, path: Path) -> None:
    """Write a network's tensors as safetensors, floating point ones in half precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


LEVELS = 127


def quantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of layers as int8 with their scales, all else in half precision; integers as they are.

    Args:
        state: Tensors by name; those of two axes and more are weights ``[O, ...]``.

    Returns:
        What ``indexer.networks.weights.dequantise`` takes. A weight is off by at most half a scale, 1/254 of
        the largest in its filter.
    """
    packed = {}
    for name, value in state.items():
        if not value.is_floating_point():
            packed[name] = value
        elif value.ndim < 2:
            packed[name] = value.half()
        else:
            rows = value.float().flatten(1)
            scales = rows.abs().amax(dim=1) / LEVELS
            packed[name] = torch.round(rows / scales.clamp_min(1e-30)[:, None]).to(torch.int8).view(value.shape)
            packed[name + SCALE_SUFFIX] = scales
    return packed
