"""Regret and rank agreement of the recommender, leave one task out, beside its baselines.

    python scripts/bench_recommend.py [--quick] [--json FILE] [--seed 0] [--tables ../shared/tables]

Two kinds of table. Published tables come without images, so without distances: there the recommender has
only the static prior to go by and must not lose to it. The starter registry has embeddings: there it is
compared with rules that use them and rules that do not. An expert is never judged on, nor learnt about
from, its own source task. The task left out takes part in nothing: not in levels, grid weights or errors.

Figures per task: tau_w is ``scipy.stats.weightedtau(score, accuracy)``; regret@k the best accuracy minus the
best among the k picks (on ``cub_inat_50``, as published, the increase of error over the best, relative).
Intervals are 90% percentile bootstrap intervals over tasks.

Axes: T tasks, M experts.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from machine import print_machine, save_figures
from scipy.stats import weightedtau

from registry.distances import pairwise
from registry.prior import Prediction, Prior, fit_prior
from registry.recommend import expected_regret
from registry.result_table import ResultTable
from registry.starter import FOLDER, Starter, load_starter

TABLES = ("transfergraph", "supervised_11x11", "parc_controlled", "cub_inat_50")
RELATIVE_ERROR_TABLES = {"cub_inat_50"}
MEASURES = ("tau_w", "regret@1", "regret@3", "regret@5")
CALIBRATION = ("covered", "width", "expected_regret", "regret")
Rows = dict[str, list[list[float]]]


@dataclass(frozen=True, eq=False)
class Bench:
    """A table to leave tasks out of, and what is known of the likeness of its tasks.

    Attributes:
        accuracy: ``[T, M]``, NaN where there is no result or the task is the expert's source.
        descriptors: Distances between tasks ``[T, T]`` by name; the recommender runs once for each.
        source: ``[M, T]`` distance from each expert's source, or ``None``.
        sizes: ``[M]`` parameters, or ``None``.
    """

    tasks: list[str]
    experts: list[str]
    accuracy: np.ndarray
    descriptors: dict[str, np.ndarray | None]
    source: np.ndarray | None = None
    sizes: np.ndarray | None = None
    relative_error: bool = False


def read_table(path: Path) -> Bench:
    """A published table; an expert named as a task was trained on it."""
    with path.open(newline="") as file:
        results = {(row["task"], row["expert"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    tasks, experts = sorted({task for task, _ in results}), sorted({expert for _, expert in results})
    nan = float("nan")
    accuracy = np.array([[nan if t == e else results.get((t, e), nan) for e in experts] for t in tasks])
    return Bench(tasks, experts, accuracy, {"ours": None}, relative_error=path.stem in RELATIVE_ERROR_TABLES)


def read_starter(starter: Starter) -> Bench:
    """The starter registry; repeated results are averaged."""
    tasks, experts = [task.name for task in starter.tasks], [expert.name for expert in starter.experts]
    total, count = np.zeros((2, len(tasks), len(experts)))
    sources = [expert.source_task for expert in starter.experts]
    for result in starter.results:
        place = tasks.index(result.task), experts.index(result.expert)
        if sources[place[1]] != result.task:
            total[place] += result.accuracy
            count[place] += 1
    accuracy = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    fisher = np.stack([embedding.fisher for embedding in starter.embeddings])
    directed = pairwise("task2vec_asymmetric", fisher, fisher, trivial=starter.space.trivial)
    unknown = np.full(len(tasks), np.nan)
    source = np.array([directed[tasks.index(name)] if name in tasks else unknown for name in sources])
    domain = np.stack([embedding.domain for embedding in starter.embeddings]).astype(np.float64)
    unit = domain / np.linalg.norm(domain, axis=1, keepdims=True)
    descriptors = {"ours, task2vec": pairwise("task2vec", fisher, fisher), "ours, domain": 1 - unit @ unit.T}
    sizes = np.array([expert.num_params or 0 for expert in starter.experts], dtype=np.float64)
    return Bench(tasks, experts, accuracy, descriptors, source, sizes)


def fit_without(bench: Bench, task: int, between: np.ndarray | None) -> tuple[Prior, Prediction]:
    """The model of all other tasks, and its prediction for this one."""
    rest = np.flatnonzero(np.arange(len(bench.tasks)) != task)
    table = ResultTable(tuple(bench.tasks[u] for u in rest), tuple(bench.experts), bench.accuracy[rest])
    source = bench.source
    prior = fit_prior(
        table,
        None if between is None else between[np.ix_(rest, rest)],
        None if source is None else source[:, rest],
    )
    to_query = None if between is None else between[rest, task]
    return prior, prior.predict(to_query, None if source is None else source[:, task])


def static_scores(accuracy: np.ndarray) -> np.ndarray:
    """Mean z-score ``[M]`` over the tasks, shrunk by n/(n+1)."""
    deviations = accuracy - np.nanmean(accuracy, axis=1, keepdims=True)
    z = deviations / np.maximum(np.nanstd(accuracy, axis=1, keepdims=True), 1e-12)
    return np.nansum(z, axis=0) / (np.isfinite(z).sum(axis=0) + 1)


def rule_scores(bench: Bench, task: int) -> Iterator[tuple[str, np.ndarray]]:
    """Scores ``[M]`` of the simple rules that this table allows."""
    rest = np.flatnonzero(np.arange(len(bench.tasks)) != task)
    static = static_scores(bench.accuracy[rest])
    if bench.sizes is not None:
        yield "largest", bench.sizes
    yield "static", static
    if "imagenet" in bench.experts:
        yield "always imagenet", static + 1e3 * (np.array(bench.experts) == "imagenet")
    for name, between in bench.descriptors.items():
        if between is not None:
            nearest = rest[np.argmin(between[rest, task])]
            accuracy = bench.accuracy[nearest]
            # experts without a result there (it is their source) come last, by static rank
            ranked = np.where(np.isfinite(accuracy), accuracy, static - 1e3)
            yield f"nearest task, {name.removeprefix('ours, ')}", ranked
    if bench.source is not None:
        distance = bench.source[:, task]
        yield "source distance", -np.where(np.isfinite(distance), distance, 1e3)


def measures(scores: np.ndarray, truth: np.ndarray, *, relative_error: bool) -> list[float]:
    """``MEASURES`` of one task; tau_w is NaN where all scores tie."""
    order = np.argsort(-scores, kind="stable")
    unit = 1 - truth.max() if relative_error else 1.0
    regrets = [float((truth.max() - truth[order[:k]].max()) / unit) for k in (1, 3, 5)]
    tied = len(truth) < 3 or np.ptp(scores) == 0
    return [float("nan") if tied else float(weightedtau(scores, truth).statistic), *regrets]


def leave_one_out(bench: Bench, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """``MEASURES`` of every rule and ``CALIBRATION`` of every variant of ours, one row per task."""
    rows: Rows = {}
    calibration: Rows = {}
    for task in range(len(bench.tasks)):
        known = np.isfinite(bench.accuracy[task])
        truth = bench.accuracy[task, known]
        if known.sum() < 2:
            continue

        def judge(scores: np.ndarray, known: np.ndarray = known, truth: np.ndarray = truth) -> list[float]:
            return measures(scores[known], truth, relative_error=bench.relative_error)

        draws = [judge(generator.random(len(known))) for _ in range(100)]
        rows.setdefault("random", []).append(np.mean(draws, axis=0).tolist())
        for name, scores in rule_scores(bench, task):
            rows.setdefault(name, []).append(judge(scores))
        for name, between in bench.descriptors.items():
            prior, prediction = fit_without(bench, task, between)
            rows.setdefault(name, []).append(judge(prediction.mean))
            calibration.setdefault(name, []).append(calibrate(prior, prediction, known, truth))
    return rows, calibration


def calibrate(prior: Prior, prediction: Prediction, known: np.ndarray, truth: np.ndarray) -> list[float]:
    """``CALIBRATION`` of one task: coverage and width of intervals, expected and true regret of the pick."""
    judged = Prediction(
        prediction.mean[known], prediction.deviation_sd[known], prediction.level_sd, prediction.sd[known]
    )
    half = prior.quantile * judged.sd
    low, high = np.clip(judged.mean - half, 0, 1), np.clip(judged.mean + half, 0, 1)
    pick = int(np.argmax(judged.mean))
    covered = np.mean((low <= truth) & (truth <= high))
    expected = expected_regret(judged, prior.scenarios[:, known])[pick]
    return [float(covered), float(np.mean(high - low)), float(expected), float(truth.max() - truth[pick])]


def summarise(
    rows: Rows, names: tuple[str, ...], draws: np.ndarray
) -> dict[str, dict[str, dict[str, float | list[float]] | None]]:
    """Mean over tasks and 90% bootstrap interval of every figure; ``None`` where it is not defined."""
    summary: dict[str, dict[str, dict[str, float | list[float]] | None]] = {}
    for rule, values in rows.items():
        table = np.array(values)
        summary[rule] = {}
        for column, name in enumerate(names):
            figures = table[:, column]
            if np.isnan(figures).any():
                summary[rule][name] = None
                continue
            means = figures[draws].mean(axis=1)
            interval = np.quantile(means, [0.05, 0.95]).tolist()
            summary[rule][name] = {"mean": float(figures.mean()), "interval": interval}
    return summary


def show(title: str, summary: dict, names: tuple[str, ...]) -> None:
    """Print one table."""
    print(f"\n{title}")
    print(f"{'':24}" + "".join(f"{name:>26}" for name in names))
    for rule, figures in summary.items():
        cells = []
        for name in names:
            figure = figures[name]
            cells.append(
                "-"
                if figure is None
                else f"{figure['mean']:.4f} [{figure['interval'][0]:.4f}, {figure['interval'][1]:.4f}]"
            )
        print(f"{rule:24}" + "".join(f"{cell:>26}" for cell in cells))


@click.command()
@click.option("--quick", is_flag=True, help="Fewer bootstrap draws.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True, help="Of the random rule and the bootstrap.")
@click.option(
    "--tables",
    type=click.Path(path_type=Path),
    default=Path(__file__).parents[2] / "shared" / "tables",
    help="Folder of published tables.",
)
def main(quick: bool, json_path: Path | None, seed: int, tables: Path) -> None:
    """Print regret, rank agreement and calibration on every table there is."""
    about = print_machine()
    benches = {name: read_table(tables / f"{name}.csv") for name in TABLES if (tables / f"{name}.csv").exists()}
    if not benches:
        print(f"no published tables in {tables}: skipped")
    if (FOLDER / "starter.json").exists():
        benches["starter"] = read_starter(load_starter())
    else:
        print("no starter registry: skipped")
    figures: dict[str, dict] = {}
    for name, bench in benches.items():
        generator = np.random.default_rng(seed)
        rows, calibration = leave_one_out(bench, generator)
        num_tasks = len(rows["random"])
        draws = generator.integers(num_tasks, size=(200 if quick else 5000, num_tasks))
        ranking, calibrated = summarise(rows, MEASURES, draws), summarise(calibration, CALIBRATION, draws)
        title = f"{name}: {num_tasks} tasks, {len(bench.experts)} experts"
        show(
            title + (", regret relative to the least error" if bench.relative_error else ""), ranking, MEASURES
        )
        show(f"{name}: calibration of 90% intervals and of expected regret", calibrated, CALIBRATION)
        figures[name] = {"ranking": ranking, "calibration": calibrated}
    save_figures(json_path, {"machine": about, "seed": seed, "figures": figures})


if __name__ == "__main__":
    main()
