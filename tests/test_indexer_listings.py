"""Data specs: what is listed, and what is refused."""

import os
import re
import shutil

import numpy as np
import pytest
from builders_datasets import (
    fails,
    noise_image,
    write_folder,
    write_manifest,
    write_npz,
    write_splits,
    write_tar,
)

from indexer.datasets import open_dataset
from indexer.errors import DataError, DataSpecError

# Folders


def test_folder_lists_names_labels_and_sizes(tmp_path):
    root = write_folder(tmp_path / "pets", {"dog": 2, "cat": 3})
    dataset = open_dataset(str(root))
    assert dataset.class_names == ("cat", "dog")
    assert list(dataset.names) == ["cat/000.png", "cat/001.png", "cat/002.png", "dog/000.png", "dog/001.png"]
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
    assert list(open_dataset(str(root)).names) == [
        "cat/000.JPEG", "cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png",
    ]  # fmt: skip


def test_folder_names_sort_like_the_whole_path(tmp_path):
    """ "a-b/" comes before "a/" in order of path, though "a" comes before "a-b" in order of class."""
    dataset = open_dataset(str(write_folder(tmp_path, {"a": 1, "a-b": 1})))
    assert dataset.class_names == ("a", "a-b")
    assert list(dataset.names) == ["a-b/000.png", "a/000.png"]
    assert dataset.labels.tolist() == [1, 0]


@pytest.mark.parametrize(("split", "count"), [(None, 9), ("train", 9), ("test", 5), ("TEST", 5)])
def test_folder_split_is_chosen(tmp_path, split, count):
    dataset = open_dataset(str(write_splits(tmp_path)), split=split)
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


@pytest.mark.parametrize("kind", ["folder", "manifest.csv", "a.tar", "a.npz", "sklearn:digits"])
def test_split_of_data_without_splits(tmp_path, kind):
    spec = kind if kind.startswith("sklearn") else str(tmp_path / kind)
    if kind == "folder":
        write_folder(tmp_path / kind, {"cat": 2, "dog": 2})
    elif kind == "manifest.csv":
        (tmp_path / kind).write_text("path,label\nx.png,cat\n")
    elif kind == "a.tar":
        write_tar(tmp_path / kind, {"cat/0.png": b""})
    elif kind == "a.npz":
        write_npz(tmp_path / kind)
    with fails(DataError, spec, "has no splits, so split 'test' cannot be chosen; leave the split out"):
        open_dataset(spec, split="test")


def test_folder_with_empty_class(tmp_path):
    root = write_folder(tmp_path, {"cat": 2, "dog": 0})
    problem = (
        "class folder 'dog' holds no images (.jpg .jpeg .png .bmp .gif .webp .tif .tiff .ppm .pgm); "
        "put some into it, remove it, or name the folder that holds the class folders"
    )
    with fails(DataError, root, problem):
        open_dataset(str(root))


def test_folder_of_folders_of_classes_is_refused(tmp_path):
    """A split by an unknown name must not become a class."""
    write_folder(tmp_path / "Training", {"cat": 2, "dog": 2})
    with pytest.raises(DataError, match="class folder 'Training' holds no images"):
        open_dataset(str(tmp_path))


def test_folder_without_class_folders(tmp_path):
    noise_image(0).save(tmp_path / "lonely.png")
    with fails(DataError, tmp_path, "holds no class folders; expected images in <class>/<name>.jpg inside it"):
        open_dataset(str(tmp_path))


def test_undecodable_file_names_become_text(tmp_path):
    root = write_folder(tmp_path, {"cat": 3, "dog": 3})
    content = (root / "cat" / "000.png").read_bytes()
    strange = os.fsencode(root) + b"/cat/caf\xe9.png"
    try:
        os.rename(root / "cat" / "000.png", strange)  # noqa: PTH104 (pathlib takes no bytes)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    dataset = open_dataset(str(root))
    assert "cat/caf\\udce9.png" in dataset.names
    assert dataset.read(list(dataset.names).index("cat/caf\\udce9.png")) == content


# Data specs


SUPPORTED = (
    "supported are a folder of class folders, a .csv or .parquet manifest, an .npz of images and labels, "
    "a .tar with members <class>/<name>.jpg, and sklearn:digits"
)


@pytest.mark.parametrize(
    "spec", ["torchvision:CIFAR10?root=x", "hf:imagefolder", "sklearn:iris", "s3://bucket/x"]
)
def test_unknown_scheme(spec):
    with fails(DataSpecError, spec, f"is no supported kind of data; {SUPPORTED}"):
        open_dataset(spec)


def test_missing_path(tmp_path):
    spec = str(tmp_path / "flowres")
    with fails(DataSpecError, spec, f"no such file or folder; {SUPPORTED}"):
        open_dataset(spec)


def test_empty_spec():
    with fails(DataSpecError, "the empty data spec", f"is no supported kind of data; {SUPPORTED}"):
        open_dataset("")


def test_file_of_unknown_kind(tmp_path):
    path = tmp_path / "data.json"
    path.write_text("{}")
    with fails(DataSpecError, path, f"is no supported kind of data; {SUPPORTED}"):
        open_dataset(str(path))


