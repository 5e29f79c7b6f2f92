"""Features of images under many networks, computed once and kept in files: tasks that share images share them.

Axes: N images, F features, S pixels of the input's side.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from indexer.networks.run import PretrainedNetwork, extract_features


class FeatureFile:
    """Features of one network by the bytes of the image, as the network is shown it.

    Args:
        folder: Where the file of each network lies, named by the hash of its weights.
        network: Whose features they are.
    """

    def __init__(self, folder: Path, network: PretrainedNetwork) -> None:
        self.network = network
        self.path = folder / f"{network.weights_hash}.npz"
        self._rows: dict[bytes, np.ndarray] = {}
        self._saved = 0
        if self.path.exists():
            with np.load(self.path, allow_pickle=False) as arrays:
                keys = [key.tobytes() for key in arrays["keys"]]
                self._rows = dict(zip(keys, arrays["rows"], strict=True))
            self._saved = len(self._rows)

    def of(self, images: np.ndarray) -> np.ndarray:
        """Features ``[N, F]`` float32 of uint8 images ``[N, 3, S, S]``."""
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
        missing = [number for number, key in enumerate(keys) if key not in self._rows]
        if missing:
            found = extract_features(self.network, images[missing])
            self._rows.update((keys[number], row) for number, row in zip(missing, found, strict=True))
        return np.stack([self._rows[key] for key in keys])

    def save(self) -> None:
        """Write what is new."""
        if len(self._rows) > self._saved:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            keys = np.frombuffer(b"".join(self._rows), dtype=np.uint8).reshape(len(self._rows), -1)
            unfinished = self.path.with_suffix(f".{os.getpid()}.npz")
            np.savez(unfinished, keys=keys, rows=np.stack(list(self._rows.values())))
            unfinished.replace(self.path)
            self._saved = len(self._rows)
