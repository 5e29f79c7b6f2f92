"""indexer.networks.hubs: networks of timm and of Hugging Face, equal to what the libraries themselves give."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from references_networks import random_images
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from indexer.errors import UnknownNameError, WeightsError
from indexer.networks.load import load_expert, load_network
from indexer.networks.run import count_params
from indexer.networks.torchvision import models  # noqa: F401  # torchvision comes through its door before timm
from indexer.records import InputTransform

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}


def save_timm(name: str, folder: Path, **options) -> tuple[nn.Module, str]:
    """A randomly initialised network of timm, and the loader of the file it is now in."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, **options).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
    path = folder / "mine.safetensors"
    save_file({key: value.clone() for key, value in network.state_dict().items()}, path)
    return network, f"timm:{name}@{path}"


def save_hugging_face(network: nn.Module, folder: Path, processor: object = None) -> str:
    """The loader of a model of transformers that is now in a folder."""
    network.eval().save_pretrained(folder)
    (processor or transformers.ViTImageProcessor(size={"height": 32, "width": 32})).save_pretrained(folder)
    return f"hf:{folder}"


def same(ours: Tensor, theirs: Tensor):
    assert ours.ndim == 2
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


# --- timm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        ("resnet10t.c3_in1k", InputTransform(201, 176)),
        ("test_vit.r160_in1k", InputTransform(168, 160, (0.5,) * 3, (0.5,) * 3)),
        ("test_efficientnet.r160_in1k", InputTransform(168, 160)),
        pytest.param("vit_tiny_patch16_224", None, marks=pytest.mark.slow),
        pytest.param("deit_tiny_distilled_patch16_224", None, marks=pytest.mark.slow),
        pytest.param("convnext_atto", None, marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", None, marks=pytest.mark.slow),
        pytest.param("mobilenetv4_conv_small", None, marks=pytest.mark.slow),
        pytest.param("mobilenetv3_small_050", None, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", None, marks=pytest.mark.slow),
    ],
)
def test_timm_network_from_a_file_gives_the_features_of_timm(
    tmp_path: Path, name: str, transform: InputTransform | None
):
    reference, loader = save_timm(name, tmp_path, num_classes=5)
    network = load_network(loader)
    config = timm.data.resolve_model_data_config(reference)
    side = config["input_size"][-1]
    assert network.name == f"{name.partition('.')[0]}.mine"
    assert network.num_params == count_params(reference)
    assert network.transform == transform or transform is None
    assert (network.transform.crop, network.transform.mean) == (side, config["mean"])
    reference.reset_classifier(0)
    features = network.body(random_images(side))
    assert features.shape == (2, network.num_features)
    same(features, reference(random_images(side)))


def test_timm_file_without_a_head_is_taken_as_it_is(tmp_path: Path):
    reference, loader = save_timm("test_resnet", tmp_path, num_classes=0)
    network = load_network(loader)
    same(network.body(random_images(160)), reference(random_images(160)))
    assert network.num_params == count_params(network.body)


def test_timm_expert_is_trainable(tmp_path: Path):
    _, loader = save_timm("test_resnet", tmp_path)
    expert = load_expert(loader, num_classes=3)
    logits = expert(random_images(160))
    logits.logsumexp(dim=1).sum().backward()
    assert logits.shape == (2, 3)
    assert all(parameter.grad is not None for parameter in expert.parameters())


def test_timm_weights_have_the_same_hash_each_time_and_another_for_other_weights(tmp_path: Path):
    _, loader = save_timm("test_resnet", tmp_path, num_classes=5)
    first = load_network(loader).weights_hash
    assert load_network(loader).weights_hash == first
    path = tmp_path / "mine.safetensors"
    state = load_file(path)
    save_file(state | {"fc.weight": state["fc.weight"] + 1}, path)
    assert load_network(loader).weights_hash == first, "the head is no part of the body"
    save_file(state | {"conv1.0.weight": state["conv1.0.weight"] + 1}, path)
    assert load_network(loader).weights_hash != first


def test_timm_weights_that_do_not_fit_are_refused(tmp_path: Path):
    save_timm("test_resnet", tmp_path)
    path = tmp_path / "mine.safetensors"
    state = load_file(path)
    del state["conv1.0.weight"]
    save_file(state, path)
    message = rf"^{re.escape(str(path))}: weights do not fit test_resnet: Missing key\(s\) .*conv1\.0\.weight"
    with pytest.raises(WeightsError, match=message) as raised:
        load_network(f"timm:test_resnet@{path}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ("timm:resnt18", "no architecture of timm is named 'resnt18'; did you mean resnet18 or "),
        (
            "timm:resnet18.a1_in2k",
            "no network of timm is named 'resnet18.a1_in2k'; did you mean resnet18.a1_in1k",
        ),
        ("timm:local/resnet18", "no architecture of timm is named 'local/resnet18'; did you mean "),
        ("timm:resnet18@none.pt", "none.pt: no such weights file; expected"),
    ],
)
def test_unknown_names_of_timm_are_answered_in_words(loader: str, message: str):
    with pytest.raises((UnknownNameError, WeightsError), match=f"^{re.escape(message)}"):
        load_network(loader)


