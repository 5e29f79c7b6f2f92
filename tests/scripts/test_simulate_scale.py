"""The simulation of adding a million tasks: every task once, no second lost, and what can be known exactly."""

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def modules():
    import scale_measures
    import scale_simulation
    import simulate_scale

    return scale_simulation, scale_measures, simulate_scale


@pytest.fixture(scope="module")
def simulation(modules):
    return modules[0]


COSTS = st.lists(st.floats(0.01, 50), min_size=1, max_size=60)
SMALL = st.floats(0, 2)


@settings(deadline=None, max_examples=80)
@given(
    costs=COSTS,
    seed=st.integers(0, 2**32 - 1),
    workers=st.integers(1, 9),
    start=SMALL,
    mean_life=st.sampled_from([np.inf, 100.0, 20.0]),
    slow_share=st.sampled_from([0.0, 0.5, 1.0]),
    straggle_share=st.sampled_from([0.0, 0.3]),
    depth=st.integers(1, 3),
    hear=SMALL,
    batch=st.integers(1, 7),
    commit=SMALL,
    max_wait=st.sampled_from([0.5, 5.0]),
)
def test_every_task_is_done_once_and_no_second_is_lost(simulation, costs, seed, **values):
    cluster = simulation.Cluster(**values, slowdown=3.0, commit_row=0.01, commit_table=0.001)
    run = simulation.simulate(np.array(costs), cluster, seed)
    assert run.finished.tolist() == [1] * len(costs)
    spent = run.busy + run.lost + run.starting + run.idle
    assert spent == pytest.approx(run.workers * run.seconds)
    assert run.idle >= -1e-6
    assert run.attempts >= len(costs)
    assert (
        run.seconds >= run.hearing + run.committing - 1e-6
    )  # of one driver, which does one thing after the other
    assert run.busy >= sum(costs) - 1e-6
    assert 1 <= run.commits <= len(costs)
    assert 1 <= run.most_waiting <= len(costs)
    if values["mean_life"] == np.inf:
        assert (run.deaths, run.lost, run.attempts) == (0, 0, len(costs))


@settings(deadline=None, max_examples=40)
@given(costs=COSTS, seed=st.integers(0, 99), depth=st.integers(1, 3))
def test_one_worker_takes_the_sum_of_all(simulation, costs, seed, depth):
    run = simulation.simulate(np.array(costs), simulation.Cluster(1, depth=depth), seed)
    assert run.seconds == pytest.approx(sum(costs))
    assert run.efficiency == pytest.approx(1)


@settings(deadline=None, max_examples=40)
@given(costs=COSTS, workers=st.integers(1, 8))
def test_many_workers_take_what_a_plain_list_schedule_takes(simulation, costs, workers):
    """Without overheads and tasks ahead, each task goes to whoever is free first."""
    free = [0.0] * workers
    for cost in costs:
        first = free.index(min(free))
        free[first] += cost
    run = simulation.simulate(np.array(costs), simulation.Cluster(workers, depth=1))
    assert run.seconds == pytest.approx(max(free))


@settings(deadline=None, max_examples=40)
@given(costs=COSTS, workers=st.integers(1, 8), more=st.integers(1, 8))
def test_more_workers_are_never_slower_without_failures(simulation, costs, workers, more):
    seconds = [
        simulation.simulate(np.array(costs), simulation.Cluster(count, depth=1)).seconds
        for count in (workers, workers + more)
    ]
    assert seconds[1] <= seconds[0] + 1e-9


def test_one_writer_bounds_any_number_of_workers(simulation):
    costs = np.full(2000, 1.0)
    cluster = simulation.Cluster(500, hear=0.01, commit=0.32, commit_row=0.005)
    run = simulation.simulate(costs, cluster)
    least = 2000 * (0.01 + 0.005) + 0.32 * 2000 / 64
    assert least <= run.seconds <= 1.1 * least + 1
    assert run.hearing + run.committing == pytest.approx(least, rel=0.02)
    assert run.commits == 32


def test_an_embedding_is_written_after_the_longest_wait(simulation):
    costs = np.array([1.0, 100.0])
    run = simulation.simulate(costs, simulation.Cluster(2, max_wait=5.0, commit=1.0))
    assert (run.commits, run.seconds) == (2, 101.0)


def test_deaths_cost_what_was_begun(simulation):
    costs = np.full(200, 10.0)
    calm = simulation.simulate(costs, simulation.Cluster(10, start=1.0))
    run = simulation.simulate(costs, simulation.Cluster(10, start=1.0, mean_life=40.0), 1)
    assert run.deaths > 10
    assert run.lost > 0
    assert run.attempts > 200
    assert run.seconds > calm.seconds
    assert run.starting > calm.starting == pytest.approx(10.0)


def test_the_seed_decides(simulation):
    costs = np.random.default_rng(0).lognormal(0, 1, 300)
    cluster = simulation.Cluster(8, mean_life=50.0, straggle_share=0.1, slow_share=0.2, slowdown=2.0)
    first, again, other = (simulation.simulate(costs, cluster, seed).seconds for seed in (3, 3, 4))
    assert first == again != other


