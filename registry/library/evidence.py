"""What counts as evidence for a recommendation: results that were measured here, shipped or published.

Each expert counts under one name, each result for the data and the weights that it was measured on, and every
metric is turned so that higher is better.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from registry.builtin.published import (
    PublishedExpert,
    canonical_name,
    published_aliases,
    published_experts,
    published_results,
)
from registry.errors import NotFoundError
from registry.gate import OTHER_DATA
from registry.names import ERROR_SHARES
from registry.records import Content, ExpertRecord, ResultRecord

ACCURACY_OF = {"error_rate": "accuracy", "top1_error": "top1", "top5_error": "top5"}
"""The metric that one minus an error share is."""

assert set(ACCURACY_OF) == set(ERROR_SHARES)  # noqa: S101  # a new error share needs its accuracy

SAME_WEIGHTS_DIFFER = 0.05
"""Results of the same weights, read by two libraries or of other seeds, differ by less than this."""

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
    """Everything that a recommendation learns from."""

    experts: Sequence[Any]  # registered experts, then those that only publications name
    results: Sequence[Measured]
    alias: Mapping[str, str]  # the name that counts, for other names of the same weights
    way: Way  # metric and protocol that the answer is about
    warnings: tuple[str, ...] = ()  # names that were not believed, in sentences


def same_weights(
    experts: Iterable[ExpertRecord], results: Sequence[ResultRecord]
) -> tuple[list[ExpertRecord], dict[str, str], list[str]]:
    """One expert for all that are the same weights under several names: the one with most results.

    Experts whose hashes or results say that they are not the same weights stay apart, whatever their names say.

    Returns:
        The experts that count, their names for every other name of theirs, and a sentence for each that stays
        apart from the one whose name it shares.
    """
    measured = Counter(result.expert for result in results)
    scores = _mean_scores(results)
    counting, alias, warnings = [], dict[str, str](), list[str]()
    for group in _by_name(experts):
        first, *others = sorted(group, key=lambda expert: (-measured[expert.name], expert.name))
        reasons = {other: _contradiction(first, other, scores) for other in others}
        apart = [other for other, reason in reasons.items() if reason]
        warnings += [
            f"{first.name} and {other.name} are named as the same weights, but {reasons[other]}: they count as "
            "two experts until that is corrected"
            for other in apart
        ]
        counting += [first, *apart]
        names = {name for expert in group if expert not in apart for name in _names(expert)}
        alias |= dict.fromkeys(names - {expert.name for expert in (first, *apart)}, first.name)
    return counting, alias, warnings


def _names(expert: ExpertRecord) -> list[str]:
    """Every name under which the weights of an expert are known, its own first."""
    names = (expert.name, *expert.aliases)
    return list(dict.fromkeys([*names, *map(canonical_name, names)]))


def _by_name(experts: Iterable[ExpertRecord]) -> list[list[ExpertRecord]]:
    """Experts, those that share a name together, in order of the first of each group."""
    group_of: dict[str, list[ExpertRecord]] = {}
    for expert in experts:
        shared = {id(group_of[name]): group_of[name] for name in _names(expert) if name in group_of}
        group = [*(other for members in shared.values() for other in members), expert]
        group_of |= {name: group for member in group for name in _names(member)}
    return list({id(group): group for group in group_of.values()}.values())


def _mean_scores(results: Sequence[ResultRecord]) -> dict[str, dict[tuple[str, str, str], float]]:
    """Mean score by expert, and by version of a task, metric and protocol."""
    scores: dict[str, dict[tuple[str, str, str], list[float]]] = {}
    for result in results:
        measured = f"{result.task}@{result.task_version}", result.metric, result.protocol
        scores.setdefault(result.expert, {}).setdefault(measured, []).append(result.score)
    return {
        expert: {measured: sum(values) / len(values) for measured, values in row.items()}
        for expert, row in scores.items()
    }


def _contradiction(
    one: ExpertRecord, other: ExpertRecord, scores: Mapping[str, Mapping[tuple[str, str, str], float]]
) -> str:
    """What says that two experts are not the same weights; empty if nothing does."""
    if one.weights_hash and other.weights_hash and one.weights_hash != other.weights_hash:
        return "the weights that were loaded differ"
    ours, theirs = scores.get(one.name, {}), scores.get(other.name, {})
    for measured in sorted(ours.keys() & theirs.keys()):
        if abs(ours[measured] - theirs[measured]) > SAME_WEIGHTS_DIFFER:
            task, metric, protocol = measured
            return (
                f"they measured {ours[measured]:.3g} and {theirs[measured]:.3g} on {task.removesuffix('@0')} "
                f"({metric}, {protocol})"
            )
    return ""


def gather_evidence(
    experts: Sequence[ExpertRecord],
    results: Sequence[ResultRecord],
    *,
    content: Content,
    latest: Mapping[str, int],
    published: bool,
    removed: Set[tuple[str, str]] = frozenset(),
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
        removed: Names and hashes of weights of experts that were removed: an expert that was given such a name
            later has not their results.
        metric: Of the answer; the usual one of the protocol if ``None``.
        protocol: Of the answer; that of one's own results, else of starter content, else of any, if ``None``.

    Raises:
        NotFoundError: If nobody measured anything by that protocol or metric.
    """
    usable = usable_results(experts, results, removed)
    counting, alias, warnings = same_weights(experts, usable)
    own = [_measured(result, latest) for result in usable]
    elsewhere = _published(content) if published else ()
    way = _choose_way(usable, own, elsewhere, metric, protocol)
    counted_names = {expert.name for expert in counting} | alias.keys()
    others = [it for it in _published_experts(content) if it.name not in counted_names] if published else []
    return Evidence([*map(_completed, counting), *others], [*own, *elsewhere], alias, way, tuple(warnings))


