"""Jobs: from the upload to the answer, followed, cancelled, killed, and over a restart of the server."""

import errno
import json
import os
import shutil
import signal
import socket
import sqlite3
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
import uvicorn
from web_servers import BEARER, TOKEN, Served, finished, serving, settings_of, small_limits
from web_zips import images, packed

from registry import TaskRegistry
from registry.errors import NotFoundError, StorageError
from registry.faces import documents
from registry.web.app import create_app
from registry.web.http.tokens import Tokens
from registry.web.jobs import process
from registry.web.jobs.jobs import Jobs
from registry.web.jobs.store import Job, JobStore
from registry.web.uploads.uploads import Uploads

ZIP = {**BEARER, "Content-Type": "application/zip"}
PHOTOS = packed(images(("cats", "dogs"), 8))
NEAREST = {"kind": "nearest", "data": {"task": "images"}}


@pytest.fixture(scope="module")
def uri(tmp_path_factory, embedded):
    folder = tmp_path_factory.mktemp("jobs") / "registry"
    shutil.copytree(embedded, folder)
    return folder


def submit(client, **job):
    answer = client.post("/api/v1/jobs", json=job, headers=BEARER)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/v1/jobs/{answer.json()['id']}"
    return answer.json()["id"]


def upload(client):
    answer = client.post("/api/v1/uploads", content=PHOTOS, headers=ZIP)
    assert answer.status_code == 201, answer.text
    return answer.json()["upload"]


def followed(client, job_id):
    """The events of a job: names with their data."""
    with client.stream("GET", f"/api/v1/jobs/{job_id}/events", timeout=120) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        blocks = "".join(answer.iter_text()).strip().split("\n\n")
    fields = [dict(line.partition(": ")[::2] for line in block.split("\n")) for block in blocks]
    return [(block["event"], json.loads(block["data"])) for block in fields if "event" in block]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def served(tmp_path_factory, uri):
    """A real server; tests give each other nothing but the registry. The last test kills it."""
    folder = tmp_path_factory.mktemp("served")
    served = Served(uri, folder / "state", folder / "log", "--allow-root", str(folder))
    with served as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        yield server, client, folder


def test_an_upload_becomes_a_recommendation(served):
    _, client, folder = served
    uploaded = upload(client)
    job_id = submit(
        client, kind="recommend", data={"upload": uploaded}, name="photos", options={"k": 2, "max_samples": 12}
    )
    events = followed(client, job_id)
    assert [name for name, _ in events[-2:]] == ["progress", "end"]
    updates = [data for name, data in events if name == "progress"]
    stages = [job["progress"]["stage"] for job in updates if job["progress"]]
    assert set(stages) <= {"decode", "features", "fisher"}  # those that were not over before one could look
    assert stages
    assert updates[0]["state"] in {"queued", "running"}
    job = updates[-1]
    assert (job["state"], job["error"]) == ("done", None), job
    assert job == client.get(f"/api/v1/jobs/{job_id}").json()
    result = job["result"]
    assert set(result) == {"recommendation", "neighbors", "embedding"}
    assert result["embedding"]["num_samples_used"] == 12
    assert result["embedding"]["class_names"] == ["cats", "dogs"]
    assert result["recommendation"]["query"]["task"] == "photos" == result["embedding"]["data"]
    assert [entry["task"] for entry in result["neighbors"]["neighbors"]] == ["images"]
    assert str(folder) not in json.dumps(job)
    assert "Samples of cats" in client.get(f"/jobs/{job_id}").text
    assert client.get(f"/jobs/{job_id}/sheet").content[8:12] == b"WEBP"


@pytest.mark.slow
def test_numbers_are_those_of_the_library(served, uri, images):
    """Data by its path, embedded by a job and here."""
    _, client, folder = served
    shutil.copytree(images, folder / "data")
    job = finished(client, submit(client, kind="recommend", data={"path": str(folder / "data")}))
    registry = TaskRegistry(uri)
    embedding = registry.embed(str(folder / "data"))
    expected = documents.to_values(registry.recommend(embedding))
    assert job["result"]["recommendation"] == expected
    kept = np.load(folder / "state/vectors" / f"{job['id']}.npz")
    np.testing.assert_allclose(kept["fisher"], embedding.fisher, rtol=1e-5)


