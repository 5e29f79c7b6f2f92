"""What the answers are judged on, as it lies in files: starter content, real experts, published tables.

Axes: T tasks, M experts.
"""

import csv
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from registry.distances import cosine_distances, pairwise
from registry.recommend.facts import ExpertFacts, facts_of
from registry.recommend.levels import TaskFacts
from registry.snapshots.view import FISHER_DESCRIPTORS

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("T2V_SHARED", ROOT.parent / "shared"))
STARTER = ROOT / "registry" / "builtin"
BENCHMARK = ROOT / "scripts" / "bench" / "data"
WAY = ("accuracy", "linear_probe_20shot")
SHIPPED = (
    "medmnist_plus",
    "timm_imagenet_variants",
    "vtab",
    "open_clip_zero_shot",
    "clip_linear_probe",
    "mteb_image",
    "model_spider",
)
"""Published tables of images whose licence lets them ship."""

FAMILIES = (
    {"omniglot_balinese", "omniglot_korean", "omniglot_latin", "hiragana"},
    {"pacs_art", "pacs_photo", "pacs_sketch"},
    {"mnist", "thai_digits"},
    {"fer2013", "ck_expressions", "face_masks"},
    {"asl_letters", "sign_digits"},
    {"caltech101", "cats_dogs", "cifar10", "natural_images"},
    {"magnetic_tile", "neu_defects"},
    {"brain_tumor", "breast_ultrasound"},
)
"""Image sets that show the same things; any other is a family of its own."""
SAME_QUESTION = {
    "pacs_objects": {"pacs_art", "pacs_photo", "pacs_sketch"},
    "digits_values": {"mnist", "thai_digits", "sign_digits"},
}
"""Tasks that hold the samples of others with the same labels: they are left out together."""


@dataclass(frozen=True)
class Expert:
    """What facts are read from, as an ``ExpertRecord`` has it."""

    name: str
    source_task: str = ""
    num_params: float | None = None
    flops: float | None = None
    input_size: float | None = None
    source_accuracy: float | None = None
    source_dataset: str = ""
    architecture: str = ""
    toy: bool = False


@dataclass(frozen=True)
class Measured:
    """One result."""

    task: str
    expert: str
    accuracy: float
    metric: str = WAY[0]
    protocol: str = WAY[1]
    seed: int | None = None
    table: str = ""


@dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks that have embeddings.

    Attributes:
        names: T of them.
        facts: By name.
        distances: ``[T, T]`` by descriptor.
        images: Image sets that a task shows.
    """

    names: list[str]
    facts: dict[str, TaskFacts]
    distances: dict[str, np.ndarray]
    images: dict[str, set[str]] = field(default_factory=dict)

    def among(self, rows: Iterable[str], columns: Iterable[str]) -> dict[str, np.ndarray]:
        """Distances from some tasks to others, by descriptor; NaN where there is no embedding."""
        place = {name: number for number, name in enumerate(self.names)}
        first = np.array([place.get(name, -1) for name in rows], dtype=np.intp)
        second = np.array([place.get(name, -1) for name in columns], dtype=np.intp)
        return {
            name: np.pad(values, ((0, 1), (0, 1)), constant_values=np.nan)[np.ix_(first, second)]
            for name, values in self.distances.items()
        }

    def without_task(self, task: str) -> set[str]:
        """The task and those that ask the same of its images."""
        names = {task, *SAME_QUESTION.get(task, ())}
        return names | {name for name, parts in SAME_QUESTION.items() if task in parts}

    def without_family(self, task: str) -> set[str]:
        """Tasks that share images, or what these show, with the task."""
        family = _family(self.images[task])
        return {name for name in self.names if family & _family(self.images[name])}


def _family(images: set[str]) -> set[str]:
    return images.union(*(family for family in FAMILIES if family & images))


def read_starter(
    folder: Path = STARTER, *, toys: bool = True
) -> tuple[Tasks, list[ExpertFacts], list[Measured]]:
    """Starter content, or a benchmark of its form."""
    with (folder / "starter.json").open(encoding="utf-8") as file:
        content = json.load(file)
    with np.load(folder / "embeddings.npz", allow_pickle=False) as arrays:
        fisher, domain = arrays["fisher"], arrays["domain"]
    heads = {row["task"]: row["head_accuracy"] for row in content["embeddings"]}
    order = [row["task"] for row in content["embeddings"]]
    tasks = {row["name"]: row for row in content["tasks"]}
    facts = {
        name: TaskFacts(heads[name], tasks[name]["num_classes"], tasks[name]["num_samples"]) for name in order
    }
    images = {
        name: {tag.removeprefix("images.") for tag in tasks[name]["tags"] if tag.startswith("images.")}
        or {name}
        for name in order
    }
    distances = {
        "domain": cosine_distances(domain, domain),
        **{name: pairwise(name, fisher, fisher) for name in FISHER_DESCRIPTORS},
    }
    experts = [
        replace(_expert(row), toy=toys)
        for row in content["experts"]
        if "removed_at" not in row or not row["removed_at"]
    ]
    sizes = {name: fact.num_samples or 0 for name, fact in facts.items()}
    return (
        Tasks(order, facts, distances, images),
        [facts_of(expert, sizes) for expert in experts],
        read_results(folder / "results.csv"),
    )


def _expert(row: dict[str, str]) -> Expert:
    names = ("num_params", "flops", "input_size", "source_accuracy")
    numbers = {name: float(row[name]) if row.get(name) else None for name in names}
    return Expert(row.get("name") or row["expert"], row.get("source_task", ""), **numbers)


def read_results(path: Path) -> list[Measured]:
    """Results of a CSV, with the metric and protocol of our own where a row has none."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Measured(
                row["task"],
                row["expert"],
                float(row["accuracy"]),
                row.get("metric") or WAY[0],
                row.get("protocol") or WAY[1],
                None,
                path.stem,
            )
            for row in csv.DictReader(file)
        ]


