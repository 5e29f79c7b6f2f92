"""Who may import whom: the tables of docs/contributing.md, held against the syntax trees."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_pages import ROOT, table

PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
PACKAGES = ("indexer", "registry")
FLAT = "flat"
"""The room of every file that lies flat in its package and has no row of its own."""


@functools.cache
def allowed(package: str) -> dict[str, set[str]]:
    """Room to the rooms that it may import, as the page says."""
    return {row[0]: set(row[2].split()) for row in table(PAGE, f"Rooms of {package}")}


@functools.cache
def doors() -> dict[str, list[str]]:
    """Library to the files or folders that alone may import it, as the page says."""
    return {row[0]: row[1].split(", ") for row in table(PAGE, "Libraries with one door")}


def imports(source: str) -> set[str]:
    """Full names of everything a source imports, at any depth and under TYPE_CHECKING too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: str) -> str:
    """The room of a file: its folder below the package, or its own name if the page has a row for it."""
    package, *inner = Path(path).with_suffix("").parts
    if len(inner) == 1:
        return inner[0] if inner[0] in allowed(package) else FLAT
    return "/".join(inner[:-1])


@functools.cache
def module_paths() -> dict[str, str]:
    """Full name of each module of both packages to its path; the packages themselves are left out."""
    paths = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    named = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): str(path) for path in paths}
    return {name: path for name, path in named.items() if name not in PACKAGES}


def violations(path: str, source: str) -> Iterator[str]:
    """What a file imports and may not."""
    package = path.partition("/")[0]
    names, own = imports(source), room_of(path)
    may = {own, FLAT} | allowed(package).get(own, set())
    paths = module_paths()
    rooms = {room_of(paths[name]) for name in names if name in paths and name.startswith(f"{package}.")}
    for room in sorted(rooms - may):
        yield f"{path}, of room {own}, imports {room}"
    top = {name.partition(".")[0] for name in names}
    for library, files in doors().items():
        if library in top and library != package and not any(path.startswith(file) for file in files):
            yield f"{path} imports {library}"
    if package == "indexer" and "registry" in top:
        yield f"{path} imports registry"
    if package == "registry" and "torch" in top:
        yield f"{path} imports torch"


def test_every_import_is_allowed():
    broken = [
        violation
        for path in module_paths().values()
        for violation in violations(path, (ROOT / path).read_text())
    ]
    assert not broken, "\n".join(broken)


def test_every_room_has_a_row_and_every_row_a_room():
    rooms = {(path.partition("/")[0], room_of(path)) for path in module_paths().values()}
    rows = {(package, room) for package in PACKAGES for room in allowed(package)}
    assert rooms - {(package, FLAT) for package in PACKAGES} == rows


@pytest.mark.parametrize("package", PACKAGES)
def test_the_rooms_have_no_circle(package):
    left = dict(allowed(package))
    while free := [room for room, names in left.items() if not names & left.keys()]:
        for room in free:
            del left[room]
    assert left == {}


def test_rooms_are_small():
    folders = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_dir()]
    modules = {
        folder: [path for path in folder.glob("*.py") if path.name != "__init__.py"] for folder in folders
    }
    crowded = [str(folder.relative_to(ROOT)) for folder, files in modules.items() if len(files) > 14]
    flat = {package: len(list((ROOT / package).glob("*.py"))) - 1 for package in PACKAGES}
    long = [path for path in module_paths().values() if len((ROOT / path).read_text().splitlines()) > 400]
    assert not crowded
    assert not long
    assert flat["registry"] <= 14, flat
    assert flat["indexer"] <= 4, flat


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("indexer/embed.py", "import registry.core"),
        ("indexer/networks/load.py", "from torchvision import models"),
        ("indexer/heads/heads.py", "from indexer.fisher import estimate"),
        ("registry/core.py", "from indexer.embed import embed_dataset"),
        ("registry/records.py", "from registry.storage import schema"),
        ("registry/recommend/prior.py", "from registry.index.neighbors import EmbeddingRows"),
        ("registry/snapshots/view.py", "def f():\n    import faiss"),
        ("registry/ingest/writer.py", "import torch"),
        ("registry/storage/database.py", "import lancedb"),
        ("registry/web/api/tasks.py", "from registry.web.pages.pages import x"),
    ],
)
def test_a_forbidden_import_is_noticed(path, source):
    assert len(list(violations(path, source))) == 1


@pytest.mark.parametrize(
    "source", ["from registry import core", "import registry.core", "def f():\n    from registry.core import x"]
)
def test_every_form_of_import_is_seen(source):
    assert list(violations("registry/records.py", source)) == [
        "registry/records.py, of room flat, imports core"
    ]
