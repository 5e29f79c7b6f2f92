"""Read the Markdown pages of the project: fenced blocks, inline code, links, tables."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(
    r"^(?P<mark>```+)(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=mark)[ \t]*$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Fence:
    """A fenced block; ``line`` is that of its first line of code, from 1."""

    info: str
    code: str
    line: int


def pages() -> list[Path]:
    """README.md, where it is there, and everything in docs."""
    return [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.exists()]


def page_id(path: Path) -> str:
    return path.name


def fences(text: str) -> list[Fence]:
    return [
        Fence(match["info"].strip(), match["code"], text.count("\n", 0, match.start("code")) + 1)
        for match in _FENCE.finditer(text)
    ]


def code_lines(text: str) -> list[str]:
    """Lines of fenced blocks and of blocks that are indented by four; continued lines joined."""
    indented = re.findall(r"^ {4}.*$", _FENCE.sub("", text), re.MULTILINE)
    blocks = [fence.code for fence in fences(text)] + ["\n".join(indented)]
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def prose(text: str) -> str:
    """The page without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.DOTALL)


def inline_code(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(text))


def links(text: str) -> list[str]:
    """Targets of ``[text](target)``, images too."""
    without_code = re.sub(r"`[^`\n]*`", "", prose(text))
    return re.findall(r"\]\(([^)\s]+)\)", without_code)


def anchors(text: str) -> set[str]:
    """What may follow the ``#`` of a link to this page, by GitHub's rule."""
    headings = re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(text: str, heading: str) -> list[list[str]]:
    """Cells of the rows, without the head, of the first table under a heading; code marks are taken off."""
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    lines = re.search(r"(?:^\|.*\|$\n?)+", section, re.MULTILINE)[0].splitlines()
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]
