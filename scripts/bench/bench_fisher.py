"""Accuracy, time and memory of indexer.square_grads, beside an ordinary training step and its peers.

    python scripts/bench/bench_fisher.py [--networks resnet18@32,vit_b_16@224] [--batch-sizes 1,8]

The peers are torch.func, BackPACK, Opacus, NNGeometry and curvlinops
(``pip install 'task2vec-registry[bench]'``), on the same random network, images and threads; of curvlinops it
is the diagonal of KFAC, an approximation. BackPACK, Opacus and curvlinops are given a copy of the network that
writes nothing in place, without which they run none of these; a peer that cannot take a network is printed with
its reason.

Accuracy: squared gradients of one label a sample, averaged over samples; the relative error of a filter is
|found - expected| / max(|expected|, 1e-3 of the layer's largest), because a gradient whose terms cancel is
rounded in proportion to them. Below it float32 errors are larger, ours larger than torch.func's, because Gram
matrices square before they sum: they are printed too, with a floor of 1e-6. A peer that is off in
float64 is not timed, unless it approximates.

Time: one forward and backward pass over one batch, for each route in a process of its own, and in turn with
plain steps there, so that ratios do not drift with the machine; medians. A first run counts only where rounds
would take too long ("one run"). Memory: by how much the process grew at most in the first run.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from fisher_costs import Case, Cost, best_chunk_size, measure_cost, measure_errors
from fisher_peers import APPROXIMATE, ROUTES
from fresh_process import Outcome, run_fresh
from machine import print_machine, save_figures

NETWORKS = (
    "resnet18@32",
    "resnet18@64",
    "resnet18@128",
    "resnet18@224",
    "squeezenet1_0@224",
    "mobilenet_v3_small@224",
    "vit_b_16@224",
)
BATCH_SIZES = (1, 8, 64)
EXTRA_BATCH_SIZES = {"resnet18@32": (32,), "resnet18@64": (32,)}
QUICK_NETWORKS = ("resnet18@32", "squeezenet1_0@64", "mobilenet_v3_small@64")
QUICK_BATCH_SIZES = (8,)
ERROR_CASE = {"pixels": 64, "batch_size": 2}
PEER_TOLERANCE = 1e-6  # in float64
PILOT_BATCH_SIZE = 8
"""Of a run before a larger batch where no smaller one was asked for, so that nothing runs unforeseen."""

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What a measurement may take.

    Attributes:
        threads: Of its process.
        repeats: Most rounds.
        seconds: Of one run.
        bytes: By which memory may grow.
    """

    threads: int
    repeats: int
    seconds: float
    bytes: int


def report_errors(case: Case, limits: Limits) -> dict[str, dict[str, float] | str]:
    """Print and return the errors of each route, or why it cannot take this architecture."""
    print(f"  {case.architecture}")
    figures: dict[str, dict[str, float] | str] = {}
    for route in [name for name in ROUTES if name not in {"plain", "torch_func"}]:
        outcome = run_fresh(measure_errors, case, route, threads=limits.threads, timeout=300)
        figures[route] = outcome.failure or outcome.value
        if outcome.failure:
            print(f"    {route:12} {outcome.failure}", flush=True)
        else:
            print(
                f"    {route:12} " + "  ".join(f"{name} {value:.2g}" for name, value in outcome.value.items())
            )
    return figures


def find_refusals(errors: dict[str, dict[str, float] | str]) -> dict[str, str]:
    """Route to why it is not timed: it failed, or, of a peer, its figures are wrong."""
    refusals = {}
    for route, found in errors.items():
        if isinstance(found, str):
            refusals[route] = found
        elif route not in {"ours", *APPROXIMATE} and not found["float64"] <= PEER_TOLERANCE:
            refusals[route] = f"wrong figures: relative error {found['float64']:.1g}"
    return refusals


def measure(case: Case, route: str, chunk_size: int | None, known: Cost | None, limits: Limits) -> Outcome:
    """Cost of a route, unless a known cost of one sample says that it would be beyond the limits."""
    if known is None and case.batch_size > PILOT_BATCH_SIZE:
        pilot = replace(case, batch_size=PILOT_BATCH_SIZE)
        outcome = measure(pilot, route, chunk_size, None, replace(limits, repeats=1))
        if outcome.failure:
            return outcome
        known = outcome.value.scaled(1 / PILOT_BATCH_SIZE)
    if known is not None:
        expected = known.scaled(case.batch_size)
        if expected.seconds > limits.seconds:
            return Outcome(failure=f"skipped: a run would take about {expected.seconds:.0f} s")
        if expected.peak_bytes > limits.bytes and not chunk_size:
            return Outcome(failure=f"skipped: would take about {expected.peak_bytes / MIB:.0f} MiB")
    timeout = 60 + 4 * limits.seconds
    return run_fresh(
        measure_cost, case, route, chunk_size, limits.repeats, threads=limits.threads, timeout=timeout
    )


def measure_network(
    network: str, batch_sizes: list[int], refusals: dict[str, str], base: Case, limits: Limits
) -> list[dict[str, Any]]:
    """Print and return a row for each batch size, rising, and route."""
    rows = []
    known: dict[str, Cost] = {}  # title to its latest cost, of one sample
    for batch_size in sorted(batch_sizes):
        case = replace(base, batch_size=batch_size)
        print(f"\n{network}, batch of {batch_size}")
        print(f"  {'route':28} {'seconds':>9} {'of plain':>9} {'of ours':>8} {'peak MiB':>9}  rounds")
        ours = None
        for title, route, chunk_size in variants(case, known.get("torch_func"), limits):
            outcome = (
                Outcome(failure=refusals[route])
                if route in refusals
                else measure(case, route, chunk_size, known.get(title), limits)
            )
            if outcome.value:
                known[title] = outcome.value.scaled(1 / batch_size)
                ours = outcome.value if route == "ours" else ours
            rows.append({"network": network, "batch_size": batch_size, "route": title, **row(outcome, ours)})
            print_row(rows[-1])
    return rows


