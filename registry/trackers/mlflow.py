"""Runs of MLflow: its SQLite database, and the folder ``mlruns`` that it wrote before it had one."""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from registry.errors import InvalidRecordError
from registry.experts.plain_files import read_bytes, read_settings, read_text
from registry.trackers.runs import NOT_MEASURED, Metric, Run, dataset_values, day, measured, number, settings

TRACKER = "MLflow"
SQLITE = b"SQLite format 3\0"
MAX_TEXT = 2**24

_STATUS = dict(zip("12345", ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"), strict=True))
_LEFT_OUT = {"RUNNING": "not finished", "SCHEDULED": "not finished", "FAILED": "failed", "KILLED": "killed"}
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


def is_database(path: Path) -> bool:
    """Whether a file is a database of MLflow, or one that is damaged, which reading it says."""
    try:
        with path.open("rb") as file:
            if file.read(len(SQLITE)) != SQLITE:
                return False
        with closing(_opened(path)) as database:
            return {"runs", "latest_metrics", "params", "experiments"} <= _tables(database)
    except OSError:
        return False
    except (sqlite3.Error, ValueError):
        return True


def _opened(path: Path) -> sqlite3.Connection:
    """A database that nothing is written to, beside it neither unless another program is writing it now."""
    written = path.with_name(path.name + "-wal")
    mode = "mode=ro" if written.is_file() and written.stat().st_size else "mode=ro&immutable=1"
    database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?{mode}", uri=True)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT)
    database.text_factory = lambda text: text.decode("utf-8", errors="replace")
    database.execute("PRAGMA trusted_schema = OFF")
    return database


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def read_database(path: Path) -> list[Run]:
    """The runs of a database; ``InvalidRecordError`` if it is damaged, or not as MLflow makes one."""
    try:
        with closing(_opened(path)) as database:
            return list(_runs(path, database))
    except (sqlite3.Error, ValueError, TypeError) as err:
        raise InvalidRecordError(f"{path}: cannot be read as a database of MLflow: {err}") from err


def _runs(path: Path, database: sqlite3.Connection) -> Iterator[Run]:
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    for kind, table in (("param", "params"), ("tag", "tags")):
        for run, key, value in database.execute(f"SELECT run_uuid, key, value FROM {table}"):
            values[run][f"{kind}:{key}"] = value
    extremes = "SELECT run_uuid, key, MIN(value), MAX(value) FROM metrics WHERE NOT is_nan GROUP BY 1, 2"
    ranges = {(run, key): (low, high) for run, key, low, high in database.execute(extremes)}
    metrics: dict[str, dict[str, Metric]] = defaultdict(dict)
    for run, key, value, is_nan in database.execute("SELECT run_uuid, key, value, is_nan FROM latest_metrics"):
        last = float("nan") if is_nan else float(value)
        metrics[run][str(key)] = Metric(last, *ranges.get((run, key), NOT_MEASURED[1:]))
    datasets: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    if {"inputs", "input_tags", "datasets"} <= _tables(database):  # which versions before 2.4 had not
        for run, name, digest, context in database.execute(_DATASETS):
            datasets[run].append((str(name), str(digest), str(context or "")))
    for run, name, user, status, start, stage, experiment, experiment_stage in database.execute(_RUNS):
        about = {"run:name": name, "run:experiment": experiment, "run:user": user}
        is_deleted = "deleted" in {stage, experiment_stage}
        yield _run(
            path, str(run), values[run] | about, metrics[run], datasets[run], str(status), start, is_deleted
        )


_DATASETS = """
    SELECT i.destination_id, d.name, d.digest, t.value FROM inputs i
    JOIN datasets d ON d.dataset_uuid = i.source_id
    LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = 'mlflow.data.context'
    WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN'
"""
_RUNS = """
    SELECT run_uuid, r.name, user_id, status, start_time, r.lifecycle_stage, e.name, e.lifecycle_stage
    FROM runs r LEFT JOIN experiments e ON r.experiment_id = e.experiment_id ORDER BY start_time, run_uuid
"""


def _run(
    place: Path,
    run_id: str,
    values: dict[str, Any],
    metrics: dict[str, Metric],
    datasets: list[tuple[str, str, str]],
    status: str,
    start: Any,
    is_deleted: bool,
) -> Run:
    """A run, from either place; MLflow's own tags say who, what and of which run it is a part."""
    texts = settings(values, "") | dataset_values(datasets)
    milliseconds = number(start)
    return Run(
        TRACKER,
        run_id,
        texts.get("run:name") or texts.get("tag:mlflow.runName") or run_id,
        place,
        {key: text for key, text in texts.items() if not key.startswith("tag:mlflow.")},
        metrics,
        user=texts.get("tag:mlflow.user") or texts.get("run:user", ""),
        date="" if milliseconds is None else day(milliseconds / 1000),
        parent=texts.get("tag:mlflow.parentRunId", ""),
        left_out="deleted" if is_deleted else _LEFT_OUT.get(_STATUS.get(status, status), ""),
    )


def is_run_folder(meta: Path) -> bool:
    """Whether a ``meta.yaml`` is that of a run; those of experiments, datasets and models are not."""
    return re.search("^run_(uu)?id:", read_text(meta), re.MULTILINE) is not None


def read_folder(meta: Path) -> Run:
    """The run of a ``meta.yaml`` in ``mlruns``; ``InvalidRecordError`` if a file cannot be read."""
    folder, about = meta.parent, read_settings(meta)
    experiment = read_settings(folder.parent / "meta.yaml")
    values: dict[str, Any] = {
        f"{kind}:{key}": read_text(path)
        for kind in ("param", "tag")
        for key, path in _files(folder / f"{kind}s")
    }
    named = {"name": about.get("run_name"), "experiment": experiment.get("name"), "user": about.get("user_id")}
    stages = {about.get("lifecycle_stage"), experiment.get("lifecycle_stage")}
    return _run(
        folder,
        str(about.get("run_id") or about.get("run_uuid") or folder.name),
        values | {f"run:{key}": str(value or "") for key, value in named.items()},
        {key: _steps(read_bytes(path).splitlines()) for key, path in _files(folder / "metrics")},
        list(_inputs(folder)),
        str(about.get("status")),
        about.get("start_time"),
        "deleted" in stages or ".trash" in folder.parts,
    )


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder by the way to them, which is the name of a metric such as ``val/acc``."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def _steps(lines: Iterable[bytes]) -> Metric:
    """A metric from lines of time, value and step; the last is that of the highest step."""
    rows = [[number(word.decode("ascii", errors="replace")) for word in line.split()] for line in lines]
    good = [row for row in rows if len(row) > 1 and None not in row]
    good.sort(key=lambda row: (row[2] if len(row) > 2 else 0.0, row[0]))  # of a step, then of its time
    return measured(("", row[1]) for row in good).get("", NOT_MEASURED)


def _inputs(folder: Path) -> Iterator[tuple[str, str, str]]:
    for meta in sorted((folder / "inputs").glob("*/meta.yaml")):
        about = read_settings(meta)
        source, tags = str(about.get("source_id")), about.get("tags")
        if about.get("source_type") == "DATASET" and _ID.fullmatch(source):
            dataset = read_settings(folder.parent / "datasets" / source / "meta.yaml")
            context = tags.get("mlflow.data.context") if isinstance(tags, dict) else ""
            yield str(dataset.get("name", "")), str(dataset.get("digest", "")), str(context or "")
