"""Many small tasks for scripts: noise made here, or subsets of real data."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png"}


def make_tasks(folder: Path, count: int, images_per_class: int, side: int, seed: int) -> Path:
    """Write that many tasks of two classes of noise, the second brighter; the manifest that names them."""
    rows = []
    for number in range(count):
        name = f"task-{number:05d}"
        generator = np.random.default_rng([seed, number])
        for label, low in (("dark", 0), ("bright", 60)):
            place = folder / name / label
            place.mkdir(parents=True)
            for image in range(images_per_class):
                pixels = generator.integers(low, 196 + low, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{image}.png")
        rows.append((name, name))
    return write_manifest(folder / "tasks.csv", rows)


def make_subsets(data: Path, folder: Path, count: int, images_per_class: int, seed: int) -> Path:
    """Write that many tasks of two to five classes of the folders of class folders below a folder.

    Each is a manifest of files where they are, so nothing is copied.

    Raises:
        SystemExit: If there are no such folders.
    """
    classes = [found for found in map(_class_folders, sorted(data.iterdir())) if len(found) >= 2]
    if not classes:
        raise SystemExit(f"{data}: there is no folder of class folders in it")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        source = classes[number % len(classes)]
        chosen = generator.permutation(len(source))[: generator.integers(2, 6)]
        lines = []
        for index in chosen:
            files = source[index]
            places = generator.permutation(len(files))[:images_per_class]
            lines += [(str(files[place]), files[0].parent.name) for place in places]
        name = f"{source[0][0].parents[1].name}-{number:05d}"
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *lines])
        rows.append((name, f"{name}.csv"))
    return write_manifest(folder / "tasks.csv", rows)


def write_manifest(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A manifest of names and data."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("name", "data"), *rows])
    return path


def _class_folders(folder: Path) -> list[list[Path]]:
    """Images of each class folder that has at least four."""
    root = next((it for it in (folder / "train", folder) if it.is_dir()), folder)
    found = []
    for place in sorted(it for it in root.iterdir() if it.is_dir()) if root.is_dir() else []:
        files = sorted(it for it in place.iterdir() if it.suffix.lower() in SUFFIXES)
        if len(files) >= 4:
            found.append(files)
    return found
