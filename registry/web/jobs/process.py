"""The process that runs one job: reads a command from stdin, and reports progress and outcome on stdout.

Both are lines of JSON. The process ends by itself when the server does, which it notices by the end of stdin.
Whatever a library prints goes to stderr.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.core import TaskRegistry
from registry.errors import RegistryError
from registry.faces import documents
from registry.options import DEFAULT_DISTANCE, Progress, in_fields, spelled
from registry.web.jobs.requests import DATA_OPTIONS
from registry.web.uploads.roots import allowed_path
from registry.wording import INTERNAL

Report = Callable[[dict[str, Any]], None]
REPORT_SECONDS = 0.1


def main() -> None:
    """Run the job of the first line of stdin."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def report(message: dict[str, Any]) -> None:
        with lock:
            out.write(json.dumps(message) + "\n")
            out.flush()

    command = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    try:
        report({"result": run(command, _throttled(report))})
    except RegistryError as error:
        report({"error": _named(str(error), command)})
    except MemoryError:
        report({"error": "there is not enough memory for this; ask for fewer samples"})
    except Exception:
        traceback.print_exc()  # to the log of the server
        report({"error": INTERNAL})


def run(command: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Carry out the command of a job.

    Args:
        command: ``uri`` and ``builtin`` of the registry; ``kind``, ``name``, ``tags`` and ``options`` of the
            job; ``task``, or ``path`` with ``roots`` if it must lie below these and ``label`` for readers;
            ``vectors``, the file for the vectors of an embedding.
        progress: Called as ``progress(stage, done, total)``.
    """
    registry = TaskRegistry(command["uri"], builtin=command["builtin"])
    options = dict(command["options"])
    if options.get("value_range") is not None:
        options["value_range"] = tuple(options["value_range"])
    if command.get("roots") is not None:
        allowed_path(command["path"], [Path(root) for root in command["roots"]])
    if command["kind"] == "add_task":
        added = registry.add_task(
            command["name"], command["path"], tags=command["tags"], progress=progress, **options
        )
        return {"task": _named(documents.to_values(added), command)}
    asked = {name: value for name, value in options.items() if name not in DATA_OPTIONS}
    reading = {name: value for name, value in options.items() if name in DATA_OPTIONS}
    result: dict[str, Any] = {"embedding": None}
    query: Any = command.get("task")
    if query is None:
        query = registry.embed_in(command["path"], asked.pop("probe", None), progress=progress, **reading)
        _save(query, Path(command["vectors"]))
        result["embedding"] = documents.of_embedding(query)
        reading = {}
    if command["kind"] == "recommend":
        result["recommendation"] = registry.recommend(query, progress=progress, **asked, **reading)
        asked = {"probe": asked["probe"]} if "probe" in asked else {}
        reading = {}
    distance = asked.get("distance", DEFAULT_DISTANCE)
    compared, neighbors = registry.nearest(query, progress=progress, **asked, **reading)
    result["neighbors"] = documents.of_neighbors(compared, distance, neighbors)
    values: dict[str, Any] = _named(documents.to_values(result), command)
    return values


def _save(embedding: Any, path: Path) -> None:
    """Write the vectors and the contact sheet, without pickled objects."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = embedding.sheet
    shown: dict[str, Any] = {}
    if sheet:
        shown = {"sheet": np.frombuffer(sheet.image, np.uint8), "columns": sheet.columns, "rows": sheet.rows}
    with path.open("wb") as file:
        np.savez(
            file,
            fisher=embedding.fisher,
            standard_error=embedding.standard_error,
            domain=embedding.domain,
            **shown,
        )


def _named(value: Any, command: dict[str, Any]) -> Any:
    """A document with the label of the data in place of its folder on this server, and options as fields."""
    path, label = command.get("path"), command.get("label")
    value = spelled(value, in_fields)
    return _replaced(value, path, label) if path and label else value


def _replaced(value: Any, path: str, label: str) -> Any:
    if isinstance(value, str):
        return value.replace(path, label)
    if isinstance(value, dict):
        return {key: _replaced(item, path, label) for key, item in value.items()}
    return [_replaced(item, path, label) for item in value] if isinstance(value, list) else value


def _throttled(report: Report) -> Progress:
    """Progress as messages: the first and the last of each stage, and ten a second between."""
    last: tuple[str, float] = ("", 0.0)

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if stage != last[0] or done >= total or now - last[1] >= REPORT_SECONDS:
            last = (stage, now)
            report({"progress": {"stage": stage, "done": done, "total": total}})

    return progress


def _end_with_the_server() -> None:
    """End once stdin does, as the server closed it or was killed; read without its buffer, which has a lock."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
