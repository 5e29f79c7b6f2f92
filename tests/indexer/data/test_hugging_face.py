"""indexer.data.hugging_face: what the library datasets loads, from folders and files on this machine."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from builders_datasets import fails, listed, write_folder
from builders_texts import sentences

from indexer.data.hugging_face import parse_hub_data
from indexer.data.samples import load_sample
from indexer.data.specs import open_dataset
from indexer.errors import DataError, MissingLibraryError
from indexer.networks.load import load_network
from indexer.records import InputTransform

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """The library keeps what it converts; and the hub is out of reach."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def reviews(count: int = 12, **columns: list) -> "datasets.Dataset":
    """Texts with classes."""
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "so", "yes"])}
    given = {"text": sentences(count), "label": [(0, 2)[row % 2] for row in range(count)]}
    table = datasets.Dataset.from_dict(given, features=datasets.Features(features))
    for name, values in columns.items():
        table = table.add_column(name, values)
    return table


def pictures(folder: Path, count: int = 6) -> "datasets.Dataset":
    """Images with classes, as bytes in the table."""
    root = write_folder(folder, {"cat": count, "dog": count})
    paths = sorted(root.rglob("*.png"))
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    content = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    labels = [int(path.parent.name == "dog") for path in paths]
    return datasets.Dataset.from_dict({"image": content, "label": labels}, features=features)


def test_texts_saved_to_disk(tmp_path: Path, encoder: Path):
    reviews().save_to_disk(tmp_path / "saved")
    found = listed(f"hf-data:{tmp_path}/saved")
    assert (found.dataset.content, found.kind, found.class_names) == ("texts", "single_label", ("no", "yes"))
    assert found.labels.tolist() == [0, 1] * 6
    assert [found.read(row).decode() for row in range(12)] == sentences(12)
    network = load_network(f"hf:{encoder}")
    sample = load_sample(
        f"hf-data:{tmp_path}/saved", network.transform, tokenizer=network.tokenizer, max_samples=8, seed=0
    )
    assert np.bincount(sample.labels).tolist() == [4, 4]


def test_splits_are_those_of_the_library(tmp_path: Path):
    datasets.DatasetDict({"train": reviews(), "Unsupervised": reviews(4)}).save_to_disk(tmp_path / "saved")
    spec = f"hf-data:{tmp_path}/saved"
    assert len(listed(spec).names) == 12
    assert len(listed(spec, split="unsupervised").names) == 4
    with fails(DataError, spec, "has no split 'test'; its splits are train, unsupervised"):
        open_dataset(spec, split="test")


def test_images_of_an_imagefolder_of_parquet_and_of_class_folders_are_the_same(tmp_path: Path):
    table = pictures(tmp_path / "images")
    table.to_parquet(tmp_path / "part-0.parquet")
    specs = [str(tmp_path / "images"), f"hf-data:{tmp_path}/images", f"hf-data:{tmp_path}/part-*.parquet"]
    samples = [load_sample(spec, InputTransform(8, 8), max_samples=100, seed=0) for spec in specs]
    for sample in samples:
        np.testing.assert_array_equal(sample.inputs, samples[0].inputs)
        assert sample.labels.tolist() == samples[0].labels.tolist()
        assert sample.description.class_names == ("cat", "dog")
    sizes = {tuple(sorted(listed(spec).sizes)) for spec in specs}
    assert len(sizes) == 1


def test_rows_without_an_image_are_skipped_and_counted(tmp_path: Path):
    table = pictures(tmp_path / "images", count=20)
    rows = table.cast_column("image", datasets.Image(decode=False)).to_list()
    rows[3]["image"] = rows[5]["image"] = None
    datasets.Dataset.from_list(rows, features=table.features).save_to_disk(tmp_path / "saved")
    description = load_sample(
        f"hf-data:{tmp_path}/saved", InputTransform(8, 8), max_samples=100, seed=0
    ).description
    assert (description.num_skipped, description.skipped_why) == (2, "row 3 and 1 more (no image)")


def test_texts_of_parquet_and_of_a_folder_of_csv(tmp_path: Path):
    reviews().to_parquet(tmp_path / "texts.parquet")
    (tmp_path / "folder").mkdir()
    reviews().to_csv(tmp_path / "folder" / "train.csv")
    one, two = (listed(f"hf-data:{tmp_path}/{name}") for name in ("texts.parquet", "folder"))
    assert one.names == two.names  # with a hash of each text
    assert (one.class_names, two.class_names) == (("no", "yes"), ("0", "2"))


@pytest.mark.parametrize(
    ("values", "kind", "names", "first"),
    [
        (["a", "b", "a"], "single_label", ("a", "b"), [0, 1, 0]),
        ([3, 10, 3], "single_label", ("10", "3"), [1, 0, 1]),
        ([0.5, 1.5, 2.5], "regression", ("target",), [[0.5], [1.5], [2.5]]),
        ([[0.5, 1.0]] * 3, "regression", ("target_0", "target_1"), [[0.5, 1.0]] * 3),
        ([["a", "b"], [], ["b"]], "multi_label", ("a", "b"), [[1, 1], [0, 0], [0, 1]]),
    ],
)
def test_kinds_of_labels(tmp_path: Path, values: list, kind: str, names: tuple[str, ...], first: list):
    reviews(3, stars=values).save_to_disk(tmp_path / "saved")
    found = listed(f"hf-data:{tmp_path}/saved?label=stars")
    assert (found.kind, found.class_names) == (kind, names)
    assert found.labels.tolist() == first


