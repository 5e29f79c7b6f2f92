"""The tables of a registry: Arrow schemas, their version and migrations, rows to and from records.

Columns are named as the fields of the records, so that one function converts each way for all of them.

Axes: T embeddings, D filters of the probe, F features of the probe.
"""

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from registry.errors import SchemaVersionError, StorageError
from registry.names import ERROR_SHARES, LOSSES, Key
from registry.records import SpaceRecord, embedding_checksum, utc_now

if TYPE_CHECKING:
    from registry.storage.database import Database

SCHEMA_VERSION = 6


class Tables(Protocol):
    """What a migration can do; see ``registry.storage.database.Database``."""

    def open_table(self, name: str) -> Any:
        """A table as LanceDB knows it."""

    def create_table(self, name: str, columns: pa.Schema) -> None:
        """Make an empty table, unless it is there."""


Migration = Callable[[Tables], None]


def _add_kind(tables: Tables) -> None:
    """To version 2: every task has a kind; those known so far had one class a sample."""
    tasks = tables.open_table("tasks")
    if "kind" not in tasks.schema.names:
        tasks.add_columns({"kind": "'single_label'"})


def _add_history(tables: Tables) -> None:
    """To version 3: aliases of tasks, checksums of embeddings, and a table that says who wrote what."""
    tasks = tables.open_table("tasks")
    if "aliases" not in tasks.schema.names:
        tasks.add_columns({"aliases": "arrow_cast(make_array(), 'List(Utf8)')"})
    for space in tables.open_table("spaces").search().select(["space_id"]).to_arrow()["space_id"].to_pylist():
        embeddings = tables.open_table(embeddings_table_name(space))
        if "checksum" not in embeddings.schema.names:
            embeddings.add_columns({"checksum": "cast(0 as bigint)"})
        _fill_checksums(embeddings)
    tables.create_table("audit", AUDIT)


def _fill_checksums(embeddings: Any) -> None:
    """Make the checksums of rows that have none, in one commit that rewrites that column only."""
    made: dict[Key, int] = {}  # of rows with the same key, that of the last
    for batch in embeddings.search().where("checksum = 0").to_batches():
        rows = pa.Table.from_batches([batch])
        made.update(zip(table_keys(rows.select(EMBEDDING_KEY)), made_checksums(rows), strict=True))
    if made:
        columns = [*zip(*made, strict=True), list(made.values())]
        fields = [embeddings.schema.field(name) for name in (*EMBEDDING_KEY, "checksum")]
        arrays = [pa.array(values, of.type) for values, of in zip(columns, fields, strict=True)]
        rows = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
        embeddings.merge_insert(EMBEDDING_KEY).when_matched_update_all().execute(rows)


def _add_source_accuracy(tables: Tables) -> None:
    """To version 4: how good experts are on their source task, and where libraries keep their weights."""
    experts = tables.open_table("experts")
    if "source_accuracy" not in experts.schema.names:
        experts.add_columns({"source_accuracy": "cast(null as double)", "cached_as": "''"})


def _add_identity(tables: Tables) -> None:
    """To version 5: which experts are toys, what else they are called, what exactly a result was measured on.

    Until then every expert that shipped was a small network of this package.
    """
    experts = tables.open_table("experts")
    if "toy" not in experts.schema.names:
        none = "arrow_cast(make_array(), 'List(Utf8)')"
        experts.add_columns({"toy": "builtin", "aliases": none, "weights_hash": "''"})
    results = tables.open_table("results")
    if "run_id" not in results.schema.names:
        lower = ", ".join(f"'{metric}'" for metric in (*ERROR_SHARES, *LOSSES))
        results.add_columns(
            {
                "lower_is_better": f"metric in ({lower})",
                "task_version": "cast(0 as bigint)",
                "weights_hash": "''",
                "run_id": "''",
            }
        )


def _add_sheets(tables: Tables) -> None:
    """To version 6: a table of contact sheets."""
    tables.create_table(SHEETS, TABLES[SHEETS])


# From version N - 1 to N, under key N. Append only. A kill may make one run again, so each must leave a table
# alone that it has already changed.
MIGRATIONS: dict[int, Migration] = {
    2: _add_kind,
    3: _add_history,
    4: _add_source_accuracy,
    5: _add_identity,
    6: _add_sheets,
}

EMBEDDINGS_PREFIX = "embeddings__"
SHEETS = "sheets"
TASK_KEY = ["name", "version"]
EMBEDDING_KEY = ["task", "version"]
EMBEDDING_NUMBERS = ["num_samples_used", "head_accuracy", "head_loss", "seed", "seconds"]
EMBEDDING_VECTORS = ["fisher", "standard_error", "domain"]

Record = TypeVar("Record")