def test_a_cancelled_job_leaves_nothing(served):
    _, client, folder = served
    uploaded = upload(client)
    before = files_below(folder / "state") - {"jobs.sqlite-wal", "jobs.sqlite-shm"}
    running = submit(client, kind="add_task", data={"upload": uploaded}, name="never")
    waiting = submit(client, kind="recommend", data={"upload": uploaded})
    while client.get(f"/api/v1/jobs/{running}").json()["state"] == "queued":
        time.sleep(0.01)
    assert client.delete(f"/api/v1/jobs/{running}", headers=BEARER).status_code == 409
    for job_id in (waiting, running):
        answer = client.post(f"/api/v1/jobs/{job_id}/cancel", headers=BEARER)
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert answer.json()["finished_at"]
        assert [name for name, _ in followed(client, job_id)] == ["progress", "end"]
        again = client.post(f"/api/v1/jobs/{job_id}/cancel", headers=BEARER).json()
        assert again == answer.json()
    assert files_below(folder / "state") - {"jobs.sqlite-wal", "jobs.sqlite-shm"} == before
    assert client.get("/api/v1/tasks/never").status_code == 404
    assert client.get(f"/api/v1/uploads/{uploaded}").status_code == 200
    for job_id in (running, waiting):
        assert client.delete(f"/api/v1/jobs/{job_id}", headers=BEARER).status_code == 204
        assert client.get(f"/api/v1/jobs/{job_id}").status_code == 404


def test_jobs_of_a_revoked_token_are_cancelled_and_stopped(served, uri):
    """The token is revoked by another process; one of the same name that is made later has jobs of its own."""
    _, client, folder = served
    tokens = Tokens(folder / "state")

    bearer = {"Authorization": f"Bearer {tokens.add('guest', 'write')[0]}"}
    first = {"kind": "add_task", "data": {"upload": upload(client)}, "name": "never"}
    answers = [client.post("/api/v1/jobs", json=job, headers=bearer) for job in (first, NEAREST, NEAREST)]
    running, *queued = (answer.json()["id"] for answer in answers)
    while client.get(f"/api/v1/jobs/{running}").json()["state"] == "queued":
        time.sleep(0.01)
    tokens.revoke("guest")
    bearer = {"Authorization": f"Bearer {tokens.add('guest', 'write')[0]}"}
    later = client.post("/api/v1/jobs", json=NEAREST, headers=bearer).json()["id"]
    ended = [finished(client, job_id) for job_id in (running, *queued)]
    assert [job["state"] for job in ended] == ["cancelled"] * 3
    assert all("the token guest was revoked by" in job["error"]["message"] for job in ended)
    assert "nothing was kept: the token guest was revoked by" in client.get(f"/jobs/{running}").text
    assert finished(client, later)["state"] == "done"
    assert client.get("/api/v1/tasks/never").status_code == 404
    lines = [line for line in TaskRegistry(uri).audit("guest") if line.action == "token.jobs"]
    counts = [line.values for line in lines]
    assert sum(int(count.get("stopped", 0)) for count in counts) == 1
    assert sum(int(count.get("cancelled", 0)) for count in counts) == 2


