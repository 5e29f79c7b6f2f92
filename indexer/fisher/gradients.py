"""Per-sample gradients of one weight in one use of it, held as factors and squared without being kept.

For one sample, let g ``[O, P]`` be the gradient of a scalar in a layer's output and u ``[K, P]`` the input that
each of P positions sees. The gradient in the weight is g u^T ``[O, K]``. The sum over K of its squares, which
is all that an embedding needs, has three forms; ``choose_form`` picks the cheapest:

- ``direct``: form g u^T, square it, sum it.
- ``gram``: g[o] A g[o]^T with A = u^T u ``[P, P]``.
- ``shifted_gram``: the same for a convolution, where u consists of shifted copies of an image: A is a sum of
  shifted blocks of the Gram matrix of the image's pixels, and u is never formed.

Axes: N samples, G groups, O filters, K weights of a filter, C channels of a group, P positions of the output
(pixels or tokens), D filters of the network.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

MOVE_COST = 8  # one element written by a pass over memory, in multiply-adds of a matrix product
WIDEST_QUICK_KERNEL = 9  # weights of a depthwise filter, for which libraries have a kernel of their own
MOST_CORRELATED = 8  # positions for each weight of a filter up to which a correlation is quicker
CALL_COST = 1_000_000  # one call of a library kernel for a single sample, in the same


class Cost(NamedTuple):
    """What a form costs for one sample."""

    multiply_adds: int  # in matrix products
    elements: int  # written to temporaries, so a bound of their size too
    calls: int = 0  # of a kernel that does one sample at a time

    @property
    def total(self) -> int:
        """In multiply-adds."""
        return self.multiply_adds + MOVE_COST * self.elements + CALL_COST * self.calls


@dataclass(frozen=True, eq=False)
class Gradient(ABC):
    """The gradient of one weight for each of N samples, as factors."""

    grads: Tensor  # ``[N, O, ...]``: gradients in the output, of the O filters of all groups

    @property
    def num_samples(self) -> int:
        """N."""
        return len(self.grads)

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int, int]:
        """(filters O of all groups, weights K of each, positions P)."""

    @abstractmethod
    def costs(self) -> dict[str, Cost]:
        """What each form costs for one sample."""

    @abstractmethod
    def full(self, rows: slice) -> Tensor:
        """The gradients of these samples, multiplied out: ``[n, O, K]``."""

    def quadratic(self, rows: slice) -> Tensor:
        """Sums over K of the squares of these samples, ``[n, O]``: through a Gram matrix where there is one."""
        return self.full(rows).square_().sum(dim=2)


def choose_form(costs: dict[str, Cost], max_elements: int) -> str:
    """Name of the cheapest form whose temporaries for one sample fit; the first of equals.

    Where none fits, the one with the smallest temporaries.
    """
    fitting = [form for form in costs if costs[form].elements <= max_elements]
    if fitting:
        return min(fitting, key=lambda form: costs[form].total)
    return min(costs, key=lambda form: costs[form].elements)


def sum_of_squares(gradient: Gradient, max_elements: int) -> Tensor:
    """Sum over K of the squares of every sample and filter: ``[N, O]``, by the cheapest form."""
    costs = gradient.costs()
    form = choose_form(costs, max_elements)
    blocks = _blocks(gradient.num_samples, costs[form].elements, max_elements)
    if form == "direct":
        return torch.cat([gradient.full(rows).square_().sum(dim=2) for rows in blocks])
    return torch.cat([gradient.quadratic(rows) for rows in blocks])


def sum_of_squares_together(gradients: Sequence[Gradient], max_elements: int) -> Tensor:
    """``sum_of_squares`` for a weight of several uses, whose gradients are added before they are squared."""
    elements = max(gradient.costs()["direct"].elements for gradient in gradients)
    totals = []
    for rows in _blocks(gradients[0].num_samples, 2 * elements, max_elements):
        total = gradients[0].full(rows)
        for gradient in gradients[1:]:
            total += gradient.full(rows)
        totals.append(total.square_().sum(dim=2))
    return torch.cat(totals)


def _blocks(num_samples: int, elements: int, max_elements: int) -> Iterator[slice]:
    """Slices of samples whose temporaries, ``elements`` each, fit; at least one sample at a time."""
    step = max(1, max_elements // max(1, elements))
    return (slice(start, start + step) for start in range(0, num_samples, step))


def _quadratic_form(grads: Tensor, gram: Tensor) -> Tensor:
    """g[o] A g[o]^T for g ``[B, O, P]`` and A ``[B, P, P]``: ``[B, O]``; rounding below zero is cut off."""
    return torch.bmm(grads, gram).mul_(grads).sum(dim=2).clamp_min_(0)


@dataclass(frozen=True, eq=False)
class MatrixGradient(Gradient):
    """Gradient of a linear layer: output gradients ``[N, O, P]`` and inputs ``[N, K, P]``."""

    inputs: Tensor

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(O, K, P)."""
        return self.grads.shape[1], self.inputs.shape[1], self.grads.shape[2]

    def costs(self) -> dict[str, Cost]:
        """Costs of ``direct`` and ``gram``."""
        filters, weights, positions = self.sizes
        return {
            "direct": Cost(filters * weights * positions, filters * weights),
            "gram": Cost((weights + filters) * positions**2, positions**2 + filters * positions),
        }

    def full(self, rows: slice) -> Tensor:
        """Gradients of the rows ``[n, O, K]``."""
        return torch.bmm(self.grads[rows], self.inputs[rows].mT)

    def quadratic(self, rows: slice) -> Tensor:
        """Sums of squares of the rows ``[n, O]``."""
        inputs = self.inputs[rows]
        return _quadratic_form(self.grads[rows], torch.bmm(inputs.mT, inputs))


