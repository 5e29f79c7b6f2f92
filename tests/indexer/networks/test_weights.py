"""indexer.networks.weights: weights in 8 bits come back within half a scale, and load as any weights do."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import overrides
from torch.overrides import TorchFunctionMode
from training import LEVELS, quantise

from indexer.errors import WeightsError
from indexer.fisher.weight_uses import WeightUses
from indexer.networks.load import load_network
from indexer.networks.loaders import BUILTIN_FOLDER
from indexer.networks.weights import SCALE_SUFFIX, dequantise, read_weights
from indexer.records import DEFAULT_PROBE


@settings(deadline=None, max_examples=50)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    exponent=st.integers(-20, 20),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_weight_is_off_by_at_most_half_a_scale(shape, exponent, seed):
    weight = 2.0**exponent * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weight[0] = 0
    back = dequantise(quantise({"weight": weight}))["weight"]
    scales = weight.flatten(1).abs().amax(dim=1) / LEVELS
    assert ((back - weight).flatten(1).abs() <= 0.501 * scales[:, None]).all()
    assert torch.equal(torch.sign(back)[back != 0], torch.sign(weight)[back != 0])


def test_what_is_no_weight_of_a_layer_keeps_its_digits():
    state = {"bn.weight": torch.tensor([0.5, 2.0]), "bn.num_batches_tracked": torch.tensor(7)}
    packed = quantise(state)
    assert packed["bn.weight"].dtype == torch.float16
    assert set(dequantise(packed)) == set(state)
    assert int(packed["bn.num_batches_tracked"]) == 7


def test_a_tensor_that_is_called_scale_is_not_taken_for_one():
    state = {"layer": torch.ones(2, 3), "layer.scale": torch.ones(5)}
    assert set(dequantise(state)) == set(state)


def test_scales_that_do_not_fit_are_told(tmp_path: Path):
    packed = quantise({"layer.weight": torch.randn(4, 3)})
    packed[f"layer.weight{SCALE_SUFFIX}"] = torch.ones(3)
    path = tmp_path / "wrong.safetensors"
    save_file(packed, path)
    with pytest.raises(
        WeightsError, match=r"wrong\.safetensors: not a safetensors file or a PyTorch checkpoint"
    ):
        read_weights(path)


def test_a_network_in_8_bits_is_half_as_large_and_sees_the_same(tmp_path: Path):
    original = BUILTIN_FOLDER / f"{DEFAULT_PROBE}.safetensors"
    path = tmp_path / f"{DEFAULT_PROBE}.safetensors"
    save_file({name: value.contiguous() for name, value in quantise(read_weights(original)).items()}, path)
    assert path.stat().st_size < 0.52 * original.stat().st_size
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = load_network(DEFAULT_PROBE).body(images)
        close = load_network(f"resnet14w32@{path}").body(images)
    assert torch.linalg.norm(close - exact) < 0.05 * torch.linalg.norm(exact - exact.mean(dim=0))


def test_modes_that_an_interrupt_left_on_are_switched_off_and_those_of_others_stay():
    class Theirs(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    with Theirs():
        WeightUses({}, lambda *_: None, lambda _: None).__enter__()
        WeightUses({}, lambda *_: None, lambda _: None).__enter__()
        assert load_network("resnet14w32.tiny_imagenet").name == "resnet14w32.tiny_imagenet"
        assert [type(mode) for mode in overrides._get_current_function_mode_stack()] == [Theirs]
