"""Count parameters, multiply-adds and features of every pretrained network of timm, without weights or memory.

    python scripts/count_timm.py timm_costs.jsonl

A line for each architecture, number of classes and size of input, with its key; what the file holds already is
not counted again, so that a run can be ended and begun again. Networks are built on torch's meta device, where
nothing is allocated; attention is made of plain matrix products, which are what is counted. Takes most of an
hour on one core.
"""

import json
import time
import warnings
from pathlib import Path
from typing import Any

import click
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from indexer.hub import build_timm, timm_configs

Key = tuple[str, int, tuple[int, ...]]


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Append to the file OUT what it lacks."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # of networks that warn of themselves
    known = {key_of(json.loads(line)["key"]) for line in out.open(encoding="utf-8")} if out.exists() else set()
    with out.open("a", encoding="utf-8") as file:
        for name, config in timm_configs().items():
            key = (name.partition(".")[0], config.num_classes, tuple(config.input_size))
            if key not in known and config.input_size[0] == 3:
                known.add(key)
                file.write(json.dumps(count(key)) + "\n")
                file.flush()


def key_of(values: list[Any]) -> Key:
    """A key as JSON holds it."""
    name, classes, size = values
    return name, classes, tuple(size)


def count(key: Key) -> dict[str, Any]:
    """Counts of one network; multiply-adds are null where it does not run on the meta device."""
    began = time.perf_counter()
    name, classes, size = key
    with torch.device("meta"):
        network = build_timm(name, "pip install timm", num_classes=classes).eval().requires_grad_(False)
        params = sum(parameter.numel() for parameter in network.parameters())
        try:
            with (
                sdpa_kernel(SDPBackend.MATH),
                FlopCounterMode(display=False) as counter,
                torch.inference_mode(),
            ):
                network(torch.zeros(1, *size))
            flops = counter.get_total_flops() // 2  # it counts a multiply-add as two operations
        except Exception as err:  # a network may ask for values, which tensors without memory have none of
            click.echo(f"{name}: {err}", err=True)
            flops = None
    width = getattr(network, "num_features", None)
    seconds = round(time.perf_counter() - began, 2)
    return {"key": key, "params": params, "flops": flops, "width": width, "seconds": seconds}


if __name__ == "__main__":
    main()
