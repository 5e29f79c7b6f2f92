"""Features and labels for tests of heads, of every kind of task."""

import numpy as np

from indexer.records import Kind

KINDS: list[Kind] = ["single_label", "multi_label", "regression"]


def blobs(sizes: list[int], num_features: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping Gaussian classes, their features of different scales and offsets."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = generator.normal(size=(len(labels), num_features))
    features += generator.normal(size=(len(sizes), num_features))[labels]
    return features * 10.0 ** np.linspace(-2, 2, num_features) + np.arange(num_features), labels


def task(
    kind: Kind, num_samples: int = 30, num_features: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of that kind: three classes, three labels of unlike frequency, or two targets."""
    if kind == "single_label":
        return blobs(
            [num_samples // 3, num_samples // 4, num_samples - num_samples // 3 - num_samples // 4],
            num_features,
            seed,
        )
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(num_samples, num_features)) + np.arange(num_features)
    scores = features[:, :3] - np.arange(3) + generator.normal(size=(num_samples, 3))
    if kind == "regression":
        return features, (scores[:, :2] * [0.01, 500] + [3, -2000]).astype(np.float32)
    ranks = scores.argsort(axis=0).argsort(axis=0)
    return features, (ranks < num_samples * np.array([0.5, 0.25, 0.15])).astype(np.uint8)


def many_classes(num_classes: int, num_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of each class, non-negative as features after a ReLU are."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), 2)
    centres = generator.normal(size=(num_classes, num_features))
    return np.maximum(generator.normal(size=(len(labels), num_features)) + centres[labels], 0), labels
