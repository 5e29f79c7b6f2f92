"""Seals: what was written is known again, in whatever state a kill or a foreign hand left the list."""

import re
import threading

import pytest

from registry.errors import StorageError
from registry.storage.checksums import SEALS_FOLDER, Seals

MANIFESTS = ["_versions/18446744073709551614.manifest", "_versions/18446744073709551613.manifest"]


@pytest.fixture
def table(tmp_path):
    """A folder that looks like a table of two versions."""
    table = tmp_path / "tasks.lance"
    for name in ("data/a.lance", "data/b.lance", "_deletions/d.arrow", *MANIFESTS):
        write(table / name, f"content of {name}")
    write(table / "_versions" / "latest_version_hint.json", "{}")
    return table


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lines(table):
    return (table.parent / SEALS_FOLDER / "tasks").read_text().splitlines()


def sealed(table):
    Seals(table.parent).seal(table)
    return table


def refuses(table, name):
    what = f"{table.parent}: table tasks is damaged: its file {name} is not what was written"
    return pytest.raises(StorageError, match=f"^{re.escape(what)}")


def test_every_file_that_never_changes_is_sealed_once(table):
    seals = Seals(table.parent)
    seals.seal(table)
    first = lines(table)
    assert len(first) == 5
    assert not any("hint" in line for line in first)
    seals.seal(table)
    Seals(table.parent).seal(table)
    assert lines(table) == first


def test_only_what_is_new_is_appended(table):
    seals = Seals(table.parent)
    seals.seal(table)
    write(table / "data" / "c.lance", "more")
    seals.seal(table)
    assert [line.split()[2] for line in lines(table)[5:]] == ["data/c.lance"]


@pytest.mark.parametrize("name", ["data/a.lance", "_deletions/d.arrow", MANIFESTS[1]])
@pytest.mark.parametrize("content", ["", "content of something else"], ids=["truncated", "changed"])
def test_a_changed_file_is_refused(sealed_table, name, content):
    (sealed_table / name).write_text(content)
    with refuses(sealed_table, name):
        Seals(sealed_table.parent).check(sealed_table)
    assert Seals(sealed_table.parent).damaged_files(sealed_table) == [name]


@pytest.fixture
def sealed_table(table):
    return sealed(table)


def test_large_data_files_may_be_passed_over_but_no_manifest(sealed_table):
    (sealed_table / "data" / "a.lance").write_text("x" * 200)
    Seals(sealed_table.parent).check(sealed_table, largest=10)
    with refuses(sealed_table, "data/a.lance"):
        Seals(sealed_table.parent).check(sealed_table)
    (sealed_table / MANIFESTS[1]).write_text("x" * 200)
    with refuses(sealed_table, MANIFESTS[1]):
        Seals(sealed_table.parent).check(sealed_table, largest=10)


def test_old_files_may_go_but_not_the_newest_version(sealed_table):
    (sealed_table / "data" / "a.lance").unlink()
    (sealed_table / MANIFESTS[0]).unlink()
    Seals(sealed_table.parent).check(sealed_table)
    (sealed_table / MANIFESTS[1]).unlink()
    with pytest.raises(StorageError, match=re.escape(f"its newest version, {MANIFESTS[1]}, is missing")):
        Seals(sealed_table.parent).check(sealed_table)


def test_files_without_a_seal_are_taken_as_they_are(sealed_table):
    write(sealed_table / "data" / "new.lance", "after a kill")
    Seals(sealed_table.parent).check(sealed_table)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_that_was_cut_off_harms_no_other(sealed_table, cut):
    path = sealed_table.parent / SEALS_FOLDER / "tasks"
    path.write_bytes(path.read_bytes()[:-cut])
    Seals(sealed_table.parent).check(sealed_table)
    seals = Seals(sealed_table.parent)
    write(sealed_table / "data" / "c.lance", "more")
    seals.seal(sealed_table)
    assert Seals(sealed_table.parent).damaged_files(sealed_table) == []
    (sealed_table / "data" / "c.lance").write_text("less")
    with refuses(sealed_table, "data/c.lance"):
        Seals(sealed_table.parent).check(sealed_table)


def test_a_line_that_was_changed_is_ignored(sealed_table):
    path = sealed_table.parent / SEALS_FOLDER / "tasks"
    path.write_text(path.read_text().replace("data/a.lance", "data/b.lance", 1))
    Seals(sealed_table.parent).check(sealed_table)


def test_the_list_forgets_files_that_are_gone(table):
    seals = Seals(table.parent)
    for number in range(200):
        write(table / "data" / f"{number}.lance", "short-lived")
        seals.seal(table)
        (table / "data" / f"{number}.lance").unlink()
    assert len(lines(table)) < 100
    Seals(table.parent).check(table)


def test_a_dropped_table_leaves_no_seals(sealed_table):
    seals = Seals(sealed_table.parent)
    seals.forget(sealed_table)
    assert not (sealed_table.parent / SEALS_FOLDER / "tasks").exists()
    seals.check(sealed_table)


def test_threads_may_check_while_one_seals(table):
    seals, errors = Seals(table.parent), []

    def check():
        try:
            for _ in range(50):
                seals.check(table)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=check) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        write(table / "data" / f"more{number}.lance", str(number))
        seals.seal(table)
    for thread in threads:
        thread.join()
    assert errors == []
