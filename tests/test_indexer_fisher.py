"""indexer.fisher against closed forms, theory of its estimators, and one sample at a time."""

import re

import numpy as np
import pytest
import torch
from references_fisher import check_layers, square_grads_one_by_one
from torch import Tensor, nn

from indexer.errors import TooFewSamplesError, UnknownNameError, WeightsError
from indexer.fisher import ESTIMATORS, FisherEstimate, fisher_information, get_estimator
from indexer.vision import models

NUM_CLASSES = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def small_body() -> nn.Module:
    """Convolutions, normalisation and in-place activations: 2 channels of 6 x 6 pixels to 5 features."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 3, 3, stride=2, groups=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(12, 5),
        )
    return body.double().eval()


HEAD = (random_values(NUM_CLASSES, 5, seed=1), random_values(NUM_CLASSES, seed=2))
IMAGES = random_values(40, 2, 6, 6, seed=3)


def estimate(
    name: str, images: Tensor = IMAGES, *, batch_size: int = 40, seed: int = 0, **options
) -> FisherEstimate:
    batches = images.split(batch_size)
    return fisher_information(small_body(), HEAD, batches, estimator=name, generator=seeded(seed), **options)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_information_matches_one_by_one(name: str):
    body, (weight, bias) = small_body(), HEAD
    logits = (body(IMAGES) @ weight.T + bias).detach()
    directions = ESTIMATORS[name].directions(logits, seeded())
    expected = square_grads_one_by_one(body, IMAGES, directions @ weight, norm_weights=True)
    found = estimate(name, batch_size=7, norm_weights=True)
    means = {layer: rows.mean(dim=0, keepdim=True) for layer, rows in expected.items()}
    check_layers(torch.from_numpy(found.mean)[None], found.slices, means, 1e-10)
    errors = {layer: rows.std(dim=0, keepdim=True) / len(IMAGES) ** 0.5 for layer, rows in expected.items()}
    check_layers(torch.from_numpy(found.standard_error)[None], found.slices, errors, 1e-8)
    assert found.num_samples == len(IMAGES)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_directions_have_the_covariance_of_the_scores(name: str):
    """Sum over S of E[v v^T] is diag(p) - p p^T, over 200,000 draws."""
    logits = torch.tensor([1.5, 0.0, -0.5, -2.0], dtype=torch.float64)
    probs = logits.softmax(dim=0)
    directions = ESTIMATORS[name].directions(logits.expand(200_000, -1), seeded())
    covariance = torch.einsum("snc,snd->cd", directions, directions) / 200_000
    torch.testing.assert_close(covariance, probs.diag() - probs.outer(probs), atol=0.003, rtol=0)
    torch.testing.assert_close(directions.sum(dim=2), torch.zeros(directions.shape[:2], dtype=torch.float64))


def softmax_regression(name: str, logits: Tensor, image: Tensor, num_draws: int) -> FisherEstimate:
    """Information in the weights ``[C, F]`` of a linear model at one image, drawn many times over."""
    body = nn.Linear(len(image), len(logits)).double()
    with torch.no_grad():
        body.weight.zero_()
        body.bias.copy_(logits)
    head = (torch.eye(len(logits), dtype=torch.float64), torch.zeros(len(logits), dtype=torch.float64))
    images = image.expand(num_draws, -1)
    return fisher_information(body, head, images.split(1000), estimator=name, generator=seeded())


SURE = torch.tensor([4.0, 0.0, -1.0, 1.0], dtype=torch.float64)
UNSURE = torch.tensor([0.3, 0.0, -0.2, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("logits", [SURE, UNSURE], ids=["sure", "unsure"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimate_of_a_linear_model_has_its_closed_mean_and_variance(name: str, logits: Tensor):
    """F = p_c (1 - p_c) mean(x^2); the variance of v_c^2 follows from the estimator's definition."""
    image, num_draws = random_values(6), 20_000
    found = softmax_regression(name, logits, image, num_draws)
    probs, power = logits.softmax(dim=0).numpy(), (image**2).mean().item()
    variance = probs * (1 - probs)
    classes = np.eye(len(probs))
    scores = classes - probs  # row y: the score of label y
    terms = np.sqrt(probs)[:, None] * scores  # v = sum of rows, with random signs
    spread = {
        "montecarlo": (probs[:, None] * scores**4).sum(axis=0) - variance**2,
        "signed": 2 * (variance**2 - (terms**4).sum(axis=0)),
        "exact": np.zeros(len(probs)),
    }[name]
    expected_error = power * np.sqrt(spread / num_draws)
    np.testing.assert_allclose(found.standard_error, expected_error, rtol=0.15, atol=1e-9)
    assert (np.abs(found.mean - power * variance) < 5 * expected_error + 1e-9).all()


