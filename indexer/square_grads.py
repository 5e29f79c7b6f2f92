"""Per-sample, per-filter squared gradients, exact and without per-sample weight gradients.

What is embedded is weights only, as in the Task2Vec code: a bias has no filter to average over and is left
out. Affine weights of normalisation layers are embedded on request, each weight a filter of its own.

Axes: N samples, G groups, B = N * G, C input channels and O filters of one group, H and W pixels of the
input, P positions of the output (pixels or tokens), K weights of a filter, D filters of the network.

For one sample, with u ``[K, P]`` the input that each position sees and g ``[O, P]`` the gradient of a scalar
in the layer's output, the gradient of that scalar in the weights is g u^T ``[O, K]``. We need only the sum
over K of its squares, for which there are three forms; ``cheapest_form`` picks one:

- ``direct``: form g u^T, square it, sum it.
- ``gram``: g[o] A g[o]^T with A = u^T u ``[P, P]``.
- ``shifted_gram``: the same, A being a sum of shifted blocks of the Gram matrix of the input's pixels,
  because u consists of shifted copies of the input; u is never formed.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from indexer.errors import UnsupportedLayerError

Rule = Callable[..., Tensor]

MAX_TEMPORARY_BYTES = 256 * 2**20
MOVE_COST = 8  # one element written by a pass over memory, in multiply-adds of a matrix product


class Cost(NamedTuple):
    """What a form costs for one row of B."""

    multiply_adds: int  # in matrix products
    elements: int  # written to temporaries, so a bound of their size too


def matrix_costs(filters: int, weights: int, positions: int, unfolded: int = 0) -> dict[str, Cost]:
    """Costs of ``direct`` and ``gram`` for O, K and P, and the elements written to form u."""
    return {
        "direct": Cost(filters * weights * positions, unfolded + filters * weights),
        "gram": Cost((weights + filters) * positions**2, unfolded + positions**2 + filters * positions),
    }


def cheapest_form(costs: dict[str, Cost]) -> str:
    """Name of the form of least cost; the first of equals."""
    return min(costs, key=lambda form: costs[form].multiply_adds + MOVE_COST * costs[form].elements)


@dataclass(frozen=True)
class ConvGeometry:
    """One group of a convolution with zero padding; sizes are (vertical, horizontal)."""

    filters: int
    channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pixels: tuple[int, ...]  # before padding
    padding: tuple[int, int, int, int]  # left, right, top, bottom

    @property
    def padded_pixels(self) -> tuple[int, int]:
        """(H, W) after padding."""
        left, right, top, bottom = self.padding
        return self.pixels[0] + top + bottom, self.pixels[1] + left + right

    @property
    def positions(self) -> tuple[int, int]:
        """Height and width of the output, whose product is P."""
        sizes = zip(self.padded_pixels, self.kernel, self.stride, self.dilation, strict=True)
        height, width = ((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in sizes)
        return height, width

    def taken(self, axis: int) -> Iterator[slice]:
        """For each offset in the kernel along one axis, the padded pixels that the positions see through it."""
        stride, dilation = self.stride[axis], self.dilation[axis]
        span = stride * (self.positions[axis] - 1) + 1
        return (slice(i * dilation, i * dilation + span, stride) for i in range(self.kernel[axis]))

    def costs(self) -> dict[str, Cost]:
        """Costs of all three forms; ``shifted_gram`` sums over vertical, then over horizontal offsets."""
        positions, pixels = math.prod(self.positions), math.prod(self.pixels)
        weights = self.channels * math.prod(self.kernel)
        unfolded = weights * positions if self.kernel != (1, 1) else 0
        padded = math.prod(self.padded_pixels) ** 2 if any(self.padding) else 0
        vertical = self.kernel[0] * (self.positions[0] * self.padded_pixels[1]) ** 2
        horizontal = self.kernel[1] * positions**2
        shifted = Cost(
            self.channels * pixels**2 + self.filters * positions**2,
            pixels**2 + padded + vertical + horizontal + self.filters * positions,
        )
        return matrix_costs(self.filters, weights, positions, unfolded) | {"shifted_gram": shifted}


def _squared_norms(inputs: Tensor, grads: Tensor, form: str) -> Tensor:
    """Sum over K of (g u^T)^2 of u ``[B, K, P]`` and g ``[B, O, P]``, by the form named: ``[B, O]``."""
    if form == "gram":
        return _quadratic_form(grads, torch.bmm(inputs.mT, inputs))
    return torch.bmm(grads, inputs.mT).square_().sum(dim=2)


def _quadratic_form(grads: Tensor, gram: Tensor) -> Tensor:
    """g[o] A g[o]^T for g ``[B, O, P]`` and A ``[B, P, P]``: ``[B, O]``; rounding below zero is cut off."""
    return torch.bmm(grads, gram).mul_(grads).sum(dim=2).clamp_min_(0)


def _in_chunks(rule: Rule, inputs: Tensor, grads: Tensor, elements: int) -> Tensor:
    """Apply ``rule`` to slices of the first axis whose temporaries, ``elements`` a row, fit the budget."""
    rows = max(1, MAX_TEMPORARY_BYTES // (elements * inputs.element_size()))
    return torch.cat(list(map(rule, torch.split(inputs, rows), torch.split(grads, rows))))


def _conv2d(conv: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Tensor:
    """Rule of a 2-D convolution of any stride, padding, dilation and number of groups."""
    num_samples, padding = len(inputs), _padding(conv)
    if conv.padding_mode != "zeros":
        inputs = functional.pad(inputs, padding, mode=conv.padding_mode)
        padding = (0, 0, 0, 0)
    inputs = inputs.reshape(num_samples * conv.groups, -1, *inputs.shape[2:])
    grads = grads.reshape(num_samples * conv.groups, -1, grads.shape[2] * grads.shape[3])
    geometry = ConvGeometry(
        filters=grads.shape[1],
        channels=inputs.shape[1],
        kernel=conv.kernel_size,
        stride=conv.stride,
        dilation=conv.dilation,
        pixels=tuple(inputs.shape[2:]),
        padding=padding,
    )
    costs = geometry.costs()
    form = cheapest_form(costs)

    def rule(inputs: Tensor, grads: Tensor) -> Tensor:
        if form == "shifted_gram":
            return _quadratic_form(grads, _shifted_gram(inputs, geometry))
        return _squared_norms(_unfold(inputs, geometry), grads, form)

    squares = _in_chunks(rule, inputs, grads, costs[form].elements)
    return squares.reshape(num_samples, -1) / conv.weight[0].numel()


def _padding(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Left, right, top, bottom; of an odd sum that 'same' asks for, the larger part comes last."""
    if conv.padding == "valid":
        return 0, 0, 0, 0
    if conv.padding == "same":
        height, width = (d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        return width // 2, width - width // 2, height // 2, height - height // 2
    height, width = (int(pad) for pad in conv.padding)
    return width, width, height, height


def _unfold(inputs: Tensor, geometry: ConvGeometry) -> Tensor:
    """Inputs ``[B, C, H, W]`` to u ``[B, K, P]``."""
    padded = functional.pad(inputs, geometry.padding) if any(geometry.padding) else inputs
    if geometry.kernel == (1, 1):
        return padded[:, :, :: geometry.stride[0], :: geometry.stride[1]].flatten(2)
    return functional.unfold(padded, geometry.kernel, geometry.dilation, stride=geometry.stride)


def _shifted_gram(inputs: Tensor, geometry: ConvGeometry) -> Tensor:
    """Inputs ``[B, C, H, W]`` to A = u^T u ``[B, P, P]``.

    Two positions see, through one weight, pixels at the same offset from each of them: A sums the pixels'
    Gram matrix ``[B, H, W, H', W']`` over these offsets, first over the vertical, then over the horizontal.
    """
    pixels = inputs.flatten(2)
    gram = torch.bmm(pixels.mT, pixels).reshape(-1, *geometry.pixels, *geometry.pixels)
    gram = functional.pad(gram, geometry.padding * 2) if any(geometry.padding) else gram
    gram = reduce(torch.add, (gram[:, rows, :, rows] for rows in geometry.taken(0)))
    gram = reduce(torch.add, (gram[:, :, cols, :, cols] for cols in geometry.taken(1)))
    return gram.flatten(3).flatten(1, 2)


def _linear(linear: nn.Linear, inputs: Tensor, grads: Tensor) -> Tensor:
    """Rule of a linear layer on ``[N, K]``, or on ``[N, ..., K]``, whose inner axes are positions."""
    filters, weights = linear.weight.shape
    inputs = inputs.reshape(len(inputs), -1, weights).mT
    grads = grads.reshape(len(grads), -1, filters).mT
    costs = matrix_costs(filters, weights, positions=inputs.shape[2])
    form = cheapest_form(costs)
    rule = partial(_squared_norms, form=form)
    return _in_chunks(rule, inputs, grads, costs[form].elements) / weights


def _batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, inputs: Tensor, grads: Tensor) -> Tensor:
    """Rule of a batch norm in eval mode on ``[N, C]`` or ``[N, C, ...]``, each channel its own filter."""
    mean, variance = (norm.get_buffer(name).to(inputs.dtype) for name in ("running_mean", "running_var"))
    return _weight_grads(functional.batch_norm(inputs, mean, variance, eps=norm.eps), grads).square_()


