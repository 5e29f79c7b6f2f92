"""Data specs of one file that holds everything: what is listed, and what is refused."""

import pickle
import re
import tarfile
import threading

import numpy as np
import pytest
from builders_datasets import add_member, fails, write_folder, write_npz, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.datasets import open_dataset
from indexer.errors import DataError

# Arrays


@pytest.mark.parametrize("shape", [(12, 5, 4), (12, 5, 4, 1), (12, 5, 4, 3), (12, 5, 4, 4)])
def test_npz_lists_rows(tmp_path, shape):
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    dataset = open_dataset(str(write_npz(tmp_path / "a.npz", images=pixels)))
    assert dataset.class_names == ("3", "20", "100")
    assert list(dataset.names) == [str(row) for row in range(12)]
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
        ({"images": np.zeros((12, 5, 4))}, "images must be uint8 from 0 to 255, got float64"),
        (
            {"images": np.zeros((12, 3, 5, 4), np.uint8)[:, :, :, :2]},
            "images must be [N, H, W] or [N, H, W, C] with C 1, 3 or 4, got shape [12, 3, 5, 2]",
        ),
        (
            {"images": np.zeros((0, 5, 4), np.uint8), "labels": np.zeros(0, int)},
            "images must be [N, H, W] or [N, H, W, C] with C 1, 3 or 4, got shape [0, 5, 4]",
        ),
        ({"labels": np.arange(12.0)}, "labels must be integers, got float64; number the classes"),
        ({"labels": np.array(["a"] * 12)}, "labels must be integers, got <U1; number the classes"),
        (
            {"labels": np.zeros((12, 2), int)},
            "labels must be [N], one per image, got shape [12, 2]; multi-label data is not supported yet",
        ),
        ({"labels": np.arange(11)}, "images and labels must be equally many, got 12 and 11"),
        (
            {"labels": np.array([{}] * 12)},
            f"is not an .npz file of plain number arrays: {PICKLED}",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_npz_refuses(tmp_path, arrays, problem):
    path = write_npz(tmp_path / "a.npz", **arrays)
    with fails(DataError, path, problem):
        open_dataset(str(path))


def test_npz_ignores_other_arrays(tmp_path):
    path = write_npz(tmp_path / "a.npz", extra=np.array([{}]))
    assert len(open_dataset(str(path)).names) == 12


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
    dataset = open_dataset("sklearn:digits")
    assert dataset.class_names == tuple("0123456789")
    assert len(dataset.names) == 1797
    pixels = np.stack([dataset.read(row) for row in range(50)])
    assert (pixels.dtype, pixels.shape, pixels.min(), pixels.max()) == (np.uint8, (50, 8, 8), 0, 255)


# Tars


def test_tar_lists_and_reads_like_extracted(tmp_path):
    root = write_folder(tmp_path / "pets", {"dog": 3, "cat": 4})
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(root, ".")
    dataset, extracted = open_dataset(str(tmp_path / "pets.tar")), open_dataset(str(root))
    assert dataset.class_names == extracted.class_names
    assert list(dataset.names) == list(extracted.names)
    assert list(dataset.sizes) == list(extracted.sizes)
    assert dataset.labels.tolist() == extracted.labels.tolist()
    for index in range(7):
        assert dataset.read(index) == extracted.read(index)


def test_tar_class_is_the_folder_of_the_file(tmp_path):
    long = "x" * 150
    members = {"a/b/cat/1.png": b"1", f"{long}/dog/2.JPG": b"22"}
    dataset = open_dataset(str(write_tar(tmp_path / "a.tar", members)))
    assert dataset.class_names == ("cat", "dog")
    assert list(dataset.names) == list(members)
    assert [dataset.read(i) for i in range(2)] == [b"1", b"22"]


def test_tar_passes_over_unsafe_and_other_members(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add_member(archive, "cat/0.png", b"good")
        for name in ("../cat/1.png", "cat/../../dog/2.png", "/cat/3.png", "//cat/4.png"):
            add_member(archive, name, b"unsafe")
        for name in ("cat/._5.png", ".x/cat/6.png"):
            add_member(archive, name, b"hidden")
        add_member(archive, "7.png", b"of no class")
        add_member(archive, "cat/notes.txt", b"text")
        for number, kind in enumerate(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE)
        ):
            member = tarfile.TarInfo(f"cat/1{number}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert list(open_dataset(str(path)).names) == ["cat/0.png"]


def test_tar_member_written_again_replaces_the_first(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for content in (b"old", b"newer"):
            add_member(archive, "cat/1.png", content)
    dataset = open_dataset(str(path))
    assert (list(dataset.sizes), dataset.read(0)) == ([5], b"newer")


def test_tar_split_is_chosen(tmp_path):
    members = dict.fromkeys(["d/train/cat/1.png", "d/train/dog/2.png", "d/Test/cat/3.png", "cat/4.png"], b"")
    spec = str(write_tar(tmp_path / "a.tar", members))
    assert list(open_dataset(spec).names) == ["d/train/cat/1.png", "d/train/dog/2.png"]
    assert list(open_dataset(spec, split="test").names) == ["d/Test/cat/3.png"]


def test_tar_without_images(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"000.jpg": b"", "000.cls": b"3"})
    with fails(DataError, path, "holds no images; expected members <class>/<name>.jpg"):
        open_dataset(str(path))


@pytest.mark.parametrize("damage", ["empty", "text", "gzip", "cut"])
def test_tar_of_noise(tmp_path, damage):
    path = write_tar(tmp_path / "a.tar", {"cat/1.png": b"x" * 3000}, format=tarfile.PAX_FORMAT)
    whole = path.read_bytes()
    content = {"empty": b"", "text": b"no tar" * 200, "gzip": b"\x1f\x8b" + whole, "cut": whole[:2000]}[damage]
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{path}: is not a complete, uncompressed tar file: ")):
        open_dataset(str(path))


@settings(max_examples=100, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_tar_opens_or_is_refused(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("damaged") / "a.tar"
    write_tar(path, {"cat/é" + "x" * 120 + ".png": b"1" * 600, "dog/2.png": b"2"}, format=tarfile.PAX_FORMAT)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position] = value
    path.write_bytes(content)
    try:
        dataset = open_dataset(str(path))
        assert len(dataset.names) == len(dataset.labels) > 0
    except DataError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 (either way is right)


def test_tar_is_read_by_many_threads_at_once(tmp_path):
    members = {f"c{number % 7}/{number:04d}.png": bytes([number % 256]) * (number + 1) for number in range(300)}
    dataset = open_dataset(str(write_tar(tmp_path / "a.tar", members)))
    wrong = []

    def read_all(start):
        for step in range(300):
            index = (start + step) % 300
            if dataset.read(index) != members[dataset.names[index]]:
                wrong.append(index)

    threads = [threading.Thread(target=read_all, args=(start,)) for start in (0, 100, 200, 299)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_real_tar(shared):
    spec = str(shared / "pretrain" / "tiny_imagenet_20k.tar")
    dataset = open_dataset(spec)
    assert (len(dataset.names), len(dataset.class_names)) == (20_000, 200)
    with tarfile.open(spec) as archive:
        for index in (0, 9_999, 19_999):
            assert dataset.read(index) == archive.extractfile(dataset.names[index]).read()
