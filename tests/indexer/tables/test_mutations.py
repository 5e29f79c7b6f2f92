"""Files that were damaged anyhow: read or refused in one sentence, and no row is lost without a word."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders_datasets import write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.data.specs import open_dataset
from indexer.errors import IndexerError
from registry.errors import RegistryError
from registry.ingest.manifests import read_task_rows
from registry.ingest.tables import read_experts, read_results

EACH = 1250
"""Mutations of each of eight kinds of files, with ``--all-examples``: 10,000 in all."""

TOKENS = [
    b",",
    b";",
    b"\t",
    b"|",
    b'"',
    b'""',
    b"\n",
    b"\r\n",
    b"\0",
    b"nan",
    b"1",
    b"0",
    b"-1",
    b"x/000.png",
    b"\xff",
    b"}",
]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "repeat", "cut"]),
        st.integers(0, 10**6),
        st.sampled_from(TOKENS) | st.binary(max_size=3),
    ),
    min_size=1,
    max_size=5,
)


def mutated(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """A content with some places changed."""
    for kind, number, piece in changes:
        at = number % (len(content) + 1)
        if kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "replace":
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "delete":
            content = content[:at] + content[at + 1 + len(piece) :]
        elif kind == "repeat":
            content = content[:at] + content[max(0, at - 20) : at] + content[at:]
        elif number % 7 == 0:
            content = content[:at]
    return content


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x_train=np.zeros((12, 4, 4), np.uint8), y_train=np.arange(12) % 3)
    return file.getvalue()


def _parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": [f"t{n}" for n in range(12)], "label": ["a", "b"] * 6}), file)
    return file.getvalue()


NAMES = [f"x/{number:03d}.png" for number in range(12)]
PAIRS = list(enumerate(NAMES))
DATA = {
    "files.csv": "image_id,label,age\n" + "".join(f"{name},{'ab'[at % 2]},{at}\n" for at, name in PAIRS),
    "texts.csv": "text,label\n" + "".join(f'"one, {at}",{"ab"[at % 2]}\n' for at, _ in PAIRS),
    "hot.csv": "filename;cat;dog\n" + "".join(f"{name};{at % 2};{at % 3 % 2}\n" for at, name in PAIRS),
    "rows.jsonl": "\n".join(json.dumps({"text": name, "labels": ["a", "b"][: at % 3]}) for at, name in PAIRS),
    "a.npz": _npz(),
    "a.parquet": _parquet(),
}  # fmt: skip
TABLES = {
    "tasks.csv": "name,data,tags\n" + "".join(f"t{at},./x,red|round\n" for at in range(8)),
    "results.csv": "task,expert,accuracy,seed\n" + "".join(f"t{at},a.x,0.{at},{at}\n" for at in range(8)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve images in ``x``."""
    return write_folder(tmp_path_factory.mktemp("mutations"), {"x": 12})


def lines_of(content: bytes, encoding: str = "utf-8") -> int | None:
    """Rows that a text table has; ``None`` where quotes or encodings make lines something else."""
    if b'"' in content or re.search(rb"[^\n -~]", content):
        return None
    lines = [line for line in content.decode(encoding).split("\n") if line.strip(" ,;|")]
    return len(lines) - 1


def check_sentence(error: Exception) -> None:
    """Refuse an error of several lines."""
    assert "\n" not in str(error)
    assert len(str(error)) < 1500


@pytest.mark.parametrize("name", DATA)
@settings(max_examples=EACH, deadline=None)
@given(changes=CHANGES)
def test_mutated_data_is_read_or_refused_and_no_row_is_lost(place: Path, name: str, changes: list):
    base = DATA[name]
    content = mutated(base if isinstance(base, bytes) else base.encode(), changes)
    path = place / name
    path.write_bytes(content)
    try:
        listing = open_dataset(str(path), skip_bad=True)
        used = sum(1 for _ in listing.scan())
    except IndexerError as error:
        check_sentence(error)
        return
    assert used > 0
    if name.endswith(".csv") and (count := lines_of(content)) is not None:
        assert used + sum(listing.passed_over.values()) == count
    if name.endswith(".jsonl") and not re.search(rb"[^\n -~]", content):
        lines = [line for line in content.split(b"\n") if line.strip()]
        assert used + sum(listing.passed_over.values()) == len(lines)


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=EACH, deadline=None)
@given(changes=CHANGES)
def test_mutated_tables_of_records_name_every_row_that_they_refuse(place: Path, name: str, changes: list):
    content = mutated(TABLES[name].encode(), changes)
    path = place / name
    path.write_bytes(content)
    readers = (
        [read_task_rows]
        if name == "tasks.csv"
        else [lambda path: read_results(path, lambda _: None), read_experts]
    )
    for read in readers:
        try:
            records, problems = read(path)
        except RegistryError as error:
            check_sentence(error)
            continue
        assert all("\n" not in problem for problem in problems)
        if (count := lines_of(content)) is not None:
            named = sum(rows_named(problem) for problem in problems)
            assert len(records) + named == count


def rows_named(problem: str) -> int:
    """How many rows a sentence is about."""
    said = re.search(r", lines? ([\d, ]+)(?: and line (\d+))*(?: and (\d+) more)?: ", problem)
    if said is None:
        return 1
    more = len(re.findall(r" and line \d+", said[0]))
    return len(said[1].split(", ")) + more + int(said[3] or 0)
