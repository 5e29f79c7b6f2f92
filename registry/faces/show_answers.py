"""How answers look to a person: embeddings, neighbours, distances, recommendations, measurements."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.faces.show_records import classes, reached, used_of
from registry.faces.terminal import (
    CARD_INDENT,
    card,
    heading,
    is_piped,
    message,
    say,
    table,
    tell_reading,
    warn,
    wrapped,
)
from registry.gate import OTHER_DATA
from registry.wording import GROUPS, left_out, nearer, share, short, size, sureness

NUM_TIES_SHOWN = 5
VERDICT_WIDTH = 62
"""Characters a line of a verdict may have before it goes on in the next."""

if TYPE_CHECKING:
    from registry.answers import (
        Apart,
        Evidence,
        Measurement,
        Neighbor,
        Query,
        Recommendation,
        RecommendedExpert,
        Trial,
        TrialScores,
        Verdict,
    )
    from registry.task_answers import TransferScore


def show_embedding(document: Mapping[str, Any]) -> None:
    """An embedding as ``documents.of_embedding`` describes it."""
    card(
        document["data"],
        {
            "probe": document["probe"],
            "space": document["space"],
            "estimator": f"{document['estimator']}, {document['pooling']}",
            "kind": document["kind"],
            GROUPS[document["kind"]]: classes(document["class_names"], document["class_sizes"]),
            "samples": document["num_samples"],
            "samples used": used_of(
                document["num_samples_used"], document["num_samples_drawn"], document["tolerance"]
            ),
            "filters": document["dim"],
            "head": f"{document['head_metric']} {share(document['head_accuracy'])}",
            "norm": short(document["norm"]),
            "relative error": reached(document["relative_error"], document["tolerance"]),
            "seconds": f"{document['seconds']:.1f}",
        },
        what="data",
    )
    tell_reading(document["taken"], document["passed_over"])
    warn(document["warnings"])
    message(f"Next: t2v task add NAME {shlex.quote(document['data'])}")


def show_measurement(measured: "Measurement") -> None:
    """A measured accuracy in one line."""
    mean, deviation = share(measured.accuracy), share(measured.deviation)
    if is_piped():
        row = (measured.task, measured.expert, mean, deviation, measured.protocol)
        table(("task", "expert", "accuracy", "deviation", "protocol"), [row])
    else:
        say(
            f"{measured.expert} on {measured.task}: accuracy {mean} "
            f"(standard deviation {deviation}, {measured.protocol})"
        )
    other = ", marked as of other data than is registered" if measured.task_version == OTHER_DATA else ""
    message(f"Recorded{other}." if measured.recorded else "Not recorded.")


@dataclass(frozen=True)
class Compared:
    """Expected beside measured accuracy of what a rule picks; ``None`` where nothing was expected."""

    task: str
    rule: str
    expert: str
    expected: float | None
    measured: float


def show_compared(rows: Sequence[Compared]) -> None:
    """Expected beside measured accuracy of what each rule picks."""
    table(
        ("task", "picked by", "expert", ">expected", ">measured"),
        [
            (
                row.task,
                row.rule,
                row.expert,
                "-" if row.expected is None else share(row.expected),
                share(row.measured),
            )
            for row in rows
        ],
    )


def show_neighbors(query: "Query", distance: str, neighbors: Sequence["Neighbor"]) -> None:
    """The answer of *nearest*."""
    tell_reading(query.taken, {})
    heading(f"Nearest to {_title(query)} by {distance}:")
    table(
        (">rank", "task", ">distance", ">classes", ">samples", "~tags", "nearer than"),
        [
            (
                neighbor.rank,
                f"{neighbor.task}@{neighbor.version}",
                short(neighbor.distance),
                neighbor.num_classes,
                neighbor.num_samples,
                ", ".join(neighbor.tags),
                "-" if neighbor.nearer_than is None else f"{neighbor.nearer_than:.0%} of pairs",
            )
            for neighbor in neighbors
        ],
        may_go=("samples", "tags"),
    )


def show_scores(scores: Sequence["TransferScore"]) -> None:
    """Every transferability score, by name."""
    table(("score", ">value", "made of"), [(it.score, short(it.value), it.summary) for it in scores])


def show_distance(distance: "Apart") -> None:
    """A distance, and what it means beside others; to a program, as one number."""
    context = "" if is_piped() else nearer(distance.nearer_than)
    say(f"{short(distance)}: {context}" if context else short(distance))


def show_recommendation(answer: "Recommendation") -> None:
    """The verdict, then ranked experts, the baselines, warnings, and the line that loads the first."""
    tell_reading(answer.query.taken, {})
    if not answer.recommendations or answer.verdict is None:
        warn(answer.warnings)
        return
    _show_verdict(answer, answer.verdict)
    say()
    heading(f"Experts for {_title(answer.query)}, best first, by expected {answer.verdict.protocol}:")
    table(
        (">rank", "expert", ">expected", "90% interval", "known by", ">regret", ">params", "licence"),
        [_recommended(expert) for expert in answer.recommendations],
        may_go=("licence", "regret", "known by"),
    )
    if answer.trials:
        say()
        heading("What was tried, in this order:")
        table(("tried", ">expected", ">measured", ">seconds"), map(_tried, answer.trials))
    _show_evidence(answer.recommendations)
    say()
    heading("What simple rules would pick:")
    table(
        ("rule", "expert", ">expected"),
        [
            (rule, pick.expert or "(average of all)", share(pick.expected_accuracy))
            for rule, pick in answer.baselines.items()
        ],
    )
    warn(answer.warnings)
    say()
    if is_piped():
        table(("load",), [(answer.recommendations[0].load,)])
    else:
        say("Load the first:")
        for line in answer.recommendations[0].load.split("; "):
            say(f"  {line}")
    if answer.verdict and answer.verdict.compared == 1 and set(answer.verdict.left_out) <= {"toys"}:
        message("Next: t2v expert import torchvision adds experts to compare it with; nothing is downloaded")


def _tried(trial: "Trial") -> tuple[str, ...]:
    found = trial.found
    return trial.expert, share(trial.expected_accuracy), _scores(found), f"{found.seconds:.1f}"


def _show_evidence(experts: Sequence["RecommendedExpert"]) -> None:
    """What experts reached on the tasks that are most like the one asked about."""
    near = [expert for expert in experts if expert.evidence.neighbors or expert.evidence.trial]
    if not near:
        return
    say()
    if is_piped():
        rows = [
            (expert.expert, result.task, share(result.accuracy), short(result.distance))
            for expert in near
            for result in expert.evidence.neighbors
        ]
        table(("expert", "measured on", "accuracy", "distance"), rows)
        return
    heading("Their results on the tasks that are most like it, each as accuracy at distance:")
    for expert in near:
        heading(f"  {expert.rank}. {expert.expert}: {_evidence(expert.evidence)}", hang=5)


def _show_verdict(answer: "Recommendation", verdict: "Verdict") -> None:
    """What to do, as a card; the recommender composed it."""
    low, high = verdict.interval
    shown = {
        "why": verdict.why,
        "expected": f"{share(verdict.expected)} [{low:.2f}-{high:.2f}], {verdict.protocol}",
        "confidence": sureness(verdict.confidence, verdict.compared),
        "as good": ", ".join(verdict.ties[:NUM_TIES_SHOWN])
        + " and more" * (len(verdict.ties) > NUM_TIES_SHOWN),
        "cheapest": verdict.cheapest if verdict.ties else "",
        "measure next": ", ".join(verdict.next),
        "left out": ", ".join(left_out(limit, count) for limit, count in verdict.left_out.items()),
    }
    card(
        verdict.take,
        {name: wrapped(text, most=VERDICT_WIDTH, indent=CARD_INDENT) for name, text in shown.items() if text},
        what="take",
        heading=f"Take {verdict.take} for {_title(answer.query)}.",
    )


def show_trial(trial: "Trial") -> None:
    """A line beside the answer for each expert as it is tried."""
    message(
        f"Tried {trial.expert}: expected {share(trial.expected_accuracy)}, found {_scores(trial.found)} "
        f"in {trial.found.seconds:.1f} s."
    )


def show_recorded(answer: "Recommendation") -> None:
    """How many results trials made."""
    message(f"Recorded {len(answer.trials)} {'result' if len(answer.trials) == 1 else 'results'}.")


def _scores(scores: "TrialScores") -> str:
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
        _known_by(expert),
        share(expert.expected_regret),
        size(expert.num_params),
        expert.license or "-",
    )


def _known_by(expert: "RecommendedExpert") -> str:
    """What the expectation rests on most."""
    if expert.measured:
        return "a trial" if expert.evidence.trial else "measured here"
    count = expert.evidence.results
    return f"{count} {'result' if count == 1 else 'results'} elsewhere" if count else "size, source"


def _evidence(evidence: "Evidence") -> str:
    """How many results an expert has, and the nearest of them."""
    count = f"{evidence.results} {'result' if evidence.results == 1 else 'results'}"
    if evidence.trial:
        count = f"{_scores(evidence.trial)} in a trial, {count}"
    near = ", ".join(
        f"{near.task} {share(near.accuracy)} at {near.distance:.3g}" for near in evidence.neighbors
    )
    return f"{count}, nearest {near}" if near else count


def _title(query: "Query") -> str:
    return f"{query.task}@{query.version}" if query.version else query.task