def test_a_reader_who_leaves_disturbs_nobody(served):
    server, client, _ = served
    job_id = submit(client, **NEAREST)
    host, port = urlsplit(server.url).netloc.split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(f"GET /api/v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert line.recv(100).startswith(b"HTTP/1.1 200")
    assert finished(client, job_id)["state"] == "done"
    assert client.get("/api/v1/version").status_code == 200


def test_slow_uploads_stall_nobody_and_leave_nothing(served):
    """Ten that send a byte now and then, and one that asks meanwhile."""
    server, client, folder = served
    before = set((folder / "state/uploads").iterdir())
    host, port = urlsplit(server.url).netloc.split(":")
    head = (
        f"POST /api/v1/uploads HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/zip\r\nContent-Length: 1000000\r\n\r\n"
    )
    lines = [socket.create_connection((host, int(port)), timeout=10) for _ in range(10)]
    for line in lines:
        line.sendall(head.encode() + PHOTOS[:100])
    slowest = 0.0
    for _ in range(20):
        started = time.perf_counter()
        assert client.get("/api/v1/tasks/images/neighbors").status_code == 200
        slowest = max(slowest, time.perf_counter() - started)
        for line in lines:
            line.sendall(b"x")
    assert len(set((folder / "state/uploads").iterdir()) - before) == 10
    assert slowest < 5
    for line in lines:
        line.close()
    end = time.monotonic() + 10
    while set((folder / "state/uploads").iterdir()) != before and time.monotonic() < end:
        time.sleep(0.02)
    assert set((folder / "state/uploads").iterdir()) == before


def test_an_upload_that_takes_too_long_is_ended(uri, tmp_path):
    """By the clock, not by its size."""
    app = create_app(settings_of(uri, tmp_path / "state", limits=small_limits(seconds=0.3)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    with socket.create_connection((host, port), timeout=10) as line:
        head = (
            f"POST /api/v1/uploads HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: application/zip\r\nContent-Length: 100000\r\n\r\n"
        )
        line.sendall(head.encode() + PHOTOS[:50])
        answer = line.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408")
    assert list((tmp_path / "state/uploads").iterdir()) == []
    server.should_exit = True
    thread.join(20)


def test_a_disk_that_is_full_is_reported(client, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("registry.web.uploads.contents.unpack", full)
    answer = client.post("/api/v1/uploads", content=PHOTOS, headers=ZIP)
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        503,
        "the upload cannot be stored: No space left on device",
    )


def test_a_worker_outlives_what_it_cannot_keep(client, jobs_here, monkeypatch):
    """A job whose end cannot be written is over, and the next one runs."""
    monkeypatch.setattr("registry.web.jobs.jobs.FAILED_SECONDS", 0.0)
    keep, broken = JobStore.update, [True]

    def update(store, job):
        if broken.pop() if broken else False:
            raise StorageError("the disk is full")
        keep(store, job)

    monkeypatch.setattr(JobStore, "update", update)
    first, second = submit(client, **NEAREST), submit(client, **NEAREST)
    assert finished(client, first)["state"] == "failed"
    assert finished(client, second)["state"] == "done"


@pytest.mark.slow
def test_jobs_survive_a_kill_of_the_server_or_say_that_they_did_not(served, uri):
    """Then the next one is interrupted, which ends what runs and its readers. Last of the server's tests."""
    server, client, folder = served
    state = folder / "state"
    kept = {path.name for path in (state / "data").iterdir()}
    uploaded = upload(client)
    running = submit(client, kind="add_task", data={"upload": uploaded}, name="killed")
    waiting = submit(client, **NEAREST)
    while client.get(f"/api/v1/jobs/{running}").json()["state"] == "queued":
        time.sleep(0.01)
    worker = child_of(server.process.pid)
    server.end(signal.SIGKILL)
    end = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_alive(worker), "the process of a job outlives its server"
    (state / "uploads/.part-left").mkdir()
    log = folder / "log"
    with Served(uri, state, log) as again, httpx2.Client(base_url=again.url, timeout=60) as client:
        job = client.get(f"/api/v1/jobs/{running}").json()
        assert job["state"] == "interrupted"
        assert job["error"]["message"] == "the server stopped while this ran; ask again"
        assert finished(client, waiting)["state"] == "done"
        assert client.get(f"/api/v1/uploads/{uploaded}").status_code == 200
        listed = client.get("/api/v1/jobs", headers=BEARER).json()
        assert [entry["id"] for entry in listed["jobs"]][:2] == [waiting, running]
        assert {path.name for path in (state / "data").iterdir()} == kept
        assert uploaded in {path.name for path in (state / "uploads").iterdir()}
        assert not (state / "uploads/.part-left").exists()

        stopped = submit(client, kind="recommend", data={"upload": uploaded})
        events = []
        reader = threading.Thread(target=lambda: events.extend(followed(client, stopped)))
        reader.start()
        while client.get(f"/api/v1/jobs/{stopped}").json()["state"] == "queued":
            time.sleep(0.01)
        started = time.monotonic()
        assert again.end(signal.SIGINT) == 0
        assert time.monotonic() - started < 8
        reader.join(5)
        assert events[-1][0] == "end"
    assert JobStore(state / "jobs.sqlite").get(stopped).state == "interrupted"
    assert TOKEN not in log.read_text()
    assert "Stopped." in log.read_text()


def child_of(process_id: int) -> int:
    children = Path(f"/proc/{process_id}/task/{process_id}/children")
    for task in Path(f"/proc/{process_id}/task").iterdir():
        for child in (task / "children").read_text().split():
            return int(child)
    raise AssertionError(children)


def is_alive(process_id: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False


# In this process


@pytest.fixture
def client(uri, tmp_path):
    with serving(uri, tmp_path / "state", roots=(tmp_path,)) as client:
        yield client


class RunHere:
    """A job in this process, where a process of its own is not what is tested: one takes seconds to start."""

    def __init__(self, command):
        self._command = command

    def follow(self, on_progress):
        return {"result": process.run(self._command, lambda stage, done, total: None), "code": 0}


@pytest.fixture
def jobs_here(monkeypatch):
    monkeypatch.setattr("registry.web.jobs.jobs.JobRun", RunHere)


def test_an_upload_becomes_a_task(client, jobs_here, uri, tmp_path):
    uploaded = upload(client)
    added = finished(
        client, submit(client, kind="add_task", data={"upload": uploaded}, name="photos", tags=["new"])
    )
    assert added["state"] == "done", added
    assert added["result"]["task"]["created"]
    task = TaskRegistry(uri).task("photos")
    assert (task.class_names, task.tags) == (("cats", "dogs"), ("new",))
    assert Path(task.data).parent == tmp_path / "state/data"
    assert files_below(Path(task.data)) == set(images(("cats", "dogs"), 8))
    assert client.get(f"/api/v1/uploads/{uploaded}").status_code == 404
    assert client.get("/api/v1/tasks/photos").json()["data"] == task.data


def test_a_job_whose_process_dies_says_so(client, monkeypatch):
    """And the process knows no token."""
    monkeypatch.setenv("T2V_TOKEN", TOKEN)
    job_id = submit(client, **NEAREST)
    jobs = client.app.state.jobs
    while job_id not in jobs._runs:
        time.sleep(0.005)
    process_id = jobs._runs[job_id].process_id
    while not (environment := Path(f"/proc/{process_id}/environ").read_bytes()):
        time.sleep(0.005)  # it is empty while the program is being started
    assert b"PATH=" in environment
    assert TOKEN.encode() not in environment
    os.kill(process_id, signal.SIGKILL)
    job = finished(client, job_id)
    assert job["state"] == "failed"
    assert (
        job["error"]["message"]
        == "the process of this job was killed by signal 9; the log of the server says more"
    )


def test_a_job_that_fails_says_why_in_one_sentence(client):
    job = finished(client, submit(client, **NEAREST, options={"where": "size > 3"}))
    assert job["state"] == "failed"
    assert job["error"]["message"].startswith("filter 'size > 3', character 1")
    assert "\n" not in job["error"]["message"]
    assert job["result"] is None


@pytest.mark.parametrize(
    ("job", "status", "part"),
    [
        ({"kind": "measure", "data": {"task": "images"}}, 422, "input should be 'recommend', 'nearest' or"),
        ({"kind": "recommend", "data": {}}, 400, "data must be one of upload, path and task"),
        ({"kind": "recommend", "data": {"task": "images", "path": "/x"}}, 400, "data must be one of"),
        ({"kind": "recommend", "data": {"task": "imagse"}}, 404, "did you mean images?"),
        ({"kind": "recommend", "data": {"task": "./images"}}, 422, "body data.task"),
        ({"kind": "recommend", "data": {"upload": "a" * 24}}, 404, "there is no upload"),
        ({"kind": "recommend", "data": {"upload": "../../etc"}}, 422, "body data.upload"),
        ({"kind": "add_task", "data": {"task": "images"}, "name": "x"}, 400, "need not be added"),
        ({"kind": "add_task", "data": {"upload": "a" * 24}}, 400, "needs the name"),
        ({"kind": "add_task", "data": {"upload": "a" * 24}, "name": "../x"}, 422, "body name"),
        ({"kind": "recommend", "data": {"task": "images"}, "tags": ["x"]}, 400, "tags would change nothing"),
        ({**NEAREST, "options": {"max_params": 5}}, 400, "max_params is no option of nearest"),
        ({**NEAREST, "options": {"device": "cuda"}}, 422, "extra inputs are not permitted"),
        ({**NEAREST, "options": {"k": 0}}, 422, "greater than or equal to 1"),
        ({**NEAREST, "priority": 1}, 422, "extra inputs are not permitted"),
    ],
)
def test_what_is_no_job_is_refused(client, job, status, part):
    answer = client.post("/api/v1/jobs", json=job, headers=BEARER)
    assert (answer.status_code, part in answer.json()["error"]["message"]) == (status, True), answer.text
    assert client.app.state.jobs.count() == 0


def test_too_many_waiting_jobs_are_refused(client, monkeypatch):
    monkeypatch.setattr("registry.web.jobs.jobs.MAX_WAITING", 2)
    answers = [client.post("/api/v1/jobs", json=NEAREST, headers=BEARER) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {202, 429}
    for answer in answers:
        if answer.status_code == 202:
            client.post(f"/api/v1/jobs/{answer.json()['id']}/cancel", headers=BEARER)


def test_jobs_and_uploads_expire(uri, jobs_here, tmp_path):
    with serving(uri, tmp_path / "state", job_seconds=0.0, upload_seconds=0.0) as client:
        jobs, uploaded = client.app.state.jobs, upload(client)
        job_id = submit(client, **NEAREST)
        end = time.monotonic() + 60
        while client.get(f"/api/v1/jobs/{job_id}").status_code == 200 and time.monotonic() < end:
            jobs._next_sweep = 0.0
            jobs._sweep()
            time.sleep(0.02)
        assert client.get(f"/api/v1/jobs/{job_id}").status_code == 404
        assert client.get(f"/api/v1/uploads/{uploaded}").status_code == 404
        assert list((tmp_path / "state/uploads").iterdir()) == []


def test_an_upload_that_a_job_waits_for_does_not_expire(tmp_path):
    uploads = Uploads(tmp_path, limits=None, seconds=0)
    folder = tmp_path / ("a" * 24)
    folder.mkdir()
    card = {
        "id": "a" * 24,
        "files": 1,
        "bytes": 1,
        "classes": {},
        "created_at": "",
        "expires_at": "2020-01-01T00:00:00+00:00",
    }
    (folder / "upload.json").write_text(json.dumps(card))
    uploads.expire(frozenset({"a" * 24}))
    assert folder.exists()
    uploads.expire(frozenset())
    assert not folder.exists()


def test_two_servers_cannot_share_a_state_folder(client, uri, tmp_path):
    with pytest.raises(StorageError, match="another server uses this state folder; give another --state"):
        serving(uri, tmp_path / "state").__enter__()


def test_a_server_over_no_registry_shows_empty_lists(tmp_path):
    with serving(tmp_path / "none", tmp_path / "state") as client:
        assert client.get("/api/v1/version").json()["registry"] == ""
        for rows in ("tasks", "experts", "results"):
            assert client.get(f"/api/v1/{rows}").json() == {"total": 0, "offset": 0, "limit": 50, rows: []}
        assert client.get("/api/v1/spaces").json() == {"spaces": []}
        for path in ("tasks/x", "tasks/x/neighbors", "experts/x", "distance?source=a&target=b"):
            answer = client.get(f"/api/v1/{path}")
            assert (answer.status_code, "no registry" in answer.text) == (404, True)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_first_task_makes_the_registry(tmp_path):
    with serving(tmp_path / "none", tmp_path / "state") as client:
        added = finished(client, submit(client, kind="add_task", data={"upload": upload(client)}, name="first"))
        assert added["state"] == "done", added
        assert client.get("/api/v1/tasks/first").status_code == 200


# The store


def make_job(**changes) -> Job:
    values = {"id": "a" * 24, "kind": "nearest", "state": "queued", "data": {"task": "x"}, "options": {"k": 3}}
    return Job(**{**values, "name": None, "tags": (), "created_at": "2026-01-01T00:00:00+00:00", **changes})


def test_store_gives_back_what_it_was_given(tmp_path):
    job = make_job(tags=("a",), progress={"stage": "x", "done": 1, "total": 2}, error={"message": "é'\""})
    store = JobStore(tmp_path / "jobs.sqlite")
    store.add(job)
    assert store.get(job.id) == job
    store.close()
    again = JobStore(tmp_path / "jobs.sqlite")
    assert again.latest(limit=5) == [job]
    with pytest.raises(NotFoundError, match="there is no job 'b'; it never existed"):
        again.get("b")


def test_store_that_is_damaged_or_newer_is_told_in_one_sentence(tmp_path):
    (tmp_path / "damaged.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="the jobs cannot be read or written: file is not a database"):
        JobStore(tmp_path / "damaged.sqlite")
    with sqlite3.connect(tmp_path / "newer.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StorageError, match="a newer version of task2vec-registry wrote it"):
        JobStore(tmp_path / "newer.sqlite")


def test_jobs_that_were_not_opened_say_so(client, uri, tmp_path):
    settings = client.app.state.settings
    jobs = Jobs(settings, client.app.state.registry, client.app.state.uploads)
    with pytest.raises(StorageError, match="the server has not started"):
        jobs.get("x")
