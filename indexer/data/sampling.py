"""Counting, fingerprinting and drawing from a listing as it streams by.

Nothing here holds a listing: memory grows with the number of classes and of the samples drawn, and results do
not depend on the order of the listing.

Axes: N samples of the dataset, C classes or labels.
"""

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.data.listings import Dataset, Entry

_DIGEST_SIZE = 16
_MODULUS = 2 ** (8 * _DIGEST_SIZE)


@dataclass(frozen=True)
class Survey:
    """What one pass over a listing tells.

    Attributes:
        num_samples: N.
        sizes: C numbers of the samples that have each class or label; none for a regression.
        listing_hash: Sum modulo ``2**128`` of the blake2b of each sample's name, size and labels, so that equal
            listings hash equally in whatever order they are met. It finds changes; it is no proof against
            listings made to collide.
    """

    num_samples: int
    sizes: tuple[int, ...]
    listing_hash: int


def survey(dataset: Dataset) -> Survey:
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


def draw(dataset: Dataset, found: Survey, max_samples: int, seed: int) -> list[Entry]:
    """Draw samples without replacement, as evenly over the classes as their sizes allow.

    A sample of a multi-label task counts to its rarest label, or to a group of its own if it has none; a
    regression is one group. Of each group those samples are drawn whose hashed names are smallest, which is a
    uniform choice that needs no more memory than what is chosen.

    Args:
        dataset: The listing; gone over once, of a multi-label task twice.
        found: Its survey.
        max_samples: Most samples drawn.
        seed: Of the hash.

    Returns:
        ``min(N, max_samples)`` entries in the order of the dataset.
    """
    quotas = allocate(_group_sizes(dataset, found), max_samples)
    heaps: list[list[tuple[int, Entry]]] = [[] for _ in quotas]  # of each group, the largest hash on top
    for entry in dataset.scan():
        group = _group(entry, found)
        heap, item = heaps[group], (-_hash(f"{seed}\0{entry.name}"), entry)
        if len(heap) < quotas[group]:
            heapq.heappush(heap, item)
        elif heap and item > heap[0]:
            heapq.heapreplace(heap, item)
    return sorted((entry for heap in heaps for _, entry in heap), key=dataset.order)


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


def _group_sizes(dataset: Dataset, found: Survey) -> list[int]:
    if dataset.kind == "single_label":
        return list(found.sizes)
    sizes = [0] * (len(found.sizes) + 1)
    if dataset.kind == "regression":
        sizes[-1] = found.num_samples
    else:
        for entry in dataset.scan():
            sizes[_group(entry, found)] += 1
    return sizes


def _group(entry: Entry, found: Survey) -> int:
    """The rarest of its labels; the number of labels if it has none."""
    return min(entry.labels, key=lambda label: (found.sizes[label], label), default=len(found.sizes))


def _hash(text: str) -> int:
    # Names may hold bytes that are no Unicode, as surrogates.
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST_SIZE)
    return int.from_bytes(digest.digest(), "big")
