"""The card of an exported folder: what a hub and its readers learn about the records in it.

The same records make the same card. Names of tasks, tags and spaces are of letters that mean nothing to YAML or
Markdown, see ``registry.records.NAME_PATTERN``.
"""

import json
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa

from registry.bundles.format import RECORD_TABLES, member_name
from registry.errors import InvalidQueryError
from registry.records import SpaceRecord
from registry.storage import schema

MAX_TASKS_SHOWN = 1000
UNKNOWN_LICENSE = "unknown"

_LICENSE = re.compile(r"[\w.+-]{1,64}", re.ASCII)
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_LARGEST = "10M<n<100M"

_TEXT = """\
# Embeddings of {num_tasks} datasets

{counts}, exported by `t2v export` of
task2vec-registry. A task is a labelled dataset, described by its Fisher information in a probe, a number for
each filter. No sample of any dataset is in here.

## Use

```bash
hf download ORG/NAME --repo-type dataset --local-dir registry-files
t2v --registry ./registry import registry-files
t2v --registry ./registry nearest TASK
```

The import checks every file against `manifest.json` and refuses what is not in it.

## Spaces

| Space | Probe | Filters |
|---|---|---|
{spaces}

## Tasks

| Task | Versions | Kind | Classes | Samples | Tags |
|---|---|---|---|---|---|
{tasks}
"""


def check_license(license: str) -> None:
    """Refuse what is no identifier of a licence; ``InvalidQueryError`` if it is none."""
    if not _LICENSE.fullmatch(license):
        raise InvalidQueryError(
            f"a licence must be an identifier such as apache-2.0 or cc-by-4.0, got {license[:80]!r}"
        )


def card_of(tables: Mapping[str, pa.Table], spaces: Sequence[SpaceRecord], license: str) -> str:
    """The card of a bundle, of its tables, tasks in order of name and version."""
    tasks = _latest(tables["tasks"])
    counts = {"tasks": len(tasks), **{name: len(tables[name]) for name in ("experts", "results")}}
    named = {"tasks": "tasks", "experts": "experts", "results": "results of experts on tasks"}
    text = _TEXT.format(
        num_tasks=len(tasks),
        counts=", ".join(f"{count} {named[name]}" for name, count in counts.items()),
        spaces="\n".join(f"| {space.space_id} | {_cell(space.probe)} | {space.dim} |" for space in spaces)
        or "| none | | |",
        tasks="\n".join(_rows(tasks)),
    )
    return f"---\n{_front_matter(counts, spaces, license)}---\n{text}"


def _front_matter(counts: Mapping[str, int], spaces: Sequence[SpaceRecord], license: str) -> str:
    """YAML, of which JSON is a part."""
    tables = [*RECORD_TABLES, *(schema.embeddings_table_name(space.space_id) for space in spaces)]
    num_tasks = counts["tasks"]
    values = {
        "pretty_name": f"Embeddings of {num_tasks} datasets",
        "license": license,
        "tags": ["task2vec", "task2vec-registry", "dataset-embeddings"],
        "size_categories": [next((name for most, name in _SIZES if num_tasks < most), _LARGEST)],
        "configs": [
            {
                "config_name": name,
                "data_files": member_name(name),
                **({"default": True} if name == "tasks" else {}),
            }
            for name in tables
        ],
        "task2vec_registry": {"schema_version": schema.SCHEMA_VERSION, **counts},
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def _latest(tasks: pa.Table) -> list[dict[str, object]]:
    """The latest version of each task, with the number of its versions."""
    columns = ["name", "version", "kind", "num_classes", "num_samples", "tags"]
    latest: dict[str, dict[str, object]] = {}
    versions: dict[str, int] = {}
    for row in tasks.select(columns).to_pylist():
        versions[row["name"]] = versions.get(row["name"], 0) + 1
        latest[row["name"]] = row
    return [{**row, "versions": versions[name]} for name, row in latest.items()]


def _rows(tasks: Sequence[dict[str, object]]) -> list[str]:
    fields = ("name", "versions", "kind", "num_classes", "num_samples")
    rows = []
    for task in tasks[:MAX_TASKS_SHOWN]:
        tags = task["tags"]
        cells = [str(task[name]) for name in fields] + [
            ", ".join(map(str, tags if isinstance(tags, list) else []))
        ]
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    if len(tasks) > MAX_TASKS_SHOWN:
        rows.append(f"\n and {len(tasks) - MAX_TASKS_SHOWN} more, in `tasks.parquet`.")
    return rows or ["| none | | | | | |"]


def _cell(text: str) -> str:
    """A text in a table of Markdown: nothing in it ends the cell, the line or is a tag."""
    return re.sub(r"[^\w .,:@/+-]", "", text)
