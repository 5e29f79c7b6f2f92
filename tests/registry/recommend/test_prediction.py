"""registry.recommend.prediction: conditioning and what is gained by an expert, against dense algebra and
integrals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references_recommend import condition_reference, improvement_reference, regret_reference

from registry.recommend.prediction import NUM_SCENARIOS, Prediction, condition, expected_regret, improvement


def make_prediction(seed=0, num_experts=5, level_sd=0.1):
    """Of experts whose errors go together."""
    generator = np.random.default_rng(seed)
    factor = 0.05 * generator.normal(size=(num_experts, num_experts + 1))
    return Prediction(generator.uniform(0.4, 0.9, num_experts), factor @ factor.T, level_sd)


def measure(prediction, places, seed=1):
    """Accuracies ``[M]`` measured of some experts, NaN of the others."""
    measured = np.full(len(prediction.mean), np.nan)
    measured[places] = np.random.default_rng(seed).uniform(0.4, 0.9, len(places))
    return measured


def whole_covariance(prediction):
    return prediction.covariance + prediction.level_sd**2


cases = st.tuples(
    st.integers(0, 10_000),
    st.integers(1, 8).flatmap(lambda size: st.lists(st.booleans(), min_size=size, max_size=size)),
    st.sampled_from([0.0, 0.01, 0.3]),
)


@pytest.mark.parametrize("known", [[2], [0, 3, 4], [0, 1, 2, 3, 4]], ids=["one", "three", "all"])
@pytest.mark.parametrize("noise_sd", [0.01, np.array([0.01, 0.02, 0.03, 0.1, 0.2])], ids=["one", "each"])
def test_condition_matches_dense_algebra(known, noise_sd):
    prediction = make_prediction()
    measured = measure(prediction, known)
    mean, covariance = condition_reference(prediction, measured, noise_sd)
    after = condition(prediction, measured, noise_sd)
    np.testing.assert_allclose(after.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(whole_covariance(after), covariance, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(after.sd, np.sqrt(np.diag(covariance)), rtol=1e-8)


def test_nothing_measured_changes_nothing():
    prediction = make_prediction()
    assert condition(prediction, np.full(5, np.nan), 0.01) is prediction


@given(cases)
@settings(deadline=None, max_examples=60)
def test_condition_leaves_a_covariance_and_less_doubt(case):
    seed, known, level_sd = case
    prediction = make_prediction(seed, len(known), level_sd)
    after = condition(prediction, measure(prediction, np.flatnonzero(known)), 0.01)
    assert np.linalg.eigvalsh(whole_covariance(after))[0] > -1e-9
    assert (after.sd <= prediction.sd + 1e-9).all()
    assert (after.sd[known] <= 0.01 + 1e-9).all()


@given(cases, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_two_steps_are_one_step(case, random):
    seed, known, level_sd = case
    prediction = make_prediction(seed, len(known), level_sd)
    measured = measure(prediction, np.flatnonzero(known))
    first = np.array([random.random() < 0.5 for _ in known])
    early, late = np.where(first, measured, np.nan), np.where(first, np.nan, measured)
    once, twice = (
        condition(prediction, measured, 0.01),
        condition(condition(prediction, early, 0.01), late, 0.01),
    )
    np.testing.assert_allclose(twice.mean, once.mean, atol=1e-7)
    np.testing.assert_allclose(whole_covariance(twice), whole_covariance(once), atol=1e-8)


@given(cases, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_order_of_experts_permutes_the_answer(case, random):
    seed, known, level_sd = case
    prediction = make_prediction(seed, len(known), level_sd)
    measured = measure(prediction, np.flatnonzero(known))
    order = np.array(random.sample(range(len(known)), len(known)))
    usual, permuted = (
        condition(prediction, measured, 0.01),
        condition(prediction.of(order), measured[order], 0.01),
    )
    np.testing.assert_allclose(permuted.mean, usual.mean[order], atol=1e-9)
    np.testing.assert_allclose(
        whole_covariance(permuted), whole_covariance(usual)[np.ix_(order, order)], atol=1e-10
    )
    np.testing.assert_allclose(
        improvement(permuted.mean - 0.7, permuted.sd), improvement(usual.mean - 0.7, usual.sd)[order], atol=1e-9
    )


def test_one_measurement_moves_the_level_of_all_and_those_alike_more():
    covariance = 0.05**2 * np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    prediction = Prediction(np.full(3, 0.6), covariance, 0.1)
    after = condition(prediction, np.array([0.8, np.nan, np.nan]), 0.01)
    assert after.mean[0] > after.mean[1] > after.mean[2] > 0.65
    assert after.sd[0] < after.sd[1] < after.sd[2] < prediction.sd[2]


@pytest.mark.parametrize("level_sd", [0.0, 0.3])
def test_expected_regret_matches_an_integral(level_sd):
    prediction = make_prediction(2, 3, level_sd)
    prediction = Prediction(np.array([0.7, 0.72, 0.66]), prediction.covariance, level_sd)
    regret, sd = expected_regret(prediction), np.sqrt(np.diag(prediction.covariance).max())
    # 256 draws and their mirrors: three standard errors of the mean of a maximum
    np.testing.assert_allclose(regret, regret_reference(prediction), atol=3 * sd / np.sqrt(NUM_SCENARIOS / 2))


def test_expected_regret_is_least_for_the_pick():
    prediction = make_prediction(3)
    regret = expected_regret(prediction)
    assert regret.min() > 0
    np.testing.assert_allclose(regret - regret.min(), prediction.mean.max() - prediction.mean, atol=1e-12)
    np.testing.assert_allclose(prediction.scenarios().mean(axis=0), prediction.mean, atol=1e-12)
    np.testing.assert_allclose(
        np.cov(prediction.scenarios().T), prediction.covariance, atol=0.3 * prediction.covariance.max()
    )


def test_expected_regret_of_certain_experts_is_their_gap():
    prediction = Prediction(np.array([0.9, 0.6]), np.zeros((2, 2)), 0.3)
    np.testing.assert_allclose(expected_regret(prediction), [0.0, 0.3], atol=1e-3)


@pytest.mark.parametrize("best", [0.3, 0.65, 0.95], ids=["below", "among", "above"])
def test_expected_improvement_matches_an_integral(best):
    prediction = make_prediction(4)
    np.testing.assert_allclose(
        improvement(prediction.mean - best, prediction.sd),
        improvement_reference(prediction, best),
        rtol=1e-6,
        atol=1e-10,
    )


def test_expected_improvement_of_a_certain_expert_is_its_gap():
    prediction = Prediction(np.array([0.9, 0.6]), np.zeros((2, 2)), 0.0)
    np.testing.assert_allclose(improvement(prediction.mean - 0.7, prediction.sd), [0.2, 0.0], atol=1e-9)


def test_prediction_of_some_experts_is_that_of_all_but_for_the_others():
    prediction = make_prediction(5)
    places = np.array([3, 0, 2])
    measured = measure(prediction, [0, 3])
    some, whole = (
        condition(prediction.of(places), measured[places], 0.01),
        condition(prediction, measured, 0.01),
    )
    np.testing.assert_allclose(some.mean, whole.mean[places], rtol=1e-9)
    np.testing.assert_allclose(some.sd, whole.sd[places], rtol=1e-8)
