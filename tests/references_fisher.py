"""Slow, obviously right twins of indexer.square_grads: one sample at a time, through ordinary weight gradients.

Axes: N samples, S directions a sample, C outputs.
"""

import numpy as np
import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def embedded_weights(network: nn.Module, *, norm_weights: bool = False) -> dict[str, nn.Parameter]:
    """Weights that have a place in the embedding, by the name of their layer."""
    kinds = (nn.Conv2d, nn.Linear, *NORMS) if norm_weights else (nn.Conv2d, nn.Linear)
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, kinds)]
    return {name: layer.weight for name, layer in layers if layer.weight is not None}


def square_grads_one_by_one(
    network: nn.Module, images: Tensor, directions: Tensor, *, norm_weights: bool = False
) -> dict[str, Tensor]:
    """By layer ``[N, filters]``: squared gradients along ``[S, N, C]``, summed over S, mean of a filter."""
    weights = embedded_weights(network, norm_weights=norm_weights)
    norms = {name for name, layer in network.named_modules() if isinstance(layer, NORMS)}
    rows: dict[str, list[Tensor]] = {name: [] for name in weights}
    for sample, image in enumerate(images):
        output = network(image[None])[0]
        totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for direction in directions[:, sample]:
            scalar = (direction * output).sum()
            grads = torch.autograd.grad(scalar, list(weights.values()), retain_graph=True)
            for total, grad in zip(totals.values(), grads, strict=True):
                total += grad**2
        for name, total in totals.items():
            filters = total.numel() if name in norms else len(total)
            rows[name].append(total.reshape(filters, -1).mean(dim=1))
    return {name: torch.stack(row) for name, row in rows.items()}


def relative_errors(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Per value, |found - expected| / max(|expected|, 1e-3 of the layer's largest).

    A gradient is a sum over positions and rounded in proportion to its terms. Where these cancel, no float32
    sum has a small relative error, and ours has a larger one than torch.func; hence the floor.
    """
    floor = 1e-3 * np.abs(expected).max() + np.finfo(expected.dtype).tiny
    return np.abs(found - expected) / np.maximum(np.abs(expected), floor)


def check_layers(
    found: Tensor, slices: dict[str, slice], expected: dict[str, Tensor], tolerance: float
) -> None:
    """Compare shapes, then values, and report all layers that differ in one message."""
    assert list(slices) == list(expected), f"layers {list(slices)}, expected {list(expected)}"
    shapes = {name: (tuple(found[:, slices[name]].shape), tuple(rows.shape)) for name, rows in expected.items()}
    wrong_shapes = [f"{name}: {got}, expected {want}" for name, (got, want) in shapes.items() if got != want]
    assert not wrong_shapes, "\n".join(["shapes differ:", *wrong_shapes])
    errors = {
        name: relative_errors(found[:, slices[name]].cpu().numpy(), rows.cpu().numpy()).max()
        for name, rows in expected.items()
    }
    wrong = [f"{name}: relative error {error:.1e}" for name, error in errors.items() if not error <= tolerance]
    assert not wrong, "\n".join([f"beyond {tolerance:.0e}:", *wrong])