def test_noise_falls_from_montecarlo_to_signed_to_exact_where_predictions_are_sure():
    errors = {
        name: softmax_regression(name, SURE, random_values(6), 5000).standard_error for name in ESTIMATORS
    }
    assert (errors["exact"] <= errors["signed"]).all()
    assert (errors["signed"] <= errors["montecarlo"]).all()


def test_information_is_the_curvature_of_the_kullback_leibler_divergence():
    """KL(p_w || p_{w + e}) = e^2 F_w / 2 for one weight; the mean of both signs cancels the cubic term."""
    body, (weight, bias), step = small_body(), HEAD, 1e-3
    images = IMAGES[:3]

    @torch.no_grad()
    def log_probs() -> Tensor:
        return (body(images) @ weight.T + bias).log_softmax(dim=1)

    start = log_probs()

    def curvature(values: Tensor, index: int) -> float:
        divergences = []
        before = values[index].item()
        for moved in (before + step, before - step):
            values[index] = moved
            divergences.append((start.exp() * (start - log_probs())).sum(dim=1).mean().item())
        values[index] = before
        return sum(divergences) / step**2

    found = estimate("exact", images)
    for name, columns in found.slices.items():
        matrix = body.get_submodule(name).weight.data
        values = matrix.view(-1)
        curvatures = np.array([curvature(values, index) for index in range(len(values))])
        expected = curvatures.reshape(len(matrix), -1).mean(axis=1)
        np.testing.assert_allclose(found.mean[columns], expected, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_batch_size_changes_rounding_only(name: str):
    whole, ones, odd = (estimate(name, batch_size=size) for size in (40, 1, 17))
    for other in (ones, odd):
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-10)
        np.testing.assert_allclose(other.standard_error, whole.standard_error, rtol=1e-8)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_same_seed_gives_the_same_bytes(name: str):
    first, again, other = estimate(name), estimate(name), estimate(name, seed=1)
    assert first.mean.tobytes() == again.mean.tobytes()
    assert first.standard_error.tobytes() == again.standard_error.tobytes()
    assert (first.mean.tobytes() == other.mean.tobytes()) == (name == "exact")


def test_progress_counts_samples():
    counts: list[int] = []
    estimate("signed", batch_size=16, progress=counts.append)
    assert counts == [16, 32, 40]


def test_head_and_images_follow_the_dtype_of_the_body():
    single = small_body().float()
    found = fisher_information(single, HEAD, [IMAGES], estimator="exact", generator=seeded())
    np.testing.assert_allclose(found.mean, estimate("exact").mean, rtol=1e-3)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24], ids=["lowest", "highest"])
def test_extreme_draws_pick_a_class_of_positive_probability(draw: float, monkeypatch):
    """Rounding leaves the last cumulative sum below the highest draw for some C; p_0 = 0 tempts the lowest."""
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, draw))
    for num_classes in range(3, 200):
        logits = torch.zeros(1, num_classes)
        logits[0, 0] = -1e4
        scores = ESTIMATORS["montecarlo"].directions(logits, seeded())[0, 0]
        assert scores.argmax().item() == (1 if draw == 0 else num_classes - 1)


def test_unknown_estimator_is_named():
    message = "no estimator is named 'montecarlos'; did you mean montecarlo?"
    with pytest.raises(UnknownNameError, match=f"^{re.escape(message)}$"):
        get_estimator("montecarlos")
    with pytest.raises(UnknownNameError, match=f"^{re.escape(message)}$"):
        estimate("montecarlos")


def test_catalogue_is_keyed_by_name():
    assert {name: estimator.name for name, estimator in ESTIMATORS.items()} == {
        name: name for name in ESTIMATORS
    }


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_samples_are_refused(count: int):
    message = f"Fisher information: needs at least 2 samples for its error, got {count}"
    batches = [IMAGES[:1]] * count
    with pytest.raises(TooFewSamplesError, match=f"^{re.escape(message)}$"):
        fisher_information(small_body(), HEAD, batches, estimator="signed", generator=seeded())


def test_information_that_is_not_finite_is_refused():
    message = (
        "the Fisher information of layer '0' is not finite; check that the probe's weights and the normalised "
        "images hold neither NaN nor huge values"
    )
    with pytest.raises(WeightsError, match=f"^{re.escape(message)}$"):
        estimate("signed", torch.full_like(IMAGES, torch.nan))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ESTIMATORS)
def test_cuda_agrees_with_cpu(name: str):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    body = models.resnet18(num_classes=5).eval().double()
    images = random_values(6, 3, 48, 48)

    def run() -> FisherEstimate:
        return fisher_information(body, HEAD, images.split(4), estimator=name, generator=seeded())

    on_cpu = run()
    body.cuda()
    on_cuda = run()
    np.testing.assert_allclose(on_cuda.mean, on_cpu.mean, rtol=1e-8)
    np.testing.assert_allclose(on_cuda.standard_error, on_cpu.standard_error, rtol=1e-6)
