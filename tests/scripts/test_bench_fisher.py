"""The benchmarks of the Fisher engine: every route gives the same figures, and the recipe is what it says."""

import sys

import bench_quality
import fisher_peers
import fresh_process
import numpy as np
import pytest
import torch
from fisher_costs import Case, Cost, measure_cost
from fisher_peers import APPROXIMATE, ROUTES, largest_error, torch_func
from published_recipe import PublishedRecipe
from torch import Tensor, nn
from torch.nn import functional

from indexer.data.samples import Sample
from indexer.networks.run import PretrainedNetwork
from indexer.records import DatasetDescription, InputTransform

LIBRARIES = {"backpack": "backpack", "opacus": "opacus", "nngeometry": "nngeometry"}
ROUTES_WITH_FIGURES = sorted(set(ROUTES) - {"plain", *APPROXIMATE})


class Residual(nn.Module):
    """As torchvision writes it: ReLU and sum in place."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.relu(self.bn1(self.conv1(images))).mean(dim=(2, 3)))


def make_batch(*, norm: bool) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = Residual(norm=norm).eval().double()
    if norm:
        network.bn1.running_var.uniform_(0.5, 1.5)
    return network, torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)


def one_by_one(network: nn.Module, images: Tensor, directions: Tensor) -> fisher_peers.Squares:
    weights = {"conv1": network.conv1.weight, "linear": network.linear.weight}
    totals = {name: torch.zeros(len(weight), dtype=weight.dtype) for name, weight in weights.items()}
    for image, direction in zip(images, directions, strict=True):
        grads = torch.autograd.grad((network(image[None])[0] * direction).sum(), list(weights.values()))
        for name, grad in zip(weights, grads, strict=True):
            totals[name] += grad.square().flatten(1).mean(dim=1) / len(images)
    return totals


@pytest.mark.filterwarnings("ignore")  # the peers use what torch deprecates
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("route", ROUTES_WITH_FIGURES)
def test_every_route_agrees_with_one_sample_at_a_time(route, norm):
    if route in LIBRARIES:
        pytest.importorskip(LIBRARIES[route])
    network, images, directions = make_batch(norm=norm)
    expected = one_by_one(network, images, directions)
    if route == "opacus" and norm:
        with pytest.raises(fresh_process.RefusalError, match=r"^refuses batch norm, in eval mode too$"):
            ROUTES[route](network, images, directions)
        return
    run = ROUTES[route](network, images, directions)
    for _ in range(2):  # a second run must not add to the first
        found = run()
        assert found.keys() == expected.keys()
        assert largest_error(found, expected) < 1e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", [False, True])
def test_kfac_of_one_sample_is_right_where_a_layer_sees_one_position(norm):
    pytest.importorskip("curvlinops")
    network, images, directions = make_batch(norm=norm)
    expected = one_by_one(network, images[:1], directions[:1])
    run = ROUTES["curvlinops"](network, images[:1], directions[:1])
    for _ in range(2):
        found = run()
        assert found.keys() == expected.keys()
        assert largest_error({"linear": found["linear"]}, {"linear": expected["linear"]}) < 1e-6


def test_chunks_change_nothing():
    batch = make_batch(norm=True)
    assert largest_error(torch_func(*batch, chunk_size=4)(), torch_func(*batch)()) < 1e-12


def test_an_error_that_is_not_a_number_is_not_hidden():
    good, bad = torch.ones(3), torch.tensor([1.0, float("nan"), 1.0])
    assert np.isnan(largest_error({"a": bad, "b": good}, {"a": good, "b": good}))


@pytest.mark.filterwarnings("ignore")
def test_out_of_place_computes_the_same():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    for name in ("resnet18", "mobilenet_v3_small"):
        network = fisher_peers.build(name, 32, torch.device("cpu"))
        copy = fisher_peers.out_of_place(network)
        assert torch.equal(copy(images), network(images)), name
        assert not any(getattr(layer, "inplace", False) for layer in copy.modules()), name


def test_cost_of_a_pass_is_measured():
    case = Case("squeezenet1_0", 32, 2, seed=0, device="cpu")
    cost = measure_cost(case, "ours", None, repeats=1)
    assert cost.seconds > 0
    assert cost.plain_seconds > 0
    assert cost.rounds == 1
    assert Cost(2.0, 1.0, 10, 1).scaled(3) == Cost(6.0, 1.0, 30, 1)


def hold(megabytes: int) -> int:
    values = np.ones(megabytes * 2**20, dtype=np.uint8)
    return int(values[-1])


def peak_of_holding(megabytes: int) -> int:
    return fresh_process.measure_peak(lambda: hold(megabytes), torch.device("cpu"))[1]


def refuse() -> None:
    raise fresh_process.RefusalError("too odd")


def die() -> None:
    sys.exit(3)


@pytest.mark.slow
def test_a_fresh_process_says_what_came_of_a_function():
    outcome = fresh_process.run_fresh(peak_of_holding, 64, threads=1, timeout=60)
    assert outcome.failure is None
    assert 62 * 2**20 <= outcome.value < 96 * 2**20  # pages of before may be used again
    assert fresh_process.run_fresh(refuse, threads=1, timeout=60).failure == "too odd"
    assert "died with code 3" in fresh_process.run_fresh(die, threads=1, timeout=60).failure


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu().mean(dim=(2, 3))


@pytest.fixture
def tiny() -> PretrainedNetwork:
    torch.manual_seed(0)
    transform = InputTransform(resize=8, crop=8)
    return PretrainedNetwork("tiny.random", "tiny", Tiny().eval(), 4, 112, transform, weights_hash="")


@pytest.fixture
def sample() -> Sample:
    """Classes of 30 and 10 images."""
    labels = np.repeat([0, 1], [30, 10])
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8)).astype(np.uint8)
    return Sample(images, labels, DatasetDescription("made up", 40, ("a", "b"), fingerprint=""))


def test_an_epoch_draws_classes_alike_and_drops_the_last_batch():
    labels = torch.arange(4).repeat_interleave(torch.tensor([500, 20, 20, 2]))
    drawn = list(PublishedRecipe().draw(labels, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in drawn] == [64] * 156
    shares = torch.bincount(labels[torch.cat(drawn)], minlength=4) / (156 * 64)
    np.testing.assert_allclose(shares, 0.25, atol=0.02)


def test_features_are_cached_in_training_mode(tiny, sample):
    body = Tiny()
    body.load_state_dict(tiny.body.state_dict())
    images = torch.from_numpy(sample.images)
    features = PublishedRecipe(batch_size=16).cache_features(body, tiny, images)
    fresh = Tiny()
    fresh.load_state_dict(tiny.body.state_dict())
    expected = torch.cat([fresh(tiny.normalize(batch)) for batch in images.split(16)])
    torch.testing.assert_close(features, expected)
    assert body.norm.num_batches_tracked == 3


def test_what_is_squared_is_the_mean_gradient_of_a_batch_with_labels_from_the_model(tiny):
    head = nn.Linear(4, 3)
    batches = [torch.randn(8, 3, 8, 8) for _ in range(2)]
    body = tiny.body.train()
    recipe = PublishedRecipe(num_draws=20, batch_size=8)
    found = recipe.average_squares(body, head, iter(batches), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    expected = torch.zeros(4, 27)
    for batch in batches:
        logits = head(body(batch))
        labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
        loss = functional.cross_entropy(logits, labels)  # a mean over the batch
        expected += torch.autograd.grad(loss, body.conv.weight)[0].flatten(1) ** 2 / len(batches)
    assert expected.mean() > 1e-6
    torch.testing.assert_close(found["conv"], expected.mean(dim=1))
    assert found["norm"].shape == (4,)


def test_the_recipe_repeats_itself_and_leaves_the_probe_alone(tiny, sample):
    recipe = PublishedRecipe(num_draws=64, batch_size=16, epochs=2)
    before = {name: value.clone() for name, value in tiny.body.state_dict().items()}
    first, again, other = (recipe.embed(tiny, sample, seed)["conv"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(torch.equal(value, before[name]) for name, value in tiny.body.state_dict().items())
    assert not tiny.body.training


def test_the_head_learns(tiny):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(100)
    features = torch.randn(200, 4, generator=generator) + 3 * labels[:, None]
    head = nn.Linear(4, 2)
    PublishedRecipe(learning_rate=0.01).fit_head(head, features, labels, generator)
    assert (head(features).argmax(dim=1) == labels).float().mean() > 0.95


def test_disagreement_has_no_unit_and_leaves_out_filters_at_zero():
    embeddings = {0: [1.0, 2.0, 4.0, 0.0], 1: [10.0, 20.0, 40.0, 1.0], 2: [1.0, 2.0, 4.0, 5.0]}
    runs = bench_quality.repeat(lambda seed: lambda: np.array(embeddings[seed]), range(3))
    assert runs.disagreement == pytest.approx(0, abs=1e-12)
    assert np.isnan(runs.logs[:, 3]).all()
    embeddings[1] = [np.e, 2.0, 4.0, 1.0]
    runs = bench_quality.repeat(lambda seed: lambda: np.array(embeddings[seed]), range(2))
    assert runs.disagreement == pytest.approx(np.sqrt(np.mean(np.square([2 / 3, -1 / 3, -1 / 3]))))