def test_timm_network_of_other_inputs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, loader = save_timm("test_resnet", tmp_path)
    config = {"input_size": (1, 32, 32), "crop_pct": 1.0, "mean": (0.5,), "std": (0.5,)}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda _: config)
    with pytest.raises(
        WeightsError, match=r"takes images of 1x32x32; expected square images of three channels$"
    ):
        load_network(loader)


# --- Hugging Face ----------------------------------------------------------------------------------------

CLASSIFIERS = {
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**TINY, num_labels=5)),
    "deit": lambda: transformers.DeiTForImageClassification(transformers.DeiTConfig(**TINY, num_labels=5)),
    "dinov2": lambda: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(**TINY, num_labels=5)
    ),
    "resnet": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(**STAGES, embedding_size=8, num_labels=5)
    ),
    "convnext": lambda: transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(**STAGES, num_stages=2, num_labels=5)
    ),
    "swin": lambda: transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=32,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            num_labels=5,
        )
    ),
}


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_features_of_a_classifier_are_the_inputs_of_its_last_layer(tmp_path: Path, family: str):
    reference = CLASSIFIERS[family]()
    network = load_network(save_hugging_face(reference, tmp_path / "mine"))
    assert (network.name, network.num_params) == ("mine", count_params(reference))
    features = network.body(random_images())
    assert features.shape == (2, network.num_features)
    linear = [layer for layer in reference.classifier.modules() if isinstance(layer, nn.Linear)][-1]
    torch.testing.assert_close(linear(features), reference(pixel_values=random_images()).logits)


BARE = {
    "pooled": (
        lambda: transformers.ViTModel(transformers.ViTConfig(**TINY)),
        lambda outputs: outputs.pooler_output,
    ),
    "class token": (
        lambda: transformers.ViTModel(transformers.ViTConfig(**TINY), add_pooling_layer=False),
        lambda outputs: outputs.last_hidden_state[:, 0],
    ),
    "class token, normalised": (
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TINY)),
        lambda outputs: outputs.pooler_output,
    ),
    "pooled over pixels": (
        lambda: transformers.ResNetModel(transformers.ResNetConfig(**STAGES, embedding_size=8)),
        lambda outputs: outputs.last_hidden_state.mean(dim=(2, 3)),
    ),
    "mean over pixels": (
        lambda: transformers.MobileNetV2Model(
            transformers.MobileNetV2Config(image_size=32), add_pooling_layer=False
        ),
        lambda outputs: outputs.last_hidden_state.mean(dim=(2, 3)),
    ),
    "part for images": (
        lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TINY)),
        lambda outputs: outputs.pooler_output,
    ),
}


@pytest.mark.parametrize("kind", BARE)
def test_features_of_a_bare_model_are_what_it_pools(tmp_path: Path, kind: str):
    build, pool = BARE[kind]
    reference = build()
    loader = save_hugging_face(reference, tmp_path / "mine")
    network = load_network(loader)
    torch.testing.assert_close(network.body(random_images()), pool(reference(random_images())))
    assert load_network(loader).weights_hash == network.weights_hash, "something was filled at random"


def test_mean_over_positions_where_there_is_no_class_token(tmp_path: Path):
    reference = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TINY, vision_use_head=False))
    network = load_network(save_hugging_face(reference, tmp_path / "mine"))
    expected = reference(random_images()).last_hidden_state.mean(dim=1)
    same(network.body(random_images()), expected)


def test_of_a_model_of_images_and_texts_the_part_for_images_is_taken(tmp_path: Path):
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    reference = transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=TINY, text_config=text | {"vocab_size": 99})
    )
    network = load_network(save_hugging_face(reference, tmp_path / "mine"))
    same(network.body(random_images()), reference.vision_model(random_images()).pooler_output)


@pytest.mark.parametrize(
    ("processor", "transform"),
    [
        (
            transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
            InputTransform(32, 32, (0.5,) * 3, (0.5,) * 3),
        ),
        (
            transformers.BitImageProcessor(
                size={"shortest_edge": 40}, crop_size=32, image_mean=[0.1] * 3, image_std=[0.2] * 3
            ),
            InputTransform(40, 32, (0.1,) * 3, (0.2,) * 3),
        ),
        (
            transformers.ConvNextImageProcessor(size={"shortest_edge": 28}, crop_pct=0.875),
            InputTransform(32, 28, (0.5,) * 3, (0.5,) * 3),
        ),
        (
            transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
            InputTransform(32, 32, (0.0,) * 3, (1.0,) * 3),
        ),
        (
            transformers.ViTImageProcessor(size={"height": 32, "width": 32}, rescale_factor=2 / 255),
            InputTransform(32, 32, (0.25,) * 3, (0.25,) * 3),
        ),
    ],
    ids=["size", "crop", "crop_pct", "not normalised", "rescaled"],
)
def test_transform_is_that_of_the_image_processor(tmp_path: Path, processor: object, transform: InputTransform):
    network = load_network(save_hugging_face(CLASSIFIERS["resnet"](), tmp_path / "mine", processor))
    found = network.transform
    assert (found.resize, found.crop) == (transform.resize, transform.crop)
    assert (*found.mean, *found.std) == pytest.approx((*transform.mean, *transform.std))


