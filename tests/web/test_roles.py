"""Named tokens and their roles: every route as docs/security-server.md says; made, ended, audited."""

import json
import re
import shutil
import sqlite3
import zipfile
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from roles import PARTIES, documented, routes_of
from web_servers import BEARER, TOKEN, URL, serving

from registry import TaskRegistry
from registry.cli.main import main
from registry.options import ROLES
from registry.web.http import sessions
from registry.web.http.tokens import Tokens
from registry.web.jobs.store import JobStore

ORIGIN = {"Origin": URL}
OPEN = {("GET", "/login"), ("POST", "/login"), ("POST", "/logout"), ("GET", "/static")}


@pytest.fixture
def team(tmp_path, embedded):
    """A server for this machine, one for others too, and a token of each role."""
    uri, state = tmp_path / "registry", tmp_path / "state"
    shutil.copytree(embedded, uri)
    tokens = Tokens(state)
    texts = {role: tokens.add(f"{role}-token", role)[0] for role in ROLES}
    with serving(uri, state) as client:
        yield SimpleNamespace(uri=uri, state=state, tokens=tokens, texts=texts, client=client)


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


def log_in(client, text):
    client.cookies.clear()
    assert client.post("/login", data={"token": text}, headers=ORIGIN).status_code == 303


def send(client, request, headers):
    """The answer to a request about things that are not there, so that nothing changes."""
    method, path = request
    path = re.sub(r"\{\w+\}", "not-there-aaaaaaaaaaaaaaaa", path).replace("/static", "/static/style.css")
    if path == "/login":
        return client.request(
            method, path, data={"token": TOKEN} if method == "POST" else None, headers=headers
        )
    return client.request(method, path, json={} if path.startswith("/api") else None, headers=headers)


def is_refused(answer):
    return answer.status_code in {401, 403} or answer.headers.get("Location", "").startswith("/login")


def test_every_route_answers_those_whom_the_table_names(team):
    table, client = documented(), team.client
    routes = routes_of(client.app)
    listed = {(method, path.partition("?")[0]) for method, path in table} - {("GET", "*")}
    assert listed <= routes
    assert {request for request in routes - listed if request[0] != "GET"} == set()
    requests = (routes | table.keys()) - {("GET", "*"), ("POST", "/logout")}
    wrong = []
    for party in PARTIES:
        for way in ("header", "cookie") if party != "nobody" else ("header",):
            client.cookies.clear()
            if way == "cookie":
                log_in(client, team.texts[party])
            headers = bearer(team.texts[party]) if (way, party) != ("header", "nobody") else {}
            headers = ORIGIN if way == "cookie" else headers
            for request in requests if way == "header" else sorted(requests & table.keys()):
                held = dict(client.cookies)
                may = table.get(request, table["GET", "*"])[party]
                if is_refused(send(client, request, headers)) is may:
                    wrong.append((party, way, request))
                client.cookies.clear()
                client.cookies.update(held)
    assert wrong == []


def test_other_machines_get_nothing_without_a_token(team, tmp_path):
    with serving(team.uri, tmp_path / "public", host="0.0.0.0", token="") as client:
        refused = {request for request in routes_of(client.app) if is_refused(send(client, request, {}))}
        assert refused == routes_of(client.app) - OPEN | {("POST", "/login")}
        assert client.get("/", headers=bearer("")).status_code == 303  # no token is not the empty one
        text, _ = client.app.state.access.tokens.add("ada", "read")
        assert client.get("/api/v1/tasks", headers=bearer(text)).status_code == 200


def test_a_lesser_role_is_told_which_it_would_need(team):
    answer = team.client.delete("/api/v1/tasks/images?purge=true", headers=bearer(team.texts["write"]))
    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == (
        "this needs a token of the role admin, and the token write-token is of the role write"
    )
    assert team.client.get("/api/v1/tasks/images").status_code == 200
    log_in(team.client, team.texts["read"])
    page = team.client.get("/recommend").text
    assert "read-token is of the role read" in page
    assert "Log out" in page


def test_history_has_the_name_of_the_token_of_the_single_one_the_user(team):
    team.client.patch("/api/v1/tasks/images", json={"add": ["a"]}, headers=bearer(team.texts["write"]))
    log_in(team.client, team.texts["admin"])
    team.client.patch("/api/v1/tasks/images", json={"add": ["b"]}, headers=ORIGIN)
    team.client.cookies.clear()
    team.client.patch("/api/v1/tasks/images", json={"add": ["c"]}, headers=BEARER)
    lines = TaskRegistry(team.uri).audit(limit=3)
    assert [line.actor for line in lines[:2]] == ["token:write-token", "token:admin-token"]
    assert not lines[2].actor.startswith("token:")


def test_a_job_writes_in_the_name_of_its_token(team):
    body = {"kind": "nearest", "data": {"task": "images"}}
    job = team.client.post("/api/v1/jobs", json=body, headers=bearer(team.texts["write"])).json()
    assert team.client.app.state.jobs.get(job["id"]).actor == "token:write-token"
    assert "actor" not in job


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_token_that_ended_opens_nothing_at_once(team, how, monkeypatch):
    text, _ = team.tokens.add("guest", "write", 3600)
    log_in(team.client, text)
    assert team.client.get("/jobs").status_code == 200
    if how == "revoked":
        team.tokens.revoke("guest")
    else:
        monkeypatch.setattr("registry.web.http.tokens.utc_now", lambda: "2999")
    assert team.client.get("/jobs", follow_redirects=False).status_code == 303
    answer = team.client.get("/api/v1/tasks", headers=bearer(text))
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == f"the token guest is {how}; ask for another one"
    again, _ = team.tokens.add("guest", "read")
    assert team.client.get("/api/v1/tasks", headers=bearer(again)).status_code == 200


