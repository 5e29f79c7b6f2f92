"""indexer.heads.heads: the fit of each kind of task against its stated objective, and its invariances."""

import re

import numpy as np
import pytest
from builders_heads import KINDS, blobs, many_classes, task
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from indexer.errors import DataError
from indexer.heads.heads import FISHER_L2, L2, VARIANCE_FLOOR, fit_head, score_head, standardise
from indexer.records import Kind


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


@given(st.sampled_from(KINDS), st.floats(1e-3, 1e3), st.floats(-100, 100), st.integers(0, 100))
@hypothesis_settings(deadline=None, max_examples=30)
def test_units_of_the_features_change_no_logit(kind: Kind, scale: float, offset: float, seed: int):
    features, labels = task(kind, seed=seed)
    moved = features * scale + offset
    found, expected = fit_head(moved, labels, kind), fit_head(features, labels, kind)
    np.testing.assert_allclose(found.logits(moved), expected.logits(features), atol=5e-3)
    if kind == "regression":
        np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.3, -2e6])
@pytest.mark.parametrize("kind", KINDS)
def test_constant_feature_has_no_weight(kind: Kind, value: float):
    features, labels = task(kind)
    head = fit_head(np.column_stack([features, np.full(len(labels), value)]), labels, kind)
    assert np.abs(head.weight[:, -1]).max() < 1e-9
    assert np.abs(head.weight[:, :-1]).max() > 1e-3


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.3, -2e6])
@pytest.mark.parametrize("kind", KINDS)
def test_features_that_are_all_constant_tell_nothing_apart(kind: Kind, value: float):
    """Their standard deviation may be a rounding error rather than zero."""
    _, labels = task(kind)
    features = np.full((len(labels), 4), value)
    head = fit_head(features, labels, kind)
    np.testing.assert_allclose(head.logits(features), 0, atol=1e-6)
    if kind == "regression":  # left out, each target is foretold by the mean of the others
        np.testing.assert_allclose(head.variance, (len(labels) / (len(labels) - 1)) ** 2)


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
@pytest.mark.parametrize("kind", KINDS)
def test_fit_is_deterministic_to_the_byte_and_leaves_its_arguments(kind: Kind, dtype: type):
    features, labels = task(kind)
    features = features.astype(dtype)
    before = features.copy(), labels.copy()
    first, second = fit_head(features, labels, kind), fit_head(features, labels, kind)
    assert first.weight.dtype == first.bias.dtype == np.float64
    assert first.weight.tobytes() + first.bias.tobytes() == second.weight.tobytes() + second.bias.tobytes()
    assert first.kind == kind
    assert (first.variance is not None) == (kind == "regression")
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])


def label_share(labels: np.ndarray) -> np.ndarray:
    """Weights ``[N, C]``: for each label one half over the samples with it, one half over those without."""
    share = np.empty(labels.shape)
    for label, column in enumerate(labels.T):
        for value in (0, 1):
            share[column == value, label] = 1 / (2 * (column == value).sum())
    return share


@pytest.mark.parametrize("l2", [L2, FISHER_L2])
@pytest.mark.parametrize("num_features", [3, 60], ids=["N>F", "N<F"])
def test_multi_label_fit_minimises_the_stated_objective(num_features: int, l2: float):
    features, labels = task("multi_label", num_samples=40, num_features=num_features)
    share = label_share(labels)
    centred = features - share.mean(axis=1) @ features
    inputs = centred / np.sqrt((share.mean(axis=1) @ centred**2).mean())

    def label_objective(table: np.ndarray, label: int) -> float:
        logits = inputs @ table[:-1] + table[-1]
        losses = np.where(labels[:, label], np.logaddexp(0, -logits), np.logaddexp(0, logits))
        return float(share[:, label] @ losses + l2 / 2 * (table[:-1] ** 2).sum())

    logits = fit_head(features, labels, "multi_label", l2=l2).logits(features)
    for label in range(3):
        slow = minimize(label_objective, np.zeros(num_features + 1), label, options={"gtol": 1e-6})
        expected = inputs @ slow.x[:-1] + slow.x[-1]
        found, wanted = (1 / (1 + np.exp(-values)) for values in (logits[:, label], expected))
        np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_one_label_is_a_task_of_two_classes():
    """The two weights of two classes are each half of their difference, so its penalty is half as strong."""
    features, labels = blobs([14, 31])
    two = fit_head(features, labels, l2=0.2).logits(features)
    one = fit_head(features, labels[:, None], "multi_label", l2=0.1).logits(features)
    np.testing.assert_allclose(one[:, 0], two[:, 1] - two[:, 0], atol=2e-3)


def test_duplicating_the_samples_with_a_label_changes_nothing():
    features, labels = blobs([14, 31])
    copies = np.where(labels == 1, 3, 1)
    more = fit_head(np.repeat(features, copies, axis=0), np.repeat(labels, copies)[:, None], "multi_label")
    once = fit_head(features, labels[:, None], "multi_label")
    np.testing.assert_allclose(more.logits(features), once.logits(features), atol=5e-3)


