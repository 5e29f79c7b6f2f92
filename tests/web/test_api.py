"""REST: the same documents as the command line, pages with links, and nothing sent twice."""

import json
import re
import shutil
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from templates import starter
from web_servers import BEARER, serving

from registry import TaskRegistry
from registry.cli.main import main


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """The starter content."""
    return Path(starter(tmp_path_factory.mktemp("api") / "registry").uri)


@pytest.fixture(scope="module")
def reader(uri, tmp_path_factory):
    with serving(uri, tmp_path_factory.mktemp("reader")) as client:
        yield client


@pytest.fixture
def writer(uri, tmp_path):
    """A server over a registry of its own."""
    shutil.copytree(uri, tmp_path / "registry")
    with serving(tmp_path / "registry", tmp_path / "state") as client:
        client.headers.update(BEARER)
        yield client


def links_of(answer) -> dict[str, str]:
    """The addresses in the header Link, by what they are."""
    return {rel: link for link, rel in re.findall(r'<([^>]+)>; rel="(\w+)"', answer.headers["Link"])}


def printed(uri, *words: str):
    """What the command line prints as JSON."""
    result = CliRunner().invoke(main, ["--registry", str(uri), *words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tasks/mnist", "task show mnist"),
        ("tasks/mnist/history", "task history mnist"),
        ("tasks/mnist/neighbors", "nearest mnist"),
        (
            "tasks/mnist@1/neighbors?k=3&distance=cosine&where=num_classes<20",
            "nearest mnist@1 -k 3 --distance cosine --where num_classes<20",
        ),
        ("tasks/mnist/recommendation?k=2", "recommend mnist -k 2"),
        (
            "tasks/mnist/recommendation?max_params=500000&licenses=apache-2.0&licenses=mit",
            "recommend mnist --max-params 500000 --license apache-2.0,mit",
        ),
        ("experts/resnet14w32.mnist", "expert show resnet14w32.mnist"),
        ("distance?source=mnist&target=omniglot_sources", "distance mnist omniglot_sources"),
        ("map?query=mnist", "map mnist"),
        ("clusters?num_clusters=4", "cluster --clusters 4"),
    ],
    ids=lambda value: value.split("?")[0] if "/" in value or "?" in value else None,
)
def test_documents_are_those_of_the_command_line(reader, uri, path, words):
    assert reader.get(f"/api/v1/{path}").json() == printed(uri, *words.split())


@pytest.mark.parametrize(
    ("path", "words"), [("tasks", "task list"), ("experts", "expert list"), ("results", "result list")]
)
def test_pages_make_the_list_of_the_command_line(reader, uri, path, words):
    """Following the links from the first page to the last."""
    rows, where, pages = [], f"/api/v1/{path}?limit=17", 0
    if path == "results":
        where = f"/api/v1/{path}?limit=500"
    while where:
        answer = reader.get(where)
        page = answer.json()
        rows += page[path]
        where = links_of(answer).get("next")
        pages += 1
    assert rows == printed(uri, *words.split())
    assert page["total"] == len(rows)
    assert pages > 1


def test_links_keep_what_was_asked_and_name_no_host(reader):
    answer = reader.get("/api/v1/tasks?search=mn&limit=2&offset=2&sort=num_classes&where=num_classes > 1")
    links = links_of(answer)
    assert set(links) == {"first", "prev", "next", "last"}
    assert links["next"] == (
        "/api/v1/tasks?search=mn&sort=num_classes&where=num_classes+%3E+1&limit=2&offset=4"
    )
    assert reader.get(links["last"]).json()["offset"] == (answer.json()["total"] - 1) // 2 * 2
    assert "next" not in reader.get(links["last"]).headers["Link"]


def test_search_sort_and_filter_reach_the_registry(reader, uri):
    page = TaskRegistry(uri).find_tasks(
        search="digits", where="num_classes > 2", sort="num_samples", descending=True, limit=5, offset=1
    )
    answer = reader.get(
        "/api/v1/tasks?search=digits&where=num_classes > 2&sort=num_samples&descending=true&limit=5&offset=1"
    ).json()
    assert [task["task"] for task in answer["tasks"]] == [task.name for task in page.tasks]
    assert answer["total"] == page.total > 2


READS = [
    "/api/v1/tasks",
    "/api/v1/tasks/mnist",
    "/api/v1/tasks/mnist/neighbors",
    "/api/v1/tasks/mnist/recommendation?k=1",
    "/api/v1/experts",
    "/api/v1/results?limit=1",
    "/api/v1/spaces",
]


def test_what_a_reader_has_is_not_sent_again_until_something_changes(writer):
    tags = {path: writer.get(path).headers["ETag"] for path in READS}
    assert len(set(tags.values())) == len(READS)
    for path, tag in tags.items():
        answer = writer.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
        assert answer.headers["Cache-Control"] == "private, no-cache"
    assert writer.get("/api/v1/tasks?limit=3", headers={"If-None-Match": tags[READS[0]]}).status_code == 200
    writer.patch("/api/v1/tasks/mnist", json={"add": ["changed"]})
    for path, tag in tags.items():
        answer = writer.get(path, headers={"If-None-Match": tag})
        assert answer.status_code == 200
        assert answer.headers["ETag"] != tag


