"""The pages of the project: command lines parse; links, paths and names exist. ``test_docs_run`` runs them."""

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import click
import pytest
from markdown_pages import ROOT, anchors, code_lines, inline_code, links, pages, prose, table

import indexer.errors
import registry.errors
from indexer.fisher.estimate import ESTIMATORS
from indexer.fisher.layer_rules import MULTIPLICATIONS, RULES
from registry import TaskRegistry
from registry.cli.main import main
from registry.distances import DISTANCES

MOST_LINES = 200
"""Of a page: what is longer is not read."""

_NAME = re.compile(r"(?:indexer|registry|TaskRegistry)(?:\.\w+)+")
_PATH = re.compile(r"(?:indexer|registry|scripts|tests|docs)/[\w./-]+")
_CALL = re.compile(r"\s*(?:\$ +)?(?:[A-Z0-9_]+=\S+ +)*(?P<line>t2v(?: .*)?)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def command_lines(text: str) -> list[list[str]]:
    """Words of every line of code that calls t2v, up to a pipe or whatever else ends the command."""
    found = []
    for match in filter(None, map(_CALL.fullmatch, code_lines(text))):
        lexer = shlex.shlex(match["line"], posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        end = next((place for place, word in enumerate(words) if set(word) <= set("|&;<>()")), None)
        found.append(words[:end])
    return found


def parse(words: list[str]) -> None:
    """Parse a command line as click would, and run nothing.

    Raises:
        UsageError: If it does not parse.
    """
    context, command, rest = click.Context(main, info_name="t2v", **main.context_settings), main, words[1:]
    while isinstance(command, click.Group):
        rest = command.make_parser(context).parse_args(args=rest)[1]
        if not rest:  # options of a group alone, such as --version
            return
        name, rest = rest[0], rest[1:]
        command = command.get_command(context, name)
        if command is None:
            raise click.UsageError(f"No such command '{name}'.")
    try:
        command.make_context(command.name, rest, parent=context)
    except click.exceptions.Exit:  # --help
        return


def unknown_words(line: str) -> list[str]:
    """Commands and options of a command line in running text that do not exist; values may be left out."""
    command, words, wrong = main, line.split()[1:], []
    takes_value = False
    for word in words:
        if word.startswith("-"):
            known = {opt: option for option in command.params + main.params for opt in option.opts}
            if word not in {*known, "--help", "-h"}:
                wrong.append(word)
            takes_value = word in known and not known[word].is_flag
        elif takes_value or word.isupper():
            takes_value = False
        elif isinstance(command, click.Group):
            below = command.get_command(click.Context(command), word)
            if below is None:
                return [*wrong, word]
            command = below
    return wrong


def broken_links(page: Path, text: str) -> list[str]:
    """Targets inside the project that are not there; addresses on the web are not looked up."""
    broken = []
    for target in links(text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file
        is_missing = bool(file) and not path.exists()
        if is_missing or (anchor and anchor not in anchors(path.read_text(encoding="utf-8") if file else text)):
            broken.append(target)
    return broken


def resolve(name: str):
    """The object of a dotted name; a field of a record stands for itself."""
    first, *rest = (f"registry.{name}" if name.startswith("TaskRegistry") else name).split(".")
    found = importlib.import_module(first)
    for part in rest:
        if part in getattr(found, "__dataclass_fields__", {}):
            return found.__dataclass_fields__[part]
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(f"{found.__name__}.{part}")
    return found


def wrong_names(text: str) -> list[str]:
    """Inline code that names what does not exist, or says ``NAME = VALUE`` of another value."""
    wrong = []
    for code in inline_code(text):
        name, _, value = code.removesuffix("()").partition(" = ")
        if _PATH.fullmatch(code) and not (ROOT / code).exists():
            wrong.append(code)
        if not _NAME.fullmatch(name):
            continue
        try:
            found = resolve(name)
        except (AttributeError, ImportError):
            wrong.append(code)
        else:
            wrong += [code] if value and found != ast.literal_eval(value) else []
    return wrong


def test_readme_and_guides_are_there():
    expected = {"README.md", *(f"{name}.md" for name in ("quickstart", "cli", "python", "method", "data"))}
    expected |= {f"{name}.md" for name in ("storage", "benchmarks", "contributing", "changelog")}
    expected |= {f"{name}.md" for name in ("concepts", "faq", "operations", "rest", "security")}
    assert expected - {page.name for page in pages()} == set()


def test_pages_are_short():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in pages()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def wrong_command_lines(text: str) -> list[str]:
    """Lines of code that call t2v and do not parse, with what is wrong with each."""
    wrong = []
    for words in command_lines(text):
        try:
            parse(words)
        except click.UsageError as error:
            wrong.append(f"{shlex.join(words)}: {error.format_message()}")
    return wrong


def wrong_on_pages(problems) -> dict[str, list[str]]:
    """What a function of a page's path and text finds wrong, by page; pages without fault are left out."""
    by_page = {page.name: problems(page, page.read_text(encoding="utf-8")) for page in pages()}
    return {name: wrong for name, wrong in by_page.items() if wrong}


def test_command_lines_parse():
    assert wrong_on_pages(lambda page, text: wrong_command_lines(text)) == {}


def test_commands_in_running_text_exist():
    def unknown(page, text):
        lines = [code for code in inline_code(text) if code.startswith("t2v ")]
        return [f"{line}: {unknown_words(line)}" for line in lines if unknown_words(line)]

    assert wrong_on_pages(unknown) == {}


def test_links_lead_somewhere():
    assert wrong_on_pages(broken_links) == {}


def test_names_and_paths_exist():
    assert wrong_on_pages(lambda page, text: wrong_names(text)) == {}


def test_method_lists_every_distance():
    rows = {row[0]: row for row in table(read("docs/method-distances.md"), "Distances")}
    assert sorted(rows) == sorted(DISTANCES)
    for name, distance in DISTANCES.items():
        _, _, bounds, symmetric, zero, *_ = rows[name]
        low, high = (f"{bound:.3g}" for bound in distance.bounds)
        assert bounds == f"{low} to {high}", name
        assert (symmetric, zero) == (("yes", "yes") if distance.symmetric else ("no", "no")), name


def test_method_lists_every_estimator_and_layer():
    text = read("docs/method.md")
    assert [row[0] for row in table(text, "Estimators")] == list(ESTIMATORS)
    functions = {"mul" if function in MULTIPLICATIONS else function.__name__ for function in RULES}
    assert functions == {name for row in table(text, "Layers") for name in row[0].split(", ")}


def test_python_guide_names_every_method():
    methods = {
        name
        for name, value in vars(TaskRegistry).items()
        if not name.startswith("_") and inspect.isfunction(value)
    }
    text = "".join(read(f"docs/{name}.md") for name in ("python", "python-data", "python-more"))
    assert {name for name in methods if f"registry.{name}(" not in text} == set()


@pytest.mark.parametrize(
    ("page", "module"), [("docs/data-reading.md", indexer.errors), ("docs/python-more.md", registry.errors)]
)
def test_every_error_is_explained(page, module):
    errors = {
        name for name, kind in vars(module).items() if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert {name for name in errors if f"`{name}`" not in prose(read(page))} == set()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("$ t2v neerest flowers", "No such command 'neerest'."),
        ("t2v nearest flowers --nonesuch | head", "No such option"),
        ("T2V_REGISTRY=./team t2v nearest # whose?", "Missing parameter: query"),
    ],
)
def test_a_command_line_that_does_not_parse_would_be_noticed(block, message):
    (words,) = command_lines(f"Text\n\n```console\n{block}\n```\n")
    assert command_lines(f"Text\n\n    {block}\n") == [words]
    with pytest.raises(click.UsageError, match=re.escape(message)):
        parse(words)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("t2v optimise", ["optimise"]),
        ("t2v task addd NAME", ["addd"]),
        ("t2v --registry ./team task add NAME DATA --nonesuch 3", ["--nonesuch"]),
        ("t2v task add NAME DATA --max-samples 3", []),
        ("t2v verify --repair", []),
    ],
)
def test_an_unknown_command_in_running_text_would_be_noticed(line, wrong):
    assert unknown_words(line) == wrong


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](nonesuch.md)", ["nonesuch.md"]),
        ("# One thing\n[a](#one-thing) [b](#two-things)", ["#two-things"]),
        (
            "[a](cli-questions.md#t2v-nearest) [b](cli-questions.md#t2v-neerest)",
            ["cli-questions.md#t2v-neerest"],
        ),
        ("[a](../tests/conftest.py) [b](https://example.org)", []),
    ],
)
def test_a_broken_link_would_be_noticed(text, broken):
    assert broken_links(ROOT / "docs" / "page.md", text) == broken


@pytest.mark.parametrize(
    ("code", "is_wrong"),
    [
        ("registry.index.neighbors.nonesuch", True),
        ("registry.index.neighbors.EXACT_BELOW", False),
        ("registry.distances.DEFAULT_ALPHA = 0.15", False),
        ("registry.distances.DEFAULT_ALPHA = 0.3", True),
        ("TaskRegistry.nearest", False),
        ("TaskRegistry.neerest", True),
        ("indexer.records.TaskEmbedding.domain", False),
        ("tests/nonesuch.py", True),
        ("tests/contracts/test_docs.py", False),
    ],
)
def test_a_wrong_name_would_be_noticed(code, is_wrong):
    assert wrong_names(f"The `{code}` is there.") == ([code] if is_wrong else [])
