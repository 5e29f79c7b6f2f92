"""Time to equal quality: seconds until two independent runs agree, ours beside the published recipe.

    python scripts/bench/bench_quality.py ../shared/data/{mnist,cifar10,flowers5}

Disagreement of two runs is the root mean square over filters of the difference of their log embeddings, each
centred on its mean log, because a factor common to all filters is no error of either. It is taken over the
convolution filters, which both methods embed, and averaged as a square over all pairs of ``--runs`` runs.

Both methods have the same images decoded in memory, the same probe and the same threads, and are timed from
there to the embedding. Two runs of the published recipe have the same images and differ by everything that it
draws: the head's first weights, which images a batch holds, and labels. Two runs of ours at n samples differ by
which n images were drawn and so by their heads too, and by signs; where n is all there are, by signs alone.
Ours also measures what the recipe does not: held-out score of the head and standard errors.

A head of few samples is another head than one of all samples, on which two runs may yet agree: the last column
says how far ours at n is from the mean of its runs on all samples.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from machine import print_machine, save_figures
from published_recipe import PublishedRecipe

from indexer.data.samples import Sample, load_sample
from indexer.embed import embed_sample
from indexer.fisher.square_grads import SquareGrads
from indexer.networks.load import load_network
from indexer.networks.run import PretrainedNetwork, move_to_device
from indexer.records import EmbeddingSettings

MOST_SAMPLES = 1500
SAMPLES = tuple(round(64 * 2 ** (step / 4)) for step in range(-2, 17))
"""Sizes of ours that are tried in turn while there are more samples; then all, at most ``MOST_SAMPLES``."""


@dataclass(frozen=True)
class Runs:
    """Independent runs of one method on one task.

    Attributes:
        logs: ``[runs, D]``: log embeddings of the filters, each less its mean; NaN at filters that are zero in
            any run, which have no log and count nowhere.
        seconds: Median of a run.
    """

    logs: np.ndarray
    seconds: float

    @property
    def disagreement(self) -> float:
        """RMS difference of two runs."""
        squares = [np.nanmean((first - second) ** 2) for first, second in combinations(self.logs, 2)]
        return float(np.sqrt(np.mean(squares)))

    def distance_from(self, centre: np.ndarray) -> float:
        """RMS difference of one run from ``centre`` ``[D]``."""
        return float(np.sqrt(np.nanmean((self.logs - centre) ** 2)))


def repeat(embed: Callable[[int], Callable[[], np.ndarray]], seeds: Sequence[int]) -> Runs:
    """Prepare a run of each seed with ``embed``, and time what that returns, which gives ``[D]``."""
    embeddings, seconds = [], []
    for seed in seeds:
        run = embed(seed)
        start = time.perf_counter()
        embeddings.append(run())
        seconds.append(time.perf_counter() - start)
    stacked = np.stack(embeddings).astype(np.float64)
    logs = np.log(np.where((stacked > 0).all(axis=0), stacked, np.nan))
    return Runs(logs - np.nanmean(logs, axis=1, keepdims=True), statistics.median(seconds))


def run_recipe(sample: Sample, probe: PretrainedNetwork, seeds: Sequence[int]) -> Runs:
    """The published recipe, on all images of the dataset."""
    move_to_device(probe, "cpu")
    layers = SquareGrads(probe.body).slices

    def embed(seed: int) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            squares = PublishedRecipe().embed(probe, sample, seed)
            return torch.cat([squares[layer] for layer in layers]).numpy()

        return run

    return repeat(embed, seeds)


def run_ours(spec: str, probe: PretrainedNetwork, num_samples: int, seeds: Sequence[int]) -> Runs:
    """Ours on ``num_samples`` images, each run with its own."""

    def embed(seed: int) -> Callable[[], np.ndarray]:
        settings = EmbeddingSettings(probe=probe.loader, max_samples=num_samples, seed=seed, device="cpu")
        sample = load_sample(spec, probe.transform, max_samples=num_samples, seed=seed)
        return lambda: embed_sample(sample, probe, settings).fisher

    return repeat(embed, seeds)


def measure(spec: str, loader: str, seeds: Sequence[int], target: float | None) -> dict[str, Any]:
    """Both methods on one task.

    Ours takes rising numbers of samples until its disagreement is at most ``target``, or the recipe's if that
    is ``None``; and then, if it has not yet, all samples.
    """
    probe = load_network(loader)
    sample = load_sample(spec, probe.transform, max_samples=MOST_SAMPLES, seed=0)
    least = 2 * sample.description.num_classes
    sizes = [size for size in SAMPLES if least <= size < len(sample.labels)] + [MOST_SAMPLES]
    run_ours(spec, probe, sizes[0], seeds[:1])  # the first pass of a process is slow
    published = run_recipe(sample, probe, seeds)
    target = published.disagreement if target is None else target
    whole = run_ours(spec, probe, MOST_SAMPLES, seeds)
    centre = whole.logs.mean(axis=0)
    rows = {"published recipe": summarise(published, published, centre)}
    for size in sizes:
        runs = whole if size == MOST_SAMPLES else run_ours(spec, probe, size, seeds)
        name = f"ours, {min(size, len(sample.labels))} samples"
        rows[name] = summarise(runs, published, centre)
        if runs.disagreement <= target:
            rows["equal quality"] = {"as": name, **rows[name]}
            break
    rows[f"ours, {min(MOST_SAMPLES, len(sample.labels))} samples"] = summarise(whole, published, centre)
    return rows


def summarise(runs: Runs, published: Runs, centre: np.ndarray) -> dict[str, float]:
    """What is printed of a method."""
    return {
        "seconds": runs.seconds,
        "rms": runs.disagreement,
        "times_faster": published.seconds / runs.seconds,
        "rms_from_ours_of_all": runs.distance_from(centre),
        "filters_left_out": int(np.isnan(runs.logs[0]).sum()),
    }


def report(task: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print the rows of a task."""
    print(f"\n{task:24} seconds      RMS  times faster  RMS from ours of all  filters at zero")
    for name, row in rows.items():
        title = f"equal: {row['as']}" if "as" in row else name
        print(
            f"  {title:28} {row['seconds']:5.2f}  {row['rms']:7.3f}  {row['times_faster']:12.1f}  "
            f"{row['rms_from_ours_of_all']:20.3f}  {row['filters_left_out']:15}"
        )
    if "equal quality" not in rows:
        print("  ours does not reach the target")


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--probe", default="resnet20@../shared/weights/resnet20.cifar10.safetensors", show_default=True)
@click.option("--runs", default=3, show_default=True, type=click.IntRange(min=2), help="Of each method.")
@click.option("--rms", type=float, help="Disagreement that ours must reach; the recipe's if not given.")
@click.option("--quick", is_flag=True, help="The first task only, two runs.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the first run; the others count on.")
def main(
    data: tuple[str, ...],
    probe: str,
    runs: int,
    rms: float | None,
    quick: bool,
    json_path: Path | None,
    threads: int,
    seed: int,
) -> None:
    """Time ours and the published recipe on each DATA (a data spec) until runs agree equally well."""
    torch.set_num_threads(threads)
    seeds = range(seed, seed + (2 if quick else runs))
    figures: dict[str, Any] = {"machine": print_machine(), "tasks": {}}
    print(f"{threads} threads, {len(seeds)} runs of each method from seed {seed} on, probe {probe}")
    for spec in data[:1] if quick else data:
        figures["tasks"][spec] = measure(spec, probe, seeds, rms)
        report(Path(spec).stem, figures["tasks"][spec])
    save_figures(json_path, figures)


if __name__ == "__main__":
    main()
