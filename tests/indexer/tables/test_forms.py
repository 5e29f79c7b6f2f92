"""Every row of the table of forms in docs/data-tables.md, built of small images and read."""

import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders_datasets import encoded, noise_image, write_folder
from pyarrow.feather import write_feather
from scipy import io

from indexer.data.specs import open_dataset
from indexer.errors import DataError

NAMES = [f"x/{number:03d}.png" for number in range(6)]
CLASSES = ["a", "b"] * 3
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
NUMBERS = np.arange(6) % 2
ONE, SEVERAL, MEASURED = ("single_label", ("a", "b")), "multi_label", "regression"
NUMBERED = ("single_label", ("0", "1"))


def table(header: str, cells: list[str], names: list[str] = NAMES, sep: str = ",") -> str:
    return "\n".join([header, *(f"{name}{sep}{cell}" for name, cell in zip(names, cells, strict=True))])


def text(name: str, content: str, encoding: str = "utf-8") -> Callable[[Path], str]:
    def build(place: Path) -> str:
        (place / name).write_text(content, encoding=encoding)
        return name

    return build


def arrays(**named: np.ndarray) -> Callable[[Path], str]:
    def build(place: Path) -> str:
        np.savez(place / "a.npz", **named)
        return "a.npz"

    return build


def parquet(place: Path) -> str:
    images = [{"bytes": encoded(noise_image(number), "PNG"), "path": None} for number in range(6)]
    pq.write_table(pa.table({"image": images, "label": CLASSES}), place / "a.parquet")
    return "a.parquet"


def excel(place: Path) -> str:
    book = pytest.importorskip("openpyxl").Workbook()
    for row in [("path", "label"), *zip(NAMES, CLASSES, strict=True)]:
        book.active.append(row)
    book.save(place / "a.xlsx")
    return "a.xlsx"


def pair(place: Path) -> str:
    np.save(place / "X.npy", PIXELS)
    np.save(place / "y.npy", NUMBERS)
    return "X.npy"


def matlab(place: Path) -> str:
    io.savemat(place / "a.mat", {"X": np.moveaxis(PIXELS, 0, -1), "y": NUMBERS[:, None]})
    return "a.mat"


def idx(place: Path) -> str:
    for name, values in (("images-idx3", PIXELS[..., 0]), ("labels-idx1", NUMBERS.astype(np.uint8))):
        head = struct.pack(f">xxBB{values.ndim}I", 8, values.ndim, *values.shape)
        (place / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))
    return "train-images-idx3-ubyte.gz"


def hdf5(place: Path) -> str:
    h5py, path = pytest.importorskip("h5py"), place / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:  # as MATLAB 7.3 writes [H, W, C, N]
        file["X"], file["y"] = np.moveaxis(PIXELS, 0, -1).T, NUMBERS[None]
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(head + path.read_bytes()[len(head) :])
    return "a.mat"


def feather(place: Path) -> str:
    images = [{"bytes": encoded(noise_image(number), "PNG"), "path": None} for number in range(6)]
    write_feather(pa.table({"image": images, "label": CLASSES}), str(place / "a.feather"))
    return "a.feather"


def zipped(place: Path) -> str:
    (place / "a.csv.gz").write_bytes(gzip.compress(table("path,label", CLASSES).encode()))
    return "a.csv.gz"


def pixels(number: int, sep: str) -> str:
    return sep.join(map(str, PIXELS[number, ..., 0].ravel()))


