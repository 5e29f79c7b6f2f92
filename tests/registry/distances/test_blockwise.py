"""Comparing block by block: what is computed depends neither on threads nor on how the rows are held."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from registry.distances import DISTANCES, distances, pairwise
from registry.distances.distances import in_blocks


def sums(rows, others):
    return rows.sum(axis=1)[:, None] + others.sum(axis=1)


def on_cores(monkeypatch, count):
    """Let this process have that many cores, and every element be worth a thread."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))
    monkeypatch.setattr(distances, "ELEMENTS_PER_THREAD", 1)


def log_normal(generator, *shape):
    return (1e-7 * np.exp(2 * generator.standard_normal(shape))).astype(np.float32)


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_the_same_to_the_byte_on_any_number_of_cores(name, generator, monkeypatch):
    monkeypatch.setitem(DISTANCES, name, replace(DISTANCES[name], block_elements=700))
    sources, targets, trivial = (log_normal(generator, count, 100) for count in (60, 3, 1))
    answers = set()
    for count in (1, 2, 5):
        on_cores(monkeypatch, count)
        answers.add(pairwise(name, sources, targets, trivial=trivial[0]).tobytes())
    assert len(answers) == 1


def test_two_cores_work_at_the_same_time(monkeypatch):
    on_cores(monkeypatch, 2)
    meeting = threading.Barrier(2, timeout=30)

    def kernel(rows, others):
        meeting.wait()  # fails unless both come
        return sums(rows, others)

    found = in_blocks(kernel, np.ones((2, 5)), np.ones((1, 5)), block_elements=5)
    np.testing.assert_array_equal(found, [[10], [10]])


def test_little_work_stays_on_the_thread_that_asks(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    used = set()

    def kernel(rows, others):
        used.add(threading.get_ident())
        return sums(rows, others)

    in_blocks(kernel, np.ones((2000, 900)), np.ones((1, 900)), block_elements=900)
    assert used == {threading.get_ident()}


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_a_block_reaches_the_caller(count, monkeypatch):
    on_cores(monkeypatch, count)

    def kernel(rows, others):
        if rows[0, 0] == 3:
            raise ValueError("three")
        return sums(rows, others)

    with pytest.raises(ValueError, match=r"^three$"):
        in_blocks(kernel, np.arange(6.0)[:, None], np.ones((1, 1)), block_elements=1)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("num_targets", [1, 30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_selected_rows_of_a_mapped_file_are_as_good_as_a_copy(
    name, num_targets, dtype, generator, monkeypatch, tmp_path
):
    on_cores(monkeypatch, 2)
    monkeypatch.setitem(DISTANCES, name, replace(DISTANCES[name], block_elements=70))
    rows, targets = log_normal(generator, 50, 20).astype(dtype), log_normal(generator, num_targets, 20)
    trivial = log_normal(generator, 20)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for selection in (np.array([49, 0, 7, 7, 23, *range(8, 20)]), np.array([], dtype=int), [3]):
        expected = pairwise(name, rows[selection], targets, trivial=trivial)
        for checked in (False, True):
            found = pairwise(name, mapped, targets, trivial=trivial, selection=selection, checked=checked)
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        pairwise(name, mapped, targets, trivial=trivial, checked=True),
        pairwise(name, rows, targets, trivial=trivial),
    )


@pytest.fixture
def generator():
    return np.random.default_rng(0)
