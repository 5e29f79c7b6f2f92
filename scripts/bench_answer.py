"""Whether answers are right on real models: from the first day, and with every result that is added.

    python scripts/bench_answer.py [--quick] [--json FILE] [--seed 0]

Worlds, each with what is left out of what is known:

- real experts: 15 pretrained networks on 31 tasks, one task or its family left out; then 3 to 20 known tasks;
- first day: the same networks never measured, beside the starter content, and with published results too;
- experts left out: a fifth of TransferGraph's; encoders known from another table by the same weights; each of
  11 supervised networks;
- toys: the benchmark of small networks, on tasks of their own and on tasks that share images and differ in
labels;
- protocols: own results in another protocol beside those that are asked about.

Figures are means over tasks with 90% bootstrap intervals: tau_w is ``scipy.stats.weightedtau``; regret@k the
best accuracy minus the best among the k picks; covered and width are of 90% intervals. The last part compares
them with what issue 15 asks for. Reads ``$T2V_SHARED`` or ../shared.
"""

import time
from pathlib import Path
from typing import Any

import click
from answer_data import SHARED
from answer_left_out import bench_alias, bench_supervised, bench_transfergraph
from answer_rules import Figures, show, show_lines, summarise
from answer_worlds import bench_few, bench_first_day, bench_protocols, bench_real, bench_toys, real_world
from machine import print_machine, save_figures

Summary = dict[str, dict[str, Any]]


def run_worlds(*, quick: bool, seed: int) -> dict[str, Figures]:
    """Rows of figures of every world, by its title."""
    real = real_world()
    found: dict[str, Figures] = {
        "real experts, one task left out": bench_real(real, families=False, quick=quick),
        "real experts, its family left out": bench_real(real, families=True, quick=quick),
    }
    for title, rows in bench_few(real, seed=seed, quick=quick).items():
        found[f"real experts, {title}"] = rows
    found["first day, starter content"] = bench_first_day(real, published=False, quick=quick)
    found["first day, published results too"] = bench_first_day(real, published=True, quick=quick)
    found["transfergraph, a fifth of the experts left out"] = bench_transfergraph(quick=quick)
    found["mteb_image from open_clip_zero_shot"] = bench_alias()
    found["sfda_supervised, one expert left out"] = bench_supervised()
    for families in (False, True):
        for title, rows in bench_toys(families=families, quick=quick).items():
            found[f"toys, {'family' if families else 'one task'} left out, {title}"] = rows
    found["protocols"] = bench_protocols(real, seed=seed, quick=quick)
    return found


def acceptance(worlds: dict[str, Summary]) -> list[tuple[str, float, str, float]]:
    """What the issue asks for: name, figure, direction, bound."""

    def figure(world: str, rule: str, name: str) -> float:
        return float(worlds[world][rule][name]["mean"])

    def bound(world: str, rule: str, name: str) -> float:
        low, high = worlds[world][rule][name]["interval"]
        return (high - low) / 2

    one, family = "real experts, one task left out", "real experts, its family left out"
    static = figure(one, "static", "regret@1")
    first = "first day, starter content"
    better = min(figure(first, rule, "regret@1") for rule in ("largest", "ImageNet order"))
    graph, alias, supervised = (
        "transfergraph, a fifth of the experts left out",
        "mteb_image from open_clip_zero_shot",
        "sfda_supervised, one expert left out",
    )
    lines = [
        ("real, width", figure(one, "ours", "width"), "<=", 0.35),
        ("real, --try 0 @1 against static", figure(one, "ours", "regret@1"), "<=", static),
        (
            "real, --try 0 @3 against 75% of static",
            figure(one, "ours", "regret@3"),
            "<=",
            0.75 * figure(one, "static", "regret@3"),
        ),
        (
            "real, families out @1 against static and its error",
            figure(family, "ours", "regret@1"),
            "<=",
            figure(family, "static", "regret@1") + bound(family, "static", "regret@1"),
        ),
        ("real, --try 3 against 60% of static", figure(one, "ours, --try 3", "regret@1"), "<=", 0.6 * static),
        (
            "real, --try 3 against static's first three measured",
            figure(one, "ours, --try 3", "regret@1"),
            "<=",
            figure(one, "static, first 3 measured", "regret@1"),
        ),
        (
            "real, all tried against 25% of static",
            figure(one, "ours, all tried", "regret@1"),
            "<=",
            0.25 * static,
        ),
        ("first day against 1.2 of the better rule", figure(first, "ours", "regret@1"), "<=", 1.2 * better),
        ("transfergraph tau_w", figure(graph, "ours", "tau_w"), ">=", 0.45),
        ("transfergraph regret@1", figure(graph, "ours", "regret@1"), "<=", 0.02),
        ("mteb_image from open_clip regret@1", figure(alias, "ours", "regret@1"), "<=", 0.012),
        ("sfda_supervised tau_w", figure(supervised, "ours", "tau_w"), ">=", 0.65),
        ("relabelled toys tau_w", figure("toys, one task left out, relabelled", "ours", "tau_w"), ">=", 0.689),
    ]
    return lines + few_tasks(worlds) + coverages(worlds)


def few_tasks(worlds: dict[str, Summary]) -> list[tuple[str, float, str, float]]:
    """Few known tasks must never cost more than the static ranking."""
    lines = []
    for count in (3, 5, 10, 20):
        rules = worlds[f"real experts, {count} known tasks"]
        ours, static = (float(rules[rule]["regret@1"]["mean"]) for rule in ("ours", "static"))
        lines.append((f"{count} known tasks @1 against static", ours, "<=", static))
    return lines


def coverages(worlds: dict[str, Summary]) -> list[tuple[str, float, str, float]]:
    """90% intervals must hold what they say, in every world."""
    lines = []
    for title, rules in worlds.items():
        for rule, figures in rules.items():
            if figures["covered"] is not None and "try" not in rule and "tried" not in rule:
                covered = float(figures["covered"]["mean"])
                lines.append((f"coverage, {title}, {rule}", covered, ">=", 0.85))
                lines.append((f"coverage, {title}, {rule}", covered, "<=", 0.95))
    return lines


@click.command()
@click.option("--quick", is_flag=True, help="A few tasks of each, and fewer bootstrap draws.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True, help="Of draws of tasks and of the bootstrap.")
def main(quick: bool, json_path: Path | None, seed: int) -> None:
    """Print regret, rank agreement and calibration in every world, and what they must be."""
    about = print_machine()
    if not (SHARED / "real" / "results.csv").exists():
        print(f"{SHARED} is not there: skipped")
        return
    start = time.perf_counter()
    worlds: dict[str, Summary] = {}
    for title, rows in run_worlds(quick=quick, seed=seed).items():
        worlds[title] = summarise(rows, draws=200 if quick else 2000, seed=seed)
        show(f"{title}: {max(len(values) for values in rows.values())} rows", worlds[title])
    lines = show_lines(acceptance(worlds))
    print(f"\n{time.perf_counter() - start:.0f} seconds")
    save_figures(json_path, {"machine": about, "seed": seed, "figures": worlds, "acceptance": lines})


if __name__ == "__main__":
    main()
