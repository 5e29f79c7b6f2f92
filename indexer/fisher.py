"""Diagonal Fisher information of a network's weights, averaged over each filter.

    F = E_x E_{y~p(y|x)} [ (d log p(y|x) / dw)^2 ],  p = softmax(logits)

with labels from the model, never from the data, and gradients squared for each sample on its own. As
d log p(y|x) / d logits = e_y - p, whose covariance over y is diag(p) - p p^T, any random direction v in
logit space with E[v v^T] = diag(p) - p p^T gives E[(d <v, logits> / dw)^2] = F; the estimators differ in v.

Axes: N samples, C classes, F features of the body, S directions a sample, D filters.

Source:
    Achille et al. 2019, arXiv 1902.03545, section 3. Their code squares the mean gradient of a batch, so that
    its scale depends on the batch size; we square per sample, as their formula does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from indexer.errors import TooFewSamplesError, UnknownNameError, WeightsError
from indexer.square_grads import SquareGrads


@dataclass(frozen=True)
class Estimator:
    """A way to take the expectation over labels.

    Attributes:
        name: Key in ``ESTIMATORS``.
        summary: One line for people who choose.
        directions: Logits ``[N, C]`` and a CPU generator to directions ``[S, N, C]``; the squared gradients
            along them, summed over S, estimate F for each sample without bias.
    """

    name: str
    summary: str
    directions: Callable[[Tensor, torch.Generator], Tensor]


def _montecarlo(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Score e_y - p of one label y drawn from p, by inverting the distribution function: ``[1, N, C]``."""
    probs = logits.softmax(dim=1)
    draws = torch.rand(len(logits), 1, generator=generator).to(probs)
    labels = torch.searchsorted(probs.cumsum(dim=1), draws, right=True).squeeze(1)
    labels = labels.clamp_max(probs.shape[1] - 1)  # rounding can leave the last sum below one
    scores = -probs
    scores[torch.arange(len(probs), device=probs.device), labels] += 1
    return scores[None]


def _signed(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Sum over classes of s_c sqrt(p_c) (e_c - p), with independent signs s_c: ``[1, N, C]``."""
    probs = logits.softmax(dim=1)
    signs = torch.randint(0, 2, logits.shape, generator=generator).to(probs) * 2 - 1
    signed = signs * probs.sqrt()
    return (signed - probs * signed.sum(dim=1, keepdim=True))[None]


def _exact(logits: Tensor, _generator: torch.Generator) -> Tensor:
    """The scores of all classes, each times the root of its probability: ``[C, N, C]``."""
    probs = logits.softmax(dim=1)
    classes = torch.eye(logits.shape[1], dtype=probs.dtype, device=probs.device)
    return probs.T.sqrt()[:, :, None] * (classes[:, None, :] - probs)


ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (
        Estimator("montecarlo", "one label drawn from the model for each sample", _montecarlo),
        Estimator(
            "signed", "all classes at once with random signs; less noise where predictions are sure", _signed
        ),
        Estimator("exact", "every class in turn; no noise from labels, one backward pass a class", _exact),
    )
}


def get_estimator(name: str) -> Estimator:
    """Look up an estimator.

    Raises:
        UnknownNameError: If there is none of that name.
    """
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
        num_samples: N.
        slices: Layer name to its filters, in the order of the body's ``named_modules``.
    """

    mean: np.ndarray = field(repr=False)
    standard_error: np.ndarray = field(repr=False)
    num_samples: int
    slices: dict[str, slice] = field(repr=False)


def fisher_information(
    body: nn.Module,
    head: tuple[Tensor, Tensor],
    batches: Iterable[Tensor],
    *,
    estimator: str,
    generator: torch.Generator,
    norm_weights: bool = False,
    progress: Callable[[int], object] | None = None,
) -> FisherEstimate:
    """Estimate the Fisher information of the body's weights, the head being part of the model but not of F.

    Randomness is drawn sample by sample, so how the samples are cut into batches, and on which device the body
    is, change results only by rounding. Errors of ``get_estimator`` and ``SquareGrads`` pass through; a result
    that is not finite raises ``WeightsError``.

    Args:
        body: Network in eval mode, images to features ``[N, F]``.
        head: Weight ``[C, F]`` and bias ``[C]``: logits are features @ weight.T + bias.
        batches: Normalised images ``[N, 3, H, W]``; moved to the body's device and dtype.
        estimator: Name in ``ESTIMATORS``.
        generator: On the CPU, whatever the body's device.
        norm_weights: Whether affine weights of normalisation layers are embedded too.
        progress: Called after each batch with the number of samples done.

    Returns:
        Mean and standard error over all samples.

    Raises:
        TooFewSamplesError: If there are fewer than two samples, which have no standard error.
    """
    directions = get_estimator(estimator).directions
    count = 0
    with SquareGrads(body, norm_weights=norm_weights) as square_grads:
        parameter = next(body.parameters())
        weight, bias = (values.detach().to(parameter) for values in head)
        totals = torch.zeros(2, square_grads.dim, dtype=torch.float64, device=parameter.device)
        for images in batches:
            features = body(images.to(parameter))
            logits = features.detach() @ weight.T + bias
            squares = _backward(features, directions(logits, generator) @ weight, square_grads)
            totals += torch.stack([squares.sum(dim=0), squares.square().sum(dim=0)])
            count += len(images)
            if progress:
                progress(count)
    if count < 2:
        raise TooFewSamplesError("Fisher information", f"needs at least 2 samples for its error, got {count}")
    sums, sums_of_squares = totals.cpu().numpy()
    _check_finite(sums, square_grads.slices)
    variance = np.maximum(sums_of_squares - sums**2 / count, 0) / (count - 1)
    return FisherEstimate(sums / count, np.sqrt(variance / count), count, square_grads.slices)


def _backward(features: Tensor, directions: Tensor, square_grads: SquareGrads) -> Tensor:
    """Sum over S of the squares ``[N, D]``, float64, along directions ``[S, N, F]`` in feature space."""
    last = len(directions) - 1
    total = torch.zeros(len(features), square_grads.dim, dtype=torch.float64, device=features.device)
    for index, direction in enumerate(directions):
        features.backward(direction, retain_graph=index < last)  # type: ignore[no-untyped-call]
        total += square_grads.take()
    return total


def _check_finite(sums: np.ndarray, slices: dict[str, slice]) -> None:
    """Name the first layer that went wrong, if any.

    Raises:
        WeightsError: If a sum is not finite.
    """
    for name, columns in slices.items():
        if not np.isfinite(sums[columns]).all():
            raise WeightsError(
                f"the Fisher information of layer {name!r} is not finite; check that the probe's weights and "
                "the normalised images hold neither NaN nor huge values"
            )
