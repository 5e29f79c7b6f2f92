"""Try experts on one dataset: the features of each on the same sample, decoded once and computed once.

Axes: N samples, F features.
"""

import json
import time
from dataclasses import asdict, dataclass, field

import numpy as np

from indexer.data.samples import Sample
from indexer.embed import load_task_sample
from indexer.experts.feature_cache import FeatureCache, default_folder
from indexer.networks.load import load_network, load_source_head
from indexer.networks.loaders import parse_loader
from indexer.networks.run import (
    PretrainedNetwork,
    Progress,
    choose_device,
    extract_features,
    move_to_device,
    running,
)
from indexer.records import EmbeddingSettings, InputTransform, Kind, TextTransform

FORMAT = 1
"""Version of the cache: raised when the same network makes other features of the same data."""
MAX_DECODED_BYTES = 2**30
"""Bytes of decoded samples that are kept for the next expert with the same input transform."""

Shape = tuple[int, int] | TextTransform
"""Resize and crop of an input transform of images: all of it that decoding depends on; all of one of texts."""


@dataclass(frozen=True, eq=False)
class TrialFeatures:
    """What an expert makes of the sample."""

    features: np.ndarray = field(repr=False)  # ``[N, F]`` float32, finite
    labels: np.ndarray = field(repr=False)  # as in ``indexer.data.samples.Sample``, for the same N samples
    kind: Kind
    weights_hash: str
    loading_seconds: float
    feature_seconds: float | None  # taken to compute the features; ``None`` where they were in the cache


@dataclass(eq=False)
class TrialData:
    """A dataset to try experts on; every expert of one input size sees the very same images."""

    data: str
    settings: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    cache: FeatureCache = field(default_factory=lambda: FeatureCache(default_folder()))
    _decoded: dict[Shape, Sample] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the device before anything is loaded; ``SettingsError`` if it does not exist."""
        choose_device(self.settings.device)

    @property
    def was_read(self) -> bool:
        """Whether some expert's sample was decoded: what fails now is not the data alone."""
        return bool(self._decoded)

    def features(self, loader: str, progress: Progress | None = None) -> TrialFeatures:
        """Load an expert and run it over the sample, or read what it made of this sample before.

        Raises:
            DataError: If the data cannot be read or makes no task.
            UnknownNameError: If there is no such expert.
            WeightsError: If the expert's weights cannot be read, or its features are not finite.
            NetworkError: If the expert does not run.
        """
        start = time.perf_counter()
        with running(loader):
            network = load_network(loader)
            move_to_device(network, self.settings.device)
        loading = time.perf_counter() - start
        # Decoded once, the data is known; for another transform it is decoded only if the features are not.
        decoded = next(iter(self._decoded.values()), None) or self._sample(network, progress)
        kind, key = decoded.description.kind, self._key(network, decoded.description.fingerprint)
        if key and (entry := self.cache.get(key)):
            return TrialFeatures(*entry, kind, network.weights_hash, loading, None)
        sample = self._sample(network, progress)
        start = time.perf_counter()
        features = extract_features(
            network, sample.inputs, batch_size=self.settings.batch_size, progress=progress
        )
        seconds = time.perf_counter() - start
        if key:
            self.cache.put(key, features, sample.labels)
        return TrialFeatures(features, sample.labels, kind, network.weights_hash, loading, seconds)

    def _sample(self, network: PretrainedNetwork, progress: Progress | None) -> Sample:
        """The sample as networks with that transform see it."""
        transform = network.transform
        shape = (transform.resize, transform.crop) if isinstance(transform, InputTransform) else transform
        if shape not in self._decoded:
            self._decoded[shape] = load_task_sample(self.data, network, self.settings, progress=progress)
            while (
                len(self._decoded) > 1
                and sum(sample.inputs.nbytes for sample in self._decoded.values()) > MAX_DECODED_BYTES
            ):
                del self._decoded[next(iter(self._decoded))]
        return self._decoded[shape]

    def _key(self, network: PretrainedNetwork, fingerprint: str) -> str:
        """All that features depend on: the data, how it is sampled and decoded, the network.

        Empty where the weights do not say all of the network, because it is somebody's code.
        """
        if parse_loader(network.loader).source not in {"named", "timm"}:
            return ""
        asked = self.settings
        how = (asked.max_samples, asked.seed, asked.split, asked.channels, asked.value_range)
        what = (network.name, network.weights_hash, asdict(network.transform))
        return json.dumps([FORMAT, fingerprint, how, what])


def source_logits(loader: str, features: np.ndarray) -> np.ndarray | None:
    """Logits ``[N, K]`` of an expert's own head on its features ``[N, F]``; ``None`` without one."""
    import torch

    head = load_source_head(loader)
    return None if head is None else head(torch.from_numpy(features)).numpy()
