"""Regret and rank agreement of the recommender beside its baselines, on tasks that it has not seen.

    python scripts/bench/bench_recommend.py [--quick] [--json FILE] [--seed 0] [--tables ../shared/tables]
    python scripts/bench/bench_recommend.py --data DIR --results FILE

Two kinds of world. The real benchmark, ``scripts/bench/data``: tasks that have images and so distances. It is
run with one task left out (and what asks the same of the same images) and with its family left out (all that
show the same things); figures are of the tasks that nothing was chosen on. Published tables come without
images: there the recommender has only past results to go by, and must not lose to the static ranking; picked
one after the other, each measured before the next, it should beat the static top 3 and 5.

With --data and --results, tasks of your own are judged, which the benchmark never saw: a folder of class
folders for each, and a CSV of task, expert and accuracy. They join the benchmark, so name the experts as it
does where they are the same.

An expert is never judged on, nor learnt about from, images that it has seen. The task left out takes part in
nothing: not in levels, weights or errors.

Figures per task: tau_w is ``scipy.stats.weightedtau(score, accuracy)``; regret@k the best accuracy minus the
best among the k picks; error+ the increase of error over the best, relative (on ``cub_inat_50``, as published,
the regrets too); passes the experts that were run on the task; ms the time of the answer. In brackets, 90%
percentile bootstrap intervals over tasks.

Axes: T tasks, M experts.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import print_machine, save_figures
from recommend_rules import TRIALS, LeftOut, sequential_picks, simple_rules, with_trials
from recommend_worlds import World, read_starters, read_table
from scipy.stats import weightedtau

from registry.recommend.prediction import Prediction, expected_regret
from registry.recommend.prior import Prior

BENCHMARK = Path(__file__).parent / "data"
TABLES = ("transfergraph", "supervised_11x11", "parc_controlled", "cub_inat_50")
MEASURES = ("tau_w", "regret@1", "regret@3", "regret@5", "error+", "passes", "ms")
CALIBRATION = ("covered", "width", "expected_regret", "regret")
OURS = {
    "ours": ("root_ratio", "domain"),
    "ours, Fisher only": ("root_ratio",),
    "ours, task2vec only": ("task2vec",),
    "ours, domain only": ("domain",),
}
Rows = dict[str, list[list[float]]]


def measures(scores: np.ndarray, truth: np.ndarray, *, relative_error: bool) -> list[float]:
    """The first five ``MEASURES`` of one task; tau_w is NaN where all scores tie."""
    order = np.argsort(-scores, kind="stable")
    unit = 1 - truth.max() if relative_error else 1.0
    regrets = [float((truth.max() - truth[order[:k]].max()) / unit) for k in (1, 3, 5)]
    tied = len(truth) < 3 or np.ptp(scores) == 0
    least = max(1 - truth.max(), 0.01)
    return [
        float("nan") if tied else float(weightedtau(scores, truth).statistic),
        *regrets,
        float((truth.max() - truth[order[0]]) / least),
    ]


def judge_task(left: LeftOut, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """Every rule and every variant of ours on one task, and the calibration of ours."""
    world, known = left.world, left.known
    truth = world.accuracy[left.task, known]
    rows: Rows = {}
    calibration: Rows = {}

    def add(name: str, scores: np.ndarray, passes: int, seconds: float) -> None:
        figures = measures(scores[known], truth, relative_error=world.relative_error)
        rows[name] = [[*figures, float(passes), 1e3 * seconds]]

    draws = [
        measures(generator.random(known.sum()), truth, relative_error=world.relative_error) for _ in range(100)
    ]
    rows["random"] = [[*np.mean(draws, axis=0).tolist(), 0.0, 0.0]]
    for name, scores, passes in simple_rules(left):
        add(name, scores, passes, 0.0)
    variants = OURS if world.likeness else {"ours": ()}
    for name, descriptors in variants.items():
        start = time.perf_counter()
        prior, prediction = left.fit(descriptors)
        add(name, prediction.mean, 0, time.perf_counter() - start)
        calibration[name] = [calibrate(prior, prediction, known, truth)]
        if name == "ours" and world.scores:
            everything = int(known.sum())
            numbers = (*TRIALS, -(-everything // 4), everything)
            for number, current in with_trials(left, prediction, numbers):
                for title in trial_titles(number, numbers):
                    add(title, current.mean, number, time.perf_counter() - start)
        if name == "ours" and not world.likeness:
            picks = sequential_picks(left, prediction, 5)
            ranked = prediction.mean - 1e3
            ranked[picks] = 1e3 - np.arange(len(picks))
            add("ours, one after the other", ranked, 5, time.perf_counter() - start)
    return rows, calibration


def trial_titles(number: int, numbers: tuple[int, ...]) -> list[str]:
    """What a number of trials is called; a quarter of the experts may be one of the others."""
    titles = [f"ours, --try {it}" for it in TRIALS if it == number]
    if number == numbers[-2]:
        titles.append("ours, a quarter tried")
    if number == numbers[-1]:
        titles.append("ours, all tried")
    return titles


def calibrate(prior: Prior, prediction: Prediction, known: np.ndarray, truth: np.ndarray) -> list[float]:
    """``CALIBRATION`` of one task: coverage and width of intervals, expected and true regret of the pick."""
    judged = prediction.of(np.flatnonzero(known))
    half = prior.quantile * judged.sd
    low, high = np.clip(judged.mean - half, 0, 1), np.clip(judged.mean + half, 0, 1)
    pick = int(np.argmax(judged.mean))
    covered = np.mean((low <= truth) & (truth <= high))
    expected = expected_regret(judged)[pick]
    return [float(covered), float(np.mean(high - low)), float(expected), float(truth.max() - truth[pick])]


def judge(
    world: World, tasks: Iterable[int], rest_of: Callable[[int], np.ndarray], seed: int
) -> tuple[list[int], Rows, Rows]:
    """Leave out each task in turn: the tasks that could be judged, and a row of figures for each of them."""
    generator = np.random.default_rng(seed)
    rows: Rows = {}
    calibration: Rows = {}
    judged = []
    for task in tasks:
        if np.isfinite(world.accuracy[task]).sum() < 2:
            continue
        found, calibrated = judge_task(LeftOut(world, task, rest_of(task)), generator)
        for gathered, new in ((rows, found), (calibration, calibrated)):
            for name, row in new.items():
                gathered.setdefault(name, []).extend(row)
        judged.append(task)
    return judged, rows, calibration


def summarise(rows: Rows, names: tuple[str, ...], chosen: np.ndarray, draws: int, seed: int) -> dict[str, Any]:
    """Mean over the chosen tasks and 90% bootstrap interval of each figure; ``None`` where not defined."""
    samples = np.random.default_rng(seed).integers(len(chosen), size=(draws, len(chosen)))
    summary: dict[str, Any] = {}
    for rule, values in rows.items():
        table = np.array(values)[chosen]
        summary[rule] = {}
        for column, name in enumerate(names):
            figures = table[:, column]
            if np.isnan(figures).any():
                summary[rule][name] = None
                continue
            interval = np.quantile(figures[samples].mean(axis=1), [0.05, 0.95]).tolist()
            summary[rule][name] = {"mean": float(figures.mean()), "interval": interval}
    return summary


def show(title: str, summary: dict[str, Any], names: tuple[str, ...]) -> None:
    """Print one table."""
    print(f"\n{title}")
    print(f"{'':30}" + "".join(f"{name:>23}" for name in names))
    for rule, figures in summary.items():
        cells = []
        for name in names:
            figure = figures[name]
            if figure is None:
                cells.append("-")
            elif name in {"passes", "ms"}:
                cells.append(f"{figure['mean']:.0f}")
            else:
                low, high = figure["interval"]
                cells.append(f"{figure['mean']:.4f} [{low:.4f}, {high:.4f}]")
        print(f"{rule:30}" + "".join(f"{cell:>23}" for cell in cells))


def bench_starters(world: World, *, development: bool, quick: bool, seed: int) -> dict[str, Any]:
    """The real benchmark, with one task and with its family left out."""
    tasks = [t for t in range(len(world.tasks)) if world.is_reported(t) is not development]
    tasks = tasks[:: max(1, len(tasks) // 6)] if quick else tasks
    figures: dict[str, Any] = {}
    for title, rest_of in (("one task", world.without_task), ("its family", world.without_family)):
        judged, rows, calibration = judge(world, tasks, rest_of, seed)
        groups = {
            "all": np.arange(len(judged)),
            "own labels": np.flatnonzero([not world.is_relabelled(t) for t in judged]),
            "relabelled": np.flatnonzero([world.is_relabelled(t) for t in judged]),
        }
        for group, chosen in groups.items():
            if len(chosen) > 1:
                ranking = summarise(rows, MEASURES, chosen, 200 if quick else 5000, seed)
                show(f"{title} left out, {group}: {len(chosen)} tasks", ranking, MEASURES)
                figures[f"{title}, {group}"] = ranking
        calibrated = summarise(calibration, CALIBRATION, groups["all"], 200 if quick else 5000, seed)
        show(f"{title} left out: calibration of 90% intervals and of expected regret", calibrated, CALIBRATION)
        figures[f"{title}, calibration"] = calibrated
    return figures


def bench_table(name: str, world: World, *, quick: bool, seed: int) -> dict[str, Any]:
    """A published table, with one task left out."""
    tasks = range(0, len(world.tasks), 8 if quick else 1)
    judged, rows, calibration = judge(world, tasks, world.without_task, seed)
    chosen, draws = np.arange(len(judged)), 200 if quick else 5000
    ranking = summarise(rows, MEASURES, chosen, draws, seed)
    calibrated = summarise(calibration, CALIBRATION, chosen, draws, seed)
    relative = ", regret relative to the least error" if world.relative_error else ""
    show(f"{name}: {len(judged)} tasks, {len(world.experts)} experts{relative}", ranking, MEASURES)
    show(f"{name}: calibration of 90% intervals and of expected regret", calibrated, CALIBRATION)
    return {"ranking": ranking, "calibration": calibrated}


@click.command()
@click.option("--quick", is_flag=True, help="A few tasks of each, and fewer bootstrap draws.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True, help="Of the random rule and the bootstrap.")
@click.option("--starter", "folders", type=click.Path(path_type=Path), multiple=True, help="In place of ours.")
@click.option("--scores", type=click.Path(path_type=Path), multiple=True, help="Of measure_scores.py.")
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Tasks of your own."
)
@click.option("--results", type=click.Path(exists=True, path_type=Path), help="CSV of results on them.")
@click.option("--development", is_flag=True, help="The tasks that things are chosen on instead.")
@click.option(
    "--tables",
    type=click.Path(path_type=Path),
    default=Path(__file__).parents[3] / "shared" / "tables",
    help="Folder of published tables.",
)
def main(
    quick: bool,
    json_path: Path | None,
    seed: int,
    folders: tuple[Path, ...],
    scores: tuple[Path, ...],
    data: Path | None,
    results: Path | None,
    development: bool,
    tables: Path,
) -> None:
    """Print regret, rank agreement and calibration on the real benchmark and on every table there is.

    Raises:
        UsageError: If only one of --data and --results is given.
    """
    about = print_machine()
    if (data is None) != (results is None):
        raise click.UsageError("--data and --results go together: name both, or neither")
    own = (data, results) if data and results else None
    world = read_starters(folders or (BENCHMARK,), scores or (BENCHMARK / "scores.csv",), own)
    print(f"{len(world.tasks)} tasks, {len(world.experts)} experts")
    figures = {"benchmark": bench_starters(world, development=development, quick=quick, seed=seed)}
    for name in TABLES:
        path = tables / f"{name}.csv"
        if path.exists():
            figures[name] = bench_table(name, read_table(path), quick=quick, seed=seed)
        else:
            print(f"{path} is not there: skipped")
    save_figures(json_path, {"machine": about, "seed": seed, "figures": figures})


if __name__ == "__main__":
    main()
