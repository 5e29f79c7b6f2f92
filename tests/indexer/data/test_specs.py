"""Data specs: which names of datasets are understood."""

import pytest
from builders_datasets import fails, write_folder, write_npz, write_tar

from indexer.data.specs import open_dataset
from indexer.errors import DataError, DataSpecError

SUPPORTED = (
    "supported are a folder of class folders, a .csv, .parquet or .jsonl manifest, an .npz of images and "
    "labels, a .zip, .tar or .tar.gz of folders, tars such as shards-{000..009}.tar, hf-data:NAME and "
    "sklearn:digits"
)


def test_name_of_a_network_is_no_data():
    problem = "names a network, not data; what the library datasets loads is hf-data:imagefolder"
    with fails(DataSpecError, "hf:imagefolder", problem):
        open_dataset("hf:imagefolder")


@pytest.mark.parametrize("spec", ["torchvision:CIFAR10?root=x", "sklearn:iris", "s3://bucket/x"])
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
    path = tmp_path / "data.dat"
    path.write_text("{}")
    with fails(DataSpecError, path, f"is no supported kind of data; {SUPPORTED}"):
        open_dataset(str(path))


def test_compressed_tar(tmp_path):
    path = tmp_path / "data.tar.gz"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is not a complete, uncompressed tar file: empty file"):
        open_dataset(str(path))
    path.write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match="is not a complete compressed tar: Not a gzipped file"):
        open_dataset(str(path))


def test_path_the_system_refuses():
    spec = "x" * 5000
    with pytest.raises(DataError, match=r"cannot be read: .*too long"):
        open_dataset(spec)


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
