"""Shards: several tars as one dataset, and the layout of webdataset."""

import gc
import json
import re
from pathlib import Path

import pytest
from builders_datasets import encoded, fails, listed, noise_image, write_tar

from indexer.data.samples import load_sample
from indexer.data.specs import open_dataset
from indexer.data.tars import expand_braces
from indexer.errors import DataError
from indexer.records import InputTransform

EXPECTED = "expected text or a whole number in KEY.cls, or in KEY.json under label or cls"


def image(seed: int) -> bytes:
    return encoded(noise_image(seed), "PNG")


def write_shards(folder: Path, count: int = 3, of_each: int = 4, *, suffix: str = "cls") -> str:
    """Shards of images with classes in files of their own."""
    for shard in range(count):
        members = {}
        for number in range(of_each):
            key = f"{shard:02d}{number:04d}"
            label = str(number % 2)
            members[f"{key}.png"] = image(100 * shard + number)
            members[f"{key}.{suffix}"] = (label if suffix == "cls" else json.dumps({"label": label})).encode()
        write_tar(folder / f"part-{shard:03d}.tar", members)
    return f"{folder}/part-{{000..{count - 1:03d}}}.tar"


@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_shards_are_one_dataset(tmp_path: Path, suffix: str):
    spec = write_shards(tmp_path, suffix=suffix)
    found = listed(spec)
    assert (found.class_names, found.kind, len(found.names)) == (("0", "1"), "single_label", 12)
    assert found.names[5] == "part-001.tar/010001"
    assert found.labels.tolist() == [0, 1] * 6
    assert [found.read(row) for row in (0, 5, 11)] == [image(0), image(101), image(203)]
    sample = load_sample(spec, InputTransform(8, 8), max_samples=8, seed=0)
    assert sample.inputs.shape == (8, 3, 8, 8)
    assert sample.labels.tolist().count(0) == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_webdataset_library_reads_the_same(tmp_path: Path):
    webdataset = pytest.importorskip("webdataset")
    spec = write_shards(tmp_path)
    theirs = [
        (sample["png"], sample["cls"].decode())
        for sample in webdataset.WebDataset(spec, shardshuffle=False, empty_check=False)
    ]
    gc.collect()
    found = listed(spec)
    ours = [(found.read(row), found.class_names[label]) for row, label in enumerate(found.labels)]
    assert ours == theirs


def test_one_shard_alone_and_class_folders_in_several(tmp_path: Path):
    write_shards(tmp_path, count=1)
    assert listed(tmp_path / "part-000.tar").names[:2] == ["000000", "000001"]
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", {"cat/1.png": name.encode(), f"dog/{name}.png": b"2"})
    found = listed(f"{tmp_path}/{{a,b}}.tar")
    assert found.names == ["cat/a.tar:1.png", "cat/b.tar:1.png", "dog/a.tar:a.png", "dog/b.tar:b.png"]
    assert found.read(1) == b"b"


def test_splits_of_class_folders_hold_over_all_tars(tmp_path: Path):
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", {"train/cat/1.png": b"1", "test/dog/2.png": b"2"})
    spec = f"{tmp_path}/{{a,b}}.tar"
    assert listed(spec, split="test").names == ["dog/a.tar:2.png", "dog/b.tar:2.png"]


def test_sidecars_in_class_folders_are_passed_over(tmp_path: Path):
    path = write_tar(
        tmp_path / "a.tar",
        {"cat/1.png": b"1", "cat/2.png": b"3", "cat/1.json": b"{}", "dog/2.png": b"2", "dog/3.png": b"4"},
    )
    assert listed(path).class_names == ("cat", "dog")


def test_texts_and_several_labels(tmp_path: Path):
    members = {"a.txt": b"one", "a.json": b'{"label": ["x", "y"]}', "b.txt": b"two", "b.json": b'{"cls": 7}'}
    found = listed(write_tar(tmp_path / "a.tar", members))
    assert (found.dataset.content, found.kind, found.class_names) == ("texts", "multi_label", ("7", "x", "y"))
    assert found.labels.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert found.read(1) == b"two"


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"a.jpg": b"", "b.cls": b"1"}, "sample a has neither a.cls nor a.json with its class"),
        ({"a.jpg": b"", "a.cls": b" "}, f"the class of sample a is ''; {EXPECTED}"),
        ({"a.jpg": b"", "a.json": b'{"caption": "x"}'}, f"the class of sample a is None; {EXPECTED}"),
        (
            {"a.jpg": b"", "a.cls": b"1" * 70_000},
            "the class of sample a has 70000 bytes; at most 65536 are read",
        ),
        ({"b.cls": b"1"}, "holds no samples; expected members KEY.jpg or KEY.txt, each with its KEY.cls"),
    ],
)
def test_shard_is_refused(tmp_path: Path, members: dict[str, bytes], problem: str):
    path = write_tar(tmp_path / "a.tar", members)
    with fails(DataError, path, problem):
        open_dataset(str(path))


def test_class_that_is_no_json_is_refused(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"", "a.json": b"{"})
    with pytest.raises(DataError, match=re.escape(f"{path}: the class of sample a cannot be read: ")):
        open_dataset(str(path))


def test_shards_have_no_splits_and_must_all_be_there(tmp_path: Path):
    spec = write_shards(tmp_path)
    with fails(
        DataError, spec, "has no splits, so split 'test' cannot be chosen; name the shards of the split"
    ):
        open_dataset(spec, split="test")
    (tmp_path / "part-001.tar").unlink()
    with fails(DataError, spec, f"shard {tmp_path}/part-001.tar is not there; expected 3 tar files"):
        open_dataset(spec)
    (tmp_path / "part-001.tar").write_bytes(b"no tar" * 100)
    problem = f"{spec}: shard {tmp_path}/part-001.tar is not a complete, uncompressed tar file: "
    with pytest.raises(DataError, match=re.escape(problem)):
        open_dataset(spec)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{x,y}{0..1}.tar", ["x0.tar", "x1.tar", "y0.tar", "y1.tar"]),
    ],
)
def test_braces_stand_for_paths(pattern: str, expected: list[str]):
    assert list(expand_braces(pattern)) == expected


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("{5..1}.tar", "{5..1} is no rising range; expected braces such as {000..009} or {a,b}"),
        ("{x}.tar", "{x} is no rising range; expected braces such as {000..009} or {a,b}"),
        (
            "{0..999999999}.tar",
            "{0..999999999} is no rising range; expected braces such as {000..009} or {a,b}",
        ),
        ("{0..999}{0..999}.tar", "stands for 1000000 files; at most 100000 are read as one dataset"),
    ],
)
def test_braces_that_stand_for_nothing_sensible_are_refused(pattern: str, problem: str):
    with fails(DataError, pattern, problem):
        open_dataset(pattern)
