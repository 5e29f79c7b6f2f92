"""Bring the records of a bundle into a registry.

Everything in the file is checked, then compared with the registry, and only then is anything written, in the
order spaces, embeddings, experts, results, tasks: an embedding is seen by nobody before its task is there. An
import that was killed is finished by importing again: what is there already is not written twice.

Rows are prepared without the lock and written some at a time, each time under the lock, so that other writers
get their turn. What they changed of the things of a slice is noticed there, and all is compared again. Another
import, or a repair, which would take embeddings for orphans, waits for the end.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from registry.answers import ImportSummary, Origin
from registry.bundles import contents
from registry.bundles.contents import Contents, read_contents
from registry.bundles.folders import open_folder
from registry.bundles.merging import (
    EXPERT_PLANS,
    OurTask,
    Plan,
    make_plan,
    our_tasks,
    plan_experts,
    refuse_impostors,
)
from registry.bundles.reader import Bundle, open_bundle
from registry.bundles.signing import check_signature
from registry.names import Key
from registry.options import Policy
from registry.records import AuditRecord, EmbeddingRecord, ResultRecord, TaskRecord, utc_now
from registry.storage import schema
from registry.storage.rows import SLICE_ROWS, actor, audit_lines, sliced, write_origins, write_values
from registry.storage.schema import quoted
from registry.storage.store import Store

IMPORT_MARKS = ("imported_from", "imported_by")  # details of lines of the audit that an import brought
MOST_TRIES = 2  # before the lock is held throughout

Record = TypeVar("Record", AuditRecord, ResultRecord)


def import_bundle(
    store: Store,
    path: Path,
    policy: Policy,
    shipped: Mapping[tuple[str, str], str] = MappingProxyType({}),
    key: Path | None = None,
    *,
    allow_older: bool = False,
) -> ImportSummary:
    """Import a bundle.

    Args:
        store: The registry; made, empty, if there is none.
        path: The file or folder.
        policy: What to do where file and registry disagree.
        shipped: What loads the experts and spaces of the starter content, by kind and name: theirs alone.
        key: A public key, whose holder must have signed the file.
        allow_older: Whether it may have been signed before what was imported here of that signer.

    Returns:
        What was written. Where the file is not right or a conflict stands in the way, that is an error, and
        nothing was.
    """
    store.check_place()
    with open_folder(path) if path.is_dir() else open_bundle(path) as bundle:
        signed = check_signature(store, bundle, key, allow_older=allow_older) if key else {}
        contents = read_contents(bundle)
        refuse_impostors(contents, shipped, str(path))
        created = not store.exists
        if created:
            make_plan(store, contents, policy, str(path))  # what is wrong is reported before anything is made
            Store.create(store.uri)
        with store.database.place.import_lock():
            work = _Import(store, bundle, contents, policy)
            summary = work.run_in_turns(created=created)
            write_values(store.database, signed)
            return summary


class _ChangedError(Exception):
    """Another process has changed what was compared before."""


class _Import:
    """One import; counts what it writes."""

    def __init__(self, store: Store, bundle: Bundle, contents: Contents, policy: Policy) -> None:
        self._store, self._bundle, self._contents, self._plan = store, bundle, contents, Plan()
        self._policy = policy
        self._counts: dict[str, int] = defaultdict(int)
        self._noted = False
        self._claimed: list[tuple[str, str]] = []  # references and aliases that another version has here
        self._added: set[Key] = set()  # versions, since the comparison
        self._renumbered: dict[Key, int] = {}

    def run_in_turns(self, *, created: bool) -> ImportSummary:
        """Import, letting others write in between, unless they change what is compared again and again."""
        for _ in range(MOST_TRIES):
            with suppress(_ChangedError):
                return self.run(created=created)
        with self._store.write_lock():  # under which nobody else changes anything
            return self.run(created=created)

    def run(self, *, created: bool) -> ImportSummary:
        """Compare, and write everything, in order.

        Raises:
            _ChangedError: If another process changed what was compared; what was written is right all the same.
        """
        before = ", but for what came before another process wrote here" if self._noted else ""
        where = f"{self._bundle.path}{before}"
        self._plan, self._added = make_plan(self._store, self._contents, self._policy, where), set()
        self._claimed = []
        self._renumbered |= {key: here for key, here in self._plan.new.items() if here != key[1]}
        self._add_history()
        for space in self._plan.new_spaces:
            self._begin()
            self._set_origins("space", {space.space_id: space.probe_source})
            self._store.add_space(space)
            self._counts["spaces"] += 1
        for space in self._store.spaces():
            present = self._prepare_space(space.space_id)
            if space.space_id in self._contents.spaces:
                self._add_embeddings(space.space_id, present)
        self._add_experts()
        self._add_results()
        self._add_tasks()
        for reference, alias in self._claimed:
            self._begin()
            self._store.set_alias(reference, alias)
        renumbered = (f"{name}@{was} as {name}@{here}" for (name, was), here in self._renumbered.items())
        return ImportSummary(
            path=str(self._bundle.path),
            checksum=self._bundle.manifest.digest,
            created=created,
            spaces=self._counts["spaces"],
            tasks=self._counts["tasks"],
            embeddings=self._counts["embeddings"],
            experts=self._counts["experts"],
            results=self._counts["results"],
            audit_lines=self._counts["audit"],
            tagged=self._counts["tagged"],
            renumbered=tuple(renumbered),
            conflicts=tuple(self._plan.conflicts),
        )

    def _begin(self) -> None:
        """Note this import, before its first write."""
        if not self._noted:
            about = {"checksum": self._bundle.manifest.digest, "on_conflict": self._policy}
            self._store.database.append("audit", audit_lines("import", [self._bundle.name], **about))
            self._noted = True

    def _set_origins(self, kind: str, loaders: Mapping[str, str]) -> None:
        """Say, before they are written, that experts or spaces came from this file."""
        if loaders:
            self._begin()
            file, digest = str(self._bundle.path.resolve()), self._bundle.manifest.digest
            at, by = utc_now(), actor()
            write_origins(
                self._store.database,
                [Origin(kind, name, at, by, file, digest, loader=loader) for name, loader in loaders.items()],
            )

    def _note(self, lines: Sequence[AuditRecord]) -> None:
        """Write the audit of a write that comes next."""
        if lines:
            self._begin()
            self._store.database.append("audit", lines)

    def _lines(self, action: str, subjects: Sequence[str], **details: Any) -> list[AuditRecord]:
        return audit_lines(action, subjects, file=self._bundle.name, **details)

    def _add_history(self) -> None:
        """Append the lines of the audit that are not here; each says which file it came in, and by whom."""
        here, values = self._digests("audit", AuditRecord), (self._bundle.name[:255], actor()[:255])
        marks = dict(zip(IMPORT_MARKS, values, strict=True))
        for batch in sliced(contents.records(self._bundle, "audit", AuditRecord)):
            new = _new(batch, here)
            self._note([replace(one, details=json.dumps(one.values | marks, sort_keys=True)) for one in new])
            self._counts["audit"] += len(new)

    def _prepare_space(self, space_id: str) -> set[Key]:
        with self._store.write_lock():
            return self._prepared(space_id)

    def _prepared(self, space_id: str) -> set[Key]:
        """Which embeddings need not be written; of versions that will be added, others are deleted first.

        Nobody sees them: a killed writer or import left them. What this very file left is kept.
        """
        table = schema.embeddings_table_name(space_id)
        rows = self._store.database.read(table, columns=[*schema.EMBEDDING_KEY, "checksum"], row_ids=True)
        keys = schema.table_keys(rows)
        checksums, row_ids = rows["checksum"].to_pylist(), rows["_rowid"].to_pylist()
        theirs = self._contents.checksums.get(space_id, {})
        expected = {
            (name, here): theirs.get((name, version)) if here == version else None
            for (name, version), here in self._plan.new.items()
        }
        present, replaced_rows = set(), []
        for key, checksum, row_id in zip(keys, checksums, row_ids, strict=True):
            if key in expected and (expected[key] != checksum or key in present):
                replaced_rows.append(row_id)
            else:
                present.add(key)
        if replaced_rows:
            self._begin()
            self._store.database.delete_rows(table, replaced_rows)
        return present

    def _add_embeddings(self, space_id: str, present: set[Key]) -> None:
        """Append embeddings that are not present, in slices; ``_ChangedError`` if others added one."""
        table = schema.embeddings_table_name(space_id)
        for batch in sliced(contents.embeddings(self._bundle, space_id)):
            added, further = [], []
            for embedding in batch:
                key = embedding.task, embedding.version
                here = self._plan.new.get(key) or self._plan.same.get(key)
                if here is None or (embedding.task, here) in present:
                    continue
                present.add((embedding.task, here))
                added.append(_renumbered(embedding, here))
                if key in self._plan.same:
                    further.append(f"{embedding.task}@{here}")
            if not added:
                continue
            lines, names = self._lines("task.embed", further, space=space_id), {one.task for one in added}
            with self._store.write_lock():
                if {(one.task, one.version) for one in added} & self._store.embedded_keys(space_id, names):
                    raise _ChangedError
                self._begin()
                self._note(lines)
                self._store.database.append(table, added)
            self._counts["embeddings"] += len(added)

    def _add_experts(self) -> None:
        """Write experts, all in one slice; there are few; ``_ChangedError`` if another process changed one."""
        with self._store.write_lock():
            now = Plan()
            plan_experts(now, self._store, self._contents, self._policy)
            if any(getattr(now, kind) != getattr(self._plan, kind) for kind in EXPERT_PLANS):
                raise _ChangedError
            self._write_experts()

    def _write_experts(self) -> None:
        new, replaced = self._plan.new_experts, self._plan.replaced_experts
        self._note(self._lines("expert.remove", [expert.name for expert in self._plan.retired_experts]))
        for expert in self._plan.retired_experts:
            self._store.retire_expert(expert)
        self._set_origins("expert", {expert.name: expert.loader for expert in (*new, *replaced)})
        self._note(self._lines("expert.import", [expert.name for expert in new]))
        self._store.database.append("experts", new)
        self._note(self._lines("expert.import", [expert.name for expert in replaced], replaced=True))
        if replaced:
            rows = schema.to_arrow(replaced, schema.EXPERTS)
            self._store.database.replace_rows("experts", ["name", "removed_at"], rows)
        self._counts["experts"] += len(new) + len(replaced)

    def _add_results(self) -> None:
        """Append the results that are not here, but for those of what was left.

        What is here stays with the version that is the latest now, before there are further ones.
        """
        ours = ((name, self._plan.ours.get(name, {})) for name, _ in self._plan.new)
        latest = {name: [number for number, one in of.items() if not one.removed] for name, of in ours}
        self._store.pin_results({name: max(numbers) for name, numbers in latest.items() if numbers})
        here = self._digests("results", ResultRecord)
        for batch in sliced(contents.records(self._bundle, "results", ResultRecord)):
            taken = [
                self._plan.renumbered(result)
                for result in batch
                if result.task not in self._plan.left_tasks and result.expert not in self._plan.left_experts
            ]
            results = _new(taken, here)
            self._note(
                self._lines("result.import", [f"{result.expert} on {result.task}" for result in results])
            )
            self._store.database.append("results", results)
            self._counts["results"] += len(results)

    def _add_tasks(self) -> None:
        """Append the versions that are new, and give those that are here the tags and aliases they lack."""
        for batch in sliced(contents.records(self._bundle, "tasks", TaskRecord)):
            new, lines = [], []
            lacking: dict[Key, _Words] = defaultdict(_Words)
            for task in batch:
                key = task.name, task.version
                if (here := self._plan.new.get(key)) is not None:
                    new.append(replace(task, version=here, aliases=self._free_aliases(task, here)))
                    was = {} if here == task.version else {"was": f"{task.name}@{task.version}"}
                    lines += self._lines("task.import", [f"{task.name}@{here}"], **was)
                elif (here := self._plan.same.get(key)) is not None:
                    self._collect_lacking(task, here, lacking[task.name, here])
            with self._store.write_lock():
                self._refuse_changes({task.name for task in batch})
                self._note(lines)
                self._store.database.append("tasks", new)
                self._give_words({key: words for key, words in lacking.items() if words.tags or words.aliases})
            self._added |= {(task.name, task.version) for task in new}
            self._counts["tasks"] += len(new)

    def _refuse_changes(self, names: set[str]) -> None:
        """Notice what another process did to tasks since they were compared; tags may be others.

        Raises:
            _ChangedError: If versions came, went, or were given other aliases.
        """
        for name, versions in our_tasks(self._store, names).items():
            before = self._plan.ours.get(name, {})
            here = {version: one for version, one in versions.items() if (name, version) not in self._added}
            if _without_tags(here) != _without_tags(before):
                raise _ChangedError

    def _free_aliases(self, task: TaskRecord, here: int) -> tuple[str, ...]:
        """Aliases that are free here; those of another version are claimed if the file takes precedence."""
        versions = self._plan.ours.get(task.name, {}).items()
        taken = {alias: version for version, ours in versions if not ours.removed for alias in ours.aliases}
        if self._policy == "take":
            others = [alias for alias in task.aliases if taken.get(alias, here) != here]
            self._claimed += [(f"{task.name}@{here}", alias) for alias in others]
        return tuple(alias for alias in task.aliases if alias not in taken)

    def _collect_lacking(self, task: TaskRecord, here: int, words: "_Words") -> None:
        """Which tags and aliases a version that is here should get."""
        words.tags |= set(task.tags) - set(self._plan.ours[task.name][here].tags)
        words.aliases |= set(self._free_aliases(task, here))

    def _give_words(self, lacking: Mapping[Key, "_Words"]) -> None:
        """Add tags and aliases to versions, in one commit."""
        if not lacking:
            return
        among = ", ".join(sorted({quoted(name) for name, _ in lacking}))
        rows = self._store.database.read("tasks", where=f"removed_at = '' and name in ({among})")
        changed = []
        for task in schema.from_arrow(TaskRecord, rows):
            if words := lacking.get((task.name, task.version)):
                tags, aliases = (*task.tags, *words.tags), (*task.aliases, *words.aliases)
                changed.append(replace(task, tags=tags, aliases=aliases))
        self._note(self._lines("task.tag", [f"{task.name}@{task.version}" for task in changed]))
        self._store.update_tasks(changed)
        self._counts["tagged"] += len(changed)

    def _digests(self, table: str, record_type: type[Record]) -> set[bytes]:
        """Digests of all rows of a table in the registry."""
        rows = self._store.database.read(table)
        size = SLICE_ROWS
        slices = (rows.slice(start, size) for start in range(0, len(rows), size))
        return {_digest(record) for part in slices for record in schema.from_arrow(record_type, part)}


def _without_tags(versions: Mapping[int, OurTask]) -> dict[int, OurTask]:
    return {version: task._replace(tags=()) for version, task in versions.items()}


@dataclass
class _Words:
    """Tags and aliases to add."""

    tags: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)


def _renumbered(embedding: EmbeddingRecord, version: int) -> EmbeddingRecord:
    """An embedding under another version, with the checksum of that."""
    same = embedding.version == version
    return embedding if same else replace(embedding, version=version, checksum=None)


def _new(records: Iterable[Record], here: set[bytes]) -> list[Record]:
    """The records whose digests are not here, each once; the digests are added."""
    new = []
    for record in records:
        digest = _digest(record)
        if digest not in here:
            here.add(digest)
            new.append(record)
    return new


def _digest(record: Record) -> bytes:
    """What distinguishes two records, in few bytes, but for what may change once they are there."""
    said = vars(record) | {"task_version": 0, "weights_hash": ""}
    if isinstance(record, AuditRecord):
        said["details"] = {name: value for name, value in record.values.items() if name not in IMPORT_MARKS}
    return hashlib.blake2b(repr(sorted(said.items())).encode(), digest_size=16).digest()
