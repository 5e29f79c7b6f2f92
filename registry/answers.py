"""What the registry answers and never stores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Self

from registry.notebooks import Card, Printed, html_table, to_pandas

if TYPE_CHECKING:
    from registry.notebooks import DataFrame
    from registry.records import ResultRecord


@dataclass(frozen=True)
class ImportedExperts(Card):
    """What an import of experts did.

    Attributes:
        source: The library or file.
        added: How many are new.
        updated: How many were registered, and are now what the source says.
        unchanged: How many were that already.
        left: Names that stand for another network here, or that were removed.
        results: How many results were added from model cards.
        notes: What of a source was not kept, in sentences.
    """

    source: str
    added: int
    updated: int
    unchanged: int
    left: tuple[str, ...] = ()
    results: int = 0
    notes: tuple[str, ...] = ()


class ImportedResults(tuple[int, list[str]]):
    """What an import of results did: how many are new, and a sentence for each cause of others.

    Attributes:
        results: Those that are new, or would be.
        present: How many were there already.
        runs: How many runs or rows were read.
        taken: What was read, and what was taken for what, in sentences.
    """

    results: Sequence["ResultRecord"]
    present: int
    runs: int
    taken: Sequence[str]

    def __new__(
        cls,
        results: Sequence["ResultRecord"],
        problems: list[str],
        present: int = 0,
        runs: int = 0,
        taken: Sequence[str] = (),
    ) -> Self:
        """The two that it is a pair of, and the attributes."""
        self = super().__new__(cls, (len(results), problems))
        self.results, self.present, self.runs, self.taken = results, present, runs, taken
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What it is made of again, so that it survives a process boundary."""
        return self.results, self[1], self.present, self.runs, self.taken


@dataclass(frozen=True)
class Measurement(Card):
    """A linear-probe accuracy: mean and deviation over draws, 0 to 1; version and hash as of a result."""

    task: str
    expert: str
    accuracy: float
    deviation: float
    protocol: str
    recorded: bool
    task_version: int = 0
    weights_hash: str = ""


class Apart(float):
    """A distance between two tasks.

    Attributes:
        nearer_than: Share of the pairs of registered tasks that lie farther apart; ``None`` of too few.
    """

    nearer_than: float | None = None


@dataclass(frozen=True)
class Neighbor:
    """One answer of *nearest*: rank from 1, distance rising, ties in order of name."""

    rank: int
    task: str
    version: int
    distance: float
    num_classes: int
    num_samples: int
    tags: tuple[str, ...]
    nearer_than: float | None = None


@dataclass(frozen=True)
class Query:
    """What was asked about: a registered task, or data that is not (``version`` 0, ``task`` the data spec).

    ``taken`` are sentences on what was taken for what, where the data was read for this question.
    """

    task: str
    version: int
    space: str
    taken: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvidenceNeighbor:
    """A task whose result moved the expected accuracy of an expert."""

    task: str
    distance: float
    accuracy: float


