"""indexer.networks.load: torchvision's networks, from files, from its cache, and where there is no network."""

import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from references_networks import check_body, random_images
from safetensors.torch import save_file
from torch import Tensor, nn

from indexer.errors import UnknownNameError, WeightsError
from indexer.networks import load
from indexer.networks.load import (
    describe_networks,
    get_architecture,
    list_torchvision,
    load_expert,
    load_network,
)
from indexer.networks.loaders import list_builtin
from indexer.networks.run import count_params, head_name
from indexer.networks.torchvision import models
from indexer.networks.weights import _WithoutParameters, build_unfilled, fill
from indexer.records import DEFAULT_PROBE, InputTransform

ODD = {"alexnet", "googlenet", "resnet18", "squeezenet1_1", "vit_b_32"}
"""One of each way in which heads and parameters are made."""


def architectures(default: set[str]) -> pytest.MarkDecorator:
    """All architectures of torchvision, of which only some run by default."""
    names = models.list_models(module=models)
    marked = [pytest.param(name, marks=() if name in default else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("name", marked)


@architectures(ODD)
def test_every_architecture_is_built_without_weights_and_has_a_head(name: str):
    network = build_unfilled(get_architecture(name).build, 5)
    head = network.get_submodule(head_name(network))
    assert 5 in {getattr(head, "out_features", None), getattr(head, "out_channels", None)}
    missing = [buffer for buffer, _ in network.named_buffers() if buffer not in network.state_dict()]
    assert not missing, "a weights file would not fill these"


@pytest.mark.parametrize(
    ("name", "num_features", "options"),
    [
        ("resnet18", 512, {}),
        ("mobilenet_v3_small", 1024, {}),
        ("regnet_y_400mf", 440, {}),  # cannot be built without memory
        pytest.param(
            "googlenet", 1024, {"transform_input": True, "init_weights": False}, marks=pytest.mark.slow
        ),
    ],
)
def test_torchvision_network_loads_from_a_file(tmp_path: Path, name: str, num_features: int, options: dict):
    torch.manual_seed(0)
    network = models.get_model(name, num_classes=3, **options).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    found = load_network(f"{name}@{tmp_path}/mine.pt")
    assert (found.name, found.num_features, found.transform.crop) == (f"{name}.mine", num_features, 224)
    assert found.num_params == sum(map(Tensor.numel, network.parameters()))
    check_body(found.body, network, side=64)


def random_state(name: str, num_classes: int, **options) -> tuple[nn.Module, dict[str, Tensor]]:
    """An architecture on the device without memory, and random weights for it."""
    with _WithoutParameters():
        network = models.get_model(name, num_classes=num_classes, **options)
    generator = torch.Generator().manual_seed(0)

    def drawn(key: str, value: Tensor) -> Tensor:
        if not value.is_meta:
            return value
        if key.endswith("running_var"):
            return torch.ones(value.shape)
        fan_in = max(value[0].numel(), 1) if value.ndim > 1 else 1
        return torch.randn(value.shape, generator=generator) / fan_in**0.5

    return network, {key: drawn(key, value) for key, value in network.state_dict().items()}


SMALLEST_INPUT = {"maxvit_t": 224, "inception_v3": 96, "alexnet": 64}
"""Pixels of the input's side, where 32 are too few; vision transformers know theirs."""


HANDFUL = {"mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"}


@architectures(HANDFUL)
def test_every_architecture_gives_features_for_weights_from_a_file(tmp_path: Path, name: str):
    options = {"image_size": 56 if name == "vit_h_14" else 64} if name.startswith("vit_") else {}
    options |= load._TORCHVISION_OPTIONS.get(name, {})
    network, state = random_state(name, 3, **options)
    save_file(state, tmp_path / "mine.safetensors")
    fill(network, state, tmp_path, name)
    del state
    found = load_network(f"{name}@{tmp_path}/mine.safetensors")
    (tmp_path / "mine.safetensors").unlink()
    side = options.get("image_size", SMALLEST_INPUT.get(name, 32))
    if name.startswith("vit_"):
        assert found.transform.crop == side
    with torch.inference_mode():
        features = found.body(random_images(side))
        assert features.shape == (2, found.num_features)
        assert features.isfinite().all()
        assert found.num_params == count_params(network)
        if not name.startswith("squeezenet"):  # which classifies pixels before it averages
            logits = network.get_submodule(head_name(network))(features)
            torch.testing.assert_close(logits, network.eval()(random_images(side)))


@pytest.mark.parametrize(
    ("weights", "image_size", "transform"),
    [
        ("", 224, InputTransform(256, 224)),
        ("", 384, InputTransform(384, 384)),
        ("", 96, InputTransform(96, 96)),
        (".IMAGENET1K_SWAG_E2E_V1", 384, InputTransform(384, 384)),
        (".IMAGENET1K_SWAG_LINEAR_V1", 224, InputTransform(224, 224)),
    ],
)
def test_input_of_a_vision_transformer_is_that_of_its_positions(
    weights: str, image_size: int, transform: InputTransform
):
    found = get_architecture("vit_b_16", weights.removeprefix("."), image_size)
    assert found.transform == transform
    shapes = {key: tuple(value.shape) for key, value in build_unfilled(found.build, 2).state_dict().items()}
    assert load._image_size(shapes) == image_size


def test_vision_transformer_without_weights_is_built_for_its_first_weights():
    found = get_architecture("vit_h_14")
    shapes = {key: tuple(value.shape) for key, value in build_unfilled(found.build, 2).state_dict().items()}
    assert load._image_size(shapes) == found.transform.crop == 518


def test_weights_name_before_a_file_says_the_transform(tmp_path: Path):
    network, state = random_state("regnet_y_400mf", 3)
    save_file(state, tmp_path / "mine.safetensors")
    found = load_network(f"regnet_y_400mf.IMAGENET1K_V2@{tmp_path}/mine.safetensors")
    assert (found.name, found.transform) == ("regnet_y_400mf.mine", InputTransform(232, 224))
    assert found.num_params == count_params(network)
    with pytest.raises(UnknownNameError, match=r"did you mean regnet_y_400mf\.IMAGENET1K_V"):
        load_network(f"regnet_y_400mf.IMAGENET1K_V3@{tmp_path}/mine.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "vit_b_32",
        "mnasnet0_5",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("swin_t", "resnet18")),
    ],
)
def test_operations_are_those_that_torchvision_states(name: str):
    """Attention too, whose fused kernels are not counted; torchvision states billions with three decimals."""
    torch.manual_seed(0)
    entry = next(iter(models.get_model_weights(name)))
    network = models.get_model(name).eval().requires_grad_(requires_grad=False)
    described = load.PretrainedNetwork(name, name, network, 0, 0, get_architecture(name).transform, "")
    assert load.count_flops(described) / 1e9 == pytest.approx(entry.meta["_ops"], abs=6e-4)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_expert_in_training_mode_returns_no_auxiliary_logits(tmp_path: Path, name: str):
    torch.save(get_architecture(name).build(3).state_dict(), tmp_path / "mine.pt")
    expert = load_expert(f"{name}@{tmp_path}/mine.pt", num_classes=4)
    assert expert(random_images(96)).shape == (2, 4)


