"""The registered tasks as columns in memory, brought up to date when another process writes.

Axes: T versions of tasks.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from registry.filters import parse_where
from registry.names import Key, Reference
from registry.storage.database import Database, KnownRows

TABLE = "tasks"
MAX_CHUNKS = 32  # pieces of a column, one for each time that rows were added
COLUMNS = [
    "name",
    "version",
    "kind",
    "num_classes",
    "num_samples",
    "tags",
    "aliases",
    "builtin",
    "created_at",
    "data",
    "removed_at",
]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The versions of tasks that are not removed; but for what is kept of questions, immutable.

    Attributes:
        rows: T rows of ``COLUMNS``.
        latest: Position of the latest version of each name.
        is_latest: ``[T]`` bool, whether each row is one.
        token: State of the table.
        extends: Token of the catalogue that these rows begin with, if they begin with one.
        orders: Orders of the rows that were asked for.
        texts: What is searched, once it was asked for.
    """

    rows: pa.Table = field(repr=False)
    latest: dict[str, int] = field(repr=False)
    is_latest: NDArray[np.bool_] = field(repr=False)
    token: int
    extends: int | None = None
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
            not self._known.are_all_but(added)
            or self._database.table_version(TABLE) != token
            or pc.any(pc.not_equal(added["removed_at"], "")).as_py()
        ):
            return None
        self._known.add(added)
        rows = pa.concat_tables([before.rows, added])
        rows = rows.combine_chunks() if rows["name"].num_chunks > MAX_CHUNKS else rows
        latest, is_latest = _latest(rows, len(before), before.latest, before.is_latest)
        return Catalogue(rows, latest, is_latest, token, extends=before.token)


def row_keys(names: pa.ChunkedArray, versions: pa.ChunkedArray) -> pa.ChunkedArray:
    """``name@version`` of each row; ``@`` is part of no name."""
    return pc.binary_join_element_wise(names, pc.cast(versions, pa.string()), "@")


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
