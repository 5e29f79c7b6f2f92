"""What the registry answers about tasks that are added, listed and kept, writes and backups."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from registry.answers import Neighbor, Query
from registry.notebooks import Card, Printed, Records
from registry.records import AuditRecord, Kind, TaskRecord

SORTS = ("name", "kind", "num_classes", "num_samples", "created_at", "version")
"""What a list of tasks can be sorted by; ties in order of name."""

NO_VERSION = ""
"""Version of a registry that is not there."""


@dataclass(frozen=True)
class AddedTask(Card):
    """The outcome of adding a task.

    Attributes:
        version: Version of the task, from 1.
        created: Whether anything was written; false if this very data is registered with these settings.
        num_samples_drawn: Samples that were drawn from the dataset.
        num_samples_used: Samples that were embedded: those that can be read, or fewer that met the tolerance.
        tolerance: Relative error that was asked for, if any.
        head_metric: What ``head_accuracy`` is, in words.
        head_accuracy: Held-out score of the head, at most 1.
        relative_error: Median over filters of standard error divided by value.
        skipped_files: Sampled files that could not be decoded.
        warnings: Caveats, in sentences.
        class_names: Names of its classes, labels or targets.
        class_sizes: Samples of each class or label; none for a regression.
        taken: What was taken for what, in sentences.
        passed_over: Files that are no samples, by reason.
        notes: What adding it again changed of it, or what tells it from the version before, in sentences.
    """

    task: str
    version: int
    created: bool
    kind: Kind
    space: str
    num_samples_drawn: int
    num_samples_used: int
    tolerance: float | None
    head_metric: str
    head_accuracy: float
    norm: float
    relative_error: float
    skipped_files: int
    seconds: float
    warnings: tuple[str, ...] = ()
    num_samples: int = 0
    class_names: tuple[str, ...] = ()
    class_sizes: tuple[int, ...] = ()
    taken: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Status = Literal["added", "unchanged", "failed"]


@dataclass(frozen=True)
class AddedOfMany:
    """The outcome of adding one of many tasks.

    Attributes:
        place: Position of its row in the file that was given, such as ``line 7``.
        status: ``added`` if anything was written; ``unchanged`` if this very data was registered with these
            settings; ``failed`` if it could not be embedded.
        version: Version of the task; ``None`` if it failed.
        num_samples_used: Samples that were embedded, if it was embedded now.
        head_accuracy: Held-out score of the head, if it was embedded now.
        relative_error: Median over filters of standard error divided by value, if it was embedded now.
        seconds: Time to embed it, or to find it unchanged.
        notes: What adding it again changed, in sentences.
    """

    task: str
    place: str
    data: str
    status: Status
    version: int | None = None
    num_samples_used: int | None = None
    head_accuracy: float | None = None
    relative_error: float | None = None
    seconds: float = 0.0
    error: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ManyProgress:
    """How far adding many tasks is; what is counted is on disk.

    Attributes:
        total: Tasks that were asked for.
        added: Written in this run.
        unchanged: Registered before.
        failed: Reported with an error.
        seconds: Since the start.
        per_second: Tasks that were embedded, in a second of embedding; 0 until there are some.
        seconds_left: At this rate; ``None`` until there is one.
    """

    total: int
    added: int
    unchanged: int
    failed: int
    seconds: float
    per_second: float
    seconds_left: float | None

    @property
    def done(self) -> int:
        """Tasks that nobody has to wait for any more."""
        return self.added + self.unchanged + self.failed


Report = Callable[[ManyProgress, Sequence[AddedOfMany]], None]
"""Called as ``report(progress, news)``: the news are tasks that are on disk by now, or have failed."""


@dataclass(frozen=True)
class AddedMany(Card):
    """The outcome of adding many tasks.

    Attributes:
        added: Written in this run, as new tasks or versions, or in a further space.
        unchanged: Registered before, with this very data and these settings.
        failed: Could not be embedded, or have a row that is no task.
        engine: What computed them.
        commits: Writes to the registry.
        check_seconds: Time that it took to find out what is unchanged.
        per_second: Tasks that were embedded, in a second of embedding.
        problems: A sentence for each row that is no task.
        tasks: Every task, in the order in which they were asked for.
    """

    asked: int
    added: int
    unchanged: int
    failed: int
    space: str
    engine: str
    commits: int
    check_seconds: float
    seconds: float
    per_second: float
    problems: tuple[str, ...] = ()
    tasks: tuple[AddedOfMany, ...] = ()


@dataclass(frozen=True)
class TaskPage:
    """Some of the tasks that were asked for."""

    total: int
    offset: int
    limit: int
    tasks: Records[TaskRecord]


@dataclass(frozen=True)
class TaskHistory:
    """All versions of a task, rising, removed ones too; and who wrote what of it, in order of time.

    Attributes:
        task: Its name.
        versions: The versions.
        audit: The lines.
        earlier: How many lines of before these were not asked for.
    """

    task: str
    versions: tuple[TaskRecord, ...]
    audit: tuple[AuditRecord, ...]
    earlier: int = 0


class Nearest(Printed, tuple[Query, Records[Neighbor]]):
    """What was asked, and its neighbours; a pair that is printed as the command line prints it."""

    distance: str

    def _repr_html_(self) -> str:
        return self[1]._repr_html_()


@dataclass(frozen=True)
class Write(Card):
    """A write: what one command or method did, as far as nobody else wrote in between.

    Attributes:
        number: Its number, from 1.
        at: When it began, ISO 8601, UTC.
        actor: Who wrote; empty if that is not known.
        actions: What was done, as in the audit.
        subjects: Of which tasks, experts, results or spaces.
        stands: Whether it was not taken back.
        can_be_undone: Whether it can be taken back, once all that came after it is.
    """

    number: int
    at: str
    actor: str
    actions: tuple[str, ...]
    subjects: tuple[str, ...]
    stands: bool
    can_be_undone: bool


@dataclass(frozen=True)
class BackupSummary(Card):
    """What a backup holds, or what was restored of one.

    Attributes:
        at: When the backup was made, ISO 8601, UTC.
        files: Files of the tables.
        bytes: Their size.
        copied_files: Those that were not there yet.
        copied_bytes: The size of those.
        verified: Whether a trial restore was checked.
        kept: Where a registry that was replaced lies now; empty if there was none.
    """

    path: str
    at: str
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    verified: bool
    kept: str = ""


@dataclass(frozen=True)
class TransferScore:
    """How well an expert may suit a task, by one score: the higher the better, beside other experts there.

    Attributes:
        score: Name in ``registry.scores.scores.SCORES``.
        summary: What it is made of.
    """

    score: str
    value: float
    summary: str
