"""Are embeddings meaningful, repeatable and quick? Measured on folders of real tasks.

    python scripts/bench/bench_embedding.py ../shared/data/*

Prints (1) mean distance within and between kinds of tasks, for the Task2Vec distance and, as the peer, the
cosine distance of mean features; (2) the correlation of log embeddings of two disjoint halves of a task's
samples, once with the head of all samples, which leaves the noise of the Fisher information itself, and once
embedded from nothing, each half with a head of its own; (3) whether the same seed twice gives the same bytes;
(4) seconds of each embedding.
"""

import json
import statistics
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from machine import print_machine, save_figures

from indexer.data.samples import Sample, load_sample
from indexer.embed import embed_sample
from indexer.fisher.estimate import fisher_information
from indexer.heads.heads import FISHER_L2, choose_per_class, fit_head
from indexer.networks.load import load_network
from indexer.networks.run import Batches, PretrainedNetwork, extract_features
from indexer.records import EmbeddingSettings, TaskEmbedding
from registry.distances import pairwise

KINDS = {
    "handwriting": {"handwriting"},
    "natural photos": {"natural"},
    "surfaces and materials": {"surfaces", "materials"},
}


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--tags", type=click.Path(exists=True, path_type=Path), default="scripts/lib/starter_tags.json")
@click.option("--estimator", default=EmbeddingSettings.estimator, show_default=True)
@click.option("--quick", is_flag=True, help="At most 8 tasks and 200 samples of each.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    data: tuple[str, ...],
    tags: Path,
    estimator: str,
    quick: bool,
    json_path: Path | None,
    threads: int,
    seed: int,
) -> None:
    """Embed each DATA (data specs whose last part names the task) and print the figures."""
    torch.set_num_threads(threads)
    figures: dict[str, Any] = {"machine": print_machine()}
    settings = EmbeddingSettings(seed=seed, estimator=estimator, max_samples=200 if quick else 2000)
    data = data[:8] if quick else data
    whole, same_head, own_heads = {}, {}, {}
    for spec in data:
        probe = load_network(settings.probe)
        sample = load_sample(spec, probe.transform, max_samples=settings.max_samples, seed=seed)
        name = Path(spec).stem
        whole[name] = embed_sample(sample, probe, settings)
        halves = split(sample, seed)
        same_head[name] = log_correlation(*fisher_of_halves(sample, halves, probe, settings))
        own_heads[name] = log_correlation(*(embed_sample(half, probe, settings).fisher for half in halves))
        click.echo(
            f"{name:20} {describe(whole[name])}  halves correlate {same_head[name]:.4f}, "
            f"own heads {own_heads[name]:.4f}"
        )
    figures["kinds"] = kinds(whole, json.loads(tags.read_text()))
    for title, correlations in (("head of all samples", same_head), ("own heads", own_heads)):
        mean, least = statistics.mean(correlations.values()), min(correlations.values())
        figures[f"halves, {title}"] = {"mean": mean, "least": least}
        click.echo(
            f"disjoint halves, {title}: log embeddings correlate {mean:.4f} on average "
            f"over {len(correlations)} tasks, least {least:.4f}"
        )
    figures["same_bytes"] = same_bytes(data[0], settings)
    click.echo(f"same seed twice gives the same bytes: {figures['same_bytes']}")
    figures["seconds"] = {name: embedding.seconds for name, embedding in whole.items()}
    click.echo(f"seconds of an embedding: median {statistics.median(figures['seconds'].values()):.1f}")
    save_figures(json_path, figures)


def split(sample: Sample, seed: int) -> tuple[Sample, ...]:
    """Two disjoint halves of a sample, class by class."""
    first = choose_per_class(sample.labels, lambda count: count // 2, seed)
    return tuple(
        replace(sample, inputs=sample.inputs[half], labels=sample.labels[half]) for half in (first, ~first)
    )


def fisher_of_halves(
    sample: Sample, halves: tuple[Sample, ...], probe: PretrainedNetwork, settings: EmbeddingSettings
) -> list[np.ndarray]:
    """Fisher information ``[D]`` of each half under the head of the whole sample."""
    head = fit_head(extract_features(probe, sample.images), sample.labels, l2=FISHER_L2)
    return [
        fisher_information(
            probe.body,
            head,
            Batches(probe, half.images, half.labels, settings.batch_size),
            estimator=settings.estimator,
            generator=torch.Generator().manual_seed(settings.seed + number),
        ).mean
        for number, half in enumerate(halves)
    ]


def log_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation of the logs of two embeddings ``[D]`` over the filters that neither has at zero."""
    used = (first > 0) & (second > 0)
    return float(np.corrcoef(np.log(first[used]), np.log(second[used]))[0, 1])


def describe(embedding: TaskEmbedding) -> str:
    """Head accuracy, norm, error and time of an embedding, to be printed."""
    relative = np.median(
        embedding.standard_error[embedding.fisher > 0] / embedding.fisher[embedding.fisher > 0]
    )
    return (
        f"samples {embedding.num_samples_used:4}  head accuracy {embedding.head_accuracy:.3f}  "
        f"norm {np.linalg.norm(embedding.fisher):.3g}  relative error {relative:.3f}  {embedding.seconds:.1f} s"
    )


def kinds(embeddings: dict[str, TaskEmbedding], tags: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Print and return mean distances within a kind, from it to the other kinds, and to all other tasks."""
    names = list(embeddings)
    fisher = np.stack([embeddings[name].fisher for name in names])
    domain = np.stack([embeddings[name].domain for name in names])
    unit = domain / np.linalg.norm(domain, axis=1, keepdims=True)
    distances = {"task2vec": pairwise("task2vec", fisher, fisher), "mean feature": 1 - unit @ unit.T}
    figures = {}
    members = {
        kind: np.array([bool(wanted & set(tags.get(name, []))) for name in names])
        for kind, wanted in KINDS.items()
    }
    in_some = np.any(list(members.values()), axis=0)
    for (kind, inside), (label, matrix) in product(members.items(), distances.items()):
        pairs = {
            "within": np.outer(inside, inside) & ~np.eye(len(names), dtype=bool),
            "to other kinds": np.outer(inside, in_some & ~inside),
            "to all others": np.outer(inside, ~inside),
        }
        means = {where: float(matrix[pair].mean()) for where, pair in pairs.items() if pair.any()}
        figures[f"{kind}, {label}"] = means
        printed = "  ".join(f"{where} {mean:.4f}" for where, mean in means.items())
        click.echo(f"{kind} ({inside.sum()} tasks), {label}: {printed}")
    return figures


def same_bytes(spec: str, settings: EmbeddingSettings) -> bool:
    """Whether two runs from nothing agree to the byte."""
    runs = []
    for _ in range(2):
        probe = load_network(settings.probe)
        sample = load_sample(spec, probe.transform, max_samples=settings.max_samples, seed=settings.seed)
        runs.append(embed_sample(sample, probe, settings).fisher.tobytes())
    return runs[0] == runs[1]


if __name__ == "__main__":
    main()
