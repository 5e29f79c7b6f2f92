"""Every shell and Python block of README.md and docs runs, in order, as a reader would type it.

The runs are marked ``docs``: CI makes them, and not the default suite, of which they would be a quarter.
"""

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from extras import skip_without
from make_outputs import notebook
from markdown_pages import ROOT, fences, page_id, pages
from page_session import ELSEWHERE, PageSession, blocks, cache_weights, prepare, server, shell_lines

from registry import TaskRegistry

RUN_PAGES = [page for page in pages() if blocks(page.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory):
    """A cache of torch that holds the weights that pages name."""
    folder = tmp_path_factory.mktemp("torch")
    cache_weights(folder)
    return folder


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder as the working one, and a place for a registry beside it."""
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.syspath_prepend(tmp_path / "desk")
    monkeypatch.setenv("T2V_REGISTRY", str(tmp_path / ".task2vec"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "desk"


@pytest.mark.docs
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # as the page says
@pytest.mark.parametrize("page", RUN_PAGES, ids=page_id)
def test_page_runs(page, desk, torch_home, monkeypatch):
    prepare(desk)
    text, session = page.read_text(encoding="utf-8"), PageSession(page)
    monkeypatch.setenv("TORCH_HOME", str(torch_home if "resnet18.IMAGENET1K_V1" in text else desk.parent))
    with ExitStack() as stack:
        if "$URL" in text:
            TaskRegistry(desk.parent / ".task2vec").init()
            monkeypatch.setenv("T2V_TOKEN", "a-token-that-the-page-knows")
            monkeypatch.setenv("URL", stack.enter_context(server(desk.parent / "server.log")))
        for block in blocks(text):
            session.run(block)


def test_the_notebook_is_the_page():
    page = ROOT / "docs" / "tutorial.md"
    expected = notebook(page.read_text(encoding="utf-8"))
    assert page.with_suffix(".ipynb").read_text(encoding="utf-8") == expected, (
        "run scripts/make/make_outputs.py"
    )


@pytest.mark.docs
def test_the_notebook_runs(desk):
    skip_without("nbclient")
    skip_without("ipykernel")
    document = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in document["cells"] if not "".join(cell["source"]).startswith("!pip ")]
    (desk / "tutorial.ipynb").write_text(json.dumps(document | {"cells": cells}), encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        "from nbclient.cli import main; main()",
        "--kernel_name=python3",
        "--timeout=600",
        "tutorial.ipynb",
    ]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "TORCH_HOME": str(desk.parent), "IPYTHONDIR": str(desk.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (desk / "photos.pt").stat().st_size > 10_000_000


def test_every_page_that_shows_commands_is_run():
    assert {page.name for page in RUN_PAGES} >= {"README.md", "quickstart.md", "python.md"}
    shown = {block.info.split(" ")[0] for page in pages() for block in fences(page.read_text(encoding="utf-8"))}
    assert shown <= {"bash", "python", "text", "csv", "json"}


def test_what_runs_elsewhere_is_shown_somewhere():
    lines = [
        line for page in RUN_PAGES for block in blocks(page.read_text()) for line in block.code.splitlines()
    ]
    unused = [pattern for pattern in ELSEWHERE if not any(re.fullmatch(pattern, line) for line in lines)]
    assert unused == []


def test_lines_are_joined_and_freed_of_comments():
    code = "# first\nt2v nearest \\\n  flowers   # why\n\npip install .\ncurl $URL/#part\n"
    assert shell_lines(code) == ["t2v nearest    flowers", "curl $URL/#part"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("```bash\nt2v nearest nonesuch\n```\n", AssertionError, "page.md, line 2: t2v nearest nonesuch: "),
        ("```bash\ntrue | false\n```\n", AssertionError, "page.md, line 2: "),
        ("```python\n1 / 0\n```\n", ZeroDivisionError, "division by zero"),
    ],
    ids=["command", "shell", "python"],
)
def test_a_block_that_fails_would_be_noticed(text, error, message, desk):
    session = PageSession(desk / "page.md")
    (block,) = blocks(text)
    with pytest.raises(error, match=re.escape(message)):
        session.run(block)
