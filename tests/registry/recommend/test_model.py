"""Parts of the model: measurements, monotonicity, few tasks, trials, scores on noise."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidQueryError
from registry.recommend.facts import ExpertFacts, architecture_of, facts_of, family_of
from registry.recommend.gaussian_process import RowKernel, RowProcess
from registry.recommend.levels import TaskFacts
from registry.recommend.prediction import Prediction, condition, expected_regret, shielded
from registry.recommend.prior import Asked, fit_prior
from registry.recommend.results import Table, gather, to_logit
from registry.recommend.trials import (
    TrialEvidence,
    TrialFailedError,
    TrialPlan,
    choose,
    fold_in,
    improvements,
    try_experts,
)
from registry.scores.trial_scores import trial_scores
from registry.wording import describe_way

WAY = ("accuracy", "linear_probe_20shot")


def world(num_tasks: int, seed: int, num_experts: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies ``[T, M]`` of experts that differ, and of one more task ``[M]``."""
    generator = np.random.default_rng(seed)
    standing = 0.5 * generator.standard_normal(num_experts)
    level = generator.standard_normal((num_tasks + 1, 1))
    logits = level + standing + 0.4 * generator.standard_normal((num_tasks + 1, num_experts))
    accuracy = 1 / (1 + np.exp(-logits))
    return accuracy[:-1], accuracy[-1]


def predict(accuracy: np.ndarray, way: tuple[str, str] = WAY) -> Prediction:
    experts = [ExpertFacts(f"e{i}") for i in range(accuracy.shape[1])]
    tasks = tuple(f"t{i}" for i in range(len(accuracy)))
    table = Table(tasks, (WAY,) * len(tasks), tuple(it.name for it in experts), accuracy)
    prior = fit_prior(table, experts, {name: TaskFacts(0.7, 7, 700) for name in tasks})
    asked = Asked(way, TaskFacts(0.7, 7, 700), {}, np.full(accuracy.shape[1], np.nan))
    return prior.predict(asked)


def static(accuracy: np.ndarray) -> np.ndarray:
    off = accuracy - accuracy.mean(axis=1, keepdims=True)
    return (off / accuracy.std(axis=1, keepdims=True)).mean(axis=0)


@pytest.mark.parametrize("num_tasks", [3, 5, 10, 20])
def test_few_tasks_never_cost_more_than_static(num_tasks):
    ours, theirs = [], []
    for seed in range(12):
        accuracy, truth = world(num_tasks, seed)
        ours.append(truth.max() - truth[np.argmax(predict(accuracy).logit)])
        theirs.append(truth.max() - truth[np.argmax(static(accuracy))])
    assert np.mean(ours) <= np.mean(theirs) + 0.005


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), place=st.integers(0, 7), lift=st.floats(0.3, 1.5))
def test_a_better_result_moves_its_expert_up_and_most(seed, place, lift):
    accuracy, _ = world(6, seed)
    better = accuracy.copy()
    better[2, place] = 1 / (1 + np.exp(-(to_logit(accuracy[2, place]) + lift)))
    moved = predict(better).logit - predict(accuracy).logit
    moved = moved - np.median(moved)
    assert moved[place] > 0
    assert moved[place] >= moved.max() - 1e-9


def test_an_expert_that_promises_no_more_than_was_measured_stays_below_what_was_measured():
    before = Prediction.of_accuracies(np.array([0.9, 0.9005, 0.93]))
    after = shielded(before, condition(before, np.array([0.9, np.nan, np.nan])), np.zeros(3, bool))
    assert np.argsort(-after.logit).tolist() == [2, 0, 1]


def test_a_toy_never_passes_a_real_expert_that_was_measured_whatever_it_promised():
    before = Prediction.of_accuracies(np.array([0.9, 0.95, 0.97, 0.93, 0.5]))
    measured = condition(before, np.array([0.9, np.nan, np.nan, np.nan, np.nan]))
    toys = np.array([False, True, True, False, True])
    after = shielded(before, measured, toys)
    assert np.argsort(-after.logit).tolist() == [3, 0, 2, 1, 4]
    assert after.logit[4] == measured.logit[4]
    np.testing.assert_array_equal(shielded(before, before, toys).logit, before.logit)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), place=st.integers(0, 7), value=st.floats(0.02, 0.98))
def test_what_was_measured_is_the_expectation_and_stands(seed, place, value):
    before = predict(world(5, seed)[0])
    observed = np.full(8, np.nan)
    observed[place] = value
    after = shielded(before, condition(before, observed), np.zeros(8, bool))
    assert after.mean[place] == pytest.approx(value, abs=1e-9)
    passed = (after.logit > after.logit[place]) & (before.logit < before.logit[place])
    passed &= before.logit < after.logit[place]
    assert not passed.any()


