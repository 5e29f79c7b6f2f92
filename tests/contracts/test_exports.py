"""The public names of both packages, and what importing them may load."""

import importlib
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "lancedb", "faiss", "sklearn", "scipy", "pyarrow")


@pytest.mark.parametrize("package", ["indexer", "registry"])
def test_all_names_are_importable_and_mapped_once(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == module.__all__ == sorted(module._HOMES)
    for name in module.__all__:
        assert getattr(module, name).__module__ == module._HOMES[name]


@pytest.mark.parametrize("package", ["indexer", "registry"])
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonesuch'"):
        importlib.import_module(package).nonesuch  # noqa: B018


@pytest.mark.parametrize(
    "module", ["indexer", "registry", "registry.cli.main", "registry.errors", "indexer.records"]
)
def test_import_loads_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
