"""No damage to a file of a registry makes it answer wrongly, or in any other way than an error in one line.

``scripts/torture/damages.py`` does the damage and asks; it tries all. Here ``-m slow`` tries a sample of every
kind of file and way, in parts.
"""

import re
from pathlib import Path

import lancedb
import pytest
from builders import make_expert
from click.testing import CliRunner
from damages import Damage, walk
from small_stores import add

from registry.cli.main import main as t2v
from registry.errors import RegistryError
from registry.storage.store import Store

PARTS = 10
SAMPLE = 200


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_damaged_file_never_makes_an_answer_wrong(part):
    done = walk(repairs=False, number=SAMPLE, part=part, parts=PARTS)
    assert done.faults == []
    assert done.tried == SAMPLE / PARTS
    assert done.refused > 0


@pytest.mark.parametrize(
    ("where", "way", "said"),
    [
        ("seals/tasks", "folder", "the checksums of its files are missing or damaged\tyes"),
        ("tasks.lance/data/*", "folder", "restore the registry from a copy\tno"),
        ("tasks.lance/_versions/*", "empty", "and what was written to it since is lost"),
    ],
)
def test_repair_mends_a_file_or_says_that_it_cannot(store, where, way, said):
    add(store, "a")
    add(store, "b")
    path = min(Path(store.uri).glob(where))
    Damage(path.name, "truncate" if way == "empty" else way).apply(path.parent)
    repaired = CliRunner().invoke(t2v, ["--registry", str(store.uri), "verify", "--repair"])
    assert said in repaired.output
    assert repaired.exit_code == ("no" in said.split("\t"))
    if repaired.exit_code == 0:
        add(Store(store.uri), "c")
        assert Store(store.uri).verify() == []


@pytest.mark.slow
@pytest.mark.parametrize("of", ["undone", "undoing", "backup"])
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_repair_cannot_mend_it_says(of, part):
    done = walk(of, number=SAMPLE, part=part, parts=PARTS)
    assert done.faults == []
    assert done.tried == sum(done.ended.values()) == SAMPLE / PARTS


def versions_of(folder, table):
    """The manifests of a table, newest first: they are numbered downwards."""
    return sorted((folder / f"{table}.lance" / "_versions").glob("*.manifest"))


def test_a_version_that_a_killed_writer_did_not_list_stands_for_the_ones_before(tmp_path):
    """As after a kill in the middle of a compaction, which deletes old versions before its own is listed."""
    store = Store.create(tmp_path)
    store.add_experts([make_expert("one.test")])
    listed = versions_of(tmp_path, "experts")
    lancedb.connect(tmp_path).open_table("experts").delete("name = ''")
    for path in listed:
        path.unlink()
    assert [expert.name for expert in Store(tmp_path).experts()] == ["one.test"]
    assert [problem.kind for problem in Store(tmp_path).verify()] == ["past"]  # which undo would need
    assert all(problem.repaired for problem in Store(tmp_path).verify(repair=True))
    assert Store(tmp_path).verify() == []
    listed = versions_of(tmp_path, "experts")
    versions_of(tmp_path, "experts")[0].unlink()
    with pytest.raises(RegistryError, match=re.escape("table experts is damaged: its newest version, ")):
        Store(tmp_path).experts()


@pytest.mark.slow
def test_what_lancedb_had_not_finished_is_not_missed(tmp_path):
    store = Store.create(tmp_path)
    unfinished = tmp_path / "experts.lance" / "_versions" / ".tmpAbCdEf"
    unfinished.write_bytes(b"half")
    store.add_experts([make_expert("one.test")])
    unfinished.unlink()
    assert [expert.name for expert in Store(tmp_path).experts()] == ["one.test"]
    assert Store(tmp_path).verify() == []
