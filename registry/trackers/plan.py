"""Runs become results: each is of a task and an expert that are there, or left out for a cause that is said."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from registry.builtin.published import canonical_name, published_experts
from registry.errors import InvalidRecordError
from registry.experts.model_cards import letters_of
from registry.gate import EXPERT_PATTERN, NAME_PATTERN
from registry.records import ExpertRecord, ResultRecord
from registry.trackers.metrics import Measured, choose, described, measure, percents
from registry.trackers.rules import EXPERT_GUESSES, IF_REGISTERED, TASK_GUESSES, Rules
from registry.trackers.runs import GENERIC, Run

SHOWN = 5
MAX_SOURCE = 300

Resolve = Callable[[str], tuple[str, bool]]
"""The name that a text stands for, and whether it is there."""

NO_METRIC = "without a metric that counts"
NO_NAME = "without a {kind}; {kind}_from= says where it stands"

_FILE = re.compile(
    r"\.(ya?ml|[ct]sv|zip|npz|jsonl?|parquet|tar|tgz|gz|pth?|ckpt|safetensors|bin)$", re.IGNORECASE
)
_SEEDS = ("param:seed", "param:random_seed", "param:random_state", "tag:seed")


class Names:
    """The tasks and experts that are there, by everything that a run may call them.

    Experts that publications name are there too. ``ours`` are the names here of names there, as rules say.
    """

    def __init__(
        self,
        tasks: Collection[str],
        experts: Sequence[ExpertRecord],
        ours: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        letters = Counter(map(letters_of, tasks))  # two that are written alike stand for neither
        self._tasks = {letters_of(task): task for task in tasks if letters[letters_of(task)] == 1}
        self._tasks |= {task: task for task in tasks}
        self._experts = {name: expert.name for expert in experts for name in expert.aliases}
        self._experts |= {expert.name: expert.name for expert in experts}
        self._ours = ours or {}

    def task(self, text: str) -> tuple[str, bool]:
        """Name of the task that a text stands for, and whether it is registered; empty if it is no name."""
        text = self._ours.get("task", {}).get(text, text)
        parts = [_FILE.sub("", part) for part in reversed(re.split(r"[\\/]+", text))]
        parts = [part for part in parts if part.casefold() not in GENERIC | {".", ".."}]
        for part in (text, *parts[:1]):  # not what is above it: a folder of that name says nothing
            if name := self._tasks.get(part) or self._tasks.get(letters_of(part) or part):
                return name, True
        return (_as_name(parts[0]) if parts else ""), False

    def expert(self, text: str) -> tuple[str, bool]:
        """Name of the expert that a text stands for, and whether it is registered or published."""
        text = _FILE.sub("", self._ours.get("expert", {}).get(text, text))
        last = re.split(r"[\\/]+", text)[-1]
        for name in (text, text.replace("/", "."), canonical_name(text), last, canonical_name(last)):
            if name in self._experts:
                return self._experts[name], True
            if name in published_experts():
                return name, True
        return (text if EXPERT_PATTERN.fullmatch(text) else _as_name(last)), False


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:100].strip("-.")


@dataclass
class Plan:
    """What an import would add.

    Attributes:
        left_out: Runs that cannot count by the cause, each with what the cause is true of.
        taken: What was taken for what, and of how many runs.
    """

    results: list[ResultRecord] = field(default_factory=list)  # one for each run and metric that counts
    left_out: dict[str, list[tuple[Run, str]]] = field(default_factory=lambda: defaultdict(list))
    taken: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    renamed: dict[str, str] = field(default_factory=dict)  # names there that are others here

    def problems(self, place: Path) -> list[str]:
        """A sentence for each cause."""
        sentences = []
        for cause, left in self.left_out.items():
            count = f"{len(left)} run" + ("s are" if len(left) > 1 else " is")
            hint = _hint(cause, [run for run, _ in left])
            sentences.append(f"{place}: {count} left out ({cause}{hint}): {_some([name for _, name in left])}")
        return sentences

    def said(self, runs: Sequence[Run], registered: Collection[str]) -> list[str]:
        """What was read, what was taken for what, and which experts are not registered, in a sentence each."""
        counts = Counter(run.tracker for run in runs)
        by_tracker = ", ".join(f"{count} of {tracker}" for tracker, count in counts.items())
        lines = [f"Read {len(runs)} {'run' if len(runs) == 1 else 'runs'}: {by_tracker}."]
        parts = [
            f"{what} {_some([f'{name} ({count})' for name, count in names.most_common()])}"
            for what, names in self.taken.items()
        ]
        pairs = [f"{theirs!r} for {ours}" for theirs, ours in self.renamed.items()]
        lines += [f"Took {said}." for said in ("; ".join(parts), _some(pairs)) if said]
        if strangers := [result.expert for result in self.results if result.expert not in registered]:
            lines.append(
                f"Recommended only once they are registered (t2v expert add, or t2v expert import timm): "
                f"{_some(strangers)}."
            )
        return lines


def _some(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - SHOWN} more" if len(distinct) > SHOWN else ""
    return ", ".join(distinct[:SHOWN]) + more


class _LeftOutError(Exception):
    """Why a run cannot count, and what it is true of."""

    def __init__(self, cause: str, example: str = "") -> None:
        super().__init__(cause)
        self.example = example


def plan_results(runs: Sequence[Run], rules: Rules, names: Names, *, unregistered: bool) -> Plan:
    """Decide what runs add: every one is used, or left out for a cause.

    ``unregistered`` takes tasks and experts that are not there by their names.
    """
    plan = Plan()
    counting = {(run.tracker, run.run_id): run for run in runs if not run.left_out}
    in_percent = percents(counting.values())
    for run in runs:
        try:
            whole = _with_parents(run, counting, rules)
            records, taken = _results_of(whole, rules, names, in_percent, unregistered=unregistered)
        except (_LeftOutError, InvalidRecordError) as err:
            cause, _, got = str(err).partition(", got ")
            example = getattr(err, "example", "") or f"{run.name}{got and f' ({got})'}"
            plan.left_out[re.sub("^result of .*?: ", "", cause)].append((run, example))
            continue
        plan.results += records
        plan.renamed |= {what[1:]: name for what, name in taken if what[0] == "'"}
        for what, name in taken:
            if what[0] != "'":
                plan.taken[what][name] += 1
    return plan


def _with_parents(run: Run, runs: Mapping[tuple[str, str], Run], rules: Rules) -> Run:
    """A run with what the runs above it say where it says nothing.

    Raises:
        _LeftOutError: If it cannot count, was read again, or is a part of one that has the same metric.
    """
    if run.left_out:
        raise _LeftOutError(run.left_out)
    if runs[run.tracker, run.run_id] is not run:
        raise _LeftOutError("read twice")
    values, above = dict(run.values), runs.get((run.tracker, run.parent))
    seen = {run.run_id}
    while above is not None and above.run_id not in seen:
        if {rule.ours for rule in choose(run, rules)} & {rule.ours for rule in choose(above, rules)}:
            raise _LeftOutError("part of a run that has the metric itself")
        values = dict(above.values) | values
        seen.add(above.run_id)
        above = runs.get((run.tracker, above.parent))
    return replace(run, values=values)


def _results_of(
    run: Run, rules: Rules, names: Names, in_percent: set[tuple[str, str]], *, unregistered: bool
) -> tuple[list[ResultRecord], list[tuple[str, str]]]:
    """The results of one run, and what was taken for what.

    Raises:
        _LeftOutError: If it names no task or expert that may count, or has no metric.
        InvalidRecordError: If a value is out of its range.
    """
    chosen = choose(run, rules)
    if not chosen:
        raise _LeftOutError(NO_METRIC)
    task_place, task_text, task, task_there = _named(run, "task", rules.task_from, TASK_GUESSES, names.task)
    at, text, expert, there = _named(run, "expert", rules.expert_from, EXPERT_GUESSES, names.expert)
    by_digest = "dataset:digest" in run.values and (
        task_place == "dataset:digest" or names.task(run.values["dataset:name"])[0] == task
    )
    for kind, name, is_there in (("task", task, task_there or by_digest), ("expert", expert, there)):
        if not (is_there or unregistered):
            raise _LeftOutError(f"of {kind}s that are not registered; unregistered=True takes them", name)
    protocol = _protocol(run, rules)
    measured = [measure(run, rule, rules, in_percent) for rule in chosen]
    taken = [("task from", task_place), ("expert from", at), ("protocol", protocol)]
    taken += [("metric", described(one, rules)) for one in measured]
    taken += [(f"'{text}", name) for text, name in ((task_text, task), (text, expert)) if text != name]
    return [_record(run, task, expert, protocol, one) for one in measured], taken


def _named(
    run: Run, kind: str, asked: Sequence[str], guesses: Sequence[str], resolve: Resolve
) -> tuple[str, str, str, bool]:
    """Place and text that name what a run is of, its name here, whether it is there; or ``_LeftOutError``."""
    named = [(place, text, *resolve(text)) for place, text in _texts(run, asked or guesses)]
    named = [one for one in named if one[2]]
    if not asked:
        likely = [(place, text, *resolve(text)) for place, text in _texts(run, IF_REGISTERED)]
        named = named or [one for one in likely if one[3]]
        if kind == "expert" or (named and named[0][0].startswith("dataset:")):  # several names of one thing
            named.sort(key=lambda one: not one[3])
    if named:
        return named[0]
    if several := run.values.get("dataset:several") if kind == "task" else None:
        raise _LeftOutError(f"of several datasets, {several}; task_from= says which")
    if asked:
        raise _LeftOutError(f"without {' or '.join(asked)}")
    raise _LeftOutError(NO_NAME.format(kind=kind))


def _texts(run: Run, places: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The values of a run at some places, those that it has."""
    for place in places:
        kind, _, key = place.partition(":")
        text = key if kind == "name" else run.values.get(place, "")
        if place == "dataset:digest" and text:
            text = f"{run.values.get('dataset:name', 'dataset')}.{text}"
        if text:
            yield place, text


