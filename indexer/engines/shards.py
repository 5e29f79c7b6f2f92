"""One huge dataset over many workers: the samples are split, and what each part gives is put together.

The sample is drawn here; workers decode parts of it. The features of all parts are gathered, the head is fitted
once, and the sums of the Fisher information add up, with the random numbers that each sample has in one
process. So the embedding differs from that of ``embed_sample`` by rounding only. Each part is decoded twice,
for features and for gradients, so that a worker holds one part at a time and any worker can do any part.

Axes: N samples, C classes, F features, D filters.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from indexer.data.listings import Entry
from indexer.data.samples import Decoded, DrawnSample, decode_entries, described_sample, draw_sample
from indexer.data.sampling import contact_sheet
from indexer.data.specs import open_dataset
from indexer.embed import embedding_of, fit_task_head
from indexer.engines.engines import run_works
from indexer.engines.work import EngineSettings, Work, kept_network
from indexer.errors import DataError, SettingsError
from indexer.fisher.costs import fitting_batch_size
from indexer.fisher.estimate import FisherSums, fisher_sums, get_estimator, joined_estimate
from indexer.heads.heads import LinearHead
from indexer.networks.run import (
    Batches,
    PretrainedNetwork,
    Progress,
    extract_features,
    full_precision,
    move_to_device,
)
from indexer.records import ContactSheet, DatasetDescription, EmbeddingSettings, TaskEmbedding

MAX_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """One part of a drawn sample."""

    data: str
    settings: EmbeddingSettings
    number: int
    entries: tuple[Entry, ...] = field(repr=False)

    def decode(self, probe: PretrainedNetwork) -> Decoded:
        """Read and decode the samples."""
        return decode_entries(
            open_dataset(self.data, self.settings),
            self.entries,
            probe.transform,
            self.settings,
            threads=torch.get_num_threads(),
        )

    def place(self, probe: PretrainedNetwork) -> int:
        """Put the probe where it computes; samples per pass."""
        move_to_device(probe, self.settings.device)
        return min(self.settings.batch_size, fitting_batch_size(probe, self.settings.memory_budget))


@dataclass(frozen=True, eq=False)
class ShardFeatures:
    """What a first pass over a part gives."""

    features: np.ndarray = field(repr=False)
    readable: np.ndarray = field(repr=False)
    digests: list[bytes] = field(repr=False)
    faults: list[str] = field(repr=False)


@dataclass(frozen=True)
class FeatureWork:
    """The first pass over a part."""

    shard: Shard

    @property
    def title(self) -> str:
        """The data and the part."""
        return f"{self.shard.data}, part {self.shard.number + 1}"

    def run(self) -> ShardFeatures:
        """Decode, and compute features."""
        probe = kept_network(self.shard.settings.probe)
        decoded = self.shard.decode(probe)
        if not len(decoded.inputs):
            features = np.empty((0, probe.num_features), np.float32)
        else:
            batch_size = self.shard.place(probe)
            with full_precision():
                features = extract_features(probe, decoded.inputs, batch_size=batch_size)
        return ShardFeatures(features, decoded.readable, decoded.digests, decoded.faults)


@dataclass(frozen=True, eq=False)
class FisherWork:
    """The second pass over a part."""

    shard: Shard
    digests: list[bytes] = field(repr=False)
    head: LinearHead = field(repr=False)
    labels: np.ndarray = field(repr=False)  # labels of the samples of the part that can be read
    samples_before: int  # number of samples of the parts before this one

    @property
    def title(self) -> str:
        """The data and the part."""
        return f"{self.shard.data}, part {self.shard.number + 1}"

    def run(self) -> FisherSums:
        """Decode again, and sum up squared gradients; ``DataError`` if the files are not what they were."""
        settings = self.shard.settings
        probe = kept_network(settings.probe)
        decoded = self.shard.decode(probe)
        if decoded.digests != self.digests:
            raise DataError(self.shard.data, "has changed while it was embedded; embed it again")
        with full_precision():
            return fisher_sums(
                probe.body,
                self.head,
                Batches(probe, decoded.inputs, self.labels, self.shard.place(probe)),
                estimator=settings.estimator,
                generator=torch.Generator().manual_seed(settings.seed),
                samples_before=self.samples_before,
                norm_weights=settings.norm_weights,
                memory_budget=settings.memory_budget,
            )


@dataclass(frozen=True, eq=False)
class ShardedSample:
    """A drawn sample, of which the features are known and the parts are with the workers."""

    shards: list[Shard] = field(repr=False)
    first_pass: list[ShardFeatures] = field(repr=False)
    features: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    description: DatasetDescription
    seconds: float


@dataclass(frozen=True)
class Workers:
    """What runs the parts."""

    shards: int
    engine: str
    settings: EngineSettings

    def __post_init__(self) -> None:
        """Check the range; ``SettingsError`` if there are too few or too many parts."""
        if not 1 <= self.shards <= MAX_SHARDS:
            raise SettingsError(f"shards must be from 1 to {MAX_SHARDS}, got {self.shards}")

    def run(self, works: Sequence[Work], stage: str, progress: Progress | None) -> list[Any]:
        """What work gives, in its order; the first error ends it."""
        values: list[Any] = [None] * len(works)
        done = 0
        for outcome in run_works(works, self.engine, self.settings):
            if outcome is None:
                continue
            if outcome.error:
                raise outcome.error
            values[outcome.number] = outcome.value
            done += 1
            if progress:
                progress(stage, done, len(works))
        return values


def check_shardable(probe: PretrainedNetwork, settings: EmbeddingSettings) -> None:
    """Refuse what cannot be computed in parts, before anything is.

    Raises:
        SettingsError: If it cannot.
        UnknownNameError: If there is no such estimator.
    """
    if settings.tolerance is not None:
        raise SettingsError("shards use every sample, so a tolerance would stop nothing; leave one of them out")
    get_estimator(settings.estimator)
    if probe.takes == "texts":
        raise SettingsError("texts are not embedded in parts; leave the shards out")


def load_shards(
    data: str,
    probe: PretrainedNetwork,
    settings: EmbeddingSettings,
    workers: Workers,
    *,
    progress: Progress | None = None,
) -> ShardedSample:
    """Draw the sample here, and have the workers decode it and compute features.

    Raises:
        DataError: If the data cannot be read or makes no task.
        SettingsError: If it cannot be done in parts.
        EngineError: If workers are lost again and again.
    """
    start = time.perf_counter()
    check_shardable(probe, settings)
    drawn = draw_sample(data, probe.transform, settings)
    shards = _split(data, drawn, settings, workers.shards)
    parts = workers.run([FeatureWork(shard) for shard in shards], "features", progress)
    none = np.empty(0)
    decoded = [Decoded(none, part.readable, part.digests, part.faults) for part in parts]
    labels, description = described_sample(drawn, decoded)
    features = np.concatenate([part.features for part in parts])
    return ShardedSample(shards, parts, features, labels, description, time.perf_counter() - start)


def embed_shards(
    sample: ShardedSample,
    probe: PretrainedNetwork,
    settings: EmbeddingSettings,
    workers: Workers,
    *,
    progress: Progress | None = None,
) -> TaskEmbedding:
    """Fit the head here, and have the workers sum up the Fisher information.

    Returns:
        The embedding of ``indexer.embed.embed_sample``, up to rounding; ``seconds`` with the first pass.
    """
    start = time.perf_counter()
    kind = sample.description.kind
    head, score, labels = fit_task_head(sample.features, sample.labels, kind, settings.seed)
    works: list[FisherWork] = []
    done = 0
    for shard, part in zip(sample.shards, sample.first_pass, strict=True):
        before, done = done, done + len(part.features)
        if done > before:
            works.append(FisherWork(shard, part.digests, head, labels[before:done], before))
    estimate = joined_estimate(workers.run(works, "fisher", progress))
    seconds = sample.seconds + time.perf_counter() - start
    sheet = _sheet(sample, probe, settings)
    return embedding_of(probe, settings, sample.description, sample.features, score, estimate, seconds, sheet)


def _sheet(sample: ShardedSample, probe: PretrainedNetwork, settings: EmbeddingSettings) -> ContactSheet | None:
    """A contact sheet, for which some samples are decoded here once more."""
    entries = [entry for shard in sample.shards for entry in shard.entries]
    readable = np.flatnonzero(np.concatenate([part.readable for part in sample.first_pass]))

    def pixels(rows: Sequence[int]) -> np.ndarray:
        chosen = [entries[readable[row]] for row in rows]
        data = open_dataset(sample.shards[0].data, settings)
        return decode_entries(data, chosen, probe.transform, settings).inputs

    return contact_sheet(sample.description, sample.labels, settings.seed, pixels)


def _split(data: str, drawn: DrawnSample, settings: EmbeddingSettings, most: int) -> list[Shard]:
    """Parts of equal size, up to one sample; no more than there are samples."""
    ends = np.linspace(0, len(drawn.entries), min(most, len(drawn.entries)) + 1).astype(int)
    return [
        Shard(data, settings, number, tuple(map(_portable, drawn.entries[start:end])))
        for number, (start, end) in enumerate(pairwise(ends))
    ]


def _portable(entry: Entry) -> Entry:
    """An entry that another process can use, which a handle of the system is not."""
    return entry._replace(where=entry.where.path) if isinstance(entry.where, os.DirEntry) else entry
