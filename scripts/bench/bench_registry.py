"""How a registry grows: adding, opening and asking at 1,000 to 1,000,000 tasks, beside numpy and LanceDB.

    python scripts/bench/bench_registry.py --sizes 1000,10000,100000,1000000 --dims builtin,4800
    python scripts/bench/bench_registry.py --sizes 1000 --adds 10000

Tasks are drawn around the real ones (`scripts/lib/synthetic_tasks.py` says how). Every measurement is made in a
fresh process. Latencies are those of `TaskRegistry.nearest` for registered tasks in one process that has asked
the same before, and, apart, of its first time, when vectors come from the disk; recall is against the exact
distance to every task. LanceDB's settings are swept, index by index, until its shortlist, compared exactly as
ours is, reaches our recall; its fastest one is quoted, and the ratio is ours/peer.

`--adds N` adds N tasks one by one to a registry of their own, and compares it with a freshly optimised copy.
"""

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import print_machine, save_figures
from registry_measures import (
    Series,
    ask_warm,
    bulk_add,
    cold_ratio,
    exact_distances,
    first_question,
    folder_size,
    index_costs,
    kth_distances,
    optimised_copy,
    percentiles,
    recall,
    run_alone,
    single_adds,
)
from registry_peers import HNSW, Contest, brute_force, lance_projected, lance_raw, list_indexes
from synthetic_tasks import (
    CHUNK_ROWS,
    SPREAD_OF_SAMPLES,
    SyntheticTasks,
    nearest_distances,
    task_name,
    write_table,
)

from registry.builtin.starter import load_starter
from registry.index.neighbors import EXACT_BELOW, SHORTLISTED_DISTANCES

BUILTIN = "builtin"
SELECTIVITIES = (0.5, 0.01, 0.0001)
SPACING_QUERIES = 50
BYTES_PER_VALUE = 20  # Fisher information, its error, its copy in the index; the truth; LanceDB's own table
DISK_SHARE = 0.6
Figures = dict[str, Any]


@click.command()
@click.option("--sizes", default="1000,10000,100000,1000000", show_default=True, help="Numbers of tasks.")
@click.option("--dims", default=f"{BUILTIN},4800", show_default=True, help="Filters: builtin, or a number.")
@click.option("--adds", default=0, show_default=True, help="Also add so many tasks one by one.")
@click.option("--queries", default=200, show_default=True)
@click.option("--budget", default=60.0, show_default=True, help="Most seconds of a series of queries or adds.")
@click.option(
    "--index", "indexes", multiple=True, help="Only these of LanceDB's indexes, such as IVF_SQ; all if not set."
)
@click.option(
    "--hnsw-tasks", default=100_000, show_default=True, help="Most tasks LanceDB's HNSW is built for."
)
@click.option(
    "--raw-gb", default=1.0, show_default=True, help="Most GB of logs that LanceDB indexes as they are."
)
@click.option("--peers/--no-peers", default=True, show_default=True)
@click.option(
    "--work", type=click.Path(path_type=Path), help="Folder for the registries; a temporary one if not set."
)
@click.option(
    "--quick", is_flag=True, help="20 queries, series of 2 seconds, one cold start, neither HNSW nor raw logs."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True)
def main(sizes: str, dims: str, adds: int, json_path: Path | None, work: Path | None, **options: Any) -> None:
    """Measure each size in each width and print the figures."""
    figures: Figures = {"machine": print_machine()}
    if options["quick"]:
        options |= {"queries": 20, "budget": 2.0, "hnsw_tasks": 0, "raw_gb": 0.0}
    figures |= {"options": options, "spread": real_spread()}
    if work:
        work.mkdir(parents=True, exist_ok=True)
    for dim in dims.split(","):
        for size in map(int, sizes.split(",")):
            with tempfile.TemporaryDirectory(dir=work) as folder:
                figures[f"{dim}, {size}"] = Bench(Path(folder), dim, size, options).run()
                save_figures(json_path, figures)  # after each, since the next one may take an hour
    if adds:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            figures[f"{adds} single adds"] = many_adds(Path(folder), adds, options)
    save_figures(json_path, figures)


