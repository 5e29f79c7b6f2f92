"""indexer.networks.load: names, weights from files and from torchvision, heads removed, hashes, operations."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders_models import Intruder
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from references_networks import check_body, random_images
from safetensors.torch import save_file
from torch import Tensor, nn

from indexer.errors import UnknownNameError, WeightsError
from indexer.networks.load import count_flops, load_expert, load_network
from indexer.networks.loaders import list_builtin
from indexer.networks.small_resnet import SmallResNet
from indexer.networks.torchvision import models
from indexer.records import DEFAULT_PROBE, InputTransform

NOT_A_CHECKPOINT = "not a safetensors file or a PyTorch checkpoint of plain tensors"
NO_HEAD = "weights do not fit resnet20: there is no linear.weight with a row per class"
NO_STATE_DICT = "holds no state dict (a mapping from parameter names to tensors)"


def small_network(num_classes: int = 10) -> SmallResNet:
    """A resnet20 of random weights, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallResNet(20, num_classes).eval()


def save(state: object, path: Path, **options) -> str:
    """The loader of a checkpoint of ``resnet20`` that is now in ``path``."""
    torch.save(state, path, **options)
    return f"resnet20@{path}"


@pytest.fixture
def loader(tmp_path: Path) -> str:
    return save(small_network().state_dict(), tmp_path / "resnet20.mine.pt")


# --- Names -----------------------------------------------------------------------------------------------


def test_default_probe_ships_with_the_package():
    network = load_network(DEFAULT_PROBE)
    assert DEFAULT_PROBE in list_builtin()
    assert (network.name, network.loader, network.transform.crop) == (DEFAULT_PROBE, DEFAULT_PROBE, 64)
    assert network.body(random_images(64)).shape == (2, network.num_features) == (2, 128)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mine.pt", "resnet20.mine"),
        ("resnet20.mine.pt", "resnet20.mine"),
        ("resnet20.run.3.pth", "resnet20.run.3"),
        ("mine", "resnet20.mine"),
    ],
)
def test_name_of_a_file_is_architecture_and_weights(tmp_path: Path, file: str, name: str):
    loader = save(small_network().state_dict(), tmp_path / file)
    network = load_network(loader)
    assert (network.name, network.loader) == (name, loader)


def test_file_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(small_network().state_dict(), tmp_path / "mine.pt")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_network("resnet20@~/mine.pt").name == "resnet20.mine"


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ("resnet18", "no network is named 'resnet18'; did you mean resnet18.IMAGENET1K_V1?"),
        (
            "resnet18.IMAGENET1K",
            "no network is named 'resnet18.IMAGENET1K'; did you mean resnet18.IMAGENET1K_V1?",
        ),
        (
            "resnt18@a.pt",
            "no architecture is named 'resnt18'; did you mean resnet18 or resnet152 or resnet101?",
        ),
    ],
)
def test_unknown_names_are_answered_with_close_ones(loader: str, message: str):
    with pytest.raises(UnknownNameError, match=f"^{re.escape(message)}$"):
        load_network(loader)


def test_builtin_names_are_offered_for_unknown_ones():
    with pytest.raises(UnknownNameError, match=re.escape(f"did you mean {DEFAULT_PROBE} or")):
        load_network(DEFAULT_PROBE[:-5])


# --- Weights from a file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
    ids=["plain", "state_dict", "model", "parallel", "parallel state_dict"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_checkpoints_load_whatever_wraps_them(tmp_path: Path, wrap, zipped: bool):
    network = small_network()
    path = tmp_path / "mine.pt"
    loader = save(wrap(network.state_dict()), path, _use_new_zipfile_serialization=zipped)
    check_body(load_network(loader).body, network)


def test_safetensors_of_half_precision_become_single(tmp_path: Path):
    half = {name: value.half() for name, value in small_network().state_dict().items()}
    save_file(half, tmp_path / "mine.safetensors")
    network = load_network(f"resnet20@{tmp_path / 'mine.safetensors'}")
    assert {parameter.dtype for parameter in network.body.parameters()} == {torch.float32}
    torch.testing.assert_close(network.body.conv1.weight, half["conv1.weight"].float(), rtol=0, atol=0)


def test_number_of_classes_is_that_of_the_file(tmp_path: Path):
    loader = save(small_network(7).state_dict(), tmp_path / "mine.pt")
    assert load_network(loader).num_params == sum(map(Tensor.numel, small_network(7).parameters()))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickled_objects_are_refused_and_not_executed(tmp_path: Path, zipped: bool):
    path, folder = tmp_path / "mine.pt", tmp_path / "intruded"
    state = small_network().state_dict() | {"intruder": Intruder(folder)}
    loader = save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=f"^{re.escape(f'{path}: {NOT_A_CHECKPOINT}')}$"):
        load_network(loader)
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists()  # it would have been executed


