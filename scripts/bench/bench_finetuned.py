"""Does what is recommended from linear probes hold when experts are fine-tuned? On part of the benchmark.

    python scripts/bench/bench_finetuned.py [--json FILE]

Truth is ``scripts/bench/data/finetuned.csv``: 12 experts fine-tuned once on 20 images a class of 8 tasks. Each
task is left out; the recommender and the rules know the linear probes of the other tasks only. One run has a
noise of some hundredths.
"""

from pathlib import Path

import click
import numpy as np
from answer_data import BENCHMARK, read_results, read_starter
from answer_rules import judge, show, static_scores, summarise
from answer_worlds import World
from machine import print_machine, save_figures


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
def main(json_path: Path | None, seed: int) -> None:
    """Print regret and rank agreement with fine-tuned accuracies, means over tasks."""
    about = print_machine()
    world = World(*read_starter(BENCHMARK, toys=False))
    tuned = read_results(BENCHMARK / "finetuned.csv")
    after = World(world.tasks, world.experts, tuned)
    truth = world.truth(world.tasks.names)
    rows: dict[str, list[list[float]]] = {}
    for task in sorted({row.task for row in tuned}):
        left = world.tasks.without_task(task)
        rest = [place for place, name in enumerate(world.tasks.names) if name not in left]
        (accuracy,) = after.truth([task], (tuned[0].metric, tuned[0].protocol))
        probe = np.nan_to_num(truth[world.tasks.names.index(task)])
        scores = {
            "static": static_scores(truth[rest]),
            "linear probe of the task itself": probe,
            "ours": world.predict(world.fit(left), task).logit,
        }
        for rule, values in scores.items():
            rows.setdefault(rule, []).append(judge(values, accuracy))
    figures = summarise(rows, draws=2000, seed=seed)
    show(f"fine-tuned: {len(rows['ours'])} tasks", figures)
    save_figures(json_path, {"machine": about, "figures": figures})


if __name__ == "__main__":
    main()
