"""indexer.heads.heads: the score of a head, on known logits and on what is held out of each kind of task."""

import re

import numpy as np
import pytest
from builders_heads import KINDS, blobs, many_classes, task
from sklearn.metrics import r2_score

from indexer.errors import TooFewSamplesError
from indexer.heads.heads import (
    LinearHead,
    choose_per_class,
    choose_quarter_per_label,
    fit_head,
    held_out_score,
    score_head,
)
from indexer.records import Kind


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


@pytest.mark.slow
def test_thousand_classes_of_two_samples_are_scored_on_one_of_each():
    features, labels = many_classes(1000, 64)
    score = held_out_score(features, labels, 0)
    assert 0.3 < score.accuracy < 0.6  # chance is a thousandth
    assert 0 < score.loss < np.log(1000)


@pytest.mark.parametrize("sizes", [[2, 2], [3, 9, 8], [40, 17]], ids=str)
def test_held_out_classes_are_scored_on_a_quarter_that_the_head_did_not_see(sizes: list[int]):
    features, labels = blobs(sizes)
    test = choose_per_class(labels, lambda count: max(1, count // 4), 3)
    head = fit_head(features[~test], labels[~test])
    assert held_out_score(features, labels, 3) == score_head(head, features[test], labels[test])


def test_held_out_labels_are_scored_on_a_stratified_quarter():
    features, labels = task("multi_label", num_samples=60)
    test = choose_quarter_per_label(labels, 3)
    head = fit_head(features[~test], labels[~test], "multi_label")
    found = held_out_score(features, labels, 3, "multi_label")
    assert found == score_head(head, features[test], labels[test])
    assert 0.4 < found.accuracy < 1
    assert 0 < found.loss < np.log(2)


def test_held_out_label_on_one_side_of_the_split_is_left_out():
    """Three samples cannot be put on two sides so that each pair of them is parted."""
    features, labels = task("multi_label", num_samples=40)
    triangle = np.zeros((40, 3), np.uint8)
    triangle[[0, 1], 0] = triangle[[1, 2], 1] = triangle[[0, 2], 2] = 1
    labels = np.column_stack([triangle, labels])
    test = choose_quarter_per_label(labels, 0)
    parted = [0 < labels[test, label].sum() < labels[:, label].sum() for label in range(6)]
    assert (sum(parted[:3]), sum(parted[3:])) == (2, 3)
    head = fit_head(features[~test], labels[~test][:, parted], "multi_label")
    expected = score_head(head, features[test], labels[test][:, parted])
    found = held_out_score(features, labels, 0, "multi_label")
    assert (found.accuracy, found.loss) == pytest.approx((expected.accuracy, expected.loss))


def test_held_out_labels_of_which_none_can_be_scored_are_refused():
    labels = np.array([[1, 0], [0, 1], [0, 0]], np.uint8)
    message = (
        "labels: no label has samples with it and without it for both sides of a split of 3 samples; add "
        "samples or raise max_samples"
    )
    with pytest.raises(TooFewSamplesError, match=f"^{re.escape(message)}$"):
        held_out_score(np.eye(3), labels, 0, "multi_label")


@pytest.mark.parametrize("num_samples", [4, 9, 60])
def test_held_out_targets_are_scored_on_a_quarter_in_units_of_the_rest(num_samples: int):
    features, labels = task("regression", num_samples=num_samples)
    test = choose_per_class(np.zeros(num_samples), lambda count: max(2, count // 4), 5)
    head = fit_head(features[~test], labels[~test], "regression")
    mean, deviation = labels[~test].astype(float).mean(axis=0), labels[~test].astype(float).std(axis=0)
    truth, guess = (labels[test] - mean) / deviation, head.logits(features[test])
    found = held_out_score(features, labels, 5, "regression")
    assert found.accuracy == pytest.approx(r2_score(truth, guess))
    assert found.accuracy == pytest.approx(r2_score(labels[test], guess * deviation + mean))
    loss = (np.log(2 * np.pi * head.variance) + (truth - guess) ** 2 / head.variance) / 2
    assert found.loss == pytest.approx(loss.mean())


def test_held_out_target_that_is_constant_in_the_rest_has_a_score_without_unit():
    features, labels = task("regression", num_samples=40)
    test = choose_per_class(np.zeros(40), lambda count: count // 4, 0)
    labels[:, 0] = np.where(test & (np.cumsum(test) < 4), 1, 0)
    found = held_out_score(features, labels, 0, "regression")
    assert np.isfinite([found.accuracy, found.loss]).all()
    again = held_out_score(features, labels.astype(np.float64) * [1e6, 1], 0, "regression")
    assert (again.accuracy, again.loss) == pytest.approx((found.accuracy, found.loss))


def test_held_out_regression_of_three_samples_is_refused():
    message = (
        "labels: a regression needs at least four samples, two to fit a head and two to score it, got 3; add "
        "samples or raise max_samples"
    )
    with pytest.raises(TooFewSamplesError, match=f"^{re.escape(message)}$"):
        held_out_score(np.eye(3), np.arange(3.0)[:, None], 0, "regression")


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_score_depends_on_the_seed_and_on_nothing_else(kind: Kind):
    features, labels = task(kind, num_samples=60)
    scores = [held_out_score(features, labels, seed, kind) for seed in (0, 1, 2, 0)]
    assert len({score.loss for score in scores}) == 3
    assert scores[0] == scores[3]


@pytest.mark.parametrize(("kind", "chance"), [("single_label", 1 / 3), ("multi_label", 0.3), ("regression", 0)])
def test_labels_without_relation_are_scored_as_chance(kind: Kind, chance: float):
    """Chance: a third of three classes, the mean frequency of three labels, nothing explained of targets."""
    features, labels = task(kind, num_samples=1200)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert held_out_score(features, shuffled, 0, kind).accuracy == pytest.approx(chance, abs=0.08)
