"""Which parameters of a network are embedded, and what their filters are.

Axes: D filters of the network, O filters of one parameter.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Layout = Literal["first", "last", "transposed", "each"]
"""Where the filters of a parameter lie: along its first or last axis, along the second of a transposed
convolution (whose first holds the groups), or each weight a filter of its own."""

_OFFSETS = re.compile(r"bias|token|pos_emb|position_emb|class_emb|probe$")
"""Parameters that are added, whatever they are called: biases, class and register tokens, positions."""


@dataclass(frozen=True, eq=False)
class FilterBlock:
    """The filters of one parameter.

    Attributes:
        name: Name of the parameter without ``.weight``, which for most is the name of its layer.
        parameter_name: Full name.
        parameter: The weights.
        kind: Class of the module that holds it.
        layout: Where its filters lie.
        groups: Groups of a transposed convolution, else 1.
    """

    name: str
    parameter_name: str
    parameter: nn.Parameter
    kind: str
    layout: Layout
    groups: int = 1

    @property
    def num_filters(self) -> int:
        """Number of filters, O."""
        match self.layout:
            case "each":
                return self.parameter.numel()
            case "transposed":
                return self.parameter.shape[1] * self.groups
            case "last":
                return self.parameter.shape[-1]
            case "first":
                return self.parameter.shape[0]

    @property
    def num_weights(self) -> int:
        """Number of weights of each filter."""
        return self.parameter.numel() // self.num_filters

    def by_filter(self, values: Tensor) -> Tensor:
        """Values ``[N, *parameter.shape]`` as ``[N, O, weights]``."""
        if self.layout == "transposed":
            values = values.reshape(len(values), self.groups, -1, *values.shape[2:]).transpose(2, 3)
        elif self.layout == "last":
            values = values.movedim(-1, 1)
        return values.reshape(len(values), self.num_filters, -1)


def find_filters(network: nn.Module, *, norm_weights: bool) -> list[FilterBlock]:
    """The parameters to embed, in the order of ``named_parameters``.

    Weights of convolutions, linear layers and lookup tables have filters, as has any other parameter of more
    than one axis. Factors of whole channels (affine weights of normalisation layers, layer scales, attention
    temperatures) are embedded with ``norm_weights`` only. What is added (biases, tokens, positions) has no
    filter to average over and is left out.
    """
    blocks = []
    for name, parameter, module in _owned_parameters(network):
        attribute = name.rpartition(".")[2]
        # A table of positions is an Embedding with an innocent "weight".
        title = (
            name.removesuffix(".weight").rpartition(".")[2] if isinstance(module, nn.Embedding) else attribute
        )
        if _OFFSETS.search(title) or not parameter.numel() or not parameter.is_floating_point():
            continue
        layout = _layout(module, attribute, parameter)
        if layout != "each" or norm_weights:
            layer = name.removesuffix(".weight") if name != "weight" else ""
            groups = module.groups if isinstance(module, _ConvTransposeNd) else 1
            blocks.append(FilterBlock(layer, name, parameter, type(module).__name__, layout, groups))
    return blocks


def is_scripted(network: nn.Module) -> bool:
    """Whether TorchScript is part of a network: what happens inside of it cannot be watched."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())


def _layout(module: nn.Module, attribute: str, parameter: nn.Parameter) -> Layout:
    if attribute == "weight":
        if isinstance(module, _ConvTransposeNd):
            return "transposed"
        if isinstance(module, nn.Embedding):
            return "last"
        if isinstance(module, nn.Linear | _ConvNd):
            return "first"
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return "each"  # though it may have several axes
    return "first" if sum(size > 1 for size in parameter.shape) > 1 else "each"


def _owned_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Name, parameter, and module that holds it; one that several hold goes to the first."""
    seen = set()
    for path, module in network.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                yield f"{path}.{attribute}" if path else attribute, parameter, module
