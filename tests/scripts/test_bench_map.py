"""The benchmark of the map measures what it says."""

import numpy as np
import pytest

from registry import TaskRegistry
from registry.maps import projection


@pytest.fixture(scope="module")
def bench():
    import bench_map

    return bench_map


@pytest.fixture(scope="module")
def folder(bench, tmp_path_factory):
    """A registry of 40 drawn tasks."""
    folder = str(tmp_path_factory.mktemp("bench") / "registry")
    bench.fill(folder, 40, 0)
    return folder


def test_our_figures_are_those_of_the_map(bench, folder):
    before = TaskRegistry(folder).map()
    figures = bench.measure_ours(folder, 0)
    assert figures["moved"] == 0
    assert (figures["trustworthiness"], figures["stress"]) == (before.trustworthiness, before.stress)
    assert 0.02 < figures["page_mb"] < 1
    after = TaskRegistry(folder).map()
    assert (len(after), int(after.placed.sum())) == (41, 1)


def test_peers_are_measured_as_we_are(bench, folder):
    fisher = bench.embeddings(folder)
    figures = bench.measure_peer(folder, "classical MDS")
    distances = bench.matrix(fisher)
    drawn = projection.between(projection.classical_mds(distances))
    assert figures["stress"] == pytest.approx(projection.stress_1(distances, drawn), abs=1e-6)
    assert figures["trustworthiness"] == pytest.approx(
        projection.trustworthiness(distances, drawn, np.arange(len(fisher)))
    )


def test_landmark_mds_of_all_tasks_is_classical_mds(bench, folder):
    fisher = bench.embeddings(folder)
    expected = projection.between(bench.classical(fisher))
    np.testing.assert_allclose(projection.between(bench.landmark_mds(fisher)), expected, atol=1e-5)


def test_placing_is_measured_against_what_is_known(bench, folder):
    figures = bench.measure_placing(folder)
    assert figures["placed"] > figures["by stress"]
    assert bench.common_neighbors(np.arange(12.0)[None], np.arange(12.0)[None] ** 2) == 1
