"""registry.recommend.prior: against loops, on worlds of known truth, on hardly any and on many results, on
real ones."""

import csv
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references_recommend import conformal_reference, prior_reference, static_reference

from registry.recommend import prior as prior_module
from registry.recommend.prediction import condition, expected_regret, improvement
from registry.recommend.prior import COVERAGE, MIN_INTERVAL_TASKS, conformal_quantile, fit_prior
from registry.recommend.recommend import MEASUREMENT_SD
from registry.recommend.results import ResultTable, normalise

NAN = float("nan")


def table_of(accuracy, tasks=None):
    num_tasks, num_experts = accuracy.shape
    names = tuple(f"t{task:04}" for task in (range(num_tasks) if tasks is None else tasks))
    return ResultTable(names, tuple(f"e{i:03}" for i in range(num_experts)), accuracy)


def world(seed, *, num_tasks=32, num_experts=20, speciality=1.0, missing=0.0):
    """Accuracies and distances of tasks in four clusters; experts have a standing and specialities."""
    generator = np.random.default_rng(seed)
    cluster = generator.integers(4, size=num_tasks)
    standing = generator.normal(0, 0.5, num_experts)
    special = generator.normal(0, speciality, (4, num_experts))
    z = standing + special[cluster] + generator.normal(0, 0.4, (num_tasks, num_experts))
    accuracy = np.clip(generator.normal(0.7, 0.05, num_tasks)[:, None] + 0.04 * z, 0, 1)
    place = 3 * generator.normal(size=(4, 3))[cluster] + generator.normal(0, 0.5, (num_tasks, 3))
    accuracy[generator.random(accuracy.shape) < missing] = np.nan
    return accuracy, {"task": np.linalg.norm(place[:, None] - place[None], axis=2)}


def groups_world(seed, *, num_tasks=40, num_experts=24):
    """Accuracies ``[T, M]`` of experts in four groups; which group does well on a task, no distance tells."""
    generator = np.random.default_rng(seed)
    group = np.arange(num_experts) % 4
    z = generator.normal(0, 0.3, num_experts) + generator.normal(0, 1.0, (num_tasks, 4))[:, group]
    z += generator.normal(0, 0.3, (num_tasks, num_experts))
    return np.clip(generator.normal(0.6, 0.05, num_tasks)[:, None] + 0.05 * z, 0, 1)


def random_distances(seed, num_tasks):
    distances = np.random.default_rng(seed).uniform(1, 2, (num_tasks, num_tasks))
    return {"task": distances + distances.T}


def rows_of(between, rows, columns):
    return {name: distances[np.ix_(rows, columns)] for name, distances in between.items()}


def column_of(between, rows, column):
    return {name: distances[rows, column] for name, distances in between.items()}


def leave_one_out(accuracy, between):
    """Per task: regret of static, regret of ours, expected regret of ours, share of results in the interval."""
    answers = []
    for t in range(len(accuracy)):
        rest = np.flatnonzero(np.arange(len(accuracy)) != t)
        prior = fit_prior(table_of(accuracy[rest]), rows_of(between, rest, rest))
        prediction = prior.predict(column_of(between, rest, t))
        known = np.flatnonzero(np.isfinite(accuracy[t]))
        truth, ours = accuracy[t][known], prediction.of(known)
        answers.append(
            (
                truth.max() - truth[np.argmax(prior.static[known])],
                truth.max() - truth[np.argmax(ours.mean)],
                expected_regret(ours).min(),
                np.mean(np.abs(truth - ours.mean) <= prior.quantile * ours.sd),
            )
        )
    return np.array(answers)


