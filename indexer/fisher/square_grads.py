"""Per-sample, per-filter squared gradients of any network, exact and without per-sample weight gradients.

What is embedded is weights only, as in the Task2Vec code: what is added (biases, tokens, positions) has no
filter to average over and is left out. Factors of whole channels, such as the affine weights of normalisation
layers, are embedded on request, each a filter of its own. ``indexer.fisher.weight_uses`` says which parameters
those are, ``indexer.fisher.layer_rules`` which functions use them, ``indexer.fisher.gradients`` how their
squares are computed.

Axes: N samples, k rows of a layer's input for each sample, D filters of the network.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from indexer.errors import UnsupportedLayerError
from indexer.fisher.gradients import Gradient, sum_of_squares, sum_of_squares_together
from indexer.fisher.layer_rules import Rule
from indexer.fisher.sample_grads import sample_square_grads
from indexer.fisher.weight_uses import (
    FilterBlock,
    SampleAxis,
    WeightUses,
    attach,
    find_filters,
    find_sample_axes,
)
from indexer.records import DEFAULT_MEMORY_BUDGET

TEMPORARY_SHARE = 4  # temporaries of a rule may take a quarter of the budget; activations have most of the rest


@dataclass(eq=False)
class _Use:
    """One call of a function on a weight, remembered between the forward and the backward pass."""

    rule: Rule
    arguments: dict[str, Any]  # ``input`` shares memory with the layer's
    axis: SampleAxis  # of the input and the output
    version: int  # how often the memory of the input had been written in place
    gradients: list[Gradient] = field(default_factory=list)  # of the last backward pass


class SquareGrads:
    """Squared gradients of every filter for every sample, gathered while autograd runs backward.

    Inside the context the network's parameters require no gradient, so that autograd computes those of
    activations only, and the functions that use a weight are watched; on exit the network is as it was. The
    network is called with the batch as its first argument, in eval mode so that samples are independent. Each
    backward pass starts from the sum over samples of a scalar; several may go through one forward pass.

    The first forward pass runs the network once more on two samples of which one is NaN. Where NaN turns up in
    a layer's input shows which axis holds the samples, and that they do not mix.

    Weights that reach the output by other ways than the rules know (transformed before their use, or used on
    what is the same for all samples) take an exact but slow route, see ``indexer.fisher.sample_grads``.

    Args:
        network: Any module; parameters are taken in the order of ``named_parameters``.
        norm_weights: Whether factors of whole channels are embedded too.
        memory_budget: Bytes of which temporaries take a quarter, if that is enough for one sample.

    Attributes:
        slices: Layer name to its columns, in order.
        dim: D, the number of columns.

    Raises:
        UnsupportedLayerError: If a batch norm uses batch statistics, or no parameter has filters to embed; from
            the forward pass, if the network mixes samples or does not use the same layers for every batch.

    Example:
        >>> network = torch.nn.Linear(2, 1)
        >>> with SquareGrads(network) as grads:
        ...     network(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
        ...     print(grads.take())
        tensor([[ 2.5000],
                [12.5000]])
    """

    def __init__(
        self, network: nn.Module, *, norm_weights: bool = False, memory_budget: int = DEFAULT_MEMORY_BUDGET
    ) -> None:
        """Find the parameters to embed; the network is not touched before the context is entered.

        Raises:
            UnsupportedLayerError: See the class.
        """
        _check_batch_norms(network)
        blocks = find_filters(network, norm_weights=norm_weights)
        if not blocks:
            raise UnsupportedLayerError(
                "the network has no weights to embed, such as those of Conv2d or Linear"
            )
        self.slices: dict[str, slice] = {}
        self.dim = 0
        for block in blocks:
            self.slices[block.name] = slice(self.dim, self.dim + block.num_filters)
            self.dim += block.num_filters
        self._network = network
        self._blocks = {block.parameter: block for block in blocks}
        element_size = torch.promote_types(blocks[0].parameter.dtype, torch.float32).itemsize
        self._max_elements = memory_budget // TEMPORARY_SHARE // element_size
        self._restore, self._watching = ExitStack(), ExitStack()
        self._axes: dict[FilterBlock, SampleAxis | None] = {}  # None: the slow route
        self._traced = False
        self._busy = False  # running the network for ourselves
        self._watch = WeightUses(self._blocks, self._on_use, lambda _block: None)
        self._images = torch.empty(0)
        self._uses: dict[FilterBlock, list[_Use]] = {}
        self._squares: dict[FilterBlock, Tensor] = {}
        self._output_grads: Tensor | None = None

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Parameters that take the slow route, as ``name (Class)``; known after the first forward pass."""
        return tuple(f"{block.name} ({block.kind})" for block in self._slow_blocks())

    def __enter__(self) -> Self:
        """Freeze the parameters and watch the network."""
        for parameter in self._network.parameters():
            self._restore.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        self._restore.callback(self._network.register_forward_pre_hook(self._before_forward).remove)
        after = self._network.register_forward_hook(self._after_forward, always_call=True)
        self._restore.callback(after.remove)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the network as it was found."""
        self._restore.close()
        self._uses, self._squares, self._output_grads = {}, {}, None

    def take(self) -> Tensor:
        """Hand over the result of the last backward pass, once.

        Returns:
            ``[N, D]``: mean over each filter's weights of the squared gradient of that sample's scalar, in
            the network's dtype but at least float32. Layers that the scalar does not depend on have zeros.

        Raises:
            UnsupportedLayerError: If no gradient reached any layer.
        """
        for block, uses in self._uses.items():
            gradients = [gradient for use in uses for gradient in use.gradients]
            for use in uses:
                use.gradients = []
            if gradients:  # of a weight used once they have been squared already
                self._squares[block] = self._square(block, gradients)
        if (slow := self._slow_blocks()) and self._output_grads is not None:
            self._squares |= self._square_slowly(slow, self._output_grads)
        if not self._squares:
            raise UnsupportedLayerError(
                "no gradient reached any layer; run the forward and the backward pass inside the context, "
                "with gradients enabled, on a network that does not detach its output"
            )
        taken = next(iter(self._squares.values())).new_zeros(len(self._images), self.dim)
        for block, squares in self._squares.items():
            taken[:, self.slices[block.name]] = squares
        self._squares = {}
        self._output_grads = None
        return taken

    def _slow_blocks(self) -> list[FilterBlock]:
        return [block for block, axis in self._axes.items() if axis is None]

    def _before_forward(self, network: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self._busy or not torch.is_grad_enabled():
            return
        self._images = args[0].detach()
        self._uses, self._squares, self._output_grads = {}, {}, None
        if not self._traced:
            self._axes, self._traced = self._find_axes(network), True
        self._watching.enter_context(self._watch)

    def _find_axes(self, network: nn.Module) -> dict[FilterBlock, SampleAxis | None]:
        self._busy = True
        try:
            return find_sample_axes(network, self._blocks, self._images)
        finally:
            self._busy = False

    def _after_forward(self, _network: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self._watching.close()
        if self._busy or not torch.is_grad_enabled() or not self._slow_blocks():
            return output
        if not output.requires_grad:
            output = attach(output)
        output.register_hook(self._keep_output_grads)  # type: ignore[no-untyped-call]
        return output

    def _keep_output_grads(self, grads: Tensor) -> None:
        self._output_grads = grads

    def _on_use(self, block: FilterBlock, rule: Rule, arguments: dict[str, Any], output: Tensor) -> Tensor:
        """Remember one use of a weight, and wait for the gradient in its output.

        Raises:
            UnsupportedLayerError: If the use is not like that in the first forward pass.
        """
        if not output.requires_grad:  # a first layer: give autograd a leaf to go back to
            output = attach(output)
        if block not in self._axes:
            raise UnsupportedLayerError(
                f"layer {block.name!r} was not used in the first forward pass; a network must use the same "
                "layers for every batch"
            )
        axis = self._axes[block]
        if axis is None:
            return output
        inputs = arguments["input"]
        rows = inputs.shape[axis.axis]
        if rows % len(self._images):
            raise UnsupportedLayerError(
                f"layer {block.name!r} saw {rows} rows for {len(self._images)} samples; it must "
                "see equally many for each"
            )
        use = _Use(rule, arguments | {"input": inputs.detach()}, axis, inputs._version)
        self._uses.setdefault(block, []).append(use)
        output.register_hook(lambda grads: self._on_gradient(block, use, grads))  # type: ignore[no-untyped-call]
        return output

    def _on_gradient(self, block: FilterBlock, use: _Use, grads: Tensor) -> None:
        """Square the gradient of a weight that was used once; keep its factors if there are further uses.

        Raises:
            UnsupportedLayerError: If the input of the layer is no longer what it was.
        """
        inputs = use.arguments["input"]
        if inputs._version != use.version:
            raise UnsupportedLayerError(
                f"the input of layer {block.name!r} was overwritten in place after the layer had used it; "
                "make that operation out of place (inplace=False)"
            )
        dtype = torch.promote_types(grads.dtype, torch.float32)  # squares underflow in half precision
        inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
        with torch.no_grad():
            num_samples = len(self._images)
            gradients = use.rule.gradients(
                use.axis.rows(grads.to(dtype), num_samples),
                num_samples,
                **use.arguments | {"input": use.axis.rows(inputs, num_samples)},
            )
            if len(self._uses[block]) > 1:
                use.gradients = gradients
            else:
                self._squares[block] = self._square(block, gradients)

    def _square(self, block: FilterBlock, gradients: Sequence[Gradient]) -> Tensor:
        """Mean over each filter's weights of the square of a sum of gradients: ``[N, O]``."""
        if len(gradients) == 1:
            squares = sum_of_squares(gradients[0], self._max_elements)
        else:
            squares = sum_of_squares_together(gradients, self._max_elements)
        if squares.shape[1] != block.num_filters:  # a row for each weight
            squares = block.by_filter(squares.reshape(-1, *block.parameter.shape)).sum(dim=2)
        return squares / block.num_weights

    def _square_slowly(self, blocks: Sequence[FilterBlock], output_grads: Tensor) -> dict[FilterBlock, Tensor]:
        self._busy = True
        try:
            return sample_square_grads(self._network, blocks, self._images, output_grads, self._max_elements)
        finally:
            self._busy = False


def _check_batch_norms(network: nn.Module) -> None:
    """Refuse batch norms that use statistics of the batch, by an ``UnsupportedLayerError``."""
    for name, layer in network.named_modules():
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            raise UnsupportedLayerError(
                f"layer {name!r} ({type(layer).__name__}) normalises by statistics of the batch, which ties "
                "samples together; call eval() on the network, and keep track_running_stats on"
            )
