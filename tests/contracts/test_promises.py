"""What the pages promise is held: by tests that exist, and by a table of roles that names every route."""

import ast
import re

import pytest
from markdown_pages import ROOT
from roles import documented, routes_of
from web_servers import settings_of

from registry.web.app import create_app

ROW = re.compile(r"^\|(?P<cells>.*`tests/.*)\|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def promises() -> dict[str, list[tuple[str, str]]]:
    """What a row of the table of promises is about, and the tests in its last cell."""
    table = (ROOT / "docs" / "storage.md").read_text().partition("## What holds, beside others")[2]
    rows = [match["cells"].split("|") for match in ROW.finditer(table.partition("\n## ")[0])]
    return {row[0].strip(): NAMED.findall(row[-1]) for row in rows}


def functions_of(path: str) -> set[str]:
    """Names of the test functions of a file."""
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("promise", promises())
def test_a_promise_names_tests_that_exist(promise):
    held = promises()[promise]
    assert held
    assert [f"{path}::{name}" for path, name in held if name not in functions_of(path)] == []


def test_the_promises_are_those_of_the_page():
    assert len(promises()) >= 14


def test_the_table_of_roles_names_every_route_that_writes(tmp_path):
    routes = routes_of(create_app(settings_of(tmp_path / "none", tmp_path / "state")))
    listed = {(method, path.partition("?")[0]) for method, path in documented()} - {("GET", "*")}
    assert listed <= routes
    assert {request for request in routes - listed if request[0] != "GET"} == set()
