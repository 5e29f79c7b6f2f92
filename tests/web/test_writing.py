"""The forms that write: what they change, what they refuse in a sentence, and who sees them."""

import shutil

import pytest
from html_pages import Page, faults_of
from web_servers import BEARER, URL, serving
from web_zips import images, packed

from registry import TaskRegistry
from registry.web.jobs.store import Job

FORM = {**BEARER, "Origin": URL}
RESULT = {"task": "images", "expert": "resnet14w32.mnist", "accuracy": "0.93", "protocol": "fine_tuned"}


@pytest.fixture(scope="module")
def client(tmp_path_factory, embedded):
    folder = tmp_path_factory.mktemp("writing")
    shutil.copytree(embedded, folder / "registry")
    TaskRegistry(folder / "registry").add_expert("resnet14w32.mnist")
    with serving(folder / "registry", folder / "state") as client:
        yield client


def sent(client, path, data):
    """The answer to a form, which must be a good page unless it leads on."""
    answer = client.post(path, data=data, headers=FORM)
    if answer.status_code != 303:
        assert faults_of(Page(answer.text, path)) == []
    return answer


def test_a_result_is_recorded_with_its_protocol_and_the_leaderboard_says_so(client):
    form = client.get("/results/new?task=images&expert=resnet14w32.mnist", headers=BEARER).text
    assert faults_of(Page(form, "/results/new")) == []
    assert 'name="protocol" value="" required' in form
    answer = sent(client, "/results/new", {**RESULT, "seed": "3", "source": "our table"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/results?task=images#recorded")
    (result,) = TaskRegistry(client.app.state.settings.uri).results()
    values = (result.task, result.accuracy, result.protocol, result.seed, result.source, result.metric)
    assert values == ("images", 0.93, "fine_tuned", 3, "our table", "accuracy")
    assert 'id="recorded"' in client.get("/results?task=images").text


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"protocol": ""}, 400, "protocol is missing"),
        ({"accuracy": "93"}, 400, "in per cent, write 0.93"),
        ({"accuracy": "good"}, 400, "accuracy must be a number such as 0.93, got"),
        ({"seed": "1.5"}, 400, "seed must be a number without a point"),
        ({"task": "image"}, 404, "did you mean images"),
        ({"expert": "resnet"}, 404, "no expert is named"),
        ({"metric": "quality"}, 400, "say whether lower or higher values are better"),
    ],
)
def test_what_is_no_result_is_told_above_the_form_as_it_was_filled_in(client, change, status, said):
    answer = sent(client, "/results/new", {**RESULT, "source": "kept <i>", **change})
    assert answer.status_code == status
    (problem,) = (it for it in Page(answer.text).all("p") if it.attributes.get("role") == "alert")
    assert said in problem.text
    assert "kept &lt;i&gt;" in answer.text


def test_tags_are_replaced_by_those_of_the_form(client):
    client.post("/tasks/images/edit", data={"tags": "one, two"}, headers=FORM)
    assert 'value="one two"' in client.get("/tasks/images/edit", headers=BEARER).text
    assert sent(client, "/tasks/images/edit", {"tags": "two three"}).headers["Location"] == "/tasks/images"
    assert client.get("/api/v1/tasks/images").json()["tags"] == ["three", "two"]
    answer = sent(client, "/tasks/images/edit", {"tags": "no/tag"})
    assert (answer.status_code, "cannot name a tag" in answer.text) == (400, True)


def test_the_data_of_a_job_becomes_a_task_and_experts_are_tried_on_it(client):
    zipped = {**BEARER, "Content-Type": "application/zip"}
    photos = packed(images(("cats", "dogs"), 8))
    upload = client.post("/api/v1/uploads", content=photos, headers=zipped).json()["upload"]
    jobs = client.app.state.jobs
    options = {"k": 2, "max_samples": 9}
    jobs._kept.add(Job("D" * 24, "recommend", "done", {"upload": upload}, options, "pets", (), "2026"))
    page = client.get(f"/jobs/{'D' * 24}", headers=BEARER).text
    assert faults_of(Page(page, "/jobs")) == []
    assert 'value="pets"' in page
    answer = sent(client, f"/jobs/{'D' * 24}/register", {"name": "no name", "tags": "photo"})
    assert (answer.status_code, "cannot name a task" in answer.text, 'value="photo"' in answer.text) == (
        400,
        True,
        True,
    )
    asked = {
        f"/jobs/{'D' * 24}/register": ("add_task", {"upload": upload}, {"max_samples": 9}, "pets", ("photo",)),
        f"/jobs/{'D' * 24}/try": ("recommend", {"upload": upload}, {**options, "num_trials": 3}, "pets", ()),
        "/tasks/images/try": ("recommend", {"task": "images"}, {"num_trials": 3, "record": True}, None, ()),
    }
    for path, wanted in asked.items():
        job = jobs.get(sent(client, path, {"name": "pets", "tags": "photo"}).headers["Location"][6:])
        assert (job.kind, job.data, job.options, job.name, tuple(job.tags)) == wanted
        jobs.cancel(job.id)


def test_readers_are_told_what_they_would_need_and_see_no_button(client):
    for path in ("/results/new", "/tasks/images/edit"):
        page = client.get(path)
        assert (page.status_code, "may write" in page.text, "<button>" in page.text) == (200, True, False)
    assert "Record a result" not in client.get("/tasks/images").text
    assert "Record a result" in client.get("/tasks/images", headers=BEARER).text
    assert client.post("/results/new", data=RESULT).status_code == 401
    login = client.post("/login", data={"token": BEARER["Authorization"][7:]}, headers={"Origin": URL})
    assert login.status_code == 303
    stolen = client.post("/results/new", data=RESULT, headers={"Origin": "http://evil.example"})
    assert stolen.status_code == 403
    client.cookies.clear()
