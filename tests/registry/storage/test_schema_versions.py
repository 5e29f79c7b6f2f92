"""Numbered migrations run once, in order, and go on where they stopped."""

import re

import lancedb
import pytest

from registry.answers import Problem
from registry.errors import SchemaVersionError
from registry.storage import schema
from registry.storage.store import Store

NOW = schema.SCHEMA_VERSION


def set_schema_version(store, version):
    table = lancedb.connect(store.uri).open_table("meta")
    table.update(where="key = 'schema_version'", values={"value": str(version)})


def test_newer_schema_is_refused(store):
    set_schema_version(store, NOW + 3)
    message = (
        f"{store.uri}: schema version {NOW + 3} is newer than {NOW}, the newest that this version understands; "
        "upgrade task2vec-registry"
    )
    with pytest.raises(SchemaVersionError, match=re.escape(message)):
        Store(store.uri).tasks()
    assert Store(store.uri).verify() == [Problem("schema", "meta", message)]


def test_older_schema_is_migrated_step_by_step_once(store, monkeypatch):
    calls = []
    monkeypatch.setattr(schema, "SCHEMA_VERSION", NOW + 2)
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        {
            NOW + 1: lambda tables: calls.append((1, tables.open_table("tasks").count_rows())),
            NOW + 2: lambda tables: (
                tables.open_table("experts").add_columns({"note": "'old'"}) and calls.append((2, "note"))
            ),
        },
    )
    assert Store(store.uri).database.read("experts").schema.names[-1] == "note"
    assert Store(store.uri).tasks() == []
    assert calls == [(1, 0), (2, "note")]
    assert {"key": "schema_version", "value": str(NOW + 2)} in store.database.read("meta").to_pylist()


def test_interrupted_migration_goes_on_where_it_stopped(store, monkeypatch):
    calls = []

    def fail_once(tables):
        calls.append(2)
        if calls.count(2) == 1:
            raise KeyboardInterrupt("killed")

    monkeypatch.setattr(schema, "SCHEMA_VERSION", NOW + 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {NOW + 1: lambda tables: calls.append(1), NOW + 2: fail_once})
    with pytest.raises(KeyboardInterrupt, match=r"^killed$"):
        Store(store.uri).tasks()
    assert Store(store.uri).tasks() == []
    assert calls == [1, 2, 2]
