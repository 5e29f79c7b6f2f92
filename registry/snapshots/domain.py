"""Domain embeddings of the few tasks that a question needs: read from the table, kept while it is unchanged.

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
    """Gives the mean feature of tasks in one space."""

    def __init__(self, database: Database, space_id: str) -> None:
        self._database = database
        self._table = schema.embeddings_table_name(space_id)
        self._lock = threading.Lock()
        self._token: int | None = None
        self._vectors: dict[Key, NDArray[np.float32]] = {}

    def of(self, keys: Sequence[Key], token: int) -> NDArray[np.float32]:
        """Mean features ``[N, F]`` of versions of tasks that are embedded.

        Args:
            keys: At least one.
            token: State of the table in which they were seen; where it is another one, all are read again.

        Raises:
            StorageError: If one is not there any more.
        """
        with self._lock:
            if token != self._token:
                self._vectors.clear()
                self._token = token
            missing = {name for name, version in keys if (name, version) not in self._vectors}
            if missing:
                self._read(missing)
            if gone := [key for key in keys if key not in self._vectors]:
                name, version = gone[0]
                raise StorageError(
                    f"{self._database.uri}: the embedding of {name}@{version} was removed meanwhile; ask again"
                )
            return np.stack([self._vectors[key] for key in keys])

    def _read(self, names: set[str]) -> None:
        columns = [*schema.EMBEDDING_KEY, "domain"]
        rows = self._database.read(self._table, columns=columns, where=among("task", names))
        domains = schema.matrix(rows["domain"])
        self._vectors.update(zip(schema.table_keys(rows), domains, strict=True))
