"""Checkpoints as trainings leave them: wrapped, prefixed, with much beside the weights; or without life."""

import argparse
import re
from pathlib import Path

import pytest
import torch

from indexer.embed import embed_dataset
from indexer.errors import WeightsError
from indexer.experts.few_shot import measure_expert
from indexer.networks.load import ARCHITECTURES, load_network, load_source_head
from indexer.records import EmbeddingSettings

torch.manual_seed(0)
WEIGHTS = ARCHITECTURES["resnet8w32"].build(3).state_dict()
BODY = {name: value for name, value in WEIGHTS.items() if not name.startswith("linear.")}


def after(prefix, state=WEIGHTS):
    return {prefix + name: value for name, value in state.items()}


LIGHTNING = {
    "state_dict": after("model.") | {"criterion.weight": torch.ones(3), "accuracy.tp": torch.zeros(1)},
    "hyper_parameters": {"args": argparse.Namespace(lr=0.1), "root": Path("data")},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
    "best": torch.tensor(0.9),
    "epoch": 3,
}
CHECKPOINTS = {
    "parallel": after("module."),
    "compiled and parallel": after("_orig_mod.module."),
    "lightning": LIGHTNING,
    "tutorial": {"model_state_dict": WEIGHTS, "epoch": 3, "loss": 0.1},
    "average of timm": {"state_dict_ema": after("module.")},
    "average of torchvision": {"model_ema": {"n_averaged": torch.tensor(3), **after("module.")}},
    "weights before their average": {"model_ema": after("module.", BODY), "model": WEIGHTS},
    "average in a module": {"ema": {"module": WEIGHTS}, "updates": 3},
    "nested": {"checkpoint": {"net": after("encoder_q.") | after("encoder_k.", BODY)}},
    "sequence": {"0.mean": torch.zeros(3)} | after("1."),
    "half": {name: value.half() if value.is_floating_point() else value for name, value in WEIGHTS.items()},
}


def saved(content, folder):
    torch.save(content, folder / "run.pt")
    return f"resnet8w32@{folder / 'run.pt'}"


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_weights_are_those_whatever_wraps_them(kind, tmp_path):
    network = load_network(saved(CHECKPOINTS[kind], tmp_path))
    body = network.body.state_dict()
    exact = kind != "half"
    assert body.keys() == BODY.keys()
    for name, value in BODY.items():
        torch.testing.assert_close(body[name], value, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-3)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_weights_without_a_head_make_a_network_without_one(prefix, tmp_path):
    loader = saved(after(prefix, BODY) | {"projector.weight": torch.ones(2, 2)} if prefix else BODY, tmp_path)
    assert load_network(loader).num_features == 128
    assert load_source_head(loader) is None


def without_life(change):
    return {name: change(value) if value.is_floating_point() else value for name, value in WEIGHTS.items()}


FAULTS = {
    "nan": (
        {**WEIGHTS, "layer2.0.conv1.weight": WEIGHTS["layer2.0.conv1.weight"] * float("nan")},
        "its weights layer2.0.conv1.weight hold NaN or infinity, as of a training that diverged",
    ),
    "zero": (without_life(torch.zeros_like), "gives features that are all zero;"),
    "too large": (without_life(lambda value: value * 1e30), "gives features that are NaN or infinite;"),
    "two networks": ({"one": {"a": torch.ones(2)}, "two": {"a": torch.ones(2)}}, "holds no state dict"),
    "a whole network": (ARCHITECTURES["resnet8w32"].build(3), "holds no state dict"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_without_life_say_what_they_are(fault, tmp_path):
    content, problem = FAULTS[fault]
    with pytest.raises(WeightsError, match=re.escape(problem)):
        load_network(saved(content, tmp_path))


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"version https://git-lfs.github.com/spec/v1", "pointer of git LFS"), (b"", "empty file")],
)
def test_what_is_no_checkpoint_says_what_it_is(content, kind, tmp_path):
    (tmp_path / "run.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=kind):
        load_network(f"resnet8w32@{tmp_path}/run.pt")


def test_features_are_checked_wherever_a_network_runs(tmp_path):
    """A network that tells noise apart, which goes beyond the values of images, and no digits."""
    state = {**WEIGHTS, "conv1.weight": torch.zeros_like(WEIGHTS["conv1.weight"])}
    state["conv1.weight"][:, 0, 1, 1] = 1
    state["bn1.bias"] = WEIGHTS["bn1.bias"] - 3
    network = load_network(saved(state, tmp_path))
    assert network.num_features == 128
    for run in (
        lambda: embed_dataset("sklearn:digits", EmbeddingSettings(probe=network.loader, max_samples=20)),
        lambda: measure_expert(network.loader, "sklearn:digits", max_samples=20),
    ):
        with pytest.raises(WeightsError, match="gives features that are all zero"):
            run()


def test_old_names_of_timm_are_understood(tmp_path):
    pytest.importorskip("indexer.networks.torchvision")
    timm = pytest.importorskip("timm")
    state = timm.create_model("tf_efficientnet_b0", num_classes=5).state_dict()
    torch.save({"state_dict_ema": after("module.", state)}, tmp_path / "best.pth")
    network = load_network(f"timm:tf_efficientnet_b0_ns@{tmp_path}/best.pth")
    assert (network.name, network.num_features) == ("tf_efficientnet_b0.best", 1280)
