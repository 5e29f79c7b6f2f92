"""What one token, or one address without one, may ask: enough for anybody, and never at the cost of others."""

import asyncio
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from web_servers import BEARER, Served, serving

from registry import TaskRegistry
from registry.errors import StorageError
from registry.web.http.faults import RefusedError
from registry.web.http.shares import BURST_SECONDS, MOST_OPEN, QUIET_SECONDS, Shares
from registry.web.http.tokens import Tokens


@pytest.fixture
def uri(tmp_path, embedded):
    shutil.copytree(embedded, tmp_path / "registry")
    return tmp_path / "registry"


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


class Asked:
    """Shares with a clock that is set, in a loop, and what they noted."""

    def __init__(self, rate):
        self.now, self.noted = 0.0, []
        self.shares = Shares(rate, lambda *said: self.noted.append(said), lambda: self.now)

    def open(self, holder="ada", is_token=True):
        """A share, or the seconds to wait."""

        async def ask():
            try:
                return self.shares.open(holder, is_token=is_token)
            except RefusedError as error:
                return error

        said = asyncio.run(ask())
        if not isinstance(said, RefusedError):
            return said
        assert said.status == 429
        assert holder in said.message
        return int(said.headers["Retry-After"])


def test_a_burst_is_answered_then_the_rate_and_others_meanwhile():
    asked = Asked(rate=0.5)
    for _ in range(int(0.5 * BURST_SECONDS)):
        asked.open().open -= 1
    assert asked.open() == 2
    for holder, is_token in (("eve", True), ("ada", False), ("127.0.0.1", False)):
        asked.open(holder, is_token).open -= 1
    asked.now += 2
    asked.open().open -= 1
    assert asked.open() == 2


def test_requests_that_do_not_end_are_counted():
    asked = Asked(rate=0)
    shares = [asked.open() for _ in range(MOST_OPEN)]
    assert asked.open() == 1
    shares[0].open -= 1
    assert asked.open() is shares[0]


def test_the_history_has_a_line_for_each_burst_of_refusals_of_a_token():
    asked = Asked(rate=0.1)
    asked.open()
    asked.open("10.0.0.1", is_token=False)
    for _ in range(5):
        assert asked.open() > 0
        assert asked.open("10.0.0.1", is_token=False) > 0
    assert asked.noted == [("limited", "ada")]
    asked.now += 10 + QUIET_SECONDS
    asked.open()
    assert asked.open() > 0
    assert len(asked.noted) == 2


def test_a_token_that_asks_too_much_is_refused_and_nobody_else(uri, tmp_path):
    tokens = Tokens(tmp_path / "state")
    ada, eve = (bearer(tokens.add(name, "write")[0]) for name in ("ada", "eve"))
    TaskRegistry(uri).tag_task("images", add=["before"])
    with serving(uri, tmp_path / "state", rate=0.5) as client:
        headers = [{**ada, "X-Forwarded-For": f"10.0.0.{number}"} for number in range(8)]
        answers = [client.get("/api/v1/version", headers=each) for each in headers]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
        assert answers[-1].json()["error"]["code"] == "too_many_requests"
        assert answers[-1].headers["Retry-After"] == "2"
        assert client.get("/", headers={**ada, "Accept": "text/html"}).status_code == 429
        assert {client.get("/", headers=each).status_code for each in (eve, BEARER, {})} == {200}
    registry = TaskRegistry(uri)
    assert [line.action for line in registry.audit("ada")] == ["token.limited"]
    # It is no write that undo takes back.
    assert [write.actions for write in registry.writes()][-1] == ("task.tag",)
    registry.undo()
    assert "before" not in registry.task("images").tags


def test_a_history_that_cannot_be_written_is_a_line_of_the_log(caplog):
    def note(*said):
        raise StorageError("busy")

    Shares(1, note)._written("ada")
    assert "that is not in the history: busy" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("flood", ["a token", "an address"])
def test_a_flood_of_right_requests_starves_nobody(uri, tmp_path, flood):
    """Twenty threads of one token, against the seconds that another one waits."""
    tokens = Tokens(tmp_path / "state")
    ada, eve = (bearer(tokens.add(name, "read")[0]) for name in ("ada", "eve"))
    flooding = ada if flood == "a token" else {}
    over, codes = threading.Event(), []

    def ask_on(url):
        with httpx2.Client(base_url=url, timeout=30, headers=flooding) as client:
            while not over.is_set():
                number = len(codes)
                path = f"/api/v1/tasks/images/neighbors?k={number % 50 + 1}"
                codes.append(client.get(path).status_code)

    def seconds_of(client):
        started = time.monotonic()
        assert client.get("/").status_code == 200
        return time.monotonic() - started

    with (
        Served(uri, tmp_path / "state", tmp_path / "log", "--rate", "20") as server,
        httpx2.Client(base_url=server.url, timeout=30, headers=eve) as client,
        ThreadPoolExecutor(20) as threads,
    ):
        quiet = sorted(seconds_of(client) for _ in range(30))
        for _ in range(20):
            threads.submit(ask_on, server.url)
        time.sleep(2)
        try:
            beside = []
            for _ in range(100):
                beside.append(seconds_of(client))
                time.sleep(0.05)
        finally:
            over.set()
    beside.sort()
    print(  # noqa: T201
        f"flood of {flood}: {codes.count(200)} answered, {codes.count(429)} refused; others wait "
        f"{beside[50]:.3f} s, p99 {beside[-2]:.3f} s, without it {quiet[15]:.3f} s"
    )
    assert codes.count(429) > 50
    assert beside[-2] < 1
    assert sum(line.action == "token.limited" for line in TaskRegistry(uri).audit("ada")) == (
        flood == "a token"
    )
