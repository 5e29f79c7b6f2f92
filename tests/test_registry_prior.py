"""registry.prior and what it is made of: against plain loops, on worlds of known truth, on real tables."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references_recommend import (
    condition_reference,
    conformal_reference,
    normalise_reference,
    predict_reference,
    static_reference,
)

from registry.prior import Prediction, condition, conformal_quantile, fit_prior
from registry.recommend import expected_regret
from registry.result_table import ResultTable, normalise


def table_of(accuracy):
    num_tasks, num_experts = accuracy.shape
    return ResultTable(
        tuple(f"t{u:02}" for u in range(num_tasks)), tuple(f"e{i:02}" for i in range(num_experts)), accuracy
    )


def world(seed, *, num_tasks=40, num_experts=25, speciality=1.0, missing=0.0):
    """Accuracies and distances of tasks in four clusters; experts have a standing and specialities."""
    generator = np.random.default_rng(seed)
    cluster = generator.integers(4, size=num_tasks)
    standing = generator.normal(0, 0.5, num_experts)
    special = generator.normal(0, speciality, (4, num_experts))
    z = standing + special[cluster] + generator.normal(0, 0.4, (num_tasks, num_experts))
    accuracy = np.clip(generator.normal(0.7, 0.05, num_tasks)[:, None] + 0.04 * z, 0, 1)
    place = 3 * generator.normal(size=(4, 3))[cluster] + generator.normal(0, 0.5, (num_tasks, 3))
    accuracy[generator.random(accuracy.shape) < missing] = np.nan
    return accuracy, np.linalg.norm(place[:, None] - place[None], axis=2)


def random_distances(seed, num_tasks):
    distances = np.random.default_rng(seed).uniform(1, 2, (num_tasks, num_tasks))
    return distances + distances.T


def leave_one_out(accuracy, between):
    """Per task: regret of static, regret of ours, expected regret of ours, share of results in the interval."""
    rows = []
    for t in range(len(accuracy)):
        rest = np.arange(len(accuracy)) != t
        prior = fit_prior(table_of(accuracy[rest]), between[np.ix_(rest, rest)])
        prediction = prior.predict(between[rest, t])
        known = np.isfinite(accuracy[t])
        truth, mean = accuracy[t][known], prediction.mean[known]
        best = prediction.mean.max()
        rows.append(
            (
                truth.max() - truth[np.argmax(prior.static[known])],
                truth.max() - truth[np.argmax(mean)],
                expected_regret(prediction, prior.scenarios)[prediction.mean == best][0],
                np.mean(np.abs(truth - mean) <= prior.quantile * prediction.sd[known]),
            )
        )
    return np.array(rows)


def read_table(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    tasks, experts = sorted({r["task"] for r in rows}), sorted({r["expert"] for r in rows})
    accuracy = np.full((len(tasks), len(experts)), np.nan)
    for row in rows:
        accuracy[tasks.index(row["task"]), experts.index(row["expert"])] = float(row["accuracy"])
    return accuracy


# The model against loops


@pytest.mark.parametrize("missing", [0.0, 0.3], ids=["full", "gaps"])
def test_prior_matches_loops(missing):
    accuracy, between = world(1, num_tasks=9, num_experts=6, missing=missing)
    between = between + np.random.default_rng(2).uniform(0, 2, between.shape)  # directed: from row to column
    rest = slice(1, None)
    prior = fit_prior(table_of(accuracy[rest]), between[rest, rest])
    expected = predict_reference(accuracy[rest], between[rest, rest], between[rest, 0])
    np.testing.assert_allclose(prior.predict(between[rest, 0]).mean, expected, atol=1e-6)


def test_normalise_matches_least_squares():
    accuracy, _ = world(2, num_tasks=8, num_experts=7, missing=0.4)
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


@given(
    st.lists(
        st.lists(st.one_of(st.floats(0, 5), st.just(math.nan)), min_size=4, max_size=4),
        min_size=1,
        max_size=25,
    )
)
@settings(deadline=None, max_examples=60)
def test_conformal_quantile_matches_loops(scores):
    scores = np.array(scores)
    assert conformal_quantile(scores, 0.9) == conformal_reference(scores, 0.9)


def test_conformal_quantile_needs_nine_rows():
    assert conformal_quantile(np.ones((8, 3))) == math.inf
    assert conformal_quantile(np.ones((9, 3))) == 1


@pytest.mark.parametrize("known", [[], [2], [0, 3, 4]], ids=["none", "one", "three"])
def test_condition_matches_dense_gaussian(known):
    generator = np.random.default_rng(3)
    deviation_sd, level_sd = generator.uniform(0.02, 0.1, 5), 0.1
    sd = np.hypot(deviation_sd, level_sd)
    prediction = Prediction(generator.uniform(0.4, 0.9, 5), deviation_sd, level_sd, sd)
    measured = np.full(5, np.nan)
    measured[known] = generator.uniform(0.4, 0.9, len(known))
    mean, expected_sd = condition_reference(prediction, measured, 0.01)
    conditioned = condition(prediction, measured, 0.01)
    np.testing.assert_allclose(conditioned.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(conditioned.sd, expected_sd, rtol=1e-9)


def test_expected_regret_is_least_for_the_pick_and_grows_with_what_others_promise():
    accuracy, between = world(8, missing=0.3)
    prior = fit_prior(table_of(accuracy), between)
    prediction = prior.predict(between[:, 0])
    regret = expected_regret(prediction, prior.scenarios)
    np.testing.assert_allclose(prior.scenarios.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(regret - regret.min(), prediction.mean.max() - prediction.mean, atol=1e-12)
    best = [max(prediction.mean + prediction.deviation_sd * errors) for errors in prior.scenarios]
    assert regret.min() == pytest.approx(np.mean(best) - prediction.mean.max())
    assert regret.min() > 0


def test_held_out_predictions_do_not_see_their_row():
    accuracy, _ = world(4, num_tasks=12, num_experts=5)
    changed = accuracy.copy()
    changed[3, 0], changed[3, 1] = accuracy[3, 1], accuracy[3, 0]
    before, after = fit_prior(table_of(accuracy)).held_out, fit_prior(table_of(changed)).held_out
    np.testing.assert_allclose(after[3], before[3], atol=1e-9)
    assert not np.allclose(after[4], before[4], atol=1e-4)


def test_rows_of_one_task_do_not_predict_each_other():
    accuracy, between = world(5, num_tasks=10, num_experts=5)
    names = tuple("abcdefghij")
    doubled = fit_prior(
        ResultTable((*names, "a"), tuple("vwxyz"), np.vstack([accuracy, accuracy[:1]])),
        np.pad(between, ((0, 1), (0, 1)), mode="wrap"),
    )
    alone = fit_prior(ResultTable(names, tuple("vwxyz"), accuracy), between)
    # only the cells' weights differ, by the one repeated row
    np.testing.assert_allclose(doubled.held_out[0], doubled.held_out[10], atol=1e-12)
    np.testing.assert_allclose(doubled.held_out[0], alone.held_out[0], atol=0.01)


# The model on worlds whose truth is known


@pytest.mark.parametrize("missing", [0.0, 0.6], ids=["full", "gaps"])
def test_prior_beats_static_where_experts_have_specialities(missing):
    regrets = np.vstack([leave_one_out(*world(seed, missing=missing)) for seed in (0, 1)])
    static, ours, expected, covered = regrets.mean(axis=0)
    assert ours < 0.6 * static
    assert 0.86 < covered < 0.96
    assert 0.5 * ours < expected < 2 * ours + 0.005


def test_prior_stays_static_where_distances_are_noise():
    regrets = np.vstack(
        [leave_one_out(world(seed, speciality=0.3)[0], random_distances(seed, 40)) for seed in range(4)]
    )
    static, ours, _, covered = regrets.mean(axis=0)
    assert ours < static + 0.003
    assert 0.86 < covered < 0.96


def test_prior_without_distances_ranks_as_static():
    accuracy, _ = world(6, missing=0.3)
    prior = fit_prior(table_of(accuracy))
    assert np.argsort(prior.predict().mean).tolist() == np.argsort(prior.static).tolist()
    np.testing.assert_allclose(np.corrcoef(prior.static, static_reference(accuracy))[0, 1], 1, atol=0.02)


def test_prior_far_from_everything_is_static():
    accuracy, between = world(7)
    prior = fit_prior(table_of(accuracy), between)
    order = np.argsort(prior.predict(np.full(len(accuracy), 1e6)).mean)
    assert order.tolist() == np.argsort(prior.static).tolist()


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


def test_unmeasured_experts_start_below_average_where_sources_tell_nothing():
    table, source = sources_world(1, effect=-0.5)
    prediction = fit_prior(table, source=source).predict(source=np.append(np.full(10, 0.5), [0.05, 0.95]))
    assert prediction.mean[10] == prediction.mean[11] < prediction.mean[:10].mean()


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