@dataclass(frozen=True, eq=False)
class EmbeddingGradient(Gradient):
    """Gradient of a lookup table: output gradients ``[N, O, P]`` and indices ``[N, P]`` of K rows.

    A lookup is a linear layer on one-hot vectors. Two of them have the product 1 where their indices are the
    same, so the Gram matrix needs no products. ``padding`` is the index whose row takes no gradient.
    """

    indices: Tensor
    num_rows: int
    padding: int | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(O, K, P)."""
        return self.grads.shape[1], self.num_rows, self.grads.shape[2]

    def costs(self) -> dict[str, Cost]:
        """Costs of ``direct`` and ``gram``."""
        filters, weights, positions = self.sizes
        return {
            "direct": Cost(0, 2 * filters * weights + filters * positions),
            "gram": Cost(filters * positions**2, 2 * positions**2 + filters * positions),
        }

    def full(self, rows: slice) -> Tensor:
        """Gradients of the rows ``[n, O, K]``."""
        grads, indices = self._counted(rows), self.indices[rows]
        total = grads.new_zeros(*grads.shape[:2], self.num_rows)
        return total.scatter_add_(2, indices[:, None, :].expand_as(grads), grads)

    def quadratic(self, rows: slice) -> Tensor:
        """Sums of squares of the rows ``[n, O]``."""
        grads, indices = self._counted(rows), self.indices[rows]
        return _quadratic_form(grads, (indices[:, :, None] == indices[:, None, :]).to(grads))

    def _counted(self, rows: slice) -> Tensor:
        grads = self.grads[rows]
        return grads if self.padding is None else grads * (self.indices[rows] != self.padding)[:, None, :]


@dataclass(frozen=True, eq=False)
class ScaleGradient(Gradient):
    """Gradient ``[N, O]`` of factors that all positions of a channel share, one weight a filter."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(O, 1, 1)."""
        return self.grads.shape[1], 1, 1

    def costs(self) -> dict[str, Cost]:
        """There is nothing left to multiply."""
        return {"direct": Cost(0, self.grads.shape[1])}

    def full(self, rows: slice) -> Tensor:
        """``[n, O, 1]``."""
        return self.grads[rows, :, None].clone()


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution in any number of axes, with zero padding; one number an axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]  # on both sides
    dilation: tuple[int, ...]
    pixels: tuple[int, ...]  # of the input, before padding
    positions: tuple[int, ...]  # of the output
    groups: int

    def overlaps(self, axis: int) -> Iterator[tuple[slice, slice]]:
        """For each offset in the kernel along an axis: positions that see a pixel there, and those pixels."""
        stride, padding = self.stride[axis], self.padding[axis]
        for offset in range(self.kernel[axis]):
            shift = offset * self.dilation[axis] - padding  # position p sees pixel p * stride + shift
            first = max(0, math.ceil(-shift / stride))
            last = min(self.positions[axis] - 1, (self.pixels[axis] - 1 - shift) // stride)
            if first <= last:
                start = first * stride + shift
                yield slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)