def _group_norm(norm: nn.GroupNorm, inputs: Tensor, grads: Tensor) -> Tensor:
    """Rule of a group norm on ``[N, C, ...]``, each channel its own filter."""
    return _weight_grads(functional.group_norm(inputs, norm.num_groups, eps=norm.eps), grads).square_()


def _weight_grads(normalised: Tensor, grads: Tensor) -> Tensor:
    """Gradient ``[N, C]`` in the factor of each channel, which all its positions share."""
    return (normalised * grads).reshape(*grads.shape[:2], -1).sum(dim=2)


def _layer_norm(norm: nn.LayerNorm, inputs: Tensor, grads: Tensor) -> Tensor:
    """Rule of a layer norm on ``[N, ..., *normalized_shape]``, each weight its own filter."""
    normalised = functional.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)
    positions = (normalised * grads).reshape(len(grads), -1, math.prod(norm.normalized_shape))
    return positions.sum(dim=1).square_()


# From exact class, since a subclass may compute something else. A rule takes the layer, its input and the
# gradient in its output, and gives [N, filters]: the mean over each filter's weights of the squared gradient.
RULES: dict[type[nn.Module], Rule] = {nn.Conv2d: _conv2d, nn.Linear: _linear}
NORM_RULES: dict[type[nn.Module], Rule] = {
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
}


