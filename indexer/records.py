"""What the indexer takes and gives: frozen records of plain values and numpy arrays.

Axes: D filters of the probe, F features of the probe (inputs of the head).
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, ClassVar, Literal, Self

import numpy as np

from indexer.errors import SettingsError

DEFAULT_PROBE = "resnet14w32.tiny_imagenet"

MAX_SEED = 2**32 - 1
"""What the random generators of numpy, torch and scikit-learn all take."""

DEFAULT_MEMORY_BUDGET = 2**30
"""Bytes that a pass may take by default."""

MIN_MEMORY_BUDGET = 16 * 2**20
"""Below 16 MiB not even one small image could be embedded."""


Kind = Literal["single_label", "multi_label", "regression"]
"""What the labels of a task are: one class of C a sample; any subset of C labels; T numbers."""

HEAD_METRICS: dict[Kind, str] = {
    "single_label": "balanced accuracy",
    "multi_label": "mean average precision",
    "regression": "R²",
}
"""What ``TaskEmbedding.head_accuracy`` is, by kind of task."""

CHANNEL_RULES = ("auto", "mean", "tile")
"""Names of the ways to make RGB of other numbers of channels; indices such as ``3,2,1`` are a fourth."""


@dataclass(frozen=True)
class InputTransform:
    """How an image becomes an input: shorter side to ``resize`` pixels, centre ``crop``, normalise.

    Attributes:
        resize: Shorter side after bilinear antialiased resizing, in pixels.
        crop: Side of the centred square that the network sees, in pixels.
        mean: Per RGB channel, of values scaled to 0..1.
        std: Per RGB channel, of values scaled to 0..1.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


TextPooling = Literal["mean", "cls"]
"""How an encoder's last hidden states become one feature vector: their mean over the tokens, or the first."""


@dataclass(frozen=True)
class TextTransform:
    """How a text becomes an input: tokens, cut after the first ``max_tokens``, and how their states are pooled.

    Attributes:
        tokenizer: blake2b of all that the tokenizer does, hexadecimal.
        max_tokens: Most tokens that the network sees of a text, those that mark its ends included.
        pooling: How the last hidden states become the features.
    """

    tokenizer: str
    max_tokens: int
    pooling: TextPooling = "mean"


class PythonData(str):
    """A data spec that carries the data itself, an object of a Python program; as text it says what that is."""

    PREFIX = "python:"

    content: Any
    opener: Callable[[str, "Reading"], Any]

    def __new__(cls, content: Any, opener: Callable[[str, "Reading"], Any]) -> Self:
        """Name an object by its class and how many samples it seems to hold."""
        whole = getattr(content, "dataset", content) if hasattr(content, "batch_sampler") else content
        of = whole[0] if isinstance(whole, tuple) and len(whole) == 2 else whole
        size = f" of {len(of)}" if hasattr(of, "__len__") else ""
        self = super().__new__(cls, f"{cls.PREFIX}{type(content).__name__}{size}")
        self.content, self.opener = content, opener
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What it is made of again, in another process."""
        return self.content, self.opener


Transform = InputTransform | TextTransform
"""How a sample becomes an input of a network."""

Content = Literal["images", "texts"]
"""What the samples of a dataset are, and what a network takes."""


def content_of(transform: Transform) -> Content:
    """What a network with that transform takes."""
    return "texts" if isinstance(transform, TextTransform) else "images"


@dataclass(frozen=True)
class Space:
    """Everything that makes two embeddings comparable; ``space_id`` is a hash of exactly this.

    The seed and the number of samples are not part of it: both change the noise of an embedding, not
    what it estimates. They are stored with each embedding.

    Attributes:
        probe: Name ``architecture.weights``.
        weights_hash: blake2b of the probe's tensors, hexadecimal.
        estimator: Name in ``indexer.fisher.estimate.ESTIMATORS``.
        pooling: ``filter_mean`` (convolution and linear weights) or ``filter_mean+norm`` (affine weights
            of normalisation layers too).
        transform: The probe's input transform; of texts, with their pooling.
        head: Recipe of the head.
        sampling: Recipe of the sample.
    """

    probe: str
    weights_hash: str
    estimator: str
    pooling: str
    transform: Transform
    head: str
    sampling: str = "class_balanced"

    @property
    def space_id(self) -> str:
        """16 hexadecimal digits, the same on every machine."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a data spec leaves open of how its data is read; whether a layout has it, the reader says.

    Attributes:
        split: Which split of the dataset; ``None`` for its train split if it has splits, else all of it.
        class_level: Which of the folders around an image names its class: counted from the top as 1, 2, ...,
            or from the image as -1, -2, ...; ``None`` where the layout leaves no doubt.
        skip_bad: Whether class folders that hold no samples are left out, and rows that name no file.
        image_col: Column of a table, or array of a file of arrays, that holds the images.
        text_col: Column that holds the texts.
        label_col: Column that holds the classes; or, between commas, those that hold 0 or 1 for each label.
        target_col: The same of numbers that were measured, for a regression.
        split_col: Column that holds the split.
        image_root: Folder of the images that a table names, relative to it.
        image_suffix: What names of images end in, where a table leaves it out.
        delimiter: What stands between the cells of a text file.
        encoding: Encoding of a text file; ``None`` for UTF-8, or as the file says.
    """

    split: str | None = None
    class_level: int | None = None
    skip_bad: bool = False
    image_col: str | None = None
    text_col: str | None = None
    label_col: str | None = None
    target_col: str | None = None
    split_col: str | None = None
    image_root: str | None = None
    image_suffix: str | None = None
    delimiter: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges; ``SettingsError`` if the level is none."""
        if self.class_level == 0:
            raise SettingsError(
                "class_level must not be 0; 1 is the topmost folder around an image, -1 the one it lies in"
            )