def test_admins_make_and_revoke_tokens_over_http(team):
    admin = bearer(team.texts["admin"])
    made = team.client.post("/api/v1/tokens", json={"name": "x", "role": "read"}, headers=admin)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert team.client.get("/api/v1/tasks", headers=bearer(made.json()["token"])).status_code == 200
    twice = team.client.post("/api/v1/tokens", json={"name": "x", "role": "read"}, headers=admin)
    assert (twice.status_code, "active token x already" in twice.text) == (400, True)
    assert team.client.delete("/api/v1/tokens/x", headers=admin).status_code == 204
    listed = team.client.get("/api/v1/tokens", headers=admin)
    states = {token["name"]: (token["state"], token["revoked_by"]) for token in listed.json()["tokens"]}
    assert states["x"] == ("revoked", "token:admin-token")
    assert made.json()["token"] not in listed.text
    lines = [line for line in TaskRegistry(team.uri).audit("x") if line.action.startswith("token.")]
    assert [(line.action, line.actor) for line in lines] == [
        ("token.add", "token:admin-token"),
        ("token.revoke", "token:admin-token"),
    ]


def test_guessing_locks_out_no_named_token_and_no_repeated_mistake_anybody(team):
    for _ in range(3 * sessions.ATTEMPTS):
        assert team.client.get("/api/v1/tasks", headers=bearer("an-old-one")).status_code == 401
    assert team.client.get("/api/v1/tasks", headers=BEARER).status_code == 200
    for number in range(sessions.ATTEMPTS):
        team.client.get("/api/v1/tasks", headers=bearer(f"guess-{number}"))
    assert team.client.get("/api/v1/tasks", headers=BEARER).status_code == 429
    assert team.client.get("/api/v1/tasks", headers=bearer(team.texts["read"])).status_code == 200
    log_in(team.client, team.texts["read"])


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_address_stands_for_a_client(address, client):
    assert sessions.client_of(address) == client


def test_tokens_that_cannot_be_read_open_nothing(team):
    (team.state / "tokens.json").write_text("[{]")
    answer = team.client.get("/api/v1/tasks", headers=bearer(team.texts["admin"]))
    assert answer.status_code == 503
    assert "tokens cannot be read" in answer.text


# The command


def t2v(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_keeps_a_hash_only_and_no_export_has_any_of_it(tmp_path):
    place, state = tmp_path / "registry", tmp_path / "registry.serve"
    registry = ["--registry", place]
    assert t2v(*registry, "init", "--empty").exit_code == 0
    text = t2v(*registry, "token", "add", "ada", "--role", "read", "--expires", "30d").stdout.strip()
    kept = (state / "tokens.json").read_text()
    assert re.fullmatch(r"t2v_[\w-]{43}", text)
    assert text not in kept
    assert {path.stat().st_mode & 0o777 for path in (state, *state.iterdir())} == {0o700, 0o600}
    assert Tokens(state).all()[0].expires_at[:10] > Tokens(state).all()[0].created_at[:10]
    assert "already" in t2v(*registry, "token", "add", "ada", "--role", "admin").stderr
    assert t2v(*registry, "token", "revoke", "ada").exit_code == 0
    assert "no active token is named 'ada'" in t2v(*registry, "token", "revoke", "ada").stderr
    (shown,) = json.loads(t2v(*registry, "token", "list", "--json").stdout)
    assert (shown["state"], "digest" in shown) == ("revoked", False)
    assert [line.action for line in TaskRegistry(place).audit()][-2:] == ["token.add", "token.revoke"]
    assert t2v(*registry, "export", tmp_path / "all.t2v").exit_code == 0
    with zipfile.ZipFile(tmp_path / "all.t2v") as bundle:
        members = [bundle.read(name) for name in bundle.namelist()]
    secret = json.loads(kept)[0]["digest"].encode()
    assert not any(word in member for member in members for word in (secret, text.encode(), b"token.add"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a b", "--role", "read"), "'a b' cannot name a token"),
        (("server", "--role", "read"), "token server stands for the one of --token-file"),
        (("x", "--role", "read", "--expires", "9999999d"), "must expire before the year 10000"),
    ],
)
def test_what_cannot_be_a_token_is_refused_in_a_sentence(tmp_path, words, message):
    answer = t2v("--registry", tmp_path / "registry", "token", "add", *words)
    assert answer.exit_code == 1
    assert message in answer.stderr
    assert not Tokens(tmp_path / "registry.serve").all()


def test_jobs_of_an_earlier_version_have_no_actor(tmp_path):
    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        names = (
            "id, kind, state, data, options, name, tags, created_at, started_at, finished_at, progress, result"
        )
        database.execute(f"CREATE TABLE jobs ({names}, error)")
        values = ("a", "nearest", "done", "{}", "{}", None, "[]", "2026", None, None, "null", "null", "null")
        database.execute("INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", values)
        database.execute("PRAGMA user_version = 1")
    database.close()
    store = JobStore(tmp_path / "jobs.sqlite")
    assert store.get("a").actor == ""
    store.close()