@pytest.mark.parametrize("suffix", ["safetensors", "zip", "legacy"])
def test_damaged_files_raise_nothing_but_our_error(tmp_path_factory: pytest.TempPathFactory, suffix: str):
    path = tmp_path_factory.mktemp("damaged") / f"mine.{suffix}"
    state = {"linear.weight": torch.ones(2, 3), "linear.bias": torch.ones(2)}
    if suffix == "safetensors":
        save_file(state, path)
    else:
        save(state, path, _use_new_zipfile_serialization=suffix == "zip")
    intact = path.read_bytes()

    @given(st.integers(0, len(intact) - 1), st.binary(max_size=3), st.booleans())
    @hypothesis_settings(deadline=None, max_examples=20)
    def check(position: int, replacement: bytes, cut: bool):
        rest = b"" if cut else intact[position + len(replacement) :]
        path.write_bytes(intact[:position] + replacement + rest)
        with pytest.raises(WeightsError, match=f"^{re.escape(str(path))}: "):
            load_network(f"resnet20@{path}")

    check()


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ([torch.zeros(1)], NO_STATE_DICT),
        ({"conv1.weight": 3.0}, NO_STATE_DICT),
        ({0: torch.zeros(1)}, NO_STATE_DICT),
        ({"state_dict": [torch.zeros(1)]}, NO_STATE_DICT),
        ({"conv1.weight": torch.zeros(1)}, f"{NO_HEAD}, but conv1.weight"),
        ({"linear.weight": torch.tensor(1.0)}, f"{NO_HEAD}, but linear.weight"),
        ({"linear.weight": torch.zeros(0, 64)}, f"{NO_HEAD}, but linear.weight"),
        (models.resnet18(), NO_STATE_DICT),
    ],
    ids=["list", "number", "unnamed", "nested list", "no head", "scalar head", "empty head", "whole network"],
)
def test_files_of_something_else_are_refused(tmp_path: Path, state: object, problem: str):
    loader = save(state, tmp_path / "mine.pt")
    with pytest.raises(WeightsError, match=f"^{re.escape(f'{tmp_path}/mine.pt: {problem}')}$"):
        load_network(loader)


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (SmallResNet(8, 10), r"Missing key\(s\) in state_dict: .* \.\.\."),
        (SmallResNet(26, 10), r"Unexpected key\(s\) in state_dict: .* \.\.\."),
        (SmallResNet(20, 10, width=8), r"size mismatch for conv1\.weight: .* \.\.\."),
    ],
    ids=["shallower", "deeper", "narrower"],
)
def test_weights_of_another_architecture_are_refused_in_one_line(
    tmp_path: Path, network: nn.Module, problem: str
):
    loader = save(network.state_dict(), tmp_path / "mine.pt")
    expected = rf"^{re.escape(str(tmp_path))}/mine\.pt: weights do not fit resnet20: {problem}$"
    with pytest.raises(WeightsError, match=expected) as raised:
        load_network(loader)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("file", ["none.pt", "."])
def test_missing_file_is_named(tmp_path: Path, file: str):
    message = f"{tmp_path / file}: no such weights file; expected .safetensors or a PyTorch checkpoint"
    with pytest.raises(WeightsError, match=f"^{re.escape(message)}$"):
        load_network(f"resnet20@{tmp_path / file}")


# --- Experts, hashes, operations -------------------------------------------------------------------------


def test_expert_is_trainable_to_the_first_layer(loader: str):
    expert = load_expert(loader, num_classes=4)
    assert all(module.training for module in expert.modules())
    logits = expert(random_images())
    assert logits.shape == (2, 4)
    logits.logsumexp(dim=1).sum().backward()
    without = [name for name, parameter in expert.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.any() for parameter in (expert[0].conv1.weight, expert[1].weight))


def test_expert_without_classes_returns_features(loader: str):
    expert = load_expert(loader).eval()
    torch.testing.assert_close(
        expert(random_images()), load_network(loader).body(random_images()), rtol=0, atol=0
    )


def constant_state() -> dict[str, Tensor]:
    return {name: torch.full_like(value, 0.5) for name, value in SmallResNet(20, 2).state_dict().items()}


def test_weights_hash_is_the_same_on_every_machine_and_in_every_version(tmp_path: Path):
    """It is part of the identity of a space: it may change only with a migration."""
    assert (
        load_network(save(constant_state(), tmp_path / "mine.pt")).weights_hash
        == "244727a21fac371acbd9af4d341b9fd8"
    )


@pytest.mark.parametrize("name", ["conv1.weight", "layer3.2.bn2.running_var", "bn1.num_batches_tracked"])
def test_weights_hash_depends_on_every_tensor_of_the_body(tmp_path: Path, name: str):
    state = constant_state()
    before = load_network(save(state, tmp_path / "mine.pt")).weights_hash
    state[name].view(-1)[-1] += 1
    assert load_network(save(state, tmp_path / "mine.pt")).weights_hash != before


def test_weights_hash_depends_on_neither_head_nor_file(tmp_path: Path):
    state = constant_state()
    before = load_network(save(state, tmp_path / "mine.pt")).weights_hash
    state["linear.weight"] += 1
    save_file(state, tmp_path / "other.safetensors")
    assert load_network(f"resnet20@{tmp_path}/other.safetensors").weights_hash == before


def count_multiply_adds(body: nn.Module, side: int) -> int:
    """Slow twin: of every convolution and linear layer, outputs times inputs of each."""
    total = 0

    def count(layer: nn.Module, _inputs: tuple, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    layers = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    body(random_images(side)[:1])
    for hook in hooks:
        hook.remove()
    return total


def test_operations_of_resnet20_are_those_of_its_layers(loader: str):
    """The figure is worked out by hand; the head, which is not counted, would add 640."""
    network = load_network(loader)
    assert count_flops(network) == count_multiply_adds(network.body, 32) == 40_550_400


def test_operations_count_groups_and_the_size_of_the_input(tmp_path: Path):
    torch.save(models.mobilenet_v3_small(num_classes=2).state_dict(), tmp_path / "mine.pt")
    network = load_network(f"mobilenet_v3_small@{tmp_path}/mine.pt")
    network = replace(network, transform=InputTransform(96, 64))
    assert count_flops(network) == count_multiply_adds(network.body, 64)
