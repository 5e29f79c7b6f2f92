"""Arrays of images and labels: what is listed, and what is refused."""

import pickle
import re

import numpy as np
import pytest
from builders_datasets import fails, listed, write_npz

from indexer.data.specs import open_dataset
from indexer.errors import DataError


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int64", "float16", "float64"])
@pytest.mark.parametrize("shape", [(12, 5, 4), (12, 5, 4, 1), (12, 5, 4, 3), (12, 5, 4, 12)])
def test_npz_lists_rows(tmp_path, shape, dtype):
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(dtype)
    dataset = listed(write_npz(tmp_path / "a.npz", images=pixels))
    assert dataset.class_names == ("3", "20", "100")
    assert dataset.names == [str(row) for row in range(12)]
    assert dataset.labels.tolist() == [0, 1, 2] * 4
    assert np.array_equal(dataset.read(7), pixels[7])
    assert set(dataset.sizes) == {pixels[0].nbytes}


PICKLED = "Object arrays cannot be loaded when allow_pickle=False"


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"images": None}, "array 'images' is missing; expected images and labels, got labels"),
        (
            {"labels": None, "y": np.arange(3)},
            "array 'labels' is missing; expected images and labels, got images, y",
        ),
        ({"images": np.zeros((12, 5, 4), bool)}, "images must be integers or floats, got bool"),
        ({"images": np.zeros((12, 5, 4), complex)}, "images must be integers or floats, got complex128"),
        (
            {"images": np.zeros((12, 3, 5, 4, 2), np.uint8)},
            "images must be [N, H, W] or [N, H, W, C], got shape [12, 3, 5, 4, 2]",
        ),
        (
            {"images": np.zeros((0, 5, 4), np.uint8), "labels": np.zeros(0, int)},
            "images must be [N, H, W] or [N, H, W, C], got shape [0, 5, 4]",
        ),
        (
            {"labels": np.array(["a"] * 12)},
            "labels must be integers, or floats of a regression, got <U1; number the classes",
        ),
        (
            {"labels": np.zeros(12, bool)},
            "labels must be integers, or floats of a regression, got bool; number the classes",
        ),
        (
            {"labels": np.array([[0, 1]] * 11 + [[1, 7]])},
            "labels [N, C] must be 0 or 1, got 7; make classes [N], and measured numbers floats",
        ),
        (
            {"labels": np.array([[0, 1]] * 11 + [[1, -7]])},
            "labels [N, C] must be 0 or 1, got -7; make classes [N], and measured numbers floats",
        ),
        (
            {"labels": np.zeros((12, 2, 2), int)},
            "labels must be [N] classes or targets, [N, C] of 0 and 1 or [N, T] targets, got shape [12, 2, 2]",
        ),
        (
            {"labels": np.array([0.5] * 7 + [np.nan] * 5)},
            "labels of a regression must be finite numbers, row 7 is nan",
        ),
        (
            {"labels": np.array([[0.5, 1.0]] * 11 + [[2.0, 1e39]])},
            "labels of a regression must be finite numbers, row 11 is [2.e+00 1.e+39]",
        ),
        ({"labels": np.arange(11)}, "images and labels must be equally many, got 12 and 11"),
        ({"labels": np.array([{}] * 12)}, f"is not an .npz file of plain number arrays: {PICKLED}"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_npz_refuses(tmp_path, arrays, problem):
    path = write_npz(tmp_path / "a.npz", **arrays)
    with fails(DataError, path, problem):
        open_dataset(str(path))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_npz_of_zeros_and_ones_is_multi_label(tmp_path, dtype):
    labels = np.random.default_rng(0).integers(0, 2, (12, 5)).astype(dtype)
    found = listed(write_npz(tmp_path / "a.npz", labels=labels))
    assert (found.kind, found.class_names) == ("multi_label", ("0", "1", "2", "3", "4"))
    assert found.labels.dtype == np.uint8
    assert np.array_equal(found.labels, labels)


@pytest.mark.parametrize(("shape", "names"), [((12,), ("target",)), ((12, 2), ("target_0", "target_1"))])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npz_of_floats_is_a_regression(tmp_path, shape, names, dtype):
    labels = np.random.default_rng(0).normal(size=shape).astype(dtype)
    found = listed(write_npz(tmp_path / "a.npz", labels=labels))
    assert (found.kind, found.class_names) == ("regression", names)
    assert found.labels.dtype == np.float32
    assert np.array_equal(found.labels, labels.reshape(12, -1).astype(np.float32))


def test_npz_ignores_other_arrays(tmp_path):
    path = write_npz(tmp_path / "a.npz", extra=np.array([{}]))
    assert len(listed(path).names) == 12


class Planted:
    """Unpickling one leaves a mark."""

    marks: list[int] = []  # noqa: RUF012 (one list for all is the point)

    def __reduce__(self):
        return Planted.marks.append, (1,)


NO_NPZ = {"empty": b"", "zip": b"PK\x03\x04 no zip", "pickle": pickle.dumps(Planted())}


@pytest.mark.parametrize("content", NO_NPZ.values(), ids=NO_NPZ.keys())
def test_npz_of_noise_is_refused_unrun(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{path}: is not an .npz file of plain number arrays: ")):
        open_dataset(str(path))
    assert Planted.marks == []


def test_npy_called_npz(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with fails(DataError, path, "holds one unnamed array; expected images and labels, as np.savez writes"):
        open_dataset(str(path))


def test_digits_use_the_whole_range():
    dataset = listed("sklearn:digits")
    assert dataset.class_names == tuple("0123456789")
    assert len(dataset.names) == 1797
    pixels = np.stack([dataset.read(row) for row in range(50)])
    assert (pixels.dtype, pixels.shape, pixels.min(), pixels.max()) == (np.uint8, (50, 8, 8), 0, 255)
