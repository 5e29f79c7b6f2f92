"""What is known of an expert before it is measured, as numbers: size, source, architecture, training.

Names carry most of it, as the field writes them: timm (``timm:vit_base_patch16_224.augreg_in21k``), torchvision
(``resnet50.IMAGENET1K_V2``), open_clip (``open_clip:ViT-B-32/laion2b_e16``), Hugging Face
(``google/vit-base``).

Axes: M experts, F features.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from registry.names import DATASETS
from registry.recommend.attributes import attributes_of

_UNTRAINED = re.compile("scratch|random_init|untrained")

_SIZES = (
    (2.5e9, r"gigantic|bigg\b|big-?g|enormous|bige|eva[0-9]*-e-14"),
    (1.1e9, r"giant|vit-g-|-g-14"),
    (6.5e8, r"huge|vit-h-|-h-14"),
    (4.3e8, r"so400m"),
    (3.1e8, r"large|vit-l-|-l-14|-l-16|xlarge"),
    (8.8e7, r"base|vit-b-|-b-16|-b-32"),
    (2.3e7, r"small|vit-s-|-s-16"),
    (6e6, r"tiny|vit-ti-|nano|atto|femto|pico"),
)
"""Parameters of what is named so, where nobody told them."""

REFERENCE_PARAMS, REFERENCE_FLOPS, REFERENCE_SIDE = 2.5e7, 4e9, 224
REFERENCE_ACCURACY, ACCURACY_BY_SIZE, ACCURACY_SPREAD = 0.77, 0.1, 0.07
"""ImageNet's top-1 of usual networks of the reference size, what ten times the parameters add, and its sd."""
BROAD = frozenset(
    {name for name, images in DATASETS.items() if images >= 10**7} | {"imagenet1k", "tiny_imagenet"}
)
"""Sources that show all kinds of things, which carries over to more tasks than one kind does."""
IMAGES_RANGE = (-4.0, 2.5)
"""Decimal logs, beside ImageNet, beyond which more images of a source change nothing."""
SIZE_BUMPS = (5.0, 6.0, 7.0, 7.5, 8.0, 8.5, 9.0)
"""Decimal logs of parameter counts about which standing may deviate from a straight line."""
BUMP_WIDTH = 0.5
SIZE_PSEUDO_EXPERTS = 2.0
"""How many of usual size count beside those of a family, where the size of another is to be guessed."""


@dataclass(frozen=True)
class ExpertFacts:
    """An expert as the model sees it.

    Attributes:
        name: As registered; the same weights under other names are one expert.
        source_task: Registered task it was trained on, or empty.
        num_params: Parameters, if known.
        flops: Multiply-adds, if known.
        input_size: Side in pixels, if known.
        source: Name of the source data in ``registry.names.DATASETS``, or whatever was told, or empty.
        source_images: Images it was trained on, if known.
        imagenet_accuracy: ImageNet's top-1, 0 to 1, if that is known.
        family: Of architectures.
        architecture: Without the weights.
        training: ``supervised``, ``self_supervised``, ``language_image``, ``robust`` or ``none``.
        toy: Whether it is one of the small networks shipped for demonstration.
    """

    name: str
    source_task: str = ""
    num_params: float | None = None
    flops: float | None = None
    input_size: float | None = None
    source: str = ""
    source_images: float | None = None
    imagenet_accuracy: float | None = None
    family: str = ""
    architecture: str = ""
    training: str = "supervised"
    toy: bool = False


def facts_of(expert: Any, source_images: Mapping[str, int] | None = None) -> ExpertFacts:
    """What is known of an expert, told or read off its name.

    Args:
        expert: An ``ExpertRecord``; of its fields ``source_dataset``, ``architecture``, ``training`` and
            ``toy``, those that are there go before what the name says.
        source_images: Samples of registered tasks, by name.
    """
    fields = ("source_dataset", "architecture", "training")
    words = tuple(getattr(expert, field, "") or "" for field in fields)
    numbers = (expert.num_params, expert.flops, expert.input_size, expert.source_accuracy)
    images = (source_images or {}).get(expert.source_task)
    return _facts(expert.name, expert.source_task, words, numbers, images, bool(getattr(expert, "toy", False)))


