import re
import sqlite3

import pytest
from builders import make_task
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.errors import InvalidQueryError
from registry.filters import FIELDS, MAX_DEPTH, parse_where

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


PIECES = st.sampled_from([
    *FIELDS, "and", "or", "not", "in", "like", "true", "(", ")", ",", "=", "!=", "<", "'x'", "''", "'", "-3"
])  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.text() | st.lists(PIECES, max_size=14).map(" ".join))
@example("(" * 20_000)
@example("not " * 20_000)
@example("version = ٣")
@example("version = 1e5")
def test_any_text_parses_or_is_refused(text):
    try:
        predicate = parse_where(text)
    except InvalidQueryError:
        return
    assert predicate(FLOWERS) in {True, False}


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
