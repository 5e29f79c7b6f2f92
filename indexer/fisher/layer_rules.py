"""Which torch functions use a weight, and what gradient each gives it.

Rules go by function, not by module: a network may call ``torch.nn.functional`` with the weights of modules that
it never calls itself (attention in torchvision's ViT and Swin, beit in timm), subclass a layer, or use a bare
parameter. Whatever it does, a weight reaches its output through some function.

Axes: N samples, k rows of the input for each sample (windows, say; 1 in most networks), C channels, D filters.
"""

import inspect
import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from indexer.fisher.gradients import (
    ConvGeometry,
    ConvGradient,
    EmbeddingGradient,
    Gradient,
    MatrixGradient,
    ScaleGradient,
    TransposedConvGradient,
)

Numbers = int | Sequence[int]

Layout = Literal["first", "last", "transposed", "each"]
"""Where the filters of a parameter lie: along its first or last axis, along the second of a transposed
convolution (whose first holds the groups), or each weight a filter of its own."""


@dataclass(frozen=True)
class Rule:
    """How a function uses its weight.

    Attributes:
        gradients: Called with the gradient in the function's output, the number of samples N, and the
            function's own arguments by name, of which ``input`` has sample n in rows k*n to k*(n+1)-1; gives
            the gradient of ``weight``, in parts that are to be added.
        layout: Where the filters of the weight lie; ``each`` if its gradient has a row for each weight.
        signature: Signature of the function, with names ``input`` and ``weight``.
    """

    gradients: Callable[..., list[Gradient]]
    layout: Layout = "first"
    signature: inspect.Signature = field(init=False)

    def __post_init__(self) -> None:
        """Take the signature from the rule, whose first two arguments are its own."""
        parameters = list(inspect.signature(self.gradients).parameters.values())[2:]
        object.__setattr__(self, "signature", inspect.Signature(parameters))

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a call by name, the omitted ones with their defaults."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def _linear(
    grads: Tensor, num_samples: int, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> list[Gradient]:
    """Inputs ``[k*N, ..., K]``: everything between the first and the last axis is positions."""
    filters, weights = weight.shape
    inputs = input.reshape(num_samples, -1, weights)
    return [MatrixGradient(grads.reshape(num_samples, -1, filters).mT, inputs.mT)]


