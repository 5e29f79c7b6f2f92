"""Runs of Weights & Biases: the files of offline runs, and tables that its pages and API export as CSV.

A file ``run-ID.wandb`` is a log of blocks of 32 KiB; a record is one chunk or several, each with 7 bytes before
it: a checksum, the length, and whether it is whole, first, middle or last. Records are protobuf messages, of
which few fields are read here.

Source: wandb 0.31, ``wandb/proto/wandb_internal.proto``, and the log format of LevelDB.
"""

import ast
import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.errors import InvalidRecordError
from registry.experts.plain_files import read_bytes, read_rows
from registry.trackers.runs import NOT_MEASURED, Metric, Run, content_id, day, flat, number, settings

TRACKER = "Weights & Biases"
BLOCK, HEAD = 2**15, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
MAX_CELL, MAX_LOG_BYTES = 2**17, 2**30

_LOG = re.compile(rb":W&B.{3}", re.DOTALL)


def read_offline(path: Path) -> Run:
    """The run of a file ``run-ID.wandb``; ``InvalidRecordError`` if it is no such file, or damaged."""
    about: dict[int, list[Any]] = {}
    values: dict[str, Any] = {}
    steps, summary = dict[str, Metric](), dict[str, Metric]()
    user, exits = "", []
    try:
        for record in _records(path, read_bytes(path, MAX_LOG_BYTES)):
            for kind, message in record.items():
                match kind:
                    case 17:  # the run
                        about = _fields(message[-1])
                        values |= _items(about.get(4, []))
                    case 5:  # its configuration
                        values |= _items(message)
                    case 2:  # a step of its history
                        _add_step(steps, _items(message))
                    case 3:  # its summary
                        _add_step(summary, _items(message))
                    case 26:  # where it ran
                        user = user or _text(_fields(message[-1]), 13)
                    case 18:  # how it ended
                        exits += [_fields(message[-1]).get(1, [0])[-1]]
    except (struct.error, LookupError, TypeError, AttributeError) as err:
        raise InvalidRecordError(f"{path}: is damaged: {err}") from err
    run_id = _text(about, 1) or path.stem.removeprefix("run-")
    named = {"name": _text(about, 8), "project": _text(about, 3), "group": _text(about, 6)}
    start = _fields(about[17][-1]) if 17 in about else {}
    values.pop("_wandb", None)
    return Run(
        TRACKER,
        run_id,
        named["name"] or run_id,
        path,
        settings(values)
        | settings(named, "run:")
        | {f"tag:{tag.decode(errors='replace')}": "true" for tag in about.get(10, [])},
        summary | steps,  # what was logged at steps, then what only the summary says
        user=user or _text(about, 2),
        date=day(start.get(1, [""])[-1]),
        left_out="" if exits[-1:] == [0] else "failed" if exits else "not finished",
    )


def _add_step(steps: dict[str, Metric], items: dict[str, Any]) -> None:
    for name, value in flat(items, "").items():
        if (given := number(value)) is not None and not name.startswith("_"):
            steps[name] = steps.get(name, NOT_MEASURED).then(given)


def _records(path: Path, log: bytes) -> Iterator[dict[int, list[Any]]]:
    """The records of a log; one that is cut off at the end, as of a process that was killed, is not there.

    Raises:
        InvalidRecordError: If a checksum is not that of its chunk.
    """
    if not _LOG.match(log):
        raise InvalidRecordError(f"{path}: is no log of Weights & Biases")
    record, at = b"", HEAD
    while at + HEAD <= len(log):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", log, at)
        chunk = log[at + HEAD : at + HEAD + length]
        if len(chunk) < length:
            return
        if zlib.crc32(chunk, zlib.crc32(bytes([kind]))) != checksum or not WHOLE <= kind <= LAST:
            raise InvalidRecordError(f"{path}: is damaged at byte {at}")
        record = chunk if kind in {WHOLE, FIRST} else record + chunk
        at += HEAD + length
        if kind in {WHOLE, LAST}:
            yield _fields(record)


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Values of a protobuf message by number of the field: whole numbers, or bytes."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(message, at)
        else:
            length, at = _varint(message, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            value = message[at : at + length]
            at += length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value, at


def _text(fields: dict[int, list[Any]], number: int) -> str:
    value = fields.get(number, [b""])[-1]
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _items(messages: list[bytes]) -> dict[str, Any]:
    """Names with values of the items in some messages: of the configuration, history or summary."""
    items: dict[str, Any] = {}
    for message in messages:
        for item in map(_fields, _fields(message).get(1, [])):
            nested = [part.decode(errors="replace") for part in item.get(2, [])]
            items[".".join(nested) or _text(item, 1)] = _value(item)
    return items


def _value(item: dict[int, list[Any]]) -> Any:
    """The value of an item: a number as it is, or JSON."""
    if 6 in item:
        return struct.unpack("<d", item[6][-1])[0]
    if 5 in item:
        return (item[5][-1] >> 1) ^ -(item[5][-1] & 1)
    text = _text(item, 16) or _text(item, 8)
    try:
        return json.loads(text) if text else _text(item, 7)
    except (ValueError, RecursionError):
        return text


def is_table(columns: set[str]) -> bool:
    """Whether a CSV file is what the pages of Weights & Biases export, or what its documentation makes."""
    by_page = columns >= {"Name", "State"} and bool(columns & {"Created", "Runtime", "User"})
    return by_page or columns >= {"summary", "config", "name"}


def read_table(path: Path) -> Iterator[Run]:
    """A run for each row of an exported table; cells are values, and metrics where they are numbers."""
    for line, row in enumerate(read_rows(path), 2):
        config, summary = (_literal(row.get(key, "")) for key in ("config", "summary"))
        if "State" in row:
            config = summary = row
        made = [row["Created"]] if row.get("Created") else [f"{key}={row[key]}" for key in sorted(row)]
        state = row.get("State", "finished").casefold()
        metrics: dict[str, Metric] = {}
        _add_step(metrics, summary)
        yield Run(
            TRACKER,
            row.get("ID") or row.get("id") or content_id(row.get("Name", ""), *made),
            row.get("Name") or row.get("name") or f"line {line}",
            path,
            settings(config) | settings({"group": row.get("Group"), "name": row.get("Name")}, "run:"),
            metrics,
            user=row.get("User", ""),
            date=row.get("Created", "")[:10],
            left_out="" if state == "finished" else state or "of no state",
        )


def _literal(cell: str) -> dict[str, Any]:
    """A dictionary as Python prints it; what is not finite is left out."""
    try:
        value = ast.literal_eval(re.sub(r":\s*-?(nan|inf)\b", ": None", cell[:MAX_CELL])) if cell else {}
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return {}
    return value if isinstance(value, dict) else {}