@lru_cache(maxsize=20_000)
def _facts(
    name: str,
    source_task: str,
    words: tuple[str, ...],
    numbers: tuple[float | None, ...],
    images: float | None,
    toy: bool,
) -> ExpertFacts:
    """``facts_of`` what was told of an expert; reading thousands of names takes longer than an answer."""
    dataset, architecture, training = words
    num_params, flops, input_size, accuracy = numbers
    origin = dataset or source_task
    said = attributes_of(name)
    source = attributes_of(f"any.{origin}").source or origin or said.source or _suffix(name)
    architecture = architecture or architecture_of(name)
    if accuracy is not None and not 0 <= accuracy <= 1:  # NaN neither
        accuracy = None
    imagenet = source == "imagenet1k" or bool(re.search(r"in1k", name.lower()))
    return ExpertFacts(
        name=name,
        source_task=source_task,
        num_params=num_params or size_of(name),
        flops=flops,
        input_size=input_size,
        source=source,
        source_images=images or DATASETS.get(source),
        imagenet_accuracy=accuracy if imagenet else None,
        family=said.family or family_of(architecture),
        architecture=architecture,
        training=training or ("none" if _UNTRAINED.search(name) else said.training) or "supervised",
        toy=toy,
    )


def architecture_of(name: str) -> str:
    """The part of a name that says the architecture, in lower case."""
    plain = name.lower()
    if plain.startswith("open_clip:"):
        return plain.removeprefix("open_clip:").split("/")[0]
    plain = plain.split(":", 1)[-1]
    if "/" in plain:  # a model on a hub: whoever it is of says nothing
        return plain.split("/", 1)[1]
    return plain.split(".")[0].split("@")[0]


def family_of(architecture: str) -> str:
    """The family of an architecture that is not known: its first word."""
    word = re.match(r"[a-z]+", architecture.lower())
    return word.group() if word else ""


def size_of(name: str) -> float | None:
    """Parameters that a name such as ``vit_large`` or ``ViT-B-32`` lets expect."""
    plain = name.lower().replace("_", "-")
    return next((size for size, pattern in _SIZES if re.search(pattern, plain)), None)


def _suffix(name: str) -> str:
    """The source in names such as ``resnet50.oxford_pets``; ImageNet of what libraries name without weights."""
    if "/" in name:
        return ""
    plain = name.lower().split(":", 1)[-1].replace("@", ".")
    if "." in plain:
        return plain.split(".", 1)[1]
    return "imagenet1k" if name.lower().startswith("timm:") else ""


@dataclass(frozen=True, eq=False)
class Features:
    """Experts as numbers, and what is assumed of their weights before any result.

    Attributes:
        values: ``[M, F]``.
        mean: ``[F]`` weight that is assumed, in sd of experts.
        sd: ``[F]`` of that.
        group: ``[F]`` features of a group share their sd, which results then change.
        own: ``[F']`` places of features whose weights may differ by protocol.
    """

    values: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    group: np.ndarray
    own: np.ndarray

    @cached_property
    def own_values(self) -> np.ndarray:
        """``[M, F']``."""
        return np.asarray(self.values[:, self.own])


_NUMBERS = (  # mean and sd of the weight
    ("params", 0.3, 0.2),
    ("flops", 0.45, 0.2),
    ("side", 0.2, 0.15),
    ("images", 0.25, 0.15),
    ("imagenet accuracy", 0.27, 0.2),
    ("broad", 0.6, 0.3),
    ("toy", -0.7, 0.7),
    ("untrained", -1.2, 0.6),
)
IMAGENET_ACCURACY = [name for name, _, _ in _NUMBERS].index("imagenet accuracy")
_CATEGORIES = (("family", 0.35), ("architecture", 0.3), ("training", 0.35), ("source", 0.35))
_BUMP_SD = 0.25
MIN_WORDS = {"family": 2, "architecture": 4, "source": 2}
"""Fewer experts of a word are told apart by their own results."""


