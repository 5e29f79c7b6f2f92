"""What the installed torchvision and timm say of their networks, as the registry takes it."""

import math
import re
import sys

import pytest
from extras import skip_without

from indexer.errors import WeightsError
from indexer.networks.hubs import timm_configs
from indexer.networks.load import count_flops, get_architecture, list_torchvision
from indexer.networks.loaders import parse_loader
from indexer.networks.torchvision import models
from indexer.networks.zoo import ZOOS, ZooNetwork, cached_name, describe_timm, describe_torchvision
from registry.records import ExpertRecord


@pytest.fixture(scope="module")
def torchvision():
    return {network.name: network for network in describe_torchvision()}


@pytest.fixture(scope="module")
def timm():
    skip_without("timm")
    return {network.name: network for network in describe_timm()}


@pytest.mark.parametrize("library", ZOOS)
def test_networks_are_in_order_each_once_and_make_records(library):
    skip_without(library)
    networks = ZOOS[library]()
    names = [network.name for network in networks]
    assert names == sorted(set(names))
    for network in networks:
        record = ExpertRecord(**vars(network))
        assert (record.name, record.license) == (network.name, network.license)
        assert parse_loader(network.loader).weights


def test_torchvision_tells_all_of_a_network(torchvision):
    assert torchvision["resnet50.IMAGENET1K_V2"] == ZooNetwork(
        name="resnet50.IMAGENET1K_V2",
        loader="resnet50.IMAGENET1K_V2",
        source_task="imagenet1k",
        source_accuracy=0.80858,
        num_params=25_557_032,
        flops=4_089_000_000,
        input_size=224,
        license="",
        cached_as="torch:resnet50-11ad3fa6.pth",
    )


def test_all_torchvision_weights_that_classify_are_described(torchvision):
    assert set(list_torchvision()) - torchvision.keys() == {"vgg16.IMAGENET1K_FEATURES"}
    entry = models.get_model_weights("vgg16")["IMAGENET1K_FEATURES"]
    assert math.isnan(entry.meta["_metrics"]["ImageNet-1K"]["acc@1"])
    for network in torchvision.values():
        assert 0.5 < network.source_accuracy < 0.9
        assert 1e6 < network.num_params < 1e9
        assert 1e7 < network.flops < 2e12
        assert network.input_size in range(224, 601)


def test_torchvision_names_a_licence_of_swag_weights_only(torchvision):
    licenses = {name: network.license for name, network in torchvision.items()}
    assert {name for name, license in licenses.items() if license} == {n for n in licenses if "SWAG" in n}
    assert set(licenses.values()) == {"", "cc-by-nc-4.0"}


@pytest.mark.parametrize("name", ["resnet18.IMAGENET1K_V1", "mobilenet_v3_small.IMAGENET1K_V1"])
def test_torchvision_counts_multiply_adds_as_we_do(torchvision, name):
    """Torchvision gives billions with three digits; our figures are those of the body, without the head."""

    class Bodied:
        """What ``count_flops`` asks of a network."""

        body = models.get_model(name.partition(".")[0], weights=None).eval()
        transform = get_architecture(name.partition(".")[0]).transform

    assert torchvision[name].flops == pytest.approx(count_flops(Bodied()), rel=0.02, abs=1e6)


def test_timm_tells_input_licence_and_source_and_no_more(timm):
    assert timm["resnet18.fb_swsl_ig1b_ft_in1k"] == ZooNetwork(
        name="resnet18.fb_swsl_ig1b_ft_in1k",
        loader="timm:resnet18.fb_swsl_ig1b_ft_in1k",
        source_task="imagenet1k",
        input_size=224,
        license="cc-by-nc-4.0",
        cached_as="hf:timm/resnet18.fb_swsl_ig1b_ft_in1k",
    )
    unknown = {(it.num_params, it.flops, it.source_accuracy) for it in timm.values()}
    assert unknown == {(None, None, None)}
    assert "unknown" not in {it.license for it in timm.values()}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("beit_base_patch16_384.in22k_ft_in22k_in1k", "imagenet1k"),
        ("beit_base_patch16_224.in22k_ft_in22k", "imagenet21k"),
        ("mixer_b16_224.miil_in21k", "imagenet21k"),
        ("coatnet_2_rw_224.sw_in12k", "imagenet12k"),
        ("vit_base_patch16_224.mae", ""),
        ("vit_base_patch16_clip_224.openai", ""),
        ("vit_base_patch16_224.orig_in21k", ""),  # its head was left out
    ],
)
def test_the_source_task_is_that_of_the_last_training(timm, name, source):
    assert timm[name].source_task == source


def test_networks_of_timm_that_cannot_be_loaded_here_are_left_out(timm):
    configs = timm_configs()
    left = {name for name in configs if name not in timm}
    assert left
    assert {configs[name].input_size for name in left} == {(3, 1024, 768)}


@pytest.mark.parametrize(
    ("loader", "name"),
    [
        ("resnet18.IMAGENET1K_V1", "torch:resnet18-f37072fd.pth"),
        ("resnet18.NONE", ""),
        ("resnet18", ""),
        ("nothing.x", ""),
        ("resnet18@./birds.pth", ""),
        ("hf:google/vit-base-patch16-224", "hf:google/vit-base-patch16-224"),
        ("hf:./folder", ""),
        ("hf:gpt2", ""),
        ("a.b:c", ""),
        ("torchscript:a.pt", ""),
    ],
)
def test_what_weights_are_called_in_a_cache(loader, name):
    assert cached_name(parse_loader(loader)) == name


@pytest.mark.parametrize(
    ("loader", "name"),
    [
        ("timm:resnet18.a1_in1k", "hf:timm/resnet18.a1_in1k"),
        ("timm:resnet18", "hf:timm/resnet18.a1_in1k"),  # the weights that timm takes if none are named
        ("timm:legacy_senet154.in1k", "torch:legacy_senet154-e9eb9fe6.pth"),  # which the hub does not have
        ("timm:nothing.x", ""),
        ("timm:resnet18@./birds.pth", ""),
    ],
)
def test_what_weights_of_timm_are_called_in_a_cache(timm, loader, name):
    assert cached_name(parse_loader(loader)) == name


def test_without_timm_its_networks_are_not_described(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WeightsError, match=re.escape("install task2vec-registry[hub]")):
        describe_timm()
    assert cached_name(parse_loader("timm:resnet18.a1_in1k")) == ""
