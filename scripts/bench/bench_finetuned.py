"""Does what is recommended from linear probes hold when experts are fine-tuned? On part of the benchmark.

    python scripts/bench/bench_finetuned.py [--json FILE]

Truth is ``scripts/bench/data/finetuned.csv``: 12 experts fine-tuned once on 20 images a class of 8 reported
tasks. Each task is left out; the recommender and the rules know the linear probes of the other tasks only. One
run has a noise of some hundredths.
"""

import csv
from pathlib import Path

import click
import numpy as np
from bench_recommend import BENCHMARK, OURS, measures
from machine import print_machine, save_figures
from recommend_rules import LeftOut, static_scores
from recommend_worlds import GENERALIST, read_starters

MEASURES = ("tau_w", "regret@1")


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
def main(json_path: Path | None) -> None:
    """Print regret and rank agreement with fine-tuned accuracies, means over tasks."""
    about = print_machine()
    world = read_starters([BENCHMARK], [BENCHMARK / "scores.csv"])
    rows: dict[str, list[list[float]]] = {}
    for task, tuned in read_tuned(BENCHMARK / "finetuned.csv").items():
        place = world.tasks.index(task)
        left = LeftOut(world, place, world.without_task(place))
        chosen = [world.experts.index(expert) for expert in tuned]
        truth = np.array(list(tuned.values()))
        static = static_scores(world.accuracy[left.rest])
        scores = {
            "static": static,
            "generalist": static + 1e3 * (np.array(world.experts) == GENERALIST),
            "ours": left.fit(OURS["ours"])[1].mean,
            "linear probe of the task itself": world.accuracy[place],
            "score: logme": world.scores["logme"][place],
        }
        for rule, values in scores.items():
            tau, regret, *_ = measures(values[chosen], truth, relative_error=False)
            rows.setdefault(rule, []).append([tau, regret])
    figures = {
        rule: dict(zip(MEASURES, np.mean(values, axis=0).tolist(), strict=True))
        for rule, values in rows.items()
    }
    print(f"{len(rows['ours'])} tasks, fine-tuned")
    for rule, found in figures.items():
        print(f"{rule:34}" + "".join(f"{name:>10} {found[name]:.3f}" for name in MEASURES))
    save_figures(json_path, {"machine": about, "figures": figures})


def read_tuned(path: Path) -> dict[str, dict[str, float]]:
    """Fine-tuned accuracy by task and expert."""
    tuned: dict[str, dict[str, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            tuned.setdefault(row["task"], {})[row["expert"]] = float(row["accuracy"])
    return tuned


if __name__ == "__main__":
    main()
