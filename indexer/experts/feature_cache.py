"""Features that were computed before, on disk: of bounded size, trusted only where the checksum says so.

An entry is one file: the blake2b of its key and of what follows, then safetensors. Files are moved into place,
so that a reader meets whole ones; whatever is wrong with one, its features are computed anew.

Axes: N samples, F features.
"""

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

MAX_BYTES = 2 * 2**30
_DIGEST_SIZE = 32
_SUFFIX = ".features"

Entry = tuple[np.ndarray, np.ndarray]
"""Features ``[N, F]`` and labels ``[N, ...]``."""


def default_folder() -> Path:
    """Where features are kept: ``$XDG_CACHE_HOME/task2vec/features``, or below ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "task2vec" / "features"


@dataclass(frozen=True)
class FeatureCache:
    """A folder of features; it need not be there, nor be writable."""

    folder: Path  # where the files are
    max_bytes: int = MAX_BYTES  # most that they take together; those used longest ago are deleted first

    def get(self, key: str) -> Entry | None:
        """What is kept under that key, or ``None`` if there is nothing, or it is damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)  # its time is when it was used last
        except OSError:
            return None
        digest, body = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if digest != _digest(key, body):
            return None
        try:
            arrays = load(body)
        except SafetensorError:  # a file made to have that digest
            return None
        if arrays.keys() != {"features", "labels"} or len(arrays["features"]) != len(arrays["labels"]):
            return None
        return arrays["features"], arrays["labels"]

    def put(self, key: str, features: np.ndarray, labels: np.ndarray) -> None:
        """Keep features and labels; nothing is kept where the disk is full or may not be written."""
        arrays = {"features": np.ascontiguousarray(features), "labels": np.ascontiguousarray(labels)}
        body = save(arrays)
        if len(body) + _DIGEST_SIZE > self.max_bytes:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(self._path(key), _digest(key, body) + body)
            self._keep_within()

    def _write(self, path: Path, content: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".tmp", delete=False) as file:
            try:
                file.write(content)
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def _keep_within(self) -> None:
        """Delete what was used longest ago until the rest is within ``max_bytes``; leftovers of kills too."""
        files = []
        for path in self.folder.iterdir():
            if path.suffix in {_SUFFIX, ".tmp"}:
                with contextlib.suppress(FileNotFoundError):  # another process deletes too
                    files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, key: str) -> Path:
        return self.folder / (hashlib.blake2b(key.encode(), digest_size=16).hexdigest() + _SUFFIX)


def _digest(key: str, body: bytes) -> bytes:
    """Checksum of a body and its key, so that a file under another name is not taken for its own."""
    return hashlib.blake2b(key.encode() + b"\0" + body, digest_size=_DIGEST_SIZE).digest()
