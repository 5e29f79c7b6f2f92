"""Fitted models of past results as files beside the read cache, for the next process that asks the same.

A file is named after all that a model depends on: results, experts, tasks and their distances, the code that
fits it, NumPy and the instructions of the processor, which decide the last bits. It is believed as far as the
read cache is: where its checksum says that it is what was written. All else is as if nothing were there.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from registry.files import share, write_atomically
from registry.recommend.calibration import Calibration, ExpertCovariance
from registry.recommend.facts import Features
from registry.recommend.gaussian_process import Cell, Pattern, RowKernel, RowProcess
from registry.recommend.levels import Levels
from registry.recommend.prior import Prior
from registry.recommend.results import Table
from registry.recommend.standing import Components, Rows, Standing
from registry.recommend.weights import Weights

MOST_FILES = 8
"""Those used longest ago are deleted; a task with results of its own has a model without these."""
SUFFIX = ".prior"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)
SPARSE_FROM, SPARSE_SHARE = 4096, 4

CLASSES = {
    it.__name__: it
    for it in (Prior, Table, Standing, Rows, Levels, Weights, Features, RowProcess, RowKernel, Cell, Pattern)
} | {it.__name__: it for it in (Components, Calibration, ExpertCovariance)}
FOR_FITTING = {
    "Standing": ("values", "solver"),
    "Rows": ("distances",),
    "RowProcess": ("left_out", "left_out_variance"),
    "RowKernel": ("base", "distances"),
}
"""Fields that no prediction needs; a model that was read lacks them."""


class KeptPriors:
    """The models in one folder, which need not be there nor be writable."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder of caches of a registry."""
        self._folder = folder

    def load(self, key: bytes) -> Prior | None:
        """The model that was fitted to the inputs of a key; ``None`` where it has to be fitted."""
        path = self._path(key)
        with suppress(*UNREADABLE):
            seal, _, content = path.read_bytes().partition(b"\n")
            head, _, rest = content.partition(b"\n")
            tree, abouts, name = json.loads(head)
            if seal.decode() == _checksum(content) and name == path.stem:
                prior = _from_tree(tree, _arrays(abouts, rest))
                if isinstance(prior, Prior):
                    with suppress(OSError):
                        path.touch()
                    return prior
        return None

    def save(self, key: bytes, prior: Prior) -> None:
        """Leave a model, if the folder can be written."""
        arrays: dict[int, np.ndarray] = {}
        tree, path = _as_tree(prior, arrays), self._path(key)
        abouts, parts = zip(*map(_as_bytes, arrays.values()), strict=True)
        content = b"\n".join([json.dumps([tree, abouts, path.stem]).encode(), b"".join(parts)])
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            write_atomically(path, _checksum(content).encode() + b"\n" + content)
            for shared in (self._folder, path):
                share(shared, self._folder.parent)
            for old in sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda it: -it.stat().st_mtime)[MOST_FILES:]:
                old.unlink()

    def _path(self, key: bytes) -> Path:
        return self._folder / f"{key.hex()}{_code_version()}{SUFFIX}"


def _checksum(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


@cache
def _code_version() -> str:
    """What the bits of a model depend on beside its inputs."""
    machine = np.show_config(mode="dicts")["SIMD Extensions"]
    digest = blake2b(f"{np.__version__} {machine}".encode(), digest_size=8)
    for path in (Path(__file__), *sorted(Path(__file__).parents[1].glob("recommend/*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _as_tree(value: Any, arrays: dict[int, np.ndarray]) -> Any:
    """A value as JSON, its arrays apart: each once, by its identity."""
    if isinstance(value, np.ndarray):
        arrays.setdefault(id(value), value)
        return {"array": list(arrays).index(id(value))}
    if is_dataclass(value):
        kind = type(value).__name__
        names = [field.name for field in fields(value) if field.name not in FOR_FITTING.get(kind, ())]
        return {kind: {name: _as_tree(getattr(value, name), arrays) for name in names}}
    if isinstance(value, Mapping):
        return {"dict": [[_as_tree(part, arrays) for part in pair] for pair in value.items()]}
    if isinstance(value, tuple | list | frozenset):
        return {type(value).__name__: [_as_tree(part, arrays) for part in value]}
    return value


def _from_tree(tree: Any, arrays: list[np.ndarray]) -> Any:
    """What ``_as_tree`` was given, without what only fitting needs."""
    if not isinstance(tree, dict):
        return tree
    [(kind, content)] = tree.items()
    if kind == "array":
        return arrays[content]
    if kind in CLASSES:
        made = object.__new__(CLASSES[kind])
        for name, value in content.items():
            object.__setattr__(made, name, _from_tree(value, arrays))
        return made
    makers = {"dict": dict, "tuple": tuple, "list": list, "frozenset": frozenset}
    if kind == "dict":
        content = [{"tuple": pair} for pair in content]
    return makers[kind](_from_tree(part, arrays) for part in content)


def _as_bytes(array: np.ndarray) -> tuple[list[Any], bytes]:
    """An array in the order in which it lies in memory, on which last bits depend; without most 0 or NaN."""
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    flat, shape = np.ravel(array.transpose(axes)), [array.shape[axis] for axis in axes]
    about: list[Any] = [array.dtype.str, shape, axes]
    if array.dtype == np.float64 and flat.size >= SPARSE_FROM:
        for fill, others in ((0.0, flat.view(np.uint64) != 0), (np.nan, ~np.isnan(flat))):
            places = np.flatnonzero(others).astype(np.uint32)
            if places.size * SPARSE_SHARE < flat.size:
                return [*about, fill, places.size], places.tobytes() + flat[places].tobytes()
    return [*about, None, flat.size], flat.tobytes()


def _arrays(abouts: list[Any], content: bytes) -> list[np.ndarray]:
    """The arrays that ``_as_bytes`` wrote, one after the other."""
    arrays, start = [], 0

    def take(dtype: str, count: int) -> np.ndarray:
        nonlocal start
        values = np.frombuffer(content, dtype, count, start)
        start += values.nbytes
        return values

    for dtype, shape, axes, fill, count in abouts:
        if fill is None:
            flat = take(dtype, count).copy()
        else:
            places, flat = take("<u4", count), np.full(int(np.prod(shape)), fill)
            flat[places] = take(dtype, count)
        arrays.append(flat.reshape(shape).transpose(np.argsort(axes)))
    return arrays
