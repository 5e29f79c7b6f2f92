"""Domain embeddings and head scores of the few tasks that a question needs, kept while the table is unchanged.

Axes: N tasks, F features of the probe.
"""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from registry.errors import StorageError
from registry.names import Key
from registry.storage import schema
from registry.storage.database import Database
from registry.storage.rows import among


class DomainVectors:
    """Gives the mean feature of tasks in one space, and the score of the head fitted on them."""

    def __init__(self, database: Database, space_id: str) -> None:
        self._database = database
        self._table = schema.embeddings_table_name(space_id)
        self._lock = threading.Lock()
        self._token: int | None = None
        self._vectors: dict[Key, NDArray[np.float32]] = {}
        self._heads: dict[Key, float] = {}

    def heads(self, keys: Sequence[Key], token: int) -> list[float]:
        """Held-out scores of the probe's head on versions of tasks that are embedded, see ``of``."""
        with self._lock:
            self._refresh(keys, token)
            return [self._heads[key] for key in keys]

    def of(self, keys: Sequence[Key], token: int) -> NDArray[np.float32]:
        """Mean features ``[N, F]`` of embedded versions of tasks; ``StorageError`` if one is gone."""
        with self._lock:
            self._refresh(keys, token)
            return np.stack([self._vectors[key] for key in keys])

    def _refresh(self, keys: Sequence[Key], token: int) -> None:
        """Read what is not known of some tasks; ``StorageError`` if one is not there any more."""
        if token != self._token:
            self._vectors.clear()
            self._heads.clear()
            self._token = token
        missing = {name for name, version in keys if (name, version) not in self._vectors}
        if missing:
            self._read(missing)
        if gone := [key for key in keys if key not in self._vectors]:
            name, version = gone[0]
            raise StorageError(
                f"{self._database.uri}: the embedding of {name}@{version} was removed meanwhile; ask again"
            )

    def _read(self, names: set[str]) -> None:
        columns = [*schema.EMBEDDING_KEY, "domain", "head_accuracy"]
        rows = self._database.read(self._table, columns=columns, where=among("task", names))
        domains = schema.matrix(rows["domain"])
        keys = schema.table_keys(rows)
        self._vectors.update(zip(keys, domains, strict=True))
        self._heads.update(zip(keys, rows["head_accuracy"].to_pylist(), strict=True))
