"""Checksums of files: what was written is recognised, in whatever state a kill or a stranger left the list."""

import re
import threading

import pytest

from registry.errors import StorageError
from registry.storage.checksums import CHECKSUMS_FOLDER
from registry.storage.folders import LocalPlace

MANIFESTS = ["_versions/18446744073709551614.manifest", "_versions/18446744073709551613.manifest"]


@pytest.fixture
def table(tmp_path):
    """A folder that looks like a table of two versions."""
    table = tmp_path / "tasks.lance"
    for name in ("data/a.lance", "data/b.lance", "_deletions/d.arrow", *MANIFESTS):
        write(table / name, f"content of {name}, which names a.lance, b.lance and c.lance LANC")
    write(table / "_versions" / "latest_version_hint.json", "{}")
    return table


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lines(table):
    return (table.parent / CHECKSUMS_FOLDER / "tasks").read_text().splitlines()


def listed(table):
    LocalPlace(table.parent).record_checksums("tasks")
    return table


def refuses(table, name):
    what = f"{table.parent}: table tasks is damaged: its file {name} is not what was written"
    return pytest.raises(StorageError, match=f"^{re.escape(what)}")


def test_every_file_that_never_changes_is_listed_once(table):
    place = LocalPlace(table.parent)
    place.record_checksums("tasks")
    first = lines(table)
    assert len(first) == 5
    assert not any("hint" in line for line in first)
    place.record_checksums("tasks")
    LocalPlace(table.parent).record_checksums("tasks")
    assert lines(table) == first


def test_what_only_older_versions_need_is_not_compared_before_all_is(table):
    listed(table)
    write(table / "data" / "b.lance", "changed")
    write(table / MANIFESTS[1], "names a.lance only LANC")
    (table.parent / CHECKSUMS_FOLDER / "tasks").unlink()
    listed(table)
    write(table / "data" / "b.lance", "changed again")
    LocalPlace(table.parent).check_files("tasks")
    assert LocalPlace(table.parent).changed_files("tasks") == ["data/b.lance"]
    with refuses(table, "data/b.lance"):
        LocalPlace(table.parent).as_of({"tasks": 1}).check_files("tasks")


def test_only_what_is_new_is_added(table):
    place = LocalPlace(table.parent)
    place.record_checksums("tasks")
    first = lines(table)
    write(table / "data" / "c.lance", "more")
    place.record_checksums("tasks")
    added = set(lines(table)) - set(first)
    assert len(first) == len(lines(table)) - 1
    assert [line.split()[2] for line in added] == ["data/c.lance"]


@pytest.mark.parametrize("name", ["data/a.lance", "_deletions/d.arrow", MANIFESTS[1]])
@pytest.mark.parametrize("content", ["", "content of something else"], ids=["truncated", "changed"])
def test_a_changed_file_is_refused(listed_table, name, content):
    (listed_table / name).write_text(content)
    with refuses(listed_table, name):
        LocalPlace(listed_table.parent).check_files("tasks")
    assert LocalPlace(listed_table.parent).changed_files("tasks") == [name]


@pytest.fixture
def listed_table(table):
    return listed(table)


def test_large_data_files_may_be_passed_over_but_no_manifest(listed_table):
    (listed_table / "data" / "a.lance").write_text("x" * 200)
    LocalPlace(listed_table.parent).check_files("tasks", largest=10)
    with refuses(listed_table, "data/a.lance"):
        LocalPlace(listed_table.parent).check_files("tasks")
    (listed_table / MANIFESTS[1]).write_text("x" * 200)
    with refuses(listed_table, MANIFESTS[1]):
        LocalPlace(listed_table.parent).check_files("tasks", largest=10)


def test_old_files_may_go_but_not_the_newest_version(listed_table):
    (listed_table / "data" / "a.lance").unlink()
    (listed_table / MANIFESTS[0]).unlink()
    LocalPlace(listed_table.parent).check_files("tasks")
    (listed_table / MANIFESTS[1]).unlink()
    with pytest.raises(StorageError, match=re.escape(f"its newest version, {MANIFESTS[1]}, is missing")):
        LocalPlace(listed_table.parent).check_files("tasks")


def test_files_without_a_checksum_are_taken_as_they_are(listed_table):
    write(listed_table / "data" / "new.lance", "after a kill")
    LocalPlace(listed_table.parent).check_files("tasks")


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_that_was_cut_off_harms_no_other(listed_table, cut):
    path = listed_table.parent / CHECKSUMS_FOLDER / "tasks"
    path.write_bytes(path.read_bytes()[:-cut])
    LocalPlace(listed_table.parent).check_files("tasks")
    place = LocalPlace(listed_table.parent)
    write(listed_table / "data" / "c.lance", "more")
    place.record_checksums("tasks")
    assert LocalPlace(listed_table.parent).changed_files("tasks") == []
    (listed_table / "data" / "c.lance").write_text("less")
    with refuses(listed_table, "data/c.lance"):
        LocalPlace(listed_table.parent).check_files("tasks")


def test_a_line_that_was_changed_is_ignored(listed_table):
    path = listed_table.parent / CHECKSUMS_FOLDER / "tasks"
    path.write_text(path.read_text().replace("data/a.lance", "data/b.lance", 1))
    LocalPlace(listed_table.parent).check_files("tasks")


def test_the_list_forgets_files_that_are_gone(table):
    place = LocalPlace(table.parent)
    for number in range(200):
        write(table / "data" / f"{number}.lance", "short-lived")
        place.record_checksums("tasks")
        (table / "data" / f"{number}.lance").unlink()
    assert len(lines(table)) < 100
    LocalPlace(table.parent).check_files("tasks")


def test_a_dropped_table_leaves_no_checksums(listed_table):
    place = LocalPlace(listed_table.parent)
    place.forget_checksums("tasks")
    assert not (listed_table.parent / CHECKSUMS_FOLDER / "tasks").exists()
    place.check_files("tasks")


def test_threads_may_check_while_one_checksums(table):
    place, errors = LocalPlace(table.parent), []

    def check():
        try:
            for _ in range(50):
                place.check_files("tasks")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=check) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        write(table / "data" / f"more{number}.lance", str(number))
        place.record_checksums("tasks")
    for thread in threads:
        thread.join()
    assert errors == []
