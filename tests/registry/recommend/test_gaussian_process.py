"""registry.recommend.gaussian_process: against refits by dense algebra, on any distances at all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from references_recommend import process_reference, unit_reference

from registry.recommend import gaussian_process
from registry.recommend.gaussian_process import Cell, TaskKernels, TaskProcess, list_cells

EXACT = {"rtol": 1e-7, "atol": 1e-9}


def numbers_of(tasks):
    return np.unique(np.asarray(tasks, dtype=str), return_inverse=True)[1]


def fit(values, tasks, between):
    """The process of ``[T, C]`` values, NaN where there is none."""
    numbers = numbers_of(tasks)
    kernels = TaskKernels.of(between, numbers[:, None] != numbers)
    mask = ~np.isnan(values)
    return TaskProcess.fit(kernels, np.where(mask, values, 0.0), mask, numbers)


def points(seed, *, num_tasks=9, num_columns=4, missing=0.0, repeated=0, noise=0.3):
    """Values that go with the place of tasks on a plane; two descriptors of it, and their distances to a query.

    The first ``repeated`` tasks have a second row each.
    """
    generator = np.random.default_rng(seed)
    tasks = [*range(num_tasks), *range(repeated)]
    place = generator.normal(size=(num_tasks + 1, 2))[[*tasks, num_tasks]]
    values = np.sin(1.5 * place[:-1] @ generator.normal(size=(2, num_columns)))
    values += noise * generator.normal(size=values.shape)
    values[generator.random(values.shape) < missing] = np.nan
    both = np.linalg.norm(place[:, None] - place, axis=2)
    distances = {"whole": both, "first": np.abs(place[:, None, 0] - place[:, 0])}
    between = {name: matrix[:-1, :-1] for name, matrix in distances.items()}
    return (
        values,
        [f"t{task}" for task in tasks],
        between,
        {n: matrix[:-1, -1] for n, matrix in distances.items()},
    )


@pytest.mark.parametrize("descriptors", [(), ("whole",), ("first", "whole")], ids=["none", "one", "two"])
@pytest.mark.parametrize(
    ("missing", "repeated"), [(0.0, 0), (0.4, 0), (0.0, 3), (0.3, 4)], ids=["full", "gaps", "ways", "ways_gaps"]
)
def test_process_matches_fits_without_each_task(descriptors, missing, repeated):
    values, tasks, between, to_query = points(1, num_tasks=7, num_columns=3, missing=missing, repeated=repeated)
    between = {name: between[name] for name in descriptors}
    process = fit(values, tasks, between)
    mean, variance = process.predict(to_query)
    expected = process_reference(values, tasks, between, {name: to_query[name] for name in descriptors})
    weights, left_out, left_out_variance, expected_mean, expected_variance = expected
    known = ~np.isnan(values)
    np.testing.assert_allclose(process.weights, weights, **EXACT)
    np.testing.assert_allclose(process.left_out[known], left_out[known], **EXACT)
    np.testing.assert_allclose(process.left_out_variance[known], left_out_variance[known], **EXACT)
    np.testing.assert_allclose(mean, expected_mean, **EXACT)
    np.testing.assert_allclose(variance, expected_variance, **EXACT)


@pytest.mark.parametrize("setting", ["MAX_BATCH", "LAPACK_FROM"])
def test_process_is_the_same_however_matrices_are_inverted(monkeypatch, setting):
    values, tasks, between, to_query = points(2, num_tasks=15, num_columns=12, missing=0.4, repeated=4)
    usual = fit(values, tasks, between)
    monkeypatch.setattr(gaussian_process, setting, 1)
    other = fit(values, tasks, between)
    np.testing.assert_allclose(other.weights, usual.weights, **EXACT)
    np.testing.assert_allclose(other.left_out, usual.left_out, **EXACT)
    np.testing.assert_allclose(other.predict(to_query), usual.predict(to_query), **EXACT)


def test_static_cell_is_the_mean_shrunk():
    values, tasks, *_ = points(3, missing=0.4)
    process = fit(values, tasks, {})
    counts = (~np.isnan(values)).sum(axis=0)
    assert process.static_weight == 1.0
    np.testing.assert_allclose(process.predict({})[0], np.nansum(values, axis=0) / (counts + 1), atol=1e-12)


def test_cells_are_the_grid_of_each_descriptor_and_of_all():
    cells = list_cells({"b": 1, "a": 1})
    assert cells[0] == Cell()
    assert {cell.descriptors for cell in cells[1:]} == {("a",), ("b",), ("a", "b")}
    assert len(set(cells)) == len(cells) == 1 + 3 * (len(list_cells(["a"])) - 1)


@pytest.mark.parametrize("repeated", [0, 3])
def test_unit_is_the_spread_of_distances_of_different_tasks(repeated):
    _, tasks, between, _ = points(4, repeated=repeated)
    between["whole"][2, 5] = between["whole"][5, 2] = np.nan
    numbers = numbers_of(tasks)
    units = TaskKernels.of(between, numbers[:, None] != numbers).units
    assert units == {
        name: pytest.approx(unit_reference(distances, tasks)) for name, distances in between.items()
    }


def test_unit_of_equal_distances_is_of_their_size():
    other = ~np.eye(5, dtype=bool)
    assert TaskKernels.of({"a": 3.0 * other}, other).units == {"a": 3.0}
    assert TaskKernels.of({"a": 0.0 * other}, other).units == {"a": gaussian_process.SMALLEST_UNIT}


def test_descriptor_that_is_nowhere_known_is_left_out():
    other = ~np.eye(5, dtype=bool)
    between = {"known": 1.0 * other, "unknown": np.full((5, 5), np.nan)}
    assert set(TaskKernels.of(between, other).units) == {"known"}


def test_euclidean_distances_are_taken_as_they_are():
    _, tasks, between, to_query = points(5)
    numbers = numbers_of(tasks)
    kernels = TaskKernels.of(between, numbers[:, None] != numbers)
    cell = list_cells(kernels.units)[-1]
    assert cell.descriptors == ("first", "whole")
    for found, distances in ((kernels.matrix(cell), between), (kernels.to_query(cell, to_query), to_query)):
        exponent = sum(distances[name] / (cell.bandwidth * unit) for name, unit in kernels.units.items())
        np.testing.assert_allclose(found, cell.constant + (1 - cell.constant) * np.exp(-exponent), rtol=1e-12)


def test_query_like_a_row_has_the_covariances_of_that_row():
    """Also where distances that are not known have to be made a covariance."""
    between = np.array(
        [[0.0, 0.0, np.nan, 2.0], [0.0, 0.0, 0.0, 1.0], [np.nan, 0.0, 0.0, 2.0], [2.0, 1.0, 2.0, 0.0]]
    )
    kernels = TaskKernels.of({"a": between}, ~np.eye(4, dtype=bool))
    for cell in list_cells(kernels.units):
        for row in range(4):
            expected = np.delete(kernels.matrix(cell)[row], row)
            found = kernels.to_query(cell, {"a": between[row]})
            np.testing.assert_allclose(np.delete(found, row), expected, rtol=1e-12)


any_distance = st.one_of(st.floats(0, 10), st.just(0.0), st.just(np.nan))


@given(arrays(np.float64, (6, 6), elements=any_distance), arrays(np.float64, 6, elements=any_distance))
@settings(deadline=None, max_examples=60)
def test_any_distances_make_a_covariance(between, to_query):
    """Unknown, directed or against the triangle inequality: no variance may become negative."""
    kernels = TaskKernels.of({"a": between}, ~np.eye(6, dtype=bool))
    for cell in list_cells(kernels.units):
        matrix = kernels.matrix(cell)
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_allclose(np.diag(matrix), 1.0, rtol=1e-12)
        assert np.linalg.eigvalsh(matrix)[0] > -1e-9
    values = np.random.default_rng(0).normal(size=(6, 3))
    process = fit(values, range(6), {"a": between})
    mean, variance = process.predict({"a": to_query})
    assert np.isfinite(mean).all()
    assert np.isfinite(process.left_out).all()
    noise = process.cells[int(np.argmax(process.weights))].noise
    assert (variance >= noise).all()
    assert (process.left_out_variance >= noise - 1e-9).all()
    assert (process.left_out_variance <= 1 + noise + 1e-9).all()


def test_rows_and_columns_may_come_in_any_order():
    values, tasks, between, to_query = points(6, missing=0.4, repeated=3)
    generator = np.random.default_rng(0)
    rows, columns = generator.permutation(len(tasks)), generator.permutation(values.shape[1])
    process = fit(values, tasks, between)
    shuffled = fit(
        values[np.ix_(rows, columns)],
        [tasks[row] for row in rows],
        {name: matrix[np.ix_(rows, rows)] for name, matrix in between.items()},
    )
    answer = shuffled.predict({name: distances[rows] for name, distances in to_query.items()})
    np.testing.assert_allclose(answer, np.array(process.predict(to_query))[:, columns], **EXACT)
    np.testing.assert_allclose(shuffled.left_out, process.left_out[np.ix_(rows, columns)], **EXACT)


def test_left_out_predictions_do_not_see_their_task():
    """But for the weights of cells, which other tasks choose, and to which a task is evidence for others."""
    values, tasks, *_ = points(7, repeated=3)
    changed = values.copy()
    changed[0] += 5.0
    before, after = fit(values, tasks, {}).left_out, fit(changed, tasks, {}).left_out
    same = np.array([task == "t0" for task in tasks])
    assert same.sum() == 2
    np.testing.assert_allclose(after[same], before[same], atol=1e-12)
    assert (np.abs(after[~same] - before[~same]) > 0.1).all()


def test_column_without_values_is_expected_at_zero():
    values, tasks, between, to_query = points(8)
    values[:, 1] = np.nan
    process = fit(values, tasks, between)
    mean, variance = process.predict(to_query)
    assert mean[1] == 0
    assert variance[1] == 1 + process.cells[int(np.argmax(process.weights))].noise
    assert (variance[[0, 2, 3]] < variance[1]).all()


def test_weights_follow_what_distances_tell():
    values, tasks, between, _ = points(9, num_tasks=40, num_columns=10)
    noise = np.random.default_rng(1).uniform(1, 2, (40, 40))
    assert fit(values, tasks, {"whole": between["whole"]}).static_weight < 0.01
    mixed = fit(values, tasks, {"whole": between["whole"], "noise": noise + noise.T})
    used = [
        weight for cell, weight in zip(mixed.cells, mixed.weights, strict=True) if "noise" in cell.descriptors
    ]
    assert sum(used) < 0.01
    flat = np.random.default_rng(2).normal(size=values.shape)
    assert fit(flat, tasks, {"whole": between["whole"]}).static_weight > 0.3


def test_far_query_is_expected_as_without_distances():
    values, tasks, between, _ = points(10)
    process = fit(values, tasks, between)
    far, near = process.predict({name: np.full(9, 1e9) for name in between}), process.predict({})
    np.testing.assert_array_equal(far, near)
    unknown = process.predict({name: np.full(9, np.nan) for name in between})
    np.testing.assert_array_equal(unknown, near)


@pytest.mark.parametrize("num_rows", [0, 1])
def test_process_of_hardly_any_row(num_rows):
    values = np.full((num_rows, 2), 0.5)
    process = fit(values, range(num_rows), {"a": np.zeros((num_rows, num_rows))})
    mean, variance = process.predict({"a": np.zeros(num_rows)})
    np.testing.assert_allclose(mean, 0.5 * num_rows / (num_rows + 1))
    np.testing.assert_allclose(process.left_out, 0)
    assert (variance > 0).all()
    assert process.weights.tolist() == [1.0]
