"""Which parameters of a network are embedded, what their filters are, and how the network uses them.

Axes: N samples, D filters of the network, O filters of one parameter, k rows of a layer's input a sample.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from indexer.errors import UnsupportedLayerError
from indexer.fisher.layer_rules import COMPOSED, MULTIPLICATIONS, RULES, Layout, Rule
from indexer.networks.weights import OwnMode

_OFFSETS = re.compile(r"bias|token|pos_emb|position_emb|class_emb|probe$")
"""Parameters that are added, whatever they are called: biases, class and register tokens, positions."""


@dataclass(frozen=True, eq=False)
class FilterBlock:
    """The filters of one parameter."""

    name: str  # name of the parameter without ``.weight``, which for most is the name of its layer
    parameter_name: str
    parameter: nn.Parameter
    kind: str
    layout: Layout
    groups: int = 1  # groups of a transposed convolution, else 1

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


OnUse = Callable[[FilterBlock, Rule, dict[str, Any], Tensor], Tensor]
"""Called as ``on_use(block, rule, arguments, output)``; gives the output that the network goes on with."""


@dataclass(frozen=True)
class SampleAxis:
    """Where the samples lie in a layer's input and output: along ``axis``, of size k * N."""

    axis: int  # counted from the first
    minor: bool  # whether neighbouring rows are of different samples; else each sample has k rows in a row

    def rows(self, values: Tensor, num_samples: int) -> Tensor:
        """Values with the axis first and sample n in rows k*n to k*(n+1)-1."""
        values = values.movedim(self.axis, 0)
        if not self.minor:
            return values
        return values.reshape(-1, num_samples, *values.shape[1:]).transpose(0, 1).flatten(0, 1)


class WeightUses(OwnMode):
    """While it is entered, sees every torch function that is called on one of the parameters.

    Args:
        blocks: By parameter.
        on_use: Called for uses that have a rule.
        on_other: Called for parameters that went into any other function that gave a tensor.
    """

    def __init__(
        self, blocks: Mapping[nn.Parameter, FilterBlock], on_use: OnUse, on_other: Callable[[FilterBlock], None]
    ) -> None:
        super().__init__()
        self._blocks = blocks
        self._on_use = on_use
        self._on_other = on_other

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and report its use of weights."""
        kwargs = kwargs or {}
        if function in COMPOSED:
            with self:
                return COMPOSED[function](*args, **kwargs)
        output = function(*args, **kwargs)
        given = _tensors((*args, *kwargs.values()))
        used = [value for value in given if isinstance(value, nn.Parameter) and value in self._blocks]
        if not used or not any(value is not used[0] for value in _tensors(output)):
            return output  # a look at a shape or a dtype, or a conversion that changed nothing
        rule = RULES.get(function)
        arguments = rule and _arguments(rule, function, args, kwargs)
        if rule and arguments and arguments["weight"] is used[0] and len(used) == 1:
            block = self._blocks[used[0]]
            if rule.layout in (block.layout, "each"):
                return self._on_use(block, rule, arguments, output)
        for parameter in used:
            self._on_other(self._blocks[parameter])
        return output


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, or in a list of values, or in lists of those."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _arguments(
    rule: Rule, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """Arguments by name, or ``None`` for a call that the rule does not know."""
    if function in MULTIPLICATIONS and isinstance(args[0], nn.Parameter):
        args = args[::-1]
    try:
        arguments = rule.bind(args, kwargs)
    except TypeError:
        return None
    return arguments if isinstance(arguments["input"], Tensor) else None


def find_sample_axes(
    network: nn.Module, blocks: Mapping[nn.Parameter, FilterBlock], images: Tensor
) -> dict[FilterBlock, SampleAxis | None]:
    """Find the axis that holds the samples in the inputs of every weight.

    The network runs on two samples of which the second is NaN (of lookups in integer inputs: whose looked-up
    vectors are). Where an axis falls into a half without a NaN and one with, it holds the samples.

    Returns:
        By block that was used; ``None`` for all of TorchScript, where no rule knows the use, where no axis
        holds the samples, or where two uses differ in either.

    Raises:
        UnsupportedLayerError: If the network mixes samples.
    """
    if is_scripted(network):
        return dict.fromkeys(blocks.values())
    pair = torch.cat([images[:1], images[:1]])
    if pair.is_floating_point():
        pair[1] = torch.nan
    axes: dict[FilterBlock, SampleAxis | None] = {}
    rules: dict[FilterBlock, Rule] = {}

    def on_use(block: FilterBlock, rule: Rule, arguments: dict[str, Any], output: Tensor) -> Tensor:
        inputs = arguments["input"]
        if inputs.is_floating_point():
            axis = _tainted_axis(inputs)
        else:
            axis = SampleAxis(0, minor=False) if _same_storage(inputs, pair) and len(inputs) == 2 else None
            if axis:
                output = torch.stack([output[0], torch.full_like(output[1], torch.nan)])
        same = axes.setdefault(block, axis) == axis and rules.setdefault(block, rule) is rule
        axes[block] = axis if same else None
        return output if output.requires_grad else attach(output)

    def on_other(block: FilterBlock) -> None:
        axes[block] = None

    with torch.enable_grad(), WeightUses(blocks, on_use, on_other):
        output = network(pair)
    if output[0].isnan().any() and not network(pair[:1]).isnan().any():
        raise UnsupportedLayerError(
            "the network gives each sample something of the others in its batch, so that their gradients "
            "cannot be told apart; use a probe that treats samples on their own"
        )
    return axes


def _tainted_axis(inputs: Tensor) -> SampleAxis | None:
    """The axis of even size that falls into a half without a NaN, of the first sample, and one with."""
    tainted = inputs.detach().isnan()
    for axis, size in enumerate(inputs.shape):
        if size and size % 2 == 0:
            for minor in (False, True):
                first, second = SampleAxis(axis, minor).rows(tainted, num_samples=2).chunk(2)
                if second.any() and not first.any():
                    return SampleAxis(axis, minor)
    return None


def _same_storage(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


class _Attach(torch.autograd.Function):
    """The identity, on a tensor that needs no gradient and a leaf that does; copies nothing."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, leaf: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *_grads: Tensor) -> tuple[None, None]:
        return None, None


def attach(output: Tensor) -> Tensor:
    """Make a tensor part of a graph for autograd, so that gradients are computed back to it."""
    leaf = output.new_zeros((), requires_grad=True)
    attached: Tensor = _Attach.apply(output, leaf)  # type: ignore[no-untyped-call]
    return attached