def usable_results(
    experts: Iterable[ExpertRecord], results: Iterable[ResultRecord], removed: Set[tuple[str, str]]
) -> list[ResultRecord]:
    """Results that are of registered data and weights, or of tasks and experts that are not registered."""
    hashes = {expert.name: expert.weights_hash for expert in experts}
    return [
        result
        for result in results
        if result.task_version != OTHER_DATA and _is_of_these_weights(result, hashes, removed)
    ]


def versioned(task: str, version: int, latest: Mapping[str, int]) -> str:
    """Name under which results on a version of a task count: its own, unless it is not the latest."""
    return task if version in {0, latest.get(task, version)} else f"{task}@{version}"


def _is_of_these_weights(
    result: ResultRecord, hashes: Mapping[str, str], removed: Set[tuple[str, str]]
) -> bool:
    """Whether a result is of the weights that are registered under its name, if any are, as far as is known."""
    registered_hash = hashes.get(result.expert)
    if registered_hash is None or not result.weights_hash or registered_hash == result.weights_hash:
        return True
    return not registered_hash and (result.expert, result.weights_hash) not in removed


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
    aliases, results = published_aliases(), published_results()
    here = np.array(results.content.values)[results.content.codes] == content
    experts = replace(results.expert, values=tuple(aliases.get(it, it) for it in results.expert.values))
    coded = (results.task, experts, results.metric, results.protocol)
    columns = (np.array(column.values, dtype=object)[column.codes[here]].tolist() for column in coded)
    return tuple(
        Measured._make((*row, None)) for row in zip(*columns, results.accuracy[here].tolist(), strict=True)
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
    published = _known(there) if there else KnownExpert(expert.name)
    return KnownExpert(
        expert.name,
        source_task=expert.source_task,
        num_params=expert.num_params or published.num_params,
        flops=expert.flops or published.flops,
        input_size=expert.input_size or published.input_size,
        source_accuracy=published.source_accuracy if expert.source_accuracy is None else expert.source_accuracy,
        toy=expert.toy,
    )
