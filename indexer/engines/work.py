"""What an engine runs and what comes of it: pieces of work that any process can do, and their outcomes.

A network is loaded once in each process and kept for the next piece of work.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from indexer.errors import EngineError, IndexerError, SettingsError
from indexer.records import EmbeddingSettings, TaskEmbedding

if TYPE_CHECKING:
    from indexer.networks.run import PretrainedNetwork

MAX_NETWORKS = 2
"""Networks that a process keeps; those used longest ago are let go."""

MAX_THREADS = 1024

_kept = threading.local()  # two threads must not use one network at once: its layers are watched meanwhile


class Work(Protocol):
    """Something to compute; it can be pickled, and what it gives can too."""

    @property
    def title(self) -> str:
        """What it is, for messages."""
        ...

    def run(self) -> Any:
        """Compute it; errors of the indexer say why not."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """How much an engine may do at once.

    Attributes:
        jobs: Pieces of work at once, at least 1; ``None`` for one a core, or what the cluster can take.
        threads: Threads of each, at least 1. Another number of threads rounds otherwise, so results are the
            same bytes only where it is the same.
        address: A Ray cluster, such as ``auto`` or ``ray://host:10001``; ``None`` for one on this machine.
    """

    jobs: int | None = None
    threads: int = 1
    address: str | None = None
    gpus_per_task: float | None = None  # GPUs of each, which may be a fraction such as 0.25; none by default
    memory_per_task: int | None = None  # bytes that Ray sets aside for each
    retries: int = 1  # how often work is done again whose process or machine was lost

    def __post_init__(self) -> None:
        """Check the ranges; ``SettingsError`` if a number is out of its range."""
        least = {"jobs": 1, "threads": 1, "retries": 0, "gpus_per_task": 0, "memory_per_task": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:  # NaN is no number of GPUs
                raise SettingsError(f"{name} must be at least {low}, got {value}")
        if self.threads > MAX_THREADS:
            raise SettingsError(f"threads must be at most {MAX_THREADS}, got {self.threads}")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one piece of work."""

    number: int  # its place in the order in which work was given, from 0
    value: Any = None  # what it computed, ``None`` if there is an error
    error: IndexerError | None = None
    seconds: float = 0.0  # how long it ran, without the wait before
    attempts: int = 1  # how often it was begun


Outcomes = Iterator[Outcome | None]
"""Outcomes as they come, in any order; ``None`` about once a second while nothing comes, so that whoever
waits can see to other things."""


def attempt(number: int, work: Work, threads: int | None) -> Outcome:
    """Do a piece of work in this process; what goes wrong becomes a value."""
    start = time.perf_counter()
    value, error = None, None
    try:
        with limited_threads(threads) if threads else contextlib.nullcontext():
            value = work.run()
    except IndexerError as err:
        error = err
    except MemoryError:
        error = EngineError(
            f"{work.title}: there is not enough memory; embed fewer samples, or fewer tasks at once"
        )
    except Exception as err:  # one task must not stop the others, whatever a library raises at its data
        error = EngineError(f"{work.title}: {type(err).__name__}: {err}")
    return Outcome(number, value, error, time.perf_counter() - start)


@contextlib.contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Compute on so many threads, in torch, BLAS and OpenMP, and as before afterwards."""
    import torch
    from threadpoolctl import ThreadpoolController

    if not hasattr(_kept, "libraries"):  # looking takes 20 ms
        import sklearn.linear_model  # noqa: F401  # brings an OpenMP that has to be limited too

        _kept.libraries = ThreadpoolController()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _kept.libraries.limit(limits=threads):
            yield
    finally:
        torch.set_num_threads(before)


def kept_network(loader: str) -> "PretrainedNetwork":
    """A network, loaded if this thread does not have it yet."""
    from indexer.networks.load import load_network

    networks: dict[str, PretrainedNetwork] = _kept.__dict__.setdefault("networks", {})
    network = networks.pop(loader, None) or load_network(loader)
    networks[loader] = network
    while len(networks) > MAX_NETWORKS:
        del networks[next(iter(networks))]
    return network


@dataclass(frozen=True)
class EmbedWork:
    """Embed one dataset."""

    data: str
    settings: EmbeddingSettings

    @property
    def title(self) -> str:
        """The data."""
        return self.data

    def run(self) -> TaskEmbedding:
        """Embed as ``indexer.embed.embed_dataset`` does, with the network that this process keeps."""
        import torch

        from indexer.embed import embed_sample, load_task_sample

        probe = kept_network(self.settings.probe)
        sample = load_task_sample(self.data, probe, self.settings, threads=torch.get_num_threads())
        return embed_sample(sample, probe, self.settings)
