"""Tar files, read in place: class folders of images, or the shards of a webdataset; one file or several as one.

    a.tar                      members <class>/<name>.jpg, or KEY.jpg (KEY.txt) with KEY.cls or KEY.json
    shards-{000..009}.tar      several as one dataset

Of a tar the index is made: which files it holds, and where. Nothing is extracted, so a name is never a path.
Members with unsafe names, links and hidden files are passed over.
"""

import itertools
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from indexer.data.folders import open_tree
from indexer.data.images import is_image_name
from indexer.data.listings import TEXT_SUFFIX, Entry, Listing, MemberTree, printable, read_file
from indexer.errors import DataError
from indexer.layouts.names import is_hidden
from indexer.records import Content, Kind, Reading
from indexer.tables.delimited import suffix_of
from indexer.tables.files import TABLE_FILES

CLASS_SUFFIXES = (".cls", ".json")
LABEL_KEYS = ("label", "cls")
MAX_CLASS_BYTES = 2**16
"""Bytes of a file that holds a class."""
MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_DRIVE = re.compile(r"[A-Za-z]:")


class Member(NamedTuple):
    """A file in a tar: the bytes of the tar at ``path`` from ``offset`` on."""

    path: str
    offset: int
    size: int


Shards = Mapping[str, Mapping[str, Member | None]]
"""By path of the tar, its files by name; links are ``None``, and so are folders, whose names end in a slash."""


class _ShardSample(NamedTuple):
    """Where a sample lies, and where its class does; ``key`` is for messages."""

    key: str
    member: Member
    labelled_by: Member
    is_json: bool


def is_shard_pattern(spec: str) -> bool:
    """Whether a data spec names several tars by braces, such as ``shards-{000..009}.tar``."""
    return spec.lower().endswith(".tar") and bool(_BRACES.search(spec))


def open_tar(spec: str, reading: Reading) -> Listing:
    """List a tar file.

    Raises:
        DataError: If it is no complete, uncompressed tar file, holds no samples or has no such split.
        OSError: If it cannot be read.
    """
    return _open(spec, [spec], reading)


def open_shards(spec: str, reading: Reading) -> Listing:
    """List several tar files as one dataset.

    Raises:
        DataError: If one is not there, or as ``open_tar``.
        OSError: If one cannot be read.
    """
    paths = list(expand_braces(spec))
    for path in paths:
        if not Path(path).is_file():
            raise DataError(spec, f"shard {path} is not there; expected {len(paths)} tar files")
    return _open(spec, paths, reading)


def expand_braces(spec: str) -> Iterator[str]:
    """Paths that a pattern stands for: ``{000..009}`` for numbers of as many digits, ``{a,b}`` for words.

    Raises:
        DataError: If braces hold neither, or stand for more than ``MAX_SHARDS`` files.
    """
    parts = _BRACES.split(spec)  # what is outside of braces and inside, in turn
    choices = [[part] if place % 2 == 0 else _choices(spec, part) for place, part in enumerate(parts)]
    count = 1
    for options in choices:
        count *= len(options)
    if count > MAX_SHARDS:
        raise DataError(spec, f"stands for {count} files; at most {MAX_SHARDS} are read as one dataset")
    return ("".join(chosen) for chosen in itertools.product(*choices))


def _choices(spec: str, inside: str) -> list[str]:
    if bounds := _RANGE.fullmatch(inside):
        first, last = int(bounds[1]), int(bounds[2])
        if first <= last < first + MAX_SHARDS:
            return [f"{number:0{len(bounds[1])}d}" for number in range(first, last + 1)]
    elif "," in inside:
        return inside.split(",")
    raise DataError(spec, f"{{{inside}}} is no rising range; expected braces such as {{000..009}} or {{a,b}}")


def _open(spec: str, paths: list[str], reading: Reading) -> Listing:
    shards = {path: index_tar(spec, path) for path in paths}
    return open_indexed(spec, shards, lambda member: read_file(*member), reading)


def open_indexed(spec: str, shards: Shards, read: Callable[[Member], bytes], reading: Reading) -> Listing:
    """List the files of tars: a webdataset, or folders; ``DataError`` if neither, or without that split."""
    if _is_webdataset(shards):
        return _open_webdataset(spec, _files(shards), read, reading.split)
    merged = {}
    for path, members in shards.items():
        for name, member in members.items():
            folder, slash, file = name.rpartition("/")
            merged[name if len(shards) == 1 else f"{folder}{slash}{PurePosixPath(path).name}:{file}"] = member
    if not any(is_sample_name(name) for name in merged):
        raise DataError(spec, "holds no images; expected members <class>/<name>.jpg, or KEY.jpg with KEY.cls")
    return open_tree(spec, MemberTree(merged, read), reading)


def _files(shards: Shards) -> dict[str, dict[str, Member]]:
    """What is no link and not hidden."""
    return {
        path: {
            name: member
            for name, member in members.items()
            if member and not any(map(is_hidden, name.split("/")))
        }
        for path, members in shards.items()
    }


def is_sample_name(name: str) -> bool:
    """Whether a member may be an image, a text or a table of texts."""
    file = name.rpartition("/")[2]
    return (
        is_image_name(file)
        or suffix_of(file) in (TEXT_SUFFIX, *TABLE_FILES)
        or (file != "" and "." not in file)
    )


def _is_webdataset(shards: Shards) -> bool:
    """Whether classes are files beside the samples, rather than folders around them."""
    has_json = False
    for members in shards.values():
        for name in members:
            if name.lower().endswith(".cls"):
                return True
            has_json = has_json or name.lower().endswith(".json")
    in_folder = any("/" in name for members in shards.values() for name in members if is_image_name(name))
    return has_json and not in_folder


