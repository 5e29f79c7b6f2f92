"""indexer.networks.small_resnet: the residual network of the CIFAR-10 experiments, by count and by what it
recognises."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from indexer.data.samples import load_sample
from indexer.networks.load import ARCHITECTURES
from indexer.networks.small_resnet import BasicBlock, SmallResNet

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def count_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_depth_gives_the_parameters_of_the_paper(depth: int, millions: float):
    """Table 6 of arXiv 1512.03385."""
    assert count_params(SmallResNet(depth, 10)) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_depth_counts_the_weighted_layers(depth: int):
    layers = [layer for layer in SmallResNet(depth, 10).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


@pytest.mark.parametrize("depth", [-4, 2, 7, 18, 52])
def test_depth_that_is_not_6n_plus_2_is_refused(depth: int):
    message = f"depth must be 6n+2 with n of at least 1 (8, 14, 20, ...), got {depth}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SmallResNet(depth, 10)


@pytest.mark.parametrize(("width", "stem_stride", "side"), [(16, 1, 32), (4, 2, 64), (4, 2, 17), (3, 1, 9)])
def test_logits_have_a_row_a_sample(width: int, stem_stride: int, side: int):
    network = SmallResNet(8, 5, width=width, stem_stride=stem_stride)
    assert network(torch.zeros(3, 3, side, side)).shape == (3, 5)
    assert network.linear.in_features == 4 * width


def test_shortcut_subsamples_pixels_and_pads_channels_with_zeros():
    """With both convolutions at zero only the shortcut is left."""
    block = BasicBlock(2, 5, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    images = torch.rand(1, 2, 5, 5)
    expected = torch.zeros(1, 5, 3, 3)
    for row in range(3):
        for column in range(3):
            expected[0, 1:3, row, column] = images[0, :, 2 * row, 2 * column]
    torch.testing.assert_close(block(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("depth", [20, 56])
def test_trained_weights_recognise_real_images(shared: Path, depth: int):
    """Trained elsewhere: layers, transform, decoding and order of channels must all be right."""
    network = SmallResNet(depth, 10).eval()
    network.load_state_dict(load_file(shared / "weights" / f"resnet{depth}.cifar10.safetensors"))
    transform = ARCHITECTURES[f"resnet{depth}"].transform
    sample = load_sample(str(shared / "data" / "cifar10"), transform, max_samples=100, seed=0)
    assert sample.description.class_names == CIFAR10
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (transform.mean, transform.std))
    with torch.inference_mode():
        logits = network((torch.from_numpy(sample.images) / 255 - mean) / std)
    assert np.mean(logits.argmax(dim=1).numpy() == sample.labels) > 0.85
