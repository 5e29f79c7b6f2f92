"""indexer.experts.trials: features of real experts on one sample, decoded once and computed once."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders_datasets import write_folder
from safetensors.torch import load_file, save_file

from indexer.data.samples import load_sample
from indexer.errors import DataError, NetworkError, SettingsError, UnknownNameError, WeightsError
from indexer.experts.feature_cache import FeatureCache
from indexer.experts.trials import TrialData
from indexer.networks.load import ARCHITECTURES, load_network
from indexer.networks.loaders import BUILTIN_FOLDER
from indexer.networks.run import extract_features
from indexer.records import EmbeddingSettings

EXPERT = "resnet14w16.tiny_imagenet"
NO_TRAINING = "its weights may be those of a training that diverged or never began"
FILE = BUILTIN_FOLDER / f"{EXPERT}.safetensors"


@pytest.fixture
def data(images: Path, tmp_path: Path) -> TrialData:
    return TrialData(str(images), cache=FeatureCache(tmp_path / "features"))


def own_networks(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> str:
    """Loader of a network of the user's own, with that line in its ``forward``."""
    (folder / "mine.py").write_text(
        "import torch\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(12, 4)\n"
        "    def forward(self, x):\n"
        f"        {body}\n"
        "        return self.linear(torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return Mine()\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return "mine:build"


def test_features_are_those_of_the_plain_way(data: TrialData):
    network = load_network(EXPERT)
    sample = load_sample(data.data, network.transform, max_samples=2000, seed=0)
    found = data.features(EXPERT)
    np.testing.assert_array_equal(found.labels, sample.labels)
    np.testing.assert_allclose(found.features, extract_features(network, sample.images), rtol=1e-4, atol=1e-5)
    assert (found.kind, found.features.dtype) == ("single_label", np.float32)
    assert found.loading_seconds > 0
    assert found.feature_seconds > 0


def test_a_second_time_they_are_read_and_not_computed(data: TrialData, monkeypatch: pytest.MonkeyPatch):
    first = data.features(EXPERT)
    monkeypatch.delattr("indexer.experts.trials.extract_features")  # whoever computes now, fails
    for again in (data, TrialData(data.data, cache=data.cache)):
        second = again.features(EXPERT)
        np.testing.assert_array_equal(second.features, first.features)
        np.testing.assert_array_equal(second.labels, first.labels)
        assert second.feature_seconds is None


@pytest.mark.parametrize("changed", [{"seed": 1}, {"max_samples": 8}, {"channels": "mean"}], ids=str)
def test_other_samples_are_computed(data: TrialData, changed: dict):
    data.features(EXPERT)
    other = TrialData(data.data, EmbeddingSettings(**changed), data.cache).features(EXPERT)
    assert other.feature_seconds is not None


def test_changed_data_and_changed_weights_are_computed(data: TrialData, tmp_path: Path):
    folder = shutil.copytree(data.data, tmp_path / "copy")
    weights = tmp_path / "resnet14w16.mine.safetensors"
    shutil.copy(FILE, weights)
    mine = f"resnet14w16@{weights}"
    assert data.features(mine).feature_seconds is not None
    assert (
        TrialData(str(folder), cache=data.cache).features(mine).feature_seconds is None
    )  # the same, elsewhere
    state = load_file(weights)
    name = next(name for name in state if state[name].is_floating_point())
    save_file(state | {name: state[name] * 2}, weights)
    assert TrialData(str(folder), cache=data.cache).features(mine).feature_seconds is not None
    shutil.copy(folder / "no" / "000.png", folder / "no" / "003.png")
    assert TrialData(str(folder), cache=data.cache).features(mine).feature_seconds is not None


def test_damaged_features_are_computed_again(data: TrialData):
    first = data.features(EXPERT)
    (path,) = data.cache.folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    second = data.features(EXPERT)
    assert second.feature_seconds is not None
    np.testing.assert_array_equal(second.features, first.features)
    assert data.features(EXPERT).feature_seconds is None


def test_a_sample_is_decoded_once_for_a_transform(data: TrialData, tmp_path: Path):
    """The images are taken away: the experts after the first find them decoded."""
    folder = shutil.copytree(data.data, tmp_path / "copy")
    data = TrialData(str(folder), cache=data.cache)
    data.features(EXPERT)
    shutil.rmtree(folder)
    assert data.features("resnet14w32.cifar10").feature_seconds is not None
    with pytest.raises(DataError, match="copy"):
        TrialData(str(folder), cache=data.cache).features(EXPERT)


def test_of_several_transforms_the_last_are_kept(data: TrialData, monkeypatch, tmp_path: Path):
    torch.manual_seed(0)
    small = tmp_path / "resnet20.mine.safetensors"
    save_file(ARCHITECTURES["resnet20"].build(10).state_dict(), small)
    monkeypatch.setattr("indexer.experts.trials.MAX_DECODED_BYTES", 12 * 3 * 64 * 64)
    for loader in (EXPERT, f"resnet20@{small}"):
        data.features(loader)
    assert list(data._decoded) == [(32, 32)]
    assert data.features(EXPERT).feature_seconds is None


def test_code_of_the_user_is_run_each_time(data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The weights of a function do not say what it does."""
    loader = own_networks(tmp_path, monkeypatch, "x = x * 1")
    for _ in range(2):
        assert data.features(loader).feature_seconds is not None
    assert not data.cache.folder.exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if len(x) > 6: raise KeyError('odd')", "mine:build: does not run (KeyError: 'odd')"),
        (
            "if len(x) > 6: raise MemoryError",
            "mine:build: does not fit into the memory; try it on another device",
        ),
        ("x = x / (len(x) < 6)", f"mine:build: gives features that are NaN or infinite; {NO_TRAINING}"),
    ],
    ids=["raises", "memory", "infinite"],
)
def test_a_network_that_fails_is_told(data: TrialData, tmp_path: Path, monkeypatch, body: str, message: str):
    loader = own_networks(tmp_path, monkeypatch, body)
    with pytest.raises((NetworkError, WeightsError), match=f"^{re.escape(message)}$"):
        data.features(loader)


def test_weights_that_are_not_numbers_are_told(data: TrialData, tmp_path: Path):
    state = {
        key: value * float("nan") if value.is_floating_point() else value
        for key, value in load_file(FILE).items()
    }
    damaged = tmp_path / "resnet14w16.damaged.safetensors"
    save_file(state, damaged)
    with pytest.raises(
        WeightsError, match=r"damaged.safetensors: its weights conv1.weight and 64 others hold NaN or infinity"
    ):
        data.features(f"resnet14w16@{damaged}")
    damaged.write_bytes(FILE.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"damaged.safetensors: not a safetensors file"):
        data.features(f"resnet14w16@{damaged}")
    damaged.unlink()
    with pytest.raises(WeightsError, match=r"damaged.safetensors: no such weights file"):
        data.features(f"resnet14w16@{damaged}")
    with pytest.raises(UnknownNameError, match=r"^no architecture is named 'resnet14w99'"):
        data.features("resnet14w99@x.pt")


def test_a_device_that_is_not_there_is_told_before_anything_is_loaded():
    with pytest.raises(SettingsError, match="no device is named 'abacus'"):
        TrialData("./nothing", EmbeddingSettings(device="abacus"))


def test_every_kind_of_labels_is_read(tmp_path: Path):
    write_folder(tmp_path / "images", {"x": 12})
    manifest = tmp_path / "several.csv"
    rows = [
        f"images/x/{n:03d}.png,{'red|round' if n % 3 == 0 else 'red' if n % 3 == 1 else 'round'}"
        for n in range(12)
    ]
    manifest.write_text("\n".join(["path,label", *rows]))
    found = TrialData(str(manifest), cache=FeatureCache(tmp_path / "features")).features(EXPERT)
    assert (found.kind, found.labels.shape) == ("multi_label", (12, 2))
