"""Tasks that share images and differ in labels, as manifests over image folders that are there already.

    python scripts/make/relabelled_tasks.py ../shared/data ./relabelled

Where images are the same, only what is asked of them separates tasks: this is what a task embedding is for,
and what the mean feature of a network cannot see. Three kinds:

- meaningful ones: coarse classes of fine ones, objects against styles, values of digits against their source;
- random groupings of a task's classes into two;
- median splits by brightness, saturation and density of edges, which need no look at the objects.

Writes NAME.csv for each and ``tags.json``, which also names the image sets of each. Same seed, same files.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image
from recommend_worlds import IMAGES_TAG

Labelled = list[tuple[Path, str]]

GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "cifar10_animals": (
        "cifar10",
        {"animal": "bird cat deer dog frog horse", "vehicle": "airplane automobile ship truck"},
    ),
    "natural_images_living": (
        "natural_images",
        {"living": "cat dog person", "plant": "flower fruit", "vehicle": "airplane car motorbike"},
    ),
    "caltech101_animals": (
        "caltech101",
        {
            "animal": "butterfly cougar_face crab dalmatian emu flamingo gerenuk kangaroo lobster octopus "
            "panda platypus rhino starfish tick wild_cat",
            "thing": "*",
        },
    ),
    "clothing_body": (
        "clothing",
        {"upper": "longsleeve outwear shirt t_shirt", "lower": "pants shorts skirt", "other": "*"},
    ),
    "rsscn7_built": ("rsscn7", {"built": "cindustry fresident gparking", "natural": "*"}),
    "fer2013_mood": (
        "fer2013",
        {"positive": "happy surprise", "negative": "angry disgust fear sad", "neutral": "neutral"},
    ),
    "ck_expressions_mood": ("ck_expressions", {"positive": "happy surprise", "negative": "*"}),
    "asl_letters_digits": ("asl_letters", {"digit": "0 1 2 3 4 5 6 7 8 9", "letter": "*"}),
    "mnist_parity": ("mnist", {"even": "0 2 4 6 8", "odd": "1 3 5 7 9"}),
    "sign_digits_parity": ("sign_digits", {"even": "0 2 4 6 8", "odd": "1 3 5 7 9"}),
    "brain_tumor_presence": ("brain_tumor", {"healthy": "no_tumor", "tumor": "*"}),
    "magnetic_tile_defects": ("magnetic_tile", {"free": "free", "defect": "*"}),
    "potato_leaf_health": ("potato_leaf", {"healthy": "potato_healthy", "blight": "*"}),
}
"""Coarse classes: image set, and the fine classes of each; ``*`` is all others."""

PACS = ("pacs_art", "pacs_photo", "pacs_sketch")
DIGITS = ("mnist", "sign_digits", "thai_digits")
OMNIGLOT = ("omniglot_balinese", "omniglot_korean", "omniglot_latin")
SPLIT_SETS = (
    "blood_cells",
    "caltech101",
    "cifar10",
    "clothing",
    "fer2013",
    "flowers5",
    "natural_images",
    "neu_defects",
    "pacs_art",
    "pokemon",
    "rsscn7",
    "trashnet",
)
"""Image sets that are grouped at random and split by what their pixels are like."""

RANDOM_GROUPINGS = 2


@dataclass(frozen=True)
class Relabelled:
    """A task of images of other tasks: its samples, the sets they are from, and how it was made."""

    name: str
    images: tuple[str, ...]
    samples: Labelled
    kind: str


def list_images(folder: Path) -> Labelled:
    """Images of a class folder with the names of their classes, sorted."""
    return [(path, path.parent.name) for path in sorted(folder.glob("*/*")) if path.is_file()]


def coarse(data: Path) -> Iterable[Relabelled]:
    """``GROUPS``."""
    for name, (images, groups) in GROUPS.items():
        group_of = {fine: group for group, classes in groups.items() for fine in classes.split()}
        rest = group_of.get("*", "")
        samples = [(path, group_of.get(fine, rest)) for path, fine in list_images(data / images)]
        yield Relabelled(name, (images,), samples, "coarse")


def merged(data: Path) -> Iterable[Relabelled]:
    """Several image sets in one, labelled by class and by set; of each, as many images as make one task."""

    def of(names: tuple[str, ...]) -> list[tuple[str, Path, str]]:
        return [(name, *sample) for name in names for sample in list_images(data / name)[:: len(names)]]

    for name, sets in (("pacs", PACS), ("digits", DIGITS), ("omniglot", OMNIGLOT)):
        yield Relabelled(f"{name}_sources", sets, [(path, images) for images, path, _ in of(sets)], "merged")
    yield Relabelled("pacs_objects", PACS, [(path, label) for _, path, label in of(PACS)], "merged")
    shared_digits = [(path, label) for _, path, label in of(DIGITS) if len(label) == 1 and label != "0"]
    yield Relabelled("digits_values", DIGITS, shared_digits, "merged")


def random_groupings(data: Path, generator: np.random.Generator) -> Iterable[Relabelled]:
    """Classes of a set in two groups of equal size."""
    for images in SPLIT_SETS:
        samples = list_images(data / images)
        classes = sorted({label for _, label in samples})
        for number in range(1, RANDOM_GROUPINGS + 1):
            chosen = set(generator.permutation(classes)[: len(classes) // 2].tolist())
            grouped = [(path, "a" if label in chosen else "b") for path, label in samples]
            yield Relabelled(f"{images}_group{number}", (images,), grouped, "grouping")


def median_splits(data: Path) -> Iterable[Relabelled]:
    """Images of a set above and below the median of a property; none of saturation where all is grey."""
    for images in SPLIT_SETS:
        paths = [path for path, _ in list_images(data / images)]
        pixels = [pixels_of(path) for path in paths]
        for name, measure in PROPERTIES.items():
            values = np.array([measure(image) for image in pixels])
            if values.max() - values.min() > 1e-3:
                above = values > np.median(values)
                labels = ["high" if it else "low" for it in above]
                yield Relabelled(f"{images}_{name}", (images,), list(zip(paths, labels, strict=True)), "split")


def pixels_of(path: Path) -> np.ndarray:
    """``[H, W, 3]`` from 0 to 1."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def edge_density(pixels: np.ndarray) -> float:
    """Mean absolute difference of neighbouring pixels, grey, 0 to 1."""
    grey = pixels.mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


PROPERTIES: dict[str, Callable[[np.ndarray], float]] = {
    "brightness": lambda pixels: float(pixels.mean()),
    "saturation": lambda pixels: float((pixels.max(axis=2) - pixels.min(axis=2)).mean()),
    "edges": edge_density,
}


def write_manifest(task: Relabelled, folder: Path) -> None:
    """``NAME.csv`` with paths relative to it."""
    with (folder / f"{task.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label"])
        writer.writerows((os.path.relpath(path, folder), label) for path, label in task.samples)


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Of the random groupings.")
def main(data: Path, out: Path, seed: int) -> None:
    """Write manifests over the image folders in DATA to the folder OUT."""
    out.mkdir(parents=True, exist_ok=True)
    tasks = [
        *coarse(data),
        *merged(data),
        *random_groupings(data, np.random.default_rng(seed)),
        *median_splits(data),
    ]
    for task in tasks:
        write_manifest(task, out)
    tags = {
        task.name: ["relabelled", task.kind, *(f"{IMAGES_TAG}{name}" for name in task.images)] for task in tasks
    }
    (out / "tags.json").write_text(json.dumps(tags, indent=1) + "\n", encoding="utf-8")
    click.echo(f"{out}: {len(tasks)} tasks")


if __name__ == "__main__":
    main()