def read_table(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    tasks, experts = sorted({r["task"] for r in rows}), sorted({r["expert"] for r in rows})
    accuracy = np.full((len(tasks), len(experts)), np.nan)
    for row in rows:
        accuracy[tasks.index(row["task"]), experts.index(row["expert"])] = float(row["accuracy"])
    return accuracy


# The model against loops


@pytest.mark.parametrize("repeated", [0, 2], ids=["one_way", "two_ways"])
@pytest.mark.parametrize("missing", [0.0, 0.3], ids=["full", "gaps"])
def test_prior_matches_loops(monkeypatch, missing, repeated):
    # to the end, as the least-squares problem of the twin is solved
    monkeypatch.setattr(prior_module, "normalise", partial(normalise, sweeps=20_000, tolerance=1e-15))
    accuracy, between = world(1, num_tasks=11, num_experts=6, missing=missing)
    generator = np.random.default_rng(2)
    source = generator.uniform(0, 2, (11, 6))
    source[2, :2], source[:, 5] = NAN, NAN
    accuracy[1:] = accuracy[1:] - 0.1 * np.nan_to_num(source[1:])
    accuracy[1:, 4] = NAN  # never measured, placed by its source
    accuracy[2:, 3] = NAN  # so is this one where its only task is left out
    rows = [*range(1, 11), *range(1, 1 + repeated)]
    accuracy, source = np.vstack([accuracy[1:], accuracy[1 : 1 + repeated] - 0.1]), source[rows]
    tasks, to_query = [f"t{row:04}" for row in rows], column_of(between, rows, 0)
    between, source_to_query = rows_of(between, rows, rows), np.append(generator.uniform(0, 2, 5), NAN)
    fitted = fit_prior(table_of(accuracy, rows), between, source.T)
    prediction = fitted.predict(to_query, source_to_query)
    mean, covariance, level_sd, left_out, quantile = prior_reference(
        accuracy, tasks, between, source, to_query, source_to_query
    )
    near = fitted.predict(to_query, np.where(np.arange(6) == 4, 0.0, source_to_query)).mean[4]
    assert near > prediction.mean[4] + 0.005  # distances of sources do tell something here
    np.testing.assert_allclose(fitted.left_out, left_out, atol=1e-8)
    np.testing.assert_allclose(prediction.mean, mean, atol=1e-8)
    np.testing.assert_allclose(prediction.covariance, covariance, atol=1e-9)
    assert prediction.level_sd == pytest.approx(level_sd, rel=1e-8)
    assert fitted.quantile == pytest.approx(quantile, rel=1e-6)


@given(
    st.lists(
        st.lists(st.one_of(st.floats(0, 5), st.just(NAN)), min_size=4, max_size=4), min_size=1, max_size=25
    )
)
@settings(deadline=None, max_examples=60)
def test_conformal_quantile_matches_loops(scores):
    scores = np.array(scores)
    assert conformal_quantile(scores, COVERAGE) == conformal_reference(scores, COVERAGE)


def test_conformal_quantile_needs_nine_rows():
    assert conformal_quantile(np.ones((MIN_INTERVAL_TASKS - 1, 3))) == np.inf
    assert conformal_quantile(np.ones((MIN_INTERVAL_TASKS, 3))) == 1


# What takes part in what


def test_left_out_predictions_do_not_see_their_row():
    accuracy, _ = world(4, num_tasks=12, num_experts=5)
    changed = accuracy.copy()
    changed[3, 0], changed[3, 1] = accuracy[3, 1], accuracy[3, 0]
    before, after = fit_prior(table_of(accuracy)).left_out, fit_prior(table_of(changed)).left_out
    np.testing.assert_allclose(after[3], before[3], atol=1e-9)
    assert not np.allclose(after[4], before[4], atol=1e-4)


def test_rows_of_one_task_do_not_predict_each_other():
    accuracy, between = world(5, num_tasks=10, num_experts=5)
    rows = [*range(10), 0]
    doubled = fit_prior(table_of(accuracy[rows], rows), rows_of(between, rows, rows))
    alone = fit_prior(table_of(accuracy), between)
    # only the spread of distances differs, of which the repeated row has a share
    np.testing.assert_allclose(doubled.left_out[0], doubled.left_out[10], atol=1e-12)
    np.testing.assert_allclose(doubled.left_out[0], alone.left_out[0], atol=0.01)


def test_rows_of_another_way_rank_and_set_no_level():
    accuracy, _ = world(6, num_tasks=12, num_experts=5)
    rows = [*range(12), *range(12)]
    both = np.vstack([accuracy, accuracy - 0.3])
    reference = np.arange(24) < 12
    table = ResultTable(tuple(f"t{row:02}" for row in rows), tuple("vwxyz"), both, reference)
    prior, alone = fit_prior(table), fit_prior(table_of(accuracy))
    assert prior.num_tasks == 12
    assert prior.predict().mean.mean() == pytest.approx(alone.predict().mean.mean(), abs=0.01)
    np.testing.assert_array_equal(prior.counts, 24)


# The model on worlds whose truth is known


@pytest.mark.parametrize("missing", [0.0, 0.5], ids=["full", "gaps"])
def test_prior_beats_static_where_experts_have_specialities(missing):
    regrets = np.vstack([leave_one_out(*world(seed, missing=missing)) for seed in (0, 1)])
    static, ours, expected, covered = regrets.mean(axis=0)
    assert ours < 0.6 * static
    assert 0.86 < covered < 0.96
    assert 0.5 * ours < expected < 2 * ours + 0.005


def test_prior_stays_static_where_distances_are_noise():
    regrets = np.vstack(
        [leave_one_out(world(seed, speciality=0.3)[0], random_distances(seed, 32)) for seed in range(2)]
    )
    static, ours, _, covered = regrets.mean(axis=0)
    assert ours < static + 0.003
    assert 0.86 < covered < 0.96


def test_prior_without_distances_ranks_as_static():
    accuracy, _ = world(6, missing=0.3)
    prior = fit_prior(table_of(accuracy))
    assert np.argsort(prior.predict().mean).tolist() == np.argsort(prior.static).tolist()
    np.testing.assert_allclose(np.corrcoef(prior.static, static_reference(accuracy))[0, 1], 1, atol=0.02)


@pytest.mark.parametrize("distance", [1e6, NAN], ids=["far", "unknown"])
def test_prior_far_from_everything_is_close_to_static(distance):
    accuracy, between = world(7)
    prior = fit_prior(table_of(accuracy), between)
    mean = prior.predict({"task": np.full(len(accuracy), distance)}).mean
    # Not equal: to the process, tasks that are alike are fewer than they are to the plain mean.
    assert np.corrcoef(mean, prior.static)[0, 1] > 0.9


def test_prior_takes_distances_that_are_partly_unknown():
    accuracy, between = world(8)
    holes = np.random.default_rng(0).random((32, 32)) < 0.3
    between["task"][holes | holes.T] = NAN
    _, ours, _, covered = leave_one_out(accuracy, between).mean(axis=0)
    static = leave_one_out(accuracy, {})[:, 0].mean()
    assert ours < 0.8 * static
    assert covered > 0.84


def sequential_picks(prediction, truth, count):
    """Places tried one after the other: the best expected first, then by expected improvement on the best."""
    picks = [int(np.argmax(prediction.mean))]
    while len(picks) < count:
        measured = np.full(len(truth), NAN)
        measured[picks] = truth[picks]
        now = condition(prediction, measured, MEASUREMENT_SD)
        gain = improvement(now.mean - truth[picks].max(), now.sd)
        gain[picks] = -1
        picks.append(int(np.argmax(gain)))
    return picks


def test_trying_experts_in_turn_beats_the_static_best_few_where_experts_come_in_groups():
    static, ours = [], []
    for seed in range(3):
        accuracy = groups_world(seed)
        for t in range(0, len(accuracy), 2):
            prior = fit_prior(table_of(np.delete(accuracy, t, axis=0)))
            truth = accuracy[t]
            best_few = np.argsort(-prior.static)[:4]
            static.append(truth.max() - truth[best_few].max())
            ours.append(truth.max() - truth[sequential_picks(prior.predict(), truth, 4)].max())
    assert np.mean(ours) < 0.75 * np.mean(static)


def test_one_measurement_moves_the_group_of_the_expert():
    accuracy = groups_world(3)
    prediction = fit_prior(table_of(accuracy)).predict()
    measured = np.full(24, NAN)
    measured[0] = prediction.mean[0] + 0.1
    moved = condition(prediction, measured, MEASUREMENT_SD).mean - prediction.mean
    same = np.arange(24) % 4 == 0
    assert moved[same].min() > moved[~same].max()


def sources_world(seed, effect):
    """Experts whose standing falls with the distance of their source; the last two were never measured."""
    generator = np.random.default_rng(seed)
    source = generator.uniform(0, 1, (12, 30))
    accuracy = 0.7 - 0.1 * effect * source.T + generator.normal(0, 0.02, (30, 12))
    accuracy[:, 10:] = np.nan
    return table_of(accuracy), source


def test_unmeasured_experts_are_placed_by_their_source():
    table, source = sources_world(0, effect=1.0)
    to_query = np.append(np.full(10, 0.5), [0.05, 0.95])
    prediction = fit_prior(table, source=source).predict(source=to_query)
    assert prediction.mean[10] > prediction.mean[:10].mean() + 0.01
    assert prediction.mean[11] < prediction.mean[:10].mean() - 0.01
    assert prediction.sd[10] > prediction.sd[:10].max()


def test_source_moves_an_expert_so_far_and_no_further():
    table, source = sources_world(0, effect=1.0)
    prior = fit_prior(table, source=source)
    near, far, further = (
        prior.predict(source=np.append(np.full(11, 0.5), distance)).mean[11] for distance in (0.5, 1e3, 1e6)
    )
    assert far == further
    assert 0.02 < near - far < 0.2


def test_unmeasured_experts_start_below_average_where_sources_tell_nothing():
    table, source = sources_world(1, effect=-0.5)
    prediction = fit_prior(table, source=source).predict(source=np.append(np.full(10, 0.5), [0.05, 0.95]))
    assert prediction.mean[10] == prediction.mean[11] < prediction.mean[:10].mean()


def test_order_of_rows_and_experts_does_not_matter():
    accuracy, between = world(9, missing=0.4)
    generator = np.random.default_rng(0)
    source, source_to_query = generator.uniform(0, 2, (20, 32)), generator.uniform(0, 2, 20)
    rows, experts = generator.permutation(32), generator.permutation(20)
    every = np.arange(32)
    prior = fit_prior(table_of(accuracy, every), between, source)
    shuffled = fit_prior(
        table_of(accuracy[np.ix_(rows, experts)], every[rows]),
        rows_of(between, rows, rows),
        source[np.ix_(experts, rows)],
    )
    usual = prior.predict(column_of(between, every, 0), source_to_query)
    other = shuffled.predict(column_of(between, rows, 0), source_to_query[experts])
    np.testing.assert_allclose(other.mean, usual.mean[experts], atol=1e-7)
    np.testing.assert_allclose(other.covariance, usual.covariance[np.ix_(experts, experts)], atol=1e-8)
    assert shuffled.quantile == pytest.approx(prior.quantile, rel=1e-5)


# Hardly anything, and very much


@pytest.mark.parametrize(
    "accuracy",
    [
        np.zeros((0, 3)),
        np.full((2, 3), NAN),
        np.array([[0.7, NAN, NAN]]),
        np.array([[0.7]]),
        np.array([[0.7], [0.8], [0.6]]),
        np.array([[0.7, 0.7, 0.7]]),
        np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]),
    ],
    ids=["no_row", "no_result", "one_result", "one_pair", "one_expert", "one_task", "all_equal"],
)
@pytest.mark.parametrize("distances", ["none", "unknown", "equal"])
def test_prior_of_hardly_any_result(accuracy, distances):
    num_tasks, num_experts = accuracy.shape
    value = {"none": None, "unknown": NAN, "equal": 1.0}[distances]
    between = to_query = source = source_to_query = None
    if value is not None:
        between = {"task": value * (1 - np.eye(num_tasks))}
        to_query = {"task": np.full(num_tasks, value)}
        source, source_to_query = np.full((num_experts, num_tasks), value), np.full(num_experts, value)
    prior = fit_prior(table_of(accuracy), between, source)
    prediction = prior.predict(to_query, source_to_query)
    assert prior.quantile == np.inf
    assert np.isfinite(prediction.mean).all()
    assert (prediction.sd > 0).all()
    assert np.isfinite(expected_regret(prediction)).all()
    if np.isfinite(accuracy).any():
        assert prediction.mean[0] == pytest.approx(np.nanmean(accuracy), abs=0.03)
    measured = np.append(0.9, np.full(num_experts - 1, NAN))
    assert condition(prediction, measured, MEASUREMENT_SD).mean[0] == pytest.approx(0.9, abs=0.03)


