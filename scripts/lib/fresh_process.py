"""Run a function in a process of its own: its result, its time, and the memory it took at most."""

import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Imported once by the server that the processes are forked from, which computes nothing itself.
PRELOADED = [
    "indexer.networks.torchvision",  # before what imports torchvision itself
    "indexer.fisher.square_grads",
    "backpack.extensions",
    "opacus",
    "nngeometry.object.pspace",
]


class RefusalError(ValueError):
    """A function cannot do what it is asked to; the message says why in a few words."""


@dataclass(frozen=True)
class Outcome:
    """What came of a function.

    Attributes:
        value: What it returned.
        failure: Why it returned nothing, in a few words; ``None`` if it did.
    """

    value: Any = None
    failure: str | None = None


def run_fresh(function: Callable[..., Any], *args: Any, threads: int, timeout: float) -> Outcome:
    """Call ``function(*args)``, all picklable, in a new process; it is stopped after ``timeout`` seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, threads, function, args))
    process.start()
    sender.close()
    try:
        if receiver.poll(timeout):
            return receiver.recv()
        return Outcome(failure=f"stopped after {timeout:.0f} s")
    except EOFError:
        process.join()
        return Outcome(failure=f"the process died with code {process.exitcode}; most likely out of memory")
    finally:
        process.kill()
        process.join()


def _call(sender: Connection, threads: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    warnings.simplefilter("ignore")  # peers use what torch deprecates
    torch.set_num_threads(threads)
    try:
        sender.send(Outcome(function(*args)))
    except RefusalError as err:
        sender.send(Outcome(failure=str(err)))
    except Exception as err:  # whatever a library raises at a network is its answer
        first_line = str(err).partition("\n")[0]
        sender.send(Outcome(failure=f"{type(err).__name__}: {first_line}"[:160]))


def time_run(run: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of one run, the device's queue included."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def measure_peak(run: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Seconds of a first run, and by how many bytes memory rose at most above what was held before it.

    On CUDA it is what torch had allocated, on the CPU what was resident; so there the process must be a fresh
    one, in which no freed memory waits to be used again.
    """
    _load_kernels(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        seconds = time_run(run, device)
        return seconds, torch.cuda.max_memory_allocated(device) - before
    before = _resident_bytes()
    seconds = time_run(run, device)
    return seconds, max(0, _peak_resident_bytes() - before)


def _load_kernels(device: torch.device) -> None:
    """Let convolution and matrix libraries take what they take once."""
    conv = nn.Conv2d(3, 8, 3, device=device)
    conv(torch.ones(2, 3, 8, 8, device=device)).flatten(1).mm(
        torch.ones(288, 2, device=device)
    ).sum().backward()


def _resident_bytes() -> int:
    """What the process holds now; on systems that do not say, the most that it held so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
