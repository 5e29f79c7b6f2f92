"""What a million datasets would take: hours, dollars, commits a second, and what breaks first.

    python scripts/bench/simulate_scale.py --workers 8,64,512,4096 --price 0.05
    python scripts/bench/simulate_scale.py --workers 64 --price 2.5 --speedup 20 --sizes pareto --mean-life 24
    python scripts/bench/simulate_scale.py --measure --check 500 --save-costs costs.json

`scripts/lib/scale_simulation.py` says what is simulated. Costs are those of `scripts/lib/scale_measures.py`,
measured on CPU cores: a GPU is whatever `--speedup` says of the time that each sample takes, and was not
measured. With `--measure` they are measured on this machine first. With `--check N` a real run of N tasks in
processes of this machine is predicted, then made, and both are printed. Everything follows from the seed.
`limits` are what the formulas of steady state say: how many workers it takes until each thing is too small.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import print_machine, save_figures
from numpy.typing import NDArray
from scale_measures import CORES, Costs, calibrate, check, draw_sizes, load_costs, save_costs
from scale_simulation import Cluster, Run, simulate

INDEX_BYTES = 3_950
TABLE_BYTES = 8_000
"""Of a task of 928 filters: resident after questions to a million, and on disk; docs/benchmarks.md."""

REQUESTS = 60
"""To an object store for a commit, docs/storage.md."""

TAIL_SHARE = 0.2
"""Of a run, from which on workers that wait for the longest tasks are what is wrong."""

Figures = dict[str, Any]


@click.command()
@click.option("--tasks", default=1_000_000, show_default=True)
@click.option("--workers", default="8,64,512,4096", show_default=True, help="Numbers of workers, by commas.")
@click.option("--price", default=0.05, show_default=True, help="Dollars of a worker for an hour.")
@click.option(
    "--speedup", default=1.0, show_default=True, help="Of each sample, over one core of this machine."
)
@click.option("--sizes", default="lognormal", show_default=True, help="lognormal or pareto.")
@click.option("--median", default=5000.0, show_default=True, help="Samples of a dataset.")
@click.option("--shape", type=float, help="Deviation of the logarithm [1.5], or exponent of Pareto [1.1].")
@click.option("--max-samples", default=2000, show_default=True)
@click.option("--mean-life", default=168.0, show_default=True, help="Hours until a worker dies; 0 for never.")
@click.option("--straggle", default=0.01, show_default=True, help="Share of attempts that straggle.")
@click.option("--slow", default=0.02, show_default=True, help="Share of workers that take three times as long.")
@click.option("--batch", default=64, show_default=True, help="Embeddings of a commit.")
@click.option("--latency", default=0.0, show_default=True, help="Seconds of a request to an object store.")
@click.option("--memory", default=16.0, show_default=True, help="GB that a reader has for the index.")
@click.option("--costs", "costs_path", type=click.Path(path_type=Path), help="As --save-costs wrote them.")
@click.option("--measure", is_flag=True, help="Measure the costs on this machine.")
@click.option("--check", "check_tasks", default=0, help="Predict a real run of so many tasks, and make it.")
@click.option("--save-costs", type=click.Path(path_type=Path))
@click.option("--side", default=64, show_default=True, help="Of images that are made, in pixels.")
@click.option("--quick", is_flag=True, help="20,000 tasks; 12 to measure and 16 to check.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True)
def main(**options: Any) -> None:
    """Measure if asked to, simulate, and say what breaks first."""
    figures: Figures = {"machine": print_machine(), "seed": options["seed"]}
    if options["quick"]:
        options |= {"tasks": 20_000, "check_tasks": min(options["check_tasks"], 16)}
    costs = load_costs(options["costs_path"]) if options["costs_path"] else Costs()
    if options["measure"] or options["check_tasks"]:
        costs = measured(figures, options)
    if options["save_costs"]:
        save_costs(costs, options["save_costs"])
    show("costs, in seconds", asdict(costs))
    figures["costs"] = asdict(costs)
    seconds = task_seconds(costs, options)
    settings = settings_of(costs, options)
    figures["limits"] = limits(seconds, costs.cluster(1, **settings), options)
    show_limits(figures["limits"])
    figures["runs"] = [
        run_figures(seconds, costs.cluster(int(count), **settings), options)
        for count in options["workers"].split(",")
    ]
    show_runs(figures["runs"])
    save_figures(options["json_path"], figures)


def measured(figures: Figures, options: Figures) -> Costs:
    """Costs of this machine; the prediction of a real run beside it, if asked for."""
    with tempfile.TemporaryDirectory() as place:
        common = {"side": options["side"], "jobs": CORES, "seed": options["seed"]}
        count = 12 if options["quick"] else 60
        costs, figures["measured"] = calibrate(Path(place), count=count, **common)
        if options["check_tasks"]:
            figures["check"] = check(Path(place), costs, count=options["check_tasks"], **common)
            show(f"a real run in {CORES} processes of this machine", figures["check"])
    return costs


def task_seconds(costs: Costs, options: Figures) -> NDArray[np.float64]:
    """Seconds ``[N]`` of the tasks."""
    shape = options["shape"] or {"lognormal": 1.5}.get(options["sizes"], 1.1)
    sizes = draw_sizes(options["sizes"], options["tasks"], options["median"], shape, options["seed"])
    used = np.minimum(sizes, options["max_samples"])
    return costs.of(used / options["speedup"], sizes, options["seed"])


def settings_of(costs: Costs, options: Figures) -> dict[str, float]:
    """How the cluster is, beside the costs."""
    life = options["mean_life"] * 3600
    return {
        "mean_life": life or np.inf,
        "slow_share": options["slow"],
        "slowdown": 3.0,
        "straggle_share": options["straggle"],
        "batch": options["batch"],
        "commit": costs.commit + REQUESTS * options["latency"],
    }


def mean_seconds(seconds: NDArray[np.float64], cluster: Cluster) -> float:
    """What a task takes on average, slow workers and stragglers included."""
    slow = 1 / (1 - cluster.slow_share + cluster.slow_share / cluster.slowdown)  # fewer tasks get to slow ones
    shape, most = cluster.straggle_shape, cluster.straggle_most
    longer = 2 * (shape - (2 / most) ** (shape - 1)) / (shape - 1)  # mean of a Pareto law from 2, cut off
    straggling = 1 + cluster.straggle_share * (longer - 1)
    return float(seconds.mean()) * slow * straggling


def limits(seconds: NDArray[np.float64], cluster: Cluster, options: Figures) -> Figures:
    """From where on each thing is too small, in workers; and what a registry of these tasks takes."""
    mean, tables = mean_seconds(seconds, cluster), cluster.commit_table * len(seconds) / 2
    together = cluster.hear + cluster.commit_row + (cluster.commit + tables) / cluster.batch
    alone = cluster.commit + cluster.commit_row + tables
    return {
        "mean_task_seconds": mean,
        "longest_task_seconds": float(seconds.max()),
        "one_writer_workers": mean / together if together else np.inf,
        "commits_of_one_each_workers": mean / alone if alone else np.inf,
        "longest_task_workers": TAIL_SHARE * seconds.sum() / float(seconds.max()),
        "hours_of_one_worker": float(seconds.sum()) * mean / float(seconds.mean()) / 3600,
        "table_gb": TABLE_BYTES * len(seconds) / 1e9,
        "index_gb": INDEX_BYTES * len(seconds) / 1e9,
        "memory_tasks": options["memory"] * 1e9 / INDEX_BYTES,
    }


def run_figures(seconds: NDArray[np.float64], cluster: Cluster, options: Figures) -> Figures:
    """Simulate one number of workers.

    Raises:
        SystemExit: If a task was not done just once.
    """
    run = simulate(seconds, cluster, options["seed"])
    if (run.finished != 1).any():
        raise SystemExit("the simulation lost or doubled a task")
    hours = run.seconds / 3600
    return {
        "workers": run.workers,
        "hours": hours,
        "dollars": hours * run.workers * options["price"],
        "efficiency": run.efficiency,
        "commits": run.commits,
        "commits_per_second": run.commits / run.seconds,
        "most_commits_per_second": run.most_commits,
        "driver_share": (run.hearing + run.committing) / run.seconds,
        "tail_share": run.tail / run.seconds,
        "lost_share": run.lost / (run.workers * run.seconds),
        "starting_share": run.starting / (run.workers * run.seconds),
        "deaths": run.deaths,
        "attempts": run.attempts,
        "most_waiting": run.most_waiting,
        "breaks": breaks(run),
    }


def breaks(run: Run) -> str:
    """What keeps workers from working, if a fifth of their time is gone; the largest share."""
    if run.efficiency >= 1 - TAIL_SHARE:
        return ""
    total = run.workers * run.seconds
    driver = (run.hearing + run.committing) / run.seconds
    shares = {
        "one writer" if run.committing > run.hearing else "one driver": driver if driver > 0.5 else 0.0,
        "longest tasks": run.tail / run.seconds,
        "deaths": run.lost / total,
        "starts": run.starting / total,
    }
    return max(shares, key=lambda name: shares[name])


def show(title: str, values: Figures) -> None:
    """Print figures under a title."""
    click.echo(f"\n{title}")
    for name, value in values.items():
        click.echo(
            f"  {name.replace('_', ' '):28} {value:.4g}" if isinstance(value, float) else f"  {name} {value}"
        )


def show_limits(found: Figures) -> None:
    """Print them, and which breaks first."""
    show("limits", found)
    workers = {
        "one writer for all": found["one_writer_workers"],
        "a commit for each task, as by workers that write for themselves": found["commits_of_one_each_workers"],
        "the longest task": found["longest_task_workers"],
    }
    click.echo("  breaks first, by number of workers:")
    for name, count in sorted(workers.items(), key=lambda item: item[1]):
        click.echo(f"    {count:12,.0f}  {name}")
    click.echo(f"    {found['memory_tasks']:12,.0f}  tasks until the index of a reader fills its memory")


def show_runs(runs: list[Figures]) -> None:
    """Print a line for each number of workers."""
    head = (
        "workers",
        "hours",
        "dollars",
        "efficiency",
        "commits/s",
        "most",
        "driver",
        "tail",
        "deaths",
        "breaks",
    )
    click.echo("\n" + "".join(f"{name:>12}" for name in head))
    for run in runs:
        cells = (
            f"{run['workers']:,}",
            f"{run['hours']:,.2f}",
            f"{run['dollars']:,.0f}",
            f"{run['efficiency']:.1%}",
            f"{run['commits_per_second']:.3g}",
            f"{run['most_commits_per_second']:.3g}",
            f"{run['driver_share']:.1%}",
            f"{run['tail_share']:.1%}",
            f"{run['deaths']:,}",
            run["breaks"] or "nothing",
        )
        click.echo("".join(f"{cell:>12}" for cell in cells))


if __name__ == "__main__":
    main()
