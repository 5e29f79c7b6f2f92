"""indexer.fisher.likelihoods against closed covariances, autograd, torch.distributions, and its first
release."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references_fisher import label_distribution, score_covariance
from torch import Tensor

from indexer.errors import DataError
from indexer.fisher.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
    likelihood_of,
)
from indexer.heads.heads import LinearHead

VARIANCE = np.array([0.5, 2.0, 0.1, 1.5])
LIKELIHOODS: dict[str, Likelihood] = {
    "single_label": CategoricalLikelihood(),
    "multi_label": BernoulliLikelihood(),
    "regression": GaussianLikelihood(VARIANCE),
}
RANDOM_SCORES: dict[str, Callable[[Likelihood, Tensor, torch.Generator], Tensor]] = {
    "sampled": lambda likelihood, *args: likelihood.sampled_score(*args),
    "signed": lambda likelihood, *args: likelihood.signed_direction(*args),
}
LOGITS = torch.tensor([1.5, 0.0, -0.5, -2.0], dtype=torch.float64)

each_likelihood = pytest.mark.parametrize("name", LIKELIHOODS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels_for(name: str, num_samples: int) -> Tensor:
    if name == "single_label":
        return torch.randint(0, 4, (num_samples,), generator=seeded())
    if name == "multi_label":
        return torch.randint(0, 2, (num_samples, 4), generator=seeded(), dtype=torch.uint8)
    return torch.randn(num_samples, 4, generator=seeded())


@each_likelihood
@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-30, 30), min_size=4, max_size=4))
def test_outer_products_of_the_factors_sum_to_the_covariance(name: str, values: list[float]):
    logits = torch.tensor([values, [0.0] * 4], dtype=torch.float64)
    factors = list(LIKELIHOODS[name].covariance_factors(logits))
    assert len(factors) == (3 if name == "single_label" else 4)
    found = sum(torch.einsum("nc,nd->ncd", factor, factor) for factor in factors)
    torch.testing.assert_close(found, score_covariance(name, logits, VARIANCE), atol=1e-15, rtol=1e-10)


def test_categorical_factors_keep_small_probabilities_in_single_precision():
    """1 - p of the first class would be rounded to zero, and p of the last underflows."""
    logits = torch.tensor([[0.0, -20.0, -21.0, -200.0]])
    factors = list(CategoricalLikelihood().covariance_factors(logits))
    found = sum(factor[0].square() for factor in factors)
    expected = score_covariance("single_label", logits.double(), VARIANCE)[0].diagonal()
    torch.testing.assert_close(found.double(), expected, atol=1e-30, rtol=1e-5)


@each_likelihood
def test_factors_come_one_at_a_time(name: str):
    factors = LIKELIHOODS[name].covariance_factors(LOGITS[None])
    assert iter(factors) is factors
    assert next(factors).shape == (1, 4)


@each_likelihood
@pytest.mark.parametrize("kind", RANDOM_SCORES)
def test_random_scores_have_the_mean_and_covariance_of_the_score(name: str, kind: str):
    """Within five standard errors over 100,000 draws, and a rounding."""
    num_draws = 100_000
    scores = RANDOM_SCORES[kind](LIKELIHOODS[name], LOGITS.expand(num_draws, -1), seeded())
    products = torch.einsum("nc,nd->ncd", scores, scores)
    covariance = score_covariance(name, LOGITS[None], VARIANCE)[0]
    for draws, expected in ((scores, torch.zeros(4)), (products, covariance)):
        error = draws.std(dim=0) / math.sqrt(num_draws)
        assert ((draws.mean(dim=0) - expected).abs() <= 5 * error + 1e-12).all()


@each_likelihood
def test_score_is_the_gradient_of_the_log_likelihood(name: str):
    logits = torch.randn(6, 4, generator=seeded(), dtype=torch.float64, requires_grad=True)
    labels = labels_for(name, 6)
    wanted = labels if name == "single_label" else labels.double()
    log_likelihood = label_distribution(name, logits, VARIANCE).log_prob(wanted)
    (grads,) = torch.autograd.grad(log_likelihood.sum(), logits)
    torch.testing.assert_close(LIKELIHOODS[name].label_score(logits, labels), grads)


@each_likelihood
@pytest.mark.parametrize("kind", RANDOM_SCORES)
def test_a_sample_gets_the_same_draw_however_batches_are_cut(name: str, kind: str):
    """Over sizes on both sides of the blocks of 16 that torch.randn would draw by."""
    logits = torch.randn(40, 4, generator=seeded(1), dtype=torch.float64)
    whole = RANDOM_SCORES[kind](LIKELIHOODS[name], logits, seeded())
    for size in (1, 7, 17):
        generator = seeded()
        cut = [RANDOM_SCORES[kind](LIKELIHOODS[name], part, generator) for part in logits.split(size)]
        torch.testing.assert_close(torch.cat(cut), whole, rtol=1e-12, atol=1e-15)


def released_scores(kind: str, logits: Tensor, generator: torch.Generator) -> Tensor:
    """What the first release computed; registries hold embeddings that were made by it."""
    probs = logits.softmax(dim=1)
    if kind == "signed":
        signs = torch.randint(0, 2, logits.shape, generator=generator).to(probs) * 2 - 1
        signed = signs * probs.sqrt()
        return signed - probs * signed.sum(dim=1, keepdim=True)
    draws = torch.rand(len(logits), 1, generator=generator).to(probs)
    labels = torch.searchsorted(probs.cumsum(dim=1), draws, right=True).squeeze(1)
    labels = labels.clamp_max(probs.shape[1] - 1)
    scores = -probs
    scores[torch.arange(len(probs)), labels] += 1
    return scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", RANDOM_SCORES)
def test_categorical_scores_are_those_of_the_first_release(kind: str, dtype: torch.dtype):
    logits = 3 * torch.randn(500, 9, generator=seeded(1), dtype=dtype)
    found = RANDOM_SCORES[kind](CategoricalLikelihood(), logits, seeded(7))
    assert torch.equal(found, released_scores(kind, logits, seeded(7)))


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24], ids=["lowest", "highest"])
def test_extreme_draws_pick_a_class_of_positive_probability(draw: float, monkeypatch):
    """Rounding leaves the last cumulative sum below the highest draw for some C; p_0 = 0 tempts the lowest."""
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, draw))
    for num_classes in range(3, 200):
        logits = torch.zeros(1, num_classes)
        logits[0, 0] = -1e4
        scores = CategoricalLikelihood().sampled_score(logits, seeded())[0]
        assert scores.argmax().item() == (1 if draw == 0 else num_classes - 1)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53], ids=["lowest", "highest"])
def test_extreme_draws_give_finite_normal_scores(draw: float, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, generator, dtype: torch.full(shape, draw, dtype=dtype))
    scores = GaussianLikelihood(VARIANCE).sampled_score(LOGITS[None], seeded())
    deviations = scores[0].abs() * torch.from_numpy(VARIANCE).sqrt()
    assert ((deviations > 8) & (deviations < 9)).all()


@each_likelihood
def test_scores_take_the_dtype_of_the_logits(name: str):
    likelihood, logits = LIKELIHOODS[name], torch.randn(3, 4)
    labels = labels_for(name, 3).double() if name == "regression" else labels_for(name, 3)
    found = [
        likelihood.sampled_score(logits, seeded()),
        likelihood.signed_direction(logits, seeded()),
        likelihood.label_score(logits, labels),
        *likelihood.covariance_factors(logits),
    ]
    assert {values.dtype for values in found} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [("single_label", (3, 1), [3]), ("multi_label", (3,), [3, 4]), ("regression", (4,), [3, 4])],
)
def test_labels_that_would_be_broadcast_are_refused(name: str, shape: tuple[int, ...], expected: list[int]):
    labels = torch.zeros(shape, dtype=torch.int64)
    message = f"labels: expected of shape {expected} for these logits, got {list(shape)}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        LIKELIHOODS[name].label_score(torch.zeros(3, 4), labels)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_variance_that_is_none_is_refused(bad: float):
    variance = np.array([1.0, bad])
    message = f"regression head: needs a positive, finite variance for each target, got {variance}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        GaussianLikelihood(variance)


def test_likelihood_follows_the_kind_of_the_head():
    weight, bias = np.zeros((4, 2)), np.zeros(4)
    assert likelihood_of(LinearHead(weight, bias)) == CategoricalLikelihood()
    assert likelihood_of(LinearHead(weight, bias, "multi_label")) == BernoulliLikelihood()
    gaussian = likelihood_of(LinearHead(weight, bias, "regression", VARIANCE))
    assert isinstance(gaussian, GaussianLikelihood)
    assert gaussian.variance is VARIANCE
    message = "regression head: has no variance of its residuals; make it with fit_head"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        likelihood_of(LinearHead(weight, bias, "regression"))
