"""What the name of an expert says of it: architecture family, how and on what it was trained.

Names are those of the field and carry this by custom: ``vit_base_patch16_224.augreg_in21k_ft_in1k`` (timm),
``resnet50.IMAGENET1K_V2`` (torchvision), ``open_clip:ViT-B-32/openai``, ``facebook/dinov2-base`` (Hugging
Face), ``resnet50.caltech101`` or ``resnet50@caltech101`` (architecture and source, as in papers). What a name
does not say stays empty: nothing here is looked up, loaded or guessed from accuracy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from registry.names import DATASETS

Training = Literal["supervised", "self_supervised", "language_image", "robust"]
"""How weights were first trained: on labels (of people, or hashtags), on images alone, on images and their
texts, or on labels against adversarial changes."""

TRAININGS: tuple[Training, ...] = get_args(Training)


@dataclass(frozen=True)
class ExpertAttributes:
    """What the name of an expert says.

    Attributes:
        family: Coarse family of the architecture, one of ``FAMILIES`` or ``TEXT_FAMILIES``; empty if unknown.
        training: How it was first trained; empty if unknown.
        source: Dataset of that first training, one of ``DATASETS`` where it is known there; empty if unknown.
        source_size: Images (or pairs with texts) of that dataset; ``None`` if unknown.
        fine_tuned_on: Dataset that it was trained on last, if that is another; empty otherwise.
        distilled: Whether it learned from another network too.
    """

    family: str = ""
    training: Training | Literal[""] = ""
    source: str = ""
    source_size: int | None = None
    fine_tuned_on: str = ""
    distilled: bool = False


_WORDS = {
    "in1k": "imagenet1k",
    "imagenet": "imagenet1k",
    "imagenet1k": "imagenet1k",
    "imagenet_1k": "imagenet1k",
    "in12k": "imagenet12k",
    "in21k": "imagenet21k",
    "in22k": "imagenet21k",
    "imagenet21k": "imagenet21k",
    "imagenet22k": "imagenet21k",
    "inw21k": "imagenet21k",
    "jft": "jft300m",
    "ig1b": "instagram1b",
    "swag": "instagram3b",
    "yfcc100m": "yfcc100m",
    "yfcc15m": "yfcc15m",
    "cc12m": "cc12m",
    "openai": "wit400m",
    "laion400m": "laion400m",
    "laion2b": "laion2b",
    "laion5b": "laion5b",
    "laiona": "laion_aesthetic",
    "laion_aesthetic": "laion_aesthetic",
    "datacompxl": "datacomp1b",
    "datacomp1b": "datacomp1b",
    "datacomp_xl": "datacomp1b",
    "datacomp.xl": "datacomp1b",
    "datacomp_s34b": "datacomp1b",  # open_clip's ViT-B-32-256: 34 billion samples seen of DataComp-1B
    "datacomp_l": "datacomp_l",
    "datacomp_m": "datacomp_m",
    "datacomp_s": "datacomp_s",
    "commonpool_xl": "commonpool_xl",
    "commonpool_l": "commonpool_l",
    "commonpool_m": "commonpool_m",
    "commonpool_s": "commonpool_s",
    "dfn2b": "dfn2b",
    "dfndr2b": "dfn2b",
    "dfn5b": "dfn5b",
    "metaclip_400m": "metaclip400m",
    "metaclip_2pt5b": "metaclip2b",
    "metaclip_fullcc": "metaclip2b",
    "merged2b": "merged2b",
    "m38m": "merged38m",
    "m30m": "merged30m",
    "webli": "webli",
    "lvd142m": "lvd142m",
    "lvd1689m": "lvd1689m",
    "sat493m": "sat493m",
    "sa1b": "sa1b",
    "inat21": "inat21",
    "inaturalist": "inat21",
    "tiny_imagenet": "tiny_imagenet",
    "places365": "places365",
    "cub2011": "cub200",
    "cub200": "cub200",
    "pet": "oxford_pets",
    "pets": "oxford_pets",
    "oxford_pets": "oxford_pets",
    "dogs": "stanford_dogs",
    "nabird": "nabirds",
    "flowers": "flowers102",
    "food": "food101",
}
"""What words of names stand for, beside the names of ``DATASETS`` themselves."""

FAMILIES: Mapping[str, str] = {
    "swin": r"swin",
    "convnext": r"(test_)?convnext|inception_next|convformer",
    "maxvit": r"maxx?vit|coatnet|coatnext|coat_",
    "efficientvit": r"efficientvit|efficientformer|efficientvim|lowformer|cpubone|shvit|swiftformer|fastvit"
    r"|repvit",
    "mobilevit": r"mobilevit|edgenext|levit|tiny_vit",
    "metaformer": r"caformer|poolformer|mambaout|iformer",
    "mixer": r"mixer|resmlp|gmlp|gmixer|convmixer|sequencer",
    "pyramid_vit": r"pvt|twins|mvit|nest_|nextvit|xcit|crossvit|gcvit|davit|focalnet|hiera|sam2_hiera|pit_|volo"
    r"|tnt|visformer|convit",
    "vit": r"(flexi|sam|naflex|deepseek_|qwen\d_|gemma\d_|test_)?vit|deit|beit|eva|cait|aimv\d",
    "regnet": r"(nf_|halo)?regnet|gernet",
    "densenet": r"densenet|rdnet",
    "vgg": r"vgg|repvgg|alexnet",
    "squeezenet": r"squeezenet",
    "inception": r"inception|googlenet|(legacy_)?xception|pnasnet|nasnet",
    "shufflenet": r"shufflenet",
    "efficientnet": r"(tf_|gc_|test_)?efficientnet|(tf_)?mixnet|tinynet|rexnet",
    "mobilenet": r"(tf_)?mobilenet|mobileone|mnasnet|semnasnet|spnasnet|fbnet|hardcorenas|lcnet|(rep)?ghostnet"
    r"|starnet|fasternet",
    "resnet": r"(legacy_|wide_|lambda_|test_|dm_|bat_|nf_|se|sk|ese_|eca_?|gc|(lam)?halo\d*)*(resnet|resnext"
    r"|res2ne|resnest|nfnet|senet|(se)?bot(net|next)|net|next|vovnet)|tresnet|cspnext|cspresne|csp(dark|edge)net|cs3"
    r"|darknet|dla\d|dpn\d|hrnet|hgnet|selecsls",
}
"""Coarse families of networks of images, with what names of their members in timm or torchvision begin with."""

_FAMILY = re.compile("|".join(f"(?P<{family}>{pattern})" for family, pattern in FAMILIES.items()))

TEXT_FAMILIES: Mapping[str, str] = {
    "modernbert": r"modernbert",
    "xlm_roberta": r"xlm-?roberta|bge-m3|multilingual-e5|gte-multilingual|arctic-embed-[lm]-v2",
    "roberta": r"roberta|simcse-roberta",
    "mpnet": r"mpnet",
    "minilm": r"minilm",
    "qwen": r"qwen",
    "mistral": r"mistral|gritlm|sfr-embedding|linq-embed|zephyr",
    "llama": r"llama",
    "gemma": r"gemma",
    "t5": r"(^|[/-])(gtr|sentence|instructor|t5|ul2)[-/]?t5|(^|[/-])t5|gtr-t5|instructor-",
    "static": r"potion|m2v|model2vec|static-|glove|wordllama",
    "bert": r"bert|bge-(small|base|large)|(^|/)e5-(small|base|large)|gte-(small|base|large)|contriever|labse",
}
"""Coarse families of text encoders, with a pattern of their names on the hub, tried in order."""

_HUB_FAMILIES: Mapping[str, str] = {
    "swin": r"swin",
    "convnext": r"convnext",
    "regnet": r"regnet",
    "efficientnet": r"efficientnet|kakaobrain/align",
    "mobilenet": r"mobilenet",
    "mobilevit": r"mobilevit|levit",
    "resnet": r"resnet|(^|/|-)bit-\d",
    "pvt": r"(^|[/-])pvt|cvt-|poolformer|van-|segformer|focalnet|hiera",
    "vit": r"(?<![a-z])(vit|eva|eva02|dino|dinov\d|blip)(?![a-z])|deit|beit|siglip|data2vec-vision"
    r"|nomic-embed-vision",
}
_OPEN_CLIP_FAMILIES: Mapping[str, str] = {
    "convnext": r"convnext",
    "resnet": r"RN\d",
    "vit": r"ViT|EVA|nllb-clip",
}

_SELF_SUPERVISED = re.compile(
    r"(?<![a-z])(dino(v[23])?|mae|fcmae|ijepa|mim|moco(-?v\d)?|swav|simclr|byol|barlow\w*|deepcluster\w*|rotnet|jigsaw"
    r"|rotation|exemplar|rel\.pat\.loc|seer|pirl|simsiam|vicreg|msn|sapiens2?|eupe|lingbot|beit|beitv2|beit3|eva|eva02"
    r"|data2vec-vision|ssl|sa1b)(?![a-z])"  # masks without classes: no labels of SA-1B say what is seen
)
_LANGUAGE_IMAGE = re.compile(
    r"clip|siglip|mclip|metaclip|tinyclip|pali2?|tipsv?2?|florence2|align(?![a-z])|blip2?|_pe_(core|lang|spatial)|ogvl"
    r"|nomic-embed-vision|e5-v|vlm2vec|radio|aimv2"
)
_ROBUST = re.compile(r"(?<![a-z])(ap|robust|adv|salman\w*|advprop)(?![a-z])")
_SUPERVISED = re.compile(r"supervised|(?<![a-z])(sup|wsl|swsl|swag|ns)(?![a-z])")
_DISTILLED = re.compile(r"dist(illed|ill)?(?![a-z])|ssld|tinyclip")


@lru_cache(maxsize=20_000)
def attributes_of(name: str) -> ExpertAttributes:
    """What the name of an expert says of it; of a name that says nothing, all is empty.

    Args:
        name: Of timm (``timm:`` before it or not), torchvision, open_clip, Hugging Face, or ``ARCH.SOURCE``.
    """
    prefix, colon, rest = name.partition(":")
    if not colon:
        prefix, rest = "", name
    if rest.startswith("vtab/"):
        return _of_vtab(rest)
    if prefix == "open_clip":
        return _of_open_clip(rest)
    if prefix == "hf" or (not prefix and "/" in rest and "@" not in rest):
        return _of_hub(rest)
    return _of_library(rest)


def _of_library(name: str) -> ExpertAttributes:
    """``architecture.tag`` of timm, torchvision or this package, and ``architecture@source``."""
    architecture, _, tag = re.sub(r"@", ".", name, count=1).partition(".")
    architecture, tag = architecture.lower(), tag.lower()
    whole = f"{architecture}.{tag}"
    begins = _FAMILY.match(architecture)
    family = begins.lastgroup if begins else None
    if not family:
        return _of_hub(name)  # with a dot for the slash, as names in a registry once had
    if tag.startswith("imagenet1k_"):  # torchvision's
        of_swag = "swag" in tag
        tag = "swag_ft_in1k" if of_swag else "in1k"
        whole = f"{architecture}.{tag}"
    sources = _sources(tag)
    if not sources and re.search(r"(?<![a-z])(mae|dino|fcmae)(?![a-z])", tag):
        sources = ["imagenet1k"]  # where they name nothing else: MAE, DINO and FCMAE are of ImageNet-1k
    training = _training(whole, sources)
    return _attributes(family, training, sources, bool(_DISTILLED.search(whole)))


def _of_open_clip(name: str) -> ExpertAttributes:
    """``ARCH/PRETRAINED``: always of images and texts; what is fine-tuned on captions was so before."""
    architecture, _, tag = name.partition("/")
    family = _first(_OPEN_CLIP_FAMILIES, architecture)
    sources = _sources(tag.lower())
    if tag.startswith("mscoco_finetuned_"):
        sources = [*sources, "mscoco"]
    return _attributes(family, "language_image", sources, distilled=False)


def _of_vtab(name: str) -> ExpertAttributes:
    """``vtab/METHOD`` of the Visual Task Adaptation Benchmark: all of ImageNet-1k, or from scratch."""
    method = name.removeprefix("vtab/")
    if method == "From-Scratch":
        return ExpertAttributes(family="resnet")
    generative = re.search("GAN|AE", method)
    training: Training = "supervised" if method.startswith(("Sup", "Semi")) else "self_supervised"
    return _attributes("" if generative else "resnet", training, ["imagenet1k"], distilled=False)


def _of_hub(name: str) -> ExpertAttributes:
    """``organisation/model``, whose words are less of a custom; a text encoder has a family and no more."""
    text = name.lower()
    model = text.rpartition("/")[2]
    is_image = bool(_LANGUAGE_IMAGE.search(text))
    family = _first(_HUB_FAMILIES, text)
    if not family:
        return ExpertAttributes(family=_first(TEXT_FAMILIES, text))
    sources = _sources(re.sub(r"-", "_", model)) or _sources(model)
    if "imagenet_21k" in text.replace("-", "_"):
        sources = [*sources, "imagenet21k"]
    for words, source in _HUB_SOURCES.items():
        if not sources and re.match(words, text):
            sources = list(source)
    training = _training(text, sources) if (sources or is_image or _SELF_SUPERVISED.search(text)) else ""
    return _attributes(family, training, sources, bool(_DISTILLED.search(text)))


# What the owners of these say on their pages, where names do not; patterns of whole beginnings.
_HUB_SOURCES: Mapping[str, tuple[str, ...]] = {
    r"facebook/dinov2-": ("lvd142m",),
    r"facebook/dino-|facebook/vit-mae-|facebook/vit-msn-": ("imagenet1k",),
    r"openai/clip-": ("wit400m",),
    r"google/siglip": ("webli",),
    r"kakaobrain/align": ("align",),
    r"google/vit-(base|large|huge)-patch\d+-(224|384)$": ("imagenet21k", "imagenet1k"),
    r"microsoft/(resnet|swin-\w+-patch4-window\d+)-\d+$": ("imagenet1k",),
    r"microsoft/swin-\w+-patch4-window\d+-\d+$": ("imagenet1k",),
    r"facebook/(deit|convnext)-\w+-(distilled-)?(patch16-)?(224|384)$": ("imagenet1k",),
    r"facebook/convnext-\w+-\d+-22k$": ("imagenet21k",),
    r"facebook/convnext-\w+-\d+-22k-1k$": ("imagenet21k", "imagenet1k"),
    r"microsoft/beit-\w+-patch16-\d+$": ("imagenet21k", "imagenet1k"),
    r"microsoft/beit-\w+-patch16-\d+-pt22k": ("imagenet21k",),
    r"nyu-visionx/moco-v3-": ("imagenet1k",),
}


_PAIRS = {
    "wit400m",
    "laion400m",
    "laion2b",
    "laion5b",
    "laion_aesthetic",
    "webli",
    "align",
    "datacomp1b",
    "merged2b",
    "dfn2b",
    "dfn5b",
    "metaclip400m",
    "metaclip2b",
}
"""Datasets of images and their texts; what names them alone was trained to match the two."""


def _training(name: str, sources: list[str]) -> Training | Literal[""]:
    """How weights were first trained; supervised only where a dataset or a word says so."""
    if _LANGUAGE_IMAGE.search(name) or (sources and sources[0] in _PAIRS):
        return "language_image"
    if _SELF_SUPERVISED.search(name):
        return "self_supervised"
    if _ROBUST.search(name):
        return "robust"
    return "supervised" if sources or _SUPERVISED.search(name) else ""


def _attributes(
    family: str, training: Training | Literal[""], sources: list[str], distilled: bool
) -> ExpertAttributes:
    source = sources[0] if sources else ""
    last = sources[-1] if sources and sources[-1] != source else ""
    return ExpertAttributes(family, training, source, DATASETS.get(source), last, distilled)


def _sources(tag: str) -> list[str]:
    """Datasets that a tag names, in order; of names that hold one another, such as ``laion2b``, the longest."""
    mentions = {match.start(): match[0] for match in _SOURCE.finditer(tag)}
    return list(dict.fromkeys(_WORDS.get(word, word) for _, word in sorted(mentions.items())))


_SOURCE = re.compile(
    "(?<![a-z0-9])("
    + "|".join(sorted(map(re.escape, {*_WORDS, *DATASETS}), key=len, reverse=True))
    + ")(?![a-z0-9])"
)


def _first(families: Mapping[str, str], name: str) -> str:
    return next((family for family, pattern in families.items() if re.search(pattern, name)), "")
