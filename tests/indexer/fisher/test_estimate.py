"""indexer.fisher.estimate against closed forms, theory of its estimators, and one sample at a time."""

import itertools
import re

import numpy as np
import pytest
import torch
from references_fisher import (
    check_layers,
    fisher_matrix,
    label_distribution,
    score_covariance,
    score_outcomes,
    square_grads_one_by_one,
)
from torch import Tensor, distributions, nn

from indexer.errors import DataError, TooFewSamplesError, UnknownNameError, WeightsError
from indexer.fisher import estimate as estimate_module
from indexer.fisher.estimate import (
    ESTIMATORS,
    MIN_SAMPLES_TO_STOP,
    FisherEstimate,
    fisher_information,
    get_estimator,
)
from indexer.fisher.likelihoods import likelihood_of
from indexer.heads.heads import LinearHead
from indexer.networks.torchvision import models

NUM_CLASSES = 4
UNBIASED = [name for name in ESTIMATORS if name != "empirical"]
KINDS = ["single_label", "multi_label", "regression"]
VARIANCE = np.array([0.5, 2.0, 0.1, 1.5])

each_kind = pytest.mark.parametrize("kind", KINDS)


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


def head_of(kind: str, weight: Tensor | None = None, bias: Tensor | None = None) -> LinearHead:
    weight = random_values(NUM_CLASSES, 5, seed=1) if weight is None else weight
    bias = random_values(NUM_CLASSES, seed=2) if bias is None else bias
    return LinearHead(weight.numpy(), bias.numpy(), kind, VARIANCE if kind == "regression" else None)


def labels_of(kind: str, num_samples: int) -> Tensor:
    if kind == "single_label":
        return torch.randint(0, NUM_CLASSES, (num_samples,), generator=seeded(4))
    if kind == "multi_label":
        return torch.randint(0, 2, (num_samples, NUM_CLASSES), generator=seeded(4), dtype=torch.uint8)
    return random_values(num_samples, NUM_CLASSES, seed=4).float()


def batches_of(images: Tensor, labels: Tensor, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(batch_size), labels.split(batch_size), strict=True))


IMAGES = random_values(40, 2, 6, 6, seed=3)


def estimate(
    name: str,
    images: Tensor = IMAGES,
    *,
    kind: str = "single_label",
    batch_size: int = 40,
    seed: int = 0,
    **options,
) -> FisherEstimate:
    batches = batches_of(images, labels_of(kind, len(images)), batch_size)
    generator = seeded(seed)
    return fisher_information(
        small_body(), head_of(kind), batches, estimator=name, generator=generator, **options
    )


def directions_of(name: str, head: LinearHead, logits: Tensor, labels: Tensor) -> Tensor:
    """All directions of an estimator, ``[S, N, C]``."""
    return torch.stack(list(ESTIMATORS[name].directions(likelihood_of(head), logits, labels, seeded())))


@each_kind
@pytest.mark.parametrize("name", ESTIMATORS)
def test_information_matches_one_by_one(name: str, kind: str):
    body, head = small_body(), head_of(kind)
    weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    logits = (body(IMAGES) @ weight.T + bias).detach()
    directions = directions_of(name, head, logits, labels_of(kind, len(IMAGES)))
    expected = square_grads_one_by_one(body, IMAGES, directions @ weight, norm_weights=True)
    found = estimate(name, kind=kind, batch_size=7, norm_weights=True)
    means = {layer: rows.mean(dim=0, keepdim=True) for layer, rows in expected.items()}
    check_layers(torch.from_numpy(found.mean)[None], found.slices, means, 1e-10)
    errors = {layer: rows.std(dim=0, keepdim=True) / len(IMAGES) ** 0.5 for layer, rows in expected.items()}
    check_layers(torch.from_numpy(found.standard_error)[None], found.slices, errors, 1e-8)
    assert found.num_samples == len(IMAGES)
    assert found.fallbacks == ()


# A linear model whose logits are fixed, with weights [D, 6] that a head [C, D] mixes: F has a closed form.

IMAGE = random_values(6)
POWER = (IMAGE**2).mean().item()
MIXING = random_values(NUM_CLASSES, 3, seed=5)
SURE = torch.tensor([4.0, 0.0, -1.0, 1.0], dtype=torch.float64)
UNSURE = torch.tensor([0.3, 0.0, -0.2, 0.1], dtype=torch.float64)


