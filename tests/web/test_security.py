"""Who may do what: hosts, tokens, sessions, origins, headers, and what the log says."""

import asyncio
import itertools
import logging
import re
import shutil

import pytest
from small_stores import add
from web_servers import BEARER, TOKEN, URL, serving
from web_zips import good

from registry import TaskRegistry
from registry.web.http import sessions
from registry.web.http.security import HEADERS, Guard, host_name
from registry.web.http.sessions import Sessions, Throttle
from registry.web.pages.pages import local_path
from registry.wording import INTERNAL

ORIGIN = {"Origin": URL}
WRITES = [
    ("PATCH", "/api/v1/tasks/images", {"add": ["new"]}),
    ("DELETE", "/api/v1/tasks/images", None),
    ("POST", "/api/v1/tasks/images/restore", None),
    ("POST", "/api/v1/tasks/images/move", {"path": "elsewhere"}),
    ("POST", "/api/v1/tasks/images/aliases", {"alias": "best"}),
    ("DELETE", "/api/v1/tasks/images/aliases/best", None),
    ("DELETE", "/api/v1/experts/a.b", None),
    ("POST", "/api/v1/experts/a.b/restore", None),
    ("POST", "/api/v1/experts/a.b/aliases", {"alias": "c.d"}),
    ("DELETE", "/api/v1/experts/a.b/aliases/c.d", None),
    ("POST", "/api/v1/results/import", None),
    ("POST", "/api/v1/results", {"task": "images", "expert": "a.b", "accuracy": 0.5}),
    ("POST", "/api/v1/uploads", None),
    ("DELETE", "/api/v1/uploads/aaaaaaaaaaaaaaaaaaaaaaaa", None),
    ("POST", "/api/v1/jobs", {"kind": "recommend", "data": {"task": "images"}}),
    ("POST", "/api/v1/jobs/aaaaaaaaaaaaaaaaaaaaaaaa/cancel", None),
    ("DELETE", "/api/v1/jobs/aaaaaaaaaaaaaaaaaaaaaaaa", None),
    ("POST", "/api/v1/tokens", {"name": "ada", "role": "read"}),
    ("DELETE", "/api/v1/tokens/ada", None),
    ("POST", "/api/v1/trust", {"name": "a.b"}),
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory, embedded):
    """A registry that tests may write."""
    folder = tmp_path_factory.mktemp("security") / "registry"
    shutil.copytree(embedded, folder)
    return folder


@pytest.fixture
def local(uri, tmp_path):
    with serving(uri, tmp_path / "state") as client:
        yield client


@pytest.fixture
def public(uri, tmp_path):
    """A server that other machines can reach."""
    with serving(uri, tmp_path / "public", host="0.0.0.0", hosts=("registry.example.org",)) as client:
        yield client


def sentence(answer) -> str:
    return answer.json()["error"]["message"]


def log_in(client) -> None:
    answer = client.post("/login", data={"token": TOKEN, "next": "/"}, headers=ORIGIN)
    assert answer.status_code == 303


# Who may


def test_a_body_that_never_comes_reaches_no_route(local, monkeypatch):
    """Neither where its sender leaves, nor where it is sent a byte at a time."""
    monkeypatch.setattr("registry.web.http.security.AHEAD_SECONDS", 0.05)
    reached, sent = [], []
    guard = Guard(reached.append, local.app.state.settings, local.app.state.access, note=print)
    scope = {"type": "http", "method": "POST", "path": "/login", "query_string": b"", "app": local.app}
    scope["headers"] = [(b"host", b"127.0.0.1"), (b"content-length", b"99")]

    async def ask(*messages):
        coming = iter(messages)

        async def receive():
            await asyncio.sleep(0.02)
            return next(coming)

        async def send(message):
            sent.append(message)

        await guard(scope, receive, send)

    part = {"type": "http.request", "body": b"x", "more_body": True}
    asyncio.run(ask(part, {"type": "http.disconnect"}))
    assert sent == []
    asyncio.run(ask(*[part] * 9))
    assert sent[0]["status"] == 408
    assert reached == []


def test_writing_needs_the_token(local, uri):
    before = TaskRegistry(uri).version()
    for method, path, body in WRITES:
        answer = local.request(method, path, json=body)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "needs a token" in sentence(answer)
    assert TaskRegistry(uri).version() == before


def test_every_route_that_writes_is_tried_above(local):
    spec = local.get("/api/v1/openapi.json").json()
    writes = {
        (method.upper(), path)
        for path, methods in spec["paths"].items()
        for method in methods
        if method != "get"
    }
    patterns = {(method, re.sub(r"\{\w+\}", "[^/]+", path)) for method, path in writes}
    tried = {
        (method, pattern)
        for method, pattern in patterns
        for tried_method, path, _ in WRITES
        if method == tried_method and re.fullmatch(pattern, path)
    }
    assert tried == patterns


