"""What a lower precision does to embeddings and to their time: float32, TF32 and bfloat16.

    python scripts/bench/bench_precision.py --device cuda [--networks resnet18@224,...] [--batch-sizes 64,512]

Fisher information of a network with random weights and a random head over random images, by ``signed``. Beside
the seconds a thousand images take, and a plain forward and backward pass of them in the same precision, stands
by how much the embedding differs from that in float32, in units of its own standard error: the median over
filters, and the largest. A change far below one is lost in what another sample would change.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from bench_fisher import parse_batch_sizes, parse_networks
from fisher_peers import NUM_CLASSES
from machine import print_machine, save_figures
from torch import Tensor, nn

from indexer.fisher.estimate import FisherEstimate, fisher_information
from indexer.heads.heads import LinearHead
from indexer.networks.torchvision import models

NETWORKS = "resnet18@224,resnet50@224,mobilenet_v3_small@224,vit_b_16@224,tf_efficientnet_lite0@224"
PRECISIONS = {"float32": torch.float32, "TF32": torch.float32, "bfloat16": torch.bfloat16}


def build(name: str, pixels: int, device: torch.device) -> tuple[nn.Module, int]:
    """A random network of torchvision, or of timm where that has none, without its head, and its width."""
    torch.manual_seed(0)
    if hasattr(models, name):
        size = {"image_size": pixels} if name.startswith("vit") else {}
        network = getattr(models, name)(num_classes=NUM_CLASSES, **size)
    else:
        import timm

        network = timm.create_model(name, num_classes=NUM_CLASSES)
    last = [key for key, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    width = network.get_submodule(last).in_features
    network.set_submodule(last, nn.Identity())
    return network.eval().to(device).to(memory_format=torch.channels_last), width


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Let products of float32 be of TF32, or not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "TF32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def wait(device: torch.device) -> float:
    """The time once all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def plain_seconds(network: nn.Module, batches: list[tuple[Tensor, Tensor]], device: torch.device) -> float:
    """Of a forward and backward pass with gradients of all weights."""
    network.requires_grad_(True)
    start = wait(device)
    for images, _ in batches:
        network.zero_grad()
        network(images).float().square().sum().backward()
    seconds = wait(device) - start
    network.zero_grad()
    return seconds


def measure(
    network: nn.Module, head: LinearHead, images: Tensor, batch_size: int, name: str, repeats: int
) -> tuple[FisherEstimate, float, float]:
    """The estimate in one precision, and median seconds for it and for plain passes."""
    device, dtype = images.device, PRECISIONS[name]
    network, labels = network.to(dtype), torch.zeros(batch_size, dtype=torch.long)
    batches = [(part.to(dtype), labels[: len(part)]) for part in images.split(batch_size)]
    seconds: list[float] = []
    plain: list[float] = []
    with precision(name):
        for _ in range(repeats + 1):
            plain.append(plain_seconds(network, batches, device))
            start = wait(device)
            generator = torch.Generator().manual_seed(0)
            estimate = fisher_information(network, head, batches, estimator="signed", generator=generator)
            seconds.append(wait(device) - start)
    return estimate, statistics.median(seconds[1:]), statistics.median(plain[1:])


def rows_of(title: str, images: Tensor, batch_size: int, repeats: int) -> list[list[Any]]:
    """Print and return a line for each precision; one that fails, such as for want of memory, says why."""
    name, _, pixels = title.partition("@")
    rows, exact = list[list[Any]](), None
    for precision_name in PRECISIONS:
        network, width = build(name, int(pixels), images.device)
        weight = np.random.default_rng(0).normal(size=(NUM_CLASSES, width)) / np.sqrt(width)
        head, line = LinearHead(weight, np.zeros(NUM_CLASSES)), f"{title}, batch {batch_size}, {precision_name}"
        try:
            estimate, ours, plain = measure(network, head, images, batch_size, precision_name, repeats)
        except (RuntimeError, ValueError) as err:
            click.echo(f"{line:44}{str(err).splitlines()[0][:100]}")
            continue
        exact = exact or estimate
        sure = exact.standard_error > 0
        change = np.abs(estimate.mean - exact.mean)[sure] / exact.standard_error[sure]
        row = [1000 * ours / len(images), 1000 * plain / len(images), ours / plain]
        row += [float(np.median(change)), float(change.max())]
        rows.append([title, batch_size, precision_name, *row])
        click.echo(f"{line:44}{row[0]:8.2f}{row[1]:8.2f}{row[2]:7.2f}  {row[3]:.2g}, {row[4]:.2g}")
    return rows


@click.command()
@click.option("--device", "device_name", default="cuda", show_default=True)
@click.option("--networks", callback=parse_networks, default=NETWORKS, show_default=True)
@click.option("--batch-sizes", callback=parse_batch_sizes, default="64,512", show_default=True)
@click.option("--images", "count", default=512, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path))
def main(
    device_name: str, networks: list[str], batch_sizes: list[int], count: int, repeats: int, path: Path | None
) -> None:
    """Print a line for each network, batch size and precision."""
    device = torch.device(device_name)
    title = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    figures = {"machine": print_machine(title), "rows": []}
    click.echo(f"{'':44}{'s/1000':>8}{'plain':>8}{'ratio':>7}  change in standard errors: median, largest")
    for network_name in networks:
        pixels = int(network_name.partition("@")[2])
        images = torch.randn(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        for batch_size in batch_sizes:
            figures["rows"] += rows_of(network_name, images, batch_size, repeats)
    save_figures(path, figures)


if __name__ == "__main__":
    main()
