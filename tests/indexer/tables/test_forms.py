"""Every row of the table of forms in docs/data.md, built of small images and read."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders_datasets import encoded, noise_image, write_folder
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
}
REFUSED = {"two labels": "--label-col class", "numbers called label": "--target-col label"}


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


def test_the_table_of_forms_is_that_of_the_page():
    page = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")
    part = page.partition("### Forms of tables and arrays")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| ([^|]+?) \|", part, re.MULTILINE)) - {"Form", "---"} == set(FORMS)
