"""Columns of tables that people have: taken by names and values, or refused with the option that helps."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders_datasets import encoded, fails, listed, noise_image, write_folder

from indexer.data.specs import open_dataset
from indexer.errors import DataError

IMAGES = [f"x/{number:03d}.png" for number in range(6)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of six images in ``x``."""
    return write_folder(tmp_path, {"x": 6})


def write(place: Path, name: str, text: str, encoding: str = "utf-8") -> str:
    (place / name).write_text(text, encoding=encoding)
    return str(place / name)


def rows(header: str, *cells: str, sep: str = ",") -> str:
    """A table of the six images, each with cells in turn."""
    lines = [f"{image}{sep}{cells[number % len(cells)]}" for number, image in enumerate(IMAGES)]
    return "\n".join([header, *lines]) + "\n"


HEADERS = [
    "path,label",
    "image_id,breed",
    "filename,class",
    "file_name,Category",
    "Path,ClassId",
    "img,diagnosis",
    "id,target_class_of_mine",
    "Image Index,sentiment",
    "FILEPATHS,labels",
]


@pytest.mark.parametrize("header", HEADERS)
def test_columns_are_taken_by_their_names(place: Path, header: str):
    dataset = open_dataset(write(place, "a.csv", rows(header, "cat", "dog")))
    assert (dataset.kind, dataset.class_names) == ("single_label", ("cat", "dog"))
    image, label = header.split(",")
    said = (f"column {image!r} as the images and {label!r} as the labels",)
    assert dataset.taken == (() if header == "path,label" else said)


def test_other_columns_are_said_to_be_left(place: Path):
    text = rows("id,age,label,usage,w,h,d", "30,cat,Training,1,2,3", "40,dog,Training,1,2,3")
    dataset = open_dataset(write(place, "a.csv", text), split="training")
    assert dataset.taken == (
        (
            "column 'id' as the images, 'label' as the labels and 'usage' as the splits; not read: "
            "'age', 'w', 'h', 'd'"
        ),
    )


DOUBTS = {
    "image,file,label": ("the samples could be in the columns image, file; say which by image_col='image'"),
    "file,class,category": "the labels could be in the columns class, category; say which by label_col='class'",
    "file,age,sex": "the labels could be in the columns age, sex; say which by label_col='age'",
    "a,b,label": (
        "column 'path' is missing, or 'text' of texts; name it by image_col= or text_col=, of a, b, label"
    ),
    "path,label,label": "has 2 columns 'label'; keep the one that is meant",
    "file,review,label": (
        "has both a column 'file' and a column 'review'; say what the samples are by image_col='file' or "
        "text_col='review'"
    ),
    "x/000.png,cat,1": (
        "its first row holds 'x/000.png' and no names of columns; put a header above it, such as path,label"
    ),
}


@pytest.mark.parametrize("header", DOUBTS)
def test_a_doubtful_header_is_refused_with_the_option(place: Path, header: str):
    cells = "u,v"
    spec = write(
        place,
        "a.csv",
        rows(header, cells).replace(".png", ".p") if header == "a,b,label" else rows(header, cells),
    )
    with fails(DataError, spec, DOUBTS[header]):
        open_dataset(spec)


def test_named_columns_settle_a_doubt(place: Path):
    spec = write(place, "a.csv", rows("file,image,class,category,fold", "u,cat,wild,test", "v,dog,tame,train"))
    dataset = open_dataset(spec, image_col="FILE", label_col="category", split_col="fold", split="train")
    assert dataset.class_names == ("tame",)
    assert dataset.taken[-1] == "the 3 rows of split 'train', and not 3 of test"
    with fails(
        DataError,
        spec,
        "label_col='kind': there is no such column; its columns are file, image, class, category, fold",
    ):
        open_dataset(spec, image_col="file", label_col="kind")


