"""The records of a bundle, each checked: nothing is written before all of them are known to be right.

A pass over the whole bundle keeps, of each task version, only what shows whether the registry has it too.

Axes: T embeddings, D filters of the probe, F features of the probe.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from registry.bundles.format import member_name
from registry.bundles.reader import Bundle
from registry.errors import BundleError, RegistryError
from registry.gate import MAX_JSON, MAX_VERSION, checked_name, json_object
from registry.names import Key
from registry.records import AuditRecord, EmbeddingRecord, ExpertRecord, ResultRecord, SpaceRecord, TaskRecord
from registry.storage import schema

MARK_CHARS = 2048  # of what a line of the audit gets at its import

Record = TypeVar("Record")


@dataclass
class Contents:
    """What a bundle holds.

    Attributes:
        tasks: Content digest of each task version, in order of keys.
        checksums: Checksum of each embedding, by space.
        result_names: Names of tasks and of experts that results are of, as ``(kind, name)``.
    """

    spaces: dict[str, SpaceRecord] = field(default_factory=dict)
    tasks: dict[Key, bytes] = field(default_factory=dict)
    checksums: dict[str, dict[Key, int]] = field(default_factory=dict)
    experts: dict[str, ExpertRecord] = field(default_factory=dict)
    result_names: set[tuple[str, str]] = field(default_factory=set)


def read_contents(bundle: Bundle) -> Contents:
    """Read a bundle from end to end; whatever in it is not right is a ``BundleError``."""
    contents = Contents()
    bundle.check("spaces", schema.SPACES)
    contents.spaces = _spaces(bundle)
    for name in ("tasks", "experts", "results", "audit"):
        bundle.check(name, schema.TABLES[name])
    for space in contents.spaces.values():
        columns = schema.embeddings_schema(space.dim, space.domain_dim)
        bundle.check(schema.embeddings_table_name(space.space_id), columns)
    contents.tasks = _tasks(bundle)
    for space_id in contents.spaces:
        contents.checksums[space_id] = _checksums(bundle, space_id, contents.tasks)
    _refuse_tasks_without_embedding(bundle, contents)
    contents.experts = _experts(bundle)
    for result in _each(bundle, "results", ResultRecord):
        contents.result_names |= {("task", result.task), ("expert", result.expert)}
    with _naming_member(bundle, "audit"):
        for line in _each(bundle, "audit", AuditRecord):
            _check_line(line)
    return contents


def records(bundle: Bundle, table: str, record_type: type[Record]) -> Iterator[list[Record]]:
    """Records of a table, a row group at a time; vectors are not for this, see ``embeddings``."""
    with _naming_member(bundle, table):
        for rows in bundle.row_groups(table):
            yield schema.from_arrow(record_type, rows)


def embeddings(bundle: Bundle, space_id: str) -> Iterator[list[EmbeddingRecord]]:
    """The embeddings in a space, a row group at a time; each is what its checksum was made of."""
    table = schema.embeddings_table_name(space_id)
    with _naming_member(bundle, table):
        for rows in bundle.row_groups(table):
            yield schema.from_arrow(EmbeddingRecord, rows)


def described_id(description: str) -> str:
    """The id of a space by its description, as ``indexer.records.Space`` makes it."""
    canonical = json.dumps(json.loads(description), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def task_digest(fingerprint: str, settings: str) -> bytes:
    """What shows whether two task versions are of the same data and settings."""
    return hashlib.blake2b(f"{len(fingerprint)} {fingerprint}{settings}".encode(), digest_size=16).digest()


def _each(bundle: Bundle, table: str, record_type: type[Record]) -> Iterator[Record]:
    for batch in records(bundle, table, record_type):
        yield from batch


@contextmanager
def _naming_member(bundle: Bundle, table: str) -> Iterator[None]:
    """Name the member in the errors of the block; ``BundleError`` if there is one."""
    try:
        yield
    except BundleError:
        raise
    except (RegistryError, ValueError, TypeError, RecursionError) as err:
        raise bundle.error(member_name(table), str(err).rstrip(".")) from err


def _require(condition: bool, what: str) -> None:
    """State what has to hold; ``ValueError`` if it does not; ``_naming_member`` says where."""
    if not condition:
        raise ValueError(what)


def _check_order(last: Any, key: Any) -> None:
    _require(last is None or last < key, f"rows must be in order of their keys, each once; {key} is not")


def _spaces(bundle: Bundle) -> dict[str, SpaceRecord]:
    """The spaces, which must be those that have a member; ``BundleError`` if they are not."""
    spaces: dict[str, SpaceRecord] = {}
    with _naming_member(bundle, "spaces"):
        for space in _each(bundle, "spaces", SpaceRecord):
            _require(
                space.space_id == described_id(space.description),
                f"space {space.space_id} is not what its description says, which makes "
                f"{described_id(space.description)}",
            )
            _check_order(next(reversed(spaces), None), space.space_id)
            spaces[space.space_id] = space
    if list(spaces) != bundle.space_ids:
        odd = min(spaces.keys() ^ set(bundle.space_ids))
        raise BundleError(
            f"{bundle.path}: space {odd} must have a row and a member of its own; nothing was imported"
        )
    return spaces


def _tasks(bundle: Bundle) -> dict[Key, bytes]:
    """Digests of the tasks, by key."""
    digests: dict[Key, bytes] = {}
    last: Key | None = None
    aliases: set[str] = set()
    with _naming_member(bundle, "tasks"):
        for task in _each(bundle, "tasks", TaskRecord):
            _check_order(last, (task.name, task.version))
            _check_task(task)
            aliases = aliases if last and last[0] == task.name else set()
            _require(aliases.isdisjoint(task.aliases), f"an alias of task {task.name} names two versions")
            aliases |= set(task.aliases)
            last = task.name, task.version
            digests[last] = task_digest(task.fingerprint, task.settings)
    return digests


def _check_task(task: TaskRecord) -> None:
    name = f"task {task.name}@{task.version}"
    _require(not task.removed_at, f"{name} is removed")
    _check_settings(name, json_object(task.settings))


def _check_settings(name: str, asked: Mapping[str, Any]) -> None:
    most, tolerance, span = (asked.get(key) for key in ("max_samples", "tolerance", "value_range"))
    _require(type(most) is int and 1 <= most <= 2**53, f"{name}: max_samples must be a whole number from 1 on")
    stops = tolerance is None or (type(tolerance) is float and 0 < tolerance < 1)
    _require(stops, f"{name}: tolerance must be a number between 0 and 1")
    numbers = span if isinstance(span, list) else []
    is_span = [type(number) in {int, float} for number in numbers] == [True, True]
    _require(span is None or is_span, f"{name}: value_range must be two numbers")
    others = [value for key, value in asked.items() if key != "value_range"]
    _require(not any(isinstance(value, list | dict) for value in others), f"{name}: settings must be plain")


def _checksums(bundle: Bundle, space_id: str, tasks: dict[Key, bytes]) -> dict[Key, int]:
    """Checksums of the embeddings in a space, by key."""
    checksums: dict[Key, int] = {}
    last: Key | None = None
    with _naming_member(bundle, schema.embeddings_table_name(space_id)):
        for batch in embeddings(bundle, space_id):
            for embedding in batch:
                key = embedding.task, embedding.version
                _check_order(last, key)
                _check_embedding(embedding, has_task=key in tasks)
                checksums[key] = embedding.checksum or 0
                last = key
    return checksums


def _check_embedding(embedding: EmbeddingRecord, *, has_task: bool) -> None:
    name = f"{embedding.task}@{embedding.version}"
    _require(has_task, f"{name} is no task of this file")
    _require(bool(embedding.checksum), f"the embedding of {name} has no checksum")


def _refuse_tasks_without_embedding(bundle: Bundle, contents: Contents) -> None:
    """Check that every task has an embedding in some space; ``BundleError`` if one has none."""
    for name, version in contents.tasks:
        if not any((name, version) in embedded for embedded in contents.checksums.values()):
            raise BundleError(
                f"{bundle.path}: task {name}@{version} has no embedding in any space; nothing was imported"
            )


def _check_line(line: AuditRecord) -> None:
    _require(len(line.details) < MAX_JSON - MARK_CHARS, f"what it says of {line.subject} is too long")
    if line.action == "task.purge":  # versions that were purged are not given again
        checked_name("task", line.subject)
        versions = line.values.get("versions")
        _require(
            isinstance(versions, list)
            and all(type(number) is int and 1 <= number <= MAX_VERSION for number in versions),
            f"the purge of {line.subject} must name its versions, up to {MAX_VERSION}",
        )


def _experts(bundle: Bundle) -> dict[str, ExpertRecord]:
    """The experts, by name."""
    experts: dict[str, ExpertRecord] = {}
    with _naming_member(bundle, "experts"):
        for expert in _each(bundle, "experts", ExpertRecord):
            _check_order(next(reversed(experts), None), expert.name)
            _require(not expert.removed_at, f"expert {expert.name} is removed")
            experts[expert.name] = expert
    return experts
