"""Count parameters, multiply-adds and features of every pretrained network of timm, without weights or memory.

    python scripts/make/count_timm.py timm_costs.jsonl

A line for each architecture, number of classes and size of input, with its key; what the file holds already is
not counted again, so that a run can be ended and begun again. Networks are built on torch's meta device, where
nothing is allocated or filled; attention is made of plain matrix products, which are what is counted. Takes
ten minutes on an idle core, and two with --params-only, which leaves multiply-adds out.
"""

import json
import time
import warnings
from pathlib import Path
from typing import Any

import click
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from indexer.networks.hubs import build_timm, timm_configs

Key = tuple[str, int, tuple[int, ...]]


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--params-only", is_flag=True, help="Build networks, and do not run them.")
def main(out: Path, params_only: bool) -> None:
    """Append to the file OUT what it lacks."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # of networks that warn of themselves
    known = {key_of(json.loads(line)["key"]) for line in out.open(encoding="utf-8")} if out.exists() else set()
    with out.open("a", encoding="utf-8") as file:
        for name, config in timm_configs().items():
            key = (name.partition(".")[0], config.num_classes, tuple(config.input_size))
            if key not in known and config.input_size[0] == 3:
                known.add(key)
                file.write(json.dumps(count(key, runs=not params_only)) + "\n")
                file.flush()


def key_of(values: list[Any]) -> Key:
    """A key as JSON holds it."""
    name, classes, size = values
    return name, classes, tuple(size)


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where a function would fill them with numbers."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Skip what works in place: its name ends in one underscore."""
        name = getattr(func, "__name__", "")
        if args and name.endswith("_") and not name.endswith(("__", "requires_grad_")):
            return args[0]
        return func(*args, **(kwargs or {}))


def count(key: Key, *, runs: bool) -> dict[str, Any]:
    """Counts of one network; multiply-adds are null where it is not run, or cannot be without numbers."""
    began = time.perf_counter()
    name, classes, size = key
    with torch.device("meta"):
        with _Unfilled():
            network = build_timm(name, "pip install timm", num_classes=classes)
        network.eval().requires_grad_(requires_grad=False)
        params = sum(parameter.numel() for parameter in network.parameters())
        flops = count_flops(network, size) if runs else None
    width = getattr(network, "num_features", None)
    seconds = round(time.perf_counter() - began, 2)
    return {"key": key, "params": params, "flops": flops, "width": width, "seconds": seconds}


def count_flops(network: Any, size: tuple[int, ...]) -> int | None:
    """Multiply-adds of one image ``[C, H, W]`` of that size."""
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(torch.zeros(1, *size))
    except Exception as err:  # a network may ask for values, which tensors without memory have none of
        click.echo(f"{type(network).__name__}: {err}", err=True)
        return None
    return int(counter.get_total_flops()) // 2  # it counts a multiply-add as two operations


if __name__ == "__main__":
    main()
