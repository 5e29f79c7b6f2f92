"""Data specs: from the name of a dataset to a listing of its samples, nothing decoded.

A data spec is one of

    ./folder                     class folders of images; train/ val/ test/ that hold class folders are splits
    ./manifest.csv|.parquet      columns path,label and optionally split; paths relative to the file
    ./arrays.npz                 images [N, H, W] or [N, H, W, C] uint8, labels [N] integers
    ./images.tar                 members <class>/<name>.jpg, read in place; below any folders, of which
                                 the last may be a split
    sklearn:digits               1,797 handwritten digits that ship inside scikit-learn

Images lie directly in their class folder; hidden files and files of other kinds are passed over. Where there
are splits, folders and members outside of them are passed over too.

Axes: N samples, C classes (of an image: channels), H height, W width.
"""

import csv
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import numpy as np

from indexer.errors import DataError, DataSpecError
from indexer.images import IMAGE_SUFFIXES, is_image_name

SPLIT_NAMES = frozenset({"train", "val", "valid", "validation", "test"})
DEFAULT_SPLIT = "train"
SUPPORTED_KINDS = (
    "supported are a folder of class folders, a .csv or .parquet manifest, an .npz of images and labels, "
    "a .tar with members <class>/<name>.jpg, and sklearn:digits"
)

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A listing: which samples there are, nothing decoded.

    Attributes:
        spec: The data spec it was opened by.
        class_names: Of the C classes, sorted; as numbers where labels are numbers of an array.
        labels: ``[N]`` int64, indices into ``class_names``.
        names: N names, ascending: path below the folder, path as the manifest has it, or tar member, all with
            forward slashes; of arrays the row number from 0.
        sizes: N sizes in bytes: of the files, or of the decoded pixels of arrays.
        read: From the index of a sample to the bytes of its file, or to its pixels ``[H, W]`` or
            ``[H, W, C]`` uint8. May be called from several threads; raises OSError where the file is gone.
    """

    spec: str
    class_names: tuple[str, ...]
    labels: np.ndarray = field(repr=False)
    names: Sequence[str] = field(repr=False)
    sizes: Sequence[int] = field(repr=False)
    read: Callable[[int], bytes | np.ndarray] = field(repr=False)


class _Entry(NamedTuple):
    """One listed file; ``where`` is what the reader of its kind needs to find it."""

    name: str
    size: int
    class_name: str
    where: Any


class _Row(NamedTuple):
    """One row of a manifest; ``place`` is its line or row number, in words."""

    place: str
    path: str
    class_name: str


def open_dataset(spec: str, *, split: str | None = None) -> Dataset:
    """List the samples of a dataset without decoding any.

    Args:
        spec: A data spec, see the top of this file.
        split: Which split, in any case; ``None`` for ``train`` if there are splits, else for everything.

    Returns:
        The listing, with at least one sample.

    Raises:
        DataSpecError: If the spec names nothing of a supported kind.
        DataError: If the data is there but is not laid out as its kind asks, or has no such split.
    """
    try:
        return _opener(spec)(spec, split)
    except OSError as error:
        raise DataError(spec, f"cannot be read: {error}") from error


def _opener(spec: str) -> Callable[[str, str | None], Dataset]:
    if spec == "sklearn:digits":
        return _open_digits
    if not spec or re.match(r"[A-Za-z]\w+:", spec):  # one letter and a colon is a drive
        raise DataSpecError(spec or "the empty data spec", f"is no supported kind of data; {SUPPORTED_KINDS}")
    path = Path(spec)
    if path.is_dir():
        return _open_folder
    if not path.exists():
        raise DataSpecError(spec, f"no such file or folder; {SUPPORTED_KINDS}")
    if path.suffix.lower() in _FILE_OPENERS:
        return _FILE_OPENERS[path.suffix.lower()]
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise DataSpecError(spec, "a compressed tar cannot be read in place; decompress it to a .tar first")
    raise DataSpecError(spec, f"is no supported kind of data; {SUPPORTED_KINDS}")


def _choose_split(spec: str, parts: Mapping[str, T], split: str | None) -> T:
    # parts: the splits by lower-case name, and under "" what is in none of them
    names = sorted(name for name in parts if name)
    if not names:
        if split is not None:
            raise DataError(spec, f"has no splits, so split {split!r} cannot be chosen; leave the split out")
        return parts[""]
    wanted = DEFAULT_SPLIT if split is None else split.lower()
    if wanted not in names:
        raise DataError(spec, f"has no split {wanted!r}; its splits are {', '.join(names)}")
    return parts[wanted]


def _listing(spec: str, entries: Iterable[_Entry], read: Callable[[Any], bytes]) -> Dataset:
    ordered = sorted(entries, key=lambda entry: entry.name)
    class_names = sorted({entry.class_name for entry in ordered})
    label_of = {name: label for label, name in enumerate(class_names)}
    return Dataset(
        spec=spec,
        class_names=tuple(_printable(name) for name in class_names),
        labels=np.array([label_of[entry.class_name] for entry in ordered], np.int64),
        names=[_printable(entry.name) for entry in ordered],
        sizes=[entry.size for entry in ordered],
        read=lambda index: read(ordered[index].where),
    )


def _printable(name: str) -> str:
    """The name as valid Unicode: file names may hold bytes that are not, and records may not."""
    return name.encode(errors="backslashreplace").decode()


def _open_folder(spec: str, split: str | None) -> Dataset:
    splits = {
        folder.name.lower(): Path(folder)
        for folder in _visible(spec)
        if folder.name.lower() in SPLIT_NAMES and folder.is_dir() and _holds_class_folders(folder)
    }
    root = _choose_split(spec, {"": Path(spec), **splits}, split)
    entries: list[_Entry] = []
    for folder in sorted(_visible(root), key=lambda entry: entry.name):
        if not folder.is_dir():
            continue
        files = [
            _Entry(f"{folder.name}/{file.name}", file.stat().st_size, folder.name, file.path)
            for file in _visible(folder)
            if is_image_name(file.name) and file.is_file()
        ]
        if not files:
            raise DataError(
                spec,
                f"class folder {folder.name!r} holds no images ({' '.join(IMAGE_SUFFIXES)}); put some into it, "
                "remove it, or name the folder that holds the class folders",
            )
        entries += files
    if not entries:
        raise DataError(spec, "holds no class folders; expected images in <class>/<name>.jpg inside it")
    return _listing(spec, entries, lambda path: Path(path).read_bytes())


def _visible(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _holds_class_folders(folder: os.DirEntry[str]) -> bool:
    """Whether a folder named like a split is one, not a class that is called so."""
    inside = list(_visible(folder))
    return any(entry.is_dir() for entry in inside) and not any(is_image_name(entry.name) for entry in inside)


def _open_manifest(spec: str, split: str | None) -> Dataset:
    by_split: dict[str, list[_Row]] = {}
    rows = _csv_rows(spec) if spec.lower().endswith(".csv") else _parquet_rows(spec)
    for place, row in rows:
        path, label, *of_split = (_checked_cell(spec, place, column, row[column]) for column in row)
        if "|" in label:
            raise DataError(
                spec, f"{place}: label {label!r} names several classes; multi-label data is not supported yet"
            )
        by_split.setdefault(of_split[0].lower() if of_split else "", []).append(_Row(place, path, label))
    if not by_split:
        raise DataError(spec, "lists no samples; expected a row with path and label for each")
    entries: dict[str, _Entry] = {}
    for listed in _choose_split(spec, by_split, split):
        entry = _manifest_entry(spec, listed)
        if entry.name in entries:
            raise DataError(spec, f"{listed.place}: path {listed.path!r} is listed before; list each file once")
        entries[entry.name] = entry
    return _listing(spec, entries.values(), lambda path: Path(path).read_bytes())


def _manifest_entry(spec: str, row: _Row) -> _Entry:
    path = Path(spec).parent / row.path
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character
        raise DataError(spec, f"{row.place}: file {row.path!r} does not exist beside the manifest") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(spec, f"{row.place}: {row.path!r} is not a file")
    return _Entry(PurePosixPath(row.path).as_posix(), status.st_size, row.class_name, path)


def _checked_cell(spec: str, place: str, column: str, value: Any) -> str:
    text = "" if value is None else str(value).strip()
    if not text:
        raise DataError(spec, f"{place}: {column} is empty")
    return text


def _manifest_columns(spec: str, found: Sequence[str]) -> list[str]:
    for column in ("path", "label"):
        if column not in found:
            raise DataError(
                spec,
                f"column {column!r} is missing; expected path,label and optionally split, "
                f"got {','.join(found) or 'none'}",
            )
    return [column for column in ("path", "label", "split") if column in found]


def _csv_rows(spec: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with Path(spec).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = _manifest_columns(spec, reader.fieldnames or ())
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row:
                    raise DataError(spec, f"{place}: more fields than columns; put quotes around commas")
                yield place, {column: row[column] for column in columns}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(spec, f"is not a CSV file in UTF-8: {error}") from error


def _parquet_rows(spec: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(spec) as file:
            columns = _manifest_columns(spec, file.schema_arrow.names)
            table = file.read(columns=columns)
    except pyarrow.ArrowException as error:
        raise DataError(spec, f"is not a Parquet file: {error}") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"row {number}", {column: row[column] for column in columns}


def _open_tar(spec: str, split: str | None) -> Dataset:
    by_split: dict[str, dict[str, _Entry]] = {}
    try:
        with tarfile.open(spec, "r:") as archive:
            for member in archive:
                if listed := _tar_entry(member):
                    of_split, entry = listed
                    # A later member of the same name replaces the earlier one, as when extracting.
                    by_split.setdefault(of_split, {})[entry.name] = entry
    except tarfile.TarError as error:
        raise DataError(spec, f"is not a complete, uncompressed tar file: {error}") from error
    if not by_split:
        raise DataError(spec, "holds no images; expected members <class>/<name>.jpg")
    entries = _choose_split(spec, by_split, split).values()

    def read(where: tuple[int, int]) -> bytes:
        offset, size = where
        with Path(spec).open("rb") as file:  # a handle per read: threads share no position
            file.seek(offset)
            return file.read(size)

    return _listing(spec, entries, read)


def _tar_entry(member: tarfile.TarInfo) -> tuple[str, _Entry] | None:
    """Split ("" for none) and entry of an image; ``None`` for what is none or has no safe name."""
    if not member.isreg() or member.issparse() or not is_image_name(member.name):
        return None
    parts = PurePosixPath(member.name).parts
    if len(parts) < 2 or any(part.startswith(("/", ".")) for part in parts):
        return None
    split = parts[-3].lower() if len(parts) > 2 and parts[-3].lower() in SPLIT_NAMES else ""
    return split, _Entry("/".join(parts), member.size, parts[-2], (member.offset_data, member.size))


def _open_npz(spec: str, split: str | None) -> Dataset:
    try:
        with Path(spec).open("rb") as file:  # np.load leaves a broken file open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise DataError(spec, "holds one unnamed array; expected images and labels, as np.savez writes")
            images, labels = (_npz_array(spec, loaded, name) for name in ("images", "labels"))
    except DataError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(spec, f"is not an .npz file of plain number arrays: {error}") from error
    _check_arrays(spec, images, labels)
    return _array_listing(spec, images, labels, split)


def _npz_array(spec: str, loaded: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in loaded:
        found = ", ".join(loaded) or "none"
        raise DataError(spec, f"array {name!r} is missing; expected images and labels, got {found}")
    return loaded[name]


def _check_arrays(spec: str, images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise DataError(spec, f"images must be uint8 from 0 to 255, got {images.dtype}")
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))) or not images.size:
        raise DataError(
            spec, f"images must be [N, H, W] or [N, H, W, C] with C 1, 3 or 4, got shape {list(images.shape)}"
        )
    if labels.ndim != 1:
        raise DataError(
            spec,
            f"labels must be [N], one per image, got shape {list(labels.shape)}; multi-label data is not "
            "supported yet",
        )
    if labels.dtype.kind not in "iu":
        raise DataError(spec, f"labels must be integers, got {labels.dtype}; number the classes")
    if len(images) != len(labels):
        raise DataError(spec, f"images and labels must be equally many, got {len(images)} and {len(labels)}")


def _open_digits(spec: str, split: str | None) -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # the values are 0 to 16
    return _array_listing(spec, grey, digits.target, split)


def _array_listing(spec: str, images: np.ndarray, labels: np.ndarray, split: str | None) -> Dataset:
    _choose_split(spec, {"": images}, split)
    classes, labels = np.unique(labels, return_inverse=True)
    return Dataset(
        spec=spec,
        class_names=tuple(str(label) for label in classes),
        labels=labels.astype(np.int64),
        names=[str(row) for row in range(len(images))],
        sizes=[images[0].nbytes] * len(images),
        read=lambda row: images[row],
    )


_FILE_OPENERS: dict[str, Callable[[str, str | None], Dataset]] = {
    ".csv": _open_manifest,
    ".parquet": _open_manifest,
    ".npz": _open_npz,
    ".tar": _open_tar,
}
