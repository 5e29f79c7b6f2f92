"""Accuracy and cost of indexer.square_grads, beside torch.func and an ordinary training step.

Accuracy: squared gradients of one label a sample, the same labels for all, averaged over samples; the relative
error of a filter is |found - expected| / max(|expected|, 1e-3 of the layer's largest), because a gradient whose
terms cancel is rounded in proportion to them. Below it float32 errors are larger, ours larger than
torch.func's, because Gram matrices square before they sum: they are printed too, with a floor of 1e-6.

Cost: one forward and backward pass over one batch, repeated in turn; ratios are those of the medians.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from machine import print_machine, save_figures
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from indexer.fisher import get_estimator
from indexer.square_grads import SquareGrads
from indexer.vision import models

ARCHITECTURES = ("resnet18", "squeezenet1_0", "mobilenet_v3_small")
TIMED = (("resnet18", 32), ("resnet18", 64), ("squeezenet1_0", 64))
NUM_CLASSES = 100
VMAP_CHUNK = 8  # samples whose weight gradients torch.func holds at once; all 64 would take 3 GB for resnet18

Squares = dict[str, Tensor]


def build(name: str, device: torch.device) -> nn.Module:
    """A random network in eval mode whose batch norms have statistics other than zero and one."""
    network = getattr(models, name)(num_classes=NUM_CLASSES).eval().to(device)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return network


def ours(network: nn.Module, images: Tensor, directions: Tensor) -> Squares:
    """By layer ``[N, filters]``."""
    with SquareGrads(network) as grads:
        network(images).backward(directions)
        squares = grads.take()
    return {name: squares[:, columns] for name, columns in grads.slices.items()}


def torch_func(network: nn.Module, images: Tensor, directions: Tensor) -> Squares:
    """By layer ``[N, filters]``, through per-sample weight gradients."""
    kinds = nn.Conv2d | nn.Linear
    names = [f"{name}.weight" for name, layer in network.named_modules() if isinstance(layer, kinds)]
    weights = {name: network.get_parameter(name).detach() for name in names}

    def scalar(weights: Squares, image: Tensor, direction: Tensor) -> Tensor:
        return (functional_call(network, weights, (image[None],))[0] * direction).sum()

    def squares(weights: Squares, image: Tensor, direction: Tensor) -> Squares:
        return {
            name.removesuffix(".weight"): value.square().flatten(1).mean(dim=1)
            for name, value in grad(scalar)(weights, image, direction).items()
        }

    return vmap(squares, in_dims=(None, 0, 0), chunk_size=VMAP_CHUNK)(weights, images, directions)


def plain(network: nn.Module, images: Tensor, directions: Tensor) -> None:
    """What a training step does: gradients of all weights, summed over the batch."""
    network.zero_grad()
    network(images).backward(directions)


def largest_error(found: Squares, expected: Squares, floor: float = 1e-3) -> float:
    """Largest relative error of a filter's mean over samples; ``floor`` is a share of the layer's largest."""
    largest = 0.0
    for name, rows in expected.items():
        mean = rows.double().mean(dim=0)
        difference = (found[name].double().mean(dim=0) - mean).abs()
        largest = max(largest, (difference / mean.clamp_min(floor * mean.max().item())).max().item())
    return largest


def measure_errors(
    name: str, pixels: int, device: torch.device, generator: torch.Generator
) -> dict[str, float]:
    """Errors of both routes in both precisions."""
    network = build(name, device)
    images = torch.randn(4, 3, pixels, pixels, generator=generator).to(device)
    with torch.no_grad():
        directions = get_estimator("montecarlo").directions(network(images), generator)[0]
    ours_single = ours(network, images, directions)
    func_single = torch_func(network, images, directions)
    network.double()
    ours_double = ours(network, images.double(), directions.double())
    func_double = torch_func(network, images.double(), directions.double())
    return {
        "float64": largest_error(ours_double, func_double),
        "float32": largest_error(ours_single, func_single),
        "float32_ours_against_float64": largest_error(ours_single, func_double),
        "float32_torch_func_against_float64": largest_error(func_single, func_double),
        "float32_floor_1e-6": largest_error(ours_single, func_single, floor=1e-6),
    }


def measure_seconds(
    name: str, pixels: int, batch_size: int, repeats: int, device: torch.device, generator: torch.Generator
) -> dict[str, float]:
    """Median seconds of each route, run in turn, and ours over each of the others."""
    network = build(name, device)
    images = torch.randn(batch_size, 3, pixels, pixels, generator=generator).to(device)
    directions = torch.randn(batch_size, NUM_CLASSES, generator=generator).to(device)
    routes = {
        route.__name__: partial(route, network, images, directions) for route in (ours, plain, torch_func)
    }
    seconds: dict[str, list[float]] = {route: [] for route in routes}
    for _ in range(repeats + 1):
        for route, run in routes.items():
            seconds[route].append(time_once(run, device))
    medians = {route: statistics.median(values[1:]) for route, values in seconds.items()}  # the first warms up
    ratios = {f"ours_over_{peer}": medians["ours"] / medians[peer] for peer in ("plain", "torch_func")}
    return medians | ratios


def time_once(run: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of one run, the device's queue included."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


@click.command()
@click.option("--quick", is_flag=True, help="Smaller batches and fewer repeats; under a minute.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file too."
)
@click.option("--seed", default=0, show_default=True, help="Of the networks, images and labels.")
@click.option("--device", "device_name", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
def main(quick: bool, json_path: Path | None, seed: int, device_name: str) -> None:
    """Print accuracy and cost of the per-filter squared gradients."""
    device = torch.device(device_name)
    torch.manual_seed(seed)
    torch.backends.cudnn.allow_tf32 = False  # float32 shall mean float32 in every route
    generator = torch.Generator().manual_seed(seed)
    batch_size, repeats = (16, 3) if quick else (64, 7)
    device_title = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    figures: dict[str, Any] = {"machine": print_machine(device_title), "errors": {}, "seconds": {}}
    print(f"{torch.get_num_threads()} threads, seed {seed}")
    print("\nlargest relative error of a filter")
    for name in ARCHITECTURES:
        figures["errors"][name] = report(name, measure_errors(name, 64, device, generator))
    print(f"\nseconds of one pass, batch of {batch_size}, median of {repeats}")
    for name, pixels in TIMED:
        seconds = measure_seconds(name, pixels, batch_size, repeats, device, generator)
        figures["seconds"][f"{name}_{pixels}px"] = report(f"{name} at {pixels} px", seconds)
    save_figures(json_path, figures)


def report(title: str, figures: dict[str, float]) -> dict[str, float]:
    """Print one line of figures and hand them on."""
    print(f"  {title}: " + "  ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    return figures


if __name__ == "__main__":
    main()