EACH = ",".join(f"pixel{number}" for number in range(64))
COCO = json.dumps(
    {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(NAMES)],
        "categories": [{"id": n, "name": "ab"[n]} for n in (0, 1)],
        "annotations": [{"image_id": n, "category_id": n % 2} for n in range(6)],
    }
)
BITS = ["1,0", "1,1", "0,1", "0,0", "1,1", "0,0"]
LISTS = "\n".join(
    json.dumps({"file_name": name, "labels": ["a", "b"][: n % 3]}) for n, name in enumerate(NAMES)
)
WINDOWS = [f"C:\\data\\x\\{number:03d}.png" for number in range(6)]
FORMS: dict[str, tuple[Callable[[Path], str], object, dict[str, str]]] = {
    "columns of other names": (text("a.csv", table("image_id,breed", CLASSES)), ONE, {}),
    "two labels": (
        text("a.csv", table("file,class,category", [f"u,{name}" for name in CLASSES])),
        ONE,
        {"label_col": "category"},
    ),
    "one-hot columns": (text("a.csv", table("filename,a,b", ["1,0", "0,1"] * 3)), ONE, {}),
    "multi-hot columns": (text("a.csv", table("filename,a,b", BITS)), SEVERAL, {}),
    "labels between bars": (text("a.csv", table("path,label", ["red|round", "red", ""] * 2)), SEVERAL, {}),
    "a target": (text("a.csv", table("path,target", ["0.5", "1"] * 3)), MEASURED, {}),
    "numbers called label": (
        text("a.csv", table("path,label", ["0.37", "1.5"] * 3)),
        MEASURED,
        {"target_col": "label"},
    ),
    "ids": (text("a.csv", table("id,label", CLASSES, [name[2:5] for name in NAMES])), ONE, {}),
    "paths of another machine": (text("a.csv", table("path,label", CLASSES, WINDOWS)), ONE, {}),
    "TSV": (text("a.tsv", table("path\tlabel", CLASSES, sep="\t")), ONE, {}),
    "semicolons": (text("a.csv", table("path;label", CLASSES, sep=";")), ONE, {}),
    "UTF-16 and Latin-1": (text("a.csv", table("path,label", CLASSES), "utf-16"), ONE, {}),
    "JSON Lines with lists": (text("a.jsonl", LISTS), SEVERAL, {}),
    "Parquet with images": (parquet, ONE, {}),
    "Excel": (excel, ONE, {}),
    "MedMNIST": (
        arrays(train_images=PIXELS, train_labels=NUMBERS[:, None], test_images=PIXELS, test_labels=NUMBERS),
        NUMBERED,
        {},
    ),
    "Keras": (arrays(x_train=PIXELS, y_train=NUMBERS, x_test=PIXELS[:2], y_test=NUMBERS[:2]), NUMBERED, {}),
    "one-hot arrays": (arrays(images=PIXELS, labels=np.eye(2, dtype=np.float32)[NUMBERS]), NUMBERED, {}),
    "float classes": (arrays(images=PIXELS, labels=NUMBERS.astype(float)), NUMBERED, {}),
    "channels first": (arrays(images=np.moveaxis(PIXELS, -1, 1), labels=NUMBERS), NUMBERED, {}),
    "a pair of .npy": (pair, NUMBERED, {}),
    "MATLAB": (matlab, NUMBERED, {}),
    "MATLAB 7.3": (hdf5, NUMBERED, {}),
    "idx of MNIST": (idx, NUMBERED, {}),
    "pixels in a cell": (
        text("a.csv", "\n".join(["emotion,pixels", *(f"{n % 2},{pixels(n, ' ')}" for n in range(6))])),
        NUMBERED,
        {},
    ),
    "a column for each pixel": (
        text("a.csv", "\n".join([f"label,{EACH}", *(f"{n % 2},{pixels(n, ',')}" for n in range(6))])),
        NUMBERED,
        {},
    ),
    "Arrow and Feather": (feather, ONE, {}),
    "compressed by gzip": (zipped, ONE, {}),
    "JSON": (text("a.json", COCO), ONE, {}),
    "a list": (text("a.txt", table("# images", CLASSES, sep=" ")), ONE, {}),
    "-1 and 1": (
        text("a.csv", table("image_id,Bald,Male", ["-1,1", "1,1", "1,-1", "-1,-1", "1,1", "-1,-1"])),
        SEVERAL,
        {},
    ),
}
REFUSED = {"two labels": "label_col='class'", "numbers called label": "target_col='label'"}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_as_the_page_says(tmp_path: Path, form: str):
    build, expected, options = FORMS[form]
    write_folder(tmp_path, {"x": 6})
    spec = str(tmp_path / build(tmp_path))
    if form in REFUSED:
        with pytest.raises(DataError, match=REFUSED[form]):
            open_dataset(spec)
    dataset = open_dataset(spec, **options)
    entries = list(dataset.scan())
    assert expected in (dataset.kind, (dataset.kind, dataset.class_names))
    assert len(entries) == 6
    assert all(len(dataset.read(entry)) for entry in entries)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"emotion,pixels\n1,3 4 x 5\n", "line 2: pixels must be whole numbers from 0 to 255"),
        ("a.csv", b"path,a,b\nx,-1,0\ny,1,1\n", "line 2: a, b hold -1 as well as 0"),
        (
            "a.csv.gz",
            gzip.compress(b"path,label\na,b\n", mtime=0)[:-9],
            "cannot be read: Compressed file ended",
        ),
        ("a.csv.gz", b"path,label\n", "cannot be read: Not a gzipped file"),
        ("a.json", b"{}", "is JSON of no known form; expected a list of objects"),
        ("a.json", b"[1, 2]", "is JSON of no known form"),
        ("a.json", b"[" * 100_000, "is no JSON: maximum recursion"),
        ("a.json", b'{"images": [{"id": 1}], "annotations": [], "categories": []}', "no known form.*KeyError"),
        ("a.txt", b"x/000.png\n", "line 1: expected a path and a label"),
        ("a.arrow", b"ARROW1\0\0" + bytes(50), "is not an Arrow or Feather file"),
        ("a-idx3-ubyte", b"\0\0\x08\x03\0\0", "array 'labels' is missing"),
        (
            "a.tfrecord",
            b"x",
            "is a file of records that only its own library reads; give it in Python as pairs",
        ),
        ("a.pkl", b"x", "is a Python pickle, which could run code and is not read"),
    ],
)
def test_a_form_that_is_none_is_refused_with_the_way_out(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        open_dataset(str(tmp_path / name))


def test_the_table_of_forms_is_that_of_the_page():
    page = (Path(__file__).parents[3] / "docs/data-tables.md").read_text(encoding="utf-8")
    part = page.partition("### Forms of tables and arrays")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| ([^|]+?) \|", part, re.MULTILINE)) - {"Form", "---"} == set(FORMS)
