"""Train the built-in probe: a small residual network, from scratch, on a labelled image dataset.

    python scripts/make/train_probe.py ../shared/pretrain/tiny_imagenet_20k.tar

Writes fp16 safetensors and prints the held-out accuracy. Resolution grows during training (first half at
40 pixels, then 52, the last quarter at 64), which saves half of the time of training at 64 throughout.
A fifth of the training images is greyed and a tenth inverted, because many tasks of a registry are scans,
line drawings or medical images. Same seed, machine and thread count: same weights.
"""

from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from training import ARCHITECTURE, MEAN, STD, TRANSFORM, Augmentation, Recipe, save_8bit, save_fp16, train

from indexer.data.samples import load_sample
from indexer.networks.load import ARCHITECTURES
from indexer.networks.loaders import BUILTIN_FOLDER
from indexer.records import DEFAULT_PROBE


def growing_size(progress: float) -> int:
    """Side of the training images in pixels, at a progress from 0 to 1."""
    return 40 if progress < 0.5 else 52 if progress < 0.75 else TRANSFORM.crop


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy, 0 to 1."""
    network.eval()
    with torch.inference_mode():
        hits = sum(
            int((network((batch.float() / 255 - MEAN) / STD).argmax(1) == target).sum())
            for batch, target in zip(images.split(256), labels.split(256), strict=True)
        )
    return hits / len(labels)


@click.command()
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), default=BUILTIN_FOLDER / f"{DEFAULT_PROBE}.safetensors")
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)), default=ARCHITECTURE, show_default=True)
@click.option("--epochs", default=18, show_default=True)
@click.option("--held-out", default=10, show_default=True, help="Keep every so-manieth image for the accuracy.")
@click.option("--bfloat16", is_flag=True, help="Autocast to bfloat16 (pays on CPUs with AMX or AVX512-BF16).")
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(data: str, out: Path, architecture: str, epochs: int, held_out: int, **options: Any) -> None:
    """Train on DATA (a data spec) and write the weights to --out.

    The probe is written in half precision, any other architecture, being an expert only, in 8 bits.
    """
    threads, seed = options["threads"], options["seed"]
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sample = load_sample(data, TRANSFORM, max_samples=10**9, seed=seed)
    images, labels = torch.from_numpy(sample.images), torch.from_numpy(sample.labels)
    test = torch.arange(len(labels)) % held_out == 0
    network = ARCHITECTURES[architecture].build(sample.description.num_classes)
    recipe = Recipe(
        epochs=epochs,
        batch_size=128,
        learning_rate=0.2,
        augmentation=Augmentation(min_scale=0.35, flip=0.5, grey=0.2, invert=0.1),
        size_at=growing_size,
        bfloat16=options["bfloat16"],
    )

    def report(network: nn.Module) -> str:
        return f"held-out accuracy {accuracy(network, images[test], labels[test]):.3f}"

    network = network.to(memory_format=torch.channels_last)
    train(network, images[~test], labels[~test], recipe, generator, report)
    save = save_fp16 if architecture == ARCHITECTURE else save_8bit
    save(network, out)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {report(network)}")


if __name__ == "__main__":
    main()
