import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task

from registry.storage import schema
from registry.storage.schema import EmbeddingTable, from_arrow, to_arrow

RECORDS = {
    "spaces": [make_space(), make_space("wider", dim=7, domain_dim=2, builtin=True)],
    "tasks": [
        make_task(),
        make_task("birds", 3, tags=("b", "a"), class_names=(), removed_at="2024-01-01T00:00:00+00:00"),
    ],
    "experts": [
        make_expert(),
        make_expert(
            "b.x",
            num_params=None,
            flops=None,
            input_size=None,
            license="MIT",
            source_accuracy=0.75,
            cached_as="torch:b-1.pth",
        ),
    ],
    "results": [make_result(), make_result("birds", "b.x", 1 / 3, seed=None, source="a 'paper'")],
    "embeddings": [make_embedding(), make_embedding("birds", 2)],
}


def columns_of(table):
    return schema.embeddings_schema(4, 3) if table == "embeddings" else schema.TABLES[table]


def plain(record):
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(record).items()
    }


@pytest.mark.parametrize("table", RECORDS)
def test_columns_are_the_fields_of_the_record(table):
    fields = [field.name for field in dataclasses.fields(RECORDS[table][0])]
    assert columns_of(table).names == fields


@pytest.mark.parametrize("table", RECORDS)
def test_records_survive_the_round_trip(table):
    records = RECORDS[table]
    rows = to_arrow(records, columns_of(table))
    assert rows.schema == columns_of(table)
    assert [plain(record) for record in from_arrow(type(records[0]), rows)] == [
        plain(record) for record in records
    ]


@pytest.mark.parametrize("table", RECORDS)
def test_no_records_make_no_rows(table):
    rows = to_arrow([], columns_of(table))
    assert rows.num_rows == 0
    assert from_arrow(type(RECORDS[table][0]), rows) == []


def test_vectors_come_back_as_float32():
    space = from_arrow(type(make_space()), to_arrow([make_space()], schema.SPACES))[0]
    assert space.trivial.dtype == np.float32


def test_matrix_matches_row_by_row_reading_across_chunks_and_slices():
    rows = to_arrow([make_embedding(f"t{number}") for number in range(6)], schema.embeddings_schema(4, 3))
    scattered = pa.concat_tables([rows.slice(0, 1), rows.slice(2, 3), rows.slice(5, 0)])
    expected = np.array([row["fisher"] for row in scattered.to_pylist()], dtype=np.float32)
    np.testing.assert_array_equal(schema.matrix(scattered["fisher"]), expected)
    assert schema.matrix(rows.slice(0, 0)["domain"]).shape == (0, 3)


def test_embedding_table_takes_committed_rows_in_order_and_the_last_of_a_key():
    records = [make_embedding(name, version) for name, version in (("b", 1), ("a", 10), ("a", 2), ("c", 1))]
    again = make_embedding("a", 2, fisher=np.full(4, 5))
    rows = to_arrow([*records, again], schema.embeddings_schema(4, 3))
    table = EmbeddingTable.from_arrow(rows, {("a", 2), ("a", 10), ("b", 1), ("d", 1)})
    assert table.keys == (("a", 2), ("a", 10), ("b", 1))
    np.testing.assert_array_equal(table.fisher, [again.fisher, records[1].fisher, records[0].fisher])
    np.testing.assert_array_equal(table.domain, [again.domain, records[1].domain, records[0].domain])


def test_every_version_up_to_the_current_has_its_migration():
    assert sorted(schema.MIGRATIONS) == list(range(2, schema.SCHEMA_VERSION + 1))


def test_pending_migrations_are_those_after_the_found_version(monkeypatch):
    first, second = (lambda open_table: None), (lambda open_table: None)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(schema, "MIGRATIONS", {3: second, 2: first})
    assert schema.pending_migrations(1) == [(2, first), (3, second)]
    assert schema.pending_migrations(2) == [(3, second)]
    assert schema.pending_migrations(3) == []
