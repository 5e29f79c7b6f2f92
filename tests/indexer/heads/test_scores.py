"""indexer.heads.heads: metrics and losses against plain loops, and the draws of what is held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import r2_score

from indexer.heads.heads import (
    choose_per_class,
    choose_quarter_per_label,
    label_weights,
    score_labels,
    score_targets,
)


def slow_average_precision(truth: list[int], guess: list[float]) -> float:
    """Area under the steps of precision over recall, one step for each value that is guessed."""
    total, found_before = 0.0, 0
    for threshold in sorted(set(guess), reverse=True):
        above = [label for label, value in zip(truth, guess, strict=True) if value >= threshold]
        total += (sum(above) - found_before) * sum(above) / len(above)
        found_before = sum(above)
    return total / sum(truth)


def slow_label_loss(truth: list[int], guess: list[float]) -> float:
    """Mean over presence and absence, where there are such, of their mean loss."""
    means = []
    for value in set(truth):
        probs = [1 / (1 + np.exp(-x)) for label, x in zip(truth, guess, strict=True) if label == value]
        means.append(np.mean([-np.log(p if value else 1 - p) for p in probs]))
    return float(np.mean(means))


@given(st.integers(1, 25), st.integers(1, 4), st.integers(1, 6), st.integers(0, 1000))
@hypothesis_settings(deadline=None, max_examples=60)
def test_score_of_labels_matches_plain_loops(num_samples: int, num_labels: int, num_values: int, seed: int):
    """Few values make ties."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (num_samples, num_labels)).astype(np.uint8)
    labels[generator.integers(num_samples, size=num_labels), np.arange(num_labels)] = 1
    logits = generator.integers(-num_values, num_values + 1, labels.shape) / 2
    columns = list(zip(labels.T.tolist(), logits.T.tolist(), strict=True))
    found = score_labels(logits, labels)
    assert found.accuracy == pytest.approx(np.mean([slow_average_precision(*column) for column in columns]))
    assert found.loss == pytest.approx(np.mean([slow_label_loss(*column) for column in columns]))


def test_score_of_guessed_labels_is_their_frequency_and_ln_two():
    labels = (np.arange(60)[:, None] % np.array([2, 3, 5]) == 0).astype(np.uint8)
    found = score_labels(np.zeros((60, 3)), labels)
    assert found.accuracy == pytest.approx((1 / 2 + 1 / 3 + 1 / 5) / 3)
    assert found.loss == pytest.approx(np.log(2))


def test_score_of_labels_with_huge_logits_is_finite():
    found = score_labels(np.array([[1e4], [-1e4], [1e4]]), np.array([[1], [0], [0]], np.uint8))
    assert found.loss == pytest.approx(1e4 / 4)  # one of two absences is wrong


@given(st.integers(2, 20), st.integers(1, 4), st.integers(0, 1000))
@hypothesis_settings(deadline=None, max_examples=40)
def test_score_of_targets_matches_scikit_learn_and_scipy(num_samples: int, num_targets: int, seed: int):
    generator = np.random.default_rng(seed)
    targets, predictions = generator.normal(size=(2, num_samples, num_targets)) * 3
    variance = generator.uniform(0.1, 4, num_targets)
    found = score_targets(predictions, targets, variance)
    assert found.accuracy == pytest.approx(r2_score(targets, predictions))
    assert found.loss == pytest.approx(-norm.logpdf(targets, predictions, np.sqrt(variance)).mean())


def test_constant_target_explains_nothing():
    targets = np.array([[2.0, 1.0], [2.0, 3.0]])
    found = score_targets(np.array([[1.0, 1.0], [1.0, 3.0]]), targets, np.ones(2))
    assert found.accuracy == 0.5  # of 0 and of 1


def test_label_weights_give_presence_and_absence_one_half_each():
    found = label_weights(np.array([[1, 1], [0, 1], [0, 1], [0, 1]], np.uint8))
    np.testing.assert_allclose(found, [[1 / 2, 1 / 4], [1 / 6, 1 / 4], [1 / 6, 1 / 4], [1 / 6, 1 / 4]])


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


def both_sides(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """For which labels there are samples with it and samples without it among the chosen and among the rest."""
    sides = labels[chosen], labels[~chosen]
    return np.all([(side.any(axis=0) & (side == 0).any(axis=0)) for side in sides], axis=0)


@given(st.integers(4, 40), st.integers(2, 12), st.floats(0.05, 0.6), st.integers(0, 2**32))
@hypothesis_settings(deadline=None, max_examples=80)
def test_quarter_parts_the_smallest_group_and_is_repeatable(
    num_samples: int, num_labels: int, rate: float, seed: int
):
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_samples, num_labels)) < rate).astype(np.uint8)
    labels[0], labels[1], labels[2], labels[3] = 1, 0, 1, 0  # each label twice at least, and twice not
    chosen = choose_quarter_per_label(labels, seed)
    assert (chosen.shape, chosen.dtype) == ((num_samples,), np.bool_)
    groups = np.concatenate([labels, 1 - labels], axis=1)
    smallest = groups[:, groups.sum(axis=0).argmin()] == 1
    assert chosen[smallest].sum() == max(1, smallest.sum() // 4)
    assert (~chosen[smallest]).any()
    np.testing.assert_array_equal(chosen, choose_quarter_per_label(labels, seed))


@pytest.mark.parametrize(("num_samples", "rate"), [(200, 0.02), (400, 0.01), (1000, 0.1)])
def test_quarter_has_every_label_on_both_sides(num_samples: int, rate: float):
    """At a rate of .01 a label has four samples: of a uniform quarter one label in three would have none."""
    for seed in range(5):
        generator = np.random.default_rng(seed)
        labels = (generator.random((num_samples, 60)) < rate).astype(np.uint8)
        labels = labels[:, labels.sum(axis=0) > 1]
        chosen = choose_quarter_per_label(labels, seed)
        assert both_sides(labels, chosen).all()
        assert chosen.mean() == pytest.approx(0.25, abs=0.02)


def test_quarter_has_a_quarter_of_every_label():
    generator = np.random.default_rng(0)
    labels = (generator.random((2000, 15)) < np.linspace(0.02, 0.6, 15)).astype(np.uint8)
    shares = labels[choose_quarter_per_label(labels, 0)].sum(axis=0) / labels.sum(axis=0)
    np.testing.assert_allclose(shares, 0.25, atol=0.06)


def test_quarter_looks_ahead_where_rare_labels_share_samples():
    """Label 2 has one sample of each of the others: settled last, it would often be whole on one side."""
    labels = np.zeros((40, 3), np.uint8)
    labels[[0, 1], 0] = labels[[2, 3], 1] = labels[[0, 2], 2] = 1
    assert all(both_sides(labels, choose_quarter_per_label(labels, seed)).all() for seed in range(50))


def test_quarter_of_few_samples_with_many_labels_loses_next_to_none():
    """Settled by size alone, one label in a hundred would be whole on one side."""
    num_labels, num_parted = 0, 0
    for seed in range(200):
        labels = (np.random.default_rng(seed).random((30, 20)) < 0.15).astype(np.uint8)
        labels = labels[:, labels.sum(axis=0) > 1]
        num_labels += labels.shape[1]
        num_parted += both_sides(labels, choose_quarter_per_label(labels, seed)).sum()
    assert num_labels > 3000
    assert num_parted > 0.998 * num_labels


def test_quarter_differs_by_seed():
    labels = np.tile(np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.uint8), (10, 1))
    assert len({choose_quarter_per_label(labels, seed).tobytes() for seed in range(20)}) == 20
