"""docs/architecture.md: its trees are the files on disk, its ways are those that a command or request takes."""

import re

import pytest
from make_architecture import PAGE, TREES, replaced, rooms_of, tree
from traced_ways import entered, trace_ways

MOST_FILES = {"t2v nearest": 22, "t2v task add": 49}
"""How many files these commands may enter: what a reader has to open to follow one of them."""

REMAKE = "docs/architecture.md is out of date: run python scripts/make/make_architecture.py"


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    return trace_ways(tmp_path_factory.mktemp("ways"))


def between_marks(page, name):
    return re.search(
        rf"<!-- {re.escape(name)}: begin -->\n(.*)<!-- {re.escape(name)}: end -->", page, re.DOTALL
    )[1]


def test_trees_are_the_files_on_disk():
    pages = {name: PAGE.with_name(page).read_text(encoding="utf-8") for name, page in TREES.items()}
    assert all(between_marks(page, f"tree of {name}") == f"{tree(name)}\n" for name, page in pages.items()), (
        REMAKE
    )


def test_every_file_says_what_it_is():
    lines = [line for name in TREES for line in tree(name).splitlines()[1:-1]]
    assert [line for line in lines if len(line.split(maxsplit=1)) == 1] == []


def test_ways_pass_the_rooms_that_the_page_lists(ways):
    page = PAGE.read_text(encoding="utf-8")
    listed = {
        name: re.findall(r"^\d+\. `([\w/.]+)`", between_marks(page, f"way of {name}"), re.M) for name in ways
    }
    assert {name: set(rooms) for name, rooms in listed.items()} == {
        name: set(rooms_of(files)) for name, files in ways.items()
    }, REMAKE


@pytest.mark.parametrize("name", MOST_FILES)
def test_a_command_enters_few_files(ways, name):
    assert len(ways[name]) <= MOST_FILES[name], "\n".join(sorted(ways[name]))


def test_a_trace_sees_threads_and_no_module():
    assert entered(lambda: None) == []
    assert entered(lambda: rooms_of(["registry/answers.py"])) == []
    assert entered(lambda: __import__("registry.wording").wording.short(0.5)) == ["registry/wording.py"]


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match=r"^the page lacks the marks of tree of registry$"):
        replaced("# Architecture", "tree of registry", "")
