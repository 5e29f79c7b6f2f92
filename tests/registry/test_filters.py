import re
import sqlite3
import time

import numpy as np
import pyarrow as pa
import pytest
from builders import make_task
from hypothesis import example, given, settings
from hypothesis import strategies as st
from references_filters import passes as slowly_passes

from registry.errors import InvalidQueryError
from registry.filters import FIELDS, MAX_DEPTH, MAX_PATTERN, parse_where

FLOWERS = make_task(
    "flowers", 2, num_classes=5, num_samples=100, tags=("medical", "plants"), data="./it's", builtin=True
)
FIELD_LIST = "fields are name, version, kind, num_classes, num_samples, tags, builtin, created_at, data"


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("num_classes < 20 and tags = 'medical'", True),
        ("num_classes < 20 and tags = 'cars'", False),
        ("num_classes < 5 or num_classes > 5", False),
        ("num_classes <= 5.0 AND num_classes >= 5", True),
        ("num_classes > -1", True),
        ("tags != 'medical'", False),
        ("tags != 'cars'", True),
        ("not tags = 'cars'", True),
        ("tags in ('cars', 'plants')", True),
        ("tags not in ('cars', 'plants')", False),
        ("tags like 'med%'", True),
        ("tags not like 'med%'", False),
        ("name = 'flowers' and version = 2", True),
        ("name='Flowers'", False),
        ("name like 'flow%'", True),
        ("name like '_lowers'", True),
        ("name like 'flow'", False),
        ("name not like '%w%'", False),
        ("data = './it''s'", True),
        ("data like '*it?s'", False),
        ("data like '%[it]%'", False),
        ("kind = 'single_label'", True),
        ("kind in ('multi_label', 'regression')", False),
        ("kind not like 'reg%' and num_classes = 5", True),
        ("builtin = true", True),
        ("builtin != TRUE", False),
        ("builtin in (false)", False),
        ("created_at >= '2024-05-06' and created_at < '2024-05-07'", True),
        ("version in (1, 2, 3)", True),
        ("version not in (1, 3)", True),
        ("version = 1 or version = 2 and name = 'flowers'", True),
        ("(version = 2 or version = 1) and name = 'birds'", False),
        ("version = 2 or version = 1 and name = 'birds'", True),
        ("not version = 1 and not (name = 'birds')", True),
        ("not not version = 2", True),
        ("\n version\t= 2 ", True),
    ],
)
def test_filter_tells_whether_a_task_passes(text, passes):
    assert parse_where(text)(FLOWERS) is passes


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 1, "a field, got the end"),
        ("  ", 3, "a field, got the end"),
        ("size < 3", 1, "a field, got 'size'"),
        ("Name = 'x'", 1, "a field, got 'Name'"),
        ("and", 1, "a field, got 'and'"),
        ("'name' = 'x'", 1, "a field, got \"'name'\""),
        ("version", 8, "one of = != < <= > >= in like after version, got the end"),
        ("tags < 'x'", 6, "one of = != in like after tags, got '<'"),
        ("builtin", 8, "one of = != in like after builtin, got the end"),
        ("version == 2", 10, "a number, got '='"),
        ("version = '2'", 11, "a number, got \"'2'\""),
        ("version = 2x", 11, "a field, an operator or a value, got '2'"),
        ("version = 2 name", 13, "'and', 'or' or the end, got 'name'"),
        ("name = flowers", 8, "a text in single quotes, got 'flowers'"),
        ('name = "flowers"', 8, "a field, an operator or a value, got '\"'"),
        ("name = 'flowers", 8, 'a field, an operator or a value, got "\'"'),
        ("name = 3", 8, "a text in single quotes, got '3'"),
        ("kind = multi_label", 8, "a text in single quotes, got 'multi_label'"),
        ("builtin = 1", 11, "true or false, got '1'"),
        ("version like '2%'", 14, "a field of text before 'like', not version, got \"'2%'\""),
        ("name like 3", 11, "a text in single quotes, got '3'"),
        ("name = '\udcff'", 8, "a text in single quotes, got \"'\\udcff'\""),
        ("name not = 'x'", 10, "'in' or 'like', got '='"),
        ("version in 1", 12, "'(', got '1'"),
        ("version in ()", 13, "a number, got ')'"),
        ("version in (1, 'x')", 16, "a number, got \"'x'\""),
        ("version in (1", 14, "')', got the end"),
        ("(version = 1", 13, "')', got the end"),
        ("version = 1)", 12, "'and', 'or' or the end, got ')'"),
        ("version = 1; drop", 12, "a field, an operator or a value, got ';'"),
        ("version = 1 or", 15, "a field, got the end"),
        ("not " * 51 + "version = 1", 205, "at most 50 nested parentheses or nots, got 'version'"),
    ],
)
def test_anything_else_is_refused_with_position_and_fields(text, position, expected):
    message = f"filter {text!r}, character {position}: expected {expected}; {FIELD_LIST}"
    with pytest.raises(InvalidQueryError, match=f"^{re.escape(message)}$"):
        parse_where(text)


