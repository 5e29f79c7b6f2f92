"""Measure an expert on a dataset: the accuracy of a few-shot linear probe on its features."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from indexer.data.samples import load_sample
from indexer.errors import DataError, TooFewSamplesError
from indexer.heads.heads import choose_per_class, fit_head, score_classes
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
    device: str = "auto",
    progress: Progress | None = None,
    **said: Any,
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
        device: As in ``EmbeddingSettings``.
        progress: Called as ``progress(stage, done, total)``.
        **said: How the data is read, by field of ``EmbeddingSettings``, such as ``split`` and ``channels``.

    Returns:
        Mean and standard deviation over the draws of the class-balanced accuracy, its standard error, and what
        a draw was fitted and scored on; see ``score_features``.

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
        **said,
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
    return replace(score_features(features, sample.labels, seed), weights_hash=network.weights_hash)


def score_features(features: np.ndarray, labels: np.ndarray, seed: int) -> ProbeResult:
    """Held-out accuracy of the few-shot linear probe on features; the second half of ``measure_expert``.

    It estimates the class-balanced accuracy, on new samples, of the head of ``indexer.heads`` that was fitted
    on ``SHOTS = 20`` random samples of each of C classes: the mean over ``num_draws(C)`` draws, each scored on
    all samples that it did not draw, every class with the same weight. Of a class with fewer than ``2 * SHOTS``
    samples half is drawn, rounded down, and half held out: then the accuracy is that of a head fitted on fewer
    than 20 of that class, which is mostly lower.

    The standard error is that of this estimate, over samples as large as this one and over draws. Its square
    has three parts: of the samples held out, within each class the variance of how often one was told right,
    over their number; of S draws, their variance over S; and of what draws have in common, that variance times
    ``r²/(1 - r²)``, as two draws of a share r of the samples share r² of them. In simulations it was .85 to
    1.05 of what repeated sampling gave.

    Args:
        features: ``[N, F]``, finite.
        labels: ``[N]`` whole numbers, two classes or more, each on two samples or more.
        seed: Of the draws; no two seeds share one.

    Returns:
        Mean, standard deviation over draws and standard error of the class-balanced accuracy, and how many
        samples a draw was fitted and scored on.

    Raises:
        TooFewSamplesError: If there is one class only, or a class of one sample.
        DataError: If the features are not finite, or a head does not converge.
    """
    classes, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        few = (
            f"class {classes[counts.argmin()]} has {counts.min()}" if len(classes) > 1 else "there is one class"
        )
        raise TooFewSamplesError(
            "labels", f"{few}; a linear probe needs two classes or more, each on two samples or more"
        )
    accuracies, right, times = [], np.zeros(len(labels)), np.zeros(len(labels))
    for repeat in range(num_draws(len(classes))):
        draw = MOST_DRAWS * seed + repeat  # no two seeds share a draw
        train = choose_per_class(labels, lambda count: min(SHOTS, count // 2), draw)
        head = fit_head(features[train], labels[train])
        logits = head.logits(features[~train])
        accuracies.append(score_classes(logits, labels[~train]).accuracy)
        right[~train] += logits.argmax(axis=1) == labels[~train]
        times[~train] += 1
    return ProbeResult(
        accuracy=float(np.mean(accuracies)),
        deviation=float(np.std(accuracies, ddof=1)),
        protocol=PROTOCOL,
        seed=seed,
        standard_error=_standard_error(np.array(accuracies), labels, right, times, float(train.mean())),
        num_train=int(train.sum()),
        num_held_out=int((~train).sum()),
    )


def _standard_error(
    accuracies: np.ndarray, labels: np.ndarray, right: np.ndarray, times: np.ndarray, share: float
) -> float:
    """Of the mean over draws ``[S]`` of a share of samples ``[N]``, each ``right`` some of its ``times``."""
    seen = times > 0
    rates, labels = right[seen] / times[seen], labels[seen]
    groups = [rates[labels == label] for label in np.unique(labels)]
    of_samples = sum(rate.var() / max(len(rate) - 1, 1) for rate in groups) / len(groups) ** 2
    common = (share**2) / (1 - share**2)
    return float(np.sqrt(accuracies.var(ddof=1) * (1 / len(accuracies) + common) + of_samples))


def num_draws(num_classes: int) -> int:
    """How often the few images a class are drawn."""
    return int(np.clip(DRAWN_CLASSES // num_classes, LEAST_DRAWS, MOST_DRAWS))
