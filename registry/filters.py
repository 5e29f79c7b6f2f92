"""The language of ``--where``: a filter text becomes a test of the tasks in a table, a column at a time.

    filter     = all ("or" all)*
    all        = factor ("and" factor)*
    factor     = "not" factor | "(" filter ")" | comparison
    comparison = FIELD ("=" | "!=" | "<" | "<=" | ">" | ">=") value
               | FIELD ["not"] "in" "(" value ("," value)* ")"
               | FIELD ["not"] "like" 'pattern'
    value      = number | 'text' (a quote inside is doubled) | true | false

In a pattern ``%`` stands for any characters and ``_`` for one. A comparison of ``tags`` holds where any of
the tags does (``tags = 'medical'``); with ``!=`` or ``not`` where none does. Keywords may be in either case.

Nothing of the text reaches the database, so there is nothing to escape.

Axes: T tasks, V values of a column: one for each task, but for tags.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from registry.errors import InvalidQueryError
from registry.records import TaskRecord

Mask = NDArray[np.bool_]
_Test = Callable[[pa.Array], Mask]
_OfTable = Callable[[pa.Table], Mask]

# What can be compared, with the kind of value it is compared with.
FIELDS: dict[str, str] = {
    "name": "text",
    "version": "number",
    "kind": "text",
    "num_classes": "number",
    "num_samples": "number",
    "tags": "text",
    "builtin": "flag",
    "created_at": "text",
    "data": "text",
}
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Of texts, by UTF-8 bytes, which order as code points do.
TEXT_COMPARISONS: dict[str, Callable[[pa.Array, str], pa.Array]] = {
    "=": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
KEYWORDS = {"and", "or", "not", "in", "like"}
FLAGS = {"true": True, "false": False}
KIND_NAMES = {"text": "a text in single quotes", "number": "a number", "flag": "true or false"}
ARROW_TYPES = {"text": pa.string(), "number": pa.int64(), "flag": pa.bool_()}
MAX_PATTERN = 4096  # characters, as in the longest path; the regex library gives up on some of 100,000
MAX_DEPTH = 50  # nesting beyond this is no question that anybody asks, and would exhaust Python's stack

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?![\w.]))"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<symbol>!=|<=|>=|[=<>(),])|(?P<end>\Z))"
)


class Filter:
    """What ``parse_where`` makes of a text."""

    def __init__(self, of_table: _OfTable) -> None:
        self._of_table = of_table

    def mask(self, table: pa.Table) -> Mask:
        """Which rows pass.

        Args:
            table: T rows; the columns that the filter names, as in ``FIELDS``, without nulls.

        Returns:
            ``[T]`` bool.
        """
        return self._of_table(table)

    def passing(self, tasks: Sequence[TaskRecord]) -> list[TaskRecord]:
        """The tasks that pass, in their order."""
        columns = {
            field: pa.array(
                [getattr(task, field) for task in tasks],
                pa.list_(pa.string()) if field == "tags" else ARROW_TYPES[kind],
            )
            for field, kind in FIELDS.items()
        }
        mask = self.mask(pa.table(columns))
        return [task for task, passes in zip(tasks, mask.tolist(), strict=True) if passes]

    def __call__(self, task: TaskRecord) -> bool:
        """Whether one task passes."""
        return bool(self.passing([task]))


def kind_of(column: pa.DataType) -> str:
    """The kind of value that a column is compared with; empty where it can be compared with none."""
    return next((kind for kind, of_kind in ARROW_TYPES.items() if column == of_kind), "")


def parse_where(text: str, fields: Mapping[str, str] = FIELDS) -> Filter:
    """Read a filter.

    Args:
        text: A filter in the language at the top of this module. For any other text the parser raises
            ``InvalidQueryError``, which names the position, from 1, and the fields.
        fields: What can be compared, with the kind of value it is compared with.

    Example:
        >>> few_medical = parse_where("num_classes < 20 and tags = 'medical'")
        >>> few_medical(TaskRecord("blood", 1, "./blood", 4, 400, ("a", "b", "c", "d"), "", "", ("medical",)))
        True
    """
    return Filter(_Parser(text, fields).parse())


@dataclass(frozen=True)
class _Token:
    """A piece of the filter; ``kind`` is text, number, flag, word, keyword, symbol or end."""

    kind: str
    text: str
    position: int

    @property
    def value(self) -> Any:
        """What a literal stands for."""
        if self.kind == "number":
            return float(self.text)
        if self.kind == "flag":
            return FLAGS[self.text.lower()]
        return self.text[1:-1].replace("''", "'")

    @property
    def is_unicode(self) -> bool:
        """Whether it can be compared with what is stored: bytes of a command line may not be characters."""
        return not any("\ud800" <= letter <= "\udfff" for letter in self.text)


class _Parser:
    """Recursive descent; one method per rule of the grammar."""

    def __init__(self, text: str, fields: Mapping[str, str]) -> None:
        self._text = text
        self._fields = fields
        self._tokens = self._tokenize()
        self._next = 0

    def parse(self) -> _OfTable:
        """The whole text as one filter."""
        predicate = self._any(depth=0)
        if self._token.kind != "end":
            raise self._error("'and', 'or' or the end")
        return predicate

    def _any(self, depth: int) -> _OfTable:
        parts = [self._all(depth)]
        while self._accept("or"):
            parts.append(self._all(depth))
        return _combined(np.logical_or, parts)

    def _all(self, depth: int) -> _OfTable:
        parts = [self._factor(depth)]
        while self._accept("and"):
            parts.append(self._factor(depth))
        return _combined(np.logical_and, parts)

    def _factor(self, depth: int) -> _OfTable:
        if depth > MAX_DEPTH:
            raise self._error(f"at most {MAX_DEPTH} nested parentheses or nots")
        if self._accept("not"):
            return _negated(self._factor(depth + 1))
        if self._accept("("):
            predicate = self._any(depth + 1)
            self._expect(")")
            return predicate
        return self._comparison()

    def _comparison(self) -> _OfTable:
        field = self._token.text
        if self._token.kind != "word" or field not in self._fields:
            raise self._error("a field")
        self._next += 1
        negated = self._accept("not")
        if self._accept("in"):
            test = self._membership(self._fields[field])
        elif self._accept("like"):
            test = self._likeness(field)
        elif negated:
            raise self._error("'in' or 'like'")
        else:
            symbol = self._comparison_symbol(field)
            # tags != 'x' means that no tag is x, not that some tag is another word.
            negated = symbol == "!="
            test = _comparing(self._fields[field], "=" if negated else symbol, self._value(self._fields[field]))
        predicate = _over_field(field, test)
        return _negated(predicate) if negated else predicate

    def _comparison_symbol(self, field: str) -> str:
        allowed = ("=", "!=") if field == "tags" or self._fields[field] == "flag" else tuple(COMPARISONS)
        for symbol in allowed:
            if self._accept(symbol):
                return symbol
        raise self._error(f"one of {' '.join(allowed)} in like after {field}")

    def _membership(self, kind: str) -> _Test:
        self._expect("(")
        values = {self._value(kind)}
        while self._accept(","):
            values.add(self._value(kind))
        self._expect(")")
        return _among(kind, values)

    def _likeness(self, field: str) -> _Test:
        if self._fields[field] != "text":
            raise self._error(f"a field of text before 'like', not {field}")
        token, pattern = self._token, self._value("text")
        if len(pattern) > MAX_PATTERN:
            raise _invalid(self._text, token.position, f"a pattern of at most {MAX_PATTERN} characters", "more")
        wildcards = {"%": ".*", "_": "."}
        regex = "".join(wildcards.get(letter) or re.escape(letter) for letter in pattern)
        # In the library that this calls the time is linear in the length of the value, whatever the pattern.
        return lambda values: _as_mask(pc.match_substring_regex(values, rf"(?s)\A{regex}\z"))

    def _value(self, kind: str) -> Any:
        token = self._token
        if token.kind != kind or not token.is_unicode:
            raise self._error(KIND_NAMES[kind])
        self._next += 1
        return token.value

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, word: str) -> bool:
        """Step over a keyword or symbol if it comes next."""
        found = self._token.kind in {"keyword", "symbol"} and self._token.text.lower() == word
        self._next += found
        return found

    def _expect(self, symbol: str) -> None:
        if not self._accept(symbol):
            raise self._error(f"'{symbol}'")

    def _error(self, expected: str) -> InvalidQueryError:
        return _invalid(self._text, self._token.position, expected, self._token.text)

    def _tokenize(self) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        while not tokens or tokens[-1].kind != "end":
            match = _TOKEN.match(self._text, position)
            if match is None:
                rest = self._text[position:].lstrip()
                raise _invalid(
                    self._text, len(self._text) - len(rest), "a field, an operator or a value", rest[:1]
                )
            kind = next(name for name, part in match.groupdict().items() if part is not None)
            tokens.append(_Token(_finer_kind(kind, match[kind]), match[kind], match.start(kind)))
            position = match.end()
        return tokens


def _finer_kind(kind: str, text: str) -> str:
    """Tell keywords and flags from other words."""
    if kind == "word" and text.lower() in KEYWORDS:
        return "keyword"
    return "flag" if kind == "word" and text.lower() in FLAGS else kind


def _comparing(kind: str, symbol: str, value: Any) -> _Test:
    if kind == "text":
        of_texts = TEXT_COMPARISONS[symbol]
        return lambda values: _as_mask(of_texts(values, pa.scalar(value, values.type)))
    compare = COMPARISONS[symbol]
    if kind == "flag":
        return lambda values: np.asarray(compare(_as_mask(values), value))
    if symbol == "=" and not _is_whole(value):
        return lambda values: np.zeros(len(values), dtype=bool)
    # Whole numbers are compared with a whole number: as floats, those above 2**53 would run together.
    bound = _within_reach(value)
    whole = math.ceil(bound) if symbol in {"<", ">="} else math.floor(bound)
    return lambda values: np.asarray(compare(values.to_numpy(zero_copy_only=False), whole))


def _among(kind: str, values: set[Any]) -> _Test:
    if kind == "number":
        values = {int(value) for value in values if _is_whole(value)}
    choices = pa.array(sorted(values), ARROW_TYPES[kind])
    return lambda found: _as_mask(pc.is_in(found, value_set=choices.cast(found.type)))


def _is_whole(value: float) -> bool:
    """Whether a column of 64-bit whole numbers can hold it."""
    return -(2.0**63) <= value < 2.0**63 and value.is_integer()


def _within_reach(value: float) -> float:
    """The value, or one that is as much beyond every 64-bit whole number."""
    return min(max(value, -(2.0**64)), 2.0**64)


def _as_mask(flags: pa.Array) -> Mask:
    return np.asarray(flags.to_numpy(zero_copy_only=False), dtype=bool)


def _combined(combine: np.ufunc, parts: Sequence[_OfTable]) -> _OfTable:
    def of_table(table: pa.Table) -> Mask:
        mask = parts[0](table)
        for part in parts[1:]:
            mask = combine(mask, part(table))
        return mask

    return of_table


def _negated(of_table: _OfTable) -> _OfTable:
    return lambda table: ~of_table(table)


def _over_field(field: str, test: _Test) -> _OfTable:
    """Apply a test to a column; of the tags of a task, one has to pass."""
    of_chunk = _any_of_list(test) if field == "tags" else test

    def of_table(table: pa.Table) -> Mask:
        return np.concatenate([np.zeros(0, dtype=bool), *map(of_chunk, table[field].chunks)])

    return of_table


def _any_of_list(test: _Test) -> _Test:
    def of_lists(lists: pa.Array) -> Mask:
        # How many values passed before each list begins and ends.
        passed = np.concatenate([[0], np.cumsum(test(lists.values))])[lists.offsets.to_numpy()]
        return np.asarray(passed[1:] > passed[:-1])

    return of_lists


def _invalid(text: str, position: int, expected: str, found: str) -> InvalidQueryError:
    got = repr(found) if found else "the end"
    return InvalidQueryError(
        f"filter {text!r}, character {position + 1}: expected {expected}, got {got}; "
        f"fields are {', '.join(FIELDS)}"
    )