class Bench:
    """One size in one width."""

    def __init__(self, folder: Path, dim: str, size: int, options: Figures) -> None:
        self._folder, self._size, self._options = folder, size, options
        self._dim = None if dim == BUILTIN else int(dim)
        self._seed = options["seed"]
        self._uri, self._path = str(folder / "registry"), folder / "fisher.npy"
        self._after = -(-size // CHUNK_ROWS) * CHUNK_ROWS  # number of the first task that is added later
        self._figures: Figures = {}

    def run(self) -> Figures:
        """Measure everything; tasks are added last, when the truth about the table is no longer needed."""
        tasks = SyntheticTasks(self._seed, self._dim)
        click.echo(f"\n{self._size} tasks, {tasks.dim} filters")
        needed, free = self._size * tasks.dim * BYTES_PER_VALUE, shutil.disk_usage(self._folder).free
        if needed > DISK_SHARE * free:
            return self._tell("skipped", needed_gb=needed / 1e9, free_gb=free / 1e9)
        table = write_table(tasks, self._size, self._path)
        generator = np.random.default_rng([self._seed, 2])
        rows = np.sort(generator.choice(self._size, min(self._options["queries"], self._size), replace=False))
        spread = nearest_distances(table, rows[:SPACING_QUERIES])
        self._tell("spread", **{f"{name} quartiles": values[1:4] for name, values in spread.items()})
        added = run_alone(bulk_add, self._uri, self._seed, self._dim, self._size)
        self._tell("bulk add", **added.value, peak_mb=added.peak_bytes / 1e6, **folder_size(Path(self._uri)))
        if self._size >= EXACT_BELOW:
            self._index()
        self._open(rows)
        kth = kth_distances(self._path, rows, tasks.space.trivial)
        self._ask(table, rows, kth, tasks.space.trivial)
        if self._options["peers"]:
            self._peers(rows, kth["task2vec"])
        first = self._after + CHUNK_ROWS
        budget = self._options["budget"]
        single = run_alone(single_adds, self._uri, self._seed, self._dim, first, 300, budget)
        self._tell("single adds", **single.value, peak_mb=single.peak_bytes / 1e6)
        return self._figures

    def _index(self) -> None:
        costs = run_alone(index_costs, self._path, self._folder / "faiss")
        self._tell("index", **costs.value, peak_mb=costs.peak_bytes / 1e6)

    def _open(self, rows: np.ndarray) -> None:
        """The first question of all, which builds the index if there is one; the next one then; and `t2v`."""
        titles = (
            ("first question", "first question again") if self._size >= EXACT_BELOW else ("first question",)
        )
        for title in titles:
            asked = run_alone(first_question, self._uri, task_name(int(rows[0])))
            self._tell(title, **asked.value, peak_mb=asked.peak_bytes / 1e6)
        self._tell("cold", **cold_ratio(self._uri, int(rows[0]), 1 if self._options["quick"] else 5))

    def _ask(self, table: np.ndarray, rows: np.ndarray, kth: Figures, trivial: np.ndarray) -> None:
        names = [task_name(row) for row in rows.tolist()]
        wheres = {
            f"where {share:g}": f"num_samples <= {round(share * SPREAD_OF_SAMPLES)}" for share in SELECTIVITIES
        }
        write = (self._seed, self._dim, self._after)
        warm = run_alone(ask_warm, self._uri, names, wheres, write, self._options["budget"]).value
        for name in SHORTLISTED_DISTANCES:
            series: Series = warm[name]
            count = len(series.found)
            distances = exact_distances(table, rows[:count], series.found, name, trivial)
            found = recall(distances, kth[name][:count])
            self._tell(name, **percentiles(series.seconds), recall=found)
        self._tell("task2vec, first time", **percentiles(warm["first time"].seconds))
        for title in wheres:
            found_per_query = float((warm[title].found >= 0).sum(axis=1).mean())
            self._tell(title, **percentiles(warm[title].seconds), found_per_query=found_per_query)
        self._tell("after write", median_ms=float(np.median(warm["after write"]) * 1e3))
        for when in ("imported", "opened", "asked"):
            self._tell(f"memory {when}", **{f"{kind}_mb": value / 1e6 for kind, value in warm[when].items()})

    def _peers(self, rows: np.ndarray, kth: np.ndarray) -> None:
        ours = self._figures["task2vec"]
        contest = Contest(self._path, rows, kth, ours["recall"], self._options["budget"])
        self._compare("numpy, every task", run_alone(brute_force, contest).value)
        for name in list_indexes(self._size):
            if name == HNSW and self._size > self._options["hnsw_tasks"]:
                continue
            if self._options["indexes"] and name not in self._options["indexes"]:
                continue
            folder = self._folder / name
            measured = run_alone(lance_projected, contest, folder, name)
            self._compare(f"LanceDB {name}", measured.value | {"peak_mb": measured.peak_bytes / 1e6})
            shutil.rmtree(folder)
        if contest.table.nbytes <= self._options["raw_gb"] * 1e9:
            measured = run_alone(lance_raw, contest, self._folder / "raw")
            self._compare("LanceDB on raw logs", measured.value | {"peak_mb": measured.peak_bytes / 1e6})

    def _compare(self, title: str, figures: Figures) -> None:
        ours = self._figures["task2vec"]
        ratios = {f"ours/peer {name}": ours[f"{name}_ms"] / figures[f"{name}_ms"] for name in ("p50", "p99")}
        self._tell(title, **figures, **ratios)

    def _tell(self, title: str, **figures: Any) -> Figures:
        tell(title, figures)
        self._figures[title] = figures
        return self._figures


def many_adds(folder: Path, adds: int, options: Figures) -> Figures:
    """A registry to which tasks were added one by one, beside a freshly optimised copy of it."""
    uri, copy = folder / "registry", folder / "optimised"
    seed = options["seed"]
    figures: Figures = {}
    click.echo(f"\n{adds} single adds")
    figures["adds"] = run_alone(single_adds, str(uri), seed, None, 0, adds, float("inf")).value
    figures["scattered"] = folder_size(uri)
    seconds = run_alone(optimised_copy, uri, copy).value
    figures["optimised"] = folder_size(copy) | {"seconds": seconds}
    asked: dict[str, list[float]] = {"scattered": [], "optimised": []}
    for _ in range(1 if options["quick"] else 5):
        for title, place in (("scattered", uri), ("optimised", copy)):
            asked[title].append(run_alone(first_question, str(place), task_name(0)).value["seconds"])
    medians = {f"{title}_seconds": statistics.median(values) for title, values in asked.items()}
    figures["open and ask"] = medians | {"ratio": medians["scattered_seconds"] / medians["optimised_seconds"]}
    for title, values in figures.items():
        tell(title, values)
    return figures


def real_spread() -> Figures:
    """Quartiles of the nearest-neighbour distances of the real tasks, and of as many synthetic ones."""
    real = np.stack([embedding.fisher for embedding in load_starter().embeddings])
    drawn = np.concatenate([chunk.fisher for chunk in SyntheticTasks().chunks(50 * len(real))])
    groups = [nearest_distances(group) for group in np.split(drawn, 50)]
    figures: Figures = {}
    for name, values in nearest_distances(real).items():
        figures[f"{name} of {len(real)} real"] = values
        figures[f"{name} of {len(real)} drawn"] = np.mean([group[name] for group in groups], axis=0).tolist()
    tell("spread, quantiles 0 .25 .5 .75 1", figures)
    return figures


def tell(title: str, figures: Figures) -> None:
    """Print figures on one line."""
    click.echo(f"{title}: " + "  ".join(f"{name} {readable(value)}" for name, value in figures.items()))


def readable(value: Any) -> str:
    """Numbers in four digits, lists of them too."""
    if isinstance(value, list):
        return " ".join(map(readable, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
