"""mkdocs.yml: a site of the same pages, whole and without anything that comes from elsewhere."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from extras import skip_without
from markdown_pages import ROOT

FOREIGN = re.compile(
    r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+stylesheet[^>]+href=["']?https?:"""
)


def test_every_page_is_listed_once():
    sections = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = [page for section in sections for pages in section.values() for page in pages]
    assert sorted(listed) == sorted(["index.md", *(path.name for path in (ROOT / "docs").glob("*.md"))])


@pytest.mark.docs
def test_the_site_is_built_without_a_warning(tmp_path):
    skip_without("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    texts = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    assert len(texts) > len(list((ROOT / "docs").glob("*.md")))
    assert [path for path, text in texts.items() if FOREIGN.search(text)] == []
    assert FOREIGN.search('<link rel="stylesheet" href="https://fonts.example.org/a.css">')
