"""Folders of class folders: what is listed, and what is refused."""

import os
import shutil

import numpy as np
import pytest
from builders_datasets import fails, listed, noise_image, write_folder, write_splits

from indexer.data.specs import open_dataset
from indexer.errors import DataError


def test_folder_lists_names_labels_and_sizes(tmp_path):
    root = write_folder(tmp_path / "pets", {"dog": 2, "cat": 3})
    dataset = listed(root)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.names == ["cat/000.png", "cat/001.png", "cat/002.png", "dog/000.png", "dog/001.png"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.labels.dtype == np.int64
    for index, name in enumerate(dataset.names):
        assert dataset.read(index) == (root / name).read_bytes()
        assert dataset.sizes[index] == (root / name).stat().st_size


def test_folder_passes_over_other_files(tmp_path):
    root = write_folder(tmp_path, {"cat": 2, "dog": 2})
    (root / "readme.txt").write_text("pets")
    (root / "cover.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / "cat" / "notes.txt").write_text("two cats")
    (root / "cat" / ".hidden.png").write_bytes(b"")
    (root / "cat" / "old.png").mkdir()
    shutil.copy(root / "cat" / "000.png", root / "cat" / "000.JPEG")
    assert listed(root).names == [
        "cat/000.JPEG", "cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png",
    ]  # fmt: skip


def test_folder_names_sort_like_the_whole_path(tmp_path):
    """ "a-b/" comes before "a/" in order of path, though "a" comes before "a-b" in order of class."""
    dataset = listed(write_folder(tmp_path, {"a": 2, "a-b": 2}))
    assert dataset.class_names == ("a", "a-b")
    assert dataset.names == ["a-b/000.png", "a-b/001.png", "a/000.png", "a/001.png"]
    assert dataset.labels.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(("split", "count"), [(None, 9), ("train", 9), ("test", 5), ("TEST", 5)])
def test_folder_split_is_chosen(tmp_path, split, count):
    dataset = listed(write_splits(tmp_path), split=split)
    assert len(dataset.names) == count
    assert dataset.names[0] == "cat/000.png"


def test_folder_without_that_split(tmp_path):
    with fails(DataError, tmp_path, "has no split 'val'; its splits are test, train"):
        open_dataset(str(write_splits(tmp_path)), split="val")


def test_folder_without_default_split(tmp_path):
    write_folder(tmp_path / "val", {"cat": 2, "dog": 2})
    with fails(DataError, tmp_path, "has no split 'train'; its splits are val"):
        open_dataset(str(tmp_path))


def test_class_called_test_is_no_split(tmp_path):
    root = write_folder(tmp_path, {"control": 2, "test": 2})
    (root / "test" / "thumbnails").mkdir()
    assert open_dataset(str(root)).class_names == ("control", "test")


def test_folder_with_empty_class(tmp_path):
    root = write_folder(tmp_path, {"cat": 2, "dog": 0})
    problem = (
        "class folder 'dog' holds no images (.jpg .jpeg .png .bmp .gif .webp .tif .tiff .ppm .pgm .avif); "
        "put some into it, remove it, leave it out with skip_bad=True, or name the folder that holds the class "
        "folders"
    )
    with fails(DataError, root, problem):
        open_dataset(str(root))


def test_folder_without_class_folders(tmp_path):
    with fails(DataError, tmp_path, "holds no class folders; expected images in <class>/<name>.jpg inside it"):
        open_dataset(str(tmp_path))
    noise_image(0).save(tmp_path / "lonely.png")
    with pytest.raises(DataError, match="inside it, or a table that names its images"):
        open_dataset(str(tmp_path))


def test_folder_is_listed_anew_at_each_scan(tmp_path):
    root = write_folder(tmp_path, {"cat": 2, "dog": 2})
    dataset = open_dataset(str(root))
    assert len(list(dataset.scan())) == 4
    (root / "cat" / "001.png").unlink()
    assert sorted(entry.name for entry in dataset.scan()) == ["cat/000.png", "dog/000.png", "dog/001.png"]


def test_undecodable_file_names_are_listed(tmp_path):
    root = write_folder(tmp_path, {"cat": 3, "dog": 3})
    content = (root / "cat" / "000.png").read_bytes()
    strange = os.fsencode(root) + b"/cat/caf\xe9.png"
    try:
        os.rename(root / "cat" / "000.png", strange)  # noqa: PTH104 (pathlib takes no bytes)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    dataset = listed(root)
    assert dataset.read(dataset.names.index("cat/caf\udce9.png")) == content