def test_one_hot_and_multi_hot_columns(place: Path):
    """Every row of one 1 makes classes; else there are several labels. They are never numbers."""
    one = listed(write(place, "_classes.csv", rows("filename, cat, dog, owl", "1,0,0", "0,0,1")))
    assert (one.kind, one.class_names, one.labels.tolist()) == ("single_label", ("cat", "owl"), [0, 1] * 3)
    assert "as its class (one-hot)" in one.dataset.taken[-1]
    several = listed(write(place, "b.csv", rows("filename,cat,dog", "1,1", "0,1", "0,0")))
    assert (several.kind, several.class_names) == ("multi_label", ("cat", "dog"))
    assert several.labels.tolist() == [[1, 1], [0, 1], [0, 0]] * 2
    beside = write(place, "c.csv", rows("id,age,sex,cat,dog", "31,1,1,0", "42,0,0,1"))
    with fails(
        DataError, beside, "the labels could be in the columns age, sex, cat, dog; say which by label_col='age'"
    ):
        open_dataset(beside)
    assert open_dataset(beside, label_col="cat, dog").class_names == ("cat", "dog")
    bad = write(place, "d.csv", rows("id,cat,dog", "1,0", "0,1", "0,7"))
    with fails(DataError, bad, "line 4: dog holds '7', and must be 0 or 1 as one of several columns of labels; "
               "name those that are meant by label_col='A,B,C'"):  # fmt: skip
        open_dataset(bad, label_col="cat,dog")


def test_numbers_are_classes_targets_or_a_doubt(place: Path):
    measured = write(place, "a.csv", rows("path,label", "0.5", "1.25"))
    with fails(DataError, measured, "label holds numbers such as 0.5: say target_col='label' if they were "
               "measured, label_col='label' if each is a class"):  # fmt: skip
        open_dataset(measured)
    assert open_dataset(measured, target_col="label").kind == "regression"
    assert open_dataset(measured, label_col="label").class_names == ("0.5", "1.25")
    whole = open_dataset(write(place, "b.csv", rows("id,target", "0", "1")))
    assert whole.kind == "regression"
    assert whole.taken[-1] == (
        "target, whole numbers of 2 values, as measured numbers; if they are classes, say label_col='target'"
    )
    words = open_dataset(write(place, "c.csv", rows("id,target", "cat", "dog")))
    assert (words.kind, words.class_names) == ("single_label", ("cat", "dog"))
    mixed = write(place, "d.csv", rows("id,target", "1.5", "dog"))
    with pytest.raises(DataError, match="line 3: target 'dog' must be a number"):
        open_dataset(mixed)
    two = listed(write(place, "e.csv", rows("id,x,y", "1.5,2", "3,4")), target_col="x,y")
    assert (two.kind, two.class_names, two.labels.tolist()[:2]) == (
        "regression",
        ("x", "y"),
        [[1.5, 2], [3, 4]],
    )


def test_a_column_that_comes_late_in_json_lines_counts(place: Path):
    lines = [{"path": image, "label": "cat"} for image in IMAGES]
    lines[3]["split"] = "test"
    spec = write(place, "a.jsonl", "\n".join(map(json.dumps, lines)))
    with fails(DataError, spec, "line 1: split is empty"):
        open_dataset(spec)
    lists = [
        {"file_name": image, "labels": labels}
        for image, labels in zip(IMAGES, [["a"], ["a", "b"], []] * 2, strict=True)
    ]
    found = listed(write(place, "b.jsonl", "\n".join(map(json.dumps, lists))))
    assert (found.kind, found.labels.tolist()) == ("multi_label", [[1, 0], [1, 1], [0, 0]] * 2)
    hot = [
        {"file_name": image, "labels": bits}
        for image, bits in zip(IMAGES, [[1, 0], [1, 1], [0, 0]] * 2, strict=True)
    ]
    found = listed(write(place, "c.jsonl", "\n".join(map(json.dumps, hot))))
    assert (found.kind, found.class_names, found.labels.tolist()) == (
        "multi_label",
        ("label_0", "label_1"),
        [[1, 0], [1, 1], [0, 0]] * 2,
    )


