"""Shards of webdataset: members of one key are one sample, ``KEY.jpg`` or ``KEY.txt`` with its class.

The class is what ``KEY.cls`` holds, or the value of ``label`` or ``cls`` in the object of ``KEY.json``; a list
there makes a set of several labels. A key ends at the first dot of a file's name. The shards are read in place,
so that a class-balanced sample costs no more than the files in it; the library webdataset streams shards from
their start to their end.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from indexer.errors import DataError
from indexer.images import is_image_name
from indexer.listings import Dataset, Entry, printable, read_file
from indexer.records import Content, Kind
from indexer.tars import Member

TEXT_SUFFIX = ".txt"
CLASS_SUFFIXES = (".cls", ".json")
LABEL_KEYS = ("label", "cls")
MAX_CLASS_BYTES = 2**16
"""Of a file that holds a class."""

Shards = Mapping[str, Mapping[str, Member]]
"""By path of the tar, its files by name."""


class _Sample(NamedTuple):
    """Where a sample lies, and where its class does; ``key`` is for messages."""

    key: str
    member: Member
    labelled_by: Member
    is_json: bool


def is_webdataset(shards: Shards) -> bool:
    """Whether classes are files beside the samples, rather than folders around them."""
    has_json = False
    for members in shards.values():
        for name in members:
            if name.lower().endswith(".cls"):
                return True
            has_json = has_json or name.lower().endswith(".json")
    in_folder = any("/" in name for members in shards.values() for name in members if is_image_name(name))
    return has_json and not in_folder


def open_webdataset(spec: str, shards: Shards, split: str | None) -> Dataset:
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
    found = [_labels(spec, sample) for sample in samples]
    kind: Kind = "multi_label" if any(isinstance(labels, list) for labels in found) else "single_label"
    names = [labels if isinstance(labels, list) else [labels] for labels in found]
    class_names = sorted({name for labels in names for name in labels})
    label_of = {name: label for label, name in enumerate(class_names)}
    content: Content = "images" if images else "texts"
    entries = [
        Entry(sample.key, sample.member, tuple(sorted(label_of[name] for name in set(labels))))
        for sample, labels in zip(samples, names, strict=True)
    ]
    return Dataset(
        spec=spec,
        kind=kind,
        class_names=tuple(printable(name) for name in class_names),
        scan=lambda: entries,
        size=lambda entry: int(entry.where.size),
        read=lambda entry: read_file(*entry.where),
        content=content,
    )


def _samples(spec: str, shards: Shards, *, images: bool) -> Iterator[_Sample]:
    """Every sample with what tells its class.

    Raises:
        DataError: If there is nothing that does.
    """
    for path, members in shards.items():
        inside = "" if len(shards) == 1 else f"{PurePosixPath(path).name}/"
        by_key: dict[str, dict[str, Member]] = {}
        for name, member in members.items():
            folder, slash, file = name.rpartition("/")
            stem, _, suffix = file.partition(".")
            by_key.setdefault(f"{folder}{slash}{stem}", {})[f".{suffix.lower()}"] = member
        for key, files in by_key.items():
            wanted = [
                suffix for suffix in files if (is_image_name(suffix) if images else suffix == TEXT_SUFFIX)
            ]
            if not wanted:
                continue
            told_by = [suffix for suffix in CLASS_SUFFIXES if suffix in files]
            if not told_by:
                raise DataError(
                    spec, f"sample {inside}{key} has neither {key}.cls nor {key}.json with its class"
                )
            yield _Sample(f"{inside}{key}", files[wanted[0]], files[told_by[0]], told_by[0] == ".json")


def _labels(spec: str, sample: _Sample) -> str | list[str]:
    """The class of a sample, or its several labels.

    Raises:
        DataError: If it is not understood.
    """
    member = sample.labelled_by
    if member.size > MAX_CLASS_BYTES:
        raise DataError(
            spec,
            f"the class of sample {sample.key} has {member.size} bytes; at most {MAX_CLASS_BYTES} are read",
        )
    try:
        text = read_file(*member).decode().strip()
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
    found = json.loads(text)
    if not isinstance(found, dict):
        return found
    return next((found[key] for key in LABEL_KEYS if key in found), None)


def _is_name(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or (isinstance(value, int) and not isinstance(value, bool))