def test_unmeasured_experts_are_wider():
    accuracy = world(12, 0)[0]
    accuracy[:, 3] = np.nan
    found = predict(accuracy)
    sd = np.sqrt(np.diag(found.covariance))
    assert sd[3] > 1.2 * np.delete(sd, 3).mean()
    low, high = found.interval
    assert np.argmax(high - low) == 3


def test_another_protocol_has_its_own_level():
    accuracy = np.clip(world(10, 1)[0] * 0.5, 0.05, 0.6)
    experts = [ExpertFacts(f"e{i}") for i in range(8)]
    tuned = np.full((1, 8), np.nan)
    tuned[0, 0] = 0.97
    table = Table(
        (*(f"t{i}" for i in range(10)), "t0"),
        (*(WAY for _ in range(10)), ("accuracy", "fine_tuned")),
        tuple(it.name for it in experts),
        np.vstack([accuracy, tuned]),
    )
    facts = {f"t{i}": TaskFacts(0.7, 7, 700) for i in range(10)}
    asked = Asked(WAY, TaskFacts(0.7, 7, 700), {}, np.full(8, np.nan))
    beside = fit_prior(table, experts, facts).predict(asked)
    alone = fit_prior(table.rows(np.arange(10)), experts, facts).predict(asked)
    assert np.abs(beside.mean[1:] - alone.mean[1:]).max() < 0.03


def test_gather_counts_a_result_told_twice_once_and_sets_own_ones_apart():
    class Row:
        def __init__(self, task, expert, accuracy, protocol="p", seed=0):
            self.task, self.expert, self.accuracy = task, expert, accuracy
            self.metric, self.protocol, self.seed = "accuracy", protocol, seed

    rows = [
        Row("a", "x", 0.5),
        Row("a", "x", 0.5),
        Row("a", "x", 0.7, seed=1),
        Row("q", "y", 0.9),
        Row("s", "y", 1),
    ]
    found = gather(rows, {"x": "", "y": "s"}, way=("accuracy", "p"), asked="q", alias={"z": "x"})
    assert found.table.tasks == ("a",)
    assert found.table.accuracy[0, 0] == pytest.approx(0.6)
    assert found.counts == {"x": 2, "y": 1}
    np.testing.assert_array_equal(found.own, [np.nan, 0.9])


def test_improvement_is_over_the_best_measured():
    found = condition(Prediction.of_accuracies(np.array([0.6, 0.7, 0.65])), np.array([np.nan, 0.7, np.nan]))
    gain = improvements(found, np.isfinite(found.measured))
    assert gain[1] == pytest.approx(0, abs=1e-3)
    assert gain[2] > gain[0] > 0
    assert (expected_regret(found) >= 0).all()


def test_seconds_count_only_with_a_budget():
    gain, untried = np.array([0.02, 0.03]), np.array([True, True])
    assert choose(gain, untried) == 1
    assert choose(gain, untried, seconds=np.array([1.0, 10.0])) == 0
    assert choose(gain, untried, seconds=np.array([1.0, 10.0]), seconds_left=0.5) is None


def test_a_failing_expert_is_told_and_passed_over():
    def run(place: int) -> TrialEvidence:
        if place == 1:
            raise TrialFailedError("its head did not converge")
        return TrialEvidence(place, 0.5 + 0.1 * place)

    found = try_experts(
        ["a", "b", "c"],
        Prediction.of_accuracies(np.array([0.6, 0.7, 0.65])),
        np.ones(3, bool),
        plan=TrialPlan(3),
        run=run,
    )
    assert [trial.place for trial in found.evidence] == [2, 0]
    assert found.warnings == (
        "b could not be tried: its head did not converge",
        "stopped after 2 of 3 trials: no other expert is left to try",
    )
    assert found.prediction.mean[2] == pytest.approx(0.7)


def test_trials_by_scores_compare_and_do_not_say_how_high():
    before = Prediction.of_accuracies(np.array([0.6, 0.6, 0.6]))
    low = {"linear_probe": 0.2, "linear_fit": 2.0, "knn": 0.2}
    high = {"linear_probe": 0.3, "linear_fit": 2.3, "knn": 0.3}
    after = fold_in(before, [TrialEvidence(0, scores=low), TrialEvidence(1, scores=high)])
    assert after.mean[1] > after.mean[2] > after.mean[0]
    assert abs(after.mean[:2].mean() - 0.6) < 0.15


@pytest.mark.parametrize("width", [0.25, 1, 4, 10])
def test_scores_of_noise_are_chance(width):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 15)
    found = [trial_scores(generator.standard_normal((60, int(60 * width))), labels) for _ in range(12)]
    for name in ("linear_probe", "knn"):
        assert np.mean([scores[name] for scores in found]) == pytest.approx(0.25, abs=0.06)


