"""Servers for tests: in this process, and as a user starts them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from registry.web.app import create_app
from registry.web.http.settings import ServeSettings, UploadLimits

TOKEN = "a-token-of-32-characters-or-more"
URL = "http://127.0.0.1:8000"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def settings_of(registry: Path | str, state: Path, **changes) -> ServeSettings:
    """Settings of a server on loopback."""
    return ServeSettings(**{"uri": str(registry), "token": TOKEN, "state": state, **changes})


@contextmanager
def serving(registry: Path | str, state: Path, *, url: str = URL, **changes) -> Iterator[TestClient]:
    """A client of a server that has started; without the token."""
    app = create_app(settings_of(registry, state, **changes))
    with TestClient(app, base_url=url, follow_redirects=False) as client:
        yield client


def small_limits(**changes) -> UploadLimits:
    """Limits that a test can reach."""
    return UploadLimits(
        **{
            "upload_bytes": 2**20,
            "unpacked_bytes": 2**20,
            "files": 50,
            "pixels": 100_000,
            "seconds": 5.0,
            **changes,
        }
    )


def finished(client, job_id: str, seconds: float = 120.0) -> dict:
    """A job once it is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job = client.get(f"/api/v1/jobs/{job_id}").json()
        if job["state"] not in {"queued", "running"}:
            return job
        time.sleep(0.02)
    return pytest.fail(f"not over after {seconds} s: {job}")


class Served:
    """``t2v serve`` in a process of its own, on a port that is free.

    Attributes:
        url: Of the server.
        process: That serves.
    """

    def __init__(self, registry: Path, state: Path, log: Path, *options: str) -> None:
        self._log = log
        program = Path(sys.executable).with_name("t2v")
        command = [
            str(program),
            "--registry",
            str(registry),
            "serve",
            "--port",
            "0",
            "--state",
            str(state),
            *options,
        ]
        with log.open("ab") as file:
            start = file.tell()
            self.process = subprocess.Popen(command, stderr=file, env={**os.environ, "T2V_TOKEN": TOKEN})
        end = time.monotonic() + 60
        while not (found := re.search(r"at (http://\S+) \(", log.read_text()[start:])):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log.read_text())
            time.sleep(0.02)
        self.url = found[1]

    def end(self, how: int = signal.SIGTERM) -> int:
        """End it, and wait until it has."""
        self.process.send_signal(how)
        return self.process.wait(20)

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
