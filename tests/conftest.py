"""Fixtures that several test modules share."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from builders import make_space
from builders_datasets import write_folder
from extras import shared_folder
from s3_server import S3Server

import registry

pytest_plugins = ["pytester", "amounts"]

SUPPORT = Path(__file__).parent / "support"
# Processes that tests start find what tests share, as pytest does by the setting pythonpath.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))
# Waiting for the disk would take most of the time of tests; those of power cuts set it to full.
os.environ.setdefault("T2V_DURABILITY", "normal")

if TYPE_CHECKING:
    import numpy as np

    from indexer.networks.run import PretrainedNetwork
    from indexer.records import EmbeddingSettings
    from registry.storage.store import Store


def pytest_collection() -> None:
    """Modules and tests stay to the end: looking through them again and again takes a tenth of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; skips the test where it is absent."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder} (set T2V_SHARED)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def trivial_tasks_measured_once() -> Iterator[None]:
    """The trivial task of a space is embedded once for all tests: that is most of the work of a small one."""
    if "torch" not in sys.modules:  # no test of this run embeds anything
        yield
        return
    from indexer import embed

    measure, measured = embed.embed_trivial, {}

    def embed_trivial(probe: "PretrainedNetwork", settings: "EmbeddingSettings") -> "np.ndarray":
        key = embed.space_of(probe, settings).space_id
        if key not in measured:
            measured[key] = measure(probe, settings)
        return measured[key].copy()

    with mock.patch.object(embed, "embed_trivial", embed_trivial):
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 12 small images."""
    return write_folder(tmp_path_factory.mktemp("data") / "images", {"no": 6, "yes": 6})


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny text encoder, random, and its tokenizer; skips the test without transformers."""
    pytest.importorskip("transformers")
    from builders_texts import save_encoder  # here, as it loads torch

    return save_encoder(tmp_path_factory.mktemp("texts") / "encoder")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An empty registry."""
    from templates import copied  # here, as tests of indexer need no database

    copied("empty", lambda folder: registry.TaskRegistry(folder).init(empty=True), tmp_path / "empty")
    return tmp_path / "empty"


@pytest.fixture
def store(tmp_path: Path) -> "Store":
    """A registry with one space and nothing else."""
    from templates import copied

    from registry.storage.store import Store

    def make(folder: Path) -> None:
        Store.create(folder, lambda new: new.add_space(make_space()))

    return copied("one-space", make, tmp_path / "registry")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A registry that holds the images as a task; tests only read it."""
    folder = tmp_path_factory.mktemp("embedded")
    tasks = registry.TaskRegistry(folder)
    tasks.init(empty=True)
    tasks.add_task("images", str(images))
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server on this machine."""
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a new bucket that this process and those it starts can reach."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.new_bucket()}"
