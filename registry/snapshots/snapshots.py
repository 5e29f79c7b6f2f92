"""What one process knows of a registry: tasks and embeddings in memory, read again where another one wrote.

Asking costs a look at the state of each table; only what has changed since is read. Threads may share it.

Axes: T versions of tasks, R rows of embeddings.
"""

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from registry.caching import LastAnswers, Together
from registry.filters import parse_where
from registry.index.neighbors import DamagedIndexError, EmbeddingRows
from registry.names import Key, Reference
from registry.records import SpaceRecord
from registry.snapshots.domain import DomainVectors
from registry.snapshots.embeddings import EmbeddingCache, KnownRows, row_keys
from registry.storage.database import Database
from registry.storage.schema import spaces_of
from registry.task_answers import NO_VERSION

TABLE = "tasks"
MAX_CHUNKS = 32  # pieces of a column, one for each time that rows were added
COLUMNS = [
    "name", "version", "kind", "num_classes", "num_samples", "tags", "aliases", "builtin", "created_at", "data",
    "removed_at",
]  # fmt: skip
NOT_EMBEDDED = -1
MASKS_KEPT = 16
DISTANCES_KEPT = 3


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The versions of tasks that are not removed; but for what is kept of questions, immutable."""

    rows: pa.Table = field(repr=False)
    latest: dict[str, int] = field(repr=False)  # position of the latest version of each name
    is_latest: NDArray[np.bool_] = field(repr=False)  # ``[T]`` bool, whether each row is one
    token: int  # state of the table
    extends: int | None = None  # token of the catalogue that these rows begin with, if they begin with one
    orders: dict[tuple[str, bool], NDArray[np.int64]] = field(default_factory=dict, repr=False)
    texts: list[pa.ChunkedArray] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        """T."""
        return len(self.rows)

    @property
    def keys(self) -> pa.ChunkedArray:
        """``name@version`` of each row."""
        return row_keys(self.rows["name"], self.rows["version"])

    def find(self, reference: str) -> int | None:
        """Position of what ``name``, ``name@version`` or ``name@alias`` names; ``None`` if it is not there."""
        if reference in self.latest:  # a name has no @
            return self.latest[reference]
        asked = Reference.parse(reference)
        if asked.name not in self.latest:
            return None
        if asked.is_latest:
            return self.latest[asked.name]
        of_name = pc.equal(self.rows["name"], asked.name).combine_chunks().to_numpy(zero_copy_only=False)
        positions = np.flatnonzero(of_name).tolist()
        aliases = self.rows["aliases"]
        fitting = (row for row in positions if asked.fits(self.key(row)[1], aliases[row].as_py()))
        return next(fitting, None)

    def key(self, position: int) -> Key:
        """Name and version of a row."""
        return self.rows["name"][position].as_py(), self.rows["version"][position].as_py()

    def answerable(self, *, builtin: bool, where: str | None) -> NDArray[np.bool_]:
        """Which rows may be answers ``[T]``: latest versions that pass a filter, see ``registry.filters``."""
        mask = self.is_latest
        if not builtin:
            mask = mask & ~self.rows["builtin"].combine_chunks().to_numpy(zero_copy_only=False)
        return mask if where is None else mask & parse_where(where).mask(self.rows)

    def order(self, column: str, *, descending: bool) -> NDArray[np.int64]:
        """Positions of all rows ``[T]`` in order of a column, ties in order of name."""
        order = self.orders.get((column, descending))
        if order is None:
            keys = [(column, "descending" if descending else "ascending")]
            keys += [] if column == "name" else [("name", "ascending")]
            order = pc.sort_indices(self.rows, sort_keys=keys).to_numpy().astype(np.int64)
            self.orders[column, descending] = order
        return order

    def tag_counts(self, mask: NDArray[np.bool_]) -> dict[str, int]:
        """How many of some rows ``[T]`` have each tag, the most first, then by name."""
        tags = pc.list_flatten(self.rows["tags"].filter(pa.array(mask))).to_pylist()
        return dict(sorted(Counter(tags).items(), key=lambda item: (-item[1], item[0])))

    def holding(self, word: str) -> NDArray[np.bool_]:
        """Which rows have a word as a part of their name or of a tag, in either case ``[T]``."""
        if not self.texts:  # a space between: no name and no tag has one
            tags = pc.binary_join(self.rows["tags"], " ")
            self.texts.append(pc.binary_join_element_wise(self.rows["name"], tags, " "))
        matches = pc.match_substring(self.texts[0], word, ignore_case=True)
        return np.asarray(matches.combine_chunks().to_numpy(zero_copy_only=False), bool)


class CatalogueCache:
    """Keeps a catalogue and refreshes it; its owner lets one thread at a time in."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._current: Catalogue | None = None
        self._known = KnownRows(database, TABLE)

    def refresh(self) -> Catalogue:
        """The catalogue as of now: the kept one, or that with the rows that were added, or read anew."""
        token = self._database.table_version(TABLE)  # before the rows: a stale token only costs time
        if self._current is None or self._current.token != token:
            before = self._current
            self._current = (self._extended(before, token) if before else None) or self._read(token)
        return self._current

    def _read(self, token: int) -> Catalogue:
        rows = self._database.read(TABLE, columns=COLUMNS, row_ids=True).combine_chunks()
        self._known.replace(rows)
        rows = rows.filter(pc.equal(rows["removed_at"], ""))
        latest, is_latest = _latest(rows, 0, {}, np.zeros(0, dtype=bool))
        return Catalogue(rows, latest, is_latest, token)

    def _extended(self, before: Catalogue, token: int) -> Catalogue | None:
        """The rows of before and those added since; ``None`` where one of them was changed, moved or deleted.

        It is ``None`` too where the table changed meanwhile: rows of one moment and their count of another may
        agree by chance.
        """
        added = self._known.read_added(COLUMNS)
        if (
            added is None
            or self._database.table_version(TABLE) != token
            or pc.any(pc.not_equal(added["removed_at"], "")).as_py()
        ):
            return None
        self._known.add(added)
        rows = pa.concat_tables([before.rows, added])
        rows = rows.combine_chunks() if rows["name"].num_chunks > MAX_CHUNKS else rows
        latest, is_latest = _latest(rows, len(before), before.latest, before.is_latest)
        return Catalogue(rows, latest, is_latest, token, extends=before.token)


