"""The pipeline: labelled dataset -> features -> head -> Fisher information -> task embedding.

    settings = EmbeddingSettings(max_samples=500)
    embedding = embed_dataset("./flowers", settings)

Axes: N samples, D filters, F features.
"""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from indexer.data.samples import Sample, read_sample
from indexer.data.sampling import contact_sheet
from indexer.errors import WeightsError
from indexer.fisher.costs import fitting_batch_size
from indexer.fisher.estimate import FisherEstimate, fisher_information
from indexer.heads.heads import FISHER_L2, HeadScore, LinearHead, fit_head, held_out_score, standardise
from indexer.networks.load import load_network
from indexer.networks.run import (
    Batches,
    PretrainedNetwork,
    Progress,
    blank_input,
    by_length,
    extract_features,
    full_precision,
    move_to_device,
    running,
)
from indexer.records import ContactSheet, DatasetDescription, EmbeddingSettings, Kind, Space, TaskEmbedding

TRIVIAL_SAMPLES = 64


def embed_dataset(
    data: str, settings: EmbeddingSettings | None = None, *, progress: Progress | None = None
) -> TaskEmbedding:
    """Embed a labelled dataset.

    Args:
        data: A data spec, see ``indexer.data.samples``.
        settings: How; the defaults if ``None``.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        The embedding with its standard error, head score and provenance. Same data, settings, machine and
        number of threads: same bytes.

    Raises:
        DataError: If the data cannot be read or makes no task.
        UnknownNameError: If there is no such probe or estimator.
        WeightsError: If the probe's weights cannot be read.
        SettingsError: If the device does not exist.
        UnsupportedLayerError: If the probe has a layer without a Fisher rule.
    """
    settings = settings or EmbeddingSettings()
    probe = load_network(settings.probe)
    return embed_sample(
        load_task_sample(data, probe, settings, progress=progress), probe, settings, progress=progress
    )


