"""indexer.heads: the fit against the stated objective, its invariances, scores, and splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from indexer.heads import L2, LinearHead, choose_per_class, fit_head, held_out_score, score_head


def blobs(sizes: list[int], num_features: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping Gaussian classes, their features of different scales and offsets."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = generator.normal(size=(len(labels), num_features))
    features += generator.normal(size=(len(sizes), num_features))[labels]
    return features * 10.0 ** np.arange(-2, num_features - 2) + np.arange(num_features), labels


def balanced_mean(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.mean([values[labels == label].mean(axis=0) for label in np.unique(labels)], axis=0)


def scaled(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    centred = features - balanced_mean(features, labels)
    return centred / np.sqrt(balanced_mean(centred**2, labels).mean())


def objective(
    parameters: np.ndarray, inputs: np.ndarray, labels: np.ndarray, l2: float
) -> tuple[float, np.ndarray]:
    """Balanced mean cross-entropy plus ``l2/2`` times the squared norm of the weights; and its gradient.

    ``parameters`` are ``[C, F+1]``, flat, the bias last.
    """
    table = parameters.reshape(-1, inputs.shape[1] + 1)
    ones = np.column_stack([inputs, np.ones(len(inputs))])
    logits = ones @ table.T
    log_probs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    truth = np.eye(len(table))[labels]
    weights = np.column_stack([table[:, :-1], np.zeros(len(table))])
    value = balanced_mean(-(truth * log_probs).sum(axis=1), labels) + l2 / 2 * (weights**2).sum()
    products = (np.exp(log_probs) - truth)[:, :, None] * ones[:, None, :]
    return float(value), (balanced_mean(products, labels) + l2 * weights).ravel()


@pytest.mark.parametrize("l2", [L2, 1.0, 1e-3])
@pytest.mark.parametrize("sizes", [[20, 30], [7, 40], [15, 8, 30], [5, 6, 7, 8, 9]], ids=str)
def test_fit_minimises_the_stated_objective(sizes: list[int], l2: float):
    features, labels = blobs(sizes)
    inputs = scaled(features, labels)
    start = np.zeros(len(sizes) * (features.shape[1] + 1))
    slow = minimize(
        objective,
        start,
        (inputs, labels, l2),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": 1e-9, "ftol": 1e-15},
    )
    head = fit_head(features, labels, l2=l2)
    table = slow.x.reshape(len(sizes), -1)
    expected = inputs @ table[:, :-1].T + table[:, -1]
    probs, expected_probs = (
        np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
        for logits in (head.logits(features), expected)
    )
    np.testing.assert_allclose(probs, expected_probs, atol=2e-3)
    assert head.weight.shape == (len(sizes), features.shape[1])
    assert head.bias.shape == (len(sizes),)


def test_objective_of_this_test_has_the_gradient_it_says():
    features, labels = blobs([4, 6, 5], num_features=2)
    point = np.random.default_rng(0).normal(size=9)
    _, gradient = objective(point, features, labels, 0.3)
    numeric = [
        (objective(point + step, features, labels, 0.3)[0] - objective(point - step, features, labels, 0.3)[0])
        / 2e-6
        for step in 1e-6 * np.eye(9)
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-7)


def test_default_strength_is_the_constant():
    features, labels = blobs([10, 12, 9])
    np.testing.assert_array_equal(fit_head(features, labels).weight, fit_head(features, labels, l2=L2).weight)


@pytest.mark.parametrize("sizes", [[12, 12], [9, 14, 11]], ids=str)
def test_duplicating_the_samples_of_a_class_changes_nothing(sizes: list[int]):
    features, labels = blobs(sizes)
    copies = np.where(labels == 1, 3, 1)
    more = fit_head(np.repeat(features, copies, axis=0), np.repeat(labels, copies))
    np.testing.assert_allclose(more.logits(features), fit_head(features, labels).logits(features), atol=2e-3)


@given(st.floats(1e-3, 1e3), st.floats(-100, 100), st.integers(0, 100))
@hypothesis_settings(deadline=None, max_examples=20)
def test_units_of_the_features_change_no_logit(scale: float, offset: float, seed: int):
    features, labels = blobs([8, 12, 10], seed=seed)
    moved = features * scale + offset
    found = fit_head(moved, labels).logits(moved)
    np.testing.assert_allclose(found, fit_head(features, labels).logits(features), atol=5e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.3, -2e6])
@pytest.mark.parametrize("count", [26, 50])
def test_constant_feature_has_no_weight(count: int, value: float):
    features, labels = blobs([count // 2, count - count // 2])
    head = fit_head(np.column_stack([features, np.full(count, value)]), labels)
    assert np.abs(head.weight[:, -1]).max() < 1e-9


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.3, -2e6])
def test_features_that_are_all_constant_tell_nothing_apart(value: float):
    """Their standard deviation may be a rounding error rather than zero."""
    features = np.full((26, 4), value)
    logits = fit_head(features, np.arange(26) % 2).logits(features)
    np.testing.assert_allclose(logits, 0, atol=1e-6)


def test_two_classes_have_opposite_rows():
    head = fit_head(*blobs([10, 15]))
    np.testing.assert_array_equal(head.weight[0], -head.weight[1])
    assert head.weight[1].any()
    features, labels = blobs([10, 15])
    assert score_head(head, features, labels).accuracy > 0.7  # the rows are not swapped


def test_separable_classes_with_more_features_than_samples_converge():
    features = np.random.default_rng(0).normal(size=(12, 200))
    head = fit_head(features, np.arange(12) % 3)
    assert np.isfinite(head.weight).all()
    assert (head.logits(features).argmax(axis=1) == np.arange(12) % 3).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fit_is_deterministic_to_the_byte_and_leaves_its_arguments(dtype: type):
    features, labels = blobs([9, 14, 11])
    features = features.astype(dtype)
    before = features.copy()
    first, second = fit_head(features, labels), fit_head(features, labels)
    assert first.weight.dtype == first.bias.dtype == np.float64
    assert first.weight.tobytes() + first.bias.tobytes() == second.weight.tobytes() + second.bias.tobytes()
    np.testing.assert_array_equal(features, before)


def test_score_of_known_logits():
    """Class 0: one of two right, losses ln 2 and ln 4. Class 1: right, loss ln 4/3; it weighs as much."""
    head = LinearHead(np.eye(2), np.zeros(2))
    features = np.log(np.array([[2.0, 2.0], [1.0, 3.0], [1.0, 3.0]]))
    found = score_head(head, features, np.array([0, 0, 1]))
    assert found.accuracy == 0.75
    assert found.loss == pytest.approx(((np.log(2) + np.log(4)) / 2 + np.log(4 / 3)) / 2)


def test_score_of_huge_logits_is_finite():
    head = LinearHead(np.array([[1.0], [-1.0]]), np.zeros(2))
    found = score_head(head, np.array([[1e4], [1e4]]), np.array([0, 1]))
    assert (found.accuracy, found.loss) == (0.5, 1e4)


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(LABELS, st.integers(0, 2**32), st.integers(0, 10))
@hypothesis_settings(deadline=None, max_examples=60)
def test_choice_takes_that_many_of_every_class(labels: np.ndarray, seed: int, most: int):
    chosen = choose_per_class(labels, lambda count: min(most, count // 2), seed)
    assert (chosen.shape, chosen.dtype) == (labels.shape, np.bool_)
    for label in set(labels.tolist()):
        count = labels.tolist().count(label)
        assert chosen[labels == label].sum() == min(most, count // 2)
    np.testing.assert_array_equal(chosen, choose_per_class(labels, lambda count: min(most, count // 2), seed))


def test_choice_is_uniform_and_differs_by_seed():
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 0])
    chosen = np.array([choose_per_class(labels, lambda count: 1, seed) for seed in range(2000)])
    np.testing.assert_allclose(chosen.mean(axis=0), np.where(labels == 0, 1 / 5, 1 / 3), atol=0.04)


@pytest.mark.parametrize("sizes", [[2, 2], [3, 9, 8], [40, 17]], ids=str)
def test_held_out_score_is_of_a_quarter_that_the_head_did_not_see(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
):
    features, labels = blobs(sizes)
    seen = {}

    def spy(kind: str, function):
        def call(*args, **options):
            seen[kind] = args[-2], args[-1]
            return function(*args, **options)

        return call

    monkeypatch.setattr("indexer.heads.fit_head", spy("fit", fit_head))
    monkeypatch.setattr("indexer.heads.score_head", spy("score", score_head))
    found = held_out_score(features, labels, 3)
    (fitted, fitted_labels), (held_out, held_out_labels) = seen["fit"], seen["score"]
    assert not {tuple(row) for row in fitted} & {tuple(row) for row in held_out}
    assert len(fitted) + len(held_out) == len(labels)
    assert np.bincount(held_out_labels).tolist() == [max(1, size // 4) for size in sizes]
    assert found == score_head(fit_head(fitted, fitted_labels), held_out, held_out_labels)
    assert found == held_out_score(features, labels, 3)


def test_held_out_score_depends_on_the_seed():
    features, labels = blobs([20, 20])
    assert len({held_out_score(features, labels, seed).loss for seed in range(4)}) == 4
