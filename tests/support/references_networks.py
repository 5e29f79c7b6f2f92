"""Slow, obviously right twins of what loads and heads networks."""

import torch
from torch import Tensor, nn

from indexer.networks.run import head_name


def random_images(side: int = 32) -> Tensor:
    """Two normalised images ``[2, 3, side, side]``, the same at every call."""
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def check_body(body: nn.Module, network: nn.Module, side: int = 32):
    """Expect the network without its head, frozen and in evaluation mode, whose features give the logits."""
    assert not any(module.training for module in body.modules())
    assert not any(parameter.requires_grad for parameter in body.parameters())
    head = network.get_submodule(head_name(network))
    with torch.inference_mode():
        torch.testing.assert_close(head(body(random_images(side))), network(random_images(side)))