def _open_webdataset(
    spec: str, shards: Mapping[str, Mapping[str, Member]], read: Callable[[Member], bytes], split: str | None
) -> Listing:
    """List the samples of shards; their classes are read, the samples are not.

    Raises:
        DataError: If a sample has no class, or a class is not understood, or a split is asked for.
    """
    if split is not None:
        raise DataError(
            spec, f"has no splits, so split {split!r} cannot be chosen; name the shards of the split"
        )
    images = any(is_image_name(name) for members in shards.values() for name in members)
    samples = list(_samples(spec, shards, images=images))
    if not samples:
        raise DataError(spec, "holds no samples; expected members KEY.jpg or KEY.txt, each with its KEY.cls")
    said = [_labels(spec, sample, read) for sample in samples]
    kind: Kind = "multi_label" if any(isinstance(labels, list) for labels in said) else "single_label"
    names = [labels if isinstance(labels, list) else [labels] for labels in said]
    class_names = sorted({name for labels in names for name in labels})
    label_of = {name: label for label, name in enumerate(class_names)}
    content: Content = "images" if images else "texts"
    entries = [
        Entry(sample.key, sample.member, tuple(sorted(label_of[name] for name in set(labels))))
        for sample, labels in zip(samples, names, strict=True)
    ]
    return Listing(
        spec=spec,
        kind=kind,
        class_names=tuple(printable(name) for name in class_names),
        scan=lambda: entries,
        size=lambda entry: int(entry.where.size),
        read=lambda entry: read(entry.where),
        content=content,
    )


def _samples(spec: str, shards: Mapping[str, Mapping[str, Member]], *, images: bool) -> Iterator[_ShardSample]:
    """Every sample with the file that holds its class; ``DataError`` if there is no such file."""
    for path, members in shards.items():
        inside = "" if len(shards) == 1 else f"{PurePosixPath(path).name}/"
        by_key: dict[str, dict[str, Member]] = {}
        for name, member in members.items():
            folder, slash, file = name.rpartition("/")
            stem, _, suffix = file.partition(".")
            by_key.setdefault(f"{folder}{slash}{stem}", {})[f".{suffix.lower()}"] = member
        for key, files in by_key.items():
            sample = next(
                (end for end in files if (is_image_name(end) if images else end == TEXT_SUFFIX)), None
            )
            if sample is None:
                continue
            label = next((end for end in CLASS_SUFFIXES if end in files), None)
            if label is None:
                raise DataError(
                    spec, f"sample {inside}{key} has neither {key}.cls nor {key}.json with its class"
                )
            yield _ShardSample(f"{inside}{key}", files[sample], files[label], label == ".json")


def _labels(spec: str, sample: _ShardSample, read: Callable[[Member], bytes]) -> str | list[str]:
    """The class of a sample, or its several labels; ``DataError`` if it is not understood."""
    member = sample.labelled_by
    if member.size > MAX_CLASS_BYTES:
        raise DataError(
            spec,
            f"the class of sample {sample.key} has {member.size} bytes; at most {MAX_CLASS_BYTES} are read",
        )
    try:
        text = read(member).decode().strip()
        value: Any = _of_json(text) if sample.is_json else text
    except (ValueError, RecursionError) as error:
        raise DataError(spec, f"the class of sample {sample.key} cannot be read: {error}") from error
    if isinstance(value, list) and all(_is_name(item) for item in value):
        return [str(item) for item in value]
    if not _is_name(value):
        raise DataError(
            spec,
            f"the class of sample {sample.key} is {value!r}; expected text or a whole number in KEY.cls, or in "
            f"KEY.json under {' or '.join(LABEL_KEYS)}",
        )
    return str(value)


def _of_json(text: str) -> Any:
    """What a JSON file says: itself, or of an object what it has under a key of labels."""
    value = json.loads(text)
    if not isinstance(value, dict):
        return value
    return next((value[key] for key in LABEL_KEYS if key in value), None)


def _is_name(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or (isinstance(value, int) and not isinstance(value, bool))


def index_tar(spec: str, path: str, file: IO[bytes] | None = None) -> dict[str, Member | None]:
    """Files of a tar by name, in order; of two of one name the later counts, as when extracting.

    Raises:
        DataError: If it is no complete, uncompressed tar file.
        OSError: If it cannot be read.
    """
    try:
        return _index(path, file)
    except OSError:
        raise
    except Exception as error:  # a damaged header makes tarfile raise nearly anything, up to RecursionError
        inside = "" if path == spec else f"shard {path} "
        raise DataError(spec, f"{inside}is not a complete, uncompressed tar file: {error}") from error


def _index(path: str, file: IO[bytes] | None) -> dict[str, Member | None]:
    """Files by name; ``ReadError`` if it is no tar file or a damaged one."""
    members: dict[str, Member | None] = {}
    if file is not None:
        file.seek(0)
    with tarfile.open(path, "r:", fileobj=file) as archive:
        for info in archive:
            if archive.offset <= info.offset:  # of a negative size; tarfile would go round in a circle
                raise tarfile.ReadError(f"member {info.name!r} has a size of {info.size} bytes")
            if name := safe_name(info.name):
                name += "/" * info.isdir()
                members.pop(name, None)
                is_file = info.isreg() and not info.issparse()
                members[name] = Member(path, info.offset_data, info.size) if is_file else None
        last = f"after member {info.name!r}" if archive.getmembers() else "at the start"
        # tarfile takes a damaged header for the end; a whole archive ends with blocks of zeros.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it is damaged or cut {last}")
    return members


def safe_name(name: str) -> str:
    """The name of a member with forward slashes; empty for one that might lead out of a folder."""
    parts = PurePosixPath(name).parts
    return (
        "" if not parts or ".." in parts or parts[0].startswith("/") or _DRIVE.match(name) else "/".join(parts)
    )
