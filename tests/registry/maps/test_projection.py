"""Positions from distances: against loops, scikit-learn, and points that lie in a plane."""

import math

import numpy as np
import pytest
from builders_maps import grouped
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.distances import pairwise
from registry.maps import projection


def planar(count, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 2))
    return points, projection.between(points)


def tasks(count, seed=0):
    fisher = grouped(count, seed=seed)
    distances = np.tril(pairwise("task2vec", fisher, fisher), -1)
    return distances + distances.T


def naive_stress(distances, drawn):
    """Kruskal's stress-1, the best factor positions by hand."""
    pairs = [(float(d), float(x)) for d, x in zip(distances.ravel(), drawn.ravel(), strict=True)]
    factor = sum(d * x for d, x in pairs) / sum(d * d for d, _ in pairs)
    return math.sqrt(sum((x - factor * d) ** 2 for d, x in pairs) / sum(x * x for _, x in pairs))


def test_between_matches_a_loop():
    points = np.random.default_rng(0).normal(size=(5, 2))
    expected = [[math.dist(a, b) for b in points] for a in points]
    np.testing.assert_allclose(projection.between(points), expected)


def test_classical_mds_finds_points_of_a_plane():
    _, distances = planar(12)
    np.testing.assert_allclose(projection.between(projection.classical_mds(distances)), distances, atol=1e-9)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9])
def test_a_few_tasks_of_a_plane_are_drawn_as_they_are(count):
    _, distances = planar(count, seed=count)
    drawn = projection.between(projection.lay_out(distances))
    assert projection.stress_1(distances, drawn) < 1e-3
    np.testing.assert_allclose(drawn, distances, atol=0.02 * distances.max())


def test_majorisation_never_adds_stress():
    distances = tasks(9)
    positions, last = projection.classical_mds(distances), math.inf
    for _ in range(5):
        positions = projection.majorise_stress(distances, positions)
        stress = float(np.square(projection.between(positions) - distances).sum())
        assert stress <= last + 1e-4
        last = stress


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 11, 30])
def test_any_number_of_tasks_is_laid_out(count):
    positions = projection.lay_out(tasks(count) if count else np.zeros((0, 0)))
    assert positions.shape == (count, 2)
    assert np.isfinite(positions).all()


@pytest.mark.parametrize("count", [3, 12])
def test_tasks_that_are_all_the_same_lie_in_one_point(count):
    assert not projection.lay_out(np.zeros((count, count))).any()


@pytest.mark.parametrize("count", [6, 30])
def test_duplicates_are_laid_out(count):
    distances = tasks(count)
    distances[1], distances[:, 1] = distances[0], distances[:, 0]
    distances[0, 1] = distances[1, 0] = distances[1, 1] = 0
    drawn = projection.between(projection.lay_out(distances))
    assert np.isfinite(drawn).all()
    assert drawn[0, 1] < np.median(drawn) / 5


@pytest.mark.parametrize("count", [8, 40])
def test_the_same_distances_give_the_same_bytes(count):
    distances = tasks(count)
    before = distances.copy()
    first = projection.lay_out(distances, seed=3)
    assert first.tobytes() == projection.lay_out(distances, seed=3).tobytes()
    np.testing.assert_array_equal(distances, before)


def test_a_layout_is_centred_turned_and_in_the_unit_of_the_distances():
    distances = tasks(40)
    positions = projection.lay_out(distances)
    np.testing.assert_allclose(positions.mean(axis=0), 0, atol=1e-12)
    assert abs((positions[:, 0] * positions[:, 1]).sum()) < 1e-9
    assert positions[:, 0].std() >= positions[:, 1].std()
    assert (positions[np.abs(positions).argmax(axis=0), [0, 1]] > 0).all()
    assert projection.best_scale(distances, projection.between(positions)) == pytest.approx(1)


def test_groups_are_told_apart():
    drawn = projection.between(projection.lay_out(tasks(60)))
    np.fill_diagonal(drawn, np.inf)
    assert all(row % 3 == near % 3 for row, near in enumerate(drawn.argmin(axis=1)))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_stress_matches_a_loop_and_knows_no_scale(count, seed, factor):
    _, distances = planar(count, seed)
    _, drawn = planar(count, seed + 1)
    stress = projection.stress_1(distances, drawn)
    assert stress == pytest.approx(naive_stress(distances, drawn), abs=1e-7)
    assert projection.stress_1(distances, factor * drawn) == pytest.approx(stress, abs=1e-7)
    assert projection.stress_1(distances, distances * factor) == pytest.approx(0, abs=1e-7)


