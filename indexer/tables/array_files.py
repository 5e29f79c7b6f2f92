"""Files of named arrays: .npz, .mat, HDF5, and .npy or idx files beside each other; each is checked first."""

import math
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from indexer.errors import DataError
from indexer.tables.delimited import opened

MAX_RATIO = 200
"""How many times its size in the file an array may have; deflate makes 1,000 of zeros, images make 10."""

ALWAYS_ALLOWED_BYTES = 2**26
"""Arrays up to this size may be of any ratio."""


@dataclass(frozen=True)
class Arrays:
    """A file of arrays, of which none is held."""

    names: tuple[str, ...]
    read: Callable[[str], np.ndarray] = field(repr=False)


def open_arrays(spec: str) -> Arrays:
    """Open a file of arrays, by its suffix; of ``.npy`` and idx all in the same folder, by names without it.

    Raises:
        DataError: If it is no such file.
        OSError: If it cannot be read.
    """
    suffix = Path(spec).suffix.lower()
    return _open_idx(spec) if IDX.search(spec) else ARRAY_FILES[suffix](spec)


def _open_npz(spec: str) -> Arrays:
    def read(name: str) -> Any:
        return _quietly(spec, ".npz file of plain number arrays", lambda: _read_member(spec, name))

    def names() -> tuple[str, ...]:
        with Path(spec).open("rb") as file:
            if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise DataError(spec, "holds one unnamed array; expected images and labels, as np.savez writes")
            with zipfile.ZipFile(file) as archive:
                return tuple(name.removesuffix(".npy") for name in archive.namelist())

    return Arrays(_quietly(spec, ".npz file of plain number arrays", names), read)


def _open_npy(spec: str) -> Arrays:
    files = {path.stem: path for path in sorted(Path(spec).parent.iterdir()) if path.suffix.lower() == ".npy"}

    def read(name: str) -> np.ndarray:
        with files[name].open("rb") as file:
            size = files[name].stat().st_size
            _check_size(spec, name, _claimed(spec, name, file, size), size, size)
            file.seek(0)
            return npy.read_array(file, allow_pickle=False)

    return Arrays(tuple(files), lambda name: _quietly(spec, ".npy file of plain numbers", lambda: read(name)))


def _open_idx(spec: str) -> Arrays:
    """Files of the form of MNIST: two zeros, the type, the number of axes, their lengths, the values.

    Raises:
        DataError: If a file is none, or not as large as it claims.
    """
    files = {
        IDX.sub("", path.name): path for path in sorted(Path(spec).parent.iterdir()) if IDX.search(path.name)
    }

    def read(name: str) -> np.ndarray:
        with opened(str(files[name])) as file:
            kind, axes = struct.unpack(">xxBB", file.read(4))
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            dtype = np.dtype({8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}[kind])
            size, held = math.prod(shape) * dtype.itemsize, files[name].stat().st_size
            _check_size(spec, name, size, size, held)
            content = file.read(size + 1)
        if len(content) != size:
            raise DataError(spec, f"{files[name].name} claims the shape {list(shape)}, and holds other values")
        return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))

    return Arrays(tuple(files), lambda name: _quietly(spec, "idx file as MNIST has them", lambda: read(name)))


def _open_hdf5(spec: str) -> Arrays:
    """A file of HDF5; what MATLAB 7.3 saved has its axes in the other order.

    Raises:
        DataError: If h5py is not installed, or it is no such file.
    """
    is_matlab = spec.lower().endswith(".mat")
    try:
        import h5py
    except ImportError as error:
        what = "is a MATLAB file of version 7.3" if is_matlab else "is HDF5"
        raise DataError(
            spec,
            f"{what}, which needs h5py: `pip install h5py`"
            + ", or save it in MATLAB by save(..., '-v7')" * is_matlab,
        ) from error

    def arrays(file: Any) -> dict[str, Any]:
        return {
            name: one
            for name, one in file.items()
            if isinstance(one, h5py.Dataset) and one.dtype.kind in "uifb"
        }

    def names() -> tuple[str, ...]:
        with h5py.File(spec, "r") as file:
            return tuple(arrays(file))

    def read(name: str) -> np.ndarray:
        with h5py.File(spec, "r") as file:
            one = arrays(file)[name]
            _check_size(spec, name, one.nbytes, one.nbytes, Path(spec).stat().st_size)
            return np.asarray(one).T if is_matlab else np.asarray(one)

    return Arrays(
        _quietly(spec, "HDF5 file", names), lambda name: _quietly(spec, "HDF5 file", lambda: read(name))
    )


