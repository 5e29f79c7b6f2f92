"""indexer.networks.own: networks that a Python function returns, and TorchScript files."""

import json
import pickle
import re
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from builders_models import Intruder
from references_networks import random_images
from torch import nn

from indexer.errors import WeightsError
from indexer.networks.load import count_flops, load_expert, load_network
from indexer.networks.run import IMAGENET_TRANSFORM, count_params
from indexer.networks.small_resnet import SmallResNet
from indexer.records import InputTransform

SMALL = InputTransform(40, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


# --- Python functions ------------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn
from indexer import InputTransform
from indexer.networks.small_resnet import SmallResNet

def build():
    torch.manual_seed(0)
    network = SmallResNet(8, 5)
    network.linear = nn.Identity()
    return network.double().train()

build.input_transform = InputTransform(40, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.conv(images).mean((2, 3))

class OfItsOwn(Plain):
    input_transform = InputTransform(16, 16)

class Wrong(Plain):
    input_transform = 224

class Pixels(Plain):
    def forward(self, images):
        return self.conv(images)

class Several(Plain):
    def forward(self, images):
        return images, images

class Tied(Plain):
    def forward(self, images):
        features = super().forward(images)
        return features - features.mean(0)

class Failing(Plain):
    def forward(self, images):
        raise KeyError

def no_network():
    return 3

def fails():
    raise OSError("no disk")

def needs(argument):
    return Plain()

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Name of a module that lies in the working folder, as nothing on Python's path does."""
    (tmp_path / "our_package").mkdir()
    (tmp_path / "our_package" / "networks.py").write_text(MODULE)
    (tmp_path / "our_package" / "broken.py").write_text("import no_such_module_anywhere")
    (tmp_path / "our_package" / "crooked.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    yield "our_package.networks"
    for name in [name for name in sys.modules if name.startswith("our_package")]:
        del sys.modules[name]


def test_function_gives_a_network(module: str):
    before = list(sys.path)
    network = load_network(f"{module}:build")
    assert sys.path == before
    assert (network.name, network.loader) == (f"{module}.build", f"{module}:build")
    assert (network.num_features, network.transform) == (64, SMALL)
    assert network.num_params == count_params(network.body)
    assert not any(part.training for part in network.body.modules())
    assert {(p.dtype, p.requires_grad) for p in network.body.parameters()} == {(torch.float32, False)}
    torch.manual_seed(0)
    expected = SmallResNet(8, 5).eval()
    expected.linear = nn.Identity()
    torch.testing.assert_close(network.body(random_images()), expected(random_images()), rtol=0, atol=0)
    assert load_network(f"{module}:build").weights_hash == network.weights_hash


@pytest.mark.parametrize(
    ("function", "transform"), [("OfItsOwn", InputTransform(16, 16)), ("Plain", IMAGENET_TRANSFORM)]
)
def test_transform_is_that_of_the_network_or_of_imagenet(module: str, function: str, transform: InputTransform):
    assert load_network(f"{module}:{function}").transform == transform
    assert transform.crop == (16 if function == "OfItsOwn" else 224)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("none", "module our_package.networks has no function none"),
        ("number", "module our_package.networks has no function number"),
        ("no_network", "returns int; expected a torch.nn.Module"),
        ("fails", "fails with OSError: no disk; expected a function of no argument"),
        ("needs", "fails with TypeError: needs() missing 1 required positional argument: 'argument'; expected"),
        ("Wrong", "input_transform is int; expected indexer.InputTransform"),
        ("Pixels", "gives [2, 4, 222, 222] for two images; expected a network that maps [N, 3, 224, 224] to"),
        ("Several", "gives tuple for two images; expected a network that maps"),
        ("Failing", "fails on images of 224 pixels (KeyError); expected a network that maps"),
        ("Tied", "what it gives for an image changes with the rest of the batch or from call to call"),
    ],
)
def test_functions_that_give_no_network_are_refused(module: str, function: str, problem: str):
    with pytest.raises(WeightsError, match=f"^{re.escape(f'{module}:{function}: {problem}')}"):
        load_network(f"{module}:{function}")


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("loader", "problem"),
    [
        (
            "no_such_module:build",
            "no module no_such_module on Python's path or in {folder}; a loader with a colon",
        ),
        ("our_package.none:build", "no module our_package.none on Python's path"),
        (
            "our_package.broken:build",
            "importing our_package.broken fails: No module named 'no_such_module_anywhere'",
        ),
        (
            "our_package.crooked:build",
            "importing our_package.crooked fails: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_modules_that_cannot_be_imported_are_named(loader: str, problem: str):
    message = f"{loader}: {problem.format(folder=Path.cwd())}"
    with pytest.raises(WeightsError, match=f"^{re.escape(message)}"):
        load_network(loader)


# --- TorchScript -----------------------------------------------------------------------------------------


def small_network() -> nn.Module:
    torch.manual_seed(0)
    network = SmallResNet(8, 5).eval()
    network.linear = nn.Identity()
    return network


def save_script(network: nn.Module, path: Path, *, traced: bool = True, **extra) -> str:
    """The loader of a TorchScript file."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # TorchScript is deprecated, and a network in training mode is warned of
        script = (
            torch.jit.trace(network, random_images(), check_trace=False)
            if traced
            else torch.jit.script(network)
        )
        torch.jit.save(script, path, _extra_files={f"{name}.json": text for name, text in extra.items()})
    return f"torchscript:{path}"


@pytest.mark.parametrize("traced", [True, False], ids=["traced", "scripted"])
def test_torchscript_gives_what_the_network_gave(tmp_path: Path, traced: bool):
    network = small_network()
    loader = save_script(network, tmp_path / "mine.pt", traced=traced)
    found = load_network(loader)
    assert (found.name, found.loader, found.transform) == ("mine", loader, IMAGENET_TRANSFORM)
    assert (found.num_features, found.num_params) == (64, count_params(network))
    assert not any(parameter.requires_grad for parameter in found.body.parameters())
    torch.testing.assert_close(found.body(random_images(64)), network(random_images(64)), rtol=0, atol=0)
    assert load_network(loader).weights_hash == found.weights_hash


def test_torchscript_has_the_gradients_of_the_network(tmp_path: Path):
    """What the Fisher information of such a network is made of; its modules take no hooks."""
    network = small_network()
    expert = load_expert(save_script(network, tmp_path / "mine.pt"), num_classes=3)
    body = expert[0].eval()
    ours = torch.autograd.grad(body(random_images()).square().sum(), list(body.parameters()))
    theirs = torch.autograd.grad(network(random_images()).square().sum(), list(network.parameters()))
    torch.testing.assert_close(ours, theirs)


def test_operations_of_torchscript_are_those_of_the_network(tmp_path: Path):
    text = json.dumps({"resize": 32, "crop": 32})
    scripted = load_network(save_script(small_network(), tmp_path / "mine.pt", input_transform=text))
    blocks = 2 * 16 * 16 * 9 * 32**2 + (16 + 32) * 32 * 9 * 16**2 + (32 + 64) * 64 * 9 * 8**2
    assert count_flops(scripted) == 3 * 16 * 9 * 32**2 + blocks


def test_transform_of_torchscript_is_that_in_its_archive(tmp_path: Path):
    text = json.dumps({"resize": 40, "crop": 32, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    assert (
        load_network(save_script(small_network(), tmp_path / "a.pt", input_transform=text)).transform == SMALL
    )
    text = json.dumps({"resize": 40, "crop": 32})
    loader = save_script(small_network(), tmp_path / "b.pt", input_transform=text)
    assert load_network(loader).transform == InputTransform(40, 32)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Expecting property name"),
        ("[]", "'list' object has no attribute 'items'"),
        ('{"resize": 3}', "missing 1 required positional argument: 'crop'"),
        ('{"resize": 3, "crop": 3, "side": 3}', "unexpected keyword argument 'side'"),
        ('{"resize": 3, "crop": 4}', "crop must be at least 1 and at most resize"),
        ('{"resize": 3, "crop": 0}', "crop must be at least 1 and at most resize"),
        ('{"resize": 3.5, "crop": 3}', "crop must be at least 1 and at most resize"),
        ('{"resize": 3, "crop": 3, "std": [1, 0, 1]}', "mean and std must be three numbers each"),
        ('{"resize": 3, "crop": 3, "mean": [1, 1]}', "mean and std must be three numbers each"),
        ('{"resize": 3, "crop": 3, "mean": 1}', "has no len"),
        ('{"resize": 3, "crop": 3, "mean": ["a", "b", "c"]}', "could not convert string to float"),
    ],
)
def test_transforms_that_are_none_are_refused(tmp_path: Path, text: str, problem: str):
    loader = save_script(small_network(), tmp_path / "mine.pt", input_transform=text)
    message = rf"^{re.escape(str(tmp_path))}/mine\.pt: its input_transform\.json is no input transform \(.*"
    with pytest.raises(WeightsError, match=message + re.escape(problem)):
        load_network(loader)


def test_network_traced_in_training_mode_is_refused(tmp_path: Path):
    text = json.dumps({"resize": 32, "crop": 32})
    loader = save_script(small_network().train(), tmp_path / "mine.pt", input_transform=text)
    with pytest.raises(
        WeightsError, match=r"rest of the batch.*call eval\(\) on the network before it is saved"
    ):
        load_network(loader)


def test_network_of_a_fixed_size_says_which_size_fails(tmp_path: Path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(WeightsError, match=r"mine\.pt: fails on images of 224 pixels"):
        load_network(save_script(network, tmp_path / "mine.pt"))


def test_frozen_torchscript_is_refused(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.freeze(torch.jit.script(small_network())).save(tmp_path / "mine.pt")
    with pytest.raises(WeightsError, match=r"mine\.pt: holds no parameters, as after torch\.jit\.freeze"):
        load_network(f"torchscript:{tmp_path}/mine.pt")


def test_files_that_are_no_torchscript_are_refused(tmp_path: Path):
    path = tmp_path / "mine.pt"
    with pytest.raises(WeightsError, match=f"^{re.escape(str(path))}: no such file; expected one written by"):
        load_network(f"torchscript:{path}")
    torch.save(small_network().state_dict(), path)
    with pytest.raises(
        WeightsError, match=f"^{re.escape(str(path))}: not TorchScript; expected .*ARCHITECTURE@FILE"
    ):
        load_network(f"torchscript:{path}")


def test_pickled_objects_in_an_archive_are_not_executed(tmp_path: Path):
    intact, path, folder = tmp_path / "intact.pt", tmp_path / "mine.pt", tmp_path / "intruded"
    save_script(small_network(), intact)
    bomb = pickle.dumps(Intruder(folder), protocol=2)
    with zipfile.ZipFile(intact) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            target.writestr(name, bomb if name.endswith("/data.pkl") else source.read(name))
    with pytest.raises(WeightsError, match=f"^{re.escape(str(path))}: not TorchScript"):
        load_network(f"torchscript:{path}")
    assert not folder.exists()
    pickle.loads(bomb)
    assert folder.exists()  # it would have been executed
