"""The benchmark of the server: its clients count what they should, and it runs."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import bench_web
import pytest
from web_clients import load


class Answering(BaseHTTPRequestHandler):
    """Every second path is broken."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        content = b"x" * 50
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("use_wrk", [True, False], ids=["wrk", "own"])
def test_load_counts_answers_and_failures(use_wrk):
    Answering.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        figures = load(url, ["/well", "/broken"], clients=4, seconds=1.0, use_wrk=use_wrk, seed=0)
        server.shutdown()
        thread.join()
    asked = len(Answering.asked)
    broken = sum(path == "/broken" for path in Answering.asked)
    assert set(Answering.asked) == {"/well", "/broken"}
    assert broken - 8 <= figures["failed"] <= broken
    assert 0.5 * asked < figures["per_s"] <= 1.1 * asked
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]


def test_routes_are_those_of_the_server_with_names_filled_in():
    paths = bench_web.routes()
    assert {"/", "/map", "/api/v1/version", f"/api/v1/experts/{bench_web.EXPERT}"} <= set(paths)
    assert not any("{" in path for path in paths)
    assert len(paths) > 25


@pytest.mark.slow
def test_benchmark_runs(tmp_path):
    command = [sys.executable, bench_web.__file__, "--tasks", "200", "--quick"]
    subprocess.run([*command, "--json", str(tmp_path / "figures.json")], check=True, capture_output=True)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["5xx and broken answers"] == 0
    assert {it["status"] for it in figures["routes"].values()} == {200}
    assert figures["loads"]["nearest, adding"]["added_per_s"] > 0
