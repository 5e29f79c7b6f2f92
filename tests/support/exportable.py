"""A registry worth exporting, and what tests compare of two of them."""

import json

from builders import make_embedding, make_expert, make_result, make_task, make_true_space
from templates import copied

from registry import TaskRegistry
from registry.bundles.importing import IMPORT_MARKS
from registry.storage import schema
from registry.storage.store import Store

SPACE0, SPACE1 = (make_true_space(dim).space_id for dim in (4, 6))
SETTINGS = '{"max_samples": 2000, "seed": 0}'


def task(name, version=1, **changes):
    return make_task(name, version, **{"settings": SETTINGS} | changes)


def add(store, name, version=1, space=SPACE0, **changes):
    record = task(name, version, **changes)
    dim = store.space(space).dim
    store.add_task(record, space, make_embedding(name, version, dim=dim))
    return record


def make_source(uri):
    """See ``build_source``."""
    return copied("exportable", build_source, uri)


def build_source(uri):
    """Two spaces, three tasks of which one has two versions and one is embedded in both, experts, results."""
    store = Store.create(uri)
    store.add_space(make_true_space())
    store.add_space(make_true_space(6))
    store.add_experts([make_expert(), make_expert("vit.tiny"), make_expert("builtin.net", builtin=True)])
    add(store, "flowers", tags=("plants",))
    add(store, "flowers", 2, tags=("plants", "new"), aliases=("champion",))
    add(store, "birds", num_classes=30)
    add(store, "cars", space=SPACE1, builtin=True)
    store.add_embedding(SPACE1, make_embedding("flowers", 2, dim=6))
    results = [make_result(), make_result(accuracy=0.8, seed=3), make_result("birds", "vit.tiny")]
    store.add_results([*results, make_result("cars", "builtin.net", builtin=True), make_result("cars")])


def content(store):
    """Every row of a registry but its own settings and what it noted itself of an import."""
    tables = [name for name in schema.TABLES if name not in {"meta", "audit"}]
    tables += [schema.embeddings_table_name(space.space_id) for space in store.spaces()]
    rows = {name: sorted(map(repr, store.database.read(name).to_pylist())) for name in tables}
    rows["audit"] = sorted(as_written(line) for line in store.audit() if not is_own(line))
    return rows


def as_written(line):
    """A line of the audit without what an import adds."""
    details = {name: value for name, value in line.values.items() if name not in IMPORT_MARKS}
    return repr({**vars(line), "details": details})


def is_own(line):
    return line.action == "import" or "file" in json.loads(line.details)


def exported(store, path, **options):
    return TaskRegistry(store.uri, builtin=options.pop("builtin", True)).export(path, **options)


def imported(path, uri, on_conflict="fail"):
    return TaskRegistry(uri).import_bundle(path, on_conflict=on_conflict)
