"""Transferability scores of every expert on every task of a starter registry or a benchmark of its form.

    python scripts/make/measure_scores.py ../shared/data/* --starter registry/builtin --out scores.csv

Each DATA is a data spec whose last part names a task of --starter, whose experts are scored on it; those given
by --expert are loaded as described there. A score sees at most --max-samples images, the same for every expert,
and their labels. Features that ``measure_results.py`` left in --features are not computed again.
"""

import csv
from pathlib import Path

import click
import numpy as np
import torch
from feature_files import FeatureFile
from measure_results import sample_for
from recommend_worlds import images_of
from torch import nn

from indexer.heads.scores import choose_per_class
from indexer.networks.load import load_network, load_source_head
from indexer.networks.loaders import list_builtin
from indexer.records import EmbeddingSettings
from registry.builtin.starter import load_starter
from registry.ingest.prepare import prepare_task
from registry.recommend.scores import list_scores, score

COLUMNS = ("task", "expert", *(it.name for it in list_scores("single_label")))


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option(
    "--starter", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the tasks."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV that is added to.")
@click.option("--expert", "loaders", multiple=True, help="Score this network too; any number of times.")
@click.option("--features", type=click.Path(path_type=Path), default="features", show_default=True)
@click.option("--max-samples", default=400, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(data: tuple[str, ...], starter: Path, out: Path, features: Path, **options: object) -> None:
    """Score the experts on each DATA (data specs)."""
    torch.set_num_threads(int(options["threads"]))
    tasks = {task.name: task for task in load_starter(starter).tasks}
    networks = [load_network(loader) for loader in (*list_builtin(), *options["loaders"])]
    files = [FeatureFile(features, network) for network in networks]
    heads = [load_source_head(network.loader) for network in networks]
    done = read_done(out)
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for spec in data:
            name = Path(spec).stem
            prepared = prepare_task(spec, EmbeddingSettings(seed=options["seed"]))
            labels = prepared.sample.labels
            num_each = max(2, options["max_samples"] // len(np.unique(labels)))
            chosen = choose_per_class(labels, lambda count, most=num_each: min(count, most), options["seed"])
            for features_of, head in zip(files, heads, strict=True):
                expert = features_of.network.name
                if (name, expert) in done or expert.split(".")[1] in images_of(tasks[name]):
                    continue
                found = features_of.of(sample_for(prepared, features_of.network).images)[chosen]
                scores = scores_of(found, labels[chosen], head, options["seed"])
                writer.writerow({"task": name, "expert": expert, **{n: f"{v:.6g}" for n, v in scores.items()}})
            file.flush()
            click.echo(name, err=True)


def read_done(out: Path) -> set[tuple[str, str]]:
    """Tasks and experts that were scored before."""
    if not out.exists():
        return set()
    with out.open(newline="", encoding="utf-8") as file:
        return {(row["task"], row["expert"]) for row in csv.DictReader(file)}


def scores_of(features: np.ndarray, labels: np.ndarray, head: nn.Linear | None, seed: int) -> dict[str, float]:
    """All scores that can be computed, by name."""
    logits = None if head is None else head(torch.from_numpy(features)).numpy()
    names = [it.name for it in list_scores("single_label", source_head=head is not None)]
    return {it: score(it, features, labels, logits=logits, seed=seed) for it in names}


if __name__ == "__main__":
    main()
