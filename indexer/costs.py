"""What one pass of a probe costs: the form that each layer's squares take, and the batch that fits into memory.

Axes: N samples, K weights of a filter, P positions of a layer's output.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from indexer.filters import FilterBlock, find_filters
from indexer.gradients import choose_form
from indexer.layer_rules import Rule
from indexer.probes import PretrainedNetwork
from indexer.square_grads import DEFAULT_MEMORY_BUDGET, TEMPORARY_SHARE
from indexer.weight_uses import WeightUses, attach, find_sample_axes

MAX_BATCH = 64
ACTIVATION_SHARE = 2
"""Activations may take half of the memory budget: temporaries have a quarter, gradients the rest."""


@dataclass(frozen=True)
class LayerCost:
    """How the squares of one layer are computed, and what that costs for one sample.

    Attributes:
        name: Of the layer, or of the parameter where a module has several.
        kind: Class of the module.
        filters: Embedded.
        weights: K of each filter.
        positions: P, of all uses together.
        form: ``direct``, ``gram`` or ``shifted_gram``, see ``indexer.gradients``; ``elementwise`` for factors
            of channels; ``fallback`` for the slow route; ``unused`` if the network does without.
        multiply_adds: In matrix products.
        temporary_bytes: Written meanwhile.
    """

    name: str
    kind: str
    filters: int
    weights: int
    positions: int
    form: str
    multiply_adds: int
    temporary_bytes: int


@dataclass(frozen=True)
class ProbeCosts:
    """What a probe costs.

    Attributes:
        batch_size: Samples a pass within the budget, at least 1 and at most ``MAX_BATCH``.
        bytes_per_sample: Activations that a pass keeps for one sample.
        layers: In the order of the embedding.
    """

    batch_size: int
    bytes_per_sample: int
    layers: tuple[LayerCost, ...]


def probe_costs(
    network: PretrainedNetwork, *, memory_budget: int = DEFAULT_MEMORY_BUDGET, norm_weights: bool = False
) -> ProbeCosts:
    """Run a probe on one blank image, and say what the squares of its layers cost.

    Args:
        network: The probe.
        memory_budget: Bytes that activations and temporaries of a pass may take.
        norm_weights: Whether factors of whole channels are embedded too.

    Returns:
        The costs; forms are those that a pass within the budget takes.
    """
    image = _blank(network)
    blocks = {block.parameter: block for block in find_filters(network.body, norm_weights=norm_weights)}
    axes = find_sample_axes(network.body, blocks, image)
    uses: dict[FilterBlock, list[LayerCost]] = {}
    max_elements = memory_budget // TEMPORARY_SHARE // 4

    def on_use(block: FilterBlock, rule: Rule, arguments: dict[str, Any], output: Tensor) -> Tensor:
        if axis := axes[block]:
            arguments = arguments | {"input": axis.rows(arguments["input"], 1)}
            for gradient in rule.gradients(axis.rows(output, 1), 1, **arguments):
                costs = gradient.costs()
                form = choose_form(costs, max_elements)
                uses.setdefault(block, []).append(
                    LayerCost(
                        block.name,
                        block.kind,
                        block.num_filters,
                        block.num_weights,
                        gradient.sizes[2],
                        "elementwise" if rule.layout == "each" else form,
                        costs[form].multiply_adds,
                        costs[form].elements * image.element_size(),
                    )
                )
        return output

    with torch.no_grad(), WeightUses(blocks, on_use, lambda _block: None):
        network.body(image)
    layers = tuple(_together(block, uses.get(block, []), slow=block in axes) for block in blocks.values())
    needed = activation_bytes(network)
    return ProbeCosts(_fitting(needed, memory_budget), needed, layers)


def _together(block: FilterBlock, uses: list[LayerCost], *, slow: bool) -> LayerCost:
    """The cost of a layer of all its uses, whose gradients are added before they are squared."""
    form = uses[0].form if len(uses) == 1 else "direct" if uses else "fallback" if slow else "unused"
    return LayerCost(
        block.name,
        block.kind,
        block.num_filters,
        block.num_weights,
        sum(use.positions for use in uses),
        form,
        sum(use.multiply_adds for use in uses),
        max((use.temporary_bytes for use in uses), default=0),
    )


def fitting_batch_size(network: PretrainedNetwork, memory_budget: int) -> int:
    """Samples whose activations take their share of a memory budget: at least 1, at most ``MAX_BATCH``."""
    return _fitting(activation_bytes(network), memory_budget)


def _fitting(bytes_per_sample: int, memory_budget: int) -> int:
    return min(MAX_BATCH, max(1, memory_budget // ACTIVATION_SHARE // max(1, bytes_per_sample)))


def activation_bytes(network: PretrainedNetwork) -> int:
    """Bytes that one sample keeps between the forward and the backward pass, each memory counted once.

    Counted are what autograd saves, parameters left out, and the inputs of layers, which the rules need.
    """
    own = {_memory(tensor) for tensor in (*network.body.parameters(), *network.body.buffers())}
    kept: dict[int, Tensor] = {}  # by address of the memory, which the tensors keep from being used anew

    def keep(tensor: Tensor) -> Tensor:
        if _memory(tensor) not in own:
            kept[_memory(tensor)] = tensor.detach()
        return tensor

    def on_use(_block: FilterBlock, _rule: Rule, arguments: dict[str, Any], output: Tensor) -> Tensor:
        keep(arguments["input"])
        return output if output.requires_grad else attach(output)

    blocks = {block.parameter: block for block in find_filters(network.body, norm_weights=False)}
    with (
        torch.enable_grad(),
        saved_tensors_hooks(keep, lambda tensor: tensor),
        WeightUses(blocks, on_use, lambda _block: None),
    ):
        network.body(_blank(network))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _blank(network: PretrainedNetwork) -> Tensor:
    parameter = next(network.body.parameters())
    size = network.transform.crop
    return parameter.new_zeros(1, 3, size, size)
