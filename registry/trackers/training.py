"""Runs that training libraries leave in a folder: a file of metrics, beside it one of settings.

None of them gives a run an id, so a run is known by what its files hold, wherever they lie.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.errors import InvalidRecordError
from registry.experts.model_cards import CARD, front_matter
from registry.experts.plain_files import read_bytes, read_json, read_rows, read_settings
from registry.trackers.runs import NOT_MEASURED, Metric, Run, content_id, flat, history, measured, settings

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
"""Folders of a Hugging Face Trainer that hold the state as it was at a step."""

LOGS = {
    "metrics.csv": ("Lightning", "hparams.yaml", "step"),  # of its CSVLogger
    "summary.csv": ("timm", "args.yaml", "eval_"),
    "results.csv": ("Ultralytics", "args.yaml", "metrics/"),
}
"""Files with a row for each step: what writes them, the settings beside them, and how some columns begin."""

_NO_METRICS = {"epoch", "step", "time", "timestamp", "runtime"}
_SCORE = re.compile(r"mean_(test_.+)")


def _named(tracker: str, folder: Path, run_id: str, values: dict[str, str], metrics: dict[str, Metric]) -> Run:
    """A run that is called by its folder and the one above, as ``pets/version_0``."""
    place = folder.resolve()
    name = f"{place.parent.name}/{place.name}"
    about = {"run:folder": place.name, "run:name": name}
    counting = {key: metric for key, metric in metrics.items() if key.casefold() not in _NO_METRICS}
    return Run(tracker, run_id, name, folder, about | values, counting)


def read_log(path: Path) -> Run:
    """A run of one of ``LOGS``."""
    tracker, name, _ = LOGS[path.name]
    beside = path.with_name(name)
    run_id = content_id(read_bytes(path), read_bytes(beside) if beside.is_file() else "")
    return _named(tracker, path.parent, run_id, settings(read_settings(beside)), history(path))


def read_dvclive(path: Path) -> Run:
    """A run of DVCLive: ``metrics.json``, ``params.yaml`` there or in the folder above, and its plots."""
    folder = path.parent
    metrics = measured((key, one) for key, one in flat(read_json(path), "", "/").items() if key != "step")
    for key, metric in metrics.items():
        plot = folder / "plots" / "metrics" / f"{key}.tsv"
        if plot.is_file() and not plot.is_symlink():
            steps = measured((key, list(row.values())[-1]) for row in read_rows(plot, "\t"))
            metrics[key] = steps.get(key, NOT_MEASURED).then(metric.last)
    values = settings(read_settings(folder / "params.yaml", folder.parent / "params.yaml"))
    run_id = content_id(read_bytes(path), repr(sorted(values.items())))
    return _named("DVCLive", folder, run_id, values, metrics)


def read_trainer(path: Path) -> Run:
    """A run of a Hugging Face Trainer: ``trainer_state.json``; what it was made from, of the files beside it.

    Raises:
        InvalidRecordError: If it has no history.
    """
    log = read_json(path).get("log_history")
    if not isinstance(log, list):
        raise InvalidRecordError(f"{path}: has no log_history")
    metrics = measured(pair for step in log if isinstance(step, dict) for pair in step.items())
    folder = path.parent.parent if CHECKPOINT.fullmatch(path.parent.name) else path.parent
    return _named("Hugging Face Trainer", folder, content_id(read_bytes(path)), _origin(folder), metrics)


def _origin(folder: Path) -> dict[str, str]:
    """What a trained model was made from, by its card and its configuration."""
    card, config = folder / CARD, folder / "config.json"
    said: dict[str, Any] = front_matter(card) if card.is_file() else {}
    values = {"base_model": _first(said.get("base_model")), "dataset": _first(said.get("datasets"))}
    if config.is_file() and not values["base_model"]:
        values["base_model"] = read_json(config).get("_name_or_path")
    return settings(values)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def is_search(columns: set[str]) -> bool:
    """Whether a CSV file is a table ``cv_results_`` of scikit-learn."""
    return {"mean_fit_time", "params"} <= columns and any(map(_SCORE.fullmatch, columns))


def read_search(path: Path) -> Iterator[Run]:
    """A run for each row of ``cv_results_``: its parameters, and the means of its scores over folds."""
    for line, row in enumerate(read_rows(path), 2):
        values = {key.removeprefix("param_"): cell for key, cell in row.items() if key.startswith("param_")}
        yield Run(
            "scikit-learn",
            content_id(*(f"{key}={row[key]}" for key in sorted(row))),
            f"line {line}",
            path,
            settings(values) | {"run:name": path.stem},
            measured((match[1], cell) for key, cell in row.items() if (match := _SCORE.fullmatch(key))),
            protocol="cross_validation",
        )