@dataclass(frozen=True)
class EmbeddingSettings(Reading):
    """How to embed a dataset, and how to read it.

    Attributes:
        probe: ``architecture.weights``, or ``architecture@FILE`` for weights in a local file.
        estimator: Name in ``indexer.fisher.estimate.ESTIMATORS``.
        norm_weights: Whether affine weights of normalisation layers are embedded too.
        max_samples: Most samples used, at least 2.
        seed: What the sample, the held-out split and the label draws are drawn with; 32 bits.
        batch_size: Samples per pass; changes speed and memory, and results only by rounding.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        channels: How images become RGB: one of ``CHANNEL_RULES``, or three channel indices from 0 between
            commas, see ``indexer.data.images``.
        value_range: Values of images of more than 8 bits that stand for black and white; ``None`` for the
            range of their type.
        tolerance: Stop the Fisher pass once the median relative standard error over filters is below this,
            in (0, 1); ``None`` to use every sample.
        memory_budget: Bytes that activations and temporaries of a pass may take; lowers ``batch_size`` where
            it has to.
    """

    probe: str = DEFAULT_PROBE
    estimator: str = "signed"
    norm_weights: bool = False
    max_samples: int = 2000
    seed: int = 0
    batch_size: int = 64
    device: str = "auto"
    channels: str = "auto"
    value_range: tuple[float, float] | None = None
    tolerance: float | None = None
    memory_budget: int = DEFAULT_MEMORY_BUDGET

    def __post_init__(self) -> None:
        """Check the ranges; ``SettingsError`` if a number is out of its range."""
        super().__post_init__()
        limits = {"max_samples": 2, "batch_size": 1, "seed": 0, "memory_budget": MIN_MEMORY_BUDGET}
        for name, least in limits.items():
            if not isinstance(getattr(self, name), int | np.integer):
                raise SettingsError(f"{name} must be a whole number, got {getattr(self, name)!r}")
            if getattr(self, name) < least:
                raise SettingsError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise SettingsError(f"tolerance must be between 0 and 1, got {self.tolerance:g}")
        if self.value_range is not None and not (
            np.isfinite(self.value_range).all() and self.value_range[0] < self.value_range[1]
        ):
            low, high = self.value_range
            raise SettingsError(f"value_range must be two rising finite numbers, got {low:g} and {high:g}")
        if self.channels not in CHANNEL_RULES and not re.fullmatch(r"\d{1,3},\d{1,3},\d{1,3}", self.channels):
            raise SettingsError(
                f"channels must be {', '.join(CHANNEL_RULES)} or three indices such as 3,2,1, "
                f"got {self.channels!r}"
            )
        if self.seed > MAX_SEED:
            raise SettingsError(f"seed must be at most {MAX_SEED}, got {self.seed}")


