"""Run a network over a sample: its batches and its features.

Axes: N samples, F features, S pixels of the input's side, L tokens.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from indexer.errors import IndexerError, NetworkError, SettingsError
from indexer.networks.headless import check_alive
from indexer.networks.load import PretrainedNetwork
from indexer.networks.tokens import text_lengths

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""


@contextlib.contextmanager
def running(loader: str) -> Iterator[None]:
    """Say in a sentence why a network cannot be run: it may be code of anybody, and raise anything.

    Raises:
        IndexerError: As it is.
        NetworkError: In place of any other.
    """
    try:
        yield
    except IndexerError:  # which has its sentence
        raise
    except (MemoryError, torch.OutOfMemoryError) as err:
        raise NetworkError(f"{loader}: does not fit into the memory; try it on another device") from err
    except Exception as err:
        raise NetworkError(f"{loader}: does not run ({type(err).__name__}: {err})") from err


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


def full_precision() -> contextlib.AbstractContextManager[None]:
    """Keep convolutions on CUDA in float32 and deterministic, so that they give what CPUs give, each time."""
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of inputs with their labels, as often as one goes through them.

    Attributes:
        network: Whose inputs they are; batches lie on its device.
        inputs: Images, uint8 ``[N, 3, S, S]``, or encoded texts, int32 ``[N, 2, L]``.
        labels: ``[N, ...]``.
        batch_size: Most samples in each.
        order: Indices of the samples, in order; as they are if ``None``.
    """

    network: PretrainedNetwork
    inputs: np.ndarray
    labels: np.ndarray
    batch_size: int
    order: np.ndarray | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images ``[B, 3, S, S]`` or texts ``[B, 2, L]``, and labels ``[B, ...]``, in order.

        Texts are cut to the longest of their batch.
        """
        device = next(self.network.body.parameters()).device
        order = np.arange(len(self.inputs)) if self.order is None else self.order
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            chosen = self.inputs[rows]
            if self.network.takes == "texts":
                chosen = np.ascontiguousarray(chosen[..., : text_lengths(chosen).max()])
            inputs, labels = torch.from_numpy(chosen), torch.from_numpy(self.labels[rows])
            if device.type == "cuda":  # from pinned memory the copy runs beside the computation before it
                inputs, labels = inputs.pin_memory(), labels.pin_memory()
            inputs = self.network.normalize(inputs.to(device, non_blocking=True))
            if self.network.takes == "images":
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            yield inputs, labels.to(device, non_blocking=True)


def by_length(network: PretrainedNetwork, inputs: np.ndarray) -> np.ndarray:
    """Order ``[N]`` in which batches have least padding: short texts first; images as they are."""
    if network.takes == "images":
        return np.arange(len(inputs))
    return np.argsort(text_lengths(inputs), kind="stable")


def extract_features(
    network: PretrainedNetwork, inputs: np.ndarray, *, batch_size: int = 64, progress: Progress | None = None
) -> np.ndarray:
    """Features of images or texts.

    Args:
        network: On the device that is to compute.
        inputs: Images, uint8 ``[N, 3, S, S]``, RGB, or encoded texts, int32 ``[N, 2, L]``.
        batch_size: Samples per pass.
        progress: Called after each batch, with the stage ``features``.

    Returns:
        ``[N, F]`` float32, finite and not the same for all samples, if there are several.

    Raises:
        WeightsError: If what the network computes is not so.
        NetworkError: If it does not run.
    """
    features, order = [], by_length(network, inputs)
    with running(network.loader), torch.inference_mode():
        for batch, _ in Batches(network, inputs, np.zeros(len(inputs)), batch_size, order):
            features.append(network.body(batch).float().cpu().numpy())
            if progress:
                progress("features", sum(map(len, features)), len(inputs))
    stacked = np.concatenate(features)
    stacked[order] = stacked.copy()
    if len(stacked) > 1:
        check_alive(stacked, network.loader)
    return stacked
