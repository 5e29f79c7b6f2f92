"""Tasks of real English texts, made of what lies on every machine that runs this package.

Docstrings, error messages and lines of source code of Python's standard library and of installed packages, the
licences of these packages, and the names of characters. Nothing is imported or run: sources are parsed. The
tasks of a family hold texts of one kind, and separate in the same way where these come from.
"""

import ast
import sysconfig
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np

STANDARD = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = Path(sysconfig.get_paths()["purelib"])
SHORTEST, LONGEST = 20, 400
"""Characters of a text; longer ones are cut."""

MOST_FILES = 80
"""Of a package that are parsed."""

MOST_LINES = 2000
"""Of the code of a package."""


@dataclass(frozen=True)
class TextTask:
    """A task: its name and family, and the texts of each class."""

    name: str
    family: str
    texts: dict[str, tuple[str, ...]]

    def rows(self, per_class: int, seed: int) -> list[tuple[str, str]]:
        """Text and class of at most so many texts of each class, drawn without replacement."""
        generator = np.random.default_rng(seed)
        return [
            (texts[place], label)
            for label, texts in self.texts.items()
            for place in sorted(generator.permutation(len(texts))[:per_class].tolist())
        ]


def make_text_tasks(least: int = 40) -> list[TextTask]:
    """All tasks that this machine has at least so many texts of each class for, in order of family and name."""
    made = []
    for family, (texts_of, pairs) in FAMILIES.items():
        for pair in pairs:
            texts = {label: texts_of(label) for label in pair}
            if min(map(len, texts.values())) >= least:
                made.append(TextTask(f"{family}_{'_'.join(pair)}".lower(), family, texts))
    return made


def _distinct(texts: Iterator[str]) -> tuple[str, ...]:
    """Texts that are long enough, each once, on one line."""
    plain = (" ".join(text.split())[:LONGEST] for text in texts)
    return tuple(dict.fromkeys(text for text in plain if len(text) >= SHORTEST))


def _sources(name: str) -> list[Path]:
    """Source files of a package, installed or of the standard library, without its tests."""
    for folder in (PACKAGES, STANDARD):
        if (folder / name).is_dir():
            paths = sorted((folder / name).rglob("*.py"))
            return [path for path in paths if "test" not in str(path.relative_to(folder))][:MOST_FILES]
        if (folder / f"{name}.py").is_file():
            return [folder / f"{name}.py"]
    return []


@cache
def _trees(name: str) -> tuple[ast.Module, ...]:
    trees = []
    for path in _sources(name):
        try:
            trees.append(ast.parse(path.read_text(encoding="utf-8")))
        except (SyntaxError, UnicodeDecodeError, ValueError):  # made for other versions of Python
            continue
    return tuple(trees)


@cache
def docstrings(name: str) -> tuple[str, ...]:
    """First paragraphs of the docstrings of a package."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = (
        (ast.get_docstring(node) or "").partition("\n\n")[0]
        for tree in _trees(name)
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    )
    return _distinct(found)


@cache
def code(name: str) -> tuple[str, ...]:
    """Lines of code of a package: its assignments and calls."""
    found = (
        ast.unparse(node)
        for tree in _trees(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.Expr | ast.Return) and not _is_text(getattr(node, "value", None))
    )
    return _distinct(islice(found, MOST_LINES))


@cache
def messages(label: str) -> tuple[str, ...]:
    """Messages of the errors of one type that a package raises; label ``package.Type``."""
    name, _, error = label.partition(".")
    return _distinct(_raised(name, error))


def _raised(name: str, error: str) -> Iterator[str]:
    for tree in _trees(name):
        for node in ast.walk(tree):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and call.args and getattr(call.func, "id", "") == error:
                yield _text_of(call.args[0])


def _text_of(node: ast.expr) -> str:
    """Text of a literal; of an f-string without what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return ""


def _is_text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@cache
def licences(kind: str) -> tuple[str, ...]:
    """Sentences of the licences of installed packages that are of one kind, by their words."""
    marks = {
        "apache": "Apache License",
        "mit": "Permission is hereby granted, free of charge",
        "bsd": "Redistributions of source code must retain",
        "psf": "PYTHON SOFTWARE FOUNDATION LICENSE",
        "mpl": "Mozilla Public License",
        "gpl": "GNU",
    }
    found = []
    for path in sorted(PACKAGES.glob("*.dist-info/**/*LICEN*")):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        kinds = [name for name, mark in marks.items() if mark in text]
        if kinds == [kind]:
            found += [
                sentence for part in text.split("\n\n") for sentence in part.replace(";", ".").split(". ")
            ]
    return _distinct(iter(found))


@cache
def characters(script: str) -> tuple[str, ...]:
    """Names of the characters of a script."""
    names = (unicodedata.name(chr(code), "") for code in range(0x20000))
    return _distinct(name.lower() for name in names if name.startswith(f"{script} "))


FAMILIES: dict[str, tuple[Callable[[str], tuple[str, ...]], tuple[tuple[str, ...], ...]]] = {
    "docs": (
        docstrings,
        (
            ("asyncio", "email"),
            ("http", "logging"),
            ("numpy", "pandas"),
            ("sklearn", "scipy"),
            ("fastapi", "networkx"),
        ),
    ),
    "code": (code, (("asyncio", "email"), ("numpy", "pandas"), ("json", "http"), ("logging", "urllib"))),
    "errors": (
        messages,
        (
            ("numpy.ValueError", "numpy.TypeError"),
            ("pandas.ValueError", "pandas.TypeError"),
            ("torch.ValueError", "torch.RuntimeError"),
        ),
    ),
    "licences": (licences, (("apache", "bsd"), ("mit", "bsd"), ("apache", "mit"))),
    "characters": (
        characters,
        (("GREEK", "CYRILLIC"), ("HEBREW", "ARABIC"), ("THAI", "TIBETAN"), ("ARMENIAN", "GEORGIAN")),
    ),
}
"""By name, what gives the texts of a class, and the classes of each task."""
