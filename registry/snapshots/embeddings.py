"""Keeps the embeddings of one space up to date with their table, and indexed where they are many.

Below ``EXACT_BELOW`` rows all are in memory. Above, those that the index files hold are mapped from there, and
only what was added since is in memory, until it is enough to be worth a save. A row is never changed: the row
of an embedding that was deleted stays, without a key, and one that replaced another is a further row.

Axes: R rows, N further rows, D filters of the probe.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from registry.errors import StorageError
from registry.index import neighbors
from registry.index.files import BusyIndexError, IndexFiles, SavedIndex, UnusableIndexError
from registry.index.neighbors import (
    BATCH_ROWS,
    NO_KEY,
    DamagedIndexError,
    EmbeddingRows,
    Float32,
    KeptDistances,
)
from registry.index.vector_index import VectorIndex
from registry.records import SpaceRecord
from registry.storage import schema
from registry.storage.database import Database

KEY_COLUMNS = [*schema.EMBEDDING_KEY, "checksum"]
COLUMNS = [*KEY_COLUMNS, "fisher"]
MAX_GROWTH = 2  # the index is built again once the rows have doubled
ROOM = 1.25  # of memory for rows, as much as they take: those that are added need not move the others
MORE_MEANWHILE = 64  # rows, beside those that were counted, that are read where they seem to be added
SAVE_ROWS = 5000  # rows in memory that are worth a save
SAVE_SHARE = 0.02  # or, where that is more, this share of the rows of the index

logger = logging.getLogger(__name__)


class KnownRows:
    """Which rows of a table are known, so that only those that are added later need to be read.

    LanceDB gives added rows higher ids. It also gives new ids to rows that it changes or moves into other
    files, but then known ones are gone, and the table has fewer rows than are known and seem to be added. After
    an undo there may be as many, but the last one that is known is gone.
    """

    def __init__(self, database: Database, table: str) -> None:
        self.count = 0
        self._database = database
        self._table = table
        self._last_row_id = -1

    def read_added(self, columns: list[str]) -> pa.Table | None:
        """The rows that were added, with ``_rowid``; ``None`` if known ones were changed, moved or deleted.

        After a compaction all rows seem to be added, of which no more are read than are too many.
        """
        last, added = self._last_row_id, self._database.count_rows(self._table) - self.count
        if added <= 0:
            return None
        most, where = added + MORE_MEANWHILE, f"_rowid >= {last}"
        rows = self._database.read(self._table, columns=columns, where=where, row_ids=True, most=most)
        if last >= 0:
            is_last = pc.equal(rows["_rowid"], pa.scalar(last, pa.uint64()))
            if not pc.any(is_last).as_py():
                return None
            rows = rows.filter(pc.invert(is_last))
        return rows if self.count + len(rows) == self._database.count_rows(self._table) else None

    def add(self, rows: pa.Table) -> None:
        """Know further rows, which have their ``_rowid``."""
        self.count += len(rows)
        highest = pc.max(rows["_rowid"]).as_py()
        self._last_row_id = self._last_row_id if highest is None else highest

    def replace(self, rows: pa.Table) -> None:
        """Know these rows and no others."""
        self.count, self._last_row_id = 0, -1
        self.add(rows)


class EmbeddingCache:
    """Keeps the rows of one space and refreshes them; its owner lets one thread at a time in."""

    def __init__(self, database: Database, space: SpaceRecord) -> None:
        self._database = database
        self._table = schema.embeddings_table_name(space.space_id)
        self._dim = len(space.trivial)
        self._space_id = space.space_id
        self._refused = ""  # generation of files that are damaged or outgrown
        self._outgrown_rows = 0  # when the index was last found outgrown, built again or not
        self._current: EmbeddingRows | None
        self._saved: SavedIndex | None
        self._memory: Float32
        self._room: Float32  # which the rows in memory are the first of
        self._distances: KeptDistances
        self._forget()

    @cached_property
    def _files(self) -> IndexFiles:
        """The files of the index; few rows have none."""
        registry_id = self._database.registry_id()
        return IndexFiles(self._database.place.cache_folder(registry_id), registry_id, self._space_id)

    def refresh(self) -> EmbeddingRows:
        """The rows as of now; a ``StorageError`` if the table cannot be read or holds what is no embedding."""
        token = self._database.table_version(self._table)  # before the rows: a stale token only costs time
        if self._current is None or self._current.token != token:
            before = self._current
            if before is None:
                self._open_index()
            only_added = self._take_added()
            if not only_added:
                self._reconcile()
            self._tend_index()
            grown = before if only_added and before and before.saved is self._saved else None
            self._current = self._snapshot(token, extends=grown.token if grown else None)
        return self._current

    def discard_index(self, damage: DamagedIndexError) -> None:
        """Have the next ``refresh`` build the index again, if it is the damaged one that is in use."""
        if self._saved is None or self._saved.generation != damage.generation:
            return
        logger.warning("the index of %s is built again: row %d is damaged", self._table, damage.row)
        # Refused by name: the files may be in use elsewhere, built again there already, or not be writable.
        self._refused = damage.generation
        self._forget()

    def _forget(self) -> None:
        """Know no row, as in the beginning."""
        self._current = self._saved = None
        self._identities = self._keys = pa.array([], pa.string())
        self._remember(np.empty((0, self._dim), np.float32))
        self._known = KnownRows(self._database, self._table)

    def _snapshot(self, token: int, *, extends: int | None) -> EmbeddingRows:
        projected = self._saved.index.project(self._memory) if self._saved else None
        known = self._keys, self._memory, self._saved, projected, token, extends, self._distances
        return EmbeddingRows(*known, identities=self._identities)

    # Reading the table

    def _take_added(self) -> bool:
        """Take the rows that were added; false where known ones were moved, changed or deleted too."""
        if self._known.count == 0:
            return False
        added = self._known.read_added(COLUMNS)
        if added is None:
            return False
        self._add([added])
        self._known.add(added)
        return True

    def _reconcile(self) -> None:
        """Compare what is known with all keys of the table: take what is missing, drop keys of what is gone."""
        listed = self._database.read(self._table, columns=KEY_COLUMNS, row_ids=True, trust_large_files=True)
        identities = identities_of(listed)
        gone = pc.invert(pc.is_in(self._identities, value_set=identities))
        self._keys = pc.if_else(gone, NO_KEY, keys_of(self._identities))
        missing = listed.filter(pc.invert(pc.is_in(identities, value_set=self._identities)))
        self._add(self._embeddings_of(missing, len(listed)))
        self._known.replace(listed)

    def _embeddings_of(self, missing: pa.Table, num_rows: int) -> list[pa.Table]:
        """The embeddings of listed rows that are still there; where most are missing, all are read."""
        if 2 * len(missing) <= num_rows:
            batches = list(self._chosen_batches(missing["_rowid"].combine_chunks()))
            if sum(map(len, batches)) == len(missing):
                return batches
        # Or they were moved since they were listed, so that their ids are others now.
        wanted = identities_of(missing)
        every = self._database.read_batches(self._table, columns=COLUMNS, batch_rows=BATCH_ROWS)
        return [batch.filter(pc.is_in(identities_of(batch), value_set=wanted)) for batch in every]

    def _chosen_batches(self, row_ids: pa.UInt64Array) -> Iterator[pa.Table]:
        for start in range(0, len(row_ids), BATCH_ROWS):
            chosen = ", ".join(map(str, row_ids[start : start + BATCH_ROWS].to_pylist()))
            where = f"_rowid in ({chosen})"
            yield self._database.read(self._table, columns=COLUMNS, where=where, row_ids=True)

    def _add(self, batches: Sequence[pa.Table]) -> None:
        """Append rows in memory."""
        vectors = [self._valid(batch) for batch in batches if len(batch)]
        if vectors:
            identities = pa.chunked_array([self._identities, *map(identities_of, batches)]).combine_chunks()
            further = keys_of(identities[len(self._identities) :])
            self._keys = pa.chunked_array([self._keys, further]).combine_chunks()
            self._identities = identities
            self._append(vectors)

    def _append(self, vectors: Sequence[Float32]) -> None:
        """Write rows after those in memory, into room that nobody who has these looks at."""
        start = len(self._memory)
        size = start + sum(map(len, vectors))
        if size > len(self._room):
            self._room = np.empty((int(ROOM * size), self._dim), np.float32)
            self._room[:start] = self._memory
        self._room[start:size] = np.concatenate(vectors)
        self._memory = self._room[:size]

    def _remember(self, memory: Float32) -> None:
        """Have these rows in memory, and know no distance from them."""
        self._memory = self._room = memory
        self._distances = KeptDistances()

    def _valid(self, rows: pa.Table) -> Float32:
        """Embeddings ``[N, D]`` of rows; ``StorageError`` if one is none."""
        fisher = schema.matrix(rows["fisher"])
        valid = np.isfinite(fisher).all(axis=1) & (fisher >= 0).all(axis=1)
        if not valid.all():
            bad = keys_of(identities_of(rows))[int(np.flatnonzero(~valid)[0])]
            raise StorageError(
                f"{self._database.uri}: table {self._table}: the embedding of task {bad} must be finite and "
                "non-negative; run `t2v verify --repair`"
            )
        return fisher

    # The index

    def _open_index(self) -> None:
        """Take the rows of the saved index where there are many rows, or build it."""
        if self._database.count_rows(self._table) < neighbors.EXACT_BELOW:
            return
        try:
            self._adopt_files()
        except UnusableIndexError as err:
            self._build(str(err))

    def _adopt_files(self) -> None:
        """Know the rows of the index files alone; ``UnusableIndexError`` if that cannot be."""
        saved = self._files.load()
        if saved.generation == self._refused:
            raise UnusableIndexError("damaged or outgrown")
        if saved.vectors.shape[1] != self._dim:
            raise UnusableIndexError(f"of {saved.vectors.shape[1]} filters")
        self._forget()
        self._saved, self._identities, self._keys = saved, saved.identities, keys_of(saved.identities)

    def _build(self, reason: str) -> None:
        """Write the vectors of the whole table to a file and index them; nothing where there can be no file."""
        logger.info("the index of %s is built, not loaded: the saved one is %s", self._table, reason)
        with self._index_errors(), self._files.writing(wait=True):
            with suppress(UnusableIndexError):
                self._adopt_files()  # another process built it while this one waited
                return
            writer, identities = self._files.new_vectors(self._dim), []
            for batch in self._database.read_batches(self._table, columns=COLUMNS, batch_rows=BATCH_ROWS):
                writer.append(self._valid(batch))
                identities.append(identities_of(batch))
            index = VectorIndex.build(writer.mapped())
            self._files.save(index, pa.chunked_array(identities), writer, built_rows=len(index))
            self._adopt_files()

    @contextmanager
    def _index_errors(self) -> Iterator[None]:
        """Go on without an index that cannot be read or written; ``StorageError`` if it is the table."""
        try:
            yield
        except StorageError:
            raise
        except (OSError, BusyIndexError, UnusableIndexError) as err:
            logger.warning("the index of %s is not kept: %s", self._table, err)

    def _tend_index(self) -> None:
        """Build the index once there are many rows, again once they have doubled; save what was added."""
        num_rows, in_memory = len(self._keys), len(self._memory)
        if self._saved is None:
            if num_rows >= neighbors.EXACT_BELOW:
                self._index_memory()
        elif num_rows > MAX_GROWTH * max(self._saved.built_rows, self._outgrown_rows):
            self._outgrown_rows = num_rows
            self._replace_outgrown(self._saved)
        elif in_memory >= max(SAVE_ROWS, SAVE_SHARE * num_rows):
            self._save_added()

    def _replace_outgrown(self, saved: SavedIndex) -> None:
        """Build the index again; where there can be no file, one in memory, or go on with the saved one."""
        before, self._refused = self._refused, saved.generation
        self._build("outgrown")
        if self._saved is not saved:
            self._reconcile()
            return
        self._refused = before
        if not saved.generation:
            self._remember(np.concatenate([saved.vectors, self._memory]))
            self._index_memory()

    def _index_memory(self) -> None:
        """Move the rows in memory under an index: for a table that grew while it was open, or has no folder."""
        rows, checksums = self._memory, np.zeros(len(self._memory), np.uint64)
        index = VectorIndex.build(rows)
        verified = np.ones(len(rows), dtype=bool)
        self._saved = SavedIndex(rows, self._identities, checksums, index, len(rows), "", verified)
        self._remember(np.empty((0, self._dim), np.float32))

    def _save_added(self) -> None:
        """Append the rows in memory to the files, unless somebody else does."""
        saved = self._saved
        if saved is None or not saved.generation:
            return
        with self._index_errors(), self._files.writing(wait=False):
            if self._files.generation() == f"{saved.generation}:{len(saved.vectors)}":
                writer = self._files.further_vectors(saved)
                writer.append(self._memory)
                index = saved.index.extended(self._memory)
                identities = pa.chunked_array([self._identities])
                self._files.save(index, identities, writer, built_rows=saved.built_rows)
            self._adopt_files()
            self._reconcile()


def row_keys(names: pa.ChunkedArray, versions: pa.ChunkedArray) -> pa.ChunkedArray:
    """``name@version`` of each row; ``@`` is part of no name."""
    return pc.binary_join_element_wise(names, pc.cast(versions, pa.string()), "@")


def identities_of(rows: pa.Table) -> pa.StringArray:
    """``name@version:checksum`` of rows: two rows with one identity hold the same."""
    keys = row_keys(rows["task"], rows["version"])
    joined = pc.binary_join_element_wise(keys, pc.cast(rows["checksum"], pa.string()), ":")
    return joined.combine_chunks()


def keys_of(identities: pa.StringArray) -> pa.StringArray:
    """``name@version`` of identities."""
    return pc.replace_substring_regex(identities, ":[0-9]*$", "")