def test_reading_needs_no_token_on_this_machine_only(local, public):
    for path in ("/", "/api/v1/tasks", "/api/v1/version", "/api/v1/openapi.json", "/experts"):
        assert local.get(path).status_code == 200
        assert public.get(path).status_code in {303, 401}
        assert public.get(path, headers=BEARER).status_code == 200


def test_the_list_of_jobs_needs_the_token(local):
    assert local.get("/api/v1/jobs").status_code == 401
    assert local.get("/api/v1/jobs", headers=BEARER).status_code == 200


def test_readers_are_sent_to_the_login_and_back(public):
    answer = public.get("/tasks/images?version=1")
    assert (answer.status_code, answer.headers["Location"]) == (
        303,
        "/login?next=%2Ftasks%2Fimages%3Fversion%3D1",
    )
    assert public.get("/login").status_code == 200
    assert public.get("/static/style.css").status_code == 200
    answer = public.post("/login", data={"token": TOKEN, "next": "/tasks/images?version=1"})
    assert answer.headers["Location"] == "/tasks/images?version=1"
    assert public.get("/tasks/images?version=1").status_code == 200
    public.post("/logout", headers=ORIGIN)
    assert public.get("/tasks/images").status_code == 303


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong-token-of-the-length", "Bearer ", f"Bearer {TOKEN}x", "Bearer é"]
)
def test_a_wrong_token_is_refused_even_for_reading(local, authorization):
    answer = local.get("/api/v1/tasks", headers={"Authorization": authorization.encode()})
    assert answer.status_code == 401
    assert authorization[7:] not in sentence(answer) or not authorization[7:].strip()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Cookie": f"token={TOKEN}"},
        {"Cookie": f"t2v_session_8000={TOKEN}", **ORIGIN},
        {},
    ],
    ids=["basic", "bare", "cookie", "session", "address"],
)
def test_a_token_in_another_place_is_none(local, headers):
    """A header of a proxy in front of the server is none of ours, and disturbs no reader."""
    where = f"/api/v1/tasks/images/restore?token={TOKEN}&access_token={TOKEN}"
    assert local.post(where, headers=headers).status_code == 401
    assert local.get("/api/v1/tasks", headers=headers).status_code == 200


# Logging in


def test_the_cookie_is_kept_from_scripts_and_other_sites(local, uri, tmp_path):
    answer = local.post("/login", data={"token": TOKEN})
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("t2v_session_8000=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    with serving(uri, tmp_path / "other", url="https://127.0.0.1:8443") as client:
        assert "; Secure" in client.post("/login", data={"token": TOKEN}).headers["Set-Cookie"]


def test_a_login_writes_and_a_logout_ends_it(local, uri):
    log_in(local)
    answer = local.patch("/api/v1/tasks/images", json={"add": ["by-cookie"]}, headers=ORIGIN)
    assert answer.status_code == 200, answer.text
    assert "by-cookie" in answer.json()["tags"]
    stolen = dict(local.cookies)
    assert local.post("/logout", headers=ORIGIN).status_code == 303
    local.cookies.update(stolen)
    assert local.patch("/api/v1/tasks/images", json={"add": ["x"]}, headers=ORIGIN).status_code == 401


def test_a_wrong_token_is_told_on_the_page(local):
    answer = local.post("/login", data={"token": "wrong", "next": "/jobs"})
    assert answer.status_code == 401
    assert "not the token of this server" in answer.text
    assert 'value="/jobs"' in answer.text
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.org",
        "//evil.org",
        "/\\evil.org",
        "\\\\evil.org",
        "javascript:alert(1)",
        "/a\nb",
        "evil",
        "",
        "/a\\b",
    ],
)
def test_a_login_leads_to_no_other_site(local, target):
    answer = local.post("/login", data={"token": TOKEN, "next": target})
    assert answer.headers["Location"] == "/" == local_path(target)


@pytest.mark.parametrize("way", ["form", "bearer"])
def test_guessing_is_slowed_down(local, way):
    def guess(token):
        if way == "form":
            return local.post("/login", data={"token": token})
        return local.get("/api/v1/tasks", headers={"Authorization": f"Bearer {token}"})

    statuses = [guess(f"guess-{number}").status_code for number in range(sessions.ATTEMPTS + 2)]
    assert statuses == [401] * sessions.ATTEMPTS + [429] * 2
    answer = guess(TOKEN)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= sessions.ATTEMPT_SECONDS + 1
    assert local.get("/api/v1/tasks").status_code == 200


