"""Experts and results, as the store keeps them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from registry.errors import InvalidRecordError
from registry.records import AuditRecord, ExpertRecord, ResultRecord
from registry.storage import schema
from registry.storage.audit import audit_lines
from registry.storage.database import quoted
from registry.storage.rows import NOT_BUILTIN, REMOVED, StoredRows, among, listed, lookup, refuse_duplicates

SAME_MEASUREMENT = 0.005
"""Values of one seed that differ by less, as they do between machines, are one measurement."""


class StoredExperts(StoredRows):
    """The experts, and what was measured of them."""

    def add_experts(
        self,
        experts: Sequence[ExpertRecord],
        each: Mapping[str, Mapping[str, Any]] | None = None,
        **details: Any,
    ) -> None:
        """Register experts, all or none; a name that is registered or given twice is a ``DuplicateError``.

        Args:
            experts: To be registered.
            each: Details for the audit of some of them, by name.
            **details: Details for the audit of all.
        """
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
        """The expert of a name; ``NotFoundError`` if there is none."""
        return lookup("expert", name, {expert.name: expert for expert in self.experts()})

    def remove_expert(self, name: str) -> None:
        """Hide an expert; results of it stay."""
        with self.write_lock():
            self.expert(name)
            self._note("expert.remove", [name])
            self._mark_removed("experts", name)

    def restore_expert(self, name: str) -> None:
        """Show the expert of a name that was removed last; ``DuplicateError`` if another has the name now."""
        with self.write_lock():
            removed = self._records(ExpertRecord, "experts", REMOVED)
            lookup("removed expert", name, {expert.name: expert for expert in removed})
            refuse_duplicates("expert", [name], {expert.name for expert in self.experts()})
            last = max(expert.removed_at for expert in removed if expert.name == name)
            self._note("expert.restore", [name])
            where = f"name = {quoted(name)} and removed_at = {quoted(last)}"
            self.database.commit("experts", lambda table: table.update(where=where, values={"removed_at": ""}))

    def purge_expert(self, name: str) -> None:
        """Delete an expert, hidden or not, and the results of it for good."""
        with self.write_lock():
            names = self.database.read("experts", columns=["name"])["name"].to_pylist()
            lookup("expert", name, dict.fromkeys(names))
            self._note("expert.purge", [name])
            # Last what makes the rest visible: a kill in between leaves an expert that can be purged again.
            self._delete("results", f"expert = {quoted(name)}")
            self._delete("experts", f"name = {quoted(name)}")

    def add_results(self, results: Sequence[ResultRecord]) -> list[ResultRecord]:
        """Append measured scores, all or none; what is there already is not written again.

        Returns:
            Those that were new, in order.

        Raises:
            InvalidRecordError: If one contradicts another that was measured in the very same way.
        """
        if not results:
            return []
        with self.write_lock():
            where = among("task", {result.task for result in results})
            new = new_results(results, self._records(ResultRecord, "results", where))
            if new:
                self.database.append("audit", _audit_of(new))
                self.database.append("results", new)
        return new

    def results(
        self, *, task: str | None = None, expert: str | None = None, builtin: bool = True
    ) -> list[ResultRecord]:
        """Results, of one task or expert if given; sorted by task, expert, metric, protocol and time."""
        conditions = [] if builtin else [NOT_BUILTIN]
        conditions += [f"task = {quoted(task)}"] if task is not None else []
        conditions += [f"expert = {quoted(expert)}"] if expert is not None else []
        order = attrgetter("task", "expert", "metric", "protocol", "created_at")
        return sorted(self._records(ResultRecord, "results", " and ".join(conditions)), key=order)


def new_results(results: Sequence[ResultRecord], present: Sequence[ResultRecord]) -> list[ResultRecord]:
    """Those of some results that are not present, each once.

    Raises:
        InvalidRecordError: If two were measured in the same way with the same seed, and have other values.
    """
    kept = {result.same_as for result in present}
    measured = {_seeded(result): result for result in present if _seeded(result)}
    new = []
    for result in results:
        seeded = _seeded(result)
        other = measured.get(seeded) if seeded else None
        if result.same_as in kept:
            continue
        if other is not None and abs(other.accuracy - result.accuracy) >= SAME_MEASUREMENT:
            raise InvalidRecordError(
                f"result of {result.expert} on {result.task}: {result.metric} {result.accuracy:g} contradicts "
                f"{other.accuracy:g}, which is there by the same protocol ({result.protocol}) and seed "
                f"({result.seed}); give another seed, or the id of the run that measured it"
            )
        if other is None:
            new.append(result)
            kept.add(result.same_as)
            if seeded:
                measured[seeded] = result
    return new


def _audit_of(results: Sequence[ResultRecord]) -> list[AuditRecord]:
    """One line a result: what was measured, and how."""
    lines = audit_lines("result.add", [f"{result.expert} on {result.task}" for result in results])
    return [
        replace(line, details=json.dumps({result.metric: result.accuracy, "protocol": result.protocol}))
        for line, result in zip(lines, results, strict=True)
    ]


def _seeded(result: ResultRecord) -> tuple[object, ...]:
    """What decides the value of a result, if a seed is given and no run is named; empty otherwise."""
    if result.seed is None or result.run_id:
        return ()
    how = result.metric, result.protocol, result.seed, result.task_version, result.weights_hash
    return result.task, result.expert, *how
