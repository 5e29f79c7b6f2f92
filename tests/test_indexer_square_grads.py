"""indexer.square_grads against one sample at a time through ordinary weight gradients."""

import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references_fisher import check_layers, square_grads_one_by_one
from torch import Tensor, nn

from indexer import square_grads
from indexer.errors import UnsupportedLayerError
from indexer.square_grads import ConvGeometry, SquareGrads, cheapest_form, matrix_costs
from indexer.vision import models

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}


def square_grads_of(network: nn.Module, images: Tensor, directions: Tensor, *, norm_weights: bool = False):
    """The fast side of each comparison: columns ``[N, D]`` summed over directions, and their slices."""
    with SquareGrads(network, norm_weights=norm_weights) as grads:
        output = network(images)
        taken = []
        for direction in directions:
            output.backward(direction, retain_graph=True)
            taken.append(grads.take())
    return torch.stack(taken).sum(dim=0), grads.slices


def check_network(network: nn.Module, images: Tensor, *, norm_weights: bool = False):
    generator = torch.Generator().manual_seed(1)
    shape = (2, *network(images).shape)
    directions = torch.randn(shape, generator=generator).to(images)
    found, slices = square_grads_of(network, images, directions, norm_weights=norm_weights)
    expected = square_grads_one_by_one(network, images, directions, norm_weights=norm_weights)
    check_layers(found, slices, expected, TOLERANCES[images.dtype])


def perturb_statistics(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)


def random_images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", "mobilenet_v3_small"])
def test_architecture_matches_one_by_one(name: str, dtype: torch.dtype):
    network = getattr(models, name)(num_classes=4).eval().to(dtype)
    perturb_statistics(network)
    check_network(network, random_images(2, 3, 36, 36, dtype=dtype), norm_weights=True)


def test_filters_lie_in_the_order_of_named_modules():
    network = models.resnet18(num_classes=4).eval()
    slices = SquareGrads(network).slices
    assert list(slices)[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert list(slices)[-1] == "fc"
    assert [columns.start for columns in slices.values()][:3] == [0, 64, 128]
    assert slices["fc"] == slice(4800, 4804)


CONVOLUTIONS = {
    "plain": nn.Conv2d(3, 4, 3),
    "one_by_one": nn.Conv2d(3, 4, 1),
    "one_by_one_strided_padded": nn.Conv2d(3, 4, 1, stride=2, padding=1),
    "stride_and_uneven_kernel": nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(1, 0)),
    "dilation": nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=2),
    "same_with_even_kernel": nn.Conv2d(3, 4, (4, 2), padding="same", dilation=(1, 2)),
    "valid": nn.Conv2d(3, 4, 3, padding="valid"),
    "grouped": nn.Conv2d(6, 4, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6, padding=1),
    "depthwise_multiplied": nn.Conv2d(3, 6, 5, groups=3, stride=2, padding=2),
    "reflect": nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect"),
    "replicate": nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate", stride=2),
    "circular_same": nn.Conv2d(3, 4, 4, padding="same", padding_mode="circular"),
    "no_bias": nn.Conv2d(3, 4, 3, bias=False),
    "kernel_as_large_as_input": nn.Conv2d(3, 4, (7, 6)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch warns of a slow path
@pytest.mark.parametrize("form", ["direct", "gram", "shifted_gram", None])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_matches_one_by_one_in_every_form(name: str, form: str | None, monkeypatch):
    if form:
        monkeypatch.setattr(square_grads, "cheapest_form", lambda _costs: form)
    convolution = CONVOLUTIONS[name].double()
    images = random_images(3, convolution.in_channels, 7, 6)
    check_network(convolution, images)
    check_network(convolution, images.to(memory_format=torch.channels_last))


@settings(deadline=None, max_examples=40)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 4]),
    size=st.tuples(st.integers(7, 9), st.integers(7, 9)),
)
def test_any_convolution_matches_one_by_one(kernel, stride, padding, dilation, groups, size):
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups).double()
    check_network(convolution, random_images(2, 4, *size))


LINEARS = {"vectors": (5,), "tokens": (3, 5), "many_tokens": (40, 5), "grid": (2, 3, 5)}


@pytest.mark.parametrize("form", ["direct", "gram", None])
@pytest.mark.parametrize("name", LINEARS)
def test_linear_matches_one_by_one(name: str, form: str | None, monkeypatch):
    if form:
        monkeypatch.setattr(square_grads, "cheapest_form", lambda _costs: form)
    check_network(nn.Linear(5, 4).double(), random_images(3, *LINEARS[name]))


