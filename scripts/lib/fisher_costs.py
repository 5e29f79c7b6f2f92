"""Errors, seconds and bytes of one route of ``fisher_peers`` on one batch; run in fresh processes."""

import statistics
from dataclasses import dataclass, replace

import torch
from fisher_peers import NUM_CLASSES, ROUTES, build, largest_error, torch_func
from fresh_process import measure_peak, time_run
from torch import Tensor, nn

ROUND_SECONDS = {"ours": 60.0, "plain": 30.0}
"""Longest that the rounds of a measurement may take; of the peers ``PEER_ROUND_SECONDS``."""

PEER_ROUND_SECONDS = 10.0
SEARCH_SECONDS = 5.0  # a search for the best chunk ends with a chunk that took longer


@dataclass(frozen=True)
class Case:
    """What is measured: a network of torchvision and a batch of random images, the same for every route."""

    architecture: str
    pixels: int
    batch_size: int
    seed: int
    device: str

    def make(self) -> tuple[nn.Module, Tensor, Tensor]:
        """The network, images ``[N, 3, S, S]`` and directions ``[N, C]``: scores of labels that it draws."""
        torch.manual_seed(self.seed)
        torch.backends.cudnn.allow_tf32 = False  # float32 shall mean float32 in every route
        device = torch.device(self.device)
        network = build(self.architecture, self.pixels, device)
        images = torch.randn(self.batch_size, 3, self.pixels, self.pixels)
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            probs = network(images[:1]).softmax(dim=1).cpu().expand(self.batch_size, NUM_CLASSES)
        labels = torch.multinomial(probs, 1)
        return network, images, (torch.zeros_like(probs).scatter_(1, labels, 1) - probs).to(device)


@dataclass(frozen=True)
class Cost:
    """What one pass over a batch costs.

    Attributes:
        seconds: Median over rounds; of the first run, if there was no time for any.
        plain_seconds: Of an ordinary training step on the same batch in the same process.
        peak_bytes: Growth of memory in the first run, at most.
        rounds: In each of which the route and the training step ran once, after a run of each.
    """

    seconds: float
    plain_seconds: float
    peak_bytes: int
    rounds: int

    def scaled(self, factor: float) -> "Cost":
        """Of a batch that many times as large."""
        return replace(self, seconds=self.seconds * factor, peak_bytes=round(self.peak_bytes * factor))


def measure_cost(case: Case, route: str, chunk_size: int | None, repeats: int) -> Cost:
    """Cost of a route; ``chunk_size`` is for ``torch_func`` alone."""
    device = torch.device(case.device)
    options = {"chunk_size": chunk_size} if route == "torch_func" else {}
    run = ROUTES[route](*case.make(), **options)
    first_seconds, peak_bytes = measure_peak(run, device)
    routes = {"plain": ROUTES["plain"](*case.make()), route: run}
    times = {name: [time_run(run, device)] for name, run in routes.items() if name != route}
    times[route] = [first_seconds]
    budget = ROUND_SECONDS.get(route, PEER_ROUND_SECONDS)
    rounds = min(repeats, int(budget / sum(first for (first,) in times.values())))
    for _ in range(rounds):
        for name, run in routes.items():
            times[name].append(time_run(run, device))
    seconds = {
        name: statistics.median(values[1:] or values) for name, values in times.items()
    }  # first: warm-up
    return Cost(seconds[route], seconds["plain"], peak_bytes, rounds)


def best_chunk_size(case: Case, most: int) -> int:
    """Samples at once, a power of two up to ``most``, at which ``torch_func`` takes least time a sample."""
    network, images, directions = case.make()
    best, least = 1, float("inf")
    chunk_size = 1
    while chunk_size <= most:
        run = torch_func(network, images[:chunk_size], directions[:chunk_size])
        run()
        seconds = time_run(run, torch.device(case.device))
        if seconds / chunk_size < least:
            best, least = chunk_size, seconds / chunk_size
        if seconds / chunk_size > 1.2 * least or seconds > SEARCH_SECONDS:
            break
        chunk_size *= 2
    return best


def measure_errors(case: Case, route: str) -> dict[str, float]:
    """Errors of a route against torch.func in both precisions, and of ours beside those of torch.func.

    In float32 rounding may switch a ReLU, which changes a filter by some percent in any route.
    """
    network, images, directions = case.make()
    single = torch_func(network, images, directions, chunk_size=1)()
    found = ROUTES[route](network, images, directions)()
    network, images, directions = network.double(), images.double(), directions.double()
    double = torch_func(network, images, directions, chunk_size=1)()
    errors = {
        "float64": largest_error(ROUTES[route](network, images, directions)(), double),
        "float32": largest_error(found, single),
    }
    if route != "ours":
        return errors
    return errors | {
        "float32_ours_against_float64": largest_error(found, double),
        "float32_torch_func_against_float64": largest_error(single, double),
        "float32_floor_1e-6": largest_error(found, single, floor=1e-6),
    }
