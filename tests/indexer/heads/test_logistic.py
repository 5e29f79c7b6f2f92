"""indexer.heads.logistic: fits in the span of the samples against plain fits on all features."""

import re

import numpy as np
import pytest
from builders_heads import KINDS, task
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from indexer.errors import DataError
from indexer.heads import logistic
from indexer.heads.heads import FISHER_L2, L2, fit_head, held_out_score
from indexer.heads.logistic import fit_logistic, span_of
from indexer.records import Kind

quick = settings(max_examples=20, deadline=None)


def plain_logistic(inputs, labels, share, l2, *, bias=True):
    """The objective as it is written, by BFGS over all features; one row of two classes."""
    num_classes = labels.max() + 1
    num_rows = num_classes if num_classes > 2 else 1
    ones = np.column_stack([inputs, np.ones(len(inputs)) * bias])

    def objective(flat):
        table = flat.reshape(num_rows, -1)
        logits = ones @ table.T
        if num_rows == 1:
            logits = np.column_stack([np.zeros(len(inputs)), logits])
        log_probs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        slopes = share[:, None] * (np.exp(log_probs) - np.eye(num_classes)[labels])
        penalised = table * np.append(np.ones(inputs.shape[1]), 0)
        value = -share @ log_probs[np.arange(len(labels)), labels] + l2 / 2 * (penalised**2).sum()
        return value, (slopes[:, -num_rows:].T @ ones + l2 * penalised).ravel()

    start = np.zeros(num_rows * ones.shape[1])
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 0, "maxiter": 10_000}
    )
    table = found.x.reshape(num_rows, -1)
    return table[:, :-1], table[:, -1]


def plain_head(features, labels, kind, l2):
    """Weights and biases as ``fit_head`` states them, on all features."""
    if kind == "regression":
        shares = np.full((len(labels), 1), 1 / len(labels))
    else:
        hot = np.eye(labels.max() + 1)[labels] if kind == "single_label" else None
        if hot is not None:
            shares = (hot / hot.sum(axis=0)).sum(axis=1, keepdims=True) / hot.shape[1]
        else:
            shares = labels / labels.sum(axis=0) / 2 + (1 - labels) / (1 - labels).sum(axis=0) / 2
    mean = shares.mean(axis=1) @ features
    scale = np.sqrt((shares.mean(axis=1) @ (features - mean) ** 2).mean())
    inputs = (features - mean) / scale
    if kind == "regression":
        targets = (labels - labels.mean(axis=0)) / labels.std(axis=0)
        gram = inputs.T @ inputs + len(labels) * l2 * np.eye(inputs.shape[1])
        weight, bias = np.linalg.solve(gram, inputs.T @ targets).T, np.zeros(targets.shape[1])
    elif kind == "single_label":
        two = labels.max() == 1
        weight, bias = plain_logistic(inputs, labels, shares[:, 0], l2 / 2 if two else l2)
        if two:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    else:
        fits = [plain_logistic(inputs, y, s, l2) for y, s in zip(labels.T.astype(int), shares.T, strict=True)]
        weight, bias = np.concatenate([it[0] for it in fits]), np.concatenate([it[1] for it in fits])
    weight = weight / scale
    return weight, bias - weight @ mean


@pytest.mark.parametrize("kind", KINDS)
@given(
    num_samples=st.integers(12, 24),
    num_features=st.sampled_from([4, 30, 60]),
    l2=st.sampled_from([L2, 0.1, FISHER_L2]),
    seed=st.integers(0, 1000),
)
@quick
def test_head_is_that_of_a_plain_fit_on_all_features(
    kind: Kind, num_samples: int, num_features: int, l2: float, seed: int
):
    """The same weights and biases, whether there are more samples or more features."""
    features, labels = task(kind, num_samples, num_features, seed)
    features = (features - features.mean(axis=0)) / features.std(axis=0) + 0.3  # BFGS is slow on unlike scales
    head = fit_head(features, labels, kind, l2=l2)
    weight, bias = plain_head(features, labels.astype(np.float64) if kind == "regression" else labels, kind, l2)
    np.testing.assert_allclose(head.weight, weight, atol=2e-5 * np.abs(weight).max())
    np.testing.assert_allclose(head.bias, bias, atol=1e-4)