def test_a_task_is_tagged_aliased_removed_restored_and_purged(writer):
    answer = writer.patch("/api/v1/tasks/mnist", json={"add": ["grey"], "remove": ["digits"]})
    assert answer.status_code == 200
    assert "grey" in answer.json()["tags"]
    assert "digits" not in answer.json()["tags"]
    answer = writer.post("/api/v1/tasks/mnist/aliases", json={"alias": "best", "version": 1})
    assert (answer.status_code, answer.json()["aliases"]) == (201, ["best"])
    assert writer.get("/api/v1/tasks/mnist@best").json()["version"] == 1
    assert writer.delete("/api/v1/tasks/mnist/aliases/best").status_code == 204
    assert writer.get("/api/v1/tasks/mnist@best").status_code == 404
    assert writer.delete("/api/v1/tasks/mnist").status_code == 204
    assert writer.get("/api/v1/tasks/mnist").status_code == 404
    assert writer.post("/api/v1/tasks/mnist/restore").json()["task"] == "mnist"
    assert writer.delete("/api/v1/tasks/mnist?purge=true").status_code == 204
    assert writer.post("/api/v1/tasks/mnist/restore").status_code == 404


def test_results_and_experts_are_written(writer):
    result = {"task": "mnist", "expert": "resnet14w32.mnist", "accuracy": 0.5, "source": "me"}
    answer = writer.post("/api/v1/results", json=result)
    assert answer.status_code == 201
    assert {name: answer.json()[name] for name in result} == result
    last = writer.get("/api/v1/results?task=mnist&expert=resnet14w32.mnist&limit=1000").json()["results"]
    assert answer.json() in last
    assert writer.post("/api/v1/results", json={**result, "expert": "no.body"}).status_code == 404
    assert writer.delete("/api/v1/experts/resnet14w32.mnist").status_code == 204
    assert writer.get("/api/v1/experts/resnet14w32.mnist").status_code == 404
    assert writer.post("/api/v1/experts/resnet14w32.mnist/restore").json()["expert"] == "resnet14w32.mnist"
    assert writer.get("/api/v1/experts?search=MNIST").json()["total"] > 0


@pytest.mark.parametrize(
    "path",
    ["neighbors", "recommendation", "", "history"],
    ids=["neighbors", "recommendation", "card", "history"],
)
@pytest.mark.parametrize("name", ["nobody", "sklearn", "registry"])
def test_a_question_about_what_is_not_registered_reads_no_data(reader, path, name, tmp_path, monkeypatch):
    """A folder of that name, or what could be data, is not looked at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name / "class").mkdir(parents=True)
    answer = reader.get(f"/api/v1/tasks/{name}/{path}".rstrip("/"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("name", ["sklearn:digits", ".%2Fdata", "..%2F..%2Fetc", "a@b@c", "%00", "mnist@"])
def test_what_is_no_name_is_no_data_either(reader, name):
    assert reader.get(f"/api/v1/tasks/{name}/neighbors").status_code in {404, 422}
    assert reader.get(f"/api/v1/distance?source={name}&target=mnist").status_code in {404, 422}


def test_a_map_that_takes_longer_than_one_waits_is_asked_for_again(reader, monkeypatch):
    make, go_on, path = TaskRegistry.map, threading.Event(), "/api/v1/map?where=num_classes > 1"
    monkeypatch.setattr(TaskRegistry, "map", lambda *args, **how: go_on.wait() and make(*args, **how))
    monkeypatch.setattr("registry.web.api.maps.WAIT_SECONDS", 0.0)
    answer = reader.get(path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "still being made" in answer.json()["error"]["message"]
    monkeypatch.setattr("registry.web.api.maps.WAIT_SECONDS", 60.0)
    go_on.set()
    assert reader.get(path).status_code == 200


def test_questions_about_what_was_have_the_answers_of_then(tmp_path, embedded):
    """As ``t2v --at`` has them; the tag is that of the state, and nothing is written so."""
    shutil.copytree(embedded, tmp_path / "registry")
    registry = TaskRegistry(tmp_path / "registry")
    registry.tag_task("images", add=["first"])
    number = registry.writes()[-1].number
    with serving(tmp_path / "registry", tmp_path / "state") as client:
        then = client.get(f"/api/v1/tasks?at={number}")
        registry.tag_task("images", add=["second"])
        registry.remove_task("images")
        assert client.get("/api/v1/tasks").json()["total"] == then.json()["total"] - 1
        again = client.get(f"/api/v1/tasks?at={number}")
        assert again.headers["T2V-As-Of"] == registry.at(number).as_of == f"after write {number}"
        assert again.json() == then.json()
        paths = ("", "/images", "/images/history", "/images/neighbors", "/images/recommendation")
        for path in [*(f"tasks{path}" for path in paths), "spaces", "experts", "results"]:
            asked = f"/api/v1/{path}?at={number}"
            answer = client.get(asked)
            assert answer.status_code == 200, answer.text
            same = {"If-None-Match": answer.headers["ETag"]}
            assert client.get(asked, headers=same).status_code == 304
            assert client.get(f"/api/v1/{path}?at={number + 1}", headers=same).status_code == 200
        assert client.get(f"/api/v1/tasks/images?at={number}").json()["tags"][-1] == "first"
        assert client.get("/api/v1/tasks/images").status_code == 404
        for at, status, words in [
            ("99", 404, "no write is named '99'; they go from"),
            ("30d", 404, "is not kept"),
            ("soon", 400, "'soon' is no moment; give the number of a write, a time such as"),
            ("2999-01-01", 400, "is not yet"),
        ]:
            answer = client.get(f"/api/v1/tasks?at={at}")
            assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), (
                answer.text
            )
        assert "Pages show the registry as it is now" in client.get(f"/?at={number}").text
        answer = client.patch(f"/api/v1/tasks/images?at={number}", json={"add": ["x"]}, headers=BEARER)
        assert (answer.status_code, "read only" in answer.text) == (400, True)
