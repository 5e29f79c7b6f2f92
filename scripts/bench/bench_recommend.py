"""Whether answers are right: on real models, from the first day, and with every result that is added.

    python scripts/bench/bench_recommend.py [--quick] [--json FILE] [--seed 0]

Worlds, each with what is left out of what is known:

- real experts: 15 pretrained networks on 31 tasks, one task (or what shows the same) left out; then 3 to 20
  tasks only that have results; then some of the networks measured on the very task, the others judged;
- first day: the same networks never measured, beside the starter content, and with published results too;
- experts left out: a fifth of TransferGraph's, and of text encoders; image encoders that another table measured
  as the same weights; each of 11 supervised networks;
- toys: the benchmark of small networks, ``scripts/bench/data``, on tasks of their own and on tasks that share
  images and differ in labels;
- protocols: own results in another protocol beside those that are asked about.

Peers are simple rules: the best on average (static), the largest, the best on the nearest task, ImageNet order.
Figures are means over tasks with 90% bootstrap intervals: tau_w is ``scipy.stats.weightedtau``; regret@k the
best accuracy minus the best among the k picks; covered and width are of 90% intervals, and the interval of
covered is binomial, a row counting once. The last part compares them with what they are meant to be. All but
the toys need ``$T2V_SHARED`` or ../shared.
"""

import time
from pathlib import Path
from typing import Any

import click
from answer_data import SHARED
from answer_left_out import bench_alias, bench_supervised, bench_texts, bench_transfergraph
from answer_rules import Figures, show, show_coverage, show_lines, summarise
from answer_worlds import (
    bench_few,
    bench_first_day,
    bench_own,
    bench_protocols,
    bench_real,
    bench_toys,
    real_world,
)
from machine import print_machine, save_figures

Summary = dict[str, dict[str, Any]]
Lines = list[tuple[str, float, str, float]]
"""Name, figure, ``<=`` or ``>=``, bound."""

ONE, FAMILY = "real experts, one task left out", "real experts, its family left out"
FEW = "real experts, {} known tasks"
OWN = "real experts, {} of them measured on the task, the others"
FIRST_DAY, PUBLISHED = "first day, starter content", "first day, published results too"
GRAPH = "transfergraph, a fifth of the experts left out"
TEXTS = "text encoders of mteb, a fifth left out"
ALIAS = "mteb_image from open_clip_zero_shot"
SUPERVISED = "sfda_supervised, one expert left out"
TOYS = "toys, {} left out, {}"


def run_worlds(*, quick: bool, seed: int) -> dict[str, Figures]:
    """Rows of figures of every world whose files are there, by its title."""
    worlds: dict[str, Figures] = {}
    if (SHARED / "real").is_dir():
        real = real_world()
        worlds[ONE] = bench_real(real, families=False, quick=quick)
        worlds[FAMILY] = bench_real(real, families=True, quick=quick)
        for count, rows in bench_few(real, seed=seed, quick=quick).items():
            worlds[FEW.format(count)] = rows
        for count, rows in bench_own(real, seed=seed, quick=quick).items():
            worlds[OWN.format(count)] = rows
        worlds["protocols"] = bench_protocols(real, seed=seed, quick=quick)
        worlds[FIRST_DAY] = bench_first_day(real, published=False, quick=quick)
        if (SHARED / "tables").is_dir() and not quick:
            worlds[PUBLISHED] = bench_first_day(real, published=True, quick=False)
    if (SHARED / "tables").is_dir():
        worlds[GRAPH] = bench_transfergraph(quick=quick)
        worlds[TEXTS] = bench_texts()
        worlds[ALIAS] = bench_alias()
        worlds[SUPERVISED] = bench_supervised()
    for families in (False, True):
        for title, rows in bench_toys(families=families, quick=quick).items():
            worlds[TOYS.format("its family" if families else "one task", title)] = rows
    return worlds


