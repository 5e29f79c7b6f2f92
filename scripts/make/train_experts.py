"""Fine-tune the built-in probe on tasks: the built-in experts.

    python scripts/make/train_experts.py ../shared/data/mnist ../shared/data/flowers5 ...

Each DATA is a data spec whose last part names the task. All of its images are trained on, so an expert is
never judged on its own source task. No flips: most of the tasks hold writing. Same seed, machine and thread
count: same weights.
"""

from pathlib import Path

import click
import torch
from torch import nn
from training import ARCHITECTURE, TRANSFORM, Augmentation, Recipe, save_8bit, train

from indexer.data.samples import load_sample
from indexer.networks.load import load_expert
from indexer.networks.loaders import BUILTIN_FOLDER
from indexer.records import DEFAULT_PROBE


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), default=BUILTIN_FOLDER, help="Folder of the weights.")
@click.option("--epochs", default=15, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(data: tuple[str, ...], out: Path, epochs: int, threads: int, seed: int) -> None:
    """Fine-tune on each DATA (data specs) and write the weights to --out."""
    torch.set_num_threads(threads)
    recipe = Recipe(
        epochs=epochs,
        batch_size=64,
        learning_rate=0.03,
        augmentation=Augmentation(min_scale=0.6, flip=0, grey=0, invert=0),
        size_at=lambda progress: 48 if progress < 0.6 else TRANSFORM.crop,
    )
    for spec in data:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        sample = load_sample(spec, TRANSFORM, max_samples=10**9, seed=seed)
        network = fresh_copy(sample.description.num_classes)
        train(network, torch.from_numpy(sample.images), torch.from_numpy(sample.labels), recipe, generator)
        path = out / f"{ARCHITECTURE}.{Path(spec).stem}.safetensors"
        save_8bit(network, path)
        click.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def fresh_copy(num_classes: int) -> nn.Module:
    """The built-in probe with a fresh head."""
    body, head = load_expert(DEFAULT_PROBE, num_classes)
    body.linear = head
    return body.to(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
