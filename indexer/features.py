"""Run a network over a sample: its features.

Axes: N samples, F features, S pixels of the input's side.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from indexer.errors import SettingsError
from indexer.probes import PretrainedNetwork

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one.

    Raises:
        SettingsError: If there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise SettingsError(f"no device is named {name!r}; expected auto, cpu, cuda or cuda:N") from err
    available = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(device.type, 0)
    if (device.index or 0) >= available:
        raise SettingsError(f"this machine has no device {name!r}; use auto or cpu")
    return device


def move_to_device(network: PretrainedNetwork, name: str) -> None:
    """Put a network where it is to compute, with channels last, which convolutions on CPUs prefer.

    Raises:
        SettingsError: If there is no such device on this machine.
    """
    network.body.to(choose_device(name)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def batches(network: PretrainedNetwork, images: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    """Normalised batches ``[<= batch_size, 3, S, S]`` on the network's device, of uint8 ``[N, 3, S, S]``."""
    device = next(network.body.parameters()).device
    for batch in torch.split(torch.from_numpy(images), batch_size):
        yield network.normalize(batch.to(device)).contiguous(memory_format=torch.channels_last)


def extract_features(
    network: PretrainedNetwork, images: np.ndarray, *, batch_size: int = 64, progress: Progress | None = None
) -> np.ndarray:
    """Features of images.

    Args:
        network: On the device that is to compute.
        images: uint8 ``[N, 3, S, S]``, RGB.
        batch_size: Samples per pass.
        progress: Told of each batch, as stage ``features``.

    Returns:
        ``[N, F]`` float32.
    """
    features = []
    with torch.inference_mode():
        for batch in batches(network, images, batch_size):
            features.append(network.body(batch).float().cpu().numpy())
            if progress:
                progress("features", sum(map(len, features)), len(images))
    return np.concatenate(features)
