"""The embeddings in the spaces of a registry, as the store keeps them.

Axes: T embeddings, D filters of the probe, F features of the probe.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress

from registry.errors import InvalidRecordError, NotFoundError, StorageError
from registry.names import Key
from registry.records import EmbeddingRecord
from registry.storage import schema
from registry.storage.database import quoted
from registry.storage.rows import PRESENT, StoredRows, among
from registry.storage.schema import EmbeddingTable


class StoredEmbeddings(StoredRows):
    """The embeddings in each space."""

    def embedding(self, space_id: str, task: str, version: int) -> EmbeddingRecord | None:
        """The embedding of a task version, or ``None`` where task, space or embedding is not there.

        Raises:
            StorageError: If it is not what its checksum was made of.
        """
        if not self.database.has_table(schema.embeddings_table_name(space_id)):
            return None
        if not self._task_keys(where=f"name = {quoted(task)} and version = {version} and {PRESENT}"):
            return None
        name = schema.embeddings_table_name(space_id)
        where = f"task = {quoted(task)} and version = {version}"
        # The file may be huge, and one row is wanted: that is checked instead, unless there seems to be none.
        rows = self.database.read(name, where=where, trust_large_files=True)
        rows = rows if len(rows) else self.database.read(name, where=where)
        try:
            records = schema.from_arrow(EmbeddingRecord, rows.slice(max(len(rows) - 1, 0)))
        except InvalidRecordError as err:
            raise StorageError(
                f"{self.database.uri}: table {name} is damaged: {err}; restore the registry from a copy"
            ) from err
        return records[0] if records else None

    def embedded_keys(self, space_id: str, names: Collection[str]) -> set[Key]:
        """Names and versions of the tasks of some names that have an embedding in a space."""
        name = schema.embeddings_table_name(space_id)
        if not names or not self.database.has_table(name):
            return set()
        rows = self.database.read(name, columns=schema.EMBEDDING_KEY, where=among("task", names))
        return {key for key in schema.table_keys(rows) if key[0] in names}

    def embeddings(self, space_id: str) -> EmbeddingTable:
        """Embeddings of all versions of the tasks that are not removed, in one space.

        Rows are in order of ``keys``. A space that is not there is a ``NotFoundError``.
        """
        name = self._embeddings_table(space_id)
        # The tasks are read first: one that is added meanwhile is left out, not shown without its embedding.
        committed = set(self._task_keys())
        columns = [*schema.EMBEDDING_KEY, "fisher", "domain"]
        return EmbeddingTable.from_arrow(self.database.read(name, columns=columns), committed)

    def _embeddings_table(self, space_id: str) -> str:
        """Name of the embeddings table of a space.

        Raises:
            NotFoundError: If there is no such space.
        """
        name = schema.embeddings_table_name(space_id)
        if not self.database.has_table(name):
            raise NotFoundError("space", space_id, (space.space_id for space in self.spaces()))
        return name

    def _check_widths(self, space_id: str, embeddings: Sequence[EmbeddingRecord]) -> None:
        """Check that embeddings fit a space.

        Raises:
            InvalidRecordError: If one does not.
        """
        space = self.space(space_id)
        expected = (space.dim, space.dim, space.domain_dim)
        for embedding in embeddings:
            widths = (len(embedding.fisher), len(embedding.standard_error), len(embedding.domain))
            if widths != expected:
                raise InvalidRecordError(
                    f"embedding of task {embedding.task}: the widths of fisher, standard_error and domain must "
                    f"be {expected} in space {space_id}, got {widths}"
                )

    def _remove_embeddings(self, keys: set[Key]) -> None:
        """Delete the embeddings of keys in every space: what a killed writer left, or what is purged."""
        where = among("task", {name for name, _ in keys})
        for space in self.spaces():
            name = schema.embeddings_table_name(space.space_id)
            rows = self.database.read(name, columns=schema.EMBEDDING_KEY, where=where, row_ids=True)
            row_ids = rows["_rowid"].to_pylist()
            self.database.delete_rows(
                name, [row for key, row in zip(schema.table_keys(rows), row_ids, strict=True) if key in keys]
            )

    def _drop_caches(self) -> None:
        """Delete the index files on this machine, which hold embeddings that are gone; they are built again."""
        folder = self.database.place.cache_folder(self.database.registry_id())
        for path in folder.glob("*.*"):  # all but the lock
            with suppress(OSError):
                path.unlink()

    def _task_keys(self, where: str = PRESENT) -> list[Key]:
        return schema.table_keys(self.database.read("tasks", columns=["name", "version"], where=where))
