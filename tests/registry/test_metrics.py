"""Metrics: which way is better, which values there are, and one scale for all."""

import math
import re

import pytest
from builders import make_result
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRecordError
from registry.names import ERROR_SHARES, LOSSES, MAY_BE_NEGATIVE, SHARES, check_value, is_lower_better

KNOWN = (*SHARES, *ERROR_SHARES, *LOSSES)


def test_catalogues_do_not_overlap():
    assert len(set(KNOWN)) == len(KNOWN)
    assert set(SHARES) > MAY_BE_NEGATIVE


@given(metric=st.sampled_from(KNOWN), values=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_scores_keep_the_order_of_better(metric, values):
    worse, better = sorted(values, reverse=is_lower_better(metric))
    scores = [make_result("a", "m.x", value, metric=metric).score for value in (worse, better)]
    assert 0 <= scores[0] <= scores[1] <= 1


def test_an_error_rate_is_one_minus_an_accuracy():
    assert make_result("a", "m.x", 0.02, metric="error_rate").score == pytest.approx(0.98)
    assert make_result("a", "m.x", -0.2, metric="r2").score == 0
    assert make_result("a", "m.x", 2.0, metric="loss").score == pytest.approx(math.exp(-2))


def test_an_unknown_metric_asks_which_way_it_goes():
    with pytest.raises(
        InvalidRecordError,
        match=r"^result of m\.x on a: metric 'goodness' is not known: say whether lower or higher",
    ):
        make_result("a", "m.x", 0.5, metric="goodness")
    assert make_result("a", "m.x", 0.5, metric="goodness", lower_is_better=False).score == 0.5
    assert make_result("a", "m.x", 3.0, metric="badness", lower_is_better=True).score < 0.1


@pytest.mark.parametrize(
    ("metric", "value", "sentence"),
    [
        ("accuracy", 95.3, "accuracy must be from 0 to 1, got 95.3; if it is in per cent, write 0.953"),
        ("accuracy", math.nan, "accuracy must be from 0 to 1, got nan"),
        ("r2", -1.5, "r2 must be from -1 to 1, got -1.5"),
        ("error_rate", 1.2, "error_rate must be from 0 to 1, got 1.2"),
        ("loss", -0.1, "loss must be a number from 0 upwards, got -0.1"),
        ("loss", math.inf, "loss must be a number from 0 upwards, got inf"),
    ],
)
def test_values_out_of_range_say_what_was_expected(metric, value, sentence):
    with pytest.raises(InvalidRecordError, match=f"^{re.escape(sentence)}$"):
        check_value(metric, value, lower_is_better=is_lower_better(metric))
