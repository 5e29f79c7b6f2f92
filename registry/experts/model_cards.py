"""Model cards of Hugging Face: what the YAML at the head of a README.md says.

A card may be from anybody: what is not of the form that the hub describes is left out and reported.
``huggingface_hub.ModelCard`` does not serve (checked with 2.4): it follows aliases, drops all results of a card
for one that is not of that form, and comes with libraries that a folder of cards does not need.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import InvalidRecordError
from registry.experts.yaml_files import read_yaml

CARD = "README.md"
MAX_CARD_BYTES = 2**23  # evaluations of a benchmark fill some cards with megabytes

METRICS = {
    "accuracy": "accuracy",
    "acc": "accuracy",
    "top1accuracy": "accuracy",
    "accuracytop1": "accuracy",
    "acc1": "accuracy",
    "balancedaccuracy": "balanced_accuracy",
    "f1": "f1",
    "f1macro": "macro_f1",
    "macrof1": "macro_f1",
    "f1micro": "micro_f1",
    "precision": "precision",
    "recall": "recall",
    "rocauc": "roc_auc",
    "auc": "roc_auc",
    "map": "mean_average_precision",
    "meanaverageprecision": "mean_average_precision",
}
"""Metrics that are stored, by the letters and digits of what cards call them: shares that rise with quality."""

GENERIC_DATASETS = {"imagefolder", "generic", "csv", "json", "parquet", "text", "webdataset", "arrow"}
"""Ways of loading, which stand where the type of a dataset should."""

_WHOLE = {"", "default", "plaintext", "full", "all"}  # configurations that are the whole of a dataset
_LICENSE = re.compile(r"[\w.+-]{1,64}", re.ASCII)
_SEPARATOR = re.compile(r"^---[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True)
class CardResult:
    """A score that a card reports."""

    datasets: tuple[str, ...]  # names that the dataset goes by, the most exact first
    split: str  # split that it was measured on; empty if it is not said
    metric: str  # one of the values of ``METRICS``
    accuracy: float  # 0 to 1; what is above 1 in the card is taken as percent


@dataclass(frozen=True)
class ModelCard:
    """What a card says of a model; what it does not say is empty."""

    license: str = ""  # SPDX identifier, or what a licence without one is called
    datasets: tuple[str, ...] = ()  # datasets that it was trained on, as named on the hub
    base_models: tuple[str, ...] = ()
    pipeline_tag: str = ""
    tags: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    results: tuple[CardResult, ...] = ()  # scores of its ``model-index``
    left_out: tuple[str, ...] = ()  # what was not understood, in words


def read_card(path: Path) -> ModelCard:
    """The card in a README.md.

    Raises:
        InvalidRecordError: If the file cannot be read, or its head is not YAML that may stand there.
        MissingExtraError: If PyYAML is not installed.
    """
    values = front_matter(path)
    results, left_out = _results(values.get("model-index"))
    license = _license(values)
    if license and not _LICENSE.fullmatch(license):
        left_out.append("its licence is no identifier such as apache-2.0")
        license = ""
    tag = values.get("pipeline_tag")
    return ModelCard(
        license=license,
        datasets=_words(values.get("datasets")),
        base_models=_words(values.get("base_model")),
        pipeline_tag=tag if isinstance(tag, str) else "",
        tags=_words(values.get("tags")),
        metrics=_words(values.get("metrics")),
        results=tuple(results),
        left_out=tuple(left_out),
    )


def letters_of(name: str) -> str:
    """Letters and digits of a name in lower case, by which names are compared."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def front_matter(path: Path) -> dict[str, Any]:
    """The values between the first two lines of ``---``; none if the file does not begin with one.

    Raises:
        InvalidRecordError: If they cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CARD_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        reason = "it is not UTF-8 text" if isinstance(err, UnicodeDecodeError) else err.strerror or err
        raise InvalidRecordError(f"{path}: the model card cannot be read: {reason}") from err
    if len(content) > MAX_CARD_BYTES:
        raise InvalidRecordError(f"{path}: the model card is larger than {MAX_CARD_BYTES} bytes")
    begin = _SEPARATOR.match(text)
    if begin is None:
        return {}
    end = _SEPARATOR.search(text, begin.end())
    if end is None:
        raise InvalidRecordError(f"{path}: the YAML at its head has no end; expected a second line ---")
    values = read_yaml(path, text[begin.end() : end.start()], "the head of the model card")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidRecordError(
            f"{path}: the YAML at its head must be names with values, such as license: mit"
        )
    return values


def _words(value: Any) -> tuple[str, ...]:
    """Texts of a list, or the one that stands alone."""
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(word.strip() for word in values if isinstance(word, str) and word.strip()))


def _license(values: dict[str, Any]) -> str:
    """The licence; the name that one without an identifier has."""
    first = next(iter(_words(values.get("license"))), "").lower()
    if first == "other":
        return next(iter(_words(values.get("license_name"))), first).lower()
    return "" if first == "unknown" else first


def _results(index: Any) -> tuple[list[CardResult], list[str]]:
    """Scores of a ``model-index``, and what of it is left out."""
    results: list[CardResult] = []
    left_out: list[str] = []
    models = index if isinstance(index, list) else [index]
    for model in models if index is not None else ():
        entries = model.get("results") if isinstance(model, dict) else None
        if not isinstance(entries, list):
            left_out.append("its model-index has a model without a list of results")
            continue
        for number, entry in enumerate(entries, 1):
            try:
                results += _scores(entry)
            except (ValueError, TypeError, KeyError, AttributeError) as err:
                reason = (
                    err if type(err) is ValueError else "it has no dataset with a name, or no list of metrics"
                )
                left_out.append(f"result {number} of its model-index is left out: {reason}")
    return results, left_out


def _scores(entry: Any) -> Iterator[CardResult]:
    """Scores of an entry that are shares, others passed over; ``ValueError`` if one is out of range."""
    dataset, split = names_of(entry["dataset"]), entry["dataset"].get("split") or ""
    for metric in entry["metrics"]:
        name = METRICS.get(letters_of(str(metric["type"])))
        if name is None:
            continue
        try:
            value = float(metric["value"])
        except (ValueError, TypeError):
            value = math.nan
        share = value / 100 if value > 1 else value
        if isinstance(metric["value"], bool) or not 0 <= share <= 1:
            raise ValueError(f"{name} must be from 0 to 1 or in percent, got {str(metric['value'])[:40]!r}")
        yield CardResult(dataset, str(split), name, share)


def names_of(dataset: dict[str, Any]) -> tuple[str, ...]:
    """Names of a dataset, or of the part of it that was used; ``ValueError`` if it has none."""
    kind, name = str(dataset.get("type") or ""), str(dataset.get("name") or "")
    part = str(dataset.get("config") or dataset.get("args") or "")
    kinds = [kind, kind.rpartition("/")[2]] if letters_of(kind) not in GENERIC_DATASETS else []
    if letters_of(part) not in {*_WHOLE, *map(letters_of, kinds)}:
        kinds = [f"{one}-{part}" for one in kinds]
    names = [*kinds, name] if letters_of(name) not in GENERIC_DATASETS else kinds
    if not (distinct := tuple(dict.fromkeys(filter(letters_of, names)))):
        raise ValueError("its dataset has no name but that of a way to load files")
    return distinct
