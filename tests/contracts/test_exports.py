"""The public names of both packages, and what importing them may load."""

import importlib
import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "lancedb", "faiss", "sklearn", "scipy", "pyarrow"}


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


# In this order in one process: what each must not have loaded when it is done.
LATE = (
    ("import registry.recommend.attributes", {"numpy", "timm", *HEAVY}),
    ("import indexer, registry, registry.cli.main, registry.errors, indexer.records", HEAVY),
    ("registry.cli.main.main(['serve', '--help'], standalone_mode=False)", {"fastapi", "uvicorn", *HEAVY}),
    ("import registry.distances, registry.scores.scores", HEAVY),
    ("import indexer.data.samples", HEAVY),
    ("from registry.notebooks import Records; Records()._repr_html_()", {"pandas"}),
    (
        "from registry.builtin.published import published_results; len(published_results())",
        {"torch", "timm", "pandas", "lancedb", "pyarrow.dataset"},
    ),
)


def test_nothing_heavy_is_loaded_before_it_is_needed():
    step = "exec(statement)\n    print('>', late & sys.modules.keys())"
    code = f"import sys\nfor statement, late in {LATE}:\n    {step}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith(">")] == ["> set()"] * len(LATE)
