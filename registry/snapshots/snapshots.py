"""What one process knows of a registry: tasks and embeddings in memory, read again where another one wrote.

Asking costs a look at the state of each table; only what has changed since is read. Threads may share it.

Axes: T versions of tasks, R rows of embeddings.
"""

import hashlib
import threading
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from registry.caching import LastAnswers, Together
from registry.index.neighbors import DamagedIndexError, EmbeddingRows
from registry.records import SpaceRecord
from registry.snapshots.catalogue import Catalogue, CatalogueCache, row_keys
from registry.snapshots.domain import DomainVectors
from registry.snapshots.embeddings import EmbeddingCache
from registry.storage.store import Store
from registry.task_answers import NO_VERSION

NOT_EMBEDDED = -1
MASKS_KEPT = 16
DISTANCES_KEPT = 3


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The tasks and embeddings of one space as they were at one moment; but for its masks, immutable.

    Attributes:
        catalogue: T tasks.
        rows: R embeddings.
        row_of: ``[T]`` row of each task, or ``NOT_EMBEDDED``.
        position_of: ``[R]`` position of the task in each row; that of no task in particular where it has none.
        masks: Masks of the filters that were asked for last.
        between: Distances between some tasks that were asked for last, by descriptor.
    """

    catalogue: Catalogue
    rows: EmbeddingRows
    row_of: NDArray[np.int64] = field(repr=False)
    position_of: NDArray[np.int64] = field(repr=False)
    masks: LastAnswers = field(default_factory=partial(LastAnswers, MASKS_KEPT), repr=False)
    between: LastAnswers = field(default_factory=partial(LastAnswers, DISTANCES_KEPT), repr=False)

    @classmethod
    def of(cls, catalogue: Catalogue, rows: EmbeddingRows) -> "Snapshot":
        """Find the row of each task; of rows with the same key, the last."""
        backwards = rows.keys[::-1]
        places = pc.index_in(catalogue.keys, value_set=backwards).combine_chunks()
        indices = pc.fill_null(places, len(rows)).to_numpy().astype(np.int64)
        row_of = np.where(indices < len(rows), len(rows) - 1 - indices, NOT_EMBEDDED)
        embedded = row_of != NOT_EMBEDDED
        position_of = np.zeros(len(rows), np.int64)
        position_of[row_of[embedded]] = np.flatnonzero(embedded)
        return cls(catalogue, rows, row_of, position_of)

    def followed_by(self, catalogue: Catalogue, rows: EmbeddingRows) -> "Snapshot":
        """The snapshot of a later moment; where tasks were only added with their rows, from this one."""
        further = self._further(catalogue, rows)
        if further is None:
            return Snapshot.of(catalogue, rows)
        positions = np.arange(len(self.catalogue), len(catalogue))
        position_of = np.zeros(len(rows), np.int64)
        position_of[: len(self.rows)] = self.position_of
        position_of[further] = positions
        return Snapshot(catalogue, rows, np.concatenate([self.row_of, further]), position_of)

    def _further(self, catalogue: Catalogue, rows: EmbeddingRows) -> NDArray[np.int64] | None:
        """Rows of the tasks after those of this snapshot; ``None`` where more than that has changed."""
        if catalogue.extends != self.catalogue.token or rows.extends != self.rows.token:
            return None
        added = rows.keys[len(self.rows) :]
        names, versions = (catalogue.rows[column][len(self.catalogue) :] for column in ("name", "version"))
        places = pc.index_in(row_keys(names, versions), value_set=added).combine_chunks()
        if places.null_count or not len(places) == len(pc.unique(places)) == len(added):
            return None
        return np.asarray(places.to_numpy(), np.int64) + len(self.rows)

    def answerable(self, *, builtin: bool, where: str | None) -> NDArray[np.bool_]:
        """Rows ``[R]`` of the latest versions that pass a filter, see ``registry.filters``."""

        def make() -> NDArray[np.bool_]:
            of_tasks = self.catalogue.answerable(builtin=builtin, where=where)
            mask = np.zeros(len(self.rows), dtype=bool)
            mask[self.row_of[of_tasks & (self.row_of != NOT_EMBEDDED)]] = True
            return mask

        return self.masks.get((builtin, where), make)


class Snapshots:
    """Gives the snapshot of a space as of now."""

    def __init__(self, store: Store) -> None:
        self._database = store.database
        self._store = store
        self._lock = threading.Lock()
        self._catalogue = CatalogueCache(store.database)
        self._embeddings: dict[str, EmbeddingCache] = {}
        self._domains: dict[str, DomainVectors] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._asked: dict[str, Together[Snapshot]] = {}
        self._asked_for_tasks: Together[Catalogue] = Together()
        self._asked_for_version: Together[str] = Together()
        self._spaces: tuple[int, list[SpaceRecord]] | None = None

    def spaces(self) -> list[SpaceRecord]:
        """All spaces, sorted by id."""
        token = self._database.table_version("spaces")
        kept = self._spaces
        if kept is None or kept[0] != token:
            self._spaces = kept = (token, self._store.spaces())
        return kept[1]

    def version(self) -> str:
        """A text that changes with every write; ``NO_VERSION`` where there is no registry."""
        return self._asked_for_version.ask(self._version)

    def _version(self) -> str:
        database = self._database
        if not database.is_present():
            return NO_VERSION
        states = (f"{name}:{database.table_version(name)}" for name in database.table_names())
        return hashlib.blake2b(" ".join((database.registry_id(), *states)).encode(), digest_size=12).hexdigest()

    def catalogue(self) -> Catalogue:
        """The tasks as of now."""

        def refresh() -> Catalogue:
            with self._lock:
                return self._catalogue.refresh()

        return self._asked_for_tasks.ask(refresh)

    def of(self, space: SpaceRecord) -> Snapshot:
        """The tasks and embeddings of a space as of now, with all that was acknowledged before."""
        with self._lock:
            asked = self._asked.setdefault(space.space_id, Together())
        return asked.ask(lambda: self._refreshed(space))

    def _refreshed(self, space: SpaceRecord) -> Snapshot:
        with self._lock:
            # The tasks first: one that is added meanwhile is left out, not shown without its embedding.
            catalogue = self._catalogue.refresh()
            if space.space_id not in self._embeddings:
                self._embeddings[space.space_id] = EmbeddingCache(self._database, space)
            rows = self._embeddings[space.space_id].refresh()
            snapshot = self._snapshots.get(space.space_id)
            if snapshot is None or snapshot.catalogue is not catalogue or snapshot.rows is not rows:
                snapshot = snapshot.followed_by(catalogue, rows) if snapshot else Snapshot.of(catalogue, rows)
                self._snapshots[space.space_id] = snapshot
            return snapshot

    def domains(self, space: SpaceRecord) -> DomainVectors:
        """The domain embeddings in a space."""
        with self._lock:
            return self._domains.setdefault(space.space_id, DomainVectors(self._database, space.space_id))

    def discard_index(self, damage: DamagedIndexError) -> None:
        """Have the index that is damaged built again, with the next question about its space."""
        with self._lock:
            for embeddings in self._embeddings.values():
                embeddings.discard_index(damage)
