"""What a test may need and not find: libraries of an extra, and the folder of real data."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from markdown_pages import ROOT


def shared_folder() -> Path:
    """Where the real data for tests lies, whether or not it is there."""
    return Path(os.environ.get("T2V_SHARED", ROOT.parent / "shared"))


def skip_without(library: str) -> None:
    """Skip a test; the library is not imported, for timm would bring torchvision by another door than ours."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