def make_features(experts: Sequence[ExpertFacts]) -> Features:
    """Numbers, bumps over size, and an indicator of every family, architecture, training and source.

    What is not known of an expert is taken as usual: a flat 0, the size of its family, or as large networks of
    its size are.
    """
    experts = _sized(experts)
    blocks = [np.array([_numbers(expert) for expert in experts]).reshape(len(experts), len(_NUMBERS))]
    mean = [value for _, value, _ in _NUMBERS]
    sd = [value for _, _, value in _NUMBERS]
    group = list(range(len(_NUMBERS)))
    sizes = np.array([math.log10(e.num_params) if e.num_params else np.nan for e in experts])
    bumps = np.exp(-0.5 * ((sizes[:, None] - np.array(SIZE_BUMPS)) / BUMP_WIDTH) ** 2)
    blocks.append(np.where(np.isfinite(bumps), bumps, 0.0))
    mean += [0.0] * len(SIZE_BUMPS)
    sd += [_BUMP_SD] * len(SIZE_BUMPS)
    group += [len(_NUMBERS)] * len(SIZE_BUMPS)
    own = list(range(len(_NUMBERS)))
    for number, (field, scale) in enumerate(_CATEGORIES):
        words = [getattr(expert, field) for expert in experts]
        counts = Counter(words)
        least = MIN_WORDS.get(field, 1)
        kept = sorted(word for word, count in counts.items() if word and count >= least)
        if field == "training":
            own += range(len(mean), len(mean) + len(kept))
        blocks.append(
            np.array([[float(word == other) for other in kept] for word in words]).reshape(len(words), -1)
        )
        mean += [0.0] * len(kept)
        sd += [scale] * len(kept)
        group += [len(_NUMBERS) + 1 + number] * len(kept)
    return Features(np.hstack(blocks), np.array(mean), np.array(sd), np.array(group), np.array(own))


def _sized(experts: Sequence[ExpertFacts]) -> list[ExpertFacts]:
    """The same, those of unknown size as large as others of their family, and where these are few as any."""
    logs = {expert.name: math.log(expert.num_params) for expert in experts if expert.num_params}
    if not logs:
        return list(experts)
    usual = sum(logs.values()) / len(logs)
    families: dict[str, list[float]] = {}
    for expert in experts:
        if expert.name in logs and expert.family:
            families.setdefault(expert.family, []).append(logs[expert.name])
    sizes = {
        family: math.exp((sum(some) + SIZE_PSEUDO_EXPERTS * usual) / (len(some) + SIZE_PSEUDO_EXPERTS))
        for family, some in families.items()
    }
    return [
        expert if expert.num_params else replace(expert, num_params=sizes.get(expert.family, math.exp(usual)))
        for expert in experts
    ]


def _numbers(expert: ExpertFacts) -> list[float]:
    """The first features of one expert, in the order of ``_NUMBERS``."""
    size = math.log10(expert.num_params / REFERENCE_PARAMS) if expert.num_params else 0.0
    flops = math.log10(expert.flops / REFERENCE_FLOPS) if expert.flops else size
    side = math.log2(expert.input_size / REFERENCE_SIDE) if expert.input_size else 0.0
    images = math.log10(expert.source_images / DATASETS["imagenet1k"]) if expert.source_images else 0.0
    accuracy = 0.0
    if expert.imagenet_accuracy is not None:
        usual = REFERENCE_ACCURACY + ACCURACY_BY_SIZE * size
        accuracy = (expert.imagenet_accuracy - usual) / ACCURACY_SPREAD
    return [
        size,
        flops,
        side,
        min(max(images, IMAGES_RANGE[0]), IMAGES_RANGE[1]),
        min(max(accuracy, -3.0), 3.0),
        float(expert.source in BROAD),
        float(expert.toy),
        float(expert.training == "none"),
    ]
