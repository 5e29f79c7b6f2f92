"""Files that are tables in another form: JSON as tools and libraries write it, and lists of images.

[{"image": "1.png", "label": "cat"}, ...]       a list of objects, or an object of columns
{"1.png": "cat", ...}                           a label by image
{"images": [], "annotations": [], ...}          COCO, such as instances_train2017.json or iNaturalist
[{"data": {"image": ...}, "annotations": []}]   Label Studio
1.png cat                                       a line for each image in a .txt
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from indexer.errors import DataError
from indexer.tables.delimited import encoding_of, lines_of, opened

MAX_BYTES = 2**30
_FEW = 20

Rows = list[dict[str, Any]]


def json_rows(spec: str, encoding: str | None) -> tuple[Rows, tuple[str, ...]]:
    """Rows of a JSON file by column, and what it was taken for, in sentences.

    Raises:
        DataError: If it is no JSON, or none of the forms above.
    """
    encoding, taken = encoding_of(spec, encoding)
    try:
        with opened(spec) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(
                spec, f"is larger than {MAX_BYTES} bytes; write it as JSON Lines, one object a line"
            )
        rows, said = _rows_of(json.loads(content.decode(encoding)))
    except (ValueError, RecursionError) as error:
        raise DataError(spec, f"is no JSON: {error}") from error
    except (KeyError, TypeError, AttributeError, LookupError) as error:
        raise DataError(spec, f"{_FORMS}: {type(error).__name__}: {error}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(spec, _FORMS)
    return rows, (*taken, *said)


_FORMS = (
    "is JSON of no known form; expected a list of objects such as "
    '[{"path": "1.png", "label": "cat"}], labels by image, COCO or Label Studio'
)


def _rows_of(held: Any) -> tuple[Rows, tuple[str, ...]]:
    if isinstance(held, dict) and {"images", "annotations", "categories"} <= held.keys():
        return _coco(held), ("COCO annotations, all categories of an image as its labels",)
    if isinstance(held, dict):
        lists = next((value for value in held.values() if isinstance(value, list)), None)
        if lists is not None and all(isinstance(v, list) and len(v) == len(lists) for v in held.values()):
            if len(held) > 1:
                return [dict(zip(held, cells, strict=True)) for cells in zip(*held.values(), strict=True)], ()
            held = lists
        elif all(isinstance(value, str | int | float | bool) for value in held.values()):
            return [{"path": name, "label": value} for name, value in held.items()], ("labels by image",)
        elif all(isinstance(value, dict) for value in held.values()):
            held = [{"path": name, **value} for name, value in held.items()]
    if held and isinstance(held[0], dict) and isinstance(held[0].get("data"), dict):
        return [_task(one) for one in held], ("the choices of Label Studio as the labels",)
    return held if isinstance(held, list) else [], ()


def _coco(held: dict[str, Any]) -> Rows:
    """A row for each image; one without a category has an empty label."""
    names = {one["id"]: str(one["name"]).replace("|", "/") for one in held["categories"]}
    labels: dict[Any, dict[str, None]] = {one["id"]: {} for one in held["images"]}
    for one in held["annotations"]:
        labels[one["image_id"]][names[one["category_id"]]] = None
    return [{"path": one["file_name"], "label": "|".join(labels[one["id"]])} for one in held["images"]]


def _task(one: dict[str, Any]) -> dict[str, Any]:
    """A task of Label Studio; of a file that was uploaded, the name without what was put before it."""
    sample, value = next(iter(one["data"].items()))
    is_image = sample != "text"
    named = PurePosixPath(value.replace("\\", "/")).name if is_image else value
    if "/upload/" in value and is_image:
        named = named.partition("-")[2] or named
    labels: dict[str, None] = {}
    for said in (one.get("annotations") or [{}])[0].get("result", ()):
        choices = next((v for v in said["value"].values() if isinstance(v, list)), [])
        labels |= dict.fromkeys(map(str, choices))
    return {"path" if is_image else "text": named, "label": "|".join(labels)}


def list_rows(spec: str, encoding: str | None) -> tuple[Rows, tuple[str, ...]]:
    """Rows of lines such as ``a/1.png cat``: the first word is the path, the rest is the label.

    Where all that follows is whole numbers, equally many on each line, the first of them is the label.

    Raises:
        DataError: If a line has no label.
    """
    encoding, taken = encoding_of(spec, encoding)
    lines = [(line, text.split()) for line, text in _told(spec, encoding)]
    for line, words in lines:
        if len(words) < 2:
            raise DataError(spec, f"line {line}: expected a path and a label, such as a/1.png cat")
    widths = {len(words) for _, words in lines}
    if len(widths) == 1 and all(word.lstrip("-").isdigit() for _, words in lines for word in words[1:]):
        names = ("path", "label", *map(str, range(3, max(widths) + 1)))
        return [dict(zip(names, words, strict=True)) for _, words in lines], taken
    return [{"path": words[0], "label": " ".join(words[1:])} for _, words in lines], taken


def _told(spec: str, encoding: str) -> Iterator[tuple[int, str]]:
    for line, text in enumerate(lines_of(spec, encoding), start=1):
        if text.strip() and not text.startswith("#"):
            yield line, text


def first_words(content: bytes) -> Sequence[str]:
    """The first words of the first lines that have two or more; none where the file is no such list."""
    lines = content[:4096].decode("utf-8-sig", errors="replace").splitlines()[: _FEW + 1]
    words = [line.split() for line in lines[:_FEW] if line.strip() and not line.startswith("#")]
    return [one[0] for one in words] if all(len(one) > 1 for one in words) else []