@dataclass(frozen=True, eq=False)
class ConvGradient(Gradient):
    """Gradient of a convolution: output ``[N, G * O, *positions]`` and inputs ``[N, G * C, *pixels]``."""

    inputs: Tensor
    geometry: ConvGeometry

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(G * O, K, P)."""
        channels = self.inputs.shape[1] // self.geometry.groups
        weights = channels * math.prod(self.geometry.kernel)
        return self.grads.shape[1], weights, math.prod(self.geometry.positions)

    def costs(self) -> dict[str, Cost]:
        """Costs of ``direct`` and ``shifted_gram``, which sums over one axis after the other."""
        geometry = self.geometry
        filters, weights, positions = self.sizes
        pixels = math.prod(geometry.pixels)
        written, shape = pixels**2, list(geometry.pixels)
        for axis, size in enumerate(geometry.kernel):
            shape[axis] = geometry.positions[axis]
            written += size * math.prod(shape) ** 2
        direct = Cost(filters * weights * positions, filters * weights, calls=1)
        if self._correlates:
            direct = Cost(direct.multiply_adds, filters * positions + len(self.inputs[0]) * pixels)
        return {
            "direct": direct,
            "shifted_gram": Cost(
                self.inputs.shape[1] * pixels**2 + filters * positions**2,
                geometry.groups * written + filters * positions,
            ),
        }

    @property
    def _correlates(self) -> bool:
        """Whether all samples at once are best one convolution, of inputs with gradients as kernels.

        So it is where each channel has a group of its own, and a kernel for which libraries have nothing quick.
        """
        size, positions = math.prod(self.geometry.kernel), math.prod(self.geometry.positions)
        is_depthwise = self.inputs.shape[1] == self.geometry.groups
        return is_depthwise and size > WIDEST_QUICK_KERNEL and positions <= MOST_CORRELATED * size

    def full(self, rows: slice) -> Tensor:
        """``[n, G * O, K]``, by the quickest of three ways.

        A matrix product where a weight sees one pixel, a correlation as above, else the library's kernel for
        the weight of one sample after the other, which beats unfolding them all.
        """
        grads, inputs, geometry = self.grads[rows], self.inputs[rows], self.geometry
        filters, weights, _ = self.sizes
        if set(geometry.kernel) == {1} and geometry.groups == 1 and not any(geometry.padding):
            seen = inputs[(slice(None), slice(None), *(slice(None, None, step) for step in geometry.stride))]
            return torch.bmm(grads.flatten(2), seen.flatten(2).mT)
        if self._correlates:
            return _correlation(grads, inputs, geometry)
        shape = (filters, self.inputs.shape[1] // geometry.groups, *geometry.kernel)
        total = grads.new_empty(len(grads), filters, weights)
        for sample, (grad, pixels) in enumerate(
            zip(torch.split(grads, 1), torch.split(inputs, 1), strict=True)
        ):
            total[sample] = _weight_grad(grad, pixels, shape, geometry).reshape(filters, weights)
        return total

    def quadratic(self, rows: slice) -> Tensor:
        """``[n, G * O]``."""
        grads, inputs, groups = self.grads[rows], self.inputs[rows], self.geometry.groups
        num_rows = len(grads) * groups
        grads = grads.reshape(num_rows, grads.shape[1] // groups, -1)
        inputs = inputs.reshape(num_rows, inputs.shape[1] // groups, *self.geometry.pixels)
        return _quadratic_form(grads, _shifted_gram(inputs, self.geometry)).reshape(-1, self.grads.shape[1])


@dataclass(frozen=True, eq=False)
class TransposedConvGradient(ConvGradient):
    """Gradient of a transposed convolution: output ``[N, G * O, *pixels]``, inputs ``[N, G * C, *positions]``.

    It is the adjoint of the convolution that ``geometry`` describes, so its weight takes the gradient of that
    convolution with input and output gradient swapped; that has a row per channel, which we turn round.
    """

    def costs(self) -> dict[str, Cost]:
        """Costs of ``direct``, the only form."""
        filters, weights, positions = self.sizes
        return {"direct": Cost(filters * weights * positions, 2 * filters * weights, calls=1)}

    def full(self, rows: slice) -> Tensor:
        """``[n, G * O, K]``."""
        swapped = ConvGradient(self.inputs, self.grads, self.geometry).full(rows)  # [n, G * C, O * kernel]
        groups, filters = self.geometry.groups, self.grads.shape[1]
        grouped = swapped.reshape(len(swapped), groups, -1, filters // groups, math.prod(self.geometry.kernel))
        return grouped.transpose(2, 3).reshape(len(swapped), filters, -1)

    def quadratic(self, rows: slice) -> Tensor:
        """``[n, G * O]``, by ``direct``: there is no other form."""
        return Gradient.quadratic(self, rows)


def _correlation(grads: Tensor, inputs: Tensor, geometry: ConvGeometry) -> Tensor:
    """Gradient ``[N, G * O, K]`` of a depthwise weight: the inputs at each offset times the gradients, summed.

    As a convolution, its kernels are the gradients, so that stride and dilation change places.
    """
    kernels = grads.reshape(-1, 1, *geometry.positions)
    sums = torch.convolution(
        inputs.reshape(1, -1, *geometry.pixels),
        kernels,
        None,
        geometry.dilation,
        geometry.padding,
        geometry.stride,
        False,  # not transposed
        [0] * len(geometry.kernel),
        inputs.shape[0] * geometry.groups,
    )
    within = sums[(slice(None), slice(None), *map(slice, geometry.kernel))]  # a stride may leave pixels unseen
    return within.reshape(*grads.shape[:2], -1)


def _weight_grad(grad: Tensor, pixels: Tensor, shape: tuple[int, ...], geometry: ConvGeometry) -> Tensor:
    """Gradient of a convolution's weight for one sample; its values are not needed, only its shape."""
    axes = len(geometry.kernel)
    weight = grad.new_empty(1).expand(shape)
    in_weight: Tensor
    _, in_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        pixels,
        weight,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        False,  # not transposed
        [0] * axes,
        geometry.groups,
        [False, True, False],
    )
    return in_weight


