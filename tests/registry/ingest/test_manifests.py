"""Files that say which tasks are to be added: what they mean, and every way they can be wrong."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.errors import IngestError, InvalidRecordError
from registry.ingest import manifests
from registry.ingest.manifests import TaskRow, checked_rows, read_task_rows


def write_csv(path, *lines):
    """A manifest of these lines."""
    path.write_text("\n".join(lines) + "\n")
    return path


def test_csv_says_names_data_tags_and_options(tmp_path):
    path = write_csv(
        tmp_path / "tasks.csv",
        "name,data,tags,max_samples,seed,split,note",
        "flowers,sets/flowers,plants | outdoors,500,7,val,ignored",
        "digits,sklearn:digits,,,,,",
        "far,/abs/far,,1e3,,,",
    )
    assert read_task_rows(path) == (
        [
            TaskRow("flowers", f"{tmp_path}/sets/flowers", ("plants", "outdoors"), "val", 500, 7, "line 2"),
            TaskRow("digits", "sklearn:digits", place="line 3"),
            TaskRow("far", "/abs/far", max_samples=1000, place="line 4"),
        ],
        [],
    )


def test_json_lines_and_parquet_say_the_same(tmp_path):
    rows = [
        {"name": "a", "data": "x", "tags": ["t", "u"], "max_samples": 10, "seed": None},
        {"name": "b", "data": "hf:folder?x=1", "tags": None, "max_samples": None, "seed": 3},
    ]
    (tmp_path / "tasks.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tasks.parquet")
    expected = [
        ("a", f"{tmp_path}/x", ("t", "u"), {"max_samples": 10}),
        ("b", "hf:folder?x=1", (), {"seed": 3}),
    ]
    for name, places in (("tasks.jsonl", ["line 1", "line 3"]), ("tasks.parquet", ["row 1", "row 2"])):
        found, problems = read_task_rows(tmp_path / name)
        assert [(row.name, row.data, row.tags, row.options) for row in found] == expected
        assert [row.place for row in found] == places
        assert problems == []


def test_a_folder_holds_a_task_a_folder(tmp_path):
    for name in ("b", "a", ".hidden", "not a name"):
        (tmp_path / name).mkdir()
    (tmp_path / "readme.txt").write_text("no task")
    rows, problems = read_task_rows(tmp_path)
    assert rows == [TaskRow("a", f"{tmp_path}/a"), TaskRow("b", f"{tmp_path}/b")]
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path}: 'not a name' cannot name a task: ")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("two words,x,,,", "'two words' cannot name a task: allowed are"),
        ("a,,,,", "task a names no data"),
        ("a,x,b c,,", "'b c' cannot name a tag: allowed are"),
        ("a,x,,many,", "max_samples must be a whole number, got 'many'"),
        ("a,x,,1.5,", "max_samples must be a whole number, got '1.5'"),
        ("a,x,,1,", "max_samples must be at least 2, got 1"),
        ("a,x,,,-1", "seed must be at least 0, got -1"),
        ("a,x,,,1,2", "there are more fields than columns"),
        ("good,x,,,", "the task good is given 2 times; give each a name of its own"),
    ],
    ids=["name", "data", "tag", "words", "fraction", "samples", "seed", "fields", "twice"],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, line, problem):
    path = write_csv(tmp_path / "tasks.csv", "name,data,tags,max_samples,seed", "good,x,,,", line)
    rows, problems = read_task_rows(path)
    assert len(problems) == 1
    assert re.match(re.escape(f"{path}, line ") + "(3|2 and line 3): " + re.escape(problem), problems[0])
    assert [row.name for row in rows] == ([] if line.startswith("good") else ["good"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "it is no JSON: "),
        ("[1]", 'expected an object such as {"name": "flowers", "data": "./flowers"}, got [1]'),
        ('{"name": "a"}', "there is no data; expected name,data"),
        ('{"name": 1, "data": "x"}', "name must be text, got 1"),
        (
            '{"name": "a", "data": "x", "tags": 3}',
            "tags must be words between bars, such as plants|outdoors, got 3",
        ),
        ('{"name": "a", "data": "x", "seed": true}', "seed must be a whole number, got True"),
        ('{"name": "a", "data": "x", "seed": 1e999}', "seed must be a whole number, got inf"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path, line, problem):
    (tmp_path / "tasks.jsonl").write_text(line + "\n")
    rows, problems = read_task_rows(tmp_path / "tasks.jsonl")
    assert rows == []
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path}/tasks.jsonl, line 1: {problem}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "tasks.csv",
            b"name,path\na,b\n",
            "there is no column data; expected name,data[,tags,split,max_samples,seed]",
        ),
        ("tasks.csv", b"name,data\n\xff,x\n", "cannot be read as CSV: it is not UTF-8 text"),
        ("tasks.jsonl", b"\xff", "cannot be read: it is not utf-8 text"),
        ("tasks.parquet", b"PAR1", "cannot be read as Parquet: "),
        ("tasks.txt", b"", "expected a .csv, .parquet or .jsonl file with name,data"),
    ],
    ids=["column", "csv", "jsonl", "parquet", "kind"],
)
def test_a_file_that_is_none_is_told(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRecordError, match=re.escape(f"{tmp_path / name}: {message}")):
        read_task_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl", "none.parquet"])
def test_a_file_that_is_not_there_is_told(tmp_path, name):
    with pytest.raises(InvalidRecordError, match=re.escape(f"{tmp_path / name}: cannot be read")):
        read_task_rows(tmp_path / name)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(InvalidRecordError, match="there is no folder inside; expected one for each task"):
        read_task_rows(tmp_path)


def test_a_parquet_file_without_a_column_is_told(tmp_path):
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "tasks.parquet")
    with pytest.raises(InvalidRecordError, match=r"there is no column data; expected name,data.*, found name"):
        read_task_rows(tmp_path / "tasks.parquet")


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "MAX_BYTES", 10)
    with pytest.raises(InvalidRecordError, match=r"tasks.csv: is larger than 10 bytes; split it"):
        read_task_rows(write_csv(tmp_path / "tasks.csv", "name,data", "a,x"))
    monkeypatch.setattr(manifests, "MAX_BYTES", 10**6)
    monkeypatch.setattr(manifests, "MAX_ROWS", 1)
    pq.write_table(pa.table({"name": ["a", "b"], "data": ["x", "y"]}), tmp_path / "tasks.parquet")
    with pytest.raises(InvalidRecordError, match=r"tasks.parquet: has more than 1 rows; split it"):
        read_task_rows(tmp_path / "tasks.parquet")


def test_rows_that_a_program_made_are_checked():
    with pytest.raises(InvalidRecordError, match="the task a is given 2 times"):
        checked_rows([TaskRow("a", "x"), TaskRow("a", "y")])
    with pytest.raises(IngestError, match="max_samples must be at least 2, got 0"):
        TaskRow("a", "x", max_samples=0)
