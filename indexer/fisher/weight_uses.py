"""Watching a network use its weights, and finding which axis of a layer's input holds the samples.

Axes: N samples, k rows of a layer's input for each sample.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from indexer.errors import UnsupportedLayerError
from indexer.fisher.layer_rules import COMPOSED, MULTIPLICATIONS, RULES, Rule
from indexer.fisher.parameters import FilterBlock, is_scripted

OnUse = Callable[[FilterBlock, Rule, dict[str, Any], Tensor], Tensor]
"""Called as ``on_use(block, rule, arguments, output)``; gives the output that the network goes on with."""


@dataclass(frozen=True)
class SampleAxis:
    """Where the samples lie in a layer's input and output: along ``axis``, of size k * N.

    Attributes:
        axis: Counted from the first.
        minor: Whether neighbouring rows are of different samples; else each sample has k rows in a row.
    """

    axis: int
    minor: bool

    def rows(self, values: Tensor, num_samples: int) -> Tensor:
        """Values with the axis first and sample n in rows k*n to k*(n+1)-1."""
        values = values.movedim(self.axis, 0)
        if not self.minor:
            return values
        return values.reshape(-1, num_samples, *values.shape[1:]).transpose(0, 1).flatten(0, 1)


class WeightUses(TorchFunctionMode):
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
        used = [value for value in _parameters((*args, *kwargs.values())) if value in self._blocks]
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


def _parameters(values: Iterable[Any]) -> Iterator[nn.Parameter]:
    return (value for value in _tensors(values) if isinstance(value, nn.Parameter))


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

    Args:
        network: In eval mode.
        blocks: By parameter.
        images: ``[N, ...]``, of which the first is used.

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
