"""registry.recommend.calibration: against loops, and what it makes of errors of known origin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from references_recommend import expert_covariance_reference

from registry.recommend.calibration import CLIP, MAX_JUDGED, SHRINKAGES, estimate_covariance


def grouped_errors(seed, *, num_tasks=30, num_experts=8, together=0.9, missing=0.0):
    """Errors ``[T, M]`` of sd 1; the even experts err together, and so do the odd ones."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(num_tasks, 2))[:, np.arange(num_experts) % 2]
    own = generator.normal(size=(num_tasks, num_experts))
    errors = np.sqrt(together) * shared + np.sqrt(1 - together) * own
    errors[generator.random(errors.shape) < missing] = np.nan
    return errors


@pytest.mark.parametrize("together", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("missing", [0.0, 0.4], ids=["full", "gaps"])
def test_covariance_matches_loops(together, missing):
    errors = grouped_errors(1, num_tasks=14, num_experts=5, together=together, missing=missing)
    errors[3, 1] = 7.0
    scale, correlation = expert_covariance_reference(errors)
    found = estimate_covariance(errors)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-10)
    np.testing.assert_allclose(found.correlation, correlation, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        found.matrix, np.diag(scale) @ correlation @ np.diag(scale), rtol=1e-8, atol=1e-10
    )


def test_experts_that_err_together_are_found():
    correlation = estimate_covariance(grouped_errors(2, missing=0.2)).correlation
    group = np.arange(8) % 2
    same = (group[:, None] == group) & ~np.eye(8, dtype=bool)
    assert correlation[same].min() > 0.2
    assert correlation[same].min() > correlation[group[:, None] != group].max() + 0.1


def test_correlation_is_shrunk_by_how_little_it_tells():
    """The errors that repeat are shrunk least, those that do not most."""
    off = ~np.eye(8, dtype=bool)
    sample = [np.corrcoef(grouped_errors(3, together=t).T)[off] for t in (0.0, 0.95)]
    found = [estimate_covariance(grouped_errors(3, together=t)).correlation[off] for t in (0.0, 0.95)]
    kept = [np.abs(f).mean() / np.abs(s).mean() for f, s in zip(found, sample, strict=True)]
    assert kept[0] == pytest.approx(1 - max(SHRINKAGES), abs=0.1)
    assert kept[1] > kept[0] + 0.2


def test_how_badly_an_expert_failed_once_moves_nothing():
    errors = grouped_errors(4)
    errors[0, 0], errors[0, 2] = 1.5 * CLIP, -1.5 * CLIP
    once = estimate_covariance(errors)
    errors[0, 0] = 100 * CLIP
    again = estimate_covariance(errors)
    np.testing.assert_allclose(again.correlation, once.correlation, rtol=1e-12)
    np.testing.assert_allclose(again.scale, once.scale, rtol=1e-12)


@pytest.mark.parametrize("num_tasks", [0, 1, 2])
def test_too_few_tasks_tell_no_correlation(num_tasks):
    found = estimate_covariance(grouped_errors(5)[:num_tasks])
    np.testing.assert_array_equal(found.correlation, np.eye(8))
    assert (found.scale > 0).all()


def test_rows_of_one_result_tell_no_correlation():
    errors = np.full((20, 3), np.nan)
    errors[np.arange(20), np.arange(20) % 3] = 1.0
    np.testing.assert_array_equal(estimate_covariance(errors).correlation, np.eye(3))


def test_experts_never_known_together_have_no_correlation():
    errors = grouped_errors(6)
    errors[:15, 0] = errors[15:, 2] = np.nan
    assert estimate_covariance(errors).correlation[0, 2] == 0


def test_expert_without_errors_is_as_any_and_changes_nothing():
    errors = grouped_errors(8)
    alone, found = estimate_covariance(errors), estimate_covariance(np.insert(errors, 3, np.nan, axis=1))
    others = np.delete(np.arange(9), 3)
    np.testing.assert_allclose(found.matrix[np.ix_(others, others)], alone.matrix, rtol=1e-12)
    np.testing.assert_array_equal(found.matrix[3], np.eye(9)[3])


def test_more_tasks_than_are_judged_all_count():
    errors = grouped_errors(7, num_tasks=2 * MAX_JUDGED + 5, num_experts=4)
    most = np.corrcoef(errors.T)[0, 2]
    assert estimate_covariance(errors).correlation[0, 2] == pytest.approx((1 - min(SHRINKAGES)) * most, abs=0.1)


error = st.one_of(st.floats(-10, 10), st.just(np.nan))


@given(arrays(np.float64, st.tuples(st.integers(0, 8), st.just(5)), elements=error))
@settings(deadline=None, max_examples=80)
def test_any_errors_give_a_covariance(errors):
    found = estimate_covariance(errors)
    assert (found.scale > 0).all()
    np.testing.assert_array_equal(np.diag(found.correlation), 1)
    assert np.linalg.eigvalsh(found.correlation)[0] >= min(SHRINKAGES) - 1e-9


@given(st.integers(0, 1000), st.permutations(range(8)))
@settings(deadline=None, max_examples=20)
def test_order_of_experts_and_tasks_does_not_matter(seed, order):
    errors = grouped_errors(seed, missing=0.3)
    permuted = estimate_covariance(errors[::-1, order])
    np.testing.assert_allclose(
        permuted.matrix, estimate_covariance(errors).matrix[np.ix_(order, order)], rtol=1e-9, atol=1e-12
    )
