"""How answers look to a person: tables and cards."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.terminal import message, printable, say, stdout_console, warn

if TYPE_CHECKING:
    from registry.distances import Distance
    from registry.records import (
        AddedTask,
        EmbeddingRecord,
        Evidence,
        ExpertRecord,
        Measurement,
        Neighbor,
        Query,
        Recommendation,
        RecommendedExpert,
        ResultRecord,
        SpaceRecord,
        TaskRecord,
    )
    from registry.store import Problem

NUM_CLASSES_SHOWN = 20


def show_tasks(tasks: Sequence["TaskRecord"]) -> None:
    """The list of tasks."""
    _table(
        ("task", "version", ">classes", ">samples", "tags", "data"),
        [
            (task.name, task.version, task.num_classes, task.num_samples, ", ".join(task.tags), task.data)
            for task in tasks
        ],
    )


def show_task(task: "TaskRecord", embeddings: Sequence[tuple["SpaceRecord", "EmbeddingRecord"]]) -> None:
    """The card of a task: what it is, then how it was measured in each space."""
    more = f", ... ({task.num_classes})" if task.num_classes > NUM_CLASSES_SHOWN else ""
    _card(
        f"{task.name}@{task.version}",
        {
            "data": task.data,
            "samples": task.num_samples,
            "classes": ", ".join(task.class_names[:NUM_CLASSES_SHOWN]) + more,
            "tags": ", ".join(task.tags) or "none",
            "settings": task.settings,
            "fingerprint": task.fingerprint,
            "added": f"{task.created_at[:19]} UTC" + (" (starter content)" if task.builtin else ""),
        },
    )
    _table(
        ("probe", "space", ">samples used", ">head accuracy", ">norm", ">relative error"),
        [
            (
                space.probe,
                space.space_id,
                embedding.num_samples_used,
                _share(embedding.head_accuracy),
                _short(embedding.norm),
                _share(embedding.relative_error),
            )
            for space, embedding in embeddings
        ],
    )


def show_added(added: "AddedTask") -> None:
    """What adding a task did, or that it did nothing."""
    title = f"{added.task}@{added.version}"
    if added.created:
        message(f"Added {title}.")
    else:
        message(f"{title} is registered already, with this very data and these settings: nothing was written.")
    _card(
        title,
        {
            "space": added.space,
            "samples used": added.num_samples_used,
            "head accuracy": _share(added.head_accuracy),
            "norm": _short(added.norm),
            "relative error": _share(added.relative_error),
            "seconds": f"{added.seconds:.1f}",
        },
    )
    warn(added.warnings)


def show_embedding(document: Mapping[str, Any], path: Path | None) -> None:
    """What ``documents.of_embedding`` tells of an embedding, and where its vectors went."""
    _card(
        document["data"],
        {
            "probe": document["probe"],
            "space": document["space"],
            "classes": document["num_classes"],
            "samples": document["num_samples"],
            "samples used": document["num_samples_used"],
            "filters": document["dim"],
            "head accuracy": _share(document["head_accuracy"]),
            "norm": _short(document["norm"]),
            "relative error": _share(document["relative_error"]),
            "seconds": f"{document['seconds']:.1f}",
        },
    )
    warn(document["warnings"])
    message(f"Wrote {path}." if path else "The vectors were not kept; --out FILE.npz keeps them.")


def show_experts(experts: Sequence["ExpertRecord"]) -> None:
    """The list of experts."""
    _table(
        ("expert", "source task", ">params", ">flops", ">input", "licence"),
        [
            (
                expert.name,
                expert.source_task or "-",
                _size(expert.num_params),
                _size(expert.flops),
                expert.input_size or "-",
                expert.license or "-",
            )
            for expert in experts
        ],
    )


def show_expert(expert: "ExpertRecord") -> None:
    """The card of an expert."""
    _card(
        expert.name,
        {
            "loader": expert.loader,
            "source task": expert.source_task or "not known",
            "params": _size(expert.num_params),
            "multiply-adds": _size(expert.flops),
            "input size": expert.input_size or "-",
            "licence": expert.license or "not known",
            "added": f"{expert.created_at[:19]} UTC" + (" (starter content)" if expert.builtin else ""),
        },
    )


def show_results(results: Sequence["ResultRecord"]) -> None:
    """The list of results."""
    _table(
        ("task", "expert", ">score", "metric", "protocol", "source", "added"),
        [
            (
                result.task,
                result.expert,
                _share(result.accuracy),
                result.metric,
                result.protocol,
                result.source or "-",
                result.created_at[:10],
            )
            for result in results
        ],
    )


def show_measurement(measured: "Measurement") -> None:
    """One line: who, on what, how good."""
    say(
        f"{measured.expert} on {measured.task}: accuracy {_share(measured.accuracy)} "
        f"(standard deviation {_share(measured.deviation)}, {measured.protocol})"
    )
    message("Recorded." if measured.recorded else "Not recorded.")


def show_expectations(measured: Sequence[tuple[str, float, "Measurement"]]) -> None:
    """Expected beside measured accuracy of what each rule picked."""
    _table(
        ("rule", "expert", ">expected", ">measured", ">deviation"),
        [
            (rule, it.expert, _share(expected), _share(it.accuracy), _share(it.deviation))
            for rule, expected, it in measured
        ],
    )


def show_neighbors(query: "Query", distance: str, neighbors: Sequence["Neighbor"]) -> None:
    """The answer of *nearest*."""
    say(f"Nearest to {_title(query)} by {distance}:")
    _table(
        (">rank", "task", ">distance", ">classes", ">samples", "tags"),
        [
            (
                neighbor.rank,
                f"{neighbor.task}@{neighbor.version}",
                _short(neighbor.distance),
                neighbor.num_classes,
                neighbor.num_samples,
                ", ".join(neighbor.tags),
            )
            for neighbor in neighbors
        ],
    )


def show_distance(distance: float) -> None:
    """One number."""
    say(_short(distance))


def show_recommendation(answer: "Recommendation") -> None:
    """Ranked experts, the baselines beside them, warnings, and the line that loads the first."""
    if not answer.recommendations:
        warn(answer.warnings)
        return
    say(f"Experts for {_title(answer.query)}, best first, by expected accuracy with its 90% interval:")
    _table(
        (">rank", "expert", ">expected", "interval", ">regret", ">params", "licence"),
        [_recommended(expert) for expert in answer.recommendations],
    )
    say()
    say("The results behind it, each as accuracy at distance:")
    for expert in answer.recommendations:
        say(f"  {expert.rank}. {expert.expert}: {_evidence(expert.evidence)}")
    say()
    say("What simple rules would pick:")
    _table(
        ("rule", "expert", ">expected"),
        [
            (rule, pick.expert or "(average of all)", _share(pick.expected_accuracy))
            for rule, pick in answer.baselines.items()
        ],
    )
    warn(answer.warnings)
    say()
    say("Load the first:")
    say(f"  {answer.recommendations[0].load}")


def show_networks(networks: Sequence[Mapping[str, Any]]) -> None:
    """What may be a probe or an expert, as ``documents.of_network`` tells it."""
    _table(
        ("network", "source", ">params", ">input"),
        [
            (network["network"], network["source"], _size(network["num_params"]), network["input_size"])
            for network in networks
        ],
    )


def show_distances(distances: Sequence["Distance"]) -> None:
    """The catalogue of distances."""
    _table(
        ("distance", "summary", "symmetric", "range", "unit"),
        [
            (
                distance.name,
                distance.summary,
                "yes" if distance.symmetric else "no",
                f"{distance.bounds[0]:g} to {distance.bounds[1]:g}",
                distance.unit,
            )
            for distance in distances
        ],
    )


def show_problems(problems: Sequence["Problem"]) -> None:
    """What *verify* found."""
    _table(
        ("kind", "where", "problem", "repaired"),
        [
            (problem.kind, problem.where, problem.message, "yes" if problem.repaired else "no")
            for problem in problems
        ],
    )


def _recommended(expert: "RecommendedExpert") -> tuple[object, ...]:
    low, high = expert.interval
    return (
        expert.rank,
        expert.expert,
        _share(expert.expected_accuracy),
        f"{low:.2f}-{high:.2f}",
        _share(expert.expected_regret),
        _size(expert.num_params),
        expert.license or "-",
    )


def _evidence(evidence: "Evidence") -> str:
    """How much is known of an expert, and what of that is nearest."""
    count = f"{evidence.results} {'result' if evidence.results == 1 else 'results'}"
    near = ", ".join(f"{it.task} {_share(it.accuracy)} at {it.distance:.3g}" for it in evidence.neighbors)
    return f"{count}, nearest {near}" if near else count


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their columns; a column whose name starts with ``>`` holds numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    stdout_console().print(table)


def _card(title: str, values: Mapping[str, object]) -> None:
    """A title, then a line for each value."""
    say(title)
    for name, value in values.items():
        say(f"  {name + ':':16}{value}")


def _title(query: "Query") -> str:
    return f"{query.task}@{query.version}" if query.version else query.task


def _share(value: float) -> str:
    """A number from 0 to 1."""
    return f"{value:.3f}"


def _short(value: float) -> str:
    """A number of any scale."""
    return f"{value:.4g}"


def _size(value: int | None) -> str:
    """A count as people write it: 11.2M."""
    if value is None:
        return "-"
    rounded = float(f"{value:.3g}")
    for suffix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= factor:
            return f"{rounded / factor:.15g}{suffix}"
    return str(value)
