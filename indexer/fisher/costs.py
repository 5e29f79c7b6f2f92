"""What one pass of a probe costs: the form that each layer's squares take, and the batch that fits into memory.

Axes: N samples, K weights of a filter, P positions of a layer's output.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from indexer.fisher.gradients import Gradient, ScaleGradient, choose_form
from indexer.fisher.layer_rules import Rule
from indexer.fisher.square_grads import TEMPORARY_SHARE
from indexer.fisher.weight_uses import FilterBlock, WeightUses, attach, find_filters, find_sample_axes
from indexer.networks.run import PretrainedNetwork, blank_input, on_device_of
from indexer.records import DEFAULT_MEMORY_BUDGET

MAX_BATCH = 64
ACTIVATION_SHARE = 2
"""Activations may take half of the memory budget: temporaries have a quarter, gradients the rest."""


@dataclass(frozen=True)
class LayerCost:
    """How the squares of one layer are computed, and what that costs for one sample.

    Attributes:
        form: ``direct``, ``gram`` or ``shifted_gram``, see ``indexer.fisher.gradients``; ``elementwise`` for
            factors of channels; ``fallback`` for the slow route; ``unused`` if the network does without.
    """

    name: str  # the layer, or the parameter where a module has several
    kind: str
    filters: int
    weights: int  # K of each filter
    positions: int  # P, of all uses together
    form: str
    multiply_adds: int
    temporary_bytes: int


@dataclass(frozen=True)
class ProbeCosts:
    """What a probe costs."""

    batch_size: int  # samples a pass within the budget, at least 1 and at most ``MAX_BATCH``
    bytes_per_sample: int  # activations that a pass keeps for one sample
    layers: tuple[LayerCost, ...]


def probe_costs(
    network: PretrainedNetwork, *, memory_budget: int = DEFAULT_MEMORY_BUDGET, norm_weights: bool = False
) -> ProbeCosts:
    """Run a probe on one blank image or text, and say what the squares of its layers cost."""
    image, element_size = _blank(network), next(network.body.parameters()).element_size()
    blocks = {block.parameter: block for block in find_filters(network.body, norm_weights=norm_weights)}
    axes = find_sample_axes(network.body, blocks, image)
    gradients: dict[FilterBlock, list[Gradient]] = {}

    def on_use(block: FilterBlock, rule: Rule, arguments: dict[str, Any], output: Tensor) -> Tensor:
        if axis := axes[block]:
            arguments = arguments | {"input": axis.rows(arguments["input"], 1)}
            # Costs follow from shapes, so the output may stand for its gradient.
            gradients.setdefault(block, []).extend(rule.gradients(axis.rows(output, 1), 1, **arguments))
        return output

    with torch.no_grad(), WeightUses(blocks, on_use, lambda _block: None):
        network.body(image)
    layers = tuple(
        _layer_cost(block, gradients.get(block, []), memory_budget, element_size, slow=block in axes)
        for block in blocks.values()
    )
    needed = activation_bytes(network)
    return ProbeCosts(_fitting(needed, memory_budget), needed, layers)


def _layer_cost(
    block: FilterBlock, gradients: list[Gradient], memory_budget: int, element_size: int, *, slow: bool
) -> LayerCost:
    """The cost of a layer, of several uses together: these are added in full before they are squared."""
    if not gradients:
        form = "fallback" if slow else "unused"
    elif len(gradients) > 1:
        form = "direct"
    else:
        form = choose_form(gradients[0].costs(), memory_budget // TEMPORARY_SHARE // element_size)
    costs = [gradient.costs()[form] for gradient in gradients]
    return LayerCost(
        block.name,
        block.kind,
        block.num_filters,
        block.num_weights,
        sum(gradient.sizes[2] for gradient in gradients),
        "elementwise" if gradients and isinstance(gradients[0], ScaleGradient) else form,
        sum(cost.multiply_adds for cost in costs),
        max((cost.elements * element_size for cost in costs), default=0),
    )


def fitting_batch_size(network: PretrainedNetwork, memory_budget: int, num_tokens: int | None = None) -> int:
    """Samples whose activations take their share of a memory budget: at least 1, at most ``MAX_BATCH``.

    Args:
        network: The probe.
        memory_budget: Bytes.
        num_tokens: Tokens of the longest text; by default the most that the probe sees.
    """
    return _fitting(activation_bytes(network, num_tokens), memory_budget)


def _fitting(bytes_per_sample: int, memory_budget: int) -> int:
    return min(MAX_BATCH, max(1, memory_budget // ACTIVATION_SHARE // max(1, bytes_per_sample)))


def activation_bytes(network: PretrainedNetwork, num_tokens: int | None = None) -> int:
    """Bytes that one sample keeps between the forward and the backward pass, each memory counted once.

    Counted are what autograd saves, parameters left out, and the inputs of layers, which the rules need.
    """
    own = {_memory(tensor) for tensor in (*network.body.parameters(), *network.body.buffers())}
    kept: dict[int, Tensor] = {}  # by address of the memory, which the tensors keep from being used anew

    def keep(tensor: Tensor) -> Tensor:
        if _memory(tensor) not in own:
            kept[_memory(tensor)] = tensor.detach()
        return tensor.detach()  # an output that its own node keeps would hold the graph for ever

    def on_use(_block: FilterBlock, _rule: Rule, arguments: dict[str, Any], output: Tensor) -> Tensor:
        keep(arguments["input"])
        return output if output.requires_grad else attach(output)

    blocks = {block.parameter: block for block in find_filters(network.body, norm_weights=False)}
    with (
        torch.enable_grad(),
        saved_tensors_hooks(keep, lambda tensor: tensor),
        WeightUses(blocks, on_use, lambda _block: None),
    ):
        network.body(_blank(network, num_tokens))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _blank(network: PretrainedNetwork, num_tokens: int | None = None) -> Tensor:
    blank = blank_input(network.transform, num_tokens)
    return on_device_of(next(network.body.parameters()), blank)