def test_trial_plan_refuses_what_changes_nothing():
    message = "time budget would change nothing without trials; say how many to make"
    with pytest.raises(InvalidQueryError, match=re.escape(message)):
        TrialPlan(0, time_budget=3)


@pytest.mark.parametrize(
    ("name", "architecture", "family", "source", "training"),
    [
        ("resnet50.IMAGENET1K_V2", "resnet50", "resnet", "imagenet1k", "supervised"),
        ("timm:vit_base_patch16_224.augreg_in21k", "vit_base_patch16_224", "vit", "imagenet21k", "supervised"),
        ("open_clip:ViT-B-32/laion2b_e16", "vit-b-32", "vit", "laion2b", "language_image"),
        ("facebook/dinov2-base", "dinov2-base", "dino", "lvd142m", "self_supervised"),
        ("resnet50.oxford_pets", "resnet50", "resnet", "oxford_pets", "supervised"),
    ],
)
def test_names_say_what_experts_are(name, architecture, family, source, training):
    class Record:
        source_task, num_params, flops, input_size, source_accuracy = "", None, None, None, None

    Record.name = name
    facts = facts_of(Record)
    assert (architecture_of(name), facts.source, facts.training) == (architecture, source, training)
    assert family_of(architecture).startswith(family)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("linear_probe_20shot", "accuracy of a linear probe, 20 samples a class"),
        ("fine_tuned", "accuracy after fine-tuning"),
        ("my_own", "accuracy (my_own)"),
    ],
)
def test_protocols_in_words(protocol, words):
    assert describe_way(("accuracy", protocol)) == words


def test_with_many_rows_cells_that_some_rows_rule_out_are_left_out_and_answers_stay(monkeypatch):
    generator = np.random.default_rng(0)
    place = generator.random((60, 2))
    distances = {"near": ((place[:, None] - place) ** 2).sum(axis=2)}
    values = np.sin(4 * place @ generator.standard_normal((2, 5))) + 0.05 * generator.standard_normal((60, 5))
    tasks = np.arange(60)
    kernel = RowKernel.of(tasks, np.full((60, 60), 0.3), 1.0, np.full(60, 0.01), distances)
    all_known = np.ones(values.shape, bool)
    whole = RowProcess.fit(kernel, values, all_known, np.ones(60, bool))
    monkeypatch.setattr("registry.recommend.gaussian_process.MOST_WEIGHING_ROWS", 30)
    screened = RowProcess.fit(kernel, values, all_known, np.ones(60, bool))
    assert 1 < len(screened.cells) < len(whole.cells)
    asked = {"near": ((place - 0.5) ** 2).sum(axis=1)}
    means = [it.predict(np.full(60, 0.3), 0.3, -1, asked).mean for it in (whole, screened)]
    assert np.abs(means[0] - means[1]).max() < 0.02 < np.abs(means[0]).max()


def test_results_of_another_benchmark_move_an_expert_less_than_as_many_of_ones_own():
    accuracy = np.full((8, 6), 0.6)
    accuracy[:, 0] = 0.85

    def first(tasks: tuple[str, ...]) -> float:
        experts = [ExpertFacts(f"e{i}") for i in range(6)]
        prior = fit_prior(Table(tasks, (WAY,) * 8, tuple(it.name for it in experts), accuracy), experts, {})
        logit = prior.predict(Asked(WAY, TaskFacts(), {}, np.full(6, np.nan))).logit
        return float(logit[0] - logit[1])

    own = first(tuple(f"t{i}" for i in range(8)))
    several = first(tuple(f"benchmark{i}.t" for i in range(8)))
    one = first(tuple(f"benchmark.t{i}" for i in range(8)))
    assert 0 < one < several < own


def test_an_expert_as_far_down_as_attributes_say_is_not_lifted_because_results_are_drawn_in():
    sizes = [10 ** (4 + i / 4) for i in range(20)]
    experts = [ExpertFacts(f"e{i:02}", num_params=size, family="vit") for i, size in enumerate(sizes)]
    logits = np.linspace(-6.0, 1.5, 20) + np.zeros((6, 1))
    logits[:, 6:] += 2.0
    table = Table(
        tuple(f"b.t{i}" for i in range(6)),
        (("accuracy", "as_pretrained"),) * 6,
        tuple(it.name for it in experts),
        1 / (1 + np.exp(-logits)),
    )
    prior = fit_prior(table, experts, {})
    logit = prior.predict(Asked(WAY, TaskFacts(), {}, np.full(20, np.nan))).logit
    assert logit[:6].max() < logit[6:].min()
