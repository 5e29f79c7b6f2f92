"""Manifests: what is listed, and what is refused."""

import re

import numpy as np
import pytest
from builders_datasets import fails, listed, noise_image, write_folder, write_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.data.specs import open_dataset
from indexer.errors import DataError

ELSEWHERE = (
    "beside the manifest; image_root= and image_suffix= say where images are and how their names end, "
    "skip_bad=True leaves such rows out"
)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifest_lists_what_it_names(tmp_path, suffix):
    write_folder(tmp_path / "files", {"x": 3})
    absolute = str(tmp_path / "files/x/001.png")
    rows = [("files/x/002.png", "dog"), ("./files/x/000.png", "cat"), (absolute, "cat")]
    dataset = listed(write_manifest(tmp_path / f"list{suffix}", rows))
    assert dataset.class_names == ("cat", "dog")
    names = [absolute, "files/x/000.png", "files/x/002.png"]
    assert dataset.names == names
    assert dataset.labels.tolist() == [0, 0, 1]
    assert [dataset.read(i) for i in range(3)] == [(tmp_path / name).read_bytes() for name in names]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifest_split_is_chosen(tmp_path, suffix):
    write_folder(tmp_path, {"x": 2})
    rows = [("x/000.png", "cat", "Train"), ("x/001.png", "dog", "test"), ("gone.png", "dog", "test")]
    spec = write_manifest(tmp_path / f"list{suffix}", rows, ("path", "label", "split"))
    assert listed(spec).names == ["x/000.png"]
    with fails(DataError, spec, "has no split 'val'; its splits are test, train"):
        open_dataset(spec, split="val")


def test_csv_manifest_as_spreadsheets_write_it(tmp_path):
    """A byte-order mark, CRLF, blank lines, spaces after commas, a quoted comma and an extra column."""
    noise_image(0).save(tmp_path / "a, b.png")
    path = tmp_path / "list.csv"
    path.write_bytes(b'\xef\xbb\xbfid, label, path\r\n1, cat, "a, b.png"\r\n\r\n')
    assert listed(path).names == ["a, b.png"]


def test_parquet_manifest_with_number_labels(tmp_path):
    write_folder(tmp_path, {"x": 2})
    spec = write_manifest(tmp_path / "list.parquet", [("x/000.png", 7), ("x/001.png", 12)])
    assert open_dataset(spec).class_names == ("12", "7")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty; expected a header such as path,label and a row for each sample"),
        (
            "path,width,height\n",
            "the labels could be in the columns width, height; say which by label_col='width'",
        ),
        (
            "path,label,target\n",
            (
                "has both a column 'label' and a column 'target'; say which is the task by label_col='label' "
                "or target_col='target'"
            ),
        ),
        ("path,label\n", "lists no samples; expected a row with path and label for each"),
        ("path,label\nx/000.png,cat\na.png,cat\n", f"line 3: file 'a.png' does not exist {ELSEWHERE}"),
        ("path,label\nx/000.png/y,cat\n", f"line 2: file 'x/000.png/y' does not exist {ELSEWHERE}"),
        ("path,label\nx,cat\n", f"line 2: 'x' is not a file; {ELSEWHERE.partition('; ')[2]}"),
        ("path,label\nx/000.png,\n", "no row is left: 1 row without a label (on line 2)"),
        ("path,label\nx/000.png\n", "no row is left: 1 row without a label (on line 2)"),
        ("path,label\nx/000.png,nan\n", "no row is left: 1 row without a label (on line 2)"),
        ("path,label\n ,cat\n", "no row is left: 1 row without an image (on line 2)"),
        ("path,label,split\nx/000.png,cat,\n", "line 2: split is empty"),
        ("path,label\nx/000.png,cat,dog\n", "line 2: more fields than columns; put quotes around commas"),
        (
            "path,label\nx/000.png,cat||dog\n",
            "line 2: label 'cat||dog' must be names between bars, each of them once",
        ),
        (
            "path,label\nx/000.png,cat|dog | cat\n",
            "line 2: label 'cat|dog | cat' must be names between bars, each of them once",
        ),
        ("path,label\nx/000.png,|\n", "line 2: label '|' must be names between bars, each of them once"),
        ("path,target\nx/000.png,\n", "no row is left: 1 row without a label (on line 2)"),
        ("path,target\nx/000.png,nan\n", "no row is left: 1 row without a label (on line 2)"),
        (
            "path,target\nx/000.png,1|two\n",
            "line 2: target '1|two' must be a number, or several between bars such as 1.5|2",
        ),
        (
            "path,target\nx/000.png,1|\n",
            "line 2: target '1|' must be a number, or several between bars such as 1.5|2",
        ),
        ("path,target\nx/000.png,1|-inf\n", "line 2: target '1|-inf' must be finite and fit 32-bit floats"),
        ("path,target\nx/000.png,1e39\n", "line 2: target '1e39' must be finite and fit 32-bit floats"),
        (
            "path,target\nx/000.png,1|2\nx/001.png,3\n",
            "line 3: target '3' holds 1 numbers where line 2 holds 2; give every sample the same targets",
        ),
        (
            "path,label\nx/000.png,cat\n./x/000.png,dog\n",
            "line 3: path './x/000.png' is listed before; list each file once",
        ),
    ],
    ids=lambda value: value if " " in value else None,
)
def test_csv_manifest_refuses(tmp_path, text, problem):
    write_folder(tmp_path, {"x": 2})
    path = tmp_path / "list.csv"
    path.write_text(text)
    with fails(DataError, path, problem):
        open_dataset(str(path))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifest_with_bars_is_multi_label(tmp_path, suffix):
    write_folder(tmp_path, {"x": 4})
    rows = [
        ("x/000.png", "red| round"),
        ("x/001.png", ""),
        ("x/002.png", "blue"),
        ("x/003.png", "round|blue|red"),
    ]
    found = listed(write_manifest(tmp_path / f"list{suffix}", rows))
    assert (found.kind, found.class_names) == ("multi_label", ("blue", "red", "round"))
    assert [entry.labels for entry in found.entries] == [(1, 2), (), (0,), (0, 1, 2)]
    assert found.labels.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1]]
    assert found.labels.dtype == np.uint8


