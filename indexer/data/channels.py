"""Pixels of any number of channels and any numbers, made red, green and blue from 0 to 255.

Each of red, green and blue is the mean of some channels, by a rule:

    auto, tile   of channels 0, 3, 6, ..., of 1, 4, 7, ... and of 2, 5, 8, ...; one channel is all three, and
                 two are a, b, a. Where C is a multiple of three, this is what a first convolution sees whose
                 weights are repeated over the channels and scaled by 3/C, as timm makes it.
    mean         of all channels, three times
    i,j,k        of one channel each, counted from 0

Axes: H height, W width, C channels.
"""

import numpy as np

Groups = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""For each of red, green and blue the channels that it is the mean of."""


class UnfitPixelsError(ValueError):
    """Pixels that the rule for channels or the range of values does not fit; no fault of a single image."""


def channel_groups(rule: str, num_channels: int) -> Groups:
    """The channels that make red, green and blue.

    Args:
        rule: As of ``indexer.records.EmbeddingSettings``.
        num_channels: C, at least 1.

    Raises:
        UnfitPixelsError: If the rule names a channel that is not there.
    """
    if rule == "mean":
        everything = tuple(range(num_channels))
        return everything, everything, everything
    if rule in ("auto", "tile"):
        red, green, blue = (tuple(range(first % num_channels, num_channels, 3)) for first in range(3))
        return red, green, blue
    red, green, blue = ((int(index),) for index in rule.split(","))
    highest = max(red + green + blue)
    if highest >= num_channels:
        raise UnfitPixelsError(
            f"has {num_channels} channel{'s' * (num_channels > 1)}, so there is no channel {highest} to take; "
            f"channels are counted from 0 to {num_channels - 1}"
        )
    return red, green, blue


def rgb_planes(
    pixels: np.ndarray, groups: Groups, value_range: tuple[float, float] | None = None
) -> list[np.ndarray]:
    """Scale pixels to 0 to 255 and mix their channels.

    Args:
        pixels: ``[H, W, C]`` integers or floats.
        groups: As of ``channel_groups``.
        value_range: The values that become 0 and 255. ``None`` for the range of an 8- or 16-bit unsigned type,
            and for 0 to 1 of floats that stay within. Values beyond are clipped; what is no number becomes 0.

    Returns:
        Red, green and blue ``[H, W]`` float32 from 0 to 255; one plane where the three are equal.

    Raises:
        UnfitPixelsError: If no range is given and the type tells none, or floats go beyond 0 to 1.
    """
    low, high = value_range or _range_of_type(pixels)
    kept = groups[:1] if len(set(groups)) == 1 else groups
    return [
        np.stack([_scaled(pixels[..., channel], low, high) for channel in group]).mean(axis=0) for group in kept
    ]


def _range_of_type(pixels: np.ndarray) -> tuple[float, float]:
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if kind == "u" and size <= 2:
        return 0, 2 ** (8 * size) - 1
    advice = "declare the values of black and white with --value-range LOW,HIGH"
    if kind != "f":
        raise UnfitPixelsError(f"has pixels of type {pixels.dtype}, which tells no range; {advice}")
    beyond = pixels[(pixels < 0) | (pixels > 1)]
    if beyond.size:
        raise UnfitPixelsError(f"has a pixel of {beyond[0]:g}, and floats without a range are 0 to 1; {advice}")
    return 0, 1


def _scaled(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from ``low`` to ``high`` as 0 to 255, float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are clipped or, times 0, no number
        scaled = np.clip((plane.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    return np.nan_to_num(scaled, copy=False, nan=0.0).astype(np.float32)