def _embedding(
    grads: Tensor,
    num_samples: int,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> list[Gradient]:
    """Indices ``[k*N, ...]``; a filter is one coordinate of the vectors, over all rows of the table."""
    num_rows, filters = weight.shape
    padding = padding_idx + num_rows if padding_idx is not None and padding_idx < 0 else padding_idx
    indices = input.reshape(num_samples, -1)
    return [EmbeddingGradient(grads.reshape(num_samples, -1, filters).mT, indices, num_rows, padding)]


def _conv(
    grads: Tensor,
    num_samples: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> list[Gradient]:
    """Inputs ``[k*N, G * C, *pixels]``: each of the k images of a sample is a part of the gradient."""
    kernel = tuple(weight.shape[2:])
    axes = len(kernel)
    dilations = _per_axis(dilation, axes)
    if padding == "same":  # of an odd sum the larger part comes last
        sums = [d * (size - 1) for d, size in zip(dilations, kernel, strict=True)]
        sides = [side for total in reversed(sums) for side in (total // 2, total - total // 2)]
        input, padding = functional.pad(input, sides), 0
    geometry = ConvGeometry(
        kernel=kernel,
        stride=_per_axis(stride, axes),
        padding=_per_axis(0 if isinstance(padding, str) else padding, axes),
        dilation=dilations,
        pixels=tuple(input.shape[2:]),
        positions=tuple(grads.shape[2:]),
        groups=groups,
    )
    parts = zip(_per_sample(grads, num_samples), _per_sample(input, num_samples), strict=True)
    return [ConvGradient(grad, inputs, geometry) for grad, inputs in parts]


def _conv_transpose(
    grads: Tensor,
    num_samples: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> list[Gradient]:
    """Inputs ``[k*N, G * C, *positions]`` of the convolution whose adjoint this is."""
    kernel = tuple(weight.shape[2:])
    geometry = ConvGeometry(
        kernel=kernel,
        stride=_per_axis(stride, len(kernel)),
        padding=_per_axis(padding, len(kernel)),
        dilation=_per_axis(dilation, len(kernel)),
        pixels=tuple(grads.shape[2:]),
        positions=tuple(input.shape[2:]),
        groups=groups,
    )
    parts = zip(_per_sample(grads, num_samples), _per_sample(input, num_samples), strict=True)
    return [TransposedConvGradient(grad, inputs, geometry) for grad, inputs in parts]


def _per_axis(value: Numbers, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _per_sample(rows: Tensor, num_samples: int) -> tuple[Tensor, ...]:
    """Rows ``[k*N, ...]`` as k tensors ``[N, ...]``."""
    return torch.unbind(rows.reshape(num_samples, -1, *rows.shape[1:]), dim=1)


def _batch_norm(
    grads: Tensor,
    num_samples: int,
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[Gradient]:
    mean, variance = running_mean.to(input.dtype), running_var.to(input.dtype)
    return _of_channels(functional.batch_norm(input, mean, variance, eps=eps), grads, num_samples)


def _group_norm(
    grads: Tensor,
    num_samples: int,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> list[Gradient]:
    return _of_channels(functional.group_norm(input, num_groups, eps=eps), grads, num_samples)


def _of_channels(normalised: Tensor, grads: Tensor, num_samples: int) -> list[Gradient]:
    """Factors of the second axis of ``[k*N, C, ...]``."""
    products = (normalised * grads).flatten(2) if grads.ndim > 2 else (normalised * grads)[..., None]
    return [ScaleGradient(products.sum(dim=2).reshape(num_samples, -1, products.shape[1]).sum(dim=1))]


def _layer_norm(
    grads: Tensor,
    num_samples: int,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> list[Gradient]:
    return _of_last_axes(
        functional.layer_norm(input, normalized_shape, eps=eps), grads, num_samples, normalized_shape
    )


def _rms_norm(
    grads: Tensor,
    num_samples: int,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> list[Gradient]:
    return _of_last_axes(
        functional.rms_norm(input, normalized_shape, eps=eps), grads, num_samples, normalized_shape
    )


def _of_last_axes(normalised: Tensor, grads: Tensor, num_samples: int, shape: Sequence[int]) -> list[Gradient]:
    """Factors of the last axes of ``[k*N, ..., *shape]``."""
    products = (normalised * grads).reshape(num_samples, -1, math.prod(shape))
    return [ScaleGradient(products.sum(dim=1))]


def _multiply(grads: Tensor, num_samples: int, input: Tensor, weight: Tensor) -> list[Gradient]:
    """A product ``[k*N, ...]`` with a weight that is broadcast to it: positions are the axes it lacks."""
    products = input * grads
    shape = (1,) * (products.ndim - weight.ndim) + tuple(weight.shape)
    shared = [axis for axis, size in enumerate(shape) if size == 1 and axis > 0]
    if shared:
        products = products.sum(dim=shared)
    return [ScaleGradient(products.reshape(num_samples, -1, weight.numel()).sum(dim=1))]


_CONV, _CONV_TRANSPOSE = Rule(_conv), Rule(_conv_transpose, layout="transposed")
MULTIPLICATIONS = (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__)

RULES: dict[Callable[..., Any], Rule] = {
    functional.linear: Rule(_linear),
    functional.embedding: Rule(_embedding, layout="last"),
    torch.conv1d: _CONV,
    torch.conv2d: _CONV,
    torch.conv3d: _CONV,
    torch.conv_transpose1d: _CONV_TRANSPOSE,
    torch.conv_transpose2d: _CONV_TRANSPOSE,
    torch.conv_transpose3d: _CONV_TRANSPOSE,
    functional.batch_norm: Rule(_batch_norm, layout="each"),
    functional.group_norm: Rule(_group_norm, layout="each"),
    functional.layer_norm: Rule(_layer_norm, layout="each"),
    functional.rms_norm: Rule(_rms_norm, layout="each"),
    **dict.fromkeys(MULTIPLICATIONS, Rule(_multiply, layout="each")),
}
"""From torch function to rule."""


def _without_dispatch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of ``torch.nn.functional`` whose body runs under a ``TorchFunctionMode``.

    Such a function hands itself over to the mode as a whole; calling it from there would leave the mode, and
    so hide the functions that its body calls. A copy that believes there is no mode runs its body under it.
    """
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    copy = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


COMPOSED: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.multi_head_attention_forward: _without_dispatch(functional.multi_head_attention_forward)
}
"""Functions that call others on their weights, and what to call instead so that those are seen."""
