"""What a training leaves in a checkpoint: the weights, whatever wraps them and prefixes their names.

Objects that a checkpoint holds beside its tensors, such as the settings of a training, are never made.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params",
    "checkpoint", "teacher", "student", "state_dict_ema", "model_ema", "ema_state_dict", "ema",
)  # fmt: skip
"""Names under which trainings save weights; where there are several, the first is taken: averages come last."""


class _Unmade:
    """Stands for an object of any class in a checkpoint, of which nothing is wanted and nothing is run."""

    def __init__(self, *args: object) -> None:
        """Take what the object would be made of, and forget it."""

    def __setstate__(self, state: object) -> None:
        """Forget the state too."""


def load_checkpoint(path: Path) -> Any:
    """What ``torch.save`` wrote, with tensors and plain values; objects of other classes are not made."""
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of a format before zip archives, or damaged: loading will say so
        classes = []
    with torch.serialization.safe_globals([(_Unmade, name) for name in classes]):
        return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def without_pickled_objects() -> Iterator[None]:
    """Make torch execute no pickled objects: torchvision does not ask for that of files in its cache."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def find_weights(content: Any) -> Mapping[str, Tensor] | None:
    """The tensors by name that a checkpoint holds, also where they are wrapped; ``None`` if it holds none."""
    if not isinstance(content, Mapping):
        return None
    for name in WRAPPERS:
        if (wrapped := find_weights(content.get(name))) is not None:
            return wrapped
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    plain = all(isinstance(value, Tensor | int | float | str | None) for value in content.values())
    return tensors if tensors and plain and all(isinstance(name, str) for name in tensors) else None
