"""registry.recommend.trials, trial_costs, trial_evidence: which expert is tried next, and when trials stop."""

import math
import re
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from builders import make_expert
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from registry.errors import InvalidQueryError
from registry.recommend.prediction import Prediction, condition
from registry.recommend.trials import (
    CALIBRATIONS,
    FEATURE_SECONDS_PER_FLOP,
    LOADING_SECONDS_PER_PARAM,
    MAX_FAILURES,
    OFFSET_SD,
    TRIAL_SD,
    UNKNOWN_SECONDS,
    CostModel,
    TrialEvidence,
    TrialFailedError,
    TrialPlan,
    TrialRun,
    Tried,
    choose,
    fold_in,
    improvements,
    try_experts,
)

MEAN = np.array([0.5, 0.7, 0.6, 0.65])
PRIOR = Prediction(MEAN, np.diag([0.2, 0.1, 0.1, 0.02]) ** 2, 0.2)
EXPERTS = [make_expert(f"{letter}.w") for letter in "abcd"]
NOTHING = np.zeros(4, dtype=bool)


@dataclass
class Machine:
    """Experts of known accuracy on a machine whose clock they move."""

    accuracy: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys("abcd", 0.8))
    seconds: float = 10.0
    failing: tuple[str, ...] = ()
    now: float = 100.0
    ran: list[str] = field(default_factory=list)

    def run(self, expert):
        letter = expert.name[0]
        self.ran.append(letter)
        if letter in self.failing:
            raise TrialFailedError(f"{letter} is broken")
        self.now += self.seconds
        return TrialRun({"logme": 0.5}, self.accuracy[letter], 100, 1.0, self.seconds - 1)

    def tries(
        self, plan, experts=EXPERTS, prediction=PRIOR, untried=None, measured=NOTHING, **options
    ) -> Tried:
        untried = np.ones(len(experts), dtype=bool) if untried is None else untried
        return try_experts(
            experts,
            prediction,
            untried,
            measured,
            plan=plan,
            run=self.run,
            costs=CostModel(100),
            clock=lambda: self.now,
            **options,
        )


# Choosing


gains = arrays(np.float64, 6, elements=st.floats(0, 1))
times = arrays(np.float64, 6, elements=st.floats(1e-3, 1e3))
masks = arrays(np.bool_, 6)


@given(gains, times, masks, st.floats(0, 1), st.floats(0, 1e3))
def test_choose_is_the_best_per_second_of_those_allowed(gain, seconds, untried, stop_below, left):
    """Against a loop."""
    best, rate = None, -1.0
    for place in range(6):
        allowed = untried[place] and gain[place] >= stop_below and seconds[place] <= left
        if allowed and gain[place] / seconds[place] > rate:
            best, rate = place, gain[place] / seconds[place]
    assert choose(gain, seconds, untried, stop_below=stop_below, seconds_left=left) == best


@given(gains, times, st.permutations(range(6)))
def test_choose_does_not_depend_on_the_order(gain, seconds, order):
    everyone, order = np.ones(6, dtype=bool), np.array(order)
    first, other = choose(gain, seconds, everyone), choose(gain[order], seconds[order], everyone)
    rate = gain / seconds
    assert rate[first] == rate[order[other]]


def test_improvement_counts_from_the_best_measured_and_without_the_level():
    gain = improvements(PRIOR, NOTHING)
    np.testing.assert_array_equal(gain, improvements(Prediction(MEAN, PRIOR.covariance, 0.0), NOTHING))
    assert gain[1] == pytest.approx(0.1 / math.sqrt(2 * math.pi))  # the best itself: half of a normal
    assert gain.argmin() == 3  # sure, and below the best
    measured = np.array([False, True, False, False])
    over_the_measured = improvements(PRIOR, measured)
    common = Prediction(MEAN, PRIOR.covariance + 0.3, 0.0)  # an error of all alike decides nothing
    np.testing.assert_allclose(improvements(common, measured), over_the_measured, atol=1e-9)
    assert over_the_measured[1] == pytest.approx(0, abs=1e-9)  # over itself


# Going on and stopping


def test_trials_are_told_as_they_were_expected_and_found():
    machine, seen = Machine(), []
    tried = machine.tries(TrialPlan(2), on_trial=seen.append)
    first, second = tried.trials
    assert seen == [first, second]
    assert [first.expert[0], second.expert[0]] == machine.ran
    place = "abcd".index(machine.ran[0])
    assert first.expected_accuracy == MEAN[place]
    assert first.expected_improvement == improvements(PRIOR, NOTHING)[place]
    assert (first.found.accuracy, first.found.scores, first.found.seconds) == (0.8, {"logme": 0.5}, 10.0)
    known = fold_in(PRIOR, [TrialEvidence(place, {"logme": 0.5}, 0.8)])
    assert second.expected_accuracy == pytest.approx(known.mean["abcd".index(machine.ran[1])])
    assert tried.warnings == ()
    places = ["abcd".index(letter) for letter in machine.ran]
    expected = fold_in(PRIOR, [TrialEvidence(place, {"logme": 0.5}, 0.8) for place in places])
    np.testing.assert_allclose(tried.prediction.mean, expected.mean)


