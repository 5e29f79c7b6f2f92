"""Layouts of folders and archives as datasets have them, built of small images: read right, or refused."""

import csv
import itertools
import json
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from builders_datasets import noise_image
from click.testing import CliRunner
from layouts_of_tools import REFUSED_TOOLS, TOOLS

from indexer.data.sampling import survey
from indexer.data.specs import open_dataset
from indexer.errors import DataError
from registry.cli.main import main

NUMBERS = itertools.count()
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "ppm": "PPM", "png": "PNG"}


def build(root: Path, layout: dict[str, object]) -> Path:
    """Write a layout; a name with ``*`` is three files, each of them an image unless rows or text are given."""
    for name, content in layout.items():
        for number in range(3) if "*" in name else (0,):
            path = root / name.replace("*", str(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, list):
                with path.open("w", newline="") as file:
                    csv.writer(file).writerows(content)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif isinstance(content, str):
                path.write_text(content)
            elif name.endswith("/"):
                path.mkdir(exist_ok=True)
            else:
                noise_image(next(NUMBERS)).save(path, FORMATS[path.suffix[1:].lower()])
    return root


def images(*names: str) -> dict[str, object]:
    return dict.fromkeys(names)


def rows(header: str, line: str, *labels: str) -> list[list[str]]:
    """A table with three rows for each label, numbered on."""
    numbered = enumerate(label for label in labels for _ in range(3))
    return [header.split(","), *(line.format(n=number, label=label).split(",") for number, label in numbered)]


COCO = {
    "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(6)],
    "categories": [{"id": 0, "name": "none"}, {"id": 1, "name": "ball"}, {"id": 2, "name": "bat"}],
    "annotations": [{"image_id": n, "category_id": 1 + (n > 2)} for n in range(6)],
}

SIX = [f"{number}.jpg" for number in range(6)]
FLAT = images(*(f"images/{name}" for name in SIX))

LAYOUTS: dict[str, tuple[dict[str, object], dict[str, object], str, int, str]] = {
    # name: (files, options, classes, samples, what is said)
    "class folders": (images("cat/*.png", "dog/*.png"), {}, "cat dog", 6, ""),
    "in one folder": (images("pets/cat/*.png", "pets/dog/*.png"), {}, "cat dog", 6, ""),
    "splits above": (
        images(*(f"{split}/{c}/*.png" for split in ("training_set", "test_set") for c in ("cat", "dog"))),
        {},
        "cat dog",
        6,
        "folder 'training_set' as split train, and not 'test_set'",
    ),
    "TRAIN and TEST": (
        images(
            *(
                f"data/images/{split}/{c}/*.jpeg"
                for split in ("TRAIN", "TEST")
                for c in ("EOSINOPHIL", "MONOCYTE")
            )
        ),
        {"split": "test"},
        "EOSINOPHIL MONOCYTE",
        6,
        "split 'test', and not 'train'",
    ),
    "split twice": (
        images(
            *(f"seg_{s}/seg_{s}/{c}/*.jpg" for s in ("train", "test") for c in ("sea", "street")),
            "seg_pred/seg_pred/*.jpg",
        ),
        {},
        "sea street",
        6,
        "folder 'seg_train' as split train, and not 'seg_test'",
    ),
    "split below the class": (
        images(*(f"{c}/{split}/*.png" for split in ("train", "val") for c in ("cat", "dog"))),
        {"split": "valid"},
        "cat dog",
        6,
        "split 'val', and not 'train'",
    ),
    "a split without labels": (
        images(
            *(f"fruits/{s}/{c}/*.jpg" for s in ("Training", "Validation") for c in ("Apple", "Kiwi")),
            "fruits/test/*.jpg",
        ),
        {},
        "Apple Kiwi",
        6,
        "split 'test' left out, since its 3 samples have no labels",
    ),
    "images inside of splits": (
        images(
            "GTSRB/Final_Training/Images/00000/*.ppm",
            "GTSRB/Final_Training/Images/00001/*.ppm",
            "GTSRB/Final_Test/Images/*.ppm",
        ),
        {},
        "00000 00001",
        6,
        "folder 'final_training' as split train",
    ),
    "images beside masks": (
        images(*(f"{c}/{kind}/*.png" for kind in ("images", "masks") for c in ("COVID", "Normal"))),
        {},
        "COVID Normal",
        6,
        "'masks' as masks of the images beside, left out",
    ),
    "x_mask.png": (
        images("benign/b (*).png", "benign/b (*)_mask.png", "normal/n (*).png", "normal/n (*)_mask.png"),
        {},
        "benign normal",
        6,
        "names such as x_mask.png as masks",
    ),
    "splits of objects beside masks": (
        images(
            *(
                f"{o}/{p}/*.png"
                for o in ("cap", "nut")
                for p in ("train/good", "test/good", "ground_truth/bent")
            )
        ),
        {},
        "cap nut",
        6,
        "folder level 1 as the class",
    ),
    "domain and class": (
        images(*(f"{domain}/{c}/*.jpg" for domain in ("photo", "sketch") for c in ("dog", "horse", "house"))),
        {"class_level": 2},
        "dog horse house",
        18,
        "folder level 2 as the class",
    ),
    "groups of classes": (
        images(
            *(
                f"{s}/{c}/*.jpg"
                for s in ("train", "val")
                for c in ("Fruit/Apple/Gala", "Fruit/Apple/Fuji", "Fruit/Lime")
            )
        ),
        {"class_level": -1},
        "Fuji Gala Lime",
        9,
        "folder level -1 as the class",
    ),
    "patients of classes": (
        images("benign/p01/*.png", "benign/p02/*.png", "malignant/p03/*.png"),
        {},
        "benign malignant",
        9,
        "folder level 1 as the class, and not those below it (p01, p02, p03, ...)",
    ),
    "two spellings": (
        images("caf\u00e9/*.png", "cafe\u0301/x*.png", "tea/*.png"),
        {},
        "caf\u00e9 tea",
        9,
        "2 spellings of the folder name 'caf\u00e9' as one class",
    ),
    "a class called train": (
        images("bus/*.png", "train/*.png"),
        {},
        "bus train",
        6,
        "'train' as the name of a class",
    ),
    "a bad class folder": (
        images("cat/*.png", "dog/*.png", "bird/"),
        {"skip_bad": True},
        "cat dog",
        6,
        "class folders but 'bird', left out as bad",
    ),
    "texts": ({"good/*.txt": "fine", "bad/*.txt": "no"}, {}, "bad good", 6, ""),
    "flat with labels.csv": (
        {
            **images(
                "train/a0.jpg", "train/a1.jpg", "train/a2.jpg", "train/a3.jpg", "train/a4.jpg", "train/a5.jpg"
            ),
            **images("test/b*.jpg"),
            "labels.csv": rows("id,breed", "a{n},{label}", "boxer", "pug"),
            "sample_submission.csv": rows("id,boxer,pug", "b{n},0.5,0.5", "x"),
        },
        {},
        "boxer pug",
        6,
        "labels of the images of split 'train', and not 'test', from labels.csv",
    ),
    "flat with a table elsewhere": (
        {**FLAT, "data/legend.csv": rows("user.id,image,emotion", "628,{n}.jpg,{label}", "anger", "joy")},
        {},
        "anger joy",
        6,
        "labels of the images from data/legend.csv",
    ),
    "a table for each split": (
        {
            **{f"{split}/{name}": None for split in ("train", "test") for name in SIX},
            "train.csv": rows("filename,label", "{n}.jpg,{label}", "cat", "dog"),
            "test.csv": rows("filename,label", "{n}.jpg,{label}", "cat", "dog"),
        },
        {"split": "test"},
        "cat dog",
        6,
        "labels of the images of split 'test', and not 'train', from test.csv",
    ),
    "Hugging Face metadata.csv": (
        {**FLAT, "images/metadata.csv": rows("file_name,label", "{n}.jpg,{label}", "cat", "dog")},
        {},
        "cat dog",
        6,
        "labels of the images from images/metadata.csv",
    ),
    "Hugging Face metadata.jsonl": (
        {
            **{f"{split}/{name}": None for split in ("train", "test") for name in SIX},
            "metadata.jsonl": "".join(
                json.dumps({"file_name": f"{split}/{n}.jpg", "label": "cat" if n < 3 else "dog"}) + "\n"
                for split in ("train", "test")
                for n in range(6)
            ),
        },
        {},
        "cat dog",
        6,
        "labels of the images of split 'train', and not 'test', from metadata.jsonl",
    ),
    "Roboflow _classes.csv": (
        {
            **{f"{split}/{name}": None for split in ("train", "valid") for name in SIX},
            **{
                f"{split}/_classes.csv": [
                    ["filename", " ball", " bat"],
                    *([f"{n}.jpg", f" {int(n < 3)}", f" {int(n > 2)}"] for n in range(6)),
                ]
                for split in ("train", "valid")
            },
        },
        {},
        "ball bat",
        6,
        "labels of the images of split 'train', and not 'valid', from train/_classes.csv",
    ),
    "Roboflow _annotations.csv": (
        {
            **{f"{split}/{name}": None for split in ("train", "test") for name in SIX},
            **{
                f"{split}/_annotations.csv": rows(
                    "filename,width,height,class,xmin", "{n}.jpg,8,8,{label},1", "ball", "bat"
                )
                for split in ("train", "test")
            },
        },
        {},
        "ball bat",
        6,
        "labels of split 'train', and not 'test', from",
    ),
    "Roboflow COCO": (
        {**{f"train/{name}": None for name in SIX}, "train/_annotations.coco.json": json.dumps(COCO)},
        {},
        "ball bat",
        6,
        "from train/_annotations.coco.json",
    ),
    "YOLO classes": (
        {
            **images(*(f"{s}/{c}/*.jpg" for s in ("train", "val") for c in ("cat", "dog"))),
            "data.yaml": "nc: 2\n",
        },
        {},
        "cat dog",
        6,
        "split 'train', and not 'val'",
    ),
    "CUB": (
        {
            **images("CUB/images/001.Auk/a*.jpg", "CUB/images/002.Jay/b*.jpg"),
            "CUB/images.txt": "".join(
                f"{n + 1} {'001.Auk/a' if n < 3 else '002.Jay/b'}{n % 3}.jpg\n" for n in range(6)
            ),
            "CUB/image_class_labels.txt": "".join(f"{n + 1} {1 + (n > 2)}\n" for n in range(6)),
            "CUB/classes.txt": "1 001.Auk\n2 002.Jay\n",
            "CUB/train_test_split.txt": "".join(f"{n + 1} {int(n % 3 != 0)}\n" for n in range(6)),
        },
        {},
        "001.Auk 002.Jay",
        4,
        "labels of split 'train', and not 'test', from images.txt",
    ),
    "Tiny ImageNet": (
        {
            **images(
                "train/n01/images/n01_*.JPEG",
                "train/n02/images/n02_*.JPEG",
                "val/images/v*.JPEG",
                "test/images/t*.JPEG",
            ),
            "val/images/v3.JPEG": None,
            "val/val_annotations.txt": "".join(f"v{n}.JPEG\tn0{1 + n % 2}\t0\t0\t8\t8\n" for n in range(4)),
        },
        {"split": "val"},
        "n01 n02",
        4,
        "labels of split 'val' from val/val_annotations.txt",
    ),
    "Food-101": (
        {
            **images("food/images/cake/*.jpg", "food/images/soup/*.jpg"),
            "food/meta/train.txt": "cake/0\ncake/1\nsoup/0\nsoup/1\n",
            "food/meta/test.txt": "cake/2\nsoup/2\n",
            "food/meta/classes.txt": "cake\nsoup\n",
        },
        {},
        "cake soup",
        4,
        "labels of split 'train', and not 'test', from",
    ),
    **TOOLS,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_right_wherever_it_lies(tmp_path, name):
    """A folder, a zip and tars of it are the same task: the same names, sizes and labels."""
    files, options, classes, count, said = LAYOUTS[name]
    root = build(tmp_path / "data", files)
    hashes = set()
    for spec in (root, *archives(tmp_path, root)):
        dataset = open_dataset(str(spec), **options)
        counted = survey(dataset)
        assert (" ".join(dataset.class_names), counted.num_samples) == (classes, count)
        assert min(counted.sizes) > 1
        assert said in "; ".join(dataset.taken)
        assert bool(said) == bool(dataset.taken)
        entry = min(dataset.scan())
        assert len(dataset.read(entry)) == dataset.size(entry)
        hashes.add(counted.listing_hash)
    assert len(hashes) == 1


def archives(folder: Path, root: Path) -> list[Path]:
    """A zip of a folder, a tar of what is in it, and a compressed one."""
    files = sorted(path for path in root.rglob("*"))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(folder))
    tars = [folder / "a.tar", folder / "a.tar.gz"]
    for path, mode in zip(tars, ("w", "w:gz"), strict=True):
        with tarfile.open(path, mode) as archive:
            archive.add(root, root.name if mode == "w:gz" else ".")
    return [folder / "a.zip", *tars]


def test_the_table_of_layouts_is_that_of_the_page():
    page = (
        (Path(__file__).parents[3] / "docs" / "data.md")
        .read_text()
        .partition("## Layouts")[2]
        .partition("## ")[0]
    )
    listed = re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE)
    assert set(listed) - {"Layout", "---"} == set(LAYOUTS)


