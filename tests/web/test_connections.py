"""Connections that send nothing, or a byte now and then, keep nobody else from an answer."""

import logging
import os
import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from markdown_pages import ROOT

from registry import TaskRegistry
from registry.web.http.connections import FewProblems

START = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv.pop(1)),) * 2)\n"
START += "from registry.cli.main import main; main()"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Port, log and process of a server that may have 256 files."""
    tmp_path = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log, place = tmp_path / "log", str(tmp_path / "registry")
    run = [sys.executable, "-W", "ignore", "-c", START, "256", "--registry", place]
    TaskRegistry(place).init(empty=True)
    with log.open("w") as file:
        process = subprocess.Popen([*run, "serve", "--port", str(port)], stderr=file, cwd=ROOT)
    deadline = time.monotonic() + 60
    while "Serving" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield port, log, process.pid
    process.terminate()
    process.wait(20)


def seconds_of_an_answer(port, path="/api/v1/version", timeout=10):
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
    return time.monotonic() - started


def processor_seconds(process):
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def beset(server, idle, slow, rounds):
    """Seconds of the slowest answer, and of the processor that each connection took."""
    port, log, process = server
    for _ in range(5):
        seconds_of_an_answer(port, "/", 60)  # the first one reads everything
    before = processor_seconds(process)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, idle + slow + 200)), hard))
    with ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(idle + slow)
        ]
        for client in held[idle:]:
            client.sendall(b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        seconds = [seconds_of_an_answer(port, "/")]
        each = (processor_seconds(process) - before) / len(held)
        for _ in range(rounds):
            for client in held[idle:]:
                try:
                    client.sendall(b"x")
                except OSError:  # it had to make room
                    continue
            seconds += [seconds_of_an_answer(port), seconds_of_an_answer(port, "/")]
    assert log.stat().st_size < 2**20
    load = os.getloadavg()[0]
    print(f"slowest {max(seconds):.3f} s, {each * 1e3:.2f} ms of processor a connection, load {load:.1f}")  # noqa: T201
    return max(seconds), each


def test_idle_and_slow_connections_stop_no_answer(server):
    slowest, each = beset(server, 300, 60, rounds=3)
    assert slowest < 5
    assert each < 1e-3


def test_no_header_hides_whose_guesses_these_are_or_makes_them_those_of_others(server):
    answers = []
    for number in range(12):
        with socket.create_connection(("127.0.0.1", server[0]), timeout=10) as client:
            names = {"Host": "127.0.0.1", "Authorization": f"Bearer guess-{number}", "Connection": "close"}
            names |= dict.fromkeys(("X-Forwarded-For", "X-Real-IP"), f"10.0.0.{number}")
            lines = ["GET /api/v1/version HTTP/1.1", *map(": ".join, names.items()), "", ""]
            client.sendall("\r\n".join(lines).encode())
            answers.append(client.recv(12)[-3:])
    assert set(answers[:9]) == {b"401"}
    assert answers[-2:] == [b"429"] * 2
    assert seconds_of_an_answer(server[0]) < 5


def test_the_log_of_what_is_refused_is_bounded():
    few = FewProblems(3)
    records = [logging.LogRecord("x", 20, "x", 1, "line %s", (number,), None) for number in range(6)]
    assert [few.filter(record) for record in records] == [True] * 3 + [False] * 3
    assert records[2].getMessage() == "line 2; more of these are left out for a minute"
    records[5].created += 61
    assert few.filter(records[5])


@pytest.mark.slow
def test_thousands_of_idle_and_slow_connections_stop_no_answer(server):
    """Within a second, unless the machine has much else to do."""
    most = 1 if os.getloadavg()[0] < 4 * os.cpu_count() else 5
    slowest, each = beset(server, 2000, 200, rounds=20)
    assert slowest < most
    assert each < 0.5e-3


@pytest.mark.slow
def test_a_connection_that_says_nothing_is_closed(server):
    port = server[0]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET / HT")
        started = time.monotonic()
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert 8 < time.monotonic() - started < 16
