"""Make the starter registry: embed tasks, measure every built-in expert on each of them.

    python scripts/measure_results.py ../shared/data/*

Each DATA is a data spec whose last part names the task. Takes half an hour on two cores; with
--keep-results only the embeddings are made again, in minutes. Writes ``starter.json``, ``results.csv`` and
``embeddings.npz`` to ``registry/builtin``. An expert is not measured on its own source task, which it was
trained on. Same seed, machine and thread count: same files, but for the times in them.
"""

import json
from pathlib import Path

import click
import torch

from indexer.embed import embed_sample
from indexer.features import extract_features
from indexer.measure import PROTOCOL, score_features
from indexer.probes import PretrainedNetwork, list_builtin, load_network
from indexer.records import DEFAULT_PROBE, EmbeddingSettings
from registry.ingest import NOT_SHIPPED, PreparedTask, describe_expert, embedding_record, prepare_task
from registry.records import ExpertRecord, ResultRecord, TaskRecord
from registry.starter import FOLDER, Starter, load_starter, save_starter


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--tags", type=click.Path(exists=True, path_type=Path), default="scripts/starter_tags.json")
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, help="Folder of the starter registry.")
@click.option("--keep-results", is_flag=True, help="Embed only; keep the results measured before.")
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(data: tuple[str, ...], tags: Path, out: Path, keep_results: bool, threads: int, seed: int) -> None:
    """Embed and measure each DATA (data specs)."""
    torch.set_num_threads(threads)
    tags_of = json.loads(tags.read_text())
    settings = EmbeddingSettings(seed=seed)
    networks = {} if keep_results else {name: load_network(name) for name in list_builtin()}
    tasks, embeddings = [], []
    results = list(load_starter(out).results) if keep_results else []
    for spec in data:
        name = Path(spec).stem
        prepared = prepare_task(spec, settings)
        embedding = embed_sample(prepared.sample, prepared.probe, settings)
        tasks.append(starter_task(prepared, name, tags_of.get(name, [])))
        embeddings.append(embedding_record(name, 1, embedding))
        results += [
            measure(prepared, name, expert, network, seed)
            for expert, network in networks.items()
            if source_task(expert) != name
        ]
        click.echo(f"{name}: {best(results, name)}", err=True)
    starter = Starter(
        prepared.space_record(), tuple(tasks), tuple(embeddings), describe_experts(), tuple(results)
    )
    save_starter(starter, out)
    click.echo(f"{out}: {len(tasks)} tasks, {len(starter.experts)} experts, {len(results)} results")


def starter_task(prepared: PreparedTask, name: str, tags: list[str]) -> TaskRecord:
    """The task without the place of its images, which are not shipped."""
    record = prepared.task_record(name, 1, tuple(tags))
    return TaskRecord(**{**vars(record), "data": f"{NOT_SHIPPED}{name}"})


def measure(
    prepared: PreparedTask, task: str, expert: str, network: PretrainedNetwork, seed: int
) -> ResultRecord:
    """Linear-probe accuracy of an expert; every built-in expert sees the images as the probe does."""
    features = extract_features(network, prepared.sample.images)
    score = score_features(features, prepared.sample.labels, seed)
    return ResultRecord(task, expert, score.accuracy, protocol=PROTOCOL, seed=seed, source="measure_results.py")


def describe_experts() -> tuple[ExpertRecord, ...]:
    """The experts whose weights ship with the package."""
    return tuple(
        describe_expert(None, name, source_task=source_task(name), license="apache-2.0")
        for name in list_builtin()
    )


def source_task(expert: str) -> str:
    """The task that a built-in expert was trained on; none for the probe, whose images make no task here."""
    return expert.partition(".")[2] if expert != DEFAULT_PROBE else ""


def best(results: list[ResultRecord], task: str) -> str:
    """The best result of a task, to be printed."""
    top = max((result for result in results if result.task == task), key=lambda result: result.accuracy)
    return f"{top.expert} {top.accuracy:.3f}"


if __name__ == "__main__":
    main()
