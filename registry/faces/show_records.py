"""How records look to a person: tasks, experts and results as lists and cards, and what adding them did."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry.faces.terminal import beside, card, is_piped, message, say, table, tell_reading, warn
from registry.gate import OTHER_DATA
from registry.wording import GROUPS, printable, share, short, size

if TYPE_CHECKING:
    from registry.answers import ImportedExperts
    from registry.records import EmbeddingRecord, ExpertRecord, ResultRecord, SpaceRecord, TaskRecord
    from registry.task_answers import AddedMany, AddedOfMany, AddedTask, ManyProgress, Report

NUM_CLASSES_SHOWN = 20
NUM_NAMES_SHOWN = 5
FAILURES_SHOWN = 50
LINE_SECONDS = 30.0
"""Between lines on progress, where stderr is no terminal."""


def show_tasks(tasks: Sequence["TaskRecord"]) -> None:
    """The list of tasks."""
    table(
        ("task", "version", "kind", ">classes", ">samples", "~tags", "data"),
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
        may_go=("data", "kind", "tags"),
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
        what="task",
    )
    if is_piped():
        say()
    _show_embeddings(task, embeddings)


def _show_embeddings(task: "TaskRecord", embeddings: Sequence[tuple["SpaceRecord", "EmbeddingRecord"]]) -> None:
    from registry.ingest.data import head_metric

    tolerance = task.asked.get("tolerance")
    score = f">{head_metric(task.kind)}"
    table(
        ("probe", "estimator", "pooling", "space", ">samples used", score, ">norm", ">relative error"),
        [
            (
                space.probe,
                *space.recipe,
                space.space_id,
                used_of(embedding.num_samples_used, task.num_samples_drawn, tolerance),
                share(embedding.head_accuracy),
                short(embedding.norm),
                reached(embedding.relative_error, tolerance),
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
        done = "" if added.notes else ": nothing was written"
        message(f"{title} is registered already, with this very data and these settings{done}.")
    for note in added.notes:
        message(f"{title}: {note}.")
    card(
        title,
        {
            "space": added.space,
            GROUPS[added.kind]: classes(added.class_names, added.class_sizes),
            "samples": added.num_samples,
            "samples used": used_of(added.num_samples_used, added.num_samples_drawn, added.tolerance),
            "head": f"{added.head_metric} {share(added.head_accuracy)}",
            "norm": short(added.norm),
            "relative error": reached(added.relative_error, added.tolerance),
            "seconds": f"{added.seconds:.1f}",
        },
        what="task",
    )
    tell_reading(added.taken, added.passed_over)
    warn(added.warnings)
    message(f"Next: t2v recommend {added.task}")


def classes(names: Sequence[str], sizes: Sequence[int]) -> str:
    """How many classes there are, and the first of them with their samples."""
    shown = [printable(name) for name in names[:NUM_CLASSES_SHOWN]]
    if sizes:
        shown = [f"{name} {size}" for name, size in zip(shown, sizes, strict=False)]
    return f"{len(names)} ({', '.join(shown)}{', ...' * (len(names) > NUM_CLASSES_SHOWN)})"


def show_experts(experts: Sequence["ExpertRecord"]) -> None:
    """The list of experts."""
    table(
        ("expert", "source task", ">accuracy", ">params", ">flops", ">input", "licence", "toy"),
        [
            (
                expert.name,
                expert.source_task or "-",
                "-" if expert.source_accuracy is None else share(expert.source_accuracy),
                size(expert.num_params),
                size(expert.flops),
                expert.input_size or "-",
                expert.license or "-",
                "toy" if expert.toy else "-",
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
            "also called": ", ".join(expert.aliases) or "-",
            "added": f"{expert.created_at[:19]} UTC"
            + (" (starter content)" if expert.builtin else "")
            + (" (toy)" if expert.toy else ""),
        },
        what="expert",
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


def show_results(results: Sequence["ResultRecord"], experts: Sequence["ExpertRecord"]) -> None:
    """The list of results, those marked that are of other data or weights than are registered."""
    weights = {expert.name: expert.weights_hash for expert in experts if expert.weights_hash}

    def is_of_others(result: "ResultRecord") -> bool:
        registered = weights.get(result.expert, result.weights_hash)
        return bool(result.weights_hash) and result.weights_hash != registered

    table(
        ("task", "version", "expert", ">score", "metric", "protocol", "source", "run", "added"),
        [
            (
                result.task,
                {OTHER_DATA: "other data", 0: "-"}.get(result.task_version, result.task_version),
                result.expert + (" (other weights)" if is_of_others(result) else ""),
                share(result.accuracy),
                result.metric + (", lower is better" if result.lower_is_better else ""),
                result.protocol,
                result.source or "-",
                result.run_id or "-",
                result.created_at[:10],
            )
            for result in results
        ],
        may_go=("run", "added", "source", "version"),
    )


def used_of(used: int, drawn: int, tolerance: float | None) -> str:
    """Number of samples used for an embedding; of how many, where a tolerance may have stopped it early."""
    return f"{used}" if tolerance is None else f"{used} of {drawn}"


def reached(relative_error: float, tolerance: float | None) -> str:
    """Relative error of an embedding, and the tolerance that was asked for."""
    wanted = "" if tolerance is None else f" (tolerance {tolerance:g})"
    return share(relative_error) + wanted


@contextmanager
def many_progress() -> Iterator["Report"]:
    """Show progress on stderr: a bar on a terminal, a line now and then elsewhere; failures at once."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator["Report"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("Adding tasks"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[how]}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task("tasks", total=None, how="")

        def show(progress: "ManyProgress", news: Sequence["AddedOfMany"]) -> None:
            bar.update(number, total=progress.total, completed=progress.done, how=_how(progress))
            _report_failures(news)

        yield show


