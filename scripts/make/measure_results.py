"""Make the starter registry, or a benchmark of its form: embed tasks, measure every expert on each of them.

    python scripts/make/measure_results.py ../shared/data/*
    python scripts/make/measure_results.py ../shared/data/* relabelled/*.csv --out scripts/bench/data \
        --tags scripts/lib/starter_tags.json --tags relabelled/tags.json --expert ARCHITECTURE@FILE

Each DATA is a data spec whose last part names the task. Writes ``starter.json``, ``results.csv`` and
``embeddings.npz``. An expert is not measured on its own source task, nor on another task of its images: it has
seen them. What a folder holds already is kept and only the rest is measured, so that a run can be ended and
begun again; features are kept in --features, so tasks that share images share them. Takes an hour on one core.
Same seed, machine and thread count: same files, but for the times in them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from feature_files import FeatureFile
from recommend_worlds import images_of

from indexer.data.samples import Sample
from indexer.embed import embed_sample, load_task_sample
from indexer.experts.few_shot import PROTOCOL, score_features
from indexer.networks.load import load_network
from indexer.networks.loaders import list_builtin
from indexer.networks.packaged import PACKAGED
from indexer.networks.run import PretrainedNetwork
from indexer.records import EmbeddingSettings
from registry.builtin.starter import FOLDER, Starter, load_starter, save_starter
from registry.experts.sources import describe_expert
from registry.ingest.data import NOT_SHIPPED
from registry.ingest.prepare import PreparedTask, embedding_record, prepare_task
from registry.records import EmbeddingRecord, ExpertRecord, ResultRecord, SpaceRecord, TaskRecord

NO_TASK = {"imagenet", "tiny_imagenet", "scratch"}
"""Weights that no task here was the source of."""


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option(
    "--tags",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    default=["scripts/lib/starter_tags.json"],
)
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, help="Folder that is written.")
@click.option("--expert", "loaders", multiple=True, help="Measure this network too; any number of times.")
@click.option("--features", type=click.Path(path_type=Path), default="features", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    data: tuple[str, ...],
    tags: tuple[Path, ...],
    out: Path,
    loaders: tuple[str, ...],
    features: Path,
    threads: int,
    seed: int,
) -> None:
    """Embed and measure each DATA (data specs)."""
    torch.set_num_threads(threads)
    tags_of = {name: found for path in tags for name, found in json.loads(path.read_text()).items()}
    networks = [load_network(loader) for loader in (*list_builtin(), *loaders)]
    experts = tuple(describe(network) for network in networks)
    files = [FeatureFile(features, network) for network in networks]
    known = read_known(out)
    for spec in data:
        name = Path(spec).stem
        prepared = prepare_task(spec, EmbeddingSettings(seed=seed))
        task = replace(prepared.task_record(name, 1, tuple(tags_of.get(name, []))), data=f"{NOT_SHIPPED}{name}")
        entry = known.get(name)
        if entry is None or entry.task.fingerprint != task.fingerprint:
            embedding = embed_sample(prepared.sample, prepared.probe, prepared.settings)
            entry = Entry(task, embedding_record(name, 1, embedding), {})
        known[name] = replace(entry, task=replace(task, created_at=entry.task.created_at))
        for expert, file in zip(experts, files, strict=True):
            if expert.name not in entry.results and expert.source_task not in images_of(task):
                entry.results[expert.name] = measure(prepared, name, file, expert, seed)
        for file in files:
            file.save()
        write(out, prepared.space_record, experts, known)
        click.echo(f"{name}: {entry.best()}", err=True)
    chosen = {name: known[name] for name in sorted(Path(spec).stem for spec in data)}
    write(out, prepared.space_record, experts, chosen)
    click.echo(f"{out}: {len(chosen)} tasks, {len(experts)} experts")


@dataclass(frozen=True, eq=False)
class Entry:
    """What is known of a task: the record, its embedding, and results by expert."""

    task: TaskRecord
    embedding: EmbeddingRecord
    results: dict[str, ResultRecord]

    def best(self) -> str:
        """The best result, to be printed."""
        top = max(self.results.values(), key=lambda result: result.accuracy)
        return f"{top.expert} {top.accuracy:.3f} of {len(self.results)}"


def read_known(out: Path) -> dict[str, Entry]:
    """What a folder holds, by name of the task."""
    if not (out / "starter.json").exists():
        return {}
    starter = load_starter(out)
    known = {
        task.name: Entry(task, embedding, {})
        for task, embedding in zip(starter.tasks, starter.embeddings, strict=True)
    }
    for result in starter.results:
        if result.protocol == PROTOCOL:
            known[result.task].results[result.expert] = result
    return known


def write(
    out: Path,
    make_space: Callable[[], SpaceRecord],
    experts: Sequence[ExpertRecord],
    known: Mapping[str, Entry],
) -> None:
    """Write all that is known; experts that are not measured now are left out, with their results."""
    space = load_starter(out).space if (out / "starter.json").exists() else make_space()
    results = [
        entry.results[expert.name]
        for entry in known.values()
        for expert in experts
        if expert.name in entry.results
    ]
    tasks = tuple(entry.task for entry in known.values())
    embeddings = tuple(entry.embedding for entry in known.values())
    shipped = tuple(replace(expert, toy=expert.loader in list_builtin()) for expert in experts)
    save_starter(Starter(space, tasks, embeddings, shipped, tuple(results)), out)


def measure(
    prepared: PreparedTask, task: str, file: FeatureFile, expert: ExpertRecord, seed: int
) -> ResultRecord:
    """Few-shot linear-probe accuracy of an expert, on images in the size that it expects."""
    features = file.of(sample_for(prepared, file.network).images)
    score = score_features(features, prepared.sample.labels, seed)
    return ResultRecord(
        task, expert.name, score.accuracy, protocol=PROTOCOL, seed=seed, source="measure_results.py"
    )


def sample_for(prepared: PreparedTask, network: PretrainedNetwork) -> Sample:
    """The sample of the task, decoded for a network."""
    if network.transform == prepared.probe.transform:
        return prepared.sample
    return load_task_sample(prepared.sample.description.spec, network, prepared.settings)


def describe(network: PretrainedNetwork) -> ExpertRecord:
    """The expert; built-in ones are ours, those of files have terms of their own, and no folder here."""
    if packaged := PACKAGED.get(network.loader):
        known = ("source_task", "source_accuracy", "license")
        return describe_expert(None, network.loader, **{name: getattr(packaged, name) for name in known})
    source = network.name.split(".")[1]
    found = describe_expert(
        None,
        network.loader,
        source_task="" if source in NO_TASK else source,
        license="apache-2.0" if network.loader in list_builtin() else "",
    )
    architecture, at, file = found.loader.partition("@")
    return replace(found, loader=f"{architecture}{at}{Path(file).name}")


if __name__ == "__main__":
    main()
