"""Bring docs/architecture.md and docs/files*.md up to date: trees of files, and rooms that four ways pass.

python scripts/make/make_architecture.py [--files]

The tree is made of the first lines of docstrings, the ways are traced. With ``--files``, print the files too
that each way enters.
"""

import argparse
import ast
import functools
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from traced_ways import PACKAGES, ROOT, trace_ways

PAGE = ROOT / "docs" / "architecture.md"
TREES = {"registry": "files.md", "registry/web": "files-web.md", "indexer": "files-web.md"}
"""Page of the tree of each folder, which has a tree of its own and is no part of another."""


@functools.cache
def jobs() -> dict[str, str]:
    """Path of each room that has a row in docs/contributing.md, a folder or a file, with its one job."""
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    rooms = {}
    for package in PACKAGES:
        section = page.partition(f"### Rooms of {package}\n")[2].partition("\n### ")[0]
        for room, job in re.findall(r"^\| `([\w/]+)` \| (.*?) \|", section, re.MULTILINE):
            path = f"{package}/{room}"
            rooms[path if (ROOT / path).is_dir() else f"{path}.py"] = job.replace("`", "")
    return rooms


def room_of(path: str) -> str:
    """The room of a file: its folder, or the file itself where it has a row, or its package.

    Args:
        path: From the root of the project.
    """
    return path if path in jobs() else path.rpartition("/")[0]


def rooms_of(files: Sequence[str]) -> list[str]:
    """The rooms of some files in the order of the files, each once; flat files are everybody's words.

    Args:
        files: Paths from the root of the project.
    """
    return [room for room in dict.fromkeys(map(room_of, files)) if room not in PACKAGES]


def first_line(path: Path) -> str:
    """What a file says of itself: its docstring up to the end of the first line, without the full stop.

    Args:
        path: Of a Python file with a docstring.
    """
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0].rstrip(".")


def tree_lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """A line for each file and folder below a folder: files first, then folders with what is in them.

    Args:
        folder: Of a package.
        depth: How far it is indented.
    """
    indent = "  " * depth
    yield f"{f'{indent}{folder.name}/':<28}{first_line(folder / '__init__.py')}".rstrip()
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{f'{indent}  {path.name}':<28}{first_line(path)}".rstrip()
    for child in sorted(folder.iterdir()):
        if (child / "__init__.py").is_file() and child.relative_to(ROOT).as_posix() not in TREES:
            yield from tree_lines(child, depth + 1)


def tree(package: str) -> str:
    """The tree of a package, or of a folder of it, as a block of text.

    Args:
        package: Its path.
    """
    return "\n".join(["```text", *tree_lines(ROOT / package), "```"])


def way(files: Sequence[str]) -> str:
    """The rooms that a way passes as a numbered list, in the order in which it first enters each.

    Args:
        files: That it enters, as paths from the root of the project.
    """
    rooms = rooms_of(files)
    return "\n".join(f"{number}. `{room}`: {jobs()[room]}" for number, room in enumerate(rooms, 1))


def replaced(page: str, name: str, content: str) -> str:
    """A page with the part between two marks replaced.

    Args:
        page: Its text.
        name: What the marks call the part.
        content: What stands between them afterwards.

    Raises:
        ValueError: If the marks are not there.
    """
    start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if start not in page or end not in page:
        raise ValueError(f"the page lacks the marks of {name}")
    return f"{page.partition(start)[0]}{start}\n{content}\n{end}{page.partition(end)[2]}"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", action="store_true", help="print the files that each way enters")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ways = trace_ways(Path(folder))
    for package, name in TREES.items():
        path = PAGE.with_name(name)
        content = replaced(path.read_text(encoding="utf-8"), f"tree of {package}", tree(package))
        path.write_text(content, encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    for name, files in ways.items():
        page = replaced(page, f"way of {name}", way(files))
        print(f"{name}: {len(files)} files")
    PAGE.write_text(page, encoding="utf-8")
    print(f"Wrote {PAGE}")
    if options.files:
        for name, files in ways.items():
            print(f"\n{name}", *sorted(files), sep="\n  ")


if __name__ == "__main__":
    main()