def test_manifest_is_multi_label_in_all_of_its_splits(tmp_path):
    """A bar anywhere says what the column is, also in a split that happens to have none."""
    write_folder(tmp_path, {"x": 3})
    rows = [("x/000.png", "red", "train"), ("x/001.png", "", "train"), ("x/002.png", "red|blue", "test")]
    spec = write_manifest(tmp_path / "list.csv", rows, ("path", "label", "split"))
    train, test = listed(spec), listed(spec, split="test")
    assert (train.kind, train.class_names, train.labels.tolist()) == ("multi_label", ("red",), [[1], [0]])
    assert (test.kind, test.class_names, test.labels.tolist()) == ("multi_label", ("blue", "red"), [[1, 1]])


def test_an_empty_label_is_none_only_beside_several(tmp_path):
    write_folder(tmp_path, {"x": 2})
    spec = write_manifest(tmp_path / "list.csv", [("x/000.png", ""), ("x/001.png", "red|blue")])
    assert listed(spec).labels.tolist() == [[0, 0], [1, 1]]
    spec = write_manifest(tmp_path / "list.csv", [("x/000.png", ""), ("x/001.png", "red")])
    one = open_dataset(spec)
    assert (one.kind, one.class_names) == ("single_label", ("red",))
    assert one.passed_over == {"row without a label (on line 2)": 1}


label_sets = st.lists(st.sets(st.sampled_from("abcde")), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(sets=label_sets, suffix=st.sampled_from([".csv", ".parquet"]))
def test_multi_label_manifest_gives_back_what_was_written(tmp_path_factory, sets, suffix):
    folder = tmp_path_factory.mktemp("many")
    sets.append({"a", "b"})
    for number in range(len(sets)):
        (folder / f"{number}.png").write_bytes(b"")
    rows = [(f"{number}.png", " | ".join(sorted(names))) for number, names in enumerate(sets)]
    found = listed(write_manifest(folder / f"list{suffix}", rows))
    assert [{found.class_names[label] for label in entry.labels} for entry in found.entries] == sets


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifest_with_targets_is_a_regression(tmp_path, suffix):
    write_folder(tmp_path, {"x": 3})
    one = listed(
        write_manifest(
            tmp_path / f"one{suffix}",
            [("x/002.png", 2.5), ("x/000.png", -1.0), ("x/001.png", 3.0)],
            ("path", "target"),
        )
    )
    assert (one.kind, one.class_names) == ("regression", ("target",))
    assert one.labels.tolist() == [[-1.0], [3.0], [2.5]]
    assert one.labels.dtype == np.float64
    rows = [(f"x/{number:03d}.png", f"{number} | {number}.5") for number in range(3)]
    two = listed(write_manifest(tmp_path / f"two{suffix}", rows, ("path", "target")))
    assert two.class_names == ("target_0", "target_1")
    assert two.labels.tolist() == [[0, 0.5], [1, 1.5], [2, 2.5]]


def test_parquet_manifest_names_the_row(tmp_path):
    spec = write_manifest(tmp_path / "list.parquet", [("a.png", "cat"), ("b.png", None)])
    with fails(DataError, spec, f"row 1: file 'a.png' does not exist {ELSEWHERE}"):
        open_dataset(spec)
    noise_image(0).save(tmp_path / "a.png")
    assert open_dataset(spec).passed_over == {"row without a label (on row 2)": 1}


def test_null_character_in_a_manifest_path(tmp_path):
    spec = write_manifest(tmp_path / "list.parquet", [("a\0b.png", "cat")])
    with fails(DataError, spec, f"row 1: file 'a\\x00b.png' does not exist {ELSEWHERE}"):
        open_dataset(spec)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("list.csv", "is not a text file in UTF-8: line 2 has the byte 0xff; name its encoding by encoding="),
        ("list.parquet", "is not a Parquet file: "),
    ],
)
def test_manifest_of_noise(tmp_path, name, problem):
    path = tmp_path / name
    path.write_bytes(b"path,label\n\xff\xfe\x81\n")
    with pytest.raises(DataError, match=re.escape(f"{path}: {problem}")):
        open_dataset(str(path))