def _protocol(run: Run, rules: Rules) -> str:
    if ":" not in rules.protocol:
        return rules.protocol or run.protocol
    text = next((text for _, text in _texts(run, [rules.protocol])), "")
    if not NAME_PATTERN.fullmatch(_as_name(text)):
        raise _LeftOutError(f"without {rules.protocol}")
    return _as_name(text)


def _record(run: Run, task: str, expert: str, protocol: str, measured: Measured) -> ResultRecord:
    """One result, with where it is from as its source."""
    rule = measured.rule
    dataset, digest = (run.values.get(f"dataset:{key}", "") for key in ("name", "digest"))
    by, of = run.user and f"by {run.user}", digest and f"dataset {dataset} of digest {digest}"
    parts = filter(None, (f"{run.tracker}: {run.name}", by, run.date, rule.theirs, of))
    return ResultRecord(
        task,
        expert,
        measured.value,
        rule.ours,
        protocol,
        _seed(run.values),
        ", ".join(parts)[:MAX_SOURCE],
        lower_is_better=rule.lower,
        run_id=run.run_id,
    )


def _seed(values: Mapping[str, str]) -> int | None:
    text = next((values[key] for key in _SEEDS if key in values), "")
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


def _hint(cause: str, runs: Sequence[Run]) -> str:
    """What runs have in place of what they lack."""
    if cause == NO_METRIC:
        metrics = _some(list(dict.fromkeys(name for run in runs for name in run.metrics)))
        return f"; metric='NAME=accuracy' takes one of {metrics}" if metrics else "; there is none"
    places = _some(sorted({place for run in runs for place in run.values}))
    return f"; there are {places}" if cause.startswith("without ") and places else ""