def test_missing_labels_are_counted_and_odd_ones_said(place: Path):
    text = rows("path,label", "cat", "nan", "Cat ", "None", "", "cat")
    dataset = open_dataset(write(place, "a.csv", text))
    assert dataset.class_names == ("Cat", "None", "cat")
    assert dataset.passed_over == {"rows without a label (the first on line 3)": 2}
    assert dataset.taken == (
        "labels that differ by case or blanks only as classes of their own: 'Cat' and 'cat'",
        "'None' as the name of a class; leave the cell empty where there is none",
    )
    accents = open_dataset(write(place, "b.csv", rows("path,label", "e\u0301", "\u00e9", "x")))
    assert accents.class_names == ("x", "\u00e9")


def test_paths_of_another_machine_and_ids_find_their_files(tmp_path: Path):
    write_folder(tmp_path / "train", {"cat": 2, "dog": 2})
    windows = "C:\\Users\\me\\data\\train\\{}\\{:03d}.png"
    paths = [(c, n) for c in ("cat", "dog") for n in range(2)]
    text = "path,label\n" + "".join(f"{windows.format(c, n)},{c}\n" for c, n in paths)
    found = listed(write(tmp_path, "a.csv", text))
    assert found.names == [f"train/{c}/{n:03d}.png" for c, n in paths]
    assert found.dataset.taken == (
        (
            "4 names as the only file that ends alike, such as 'C:\\\\Users\\\\me\\\\data\\\\train"
            "\\\\cat\\\\000.png' for 'train/cat/000.png'"
        ),
    )
    ids = write(tmp_path, "ids.csv", "id,breed\n000,cat\n001,dog\n")
    with fails(
        DataError,
        ids,
        "line 2: '000' could be train/cat/000.png or train/dog/000.png; say which folder by image_root=",
    ):
        open_dataset(ids)
    assert listed(ids, image_root="train/cat").names == ["000.png", "001.png"]
    assert listed(ids, image_root="train/cat", image_suffix="png").names == ["000.png", "001.png"]
    with fails(DataError, ids, "image_root='gone': there is no such folder; it is relative to that file"):
        open_dataset(ids, image_root="gone")


def test_a_missing_file_is_not_taken_from_another_folder(tmp_path: Path):
    """The file of a row that is gone must not be replaced by one of its name elsewhere."""
    write_folder(tmp_path / "data", {"train": 2})
    write_folder(tmp_path / "data/test", {".": 3}, first_seed=50)
    for order in ((0, 1, 2), (2, 1, 0)):
        for root in ("data", "/home/me/data"):
            lines = "".join(f"{root}/train/{n:03d}.png,{'ab'[n % 2]}\n" for n in order)
            spec = write(tmp_path, "a.csv", f"path,label\n{lines}")
            with pytest.raises(
                DataError,
                match=r"(does not exist beside the manifest|that row may name a file that is missing)",
            ):
                open_dataset(spec)
    dataset = open_dataset(
        write(tmp_path, "b.csv", "path,label\n" + "".join(f"data/train/{n:03d}.png,a\n" for n in range(3))),
        skip_bad=True,
    )
    assert dataset.passed_over == {"row missing (on line 4)": 1}


