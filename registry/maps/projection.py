"""Positions in the plane from distances: t-SNE for many tasks, stress majorisation for a few.

Tasks lie in many dimensions, and most are about equally far from most others, so no plane shows all distances.
What a map must not do is draw tasks side by side that are not alike. docs/maps.md has the trustworthiness and
stress of the methods that were compared.

Axes: T tasks laid out, N tasks placed, K of the T that one of them is nearest to, S tasks measured.
"""

import numpy as np
from numpy.typing import NDArray

from registry.caching import one_thread

Array = NDArray[np.float64]

TSNE_FROM = 10
"""Fewer tasks than this are laid out by stress: t-SNE needs neighbours to choose from."""

PERPLEXITY = 20.0
PLACING_PERPLEXITY = 10.0
PLACING_NEIGHBORS = 30
EXAGGERATION = 4.0
EXACT_TSNE_BELOW = 500
NEIGHBORS = 10

_STEPS = 300
_PLACING_STEPS = 30


def method_of(num_tasks: int) -> str:
    """How so many tasks are laid out, in words."""
    return "t-SNE from a classical MDS start" if num_tasks >= TSNE_FROM else "metric MDS"


def lay_out(distances: Array, *, seed: int = 0) -> Array:
    """Positions of tasks, from all distances between them.

    The same distances and seed give the same positions on one machine: centred, turned so that the widest
    spread is along the first axis, with the outermost task of each axis on its positive side, and scaled to
    the unit of the distances, so that the sum of squared differences from them is smallest.

    Args:
        distances: ``[T, T]``, symmetric, non-negative, zero on the diagonal.
        seed: Seed of t-SNE, whose start is not random, so that it matters little.

    Returns:
        ``[T, 2]``.

    Source:
        van der Maaten and Hinton, Journal of Machine Learning Research 9, 2008, t-SNE. Kobak and Berens, Nature
        Communications 10, 2019: a start that keeps the coarse order. de Leeuw, 1977, stress majorisation.
    """
    num_tasks = len(distances)
    if num_tasks < 2 or not distances.any():
        return np.zeros((num_tasks, 2))
    if num_tasks >= TSNE_FROM:
        import sklearn.manifold  # noqa: F401  # before its threads are counted
    with one_thread():  # sums in another order would be another map
        start = classical_mds(distances)
        raw = _tsne(distances, start, seed) if num_tasks >= TSNE_FROM else majorise_stress(distances, start)
        return np.asarray(_aligned(raw * best_scale(distances, between(raw))))


def classical_mds(distances: Array) -> Array:
    """The two widest directions ``[T, 2]`` of points with these distances, as far as there are such points."""
    from scipy.linalg import eigh

    squares = np.square(distances)
    products = -(squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean()) / 2
    size = len(products)
    values, vectors = eigh(products, subset_by_index=(max(0, size - 2), size - 1))
    positions = np.zeros((size, 2))
    positions[:, : len(values)] = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1]
    return positions


