"""Files that say what images show, in the forms that datasets and tools write: text becomes labels by image.

CUB              images.txt, image_class_labels.txt, classes.txt, train_test_split.txt, joined by number
Food-101         meta/train.txt and meta/test.txt, which name images of class folders without their suffix
Tiny ImageNet    val_annotations.txt: image, class, and a box, with tabs between
Roboflow         _annotations.csv: a row for each box; _annotations.coco.json: as COCO
Pascal VOC       Annotations/*.xml, one for each image; CVAT: one XML file with all of them
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any, NamedTuple

from indexer.layouts.folders import LayoutError
from indexer.layouts.names import split_kind


class Annotation(NamedTuple):
    """What one line says."""

    image: str  # path of an image, relative to where images lie, or the end of one; the suffix may be left out
    label: str  # a class that it shows, empty for none
    split: str = ""  # the split it belongs to, if that is said


Text = Callable[[str], str]
"""Gives the content of a file beside the first by its name."""

Reader = Callable[[str, Text], Iterator[Annotation]]


def read_cub(name: str, text: Text) -> Iterator[Annotation]:
    """Join the files of CUB, of which ``name`` is the first."""
    images, labels = _numbered(name, text(name)), _numbered("", text("image_class_labels.txt"))
    classes, splits = _numbered("", text("classes.txt")), _numbered("", text("train_test_split.txt"))
    for number, image in images.items():
        label = labels.get(number, "")
        split = {"1": "train", "0": "test"}.get(splits.get(number, ""), "")
        yield Annotation(image, classes.get(label, label), split)


def _numbered(name: str, content: str) -> dict[str, str]:
    """Lines such as ``12 the rest`` by number; ``LayoutError`` if one that must be so is not."""
    rows = {}
    for place, line in enumerate(content.splitlines(), start=1):
        number, _, rest = line.strip().partition(" ")
        if name and not rest and number:
            raise LayoutError(f"{name}, line {place}: expected a number and a path, got {line!r}")
        rows[number] = rest.strip()
    rows.pop("", None)
    return rows


def read_lists(name: str, text: Text) -> Iterator[Annotation]:
    """Read a list of Food-101, such as ``meta/train.txt``: folders are classes, the file is the split."""
    split = split_kind(name.rpartition(".")[0]) or ""
    for line in text(name).splitlines():
        if image := line.strip():
            yield Annotation(image, image.replace("\\", "/").rpartition("/")[0].rpartition("/")[2], split)


def read_tabs(name: str, text: Text) -> Iterator[Annotation]:
    """Read an image and its class, with tabs between, a line; ``LayoutError`` if there is no class."""
    for place, line in enumerate(text(name).splitlines(), start=1):
        cells = line.split("\t")
        if line.strip() and len(cells) < 2:
            raise LayoutError(f"{name}, line {place}: expected an image and its class with a tab between")
        if line.strip():
            yield Annotation(cells[0].strip(), cells[1].strip())


def read_boxes(name: str, text: Text) -> Iterator[Annotation]:
    """Read ``_annotations.csv`` of Roboflow; ``LayoutError`` if a column is missing."""
    rows = csv.DictReader(io.StringIO(text(name)), skipinitialspace=True)
    if not {"filename", "class"} <= set(rows.fieldnames or ()):
        raise LayoutError(
            f"{name}: expected the columns filename and class, got {','.join(rows.fieldnames or ())}"
        )
    for row in rows:
        yield Annotation(row["filename"] or "", row["class"] or "")


def read_coco(name: str, text: Text) -> Iterator[Annotation]:
    """Read boxes or captions of classes as COCO writes them; ``LayoutError`` if it is no such file."""
    try:
        held: Any = json.loads(text(name))
        images = {image["id"]: str(image["file_name"]) for image in held["images"]}
        classes = {category["id"]: str(category["name"]) for category in held["categories"]}
        boxes = [(images[box["image_id"]], classes[box["category_id"]]) for box in held["annotations"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LayoutError(f"{name}: is no file of COCO annotations: {type(error).__name__}: {error}") from error
    for image, label in boxes:
        yield Annotation(image, label)
    for image in images.values():
        yield Annotation(image, "")


def read_xml(name: str, text: Text) -> Iterator[Annotation]:
    """Read boxes of Pascal VOC, or boxes and tags of CVAT; ``LayoutError`` if it is neither."""
    content = text(name)
    if named := re.search("<filename>([^<]+)</filename>", content):
        held = [(named[1], re.findall("<object>.*?<name>([^<]+)</name>", content, re.DOTALL))]
    else:
        blocks = re.findall(r"<image\b([^>]*?)(?:/>|>(.*?)</image>)", content, re.DOTALL)
        named_blocks = [(re.search(r'\bname="([^"]+)"', head), body) for head, body in blocks]
        held = [(head[1], re.findall(r'\blabel="([^"]+)"', body)) for head, body in named_blocks if head]
    if not held:
        raise LayoutError(f"{name}: is no XML of Pascal VOC or CVAT")
    for image, labels in held:
        yield from (Annotation(unescape(image), unescape(label).strip()) for label in labels or [""])


READERS: dict[str, tuple[str, Reader]] = {
    "image_class_labels.txt": ("images.txt", read_cub),
    "_annotations.csv": ("_annotations.csv", read_boxes),
    "_annotations.coco.json": ("_annotations.coco.json", read_coco),
}
"""By the name of a file that gives a layout away: the file that is read first, and what reads it."""
