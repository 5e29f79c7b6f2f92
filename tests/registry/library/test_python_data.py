"""Data that a Python program holds, in every form; and what is said of it where it is none."""

import re
from pathlib import Path

import numpy as np
import pytest
from builders_datasets import write_folder
from PIL import Image

from registry import TaskRegistry
from registry.errors import RegistryError

COUNT = 12


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """``[N, 16, 16, 3]`` uint8; the second half is brighter."""
    noise = np.random.default_rng(0).integers(0, 128, (COUNT, 16, 16, 3))
    noise[COUNT // 2 :] += 100
    return noise.astype(np.uint8)


LABELS = np.repeat([0, 1], COUNT // 2)


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> TaskRegistry:
    registry = TaskRegistry(tmp_path_factory.mktemp("registry") / "made")
    registry.init()
    registry.init(exist_ok=True)
    return registry


class Items:
    """A dataset as torch has them: its items are pairs."""

    def __init__(self, images, labels, change=lambda image: image):
        self.images, self.label_list, self.change = images, labels, change

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        if row >= len(self):
            raise IndexError
        return self.change(self.images[row]), self.label_list[row]


def forms(images: np.ndarray, folder: Path) -> dict[str, object]:
    """The same twelve images and two classes in every form."""
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    datasets = pytest.importorskip("datasets")
    from torch.utils.data import DataLoader, Subset, TensorDataset

    pictures = [Image.fromarray(image) for image in images]
    paths = [folder / f"{row:02d}.png" for row in range(COUNT)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    channels_first = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    labels = LABELS.tolist()
    table = datasets.Dataset.from_dict(
        {"image": pictures, "label": labels},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    pairs = Items(channels_first.float() / 255, LABELS)
    return {
        "arrays": (images, LABELS),
        "tensors": (channels_first, torch.from_numpy(LABELS)),
        "list of images": (pictures, labels),
        "columns": {"image": list(images), "label": labels},
        "columns of arrays": {"images": images, "labels": LABELS},
        "columns of arrays and others": {"images": images, "labels": LABELS, "note": labels},
        "pairs of paths": list(zip(paths, labels, strict=True)),
        "pairs of images": list(zip(pictures, labels, strict=True)),
        "frame of paths": pandas.DataFrame({"filename": map(str, paths), "class": labels}),
        "frame of images": pandas.DataFrame({"picture": pictures, "label": labels}),
        "frame of bytes": pandas.DataFrame({"image": [path.read_bytes() for path in paths], "label": labels}),
        "torch Dataset": pairs,
        "TensorDataset": TensorDataset(channels_first, torch.from_numpy(LABELS)),
        "Subset": Subset(pairs, list(range(COUNT))),
        "DataLoader that shuffles": DataLoader(pairs, batch_size=4, shuffle=True),
        "Hugging Face": table,
        "Hugging Face with splits": datasets.DatasetDict({"train": table, "test": table.select([0, 1])}),
    }


def test_every_form_is_read_as_the_same_data(registry, images, tmp_path):
    expected = registry.embed((images, LABELS))
    for name, data in forms(images, tmp_path).items():
        embedding = registry.embed(data)
        assert embedding.dataset.class_names == ("0", "1"), name
        apart = np.linalg.norm(embedding.fisher - expected.fisher) / np.linalg.norm(expected.fisher)
        assert apart < (0.05 if "Dataset" in name or "Sub" in name or "Loader" in name else 1e-4), (
            name
        )  # floats


def test_rows_without_a_label_are_counted(registry, images):
    dataset = registry.embed((list(images), [None, *LABELS[1:].tolist()])).dataset
    assert (dataset.num_samples, dataset.passed_over) == (11, (("row without a label (on row 0)", 1),))


def test_texts_are_told_from_images(registry):
    with pytest.raises(RegistryError, match="holds texts, and the network takes images"):
        registry.embed([("a good film", "yes"), ("a bad film", "no")] * 3)


def test_paths_are_data_and_never_names(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "mnist", {"cat": 4, "dog": 4})
    assert registry.embed(Path("mnist")).dataset.num_samples == 8
    asked, _ = registry.nearest(Path("mnist"), k=1)
    assert (asked.version, registry.nearest("mnist", k=1)[0].version) == (0, 1)


def test_what_is_registered_is_known_by_its_content_and_measured_when_given_again(registry, images):
    first = registry.add_task("held", (images, LABELS))
    assert registry.task("held").data == f"python:tuple of {COUNT}"
    assert not registry.add_task("held", (images.copy(), list(LABELS))).created
    assert registry.add_task("held", (images[::-1].copy(), LABELS)).version == first.version + 1
    problem = (
        f"the data of task held was held by a Python program (tuple of {COUNT}), and is not kept: give it "
        "again, as measure(NAME, EXPERT, data=DATA) or recommend(DATA)"
    )
    expert = "resnet14w16.tiny_imagenet"
    for ask in (lambda: registry.measure("held", expert), lambda: registry.recommend("held", num_trials=1)):
        with pytest.raises(RegistryError, match=f"^{re.escape(problem)}$"):
            ask()
    with pytest.raises(RegistryError, match="is not what task held was registered with"):
        registry.measure("held", expert, data=(images, LABELS))
    assert registry.measure("held", expert, data=(images[::-1].copy(), LABELS)).recorded
    assert not registry.measure((images, LABELS), expert).recorded
    answer = registry.recommend(
        (images, LABELS), num_trials=1, k=1, max_params="30M", toys=True, published=False
    )
    assert len(answer.trials) == 1


class Untyped:
    """What is no data at all."""


def mistakes(registry: TaskRegistry, images: np.ndarray, folder: Path) -> dict[str, tuple[object, str]]:
    """Calls that are mistakes, and part of what is said."""
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    frame = pandas.DataFrame({"image": list(images), "weight": np.arange(COUNT) / 7})
    signed = (images / 255).astype(np.float32) * 2 - 1
    random = np.random.default_rng(0)
    away = TaskRegistry(folder / "none")
    return {
        "wrong order": (
            lambda: registry.add_task(frame, "flowers"),
            "the name of a task must be text, got DataFrame",
        ),
        "a path for a name": (lambda: registry.add_task("./flowers", "flowers"), "cannot name a task"),
        "images without labels": (lambda: registry.embed(images), "is an array without labels"),
        "tensor without labels": (
            lambda: registry.embed(torch.from_numpy(images)),
            "is an array without labels",
        ),
        "pairs of splits": (
            lambda: registry.embed(((images, LABELS), (images, LABELS))),
            "is several pairs of arrays, as of splits; give one of them as (images, labels)",
        ),
        "pairs of splits by name": (
            lambda: registry.embed({"train": (images, LABELS), "test": (images, LABELS)}),
            "is several pairs of arrays, as of splits; give one of them as (images, labels)",
        ),
        "labels of other length": (
            lambda: registry.embed((images, LABELS[:-1])),
            "must be equally many, got 12 and 11",
        ),
        "lists of other length": (
            lambda: registry.embed((list(images), [0, 1])),
            "must be equally many, got 12 and 2",
        ),
        "no column of labels": (lambda: registry.embed(frame[["image"]]), "label"),
        "column that is not there": (lambda: registry.embed(frame, label_col="kind"), "kind"),
        "floats beyond 0 to 1": (lambda: registry.embed((signed, LABELS)), "floats without a range are 0 to 1"),
        "empty list": (lambda: registry.embed([]), "holds no samples"),
        "empty frame": (lambda: registry.embed(frame[:0]), "holds no samples"),
        "paths without labels": (
            lambda: registry.embed(["a.png", "b.png"]),
            "item 0 is str; expected (sample, label)",
        ),
        "missing files": (lambda: registry.embed([("a.png", 0), ("b.png", 1)]), "file 'a.png' does not exist"),
        "int for a path": (lambda: registry.embed(5), "is int, which is no data"),
        "None": (lambda: registry.nearest(None), "is NoneType, which is no data"),
        "object": (lambda: registry.recommend(Untyped()), "is Untyped, which is no data"),
        "random augmentation": (
            lambda: registry.embed(
                Items(images, LABELS, lambda image: image ^ random.integers(0, 9, image.shape, np.uint8))
            ),
            "another each time",
        ),
        "items that fail": (
            lambda: registry.embed(Items(images, LABELS, lambda image: image.nothing)),
            "AttributeError",
        ),
        "unknown expert": (lambda: registry.measure("mnist", "resnet18"), "no expert is named 'resnet18'"),
        "k of zero": (lambda: registry.nearest("mnist", k=0), "k must be at least 1, got 0"),
        "k as text": (
            lambda: registry.recommend("mnist", k="5"),
            "k must be a whole number of at least 1, got '5'",
        ),
        "samples as text": (
            lambda: registry.embed((images, LABELS), max_samples="9"),
            "max_samples must be a whole number",
        ),
        "size that is none": (
            lambda: registry.recommend("mnist", max_params="30 MB"),
            "max_params must be a positive number",
        ),
        "mistyped keyword": (
            lambda: registry.recommend("mnist", max_parms="30M"),
            "recommend has no argument 'max_parms'; did you mean max_params or max_flops?",
        ),
        "mistyped option": (lambda: registry.add_task("x", "y", max_sample=5), "did you mean max_samples?"),
        "too few arguments": (
            lambda: registry.add_task("flowers"),
            "add_task: missing a required argument: 'data'",
        ),
        "registry that is not there": (lambda: away.nearest("mnist"), "there is no registry yet"),
        "registry made twice": (lambda: registry.init(), "there is a registry already"),
    }


def test_mistakes_are_errors_of_ours(registry, images, tmp_path):
    told = {}
    for name, (call, problem) in mistakes(registry, images, tmp_path).items():
        try:
            call()
        except RegistryError as error:
            if problem not in str(error) or "\n" in str(error):
                told[name] = str(error)
        except Exception as error:  # which is what this test is about
            told[name] = repr(error)
        else:
            told[name] = "nothing"
    assert told == {}
