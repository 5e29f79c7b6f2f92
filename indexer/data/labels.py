"""Labels of a drawn sample as an array, and what makes a task of them.

Axes: n samples drawn, C classes or labels, T targets.
"""

from collections.abc import Sequence

import numpy as np

from indexer.data.listings import Dataset, Entry
from indexer.errors import DataError, SettingsError, TooFewSamplesError


def label_array(dataset: Dataset, entries: Sequence[Entry]) -> np.ndarray:
    """Labels of entries by kind: ``[n]`` int64, ``[n, C]`` uint8 of 0 and 1, or ``[n, T]`` float32."""
    if dataset.kind == "single_label":
        return np.array([entry.labels[0] for entry in entries], np.int64)
    if dataset.kind == "regression":
        return np.array([entry.targets for entry in entries], np.float32)
    labels = np.zeros((len(entries), len(dataset.class_names)), np.uint8)
    for row, entry in enumerate(entries):
        labels[row, list(entry.labels)] = 1
    return labels


def check_labels(dataset: Dataset, labels: np.ndarray, what: str) -> None:
    """Refuse labels from which no head could be learned.

    Args:
        dataset: For names and messages.
        labels: As of ``label_array``.
        what: What one of the samples is called, such as "readable sample".

    Raises:
        TooFewSamplesError: If there are not two samples of each class; with and without each label; or at all.
        DataError: If a target of a regression is the same in all samples.
    """
    if dataset.kind == "regression":
        _check_targets(dataset, labels, what)
        return
    if dataset.kind == "single_label":
        sizes = np.bincount(labels, minlength=len(dataset.class_names))
    else:
        sizes = labels.sum(axis=0, dtype=np.int64)
    check_sizes(dataset, sizes.tolist(), len(labels), what)


def check_sizes(dataset: Dataset, sizes: Sequence[int], num_samples: int, what: str) -> None:
    """The part of ``check_labels`` that needs only the number of samples of each class or label.

    Raises:
        TooFewSamplesError: If there are not two samples of each class, or with and without each label.
    """
    names = dataset.class_names
    if dataset.kind == "regression":
        return
    one, several = ("class", "classes") if dataset.kind == "single_label" else ("label", "labels")
    if len(names) < 2:
        only = f"has only the {one} {names[0]!r}" if names else f"has no {several}"
        raise TooFewSamplesError(dataset.spec, f"{only}; a task needs at least two {several}")
    poorest = min(range(len(names)), key=sizes.__getitem__)
    if dataset.kind == "single_label":
        if sizes[poorest] < 2:
            raise TooFewSamplesError(
                dataset.spec,
                f"class {names[poorest]!r} has {_count(sizes[poorest])} {what}; every class needs at least two",
            )
        return
    richest = max(range(len(names)), key=sizes.__getitem__)
    for label, number, verb in (
        (poorest, sizes[poorest], "is on"),
        (richest, num_samples - sizes[richest], "is missing on"),
    ):
        if number < 2:
            raise TooFewSamplesError(
                dataset.spec,
                f"label {names[label]!r} {verb} {_count(number)} {what}; every label needs at least two that "
                "have it and two that have not: merge or remove it, or raise max_samples",
            )


def check_max_samples(dataset: Dataset, max_samples: int) -> None:
    """Refuse a sample that could not hold two of each class or label.

    Raises:
        SettingsError: If ``max_samples`` is too small.
    """
    num_classes = len(dataset.class_names)
    if dataset.kind != "regression" and max_samples < 2 * num_classes:
        one, several = ("class", "classes") if dataset.kind == "single_label" else ("label", "labels")
        raise SettingsError(
            f"max_samples must be at least 2 per {one}, {2 * num_classes} for the {num_classes} {several} of "
            f"{dataset.spec}, got {max_samples}"
        )


def _check_targets(dataset: Dataset, targets: np.ndarray, what: str) -> None:
    if len(targets) < 2:
        raise TooFewSamplesError(
            dataset.spec, f"has {_count(len(targets))} {what}; a regression needs at least two"
        )
    constant = (targets == targets[0]).all(axis=0)
    if constant.any():
        index = int(np.argmax(constant))
        raise DataError(
            dataset.spec,
            f"{dataset.class_names[index]!r} is {targets[0, index]:g} in every {what}; there is nothing to "
            "learn, so leave it out",
        )


def _count(number: int) -> str:
    return "one" if number == 1 else "no"
