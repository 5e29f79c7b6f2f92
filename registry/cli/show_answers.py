"""How records and answers look to a person: tables and cards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.faces.terminal import card, message, say, table, warn
from registry.wording import GROUPS, share, short, size

if TYPE_CHECKING:
    from registry.answers import (
        Evidence,
        ImportedExperts,
        Measurement,
        Neighbor,
        Query,
        Recommendation,
        RecommendedExpert,
        Trial,
        TrialScores,
    )
    from registry.records import EmbeddingRecord, ExpertRecord, ResultRecord, SpaceRecord, TaskRecord
    from registry.task_answers import AddedTask

NUM_CLASSES_SHOWN = 20
NUM_NAMES_SHOWN = 5


def show_tasks(tasks: Sequence["TaskRecord"]) -> None:
    """The list of tasks."""
    table(
        ("task", "version", "kind", ">classes", ">samples", "tags", "data"),
        [
            (
                task.name,
                task.version,
                task.kind,
                task.num_classes,
                task.num_samples,
                ", ".join(task.tags),
                task.data,
            )
            for task in tasks
        ],
    )


def show_task(task: "TaskRecord", embeddings: Sequence[tuple["SpaceRecord", "EmbeddingRecord"]]) -> None:
    """The card of a task: what it is, then how it was measured in each space."""
    more = f", ... ({task.num_classes})" if task.num_classes > NUM_CLASSES_SHOWN else ""
    card(
        f"{task.name}@{task.version}",
        {
            "data": task.data,
            "kind": task.kind,
            "samples": task.num_samples,
            GROUPS[task.kind]: ", ".join(task.class_names[:NUM_CLASSES_SHOWN]) + more,
            "tags": ", ".join(task.tags) or "none",
            "aliases": ", ".join(task.aliases) or "none",
            "settings": task.settings,
            "fingerprint": task.fingerprint,
            "added": f"{task.created_at[:19]} UTC" + (" (starter content)" if task.builtin else ""),
        },
    )
    _show_embeddings(task, embeddings)


def _show_embeddings(task: "TaskRecord", embeddings: Sequence[tuple["SpaceRecord", "EmbeddingRecord"]]) -> None:
    from registry.ingest.translate import head_metric

    tolerance = task.asked.get("tolerance")
    score = f">{head_metric(task.kind)}"
    table(
        ("probe", "estimator", "pooling", "space", ">samples used", score, ">norm", ">relative error"),
        [
            (
                space.probe,
                *space.recipe,
                space.space_id,
                _used(embedding.num_samples_used, task.num_samples_drawn, tolerance),
                share(embedding.head_accuracy),
                short(embedding.norm),
                _reached(embedding.relative_error, tolerance),
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
    card(
        title,
        {
            "space": added.space,
            "samples used": _used(added.num_samples_used, added.num_samples_drawn, added.tolerance),
            "head": f"{added.head_metric} {share(added.head_accuracy)}",
            "norm": short(added.norm),
            "relative error": _reached(added.relative_error, added.tolerance),
            "seconds": f"{added.seconds:.1f}",
        },
    )
    warn(added.warnings)


def show_embedding(document: Mapping[str, Any], path: Path | None) -> None:
    """What ``documents.of_embedding`` tells of an embedding, and where its vectors went."""
    card(
        document["data"],
        {
            "probe": document["probe"],
            "space": document["space"],
            "estimator": f"{document['estimator']}, {document['pooling']}",
            "kind": document["kind"],
            GROUPS[document["kind"]]: document["num_classes"],
            "samples": document["num_samples"],
            "samples used": _used(
                document["num_samples_used"], document["num_samples_drawn"], document["tolerance"]
            ),
            "filters": document["dim"],
            "head": f"{document['head_metric']} {share(document['head_accuracy'])}",
            "norm": short(document["norm"]),
            "relative error": _reached(document["relative_error"], document["tolerance"]),
            "seconds": f"{document['seconds']:.1f}",
        },
    )
    warn(document["warnings"])
    message(f"Wrote {path}." if path else "The vectors were not kept; --out FILE.npz keeps them.")


def show_experts(experts: Sequence["ExpertRecord"]) -> None:
    """The list of experts."""
    table(
        ("expert", "source task", ">accuracy", ">params", ">flops", ">input", "licence"),
        [
            (
                expert.name,
                expert.source_task or "-",
                "-" if expert.source_accuracy is None else share(expert.source_accuracy),
                size(expert.num_params),
                size(expert.flops),
                expert.input_size or "-",
                expert.license or "-",
            )
            for expert in experts
        ],
    )


def show_expert(expert: "ExpertRecord") -> None:
    """The card of an expert."""
    card(
        expert.name,
        {
            "loader": expert.loader,
            "source task": expert.source_task or "not known",
            "accuracy there": "-" if expert.source_accuracy is None else share(expert.source_accuracy),
            "params": size(expert.num_params),
            "multiply-adds": size(expert.flops),
            "input size": expert.input_size or "-",
            "licence": expert.license or "not known",
            "added": f"{expert.created_at[:19]} UTC" + (" (starter content)" if expert.builtin else ""),
        },
    )


def show_imported_experts(imported: "ImportedExperts") -> None:
    """How many experts are new, and what became of the others."""
    counts = [f"Added {imported.added} {'expert' if imported.added == 1 else 'experts'}"]
    if imported.updated:
        counts.append(f"updated {imported.updated}")
    if imported.unchanged:
        counts.append(f"{imported.unchanged} {'was' if imported.unchanged == 1 else 'were'} registered already")
    message("; ".join(counts) + ".")
    if imported.left:
        message(
            f"Left alone, as removed here or the name of another network: {_listed(imported.left)}; "
            "`t2v expert restore NAME` brings back what was removed."
        )
    if imported.results:
        message(f"Added {imported.results} {'result' if imported.results == 1 else 'results'} of model cards.")
    warn(imported.notes)


def _listed(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - NUM_NAMES_SHOWN} more" if len(names) > NUM_NAMES_SHOWN else ""
    return ", ".join(names[:NUM_NAMES_SHOWN]) + more


def show_results(results: Sequence["ResultRecord"]) -> None:
    """The list of results."""
    table(
        ("task", "expert", ">score", "metric", "protocol", "source", "added"),
        [
            (
                result.task,
                result.expert,
                share(result.accuracy),
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
        f"{measured.expert} on {measured.task}: accuracy {share(measured.accuracy)} "
        f"(standard deviation {share(measured.deviation)}, {measured.protocol})"
    )
    message("Recorded." if measured.recorded else "Not recorded.")


def show_expectations(measured: Sequence[tuple[str, float, "Measurement"]]) -> None:
    """Expected beside measured accuracy of what each rule picked."""
    table(
        ("rule", "expert", ">expected", ">measured", ">deviation"),
        [
            (rule, it.expert, share(expected), share(it.accuracy), share(it.deviation))
            for rule, expected, it in measured
        ],
    )


def show_neighbors(query: "Query", distance: str, neighbors: Sequence["Neighbor"]) -> None:
    """The answer of *nearest*."""
    say(f"Nearest to {_title(query)} by {distance}:")
    table(
        (">rank", "task", ">distance", ">classes", ">samples", "tags"),
        [
            (
                neighbor.rank,
                f"{neighbor.task}@{neighbor.version}",
                short(neighbor.distance),
                neighbor.num_classes,
                neighbor.num_samples,
                ", ".join(neighbor.tags),
            )
            for neighbor in neighbors
        ],
    )


def show_distance(distance: float) -> None:
    """One number."""
    say(short(distance))


def show_recommendation(answer: "Recommendation") -> None:
    """Ranked experts, the baselines beside them, warnings, and the line that loads the first."""
    if not answer.recommendations:
        warn(answer.warnings)
        return
    say(f"Experts for {_title(answer.query)}, best first, by expected accuracy with its 90% interval:")
    table(
        (">rank", "expert", ">expected", "interval", ">regret", ">params", "licence"),
        [_recommended(expert) for expert in answer.recommendations],
    )
    if answer.trials:
        say()
        say("What was tried, in this order:")
        table(
            ("tried", ">expected", ">found", ">seconds"),
            [
                (it.expert, share(it.expected_accuracy), _found(it.found), f"{it.found.seconds:.1f}")
                for it in answer.trials
            ],
        )
    say()
    say("The results behind it, each as accuracy at distance:")
    for expert in answer.recommendations:
        say(f"  {expert.rank}. {expert.expert}: {_evidence(expert.evidence)}")
    say()
    say("What simple rules would pick:")
    table(
        ("rule", "expert", ">expected"),
        [
            (rule, pick.expert or "(average of all)", share(pick.expected_accuracy))
            for rule, pick in answer.baselines.items()
        ],
    )
    warn(answer.warnings)
    say()
    say("Load the first:")
    say(f"  {answer.recommendations[0].load}")


def show_trial(trial: "Trial") -> None:
    """A line beside the answer for each expert as it is tried."""
    message(
        f"Tried {trial.expert}: expected {share(trial.expected_accuracy)}, found {_found(trial.found)} "
        f"in {trial.found.seconds:.1f} s."
    )


def show_recorded(answer: "Recommendation") -> None:
    """How many results trials made."""
    message(f"Recorded {len(answer.trials)} {'result' if len(answer.trials) == 1 else 'results'}.")


def _found(scores: "TrialScores") -> str:
    """The accuracy; where there is none, the scores."""
    if scores.accuracy is not None:
        return share(scores.accuracy)
    return ", ".join(f"{name} {short(value)}" for name, value in scores.scores.items())


def _recommended(expert: "RecommendedExpert") -> tuple[object, ...]:
    low, high = expert.interval
    return (
        expert.rank,
        expert.expert,
        share(expert.expected_accuracy),
        f"{low:.2f}-{high:.2f}",
        share(expert.expected_regret),
        size(expert.num_params),
        expert.license or "-",
    )


def _evidence(evidence: "Evidence") -> str:
    """How much is known of an expert, and what of that is nearest."""
    count = f"{evidence.results} {'result' if evidence.results == 1 else 'results'}"
    if evidence.trial:
        count = f"{_found(evidence.trial)} in a trial, {count}"
    near = ", ".join(f"{it.task} {share(it.accuracy)} at {it.distance:.3g}" for it in evidence.neighbors)
    return f"{count}, nearest {near}" if near else count


def _title(query: "Query") -> str:
    return f"{query.task}@{query.version}" if query.version else query.task


def _used(used: int, drawn: int, tolerance: float | None) -> str:
    """How many samples went into an embedding; of how many, where a tolerance may have stopped it before."""
    return f"{used}" if tolerance is None else f"{used} of {drawn}"


def _reached(relative_error: float, tolerance: float | None) -> str:
    """How sure an embedding is, and how sure it was to be."""
    asked = "" if tolerance is None else f" (tolerance {tolerance:g})"
    return share(relative_error) + asked
