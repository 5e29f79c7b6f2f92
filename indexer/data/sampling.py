"""Counting, fingerprinting and drawing from a listing as it streams by; what makes a task of the labels drawn.

And the contact sheet, a small picture of some of the samples that were drawn.

Nothing here holds a listing: memory grows with the number of classes and of the samples drawn, and results do
not depend on the order of the listing.

Axes: N samples of the dataset, n samples drawn, C classes or labels, T targets.
"""

import hashlib
import heapq
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from indexer.data.listings import Entry, Listing, system_errors
from indexer.errors import DataError, SettingsError, TooFewSamplesError
from indexer.records import ContactSheet, DatasetDescription

NUM_NAMED = 5
"""Unreadable files, and faults of them, that are named in descriptions and messages."""

TILE = 64  # pixels
MOST_COLUMNS, MOST_ROWS, MOST_TILES = 12, 5, 48
MOST_BYTES = 80_000
QUALITIES = (75, 50, 25, 5)
"""Tried in this order, until a sheet has at most ``MOST_BYTES``."""

_DIGEST_SIZE = 16
_MODULUS = 2 ** (8 * _DIGEST_SIZE)


@dataclass(frozen=True)
class Survey:
    """What one pass over a listing counts.

    Attributes:
        listing_hash: Sum modulo ``2**128`` of the blake2b of each sample's name, size and labels, so that equal
            listings hash equally in whatever order they are met. It finds changes; it is no proof against
            listings made to collide.
    """

    num_samples: int  # N
    sizes: tuple[int, ...]  # C numbers of the samples that have each class or label; none for a regression
    listing_hash: int


def survey(dataset: Listing) -> Survey:
    """Count and hash a listing in one pass."""
    num_samples, total = 0, 0
    sizes = [0] * (0 if dataset.kind == "regression" else len(dataset.class_names))
    for entry in dataset.scan():
        num_samples += 1
        for label in entry.labels:
            sizes[label] += 1
        named = [dataset.class_names[label] for label in entry.labels] or [repr(x) for x in entry.targets]
        total += _hash(f"{entry.name}\0{dataset.size(entry)}\0{'|'.join(named)}\n")
    return Survey(num_samples, tuple(sizes), total % _MODULUS)


def draw(dataset: Listing, counted: Survey, max_samples: int, seed: int) -> list[Entry]:
    """Draw samples without replacement, as evenly over the classes as their sizes allow.

    A sample of a multi-label task counts to its rarest label, or to a group of its own if it has none; a
    regression is one group. Of each group those samples are drawn whose hashed names are smallest, which is a
    uniform choice that needs no more memory than what is chosen.

    Returns:
        ``min(N, max_samples)`` entries in the order of the dataset.
    """
    quotas = allocate(_group_sizes(dataset, counted), max_samples)
    heaps: list[list[tuple[int, Entry]]] = [[] for _ in quotas]  # of each group, the largest hash on top
    for entry in dataset.scan():
        group = _group(entry, counted)
        heap, item = heaps[group], (-_hash(f"{seed}\0{entry.name}"), entry)
        if len(heap) < quotas[group]:
            heapq.heappush(heap, item)
        elif heap and item > heap[0]:
            heapq.heapreplace(heap, item)
    return sorted((entry for heap in heaps for _, entry in heap), key=dataset.order)


def draw_checked(dataset: Listing, counted: Survey, max_samples: int, seed: int) -> list[Entry]:
    """Draw as ``draw`` does, from a listing of which a head could be learned."""
    with system_errors(dataset.spec):
        check_sizes(dataset, counted.sizes, counted.num_samples, "sample")
        check_max_samples(dataset, max_samples)
        return draw(dataset, counted, max_samples, seed)


def allocate(available: Sequence[int], max_samples: int) -> list[int]:
    """How many samples each group gives.

    Small groups are used up and the others share what is left: two groups that are both not used up differ by
    at most one.
    """
    counts = [0] * len(available)
    left = max_samples
    # Smallest group first: what it cannot use of its equal share raises the share of those that follow.
    for rank, group in enumerate(sorted(range(len(available)), key=available.__getitem__)):
        counts[group] = min(available[group], left // (len(available) - rank))
        left -= counts[group]
    return counts


def _group_sizes(dataset: Listing, counted: Survey) -> list[int]:
    if dataset.kind == "single_label":
        return list(counted.sizes)
    sizes = [0] * (len(counted.sizes) + 1)
    if dataset.kind == "regression":
        sizes[-1] = counted.num_samples
    else:
        for entry in dataset.scan():
            sizes[_group(entry, counted)] += 1
    return sizes


def _group(entry: Entry, counted: Survey) -> int:
    """The rarest of its labels; the number of labels if it has none."""
    return min(entry.labels, key=lambda label: (counted.sizes[label], label), default=len(counted.sizes))


def _hash(text: str) -> int:
    # Names may hold bytes that are no Unicode, as surrogates.
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST_SIZE)
    return int.from_bytes(digest.digest(), "big")


