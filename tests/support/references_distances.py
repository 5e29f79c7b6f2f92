"""Slow, obviously right twins of ``registry.distances``: one pair of embeddings, plain Python floats."""

import math
from collections.abc import Callable, Sequence

Vector = Sequence[float]

EPSILON = 1e-8
SMALLEST = 2.0**-126


def mean(values: Vector) -> float:
    return math.fsum(values) / len(values)


def floored(h: Vector) -> list[float]:
    floor = EPSILON * max(mean(h), SMALLEST)
    return [x + floor for x in h]


def norm(values: Vector) -> float:
    return math.sqrt(math.fsum(x * x for x in values))


def cosine_distance(a: Vector, b: Vector) -> float:
    if not any(a) and not any(b):
        return 0.0
    if not any(a) or not any(b):
        return 1.0
    return 1 - math.fsum(x * y for x, y in zip(a, b, strict=True)) / (norm(a) * norm(b))


def euclidean(a: Vector, b: Vector) -> float:
    return norm([x - y for x, y in zip(a, b, strict=True)])


def centred_variances(h: Vector) -> list[float]:
    variances = [1 / x for x in floored(h)]
    if min(variances) == max(variances):
        return [0.0] * len(variances)
    return [v - mean(variances) for v in variances]


def correlation(a: Vector, b: Vector) -> float:
    return cosine_distance(centred_variances(a), centred_variances(b))


def log_euclidean(a: Vector, b: Vector) -> float:
    return norm([math.log(x) - math.log(y) for x, y in zip(floored(a), floored(b), strict=True)])


def root_ratio(a: Vector, b: Vector) -> float:
    roots = [(math.sqrt(x), math.sqrt(y)) for x, y in zip(floored(a), floored(b), strict=True)]
    return mean([((x - y) / (x + y)) ** 2 for x, y in roots])


def gaussian_kl(v: float, w: float) -> float:
    """Divergence of N(0, v) from N(0, w), in nats."""
    return (v / w - 1 + math.log(w) - math.log(v)) / 2


def variance_pairs(a: Vector, b: Vector) -> list[tuple[float, float]]:
    return [(1 / x, 1 / y) for x, y in zip(floored(a), floored(b), strict=True)]


def jensen_shannon(a: Vector, b: Vector) -> float:
    return mean(
        [(gaussian_kl(v, (v + w) / 2) + gaussian_kl(w, (v + w) / 2)) / 2 for v, w in variance_pairs(a, b)]
    )


def kl(a: Vector, b: Vector) -> float:
    return math.fsum(max(gaussian_kl(v, w), gaussian_kl(w, v)) for v, w in variance_pairs(a, b))


def coin_entropy(p: float) -> float:
    return -math.fsum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def entropy(a: Vector, b: Vector) -> float:
    return math.log(2) - mean([coin_entropy(x / (x + y)) for x, y in zip(floored(a), floored(b), strict=True)])


def task2vec(a: Vector, b: Vector) -> float:
    floor = EPSILON * (mean(a) + mean(b))
    totals = [x + y + floor for x, y in zip(a, b, strict=True)]
    shares_a = [x / total if total else 0.0 for x, total in zip(a, totals, strict=True)]
    shares_b = [y / total if total else 0.0 for y, total in zip(b, totals, strict=True)]
    return cosine_distance(shares_a, shares_b)


def task2vec_asymmetric(source: Vector, target: Vector, trivial: Vector, alpha: float) -> float:
    return task2vec(source, target) - alpha * task2vec(source, trivial)


def reference_code_cosine(a: Vector, b: Vector) -> float:
    """The formula of aws-cv-task2vec to the letter, absolute 1e-8 and all."""
    return cosine_distance(
        [x / (x + y + 1e-8) for x, y in zip(a, b, strict=True)],
        [y / (x + y + 1e-8) for x, y in zip(a, b, strict=True)],
    )


SYMMETRIC: dict[str, Callable[[Vector, Vector], float]] = {
    "euclidean": euclidean,
    "cosine": cosine_distance,
    "correlation": correlation,
    "log_euclidean": log_euclidean,
    "root_ratio": root_ratio,
    "jensen_shannon": jensen_shannon,
    "kl": kl,
    "entropy": entropy,
    "task2vec": task2vec,
}
ASYMMETRIC: dict[str, Callable[[Vector, Vector, Vector, float], float]] = {
    "task2vec_asymmetric": task2vec_asymmetric
}


def reference(name: str, a: Vector, b: Vector, trivial: Vector, alpha: float) -> float:
    """Distance ``name`` from a to b."""
    if name in SYMMETRIC:
        return SYMMETRIC[name](a, b)
    return ASYMMETRIC[name](a, b, trivial, alpha)
