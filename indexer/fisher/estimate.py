"""Diagonal Fisher information of a network's weights, averaged over each filter.

    F = E_x E_{y~p(y|x)} [ (d log p(y|x) / dw)^2 ]

with labels from the model, never from the data, and gradients squared for each sample on its own. Let J be the
covariance over y of the score d log p(y|x) / d logits, see ``indexer.fisher.likelihoods``. Any random direction
v in logit space with E[v v^T] = J gives E[(d <v, logits> / dw)^2] = F; the estimators differ in v. The draw
adds no noise to ``exact``, and less to ``signed`` than to ``montecarlo`` if labels are independent (multi-label
tasks, regressions) or predictions sure; between two classes near even odds it adds more.

Axes: N samples, C classes (labels, targets), F features of the body, D filters.

Source:
    Achille et al. 2019, arXiv 1902.03545, section 3. Their code squares the mean gradient of a batch, so that
    its scale depends on the batch size; we square per sample, as their formula does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from indexer.errors import TooFewSamplesError, UnknownNameError, WeightsError
from indexer.fisher.likelihoods import Likelihood, likelihood_of
from indexer.fisher.square_grads import SquareGrads
from indexer.heads.heads import LinearHead
from indexer.networks.run import on_device_of
from indexer.records import DEFAULT_MEMORY_BUDGET

Directions = Callable[[Likelihood, Tensor, Tensor, torch.Generator], Iterator[Tensor]]

_PASSED_OVER_AT_ONCE = 4096

MIN_SAMPLES_TO_STOP = 100
"""A tolerance stops no pass before this many samples: squared gradients have long tails, and of fewer samples
neither the mean nor its error is to be trusted, since both miss the rare large values together.
"""


@dataclass(frozen=True)
class Estimator:
    """A way to take the expectation over labels.

    Attributes:
        directions: Likelihood, logits ``[N, C]``, labels of the dataset and a CPU generator to directions
            ``[N, C]``; the squared gradients along them, summed, estimate F for each sample.
    """

    name: str
    summary: str
    directions: Directions
    draws: bool = False  # whether the directions are drawn at random


def _montecarlo(
    likelihood: Likelihood, logits: Tensor, _labels: Tensor, generator: torch.Generator
) -> Iterator[Tensor]:
    yield likelihood.sampled_score(logits, generator)


def _signed(
    likelihood: Likelihood, logits: Tensor, _labels: Tensor, generator: torch.Generator
) -> Iterator[Tensor]:
    yield likelihood.signed_direction(logits, generator)


def _exact(
    likelihood: Likelihood, logits: Tensor, _labels: Tensor, _generator: torch.Generator
) -> Iterator[Tensor]:
    return likelihood.covariance_factors(logits)


def _empirical(
    likelihood: Likelihood, logits: Tensor, labels: Tensor, _generator: torch.Generator
) -> Iterator[Tensor]:
    yield likelihood.label_score(logits, labels)


ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (
        Estimator("montecarlo", "one label drawn from the model for each sample", _montecarlo, draws=True),
        Estimator(
            "signed",
            "all classes at once with random signs; less noise where predictions are sure",
            _signed,
            draws=True,
        ),
        Estimator(
            "exact", "every class in turn; no noise from labels, about one backward pass a class", _exact
        ),
        Estimator(
            "empirical",
            "labels of the dataset, not of the model; for comparison only, this is not Fisher information",
            _empirical,
        ),
    )
}


def get_estimator(name: str) -> Estimator:
    """Look up an estimator; ``UnknownNameError`` if there is none of that name."""
    if name not in ESTIMATORS:
        raise UnknownNameError("estimator", name, ESTIMATORS)
    return ESTIMATORS[name]


@dataclass(frozen=True, eq=False)
class FisherEstimate:
    """Fisher information of every filter.

    Attributes:
        mean: ``[D]`` float64, non-negative: mean over samples, and over the weights of each filter, in squared
            nats per squared unit of weight.
        standard_error: ``[D]`` float64, non-negative: of ``mean``, over samples and label draws together.
    """

    mean: np.ndarray = field(repr=False)
    standard_error: np.ndarray = field(repr=False)
    num_samples: int  # N, those that were used
    slices: dict[str, slice] = field(repr=False)  # layer name to its filters, in the order of ``SquareGrads``
    fallbacks: tuple[str, ...] = ()  # layers that took its slow route


def fisher_information(
    body: nn.Module,
    head: LinearHead,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    estimator: str,
    generator: torch.Generator,
    norm_weights: bool = False,
    tolerance: float | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    progress: Callable[[int], object] | None = None,
) -> FisherEstimate:
    """Estimate the Fisher information of the body's weights, the head being part of the model but not of F.

    Randomness is drawn sample by sample, so how the samples are cut into batches, and on which device the body
    is, change results only by rounding. Errors of ``get_estimator``, ``likelihood_of`` and ``SquareGrads`` pass
    through; a result that is not finite raises ``WeightsError``.

    A ``tolerance`` takes the first samples for all: they have to come in random order. Samples arrive class by
    class unless the caller permutes them, and a pass that stops early would miss the last classes.

    Args:
        body: Network in eval mode, normalised images or encoded texts to features ``[N, F]``.
        head: Logits are features @ weight.T + bias; its kind says what the labels are.
        batches: Inputs of the body ``[N, ...]`` and the dataset's labels, ``[N]`` classes, ``[N, C]`` of 0
            and 1 or ``[N, T]`` targets, moved to the body's device. Only ``empirical`` looks at labels.
        estimator: Name in ``ESTIMATORS``.
        generator: On the CPU, whatever the body's device.
        norm_weights: Whether affine weights of normalisation layers are embedded too.
        tolerance: Stop after the batch that brings the median over filters above zero of standard error over
            mean below this, though not before ``MIN_SAMPLES_TO_STOP``; ``None`` to use every sample.
        memory_budget: Bytes that temporaries of the layers' rules may take.
        progress: Called after each batch with the number of samples done.

    Raises:
        TooFewSamplesError: If there are fewer than two samples, which have no standard error.
    """
    square_grads = SquareGrads(body, norm_weights=norm_weights, memory_budget=memory_budget)
    scores = _Scores(body, head, get_estimator(estimator), generator)
    sums = _gather(body, batches, square_grads, scores, tolerance=tolerance, progress=progress)
    return joined_estimate([sums])


@dataclass(frozen=True, eq=False)
class FisherSums:
    """What some samples add to the Fisher information of all.

    Attributes:
        totals: ``[2, D]`` float64: sums over samples of each filter's value, and of its square.
    """

    totals: np.ndarray = field(repr=False)
    num_samples: int
    slices: dict[str, slice] = field(repr=False)
    fallbacks: tuple[str, ...] = ()


def fisher_sums(
    body: nn.Module,
    head: LinearHead,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    estimator: str,
    generator: torch.Generator,
    samples_before: int = 0,
    norm_weights: bool = False,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> FisherSums:
    """The sums of some samples, for ``joined_estimate``; arguments as in ``fisher_information``.

    Args:
        body: Network in eval mode.
        head: The head of all samples.
        batches: Batches of these samples.
        estimator: Name in ``ESTIMATORS``.
        generator: Its state is that before the first of all samples.
        samples_before: Samples of other parts that come before these: their random numbers are passed over, so
            that each sample has those that it would have if all were in one part.
        norm_weights: Whether affine weights of normalisation layers are embedded too.
        memory_budget: Bytes that temporaries of the layers' rules may take.
    """
    square_grads = SquareGrads(body, norm_weights=norm_weights, memory_budget=memory_budget)
    scores = _Scores(body, head, get_estimator(estimator), generator)
    scores.pass_over(samples_before)
    return _gather(body, batches, square_grads, scores, tolerance=None, progress=None)


def joined_estimate(parts: Sequence[FisherSums]) -> FisherEstimate:
    """The estimate over the samples of all parts, in whatever order these are: sums add up."""
    first = parts[0]
    count = sum(part.num_samples for part in parts)
    mean, standard_error = _moments(np.sum([part.totals for part in parts], axis=0), count)
    _check_finite(mean, first.slices)
    return FisherEstimate(mean, standard_error, count, first.slices, first.fallbacks)


class _Scores:
    """From features to directions in feature space: what the estimators need of the model above the body."""

    def __init__(
        self, body: nn.Module, head: LinearHead, estimator: Estimator, generator: torch.Generator
    ) -> None:
        parameter = next(body.parameters())
        self._weight = torch.from_numpy(head.weight).to(parameter)
        self._bias = torch.from_numpy(head.bias).to(parameter)
        self._likelihood = likelihood_of(head)
        self._estimator = estimator
        self._generator = generator

    def __call__(self, features: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Directions ``[N, F]`` for features ``[N, F]``, one at a time."""
        logits = features @ self._weight.T + self._bias
        return (direction @ self._weight for direction in self._directions(logits, labels.to(logits.device)))

    def pass_over(self, count: int) -> None:
        """Draw what so many samples draw, which does not depend on what they are."""
        for start in range(0, count if self._estimator.draws else 0, _PASSED_OVER_AT_ONCE):
            logits = torch.zeros(min(_PASSED_OVER_AT_ONCE, count - start), len(self._weight))
            for _ in self._directions(logits, logits):
                pass

    def _directions(self, logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
        return self._estimator.directions(self._likelihood, logits, labels, self._generator)


def _gather(
    body: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    square_grads: SquareGrads,
    scores: _Scores,
    *,
    tolerance: float | None,
    progress: Callable[[int], object] | None,
) -> FisherSums:
    """The sums of the samples up to where the tolerance is met."""
    parameter = next(body.parameters())
    totals = torch.zeros(2, square_grads.dim, dtype=torch.float64, device=parameter.device)
    count = 0
    with square_grads:
        for images, labels in batches:
            features = body(on_device_of(parameter, images))
            squares = _backward(features, scores(features.detach(), labels), square_grads)
            totals += torch.stack([squares.sum(dim=0), squares.square().sum(dim=0)])
            count += len(images)
            if progress:
                progress(count)
            if tolerance and count >= MIN_SAMPLES_TO_STOP:
                mean, standard_error = _moments(totals.cpu().numpy(), count)
                if _relative_error(mean, standard_error) < tolerance:
                    break
    return FisherSums(totals.cpu().numpy(), count, square_grads.slices, square_grads.fallbacks)


def _backward(features: Tensor, directions: Iterator[Tensor], square_grads: SquareGrads) -> Tensor:
    """Sum of the squares ``[N, D]``, float64, along all directions ``[N, F]`` in feature space."""
    total = torch.zeros(len(features), square_grads.dim, dtype=torch.float64, device=features.device)
    direction = next(directions, None)
    while direction is not None:
        following = next(directions, None)
        # The last pass frees activations as it goes.
        features.backward(direction, retain_graph=following is not None)  # type: ignore[no-untyped-call]
        total += square_grads.take()
        direction = following
    return total


def _moments(totals: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error, of sums ``[2, D]`` of values and of their squares over samples.

    Raises:
        TooFewSamplesError: If there are fewer than two samples.
    """
    if count < 2:
        raise TooFewSamplesError("Fisher information", f"needs at least 2 samples for its error, got {count}")
    sums, sums_of_squares = totals
    variance = np.maximum(sums_of_squares - sums**2 / count, 0) / (count - 1)
    return sums / count, np.sqrt(variance / count)


def _relative_error(mean: np.ndarray, standard_error: np.ndarray) -> float:
    """Median over filters above zero of error over mean; infinite if there are none."""
    positive = mean > 0
    if not positive.any():
        return float("inf")
    return float(np.median(standard_error[positive] / mean[positive]))


def _check_finite(mean: np.ndarray, slices: dict[str, slice]) -> None:
    """Name the first layer that went wrong, if any; ``WeightsError`` if a value is not finite."""
    for name, columns in slices.items():
        if not np.isfinite(mean[columns]).all():
            raise WeightsError(
                f"the Fisher information of layer {name!r} is not finite; check that the probe's weights and "
                "the normalised images hold neither NaN nor huge values"
            )
