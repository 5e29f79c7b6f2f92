"""How catalogues and the state of a registry look to a person: networks, problems, history, sizes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry.faces.terminal import beside, card, is_piped, say, table
from registry.wording import short, size

if TYPE_CHECKING:
    from registry.answers import OptimizedTable, Origin, Problem
    from registry.distances import Distance
    from registry.records import AuditRecord
    from registry.task_answers import TaskHistory, Write

MOST_SHOWN = 5  # subjects of a write


def show_networks(networks: Sequence[Mapping[str, Any]]) -> None:
    """What may be a probe or an expert, as ``documents.of_network`` describes it."""
    table(
        ("network", "source", ">params", ">input"),
        [
            (network["network"], network["source"], size(network["num_params"]), network["input_size"])
            for network in networks
        ],
    )


def show_probe(probe: Mapping[str, Any]) -> None:
    """The card of a network and its costs, as ``documents.of_probe`` describes them."""
    card(
        probe["network"],
        {
            "loader": probe["loader"],
            "params": size(probe["num_params"]),
            "multiply-adds": size(probe["flops"]),
            **_input_of(probe),
            "features": probe["num_features"],
            "filters": probe["dim"],
            "weights hash": probe["weights_hash"],
        },
        what="network",
    )
    if costs := probe["costs"]:
        _show_costs(costs)


def _input_of(probe: Mapping[str, Any]) -> dict[str, str]:
    """How an image or a text becomes an input of a network."""
    if probe["takes"] == "texts":
        return {
            "texts": f"the first {probe['max_tokens']} tokens",
            "pooling": probe["pooling"],
            "tokenizer hash": probe["tokenizer"],
        }
    return {
        "input size": f"{probe['input_size']}, cut from a shorter side of {probe['resize']}",
        "mean": ", ".join(map(short, probe["mean"])),
        "std": ", ".join(map(short, probe["std"])),
    }


def _show_costs(costs: Mapping[str, Any]) -> None:
    """What the squared gradients of each layer cost for one sample."""
    say()
    table(
        ("layer", "class", ">filters", ">weights", ">positions", "form", ">multiply-adds", ">bytes"),
        [
            (
                layer["name"],
                layer["kind"],
                layer["filters"],
                layer["weights"],
                layer["positions"],
                layer["form"],
                size(layer["multiply_adds"]),
                size(layer["temporary_bytes"]),
            )
            for layer in costs["layers"]
        ],
    )
    beside("")
    needed, budget, batch = (size(costs[key]) for key in ("bytes_per_sample", "memory_budget", "batch_size"))
    beside(f"Activations of a sample take {needed} bytes: batches of {batch} fit a budget of {budget}.")


def show_estimators(estimators: Sequence[Mapping[str, Any]]) -> None:
    """The catalogue of estimators, as ``documents.of_estimator`` describes it."""
    table(("estimator", "~summary"), [(one["estimator"], one["summary"]) for one in estimators])


def show_distances(distances: Sequence["Distance"]) -> None:
    """The catalogue of distances."""
    table(
        ("distance", "~summary", "symmetric", "range", "unit"),
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
    table(
        ("kind", "where", "~problem", "repaired"),
        [
            (problem.kind, problem.where, problem.message, "yes" if problem.repaired else "no")
            for problem in problems
        ],
    )


def show_history(history: "TaskHistory") -> None:
    """The versions of a task, then who wrote what of it."""
    if history.versions:
        table(
            ("version", "added", "removed", ">samples", "aliases", "tags", "settings", "fingerprint"),
            [
                (
                    f"{task.name}@{task.version}",
                    _minute(task.created_at),
                    _minute(task.removed_at),
                    task.num_samples,
                    ", ".join(task.aliases),
                    ", ".join(task.tags),
                    task.settings,
                    task.fingerprint,
                )
                for task in history.versions
            ],
        )
    else:
        beside(f"No version of {history.task} is left.")
    if history.audit:
        if history.versions or not is_piped():
            say()
        show_audit(history.audit)
    if history.earlier:
        beside(f"{history.earlier} earlier lines are left out.")


def show_audit(lines: Sequence["AuditRecord"]) -> None:
    """Who wrote what, a line each."""
    table(
        ("when (UTC)", "who", "action", "what", "~details"),
        [
            (
                line.at[:19].replace("T", " "),
                f"{line.actor}@{line.host}",
                line.action,
                line.subject,
                ", ".join(f"{name} {_words(value)}" for name, value in line.values.items()),
            )
            for line in lines
        ],
        may_go=("who", "details"),
    )


def show_writes(writes: Sequence["Write"]) -> None:
    """The writes, a line each."""
    table(
        (">write", "when (UTC)", "who", "what", "stands"),
        [(one.number, one.at[:19].replace("T", " "), one.actor, _what(one), _stands(one)) for one in writes],
    )


def in_words(write: "Write") -> str:
    """A write as a sentence; of a token, which lies beside the registry, it is a line of the history only."""
    at = write.at[:19].replace("T", " ")
    is_line = any(action.startswith("token.") for action in write.actions)
    note = " This is about its line only: a token ends by `t2v token revoke`, and for good." if is_line else ""
    return f"Write {write.number}, of {at} UTC by {write.actor or '?'}: {_what(write)}.{note}"


def _what(write: "Write") -> str:
    shown = ", ".join(write.subjects[:MOST_SHOWN])
    left = write.subjects[MOST_SHOWN:]  # after starter content comes what the user wrote
    more = f" and {len(left)} more, the last {left[-1]}" if left else ""
    return f"{' and '.join(write.actions) or 'nothing'} {shown}{more}"


def _stands(write: "Write") -> str:
    return ("yes" if write.can_be_undone else "yes, for good") if write.stands else "no"


def show_origins(origins: Sequence["Origin"]) -> None:
    """What was imported, from where, and who trusted it."""
    table(
        ("what", "name", "loads", "came from", "when (UTC)", "by", "trusted by"),
        [(of.kind, of.name, of.loader, of.file, _minute(of.at), of.by, of.trusted_by or "-") for of in origins],
    )


def show_sizes(tables: Iterable["OptimizedTable"]) -> None:
    """Every table with its files and bytes, before and after."""
    table(
        ("table", ">files before", ">files", ">bytes before", ">bytes"),
        [(one.table, one.files_before, one.files, size(one.bytes_before), size(one.bytes)) for one in tables],
    )


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