def load_task_sample(
    data: str,
    probe: PretrainedNetwork,
    settings: EmbeddingSettings,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Sample:
    """Draw and decode the sample that ``settings`` asks for, as the probe wants to see it."""
    return read_sample(
        data,
        probe.transform,
        settings,
        threads=threads,
        tokenizer=probe.tokenizer,
        progress=partial(progress, "decode") if progress else None,
    )


def embed_sample(
    sample: Sample, probe: PretrainedNetwork, settings: EmbeddingSettings, *, progress: Progress | None = None
) -> TaskEmbedding:
    """Embed a decoded sample; the second half of ``embed_dataset``."""
    start = time.perf_counter()
    move_to_device(probe, settings.device)
    num_tokens = sample.inputs.shape[-1] if probe.takes == "texts" else None
    batch_size = min(settings.batch_size, fitting_batch_size(probe, settings.memory_budget, num_tokens))
    kind = sample.description.kind
    with full_precision():
        features = extract_features(probe, sample.inputs, batch_size=batch_size, progress=progress)
        head, score, labels = fit_task_head(features, sample.labels, kind, settings.seed)
        with running(probe.loader):
            estimate = fisher_information(
                probe.body,
                head,
                Batches(probe, sample.inputs, labels, batch_size, _order(probe, sample.inputs, settings)),
                estimator=settings.estimator,
                generator=torch.Generator().manual_seed(settings.seed),
                norm_weights=settings.norm_weights,
                tolerance=settings.tolerance,
                memory_budget=settings.memory_budget,
                progress=(lambda done: progress("fisher", done, len(labels))) if progress else None,
            )
    seconds = time.perf_counter() - start
    sheet = contact_sheet(sample.description, sample.labels, settings.seed, sample.inputs.__getitem__)
    return embedding_of(probe, settings, sample.description, features, score, estimate, seconds, sheet)


def fit_task_head(
    features: np.ndarray, labels: np.ndarray, kind: Kind, seed: int
) -> tuple[LinearHead, HeadScore, np.ndarray]:
    """The head of a task, its score on samples held out, and the labels as the head is asked about them.

    Args:
        features: ``[N, F]``.
        labels: ``[N]`` or ``[N, C]``.
        kind: What the labels are.
        seed: What the samples held out are drawn with.
    """
    head = fit_head(features, labels, kind, l2=FISHER_L2)
    score = held_out_score(features, labels, seed, kind)
    return head, score, standardise(labels, labels) if kind == "regression" else labels


def embedding_of(
    probe: PretrainedNetwork,
    settings: EmbeddingSettings,
    description: DatasetDescription,
    features: np.ndarray,
    score: HeadScore,
    estimate: FisherEstimate,
    seconds: float,
    sheet: ContactSheet | None = None,
) -> TaskEmbedding:
    """Put together what was measured on a sample with features ``[N, F]``.

    Raises:
        WeightsError: If the probe has no Fisher information there, or one that is not finite.
    """
    if not (np.isfinite(estimate.mean).all() and estimate.mean.any()):
        is_zero = "zero in all filters" if np.isfinite(estimate.mean).all() else "not finite"
        raise WeightsError(
            f"{probe.loader}: its Fisher information on {description.spec} is {is_zero}; choose another probe"
        )
    return TaskEmbedding(
        space=space_of(probe, settings),
        dataset=description,
        settings=settings,
        fisher=estimate.mean.astype(np.float32),
        standard_error=estimate.standard_error.astype(np.float32),
        domain=features.mean(axis=0),
        num_samples_used=estimate.num_samples,
        head_accuracy=score.accuracy,
        head_loss=score.loss,
        seconds=seconds,
        fallbacks=estimate.fallbacks,
        sheet=sheet,
    )


def _order(probe: PretrainedNetwork, inputs: np.ndarray, settings: EmbeddingSettings) -> np.ndarray:
    """Order of the Fisher pass: that of the sample, of texts the short ones first; random if it may stop early.

    A sample lies class by class, so the start of it would stand for the first classes only.
    """
    if settings.tolerance is None:
        return by_length(probe, inputs)
    return np.random.default_rng(settings.seed).permutation(len(inputs))


def space_of(probe: PretrainedNetwork, settings: EmbeddingSettings) -> Space:
    """The space of the embeddings that ``settings`` and ``probe`` make."""
    return Space(
        probe=probe.name,
        weights_hash=probe.weights_hash,
        estimator=settings.estimator,
        pooling="filter_mean+norm" if settings.norm_weights else "filter_mean",
        transform=probe.transform,
        head=f"logistic_balanced_l2={FISHER_L2:g}",
    )


def embed_trivial(probe: PretrainedNetwork, settings: EmbeddingSettings) -> np.ndarray:
    """Embedding t0 of the trivial task: telling dark noise from bright noise, or random words from others.

    The asymmetric distance measures how far a task is from one that asks nothing of the probe. The paper
    takes a Fisher information of zero plus its prior's precision, whose scale has nothing to do with that of
    measured Fisher information; we measure a task that any network solves, with the same probe, estimator
    and head, so that t0 depends on the space alone and its scale is that of every other embedding. Images are
    noise of 0 to 127 or of 128 to 255. Texts are 16 tokens drawn from the first or the second half of the
    vocabulary.

    Returns:
        ``[D]`` float32, positive.
    """
    generator = np.random.default_rng(0)
    labels = np.arange(TRIVIAL_SAMPLES) % 2
    if probe.tokenizer is not None:
        inputs, names = probe.tokenizer.random_texts(labels, generator), ("first half", "second half")
    else:
        shape = (TRIVIAL_SAMPLES, *blank_input(probe.transform).shape[1:])
        noise = generator.integers(0, 128, shape) + 128 * labels[:, None, None, None]
        inputs, names = noise.astype(np.uint8), ("dark", "bright")
    description = DatasetDescription("trivial", TRIVIAL_SAMPLES, names, fingerprint="", content=probe.takes)
    settings = replace(settings, seed=0, tolerance=None)
    fisher = embed_sample(Sample(inputs, labels, description), probe, settings).fisher
    return np.asarray(fisher.clip(min=fisher[fisher > 0].min()))
