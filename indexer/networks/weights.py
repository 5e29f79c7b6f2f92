"""Weights as files and as tensors: read, also from 8 bits, fitted into a network, hashed.

Pickled objects are never executed. In 8 bits a tensor ``name`` ``[O, ...]`` is int8 and ``name.scale`` ``[O]``.
"""

import hashlib
import textwrap
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn, overrides
from torch.overrides import TorchFunctionMode

from indexer.errors import WeightsError
from indexer.networks.checkpoints import find_weights, load_checkpoint
from indexer.signatures import content_kind

_MAX_GROWTH = 4  # times its size that a file may have unpacked; torch.save does not compress
_EXPECTED = "expected .safetensors or a PyTorch checkpoint"
SCALE_SUFFIX = ".scale"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a PyTorch checkpoint, floating-point and 8-bit ones as float32.

    Raises:
        WeightsError: If it is neither.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; {_EXPECTED}")
    try:
        if path.suffix == ".safetensors":
            return _single_precision(dequantise(load_file(path)))
        _check_growth(path)
        content = load_checkpoint(path)
    except Exception as err:  # a damaged pickle raises nearly anything: IndexError, struct.error, UnicodeError
        kind = content_kind(path.read_bytes()[:512])
        is_other = kind and not kind.startswith("zip")
        raise WeightsError(
            f"{path}: {kind}; {_EXPECTED}"
            if is_other
            else f"{path}: not a safetensors file or a PyTorch checkpoint of plain tensors"
        ) from err
    state = find_weights(content)
    if state is None or not all(_is_plain(value, path) for value in state.values()):
        raise WeightsError(f"{path}: holds no state dict (a mapping from parameter names to tensors)")
    return _single_precision(state)


def _check_growth(path: Path) -> None:
    """Refuse an archive that is made to fill the memory, by a ``ValueError``."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MAX_GROWTH * path.stat().st_size:
            raise ValueError(f"unpacks to {unpacked} bytes")


def _is_plain(value: object, path: Path) -> bool:
    """Whether it is a tensor whose numbers are in the file: dense, not quantised, not one number repeated."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
        and value.numel() * value.element_size() <= path.stat().st_size
    )


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file, from its header alone."""
    with safe_open(path, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping


def without_prefix(state: Mapping[str, Tensor], names: Iterable[str]) -> Mapping[str, Tensor]:
    """Weights under the names of an architecture: a prefix of theirs is taken off, and what has none left out.

    Such prefixes are ``module.`` of parallel training, ``_orig_mod.`` of compiled networks, ``model.`` of
    Lightning, and the attribute of any network around this one. Of several networks in a file, the one of which
    most is there is taken, and the first of equal ones.
    """
    wanted = set(names)
    ends = Counter(
        name[:start]
        for name in state
        for start in (0, *(place + 1 for place, char in enumerate(name) if char == "."))
        if name[start:] in wanted
    )
    prefix = max(ends, key=ends.__getitem__, default="")
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    """Make tensors from ``path`` the weights of a network, all of them; ``WeightsError`` if they do not fit."""
    versioned = OrderedDict(state)
    # Files hold no version of the network's class; MNASNet asks for one, and without it does not load.
    versioned._metadata = {"": {"version": network._version}}  # type: ignore[attr-defined]  # as Module.state_dict
    try:
        network.load_state_dict(versioned, assign=True)
    except RuntimeError as err:
        raise WeightsError(misfit(path, architecture, " ".join(str(err).splitlines()[1:]))) from err


def check_finite(network: nn.Module, where: str) -> None:
    """Refuse weights that hold NaN or infinity; ``WeightsError`` if they do."""
    state = network.state_dict()
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 1} others" if len(broken) > 1 else ""
        raise WeightsError(
            f"{where}: its weights {broken[0]}{more} hold NaN or infinity, as of a training that diverged: "
            "take an earlier one"
        )


class OwnMode(TorchFunctionMode):
    """A mode of ours, which ``forget_interrupted`` switches off where an interrupt left it on."""


def forget_interrupted() -> None:
    """Switch off modes of ours that an interrupt, just before or after a block, left on in this thread."""
    modes = overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    while modes and isinstance(modes.pop(), OwnMode):
        overrides._pop_mode()  # type: ignore[no-untyped-call]


class _WithoutParameters(OwnMode):
    """Gives no memory to what layers allocate for their parameters, unlike to the tensors that they compute."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Send ``torch.empty`` to the device without memory; to draw there, torch would import its compiler."""
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_) and args[0].is_meta:
            return args[0]
        if func is torch.empty:
            kwargs = {**(kwargs or {}), "device": "meta"}
        return func(*args, **(kwargs or {}))


def build_unfilled(build: Callable[[int], nn.Module], num_classes: int) -> nn.Module:
    """A network whose weights are about to be replaced: without memory for most of them."""
    with _WithoutParameters():
        return build(num_classes)


def misfit(path: Path, architecture: str, problem: str) -> str:
    """What to say of weights that are those of another architecture, on one line."""
    shortened = textwrap.shorten(problem, 120, placeholder=" ...")
    return f"{path}: weights do not fit {architecture}: {shortened}"


def hash_weights(network: nn.Module) -> str:
    """blake2b over names, types, shapes and bytes of the tensors of a network, sorted by name; hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _single_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def dequantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``quantise`` of ``scripts/lib/training.py``: int8 tensors with scales as float32, all else as it is.

    Raises:
        ValueError: If scales do not fit their tensor.
    """
    unpacked = {}
    for name, value in state.items():
        if name.endswith(SCALE_SUFFIX) and _is_quantised(state, name.removesuffix(SCALE_SUFFIX)):
            continue
        if _is_quantised(state, name):
            scales = state[name + SCALE_SUFFIX]
            if scales.shape != value.shape[:1] or not scales.is_floating_point():
                raise ValueError(f"{name} has {len(value)} filters and scales of shape {tuple(scales.shape)}")
            value = value.float() * scales.float().view(-1, *[1] * (value.ndim - 1))
        unpacked[name] = value
    return unpacked


def _is_quantised(state: Mapping[str, Tensor], name: str) -> bool:
    """Whether the tensor of that name has 8 bits and scales beside it."""
    return name + SCALE_SUFFIX in state and name in state and state[name].dtype == torch.int8
