"""Tests of libraries that come with an extra skip where it is not installed."""

from importlib.util import find_spec

import pytest


def skip_without(library: str) -> None:
    """Skip a test; the library is not imported, for timm would bring torchvision by another door than ours."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
