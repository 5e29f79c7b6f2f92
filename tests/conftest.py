"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest
from builders_datasets import write_folder

import registry


def shared_folder() -> Path:
    """Where the real data for tests lies, whether or not it is there."""
    return Path(os.environ.get("T2V_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; skips the test where it is absent."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder} (set T2V_SHARED)")
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 12 small images."""
    return write_folder(tmp_path_factory.mktemp("data") / "images", {"no": 6, "yes": 6})


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An empty registry."""
    registry.TaskRegistry(tmp_path / "empty").init(empty=True)
    return tmp_path / "empty"


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A registry that holds the images as a task; tests only read it."""
    folder = tmp_path_factory.mktemp("embedded")
    tasks = registry.TaskRegistry(folder)
    tasks.init(empty=True)
    tasks.add_task("images", str(images))
    return folder