def test_stress_of_points_that_fell_together():
    assert projection.stress_1(np.zeros((3, 3)), np.zeros((3, 3))) == 0
    assert projection.stress_1(np.ones((3, 3)), np.zeros((3, 3))) == 1


@pytest.mark.parametrize("count", [3, 8, 25, 60])
def test_trustworthiness_is_that_of_scikit_learn(count):
    from sklearn.manifold import trustworthiness

    distances = tasks(count)
    points = np.random.default_rng(1).normal(size=(count, 2))
    expected = trustworthiness(
        distances, points, n_neighbors=projection.num_neighbors(count), metric="precomputed"
    )
    trust = projection.trustworthiness(distances, projection.between(points), np.arange(count))
    assert trust == pytest.approx(expected)


def test_trustworthiness_of_some_tasks_is_their_part():
    distances = tasks(30)
    drawn = projection.between(np.random.default_rng(1).normal(size=(30, 2)))
    parts = [projection.trustworthiness(distances[[row]], drawn[[row]], np.array([row])) for row in range(30)]
    assert np.mean(parts) == pytest.approx(projection.trustworthiness(distances, drawn, np.arange(30)))


def test_trustworthiness_of_a_true_picture_is_1_and_of_two_tasks_too():
    _, distances = planar(20)
    assert projection.trustworthiness(distances, distances, np.arange(20)) == 1
    assert projection.trustworthiness(np.ones((2, 2)), np.zeros((2, 2)), np.arange(2)) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.floats(1.5, 15), st.integers(0, 2**31))
def test_weights_have_the_perplexity(count, perplexity, seed):
    distances = np.random.default_rng(seed).uniform(0.3, 0.9, (3, count))
    weights = projection.gaussian_weights(distances, perplexity)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (np.diff(np.take_along_axis(weights, np.argsort(distances, axis=1), axis=1), axis=1) <= 1e-12).all()
    entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(np.exp(entropy), min(perplexity, 0.999 * count), rtol=0.02)


def test_weights_of_equal_distances_are_equal():
    np.testing.assert_allclose(projection.gaussian_weights(np.full((1, 4), 0.5), 2.0), 0.25)


@pytest.mark.parametrize("num_anchors", [2, 5, 40])
def test_a_row_is_placed_by_itself(num_anchors):
    generator = np.random.default_rng(0)
    distances, anchors = generator.uniform(0.2, 0.8, (6, 4)), generator.normal(size=(6, 4, 2))
    together = projection.place(distances, anchors, num_anchors=num_anchors)
    alone = [projection.place(distances[[row]], anchors[[row]], num_anchors=num_anchors)[0] for row in range(6)]
    assert together.tobytes() == np.array(alone).tobytes()


def test_among_few_a_task_goes_where_its_distances_are_met():
    points, _ = planar(5)
    wanted = np.array([0.3, -0.2])
    distances = np.linalg.norm(points - wanted, axis=1)
    np.testing.assert_allclose(
        projection.place(distances[None], points[None], num_anchors=5)[0], wanted, atol=1e-3
    )


@pytest.mark.parametrize("count", [1, 2])
def test_among_one_or_two_a_task_is_not_drawn_upon_them(count):
    anchors = np.array([[[0.0, 0.0], [1.0, 0.0]]])[:, :count]
    positions = projection.place(np.full((1, count), 0.8), anchors, num_anchors=count)[0]
    np.testing.assert_allclose(np.linalg.norm(anchors[0] - positions, axis=1), 0.8, atol=1e-3)


def test_among_many_a_task_goes_to_the_nearer_group():
    anchors = np.concatenate([np.zeros((20, 2)), np.full((10, 2), 9.0)])[None]
    distances = np.concatenate([np.full(20, 0.2), np.full(10, 0.3)])[None]
    np.testing.assert_allclose(projection.place(distances, anchors, num_anchors=30)[0], 0, atol=1e-2)


def test_a_task_that_is_there_already_is_placed_near_itself():
    distances = tasks(60)
    positions = projection.lay_out(distances)
    near = np.argsort(distances, axis=1, kind="stable")[:, : projection.PLACING_NEIGHBORS]
    placed = projection.place(np.take_along_axis(distances, near, axis=1), positions[near], num_anchors=60)
    gaps = np.linalg.norm(placed - positions, axis=1)
    assert np.median(gaps) < 0.2 * np.median(projection.between(positions))


@pytest.mark.slow
def test_many_tasks_give_the_same_bytes_each_time():
    """With approximate forces, as of 500 tasks on; they are summed by one thread."""
    distances = tasks(600)
    assert projection.lay_out(distances).tobytes() == projection.lay_out(distances).tobytes()
