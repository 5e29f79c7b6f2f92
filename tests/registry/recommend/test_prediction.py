"""registry.recommend.prediction: conditioning and what is gained by an expert, against dense algebra and
integrals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references_recommend import condition_reference, improvement_reference, regret_reference

from registry.recommend.prediction import (
    NUM_SCENARIOS,
    QUANTILE,
    Prediction,
    condition,
    expected_regret,
    improvement,
)
from registry.recommend.results import from_logit


def make_prediction(seed=0, num_experts=5, level_sd=0.5):
    """Of experts whose errors go together."""
    generator = np.random.default_rng(seed)
    factor = 0.3 * generator.normal(size=(num_experts, num_experts + 1))
    nothing = np.full(num_experts, np.nan)
    logit = generator.uniform(-0.5, 2, num_experts)
    return Prediction(logit, factor @ factor.T, level_sd, np.full(num_experts, 2.0), nothing)


def measure(prediction, places, seed=1):
    """Accuracies ``[M]`` measured of some experts, NaN of the others."""
    measured = np.full(len(prediction.mean), np.nan)
    measured[places] = np.random.default_rng(seed).uniform(0.4, 0.9, len(places))
    return measured


cases = st.tuples(
    st.integers(0, 10_000),
    st.integers(1, 8).flatmap(lambda size: st.lists(st.booleans(), min_size=size, max_size=size)),
    st.sampled_from([0.0, 0.1, 1.0]),
)


@pytest.mark.parametrize("known", [[2], [0, 3, 4], [0, 1, 2, 3, 4]], ids=["one", "three", "all"])
@pytest.mark.parametrize("noise_sd", [0.01, np.array([0.01, 0.02, 0.03, 0.1, 0.2])], ids=["one", "each"])
@pytest.mark.parametrize("offset_sd", [0.0, 0.3])
def test_condition_matches_dense_algebra(known, noise_sd, offset_sd):
    prediction = make_prediction()
    measured = measure(prediction, known)
    logit, covariance = condition_reference(prediction, measured, noise_sd, offset_sd)
    after = condition(prediction, measured, noise_sd, offset_sd=offset_sd, exact=False)
    np.testing.assert_allclose(after.logit, logit, rtol=1e-7)
    np.testing.assert_allclose(after.covariance, covariance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(after.sd, np.sqrt(np.diag(covariance)), rtol=1e-6)
    assert np.isnan(after.measured).all()


def test_what_is_measured_in_the_asked_way_is_the_expectation_and_others_keep_their_order():
    prediction = make_prediction()
    prediction = replace(prediction, covariance=np.diag(np.diag(prediction.covariance)))
    measured = measure(prediction, [0, 3])
    exact = condition(prediction, measured)
    np.testing.assert_allclose(exact.mean[[0, 3]], measured[[0, 3]])
    np.testing.assert_array_equal(exact.measured, measured)
    others = [1, 2, 4]
    np.testing.assert_array_equal(np.argsort(exact.logit[others]), np.argsort(prediction.logit[others]))
    np.testing.assert_array_equal(exact.quantile, [QUANTILE, 2, 2, QUANTILE, 2])


def test_nothing_measured_changes_nothing():
    prediction = make_prediction()
    assert condition(prediction, np.full(5, np.nan), 0.01) is prediction


@given(cases)
@settings(deadline=None, max_examples=60)
def test_condition_leaves_a_covariance_and_less_doubt(case):
    seed, known, level_sd = case
    prediction = make_prediction(seed, len(known), level_sd)
    after = condition(prediction, measure(prediction, np.flatnonzero(known)), 0.01, exact=False)
    assert np.linalg.eigvalsh(after.covariance)[0] > -1e-8
    assert (after.sd <= prediction.sd + 1e-8).all()


@given(cases, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_two_steps_are_one_step_and_the_order_of_experts_does_not_matter(case, random):
    seed, known, level_sd = case
    prediction = make_prediction(seed, len(known), level_sd)
    measured = measure(prediction, np.flatnonzero(known))
    first = np.array([random.random() < 0.5 for _ in known])
    early, late = np.where(first, measured, np.nan), np.where(first, np.nan, measured)
    once = condition(prediction, measured, 0.01, exact=False)
    twice = condition(condition(prediction, early, 0.01, exact=False), late, 0.01, exact=False)
    np.testing.assert_allclose(twice.logit, once.logit, atol=1e-6)
    np.testing.assert_allclose(twice.sd, once.sd, atol=1e-5)
    order = np.array(random.sample(range(len(known)), len(known)))
    permuted = condition(prediction.of(order), measured[order], 0.01, exact=False)
    np.testing.assert_allclose(permuted.logit, once.logit[order], atol=1e-7)


def test_one_measurement_moves_the_level_of_all_and_those_alike_more():
    covariance = 0.3**2 * np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    prediction = Prediction(np.full(3, 0.4), covariance, 0.6, np.full(3, QUANTILE), np.full(3, np.nan))
    after = condition(prediction, np.array([0.8, np.nan, np.nan]), 0.01)
    assert after.mean[0] > after.mean[1] > after.mean[2] > prediction.mean[2] + 0.03
    assert after.sd[0] < after.sd[1] < after.sd[2] < prediction.sd[2]


@pytest.mark.parametrize(("gap", "wider"), [(0.05, False), (1.5, True)])
def test_results_far_apart_say_that_the_task_tells_experts_apart(gap, wider):
    logit = np.array([-0.3, 0.3, -0.6, 0.6])
    before = Prediction(logit, 0.04 * np.eye(4), 0.5, np.full(4, QUANTILE), np.full(4, np.nan))
    after = condition(before, np.append(from_logit(np.array([-gap, gap])), [np.nan, np.nan]))
    apart, was = after.logit[3] - after.logit[2], logit[3] - logit[2]
    assert (apart > 1.1 * was) if wider else (apart < 0.9 * was)
    narrow = condition(before, np.append(from_logit(np.array([-0.3, 0.3])), [np.nan, np.nan]))
    assert (after.sd[3] > narrow.sd[3]) == wider


def test_intervals_hold_on_tasks_of_any_spread():
    """Of experts not measured, after four others were, where spreads differ from task to task."""
    generator, covered = np.random.default_rng(0), []
    before = make_prediction(5, 8)
    factor = np.linalg.cholesky(before.covariance)
    for _ in range(200):
        spread = np.exp(0.5 * generator.standard_normal())
        centred = before.logit - before.logit.mean() + factor @ generator.standard_normal(8)
        truth = before.logit.mean() + before.level_sd * generator.standard_normal() + spread * centred
        observed = np.where(np.arange(8) < 4, from_logit(truth), np.nan)
        gauss = replace(before, quantile=np.full(8, QUANTILE))
        low, high = condition(gauss, observed, 0.002).interval
        covered.append(np.mean((low <= from_logit(truth))[4:] & (from_logit(truth) <= high)[4:]))
    assert 0.85 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("level_sd", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_expected_regret_matches_an_integral(level_sd):
    prediction = make_prediction(2, 3, level_sd)
    draws = prediction.scenarios()
    # 256 draws and their mirrors: three standard errors of the mean of a maximum
    error = 3 * draws.std(axis=0).max() / np.sqrt(NUM_SCENARIOS / 2)
    np.testing.assert_allclose(expected_regret(prediction), regret_reference(prediction), atol=error)


def test_expected_regret_is_least_for_the_pick_and_the_gap_where_all_is_certain():
    regret = expected_regret(make_prediction(3))
    assert regret.min() > 0
    assert regret.argmin() == make_prediction(3).logit.argmax()
    sure = Prediction(np.array([2.0, 0.4]), np.zeros((2, 2)), 0.3, np.ones(2), np.full(2, np.nan))
    np.testing.assert_allclose(expected_regret(sure), [0.0, np.subtract(*from_logit(sure.logit))], atol=1e-3)


@pytest.mark.parametrize("gap", [-0.3, 0.0, 0.3])
def test_expected_improvement_matches_an_integral(gap):
    gaps, sd = gap + np.linspace(-0.1, 0.1, 5), np.array([0.01, 0.05, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(improvement(gaps, sd), improvement_reference(gaps, sd), rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(improvement(np.array([0.2, -0.1]), np.zeros(2)), [0.2, 0.0], atol=1e-9)