def test_a_cheap_expert_goes_before_a_slightly_better_one():
    experts = [make_expert("a.w", flops=10**12), make_expert("b.w", flops=10**7)]
    prediction = Prediction(np.array([0.71, 0.7]), np.eye(2) * 0.1**2, 0.1)
    machine = Machine()
    machine.tries(TrialPlan(1), experts, prediction, measured=NOTHING[:2])
    assert machine.ran == ["b"]


def test_every_expert_is_tried_once_and_then_it_says_so():
    machine = Machine()
    tried = machine.tries(TrialPlan(9))
    assert sorted(machine.ran) == list("abcd")
    assert tried.warnings == ("stopped after 4 of 9 trials: no other expert is left to try",)


def test_what_is_measured_or_not_allowed_is_not_tried():
    machine = Machine()
    measured = np.array([True, False, False, False])
    machine.tries(TrialPlan(9), untried=np.array([False, True, False, True]), measured=measured)
    assert sorted(machine.ran) == ["b", "d"]


def test_it_stops_where_little_is_to_be_gained():
    machine = Machine(accuracy=dict.fromkeys("abcd", 0.99))
    tried = machine.tries(TrialPlan(4, stop_below=0.03))
    assert 1 <= len(tried.trials) < 4
    reason = r"no other is expected to improve by 0\.03, the most is (0\.\d+|\de-\d+)"
    assert re.fullmatch(rf"stopped after {len(tried.trials)} of 4 trials: {reason}", tried.warnings[0])
    assert machine.tries(TrialPlan(4, stop_below=1)).trials == ()


@settings(max_examples=50)
@given(st.floats(1, 100), st.floats(1, 300))
def test_no_trial_begins_that_would_pass_the_budget(seconds, budget):
    """Once the speed is known, which every expert here has alike."""
    machine = Machine(seconds=seconds)
    tried = machine.tries(TrialPlan(4, time_budget=budget))
    costs, spent = CostModel(100), 0.0
    for letter in machine.ran:
        expert = EXPERTS["abcd".index(letter)]
        assert spent + costs.predict([expert])[0] <= budget
        costs = costs.learn(expert, num_images=100, loading_seconds=1.0, feature_seconds=seconds - 1)
        spent += seconds
    if len(tried.trials) < 4:
        assert spent + costs.predict(EXPERTS)[0] > budget
        reason = f"the next would pass the time budget of {budget:g} seconds"
        assert tried.warnings == (f"stopped after {len(tried.trials)} of 4 trials: {reason}",)


def test_within_the_budget_a_cheaper_expert_takes_the_place_of_a_dear_one():
    experts = [make_expert("a.w", flops=10**14), make_expert("b.w", flops=10**6)]
    prediction = Prediction(np.array([0.9, 0.1]), np.eye(2) * 1e-4, 0.1)
    machine = Machine()
    machine.tries(TrialPlan(2, time_budget=30), experts, prediction, measured=NOTHING[:2])
    assert machine.ran == ["b"]


def test_a_failing_expert_is_told_and_does_not_count():
    machine, stages = Machine(failing=("b",)), []
    tried = machine.tries(TrialPlan(3), progress=lambda *stage: stages.append(stage))
    assert stages == [("trials", done, 3) for done in range(4)]
    assert len(tried.trials) == 3
    assert tried.warnings == ("b.w could not be tried: b is broken",)


def test_it_gives_up_where_all_fail():
    experts = [make_expert(f"a.{number}") for number in range(50)]
    prediction = Prediction(np.full(50, 0.5), np.eye(50) * 0.1**2, 0.1)
    machine = Machine(failing=("a",))
    tried = machine.tries(TrialPlan(3), experts, prediction, measured=np.zeros(50, dtype=bool))
    assert len(machine.ran) == MAX_FAILURES == len(tried.warnings) - 1
    assert tried.warnings[-1] == f"stopped after 0 of 3 trials: {MAX_FAILURES} experts failed"
    assert tried.prediction is prediction


