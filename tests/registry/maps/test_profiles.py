"""Layers of two tasks: against loops; and what is remembered of a probe."""

import json
import math
import re

import numpy as np
import pytest
from builders import make_space
from builders_maps import grouped, make_registry
from references_distances import task2vec

from registry import TaskRegistry
from registry.errors import IngestError, InvalidQueryError, NotFoundError
from registry.ingest import networks
from registry.maps import profiles

LAYERS = (("conv1", 16), ("layer1", 40), ("fc", 8))


def never(_space):
    raise AssertionError("the probe was loaded")


def test_a_profile_matches_a_loop():
    source, target = grouped(2)
    errors = (source / 7, target / 3)
    profile = profiles.profile_of(("a", "b"), make_space(dim=64), LAYERS, (source, target), errors)
    assert (profile.source, profile.target, profile.space, profile.probe) == ("a", "b", "space0", "tiny.test")
    assert [(layer.layer, layer.num_filters) for layer in profile.layers] == list(LAYERS)
    start = 0
    for layer in profile.layers:
        a, b = (
            [float(value) for value in vector[start : start + layer.num_filters]] for vector in (source, target)
        )
        start += layer.num_filters
        assert layer.distance == pytest.approx(task2vec(a, b), abs=2e-6)
        assert layer.source_mean == pytest.approx(sum(a) / len(a), rel=1e-6)
        assert layer.target_error == pytest.approx(
            math.sqrt(sum((value / 3) ** 2 for value in b)) / len(b), rel=1e-5
        )
    assert profile.distance == pytest.approx(task2vec(source.tolist(), target.tolist()), abs=2e-6)
    assert profile.to_json()["layers"][1]["layer"] == "layer1"


def test_a_task_is_at_0_from_itself_in_every_layer():
    source, _ = grouped(2)
    profile = profiles.profile_of(("a", "a"), make_space(dim=64), LAYERS, (source, source), (source, source))
    assert [layer.distance for layer in profile.layers] == pytest.approx([0, 0, 0], abs=2e-6)


def test_layers_are_measured_once(tmp_path):
    space = make_space(dim=64)
    assert profiles.layers_of(space, tmp_path / "new", lambda _space: LAYERS) == LAYERS
    assert profiles.layers_of(space, tmp_path / "new", never) == LAYERS
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["layers-space0.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"layers": 3}',
        b'{"layers": [["conv1", 64]], "checksum": "0"}',
        b'{"layers": [["conv1"]], "checksum": "0"}',
        b"\xff",
    ],
)
def test_a_damaged_file_is_not_believed(tmp_path, content):
    (tmp_path / "layers-space0.json").write_bytes(content)
    space = make_space(dim=64)
    assert profiles.layers_of(space, tmp_path, lambda _space: LAYERS) == LAYERS
    assert profiles.layers_of(space, tmp_path, never) == LAYERS


def test_layers_of_another_width_are_not_believed(tmp_path):
    profiles.layers_of(make_space(dim=64), tmp_path, lambda _space: LAYERS)
    other = (("conv1", 32),)
    assert profiles.layers_of(make_space(dim=32), tmp_path, lambda _space: other) == other


def test_a_probe_that_changed_is_reported(tmp_path):
    message = (
        "the layers of tiny.test have 64 filters, and tasks of space space0 have 4; the probe is not the one "
        "they were embedded with, so add them again"
    )
    with pytest.raises(IngestError, match=f"^{re.escape(message)}$"):
        profiles.layers_of(make_space(), tmp_path, lambda _space: LAYERS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path):
    (tmp_path / "file").write_text("")
    assert profiles.layers_of(make_space(dim=64), tmp_path / "file", lambda _space: LAYERS) == LAYERS


@pytest.fixture
def grouped_registry(tmp_path, monkeypatch):
    """A registry whose probe has three layers."""
    monkeypatch.setattr(networks, "probe_layers", lambda _space: LAYERS)
    return make_registry(tmp_path, 4)[0]


def test_registered_tasks_are_compared(grouped_registry):
    profile = grouped_registry.profile("task000", "task001")
    source, target = grouped(4)[:2]
    expected = profiles.profile_of(
        ("task000", "task001"), grouped_registry.space(), LAYERS, (source, target), (source / 10, target / 10)
    )
    assert profile == expected
    assert profile.distance == pytest.approx(grouped_registry.distance("task000", "task001"))


def test_what_cannot_be_compared_is_reported(grouped_registry):
    with pytest.raises(NotFoundError, match="no task is named 'nonesuch'"):
        grouped_registry.profile("task000", "nonesuch")
    with pytest.raises(InvalidQueryError, match="max_samples would change nothing"):
        grouped_registry.profile("task000", "task001", max_samples=5)


def test_data_is_compared_in_the_layers_of_the_built_in_probe(embedded, images):
    """The layers are those of the network; beside the index they are remembered."""
    registry = TaskRegistry(embedded)
    (space,) = registry.spaces()
    assert sum(count for _, count in networks.probe_layers(space)) == space.dim
    profile = registry.profile("images", registry.embed(str(images), max_samples=8, seed=3))
    assert profile.target == str(images)
    assert profile.layers[0].layer == "conv1"
    assert all(0 <= layer.distance <= 1 and layer.target_error > 0 for layer in profile.layers)
    kept = json.loads((embedded / "index" / f"layers-{space.space_id}.json").read_text())
    assert [name for name, _ in kept["layers"]] == [layer.layer for layer in profile.layers]
    same = registry.profile("images", "images")
    np.testing.assert_allclose([layer.distance for layer in same.layers], 0, atol=2e-6)
