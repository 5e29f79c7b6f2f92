"""Datasets as the embedding needs them: a class-balanced sample, decoded, checked and fingerprinted.

What a dataset may be is said in ``indexer.listings``. Only the sampled files are read, so a folder of a million
images costs little more than one of a thousand.

Axes: N samples of the dataset, n samples drawn, C classes.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from indexer.errors import SettingsError, TooFewSamplesError, UnreadableFilesError
from indexer.images import UnreadableImageError, decode_image, fit_image
from indexer.listings import Dataset, open_dataset
from indexer.records import DatasetDescription, InputTransform

__all__ = ["Dataset", "Sample", "load_sample", "open_dataset", "sample_balanced"]

NUM_NAMED = 5  # unreadable files named in descriptions and messages


@dataclass(frozen=True, eq=False)
class Sample:
    """The drawn and decoded samples of a dataset, in order of name.

    Attributes:
        images: ``[n, 3, crop, crop]`` uint8, RGB.
        labels: ``[n]`` int64, indices into ``description.class_names``; at least two of each class.
        description: What is known of the whole dataset.
    """

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    description: DatasetDescription


def load_sample(
    spec: str,
    transform: InputTransform,
    *,
    max_samples: int,
    seed: int,
    split: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """Draw a class-balanced sample of a dataset and decode it.

    Unreadable files among the sampled are skipped and counted. The result depends on the arguments and the
    data only: not on the folder's place, nor on the number of threads.

    Args:
        spec: A data spec, see ``indexer.listings``.
        transform: How an image becomes an input; mean and standard deviation are not applied here.
        max_samples: Most samples drawn, at least 2 per class.
        seed: Of the draw, not negative.
        split: As of ``open_dataset``.
        threads: That decode; ``None`` for one per processor, at most 8.
        progress: Called as ``progress(done, total)`` after each sample, from the calling thread.

    Returns:
        The decoded sample with at least two classes and at least two samples of each.

    Raises:
        DataSpecError: If the spec names nothing of a supported kind.
        DataError: If the data is there but is not laid out as its kind asks, or has no such split.
        TooFewSamplesError: If there are fewer than two classes, or a class has fewer than two samples.
        UnreadableFilesError: If more than a tenth of the sampled files cannot be decoded.
        SettingsError: If a number is out of its range.
    """
    _check_settings(transform, max_samples, seed, threads)
    dataset = open_dataset(spec, split=split)
    _check_classes(dataset, dataset.labels, "sample")
    _check_max_samples(dataset, max_samples)
    chosen = sample_balanced(dataset.labels, max_samples, seed)
    images, readable, digests = _decode(dataset, chosen, transform, threads, progress)
    skipped = [dataset.names[index] for index in chosen[~readable]]
    _check_skipped(spec, skipped, len(chosen))
    labels = dataset.labels[chosen[readable]]
    _check_classes(dataset, labels, "readable sample")
    description = DatasetDescription(
        spec=spec,
        num_samples=len(dataset.labels),
        class_names=dataset.class_names,
        fingerprint=_fingerprint(dataset, digests),
        num_skipped=len(skipped),
        skipped_files=tuple(skipped[:NUM_NAMED]),
    )
    return Sample(images[readable] if skipped else images, labels, description)


def sample_balanced(labels: np.ndarray, max_samples: int, seed: int) -> np.ndarray:
    """Draw samples without replacement, as evenly over the classes as their sizes allow.

    Small classes are used up and the others share what is left: two classes that are both not used up differ
    by at most one.

    Args:
        labels: ``[N]`` integers.
        max_samples: Most samples drawn.
        seed: Not negative.

    Returns:
        ``[min(N, max_samples)]`` int64, indices into ``labels``, ascending.
    """
    if max_samples >= len(labels):
        return np.arange(len(labels))
    _, available = np.unique(labels, return_counts=True)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(available)[:-1])
    generator = np.random.default_rng(seed)
    left, chosen = max_samples, []
    # Smallest class first: what it cannot use of its equal share raises the share of those that follow.
    for rank, label in enumerate(np.argsort(available, kind="stable")):
        count = min(int(available[label]), left // (len(available) - rank))
        chosen.append(generator.choice(members[label], count, replace=False))
        left -= count
    return np.sort(np.concatenate(chosen))


def _check_settings(transform: InputTransform, max_samples: int, seed: int, threads: int | None) -> None:
    for name, value, low in (
        ("max_samples", max_samples, 2),
        ("seed", seed, 0),
        ("threads", threads, 1),
        ("crop of the input transform", transform.crop, 1),
    ):
        if value is not None and value < low:
            raise SettingsError(f"{name} must be at least {low}, got {value}")
    if transform.resize < transform.crop:
        raise SettingsError(
            f"resize of the input transform must be at least its crop, got resize {transform.resize} "
            f"and crop {transform.crop}"
        )


def _check_classes(dataset: Dataset, labels: np.ndarray, what: str) -> None:
    if len(dataset.class_names) < 2:
        raise TooFewSamplesError(
            dataset.spec, f"has only the class {dataset.class_names[0]!r}; a task needs at least two classes"
        )
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    poorest = int(np.argmin(counts))
    if counts[poorest] < 2:
        raise TooFewSamplesError(
            dataset.spec,
            f"class {dataset.class_names[poorest]!r} has {'one' if counts[poorest] else 'no'} {what}; "
            "every class needs at least two",
        )


def _check_max_samples(dataset: Dataset, max_samples: int) -> None:
    num_classes = len(dataset.class_names)
    if max_samples < 2 * num_classes:
        raise SettingsError(
            f"max_samples must be at least 2 per class, {2 * num_classes} for the {num_classes} classes of "
            f"{dataset.spec}, got {max_samples}"
        )


def _check_skipped(spec: str, skipped: list[str], num_sampled: int) -> None:
    if 10 * len(skipped) > num_sampled:
        named = ", ".join(skipped[:NUM_NAMED]) + (", ..." if len(skipped) > NUM_NAMED else "")
        raise UnreadableFilesError(
            spec,
            f"{len(skipped)} of {num_sampled} sampled files cannot be decoded, more than a tenth: {named}; "
            "repair or remove them",
        )


def _decode(
    dataset: Dataset,
    chosen: np.ndarray,
    transform: InputTransform,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """Images ``[n, 3, crop, crop]``, which of them are readable ``[n]`` bool, and a digest of each file."""
    images = np.zeros((len(chosen), 3, transform.crop, transform.crop), np.uint8)

    def decode_one(position: int) -> tuple[bool, bytes]:
        try:
            raw = dataset.read(int(chosen[position]))
        except OSError:
            return False, b""
        try:
            images[position] = fit_image(decode_image(raw), transform)
        except UnreadableImageError:
            return False, _digest(raw)
        return True, _digest(raw)

    outcomes: list[tuple[bool, bytes]] = []
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        # Pillow warns of oddities in files that it reads all the same.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for outcome in pool.map(decode_one, range(len(chosen))):
            outcomes.append(outcome)
            if progress:
                progress(len(outcomes), len(chosen))
    return images, np.array([readable for readable, _ in outcomes]), [digest for _, digest in outcomes]


def _digest(raw: bytes | np.ndarray) -> bytes:
    content = raw if isinstance(raw, bytes) else repr(raw.shape).encode() + raw.tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def _fingerprint(dataset: Dataset, digests: Iterable[bytes]) -> str:
    """Hash of every sample's name, size and class, and of the content of the sampled ones."""
    total = hashlib.blake2b(digest_size=16)
    for name, size, label in zip(dataset.names, dataset.sizes, dataset.labels, strict=True):
        total.update(f"{name}\0{size}\0{dataset.class_names[label]}\n".encode())
    for digest in digests:
        total.update(digest)
    return total.hexdigest()
