"""Every classification network of torchvision goes through indexer.square_grads, and exactly.

In float64: in float32 a unit near zero may fall on either side of a ReLU, also between two batch sizes of one
library, so that gradients of an untrained deep network can differ by percents.
"""

import gc

import pytest
import torch
from references_fisher import check_layers, square_grads_of_parameters
from torch import nn

from indexer.fisher.square_grads import SquareGrads
from indexer.fisher.weight_uses import find_filters
from indexer.networks.torchvision import models

NAMES = models.list_models(module=models)
PIXELS = {"inception_v3": 75, "googlenet": 64, "alexnet": 64, "maxvit_t": 224, "vgg": 32}
LARGEST = 100_000_000
"""Parameters up to which gradients of single samples are compared; larger ones are run only."""


def build(name: str) -> tuple[nn.Module, int]:
    """A random network in eval mode, and the side of the smallest input worth giving it."""
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    pixels = PIXELS.get(name, 33)
    if name.startswith("vit"):
        pixels = 2 * int(name.rpartition("_")[2])
        options = {"image_size": pixels}
    network = models.get_model(name, num_classes=3, **options).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return network, pixels


def fallbacks_of(name: str) -> set[str]:
    """Swin v2 makes its position biases of a table of coordinates, the same for all samples."""
    return {"Linear"} if name.startswith("swin_v2") else set()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_torchvision_architecture_matches_one_by_one(name: str):
    torch.manual_seed(0)
    network, pixels = build(name)
    blocks = find_filters(network, norm_weights=False)
    exact = sum(block.parameter.numel() for block in blocks) <= LARGEST
    dtype = torch.float64 if exact else torch.float32
    network.to(dtype)
    images, direction = torch.randn(2, 3, pixels, pixels, dtype=dtype), torch.randn(1, 2, 3, dtype=dtype)
    with SquareGrads(network) as grads:
        network(images).backward(direction[0])
        found = grads.take()
    assert torch.isfinite(found).all()
    slow = {title.rpartition(" (")[2].rstrip(")") for title in grads.fallbacks}
    assert slow == fallbacks_of(name)
    assert all(".cpb_mlp." in title for title in grads.fallbacks)
    if exact:
        weights = {block.name: block.parameter for block in blocks}
        expected = square_grads_of_parameters(network, weights, images, direction)
        check_layers(found, grads.slices, expected, 1e-8)
    gc.collect()
