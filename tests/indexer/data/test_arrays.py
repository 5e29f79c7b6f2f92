"""Arrays of images and labels: what is listed, and what is refused."""

import pickle
import re
import sys

import numpy as np
import pytest
from builders_datasets import fails, listed, write_npz

from indexer.data.arrays import find_pair
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
        (
            {"images": None},
            (
                "array 'images' is missing; expected images and labels, got labels; if one of them is meant, "
                "say so by image_col="
            ),
        ),
        (
            {"labels": None, "z": np.arange(3)},
            (
                "array 'labels' is missing; expected images and labels, got images, z; if one of them is "
                "meant, say so by label_col="
            ),
        ),
        (
            {"images": np.zeros((12, 3, 32, 3), np.uint8)},
            (
                "images of shape [12, 3, 32, 3] could have their channels in the second axis or the last; "
                "write them as [N, H, W, C], such as by images.transpose(0, 2, 3, 1)"
            ),
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
            {"labels": np.zeros(12, complex)},
            "labels must be integers, words, or floats of a regression, got complex128",
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
    assert np.array_equal(found.labels, labels.reshape(12, -1).astype(np.float64))


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


PIXELS = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
CLASSES = np.arange(60) % 3


@pytest.mark.parametrize(
    ("labels", "kind", "names", "said"),
    [
        (CLASSES[:, None], "single_label", ("0", "1", "2"), ""),
        (
            CLASSES.astype(float),
            "single_label",
            ("0", "1", "2"),
            "labels, whole numbers as floats, as 3 classes",
        ),
        (np.eye(4, dtype=np.float32)[CLASSES], "single_label", ("0", "1", "2"), "(one-hot)"),
        (np.eye(3, dtype=bool)[CLASSES], "single_label", ("0", "1", "2"), "(one-hot)"),
        ((np.eye(3) + np.eye(3)[::-1] > 0)[CLASSES] * 1.0, "multi_label", ("0", "1", "2"), "as several labels"),
        (np.array(["a", "b"])[CLASSES % 2], "single_label", ("a", "b"), ""),
        (CLASSES == 1, "single_label", ("False", "True"), ""),
        (np.full((60, 2), 0.5), "regression", ("target_0", "target_1"), "rows of labels, which add up to 1"),
        (100.0 * CLASSES, "regression", ("target",), ""),
    ],
)
def test_labels_are_classes_or_numbers_and_what_was_guessed_is_said(tmp_path, labels, kind, names, said):
    dataset = open_dataset(str(write_npz(tmp_path / "a.npz", images=PIXELS, labels=labels)))
    assert (dataset.kind, dataset.class_names) == (kind, names)
    assert said in " ".join(dataset.taken)
    assert bool(said) == bool(dataset.taken)


def test_named_arrays_settle_what_labels_are(tmp_path):
    path = write_npz(tmp_path / "a.npz", images=PIXELS, labels=CLASSES * 1.0, age=CLASSES * 10)
    assert open_dataset(str(path), target_col="labels").kind == "regression"
    assert open_dataset(str(path), target_col="age").kind == "regression"
    assert open_dataset(str(path), label_col="age").class_names == ("0", "10", "20")
    with pytest.raises(DataError, match=r"labels are named as classes, and hold 0\.5"):
        open_dataset(str(write_npz(path, images=PIXELS, labels=CLASSES / 2)), label_col="labels")
    with pytest.raises(DataError, match=r"images could be the arrays x, data; say which by image_col='x'$"):
        open_dataset(str(write_npz(path, images=None, labels=CLASSES, x=PIXELS, data=PIXELS)))


@pytest.mark.parametrize(
    "names", [("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("X{}", "y{}"), ("{}Data", "{}Targets")]
)
def test_splits_in_the_names_of_arrays(tmp_path, names):
    arrays = {"images": None, "labels": None}
    for split, count in (("train", 40), ("test", 20)):
        arrays |= {names[0].format(split): PIXELS[:count], names[1].format(split): CLASSES[:count, None]}
    path = write_npz(tmp_path / "a.npz", **arrays)
    train, test = open_dataset(str(path)), open_dataset(str(path), split="test")
    assert [len(list(listing.scan())) for listing in (train, test)] == [40, 20]
    image, label, *others = (name.format(split) for split in ("train", "test") for name in names)
    assert train.taken == (
        (f"array {image!r} as the images and {label!r} as the labels; not read: {', '.join(sorted(others))}"),
    )


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        ((3, 32, 32), (32, 32, 3)),
        ((1, 28, 28), (28, 28, 1)),
        ((12, 64, 64), (64, 64, 12)),
        ((3, 20, 30), (20, 30, 3)),
        ((4, 4, 3), (4, 4, 3)),
        ((20, 30, 12), (20, 30, 12)),
        ((3, 3, 3), (3, 3, 3)),
    ],
)
def test_channels_first_are_recognised_and_said(tmp_path, shape, read):
    pixels = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    found = listed(write_npz(tmp_path / "a.npz", images=pixels))
    assert found.read(5).shape == read
    assert np.array_equal(found.read(5), pixels[5] if shape == read else np.moveaxis(pixels[5], 0, -1))
    said = f"images {[12, *shape]} as [N, C, H, W], their {shape[0]} channels first"
    assert found.dataset.taken == (() if shape == read else (said,))


def test_pairs_of_npy_files(tmp_path):
    for image, label in (("images", "labels"), ("X_train", "y_train")):
        np.save(tmp_path / f"{image}.npy", PIXELS)
        np.save(tmp_path / f"{label}.npy", CLASSES)
        found = listed(tmp_path / f"{image}.npy")
        assert found.labels.tolist() == CLASSES.tolist()
        assert np.array_equal(found.read(3), PIXELS[3])
    assert find_pair(tmp_path).name == "X_train.npy"
    np.save(tmp_path / "kinds.npy", CLASSES)
    assert len(listed(tmp_path / "images.npy", label_col="kinds").names) == 60
    (tmp_path / "alone").mkdir()
    np.save(tmp_path / "alone/images.npy", PIXELS)
    with pytest.raises(DataError, match="array 'labels' is missing; expected images and labels, got images"):
        open_dataset(str(tmp_path / "alone/images.npy"))


def test_matlab_files_count_images_by_their_last_axis(tmp_path, monkeypatch):
    from scipy import io

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3, 60), dtype=np.uint8)
    io.savemat(tmp_path / "a.mat", {"X": pixels, "y": CLASSES[:, None] + 1}, do_compression=True)
    found = listed(tmp_path / "a.mat")
    assert (found.class_names, len(found.names)) == (("1", "2", "3"), 60)
    assert np.array_equal(found.read(7), pixels[..., 7])
    assert "counted by their last axis" in " ".join(found.dataset.taken)
    monkeypatch.setitem(sys.modules, "h5py", None)  # as where it is not installed
    (tmp_path / "b.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(600))
    with fails(
        DataError,
        tmp_path / "b.mat",
        "is a MATLAB file of version 7.3, which needs h5py: `pip install h5py`, or save it in MATLAB by "
        "save(..., '-v7')",
    ):
        open_dataset(str(tmp_path / "b.mat"))
    (tmp_path / "c.mat").write_bytes(b"noise" * 100)
    with pytest.raises(DataError, match="is not a MATLAB file"):
        open_dataset(str(tmp_path / "c.mat"))


def test_targets_that_are_close_stay_apart(tmp_path):
    for numbers in (1.7e9 + np.arange(60), 2459000.5 + np.arange(60) / 1440):
        found = listed(write_npz(tmp_path / "a.npz", images=PIXELS, labels=numbers))
        assert len(np.unique(found.labels)) == 60
    path = write_npz(tmp_path / "b.npz", images=PIXELS, labels=2**53 + np.arange(60))
    with pytest.raises(
        DataError, match=r"labels hold numbers beyond 2\*\*53, of which floats tell only some apart"
    ):
        open_dataset(str(path), target_col="labels")
    (tmp_path / "c.csv").write_text("text,target\na,9007199254740993\nb,1\n")
    with pytest.raises(DataError, match=r"line 2: target '9007199254740993' is beyond 2\*\*53"):
        open_dataset(str(tmp_path / "c.csv"))