def test_compressed_tar(tmp_path):
    path = tmp_path / "data.tar.gz"
    path.write_bytes(b"")
    problem = "a compressed tar cannot be read in place; decompress it to a .tar first"
    with fails(DataSpecError, path, problem):
        open_dataset(str(path))


def test_path_the_system_refuses():
    spec = "x" * 5000
    with pytest.raises(DataError, match=r"cannot be read: .*too long"):
        open_dataset(spec)


# Manifests


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifest_lists_what_it_names(tmp_path, suffix):
    write_folder(tmp_path / "files", {"x": 3})
    absolute = str(tmp_path / "files/x/001.png")
    rows = [("files/x/002.png", "dog"), ("./files/x/000.png", "cat"), (absolute, "cat")]
    dataset = open_dataset(write_manifest(tmp_path / f"list{suffix}", rows))
    assert dataset.class_names == ("cat", "dog")
    names = [absolute, "files/x/000.png", "files/x/002.png"]
    assert list(dataset.names) == names
    assert dataset.labels.tolist() == [0, 0, 1]
    assert [dataset.read(i) for i in range(3)] == [(tmp_path / name).read_bytes() for name in names]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifest_split_is_chosen(tmp_path, suffix):
    write_folder(tmp_path, {"x": 2})
    rows = [("x/000.png", "cat", "Train"), ("x/001.png", "dog", "test"), ("gone.png", "dog", "test")]
    spec = write_manifest(tmp_path / f"list{suffix}", rows, ("path", "label", "split"))
    assert list(open_dataset(spec).names) == ["x/000.png"]
    with fails(DataError, spec, "has no split 'val'; its splits are test, train"):
        open_dataset(spec, split="val")


def test_csv_manifest_as_spreadsheets_write_it(tmp_path):
    """A byte-order mark, CRLF, blank lines, spaces after commas, a quoted comma and an extra column."""
    noise_image(0).save(tmp_path / "a, b.png")
    path = tmp_path / "list.csv"
    path.write_bytes(b'\xef\xbb\xbfid, label, path\r\n1, cat, "a, b.png"\r\n\r\n')
    assert list(open_dataset(str(path)).names) == ["a, b.png"]


def test_parquet_manifest_with_number_labels(tmp_path):
    write_folder(tmp_path, {"x": 2})
    spec = write_manifest(tmp_path / "list.parquet", [("x/000.png", 7), ("x/001.png", 12)])
    assert open_dataset(spec).class_names == ("12", "7")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "column 'path' is missing; expected path,label and optionally split, got none"),
        ("path,class\n", "column 'label' is missing; expected path,label and optionally split, got path,class"),
        ("path,label\n", "lists no samples; expected a row with path and label for each"),
        ("path,label\nx/000.png,cat\na.png,cat\n", "line 3: file 'a.png' does not exist beside the manifest"),
        ("path,label\nx/000.png/y,cat\n", "line 2: file 'x/000.png/y' does not exist beside the manifest"),
        ("path,label\nx,cat\n", "line 2: 'x' is not a file"),
        ("path,label\nx/000.png,\n", "line 2: label is empty"),
        ("path,label\nx/000.png\n", "line 2: label is empty"),
        ("path,label\n ,cat\n", "line 2: path is empty"),
        ("path,label,split\nx/000.png,cat,\n", "line 2: split is empty"),
        ("path,label\nx/000.png,cat,dog\n", "line 2: more fields than columns; put quotes around commas"),
        (
            "path,label\nx/000.png,cat|dog\n",
            "line 2: label 'cat|dog' names several classes; multi-label data is not supported yet",
        ),
        (
            "path,label\nx/000.png,cat\n./x/000.png,dog\n",
            "line 3: path './x/000.png' is listed before; list each file once",
        ),
    ],
    ids=lambda value: value if " " in value else None,
)
def test_csv_manifest_refuses(tmp_path, text, problem):
    write_folder(tmp_path, {"x": 1})
    path = tmp_path / "list.csv"
    path.write_text(text)
    with fails(DataError, path, problem):
        open_dataset(str(path))


def test_parquet_manifest_names_the_row(tmp_path):
    spec = write_manifest(tmp_path / "list.parquet", [("a.png", "cat"), ("b.png", None)])
    with fails(DataError, spec, "row 2: label is empty"):
        open_dataset(spec)


def test_null_character_in_a_manifest_path(tmp_path):
    spec = write_manifest(tmp_path / "list.parquet", [("a\0b.png", "cat")])
    with fails(DataError, spec, "row 1: file 'a\\x00b.png' does not exist beside the manifest"):
        open_dataset(spec)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("list.csv", "is not a CSV file in UTF-8: "), ("list.parquet", "is not a Parquet file: ")],
)
def test_manifest_of_noise(tmp_path, name, problem):
    path = tmp_path / name
    path.write_bytes(b"path,label\n\xff\xfe\x80\n")
    with pytest.raises(DataError, match=re.escape(f"{path}: {problem}")):
        open_dataset(str(path))
