"""Networks of timm and Hugging Face through indexer.square_grads, exactly, and embeddings with such probes."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from references_fisher import check_layers, square_grads_of_parameters
from safetensors.torch import save_file
from torch import nn

from indexer.embed import embed_dataset
from indexer.fisher.square_grads import SquareGrads
from indexer.fisher.weight_uses import find_filters
from indexer.networks.small_resnet import SmallResNet
from indexer.networks.torchvision import models
from indexer.records import EmbeddingSettings, InputTransform

assert models  # torchvision has to be there before timm, which imports it
timm = pytest.importorskip("timm", reason="the extra hub is not installed")
transformers = pytest.importorskip("transformers", reason="the extra hub is not installed")

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
SWIN = {
    "img_size": 32,
    "embed_dim": 8,
    "depths": (1, 1),
    "num_heads": (2, 2),
    "window_size": 4,
    "num_classes": 0,
}


class Pooled(nn.Module):
    """What a model of transformers gives for images, as one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images).last_hidden_state.flatten(2).mean(dim=1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "timm_resnet": (lambda: timm.create_model("resnet10t", num_classes=0), set()),
    "timm_vit": (lambda: timm.models.VisionTransformer(**VIT, init_values=0.1), set()),
    "timm_beit": (lambda: timm.models.Beit(**VIT, init_values=0.1), set()),
    "timm_swin": (lambda: timm.models.SwinTransformer(**SWIN), set()),
    # Biases of positions are made of a table of coordinates that all samples share.
    "timm_swinv2": (lambda: timm.models.SwinTransformerV2(**SWIN), {".cpb_mlp."}),
    "timm_convnext": (lambda: timm.create_model("convnext_atto", num_classes=0), set()),
    "timm_mobilenetv4": (lambda: timm.create_model("mobilenetv4_conv_small_035", num_classes=0), set()),
    "timm_efficientnet": (lambda: timm.create_model("tf_efficientnet_lite0", num_classes=0), set()),
    # Weights are standardised before their use.
    "timm_nfnet": (lambda: timm.create_model("nf_regnet_b0", num_classes=0), {"conv"}),
    "hf_vit": (lambda: Pooled(transformers.ViTModel(transformers.ViTConfig(**TINY))), set()),
    "hf_dinov2": (lambda: Pooled(transformers.Dinov2Model(transformers.Dinov2Config(**TINY))), set()),
    "hf_beit": (lambda: Pooled(transformers.BeitModel(transformers.BeitConfig(**TINY))), set()),
    "hf_clip": (lambda: Pooled(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TINY))), set()),
}


SOME = {"timm_vit", "timm_swinv2", "hf_vit"}


@pytest.mark.parametrize(
    "name", [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_network_matches_one_by_one(name: str):
    """With and without the factors of norms; the slow side is computed once for both."""
    build, slow = NETWORKS[name]
    torch.manual_seed(0)
    network = build().eval().double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    direction = torch.randn(1, *network(images).shape, dtype=torch.float64)
    weights = {block.name: block.parameter for block in find_filters(network, norm_weights=True)}
    expected = square_grads_of_parameters(network, weights, images, direction)
    for norm_weights in (True, False):
        with SquareGrads(network, norm_weights=norm_weights) as grads:
            network(images).backward(direction[0])
            squares = grads.take()
        names = [block.name for block in find_filters(network, norm_weights=norm_weights)]
        check_layers(squares, grads.slices, {name: expected[name] for name in names}, 1e-8)
    assert all(any(part in title for part in slow) for title in grads.fallbacks), grads.fallbacks
    assert bool(grads.fallbacks) == bool(slow)


def build_small() -> nn.Module:
    """A network that is not of a library: what ``module:function`` loaders name."""
    torch.manual_seed(0)
    network = SmallResNet(8, 5)
    network.linear = nn.Identity()
    return network


build_small.input_transform = InputTransform(32, 32)


def timm_loader(folder: Path) -> str:
    network = timm.create_model("mobilenetv4_conv_small_035", num_classes=5)
    save_file(network.state_dict(), folder / "mine.safetensors")
    return f"timm:mobilenetv4_conv_small_035@{folder / 'mine.safetensors'}"


def hugging_face_loader(folder: Path) -> str:
    transformers.ViTForImageClassification(transformers.ViTConfig(**TINY)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return f"hf:{folder}"


def torchscript_loader(folder: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(build_small().eval())
        extra = {"input_transform.json": '{"resize": 32, "crop": 32}'}
        torch.jit.save(script, folder / "mine.pt", _extra_files=extra)
    return f"torchscript:{folder / 'mine.pt'}"


LOADERS = {
    "timm": timm_loader,
    "hugging_face": hugging_face_loader,
    "function": lambda _folder: f"{__name__}:build_small",
    "torchscript": torchscript_loader,
}


@pytest.mark.parametrize("source", LOADERS)
def test_data_is_embedded_with_any_probe(source: str, tmp_path: Path):
    loader = LOADERS[source](tmp_path)
    embedding = embed_dataset("sklearn:digits", EmbeddingSettings(probe=loader, max_samples=24, device="cpu"))
    assert embedding.space.weights_hash
    assert np.isfinite(embedding.fisher).all()
    assert (embedding.fisher > 0).mean() > 0.5
    assert bool(embedding.fallbacks) == (source == "torchscript")


def test_torchscript_gives_what_the_function_gave(tmp_path: Path):
    settings = EmbeddingSettings(max_samples=24, device="cpu")
    one, other = (
        embed_dataset("sklearn:digits", replace(settings, probe=LOADERS[source](tmp_path)))
        for source in ("function", "torchscript")
    )
    np.testing.assert_allclose(other.fisher, one.fisher, rtol=1e-3, atol=1e-4 * one.fisher.max())
