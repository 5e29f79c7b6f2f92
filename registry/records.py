"""What the registry stores: frozen records that validate themselves.

Axes: D filters of the probe, F features of the probe.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np
import xxhash

from registry.errors import InvalidRecordError
from registry.gate import CACHED_AS_PATTERN, check_fields, checked_name
from registry.names import check_value, checked_alias, is_lower_better, score_of

Kind = Literal["single_label", "multi_label", "regression"]
"""What the labels of a task are: one class of C a sample; any subset of C labels; T numbers."""

KINDS: tuple[Kind, ...] = get_args(Kind)

Content = Literal["images", "texts"]
"""What the samples of a task are."""


def embedding_checksum(
    task: str,
    version: int,
    num_samples_used: int,
    head_accuracy: float,
    head_loss: float,
    seed: int,
    seconds: float,
    *,
    vectors: Iterable[np.ndarray],
) -> int:
    """Checksum from 1 to 2**63 - 1 of the fields of an embedding; vectors in the order of the record."""
    numbers = (int(num_samples_used), float(head_accuracy), float(head_loss), int(seed), float(seconds))
    digest = xxhash.xxh3_64(repr((task, int(version), *numbers)).encode())
    for vector in vectors:
        digest.update(np.ascontiguousarray(vector, dtype="<f4").data)
    return digest.intdigest() >> 1 or 1


def utc_now() -> str:
    """The current time in ISO 8601, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat()


