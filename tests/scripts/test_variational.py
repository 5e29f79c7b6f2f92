"""The published variational estimate against the closed optimum of a linear model, and a real network."""

import re

import numpy as np
import pytest
import torch
import variational
from scipy.stats import spearmanr
from torch import Tensor, distributions, nn
from torch.nn import functional
from variational import MIN_STEPS, VariationalEstimate, _NoisyLayer, _window_power, variational_information

from indexer.errors import UnsupportedLayerError
from indexer.fisher.estimate import fisher_information
from indexer.fisher.weight_uses import find_filters
from indexer.heads.heads import LinearHead

pytestmark = pytest.mark.slow
Batches = list[tuple[Tensor, Tensor]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def seeded_module(module: type[nn.Module], *args, **options) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module(*args, **options).double()


def linear_regression() -> tuple[nn.Module, LinearHead, Batches, np.ndarray]:
    """A model whose expected loss is quadratic in the noise, its batches of uneven sizes, and F ``[D]``.

    With logits W (A x + noise): F = mean of x^2 times sum over targets of W^2 / variance.
    """
    body = seeded_module(nn.Linear, 6, 4)
    images = random_values(150, 6, seed=1)
    variance = np.array([0.5, 2.0])
    weight = random_values(2, 4, seed=2) * torch.tensor([0.5, 1.0, 2.0, 4.0])
    head = LinearHead(weight.numpy(), np.zeros(2), "regression", variance)
    noise = random_values(150, 2, seed=3) * torch.from_numpy(variance).sqrt()
    labels = (body(images) @ weight.T).detach() + noise
    information = (images**2).mean() * (weight**2 / torch.from_numpy(variance)[:, None]).sum(dim=0)
    return body, head, list(zip(images.split(64), labels.split(64), strict=True)), information.numpy()


def estimate(
    body: nn.Module, head: LinearHead, batches: Batches, *, seed: int = 0, norm_weights: bool = False, **options
) -> VariationalEstimate:
    layers = [block.name for block in find_filters(body, norm_weights=norm_weights)]
    return variational_information(body, head, batches, layers=layers, generator=seeded(seed), **options)


@pytest.fixture(scope="module")
def runs() -> list[VariationalEstimate]:
    """The linear regression with five seeds."""
    body, head, batches, _ = linear_regression()
    return [estimate(body, head, batches, seed=seed) for seed in range(5)]


def test_optimum_of_a_linear_regression_is_its_fisher_information(runs: list[VariationalEstimate]):
    """Up to the noise of Adam's steps: within 15 % in each run, within 6 % in their mean."""
    *_, information = linear_regression()
    for run in runs:
        np.testing.assert_allclose(run.mean, information, rtol=0.15)
        assert run.num_samples == 150
        assert run.mean.shape == (4,)
    np.testing.assert_allclose(np.mean([run.mean for run in runs], axis=0), information, rtol=0.06)


def test_standard_error_is_the_spread_of_other_draws(runs: list[VariationalEstimate]):
    spread = np.std([run.mean for run in runs], axis=0, ddof=1)
    stated = np.sqrt(np.mean([run.standard_error**2 for run in runs], axis=0))
    assert 0.5 < np.median(spread / stated) < 2


def test_prior_is_that_of_weights_and_noise_together():
    """At the optimum the prior variance is the mean of w^2 + Λ over a layer, and 1/Λ = F/β + 1/λ²."""
    layer = _NoisyLayer(seeded_module(nn.Linear, 6, 4))
    information = torch.tensor([0.1, 1.0, 10.0, 100.0], dtype=torch.float64)
    optimiser = torch.optim.LBFGS([layer.log_variance, layer.log_prior], max_iter=200, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = 0.5 * 6 * (information * layer.log_variance.exp()).sum() + layer.divergence()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(layer.information(), information, rtol=1e-4, atol=1e-4)
    spread = layer.layer.weight.square().mean() + layer.log_variance.exp().mean()
    torch.testing.assert_close(layer.log_prior.exp(), spread, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "module", [nn.Linear(6, 4), nn.Conv2d(2, 4, 3)], ids=lambda layer: type(layer).__name__
)
def test_divergence_is_that_of_torch_distributions(module: nn.Module):
    layer = _NoisyLayer(module.double())
    layer.log_variance.data += random_values(4)
    layer.log_prior.data += 0.7
    weight = module.weight.detach().reshape(4, -1)
    deviation = (layer.log_variance / 2).exp()[:, None].expand_as(weight)
    posterior = distributions.Normal(weight, deviation)
    prior = distributions.Normal(torch.zeros_like(weight), (layer.log_prior / 2).exp())
    expected = distributions.kl_divergence(posterior, prior).sum()
    torch.testing.assert_close(layer.divergence(), expected)


CONVS = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "grouped": {"groups": 2},
    "depthwise": {"groups": 4, "dilation": 2},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "same": {"padding": "same", "padding_mode": "reflect"},
}


@pytest.mark.parametrize("options", CONVS.values(), ids=CONVS)
def test_noise_has_the_variance_that_noise_in_the_weights_gives(options: dict):
    """Of a sum of inputs times independent weights: the sum of squared inputs times variances."""
    conv = seeded_module(nn.Conv2d, 4, 8, 3, **options)
    layer = _NoisyLayer(conv)
    layer.log_variance.data = random_values(8, seed=2)
    inputs = random_values(2, 4, 7, 7)
    variances = layer.log_variance.exp()[:, None, None, None].expand_as(conv.weight)
    twin = seeded_module(nn.Conv2d, 4, 8, 3, bias=False, **options)
    twin.weight.data = variances.detach()
    expected = twin(inputs**2)
    found = _window_power(conv, inputs) * layer.log_variance.exp()[:, None, None]
    torch.testing.assert_close(found, expected)
    outputs = conv(inputs)
    normal = torch.randn(outputs.shape, generator=seeded(5)).double()
    noisy = layer.add_noise(inputs, outputs, seeded(5))
    torch.testing.assert_close(noisy, outputs + normal * expected.sqrt())


def test_noise_of_a_linear_layer_works_on_any_leading_axes():
    linear = seeded_module(nn.Linear, 5, 3)
    layer = _NoisyLayer(linear)
    layer.log_variance.data = random_values(3, seed=2)
    inputs = random_values(2, 4, 5)
    expected = functional.linear(inputs**2, layer.log_variance.exp()[:, None].expand(3, 5))
    normal = torch.randn(2, 4, 3, generator=seeded(5)).double()
    noisy = layer.add_noise(inputs, linear(inputs), seeded(5))
    torch.testing.assert_close(noisy, linear(inputs) + normal * expected.sqrt())


def test_filters_that_see_nothing_do_not_break_the_descent():
    """After dead units the root of the variance has no gradient; its noise is nothing, and so is F."""
    body = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    head = LinearHead(np.eye(3), np.zeros(3))
    batches = [(random_values(40, 6), torch.arange(40) % 3)]
    body[0].bias.data.zero_()
    live = estimate(body, head, batches)
    body[0].bias.data.fill_(-100)
    dead = estimate(body, head, batches)
    assert np.isfinite(dead.mean).all()
    assert dead.mean.max() < 0.05 * live.mean.max()


@pytest.fixture(scope="module")
def digits_network() -> tuple[nn.Module, LinearHead, Batches]:
    """A small network trained on real handwritten digits, cut into body and head."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images[:, None] / 8 - 1).float()
    labels = torch.from_numpy(digits.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 24),
            nn.ReLU(),
        )
        top = nn.Linear(24, 10)
        whole = nn.Sequential(body, top)
        optimiser = torch.optim.Adam(whole.parameters(), lr=3e-3)
        for _ in range(4):
            for chosen in torch.randperm(len(labels)).split(64):
                optimiser.zero_grad()
                functional.cross_entropy(whole(images[chosen]), labels[chosen]).backward()
                optimiser.step()
    head = LinearHead(top.weight.detach().double().numpy(), top.bias.detach().double().numpy())
    sample = torch.randperm(len(labels), generator=seeded())[:512]
    return body.eval(), head, list(zip(images[sample].split(64), labels[sample].split(64), strict=True))


def test_ranking_of_filters_agrees_with_exact_on_a_real_network(digits_network: tuple):
    body, head, batches = digits_network
    exact = fisher_information(body, head, batches, estimator="exact", generator=seeded())
    found = estimate(body, head, batches)
    assert spearmanr(found.mean, exact.mean).statistic > 0.9
    positive = exact.mean > 0
    assert 0.5 < np.median(found.mean[positive] / exact.mean[positive]) < 4  # of one unit


def test_network_is_left_as_it_was():
    body, head, batches, _ = linear_regression()
    state = {name: values.clone() for name, values in body.state_dict().items()}
    body.bias.requires_grad_(False)
    estimate(body, head, batches)
    assert all(torch.equal(values, state[name]) for name, values in body.state_dict().items())
    assert (body.weight.requires_grad, body.bias.requires_grad) == (True, False)
    assert body.weight.grad is None
    assert not body._forward_hooks


def test_same_seed_gives_the_same_bytes(runs: list[VariationalEstimate]):
    body, head, batches, _ = linear_regression()
    again = estimate(body, head, batches)
    assert again.mean.tobytes() == runs[0].mean.tobytes()
    assert again.standard_error.tobytes() == runs[0].standard_error.tobytes()
    assert again.mean.tobytes() != runs[1].mean.tobytes()


def test_every_sample_counts_the_same_whatever_its_batch(monkeypatch):
    """A last batch of one would else weigh as much as one of 64; here it alone carries information."""
    monkeypatch.setattr(variational, "MIN_STEPS", 600)
    body = seeded_module(nn.Linear, 6, 4)
    head = LinearHead(np.eye(4), np.zeros(4), "regression", np.ones(4))
    images = torch.zeros(33, 6, dtype=torch.float64)
    images[-1] = 10
    labels = body(images).detach()
    found = estimate(body, head, list(zip(images.split(32), labels.split(32), strict=True)))
    np.testing.assert_allclose(found.mean, 100 / 33, rtol=0.3)


def test_multi_label_tasks_have_an_estimate():
    body, head, batches, _ = linear_regression()
    head = LinearHead(head.weight, head.bias, "multi_label")
    batches = [(images, (labels > 0).to(torch.uint8)) for images, labels in batches]
    exact = fisher_information(body, head, batches, estimator="exact", generator=seeded())
    assert spearmanr(estimate(body, head, batches).mean, exact.mean).statistic == pytest.approx(1)


def test_progress_counts_samples_up_to_all_of_them():
    body, head, batches, _ = linear_regression()
    counts: list[int] = []
    estimate(body, head, batches, progress=counts.append)
    assert len(counts) == MIN_STEPS
    assert counts == sorted(counts)
    assert counts[-1] == 150


def test_layers_without_noise_are_refused():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 4)).eval()
    head = LinearHead(np.eye(4), np.zeros(4))
    batches = [(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))]
    message = (
        "the estimator 'variational' has noise for Conv2d and Linear only, not for layer '1' (BatchNorm2d); "
        "use another estimator, or leave normalisation layers out"
    )
    with pytest.raises(UnsupportedLayerError, match=f"^{re.escape(message)}$"):
        estimate(body, head, batches, norm_weights=True)


def test_parameters_that_are_no_layers_are_refused():
    body = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)))
    batches = [(torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64))]
    message = "only, not for layer '0.parametrizations.weight.original1' (a parameter); use another estimator"
    with pytest.raises(UnsupportedLayerError, match=re.escape(message)):
        estimate(body, LinearHead(np.eye(4), np.zeros(4)), batches)


class HandingOver(nn.Module):
    """Gives the weight of a layer to a function, and never calls the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.layer.weight)


def test_layers_that_are_not_called_are_refused():
    batches = [(torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64))]
    with pytest.raises(
        UnsupportedLayerError, match="cannot add noise to layer 'layer', which the network does not"
    ):
        estimate(HandingOver(), LinearHead(np.eye(4), np.zeros(4)), batches)
