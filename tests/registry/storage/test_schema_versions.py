"""Numbered migrations run once, in order, and go on where they stopped."""

import re

import lancedb
import pytest

from registry.answers import Problem
from registry.errors import SchemaVersionError
from registry.storage import schema
from registry.storage.store import Store


def set_schema_version(store, version):
    table = lancedb.connect(store.uri).open_table("meta")
    table.update(where="key = 'schema_version'", values={"value": str(version)})


def test_newer_schema_is_refused(store):
    set_schema_version(store, 7)
    message = (
        f"{store.uri}: schema version 7 is newer than 4, the newest that this version understands; "
        "upgrade task2vec-registry"
    )
    with pytest.raises(SchemaVersionError, match=re.escape(message)):
        Store(store.uri).tasks()
    assert Store(store.uri).verify() == [Problem("schema", "meta", message)]


def test_older_schema_is_migrated_step_by_step_once(store, monkeypatch):
    calls = []
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 6)
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        {
            5: lambda tables: calls.append((5, tables.open_table("tasks").count_rows())),
            6: lambda tables: (
                tables.open_table("experts").add_columns({"note": "'old'"}) and calls.append((6, "note"))
            ),
        },
    )
    assert Store(store.uri).database.read("experts").schema.names[-1] == "note"
    assert Store(store.uri).tasks() == []
    assert calls == [(5, 0), (6, "note")]
    assert {"key": "schema_version", "value": "6"} in store.database.read("meta").to_pylist()


def test_interrupted_migration_goes_on_where_it_stopped(store, monkeypatch):
    calls = []

    def fail_once(tables):
        calls.append(6)
        if calls.count(6) == 1:
            raise KeyboardInterrupt("killed")

    monkeypatch.setattr(schema, "SCHEMA_VERSION", 6)
    monkeypatch.setattr(schema, "MIGRATIONS", {5: lambda tables: calls.append(5), 6: fail_once})
    with pytest.raises(KeyboardInterrupt, match=r"^killed$"):
        Store(store.uri).tasks()
    assert Store(store.uri).tasks() == []
    assert calls == [5, 6, 6]
