"""Small real datasets in a temporary folder."""

import csv
import io
import re
import struct
import tarfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from indexer.data.sampling import draw, label_array, survey
from indexer.data.specs import open_dataset


def noise_image(seed: int, height: int = 12, width: int = 10) -> Image.Image:
    """An RGB image that no other seed gives."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    """Content of a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def write_folder(root: Path, counts: dict[str, int], suffix: str = ".png", *, first_seed: int = 0) -> Path:
    """Class folders with that many noise images each: ``root/<class>/000.png`` and so on."""
    for label, (class_name, count) in enumerate(counts.items()):
        folder = root / class_name
        folder.mkdir(parents=True)
        for number in range(count):
            noise_image(first_seed + 1000 * label + number).save(folder / f"{number:03d}{suffix}")
    return root


def write_tar(path: Path, members: dict[str, bytes], **options) -> Path:
    """A tar of regular files in the order given; duplicates go in one by one."""
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members.items():
            add_member(archive, name, content)
    return path


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append one regular file to an open tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_manifest(path: Path, rows: list[tuple], columns: tuple[str, ...] = ("path", "label")) -> str:
    """A manifest in CSV or Parquet, by the suffix."""
    if path.suffix == ".parquet":
        values = zip(*rows, strict=True)
        pq.write_table(pa.table(dict(zip(columns, values, strict=True))), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    return str(path)


def write_splits(root: Path) -> Path:
    """A folder with the splits ``train`` of 9 images and ``Test`` of 5."""
    write_folder(root / "train", {"cat": 4, "dog": 5})
    write_folder(root / "Test", {"cat": 2, "dog": 3})
    return root


def listed(spec: object, **options) -> SimpleNamespace:
    """A whole listing in order: its dataset, entries, names, sizes, labels and how to read one by its index."""
    dataset = open_dataset(str(spec), **options)
    entries = sorted(dataset.scan(), key=dataset.order)
    return SimpleNamespace(
        dataset=dataset,
        kind=dataset.kind,
        class_names=dataset.class_names,
        entries=entries,
        names=[entry.name for entry in entries],
        sizes=[dataset.size(entry) for entry in entries],
        labels=label_array(dataset, entries),
        read=lambda index: dataset.read(entries[index]),
    )


def drawn_rows(found: SimpleNamespace, max_samples: int, seed: int = 0) -> list[int]:
    """Indices of the drawn samples among the ``listed`` ones."""
    chosen = draw(found.dataset, survey(found.dataset), max_samples, seed)
    return [found.names.index(entry.name) for entry in chosen]


def fails(error: type[Exception], spec: object, problem: str) -> pytest.RaisesExc:
    """Expect ``error`` with the whole message ``spec: problem``."""
    return pytest.raises(error, match=f"^{re.escape(f'{spec}: {problem}')}$")


def write_npz(path: Path, **arrays) -> Path:
    """Twelve grey 5x4 images of classes 3, 20 and 100 in turn; ``arrays`` replace, ``None`` leaves out."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)
    content = {"images": pixels, "labels": np.array([3, 20, 100] * 4)} | arrays
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    return path