def test_no_task_takes_no_time(simulation):
    run = simulation.simulate(np.zeros(0), simulation.Cluster(3, start=5.0))
    assert (run.seconds, run.commits, run.idle) == (0.0, 0, 0.0)


# Costs and sizes


@pytest.mark.parametrize(("law", "shape"), [("lognormal", 1.5), ("pareto", 1.5)])
def test_sizes_have_the_median_that_was_asked_for(modules, law, shape):
    sizes = modules[1].draw_sizes(law, 40_000, 1000, shape, 0)
    assert np.median(sizes) == pytest.approx(1000, rel=0.05)
    assert sizes.min() >= 2
    with pytest.raises(SystemExit, match="no law of sizes is named 'zipf'"):
        modules[1].draw_sizes("zipf", 1, 1, 1, 0)


def test_costs_have_the_mean_that_they_say(modules):
    costs = modules[1].Costs(task=1.0, sample=0.01, file=0.001, spread=0.5)
    seconds = costs.of(np.full(50_000, 100.0), np.full(50_000, 200.0), 0)
    assert seconds.mean() == pytest.approx(2.2, rel=0.02)


def test_costs_are_fitted_to_what_tasks_took(modules):
    from types import SimpleNamespace

    sizes = modules[1].small_sizes(300, 0)
    noise = np.random.default_rng(0).lognormal(0, 0.1, 300)
    tasks = [SimpleNamespace(seconds=float(value)) for value in (0.3 + 0.02 * sizes) * noise]
    costs = modules[1].fit_costs(sizes, SimpleNamespace(tasks=tasks), modules[1].Costs())
    assert (costs.task, costs.sample) == (pytest.approx(0.3, rel=0.2), pytest.approx(0.02, rel=0.1))
    assert costs.spread == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("text", ["", "[]", '{"task": "x"}', '{"other": 1}', '{"task": -1}', '{"task": NaN}'])
def test_files_that_hold_no_costs_are_refused(modules, tmp_path, text):
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(SystemExit, match=r"costs\.json"):
        modules[1].load_costs(tmp_path / "costs.json")


def test_costs_that_were_saved_are_loaded(modules, tmp_path):
    costs = modules[1].Costs(task=3.0)
    modules[1].save_costs(costs, tmp_path / "costs.json")
    assert modules[1].load_costs(tmp_path / "costs.json") == costs


# The command


def test_what_breaks_first_is_what_the_simulation_shows(modules):
    """Below the least of the limits most time is well spent; four times above it is not."""
    simulation, measures, script = modules
    options = {"memory": 16.0, "price": 1.0, "seed": 0}
    costs = measures.Costs(
        task=1.0, sample=0.0, start=0.0, hear=0.001, commit=0.5, commit_row=0.0, commit_table=0.0
    )
    seconds = costs.of(np.zeros(20_000), np.zeros(20_000), 0)
    found = script.limits(seconds, costs.cluster(1), options)
    most = found["one_writer_workers"]
    assert most == pytest.approx(1 / (0.001 + 0.5 / 64), rel=0.02)
    below = script.run_figures(seconds, costs.cluster(int(most / 2)), options)
    above = script.run_figures(seconds, costs.cluster(int(most * 4)), options)
    assert (below["breaks"], above["breaks"]) == ("", "one writer")
    assert below["efficiency"] > 0.8 > 0.3 > above["efficiency"]
    assert above["dollars"] == pytest.approx(above["hours"] * above["workers"])
    slowed = simulation.Cluster(1, slow_share=0.5, slowdown=2.0, straggle_share=0.1)
    run = simulation.simulate(seconds, simulation.Cluster(50, slow_share=0.5, slowdown=2.0, straggle_share=0.1))
    assert script.mean_seconds(seconds, slowed) == pytest.approx(50 * run.seconds / 20_000, rel=0.1)


def test_the_command_prints_hours_and_dollars(modules, tmp_path):
    path = tmp_path / "figures.json"
    words = [
        "--tasks",
        "500",
        "--workers",
        "4,16",
        "--sizes",
        "pareto",
        "--latency",
        "0.015",
        "--json",
        str(path),
    ]
    done = CliRunner().invoke(modules[2].main, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "breaks first, by number of workers:" in done.output
    assert path.exists()
    again = CliRunner().invoke(modules[2].main, words, catch_exceptions=False)
    assert again.output == done.output


@pytest.mark.slow
def test_a_real_run_is_predicted(modules, tmp_path):
    """Roughly: other work on the machine makes it slower or faster from one minute to the next."""
    costs, _ = modules[1].calibrate(tmp_path, count=12, side=32, jobs=2, seed=0)
    found = modules[1].check(tmp_path, costs, count=16, side=32, jobs=2, seed=0)
    assert 0.3 < found["predicted_seconds"] / found["measured_seconds"] < 3
    assert 0.5 < found["with_known_costs_seconds"] / found["measured_seconds"] < 1.5