LATIN = "text as Windows-1252 (Latin-1), since it is no UTF-8 (line 2 has the byte 0xe9); else say encoding="
FORMS = {
    "tabs.tsv": ("\t", "utf-8", ()),
    "semicolons.csv": (";", "utf-8", ("';' as what stands between cells",)),
    "mark.csv": (",", "utf-8-sig", ()),
    "utf16.csv": (",", "utf-16", ()),
    "bare16.csv": (",", "utf-16-le", ("text as UTF-16-LE, since every other byte is 0",)),
    "latin.csv": (",", "latin-1", (LATIN,)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_delimiters_and_encodings(place: Path, name: str):
    sep, encoding, taken = FORMS[name]
    dataset = open_dataset(write(place, name, rows(f"path{sep}label", "caf\u00e9", "the", sep=sep), encoding))
    assert (dataset.class_names, dataset.taken) == (("caf\u00e9", "the"), taken)


def test_delimiter_and_encoding_are_asked_for_where_they_are_unclear(place: Path):
    spec = write(place, "a.csv", "path,x;label\n" + "x/000.png,1;cat\nx/001.png,2;cat\n")
    with fails(DataError, spec, "line 1 can be split at ',' and ';'; name the one that is meant by delimiter="):
        open_dataset(spec)
    for asked, problem in (
        ({"delimiter": "ab"}, "delimiter= takes one character or tab, got 'ab'"),
        (
            {"encoding": "klingon"},
            "no encoding is named 'klingon'; encoding= takes 'utf-8', 'utf-16', 'latin-1' and the like",
        ),
    ):
        with fails(DataError, spec, problem):
            open_dataset(spec, **asked)
    tabs = write(place, "b.csv", rows("path\tlabel", "cat", "dog", sep="\t"))
    assert open_dataset(tabs, delimiter="tab", encoding="ascii").class_names == ("cat", "dog")


def test_quotes_that_are_not_closed_swallow_no_row(place: Path):
    good = "".join(f"good {number},pos\nbad {number},neg\n" for number in range(5))
    for stray, problem in (
        ('"The best,pos\nsecond,neg\n', "line 12: a quote is opened and never closed; close it, or write"),
        (
            '"The best,pos\nsecond,neg\n"fourth" row,neg\n',
            "line 12: a quote is closed within a cell, or one before",
        ),
        (
            '"The best,pos\nsecond,neg\nthird",pos\n',
            "line 14: a cell of several lines holds what looks like rows",
        ),
    ):
        with pytest.raises(DataError, match=f"^{place}/t.csv: {problem}"):
            open_dataset(write(place, "t.csv", f"text,label\n{good}{stray}"))
    with pytest.raises(
        DataError, match="line 3: a cell holds several lines; a quote before it may not be closed"
    ):
        open_dataset(write(place, "i.csv", 'path,label\nx/000.png,"cat\nx/001.png,dog"\n'))
    honest = f'text,label\n{good}"One, two\nthree",pos\n"He said ""no"",\nand left",neg\n'
    assert len(listed(write(place, "h.csv", honest)).names) == 12


def test_images_in_parquet(tmp_path: Path):
    noise_image(9).save(tmp_path / "own.png")
    images = [encoded(noise_image(seed), "PNG") for seed in range(40)]
    cells = [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)]
    cells[3], cells[7] = {"bytes": None, "path": "own.png"}, None
    table = {"image": cells, "label": [number % 2 for number in range(40)], "note": ["x"] * 40}
    pq.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=9)
    found = listed(tmp_path / "a.parquet")
    assert (found.class_names, len(found.names)) == (("0", "1"), 39)
    assert found.dataset.passed_over == {"row without an image (on row 8)": 1}
    assert found.read(3) == (tmp_path / "own.png").read_bytes()
    order = np.random.default_rng(0).permutation(39)
    assert all(found.read(at) == images[int(found.names[at])] for at in order if found.names[at] != "3")
    pq.write_table(pa.table({"img": images, "y": list("ab" * 20)}), tmp_path / "b.parquet")
    assert listed(tmp_path / "b.parquet").read(39) == images[39]


def test_excel_needs_its_library(place: Path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("id", "breed"), *zip(IMAGES, ["cat", "dog"] * 3, strict=True), (None, None)]:
        book.active.append(row)
    book.create_sheet("notes")
    book.save(place / "a.xlsx")
    dataset = open_dataset(str(place / "a.xlsx"))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.taken[0] == "the first of its sheets, 'Sheet'"
