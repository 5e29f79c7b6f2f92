import pytest
from extras import skip_without
from hypothesis import given
from hypothesis import strategies as st

from registry.recommend.attributes import DATASETS, FAMILIES, TEXT_FAMILIES, TRAININGS, attributes_of

# name: family, training, source, what it was fine-tuned on
SAID = {
    "vit_base_patch16_224.augreg_in21k_ft_in1k": ("vit", "supervised", "imagenet21k", "imagenet1k"),
    "timm:vit_base_patch16_224.augreg_in1k": ("vit", "supervised", "imagenet1k", ""),
    "vit_base_patch16_224.mae": ("vit", "self_supervised", "imagenet1k", ""),
    "vit_base_patch14_dinov2.lvd142m": ("vit", "self_supervised", "lvd142m", ""),
    "vit_base_patch32_clip_224.laion2b_ft_in12k_in1k": ("vit", "language_image", "laion2b", "imagenet1k"),
    "vit_so400m_patch14_siglip_384.webli": ("vit", "language_image", "webli", ""),
    "eva02_large_patch14_clip_336.merged2b": ("vit", "language_image", "merged2b", ""),
    "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k": ("vit", "self_supervised", "imagenet21k", "imagenet1k"),
    "convnextv2_tiny.fcmae_ft_in1k": ("convnext", "self_supervised", "imagenet1k", ""),
    "resnet50.a1_in1k": ("resnet", "supervised", "imagenet1k", ""),
    "resnet50.fb_swsl_ig1b_ft_in1k": ("resnet", "supervised", "instagram1b", "imagenet1k"),
    "resnet50_clip.openai": ("resnet", "language_image", "wit400m", ""),
    "seresnextaa101d_32x8d.sw_in12k_ft_in1k_288": ("resnet", "supervised", "imagenet12k", "imagenet1k"),
    "tf_efficientnet_b0.ap_in1k": ("efficientnet", "robust", "imagenet1k", ""),
    "tf_efficientnet_lite0.in1k": ("efficientnet", "supervised", "imagenet1k", ""),
    "tf_efficientnet_b7.ns_jft_in1k": ("efficientnet", "supervised", "jft300m", "imagenet1k"),
    "resnet50.IMAGENET1K_V2": ("resnet", "supervised", "imagenet1k", ""),
    "regnet_y_16gf.IMAGENET1K_SWAG_E2E_V1": ("regnet", "supervised", "instagram3b", "imagenet1k"),
    "vit_h_14.IMAGENET1K_SWAG_LINEAR_V1": ("vit", "supervised", "instagram3b", "imagenet1k"),
    "squeezenet1_0.imagenet": ("squeezenet", "supervised", "imagenet1k", ""),
    "open_clip:ViT-B-32/openai": ("vit", "language_image", "wit400m", ""),
    "open_clip:ViT-B-32/laion2b_s34b_b79k": ("vit", "language_image", "laion2b", ""),
    "open_clip:ViT-B-16/datacomp_l_s1b_b8k": ("vit", "language_image", "datacomp_l", ""),
    "open_clip:convnext_base_w/laion_aesthetic_s13b_b82k": (
        "convnext",
        "language_image",
        "laion_aesthetic",
        "",
    ),
    "open_clip:coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k": (
        "vit",
        "language_image",
        "laion2b",
        "mscoco",
    ),
    "open_clip:RN50x64/openai": ("resnet", "language_image", "wit400m", ""),
    "facebook/dinov2-base": ("vit", "self_supervised", "lvd142m", ""),
    "hf:facebook/dinov2-base": ("vit", "self_supervised", "lvd142m", ""),
    "facebook.dinov2-base": ("vit", "self_supervised", "", ""),
    "openai/clip-vit-base-patch32": ("vit", "language_image", "wit400m", ""),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": ("vit", "language_image", "laion2b", ""),
    "google/vit-base-patch16-224": ("vit", "supervised", "imagenet21k", "imagenet1k"),
    "google/siglip-base-patch16-224": ("vit", "language_image", "webli", ""),
    "nyu-visionx/moco-v3-vit-b": ("vit", "self_supervised", "imagenet1k", ""),
    "microsoft/resnet-50": ("resnet", "supervised", "imagenet1k", ""),
    "somebody/vit-base-beans": ("vit", "supervised", "beans", ""),
    "resnet50@oxford_pets": ("resnet", "supervised", "oxford_pets", ""),
    "modelspider:densenet201.Caltech101": ("densenet", "supervised", "caltech101", ""),
    "vtab/Rotation": ("resnet", "self_supervised", "imagenet1k", ""),
    "vtab/From-Scratch": ("resnet", "", "", ""),
    "sentence-transformers/all-MiniLM-L6-v2": ("minilm", "", "", ""),
    "intfloat/multilingual-e5-large": ("xlm_roberta", "", "", ""),
    "minishlab/potion-retrieval-32M": ("static", "", "", ""),
    "resnet14w32.flowers5": ("resnet", "", "", ""),  # a dataset of nobody else: the record says what it is
    "resnet50": ("resnet", "", "", ""),
    "my_model": ("", "", "", ""),
}


@pytest.mark.parametrize("name", SAID)
def test_attributes_of_known_names(name):
    found = attributes_of(name)
    assert (found.family, found.training, found.source, found.fine_tuned_on) == SAID[name]
    assert found.source_size == DATASETS.get(found.source)


def test_attributes_of_torchvision_are_all_known():
    from indexer.networks.zoo import describe_torchvision

    found = {network.name: attributes_of(network.name) for network in describe_torchvision()}
    assert {
        name for name, said in found.items() if not (said.family and said.training and said.source)
    } == set()


def test_attributes_of_timm_are_nearly_all_known():
    skip_without("timm")
    from indexer.networks.zoo import describe_timm

    found = {network.name: attributes_of(network.name) for network in describe_timm()}
    without = {
        key: sum(not getattr(said, key) for said in found.values()) for key in ("family", "training", "source")
    }
    assert without["family"] <= 5
    assert without["training"] <= 0.04 * len(found)
    assert without["source"] <= 0.1 * len(found)
    for network in describe_timm():  # what is said there of the last training is what is said here
        said = found[network.name]
        if network.source_task and said.source:
            assert network.source_task in {said.source, said.fine_tuned_on}, network.name


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=160))
def test_attributes_of_any_text_are_of_the_catalogues(name):
    found = attributes_of(name)
    assert found.family in {"", *FAMILIES, *TEXT_FAMILIES}
    assert found.training in {"", *TRAININGS}
    assert found.source in {"", *DATASETS}


@given(
    st.sampled_from(["vit_base_patch16_224", "resnet50", "convnext_tiny", "mobilenetv3_large_100"]),
    st.sampled_from([("in1k", "imagenet1k"), ("in21k", "imagenet21k"), ("laion2b", "laion2b")]),
    st.sampled_from([("in1k", "imagenet1k"), ("in12k", "imagenet12k")]),
)
def test_attributes_of_a_tag_say_first_and_last_dataset(architecture, first, last):
    found = attributes_of(f"{architecture}.{first[0]}_ft_{last[0]}")
    assert found.source == first[1]
    assert found.fine_tuned_on == (last[1] if last != first else "")
