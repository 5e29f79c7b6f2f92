"""Fine-tune experts on a few images a class, on part of the benchmark: does the linear probe rank them alike?

    python scripts/make/measure_finetuning.py ../shared/data/brain_tumor --out scripts/bench/data/finetuned.csv

Each DATA is a data spec whose last part names the task. The images and the split are those of the first draw
of ``indexer.experts.few_shot``: 20 a class, scored on the rest by class-balanced accuracy. What --out holds
already is kept.
"""

import csv
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from training import MEAN, STD, TRANSFORM, Augmentation, Recipe, train

from indexer.data.samples import load_sample
from indexer.experts.few_shot import SHOTS
from indexer.heads.heads import choose_per_class
from indexer.networks.load import load_expert

COLUMNS = ("task", "expert", "accuracy", "protocol", "seed")
PROTOCOL = f"finetune_{SHOTS}shot"
EXPERTS = (
    "resnet14w16.tiny_imagenet",
    "resnet14w32.caltech101",
    "resnet14w32.cifar10",
    "resnet14w32.face_masks",
    "resnet14w32.fer2013",
    "resnet14w32.mnist",
    "resnet14w32.neu_defects",
    "resnet14w32.omniglot_korean",
    "resnet14w32.pacs_photo",
    "resnet14w32.scratch",
    "resnet14w32.tiny_imagenet",
    "resnet8w32.tiny_imagenet",
)


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV that is added to.")
@click.option("--epochs", default=15, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(data: tuple[str, ...], out: Path, **options: Any) -> None:
    """Fine-tune ``EXPERTS`` on each DATA (data specs)."""
    torch.set_num_threads(options["threads"])
    done = read_done(out)
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not done:
            writer.writerow(COLUMNS)
        for spec in data:
            task = Path(spec).stem
            sample = load_sample(spec, TRANSFORM, max_samples=2000, seed=options["seed"])
            images, labels = torch.from_numpy(sample.images), torch.from_numpy(sample.labels)
            chosen = choose_per_class(sample.labels, lambda count: min(SHOTS, count // 2), options["seed"])
            for expert in EXPERTS:
                if (task, expert) in done or expert.endswith(f".{task}"):
                    continue
                network = fine_tune(expert, images[chosen], labels[chosen], options["epochs"], options["seed"])
                accuracy = balanced_accuracy(network, images[~chosen], labels[~chosen])
                writer.writerow((task, expert, f"{accuracy:.4f}", PROTOCOL, options["seed"]))
                file.flush()
                click.echo(f"{task} {expert} {accuracy:.3f}", err=True)


def read_done(out: Path) -> set[tuple[str, str]]:
    """Tasks and experts that were measured before."""
    if not out.exists():
        return set()
    with out.open(newline="", encoding="utf-8") as file:
        return {(row["task"], row["expert"]) for row in csv.DictReader(file)}


def fine_tune(expert: str, images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """Train an expert with a fresh head as ``train_experts.py`` does, on smaller batches."""
    torch.manual_seed(seed)
    network = load_expert(expert, int(labels.max()) + 1).to(memory_format=torch.channels_last)
    recipe = Recipe(
        epochs=epochs,
        batch_size=min(32, len(labels)),
        learning_rate=0.03,
        augmentation=Augmentation(min_scale=0.6, flip=0, grey=0, invert=0),
        size_at=lambda progress: TRANSFORM.crop,
    )
    train(network, images, labels, recipe, torch.Generator().manual_seed(seed))
    return network


def balanced_accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean over classes of the share that is classified right, 0 to 1."""
    with torch.inference_mode():
        guesses = [network((batch.float() / 255 - MEAN) / STD).argmax(1) for batch in images.split(256)]
    hits = (torch.cat(guesses) == labels).numpy()
    return float(np.mean([hits[labels.numpy() == label].mean() for label in np.unique(labels.numpy())]))


if __name__ == "__main__":
    main()