def test_squeezenet_features_are_the_mean_over_pixels(shared: Path):
    path = shared / "weights" / "squeezenet1_0.imagenet.fp16.safetensors"
    network = load_network(f"squeezenet1_0@{path}")
    assert (network.name, network.num_features) == ("squeezenet1_0.imagenet.fp16", 512)
    assert network.num_params == models.SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["num_params"]
    expected = network.body.features(random_images(64)).mean(dim=(2, 3))
    torch.testing.assert_close(network.body(random_images(64)), expected)


def test_transform_of_torchvision_is_that_of_its_first_weights():
    assert get_architecture("inception_v3").transform == InputTransform(342, 299)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torchvision's weights on a machine without a network; the folder that it fills."""

    def fail(*_args, **_options):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", fail)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.usefixtures("offline")
def test_failed_download_says_what_to_do():
    message = (
        "resnet18.IMAGENET1K_V1: cannot download https://download.pytorch.org/models/resnet18-f37072fd.pth "
        "(<urlopen error no route to host>); fetch it elsewhere and name the file as "
        "resnet18.IMAGENET1K_V1@FILE"
    )
    with pytest.raises(WeightsError, match=f"^{re.escape(message)}$"):
        load_network("resnet18.IMAGENET1K_V1")


def test_damaged_download_says_what_to_do(offline: Path):
    (offline / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"")
    message = (
        "squeezenet1_1.IMAGENET1K_V1: the copy of "
        f"https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth in {offline.parent} is damaged "
        "(EOFError); delete it and try again"
    )
    with pytest.raises(WeightsError, match=f"^{re.escape(message)}$"):
        load_network("squeezenet1_1.IMAGENET1K_V1")


def test_torchvision_weights_load_from_its_cache(offline: Path):
    network = models.squeezenet1_1().eval()
    torch.save(network.state_dict(), offline / "squeezenet1_1-b8a52dc0.pth")
    found = load_network("squeezenet1_1.IMAGENET1K_V1")
    assert (found.name, found.loader) == ("squeezenet1_1.IMAGENET1K_V1",) * 2
    assert (
        found.weights_hash == load_network(f"squeezenet1_1@{offline}/squeezenet1_1-b8a52dc0.pth").weights_hash
    )


@pytest.fixture(scope="module")
def described() -> list[load.NetworkDescription]:
    """The description of all networks, made without reading weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "read_weights", None)
        return describe_networks()


def test_networks_are_described_without_reading_weights(described: list):
    expected = {name: load_network(name).num_params for name in list_builtin()}
    assert {net.name: net.num_params for net in described if net.source == "builtin"} == expected


def test_description_of_networks_lists_builtin_and_torchvision(described: list):
    by_name = {network.name: network for network in described}
    assert len(by_name) == len(described)
    assert [network.name for network in described] == [*list_builtin(), *list_torchvision()]
    probe, resnet, swag = (
        by_name[DEFAULT_PROBE],
        by_name["resnet18.IMAGENET1K_V1"],
        "vit_b_16.IMAGENET1K_SWAG_E2E_V1",
    )
    assert (probe.source, probe.num_params, probe.input_size) == (
        "builtin",
        load_network(DEFAULT_PROBE).num_params,
        64,
    )
    assert (resnet.source, resnet.num_params, resnet.input_size) == ("torchvision", 11_689_512, 224)
    assert by_name[swag].input_size == 384