@dataclass(frozen=True)
class TrialScores:
    """What trying an expert on a sample of the data gave.

    Attributes:
        scores: Transferability scores by name; higher is better.
        accuracy: Accuracy of a few-shot linear probe, 0 to 1; ``None`` where the task is not single-label.
    """

    scores: dict[str, float]
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One expert that was tried.

    Attributes:
        expected_accuracy: What was expected of it just before, 0 to 1: of a linear probe where that was
            measured, whatever the answer is about.
        expected_improvement: Over the best expert known just before, in accuracy.
    """

    expert: str
    expected_accuracy: float
    expected_improvement: float
    found: TrialScores


@dataclass(frozen=True)
class Evidence:
    """Why an expert stands where it stands.

    Attributes:
        neighbors: The results that weighed most, nearest first.
        results: Number of results of the expert that were used.
    """

    neighbors: tuple[EvidenceNeighbor, ...]
    results: int
    trial: TrialScores | None = None


@dataclass(frozen=True)
class RecommendedExpert:
    """One ranked expert: rank from 1; 90% interval; all in accuracy; what was ``measured`` here is expected."""

    rank: int
    expert: str
    expected_accuracy: float
    interval: tuple[float, float]
    expected_regret: float
    num_params: int | None
    license: str
    load: str
    evidence: Evidence
    measured: bool = False


Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Verdict:
    """What to do.

    Attributes:
        take: The expert to start from; empty if there is none.
        protocol: What ``expected`` is, in words.
        expected: Accuracy that is expected, or was measured here.
        interval: 90% interval of it.
        ties: Experts that cannot be told from it, at most 20, the likeliest first.
        cheapest: Of it and those of these within .01 of it, the cheapest by multiply-adds, then parameters.
        confidence: That nothing much better was passed over.
        why: One sentence.
        next: Experts whose measurement would settle most.
        left_out: How many experts each limit removed. ``compared``: how many are left.
    """

    take: str
    protocol: str
    expected: float
    interval: tuple[float, float]
    ties: tuple[str, ...]
    cheapest: str
    confidence: Confidence
    why: str
    next: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    compared: int = 0


@dataclass(frozen=True)
class Baseline:
    """What a simple rule would have picked; ``expert`` is ``None`` for the average over all."""

    expert: str | None
    expected_accuracy: float


@dataclass(frozen=True)
class Recommendation(Printed):
    """The answer of *recommend*: ranked experts, baselines by name, caveats, what was tried, and the verdict.

    Every accuracy is one of ``metric`` by ``protocol``.
    """

    query: Query
    recommendations: tuple[RecommendedExpert, ...]
    baselines: dict[str, Baseline]
    warnings: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()
    verdict: Verdict | None = None
    metric: str = "accuracy"
    protocol: str = ""

    def to_pandas(self) -> "DataFrame":
        """One row for each recommended expert, best first."""
        return to_pandas(self.recommendations)

    def _repr_html_(self) -> str:
        """The experts, what simple rules would pick, and the warnings."""
        experts = [_shown(expert) for expert in self.recommendations]
        picks = [
            {
                "rule": rule,
                "expert": pick.expert or "(average of all)",
                "expected accuracy": pick.expected_accuracy,
            }
            for rule, pick in self.baselines.items()
        ]
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        return (
            html_table(experts, caption=f"Experts for {self.query.task}")
            + html_table(picks, caption="What simple rules would pick")
            + (f"<ul>{warnings}</ul>" if warnings else "")
        )


def _shown(expert: RecommendedExpert) -> dict[str, object]:
    """A recommended expert as a row of what a notebook shows."""
    return {
        "rank": expert.rank,
        "expert": expert.expert,
        "expected accuracy": expert.expected_accuracy,
        "90% interval": "{:.2f} to {:.2f}".format(*expert.interval),
        "expected regret": expert.expected_regret,
        "parameters": expert.num_params,
        "licence": expert.license,
        "results": expert.evidence.results,
        "nearest of them": ", ".join(
            f"{other.task} {other.accuracy:.3f}" for other in expert.evidence.neighbors
        ),
    }


@dataclass(frozen=True)
class ExportSummary(Card):
    """What was exported.

    Attributes:
        checksum: Checksum of all that is in the file, hexadecimal; the same content has the same.
        audit_lines: Number of lines on who wrote what.
    """

    path: str
    bytes: int
    checksum: str
    spaces: int
    tasks: int
    embeddings: int
    experts: int
    results: int
    audit_lines: int


@dataclass(frozen=True)
class ImportSummary(Card):
    """What was imported, and what was not.

    Attributes:
        checksum: Checksum of all that is in the file, hexadecimal.
        created: Whether there was no registry before.
        experts: Number of experts that were added or replaced.
        audit_lines: Number of lines on who wrote what that were added, without those on this import.
        tagged: Number of versions that were there and got tags or aliases.
        renumbered: Versions that were added under another number, as ``flowers@1 as flowers@3``.
        conflicts: What the file and the registry disagreed on, in sentences.
    """

    path: str
    checksum: str
    created: bool
    spaces: int
    tasks: int
    embeddings: int
    experts: int
    results: int
    audit_lines: int
    tagged: int
    renumbered: tuple[str, ...]
    conflicts: tuple[str, ...]


@dataclass(frozen=True)
class OptimizedTable:
    """A table, with the number and the total bytes of its files before and after."""

    table: str
    files_before: int
    bytes_before: int
    files: int
    bytes: int


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: One of ``unreadable``, ``torn``, ``damaged``, ``schema``, ``stale``, ``columns``, ``invalid``,
            ``duplicate``, ``orphan``, ``incomplete``, ``index`` and ``dangling``. The last one is a warning:
            results on tasks and of experts that are not registered are allowed, but may be misspelt.
        where: The table, or the folder.
        message: One sentence: what, and how many.
    """

    kind: str
    where: str
    message: str
    repaired: bool = False


@dataclass(frozen=True)
class Origin:
    """Where an expert or a space came from; what has none is shipped, or was registered here.

    Attributes:
        kind: ``expert`` or ``space``.
        name: Name of the expert, or id of the space.
        at: When it came, ISO 8601, UTC.
        file: The file or folder that it was imported from; empty if it was registered here.
        checksum: Checksum of the manifest of that file.
        trusted_at: When it was trusted, and may be loaded; empty if it was not.
        trusted_by: Who trusted it.
        folder: Where its Python module lies, if it was registered from there.
        loader: What loads it.
    """

    kind: str
    name: str
    at: str
    by: str
    file: str = ""
    checksum: str = ""
    trusted_at: str = ""
    trusted_by: str = ""
    folder: str = ""
    loader: str = ""
