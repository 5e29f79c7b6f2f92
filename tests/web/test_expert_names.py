"""Experts that are named as on the Hugging Face hub: every page, link and request finds them."""

from urllib.parse import quote

import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from web_servers import BEARER, serving

from registry.storage.store import Store

NAMES = ("facebook/dinov2-base", "open_clip/ViT-B-32:laion2b", "a/restore")


@pytest.fixture
def client(tmp_path):
    def fill(store: Store) -> None:
        store.add_space(make_space())
        store.add_tasks([(make_task("flowers"), make_embedding("flowers"))], "space0")
        store.add_experts([make_expert(name) for name in NAMES])
        store.add_results([make_result("flowers", name) for name in NAMES])

    Store.create(tmp_path / "registry", fill)
    with serving(tmp_path / "registry", tmp_path / "state") as client:
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_pages_link_to_an_expert_and_show_it(client, name):
    for path in ("/experts", "/results", "/tasks/flowers/recommendation"):
        assert f'href="/experts/{name}"' in client.get(path).text
    page = client.get(f"/experts/{name}")
    assert page.status_code == 200
    assert f"<h1>{name}" in page.text
    assert client.get(f"/experts/{quote(name, safe='')}").text == page.text
    history = client.get("/results", params={"expert": name}).text
    assert f'Results of <a href="/experts/{name}">{name}</a>' in history


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_api_gets_removes_and_restores_an_expert(client, name, escaped):
    path = f"/api/v1/experts/{quote(name, safe='') if escaped else name}"
    assert client.get(path).json()["expert"] == name
    assert client.delete(path, headers=BEARER).status_code == 204
    assert client.get(path).status_code == 404
    assert client.post(f"{path}/restore", headers=BEARER).json()["expert"] == name
    listed = client.get("/api/v1/results", params={"expert": name}).json()["results"]
    assert [result["expert"] for result in listed] == [name]


def test_no_other_page_of_experts_is_reached_by_dots(client):
    assert client.get("/experts/..%2Ftasks").status_code == 404
