"""A running job, seen from the server: a process that reports its progress and can be ended."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

END_SECONDS = 5.0
SECRETS = frozenset({"T2V_TOKEN"})
"""Environment variables that a job does not get."""


class JobRun:
    """One process; one thread follows it, and any may end it."""

    def __init__(self, command: dict[str, Any]) -> None:
        """Start the process."""
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        if command.get("actor"):
            environment["T2V_USER"] = command["actor"]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "registry.web.jobs.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # an interrupt at the terminal is for the server, which ends its jobs
        )
        self._lock = threading.Lock()
        with contextlib.suppress(OSError):  # if it has ended already, ``follow`` says so
            self._input.write(json.dumps(command).encode() + b"\n")
            self._input.flush()

    @property
    def process_id(self) -> int:
        """Id of the process."""
        return self._process.pid

    def follow(self, on_progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Read its messages until it ends.

        Returns:
            ``result`` or ``error``, neither if it ended without one; and its exit ``code``.
        """
        outcome: dict[str, Any] = {}
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # it was ended in the middle of a line
                continue
            if "progress" in message:
                on_progress(message["progress"])
            else:
                outcome = message
        self._process.stdout.close()
        with self._lock, contextlib.suppress(OSError):
            self._input.close()
        return {**outcome, "code": self._process.wait()}

    def end(self) -> None:
        """End the process, by force if it does not end by itself; returns when it has ended."""
        with self._lock:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def _input(self) -> Any:
        return self._process.stdin
