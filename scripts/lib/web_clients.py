"""Many clients that ask a server at once: by `wrk`, or by connections of this program."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

THREADS = 2
SCRIPT = """
local paths = {}
for line in io.lines(os.getenv("WRK_PATHS")) do paths[#paths + 1] = line end
math.randomseed(tonumber(os.getenv("WRK_SEED")))
request = function() return wrk.format("GET", paths[math.random(#paths)]) end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "max_ms": %f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, e.connect + e.read + e.write + e.timeout + e.status))
end
"""


def load(
    url: str, paths: list[str], *, clients: int, seconds: float, use_wrk: bool, seed: int
) -> dict[str, float]:
    """Ask for paths, chosen at random, from many connections that stay open.

    Args:
        url: Of the server.
        paths: What is asked for.
        clients: Number of connections.
        seconds: How long.
        use_wrk: Whether to use ``wrk`` if it is installed.
        seed: Of the choice.

    Returns:
        Answers per second; ``p50_ms``, ``p99_ms`` and ``max_ms`` of their latency; and how many ``failed``: a
        status of 400 or more, or a connection that broke.
    """
    by_wrk = use_wrk and shutil.which("wrk")
    found = (
        _by_wrk(url, paths, clients, seconds, seed)
        if by_wrk
        else asyncio.run(_ask(url, paths, clients, seconds, seed))
    )
    requests, duration = found.pop("requests"), found.pop("seconds")
    return {"per_s": requests / duration, **found}


def _by_wrk(url: str, paths: list[str], clients: int, seconds: float, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        script, listed = Path(folder) / "ask.lua", Path(folder) / "paths"
        script.write_text(SCRIPT)
        listed.write_text("\n".join(paths) + "\n")
        command = [
            "wrk",
            f"-t{THREADS}",
            f"-c{clients}",
            f"-d{seconds:g}s",
            "--timeout",
            "30s",
            "-s",
            str(script),
            url,
        ]
        environment = {**os.environ, "WRK_PATHS": str(listed), "WRK_SEED": str(seed)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


async def _ask(url: str, paths: list[str], clients: int, seconds: float, seed: int) -> dict[str, Any]:
    """The same by one thread of this process, which takes more of the machine than ``wrk`` does."""
    address, latencies, failed = urlsplit(url), [], 0
    end, started = time.perf_counter() + seconds, time.perf_counter()

    async def client(number: int) -> None:
        nonlocal failed
        generator = np.random.default_rng([seed, number])
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while time.perf_counter() < end:
            path = paths[int(generator.integers(len(paths)))]
            asked = time.perf_counter()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
            status = await _read_answer(reader)
            latencies.append(time.perf_counter() - asked)
            failed += status >= 400
        writer.close()

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    p50, p99, most = (float(it) * 1e3 for it in np.quantile(latencies, [0.5, 0.99, 1]))
    duration = time.perf_counter() - started
    return {
        "requests": len(latencies),
        "seconds": duration,
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": most,
        "failed": failed,
    }


async def _read_answer(reader: asyncio.StreamReader) -> int:
    """The status of an answer, all of which is read; of one that says how long it is."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].split("\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(" ", 2)[1])
