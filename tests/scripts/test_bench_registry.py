"""The benchmark of the registry: its tasks are like the real ones, its figures are what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import registry_measures
import registry_peers
import synthetic_tasks
from synthetic_tasks import (
    CHUNK_ROWS,
    SyntheticTasks,
    nearest_distances,
    real_logs,
    total_variance,
    with_own_images,
)

from registry import TaskRegistry
from registry.builtin.starter import load_starter
from registry.distances import pairwise
from registry.storage.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tasks() -> SyntheticTasks:
    return SyntheticTasks(seed=3)


@pytest.fixture(scope="module")
def fisher(tasks) -> np.ndarray:
    return next(tasks.chunks(CHUNK_ROWS)).fisher


def test_same_seed_same_tasks(fisher):
    again = np.concatenate([chunk.fisher for chunk in SyntheticTasks(seed=3).chunks(CHUNK_ROWS + 5)])
    assert np.array_equal(again[:CHUNK_ROWS], fisher)
    alone = next(SyntheticTasks(seed=3).chunks(5, first=CHUNK_ROWS)).fisher
    assert np.array_equal(again[CHUNK_ROWS:], alone)
    assert not np.array_equal(alone, fisher[:5])
    assert not np.array_equal(next(SyntheticTasks(seed=4).chunks(5)).fisher, fisher[:5])


def test_synthetic_tasks_are_accepted_by_a_store(tmp_path, tasks):
    store = Store.create(tmp_path / "registry")
    store.add_space(tasks.space)
    store.add_tasks(tasks.records(next(tasks.chunks(20))), tasks.space.space_id)
    assert [task.name for task in store.tasks()] == [synthetic_tasks.task_name(number) for number in range(20)]


def test_dead_filters_stay_dead_and_no_others_are(tasks, fisher):
    real = np.stack([embedding.fisher for embedding in with_own_images(load_starter()).embeddings])
    chunk = next(tasks.chunks(CHUNK_ROWS))
    assert np.array_equal(fisher == 0, (real == 0)[chunk.parents])
    assert np.isfinite(fisher).all()


def test_spread_is_that_of_the_real_tasks(fisher):
    """As many synthetic tasks as there are real ones are as near to each other, and vary as much."""
    real = np.stack([embedding.fisher for embedding in with_own_images(load_starter()).embeddings])
    groups = [nearest_distances(group) for group in np.split(fisher[: 40 * len(real)], 40)]
    for name, quantiles in nearest_distances(real).items():
        drawn = np.mean([group[name] for group in groups], axis=0)
        assert drawn[2] == pytest.approx(quantiles[2], rel=0.15), name
    variance = total_variance(real_logs(real.astype(np.float64)))
    assert total_variance(real_logs(fisher.astype(np.float64))) == pytest.approx(variance, rel=0.2)


def test_wider_tasks_are_copies_of_filters_with_noise_of_their_own():
    tasks = SyntheticTasks(seed=0, num_filters=4800)
    chunk = next(tasks.chunks(50))
    assert chunk.fisher.shape == (50, 4800)
    assert tasks.space.dim == 4800
    assert len(np.unique(chunk.fisher[0])) > 4700
    narrow = next(SyntheticTasks(seed=0).chunks(50)).fisher
    medians = [np.median(pairwise("task2vec", rows, rows)) for rows in (chunk.fisher, narrow)]
    assert medians[0] == pytest.approx(medians[1], rel=0.1)


def test_recall_counts_ties_of_the_last_neighbour():
    found = np.array([[0.1, 0.2, 0.3], [0.1, 0.3, np.inf], [0.1, 0.3 + 1e-6, 0.4]])
    assert registry_measures.recall(found, np.array([0.3, 0.3, 0.3])) == pytest.approx(7 / 9)


def test_percentiles_are_in_milliseconds():
    assert registry_measures.percentiles(np.arange(101) / 1e3) == pytest.approx(
        {"p50_ms": 50, "p99_ms": 99, "queries": 101}
    )


def test_truth_is_that_of_every_distance(tmp_path, tasks, fisher, monkeypatch):
    monkeypatch.setattr(registry_measures, "PART_ROWS", 64)
    table = fisher[:150]
    np.save(tmp_path / "fisher.npy", table)
    rows = np.array([3, 70, 149])
    kth = registry_measures.kth_distances(tmp_path / "fisher.npy", rows, tasks.space.trivial)
    for name, found in kth.items():
        matrix = pairwise(name, table, table[rows], trivial=tasks.space.trivial)
        matrix[rows, range(3)] = np.inf
        assert found == pytest.approx(np.sort(matrix, axis=0)[registry_measures.K - 1], abs=1e-6), name


def test_no_more_memory_is_resident_than_at_the_peak():
    held = registry_measures.memory()
    assert 0 < held["anonymous"] + held["files"] <= held["resident"] * 1.01 <= held["peak"] * 1.02


@pytest.mark.parametrize("name", registry_peers.list_indexes(1000))
def test_every_index_of_lancedb_reaches_the_truth_with_enough_effort(tmp_path, tasks, fisher, name):
    path = tmp_path / "fisher.npy"
    np.save(path, fisher[:600])
    rows = np.arange(0, 600, 60)
    kth = registry_measures.kth_distances(path, rows, tasks.space.trivial)["task2vec"]
    contest = registry_peers.Contest(path, rows, kth, wanted=1.0, budget=5)
    figures = registry_peers.lance_projected(contest, tmp_path / "lance", name)
    assert figures["reached"]
    assert figures["recall"] == 1
    assert registry_peers.brute_force(contest)["recall"] == 1


def test_optimised_copy_answers_the_same(tmp_path):
    uri = tmp_path / "registry"
    added = registry_measures.single_adds(str(uri), 3, None, 0, 12, 60)
    assert added["adds"] == 12
    registry_measures.optimised_copy(uri, tmp_path / "copy")
    name = synthetic_tasks.task_name(0)
    answers = [TaskRegistry(place).nearest(name)[1] for place in (uri, tmp_path / "copy")]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_script_measures_everything(tmp_path):
    out = tmp_path / "figures.json"
    options = ["--sizes", "300", "--dims", "builtin", "--no-peers", "--quick", "--json", str(out)]
    environment = os.environ | {"T2V_REGISTRY": str(tmp_path / "unused")}
    script = str(Path(registry_peers.__file__).parents[1] / "bench" / "bench_registry.py")
    subprocess.run([sys.executable, script, *options], check=True, capture_output=True, env=environment)
    figures = json.loads(out.read_text())
    measured = figures["builtin, 300"]
    assert measured["task2vec"]["recall"] == measured["task2vec_asymmetric"]["recall"] == 1
    assert measured["where 0.5"]["found_per_query"] == registry_measures.K
    held = [measured[f"memory {when}"]["peak_mb"] for when in ("imported", "opened", "asked")]
    assert held == sorted(held)
    assert {"bulk add", "first question", "cold", "after write", "single adds"} <= measured.keys()
    assert not (tmp_path / "unused").exists()
