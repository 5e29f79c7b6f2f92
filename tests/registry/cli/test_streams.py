"""Streams, exit codes, imports and kinds of values of the command line."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from builders import make_embedding, make_expert, make_space, make_task
from command_lines import SETTINGS, make_small_registry, ok, shown, t2v
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import TaskRegistry, wording
from registry.cli.main import main
from registry.cli.options import CommaList, Range, Size
from registry.errors import InvalidQueryError
from registry.faces import documents, terminal
from registry.options import in_commands, in_fields, spelled
from registry.storage.store import Store

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A registry of five tasks; tests only read it."""
    return make_small_registry(tmp_path_factory.mktemp("registry"))


def test_an_error_of_ours_is_one_line_on_stderr(monkeypatch, folder):
    def fail(self, name, **options):
        raise InvalidQueryError("first\nsecond")

    monkeypatch.setattr(TaskRegistry, "remove_task", fail)
    done = t2v(folder, "task", "remove", "birds")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "Error: first second\n")


def test_an_interrupt_exits_with_130_and_no_traceback(monkeypatch, folder):
    def interrupt(self, name, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(TaskRegistry, "remove_task", interrupt)
    done = t2v(folder, "task", "remove", "birds")
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_what_nobody_foresaw_is_a_sentence_and_a_traceback_if_asked_for(monkeypatch, folder):
    def fail(self, name, **options):
        raise ZeroDivisionError("a\nfault")

    monkeypatch.setattr(TaskRegistry, "remove_task", fail)
    done = t2v(folder, "task", "remove", "birds")
    how = "please report it with the traceback that T2V_DEBUG=1 t2v ... prints"
    assert (done.exit_code, done.stderr) == (1, f"Error: unforeseen ZeroDivisionError: a fault; {how}\n")
    monkeypatch.setenv("T2V_DEBUG", "1")
    with pytest.raises(ZeroDivisionError, match="a"):
        t2v(folder, "task", "remove", "birds")


@pytest.mark.parametrize(
    ("said", "command", "fields"),
    [
        ("say which by label_col='Tumor class'", "--label-col 'Tumor class'", '"label_col": "Tumor class"'),
        ("name it by label_col=, of a", "--label-col, of a", "by label_col, of a"),
        ("skip_bad=True leaves it out", "--skip-bad leaves", '"skip_bad": true leaves'),
        ("class_level=-1 makes 3", "--class-level -1 makes", '"class_level": -1 makes'),
        ("with value_range=(LOW, HIGH)", "--value-range LOW,HIGH", "value_range (LOW, HIGH)"),
        ("lower_is_better=False", "--higher-is-better", '"lower_is_better": false'),
        ("my_split=3, lr=0.1 and split by hand", "my_split=3, lr=0.1 and split by hand", "my_split=3, lr=0.1"),
    ],
)
def test_sentences_name_options_as_each_face_has_them(said, command, fields):
    assert command in spelled(said, in_commands)
    assert fields in spelled({"error": [said]}, in_fields)["error"][0]


def test_embed_refuses_a_file_in_a_missing_folder_before_the_work(monkeypatch, empty, tmp_path):
    monkeypatch.setattr(TaskRegistry, "embed", None)
    done = t2v(empty, "embed", "sklearn:digits", "--out", tmp_path / "none" / "x.npz")
    assert done.exit_code == 2
    assert done.stderr.endswith(f"Error: Invalid value for '--out': there is no folder {tmp_path / 'none'}\n")


def test_embed_describes_a_full_disk(embedded, images):
    done = t2v(embedded, "embed", images, "--out", "/dev/full")
    assert done.exit_code == 1
    assert done.stderr == "Error: Could not open file '/dev/full': No space left on device\n"


def run_python(code, folder, **options):
    """Run code in a new process, where nothing is imported yet; ``FOLDER`` is the registry."""
    environment = os.environ | {"T2V_REGISTRY": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", f"import sys\n{code}"]
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, timeout=120, check=False, **options)


def imported(folder, *command_lines):
    """Top-level modules that a new process has imported after running these."""
    code = f"""
from registry.cli.main import main
for words in {command_lines!r}:
    main(list(words), standalone_mode=False)
print("IMPORTED", *{{name.partition(".")[0] for name in sys.modules}})
"""
    done = run_python(code, folder, capture_output=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("IMPORTED ")[2].split())


def help_lines(command=main, path=()):
    yield (*path, "--help")
    for name, child in getattr(command, "commands", {}).items():
        yield from help_lines(child, (*path, name))


def test_help_imports_nothing_slow(folder):
    slow = {"torch", "torchvision", "lancedb", "faiss", "pyarrow", "numpy", "rich", "indexer"}
    assert imported(folder, *help_lines()) & slow == set()


def test_nearest_of_a_name_imports_no_torch(folder):
    names = imported(folder, ("nearest", "flowers"), ("recommend", "flowers"), ("task", "list"))
    assert names & {"torch", "torchvision"} == set()


def test_a_closed_pipe_is_no_fault(folder):
    reader, writer = os.pipe()
    os.close(reader)
    code = "from registry.cli.main import main; main(sys.argv[1:] or ['distances'])"
    with os.fdopen(writer, "w") as closed:
        done = run_python(code, folder, stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_no_escape_codes_where_stdout_is_no_terminal(folder, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    output = ok(folder, "recommend", "flowers").output + ok(folder, "task", "list").output
    assert "\x1b" not in output


def test_tables_are_not_cut_where_stdout_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    store = Store.create(tmp_path)
    store.add_experts([make_expert("x" * 128, source_task="y" * 128)])
    assert f"{'x' * 128}\t{'y' * 128}" in ok(tmp_path, "expert", "list").stdout


def test_a_narrow_terminal_loses_columns_and_no_part_of_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    rows = [("resnet50.IMAGENET1K_V2", "imagenet", 0.95, "25M"), ("b", "c", 0.5, "1k")]
    left_out = {80: [], 47: ["params"], 38: ["params", "accuracy"], 20: ["params", "accuracy"]}
    for width, columns in left_out.items():
        monkeypatch.setenv("COLUMNS", str(width))
        sys.stdout, sys.stderr = Terminal(), io.StringIO()
        terminal.table(("expert", "source task", ">accuracy", ">params"), rows)
        assert re.search(r"resnet50\.IMAGENET1K_V2 .*imagenet", sys.stdout.getvalue())
        message = f"Too wide for this window, left out: {', '.join(columns)}.\n" if columns else ""
        assert sys.stderr.getvalue() == message


def test_sentences_are_wrapped_between_words_and_names_are_not(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stdout", Terminal())
    sentence = "the file of the table is not as it was written, it was cut short by a kill or a full disk"
    terminal.table(("kind", "where", "~problem", "repaired"), [("damage", "tasks", sentence, "no")])
    printed = re.sub(r"\x1b\[[0-9;]*m", "", sys.stdout.getvalue())
    assert max(map(len, printed.splitlines())) <= 60
    assert (
        " ".join(re.sub("damage|tasks|no |no$", "", line).strip() for line in printed.splitlines()[2:])
        == sentence
    )
    name = "vit_huge_patch14_clip_378.dfn5b_ft_in1k-and-more"
    assert name in terminal.wrapped(f"A sentence with a name that is long, {name}, is wrapped before it.")[1]


def test_control_characters_in_names_are_spelled_out(tmp_path):
    store = Store.create(tmp_path)
    store.add_space(make_space())
    task = make_task(data="./a\x1b[31mb", class_names=("e\u0301t\u00e9", "\r\n"), settings=SETTINGS)
    store.add_task(task, "space0", make_embedding())
    for text in (
        ok(tmp_path, "task", "show", "flowers").stdout,
        shown(tmp_path, "task", "show", "flowers").stdout,
    ):
        assert re.search(r"(?m)^(data\t|  data: +)\./a\\x1b\[31mb$", text)
        assert re.search("(?m)^(classes\t|  classes: +)e\u0301t\u00e9, \\\\r\\\\n$", text)


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self):
        return True


def test_progress_is_a_bar_for_each_stage_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress_bar() as progress:
        progress("decode", 1, 2)
        progress("decode", 2, 2)
        progress("fisher", 1, 7)
    shown = sys.stderr.getvalue()
    assert re.search(r"Reading images.*2/2", shown)
    assert re.search(r"Measuring the task.*1/7", shown)


def test_progress_is_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with terminal.progress_bar() as progress:
        assert progress is None
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("30M", 30e6),
        ("2G", 2e9),
        ("1.5k", 1500),
        ("7b", 7e9),
        ("1T", 1e12),
        ("1234", 1234),
        (" 2.m ", 2e6),
        ("3e4", 3e4),
    ],
)
def test_size_reads_what_people_write(text, number):
    assert Size().convert(text, None, None) == number


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1", "0", "0M", "1MM", "nan", "inf", "1e999", "30 M B", "1_000", "\u0663", "0x10", "1,5M"],
)
def test_size_refuses_anything_else(text):
    sentence = f"{text!r} is no size; write a positive number such as 30M, 2G or 1500"
    with pytest.raises(click.BadParameter, match=re.escape(sentence)):
        Size().convert(text, None, None)