def test_throttle_lets_on_after_a_minute_and_others_meanwhile():
    now = itertools.chain([0.0] * sessions.ATTEMPTS, [10.0, 10.0, 59.0, 60.0])
    throttle, guesses = Throttle(lambda: next(now)), itertools.count()
    for _ in range(sessions.ATTEMPTS):
        throttle.failed("a", str(next(guesses)))
    assert throttle.seconds_to_wait("a") == 50
    assert throttle.seconds_to_wait("b") == 0
    assert [throttle.seconds_to_wait("a") for _ in range(3)] == [50, 1, 0]


def test_sessions_end_by_themselves_and_are_bounded(monkeypatch):
    now = [0.0]
    opened = Sessions(lambda: now[0])
    first = opened.open("token")
    assert opened.digest(first) == "token"
    now[0] = sessions.SESSION_SECONDS
    assert not opened.digest(first)
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    names = [opened.open("token") for _ in range(3)]
    assert [opened.digest(name) for name in names] == ["", "token", "token"]


# Other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", **ORIGIN},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.org"},
        {},
    ],
    ids=str,
)
def test_what_another_site_sends_with_our_cookie_is_refused(local, uri, headers):
    log_in(local)
    before = TaskRegistry(uri).version()
    for path in ("/api/v1/tasks/images/restore", "/logout", "/api/v1/uploads"):
        answer = local.post(path, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.text
    assert TaskRegistry(uri).version() == before


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_loads_nothing_but_may_have_links(local, site):
    """An image of it could start work that takes long."""
    for path in ("/api/v1/tasks", "/api/v1/map", "/", "/map/points"):
        answer = local.get(path, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})
        assert (answer.status_code, "another site" in answer.text) == (403, True)
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert local.get("/", headers=link).status_code == 200
    assert local.get("/api/v1/map", headers=link).status_code == 403
    for ours in ("same-origin", "none"):
        answer = local.get("/api/v1/tasks", headers={"Sec-Fetch-Site": ours, "Sec-Fetch-Mode": "navigate"})
        assert answer.status_code == 200


def test_another_site_cannot_log_anybody_in(local):
    answer = local.post("/login", data={"token": TOKEN}, headers={"Origin": "https://evil.org"})
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_a_form_cannot_be_taken_for_json(local):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = local.post(
            "/api/v1/results",
            content=b'{"task": "images", "expert": "a.b", "accuracy": 0.5}',
            headers={**BEARER, "Content-Type": kind},
        )
        assert answer.status_code == 415
        assert "send the body as application/json" in sentence(answer)


@pytest.mark.parametrize(
    "host",
    ["evil.org", "127.0.0.1.evil.org", "localhost.evil.org:8000", "", "a b", "[::1", "127.0.0.1:x", "10.0.0.1"],
)
def test_another_name_for_this_machine_is_refused(local, host):
    answer = local.get("/api/v1/tasks", headers={"Host": host})
    assert answer.status_code == 400
    assert "does not answer to the host" in sentence(answer)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:8000", "[::1]:8000", "localhost."])
def test_the_names_of_this_machine_are_taken(local, host):
    assert local.get("/api/v1/tasks", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"), [("registry.example.org", 200), ("10.1.2.3:8000", 200), ("evil.org", 400)]
)
def test_names_of_a_server_for_others(public, host, status):
    assert public.get("/api/v1/tasks", headers={**BEARER, "Host": host}).status_code == status


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("a:80", "a"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("A.B", "a.b"),
        ("a/b", ""),
        ("a@b", ""),
        ("a:999999", ""),
    ],
)
def test_host_name(header, name):
    assert host_name(header) == name


# What answers tell


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/tasks", "/static/style.css", "/login", "/nothing", "/api/v1/nothing", "/api/v1/jobs"]
)
def test_every_answer_has_the_headers(local, path):
    answer = local.get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"].startswith(("private", "no-store"))
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("method", ["TRACE", "PUT", "OPTIONS", "CONNECT", "FOO"])
def test_other_methods_are_refused_in_the_one_shape(local, method):
    answer = local.request(method, "/api/v1/tasks", headers=BEARER)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


def test_names_come_out_escaped(uri, tmp_path):
    evil = "<script>alert(1)</script>"
    with serving(uri, tmp_path / "state") as client:
        for path in (
            f"/?search={evil}",
            f"/?where={evil}",
            f"/tasks/{evil}",
            f"/nothing/{evil}",
            f"/login?next={evil}",
        ):
            answer = client.get(path)
            assert "<script>alert" not in answer.text
        answer = client.get(f"/api/v1/tasks/{evil}")
        assert answer.headers["Content-Type"] == "application/json"


def test_class_names_come_out_escaped(store, tmp_path):
    evil = ("<img src=x onerror=alert(1)>", '"><script>alert(2)</script>')
    add(store, "evil", class_names=evil, num_classes=2, data='"><svg onload=alert(3)>')
    with serving(store.uri, tmp_path / "state") as client:
        page = client.get("/tasks/evil").text
    assert "&lt;img src=x onerror" in page
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "<svg onload" not in page


