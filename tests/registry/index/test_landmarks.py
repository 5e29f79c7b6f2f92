"""Landmarks: distances against the brute force over all tasks."""

import re

import numpy as np
import pyarrow as pa
import pytest
from builders_maps import DIM, grouped

from registry.distances import pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.index import landmarks
from registry.index.landmarks import ComparedTasks
from registry.index.neighbors import EmbeddingRows


def rows_of(fisher):
    return EmbeddingRows(pa.array([f"task{n:03}@1" for n in range(len(fisher))]), fisher, None, None, 1)


def all_tasks(count, distance="task2vec", order=None):
    fisher = grouped(count)
    order = np.arange(count) if order is None else order
    return ComparedTasks(rows_of(fisher), order, distance), fisher[order]


@pytest.mark.parametrize("count", [0, 1, 2, 17, 40])
@pytest.mark.parametrize("distance", ["task2vec", "log_euclidean"])
def test_the_matrix_is_that_of_all_pairs(count, distance):
    tasks, fisher = all_tasks(count, distance)
    found = tasks.matrix()
    np.testing.assert_array_equal(found, found.T)
    assert not found.diagonal().any()
    if count:
        expected = pairwise(distance, fisher, fisher)
        np.fill_diagonal(expected, 0)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_matrix_of_some_is_part_of_that_of_all():
    tasks, _ = all_tasks(20)
    chosen = np.array([1, 4, 7, 19])
    np.testing.assert_allclose(tasks.matrix(chosen), tasks.matrix()[np.ix_(chosen, chosen)], atol=2e-6)


def test_distances_to_all_follow_the_order_of_the_tasks():
    tasks, fisher = all_tasks(15, order=np.arange(15)[::-1].copy())
    chosen = np.array([2, 14])
    expected = pairwise("task2vec", fisher[chosen], fisher)
    expected[[0, 1], chosen] = 0
    np.testing.assert_allclose(tasks.to_all(chosen), expected, atol=2e-6)


def nearest_by_force(fisher, wanted, chosen, k):
    distances = pairwise("task2vec", fisher[wanted], fisher[chosen])
    return np.sort(distances, axis=1)[:, :k]


@pytest.mark.parametrize("shortlisted", [False, True], ids=["all", "shortlist"])
def test_the_nearest_landmarks_are_found(shortlisted, monkeypatch):
    """On a shortlist of all landmarks but a few, the same are found."""
    if shortlisted:
        monkeypatch.setattr(landmarks, "SHORTLISTED_FROM", 1)
        monkeypatch.setattr(landmarks, "SHORTLIST", 40)
    monkeypatch.setattr(landmarks, "CHUNK_ROWS", 7)
    tasks, fisher = all_tasks(120, order=np.random.default_rng(1).permutation(120))
    chosen = np.arange(0, 120, 2)[:50]
    wanted = np.array([1, 3, 99, 5, 0, 117])
    numbers, distances = tasks.nearest(wanted, chosen, 4)
    assert numbers.shape == distances.shape == (6, 4)
    exact = pairwise("task2vec", fisher[wanted], fisher[chosen])
    np.testing.assert_allclose(distances, np.take_along_axis(exact, numbers, axis=1), atol=2e-6)
    np.testing.assert_allclose(distances, nearest_by_force(fisher, wanted, chosen, 4), atol=2e-6)
    assert (np.diff(distances, axis=1) >= 0).all()


def test_no_more_landmarks_are_found_than_there_are():
    tasks, _ = all_tasks(5)
    numbers, _ = tasks.nearest(np.array([0]), np.array([1, 2]), 9)
    assert sorted(numbers[0].tolist()) == [0, 1]


def test_up_to_a_size_all_tasks_are_landmarks_and_beyond_some(monkeypatch):
    assert landmarks.draw_landmarks(0).tolist() == []
    assert landmarks.draw_landmarks(landmarks.ALL_PAIRS).tolist() == list(range(landmarks.ALL_PAIRS))
    found = landmarks.draw_landmarks(landmarks.ALL_PAIRS + 1, seed=2)
    assert len(found) == landmarks.NUM_LANDMARKS == len(set(found.tolist()))
    assert found.tolist() == sorted(landmarks.draw_landmarks(landmarks.ALL_PAIRS + 1, seed=2).tolist())
    assert found.tolist() != landmarks.draw_landmarks(landmarks.ALL_PAIRS + 1, seed=3).tolist()


def test_progress_is_reports():
    tasks, _ = all_tasks(20)
    reports = []
    tasks.matrix(report=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (20, 20)
    assert reports == sorted(reports)


def test_a_distance_with_a_direction_is_refused():
    message = "task2vec_asymmetric depends on the direction, and a group has none; use task2vec"
    with pytest.raises(InvalidQueryError, match=f"^{re.escape(message)}$"):
        ComparedTasks(rows_of(grouped(2)), np.arange(2), "task2vec_asymmetric")
    with pytest.raises(NotFoundError, match="no distance is named 'nonesuch'"):
        ComparedTasks(rows_of(np.ones((1, DIM), np.float32)), np.arange(1), "nonesuch")