def _shifted_gram(inputs: Tensor, geometry: ConvGeometry) -> Tensor:
    """Inputs ``[B, C, *pixels]`` to A = u^T u ``[B, P, P]``.

    Two positions see, through one weight, pixels at the same offset from each of them: A sums the pixels'
    Gram matrix ``[B, *pixels, *pixels]`` over these offsets, one axis after the other.
    """
    axes = len(geometry.kernel)
    flat = inputs.flatten(2)
    gram = torch.bmm(flat.mT, flat).reshape(-1, *geometry.pixels, *geometry.pixels)
    for axis in range(axes):
        if geometry.kernel[axis] == geometry.stride[axis] == 1 and not geometry.padding[axis]:
            continue
        shape = list(gram.shape)
        shape[1 + axis] = shape[1 + axes + axis] = geometry.positions[axis]
        total = gram.new_zeros(shape)
        for seen_from, seen in geometry.overlaps(axis):
            total[_both(axis, axes, seen_from)] += gram[_both(axis, axes, seen)]
        gram = total
    return gram.flatten(1 + axes).flatten(1, axes)


def _both(axis: int, axes: int, part: slice) -> tuple[slice, ...]:
    """Index that takes ``part`` of one axis in both halves of ``[B, *pixels, *pixels]``."""
    index = [slice(None)] * (1 + 2 * axes)
    index[1 + axis] = index[1 + axes + axis] = part
    return tuple(index)