def linear_model(
    name: str,
    kind: str,
    logits: Tensor,
    num_draws: int,
    *,
    mixing: Tensor = MIXING,
    labels: Tensor | None = None,
) -> FisherEstimate:
    """Information in the weights of a linear model at one image, drawn many times over."""
    body = nn.Linear(len(IMAGE), mixing.shape[1]).double()
    with torch.no_grad():
        body.weight.zero_()
        body.bias.zero_()
    labels = labels_of(kind, num_draws) if labels is None else labels
    batches = batches_of(IMAGE.expand(num_draws, -1), labels, 1000)
    head = head_of(kind, mixing, logits)
    return fisher_information(body, head, batches, estimator=name, generator=seeded())


def closed_moments(name: str, kind: str, logits: Tensor, mixing: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Fisher information ``[D]``, and the variance over draws of one sample's estimate."""
    weight = mixing.numpy()
    covariance = score_covariance(kind, logits[None], VARIANCE)[0].numpy()
    information = POWER * np.einsum("cd,ce,ed->d", weight, covariance, weight)
    if name == "exact":
        return information, np.zeros_like(information)
    if (name, kind) == ("montecarlo", "regression"):  # the square of a normal variable
        return information, 2 * information**2
    outcomes = score_outcomes(name, kind, logits, VARIANCE)
    drawn = [(share, POWER * (direction @ weight) ** 2) for share, direction in outcomes]
    mean = sum(share * square for share, square in drawn)
    np.testing.assert_allclose(mean, information, rtol=1e-10)  # the estimator itself has no bias
    return information, sum(share * square**2 for share, square in drawn) - mean**2


@pytest.mark.parametrize("logits", [SURE, UNSURE], ids=["sure", "unsure"])
@each_kind
@pytest.mark.parametrize("name", UNBIASED)
def test_estimate_of_a_linear_model_has_its_closed_mean_and_variance(name: str, kind: str, logits: Tensor):
    num_draws = 20_000
    found = linear_model(name, kind, logits, num_draws)
    information, variance = closed_moments(name, kind, logits, MIXING)
    expected_error = np.sqrt(variance / num_draws)
    rounding = 1e-7 * information.max()
    np.testing.assert_allclose(found.standard_error, expected_error, rtol=0.15, atol=rounding)
    assert (np.abs(found.mean - information) < 5 * expected_error + rounding).all()


@each_kind
def test_empirical_is_information_only_if_labels_come_from_the_model(kind: str):
    num_draws = 20_000
    model = label_distribution(kind, UNSURE, VARIANCE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = model.sample((num_draws,))
    information, _ = closed_moments("exact", kind, UNSURE, MIXING)
    found = linear_model("empirical", kind, UNSURE, num_draws, labels=labels)
    assert (np.abs(found.mean - information) < 5 * found.standard_error).all()
    same = linear_model("empirical", kind, UNSURE, num_draws, labels=labels[:1].expand_as(labels).contiguous())
    assert (np.abs(same.mean - information) > 0.1 * information).any()


@each_kind
def test_noise_falls_from_montecarlo_to_signed_to_exact(kind: str):
    """For single labels where predictions are sure; for the other kinds always."""
    num_draws = 4000
    logits = [SURE] if kind == "single_label" else [SURE, UNSURE, -SURE]
    identity = torch.eye(NUM_CLASSES, dtype=torch.float64)
    for values, mixing in itertools.product(logits, [identity, MIXING]):
        rounding = 1e-7 * closed_moments("exact", kind, values, mixing)[0].max()
        errors = {}
        for name in UNBIASED:
            _, variance = closed_moments(name, kind, values, mixing)
            errors[name] = np.sqrt(variance.clip(0) / num_draws)
            found = linear_model(name, kind, values, num_draws, mixing=mixing).standard_error
            np.testing.assert_allclose(found, errors[name], rtol=0.3, atol=rounding)
        assert (errors["exact"] <= errors["signed"]).all()
        assert (errors["signed"] <= errors["montecarlo"] + rounding).all()
        assert (errors["signed"] < 0.999 * errors["montecarlo"]).any()


def test_signed_is_noisier_than_montecarlo_for_two_classes_at_even_odds():
    """With q = p (1 - p) the variances are (1 - 4q)/q and 4q times F^2, equal where q = (sqrt 2 - 1)/2."""
    mixing = torch.eye(2, dtype=torch.float64)
    for odds, ahead in ((0.0, "montecarlo"), (0.5, "montecarlo"), (2.0, "signed")):
        logits = torch.tensor([odds, 0.0], dtype=torch.float64)
        labels = torch.zeros(4000, dtype=torch.int64)
        errors = {
            name: linear_model(name, "single_label", logits, 4000, mixing=mixing, labels=labels).standard_error
            for name in ("montecarlo", "signed")
        }
        after = next(name for name in errors if name != ahead)
        assert (errors[ahead] < errors[after]).all(), odds


def with_head(body: nn.Module, head: LinearHead) -> nn.Module:
    top = nn.Linear(*reversed(head.weight.shape)).double()
    top.weight.data, top.bias.data = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    return nn.Sequential(body, top).eval()


@each_kind
def test_exact_is_the_diagonal_of_the_matrix_that_curves_the_divergence(kind: str):
    """KL(p_w || p_{w + e}) = e^T F e / 2 for small e; the mean of both signs cancels the cubic term."""
    body = small_body()
    whole = with_head(body, head_of(kind))
    logits = whole(IMAGES[:3]).detach()
    matrix = fisher_matrix(whole, IMAGES[:3], score_covariance(kind, logits, VARIANCE)).detach()
    model = label_distribution(kind, logits, VARIANCE)
    of_body = sum(body.get_submodule(name).weight.numel() for name in ("0", "3", "6"))
    matrix = matrix[:of_body, :of_body]
    weights = [body.get_submodule(name).weight.requires_grad_(False) for name in ("0", "3", "6")]
    start = nn.utils.parameters_to_vector(weights).detach()
    for seed in range(5):
        step = 1e-4 * random_values(of_body, seed=seed)
        divergences = []
        for moved in (start + step, start - step):
            nn.utils.vector_to_parameters(moved, weights)
            moved_model = label_distribution(kind, whole(IMAGES[:3]), VARIANCE)
            divergences.append(distributions.kl_divergence(model, moved_model).mean().item())
        assert np.mean(divergences) == pytest.approx((step @ matrix @ step / 2).item(), rel=1e-3)

    found = estimate("exact", IMAGES[:3], kind=kind)
    stops = np.cumsum([0, *(weight.numel() for weight in weights)])
    for index, (columns, weight) in enumerate(zip(found.slices.values(), weights, strict=True)):
        diagonal = matrix.diagonal()[stops[index] : stops[index + 1]].reshape(len(weight), -1)
        np.testing.assert_allclose(found.mean[columns], diagonal.mean(dim=1), rtol=1e-10)


@each_kind
@pytest.mark.parametrize("name", ESTIMATORS)
def test_batch_size_changes_rounding_only(name: str, kind: str):
    whole, ones, odd = (estimate(name, kind=kind, batch_size=size) for size in (40, 1, 17))
    for other in (ones, odd):
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-10)
        np.testing.assert_allclose(other.standard_error, whole.standard_error, rtol=1e-8)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_same_seed_gives_the_same_bytes(name: str):
    first, again, other = estimate(name), estimate(name), estimate(name, seed=1)
    assert first.mean.tobytes() == again.mean.tobytes()
    assert first.standard_error.tobytes() == again.standard_error.tobytes()
    assert (first.mean.tobytes() == other.mean.tobytes()) == (name in {"exact", "empirical"})


def test_only_empirical_looks_at_labels():
    for name in ESTIMATORS:
        others = [(IMAGES, labels_of("single_label", 40).flip(0))]
        other = fisher_information(
            small_body(), head_of("single_label"), others, estimator=name, generator=seeded()
        )
        assert np.array_equal(other.mean, estimate(name).mean) == (name != "empirical")


class Doubled(nn.Linear):
    """A layer without a rule of its own."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ (2 * self.weight).T


def test_layers_on_the_slow_route_are_named_and_exact():
    body = nn.Sequential(Doubled(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 5)).double()
    images, labels, head = random_values(12, 6), labels_of("single_label", 12), head_of("single_label")
    weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    logits = (body(images) @ weight.T + bias).detach()
    directions = directions_of("exact", head, logits, labels)
    expected = square_grads_one_by_one(body, images, directions @ weight)
    batches = batches_of(images, labels, 5)
    found = fisher_information(body, head, batches, estimator="exact", generator=seeded())
    assert found.fallbacks == ("0 (Doubled)",)
    means = {layer: rows.mean(dim=0, keepdim=True) for layer, rows in expected.items()}
    check_layers(torch.from_numpy(found.mean)[None], found.slices, means, 1e-10)


def test_progress_counts_samples():
    counts: list[int] = []
    estimate("signed", batch_size=16, progress=counts.append)
    assert counts == [16, 32, 40]


MANY = random_values(1200, 2, 6, 6, seed=6)


def relative_error(found: FisherEstimate) -> float:
    return float(np.median(found.standard_error / found.mean))


@each_kind
def test_tolerance_stops_at_the_first_batch_that_meets_it(kind: str):
    tolerance = {"single_label": 0.08, "multi_label": 0.05, "regression": 0.03}[kind]
    stopped = estimate("signed", MANY, kind=kind, batch_size=16, tolerance=tolerance)
    assert MIN_SAMPLES_TO_STOP + 16 < stopped.num_samples < len(MANY)
    assert relative_error(stopped) < tolerance
    same = estimate("signed", MANY[: stopped.num_samples], kind=kind, batch_size=16)
    assert same.mean.tobytes() == stopped.mean.tobytes()
    assert same.standard_error.tobytes() == stopped.standard_error.tobytes()
    before = estimate("signed", MANY[: stopped.num_samples - 16], kind=kind, batch_size=16)
    assert relative_error(before) >= tolerance


@pytest.mark.parametrize("seed", range(3))
def test_a_stopped_result_lies_within_its_error_of_the_full_one(seed: int):
    """The root mean square over filters of the difference, in standard errors, is about one."""
    stopped = estimate("signed", MANY, batch_size=16, tolerance=0.1, seed=seed)
    full = estimate("signed", MANY, batch_size=16, seed=seed)
    assert stopped.num_samples < full.num_samples / 2
    deviations = (stopped.mean - full.mean) / stopped.standard_error
    assert 0.2 < np.sqrt((deviations**2).mean()) < 2


def test_tolerance_never_stops_under_the_floor():
    assert MIN_SAMPLES_TO_STOP == 100
    assert estimate("exact", MANY, batch_size=16, tolerance=0.99).num_samples == 112
    assert estimate("exact", MANY, batch_size=100, tolerance=0.99).num_samples == 100
    assert estimate("exact", MANY[:90], batch_size=16, tolerance=0.99).num_samples == 90


def test_tolerance_out_of_reach_uses_every_sample():
    full, found = estimate("signed", batch_size=16), estimate("signed", batch_size=16, tolerance=1e-6)
    assert found.mean.tobytes() == full.mean.tobytes()


def test_tolerance_looks_at_filters_above_zero_only(monkeypatch):
    """Dead filters have no relative error, and a network of nothing but these never meets a tolerance."""
    monkeypatch.setattr(estimate_module, "MIN_SAMPLES_TO_STOP", 2)
    dead = nn.Linear(6, 3).double()
    batches = batches_of(random_values(40, 6), labels_of("single_label", 40), 10)
    mixing = torch.zeros(NUM_CLASSES, 3, dtype=torch.float64)
    options = {"estimator": "exact", "generator": seeded(), "tolerance": 0.9}
    found = fisher_information(dead, head_of("single_label", mixing), batches, **options)
    assert (found.num_samples, found.mean.max()) == (40, 0)
    mixing[:, 0] = SURE
    assert fisher_information(dead, head_of("single_label", mixing), batches, **options).num_samples == 10


def test_head_and_images_follow_the_dtype_of_the_body():
    single = small_body().float()
    batches = [(IMAGES, labels_of("single_label", 40))]
    found = fisher_information(single, head_of("single_label"), batches, estimator="exact", generator=seeded())
    np.testing.assert_allclose(found.mean, estimate("exact").mean, rtol=1e-3)


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
    assert "for comparison only" in ESTIMATORS["empirical"].summary


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_samples_are_refused(name: str, count: int):
    message = f"Fisher information: needs at least 2 samples for its error, got {count}"
    batches = [(IMAGES[:1], labels_of("single_label", 1))] * count
    with pytest.raises(TooFewSamplesError, match=f"^{re.escape(message)}$"):
        fisher_information(small_body(), head_of("single_label"), batches, estimator=name, generator=seeded())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_information_that_is_not_finite_is_refused(name: str):
    message = (
        "the Fisher information of layer '0' is not finite; check that the probe's weights and the normalised "
        "images hold neither NaN nor huge values"
    )
    with pytest.raises(WeightsError, match=f"^{re.escape(message)}$"):
        estimate(name, torch.full_like(IMAGES, torch.nan))


def test_labels_of_another_kind_are_refused():
    batches = [(IMAGES, labels_of("multi_label", 40))]
    message = "labels: expected of shape [40] for these logits, got [40, 4]"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        fisher_information(
            small_body(), head_of("single_label"), batches, estimator="empirical", generator=seeded()
        )


@pytest.mark.gpu
@each_kind
@pytest.mark.parametrize("name", ESTIMATORS)
def test_cuda_agrees_with_cpu(name: str, kind: str):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    body = models.resnet18(num_classes=5).eval().double()
    batches = batches_of(random_values(6, 3, 48, 48), labels_of(kind, 6), 4)

    def run() -> FisherEstimate:
        return fisher_information(body, head_of(kind), batches, estimator=name, generator=seeded())

    on_cpu = run()
    body.cuda()
    on_cuda = run()
    np.testing.assert_allclose(on_cuda.mean, on_cpu.mean, rtol=1e-8)
    np.testing.assert_allclose(on_cuda.standard_error, on_cpu.standard_error, rtol=1e-6)