@dataclass(frozen=True)
class DatasetDescription:
    """What is known of a dataset without its pixels.

    Attributes:
        spec: The data spec it was opened by.
        num_samples: Samples in the dataset, before sampling.
        class_names: Names of the C classes, in label order.
        fingerprint: blake2b over the names, sizes and labels of all samples in any order, and over the bytes of
            those that were drawn.
        num_skipped: Sampled files that could not be decoded.
        skipped_files: Names of the first few of them.
        skipped_why: What is wrong with them: an example of each fault, and how many more have it.
        num_alike: Most drawn samples that are the same, byte for byte.
        kind: What the labels are. Of a multi-label task the C classes are its labels, of a regression its T
            targets.
        class_sizes: Samples of the dataset that have each class or label; empty for a regression.
    """

    spec: str
    num_samples: int
    class_names: tuple[str, ...]
    fingerprint: str
    num_skipped: int = 0
    skipped_files: tuple[str, ...] = ()
    kind: Kind = "single_label"
    class_sizes: tuple[int, ...] = ()
    content: Content = "images"
    taken: tuple[str, ...] = ()
    passed_over: tuple[tuple[str, int], ...] = ()
    skipped_why: str = ""
    num_alike: int = 1

    @property
    def num_classes(self) -> int:
        """C, or T."""
        return len(self.class_names)


@dataclass(frozen=True)
class ContactSheet:
    """A small picture of a few samples of a dataset, of which each column has its own class.

    Attributes:
        image: WebP without metadata, of square tiles.
        columns: What each column of tiles shows, from the left.
        rows: How many tiles the longest columns have.
        seed: What the columns and the samples were drawn with.
    """

    image: bytes = field(repr=False)
    columns: tuple[str, ...]
    rows: int
    seed: int


@dataclass(frozen=True, eq=False)
class TaskEmbedding:
    """A dataset measured by a probe.

    Attributes:
        fisher: ``[D]`` float32, non-negative: mean over a filter's weights of the diagonal Fisher
            information, in squared nats per squared unit of weight, mean over samples.
        standard_error: ``[D]`` float32, non-negative: standard error of ``fisher`` over samples.
        domain: ``[F]`` float32: mean feature of the probe, label-free.
        num_samples_used: Samples that went into ``fisher``.
        head_accuracy: Score of a head on samples held out from it, at most 1, by ``HEAD_METRICS``; of a
            single-label task its class-balanced accuracy.
        head_loss: Negative log likelihood of the same, in nats, mean over labels or targets where a sample has
            several.
        seconds: Wall time of the embedding.
        fallbacks: Layers of the probe without a rule of their own, which took a slow exact route.
        sheet: A few samples as a picture; ``None`` of texts.
    """

    space: Space
    dataset: DatasetDescription
    settings: EmbeddingSettings
    fisher: np.ndarray = field(repr=False)
    standard_error: np.ndarray = field(repr=False)
    domain: np.ndarray = field(repr=False)
    num_samples_used: int
    head_accuracy: float
    head_loss: float
    seconds: float
    fallbacks: tuple[str, ...] = ()
    sheet: ContactSheet | None = None
    printer: ClassVar[Callable[[Any], str]] = repr
    """What ``print`` shows; set by whoever knows more than its fields."""

    def __str__(self) -> str:
        """As the printer has it."""
        return type(self).printer(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of a linear probe on an expert's features.

    Attributes:
        accuracy: Mean over draws of the class-balanced accuracy, 0 to 1.
        deviation: Standard deviation over draws.
        seed: What the sample and the draws are drawn with.
        standard_error: Of the accuracy, over samples of this size and over draws.
        num_train: Samples that a draw was fitted on, of all classes.
        num_held_out: Samples that a draw was scored on.
        weights_hash: Hash of the weights that were measured; empty where features were given.
    """

    accuracy: float
    deviation: float
    protocol: str
    seed: int
    standard_error: float
    num_train: int
    num_held_out: int
    weights_hash: str = ""