def list_bounds(worlds: dict[str, Summary]) -> Lines:
    """What the figures of the worlds that ran are meant to be."""
    lines: Lines = []
    if ONE in worlds:
        lines += real_bounds(worlds) + first_day_bounds(worlds)
    if GRAPH in worlds:
        lines += [
            ("transfergraph tau_w", mean(worlds[GRAPH], "ours", "tau_w"), ">=", 0.45),
            ("transfergraph regret@1", mean(worlds[GRAPH], "ours", "regret@1"), "<=", 0.02),
            (
                "text encoders regret@1 against the largest",
                mean(worlds[TEXTS], "ours", "regret@1"),
                "<=",
                mean(worlds[TEXTS], "largest", "regret@1"),
            ),
            ("mteb_image from open_clip regret@1", mean(worlds[ALIAS], "ours", "regret@1"), "<=", 0.012),
            ("sfda_supervised tau_w", mean(worlds[SUPERVISED], "ours", "tau_w"), ">=", 0.65),
        ]
    toys = worlds[TOYS.format("one task", "relabelled")]
    lines.append(("relabelled toys tau_w, the former model", mean(toys, "ours", "tau_w"), ">=", 0.689))
    return lines


def real_bounds(worlds: dict[str, Summary]) -> Lines:
    """Of real experts on tasks left out: beside the best on average, without trials and with them."""
    one, family = worlds[ONE], worlds[FAMILY]
    static, third = mean(one, "static", "regret@1"), mean(one, "static", "regret@3")
    low, high = family["static"]["regret@1"]["interval"]
    loose = mean(family, "static", "regret@1") + (high - low) / 2
    tried = mean(one, "ours, --try 3", "regret@1")
    measured = mean(one, "static, first 3 measured", "regret@1")
    lines: Lines = [
        ("real, width", mean(one, "ours", "width"), "<=", 0.35),
        ("real, @1 against static", mean(one, "ours", "regret@1"), "<=", static),
        ("real, @3 against 75% of static", mean(one, "ours", "regret@3"), "<=", 0.75 * third),
        ("real, family out, @1 against static and its error", mean(family, "ours", "regret@1"), "<=", loose),
        ("real, --try 3 against 60% of static", tried, "<=", 0.6 * static),
        ("real, --try 3 against static's first three measured", tried, "<=", measured),
        (
            "real, all tried against 25% of static",
            mean(one, "ours, all tried", "regret@1"),
            "<=",
            0.25 * static,
        ),
    ]
    for count in (3, 5, 10, 20):
        few = worlds[FEW.format(count)]
        ours, peer = mean(few, "ours", "regret@1"), mean(few, "static", "regret@1")
        lines.append((f"real, {count} known tasks, @1 against static", ours, "<=", peer))
    return lines


def first_day_bounds(worlds: dict[str, Summary]) -> Lines:
    """Of real experts never measured: beside the better of two simple rules."""
    day = worlds[FIRST_DAY]
    better = min(mean(day, rule, "regret@1") for rule in ("largest", "ImageNet order"))
    return [("first day, @1 against 1.2 of the better rule", mean(day, "ours", "regret@1"), "<=", 1.2 * better)]


def mean(summary: Summary, rule: str, name: str) -> float:
    """One figure."""
    return float(summary[rule][name]["mean"])


@click.command()
@click.option("--quick", is_flag=True, help="A few tasks of each, and fewer bootstrap draws.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True, help="Of draws of tasks and of the bootstrap.")
def main(quick: bool, json_path: Path | None, seed: int) -> None:
    """Print regret, rank agreement and calibration in every world, and what they are meant to be."""
    about = print_machine()
    for part in ("real", "tables"):
        if not (SHARED / part).is_dir():
            print(f"{SHARED / part} is not there: worlds that need it are skipped")
    start = time.perf_counter()
    worlds: dict[str, Summary] = {}
    for title, rows in run_worlds(quick=quick, seed=seed).items():
        worlds[title] = summarise(rows, draws=200 if quick else 2000, seed=seed)
        show(f"{title}: {max(len(values) for values in rows.values())} rows", worlds[title])
    lines = show_lines(list_bounds(worlds)) + [
        show_coverage(f"{title}, {rule}", figures["covered"])
        for title, rules in worlds.items()
        for rule, figures in rules.items()
        if figures["covered"] is not None and not rule.startswith("ours, ")  # trials
    ]
    print(f"\n{time.perf_counter() - start:.0f} seconds")
    save_figures(json_path, {"machine": about, "seed": seed, "figures": worlds, "bounds": lines})


if __name__ == "__main__":
    main()
