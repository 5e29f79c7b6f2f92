"""registry.recommend.prior: the same question gets the same fit, any other its own."""

import numpy as np
import pytest

from registry.recommend import prior
from registry.recommend.prior import KEPT, fit_prior, kept_prior
from registry.recommend.results import ResultTable


@pytest.fixture(autouse=True)
def empty():
    prior.forget()
    yield
    prior.forget()


def question(seed=0, **changes):
    generator = np.random.default_rng(seed)
    between = generator.uniform(size=(6, 6))
    parts = {
        "tasks": tuple("abcdef"),
        "experts": tuple("xyz"),
        "accuracy": generator.uniform(size=(6, 3)),
        "reference": None,
        "between": {"task": between + between.T},
        "source": generator.uniform(size=(3, 6)),
    }
    parts |= changes
    table = ResultTable(parts["tasks"], parts["experts"], parts["accuracy"], parts["reference"])
    return table, parts["between"], parts["source"]


def test_the_same_again_is_not_fitted_again_and_is_what_a_fit_gives():
    first = kept_prior(*question())
    assert kept_prior(*question()) is first
    np.testing.assert_array_equal(first.left_out, fit_prior(*question()).left_out)


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": tuple("abcdeg")},
        {"experts": tuple("xyv")},
        {"accuracy": np.full((6, 3), 0.5)},
        {"reference": np.arange(6) > 0},
        {"between": {}},
        {"between": {"domain": np.ones((6, 6))}},
        {"source": np.zeros((3, 6))},
    ],
    ids=str,
)
def test_whatever_changes_makes_another_fit(changes):
    assert kept_prior(*question(**changes)) is not kept_prior(*question())


def test_only_the_last_few_are_kept():
    first = kept_prior(*question(0))
    for seed in range(1, KEPT):
        kept_prior(*question(seed))
    assert kept_prior(*question(0)) is first  # and so is the last used
    kept_prior(*question(KEPT))
    assert kept_prior(*question(0)) is first
    assert len(prior._PRIORS) == KEPT
