"""Fixtures of browser tests: a server over the starter registry, a browser, and pages that are logged in."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import browsing
import pytest
from browser_pages import LOOKS
from builders_datasets import encoded, noise_image
from extras import shared_folder

import registry


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def pictures(work) -> Path:
    folder = Path(os.environ.get("T2V_SCREENSHOTS") or work / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def server(work) -> Iterator[browsing.Server]:
    registry.TaskRegistry(work / "registry").init()
    with browsing.open_server(work / "registry", work) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with browsing.open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def session(browser, server) -> dict:
    """Cookies of a reader who is logged in."""
    context = browser.new_context()
    browsing.log_in(context.new_page(), server.url)
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def opened(browser, server, session):
    """Opens a page that is logged in; when the test ends, nothing may have gone wrong in any of them."""
    problems, contexts = [], []

    def open_page(look: str = "light-1440", **options):
        context = browser.new_context(
            **{"storage_state": session, "base_url": server.url, **LOOKS[look], **options}
        )
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda it: it.type in {"error", "warning"} and problems.append(f"console: {it.text}")
        )
        page.on("pageerror", lambda it: problems.append(f"script: {it}"))
        page.on("response", lambda it: it.status >= 400 and problems.append(f"{it.status} {it.url}"))
        page.on("requestfailed", lambda it: _is_wanted(it) and problems.append(f"{it.failure} {it.url}"))
        page.problems = problems
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def _is_wanted(request) -> bool:
    """Whether a request that failed was not just one of a page that was left meanwhile."""
    return request.failure != "net::ERR_ABORTED"


@pytest.fixture(scope="module")
def dataset(work) -> Path:
    """A zip of class folders: of flowers where there is real data."""
    source = shared_folder() / "data" / "flowers5"
    path = work / "flowers.zip"
    with zipfile.ZipFile(path, "w") as archive:
        if source.is_dir():
            for folder in sorted(source.iterdir()):
                for image in sorted(folder.glob("*.jpg"))[:12]:
                    archive.write(image, f"{folder.name}/{image.name}")
        else:
            for number in range(60):
                name = f"{'abcde'[number % 5]}/{number}.png"
                archive.writestr(name, encoded(noise_image(number, 48, 48), "PNG"))
    return path
