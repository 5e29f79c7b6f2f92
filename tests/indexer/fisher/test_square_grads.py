"""indexer.fisher.square_grads against one sample at a time through ordinary weight gradients."""

import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references_fisher import check_layers, square_grads_of_parameters, square_grads_one_by_one
from torch import Tensor, nn

from indexer.errors import UnsupportedLayerError
from indexer.fisher import gradients
from indexer.fisher.square_grads import SquareGrads
from indexer.networks.torchvision import models

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}


def square_grads_of(network: nn.Module, images: Tensor, directions: Tensor, **options):
    """The fast side of each comparison: columns ``[N, D]`` summed over directions, and their slices."""
    with SquareGrads(network, **options) as grads:
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
@pytest.mark.parametrize(
    "name", [pytest.param("resnet18", marks=pytest.mark.slow), "squeezenet1_0", "mobilenet_v3_small"]
)
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
    "one_by_one_strided": nn.Conv2d(3, 4, 1, stride=(2, 3)),
    "one_by_one_strided_padded": nn.Conv2d(3, 4, 1, stride=2, padding=1),
    "stride_and_uneven_kernel": nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(1, 0)),
    "dilation": nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=2),
    "same_with_even_kernel": nn.Conv2d(3, 4, (4, 2), padding="same", dilation=(1, 2)),
    "valid": nn.Conv2d(3, 4, 3, padding="valid"),
    "grouped": nn.Conv2d(6, 4, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6, padding=1),
    "depthwise_multiplied": nn.Conv2d(3, 6, 5, groups=3, stride=2, padding=2),
    "depthwise_volume": nn.Conv3d(4, 8, 3, groups=4, padding=(1, 2, 1), dilation=(1, 2, 1), stride=(1, 1, 2)),
    "reflect": nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect"),
    "replicate": nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate", stride=2),
    "circular_same": nn.Conv2d(3, 4, 4, padding="same", padding_mode="circular"),
    "no_bias": nn.Conv2d(3, 4, 3, bias=False),
    "kernel_as_large_as_input": nn.Conv2d(3, 4, (7, 6)),
    "patches": nn.Conv2d(3, 4, 3, stride=3),
    "padding_beyond_the_kernel": nn.Conv2d(3, 4, (1, 2), padding=(3, 2), stride=2),
    "line": nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
    "line_circular": nn.Conv1d(4, 6, 4, padding=1, padding_mode="circular"),
    "line_same": nn.Conv1d(4, 6, 4, padding="same", groups=2),
    "volume": nn.Conv3d(4, 2, (1, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1), groups=2),
}
SIZES = {nn.Conv1d: (9,), nn.Conv2d: (7, 6), nn.Conv3d: (3, 5, 4)}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch warns of a slow path
@pytest.mark.parametrize("form", ["direct", "shifted_gram", None])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_matches_one_by_one_in_every_form(name: str, form: str | None, monkeypatch):
    if form:
        monkeypatch.setattr(gradients, "choose_form", lambda _costs, _max_elements: form)
    convolution = CONVOLUTIONS[name].double()
    images = random_images(3, convolution.in_channels, *SIZES[type(convolution)])
    check_network(convolution, images)
    if images.ndim == 4:
        check_network(convolution, images.to(memory_format=torch.channels_last))


TRANSPOSED = {
    "line": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (4, 5)),
    "image": (nn.ConvTranspose2d(4, 6, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1)), (4, 4, 3)),
    "image_grouped": (nn.ConvTranspose2d(6, 9, 3, groups=3), (6, 3, 3)),
    "volume": (nn.ConvTranspose3d(2, 3, 2, stride=2), (2, 2, 3, 2)),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution_matches_one_by_one(name: str):
    layer, shape = TRANSPOSED[name]
    check_network(layer.double(), random_images(3, *shape))


class Tokens(nn.Module):
    """Looks vectors up, then mixes the positions of a sample."""

    def __init__(self, *, padding: int | None) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 3, padding_idx=padding)
        self.mix = nn.Linear(3, 2)

    def forward(self, indices: Tensor) -> Tensor:
        return self.mix(self.table(indices).cumsum(1).tanh()).sum(dim=1)


@pytest.mark.parametrize("form", ["direct", "gram", None])
@pytest.mark.parametrize("padding", [None, 2, -1])
def test_embedding_matches_one_by_one(padding: int | None, form: str | None, monkeypatch):
    if form:
        monkeypatch.setattr(gradients, "choose_form", lambda _costs, _max_elements: form)
    indices = torch.tensor([[1, 2, 2, 5], [6, 0, 6, 6], [2, 2, 2, 2]])
    network = Tokens(padding=padding).double()
    directions = random_images(2, 3, 2)
    found, slices = square_grads_of(network, indices, directions)
    check_layers(found, slices, square_grads_one_by_one(network, indices, directions), 1e-8)


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
        monkeypatch.setattr(gradients, "choose_form", lambda _costs, _max_elements: form)
    check_network(nn.Linear(5, 4).double(), random_images(3, *LINEARS[name]))


