"""registry.recommend.results: levels, spreads and standings against one dense least-squares problem."""

import numpy as np
from references_recommend import normalise_reference

from registry.recommend.results import normalise


def test_normalise_matches_least_squares():
    generator = np.random.default_rng(2)
    accuracy = generator.uniform(0.3, 0.9, (8, 1)) + generator.normal(0, 0.05, (8, 7))
    accuracy[generator.random(accuracy.shape) < 0.4] = np.nan
    level, spread, z = normalise_reference(accuracy)
    parts = normalise(accuracy, sweeps=1000, tolerance=1e-14)
    np.testing.assert_allclose(parts.level, level, atol=1e-8)
    np.testing.assert_allclose(parts.spread, spread, rtol=1e-12)
    np.testing.assert_allclose(parts.z[parts.mask], z[parts.mask], atol=1e-6)


def test_normalise_does_not_blame_experts_for_a_row_of_good_ones():
    accuracy = np.full((4, 6), np.nan)
    accuracy[:3] = [0.9, 0.88, 0.7, 0.6, 0.5, 0.4]
    accuracy[3, :2] = [0.9, 0.88]
    first, second = normalise(accuracy).z[3, :2]
    assert first > 0.4
    assert second > 0.4
