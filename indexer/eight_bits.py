"""Weights in 8 bits: half the size of half precision, for networks that ship with a package.

Every filter has a scale of its own, its largest weight is 127 of them: symmetric quantisation per output
channel, as of torch.ao.quantization's default weight observer. Only what a file holds has 8 bits; a network
computes in float32.

Axes: O filters or outputs.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE_SUFFIX = ".scale"
"""``name.scale`` holds the ``[O]`` scales of the int8 tensor ``name``."""

LEVELS = 127


def quantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of layers as int8 with their scales, all else in half precision; integers as they are.

    Args:
        state: Tensors by name; those of two axes and more are weights ``[O, ...]``.

    Returns:
        What ``dequantise`` takes. A weight is off by at most half a scale, 1/254 of its filter's largest.
    """
    packed = {}
    for name, value in state.items():
        if not value.is_floating_point():
            packed[name] = value
        elif value.ndim < 2:
            packed[name] = value.half()
        else:
            rows = value.float().flatten(1)
            scales = rows.abs().amax(dim=1) / LEVELS
            packed[name] = torch.round(rows / scales.clamp_min(1e-30)[:, None]).to(torch.int8).view(value.shape)
            packed[name + SCALE_SUFFIX] = scales
    return packed


def dequantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``quantise``: int8 tensors that have scales as float32, all else as it is.

    Raises:
        ValueError: If scales do not fit their tensor.
    """
    unpacked = {}
    for name, value in state.items():
        if name.endswith(SCALE_SUFFIX) and is_quantised(state, name.removesuffix(SCALE_SUFFIX)):
            continue
        if is_quantised(state, name):
            scales = state[name + SCALE_SUFFIX]
            if scales.shape != value.shape[:1] or not scales.is_floating_point():
                raise ValueError(f"{name} has {len(value)} filters and scales of shape {tuple(scales.shape)}")
            value = value.float() * scales.float().view(-1, *[1] * (value.ndim - 1))
        unpacked[name] = value
    return unpacked


def is_quantised(state: Mapping[str, Tensor], name: str) -> bool:
    """Whether the tensor of that name has 8 bits and scales beside it."""
    return name + SCALE_SUFFIX in state and name in state and state[name].dtype == torch.int8