NORMS = {
    "batch_norm_1d": (nn.BatchNorm1d(6), (6,)),
    "batch_norm_1d_sequence": (nn.BatchNorm1d(6), (6, 4)),
    "batch_norm_2d": (nn.BatchNorm2d(6), (6, 4, 3)),
    "layer_norm": (nn.LayerNorm(6), (6,)),
    "layer_norm_tokens": (nn.LayerNorm(6, bias=False), (5, 6)),
    "layer_norm_image": (nn.LayerNorm((6, 4, 3)), (6, 4, 3)),
    "group_norm": (nn.GroupNorm(3, 6), (6, 4, 3)),
}


@pytest.mark.parametrize("name", NORMS)
def test_norm_matches_one_by_one(name: str):
    layer, shape = NORMS[name]
    norm = layer.double().eval()
    if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        perturb_statistics(norm)
    check_network(norm, random_images(3, *shape), norm_weights=True)


def test_norm_weights_are_left_out_unless_asked_for():
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).double()
    assert list(SquareGrads(network).slices) == ["0"]
    assert list(SquareGrads(network, norm_weights=True).slices) == ["0", "1"]
    check_network(network, random_images(2, 3))


def test_chunks_change_nothing(monkeypatch):
    network = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(96, 3))
    images, directions = random_images(5, 4, 6, 6), random_images(1, 5, 3)
    whole, _ = square_grads_of(network.double(), images, directions)
    monkeypatch.setattr(square_grads, "MAX_TEMPORARY_BYTES", 3000)
    chunked, _ = square_grads_of(network, images, directions)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_squared_in_single(dtype: torch.dtype):
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval().to(dtype)
    images, directions = torch.full((2, 4), 1e-3, dtype=dtype), torch.full((1, 2, 3), 1e-3, dtype=dtype)
    found, slices = square_grads_of(network, images, directions, norm_weights=True)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, slices["0"]], torch.full((2, 3), 1e-12), rtol=0.02, atol=0)


def test_network_is_left_as_found():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).eval()
    network[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def fail_midway() -> None:
        with SquareGrads(network) as grads:
            assert not any(parameter.requires_grad for parameter in network.parameters())
            network(torch.zeros(1, 3, 4, 4)).sum().backward()
            assert grads.take().shape == (1, 6)
            network(torch.zeros(1, 5, 4, 4))

    with pytest.raises(RuntimeError, match="to have 3 channels, but got 5 channels"):
        fail_midway()
    needed = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert needed == {name for name, _ in network.named_parameters()} - {"0.weight"}
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class Branching(nn.Module):
    """One of two layers, by choice; both of them know the input only."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 2)
        self.right = nn.Linear(3, 2)
        self.use_right = True

    def forward(self, images: Tensor) -> Tensor:
        return self.left(images) + (self.right(images) if self.use_right else 0)


def test_layer_without_gradient_has_zeros_and_nothing_lingers():
    network = Branching().double()
    images = random_images(2, 3)
    with SquareGrads(network) as grads:
        network(images).sum().backward()
        assert (grads.take() > 0).all()
        network.use_right = False
        network(images).sum().backward()
        taken = grads.take()
    assert (taken[:, grads.slices["left"]] > 0).all()
    assert (taken[:, grads.slices["right"]] == 0).all()


def test_forward_without_gradients_is_not_watched():
    network = nn.Linear(3, 2)
    with SquareGrads(network) as grads:
        with torch.no_grad():
            assert not network(torch.zeros(2, 3)).requires_grad
        with pytest.raises(UnsupportedLayerError, match=re.escape("no gradient reached any layer; run the")):
            grads.take()


def test_take_hands_over_once():
    network = nn.Linear(3, 2)
    with SquareGrads(network) as grads:
        network(torch.ones(2, 3)).sum().backward()
        grads.take()
        with pytest.raises(UnsupportedLayerError, match="no gradient reached any layer"):
            grads.take()


def test_input_that_requires_grad_is_fine():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).double()
    check_network(network, random_images(2, 3).requires_grad_())


class Reused(nn.Module):
    """Applies one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.layer(images))


class Folding(nn.Module):
    """Moves tokens into the axis of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(0, 1))


class Overwriting(nn.Module):
    """Changes a layer's input after the layer has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = images + 1
        return self.layer(hidden) + hidden.mul_(2)


class ScaledLinear(nn.Linear):
    """May compute anything, for all that a rule of Linear knows."""


def tied() -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    return network


