"""What makes an embedding less sure than it looks: sentences, one for each fact."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from registry.records import EmbeddingRecord, Kind
from registry.wording import counted

SAMPLE_FLOOR = 100
"""Below this many samples an embedding is warned about."""

SAMPLES_PER_CLASS_FLOOR = 5
"""Below this many samples a class or label the head is warned about."""

IMBALANCE_FLOOR = 10
"""From this ratio of the largest class to the smallest on, imbalance is warned about."""

NUM_LAYERS_NAMED = 3

EXPECTED_REASONS = frozenset({"hidden", "mask", "split unlabelled"})
"""Why files are passed over of which a layout has many, see ``indexer.data.folders``."""


class Dataset(Protocol):
    """What is read here of ``indexer.records.DatasetDescription``, which says more."""

    @property
    def kind(self) -> Kind:
        """What the labels are."""

    @property
    def num_classes(self) -> int:
        """C, or T."""

    @property
    def num_samples(self) -> int:
        """Samples in the dataset."""

    @property
    def class_sizes(self) -> tuple[int, ...]:
        """Samples of each class or label; empty for a regression."""

    @property
    def passed_over(self) -> tuple[tuple[str, int], ...]:
        """Files that are no samples, by reason."""

    @property
    def num_skipped(self) -> int:
        """Drawn files that could not be decoded."""

    @property
    def skipped_why(self) -> str:
        """What is wrong with them."""

    @property
    def num_alike(self) -> int:
        """Most drawn samples that are the same."""


def embedding_warnings(
    embedding: EmbeddingRecord,
    dataset: Dataset,
    *,
    max_samples: int,
    tolerance: float | None = None,
    fallbacks: Sequence[str] = (),
) -> tuple[str, ...]:
    """Sentences on what makes an embedding less sure than it looks.

    Args:
        embedding: What came of it.
        dataset: What was embedded.
        max_samples: How many samples were asked for at most.
        tolerance: Relative error that was asked for.
        fallbacks: Layers of the probe without a rule of their own, as ``name (Class)``.
    """
    return (
        *_of_few_samples(embedding, dataset, max_samples),
        *_of_tolerance(embedding, dataset, max_samples, tolerance),
        *_of_imbalance(dataset),
        *_of_passed_over(dataset),
        *_of_skipped_files(dataset),
        *_of_copies(dataset, max_samples),
        *_of_fallbacks(fallbacks),
    )


def _of_few_samples(embedding: EmbeddingRecord, dataset: Dataset, max_samples: int) -> Iterator[str]:
    """The head learns from all samples that were drawn, also where a tolerance stopped the embedding before."""
    used = embedding.num_samples_used
    learned = min(dataset.num_samples, max_samples) - dataset.num_skipped
    if used < SAMPLE_FLOOR:
        yield f"only {used} samples; below {SAMPLE_FLOOR} an embedding is a rough guess"
    elif dataset.kind != "regression" and learned < SAMPLES_PER_CLASS_FLOOR * dataset.num_classes:
        many = "classes" if dataset.kind == "single_label" else "labels"
        yield f"only {learned} samples for {dataset.num_classes} {many}: the head is a rough guess"


def _of_tolerance(
    embedding: EmbeddingRecord, dataset: Dataset, max_samples: int, tolerance: float | None
) -> Iterator[str]:
    error = embedding.relative_error
    if tolerance is None or error < tolerance:
        return
    some_left = dataset.num_samples > max_samples
    why = f"max_samples is {max_samples}" if some_left else "there are no more samples"
    yield f"relative error {error:.3g} is above the tolerance {tolerance:g} asked for: {why}"


def _of_imbalance(dataset: Dataset) -> Iterator[str]:
    sizes = dataset.class_sizes
    if not sizes or max(sizes) < IMBALANCE_FLOOR * min(sizes):
        return
    one, many = ("class", "classes") if dataset.kind == "single_label" else ("label", "labels")
    yield (
        f"{one} sizes run from {min(sizes)} to {max(sizes)} samples: the sample is as even as they allow, and "
        f"{many} weigh the same in the head and in its score"
    )


def _of_passed_over(dataset: Dataset) -> Iterator[str]:
    counts = {reason: count for reason, count in dataset.passed_over if reason not in EXPECTED_REASONS}
    if 10 * (count := sum(counts.values())) > count + dataset.num_samples:
        yield f"more than a tenth of the files were passed over: {counted(counts)}"


def _of_skipped_files(dataset: Dataset) -> Iterator[str]:
    if count := dataset.num_skipped:
        counted = "1 unreadable file was" if count == 1 else f"{count} unreadable files were"
        yield f"{counted} skipped: {dataset.skipped_why}"


def _of_copies(dataset: Dataset, max_samples: int) -> Iterator[str]:
    drawn = min(dataset.num_samples, max_samples) - dataset.num_skipped
    if 2 * dataset.num_alike > drawn:
        yield f"{dataset.num_alike} of the {drawn} samples are the same, byte for byte: little can be learned"


def _of_fallbacks(fallbacks: Sequence[str]) -> Iterator[str]:
    if len(fallbacks) == 1:
        yield f"the probe's layer {fallbacks[0]} has no rule of its own and took a slow exact route"
    elif fallbacks:
        named = ", ".join(fallbacks[:NUM_LAYERS_NAMED])
        more = ", ..." if len(fallbacks) > NUM_LAYERS_NAMED else ""
        yield (
            f"{len(fallbacks)} layers of the probe have no rule of their own and took a slow exact route: "
            f"{named}{more}"
        )
