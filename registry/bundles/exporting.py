"""Choose what of a registry goes into a bundle, and write it.

Left out are removed tasks and experts, and results that name one or are of weights that were removed.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from registry.answers import ExportSummary
from registry.bundles import format as bundle_format
from registry.bundles.card import UNKNOWN_LICENSE, card_of
from registry.bundles.folders import CARD, FolderWriter, writing_folder
from registry.bundles.signing import read_private_key, sign, signature_path
from registry.errors import InvalidQueryError, InvalidRecordError, StorageError
from registry.gate import checked_name
from registry.names import Key
from registry.records import EmbeddingRecord, SpaceRecord
from registry.storage import schema
from registry.storage.rows import PRESENT
from registry.storage.schema import quoted, table_keys
from registry.storage.store import Store

_TIMES = {"tasks": "created_at", "experts": "created_at", "results": "created_at", "audit": "at"}


@dataclass(frozen=True)
class Selection:
    """What is asked for."""

    tasks: Sequence[str] = ()
    where: str | None = None
    results: bool = True
    experts: bool = True
    builtin: bool = True

    @property
    def is_everything(self) -> bool:
        """Whether no task was chosen: what belongs to none, such as an expert without results, goes along."""
        return not self.tasks and self.where is None


def export_bundle(
    store: Store,
    path: Path,
    selection: Selection,
    *,
    as_folder: bool = False,
    license: str = "",
    key: Path | None = None,
) -> ExportSummary:
    """Write a bundle.

    All but the vectors is read under the lock, where it can be taken, so that it is of one moment. Vectors are
    never changed, and are read a row group at a time without keeping writers waiting.

    Raises:
        StorageError: If the registry is damaged or the file cannot be written.
    """
    if path.is_dir() and not as_folder:
        raise StorageError(f"{path} is a folder; give the file to write, or format='folder'")
    signer = read_private_key(key) if key else None
    beside = signature_path(path)
    if signer and beside.exists() and not beside.is_file():
        raise StorageError(f"{beside}: the signature cannot be written: that is no file; move it away")
    database = store.database
    database.distrust_cache()
    names = _chosen(store, selection)
    with database.write_lock() if database.place.is_writable() else nullcontext():
        tables = _record_tables(store, selection, names)
        spaces, embedded = _embedded(
            store, set(table_keys(tables["tasks"])), keep_empty=selection.is_everything
        )
    tables["spaces"] = schema.to_arrow(spaces, schema.SPACES)
    with writing_folder(path) if as_folder else bundle_format.writing(path) as writer:
        for name in bundle_format.RECORD_TABLES:
            writer.add(name, schema.TABLES[name], bundle_format.groups(tables[name]))
        for space, keys in zip(spaces, embedded, strict=True):
            columns = schema.embeddings_schema(space.dim, space.domain_dim)
            table = schema.embeddings_table_name(space.space_id)
            writer.add(table, columns, _embeddings(store, table, columns, keys))
        as_of = max(pc.max(tables[name][column]).as_py() or "" for name, column in _TIMES.items())
        checksum = writer.finish(registry_id=database.registry_id(), as_of=as_of)
        if isinstance(writer, FolderWriter):
            writer.add_card(card_of(tables, spaces, license or UNKNOWN_LICENSE))
    if signer:
        sign(path, checksum, signer)
    return ExportSummary(
        path=str(path),
        bytes=sum((path / name).stat().st_size for name in (CARD, bundle_format.MANIFEST, *writer.members))
        if as_folder
        else path.stat().st_size,
        checksum=checksum,
        spaces=len(spaces),
        tasks=len(tables["tasks"]),
        embeddings=sum(map(len, embedded)),
        experts=len(tables["experts"]),
        results=len(tables["results"]),
        audit_lines=len(tables["audit"]),
    )


def _chosen(store: Store, selection: Selection) -> set[str] | None:
    """Names of the tasks that are asked for; ``None`` for all; ``InvalidQueryError`` if there are none."""
    if selection.is_everything:
        return None
    for name in selection.tasks:
        store.task(checked_name("task", name))  # all versions go along, so a reference to one is refused
    passing = {task.name for task in store.tasks(where=selection.where, builtin=selection.builtin)}
    chosen = passing & set(selection.tasks) if selection.tasks else passing
    if not chosen:
        raise InvalidQueryError("no task is chosen, so nothing was exported; see `t2v task list`")
    return chosen


def _record_tables(store: Store, selection: Selection, names: set[str] | None) -> dict[str, pa.Table]:
    """The rows of all tables but those of spaces and embeddings, in order of their keys."""
    rows = {name: store.database.read(name, where=PRESENT) for name in ("tasks", "experts")}
    names_of = {name: set(table["name"].to_pylist()) for name, table in rows.items()}
    results = _among(store.database.read("results"), "task", names_of["tasks"] if names is None else names)
    results = _among(results, "expert", names_of["experts"])
    removed = store.removed_weights().difference(_weights(rows["experts"], "name"))
    results = results.filter(pa.array([it not in removed for it in _weights(results, "expert")], pa.bool_()))
    tasks, experts, results = (
        table if selection.builtin else table.filter(pc.invert(table["builtin"]))
        for table in (rows["tasks"], rows["experts"], results)
    )
    audit = store.database.read("audit", where="not starts_with(action, 'token.')")
    if names is not None:
        tasks = _among(tasks, "name", names)
        experts = _among(experts, "name", set(results["expert"].to_pylist()))
        audit = audit.filter(_about(audit["subject"].to_pylist(), names | set(experts["name"].to_pylist())))
    return {
        "tasks": _last_of_each(tasks, ["name", "version"]),
        "experts": _last_of_each(experts, ["name"]) if selection.experts else schema.EXPERTS.empty_table(),
        "results": _sorted(results) if selection.results else schema.RESULTS.empty_table(),
        "audit": _sorted(audit),
    }


def _weights(rows: pa.Table, name: str) -> list[tuple[str, str]]:
    """Name and hash of the weights of an expert in each row."""
    return list(zip(rows[name].to_pylist(), rows["weights_hash"].to_pylist(), strict=True))


def _among(rows: pa.Table, column: str, names: Collection[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows[column], value_set=pa.array(sorted(names), pa.string())))


def _about(subjects: Sequence[str], names: set[str]) -> pa.Array:
    """Which lines of the audit are about a name: about its versions, and results of or on it."""
    return pa.array([any(word.partition("@")[0] in names for word in text.split(" on ")) for text in subjects])


def _last_of_each(rows: pa.Table, key: list[str]) -> pa.Table:
    """Rows in order of their key; of several with one key the last, as the store reads them."""
    columns = (rows[name].to_pylist() for name in key)
    last = {values: row for row, values in enumerate(zip(*columns, strict=True))}
    return rows.take(pa.array([last[values] for values in sorted(last)], pa.int64()))


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.sort_by([(name, "ascending") for name in rows.schema.names])


def _embedded(store: Store, tasks: set[Key], *, keep_empty: bool) -> tuple[list[SpaceRecord], list[list[Key]]]:
    """Spaces that are needed, and the tasks embedded in each; ``StorageError`` if one is in none."""
    spaces, embedded, lacking = [], [], set(tasks)
    for space in store.spaces():
        name = schema.embeddings_table_name(space.space_id)
        keys = tasks.intersection(table_keys(store.database.read(name, columns=schema.EMBEDDING_KEY)))
        lacking -= keys
        if keys or keep_empty:
            spaces.append(space)
            embedded.append(sorted(keys))
    if lacking:
        name, version = min(lacking)
        raise StorageError(f"{store.uri}: task {name}@{version} has no embedding; run `t2v verify --repair`")
    return spaces, embedded


def _embeddings(store: Store, table: str, columns: pa.Schema, keys: list[Key]) -> Iterator[pa.Table]:
    """The embeddings of keys, in order, a row group at a time."""
    size = bundle_format.group_rows(columns)
    for start in range(0, len(keys), size):
        yield _some_embeddings(store, table, columns, keys[start : start + size])


def _some_embeddings(store: Store, table: str, columns: pa.Schema, keys: list[Key]) -> pa.Table:
    """The embeddings of some keys, compared with their checksums; those that have none get one.

    Raises:
        StorageError: If one is not there any more, or is damaged.
    """
    names = sorted({name for name, _ in keys})
    where = f"task in ({', '.join(map(quoted, names))})"
    rows = store.database.read(table, columns=columns.names, where=where)
    last = {key: row for row, key in enumerate(table_keys(rows))}
    if missing := [key for key in keys if key not in last]:
        name, version = missing[0]
        raise StorageError(f"{store.uri}: task {name}@{version} was purged during the export; export again")
    rows = rows.take(pa.array([last[key] for key in keys], pa.int64())).cast(columns)
    try:
        records = schema.from_arrow(EmbeddingRecord, rows)
    except InvalidRecordError as err:
        raise StorageError(
            f"{store.uri}: table {table} is damaged: {err}; `t2v verify` reports what can be repaired"
        ) from err
    checksums = [record.checksum or replace(record, checksum=None).checksum for record in records]
    column = columns.get_field_index("checksum")
    return rows.set_column(column, columns.field(column), pa.array(checksums, pa.int64()))
