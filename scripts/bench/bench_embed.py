"""What a whole ``t2v embed`` takes beside the least that any way of doing it would, and where the time goes.

    python scripts/bench/bench_embed.py ../shared/data/cifar10 [--repeats 5] [--probe LOADER]

The least: a process that imports torch, reads and decodes the same sample, and runs one plain forward and
backward pass over it, gradients of all weights. Both are processes of their own that take turns; medians of
processor time, which says the same on a busy machine, and of wall time. A third process of ``t2v embed`` tells
what its stages take; heads are the one that the Fisher information is of and the one that is scored.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
from machine import print_machine, save_figures

STAGES = {
    "indexer.networks.load:load_network": "probe",
    "indexer.embed:load_task_sample": "decode",
    "indexer.embed:extract_features": "features",
    "indexer.embed:fit_head": "head",
    "indexer.embed:held_out_score": "score of a head",
    "indexer.embed:fisher_information": "Fisher information",
}
"""Functions that are timed, and what they are called in the table."""


def least(data: str, loader: str) -> None:
    """Import torch, decode, one plain forward and backward pass."""
    import torch

    from indexer.embed import load_task_sample
    from indexer.networks.load import load_network
    from indexer.networks.run import Batches, move_to_device
    from indexer.records import EmbeddingSettings

    settings = EmbeddingSettings(probe=loader)
    network = load_network(loader)
    sample = load_task_sample(data, network, settings)
    move_to_device(network, "cpu")
    network.body.requires_grad_(True)
    head = torch.nn.Linear(network.num_features, int(sample.labels.max()) + 1)
    for images, labels in Batches(network, sample.inputs, sample.labels, settings.batch_size):
        torch.nn.functional.cross_entropy(head(network.body(images)), labels).backward()


def staged(data: str, loader: str) -> None:
    """Run ``t2v embed`` and write what each stage took, in processor and wall seconds, to stderr."""
    begun = time.process_time(), time.perf_counter()
    taken: dict[str, tuple[float, float]] = {}

    def timed(function: Any, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            start = time.process_time(), time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                taken[name] = time.process_time() - start[0], time.perf_counter() - start[1]

        return call

    from registry.cli.main import main as command

    importlib.import_module("registry.ingest.prepare")
    taken["imports"] = time.process_time(), time.perf_counter() - begun[1]
    for place, name in STAGES.items():
        module_name, _, attribute = place.partition(":")
        function = getattr(importlib.import_module(module_name), attribute)
        for module in list(sys.modules.values()):
            if getattr(module, attribute, None) is function:
                setattr(module, attribute, timed(function, name))
    command(["embed", data, "--probe", loader], standalone_mode=False)
    taken["all"] = time.process_time(), time.perf_counter() - begun[1]
    print(json.dumps(taken), file=sys.stderr)


def run(command: list[str]) -> tuple[float, float, str]:
    """Processor and wall seconds of a process, and what it wrote to stderr.

    Raises:
        ClickException: If it fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise click.ClickException(f"{' '.join(command)}: {errors.strip()}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start, errors


@click.command()
@click.argument("data")
@click.option("--probe", default="resnet14w32.tiny_imagenet", show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path))
@click.option("--part", type=click.Choice(["least", "staged"]), hidden=True)
def main(data: str, probe: str, repeats: int, path: Path | None, part: str | None) -> None:
    """Print what both take, their ratio, and the stages of ours."""
    if part:
        (least if part == "least" else staged)(data, probe)
        return
    machine = print_machine()
    parts = [sys.executable, __file__, data, "--probe", probe, "--part"]
    ours = [sys.executable, "-c", "from registry.cli.main import main; main()", "embed", data, "--probe", probe]
    commands = {
        "least": [*parts, "least"],
        "t2v embed": ours,
        "import torch": [sys.executable, "-c", "import torch"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, command in commands.items():
            processor, wall, _ = run(command)
            times[name] += [(processor, wall)] if turn else []
    medians = {name: tuple(map(statistics.median, zip(*each, strict=True))) for name, each in times.items()}
    stages: dict[str, list[float]] = json.loads(run([*parts, "staged"])[2].splitlines()[-1])
    click.echo(f"{data}\n{'':24}{'processor s':>12}{'wall s':>10}")
    for name, (processor, wall) in medians.items():
        click.echo(f"{name:24}{processor:12.2f}{wall:10.2f}")
    ratios = [ours / least for ours, least in zip(medians["t2v embed"], medians["least"], strict=True)]
    click.echo(f"{'ratio':24}{ratios[0]:12.2f}{ratios[1]:10.2f}\n\nstages of one more run")
    for name, (processor, wall) in stages.items():
        click.echo(f"{name:24}{processor:12.2f}{wall:10.2f}{processor / stages['all'][0]:8.1%}")
    save_figures(path, {"machine": machine, "seconds": medians, "ratios": ratios, "stages": stages})


if __name__ == "__main__":
    main()