def big_world(num_tasks, num_experts, num_results):
    """Accuracies of experts that suit some places, and distances; results are spread at random."""
    generator = np.random.default_rng(0)
    place, suits = generator.normal(size=(num_tasks, 4)), generator.normal(size=(num_experts, 4))
    z = suits[:, 0] + place @ suits.T / 2 + generator.normal(size=(num_tasks, num_experts))
    accuracy = np.clip(0.7 + 0.05 * generator.normal(size=(num_tasks, 1)) + 0.03 * z, 0, 1)
    without = generator.permutation(accuracy.size)[num_results:]
    accuracy.flat[without] = np.nan
    return accuracy, {"task": np.linalg.norm(place[:, None] - place[None], axis=2)}


@pytest.mark.parametrize(
    ("num_tasks", "num_experts", "num_results"),
    [(1000, 300, 10_000), (300, 60, 18_000)],
    ids=["sparse", "dense"],
)
def test_prior_of_many_results_answers_at_once(num_tasks, num_experts, num_results):
    accuracy, between = big_world(num_tasks, num_experts, num_results)
    rest = np.arange(1, num_tasks)
    started = time.perf_counter()
    prior = fit_prior(table_of(accuracy[rest]), rows_of(between, rest, rest))
    fitted = time.perf_counter()
    prediction = prior.predict(column_of(between, rest, 0))
    measured = np.where(np.arange(num_experts) < 5, 0.7, NAN)
    regret = expected_regret(condition(prediction, measured, MEASUREMENT_SD))
    answered = time.perf_counter()
    assert np.isfinite(regret).all()
    assert 0 < prior.quantile < 3
    assert fitted - started < 20  # holds on a busy machine
    assert answered - fitted < 1


# Real tables


@pytest.mark.parametrize(
    ("name", "published"),
    [("transfergraph", 0.026), ("supervised_11x11", 0.0008), ("parc_controlled", 0.013)],
)
def test_prior_does_not_lose_to_static_on_published_tables(shared, name, published):
    accuracy = read_table(shared / "tables" / f"{name}.csv")
    ours, static = [], []
    for t in range(len(accuracy)):
        rest = np.delete(accuracy, t, axis=0)
        truth = accuracy[t]
        known = np.flatnonzero(np.isfinite(truth))
        for scores, regrets in (
            (fit_prior(table_of(rest)).predict().mean, ours),
            (static_reference(rest), static),
        ):
            regrets.append(truth[known].max() - truth[known[np.argmax(scores[known])]])
    assert np.mean(static) == pytest.approx(published, abs=0.0005)
    assert np.mean(ours) <= np.mean(static) + 0.002
