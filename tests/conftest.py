"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest


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