def _columns(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


_TEXT, _WORDS, _INTEGER, _FLAG = pa.string(), pa.list_(pa.string()), pa.int64(), pa.bool_()

META = _columns(key=_TEXT, value=_TEXT)
SPACES = _columns(
    space_id=_TEXT,
    probe=_TEXT,
    description=_TEXT,
    probe_source=_TEXT,
    trivial=pa.list_(pa.float32()),  # of variable width: D differs between spaces
    domain_dim=_INTEGER,
    builtin=_FLAG,
)
TASKS = _columns(
    name=_TEXT,
    version=_INTEGER,
    data=_TEXT,
    num_classes=_INTEGER,
    num_samples=_INTEGER,
    class_names=_WORDS,
    fingerprint=_TEXT,
    settings=_TEXT,
    tags=_WORDS,
    builtin=_FLAG,
    created_at=_TEXT,
    removed_at=_TEXT,
    kind=_TEXT,
    aliases=_WORDS,
)
EXPERTS = pa.schema(
    [
        pa.field("name", _TEXT, nullable=False),
        pa.field("loader", _TEXT, nullable=False),
        pa.field("source_task", _TEXT, nullable=False),
        pa.field("num_params", _INTEGER),
        pa.field("flops", _INTEGER),
        pa.field("input_size", _INTEGER),
        pa.field("license", _TEXT, nullable=False),
        pa.field("builtin", _FLAG, nullable=False),
        pa.field("created_at", _TEXT, nullable=False),
        pa.field("removed_at", _TEXT, nullable=False),
        pa.field("source_accuracy", pa.float64()),
        pa.field("cached_as", _TEXT, nullable=False),
        pa.field("toy", _FLAG, nullable=False),
        pa.field("aliases", _WORDS, nullable=False),
        pa.field("weights_hash", _TEXT, nullable=False),
    ]
)
RESULTS = pa.schema(
    [
        pa.field("task", _TEXT, nullable=False),
        pa.field("expert", _TEXT, nullable=False),
        pa.field("accuracy", pa.float64(), nullable=False),
        pa.field("metric", _TEXT, nullable=False),
        pa.field("protocol", _TEXT, nullable=False),
        pa.field("seed", _INTEGER),
        pa.field("source", _TEXT, nullable=False),
        pa.field("builtin", _FLAG, nullable=False),
        pa.field("created_at", _TEXT, nullable=False),
        pa.field("lower_is_better", _FLAG, nullable=False),
        pa.field("task_version", _INTEGER, nullable=False),
        pa.field("weights_hash", _TEXT, nullable=False),
        pa.field("run_id", _TEXT, nullable=False),
    ]
)
AUDIT = _columns(
    at=_TEXT,
    actor=_TEXT,
    host=_TEXT,
    process_id=_INTEGER,
    action=_TEXT,
    subject=_TEXT,
    details=_TEXT,
    versions=_TEXT,
)
TABLES: dict[str, pa.Schema] = {
    "meta": META,
    "spaces": SPACES,
    "tasks": TASKS,
    "experts": EXPERTS,
    "results": RESULTS,
    "audit": AUDIT,
    SHEETS: _columns(
        task=_TEXT,
        version=_INTEGER,
        seed=_INTEGER,
        columns=_WORDS,
        rows=_INTEGER,
        image=pa.binary(),
        checksum=_INTEGER,
    ),
}


def embeddings_table_name(space_id: str) -> str:
    """Name of the table that holds the embeddings of a space."""
    return EMBEDDINGS_PREFIX + space_id


def embeddings_schema(dim: int, domain_dim: int) -> pa.Schema:
    """Columns of an embeddings table.

    Returns:
        The schema; its vectors are float32 of fixed width.
    """
    return _columns(
        task=_TEXT,
        version=_INTEGER,
        fisher=pa.list_(pa.float32(), dim),
        standard_error=pa.list_(pa.float32(), dim),
        domain=pa.list_(pa.float32(), domain_dim),
        num_samples_used=_INTEGER,
        head_accuracy=pa.float64(),
        head_loss=pa.float64(),
        seed=_INTEGER,
        seconds=pa.float64(),
        checksum=_INTEGER,
    )


def pending_migrations(stored: int) -> list[tuple[int, Migration]]:
    """What brings a registry of version ``stored`` up to date: version reached and migration, in order."""
    return [(version, MIGRATIONS[version]) for version in range(stored + 1, SCHEMA_VERSION + 1)]


def migrate(database: "Database", version: int) -> None:
    """Run the migrations that a registry of a version lacks, recording each when it is done.

    Raises:
        StorageError: If they cannot be, because the registry cannot be written.
    """
    where = "key = 'schema_version'"
    try:
        with database.write_lock():
            meta = database.open_table("meta")
            # Read again, now under the lock: another process may have migrated meanwhile.
            stored = int(meta.search().where(where).to_arrow()["value"][0].as_py())
            for reached, migration in pending_migrations(stored):
                database.place.check_lock()
                database.moments.forget("its tables were brought up to date")
                migration(database)
                for name in database.table_names():
                    database.place.sync_table(name)
                    database.place.record_checksums(name)
                meta.update(where=where, values={"value": str(reached)})
                database.place.sync_table("meta")
            database.place.record_checksums("meta")
    except StorageError as err:
        raise StorageError(
            f"{database.uri}: schema version {version} has to be brought up to {SCHEMA_VERSION} once, "
            f"by any command of somebody who can write there: {err}"
        ) from err


def to_arrow(records: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Rows of records."""
    columns = {name: [getattr(record, name) for record in records] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)


def from_arrow(record_type: type[Record], table: pa.Table) -> list[Record]:
    """Records of rows, in order; the inverse of ``to_arrow``."""
    columns = [_python_values(table[name]) for name in table.schema.names]
    return [
        record_type(**dict(zip(table.schema.names, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]


def spaces_of(rows: pa.Table) -> list[SpaceRecord]:
    """The spaces in rows, sorted by id; of rows with the same id the last."""
    spaces = {space.space_id: space for space in from_arrow(SpaceRecord, rows)}
    return [spaces[space_id] for space_id in sorted(spaces)]


def _python_values(column: pa.ChunkedArray) -> list[Any]:
    """Values as the records hold them: lists of text as tuples, lists of numbers as float32 vectors."""
    if pa.types.is_fixed_size_list(column.type):
        return list(matrix(column))
    values: list[Any] = column.to_pylist()
    if not hasattr(column.type, "value_type"):
        return values
    if pa.types.is_string(column.type.value_type):
        return [tuple(value) for value in values]
    return [np.asarray(value, dtype=np.float32) for value in values]


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of fixed-width vectors as one ``[T, width]`` array, without a Python object per value."""
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values).reshape(len(column), column.type.list_size)


def made_checksums(embeddings: pa.Table) -> list[int]:
    """What the checksum of each row of an embeddings table should be; see ``registry.records``."""
    values = zip(*(embeddings[name].to_pylist() for name in [*EMBEDDING_KEY, *EMBEDDING_NUMBERS]), strict=True)
    vectors = zip(*(matrix(embeddings[name]) for name in EMBEDDING_VECTORS), strict=True)
    return [embedding_checksum(*row, vectors=of_row) for row, of_row in zip(values, vectors, strict=True)]


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """The embeddings of one space."""

    keys: tuple[Key, ...]  # the T pairs of task name and version, rising
    fisher: np.ndarray = field(repr=False)  # ``[T, D]`` float32, rows in order of ``keys``
    domain: np.ndarray = field(repr=False)  # ``[T, F]`` float32, rows in order of ``keys``

    @classmethod
    def from_arrow(cls, table: pa.Table, committed: Collection[Key]) -> "EmbeddingTable":
        """Take the rows of committed task versions, sorted; of rows with the same key the last."""
        rows = {key: row for row, key in enumerate(table_keys(table)) if key in committed}
        keys = sorted(rows)
        order = np.array([rows[key] for key in keys], dtype=np.int64)
        return cls(tuple(keys), matrix(table["fisher"])[order], matrix(table["domain"])[order])


def table_keys(table: pa.Table) -> list[Key]:
    """The first two columns as pairs of name and version, in order of rows."""
    return list(zip(table[0].to_pylist(), table[1].to_pylist(), strict=True))


def first_rows() -> dict[str, pa.Table]:
    """The tables of a new registry, by name."""
    meta = {"schema_version": str(SCHEMA_VERSION), "registry_id": uuid.uuid4().hex, "created_at": utc_now()}
    rows = pa.Table.from_pylist([{"key": key, "value": value} for key, value in meta.items()], schema=META)
    return {name: columns.empty_table() for name, columns in TABLES.items()} | {"meta": rows}


def read_meta(uri: str, rows: Sequence[Mapping[str, str]]) -> tuple[int, str]:
    """Schema version and id of a registry.

    Args:
        uri: The registry.
        rows: Those of its table ``meta``.

    Raises:
        StorageError: If they are not there.
        SchemaVersionError: If a newer version of this package wrote them.
    """
    meta = {row["key"]: row["value"] for row in rows}
    if not {"schema_version", "registry_id"} <= meta.keys():
        raise StorageError(f"{uri}: table meta lacks the schema version; restore the registry from a copy")
    version = int(meta["schema_version"])
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(uri, version, SCHEMA_VERSION)
    return version, meta["registry_id"]


def quoted(text: str) -> str:
    """A text as an SQL literal: in single quotes, those inside doubled.

    Bytes that are no Unicode come from the command line as surrogates. They are spelled out; no record has any.
    """
    return "'" + text.encode(errors="backslashreplace").decode().replace("'", "''") + "'"
