"""The form that asks about new data, and the pages of jobs in every state."""

from dataclasses import replace

import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from html_pages import Page, faults_of
from web_servers import BEARER, URL, serving

from registry.options import TABLE_OPTIONS
from registry.storage.store import Store
from registry.web.http.faults import UnknownIdError
from registry.web.jobs.store import Job

HEADERS = {**BEARER, "Origin": URL}
RECOMMENDED = {
    "query": {"task": "x", "version": 0, "space": "space0"},
    "recommendations": [
        {
            "rank": 1,
            "expert": "resnet18.tv_in1k",
            "expected_accuracy": 0.81,
            "interval": [0.71, 0.91],
            "expected_regret": 0.012,
            "num_params": 11_000_000,
            "license": "bsd-3-clause",
            "load": "from indexer import load_expert",
            "evidence": {
                "neighbors": [{"task": "flowers", "distance": 0.25, "accuracy": 0.9}],
                "results": 3,
                "trial": {"scores": {}, "accuracy": 0.75, "seconds": 1.25},
            },
        }
    ],
    "baselines": {"static": {"expert": "resnet18.tv_in1k", "expected_accuracy": 0.6}},
    "warnings": ["only <b>two</b> classes"],
    "trials": [],
}
NEIGHBORS = {
    "query": {"task": "x", "version": 0, "space": "space0"},
    "distance": "task2vec",
    "neighbors": [
        {
            "rank": 1,
            "task": "flowers",
            "version": 1,
            "distance": 0.25,
            "num_classes": 2,
            "num_samples": 100,
            "tags": ["t"],
        }
    ],
}
ADDED = {
    "task": "flowers",
    "version": 2,
    "created": True,
    "num_samples_used": 50,
    "head_metric": "balanced accuracy",
    "head_accuracy": 0.75,
    "warnings": ["few samples"],
}
EMBEDDING = {
    "num_samples_used": 50,
    "num_samples": 60,
    "skipped_files": 1,
    "num_classes": 2,
    "head_metric": "balanced accuracy",
    "head_accuracy": 0.5,
    "norm": 1.5,
    "relative_error": 0.25,
    "probe": "tiny.test",
    "estimator": "signed",
    "pooling": "filter_mean",
    "warnings": [],
}
JOB = Job(
    id="J" * 24,
    kind="recommend",
    state="queued",
    data={"upload": "U" * 24},
    options={},
    name="<i>pets</i>",
    tags=(),
    created_at="2026-11-26T08:00:00+00:00",
)
OVER = {"started_at": "2026-11-26T08:00:01+00:00", "finished_at": "2026-11-26T08:00:05.500000+00:00"}


class FakeJobs:
    """Answers with the jobs that it was given."""

    def __init__(self, *jobs: Job):
        self.jobs = jobs
        self.asked: list[tuple[object, ...]] = []

    def get(self, job_id):
        return next(job for job in self.jobs if job.id == job_id)

    def vectors(self, job_id, *names):
        raise UnknownIdError("embedding of job", job_id)

    def list(self, *, limit):
        return list(self.jobs[:limit])

    def cancel(self, job_id):
        self.asked.append(("cancel", job_id))

    def submit(self, kind, data, *, options, actor):
        self.asked.append((kind, data, options))
        return JOB


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")

    def fill(store: Store) -> None:
        store.add_space(make_space())
        store.add_experts([make_expert()])
        store.add_tasks([(make_task(), make_embedding())], "space0")
        store.add_results([make_result()])

    Store.create(folder / "registry", fill)
    with serving(folder / "registry", folder / "state", roots=(folder / "data",)) as client:
        yield client


@pytest.fixture
def give(client):
    """Puts jobs in the place of those of the server, until the end of the test."""
    own = client.app.state.jobs

    def put(*jobs: Job) -> FakeJobs:
        client.app.state.jobs = FakeJobs(*jobs)
        return client.app.state.jobs

    yield put
    client.app.state.jobs = own


def page_at(client, url: str, **options) -> Page:
    answer = client.get(url, **options)
    assert answer.status_code == 200, answer.text[:1000]
    assert "<b>two" not in answer.text
    assert "<i>pets" not in answer.text
    page = Page(answer.text, url)
    assert faults_of(page) == []
    return page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Waiting for its turn"),
        ({"state": "running", "progress": {"stage": "decode", "done": 20, "total": 1200}}, "20 of 1,200"),
        ({"state": "running", "progress": {"stage": "decode", "done": 20, "total": 0}}, "Reading images"),
        ({"state": "running", "progress": None}, "Starting"),
        ({"state": "failed", "error": {"message": "there are no images"}, **OVER}, "there are no images"),
        ({"state": "cancelled", **OVER}, "The job was stopped, and nothing was kept."),
        (
            {"state": "interrupted", "error": {"message": "stopped"}, **OVER},
            "The server was stopped while this ran.",
        ),
        ({"state": "done", "result": {"neighbors": NEIGHBORS}, **OVER}, "took 4.5 s"),
        (
            {"state": "done", "kind": "add_task", "result": {"task": ADDED}, **OVER},
            "flowers, version 2. 50 samples",
        ),
    ],
)
def test_every_state_is_told_in_words(client, give, changes, said):
    give(replace(JOB, **changes))
    page = page_at(client, f"/jobs/{JOB.id}")
    assert said in page.text_of("main")
    follows = any("/static/job.js" in (element.attributes.get("src") or "") for element in page.all("script"))
    assert follows == (changes.get("state", "queued") in {"queued", "running"})