def test_a_caution_is_told_after_failures_and_its_scores_count():
    machine = Machine(failing=("b",), accuracy={"a": None, "c": 0.8, "d": None})

    def run(expert):
        found = machine.run(expert)
        return replace(found, caution="no accuracy" if found.accuracy is None else "")

    options = {"plan": TrialPlan(4), "run": run, "costs": CostModel(100), "clock": lambda: machine.now}
    tried = try_experts(EXPERTS, PRIOR, ~NOTHING, NOTHING, **options)
    assert len(tried.trials) == 3
    told = [f"{it.expert}: no accuracy" for it in tried.trials if it.found.accuracy is None]
    assert list(tried.warnings[:-1]) == ["b.w could not be tried: b is broken", *told]
    assert tried.warnings[-1] == "stopped after 3 of 4 trials: no other expert is left to try"


@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_interrupt_leaves_what_is_done(done):
    machine = Machine()

    def run(expert):
        if len(machine.ran) == done:
            raise KeyboardInterrupt("pressed")
        return Machine.run(machine, expert)

    options = {"plan": TrialPlan(4), "run": run, "costs": CostModel(100), "clock": lambda: machine.now}
    if not done:
        with pytest.raises(KeyboardInterrupt, match="pressed"):
            try_experts(EXPERTS, PRIOR, ~NOTHING, NOTHING, **options)
        return
    tried = try_experts(EXPERTS, PRIOR, ~NOTHING, NOTHING, **options)
    assert [trial.expert[0] for trial in tried.trials] == machine.ran
    assert len(machine.ran) == done
    assert tried.warnings == (f"stopped after {done} of 4 trials: interrupted",)


def test_the_masks_of_the_caller_stay_as_they_are():
    untried, measured = ~NOTHING, NOTHING.copy()
    Machine().tries(TrialPlan(2), untried=untried, measured=measured)
    assert untried.all()
    assert not measured.any()


def test_scores_without_an_accuracy_compare_experts_and_it_is_said_so():
    machine = Machine(accuracy=dict.fromkeys("abcd"))
    tried = machine.tries(TrialPlan(2))
    places = ["abcd".index(letter) for letter in machine.ran]
    expected = fold_in(PRIOR, [TrialEvidence(place, {"logme": 0.5}, None) for place in places])
    np.testing.assert_allclose(tried.prediction.mean, expected.mean)
    assert "say nothing of how well these do" in tried.warnings[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_trials": -1}, "the number of trials must be 0 or more, got -1"),
        ({"num_trials": 1, "time_budget": 0}, "the time budget must be above 0 seconds, got 0"),
        ({"num_trials": 1, "time_budget": math.nan}, "the time budget must be above 0 seconds, got nan"),
        ({"num_trials": 1, "stop_below": -0.1}, "the gain to stop below must be from 0 to 1, got -0.1"),
        ({"num_trials": 1, "stop_below": math.nan}, "the gain to stop below must be from 0 to 1, got nan"),
        ({"record": True}, "record would change nothing without trials; say how many to make"),
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


def test_an_accuracy_is_a_noisy_observation():
    measured = np.array([np.nan, 0.9, np.nan, 0.4])
    expected = condition(PRIOR, measured, TRIAL_SD)
    found = fold_in(PRIOR, [TrialEvidence(3, {}, 0.4), TrialEvidence(1, {}, 0.9)])
    np.testing.assert_allclose(found.mean, expected.mean)
    np.testing.assert_allclose(found.covariance, expected.covariance)
    assert fold_in(PRIOR, []) is PRIOR


def test_scores_compare_experts_and_say_nothing_of_how_well_they_do():
    def found(shift):
        low, high = {"logme": shift - 1.0}, {"logme": shift - 0.9}
        return fold_in(PRIOR, [TrialEvidence(1, low, None), TrialEvidence(2, high, None)]).mean

    np.testing.assert_allclose(found(0.0), found(0.05), atol=5e-3)
    before, after = PRIOR.mean[2] - PRIOR.mean[1], found(0.0)[2] - found(0.0)[1]
    assert before < after < CALIBRATIONS[1].weights["logme"] * 0.1
    assert fold_in(PRIOR, [TrialEvidence(0, {"logme": 1.0}, None)]) is PRIOR  # one expert compares with none


def test_the_first_calibration_that_all_trials_allow_is_used():
    scores = {"logme": -1.0, "linear_probe": 0.5, "knn": 0.4}
    better = {name: value + 0.1 for name, value in scores.items()}
    both = fold_in(PRIOR, [TrialEvidence(1, scores, None), TrialEvidence(2, better, None)])
    alone = fold_in(PRIOR, [TrialEvidence(1, {"logme": -1.0}, None), TrialEvidence(2, better, None)])
    for found, calibration in zip((both, alone), CALIBRATIONS, strict=True):
        composite = np.full(4, np.nan)
        composite[1] = sum(weight * scores[name] for name, weight in calibration.weights.items())
        composite[2] = sum(weight * better[name] for name, weight in calibration.weights.items())
        expected = condition(PRIOR, composite, calibration.sd, offset_sd=OFFSET_SD)
        np.testing.assert_allclose(found.mean, expected.mean)