def test_field_list_in_messages_is_complete():
    assert "fields are " + ", ".join(FIELDS) == FIELD_LIST


def test_deepest_nesting_works():
    text = "(" * MAX_DEPTH + "version = 2" + ")" * MAX_DEPTH
    assert parse_where(text)(FLOWERS)
    with pytest.raises(InvalidQueryError, match=re.escape("at most 50 nested parentheses")):
        parse_where(f"({text})")


def test_long_filters_and_hard_patterns_take_no_time():
    assert parse_where(" or ".join(["version = 1"] * 5000 + ["version = 2"]))(FLOWERS)
    assert not parse_where(f"name like '{'%a' * 40}b'")(make_task("a" * 128))
    assert parse_where(f"version < {'9' * 5000}")(FLOWERS)


def test_longest_pattern_works(capfd):
    for unit in ("_", "%", "%a", "a"):
        pattern = (unit * MAX_PATTERN)[:MAX_PATTERN]
        assert not parse_where(f"name like '{pattern}'")(FLOWERS) or unit == "%"
        message = f"character 11: expected a pattern of at most {MAX_PATTERN} characters, got 'more'"
        with pytest.raises(InvalidQueryError, match=re.escape(message)):
            parse_where(f"name like '{pattern}x'")
    assert capfd.readouterr() == ("", "")


PIECES = st.sampled_from([
    *FIELDS, "and", "or", "not", "in", "like", "true", "(", ")", ",", "=", "!=", "<", "'x'", "''", "'", "-3"
])  # fmt: skip
VALID = st.sampled_from([
    "name = 'it''s' or tags in ('a', 'b') and not builtin = true",
    "num_classes >= -3.5 and (data like './%' or version not in (1, 2))",
])  # fmt: skip


@st.composite
def mutated(draw):
    """A valid filter with a few places cut out, doubled or written over."""
    text = draw(VALID)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(start + 5, len(text))))
        put = draw(st.sampled_from(["", "'", "''", text[start:end] * 2, "\\", "\0", ")", ";", "--", "\udcff"]))
        text = text[:start] + put + text[end:]
    return text


ANY_CHARACTERS = st.text(alphabet=st.characters(exclude_categories=()))


@settings(deadline=None, max_examples=500)
@given(ANY_CHARACTERS | st.text() | st.lists(PIECES, max_size=14).map(" ".join) | mutated())
@example("(" * 20_000)
@example("not " * 20_000)
@example("version = ٣")
@example("version = 1e5")
@example("name = '\x00'")
def test_any_text_parses_or_is_refused_in_one_line(text):
    message = ""
    try:
        found = parse_where(text)
    except InvalidQueryError as error:
        message = str(error)
    else:
        assert found(FLOWERS) in {True, False}
    assert len(message.splitlines()) <= 1


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=12) | st.text(alphabet="'\\\" \0\n%_-;()or1=", max_size=12))
def test_no_text_escapes_its_quotes(text):
    """Whatever a value holds, once its quotes are doubled it is compared as it is and ends where it ends."""
    quoted = "'" + text.replace("'", "''") + "'"
    task = make_task(data=text)
    assert parse_where(f"data = {quoted}")(task)
    assert parse_where(f"data in ('', {quoted}) and version = 1")(task)
    assert not parse_where(f"data != {quoted} or data < {quoted} or data > {quoted}")(task)
    assert not parse_where(f"data = {quoted}")(make_task(data=text + "x"))


# A twin: SQLite speaks the same language, but for tags, which are a list.

NUMBERS = st.integers(-2, 4).map(str) | st.sampled_from(["1.5", "2.0"])
TEXTS = st.text(alphabet="ab'%_*?[", max_size=3).map(lambda text: "'" + text.replace("'", "''") + "'")
SYMBOLS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
NOT = st.sampled_from(["", "not "])


def comparisons(fields, values):
    field = st.sampled_from(fields)
    listed = st.lists(values, min_size=1, max_size=3).map(", ".join)
    return st.builds("{} {} {}".format, field, SYMBOLS, values) | st.builds(
        "{} {}in ({})".format, field, NOT, listed
    )


def combined(parts):
    return (
        st.builds("{} and {}".format, parts, parts)
        | st.builds("{} or {}".format, parts, parts)
        | parts.map("not {}".format)
        | parts.map("({})".format)
    )


FILTERS = st.recursive(
    comparisons(["version", "num_classes"], NUMBERS)
    | comparisons(["name", "data"], TEXTS)
    | st.builds("{} {}like {}".format, st.sampled_from(["name", "data"]), NOT, TEXTS)
    | st.sampled_from(["builtin = true", "builtin != true", "builtin in (false)"]),
    combined,
    max_leaves=8,
)
TASKS = st.builds(
    make_task,
    name=st.text(alphabet="ab_", min_size=1, max_size=3),
    version=st.integers(1, 3),
    num_classes=st.integers(1, 3),
    data=st.text(alphabet="ab'%_*?[", max_size=3),
    builtin=st.booleans(),
)