def test_lists_of_zeros_and_ones_are_several_labels_and_never_numbers(tmp_path: Path):
    several = [[1, 0], [1, 1], [0, 0], [0, 1]] * 3
    for number, lists in enumerate((several, [[float(one) for one in row] for row in several])):
        reviews(labels=lists).save_to_disk(tmp_path / str(number))
        found = listed(f"hf-data:{tmp_path}/{number}?label=labels")
        assert (found.kind, found.class_names, found.labels.tolist()) == (
            "multi_label",
            ("label_0", "label_1"),
            several,
        )
    reviews(labels=[[1.0, 0.0], [0.0, 1.0]] * 6).save_to_disk(tmp_path / "one")
    one = listed(f"hf-data:{tmp_path}/one?label=labels")
    assert (one.kind, one.labels.tolist()) == ("single_label", [0, 1] * 6)
    assert "(one-hot)" in one.dataset.taken[0]
    reviews(kind=[0.0, 1.0, 2.0] * 4).save_to_disk(tmp_path / "floats")
    spec = f"hf-data:{tmp_path}/floats"
    assert open_dataset(spec, label_col="kind").class_names == ("0", "1", "2")
    assert open_dataset(spec, target_col="kind").kind == "regression"


def test_columns_that_are_meant_are_named(tmp_path: Path):
    table = reviews(4, body=["w", "x", "y", "z"]).rename_column("text", "title")
    table.save_to_disk(tmp_path / "saved")
    spec = f"hf-data:{tmp_path}/saved"
    named = "?image=COLUMN or ?text=COLUMN, of title, label, body"
    problem = f"has no columns of images and 2 of texts; name one as {named}"
    with fails(DataError, spec, problem):
        open_dataset(spec)
    assert listed(f"{spec}?text=body").read(0) == b"w"
    with fails(DataError, f"{spec}?text=bdy", "has no column 'bdy'; its columns are title, label, body"):
        open_dataset(f"{spec}?text=bdy")
    with fails(
        DataError,
        f"{spec}?txt=body",
        "no option is named 'txt'; known are config, image, label, revision, text",
    ):
        open_dataset(f"{spec}?txt=body")


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"text": ["a", " "], "label": ["x", "y"]}, "row 1: text is empty"),
        ({"text": ["a", None], "label": ["x", "y"]}, "row 1: text is empty"),
        ({"text": ["a", "b"], "label": ["x", None]}, "row 1: label is empty"),
        ({"text": ["a", "b"]}, "has no column 'label'; name the one of labels as label=COLUMN, of text"),
        (
            {"text": ["a", "b"], "label": [float("nan"), 1.0]},
            "row 0: label must be finite and fit 32-bit floats",
        ),
        (
            {"text": ["a", "b"], "label": [[1.0], [1.0, 2.0]]},
            "row 1: label holds 2 numbers where row 0 holds 1",
        ),
    ],
)
def test_rows_are_refused(tmp_path: Path, columns: dict[str, list], problem: str):
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    spec = f"hf-data:{tmp_path}/saved"
    with fails(DataError, spec, problem):
        listed(spec)


def test_unlabelled_split_is_refused(tmp_path: Path):
    table = reviews(4)
    table.map(lambda _row: {"label": -1}).save_to_disk(tmp_path / "saved")
    spec = f"hf-data:{tmp_path}/saved"
    with fails(DataError, spec, "row 0: label is -1, which is no class: this split may have no labels"):
        open_dataset(spec)


def test_what_is_not_there_is_refused(tmp_path: Path):
    spec = f"hf-data:{tmp_path}/none"
    with fails(DataError, spec, "no such folder; expected one that the library datasets loads"):
        open_dataset(spec)
    with fails(DataError, f"{spec}.parquet", "no such file; expected Parquet files"):
        open_dataset(f"{spec}.parquet")
    (tmp_path / "none.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=re.escape(f"{spec}.parquet: cannot be loaded (")):
        open_dataset(f"{spec}.parquet")
    with pytest.raises(
        DataError, match=r"^hf-data:nobody/nothing: cannot be loaded \(.*\); without a network, fetch"
    ):
        open_dataset("hf-data:nobody/nothing")
    with fails(
        DataError, "hf-data:", "names no data; expected hf-data:./FOLDER, Parquet files or hf-data:ORG/NAME"
    ):
        open_dataset("hf-data:")


def test_spec_is_taken_apart():
    data = parse_hub_data("hf-data:glue?config=sst2&label=label")
    assert (data.place, data.options, data.is_local) == ("glue", {"config": "sst2", "label": "label"}, False)
    assert parse_hub_data("hf-data:./what?").place == "./what?"


def test_library_that_is_missing_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = "hf-data:x needs datasets; install it with `pip install 'task2vec-registry[data]'`"
    with pytest.raises(MissingLibraryError, match=f"^{re.escape(message)}$"):
        open_dataset("hf-data:x")