@dataclass
class _Record:
    """What is remembered of one layer between the forward pass and ``take``."""

    inputs: Tensor  # sharing memory with the layer's input
    version: int  # how often that memory had been written in place
    squares: Tensor | None = None  # [N, filters] of the last backward pass


class SquareGrads:
    """Squared gradients of every filter for every sample, gathered while autograd runs backward.

    Inside the context the network's parameters require no gradient, so that autograd computes those of
    activations only, and hooks watch its layers; on exit the network is as it was. The network is called
    with the batch as its first argument, in eval mode so that samples are independent. Each backward pass
    starts from the sum over samples of a scalar; several may go through one forward pass.

    Args:
        network: Any module; layers are taken in the order of ``named_modules``.
        norm_weights: Whether affine weights of normalisation layers are embedded too.

    Attributes:
        slices: Layer name to its columns, in order.
        dim: D, the number of columns.

    Raises:
        UnsupportedLayerError: If a layer holds parameters but has no rule, two layers share a weight, a
            batch norm uses batch statistics, or no layer has a weight to embed.

    Example:
        >>> network = torch.nn.Linear(2, 1)
        >>> with SquareGrads(network) as grads:
        ...     network(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
        ...     print(grads.take())
        tensor([[ 2.5000],
                [12.5000]])
    """

    def __init__(self, network: nn.Module, *, norm_weights: bool = False) -> None:
        """Find the rule of every layer; the network is not touched before the context is entered."""
        self.slices: dict[str, slice] = {}
        self.dim = 0
        self._network = network
        self._rules = _find_rules(network, norm_weights)
        self._records: dict[str, _Record] = {}
        self._restore = ExitStack()
        self._num_samples = 0
        for name, rule in self._rules.items():
            weight = network.get_parameter(f"{name}.weight" if name else "weight")
            filters = weight.numel() if rule in NORM_RULES.values() else len(weight)
            self.slices[name] = slice(self.dim, self.dim + filters)
            self.dim += filters

    def __enter__(self) -> Self:
        """Freeze the parameters and attach the hooks."""
        for parameter in self._network.parameters():
            self._restore.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        self._restore.callback(self._network.register_forward_pre_hook(self._start_forward).remove)
        for name, rule in self._rules.items():
            layer = self._network.get_submodule(name)
            self._restore.callback(layer.register_forward_hook(self._watch(name, rule)).remove)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the network as it was found."""
        self._restore.close()
        self._records.clear()

    def take(self) -> Tensor:
        """Hand over the result of the last backward pass, once.

        Returns:
            ``[N, D]``: mean over each filter's weights of the squared gradient of that sample's scalar, in
            the network's dtype but at least float32. Layers that the scalar does not depend on have zeros.

        Raises:
            UnsupportedLayerError: If no gradient reached any layer.
        """
        squares = {name: record.squares for name, record in self._records.items() if record.squares is not None}
        if not squares:
            raise UnsupportedLayerError(
                "no gradient reached any layer; run the forward and the backward pass inside the context, "
                "with gradients enabled, on a network that does not detach its output"
            )
        taken = next(iter(squares.values())).new_zeros(self._num_samples, self.dim)
        for name, values in squares.items():
            taken[:, self.slices[name]] = values
            self._records[name].squares = None
        return taken

    def _start_forward(self, _network: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._records.clear()
        self._num_samples = len(args[0])

    def _watch(self, name: str, rule: Rule) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        """Make the forward hook of one layer."""

        def after_forward(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return output
            record = self._remember(name, args[0])
            if not output.requires_grad:  # a first layer: give autograd a leaf to go back to
                output = output + output.new_zeros((), requires_grad=True)

            def after_backward(grads: Tensor) -> None:
                if record.inputs._version != record.version:
                    raise UnsupportedLayerError(
                        f"the input of layer {name!r} was overwritten in place after the layer had used it; "
                        "make that operation out of place (inplace=False)"
                    )
                dtype = torch.promote_types(grads.dtype, torch.float32)  # squares underflow in half precision
                with torch.no_grad():
                    record.squares = rule(layer, record.inputs.to(dtype), grads.to(dtype))

            output.register_hook(after_backward)  # type: ignore[no-untyped-call]
            return output

        return after_forward

    def _remember(self, name: str, inputs: Tensor) -> _Record:
        if name in self._records:
            raise UnsupportedLayerError(
                f"layer {name!r} was used twice in one forward pass; gradients of both uses would have to be "
                "added before squaring, which is not supported: give each use a layer of its own"
            )
        if len(inputs) != self._num_samples:
            raise UnsupportedLayerError(
                f"layer {name!r} saw {len(inputs)} rows for {self._num_samples} samples; its first axis must "
                "be the samples for their gradients to be told apart"
            )
        self._records[name] = _Record(inputs.detach(), inputs._version)
        return self._records[name]


def _find_rules(network: nn.Module, norm_weights: bool) -> dict[str, Rule]:
    """Name to rule of every layer to embed, in the order of ``named_modules``.

    Raises:
        UnsupportedLayerError: As ``SquareGrads`` says.
    """
    found: dict[str, Rule] = {}
    owners: dict[nn.Parameter, str] = {}
    rules = RULES | NORM_RULES
    for name, layer in network.named_modules():
        title = f"layer {name!r} ({type(layer).__name__})"
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            raise UnsupportedLayerError(
                f"{title} normalises by statistics of the batch, which ties samples together; "
                "call eval() on the network, and keep track_running_stats on"
            )
        parameters = list(layer.parameters(recurse=False))
        for parameter in parameters:
            if owners.setdefault(parameter, name) != name:
                raise UnsupportedLayerError(
                    f"{title} shares a parameter with layer {owners[parameter]!r}; gradients of both would "
                    "have to be added before squaring, which is not supported: give each layer its own"
                )
        if parameters and type(layer) not in rules:
            known = ", ".join(kind.__name__ for kind in rules)
            raise UnsupportedLayerError(
                f"{title} holds parameters but has no rule for its squared gradients; "
                f"use a probe made of layers that have one: {known}"
            )
        if parameters and (norm_weights or type(layer) in RULES):
            found[name] = rules[type(layer)]
    if not found:
        raise UnsupportedLayerError("the network has no layer to embed, such as Conv2d or Linear")
    return found
