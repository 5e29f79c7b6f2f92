"""Registries that many tests start from: made once a process, then copied."""

import atexit
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from registry import TaskRegistry
from registry.storage.store import Store


@cache
def _folder() -> Path:
    folder = Path(mkdtemp(prefix="t2v-templates-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def copied(name: str, make: Callable[[Path], object], uri: Path) -> Store:
    """A store at ``uri`` that holds what ``make(folder)`` makes; the same for each call of that name."""
    template = _folder() / name
    if not template.exists():
        make(template)
    shutil.copytree(template, uri, dirs_exist_ok=True)
    return Store(uri)


def starter(folder: Path) -> TaskRegistry:
    """A registry of the starter content."""
    copied("starter", lambda template: TaskRegistry(template).init(), folder)
    return TaskRegistry(folder)
