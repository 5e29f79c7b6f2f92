import re

import pytest

from registry.errors import InvalidQueryError
from registry.web.pages.listings import link, page_of, sort_rows


def test_rows_without_a_value_come_last_either_way():
    rows = [3, None, 1, 2]
    columns = {"value": lambda row: row}
    assert sort_rows(rows, columns, "value", descending=False) == [1, 2, 3, None]
    assert sort_rows(rows, columns, "value", descending=True) == [3, 2, 1, None]


def test_an_unknown_column_is_told_with_those_there_are():
    message = "this list cannot be sorted by 'size'; choose name or age"
    with pytest.raises(InvalidQueryError, match=re.escape(message)):
        sort_rows([], {"name": str, "age": str}, "size", descending=False)


def test_pages_divide_the_rows():
    rows = list(range(101))
    pages = [page_of(rows, number) for number in (1, 2, 3)]
    assert [row for page in pages for row in page.rows] == rows
    assert [page.page for page in pages] == [1, 2, 3]
    assert {page.num_pages for page in pages} == {3}
    assert page_of(rows, 4).rows == []
    assert page_of([], 1).num_pages == 1


def test_links_keep_the_query_but_for_what_changes():
    query = {"search": "a & b", "page": "3", "sort": ""}
    assert link("/", query, page=None) == "/?search=a+%26+b"
    assert link("/", query, sort="name", page=4) == "/?search=a+%26+b&page=4&sort=name"
    assert link("/map", {}, task="") == "/map"
