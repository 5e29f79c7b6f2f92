"""indexer.fisher.gradients: what the forms cost, and which is chosen. That they agree: tests of
square_grads."""

import pytest
import torch

from indexer.fisher.gradients import (
    ConvGeometry,
    ConvGradient,
    Cost,
    EmbeddingGradient,
    MatrixGradient,
    choose_form,
    sum_of_squares,
    sum_of_squares_together,
)

PLENTY = 2**40


def convolution(
    filters: int = 64, channels: int = 64, kernel: int = 3, stride: int = 1, pixels: int = 8, groups: int = 1
) -> ConvGradient:
    """Gradients of two samples, with half the kernel as padding, on the device without memory."""
    padding = kernel // 2
    positions = (pixels + 2 * padding - kernel) // stride + 1
    geometry = ConvGeometry(
        (kernel,) * 2, (stride,) * 2, (padding,) * 2, (1, 1), (pixels,) * 2, (positions,) * 2, groups
    )
    return ConvGradient(
        torch.empty(2, filters, positions, positions, device="meta"),
        torch.empty(2, channels, pixels, pixels, device="meta"),
        geometry,
    )


def test_costs_of_a_convolution_count_its_products():
    costs = convolution().costs()
    assert costs["direct"] == Cost(64 * 576 * 64, 64 * 576, calls=1)
    assert costs["shifted_gram"].multiply_adds == 64 * 64**2 + 64 * 64**2
    # The Gram matrix of the pixels, three sums over one axis and three over the other, g A.
    assert costs["shifted_gram"].elements == 64**2 + 3 * 64**2 + 3 * 64**2 + 64 * 64


@pytest.mark.parametrize(("kernel", "pixels", "calls"), [(5, 7, 0), (7, 14, 0), (3, 7, 1), (5, 28, 1)])
def test_wide_depthwise_kernels_at_few_positions_take_no_call_for_each_sample(kernel, pixels, calls):
    depthwise = convolution(240, 240, kernel, pixels=pixels, groups=240)
    assert depthwise.costs()["direct"].calls == calls
    assert convolution(240, 240, kernel, pixels=pixels, groups=120).costs()["direct"].calls == 1


def test_groups_have_a_gram_matrix_each():
    whole, grouped = convolution().costs()["shifted_gram"], convolution(groups=4).costs()["shifted_gram"]
    assert grouped.multiply_adds == whole.multiply_adds
    assert grouped.elements - 64 * 64 == 4 * (whole.elements - 64 * 64)
    assert convolution(groups=4).sizes == (64, 16 * 9, 64)


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        pytest.param({"channels": 3, "kernel": 7, "stride": 2, "pixels": 64}, "direct", id="stem"),
        pytest.param({}, "shifted_gram", id="many_channels_few_positions"),
        pytest.param({"pixels": 56}, "direct", id="many_positions"),
        pytest.param({"filters": 240, "channels": 240, "groups": 240, "pixels": 14}, "direct", id="depthwise"),
        pytest.param({"filters": 512, "channels": 2048, "kernel": 1, "pixels": 7}, "shifted_gram", id="1x1"),
    ],
)
def test_form_of_a_convolution_follows_its_shape(shape: dict[str, int], form: str):
    assert choose_form(convolution(**shape).costs(), PLENTY) == form


@pytest.mark.parametrize(("positions", "form"), [(1, "gram"), (197, "gram"), (10_000, "direct")])
def test_form_of_a_linear_layer_follows_its_shape(positions: int, form: str):
    grads = torch.empty(1, 768, positions, device="meta")
    assert choose_form(MatrixGradient(grads, grads).costs(), PLENTY) == form


def test_form_has_to_fit_into_memory():
    costs = {"fast": Cost(1, 1000), "small": Cost(10**9, 10), "middle": Cost(10**6, 100)}
    assert choose_form(costs, 1000) == "fast"
    assert choose_form(costs, 999) == "middle"
    assert choose_form(costs, 10) == choose_form(costs, 1) == "small"


def lookups() -> EmbeddingGradient:
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    return EmbeddingGradient(grads, torch.randint(0, 6, (5, 4), generator=generator), 6)


def products() -> MatrixGradient:
    generator = torch.Generator().manual_seed(1)
    shapes = ((5, 3, 7), (5, 6, 7))
    return MatrixGradient(*(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))


@pytest.mark.parametrize("max_elements", [1, 40, 10_000])
@pytest.mark.parametrize("build", [lookups, products])
def test_squares_do_not_depend_on_memory(build, max_elements: int):
    gradient = build()
    expected = gradient.full(slice(None)).square().sum(dim=2)
    torch.testing.assert_close(sum_of_squares(gradient, max_elements), expected)


@pytest.mark.parametrize("max_elements", [1, 40, 10_000])
def test_uses_are_added_before_they_are_squared(max_elements: int):
    one, other = products(), lookups()
    expected = (one.full(slice(None)) + other.full(slice(None))).square().sum(dim=2)
    torch.testing.assert_close(sum_of_squares_together([one, other], max_elements), expected)
