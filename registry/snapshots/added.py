"""Which rows of a table are known, so that only those that were added since are read."""

import pyarrow as pa
import pyarrow.compute as pc

from registry.storage.database import Database


class KnownRows:
    """Which rows of a table are known, so that only those that are added later need to be read.

    LanceDB gives added rows higher ids. It also gives new ids to rows that it changes or moves into other
    files, but then known ones are gone, and the table has fewer rows than are known and seem to be added.

    Attributes:
        count: How many are known.
    """

    def __init__(self, database: Database, table: str) -> None:
        self.count = 0
        self._database = database
        self._table = table
        self._last_row_id = -1

    def read_added(self, columns: list[str], *, trust_large_files: bool = False) -> pa.Table:
        """Rows that were added after those that are known, with ``_rowid``; see ``Database.read``."""
        where = f"_rowid > {self._last_row_id}"
        return self._database.read(
            self._table, columns=columns, where=where, row_ids=True, trust_large_files=trust_large_files
        )

    def are_all_but(self, added: pa.Table) -> bool:
        """Whether the table holds what is known and these rows, and nothing was changed, moved or deleted."""
        return self.count + len(added) == self._database.count_rows(self._table)

    def add(self, rows: pa.Table) -> None:
        """Know further rows, which have their ``_rowid``."""
        self.count += len(rows)
        highest = pc.max(rows["_rowid"]).as_py()
        self._last_row_id = self._last_row_id if highest is None else highest

    def replace(self, rows: pa.Table) -> None:
        """Know these rows and no others."""
        self.count = 0
        self.add(rows)
