"""Slow, obviously right twin of ``registry.filters``: one task at a time, plain Python; valid filters only."""

import fnmatch
import operator
import re

COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
PIECE = re.compile(r"\s*('(?:[^']|'')*'|-?[0-9.]+|\w+|!=|<=|>=|[=<>(),])")


def passes(text, task):
    """Whether a task passes a filter."""
    pieces = PIECE.findall(text)
    pieces.reverse()  # the next one is the last
    found = any_of(pieces, task)
    assert not pieces
    return found


def comes(pieces, word):
    return bool(pieces) and pieces[-1].lower() == word


def accept(pieces, word):
    return comes(pieces, word) and bool(pieces.pop())


def any_of(pieces, task):
    found = [all_of(pieces, task)]
    while accept(pieces, "or"):
        found.append(all_of(pieces, task))
    return any(found)


def all_of(pieces, task):
    found = [factor(pieces, task)]
    while accept(pieces, "and"):
        found.append(factor(pieces, task))
    return all(found)


def factor(pieces, task):
    if accept(pieces, "not"):
        return not factor(pieces, task)
    if accept(pieces, "("):
        found = any_of(pieces, task)
        assert accept(pieces, ")")
        return found
    return comparison(pieces, task)


def comparison(pieces, task):
    field = pieces.pop()
    values = task.tags if field == "tags" else [getattr(task, field)]
    negated = accept(pieces, "not")
    symbol = pieces.pop().lower()
    if symbol == "in":
        pieces.pop()
        choices = [value(pieces.pop())]
        while pieces.pop() == ",":
            choices.append(value(pieces.pop()))
        found = any(it in choices for it in values)
    elif symbol == "like":
        found = any(is_like(it, value(pieces[-1])) for it in values)
        pieces.pop()
    elif symbol == "!=":
        negated, other = True, value(pieces.pop())
        found = any(it == other for it in values)
    else:
        other = value(pieces.pop())
        found = any(COMPARE[symbol](it, other) for it in values)
    return found != negated


def is_like(text, pattern):
    shell = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return fnmatch.fnmatchcase(text, "".join(shell.get(letter, letter) for letter in pattern))


def value(literal):
    if literal.startswith("'"):
        return literal[1:-1].replace("''", "'")
    return literal.lower() == "true" if literal.lower() in {"true", "false"} else float(literal)