NORMS = {
    "batch_norm_1d": (nn.BatchNorm1d(6), (6,)),
    "batch_norm_1d_sequence": (nn.BatchNorm1d(6), (6, 4)),
    "batch_norm_2d": (nn.BatchNorm2d(6), (6, 4, 3)),
    "layer_norm": (nn.LayerNorm(6), (6,)),
    "layer_norm_tokens": (nn.LayerNorm(6, bias=False), (5, 6)),
    "layer_norm_image": (nn.LayerNorm((6, 4, 3)), (6, 4, 3)),
    "group_norm": (nn.GroupNorm(3, 6), (6, 4, 3)),
    "rms_norm": (nn.RMSNorm((4, 3)), (5, 4, 3)),
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


def test_memory_budget_changes_nothing():
    network = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(96, 3))
    images, directions = random_images(5, 4, 6, 6), random_images(1, 5, 3)
    whole, _ = square_grads_of(network.double(), images, directions)
    chunked, _ = square_grads_of(network, images, directions, memory_budget=4 * 8 * 350)
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
    assert torch.overrides._get_current_function_mode() is None


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
    """Applies a linear layer, a convolution and a norm several times, to inputs of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 3, 2, padding=1)
        self.layer = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(self.conv(images).tanh()).mT
        return self.norm(self.layer(self.norm(self.layer(hidden.mean(1)).tanh())))


def test_layer_used_several_times_adds_before_it_squares():
    check_network(Reused().double(), random_images(3, 3, 4), norm_weights=True)


def test_tied_weights_belong_to_the_first_layer():
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    network[2].weight = network[0].weight
    images, directions = random_images(2, 3), random_images(2, 2, 2)
    found, slices = square_grads_of(network, images, directions)
    weights = {"0": network[0].weight, "4": network[4].weight}
    check_layers(found, slices, square_grads_of_parameters(network, weights, images, directions), 1e-8)


class Windows(nn.Module):
    """Moves positions into the axis of samples, before it or after it, as attention in windows does."""

    def __init__(self, *, samples_first: bool) -> None:
        super().__init__()
        self.samples_first = samples_first
        self.layer = nn.Linear(3, 3)
        self.conv = nn.Conv1d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:  # [N, 4, 4, 3]
        hidden = self.conv(images.flatten(0, 1)).tanh().unflatten(0, images.shape[:2])
        if not self.samples_first:
            hidden = hidden.transpose(0, 1)
        hidden = self.layer(hidden.flatten(1, 2) if self.samples_first else hidden.flatten(2)[..., :3])
        return hidden.sum(dim=1 if self.samples_first else 0)


@pytest.mark.parametrize("samples_first", [True, False])
def test_axis_of_samples_is_found(samples_first: bool):
    network = Windows(samples_first=samples_first).double()
    images, directions = random_images(4, 4, 4, 3), random_images(2, 4, 3)
    with SquareGrads(network) as grads:
        network(images).backward(directions[0])
        found = grads.take()
    check_layers(found, grads.slices, square_grads_one_by_one(network, images, directions[:1]), 1e-8)
    assert not grads.fallbacks


class Attention(nn.Module):
    """Self-attention, whose weights ``torch.nn.functional`` gets without their modules being called."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images if self.batch_first else images.transpose(0, 1)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return mixed.sum(dim=1 if self.batch_first else 0)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_has_rules_for_its_projections(batch_first: bool):
    network = Attention(batch_first=batch_first).double().eval()
    images, directions = random_images(4, 4, 6), random_images(1, 4, 6)
    attention = network.attention
    weights = {
        "attention.in_proj_weight": attention.in_proj_weight,
        "attention.out_proj": attention.out_proj.weight,
    }
    with SquareGrads(network) as grads:
        network(images).backward(directions[0])
        found = grads.take()
    expected = square_grads_of_parameters(network, weights, images, directions)
    check_layers(found, grads.slices, expected, 1e-8)
    assert not grads.fallbacks


