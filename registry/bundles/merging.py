"""Decide what becomes of each record of a bundle in a registry that has records of its own.

A version of a task is the same where name, version, fingerprint and settings are; an expert where all but the
time of its registration is. The same is not written again. A task or an expert of the same name that is not
the same, or that was removed here, is a conflict; see ``registry.options.POLICIES``. No version is overwritten.
A result stays with the data and the weights that it was measured with, under whatever version these are here.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from registry.bundles.contents import Contents, task_digest
from registry.errors import BundleError, ConflictError
from registry.gate import OTHER_DATA
from registry.names import Key
from registry.options import Policy
from registry.records import ExpertRecord, ResultRecord, SpaceRecord
from registry.storage.store import Store

TRIVIAL_TOLERANCE = 1e-3  # relative; two machines round differently

_COLUMNS = ["name", "version", "fingerprint", "settings", "removed_at", "builtin", "tags", "aliases"]
EXPERT_PLANS = ("new_experts", "replaced_experts", "retired_experts", "left_experts")
# Not ``cached_as``: it follows from the loader, and may have been looked up for one of the two only.
_EXPERT_FIELDS = (
    "loader", "source_task", "source_accuracy", "num_params", "flops", "input_size", "license",
)  # fmt: skip


class OurTask(NamedTuple):
    """What the registry has of a task version."""

    digest: bytes
    removed: bool
    builtin: bool
    tags: tuple[str, ...]
    aliases: tuple[str, ...]


@dataclass
class Plan:
    """What becomes of the records of a bundle.

    Attributes:
        new: Versions of tasks to add, by their key in the bundle: under which version.
        same: Versions that are here, likewise.
        left_tasks: Names of tasks of which nothing is taken.
        replaced_experts: To write in place of those here, which are the same weights.
        retired_experts: Those here of other weights, in whose place new ones of the same name come.
        left_experts: Names of experts of which nothing is taken.
        ours: What the registry has of the tasks of these names, by name and version.
    """

    new: dict[Key, int] = field(default_factory=dict)
    same: dict[Key, int] = field(default_factory=dict)
    left_tasks: set[str] = field(default_factory=set)
    new_experts: list[ExpertRecord] = field(default_factory=list)
    replaced_experts: list[ExpertRecord] = field(default_factory=list)
    retired_experts: list[ExpertRecord] = field(default_factory=list)
    left_experts: set[str] = field(default_factory=set)
    new_spaces: list[SpaceRecord] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    ours: dict[str, dict[int, OurTask]] = field(default_factory=dict)

    def renumbered(self, result: ResultRecord) -> ResultRecord:
        """A result of the bundle, of the version that its data has here.

        A result that names no version is one of the latest, and that of the bundle need not be the latest here.
        One of a version that is not in the bundle is of other data, but for that of a starter task.
        """
        versions = {key[1]: here for key, here in (self.new | self.same).items() if key[0] == result.task}
        ours = self.ours.get(result.task, {})
        starters = {version for version, task in ours.items() if task.builtin}
        version = result.task_version or max(versions or starters, default=0)
        if version in versions:
            here = versions[version]
        elif versions or (version and ours and version not in starters):
            here = OTHER_DATA
        else:
            here = version
        if not result.task_version and here == max({*ours, *versions.values()}, default=0):
            return result  # still of the latest
        return replace(result, task_version=here)


def make_plan(store: Store, contents: Contents, policy: Policy, where: str) -> Plan:
    """Compare a bundle with a registry; under the lock, if the plan is to be carried out.

    Raises:
        ConflictError: If there are conflicts and the policy is ``fail``.
    """
    plan = Plan(new_spaces=_new_spaces(store, contents, where))
    of_results = {name for kind, name in contents.result_names if kind == "task"}
    plan.ours = our_tasks(store, of_results | {name for name, _ in contents.tasks})
    for name, group in groupby(contents.tasks, key=lambda key: key[0]):
        _plan_task(plan, store, name, {key: contents.tasks[key] for key in group}, policy)
    plan_experts(plan, store, contents, policy)
    if plan.conflicts and policy == "fail":
        raise ConflictError(where, plan.conflicts)
    _check_results(store, contents, where)
    return plan


def refuse_impostors(contents: Contents, shipped: Mapping[tuple[str, str], str], where: str) -> None:
    """Refuse what has the name of shipped content, if only as another name, and is something else.

    Raises:
        BundleError: If an expert or a space has.
    """
    loaders = [
        (("expert", name), expert.loader)
        for expert in contents.experts.values()
        for name in (expert.name, *expert.aliases)
    ]
    loaders += [(("space", name), space.probe_source) for name, space in contents.spaces.items()]
    reserved = {(kind, name.casefold()): (name, loader) for (kind, name), loader in shipped.items()}
    for (kind, name), loader in loaders:
        if (name, loader) != reserved.get((kind, name.casefold()), (name, loader)):
            raise BundleError(
                f"{where}: {kind} {name} has the name of shipped content and would load {loader}; "
                "nothing was imported"
            )


def _new_spaces(store: Store, contents: Contents, where: str) -> list[SpaceRecord]:
    """Spaces that are not here yet; ``BundleError`` if one that is here is another one there."""
    registered = {space.space_id: space for space in store.spaces()}
    for space_id in contents.spaces.keys() & registered.keys():
        ours, theirs = registered[space_id], contents.spaces[space_id]
        same = (ours.description, ours.dim, ours.domain_dim) == (
            theirs.description,
            theirs.dim,
            theirs.domain_dim,
        )
        if not (same and np.allclose(ours.trivial, theirs.trivial, rtol=TRIVIAL_TOLERANCE, atol=0)):
            raise BundleError(
                f"{where}: space {space_id} is another one here: its description or its trivial task differs, "
                "so one of the two is damaged; nothing was imported"
            )
    return [space for space_id, space in contents.spaces.items() if space_id not in registered]


def our_tasks(store: Store, names: Collection[str]) -> dict[str, dict[int, OurTask]]:
    """What the registry has under some names, hidden versions too."""
    purged = OurTask(b"", True, False, (), ())  # whatever it was, its number is not given again
    ours = {name: dict.fromkeys(gone, purged) for name, gone in store.purged_versions(names).items()}
    rows = store.database.read("tasks", columns=_COLUMNS)
    rows = rows.filter(pc.is_in(rows["name"], value_set=pa.array(sorted(names), pa.string())))
    columns = (rows[name].to_pylist() for name in _COLUMNS)
    for name, version, fingerprint, settings, removed_at, builtin, tags, aliases in zip(*columns, strict=True):
        digest, words = task_digest(fingerprint, settings), (tuple(tags), tuple(aliases))
        ours.setdefault(name, {})[version] = OurTask(digest, bool(removed_at), builtin, *words)
    return ours


def _plan_task(plan: Plan, store: Store, name: str, digests: dict[Key, bytes], policy: Policy) -> None:
    """Decide about all versions of one task together, so that their order stays."""
    ours = plan.ours.get(name, {})
    differing = [
        key
        for key, digest in digests.items()
        if (our := ours.get(key[1])) and (our.removed or our.digest != digest)
    ]
    if not differing:
        for key in digests:
            (plan.same if key[1] in ours else plan.new)[key] = key[1]
        return
    for _, version in differing:
        what = "was removed here" if ours[version].removed else "is of other data or settings here"
        plan.conflicts.append(f"task {name}@{version} {what}")
    if policy == "keep":
        plan.left_tasks.add(name)
    elif policy == "take":
        _append_versions(plan, ours, digests, set(differing), store.next_version(name))


def _append_versions(
    plan: Plan, ours: dict[int, OurTask], digests: dict[Key, bytes], differing: set[Key], next_version: int
) -> None:
    """Take versions as the next ones, but for those that were taken before, whatever their number."""
    here = {task.digest: version for version, task in sorted(ours.items()) if not task.removed}
    for key, digest in digests.items():
        if key[1] in ours and key not in differing:
            plan.same[key] = key[1]
        elif digest in here:
            plan.same[key] = here[digest]
        else:
            plan.new[key] = next_version
            next_version += 1


def plan_experts(plan: Plan, store: Store, contents: Contents, policy: Policy) -> None:
    """Decide about all experts."""
    present = {expert.name: expert for expert in store.experts()}
    removed = set(store.database.read("experts", columns=["name"])["name"].to_pylist()) - present.keys()
    for name, expert in contents.experts.items():
        ours = present.get(name)
        other = [name for name in _EXPERT_FIELDS if ours and getattr(ours, name) != getattr(expert, name)]
        if is_other := ours is not None and _are_other_weights(ours, expert):
            other += [] if "loader" in other else ["hash of its weights"]
        if other or name in removed:
            what = f"has another {' and '.join(other)} here" if other else "was removed here"
            plan.conflicts.append(f"expert {name} {what}")
        if (other or name in removed) and policy == "keep":
            plan.left_experts.add(name)
        elif ours is not None and is_other:
            plan.retired_experts.append(ours)
            plan.new_experts.append(expert)
        elif other:
            plan.replaced_experts.append(expert)
        elif ours is None:
            plan.new_experts.append(expert)


def _are_other_weights(ours: ExpertRecord, theirs: ExpertRecord) -> bool:
    """Whether two experts of one name are different weights: by their hashes, else by what loads them."""
    if ours.weights_hash and theirs.weights_hash:
        return ours.weights_hash != theirs.weights_hash
    return ours.loader != theirs.loader


def _check_results(store: Store, contents: Contents, where: str) -> None:
    """Check that results are of tasks and experts of the bundle, or here; ``BundleError`` if not."""
    there = {"task": {name for name, _ in contents.tasks}, "expert": contents.experts.keys()}
    lacking = {(kind, name) for kind, name in contents.result_names if name not in there[kind]}
    if not lacking:
        return
    here: dict[str, Iterable[str]] = {
        "task": store.database.read("tasks", columns=["name"])["name"].to_pylist(),
        "expert": store.database.read("experts", columns=["name"])["name"].to_pylist(),
    }
    for kind in ("task", "expert"):
        if unknown := {name for of, name in lacking if of == kind} - set(here[kind]):
            raise BundleError(
                f"{where}: it has results of the {kind} {min(unknown)}, which is neither in it nor in the "
                f"registry; import that {kind} first, or export without experts=False and builtin=False"
            )
