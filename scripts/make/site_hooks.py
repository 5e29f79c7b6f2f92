"""Hooks of mkdocs.yml: README.md is the first page, and links to files that are no pages become their paths."""

import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = __file__.rsplit("/scripts/", 1)[0]


def on_files(files: Files, config: Any) -> Files:
    """Add README.md as the first page, with links as seen from ``docs``."""
    with open(f"{ROOT}/README.md", encoding="utf-8") as file:  # noqa: PTH123  # a hook
        text = re.sub(r"\]\(docs/", "](", file.read())
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Show files of the project by their path, as they are no part of the site."""
    markdown = re.sub(
        r"\[([^\]]+)\]\((?:\.\./)?((?:registry|tests|scripts|indexer)/[^)]+)\)", r"\1 (`\2`)", markdown
    )
    return markdown.replace("```text output\n", "```text\n")
