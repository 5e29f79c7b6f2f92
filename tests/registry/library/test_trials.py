"""registry.recommend.trials, trial_costs and trial_models: which expert is tried next, and when trials stop."""

import math
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
from builders import make_expert
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from registry.errors import InvalidQueryError
from registry.recommend.prediction import Prediction, condition
from registry.recommend.trial_costs import (
    FEATURE_SECONDS_PER_FLOP,
    LOADING_SECONDS_PER_PARAM,
    UNKNOWN_SECONDS,
    CostModel,
)
from registry.recommend.trials import (
    MAX_FAILURES,
    TRIAL_SD,
    TrialEvidence,
    TrialFailedError,
    TrialPlan,
    choose,
    fold_in,
    improvements,
    try_experts,
)

MEAN = np.array([0.5, 0.7, 0.6, 0.65])
BEFORE = Prediction.of_accuracies(MEAN)
NOTHING = np.zeros(4, dtype=bool)
NAMES = tuple("abcd")


@dataclass
class Machine:
    """Experts of known accuracy on a machine whose clock they move."""

    accuracy: tuple[float | None, ...] = (0.8, 0.8, 0.8, 0.8)
    seconds: float = 10.0
    failing: str = ""
    now: float = 100.0
    ran: list[str] = field(default_factory=list)

    def run(self, place):
        self.ran.append(NAMES[place])
        if NAMES[place] in self.failing:
            raise TrialFailedError(f"{NAMES[place]} is broken")
        self.now += self.seconds
        return TrialEvidence(place, self.accuracy[place])

    def tries(self, plan, *, untried=~NOTHING, before=BEFORE, **options):
        options = {"run": self.run, "clock": lambda: self.now, **options}
        return try_experts(NAMES, before, untried, plan=plan, **options)


# Choosing


gains = arrays(np.float64, 6, elements=st.floats(0, 1))
times = arrays(np.float64, 6, elements=st.floats(1e-3, 1e3))
masks = arrays(np.bool_, 6)


@given(gains, st.none() | times, masks, st.floats(0, 1), st.floats(0, 1e3))
def test_choose_is_the_best_of_those_allowed_per_second_with_a_budget(gain, seconds, untried, least, left):
    """Against a loop."""
    best, worth = None, -1.0
    for place in range(6):
        allowed = untried[place] and gain[place] >= least
        value = gain[place]
        if seconds is not None:
            allowed = allowed and seconds[place] <= left
            value = gain[place] / seconds[place]
        if allowed and value > worth:
            best, worth = place, value
    assert choose(gain, untried, seconds=seconds, stop_below=least, seconds_left=left) == best


def test_improvement_counts_from_the_best_measured_and_without_what_all_have_in_common():
    measured = np.array([False, True, False, False])
    gain = improvements(BEFORE, measured)
    common = Prediction(BEFORE.logit, BEFORE.covariance + 0.3, 0.0, BEFORE.quantile, BEFORE.measured)
    np.testing.assert_allclose(improvements(common, measured), gain, atol=1e-9)
    assert gain[1] == pytest.approx(0, abs=1e-9)  # over itself
    assert gain[3] > gain[2] > gain[0] > 0


# Going on and stopping


def test_trials_go_by_what_those_before_told():
    machine, seen = Machine(), []
    outcome = machine.tries(TrialPlan(2), on_trial=lambda *told: seen.append(told))
    assert list(zip(outcome.evidence, outcome.expected, strict=True)) == seen
    first, second = outcome.evidence
    gain = improvements(BEFORE, NOTHING)
    assert first.place == gain.argmax()
    assert outcome.expected[0] == (pytest.approx(MEAN[first.place]), pytest.approx(gain.max()))
    between = fold_in(BEFORE, [first])
    assert outcome.expected[1][0] == pytest.approx(between.mean[second.place])
    np.testing.assert_array_equal(outcome.prediction.logit, fold_in(BEFORE, outcome.evidence).logit)
    assert outcome.warnings == ()


def test_every_expert_is_tried_once_and_none_that_may_not_be():
    machine, untried = Machine(), np.array([False, True, False, True])
    outcome = machine.tries(TrialPlan(9), untried=untried)
    assert sorted(machine.ran) == ["b", "d"]
    assert outcome.warnings == ("stopped after 2 of 9 trials: no other expert is left to try",)
    assert untried.tolist() == [False, True, False, True]  # the caller's stays as it is


def test_it_stops_where_little_is_to_be_gained():
    outcome = Machine(accuracy=(0.99,) * 4).tries(TrialPlan(4, stop_below=0.03))
    done = len(outcome.evidence)
    assert 1 <= done < 4
    reason = r"no other is expected to improve by 0\.03, the most is (0\.\d+|\d(\.\d+)?e-\d+)"
    assert re.fullmatch(rf"stopped after {done} of 4 trials: {reason}", outcome.warnings[0])


