"""Transferability scores by name: how well an expert would do on a task, guessed from one pass over a sample.

Axes: N samples, D features of the expert, K classes of its source head, C classes, T targets. Higher is
better for all scores. They rank experts on one task: a score of one task says nothing beside that of another,
and of networks of very different D little.

Most published formulas are made of the samples that they judge. They rise with D on features that say nothing,
some up to their best value, so that what they rank is D. Hence two things that ``published=True`` leaves out.
What the same formula gives for shuffled labels, on average, is taken off: features that say nothing score zero,
of any D. And formulas that D >= N saturates see the leading N/8 principal directions only. Accuracies on
samples left out, and correlations, need neither.

The formulas are in ``moments`` and ``samples``; here is the catalogue, and the check of what goes in.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.caching import one_thread
from registry.errors import InvalidQueryError, NotFoundError
from registry.records import Kind
from registry.scores import moments, samples

Array = NDArray[Any]

MIN_SAMPLES = 3
KINDS: tuple[Kind, ...] = ("single_label", "multi_label", "regression")

NUM_SHUFFLES = 5
"""Of labels, for what a formula gives for features that say nothing. They add a fifth to its variance."""
SAMPLES_PER_DIRECTION = 8
"""Of 4, 8 and 16, best on real networks (``tau_w`` of ``sfda`` .71, with all directions .54 and D deciding)."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features ``rows`` ``[N, D]`` of a sample, at most 1 in size, decomposed once for all that reads them."""

    rows: Array

    @cached_property
    def coordinates(self) -> Array:
        """Principal coordinates ``[N, R]``."""
        return moments.principal_coordinates(self.rows)

    @cached_property
    def centred_coordinates(self) -> Array:
        """Principal coordinates ``[N, R]`` of the features less their mean."""
        return moments.principal_coordinates(moments.centred(self.rows))

    def leading(self) -> "Features":
        """The leading principal directions, one for eight samples; constant features as they are."""
        coordinates = self.centred_coordinates[:, : max(1, len(self.rows) // SAMPLES_PER_DIRECTION)]
        return Features(coordinates) if coordinates.shape[1] else self


@dataclass(frozen=True)
class Sample:
    """What scores are made of, checked.

    Attributes:
        targets: ``[N, T]`` float64, no column constant: classes or labels as 0 and 1, or numbers of mean 0 and
            variance 1.
    """

    features: Features
    labels: Array  # ``[N]`` whole numbers, at least two classes; of other kinds empty
    targets: Array
    logits: Array  # ``[N, K]`` float64, finite; empty if the score does not need them
    kind: Kind
    seed: int  # of scores that draw


@dataclass(frozen=True)
class Score:
    """A way to score an expert on a task; it rises with how well the expert suits.

    Attributes:
        needs: ``features`` of the penultimate layer, or logits of the ``source_head``.
        kinds: Kinds of labels that it is defined for.
        chance: How features that say nothing come to score the same for any D: ``own``, they do by themselves;
            ``shuffled``, less what shuffled labels score; ``leading``, that in the leading directions.
    """

    name: str
    summary: str
    needs: Literal["features", "source_head"]
    kinds: tuple[Kind, ...]
    function: Callable[[Sample], float]
    chance: Literal["own", "shuffled", "leading"]


def get_score(name: str) -> Score:
    """Return the score of that name; ``NotFoundError`` if there is none."""
    if name not in SCORES:
        raise NotFoundError("score", name, SCORES)
    return SCORES[name]


def list_scores(kind: Kind | None = None, *, source_head: bool = True) -> list[Score]:
    """Scores in order of name.

    Args:
        kind: Only those that are defined for this kind of labels; all if not given.
        source_head: Whether those that need logits of a source head are wanted.
    """
    entries = [SCORES[name] for name in sorted(SCORES)]
    return [s for s in entries if (kind is None or kind in s.kinds) and (source_head or s.needs == "features")]


def score(
    name: str,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    kind: Kind = "single_label",
    seed: int = 0,
    published: bool = False,
) -> float:
    """Score an expert on a sample of a task; higher is better.

    An unknown name is a ``NotFoundError``. Columns of labels or targets that never change are left out, and
    numbers of classes may have holes. The answer does not depend on the unit of features or targets.

    Args:
        name: Key in ``SCORES``.
        features: ``[N, D]``, finite, N at least 3, D at least 1.
        labels: ``single_label``: ``[N]`` whole numbers, at least two different ones. ``multi_label``:
            ``[N, T]`` of 0 and 1. ``regression``: ``[N, T]`` finite numbers. Some column has to change.
        logits: ``[N, K]`` of the expert's own head, finite; of probabilities, their logarithms. Only scores
            that need a source head look at them.
        kind: Of the labels.
        seed: Of what is drawn: shuffles, folds, the start of ``nleep``, samples of ``parc`` beyond 1,000.
        published: Whether the formula is wanted as it was published, which may rise with D on noise.

    Returns:
        The score: an accuracy or a correlation where its ``chance`` is ``own``; else zero is what shuffled
        labels have.

    Raises:
        InvalidQueryError: If an input is not as told above, or the score is not defined for the kind.

    Example:
        >>> round(score("linear_probe", [[0.0], [0.1], [1.0], [1.1]], [4, 4, 7, 7]), 3)
        1.0
    """
    entry = get_score(name)
    if kind not in entry.kinds:
        fitting = ", ".join(entry.name for entry in list_scores(kind))
        hint = f"use one of {fitting}" if fitting else f"kinds are {', '.join(KINDS)}"
        raise InvalidQueryError(f"score {name!r} is not defined for labels of kind {kind!r}; {hint}")
    rows = _matrix("features", features)
    if len(rows) < MIN_SAMPLES:
        raise InvalidQueryError(f"features have {len(rows)} rows; a score needs {MIN_SAMPLES} samples or more")
    largest = float(np.abs(rows).max())
    if largest > 0:  # any unit will do, and squares of squares must neither overflow nor vanish
        rows = rows / largest
    if kind == "single_label":
        classes = _classes(labels, len(rows))
        targets = moments.one_hot(moments.occurring(classes)[0])
    else:
        classes, targets = np.empty(0, dtype=np.int64), _columns(labels, len(rows), kind)
    outputs = np.empty((len(rows), 0))
    if entry.needs == "source_head":
        outputs = _logits(name, logits, len(rows))
    given = Features(rows)
    with one_thread():
        if entry.chance == "leading" and not published:
            given = given.leading()
        sample = Sample(given, classes, targets, outputs, kind, seed)
        value = float(entry.function(sample))
        if entry.chance == "own" or published:
            return value
        generator = np.random.default_rng(seed)
        orders = [generator.permutation(len(rows)) for _ in range(NUM_SHUFFLES)]
        return value - float(np.mean([entry.function(_shuffled(sample, order)) for order in orders]))


def _shuffled(sample: Sample, order: Array) -> Sample:
    """The sample with its labels in another order."""
    labels = sample.labels[order] if sample.kind == "single_label" else sample.labels
    return replace(sample, labels=labels, targets=sample.targets[order])


def _matrix(what: str, values: ArrayLike) -> Array:
    """Finite float64 ``[N, D]`` of at least one column; ``InvalidQueryError`` if it is something else."""
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise InvalidQueryError(
            f"{what} are no matrix of numbers ({err}); give one row for each sample"
        ) from err
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise InvalidQueryError(
            f"{what} have shape {list(matrix.shape)}; expected one row for each sample and at least one column"
        )
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0].tolist()
        raise InvalidQueryError(
            f"{what} have {matrix[row, column]} in row {row}, column {column}; every number has to be finite"
        )
    return matrix


def _same_length(what: str, length: int, num_samples: int) -> None:
    """Check that something has an entry for every sample; ``InvalidQueryError`` if it has more or fewer."""
    if length != num_samples:
        raise InvalidQueryError(
            f"{what} are of {length} samples and features of {num_samples}; give both for the same samples"
        )


def _classes(labels: ArrayLike, num_samples: int) -> Array:
    """Whole numbers ``[N]`` of at least two classes; ``InvalidQueryError`` if the labels are something else."""
    try:
        classes = np.asarray(labels)
    except ValueError as err:
        raise InvalidQueryError(f"labels are no array ({err}); give one whole number for each sample") from err
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise InvalidQueryError(
            f"labels have shape {list(classes.shape)} and type {classes.dtype}; expected one whole number for "
            "each sample"
        )
    _same_length("labels", len(classes), num_samples)
    if len(np.unique(classes)) < 2:
        raise InvalidQueryError(f"all labels are {classes[0]}; a score needs samples of two classes or more")
    return classes


def _columns(labels: ArrayLike, num_samples: int, kind: Kind) -> Array:
    """Columns of labels or targets ``[N, T]`` that change; numbers standardised to mean 0, variance 1.

    Raises:
        InvalidQueryError: If the labels are something else, or no column changes.
    """
    values = _matrix("labels", labels)
    _same_length("labels", len(values), num_samples)
    if kind == "multi_label" and not np.isin(values, (0, 1)).all():
        raise InvalidQueryError(
            "labels of kind 'multi_label' hold other numbers than 0 and 1; give one column a label"
        )
    values = values[:, np.ptp(values, axis=0) > 0]
    if not values.shape[1]:
        raise InvalidQueryError(
            "labels are the same for all samples; a score needs at least one column that changes"
        )
    if kind == "regression":
        values = values / np.abs(values).max(axis=0)
        values = (values - values.mean(axis=0)) / values.std(axis=0)
    return values


def _logits(name: str, logits: ArrayLike | None, num_samples: int) -> Array:
    """Logits ``[N, K]`` of a source head; ``InvalidQueryError`` if none, or something else."""
    if logits is None:
        raise InvalidQueryError(f"score {name!r} needs logits of the expert's own head; give logits=")
    outputs = _matrix("logits", logits)
    _same_length("logits", len(outputs), num_samples)
    return outputs


def _by_moments(formula: Callable[..., float]) -> Callable[[Sample], float]:
    """A formula of ``moments`` over centred features and labels."""
    return lambda s: formula(s.features.rows, s.labels, coordinates=s.features.centred_coordinates)


_CLASSES: tuple[Kind, ...] = ("single_label",)

SCORES: dict[str, Score] = {
    entry.name: entry
    for entry in (
        Score(
            "logme",
            "log evidence of linear regression",
            "features",
            KINDS,
            lambda s: moments.logme(s.features.rows, s.targets, coordinates=s.features.coordinates),
            chance="shuffled",
        ),
        Score(
            "h_score",
            "variance between classes over shrunk covariance",
            "features",
            _CLASSES,
            _by_moments(moments.h_score),
            chance="leading",
        ),
        Score(
            "leep",
            "log likelihood of labels read off the source classes",
            "source_head",
            _CLASSES,
            lambda s: samples.leep(s.logits, s.labels),
            chance="shuffled",
        ),
        Score(
            "nleep",
            "leep with mixture components for source classes",
            "features",
            _CLASSES,
            lambda s: samples.nleep(
                s.features.rows, s.labels, seed=s.seed, coordinates=s.features.centred_coordinates
            ),
            chance="shuffled",
        ),
        Score(
            "nce",
            "negative entropy of the label given the source class",
            "source_head",
            _CLASSES,
            lambda s: samples.nce(s.logits, s.labels),
            chance="shuffled",
        ),
        Score(
            "transrate",
            "coding rate that the classes save",
            "features",
            _CLASSES,
            _by_moments(moments.transrate),
            chance="leading",
        ),
        Score(
            "gbc",
            "overlap of the classes as Gaussians, negative",
            "features",
            _CLASSES,
            _by_moments(moments.gbc),
            chance="leading",
        ),
        Score(
            "parc",
            "rank correlation of distances of features and of labels",
            "features",
            KINDS,
            lambda s: samples.parc(s.features.rows, s.targets, seed=s.seed),
            chance="own",
        ),
        Score(
            "sfda",
            "probability of the own class in a Fisher space made harder",
            "features",
            _CLASSES,
            _by_moments(moments.sfda),
            chance="leading",
        ),
        Score(
            "knn",
            "five nearest by cosine, of samples left out",
            "features",
            KINDS,
            lambda s: samples.knn(s.features.rows, s.targets, s.kind, seed=s.seed),
            chance="own",
        ),
        Score(
            "linear_probe",
            "ridge regression, of samples left out",
            "features",
            KINDS,
            lambda s: samples.linear_probe(s.features.rows, s.targets, s.kind, seed=s.seed),
            chance="own",
        ),
    )
}
"""Every score by name."""