# Bounds


@pytest.mark.parametrize("says_so", [True, False])
def test_a_body_is_bounded(local, says_so):
    body = b" " * (2**20 + 1)
    content = body if says_so else iter([body[: 2**19], body[2**19 :]])
    answer = local.post(
        "/api/v1/results", content=content, headers={**BEARER, "Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert "1,048,576 bytes" in sentence(answer)


@pytest.mark.parametrize(
    "body", [b"{", b"[" * 100_000, b'{"accuracy": NaN}', b"\xff\xfe", b'{"task": "a", "task2": 1}', b"null"]
)
def test_a_body_that_is_no_json_of_ours_is_refused(local, body):
    answer = local.post("/api/v1/results", content=body, headers={**BEARER, "Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert set(answer.json()["error"]) == {"status", "code", "message", "details"}


# Errors


def boom() -> None:
    raise RuntimeError("a secret of the inside")


def test_what_goes_wrong_inside_is_not_shown(local, caplog, monkeypatch):
    monkeypatch.setattr(TaskRegistry, "find_tasks", lambda *_, **__: boom())
    for path, kind in (("/api/v1/tasks", "application/json"), ("/", "text/html; charset=utf-8")):
        answer = local.get(path)
        assert answer.status_code == 500
        assert answer.headers["Content-Type"] == kind
        assert "secret" not in answer.text
        assert INTERNAL in answer.text
        assert answer.headers["Content-Security-Policy"]
    assert "a secret of the inside" in caplog.text


def test_an_error_page_that_fails_is_a_plain_one(local, monkeypatch):
    monkeypatch.setattr(local.app.state, "error_page", lambda *_: boom())
    answer = local.get("/nothing<b>")
    assert answer.status_code == 404
    assert "&lt;b&gt;" in answer.text
    assert "secret" not in answer.text


def test_errors_have_one_shape(local):
    for method, path, status, code in (
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/api/v1/tasks/nobody", 404, "not_found"),
        ("GET", "/api/v1/tasks?where=x", 400, "bad_request"),
        ("GET", "/api/v1/tasks?limit=x", 422, "invalid"),
        ("GET", "/api/v1/tasks/a b", 422, "invalid"),
        ("PUT", "/api/v1/tasks", 405, "method_not_allowed"),
        ("POST", "/api/v1/jobs", 415, "unsupported_media_type"),
        ("GET", "/api/v1/uploads/short", 422, "invalid"),
        ("GET", "/api/v1/uploads/..%2F..%2F..%2F..%2Fetc%2Fpasswd", 404, "not_found"),
    ):
        answer = local.request(method, path, headers=BEARER)
        assert answer.status_code == status, path
        error = answer.json()["error"]
        assert (error["status"], error["code"]) == (status, code)
        assert set(error) == {"status", "code", "message", "details"}
        assert "\n" not in error["message"]


def test_a_registry_that_cannot_be_read_is_unavailable(tmp_path):
    (tmp_path / "registry").write_text("no folder")
    with serving(tmp_path / "registry", tmp_path / "state") as client:
        answer = client.get("/api/v1/tasks")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


# The log


def test_the_log_shows_no_secret(local, caplog):
    caplog.set_level(logging.INFO, "t2v.serve")
    log_in(local)
    cookie = next(iter(local.cookies.values()))
    local.get(f"/api/v1/tasks?token={TOKEN}", headers=BEARER)
    local.get("/api/v1/jobs/aaaaaaaaaaaaaaaaaaaaaaaa", headers=BEARER)
    local.get("/tasks/%1b[2J%0aINFO forged")
    answer = local.post(
        "/api/v1/uploads", content=good(), headers={**BEARER, "Content-Type": "application/zip"}
    )
    lines = [record.getMessage() for record in caplog.records if record.name == "t2v.serve"]
    local.get(f"/api/v1/uploads/{answer.json()['upload']}")
    for secret in (TOKEN, cookie, "aaaaaaaaaaaaaaaaaaaaaaaa", answer.json()["upload"], "\n", "\x1b"):
        assert not any(secret in line for line in lines)
    assert any(re.fullmatch(r"GET /api/v1/tasks 200 [0-9.]+ ms", line) for line in lines)
    assert any(line.startswith("GET /api/v1/jobs/... 404") for line in lines)
    assert any(line.startswith("POST /login 303") for line in lines)


@pytest.mark.parametrize("path", ["/", "/api/v1/tasks", "/tasks/nonesuch"])
def test_head_is_answered_as_get(local, path):
    head, get = local.head(path), local.get(path)
    assert head.status_code == get.status_code
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers.get("etag") == get.headers.get("etag")