NO_RULE = (
    "holds parameters but has no rule for its squared gradients; use a probe made of layers that have one: "
    "Conv2d, Linear, BatchNorm1d, BatchNorm2d, LayerNorm, GroupNorm"
)
BATCH_STATISTICS = (
    "normalises by statistics of the batch, which ties samples together; call eval() on the network, and keep "
    "track_running_stats on"
)
ADD_FIRST = (
    "gradients of both would have to be added before squaring, which is not supported: give each layer its own"
)
ADD_FIRST_USE = (
    "gradients of both uses would have to be added before squaring, which is not supported: give each use a "
    "layer of its own"
)
FOLDED = "saw 8 rows for 2 samples; its first axis must be the samples for their gradients to be told apart"
OVERWRITTEN = (
    "was overwritten in place after the layer had used it; make that operation out of place (inplace=False)"
)

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no_rule": (lambda: nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1)), f"layer '1' (Conv1d) {NO_RULE}"),
    "subclass": (lambda: nn.Sequential(ScaledLinear(3, 3)), f"layer '0' (ScaledLinear) {NO_RULE}"),
    "tied": (tied, f"layer '1' (Linear) shares a parameter with layer '0'; {ADD_FIRST}"),
    "training": (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        f"layer '1' (BatchNorm1d) {BATCH_STATISTICS}",
    ),
    "no_running_statistics": (
        lambda: nn.Sequential(
            nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False, track_running_stats=False)
        ).eval(),
        f"layer '1' (BatchNorm1d) {BATCH_STATISTICS}",
    ),
    "nothing_to_embed": (nn.ReLU, "the network has no layer to embed, such as Conv2d or Linear"),
    "reused": (Reused, f"layer 'layer' was used twice in one forward pass; {ADD_FIRST_USE}"),
    "folding": (Folding, f"layer 'layer' {FOLDED}"),
    "overwriting": (Overwriting, f"the input of layer 'layer' {OVERWRITTEN}"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_network_is_refused_by_name(name: str):
    build, message = REFUSED[name]
    network = build()
    with pytest.raises(UnsupportedLayerError, match=f"^{re.escape(message)}$"), SquareGrads(network):
        network(torch.ones(2, 4, 3)).sum().backward()


def geometry(**sizes) -> ConvGeometry:
    defaults = {"filters": 64, "channels": 64, "kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1)}
    return ConvGeometry(**(defaults | {"pixels": (8, 8), "padding": (1, 1, 1, 1)} | sizes))


def test_costs_count_the_products_of_each_form():
    costs = geometry().costs()
    assert {form: cost.multiply_adds for form, cost in costs.items()} == {
        "direct": 64 * 576 * 64,
        "gram": 576 * 64**2 + 64 * 64**2,
        "shifted_gram": 64 * 64**2 + 64 * 64**2,
    }
    assert costs["direct"].elements == 576 * 64 + 64 * 576
    assert costs["gram"].elements == 576 * 64 + 64**2 + 64 * 64
    assert costs["shifted_gram"].elements == 64**2 + 100**2 + 3 * 80**2 + 3 * 64**2 + 64 * 64


@pytest.mark.parametrize(
    ("sizes", "form"),
    [
        pytest.param(
            {"channels": 3, "kernel": (7, 7), "stride": (2, 2), "pixels": (64, 64)}, "direct", id="stem"
        ),
        pytest.param({}, "shifted_gram", id="many_channels_few_positions"),
        pytest.param({"pixels": (56, 56)}, "direct", id="many_positions"),
        pytest.param({"stride": (4, 4), "pixels": (16, 16)}, "gram", id="few_positions_of_many_pixels"),
    ],
)
def test_form_of_a_convolution_follows_its_shape(sizes, form: str):
    assert cheapest_form(geometry(**sizes).costs()) == form


@pytest.mark.parametrize(("positions", "form"), [(1, "gram"), (10_000, "direct")])
def test_form_of_a_linear_layer_follows_its_shape(positions: int, form: str):
    assert cheapest_form(matrix_costs(512, 512, positions)) == form


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_cuda_agrees_with_cpu(name: str):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    network = getattr(models, name)(num_classes=4).eval().double()
    perturb_statistics(network)
    images, directions = random_images(4, 3, 48, 48), random_images(2, 4, 4)
    on_cpu, slices = square_grads_of(network, images, directions, norm_weights=True)
    on_cuda, _ = square_grads_of(network.cuda(), images.cuda(), directions.cuda(), norm_weights=True)
    check_layers(on_cuda, slices, {layer: on_cpu[:, columns] for layer, columns in slices.items()}, 1e-8)