def variants(case: Case, known: Cost | None, limits: Limits) -> list[tuple[str, str, int | None]]:
    """Title, route and chunk size of each row; torch.func comes as it is documented and at its best."""
    fitting = case.batch_size
    if known is not None:
        fitting = max(1, min(fitting, limits.bytes // known.peak_bytes))
    found = []
    for route in ROUTES:
        if route != "torch_func" or fitting == case.batch_size:
            found.append((route, route, None))
        if route == "torch_func":
            best = run_fresh(best_chunk_size, case, fitting, threads=limits.threads, timeout=300).value or 1
            chunks = {fitting, best} - {case.batch_size}
            found += [(f"torch_func, chunks of {size}", route, size) for size in sorted(chunks)]
    return found


def row(outcome: Outcome, ours: Cost | None) -> dict[str, Any]:
    """Figures of a measurement; ratios to ours are of ratios to plain steps, each in its own process."""
    if outcome.failure:
        return {"reason": outcome.failure}
    cost = outcome.value
    over_plain = cost.seconds / cost.plain_seconds
    over_ours = over_plain / (ours.seconds / ours.plain_seconds) if ours else None
    return asdict(cost) | {"over_plain": over_plain, "over_ours": over_ours}


def print_row(figures: dict[str, Any]) -> None:
    """Print one line of the table."""
    if "reason" in figures:
        print(f"  {figures['route']:28} {figures['reason']}", flush=True)
        return
    over_ours = f"{figures['over_ours']:8.2f}" if figures["over_ours"] else f"{'-':>8}"
    print(
        f"  {figures['route']:28} {figures['seconds']:9.3f} {figures['over_plain']:9.2f} {over_ours} "
        f"{figures['peak_bytes'] / MIB:9.0f}  {figures['rounds'] or 'first run'}",
        flush=True,
    )


def parse_batch_sizes(_context: click.Context, _option: click.Parameter, value: str | None) -> list[int]:
    """Read ``1,8`` as numbers.

    Raises:
        click.BadParameter: If they are not positive whole numbers.
    """
    parts = value.split(",") if value else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"expected positive whole numbers between commas, got {value!r}")
    return [int(part) for part in parts]


def parse_networks(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str]:
    """Read ``resnet18@32,vit_b_16@224``.

    Raises:
        click.BadParameter: If one is not a name and a number of pixels.
    """
    parts = value.split(",") if value else []
    if not all(part.partition("@")[2].isdecimal() for part in parts):
        raise click.BadParameter(f"expected names such as resnet18@32 between commas, got {value!r}")
    return parts


@click.command()
@click.option("--quick", is_flag=True, help="Three small networks, batches of 8; under a minute.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True, help="Of the networks, images and labels.")
@click.option("--device", "device_name", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--networks", callback=parse_networks, help="ARCHITECTURE@PIXELS, between commas.")
@click.option("--batch-sizes", callback=parse_batch_sizes, help="Numbers between commas.")
@click.option("--threads", default=torch.get_num_threads(), show_default=True)
@click.option("--repeats", default=5, show_default=True, help="Most rounds of a measurement.")
@click.option("--limit-seconds", default=60.0, show_default=True, help="Skip what would take longer a run.")
@click.option("--limit-gib", default=8.0, show_default=True, help="Skip or chunk what would take more memory.")
def main(
    quick: bool,
    json_path: Path | None,
    seed: int,
    device_name: str,
    networks: list[str],
    batch_sizes: list[int],
    threads: int,
    repeats: int,
    limit_seconds: float,
    limit_gib: float,
) -> None:
    """Print accuracy, time and memory of per-filter squared gradients, ours and the peers'."""
    device = torch.device(device_name)
    device_title = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    figures: dict[str, Any] = {"machine": print_machine(device_title), "threads": threads, "errors": {}}
    print(f"{threads} threads, seed {seed}\n\nlargest relative error of a filter, at {ERROR_CASE}")
    limits = Limits(threads, repeats, limit_seconds, int(limit_gib * 2**30))
    networks = networks or list(QUICK_NETWORKS if quick else NETWORKS)
    for architecture in dict.fromkeys(network.partition("@")[0] for network in networks):
        case = Case(architecture, **ERROR_CASE, seed=seed, device=device_name)
        figures["errors"][architecture] = report_errors(case, limits)
    print("\none pass over a batch; of plain, of ours: so many times their seconds, in turn with a plain step")
    figures["costs"] = []
    for network in networks:
        architecture, _, pixels = network.partition("@")
        sizes = batch_sizes or list(
            QUICK_BATCH_SIZES if quick else BATCH_SIZES + EXTRA_BATCH_SIZES.get(network, ())
        )
        refusals = find_refusals(figures["errors"][architecture])
        base = Case(architecture, int(pixels), 1, seed, device_name)
        figures["costs"] += measure_network(network, sizes, refusals, base, limits)
    save_figures(json_path, figures)


if __name__ == "__main__":
    main()