def test_arrays_in_a_folder_are_found(tmp_path):
    np.save(tmp_path / "x_train.npy", np.random.default_rng(0).integers(0, 255, (6, 8, 8), np.uint8))
    np.save(tmp_path / "y_train.npy", np.arange(6) % 2)
    dataset = open_dataset(str(tmp_path))
    assert (dataset.spec, dataset.taken[0]) == (str(tmp_path), "images from x_train.npy")
    assert survey(dataset).sizes == (3, 3)
    with pytest.raises(DataError, match="class_level would change nothing"):
        open_dataset(str(tmp_path / "x_train.npy"), class_level=1)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "domain and class": (
        LAYOUTS["domain and class"][0],
        "class_level=1 makes 2 classes (photo, sketch) and class_level=-1 makes 3 classes (dog, horse, h",
    ),
    "groups of classes": (
        LAYOUTS["groups of classes"][0],
        "and class_level=-1 makes 3 classes (Fuji, Gala, Lime)",
    ),
    "images and subfolders": (
        images("cat/*.png", "cat/indoor/*.png", "cat/outdoor/*.png", "dog/*.png"),
        "class folder 'cat' holds images and subfolders with images; class_level=1 makes 2 classes",
    ),
    "an empty class folder": (images("cat/*.png", "dog/*.png", "bird/"), "leave it out with skip_bad=True"),
    "splits without labels": (
        images("train/*.png", "test/*.png"),
        "holds no class folders in 'test' and 'train'; expected images",
    ),
    "images and labels of boxes": (
        {**images("images/*.png"), "labels/*.txt": "0 .5 .5 .1 .1"},
        "holds no class folders; expected images in <class>/<name>.jpg inside it, or a table",
    ),
    "two tables": (
        {
            **FLAT,
            "a.csv": rows("filename,label", "{n}.jpg,{label}", "x", "y"),
            "b.csv": rows("filename,label", "{n}.jpg,{label}", "y", "x"),
        },
        "a.csv and b.csv both say what the images show; give the one that is meant as the data",
    ),
    "a class of one image": (
        images("cat/*.png", "dog/*.png", "bird/1.png"),
        "or is left out with skip_bad=True",
    ),
    "parts of images": (
        images("images_part_1/*.png", "images_part_2/*.png"),
        "holds no class folders; expected images in",
    ),
    "a level that is not there": (images("cat/*.png", "dog/*.png"), "has 1 levels of class folders"),
    **REFUSED_TOOLS,
}


