"""Bundles that were changed anyhow are refused in a sentence, or bring nothing that runs or is not finite."""

import pytest
from bundle_mutations import Mutator, Target, make_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

EACH, EXAMPLES = 20, 500
"""Bundles of an example, and examples with ``--all-examples``: 10,000 in all."""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Sixteen times as many are read as imported; ``scripts/torture/torture_bundles.py`` imports all."""
    folder = tmp_path_factory.mktemp("mutations")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Target(folder, every=16)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_nothing_runs_and_nothing_that_is_not_finite_is_stored(original, seed, target, tmp_path_factory):
    mutator, path = Mutator(original, seed), tmp_path_factory.getbasetemp() / "changed.t2v"
    before = target.counts["refused"] + target.counts["read"]
    for _ in range(EACH):
        target.take(path, mutator.write(path))
    assert target.faults == []
    assert target.counts["refused"] + target.counts["read"] == before + EACH