def majorise_stress(distances: Array, start: Array) -> Array:
    """Positions ``[T, 2]`` with the least sum of squared differences between drawn and true distances."""
    positions = (
        start + _apart(len(start)) * distances.max()
    )  # what lies on a line or point stays there otherwise
    for _ in range(_STEPS):
        drawn = between(positions)
        ratio = np.divide(distances, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        positions = (ratio.sum(axis=1)[:, None] * positions - ratio @ positions) / len(positions)
    return np.asarray(positions)


def _apart(count: int) -> Array:
    """Tiny offsets ``[count, 2]``, all different and the same each time."""
    turns = np.arange(count) * 2.399963  # the golden angle
    return 1e-3 * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _tsne(distances: Array, start: Array, seed: int) -> Array:
    from sklearn.manifold import TSNE

    num_tasks = len(distances)
    spread = start[:, 0].std()
    model = TSNE(
        metric="precomputed",
        init=start / (spread if spread > 0 else 1) * 1e-4,
        perplexity=min(PERPLEXITY, (num_tasks - 1) / 3),
        early_exaggeration=EXAGGERATION,
        learning_rate=max(10.0, num_tasks / EXAGGERATION / 4),
        method="exact" if num_tasks < EXACT_TSNE_BELOW else "barnes_hut",
        random_state=seed,
        n_jobs=1,
    )
    return np.asarray(model.fit_transform(distances.copy()), np.float64)  # it squares what it is given


def _aligned(positions: Array) -> Array:
    """Positions centred, with their widest spread along the first axis, and not mirrored by chance."""
    centred = positions - positions.mean(axis=0)
    turned = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    outermost = turned[np.abs(turned).argmax(axis=0), np.arange(2)]
    return np.asarray(turned * np.where(outermost < 0, -1, 1))


def place(distances: Array, anchors: Array, *, num_anchors: int) -> Array:
    """Positions of further tasks between those that are laid out, of which none moves.

    Among many, a task goes to the geometric median of its nearest ones, each weighing what t-SNE's Gaussian
    gives it at a perplexity of ``PLACING_PERPLEXITY``. Unlike a mean, a median does not fall between two groups
    that are both near. Among fewer than ``TSNE_FROM`` it goes where its distances are met best.

    Args:
        distances: ``[N, K]`` to the nearest of those laid out, K at least 1.
        anchors: ``[N, K, 2]`` their positions.
        num_anchors: How many are laid out in all, which says how.

    Returns:
        ``[N, 2]``; each row depends on its own input only.
    """
    if num_anchors < TSNE_FROM:
        return _meet_distances(distances, anchors)
    weights = gaussian_weights(distances, PLACING_PERPLEXITY)
    positions = np.einsum("nk,nki->ni", weights, anchors)
    # Far below any distance on the map; it keeps a task that lies on an anchor from dividing by zero.
    least = 1e-6 * np.maximum(np.ptp(anchors, axis=1).max(axis=1), 1e-12)[:, None]
    for _ in range(_PLACING_STEPS):
        pull = weights / (np.linalg.norm(positions[:, None] - anchors, axis=2) + least)
        positions = np.einsum("nk,nki->ni", pull, anchors) / pull.sum(axis=1, keepdims=True)
    return np.asarray(positions)


def _meet_distances(distances: Array, anchors: Array) -> Array:
    """Positions ``[N, 2]`` where the sum of squared differences from few distances is small."""
    positions = anchors.mean(axis=1) + distances.max(axis=1, keepdims=True) * np.array([[0.05, 0.1]])
    for _ in range(_STEPS):
        offsets = positions[:, None] - anchors
        drawn = np.linalg.norm(offsets, axis=2)
        ratio = np.divide(distances, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        positions = (anchors + ratio[..., None] * offsets).mean(axis=1)
    return np.asarray(positions)


def gaussian_weights(distances: Array, perplexity: float) -> Array:
    """Weights ``[N, K]`` of t-SNE: normal in the distance, as wide as gives each row this perplexity.

    Rows sum to 1. Where no more than so many others are there, or those at the least distance are more, the
    nearest ones weigh the same.
    """
    squares = np.square(distances)
    gaps = squares - squares.min(axis=1, keepdims=True)
    scale = gaps.mean(axis=1, keepdims=True)
    gaps = gaps / np.where(scale > 0, scale, 1)
    wanted = np.log(min(perplexity, 0.999 * distances.shape[1]))
    low, high = np.full(len(gaps), -12.0), np.full(len(gaps), 24.0)  # logs of the precision
    weights = np.empty_like(gaps)
    for _ in range(50):
        middle = (low + high) / 2
        exponents = gaps * np.exp(middle)[:, None]
        weights = np.exp(-exponents)
        total = weights.sum(axis=1)
        entropy = np.log(total) + (weights * exponents).sum(axis=1) / total
        low, high = np.where(entropy > wanted, middle, low), np.where(entropy > wanted, high, middle)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# How good a map is


def between(positions: Array, others: Array | None = None) -> Array:
    """Distances ``[T, T]`` in the plane, or ``[T, S]`` to others."""
    targets = positions if others is None else others
    return np.asarray(np.hypot(positions[:, :1] - targets[:, 0][None], positions[:, 1:] - targets[:, 1][None]))


def best_scale(distances: Array, drawn: Array) -> float:
    """The factor by which drawn distances are multiplied to differ least from true ones."""
    squares = float(np.square(drawn).sum())
    return float((distances * drawn).sum()) / squares if squares > 0 else 1.0


def stress_1(distances: Array, drawn: Array) -> float:
    """Kruskal's stress-1 of drawn against true distances of the same shape, at the best common scale.

    sqrt(sum (d - b D)² / sum d²), d drawn, D true, b the factor that makes it least: the sine of the angle
    between the two, from 0, where the picture is true, to 1.

    Source:
        Kruskal, Psychometrika 29, 1964, with a ratio in place of a monotone regression.
    """
    squares = float(np.square(distances).sum() * np.square(drawn).sum())
    if squares == 0:
        return 0.0 if not distances.any() else 1.0
    return float(np.sqrt(max(0.0, 1 - float((distances * drawn).sum()) ** 2 / squares)))


def num_neighbors(num_tasks: int) -> int:
    """How many neighbours the trustworthiness of so many tasks is about; 0 where it says nothing."""
    return max(0, min(NEIGHBORS, (num_tasks - 1) // 2))


def trustworthiness(distances: Array, drawn: Array, own: NDArray[np.int64]) -> float:
    """How far the neighbours in a picture are true ones: 1 if all are, about .5 by chance.

    1 - 2 / (S k (2T - 3k - 1)) times the sum, over the k neighbours that are drawn nearest to each task, of how
    far beyond k they rank in truth. Ties rank as the best of them.

    Args:
        distances: ``[S, T]`` true distances from the S tasks that are measured to all T, themselves among them.
        drawn: ``[S, T]`` distances between the same tasks in the picture.
        own: ``[S]`` number of each of the S tasks among the T.

    Source:
        Venna and Kaski, ICANN 2001.
    """
    num_measured, num_tasks = distances.shape
    k = num_neighbors(num_tasks)
    if k == 0:
        return 1.0
    penalty = 0
    for row in range(num_measured):
        true, near = np.delete(distances[row], own[row]), np.delete(drawn[row], own[row])
        nearest = np.argsort(near, kind="stable")[:k]
        ranks = 1 + np.searchsorted(np.sort(true), true[nearest], side="left")
        penalty += int(np.maximum(ranks - k, 0).sum())
    return float(1.0 - 2 * penalty / (num_measured * k * (2 * num_tasks - 3 * k - 1)))