def _latest(
    rows: pa.Table, first: int, before: dict[str, int], mask_before: NDArray[np.bool_]
) -> tuple[dict[str, int], NDArray[np.bool_]]:
    """Positions and mask of the latest versions of all names, given those of the rows before ``first``."""
    latest, versions = dict(before), rows["version"]
    best: dict[str, int] = {}
    added = zip(rows["name"][first:].to_pylist(), versions[first:].to_pylist(), strict=True)
    for position, (name, version) in enumerate(added, first):
        if name not in best:
            best[name] = versions[latest[name]].as_py() if name in latest else 0
        if version >= best[name]:
            best[name], latest[name] = version, position
    mask = np.zeros(len(rows), dtype=bool)
    mask[:first] = mask_before
    mask[[before[name] for name in best if name in before]] = False
    mask[[latest[name] for name in best]] = True
    return latest, mask


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
        pairs: Distances of pairs of tasks, rising, by the name of the distance.
    """

    catalogue: Catalogue
    rows: EmbeddingRows
    row_of: NDArray[np.int64] = field(repr=False)
    position_of: NDArray[np.int64] = field(repr=False)
    masks: LastAnswers = field(default_factory=partial(LastAnswers, MASKS_KEPT), repr=False)
    between: LastAnswers = field(default_factory=partial(LastAnswers, DISTANCES_KEPT), repr=False)
    pairs: LastAnswers = field(default_factory=partial(LastAnswers, MASKS_KEPT), repr=False)

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

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._start_anew()
        self._asked: dict[str, Together[Snapshot]] = {}
        self._asked_for_tasks: Together[Catalogue] = Together()
        self._asked_for_version: Together[str] = Together()
        self._spaces: tuple[int, list[SpaceRecord]] | None = None

    def _start_anew(self) -> None:
        """Know nothing, of the registry that is in place now."""
        self._generation = self._database.generation
        self._catalogue = CatalogueCache(self._database)
        self._embeddings: dict[str, EmbeddingCache] = {}
        self._domains: dict[str, DomainVectors] = {}
        self._snapshots: dict[str, Snapshot] = {}

    def _refreshed_catalogue(self) -> Catalogue:
        """The tasks as of now; where another registry was put in place, nothing of the former one is kept."""
        self._database.table_version(TABLE)
        if self._generation != self._database.generation:
            self._start_anew()
        return self._catalogue.refresh()

    def spaces(self) -> list[SpaceRecord]:
        """All spaces, sorted by id."""
        token = self._database.table_version("spaces")
        kept = self._spaces
        if kept is None or kept[0] != token:
            self._spaces = kept = (token, spaces_of(self._database.read("spaces")))
        return kept[1]

    def version(self) -> str:
        """A text that changes with every write; ``NO_VERSION`` where there is no registry."""
        return self._asked_for_version.ask(self._version)

    def _version(self) -> str:
        database = self._database
        if not database.is_present():
            return NO_VERSION
        return hashlib.blake2b(database.state().encode(), digest_size=12).hexdigest()

    def catalogue(self) -> Catalogue:
        """The tasks as of now."""

        def refresh() -> Catalogue:
            with self._lock:
                return self._refreshed_catalogue()

        return self._asked_for_tasks.ask(refresh)

    def of(self, space: SpaceRecord) -> Snapshot:
        """The tasks and embeddings of a space as of now, with all that was acknowledged before."""
        with self._lock:
            asked = self._asked.setdefault(space.space_id, Together())
        return asked.ask(lambda: self._refreshed(space))

    def _refreshed(self, space: SpaceRecord) -> Snapshot:
        with self._lock:
            # The tasks first: one that is added meanwhile is left out, not shown without its embedding.
            catalogue = self._refreshed_catalogue()
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