def test_half_precision_becomes_single(tmp_path: Path):
    network = load_network(save_hugging_face(CLASSIFIERS["vit"]().half(), tmp_path / "mine"))
    assert {parameter.dtype for parameter in network.body.parameters()} == {torch.float32}


def test_pickled_checkpoints_are_refused(tmp_path: Path):
    folder = tmp_path / "mine"
    loader = save_hugging_face(CLASSIFIERS["vit"](), folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=f"^{re.escape(loader)}: cannot be loaded .*model.safetensors"):
        load_network(loader)


def test_remote_code_is_refused(tmp_path: Path):
    folder = tmp_path / "mine"
    loader = save_hugging_face(CLASSIFIERS["vit"](), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "intruder", "auto_map": {"AutoConfig": "intruder.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "intruder.py").write_text(f"open({str(tmp_path / 'intruded')!r}, 'w')")
    with pytest.raises(WeightsError, match=f"^{re.escape(loader)}: cannot be loaded"):
        load_network(loader)
    assert not (tmp_path / "intruded").exists()


def test_incomplete_checkpoints_are_refused(tmp_path: Path):
    folder = tmp_path / "mine"
    loader = save_hugging_face(CLASSIFIERS["vit"](), folder)
    state = load_file(folder / "model.safetensors")
    missing = next(name for name in state if name.endswith("position_embeddings"))
    del state[missing]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    message = (
        f"{loader}: the checkpoint holds no {missing} of the right shape, nor 0 others; expected all weights"
    )
    with pytest.raises(WeightsError, match=f"^{re.escape(message)}$"):
        load_network(loader)


@pytest.mark.parametrize("option", ["do_flip_channel_order", "rescale_offset"])
def test_inputs_that_are_no_normalised_rgb_are_refused(tmp_path: Path, option: str):
    folder = tmp_path / "mine"
    loader = save_hugging_face(CLASSIFIERS["vit"](), folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {option: True}))
    with pytest.raises(
        WeightsError, match=f"its image processor uses {option}; expected normalised RGB images$"
    ):
        load_network(loader)


def test_images_that_the_model_refuses_are_named(tmp_path: Path):
    processor = transformers.ViTImageProcessor(size={"height": 48, "width": 48})
    loader = save_hugging_face(CLASSIFIERS["vit"](), tmp_path / "mine", processor)
    with pytest.raises(WeightsError, match=f"^{re.escape(loader)}: fails on images of 48 pixels .*32"):
        load_network(loader)


@pytest.mark.parametrize("name", ["./none", "~/none", "/none"])
def test_missing_folder_is_named(name: str):
    with pytest.raises(WeightsError, match=f"^hf:{re.escape(name)}: no such folder; expected one with"):
        load_network(f"hf:{name}")


# --- Without the network, without the libraries -------------------------------------------------------------


@pytest.fixture
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty cache of the hub, and no network, as HF_HUB_OFFLINE=1 makes it for a new process."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize(
    ("loader", "alternative"),
    [
        ("timm:resnet18.a1_in1k", "file as timm:resnet18.a1_in1k@FILE"),
        ("hf:google/vit-base-patch16-224", "folder as hf:./FOLDER"),
    ],
)
def test_a_hub_out_of_reach_is_one_sentence(loader: str, alternative: str):
    message = (
        rf"^{re.escape(loader)}: cannot be loaded \(.*\); if it is not at hand, fetch it on a machine with a "
        f"network and name the {alternative}$"
    )
    with pytest.raises(WeightsError, match=message) as raised:
        load_network(loader)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("library", "loader"), [("timm", "timm:resnet18"), ("transformers", "hf:org/name")])
def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, library: str, loader: str):
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"^{library} cannot be imported \(.*\); install task2vec-registry\[hub\]$"
    with pytest.raises(WeightsError, match=message):
        load_network(loader)


@pytest.mark.network
def test_networks_of_the_hub_load():
    network = load_network("timm:test_vit.r160_in1k")
    assert network.body(random_images(network.transform.crop)).shape == (2, network.num_features)
    network = load_network("hf:hf-internal-testing/tiny-random-ViTModel")
    assert network.name == "hf-internal-testing.tiny-random-ViTModel"