def read_real() -> tuple[list[ExpertFacts], list[Measured]]:
    """The real experts and their results."""
    with (SHARED / "real" / "experts.csv").open(newline="", encoding="utf-8") as file:
        experts = [facts_of(_expert(row)) for row in csv.DictReader(file)]
    return experts, read_results(SHARED / "real" / "results.csv")


def read_published(names: Iterable[str]) -> list[Measured]:
    """Results of published tables, tasks named by their table as those that ship are."""
    public = SHARED / "tables" / "public"
    return [
        replace(row, task=f"{name}.{row.task}")
        for name in names
        for row in read_results(public / f"{name}.csv")
    ]


def published_facts(names: Iterable[str]) -> list[ExpertFacts]:
    """What the tables themselves and names say of published experts."""
    public = SHARED / "tables" / "public"
    with (public / "mteb_experts.csv").open(newline="", encoding="utf-8") as file:
        sizes = {row["expert"]: float(row["num_params"]) for row in csv.DictReader(file) if row["num_params"]}
    with (SHARED / "tables" / "transfergraph_experts.csv").open(newline="", encoding="utf-8") as file:
        graph = {row["expert"]: row for row in csv.DictReader(file)}
    variants = read_results(public / "timm_imagenet_variants.csv")
    imagenet = {row.expert: row.accuracy for row in variants if row.task == "imagenet1k"}
    return [facts_of(_published(name, sizes, graph, imagenet)) for name in names]


def _published(
    name: str, sizes: dict[str, float], graph: dict[str, dict[str, str]], imagenet: dict[str, float]
) -> Expert:
    if name in graph:
        row = graph[name]
        return replace(
            _expert(row),
            source_dataset=row["source_dataset"],
            architecture=re.sub(r"[\[\]']", "", row["architecture"]),
        )
    if name in TORCHVISION:
        size, flops, accuracy, side = TORCHVISION[name]
        return Expert(name, "imagenet1k", size, flops, side, accuracy)
    return Expert(name, num_params=sizes.get(name), source_accuracy=imagenet.get(name))


TORCHVISION = {
    "alexnet.IMAGENET1K_V1": (6.11e7, 0.714e9, 0.565, 224),
    "densenet121.IMAGENET1K_V1": (7.98e6, 2.834e9, 0.744, 224),
    "densenet169.IMAGENET1K_V1": (1.415e7, 3.36e9, 0.756, 224),
    "densenet201.IMAGENET1K_V1": (2.001e7, 4.291e9, 0.769, 224),
    "googlenet.IMAGENET1K_V1": (6.62e6, 1.498e9, 0.698, 224),
    "inception_v3.IMAGENET1K_V1": (2.716e7, 5.713e9, 0.773, 299),
    "mnasnet1_0.IMAGENET1K_V1": (4.38e6, 0.314e9, 0.735, 224),
    "mobilenet_v2.IMAGENET1K_V1": (3.50e6, 0.301e9, 0.719, 224),
    "resnet34.IMAGENET1K_V1": (2.18e7, 3.664e9, 0.733, 224),
    "resnet50.IMAGENET1K_V1": (2.556e7, 4.089e9, 0.761, 224),
    "resnet101.IMAGENET1K_V1": (4.455e7, 7.801e9, 0.774, 224),
    "resnet152.IMAGENET1K_V1": (6.019e7, 11.514e9, 0.783, 224),
}
"""Parameters, multiply-adds, ImageNet's top-1 and side, as torchvision publishes them."""


def open_clip_name(name: str) -> str:
    """What open_clip calls the weights of a Hugging Face id, as far as both are in the tables; or nothing."""
    laion = re.fullmatch(r"laion/CLIP-(ViT-[A-Za-z]+-\d+)-(laion2B|DataComp\.XL)-(s\d+B)-(b\d+K)", name)
    if laion:
        data = laion[2].lower().replace(".", "_")
        return f"open_clip:{laion[1]}/{data}_{laion[3].lower()}_{laion[4].lower()}"
    openai = re.fullmatch(r"openai/clip-vit-(base|large)-patch(\d+)", name)
    if openai:
        return f"open_clip:ViT-{openai[1][0].upper()}-{openai[2]}/openai"
    siglip = re.fullmatch(r"google/siglip-(base|large|so400m)-patch(\d+)-(\d+)(-multilingual)?", name)
    if siglip:
        size = {"base": "B", "large": "L", "so400m": "SO400M"}[siglip[1]]
        side = "" if siglip[3] == "224" else f"-{siglip[3]}"
        return f"open_clip:ViT-{size}-{siglip[2]}-SigLIP{'-i18n' if siglip[4] else ''}{side}/webli"
    return EVA_NAMES.get(name, "")


EVA_NAMES = {
    "QuanSun/EVA02-CLIP-B-16": "open_clip:EVA02-B-16/merged2b_s8b_b131k",
    "QuanSun/EVA02-CLIP-L-14": "open_clip:EVA02-L-14/merged2b_s4b_b131k",
    "QuanSun/EVA02-CLIP-bigE-14": "open_clip:EVA02-E-14/laion2b_s4b_b115k",
    "QuanSun/EVA02-CLIP-bigE-14-plus": "open_clip:EVA02-E-14-plus/laion2b_s9b_b144k",
}
