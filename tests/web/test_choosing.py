"""Lists that are narrowed, compared and taken along: facets, several at once, and every table as CSV."""

import csv
import io
import re

import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from html_pages import Page, faults_of
from web_servers import BEARER, serving

from registry.storage.store import Store
from registry.web.pages.csv_tables import csv_of

SETTINGS = {"settings": '{"max_samples": 9}'}


def fill(store: Store) -> None:
    store.add_space(make_space())
    store.add_experts(
        [
            make_expert("real.one", num_params=11_000_000, license="mit"),
            make_expert("real.two", num_params=99_000_000, license="apache-2.0"),
            make_expert("toy.one", num_params=None, license="", toy=True),
        ]
    )
    tasks = [
        make_task("flowers", tags=("plants", "photo"), num_samples=1234, **SETTINGS),
        make_task("birds", kind="multi_label", tags=("photo",), num_samples=50, **SETTINGS),
        make_task("ages", kind="regression", num_classes=1, class_names=("age",), **SETTINGS),
        *(make_task(f"more{number:02}", **SETTINGS) for number in range(60)),
    ]
    store.add_tasks([(task, make_embedding(task.name)) for task in tasks], "space0")
    store.add_results(
        [
            make_result("flowers", "real.one", accuracy=0.91234567, source="=cmd()"),
            make_result("flowers", "real.two", accuracy=0.8),
            make_result("birds", "real.one", accuracy=0.5),
            make_result("birds", "real.two", accuracy=0.4),
        ]
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choosing")
    Store.create(folder / "registry", fill)
    with serving(folder / "registry", folder / "state") as client:
        yield client


def page_at(client, url, status=200):
    answer = client.get(url, headers=BEARER)
    assert answer.status_code == status, answer.text[:500]
    page = Page(answer.text, url)
    assert faults_of(page) == []
    return page


def names(page):
    return [it.attributes["value"] for it in page.all("input") if it.attributes.get("type") == "checkbox"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("tag=photo", ["birds", "flowers"]),
        ("tag=photo&kind=single-label", ["flowers"]),
        ("kind=regression", ["ages"]),
        ("measured=measured", ["birds", "flowers"]),
        ("measured=not+measured&search=a", ["ages"]),
        ("min_samples=1000", ["flowers"]),
        ("max_classes=1", ["ages"]),
        ("tag=photo&where=num_samples+%3C+100+or+name+=+'ages'", ["birds"]),
        ("tag=it's", []),
    ],
)
def test_facets_narrow_the_tasks_together_with_the_filter(client, query, expected):
    assert names(page_at(client, f"/?{query}")) == expected


def test_the_problem_of_a_filter_or_a_number_is_about_what_was_typed(client):
    text = page_at(client, "/?tag=photo&where=num_classes+%3C", 400).all("p")
    assert any("filter 'num_classes <', character 14" in it.text for it in text)
    assert any(
        "min_samples must be a number" in it.text for it in page_at(client, "/?min_samples=x", 400).all("p")
    )
    assert '<option value="photo" selected>photo (2)</option>' in client.get("/?tag=photo").text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("license=mit", ["real.one"]),
        ("kind=toy", ["toy.one"]),
        ("measured=not+measured", ["toy.one"]),
        ("max_params=50", ["real.one"]),
        ("kind=real&max_params=100", ["real.one", "real.two"]),
    ],
)
def test_facets_narrow_the_experts(client, query, expected):
    assert names(page_at(client, f"/experts?{query}")) == expected


def test_several_tasks_and_experts_are_compared(client):
    two = page_at(client, "/compare?task=flowers&task=birds")
    assert two.text_of("h1") == "flowers and birds"
    to = client.get("/compare?task=flowers&task=birds&task=ages").headers["Location"]
    three = page_at(client, to)
    assert re.search(
        r"are the nearest: 0\.\d\d, (nearer|farther) than", " ".join(it.text for it in three.all("p"))
    )
    to = client.get("/compare/experts?expert=real.one&expert=real.two").headers["Location"]
    text = " ".join(it.text for it in page_at(client, to).all("p"))
    assert "real.one is ahead on 2 of 2 tasks" in text
    for path in (
        "/compare/experts?experts=real.one",
        "/compare/tasks?tasks=" + ",".join(f"more{it:02}" for it in range(7)),
    ):
        assert "select 2 to 6" in client.get(path).text
    assert "Did you mean" in client.get("/compare?a=flower&b=birds").text
    assert 'href="/compare?a=flowers&amp;b=birds"' in client.get("/compare?a=flower&b=birds").text


def rows_at(client, url):
    answer = client.get(url)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert "attachment" in answer.headers["Content-Disposition"]
    return list(csv.reader(io.StringIO(answer.text)))


def test_every_table_is_taken_along_as_csv(client):
    pages = [
        "/",
        "/experts",
        "/results",
        "/tasks/flowers",
        "/tasks/flowers/recommendation",
        "/experts/real.one",
    ]
    pages += ["/compare?a=flowers&b=birds", "/compare/tasks?tasks=flowers,birds,ages", "/map?task=flowers"]
    pages += ["/compare/experts?experts=real.one,real.two", "/tasks/flowers/history"]
    taken = 0
    for url in pages:
        for link in page_at(client, url).links():
            if "csv=" in link:
                header, *rows = rows_at(client, link)
                assert rows, link
                assert len({len(row) for row in (header, *rows)}) == 1, link
                taken += 1
    assert taken >= 15


def test_csv_has_all_rows_as_plain_values_and_no_formula(client):
    header, *rows = rows_at(client, "/?csv=Tasks&sort=num_samples&order=down")
    assert len(rows) == 63
    assert rows[0][:4] == ["flowers", "2", "1234", "photo plants"]
    assert header[:4] == ["Task", "Classes", "Samples", "Tags"]
    results = rows_at(client, "/results?csv=Results&sort=accuracy&order=down")
    assert results[1][results[0].index("Score")] == "0.91234567"
    assert results[1][results[0].index("Source")] == "'=cmd()"
    assert len(rows_at(client, "/?csv=Tasks&search=more0")) == 11
    assert client.get("/?csv=Nothing").status_code == 404


def test_what_is_only_drawn_is_no_column():
    table = "<tr><th>A</th><th>0 1</th></tr><tr><td>x</td><td><svg></svg></td></tr>"
    page = f'<div aria-label="T, scrolls sideways"><table>{table}</table></div>'
    assert csv_of(page, "T") == "A\r\nx\r\n"