def test_two_classes_are_those_of_a_plain_fit():
    features = np.random.default_rng(0).normal(size=(20, 50)) + 1
    labels = np.arange(20) % 2
    weight, bias = plain_head(features, labels, "single_label", L2)
    head = fit_head(features, labels)
    np.testing.assert_allclose(head.weight, weight, atol=1e-5)
    np.testing.assert_allclose(head.bias, bias, atol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_without_a_bias_it_is_a_plain_fit_too(num_classes: int):
    """Mirrored samples of swapped classes leave no bias, so the column of ones does no harm."""
    half = np.random.default_rng(0).normal(size=(6 * num_classes, 40))
    inputs = np.concatenate([half, -half]) if num_classes == 2 else half - half.mean(axis=0)
    labels = np.arange(len(half)) % num_classes
    labels = np.concatenate([labels, 1 - labels]) if num_classes == 2 else labels
    share = np.full(len(labels), 1 / len(labels))
    span = span_of(inputs)
    weight, bias = fit_logistic(span.coordinates, labels, share, 0.1)
    expected, _ = plain_logistic(inputs, labels, share, 0.1, bias=num_classes > 2)
    np.testing.assert_allclose(weight @ span.basis, expected, atol=1e-5)
    if num_classes == 2:
        np.testing.assert_allclose(bias, 0, atol=1e-6)


@given(st.integers(1, 20), st.integers(1, 40), st.integers(0, 1000))
@quick
def test_span_holds_all_of_the_inputs_in_orthogonal_directions(num_samples: int, num_features: int, seed: int):
    inputs = np.random.default_rng(seed).normal(size=(num_samples, num_features))
    inputs -= inputs.mean(axis=0)
    span = span_of(inputs)
    assert span.coordinates.shape[1] == len(span.basis) <= min(num_samples, num_features)
    np.testing.assert_allclose(span.coordinates @ span.basis, inputs, atol=1e-6)
    np.testing.assert_allclose(span.basis @ span.basis.T, np.eye(len(span.basis)), atol=1e-6)
    products = span.coordinates.T @ span.coordinates
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), num_features=st.sampled_from([3, 80]))
@quick
def test_turned_features_have_turned_weights_and_the_same_held_out_score(
    kind: Kind, seed: int, num_features: int
):
    features, labels = task(kind, 40, num_features, seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(num_features, num_features)))[0]
    plain, turned = fit_head(features, labels, kind), fit_head(features @ turn, labels, kind)
    size = np.abs(plain.weight).max()
    np.testing.assert_allclose(turned.weight, plain.weight @ turn, atol=1e-4 * size)
    before, after = (held_out_score(it, labels, seed, kind) for it in (features, features @ turn))
    assert after.accuracy == pytest.approx(before.accuracy, abs=1e-6)
    assert after.loss == pytest.approx(before.loss, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x * 10.0 ** np.linspace(-4, 4, x.shape[1]),
        lambda x: np.cumsum(x, axis=1),
        lambda x: np.exp(5 * x),
        lambda x: x * np.where(np.arange(len(x)) == 0, 1e8, 1)[:, None],
        lambda x: x + 1e6,
        lambda x: np.repeat(x[:, :1], x.shape[1], axis=1),
    ],
    ids=["scales", "correlated", "heavy", "outlier", "offset", "one_direction"],
)
@pytest.mark.parametrize("l2", [1e-6, L2, FISHER_L2])
def test_awkward_features_converge(spoil, l2: float):
    labels = np.arange(48) % 8
    features = spoil(np.random.default_rng(0).normal(size=(48, 100)))
    assert np.isfinite(fit_head(features, labels, l2=l2).weight).all()


def test_a_fit_that_does_not_converge_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logistic, "MAX_STEPS", 1)
    message = "features: the head did not converge in 1 steps; check the network's weights"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        fit_head(*task("single_label"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_told(kind: Kind, value: float):
    features, labels = task(kind)
    features[3, 2] = value
    message = "features: hold NaN or infinity; check the network's weights"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        fit_head(features, labels, kind)