def test_a_split_without_labels_is_named_when_it_is_asked_for(tmp_path):
    root = build(tmp_path, LAYOUTS["a split without labels"][0])
    with pytest.raises(DataError, match="split 'test' holds samples without class folders or a table"):
        open_dataset(str(root), split="test")


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_in_doubt_is_refused_with_what_settles_it(tmp_path, name):
    files, problem = REFUSED[name]
    options = {"class_level": 3} if "level" in name else {}
    with pytest.raises(DataError, match=re.escape(problem)):
        open_dataset(str(build(tmp_path, files)), **options)


def test_what_is_passed_over_is_counted_by_reason(tmp_path):
    root = build(
        tmp_path,
        {
            **images("cat/*.png", "dog/*.png", "cat/.hid*.png"),
            "dog/n*.md": "",
            "cat/p*.heic": "",
            "cover.png": None,
        },
    )
    for number in range(2):
        (root / "cat" / f"gone{number}.png").symlink_to(root / "nowhere")
    (root / "dog" / "back").symlink_to(root)
    assert open_dataset(str(root)).passed_over == {
        "above the class folders": 1,
        "hidden": 3,
        "link to nothing": 2,
        "not an image (.heic)": 3,
        "not an image (.md)": 3,
    }


def test_links_that_lead_back_are_not_followed(tmp_path):
    """Two links in each of two folders to the other make 2**40 paths before the system refuses one."""
    root = build(tmp_path, images("cat/*.png", "dog/*.png"))
    for own, other in (("cat", "dog"), ("dog", "cat")):
        for number in range(2):
            (root / own / f"link{number}").symlink_to(root / other)
    with pytest.raises(DataError, match="class folder 'cat' holds images and subfolders with images"):
        open_dataset(str(root))


def test_task_add_says_what_was_read_and_what_comes_next(tmp_path):
    root = build(tmp_path / "data", {**LAYOUTS["images beside masks"][0], "COVID/p*.heic": ""})
    done = CliRunner().invoke(
        main, ["--registry", str(tmp_path / "r"), "task", "add", "scans", str(root), "--no-published"][:-1]
    )
    assert done.exit_code == 0, done.output
    assert "classes\t2 (COVID 3, Normal 3)\n" in done.stdout
    assert "Read 'masks' as masks of the images beside, left out.\n" in done.stderr
    assert "Passed over: 6 mask, 3 not an image (.heic).\n" in done.stderr
    assert "Warning: more than a tenth of the files were passed over: 3 not an image (.heic)\n" in done.stderr
    assert done.stderr.endswith("Next: t2v recommend scans\n")
    near = CliRunner().invoke(main, ["--registry", str(tmp_path / "r"), "nearest", str(root), "-k", "1"])
    assert near.stderr == "Read 'masks' as masks of the images beside, left out.\n"