def passes_in_sqlite(text, task):
    connection = sqlite3.connect(":memory:")
    connection.execute("pragma case_sensitive_like = on")
    connection.execute("create table t (name, version, num_classes, data, builtin)")
    row = (task.name, task.version, task.num_classes, task.data, task.builtin)
    connection.execute("insert into t values (?, ?, ?, ?, ?)", row)
    passes = connection.execute(f"select count(*) from t where {text}").fetchone() == (1,)
    connection.close()
    return passes


@settings(deadline=None, max_examples=300)
@given(FILTERS, TASKS)
def test_filter_means_what_sqlite_takes_it_for(text, task):
    assert parse_where(text)(task) == passes_in_sqlite(text, task)


# The other twin: one task at a time in plain Python, for all of the language and a table in any chunks.

ODD_TEXT = "aZ'%_*?[\\.\n\0é\U0001f600\ufffd"
ODD_TEXTS = st.text(alphabet=ODD_TEXT, max_size=3).map(lambda text: "'" + text.replace("'", "''") + "'")
WORDS = st.sampled_from(["a", "b", "ab", "a.b", "A"])
QUOTED_WORDS = WORDS.map("'{}'".format) | ODD_TEXTS
ODD_NUMBERS = NUMBERS | st.sampled_from([
    "9007199254740992", "9007199254740993", "9007199254740992.5", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "9" * 400, "-" + "9" * 400, "-0", "0.0"
])  # fmt: skip
COUNTS = st.integers(1, 4) | st.sampled_from([2**53 - 2, 2**53 - 1, 2**53])


def listed(fields, values):
    inside = st.lists(values, min_size=1, max_size=3).map(", ".join)
    return st.builds("{} {}In ({})".format, st.sampled_from(fields), NOT, inside)


TEXT_FIELDS = ["name", "data", "kind", "created_at"]
ALL_FILTERS = st.recursive(
    comparisons(["version", "num_classes", "num_samples"], ODD_NUMBERS)
    | comparisons(TEXT_FIELDS, QUOTED_WORDS)
    | st.builds("tags {} {}".format, st.sampled_from(["=", "!="]), QUOTED_WORDS)
    | listed(["tags"], QUOTED_WORDS)
    | st.builds("{} {}LIKE {}".format, st.sampled_from([*TEXT_FIELDS, "tags"]), NOT, ODD_TEXTS)
    | st.sampled_from(
        ["builtin = TRUE", "builtin != true", "builtin in (false)", "builtin not in (true,False)"]
    ),
    combined,
    max_leaves=8,
)
ALL_TASKS = st.builds(
    make_task,
    name=WORDS,
    version=st.integers(1, 3),
    num_classes=COUNTS,
    num_samples=COUNTS,
    data=st.text(alphabet=ODD_TEXT, max_size=4),
    tags=st.lists(WORDS, max_size=3).map(tuple),
    builtin=st.booleans(),
)
TYPES = {"text": pa.string(), "number": pa.int64(), "flag": pa.bool_(), "tags": pa.list_(pa.string())}


def table_of(tasks):
    columns = {}
    for field, kind in FIELDS.items():
        arrow_type = TYPES["tags" if field == "tags" else kind]
        columns[field] = pa.array([getattr(task, field) for task in tasks], arrow_type)
    return pa.table(columns)


@settings(deadline=None, max_examples=500)
@given(ALL_FILTERS, st.lists(ALL_TASKS, max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_mask_is_what_one_task_after_the_other_gives(text, tasks, cut, first):
    expected = [slowly_passes(text, task) for task in tasks]
    found = parse_where(text)
    whole = table_of(tasks)
    chunked = pa.concat_tables([whole[:cut], whole[cut:]])
    for table in (whole, chunked):
        mask = found.mask(table)
        assert (mask.dtype, mask.shape) == (np.bool_, (len(tasks),))
        assert mask.tolist() == expected
        assert found.mask(table[first:]).tolist() == expected[first:]
    assert found.passing(tasks) == [task for task, passes in zip(tasks, expected, strict=True) if passes]


@settings(deadline=None, max_examples=300)
@given(FILTERS, TASKS)
def test_both_twins_agree(text, task):
    assert slowly_passes(text, task) == passes_in_sqlite(text, task)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "most_seconds"),
    [
        ("num_classes < 20 and name > 'task-05'", 0.05),
        ("tags = 'medical'", 0.2),
        ("tags not in ('medical', 'plants')", 0.2),
        ("name like 'task-0_5%'", 0.5),
    ],
)
def test_a_million_tasks_take_no_time(text, most_seconds):
    generator = np.random.default_rng(0)
    count = 1_000_000
    offsets = np.concatenate([[0], np.cumsum(generator.integers(0, 4, count))])
    words = pa.array(["medical", "plants", "cars", "indoor"]).take(generator.integers(0, 4, offsets[-1]))
    table = pa.table({
        "name": [f"task-{number:07d}" for number in range(count)],
        "num_classes": generator.integers(2, 100, count),
        "tags": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), words),
    })  # fmt: skip
    found = parse_where(text)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        found.mask(table)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < most_seconds, seconds