@pytest.mark.parametrize(("value", "where"), [(1, "all"), (0, "none")])
def test_label_that_does_not_vary_is_refused(value: int, where: str):
    features, labels = task("multi_label")
    labels[:, 1] = value
    message = (
        f"labels: label 1 is on {where} of the 30 samples; a head needs samples with and without it, so leave "
        "it out or add samples"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        fit_head(features, labels, "multi_label")


def slow_ridge(inputs: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """``[F+1, T]``, the bias last, of least sum of squares plus ``penalty`` times the squared weights."""
    ones = np.column_stack([inputs, np.ones(len(inputs))])
    strengths = np.diag(np.append(np.full(inputs.shape[1], penalty), 0))
    return np.linalg.solve(ones.T @ ones + strengths, ones.T @ targets)


@given(
    st.integers(3, 14),
    st.integers(1, 20),
    st.integers(1, 3),
    st.sampled_from([L2, 0.1, FISHER_L2]),
    st.integers(0, 1000),
)
@hypothesis_settings(deadline=None, max_examples=50)
def test_regression_is_ridge_and_its_variance_that_of_refits_without_each_sample(
    num_samples: int, num_features: int, num_targets: int, l2: float, seed: int
):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(num_samples, num_features)) * 3 + 5
    targets = generator.normal(size=(num_samples, num_targets)) * 70 - 9
    inputs = (features - features.mean(axis=0)) / np.sqrt(features.var(axis=0).mean())
    standard = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    ones = np.column_stack([inputs, np.ones(num_samples)])

    head = fit_head(features, targets, "regression", l2=l2)
    expected = ones @ slow_ridge(inputs, standard, num_samples * l2)
    np.testing.assert_allclose(head.logits(features), expected, atol=1e-8)

    residuals = []
    for left_out in range(num_samples):
        kept = np.arange(num_samples) != left_out
        table = slow_ridge(inputs[kept], standard[kept], num_samples * l2)
        residuals.append(standard[left_out] - ones[left_out] @ table)
    slow = np.maximum(np.square(residuals).mean(axis=0), VARIANCE_FLOOR)
    np.testing.assert_allclose(head.variance, slow, rtol=1e-6)


def test_unit_and_offset_of_the_targets_change_nothing():
    features, labels = task("regression")
    head = fit_head(features, labels, "regression")
    moved = fit_head(features, labels.astype(np.float64) * [1e4, 1e-3] + [7, 1], "regression")
    np.testing.assert_allclose(moved.weight, head.weight, atol=1e-9)
    np.testing.assert_allclose(moved.variance, head.variance, rtol=1e-9)


def test_variance_is_that_of_the_noise():
    """In y = a + b the features predict a, and b is noise: it has three quarters of the variance."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(4000, 6))
    targets = features[:, :1] + np.sqrt(3) * generator.normal(size=(4000, 1))
    head = fit_head(features, targets, "regression")
    np.testing.assert_allclose(head.variance, 0.75, rtol=0.05)


def test_variance_of_more_features_than_samples_is_not_that_of_the_samples():
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(30, 300)), generator.normal(size=(30, 1))
    head = fit_head(features, targets, "regression")
    inside = (head.logits(features) - standardise(targets, targets)).var()
    assert inside < 1e-4
    np.testing.assert_allclose(head.variance, 1.0, rtol=0.3)


def test_variance_of_an_exact_fit_is_the_floor():
    features = np.random.default_rng(0).normal(size=(100, 4))
    head = fit_head(features, features @ np.ones((4, 1)), "regression", l2=1e-9)
    np.testing.assert_array_equal(head.variance, VARIANCE_FLOOR)


def test_constant_target_has_no_weight_and_variance_one():
    features, labels = task("regression")
    labels[:, 0] = 0.1
    head = fit_head(features, labels, "regression")
    assert np.abs(head.weight[0]).max() < 1e-12
    assert head.variance[0] == 1.0 != head.variance[1]


def test_two_samples_make_a_regression():
    """Each left out is foretold as the other, which is two standard deviations away."""
    head = fit_head(np.zeros((2, 3)), np.array([[1.0], [5.0]]), "regression")
    np.testing.assert_allclose(head.variance, 4.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("l2", [L2, FISHER_L2])
def test_more_features_than_samples_make_a_finite_head(kind: Kind, l2: float):
    features, labels = task(kind, num_samples=16, num_features=300)
    head = fit_head(features, labels, kind, l2=l2)
    assert all(np.isfinite(values).all() for values in (head.weight, head.bias, head.logits(features)))


@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_rare_class_is_found_as_well_as_a_frequent_one(distance: float):
    """100 to 1; an unbalanced fit calls next to all of them frequent."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [3000, 30])
    features = generator.normal(size=(3030, 4)) + distance * labels[:, None]
    fresh = generator.normal(size=(3030, 4)) + distance * labels[:, None]
    for head in (fit_head(features, labels), fit_head(features, labels[:, None], "multi_label")):
        logits = head.logits(fresh)
        guess = logits.argmax(axis=1) if head.kind == "single_label" else logits[:, 0] > 0
        frequent, rare = (guess == labels)[:3000].mean(), (guess == labels)[3000:].mean()
        assert abs(frequent - rare) < 0.12
        assert min(frequent, rare) > 0.7


@pytest.mark.parametrize(
    ("num_features", "l2"),
    [
        (64, FISHER_L2),
        *(pytest.param(*it, marks=pytest.mark.slow) for it in ((64, L2), (512, L2), (512, FISHER_L2))),
    ],
)
def test_thousand_classes_of_two_samples_converge(num_features: int, l2: float):
    features, labels = many_classes(1000, num_features)
    head = fit_head(features, labels, l2=l2)
    centred = features - features.mean(axis=0)
    scale = np.sqrt((centred**2).mean())
    logits = head.logits(features)
    probs = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    start, found = (
        (guess - np.eye(1000)[labels]).T @ centred / scale / len(labels)
        for guess in (np.full_like(probs, 1e-3), probs)
    )
    gradient = found + l2 * head.weight * scale
    assert np.linalg.norm(gradient) < 0.03 * np.linalg.norm(start)