class Bare(nn.Module):
    """Holds parameters of its own: a layer scale, a token, a weight that is standardised before its use."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, 3))
        self.gamma = nn.Parameter(torch.rand(3))
        self.scale = nn.Parameter(torch.rand(4, 1))
        self.weight = nn.Parameter(torch.randn(2, 3))
        self.bias_table = nn.Parameter(torch.randn(2, 2))

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 3]
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), images], dim=1)
        hidden = self.gamma * (tokens * self.scale).tanh()
        weight = self.weight - self.weight.mean(dim=1, keepdim=True)
        return nn.functional.linear(hidden, weight, self.bias_table[0]).tanh().sum(dim=1)


def test_bare_parameters_are_embedded_but_not_what_is_added():
    network = Bare().double()
    images, directions = random_images(3, 3, 3), random_images(2, 3, 2)
    found, slices = square_grads_of(network, images, directions, norm_weights=True)
    weights = {name: network.get_parameter(name) for name in ("gamma", "scale", "weight")}
    expected = square_grads_of_parameters(network, weights, images, directions)
    check_layers(
        found, slices, {"gamma": expected["gamma"], "scale": expected["scale"], "": expected["weight"]}, 1e-8
    )
    assert list(SquareGrads(network).slices) == [""]


def test_what_no_rule_knows_takes_the_slow_route_and_is_named():
    network = nn.Sequential(nn.Linear(3, 3), nn.Flatten(), Bare()).double()
    network[1] = nn.Unflatten(1, (1, 3))
    with SquareGrads(network) as grads:
        assert grads.fallbacks == ()
        network[2].scale = nn.Parameter(torch.rand(2, 1).double())
        network(random_images(2, 3)).sum().backward()
        assert grads.take().shape == (2, 5)
        assert grads.fallbacks == ("2 (Bare)",)


class SharedTable(nn.Module):
    """Uses a weight on what is the same for all samples: its rows say nothing of a single one."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("coordinates", torch.linspace(-1, 1, rows)[:, None])
        self.table = nn.Linear(1, 3)
        self.layer = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images * self.table(self.coordinates).tanh().sum(dim=0))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_weight_on_a_shared_input_takes_the_slow_route(rows: int):
    network = SharedTable(rows).double()
    check_network(network, random_images(2, 3))
    with SquareGrads(network) as grads:
        network(random_images(2, 3))
        assert grads.fallbacks == ("table (Linear)",)


def test_table_shared_with_a_linear_layer_takes_the_slow_route():
    network = Tokens(padding=None).double()
    network.mix = nn.Linear(3, 7).double()
    network.mix.weight = network.table.weight
    indices, directions = torch.tensor([[1, 2], [3, 3]]), random_images(1, 2, 7)
    found, slices = square_grads_of(network, indices, directions)
    expected = square_grads_of_parameters(network, {"table": network.table.weight}, indices, directions)
    check_layers(found, slices, expected, 1e-8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, in favour of torch.export
def test_torchscript_takes_the_slow_route():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).double()
    scripted = nn.Sequential(torch.jit.script(plain))
    images, directions = random_images(2, 3, 4, 4), random_images(2, 2, 2)
    found, slices = square_grads_of(scripted, images, directions)
    expected = square_grads_one_by_one(plain, images, directions)
    check_layers(found, slices, {f"0.{name}": rows for name, rows in expected.items()}, 1e-8)


class Overwriting(nn.Module):
    """Changes a layer's input after the layer has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = images + 1
        return self.layer(hidden) + hidden.mul_(2)


class Mixing(nn.Module):
    """Gives every sample something of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images - images.mean(dim=0))


class Late(nn.Module):
    """Uses a layer from the second batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.batches = 0

    def forward(self, images: Tensor) -> Tensor:
        self.batches += 1
        return (self.second if self.batches > 1 else self.first)(images)


BATCH_STATISTICS = (
    "normalises by statistics of the batch, which ties samples together; call eval() on the network, and keep "
    "track_running_stats on"
)
OVERWRITTEN = (
    "was overwritten in place after the layer had used it; make that operation out of place (inplace=False)"
)
MIXING = (
    "the network gives each sample something of the others in its batch, so that their gradients "
    "cannot be told apart; use a probe that treats samples on their own"
)
LATE = "was not used in the first forward pass; a network must use the same layers for every batch"

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
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
    "nothing_to_embed": (nn.ReLU, "the network has no weights to embed, such as those of Conv2d or Linear"),
    "mixing": (Mixing, MIXING),
    "overwriting": (Overwriting, f"the input of layer 'layer' {OVERWRITTEN}"),
    "late": (Late, f"layer 'second' {LATE}"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_network_is_refused_by_name(name: str):
    build, message = REFUSED[name]
    network = build()
    with pytest.raises(UnsupportedLayerError, match=f"^{re.escape(message)}$"), SquareGrads(network):
        network(torch.ones(2, 4, 3)).sum().backward()


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