def label_array(dataset: Listing, entries: Sequence[Entry]) -> np.ndarray:
    """Labels of entries by kind: ``[n]`` int64, ``[n, C]`` uint8 of 0 and 1, or ``[n, T]`` float64."""
    if dataset.kind == "single_label":
        return np.array([entry.labels[0] for entry in entries], np.int64)
    if dataset.kind == "regression":
        return np.array([entry.targets for entry in entries], np.float64)
    labels = np.zeros((len(entries), len(dataset.class_names)), np.uint8)
    for row, entry in enumerate(entries):
        labels[row, list(entry.labels)] = 1
    return labels


def check_labels(dataset: Listing, labels: np.ndarray, what: str) -> None:
    """Refuse labels from which no head could be learned.

    Raises:
        TooFewSamplesError: If there are not two samples of each class; with and without each label; or at all.
        DataError: If a target of a regression is the same in all samples.
    """
    if dataset.kind == "regression":
        _check_targets(dataset, labels, what)
        return
    if dataset.kind == "single_label":
        sizes = np.bincount(labels, minlength=len(dataset.class_names))
    else:
        sizes = labels.sum(axis=0, dtype=np.int64)
    check_sizes(dataset, sizes.tolist(), len(labels), what)


def check_sizes(dataset: Listing, sizes: Sequence[int], num_samples: int, what: str) -> None:
    """The part of ``check_labels`` that needs only the number of samples of each class or label.

    Raises:
        TooFewSamplesError: If there are not two samples of each class, or with and without each label.
    """
    names = dataset.class_names
    if dataset.kind == "regression":
        return
    one, several = ("class", "classes") if dataset.kind == "single_label" else ("label", "labels")
    if len(names) < 2:
        only = f"has only the {one} {names[0]!r}" if names else f"has no {several}"
        how = ", which folders around samples name, or a table beside them" * (dataset.kind == "single_label")
        raise TooFewSamplesError(dataset.spec, f"{only}; a task needs at least two {several}{how}")
    poorest = min(range(len(names)), key=sizes.__getitem__)
    if dataset.kind == "single_label":
        if sizes[poorest] < 2:
            raise TooFewSamplesError(
                dataset.spec,
                f"class {names[poorest]!r} has {_count(sizes[poorest])} {what}; every class needs at least two",
            )
        return
    richest = max(range(len(names)), key=sizes.__getitem__)
    for label, number, verb in (
        (poorest, sizes[poorest], "is on"),
        (richest, num_samples - sizes[richest], "is missing on"),
    ):
        if number < 2:
            raise TooFewSamplesError(
                dataset.spec,
                f"label {names[label]!r} {verb} {_count(number)} {what}; every label needs at least two that "
                "have it and two that have not: merge or remove it, or raise max_samples",
            )


def check_max_samples(dataset: Listing, max_samples: int) -> None:
    """Refuse, by a ``SettingsError``, a sample that could not hold two of each class or label."""
    num_classes = len(dataset.class_names)
    if dataset.kind != "regression" and max_samples < 2 * num_classes:
        one, several = ("class", "classes") if dataset.kind == "single_label" else ("label", "labels")
        raise SettingsError(
            f"max_samples must be at least 2 per {one}, {2 * num_classes} for the {num_classes} {several} of "
            f"{dataset.spec}, got {max_samples}"
        )


def _check_targets(dataset: Listing, targets: np.ndarray, what: str) -> None:
    if len(targets) < 2:
        raise TooFewSamplesError(
            dataset.spec, f"has {_count(len(targets))} {what}; a regression needs at least two"
        )
    constant = (targets == targets[0]).all(axis=0)
    if constant.any():
        index = int(np.argmax(constant))
        raise DataError(
            dataset.spec,
            f"{dataset.class_names[index]!r} is {targets[0, index]:g} in every {what}; there is nothing to "
            "learn, so leave it out",
        )


