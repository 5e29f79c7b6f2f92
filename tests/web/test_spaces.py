"""Pages of a registry with several spaces, none of which is the default one."""

import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from html_pages import Page, faults_of
from web_servers import serving

from registry.storage.store import Store

SETTINGS = '{"max_samples": 9}'


def fill(store: Store) -> None:
    """Two tasks in each of two spaces, and one in none."""
    store.add_space(make_space("space0"))
    store.add_space(make_space("space1", description='{"probe":"tiny.test","estimator":"other"}'))
    store.add_experts([make_expert()])
    for space, names in {"space0": ("ants", "bees"), "space1": ("cats", "dogs")}.items():
        for name in names:
            store.add_task(make_task(name, settings=SETTINGS), space, make_embedding(name))
    store.add_results([make_result("ants"), make_result("cats")])


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spaces")
    Store.create(folder / "registry", fill)
    with serving(folder / "registry", folder / "state") as client:
        yield client


def page_at(client, url: str, status: int = 200) -> Page:
    answer = client.get(url)
    assert answer.status_code == status, answer.text[:1000]
    page = Page(answer.text, url)
    assert faults_of(page) == []
    return page


@pytest.mark.parametrize(
    ("name", "near"), [("ants", "bees"), pytest.param("cats", "dogs", marks=pytest.mark.slow)]
)
def test_a_task_is_compared_in_its_own_space(client, name, near):
    assert f"/tasks/{near}" in page_at(client, f"/tasks/{name}").links()
    assert f"/tasks/{near}" in page_at(client, f"/map?task={name}").links()
    assert "resnet18.tv_in1k" in page_at(client, f"/tasks/{name}/recommendation").text_of("main")
    circles = page_at(client, f"/tasks/{name}/place").all("circle")
    assert [element.text for element in circles] == [near, name]
    assert "task2vec" in page_at(client, f"/compare?a={name}&b={near}").text_of("main")


def test_the_map_offers_every_space(client):
    page = page_at(client, "/map")
    assert {"/map?space=space0", "/map?space=space1"} <= page.links()
    assert client.get("/map/points?space=space0").json()["names"] == ["ants", "bees"]
    assert client.get("/map/points?space=space1").json()["names"] == ["cats", "dogs"]
    assert client.get("/map/points").json()["names"] == ["ants", "bees"]
    assert len(client.get("/map/clusters?space=space1").json()["cluster"]) == 2
    assert client.get("/map/points?space=none").status_code == 404


def test_tasks_of_different_spaces_cannot_be_compared(client):
    (problem,) = [
        element
        for element in page_at(client, "/compare?a=ants&b=cats", 400).elements
        if element.attributes.get("role") == "alert"
    ]
    assert "space" in problem.text