def _lines() -> "Report":
    last = time.monotonic()

    def show(progress: "ManyProgress", news: Sequence["AddedOfMany"]) -> None:
        nonlocal last
        _report_failures(news)
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            message(", ".join(filter(None, [f"{progress.done} of {progress.total} tasks", _how(progress)])))

    return show


def _report_failures(news: Sequence["AddedOfMany"]) -> None:
    for task in news:
        if task.status == "failed":
            message(f"Failed: {_named(task)}: {task.error}")


def _how(progress: "ManyProgress") -> str:
    """Failures, throughput and time left."""
    words = [f"{progress.failed} failed"] if progress.failed else []
    if progress.seconds_left is not None:
        words += [_rate(progress.per_second), f"{duration(progress.seconds_left)} left"]
    return ", ".join(words)


def _rate(per_second: float) -> str:
    return f"{per_second:.1f} a second" if per_second >= 1 else f"{60 * per_second:.1f} a minute"


def duration(seconds: float) -> str:
    """A duration as people say it: 45 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _named(task: "AddedOfMany") -> str:
    return f"{task.task} ({task.place})" if task.place else task.task


def show_many(many: "AddedMany") -> None:
    """What became of many tasks: counts, and a table of what failed."""
    card(
        f"{many.asked} {'task' if many.asked == 1 else 'tasks'} in space {many.space}",
        {
            "added": many.added,
            "unchanged": f"{many.unchanged}, found in {duration(many.check_seconds)}",
            "failed": many.failed,
            "time": f"{duration(many.seconds)} by engine {many.engine}"
            + (f", {_rate(many.per_second)}" if many.per_second else ""),
            "commits": many.commits,
        },
    )
    for task in many.tasks:
        for note in task.notes:
            message(f"{task.task}@{task.version}: {note}.")
    warned = [task for task in many.tasks if task.warnings]
    if warned:
        beside(f"  With warnings: {len(warned)}; `--json` has them.")
    failed = [task for task in many.tasks if task.status == "failed"]
    if failed:
        say()
        table(
            ("failed", "where", "data", "~why"),
            [(task.task, task.place or "-", task.data, task.error) for task in failed[:FAILURES_SHOWN]],
        )
        if len(failed) > FAILURES_SHOWN:
            beside(f"and {len(failed) - FAILURES_SHOWN} more; `--json` has them all.")
