"""Likelihoods p(y | logits) of the kinds of tasks: what their labels are, and their scores.

The score is d log p(y | logits) / d logits. Its mean over labels from the model is zero and its covariance, the
Fisher information of the logits, is what every estimator in ``indexer.fisher.estimate`` starts from:

| Likelihood | Labels | Covariance of the score |
|---|---|---|
| ``CategoricalLikelihood`` | one class of C, p = softmax(logits) | diag(p) - p p^T |
| ``BernoulliLikelihood`` | C of yes or no, p = sigmoid(logits) | diag(p (1 - p)) |
| ``GaussianLikelihood`` | T numbers, means = logits | diag(1 / variance) |

Random numbers come from a generator on the CPU, sample by sample, so that neither the device nor the cuts
between batches change what a sample gets.

Axes: N samples, C classes (labels of a Bernoulli, targets T of a Gaussian likelihood).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from indexer.errors import DataError
from indexer.heads.heads import LinearHead


class Likelihood(Protocol):
    """A distribution of labels given logits ``[N, C]``."""

    def sampled_score(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Score ``[N, C]`` of labels drawn from the model."""

    def label_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Score ``[N, C]`` of given labels; ``DataError`` if they have another shape than the logits."""

    def signed_direction(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """A random ``[N, C]`` with the mean and covariance of the score, made from random signs."""

    def covariance_factors(self, logits: Tensor) -> Iterator[Tensor]:
        """Directions ``[N, C]``, whose outer products sum to the covariance of the score."""


@dataclass(frozen=True)
class CategoricalLikelihood:
    """One class of C; labels ``[N]`` integers 0 to C-1."""

    def sampled_score(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """e_y - p of one label y drawn from p, by inverting the distribution function."""
        probs = logits.softmax(dim=1)
        draws = torch.rand(len(logits), 1, generator=generator).to(probs)
        labels = torch.searchsorted(probs.cumsum(dim=1), draws, right=True).squeeze(1)
        labels = labels.clamp_max(probs.shape[1] - 1)  # rounding can leave the last sum below one
        return self.label_score(logits, labels)

    def label_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """e_y - p."""
        _check_labels(labels, logits.shape[:1])
        scores = -logits.softmax(dim=1)
        scores[torch.arange(len(scores), device=scores.device), labels] += 1
        return scores

    def signed_direction(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Sum over classes of s_c sqrt(p_c) (e_c - p), with independent signs s_c."""
        probs = logits.softmax(dim=1)
        signed = _random_signs(probs, generator) * probs.sqrt()
        return signed - probs * signed.sum(dim=1, keepdim=True)

    def covariance_factors(self, logits: Tensor) -> Iterator[Tensor]:
        """C - 1 directions, since the components of a score sum to zero.

        Think of the label as drawn class by class: it is c, given that it is none before, with probability
        p_c / t_c, t_c being the sum of p from c on. The direction of that choice is e_c minus the distribution
        of what comes after c, times the root of p_c t_(c+1) / t_c.
        """
        probs = logits.softmax(dim=1)
        tails = probs.flip(1).cumsum(dim=1).flip(1).clamp_min(torch.finfo(probs.dtype).tiny)
        for c in range(probs.shape[1] - 1):
            direction = torch.zeros_like(probs)
            direction[:, c] = 1
            direction[:, c + 1 :] = -probs[:, c + 1 :] / tails[:, c + 1, None]
            yield direction * (probs[:, c] * (tails[:, c + 1] / tails[:, c])).sqrt()[:, None]


@dataclass(frozen=True)
class BernoulliLikelihood:
    """Any subset of C labels, independent given the logits; labels ``[N, C]`` of 0 and 1."""

    def sampled_score(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Y - p of labels drawn from p."""
        draws = torch.rand(logits.shape, generator=generator).to(logits)
        return self.label_score(logits, draws < logits.sigmoid())

    def label_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Y - p."""
        _check_labels(labels, logits.shape)
        return labels.to(logits) - logits.sigmoid()

    def signed_direction(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Root of p (1 - p) with independent signs."""
        return _random_signs(logits, generator) * self._deviation(logits)

    def covariance_factors(self, logits: Tensor) -> Iterator[Tensor]:
        """Root of p_c (1 - p_c) along each axis in turn."""
        return _along_axes(self._deviation(logits))

    @staticmethod
    def _deviation(logits: Tensor) -> Tensor:
        """Root of p (1 - p), without the rounding of 1 - p where p is near 1."""
        return (logits.sigmoid() * (-logits).sigmoid()).sqrt()


@dataclass(frozen=True, eq=False)
class GaussianLikelihood:
    """T numbers, normal about the logits; labels ``[N, T]``.

    Raises:
        DataError: If a variance is not positive and finite.
    """

    variance: np.ndarray = field(repr=False)  # ``[T]``, positive: of the labels about the logits

    def __post_init__(self) -> None:
        """Check the range; ``DataError`` if a variance is not positive and finite."""
        if not (np.isfinite(self.variance) & (np.asarray(self.variance) > 0)).all():
            raise DataError(
                "regression head", f"needs a positive, finite variance for each target, got {self.variance}"
            )

    def sampled_score(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """(y - logits) / variance of labels drawn from the model.

        By inverting the distribution function, since ``torch.randn`` draws by blocks, across samples.
        """
        draws = torch.rand(logits.shape, generator=generator, dtype=torch.float64).clamp_min(2**-54)
        normal: Tensor = torch.special.ndtri(draws)
        return normal.to(logits) * self._precision(logits).sqrt()

    def label_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(y - logits) / variance."""
        _check_labels(labels, logits.shape)
        return (labels.to(logits) - logits) * self._precision(logits)

    def signed_direction(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Root of 1 / variance with independent signs."""
        return _random_signs(logits, generator) * self._precision(logits).sqrt()

    def covariance_factors(self, logits: Tensor) -> Iterator[Tensor]:
        """Root of 1 / variance along each axis in turn."""
        return _along_axes(self._precision(logits).sqrt().expand_as(logits))

    def _precision(self, logits: Tensor) -> Tensor:
        return torch.as_tensor(1 / np.asarray(self.variance)).to(logits)


def likelihood_of(head: LinearHead) -> Likelihood:
    """The likelihood of a head's kind of task; ``DataError`` if the head of a regression has no variance."""
    if head.kind == "single_label":
        return CategoricalLikelihood()
    if head.kind == "multi_label":
        return BernoulliLikelihood()
    if head.variance is None:
        raise DataError("regression head", "has no variance of its residuals; make it with fit_head")
    return GaussianLikelihood(head.variance)


def _random_signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent signs of the shape, dtype and device of ``like``."""
    return torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1


def _along_axes(deviations: Tensor) -> Iterator[Tensor]:
    """For each column of ``[N, C]``, that column with all others at zero."""
    for c in range(deviations.shape[1]):
        direction = torch.zeros_like(deviations)
        direction[:, c] = deviations[:, c]
        yield direction


def _check_labels(labels: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse labels that broadcasting would take for others; ``DataError`` if the shape differs."""
    if labels.shape != shape:
        raise DataError("labels", f"expected of shape {list(shape)} for these logits, got {list(labels.shape)}")