@given(st.integers(1, 10**18))
@settings(deadline=None)
def test_shown_sizes_read_back_to_three_digits(value):
    assert Size().convert(wording.size(value), None, None) == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (1, "1"),
        (999, "999"),
        (1000, "1k"),
        (999_499, "999k"),
        (999_999, "1M"),
        (11_689_512, "11.7M"),
    ],
)
def test_sizes_are_rounded(value, shown):
    assert wording.size(value) == shown


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
@settings(deadline=None)
def test_range_reads_two_numbers(low, high):
    assert Range().convert(f"{low!r},{high!r}", None, None) == (low, high)


@pytest.mark.parametrize("text", ["", "1", "1,", "1,2,3", "a,b", "0-255", "0;1"])
def test_range_refuses_anything_else(text):
    sentence = f"{text!r} is no range; write two numbers with a comma, such as 0,65535"
    with pytest.raises(click.BadParameter, match=re.escape(sentence)):
        Range().convert(text, None, None)


def test_comma_list_drops_spaces_and_refuses_nothing():
    assert CommaList().convert("mit, apache-2.0,", None, None) == ("mit", "apache-2.0")
    with pytest.raises(click.BadParameter, match=re.escape("' ,' names nothing; write words between commas")):
        CommaList().convert(" ,", None, None)


@given(
    st.recursive(
        st.none() | st.text() | st.floats() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
@settings(deadline=None)
def test_documents_are_strict_json(value):
    def refuse(constant):
        raise AssertionError(constant)

    text = documents.to_text(value)
    assert text.isascii()
    assert json.loads(text, parse_constant=refuse) == _without_infinity(value)


def _without_infinity(value):
    """The obvious twin: through Python's own JSON with its NaN and Infinity."""
    return json.loads(json.dumps(value), parse_constant=lambda constant: None)
