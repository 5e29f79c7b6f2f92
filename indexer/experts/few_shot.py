"""Measure an expert on a dataset: the accuracy of a few-shot linear probe on its features."""

from functools import partial

import numpy as np

from indexer.data.samples import load_sample
from indexer.errors import DataError
from indexer.heads.heads import fit_head, score_head
from indexer.heads.scores import choose_per_class
from indexer.networks.load import load_network
from indexer.networks.run import Progress, extract_features, move_to_device
from indexer.records import ProbeResult

SHOTS = 20
LEAST_DRAWS = 5
MOST_DRAWS = 30
DRAWN_CLASSES = 60
"""Classes in all draws together: tasks of few classes have few images in a draw, and take little time."""
PROTOCOL = f"linear_probe_{SHOTS}shot"


def measure_expert(
    loader: str,
    data: str,
    *,
    max_samples: int = 2000,
    seed: int = 0,
    split: str | None = None,
    channels: str = "auto",
    value_range: tuple[float, float] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> ProbeResult:
    """Few-shot linear-probe accuracy of an expert on a single-label dataset.

    The head of ``indexer.heads.heads`` is fitted on the frozen expert's features of 20 samples a class (half
    of a
    class that has fewer than 40) and scored on the rest of the sample; this is repeated with 30 draws of two
    classes, with 6 of ten, and with 5 of more.

    Args:
        loader: The expert, see ``indexer.networks.load``.
        data: A data spec, see ``indexer.data.samples``.
        max_samples: Most samples used.
        seed: What the sample and the draws are drawn with; the same seed gives every expert the same samples.
        split: Which split of the dataset, as of ``EmbeddingSettings``.
        channels: As in ``EmbeddingSettings``.
        value_range: As in ``EmbeddingSettings``.
        device: As in ``EmbeddingSettings``.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        Mean and standard deviation over the draws of the class-balanced accuracy.

    Raises:
        DataError: If the data cannot be read or makes no task, or its task is multi-label or a regression.
        UnknownNameError: If there is no such expert.
        WeightsError: If the expert's weights cannot be read.
        SettingsError: If the device does not exist.
    """
    network = load_network(loader)
    move_to_device(network, device)
    sample = load_sample(
        data,
        network.transform,
        max_samples=max_samples,
        seed=seed,
        split=split,
        channels=channels,
        value_range=value_range,
        tokenizer=network.tokenizer,
        progress=partial(progress, "decode") if progress else None,
    )
    kind = sample.description.kind
    if kind != "single_label":
        task = "a multi-label task" if kind == "multi_label" else "a regression"
        raise DataError(
            data,
            f"is {task}, and {PROTOCOL} measures experts on single-label tasks only; measure with a metric of "
            "your own from 0 to 1 and record it with `t2v result add`",
        )
    features = extract_features(network, sample.inputs, progress=progress)
    return score_features(features, sample.labels, seed)


def score_features(features: np.ndarray, labels: np.ndarray, seed: int) -> ProbeResult:
    """The second half of ``measure_expert``: features ``[N, F]`` and labels ``[N]`` to accuracy."""
    accuracies = []
    for repeat in range(num_draws(len(np.unique(labels)))):
        draw = MOST_DRAWS * seed + repeat  # no two seeds share a draw
        train = choose_per_class(labels, lambda count: min(SHOTS, count // 2), draw)
        head = fit_head(features[train], labels[train])
        accuracies.append(score_head(head, features[~train], labels[~train]).accuracy)
    return ProbeResult(float(np.mean(accuracies)), float(np.std(accuracies, ddof=1)), PROTOCOL, seed)


def num_draws(num_classes: int) -> int:
    """How often the few images a class are drawn."""
    return int(np.clip(DRAWN_CLASSES // num_classes, LEAST_DRAWS, MOST_DRAWS))
