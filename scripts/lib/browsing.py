"""A real server and a real browser, for what looks at pages: browser tests and make_screenshots.py."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "only-for-this-run-and-this-machine"
START_SECONDS = 60.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# In a closed network a browser that looks for updates has its connections refused, many at a time.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE = Path(__file__).parents[2] / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
"""Where scripts/test.sh --browser puts axe-core."""


@dataclass(frozen=True)
class Server:
    """A server that runs: its address, and the file with all that it printed."""

    url: str
    log: Path


def find_browser() -> str | None:
    """The path of Chromium, ``None`` if it is not installed; ``$T2V_CHROMIUM`` names another one."""
    named = os.environ.get("T2V_CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def open_browser() -> Iterator["Browser"]:
    """A headless Chromium with a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_server(registry: Path, work: Path, *options: str) -> Iterator[Server]:
    """``t2v serve`` in a process of its own, on a free port of loopback.

    Args:
        registry: That it serves.
        work: Folder for its state, its token and its log.
        *options: More of the command.
    """
    token, log = work / "token", work / "serve.log"
    token.write_text(TOKEN)
    command = [str(Path(sys.executable).with_name("t2v")), "--registry", str(registry), "serve", "--port", "0"]
    command += ["--token-file", str(token), "--state", str(work / "state"), *options]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True)
        try:
            yield Server(_address(process, log), log)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    """The address that a server prints once it listens.

    Raises:
        RuntimeError: If it ended, or did not print one in time.
    """
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://[\w.:\[\]]+", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start; it printed: {log.read_text()}")


def log_in(page: "Page", url: str) -> None:
    """Log in by the form."""
    page.goto(f"{url}/login")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


def settle(page: "Page") -> None:
    """Wait until nothing of a page is still to come: parts that load later, and the map."""
    page.wait_for_load_state()
    page.wait_for_function(
        "() => !document.querySelector('[aria-busy=true], [data-unfinished], .later > p > a')"
    )
    if page.locator("#map").count():
        page.locator("#map[data-ready]").wait_for()
        page.wait_for_timeout(150)  # a frame or two


def accessibility_findings(page: "Page") -> list[str]:
    """What axe-core finds in a page that is serious or critical, a line each.

    The script comes by the debugger, so the content security policy of the page stays as it is.
    """
    page.evaluate(AXE.read_text(encoding="utf-8"))
    result = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{it['impact']}: {it['id']}: {it['help']}: {[node['html'][:200] for node in it['nodes'][:3]]}"
        for it in result["violations"]
        if it["impact"] in {"serious", "critical"}
    ]