@dataclass(frozen=True)
class TaskRecord:
    """One version of a registered task.

    Attributes:
        name: Allowed by ``NAME_PATTERN``.
        version: From 1, rising.
        data: The data spec it was read from.
        num_classes: C; of a regression, the number T of its targets.
        num_samples: Samples in the dataset, before sampling.
        class_names: Names of classes, labels or targets, in label order.
        fingerprint: Content hash of the data, see ``indexer.records.DatasetDescription``.
        settings: What the embedding depended on beside the data and the space, as one canonical string.
        tags: Free words, sorted, each allowed by ``NAME_PATTERN``.
        builtin: Whether it is starter content.
        created_at: ISO 8601, UTC.
        removed_at: When it was removed, likewise; empty while the task is there.
        kind: What the labels are.
        aliases: Movable names of this version, sorted; no two versions of a task share one.
    """

    name: str
    version: int
    data: str
    num_classes: int
    num_samples: int
    class_names: tuple[str, ...]
    fingerprint: str
    settings: str
    tags: tuple[str, ...] = ()
    builtin: bool = False
    created_at: str = field(default_factory=utc_now)
    removed_at: str = ""
    kind: Kind = "single_label"
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field, see ``registry.gate``; sort tags and aliases.

        Raises:
            InvalidRecordError: If one is not allowed.
        """
        checked_name("task", self.name)
        check_fields(self, f"task {self.name}")
        object.__setattr__(self, "tags", tuple(sorted({checked_name("tag", tag) for tag in self.tags})))
        object.__setattr__(self, "aliases", tuple(sorted(set(map(checked_alias, self.aliases)))))

    @property
    def asked(self) -> dict[str, Any]:
        """``settings`` as values: ``max_samples``, ``seed``, ``split``, and others that are not the default."""
        return dict(json.loads(self.settings))

    @property
    def num_samples_drawn(self) -> int:
        """Size of the sample that was drawn: all there are, or as many as were asked for."""
        return min(self.num_samples, int(self.asked["max_samples"]))


@dataclass(frozen=True, eq=False)
class SpaceRecord:
    """An embedding space of the registry.

    Attributes:
        space_id: Hash of the description.
        probe: ``architecture.weights``.
        description: Canonical JSON of ``indexer.records.Space``.
        probe_source: What loads the probe again: its name, or ``architecture@FILE``.
        trivial: ``[D]`` float32, positive: embedding of the trivial task t0.
        domain_dim: F.
        builtin: Whether it is starter content.
    """

    space_id: str
    probe: str
    description: str
    probe_source: str
    trivial: np.ndarray = field(repr=False)
    domain_dim: int
    builtin: bool = False

    def __post_init__(self) -> None:
        """Check every field, see ``registry.gate``.

        Raises:
            InvalidRecordError: If one is not allowed, or the description is no description.
        """
        checked_name("space", self.space_id)  # which names a table
        check_fields(self, f"space {self.space_id}")
        if not (self.trivial > 0).all():
            raise InvalidRecordError(f"space {self.space_id}: trivial must be positive everywhere")
        description = json.loads(self.description)
        if any(type(description.get(name, "")) is not str for name in ("probe", "estimator", "pooling")):
            raise InvalidRecordError(
                f"space {self.space_id}: probe, estimator and pooling of the description must be texts"
            )

    @property
    def dim(self) -> int:
        """D."""
        return len(self.trivial)

    @property
    def content(self) -> Content:
        """What the samples of its tasks are."""
        transform = json.loads(self.description).get("transform")
        return "texts" if isinstance(transform, dict) and "tokenizer" in transform else "images"

    @property
    def recipe(self) -> tuple[str, str]:
        """Estimator and pooling, by which the spaces of one probe differ."""
        description = json.loads(self.description)
        return description.get("estimator", ""), description.get("pooling", "")


@dataclass(frozen=True, eq=False)
class EmbeddingRecord:
    """The embedding of one version of a task in one space.

    Attributes:
        task: Name of the task.
        version: Version of the task.
        fisher: ``[D]`` float32, finite, non-negative, not all zero.
        standard_error: ``[D]`` float32, finite, non-negative.
        domain: ``[F]`` float32, finite.
        num_samples_used: At least 2.
        head_accuracy: Held-out score of the head, at most 1; the R² of a regression may be negative.
        head_loss: In nats.
        seed: Seed of the sample and the draws.
        seconds: Wall time of the embedding.
        checksum: Checksum of all the others, from 1 to 2**63 - 1; made unless given. 0 is that of a row which
            was written before there were any.
    """

    task: str
    version: int
    fisher: np.ndarray = field(repr=False)
    standard_error: np.ndarray = field(repr=False)
    domain: np.ndarray = field(repr=False)
    num_samples_used: int
    head_accuracy: float
    head_loss: float
    seed: int
    seconds: float
    checksum: int | None = None

    def __post_init__(self) -> None:
        """Check every field, see ``registry.gate``.

        Raises:
            InvalidRecordError: If one is not allowed, ``fisher`` negative or all zero, or the checksum off.
        """
        checked_name("task", self.task)
        check_fields(self, f"embedding of task {self.task}")
        if (self.standard_error < 0).any():
            raise InvalidRecordError(f"embedding of task {self.task}: standard_error must not be negative")
        if (self.fisher < 0).any() or not self.fisher.any():
            raise InvalidRecordError(
                f"embedding of task {self.task}: Fisher information must be non-negative, not zero everywhere"
            )
        scalars = (self.num_samples_used, self.head_accuracy, self.head_loss, self.seed, self.seconds)
        made = embedding_checksum(
            self.task, self.version, *scalars, vectors=(self.fisher, self.standard_error, self.domain)
        )
        if self.checksum is None:
            object.__setattr__(self, "checksum", made)
        elif self.checksum not in {0, made}:
            raise InvalidRecordError(f"embedding of task {self.task}: it is not what its checksum was made of")

    @property
    def norm(self) -> float:
        """Euclidean norm of ``fisher``: how complex the task is for the probe."""
        return float(np.linalg.norm(self.fisher))

    @property
    def relative_error(self) -> float:
        """Median over filters of standard error divided by value; filters at zero are left out."""
        used = self.fisher > 0
        return float(np.median(self.standard_error[used] / self.fisher[used].astype(float)))


@dataclass(frozen=True)
class ExpertRecord:
    """A pretrained model that can be loaded.

    Attributes:
        name: ``architecture.weights``, allowed by ``EXPERT_PATTERN``.
        loader: What ``indexer.networks.load.load_network`` takes: the name, or ``architecture@FILE``.
        source_task: Name of the task it was trained on, or empty.
        num_params: Number of parameters, positive, or ``None`` if not known.
        flops: Multiply-adds of one forward pass at ``input_size``, or ``None`` if not known.
        input_size: Side of the input in pixels, or ``None`` if not known.
        license: SPDX identifier in lower case, or empty if not known.
        builtin: Whether it is starter content.
        created_at: ISO 8601, UTC.
        removed_at: When it was removed, likewise; empty while the expert is there.
        source_accuracy: Accuracy on held-out samples of the source task, 0 to 1; ``None`` if not known.
        cached_as: What its weights are called once a library has fetched them: ``torch:FILE`` in the cache of
            torch's hub, ``hf:ORG/NAME`` in that of Hugging Face; empty if not known, or not fetched.
        toy: Whether it is a small network of this package or of timm's tests, which is recommended only where
            there is no other.
        aliases: Other names of the same weights, sorted, such as those of another library.
        weights_hash: Hash of the weights when they were loaded, or empty if they have not been.
    """

    name: str
    loader: str
    source_task: str = ""
    num_params: int | None = None
    flops: int | None = None
    input_size: int | None = None
    license: str = ""
    builtin: bool = False
    created_at: str = field(default_factory=utc_now)
    removed_at: str = ""
    source_accuracy: float | None = None
    cached_as: str = ""
    toy: bool = False
    aliases: tuple[str, ...] = ()
    weights_hash: str = ""

    def __post_init__(self) -> None:
        """Check names and every field, see ``registry.gate``; ``InvalidRecordError`` if one is not allowed."""
        checked_name("expert", self.name)
        check_fields(self, f"expert {self.name}")
        if self.source_task:
            checked_name("task", self.source_task)
        if (cached := self.cached_as) and not CACHED_AS_PATTERN.fullmatch(cached):
            raise InvalidRecordError(
                f"expert {self.name}: cached_as must be torch:FILE or hf:ORG/NAME, got {cached!r}"
            )
        object.__setattr__(self, "license", self.license.lower())
        others = {checked_name("expert", alias) for alias in self.aliases} - {self.name}
        object.__setattr__(self, "aliases", tuple(sorted(others)))


@dataclass(frozen=True)
class ResultRecord:
    """A measured score of one expert on one task.

    Attributes:
        task: Name of the task.
        expert: Name of the expert.
        accuracy: The value of the metric, in its range, see ``registry.names``: 0 to 1 for an accuracy.
        metric: What was measured, ``accuracy`` by default.
        protocol: How it was measured, such as ``linear_probe_20shot``.
        seed: Seed of the measurement, or ``None``.
        source: Who measured it: a paper, a person, a command.
        builtin: Whether it is starter content.
        created_at: ISO 8601, UTC.
        lower_is_better: Which way the metric goes; read off its name if ``None``.
        task_version: Version of the task, from 1; 0 if not known, -1 if it is of data that is no version.
        weights_hash: Hash of the weights that were measured, or empty if not known.
        run_id: Id of the run that measured it, which is kept once; empty if there is none.
    """

    task: str
    expert: str
    accuracy: float
    metric: str = "accuracy"
    protocol: str = "unspecified"
    seed: int | None = None
    source: str = ""
    builtin: bool = False
    created_at: str = field(default_factory=utc_now)
    lower_is_better: bool | None = None
    task_version: int = 0
    weights_hash: str = ""
    run_id: str = ""

    def __post_init__(self) -> None:
        """Check names and range; settle which way the metric goes.

        Raises:
            InvalidRecordError: If a name, the value or the version is not allowed, or the metric is not known.
        """
        for kind in ("task", "expert", "metric", "protocol"):
            checked_name(kind, getattr(self, kind))
        check_fields(self, f"result of {self.expert} on {self.task}")
        try:
            lower = is_lower_better(self.metric) if self.lower_is_better is None else self.lower_is_better
            object.__setattr__(self, "lower_is_better", lower)
            check_value(self.metric, self.accuracy, lower_is_better=lower)
            object.__setattr__(self, "accuracy", self.accuracy or 0.0)  # -0.0 is no other result than 0.0
        except InvalidRecordError as err:
            raise InvalidRecordError(f"result of {self.expert} on {self.task}: {err}") from err

    @property
    def score(self) -> float:
        """The value on one scale for all metrics: 0 to 1, higher is better, see ``registry.names``."""
        return score_of(self.metric, self.accuracy, lower_is_better=bool(self.lower_is_better))

    @property
    def same_as(self) -> tuple[Any, ...]:
        """What two records of one measurement share, beside what is known of data and weights."""
        measured = self.task, self.expert, self.metric, self.protocol
        return (self.run_id, *measured) if self.run_id else (*measured, self.seed, self.accuracy)


@dataclass(frozen=True)
class AuditRecord:
    """A line on who wrote what; there is one for each task, expert, result or space of each write.

    It is written before the write that it describes, so no write is without one; the last line of a process
    that was killed may describe a write that did not happen.

    Attributes:
        action: Such as ``task.add``, ``task.tag``, ``result.add``.
        subject: What was written: ``flowers@2``, the name of an expert, ``expert on task``.
        details: What of it, as canonical JSON.
        actor: ``$T2V_USER``, or the name of the user who ran it.
        host: Name of the machine.
        process_id: Number of the process on that machine.
        versions: Versions of what decides about what is written: this package and libraries, as canonical JSON.
        at: ISO 8601, UTC.
    """

    action: str
    subject: str
    details: str
    actor: str
    host: str
    process_id: int
    versions: str
    at: str = field(default_factory=utc_now)

    def __post_init__(self) -> None:
        """Check every field, see ``registry.gate``, and the JSON.

        Raises:
            InvalidRecordError: If one is not allowed; the details and the versions must be objects.
        """
        check_fields(self, f"audit of {self.subject!s:.80}")

    @property
    def values(self) -> dict[str, Any]:
        """``details`` as values."""
        return dict(json.loads(self.details))
