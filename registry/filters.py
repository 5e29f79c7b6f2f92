"""The language of ``--where``: a filter text becomes a predicate over task records.

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
"""

import fnmatch
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from registry.errors import InvalidQueryError
from registry.records import TaskRecord

Predicate = Callable[[TaskRecord], bool]

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
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
KEYWORDS = {"and", "or", "not", "in", "like"}
FLAGS = {"true": True, "false": False}
KIND_NAMES = {"text": "a text in single quotes", "number": "a number", "flag": "true or false"}
MAX_DEPTH = 50  # nesting beyond this is no question that anybody asks, and would exhaust Python's stack

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?![\w.]))"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<symbol>!=|<=|>=|[=<>(),])|(?P<end>\Z))"
)


def parse_where(text: str) -> Predicate:
    """Read a filter.

    Args:
        text: A filter in the language at the top of this module. For any other text the parser raises
            ``InvalidQueryError``, which tells the position, from 1, and the fields.

    Returns:
        A function that tells whether a task passes.

    Example:
        >>> few_medical = parse_where("num_classes < 20 and tags = 'medical'")
        >>> few_medical(TaskRecord("blood", 1, "./blood", 4, 400, ("a", "b", "c", "d"), "", "", ("medical",)))
        True
    """
    return _Parser(text).parse()


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


class _Parser:
    """Recursive descent; one method per rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._tokenize()
        self._next = 0

    def parse(self) -> Predicate:
        """The whole text as one filter."""
        predicate = self._any(depth=0)
        if self._token.kind != "end":
            raise self._error("'and', 'or' or the end")
        return predicate

    def _any(self, depth: int) -> Predicate:
        parts = [self._all(depth)]
        while self._accept("or"):
            parts.append(self._all(depth))
        return lambda task: any(part(task) for part in parts)

    def _all(self, depth: int) -> Predicate:
        parts = [self._factor(depth)]
        while self._accept("and"):
            parts.append(self._factor(depth))
        return lambda task: all(part(task) for part in parts)

    def _factor(self, depth: int) -> Predicate:
        if depth > MAX_DEPTH:
            raise self._error(f"at most {MAX_DEPTH} nested parentheses or nots")
        if self._accept("not"):
            return _negated(self._factor(depth + 1))
        if self._accept("("):
            predicate = self._any(depth + 1)
            self._expect(")")
            return predicate
        return self._comparison()

    def _comparison(self) -> Predicate:
        field = self._token.text
        if self._token.kind != "word" or field not in FIELDS:
            raise self._error("a field")
        self._next += 1
        negated = self._accept("not")
        if self._accept("in"):
            test = self._membership(FIELDS[field])
        elif self._accept("like"):
            test = self._likeness(field)
        elif negated:
            raise self._error("'in' or 'like'")
        else:
            symbol = self._comparison_symbol(field)
            # tags != 'x' means that no tag is x, not that some tag is another word.
            negated = symbol == "!="
            test = _comparing("=" if negated else symbol, self._value(FIELDS[field]))
        predicate = _over_field(field, test)
        return _negated(predicate) if negated else predicate

    def _comparison_symbol(self, field: str) -> str:
        allowed = ("=", "!=") if field in {"tags", "builtin"} else tuple(COMPARISONS)
        for symbol in allowed:
            if self._accept(symbol):
                return symbol
        raise self._error(f"one of {' '.join(allowed)} in like after {field}")

    def _membership(self, kind: str) -> Callable[[Any], bool]:
        self._expect("(")
        values = {self._value(kind)}
        while self._accept(","):
            values.add(self._value(kind))
        self._expect(")")
        return lambda value: value in values

    def _likeness(self, field: str) -> Callable[[Any], bool]:
        if FIELDS[field] != "text":
            raise self._error(f"a field of text before 'like', not {field}")
        # As a shell pattern, because the standard library compiles those without exponential backtracking.
        shell = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
        pattern = re.compile(
            fnmatch.translate("".join(shell.get(letter, letter) for letter in self._value("text")))
        )
        return lambda value: pattern.match(value) is not None

    def _value(self, kind: str) -> Any:
        token = self._token
        if token.kind != kind:
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


def _comparing(symbol: str, value: Any) -> Callable[[Any], bool]:
    compare = COMPARISONS[symbol]
    return lambda of_task: compare(of_task, value)


def _negated(predicate: Predicate) -> Predicate:
    return lambda task: not predicate(task)


def _over_field(field: str, test: Callable[[Any], bool]) -> Predicate:
    """Apply a test to a field of a task; of the tags, one has to pass."""
    if field == "tags":
        return lambda task: any(test(tag) for tag in task.tags)
    return lambda task: test(getattr(task, field))


def _invalid(text: str, position: int, expected: str, found: str) -> InvalidQueryError:
    got = repr(found) if found else "the end"
    return InvalidQueryError(
        f"filter {text!r}, character {position + 1}: expected {expected}, got {got}; "
        f"fields are {', '.join(FIELDS)}"
    )
