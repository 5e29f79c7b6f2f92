"""Experts that are named as on the Hugging Face hub: every page, link and request finds them."""

from urllib.parse import quote

import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from web_servers import BEARER, serving

from registry.storage.store import Store

NAMES = ("facebook/dinov2-base", "open_clip/ViT-B-32:laion2b", "a/restore")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    def fill(store: Store) -> None:
        store.add_space(make_space())
        store.add_tasks([(make_task("flowers"), make_embedding("flowers"))], "space0")
        store.add_experts([make_expert(name) for name in NAMES])
        store.add_results([make_result("flowers", name) for name in NAMES])

    folder = tmp_path_factory.mktemp("names")
    Store.create(folder / "registry", fill)
    with serving(folder / "registry", folder / "state") as client:
        yield client


def test_pages_link_to_an_expert_and_show_it(client):
    listed = [client.get(path).text for path in ("/experts", "/results", "/tasks/flowers/recommendation")]
    for name in NAMES:
        assert all(f'href="/experts/{name}"' in text for text in listed), name
        page = client.get(f"/experts/{name}")
        assert page.status_code == 200
        assert f"<h1>{name}" in page.text
        assert client.get(f"/experts/{quote(name, safe='')}").text == page.text
        history = client.get("/results", params={"expert": name}).text
        assert f'Results of <a href="/experts/{name}">{name}</a>' in history
    assert client.get("/experts/..%2Ftasks").status_code == 404  # no other page is reached by dots


@pytest.mark.parametrize("escaped", [False, True])
def test_the_api_gets_removes_and_restores_an_expert(client, escaped):
    for name in NAMES:
        path = f"/api/v1/experts/{quote(name, safe='') if escaped else name}"
        assert client.get(path).json()["expert"] == name
        assert client.delete(path, headers=BEARER).status_code == 204
        assert client.get(path).status_code == 404
        assert client.post(f"{path}/restore", headers=BEARER).json()["expert"] == name
        results = client.get("/api/v1/results", params={"expert": name}).json()["results"]
        assert [result["expert"] for result in results] == [name]
