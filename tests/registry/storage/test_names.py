"""Names of any text: allowed by the pattern, or refused in one line that prints safely; never a path."""

from pathlib import Path

import pytest
from builders import make_embedding, make_expert, make_space, make_task
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import TaskRegistry
from registry.cli.main import main
from registry.errors import InvalidQueryError, InvalidRecordError, NotFoundError, RegistryError
from registry.gate import NAME_PATTERN, checked_name
from registry.storage.store import Store

HOSTILE = [
    "",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "a\0b",
    "a\x1b[2J",
    "a\nb",
    "a\n",
    "' OR 1=1 --",
    "birds'",
    'a"b',
    "\ud800",
    "\u202eabc",
    "birds@1@2",
    "birds@-1",
    "birds@9999999999999999999999",
    "birds@\u0661",
    "\u0430" * 3,
    "x" * 129,
    "%s{0}",
]
names = st.sampled_from(HOSTILE) | st.text(max_size=20) | st.text("./\\-@'\"\0\x1b ab", max_size=12)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    root = tmp_path_factory.mktemp("names") / "deep" / "registry"
    root.parent.mkdir()
    store = Store.create(root)
    store.add_space(make_space())
    store.add_tasks([(make_task("birds"), make_embedding("birds"))], "space0")
    store.add_experts([make_expert()])
    return TaskRegistry(root)


def files_around(registry):
    root = Path(registry.uri)
    return sorted(str(path) for path in root.parents[1].rglob("*") if root not in path.parents)


def refused(call, *args, **options):
    """Whether a call is refused, in one line that prints safely; other errors are not caught."""
    try:
        call(*args, **options)
    except RegistryError as error:
        assert isinstance(error, InvalidRecordError | InvalidQueryError | NotFoundError)  # noqa: PT017 (either way)
        assert str(error).isprintable()  # noqa: PT017
        return True
    return False


@given(name=names)
@settings(max_examples=200)
def test_a_name_is_allowed_by_the_pattern_or_refused(name):
    assert refused(checked_name, "task", name) == (NAME_PATTERN.fullmatch(name) is None)
    assert refused(make_task, name) == refused(checked_name, "task", name) == refused(checked_name, "tag", name)


@given(name=names | st.lists(st.sampled_from(["timm", "a.b", ".", "..", "", "x:y"])).map("/".join))
@settings(max_examples=200)
def test_a_name_of_an_expert_may_have_parts_but_is_no_path(name):
    """Against a reading of its parts."""
    parts = name.split("/")
    allowed = all(character.isascii() and (character.isalnum() or character in "._-/:") for character in name)
    allowed = allowed and len(name) <= 160 and not {"", ".", ".."} & set(parts)
    assert refused(make_expert, name) == (not allowed)


def test_no_allowed_name_leaves_its_folder(tmp_path):
    """Only these two allowed names are no name of a file; what writes files by name must know."""
    assert not NAME_PATTERN.fullmatch("a/b")
    assert [
        name
        for name in (".", "..", "...", "-x", ".a", "a..b")
        if (tmp_path / name).resolve().parent != tmp_path
    ] == [".", ".."]


@given(name=names.filter(lambda name: name not in {"birds", "birds@1"}))
@settings(max_examples=40, deadline=None)
def test_every_way_into_the_registry_refuses_what_is_not_there(registry, name):
    before = files_around(registry)
    other = make_expert().name
    assert refused(registry.task, name)
    assert refused(registry.expert, name)
    assert refused(registry.remove_task, name)
    assert refused(registry.remove_expert, name)
    assert refused(registry.embeddings_of, name)
    assert refused(registry.tag_task, name, add=["x"])
    assert refused(registry.add_result, name, other, accuracy=0.5)
    assert refused(registry.add_result, "birds", name, accuracy=0.5)
    if not NAME_PATTERN.fullmatch(name):
        assert refused(registry.tag_task, "birds", add=[name])
        assert refused(registry.add_task, name, "sklearn:digits")
        assert refused(registry.add_expert, other, name=name)
        assert refused(registry.add_result, "birds", other, accuracy=0.5, protocol=name)
    assert registry.results(task=name) == []
    assert files_around(registry) == before


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\0" not in name and name.isascii()])
def test_the_terminal_is_not_obeyed(registry, name):
    done = CliRunner().invoke(main, ["--registry", registry.uri, "task", "show", "--", name])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.removesuffix("\n").isprintable()


@pytest.mark.parametrize("name", ["..", ".", "-x", "..."])
def test_names_of_dots_name_no_file(registry, name):
    before = files_around(registry)
    Store(registry.uri).add_tasks([(make_task(name), make_embedding(name))], "space0")
    assert registry.task(name).name == name
    registry.remove_task(name)
    assert files_around(registry) == before