def test_result_shows_experts_evidence_and_the_line_that_loads(client, give):
    result = {"recommendation": RECOMMENDED, "neighbors": NEIGHBORS, "embedding": EMBEDDING}
    give(replace(JOB, state="done", result=result, **OVER))
    page = page_at(client, f"/jobs/{JOB.id}")
    text = page.text_of("main")
    for said in ("71.0%–91.0%", "75.0% in a trial (1.2 s); 3 results: flowers 90.0% at 0.250"):  # noqa: RUF001
        assert said in text
    for said in ("best on average so far", "from indexer import load_expert", "only <b>two</b> classes"):
        assert said in text
    assert "50 used of 60, 1 could not be read" in text
    assert f"/map?job={JOB.id}" in page.links()


def test_job_of_a_registered_task_leads_to_the_task_on_the_map(client, give):
    result = {"recommendation": RECOMMENDED, "neighbors": NEIGHBORS, "embedding": None}
    give(replace(JOB, state="done", data={"task": "flowers"}, result=result, **OVER))
    links = page_at(client, f"/jobs/{JOB.id}").links()
    assert "/map?task=flowers" in links
    assert "/recommend?task=flowers" in links
    assert not any("job=" in link for link in links)


def test_cancel_is_offered_to_those_who_may(client, give):
    fake = give(JOB)
    url = f"/jobs/{JOB.id}/cancel"
    assert url not in {
        element.attributes.get("action") for element in page_at(client, f"/jobs/{JOB.id}").all("form")
    }
    shown = page_at(client, f"/jobs/{JOB.id}", headers=BEARER)
    assert url in {element.attributes.get("action") for element in shown.all("form")}
    assert client.post(url).status_code == 401
    assert fake.asked == []
    assert client.post(url, headers=HEADERS).headers["location"] == f"/jobs/{JOB.id}"
    assert fake.asked == [("cancel", JOB.id)]


def test_jobs_are_listed_for_those_who_may_start_one(client, give):
    give(JOB, replace(JOB, id="K" * 24, name=None, data={"task": "flowers"}, state="done", **OVER))
    assert client.get("/jobs").headers["location"] == "/login?next=%2Fjobs"
    page = page_at(client, "/jobs", headers=BEARER)
    assert [element.text for element in page.all("th") if element.attributes.get("scope") == "row"] == [
        "<i>pets</i>",
        "flowers",
    ]
    give()
    assert "Upload a dataset to ask which expert" in page_at(client, "/jobs", headers=BEARER).text_of("main")


def test_form_works_without_scripts(client, give):
    fake = give()
    said = {"source": "task", "task": " flowers ", "path": "", "k": "3", "max_params": "1.5", "licenses": "mit"}
    answer = client.post("/recommend", data=said, headers=HEADERS)
    assert answer.headers["location"] == f"/jobs/{JOB.id}"
    assert fake.asked == [
        ("recommend", {"task": "flowers"}, {"licenses": ["mit"], "k": 3, "max_params": 1_500_000.0})
    ]


def test_form_takes_every_option_on_reading_data(client, give):
    """All that ``t2v task add`` has of columns and layouts, ``--as-new-version`` and ``--anyway`` too."""
    fake = give()
    texts = dict.fromkeys(TABLE_OPTIONS, " tab ") | {"split": "val", "class_level": "-1"}
    switches = dict.fromkeys(("skip_bad", "anyway", "as_new_version"), "true")
    page = page_at(client, "/recommend", headers=BEARER)
    assert texts.keys() | switches.keys() <= {element.attributes.get("id") for element in page.all("input")}
    client.post("/recommend", data={"source": "task", "task": "flowers", **texts, **switches}, headers=HEADERS)
    read = dict.fromkeys(TABLE_OPTIONS, "tab") | {"split": "val", "class_level": -1}
    assert fake.asked[0][2] == read | dict.fromkeys(switches, True)


@pytest.mark.parametrize(
    ("said", "status", "problem"),
    [
        ({"source": "task", "task": "flower"}, 404, "did you mean flowers"),
        ({"source": "task", "task": "flowers", "k": "many"}, 400, "k must be a number, got 'many'"),
        ({"source": "upload"}, 400, "a zip cannot be sent without scripts"),
        ({"source": "path", "path": "/etc"}, 400, "/etc"),
        *(
            ({"source": "task", "task": "flowers", option: number}, 400, f"{option} must be from")
            for option in ("max_params", "max_flops")
            for number in ("nan", "-inf", "1e400", "-1")
        ),
        ({"source": "task", "task": "flowers", "k": "-1"}, 400, "k must be from 1 to 1000"),
        (
            {"source": "task", "task": "flowers", "num_trials": "9" * 30},
            400,
            "num_trials must be from 0 to 1000",
        ),
    ],
)
def test_what_is_wrong_is_told_above_the_form(client, said, status, problem):
    answer = client.post("/recommend", data=said, headers=HEADERS)
    assert answer.status_code == status
    page = Page(answer.text, "/recommend")
    (shown,) = [element for element in page.elements if element.attributes.get("id") == "problem"]
    assert problem in shown.text
    assert faults_of(page) == []
    values = {element.attributes.get("id"): element.attributes.get("value") for element in page.all("input")}
    assert values["k"] == said.get("k", "8")


def test_form_needs_the_token(client):
    assert "Log in to ask about new data" in page_at(client, "/recommend").text_of("main")
    assert client.post("/recommend", data={"source": "task", "task": "flowers"}).status_code == 401
