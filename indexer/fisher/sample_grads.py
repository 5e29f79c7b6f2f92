"""Squared gradients of one sample at a time: the exact, slow route for weights without a rule.

Axes: N samples, F outputs of the network, O filters of one parameter.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from indexer.errors import UnsupportedLayerError
from indexer.fisher.weight_uses import FilterBlock, is_scripted


def sample_square_grads(
    network: nn.Module, blocks: Sequence[FilterBlock], images: Tensor, output_grads: Tensor, max_elements: int
) -> dict[FilterBlock, Tensor]:
    """Mean over each filter's weights of the squared gradients of some parameters.

    Args:
        network: Images to outputs ``[N, ...]``, in eval mode.
        blocks: The parameters, by their filters.
        images: ``[N, ...]``.
        output_grads: ``[N, ...]``: gradient of a scalar in the outputs.
        max_elements: How many the gradients of several samples may have together.

    Returns:
        By block, ``[N, O]``, at least float32.

    Raises:
        UnsupportedLayerError: If torch.func cannot run the network.
    """
    if is_scripted(network) or not images.is_floating_point():  # models of texts look at their masks
        return _one_by_one(network, blocks, images, output_grads)
    weights = {block.parameter_name: block.parameter.detach() for block in blocks}
    chunk = max(1, max_elements // sum(weight.numel() for weight in weights.values()))

    def scalar(weights: dict[str, Tensor], image: Tensor, output_grad: Tensor) -> Tensor:
        output: Tensor = functional_call(network, weights, (image[None],))
        return (output[0] * output_grad).sum()

    def squares(weights: dict[str, Tensor], image: Tensor, output_grad: Tensor) -> list[Tensor]:
        grads = grad(scalar)(weights, image, output_grad)
        return [_mean_square(block, grads[block.parameter_name]) for block in blocks]

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # it is said to be slow
            columns = vmap(squares, in_dims=(None, 0, 0), chunk_size=chunk)(weights, images, output_grads)
    except RuntimeError as err:
        names = ", ".join(repr(block.name) for block in blocks[:3])
        raise UnsupportedLayerError(
            f"no rule knows how the network uses layer {names}, and torch.func cannot run it either ({err}); "
            "use another probe"
        ) from err
    return dict(zip(blocks, columns, strict=True))


def _one_by_one(
    network: nn.Module, blocks: Sequence[FilterBlock], images: Tensor, output_grads: Tensor
) -> dict[FilterBlock, Tensor]:
    """By ordinary autograd, because torch.func can run neither TorchScript nor models of texts."""
    parameters = [block.parameter for block in blocks]
    for parameter in parameters:
        parameter.requires_grad_(True)
    rows = []
    try:
        for image, output_grad in zip(torch.split(images, 1), torch.split(output_grads, 1), strict=True):
            with torch.enable_grad():
                output = network(image)
            grads = torch.autograd.grad(
                output, parameters, output_grad, allow_unused=True, materialize_grads=True
            )
            rows.append([_mean_square(block, value) for block, value in zip(blocks, grads, strict=True)])
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
    return {block: torch.stack(column) for block, column in zip(blocks, zip(*rows, strict=True), strict=True)}


def _mean_square(block: FilterBlock, grad: Tensor) -> Tensor:
    """``[*parameter.shape]`` to ``[O]``."""
    grad = grad.to(torch.promote_types(grad.dtype, torch.float32))
    return block.by_filter(grad.square()[None]).mean(dim=2)[0]