@given(st.integers(1, 100), st.integers(1, 500))
def test_no_trial_begins_that_would_pass_the_budget(seconds, budget):
    machine = Machine(seconds=seconds)
    machine.tries(TrialPlan(4, time_budget=budget), seconds=lambda: np.full(4, seconds))
    assert len(machine.ran) == min(4, budget // seconds)


def test_seconds_count_only_with_a_budget():
    seconds = np.array([1.0, 1e4, 1e4, 1e4])
    for plan, first in ((TrialPlan(1), "b"), (TrialPlan(1, time_budget=1e6), "a")):
        machine = Machine()
        machine.tries(plan, seconds=lambda: seconds)
        assert machine.ran == [first]


def test_a_failing_expert_is_told_and_does_not_count():
    machine = Machine(failing="b")
    outcome = machine.tries(TrialPlan(3))
    assert sorted(machine.ran) == list(NAMES)
    assert len(outcome.evidence) == 3
    assert outcome.warnings == ("b could not be tried: b is broken",)


def test_it_gives_up_where_all_fail():
    def run(place):
        raise TrialFailedError("broken")

    before = Prediction.of_accuracies(np.full(50, 0.5))
    names = [str(number) for number in range(50)]
    outcome = try_experts(names, before, np.ones(50, bool), plan=TrialPlan(3), run=run)
    assert len(outcome.warnings) == MAX_FAILURES + 1
    assert outcome.warnings[-1] == f"stopped after 0 of 3 trials: {MAX_FAILURES} experts failed"
    assert outcome.prediction is before


@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_interrupt_leaves_what_is_done(done):
    machine = Machine()

    def run(place):
        if len(machine.ran) == done:
            raise KeyboardInterrupt("pressed")
        return machine.run(place)

    if not done:
        with pytest.raises(KeyboardInterrupt, match="pressed"):
            machine.tries(TrialPlan(4), run=run)
        return
    outcome = machine.tries(TrialPlan(4), run=run)
    assert [NAMES[trial.place] for trial in outcome.evidence] == machine.ran
    assert outcome.warnings == (f"stopped after {done} of 4 trials: interrupted",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_trials": -1}, "the number of trials must be 0 or more, got -1"),
        ({"num_trials": 1, "time_budget": 0}, "the time budget must be above 0 seconds, got 0"),
        ({"num_trials": 1, "time_budget": math.nan}, "the time budget must be above 0 seconds, got nan"),
        ({"num_trials": 1, "stop_below": -0.1}, "the gain to stop below must be from 0 to 1, got -0.1"),
        ({"num_trials": 1, "stop_below": math.nan}, "the gain to stop below must be from 0 to 1, got nan"),
        (
            {"time_budget": 5, "stop_below": 0.0},
            "time budget and gain to stop below would change nothing without trials; say how many to make",
        ),
    ],
    ids=str,
)
def test_a_plan_that_makes_none_is_refused(values, message):
    with pytest.raises(InvalidQueryError, match=f"^{re.escape(message)}$"):
        TrialPlan(**values)


# Costs


def test_costs_begin_with_a_guess():
    expert = make_expert(num_params=10**8, flops=10**9)
    expected = LOADING_SECONDS_PER_PARAM * 1e8 + FEATURE_SECONDS_PER_FLOP * 1e9 * 50
    np.testing.assert_allclose(CostModel(50).predict([expert]), expected)


def test_costs_learn_the_speed_of_the_machine():
    """Ten times slower to load, half as fast to compute, for any expert and number of images."""
    costs = CostModel(50)
    slow, fast = 10 * LOADING_SECONDS_PER_PARAM, 2 * FEATURE_SECONDS_PER_FLOP
    for size in (1, 2, 3):
        expert = make_expert(num_params=size * 10**10, flops=size * 10**11)
        costs = costs.learn(
            expert,
            num_images=200,
            loading_seconds=slow * expert.num_params,
            feature_seconds=fast * expert.flops * 200,
        )
    new = make_expert(num_params=10**9, flops=10**10)
    expected = slow * 1e9 + fast * 1e10 * 200
    np.testing.assert_allclose(costs.predict([new]), expected, rtol=0.02)


def test_features_from_the_cache_teach_nothing_of_computing():
    before = CostModel(50)
    after = before.learn(make_expert(), num_images=50, loading_seconds=3.0, feature_seconds=None)
    assert after.seconds_per_flop == before.seconds_per_flop
    assert after.seconds_per_param > before.seconds_per_param


def test_what_is_not_known_costs_as_much_as_the_median():
    known = [make_expert(str(size), num_params=size, flops=size) for size in (10**6, 10**9, 10**8)]
    unknown = [make_expert("x", num_params=None), make_expert("y", flops=None)]
    seconds = CostModel(50).predict([*known, *unknown])
    assert seconds[3] == seconds[4] == np.median(seconds[:3])
    assert CostModel(50).predict(unknown).tolist() == [UNKNOWN_SECONDS] * 2
    assert CostModel(50).learn(unknown[0], num_images=9, loading_seconds=1, feature_seconds=1).num_images == 9


# Evidence


def test_an_accuracy_is_what_was_measured_whatever_the_order():
    measured = np.array([np.nan, 0.9, np.nan, 0.4])
    expected = condition(BEFORE, measured, TRIAL_SD)
    after = fold_in(BEFORE, [TrialEvidence(3, 0.4), TrialEvidence(1, 0.9)])
    np.testing.assert_allclose(after.logit, expected.logit)
    np.testing.assert_allclose(after.covariance, expected.covariance)
    np.testing.assert_allclose(after.mean[[1, 3]], [0.9, 0.4])
    assert fold_in(BEFORE, []) is BEFORE


def test_scores_of_one_expert_compare_it_with_none():
    scores = {"linear_probe": 0.2, "linear_fit": 2.0, "knn": 0.2}
    after = fold_in(BEFORE, [TrialEvidence(0, None, TRIAL_SD, scores)])
    np.testing.assert_array_equal(after.logit, BEFORE.logit)
    assert np.isnan(after.measured).all()
