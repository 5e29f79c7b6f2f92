"""What counts as evidence for a recommendation: results that were measured here, shipped or published.

Each expert counts under one name, each result for the data and the weights that it was measured on, and every
metric is turned so that higher is better.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from registry.builtin.published import (
    PublishedExpert,
    canonical_name,
    published_aliases,
    published_experts,
    published_results,
)
from registry.errors import NotFoundError
from registry.metrics import ERROR_SHARES
from registry.records import Content, ExpertRecord, ResultRecord

ACCURACY_OF = {"error_rate": "accuracy", "top1_error": "top1", "top5_error": "top5"}
"""The metric that one minus an error share is."""

assert set(ACCURACY_OF) == set(ERROR_SHARES)  # noqa: S101  # a new error share needs its accuracy

Way = tuple[str, str]


class Measured(NamedTuple):
    """One result as evidence; ``accuracy`` is from 0 to 1, and higher is better whatever the metric."""

    task: str
    expert: str
    metric: str
    protocol: str
    accuracy: float
    seed: int | None


@dataclass(frozen=True)
class KnownExpert:
    """What is known of an expert that only publications name, as far as it can count."""

    name: str
    source_task: str = ""
    num_params: int | None = None
    flops: int | None = None
    input_size: int | None = None
    source_accuracy: float | None = None
    toy: bool = False


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that a recommendation learns from.

    Attributes:
        experts: Registered experts, then those that only publications name.
        results: What was measured of them.
        alias: The name that counts, for other names of the same weights.
        way: Metric and protocol that the answer is about.
    """

    experts: Sequence[Any]
    results: Sequence[Measured]
    alias: Mapping[str, str]
    way: Way


def same_weights(
    experts: Iterable[ExpertRecord], measured: Counter[str]
) -> tuple[list[ExpertRecord], dict[str, str]]:
    """One expert for all that are the same weights under several names: the one with most results.

    Returns:
        The experts that count, in order, and their names for every other name of theirs.
    """
    by_weights: dict[str, list[ExpertRecord]] = {}
    for expert in experts:
        names = sorted(canonical_name(name) for name in (expert.name, *expert.aliases))
        known = next((name for name in names if name in by_weights), canonical_name(expert.name))
        by_weights.setdefault(known, []).append(expert)
    counting, alias = [], dict[str, str]()
    for canonical, same in by_weights.items():
        first = min(same, key=lambda expert: (-measured[expert.name], expert.name))
        counting.append(first)
        others = {canonical, *(name for expert in same for name in (expert.name, *expert.aliases))}
        alias |= dict.fromkeys(others - {first.name}, first.name)
    return counting, alias


def gather_evidence(
    experts: Sequence[ExpertRecord],
    results: Sequence[ResultRecord],
    *,
    content: Content,
    latest: Mapping[str, int],
    published: bool,
    metric: str | None = None,
    protocol: str | None = None,
) -> Evidence:
    """Put together what is known of experts of one content.

    Args:
        experts: Registered ones that take this content.
        results: Those of the registry.
        content: What the samples of the task are.
        latest: Latest version of each task that is embedded where tasks are compared.
        published: Whether published results count too.
        metric: Of the answer; the usual one of the protocol if ``None``.
        protocol: Of the answer; that of one's own results, else of starter content, else of any, if ``None``.

    Raises:
        NotFoundError: If nobody measured anything by that protocol or metric.
    """
    counts = Counter(result.expert for result in results)
    counting, alias = same_weights(experts, counts)
    hashes = {expert.name: expert.weights_hash for expert in experts}
    usable = [result for result in results if _is_of_these_weights(result, hashes)]
    own = [_measured(result, latest) for result in usable]
    elsewhere = _published(content) if published else ()
    way = _choose_way(usable, own, elsewhere, metric, protocol)
    known = {expert.name for expert in counting} | alias.keys()
    others = [it for it in _published_experts(content) if it.name not in known] if published else []
    return Evidence([*map(_completed, counting), *others], [*own, *elsewhere], alias, way)


def versioned(task: str, version: int, latest: Mapping[str, int]) -> str:
    """Name under which results on a version of a task count: its own, unless it is not the latest."""
    return task if version in {0, latest.get(task, version)} else f"{task}@{version}"


def _is_of_these_weights(result: ResultRecord, hashes: Mapping[str, str]) -> bool:
    known = hashes.get(result.expert, "")
    return not (known and result.weights_hash and known != result.weights_hash)


def _measured(result: ResultRecord, latest: Mapping[str, int]) -> Measured:
    return Measured(
        versioned(result.task, result.task_version, latest),
        result.expert,
        ACCURACY_OF.get(result.metric, result.metric),
        result.protocol,
        result.score,
        result.seed,
    )


def _choose_way(
    records: Sequence[ResultRecord],
    measured: Sequence[Measured],
    elsewhere: Sequence[Measured],
    metric: str | None,
    protocol: str | None,
) -> Way:
    """The metric and protocol of an answer: as asked, else the most frequent of the nearest to the user.

    Raises:
        NotFoundError: If nobody measured anything in the way that is asked for.
    """
    own = [row for row, record in zip(measured, records, strict=True) if not record.builtin]
    for rows in (own, measured, elsewhere):
        ways = Counter(
            (row.metric, row.protocol)
            for row in rows
            if protocol in {None, row.protocol} and metric in {None, row.metric}
        )
        if ways:
            return min(ways, key=lambda way: (-ways[way], way))
    if protocol is not None or metric is not None:
        everything = [*measured, *elsewhere]
        if protocol is not None:
            raise NotFoundError("protocol of any result", protocol, {row.protocol for row in everything})
        raise NotFoundError("metric of any result", str(metric), {row.metric for row in everything})
    return "accuracy", "linear_probe_20shot"


@cache
def _published(content: Content) -> tuple[Measured, ...]:
    """Published results on tasks of a content, each expert under its one name."""
    aliases = published_aliases()
    return tuple(
        Measured(row.task, aliases.get(row.expert, row.expert), row.metric, row.protocol, row.accuracy, None)
        for row in published_results()
        if row.content == content
    )


@cache
def _published_experts(content: Content) -> tuple[KnownExpert, ...]:
    return tuple(_known(expert) for expert in published_experts().values() if expert.content == content)


def _known(expert: PublishedExpert) -> KnownExpert:
    return KnownExpert(
        expert.name,
        num_params=expert.num_params,
        flops=expert.flops,
        input_size=expert.input_size,
        source_accuracy=expert.imagenet_accuracy,
    )


def _completed(expert: ExpertRecord) -> KnownExpert:
    """A registered expert, with what publications know of it where the registry does not."""
    there = published_experts().get(canonical_name(expert.name))
    known = _known(there) if there else KnownExpert(expert.name)
    return KnownExpert(
        expert.name,
        source_task=expert.source_task,
        num_params=expert.num_params or known.num_params,
        flops=expert.flops or known.flops,
        input_size=expert.input_size or known.input_size,
        source_accuracy=known.source_accuracy if expert.source_accuracy is None else expert.source_accuracy,
        toy=expert.toy,
    )