def _count(number: int) -> str:
    return "one" if number == 1 else "no"


def counted_faults(names: Sequence[str], faults: Sequence[str]) -> str:
    """An example of each fault and how many more have it, the most frequent fault first."""
    examples = dict(reversed(list(zip(faults, names, strict=True))))
    told = [
        f"{examples[fault]}{f' and {count - 1} more' if count > 1 else ''} ({fault})"
        for fault, count in Counter(faults).most_common(NUM_NAMED)
    ]
    return ", ".join(told) + (", ..." if len(examples) > NUM_NAMED else "")


def count_alike(dataset: Listing, digests: Sequence[bytes]) -> int:
    """Most drawn samples that are the same, byte for byte; ``DataError`` if all are."""
    num_alike = max(Counter(digests).values())
    if num_alike == len(digests):
        raise DataError(
            dataset.spec,
            f"all {num_alike} sampled {dataset.content} are the same, byte for byte; there is nothing to learn "
            "from them",
        )
    return num_alike


def digest_of(raw: bytes | np.ndarray) -> bytes:
    """Hash of the bytes of a file, or of pixels with their type and shape."""
    content = raw if isinstance(raw, bytes) else f"{raw.dtype.str}{raw.shape}".encode() + raw.tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def fingerprint_of(dataset: Listing, counted: Survey, digests: Sequence[bytes]) -> str:
    """Hash of every sample's name, size and labels, and of the content of the sampled ones."""
    total = hashlib.blake2b(digest_size=16)
    total.update(f"{dataset.kind}\0{counted.num_samples}\0{counted.listing_hash:x}\n".encode())
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def contact_sheet(
    dataset: DatasetDescription, labels: np.ndarray, seed: int, pixels: Callable[[Sequence[int]], np.ndarray]
) -> ContactSheet | None:
    """A few samples of each of some classes or labels, or of ranges of the first target, as a small picture.

    It is made of pixels as the network sees them: upright, cropped and small. So nothing that a file says
    beside its pixels, such as where a photo was taken, gets into it.

    Args:
        dataset: What is known of the samples.
        labels: As in ``indexer.data.samples.Sample``.
        seed: What classes and samples are drawn with.
        pixels: Gives images ``[n, 3, H, W]`` uint8 of some of the N samples.

    Returns:
        The sheet; ``None`` of texts.
    """
    if dataset.content != "images":
        return None
    generator = np.random.default_rng(seed)
    columns = _sheet_columns(dataset, labels, generator)
    num_rows = min(MOST_ROWS, MOST_TILES // len(columns))
    chosen = [np.sort(generator.permutation(rows)[:num_rows]) for _, rows in columns]
    images = iter(pixels(np.concatenate(chosen).tolist()).transpose(0, 2, 3, 1))
    num_rows = max(map(len, chosen))
    sheet = Image.new("RGBA", (TILE * len(columns), TILE * num_rows))  # transparent where a class has fewer
    for column, rows in enumerate(chosen):
        for row, image in zip(range(len(rows)), images, strict=False):
            tile = Image.fromarray(np.ascontiguousarray(image)).resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (TILE * column, TILE * row))
    return ContactSheet(_encoded(sheet), tuple(name for name, _ in columns), num_rows, seed)


def _sheet_columns(
    dataset: DatasetDescription, labels: np.ndarray, generator: np.random.Generator
) -> list[tuple[str, np.ndarray]]:
    """What each column shows, and its samples."""
    names = dataset.class_names
    if dataset.kind == "regression":
        parts = np.array_split(np.argsort(labels[:, 0], kind="stable"), min(MOST_COLUMNS // 2, len(labels)))
        return [(f"{names[0]} {np.median(labels[part, 0]):.3g}", part) for part in parts]
    shown = np.sort(generator.permutation(len(names))[:MOST_COLUMNS]).tolist()
    of = labels.T if dataset.kind == "multi_label" else [labels == label for label in range(len(names))]
    return [(names[label], np.flatnonzero(of[label])) for label in shown]


def _encoded(sheet: Image.Image) -> bytes:
    """A picture as WebP, without metadata."""
    for quality in QUALITIES:
        out = io.BytesIO()
        sheet.save(out, "WEBP", quality=quality, method=2)
        if out.tell() <= MOST_BYTES:
            break
    return out.getvalue()
