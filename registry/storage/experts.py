"""Experts and results, as the store keeps them."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from operator import attrgetter
from typing import Any

from registry.errors import InvalidRecordError, RegistryError, StorageError
from registry.gate import OTHER_DATA
from registry.records import AuditRecord, ExpertRecord, ResultRecord, utc_now
from registry.storage import rows, schema
from registry.storage.places import together
from registry.storage.rows import (
    NOT_BUILTIN,
    PRESENT,
    REMOVED,
    StoredRows,
    among,
    audit_lines,
    listed,
    lookup,
    refuse_duplicates,
    sliced,
)
from registry.storage.schema import quoted

SAME_MEASUREMENT = 0.005
"""Values of one seed that differ by less, as they do between machines, are one measurement."""

NEVER_READ = "never-read-"
"""Start of what stands for the hash of weights that were never read, once their expert is removed: its results
are told by it from those of another expert that gets the name."""


class StoredExperts(StoredRows):
    """The experts, and what was measured of them."""

    def add_experts(
        self,
        experts: Sequence[ExpertRecord],
        each: Mapping[str, Mapping[str, Any]] | None = None,
        **details: Any,
    ) -> None:
        """Register experts, all or none; a name that is registered or given twice is a ``DuplicateError``."""
        with self.write_lock():
            registered = {expert.name for expert in self.experts()}
            names = [expert.name for expert in experts]
            refuse_duplicates("expert", names, registered)
            self._note_each("expert.add", names, each or {}, details)
            self.database.append("experts", experts)

    def update_experts(
        self,
        experts: Sequence[ExpertRecord],
        each: Mapping[str, Mapping[str, Any]] | None = None,
        **details: Any,
    ) -> None:
        """Write experts in place of those of the same names, in one commit; details as of ``add_experts``."""
        if not experts:
            return
        with self.write_lock():
            self._note_each("expert.update", [expert.name for expert in experts], each or {}, details)
            rows = schema.to_arrow(experts, schema.EXPERTS)
            self.database.replace_rows("experts", ["name", "removed_at"], rows)

    def removed_experts(self) -> set[str]:
        """Names of experts that were removed."""
        return {expert.name for expert in self._records(ExpertRecord, "experts", REMOVED)}

    def experts(self, *, builtin: bool = True) -> list[ExpertRecord]:
        """Experts that are not removed, sorted by name; starter content only if ``builtin``."""
        records = self._records(ExpertRecord, "experts", listed(builtin))
        experts = {expert.name: expert for expert in records}
        return [experts[name] for name in sorted(experts)]

    def expert(self, name: str) -> ExpertRecord:
        """The expert of a name, or of an alias that no other has; ``NotFoundError`` if there is none."""
        experts = self.experts()
        aliases = {alias: expert for expert in experts for alias in expert.aliases}
        return lookup("expert", name, aliases | {expert.name: expert for expert in experts})

    def removed_weights(self) -> set[tuple[str, str]]:
        """Names and hashes of the experts that were removed."""
        rows = self.database.read("experts", columns=["name", "weights_hash"], where=REMOVED)
        return set(zip(rows["name"].to_pylist(), rows["weights_hash"].to_pylist(), strict=True))

    def hold_weights(self, hashes: Mapping[str, str]) -> None:
        """Remember the hashes of weights that were read for the first time, by name of the expert."""
        if not self.database.place.is_writable():
            return
        with self.write_lock():
            unread = [expert for expert in self.experts() if expert.name in hashes and not expert.weights_hash]
            self.update_experts([replace(expert, weights_hash=hashes[expert.name]) for expert in unread])

    def remove_expert(self, name: str) -> None:
        """Hide an expert; results of it stay, and are not those of another expert that gets its name."""
        with self.write_lock():
            expert = self.expert(name)
            self._note("expert.remove", [expert.name])
            self.retire_expert(expert)

    def retire_expert(self, expert: ExpertRecord) -> None:
        """Hide the row of an expert, without a line in the audit; its results keep its weights."""
        removed_at = utc_now()
        digest = hashlib.blake2b(f"{expert.name} {removed_at}".encode(), digest_size=8).hexdigest()
        weights = expert.weights_hash or NEVER_READ + digest
        self._set_weights(expert.name, "", weights)
        where = f"name = {quoted(expert.name)} and {PRESENT}"
        self._update("experts", where, {"removed_at": removed_at, "weights_hash": weights})

    def _set_weights(self, expert: str, before: str, weights: str) -> None:
        """Replace the hash of weights in the results of an expert that have another."""
        where = f"expert = {quoted(expert)} and weights_hash = {quoted(before)}"
        if len(self.database.read("results", columns=["expert"], where=where)):
            self._update("results", where, {"weights_hash": weights})

    def restore_expert(self, name: str) -> None:
        """Show the expert of a name that was removed last; ``DuplicateError`` if another has the name now."""
        with self.write_lock():
            removed = self._records(ExpertRecord, "experts", REMOVED)
            lookup("removed expert", name, {expert.name: expert for expert in removed})
            refuse_duplicates("expert", [name], {expert.name for expert in self.experts()})
            last = max((one for one in removed if one.name == name), key=attrgetter("removed_at"))
            self._note("expert.restore", [name])
            where = f"name = {quoted(name)} and removed_at = {quoted(last.removed_at)}"
            unread = last.weights_hash.startswith(NEVER_READ)
            values = {"removed_at": "", "weights_hash": "" if unread else last.weights_hash}
            self._update("experts", where, values)
            if unread:
                self._set_weights(name, last.weights_hash, "")

    def purge_expert(self, name: str) -> None:
        """Delete an expert, hidden or not, and the results of it for good."""
        with self.write_lock():
            names = self.database.read("experts", columns=["name"])["name"].to_pylist()
            lookup("expert", name, dict.fromkeys(names))
            self.database.moments.forget(f"expert {name} was purged")
            self._note("expert.purge", [name])
            # Last what makes the rest visible: a kill in between leaves an expert that can be purged again.
            self._purge("results", f"expert = {quoted(name)}")
            self._drop_caches()
            self._purge("experts", f"name = {quoted(name)}")

    def add_results(self, results: Sequence[ResultRecord]) -> list[ResultRecord]:
        """Append measured scores; what is there already is not written again.

        One that does not say of which version of its task or of which weights it is, is of the latest version
        and of the weights of the expert as they are registered. All are compared before anything is written;
        many are written a slice at a time, as one write, and others may write between.

        Returns:
            Those that were new, in order, as they were written.

        Raises:
            InvalidRecordError: If one contradicts another that was measured in the very same way.
            StorageError: If another process removed a task or an expert between slices.
        """
        if not results:
            return []
        with together(), self.write_lock() if len(results) < rows.SLICE_ROWS else nullcontext():
            version = self.database.table_version("results")
            latest, weights = self._measurable(results)

            def complete(result: ResultRecord) -> ResultRecord:
                return replace(
                    result,
                    task_version=result.task_version or latest.get(result.task, 0),
                    weights_hash=result.weights_hash or weights.get(result.expert, ""),
                )

            new, written = new_results(results, self._results_like(results), complete), list[ResultRecord]()
            for part in sliced([new]):
                with self.write_lock(), _saying(len(written), len(new)):
                    self._check_measurable(part, latest, weights)
                    if version != self.database.table_version("results"):  # another process wrote some
                        version, part = -1, new_results(part, self._results_like(part))
                    self.database.append("audit", _audit_of(part))
                    self.database.append("results", part)
                    version = self.database.table_version("results") if version >= 0 else version
                written += part
        return written

    def _results_like(self, results: Sequence[ResultRecord]) -> list[ResultRecord]:
        """Those that are there of the tasks and experts of some."""
        parts = [among("task", {one.task for one in results}), among("expert", {one.expert for one in results})]
        return self._records(ResultRecord, "results", " and ".join(filter(None, parts)))

    def _measurable(self, results: Sequence[ResultRecord]) -> tuple[dict[str, int], dict[str, str]]:
        """The latest version of each task that results are of, and the weights of each expert."""
        some = among("name", {result.task for result in results})
        read = self.database.read("tasks", columns=["name", "version"], where=f"{PRESENT} and {some or 'true'}")
        return dict(sorted(schema.table_keys(read))), {
            expert.name: expert.weights_hash for expert in self.experts()
        }

    def _check_measurable(
        self, results: Sequence[ResultRecord], tasks: Collection[str], experts: Collection[str]
    ) -> None:
        """Check that what was registered still is.

        Raises:
            StorageError: If it was removed.
        """
        now_tasks, now_experts = self._measurable(results)
        gone = {one.task for one in results if one.task in tasks} - now_tasks.keys()
        gone |= {one.expert for one in results if one.expert in experts} - now_experts.keys()
        if gone:
            raise StorageError(f"{self.database.uri}: another process removed {', '.join(sorted(gone)[:5])}")

    def results(
        self, *, task: str | None = None, expert: str | None = None, builtin: bool = True
    ) -> list[ResultRecord]:
        """Results, of one task or expert if given; sorted by task, expert, metric, protocol and time."""
        conditions = [] if builtin else [NOT_BUILTIN]
        conditions += [f"task = {quoted(task)}"] if task is not None else []
        conditions += [f"expert = {quoted(expert)}"] if expert is not None else []
        order = attrgetter("task", "expert", "metric", "protocol", "created_at")
        return sorted(self._records(ResultRecord, "results", " and ".join(conditions)), key=order)


def new_results(
    results: Sequence[ResultRecord],
    present: Sequence[ResultRecord],
    complete: Callable[[ResultRecord], ResultRecord] = lambda result: result,
) -> list[ResultRecord]:
    """Those of some results that are not present, each once, completed by what they do not say.

    Raises:
        InvalidRecordError: If two were measured in the same way with the same seed, and have other values.
    """
    kept = defaultdict[Any, list[ResultRecord]](list)
    for result in present:
        kept[result.same_as].append(result)
    measured = {_seeded(result): result for result in present if _seeded(result)}
    new = []
    for result in results:
        others = kept[result.same_as]
        if (others and result.run_id) or _is_among(result, others):
            continue
        completed = complete(result)
        seeded = _seeded(completed)
        other = measured.get(seeded) if seeded else None
        if other is not None and abs(other.accuracy - result.accuracy) >= SAME_MEASUREMENT:
            raise InvalidRecordError(
                f"result of {result.expert} on {result.task}: {result.metric} {result.accuracy:g} contradicts "
                f"{other.accuracy:g}, which is there by the same protocol ({result.protocol}) and seed "
                f"({result.seed}); give another seed, or the id of the run that measured it"
            )
        if other is None:
            new.append(completed)
            others.append(completed)
            if seeded:
                measured[seeded] = completed
    return new


@contextmanager
def _saying(written: int, of: int) -> Iterator[None]:
    """Let an error say what was written before it.

    Raises:
        RegistryError: The same.
    """
    try:
        yield
    except RegistryError as err:
        if written:
            err.args = (f"{err}; {written} of {of} results were added, the others can be added again",)
        raise


def _audit_of(results: Sequence[ResultRecord]) -> list[AuditRecord]:
    """One line a result: what was measured, and how."""
    lines = audit_lines("result.add", [f"{result.expert} on {result.task}" for result in results])
    return [
        replace(line, details=json.dumps({result.metric: result.accuracy, "protocol": result.protocol}))
        for line, result in zip(lines, results, strict=True)
    ]


def _is_among(result: ResultRecord, others: Iterable[ResultRecord]) -> bool:
    """Whether one of some results may be of the same data and weights, as far as both say of which they are."""
    return any(
        len({one.task_version, result.task_version} - {0}) < 2
        and len({one.weights_hash, result.weights_hash} - {""}) < 2
        for one in others
    )


def _seeded(result: ResultRecord) -> tuple[object, ...]:
    """What decides the value of a result, if a seed is given and no run is named; empty otherwise."""
    if result.seed is None or result.run_id or result.task_version == OTHER_DATA:
        return ()
    how = result.metric, result.protocol, result.seed, result.task_version, result.weights_hash
    return result.task, result.expert, *how