def _open_mat(spec: str) -> Arrays:
    from scipy import io

    def listed() -> Mapping[str, tuple[int, ...]] | None:
        with Path(spec).open("rb") as file:
            if file.read(4) == b"\x89HDF":
                return None
        try:
            return {name: shape for name, shape, _ in io.whosmat(spec)}
        except NotImplementedError:  # of version 7.3
            return None

    shapes = _quietly(spec, "MATLAB file", listed)
    if shapes is None:
        return _open_hdf5(spec)

    def read(name: str) -> np.ndarray:
        _check_size(spec, name, math.prod(shapes[name]), 8 * math.prod(shapes[name]), Path(spec).stat().st_size)
        return np.asarray(_quietly(spec, "MATLAB file", lambda: io.loadmat(spec, variable_names=[name])[name]))

    return Arrays(tuple(shapes), read)


ARRAY_FILES = {".npz": _open_npz, ".npy": _open_npy, ".mat": _open_mat, ".h5": _open_hdf5, ".hdf5": _open_hdf5}
IDX = re.compile(r"[.-]idx\d-ubyte(?:\.gz)?$", re.IGNORECASE)
"""How names of idx files end, such as ``train-images-idx3-ubyte.gz``."""


def _quietly(spec: str, kind: str, read: Callable[[], Any]) -> Any:
    """What reading gives.

    Raises:
        DataError: In place of whatever a damaged file makes a library raise.
        OSError: If the file cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            return read()
    except (DataError, OSError):
        raise
    except Exception as error:  # damaged zips and headers raise nearly anything, such as tokenize.TokenError
        raise DataError(spec, f"is not an {kind}: {error}".replace("an MATLAB", "a MATLAB")) from error


def _read_member(spec: str, name: str) -> np.ndarray:
    """An array of an .npz file, once its header is known to be true and its size to be harmless."""
    with zipfile.ZipFile(spec) as archive:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as file:
            claimed = _claimed(spec, name, file, member.file_size)
        held = min(member.compress_size, Path(spec).stat().st_size)
        _check_size(spec, name, claimed, member.file_size, held)
        with archive.open(member) as file:
            array: np.ndarray = npy.read_array(file, allow_pickle=False)
            return array


def _claimed(spec: str, name: str, file: Any, size: int) -> int:
    """Bytes that an array has by its header; ``DataError`` if the file holds another number."""
    read_header = {(1, 0): npy.read_array_header_1_0}.get(npy.read_magic(file), npy.read_array_header_2_0)
    shape, _, dtype = read_header(file)
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and expected != size:
        raise DataError(
            spec, f"array {name!r} claims the shape {list(shape)} of {dtype}, which is not what the file holds"
        )
    return int(expected)


def _check_size(spec: str, name: str, claimed: int, size: int, held: int) -> None:
    """Refuse an array that would fill the memory; ``DataError`` if it would."""
    ratio = size / max(1, held)
    if size > ALWAYS_ALLOWED_BYTES and ratio > MAX_RATIO:
        raise DataError(
            spec,
            f"array {name!r} is {ratio:.0f} times larger than in the file, more than {MAX_RATIO}, as in files "
            "that are made to fill the memory; write it with np.savez, uncompressed, if it is meant",
        )
    if max(size, claimed) > _memory_bytes():
        raise DataError(spec, f"array {name!r} of {size} bytes is larger than the memory; use image files")


def _memory_bytes() -> float:
    """Memory of this machine; infinite where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf
