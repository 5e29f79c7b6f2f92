"""What a place holds: every file that a tracker wrote is recognised by its name and content."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from registry.errors import InvalidRecordError
from registry.experts.model_cards import CARD
from registry.trackers import mlflow, model_cards, training, wandb
from registry.trackers.runs import Run, unreadable

MAX_ENTRIES = 2_000_000
RECOGNISED = (
    "a database or folder mlruns of MLflow, run-*.wandb or an exported table of Weights & Biases, "
    "metrics.csv of Lightning, trainer_state.json, summary.csv of timm, results.csv of Ultralytics, "
    "metrics.json of DVCLive, a cv_results_ table of scikit-learn, or model cards"
)

_PASSED_OVER = {".git", ".venv", ".cache", "artifacts", "node_modules", "site-packages", "__pycache__"}
_HEAD = 2**16

Reader = tuple[str, Callable[[], Iterable[Run]]]


def read_place(place: Path) -> list[Run]:
    """The runs in a file or folder, in order of their places; one that cannot be read says so.

    Raises:
        InvalidRecordError: If the folder holds nothing that is recognised, or more than can be looked through.
        MissingExtraError: If PyYAML is not installed, and is needed.
    """
    runs: list[Run] = []
    for tracker, read in _readers(place):
        try:
            runs += read()
        except InvalidRecordError as err:
            runs.append(unreadable(tracker, err))
    if not runs:
        raise InvalidRecordError(f"{place}: there is no run of a tracker; expected {RECOGNISED}")
    return runs


def is_recognised(path: Path) -> bool:
    """Whether a file is one that a tracker wrote."""
    return any(True for _ in _of_file(path, path.parent))


def _readers(place: Path) -> Iterator[Reader]:
    if not place.is_dir():
        yield from _of_file(place, place.parent)
        return
    entries = 0
    for folder, below, files in os.walk(place):
        entries += len(below) + len(files)
        if entries > MAX_ENTRIES:
            raise InvalidRecordError(f"{place}: holds more than {MAX_ENTRIES} files; name a folder below it")
        below[:] = _folders_below(Path(folder), below, files)
        for name in sorted(files):
            yield from _of_file(Path(folder, name), place)
        if model_cards.EVALUATIONS in below and CARD not in files:
            yield model_cards.TRACKER, _lazy(model_cards.read_model, Path(folder), place)


def _folders_below(folder: Path, below: list[str], files: list[str]) -> list[str]:
    """Folders to look into; of the checkpoints of one run, the last, and none if the run has ended."""
    checkpoints = {name: int(match[1]) for name in below if (match := training.CHECKPOINT.fullmatch(name))}
    there = [name for name in checkpoints if (folder / name / "trainer_state.json").is_file()]
    last = max(there, key=checkpoints.__getitem__, default="")
    left = set(there) - ({last} if "trainer_state.json" not in files else set())
    return sorted(set(below) - left - _PASSED_OVER)


def _of_file(path: Path, root: Path) -> Iterator[Reader]:
    """What reads a file, if it is one of a tracker."""
    if not path.is_file():  # a pipe, or a link to nothing
        return
    match path.name:
        case "meta.yaml" if mlflow.is_run_folder(path):
            yield mlflow.TRACKER, _one(mlflow.read_folder, path)
        case "trainer_state.json":
            yield "Hugging Face Trainer", _one(training.read_trainer, path)
        case "metrics.json" if _has_beside(path, "params.yaml", "plots") or "dvclive" in path.parent.name:
            yield "DVCLive", _one(training.read_dvclive, path)
        case "README.md" if not _has_beside(path, "trainer_state.json"):
            yield model_cards.TRACKER, _lazy(model_cards.read_model, path.parent, root)
        case _ if path.suffix == ".wandb":
            yield wandb.TRACKER, _one(wandb.read_offline, path)
        case _ if path.suffix.casefold() in {".db", ".sqlite", ".sqlite3"} and mlflow.is_database(path):
            yield mlflow.TRACKER, _lazy(mlflow.read_database, path)
        case _ if path.suffix.casefold() == ".csv":
            yield from _of_table(path)


def _of_table(path: Path) -> Iterator[Reader]:
    """What reads a CSV file, by its header and what lies beside it."""
    try:
        with path.open("rb") as file:
            head = file.readline(_HEAD).decode("utf-8-sig", errors="replace")
    except OSError:
        return
    columns = {column.strip().strip('"') for column in head.split(",")}
    if training.is_search(columns):
        yield "scikit-learn", _lazy(training.read_search, path)
    elif wandb.is_table(columns):
        yield wandb.TRACKER, _lazy(wandb.read_table, path)
    elif path.name in training.LOGS:
        tracker, settings, prefix = training.LOGS[path.name]
        named = "epoch" in columns and any(column.startswith(prefix) for column in columns)
        if named or (tracker == "Lightning" and _has_beside(path, settings)):
            yield tracker, _one(training.read_log, path)


def _has_beside(path: Path, *names: str) -> bool:
    return any((path.parent / name).exists() for name in names)


def _one(read: Callable[[Path], Run], path: Path) -> Callable[[], Iterable[Run]]:
    return lambda: [read(path)]


def _lazy(read: Callable[..., Iterable[Run]], *arguments: Path) -> Callable[[], Iterable[Run]]:
    return lambda: read(*arguments)
