"""Peak memory of whole ``t2v embed`` processes: with a large probe, and on folders of any size.

    python scripts/bench/bench_memory.py ../shared/data/flowers5

What is printed is the largest resident size that the system saw of the process, Python, torch and all. The
large probe is ResNet-50 at 224 pixels with random weights, which take the memory of trained ones; beside it
stands the built-in probe on the same images. The folders hold hard links to the images of DATA.
"""

import os
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import click
from machine import print_machine, save_figures
from safetensors.torch import save_file

from indexer.networks.torchvision import models

LINKS_PER_FILE = 30_000  # ext4 allows 65,000
LEAST_COPIES = 50  # so that all classes have some

Figures = dict[str, float]


def embed(data: Path, *options: str) -> Figures:
    """Peak MiB and seconds of one ``t2v embed``.

    Raises:
        ClickException: If it fails.
    """
    program = Path(sys.executable).parent / "t2v"
    command = [str(program), "embed", str(data), "--json", *options]
    with tempfile.TemporaryFile() as errors, Path(os.devnull).open("wb") as nowhere:
        start = time.perf_counter()
        actions = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1), (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)]
        process = os.posix_spawn(program, command, os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
        seconds = time.perf_counter() - start
        errors.seek(0)
        if status:
            raise click.ClickException(f"{' '.join(command)}: {errors.read().decode().strip()}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"peak_mib": usage.ru_maxrss / unit, "seconds": seconds}


def link_folder(data: Path, folder: Path, count: int) -> Path:
    """A folder of ``count`` hard links to copies of images of ``data``, in the classes of their originals."""
    originals = sorted(path for path in data.glob("*/*") if path.is_file())
    copies = []
    num_copies = max(LEAST_COPIES, count // LINKS_PER_FILE + 1)
    for number, original in enumerate(originals[:: max(1, len(originals) // num_copies)]):
        copy = folder.parent / f"copy{number}{original.suffix}"
        copy.write_bytes(original.read_bytes())
        copies.append((copy, folder / original.parent.name))
        copies[-1][1].mkdir(parents=True, exist_ok=True)
    for number, (copy, class_folder) in enumerate(islice(cycle(copies), count)):
        (class_folder / f"{number:07}{copy.suffix}").hardlink_to(copy)
    return folder


def report(title: str, figures: Figures) -> Figures:
    """Print one line of figures and hand them on."""
    click.echo(f"  {title:44} {figures['peak_mib']:8.0f} MiB {figures['seconds']:8.1f} s")
    return figures


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--samples", default=300, show_default=True, help="Most samples embedded.")
@click.option("--files", default=1_000_000, show_default=True, help="In the larger folder.")
@click.option("--quick", is_flag=True, help="Fifty samples, and a larger folder of 50,000 files.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
@click.option("--seed", default=0, show_default=True, help="Of the draws.")
def main(data: Path, samples: int, files: int, quick: bool, json_path: Path | None, seed: int) -> None:
    """Print peak memory of embedding DATA, a folder of class folders."""
    samples, files = (50, 50_000) if quick else (samples, files)
    options = ("--max-samples", str(samples), "--seed", str(seed), "--device", "cpu")
    figures: dict[str, object] = {"machine": print_machine(), "samples": samples}
    click.echo(f"\npeak memory of `t2v embed`, {samples} samples, default memory budget")
    with tempfile.TemporaryDirectory() as root:
        weights = Path(root) / "random.safetensors"
        save_file(models.resnet50().state_dict(), weights)
        figures["builtin"] = report("built-in probe at 64 pixels", embed(data, *options))
        resnet = embed(data, *options, "--probe", f"resnet50@{weights}")
        figures["resnet50"] = report("ResNet-50 at 224 pixels", resnet)
    for count in (1000, files):
        with tempfile.TemporaryDirectory() as root:
            folder = link_folder(data, Path(root) / "links", count)
            figures[f"files_{count}"] = report(
                f"built-in probe, folder of {count:,} files", embed(folder, *options)
            )
    save_figures(json_path, figures)


if __name__ == "__main__":
    main()
