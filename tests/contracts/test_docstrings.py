"""Docstrings of one line name the errors that their function raises; ruff reads the sections of longer ones."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def inside(function):
    """Nodes of a function, those of functions within left out."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from inside(node)


def unnamed(tree):
    """Line of each function whose docstring of one line does not name an error that it raises."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        said = ast.get_docstring(function) or "\n"
        raised = {
            node.exc.func.id
            for node in inside(function)
            if isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and isinstance(node.exc.func, ast.Name)
            and node.exc.func.id.endswith("Error")
        }
        if "\n" not in said and any(f"``{name}``" not in said for name in raised):
            yield function.lineno


def test_docstrings_of_one_line_name_the_errors():
    paths = [path for package in ("indexer", "registry") for path in (ROOT / package).rglob("*.py")]
    assert {
        path.relative_to(ROOT).as_posix(): lines
        for path in paths
        if (lines := list(unnamed(ast.parse(path.read_text(encoding="utf-8")))))
    } == {}


def test_an_error_that_is_not_named_is_noticed():
    text = 'def half(n):\n    """Half of n{}."""\n    if n % 2:\n        raise ValueError("odd")\n'
    assert list(unnamed(ast.parse(text.format("")))) == [1]
    assert list(unnamed(ast.parse(text.format("; ``ValueError`` if n is odd")))) == []
