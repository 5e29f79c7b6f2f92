"""Bundles that somebody changed anyhow, and what becomes of a registry that imports them.

A mutation changes bytes, members, the manifest, tables, columns, rows or single values; mostly the checksums
are made anew afterwards, as who means harm would. Values are numbers at every edge, texts that lead elsewhere,
and loaders that name a canary: a module and a file that leave a trace when they are used.
"""

import json
import math
import os
import random
import shutil
import stat
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from builders import make_expert, make_result, make_true_space
from exportable import SPACE0, add, exported
from forgery import Forgery

from registry import TaskRegistry
from registry.bundles.contents import read_contents
from registry.bundles.folders import open_folder
from registry.bundles.reader import open_bundle
from registry.errors import RegistryError
from registry.storage import schema
from registry.storage.store import Store

CANARY = "canary_of_a_mutation"
TABLES = ["spaces", "tasks", "experts", "results", "audit", f"embeddings__{SPACE0}"]
LOADERS = [
    f"{CANARY}:build",
    f"{CANARY}:build()",
    f"torchscript:{CANARY}.pt",
    f"resnet18@{CANARY}.pt",
    f"timm:resnet18@{CANARY}.pt",
    f"hf:./{CANARY}",
    f"file://{CANARY}.pt",
    "/dev/zero",
    "os:system",
    "resnet14w32.mnist",
]
TEXTS = [
    "",
    " ",
    "\0",
    "a\nb",
    "\u202egnp.exe",
    "\ufeff",
    "x" * 70_000,
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "<script>alert(1)</script>",
    "'; drop table tasks; --",
    "latest",
    "birds",
    "flowers",
    "resnet18.tv_in1k",
    "NaN",
    "1e999",
    "[" * 5000,
    '{"a": NaN}',
    '{"max_samples": Infinity}',
    '{"max_samples": 1e400}',
    '{"a": 1, "a": 2}',
    "{}",
    "9999-99-99",
    "0001-01-01T00:00:00+23:59",
    "accuracy",
    "regression",
    *LOADERS,
]
INTEGERS = [-(2**63), -1, 0, 1, 2, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 1_000_001]
FLOATS = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1e308, -1e308, 5e-324, 1.5, -1.5, 3.4e38, 1e15, 1.1e15]
JSON_VALUES: list[Any] = [None, True, False, -1, 0, 2**63, 2**2000, 1e400, "", "x", [], {}, [[]], "NaN", 1.5]
COLUMN_TYPES = [pa.int32(), pa.float16(), pa.float32(), pa.string(), pa.large_string(), pa.binary(), pa.bool_()]
# A value that a column cannot have, or a table or manifest that was spoilt by a change before.
UNMAKEABLE = (pa.ArrowException, ValueError, TypeError, AttributeError, OverflowError, OSError, LookupError)
MEMBER_NAMES = ["../tasks.parquet", "/tasks.parquet", "tasks.parquet/", "TASKS.parquet", "tasks.pa\0rquet", ""]


def make_bundle(folder: Path) -> Forgery:
    """A small bundle of one space, three task versions, two experts and three results."""
    store = Store.create(folder / "source")
    store.add_space(make_true_space())
    store.add_experts([make_expert(), make_expert("vit.tiny", aliases=("tiny.vit",))])
    add(store, "flowers", tags=("plants",))
    add(store, "flowers", 2, aliases=("champion",))
    add(store, "birds", num_classes=30)
    store.add_results([make_result(), make_result(accuracy=0.8, seed=3), make_result("birds", "vit.tiny")])
    exported(store, folder / "good.t2v")
    return Forgery.of(folder / "good.t2v")


class Mutator:
    """Makes one mutated bundle after another."""

    def __init__(self, original: Forgery, seed: int) -> None:
        self._original, self._random = original, random.Random(seed)

    def write(self, path: Path) -> str:
        """Write the next one, a file or, of eight, one folder; what was done to it."""
        forgery = Forgery(dict(self._original.members), json.loads(json.dumps(self._original.manifest)))
        inside: list[Callable[[Forgery], None]] = [
            *[self._value] * 6,
            *[self._rows] * 2,
            self._columns,
            self._parquet,
            self._member_bytes,
            self._manifest,
            self._names,
            self._archive,
        ]
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        done = []
        for _ in range(self._random.choice([0, 1, 1, 1, 2, 3])):
            change = self._random.choice(inside)
            done.append(change.__name__.strip("_"))
            try:
                change(forgery)
            except UNMAKEABLE:
                self._member_bytes(forgery)
        forgery.described = forgery.described and self._random.random() < 0.9
        try:
            forgery.write(path)
        except UNMAKEABLE:  # checksums of a manifest that has none
            forgery.described = False
            forgery.write(path)
        if self._random.random() < 0.125:
            return f"{self._as_folder(path)}+{'+'.join(done)}"
        if not done or self._random.random() < 0.1:
            path.write_bytes(self._bytes(path.read_bytes()))
            done.append("bytes")
        return "+".join(done)

    def _as_folder(self, path: Path) -> str:
        """The members of a file as files of a folder in its place, one of them something else maybe."""
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        path.unlink()
        path.mkdir()
        for name, content in members.items():
            with suppress(*UNMAKEABLE):  # names that no file can have
                if "/" not in name:
                    (path / name).write_bytes(content)
        other = path / self._some(["tasks.parquet", "manifest.json", "README.md", "further.parquet", ".git"])
        kind = self._some(["plain", "plain", "link", "pipe", "folder", "cut"])
        if kind != "plain":
            content = other.read_bytes() if other.exists() else b""
            other.unlink(missing_ok=True)
            if kind == "link":
                other.symlink_to(self._some(["/etc/passwd", "/dev/zero", f"../{CANARY}.py", "manifest.json"]))
            elif kind == "pipe":
                os.mkfifo(other)
            elif kind == "folder":
                other.mkdir()
            else:
                other.write_bytes(content[: len(content) // 2])
        return f"folder with {kind}"

    def _some(self, values: list[Any]) -> Any:
        return self._random.choice(values)

    def _bytes(self, content: bytes) -> bytes:
        """Bits flipped, or a piece cut off, doubled, moved or put in."""
        at, size = self._random.randrange(len(content) + 1), self._random.choice([1, 4, 30, 1000])
        kind = self._random.randrange(6)
        if kind < 2:
            changed = bytearray(content)
            for _ in range(self._random.choice([1, 1, 2, 8])):
                changed[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)
            return bytes(changed)
        piece = {2: b"", 3: content[at : at + size] * 2, 4: self._random.randbytes(size), 5: bytes(size)}[kind]
        return content[:at] + piece + content[at + size :]

    def _member_bytes(self, forgery: Forgery) -> None:
        name = self._some(sorted(forgery.members))
        forgery.members[name] = self._bytes(forgery.members[name] or b"x")

    def _value(self, forgery: Forgery) -> None:
        """Another value in one row or in all of a column."""
        name = self._some(TABLES)
        table = forgery.table(name)
        column = self._some(table.schema.names)
        values, kind = table[column].to_pylist(), table.schema.field(column).type
        is_one = self._random.random() < 0.7
        for row in [self._random.randrange(len(values))] if is_one else range(len(values)):
            values[row] = self._other(values[row], kind)
        if name.startswith("embeddings") and column != "checksum" and self._random.random() < 0.8:
            rows = [row | {column: value} for row, value in zip(table.to_pylist(), values, strict=True)]
            self._set_rows(forgery, name, [self._checksummed(row) for row in rows])
        else:
            forgery.set(name, column, values)

    def _other(self, value: Any, kind: pa.DataType) -> Any:
        if self._random.random() < 0.05:
            return None
        if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            items = list(value or [])
            if items and self._random.random() < 0.7:
                items[self._random.randrange(len(items))] = self._other(items[0], kind.value_type)
                return items
            return self._some([[], items * 2, items * 500, [self._other(None, kind.value_type)]])
        if pa.types.is_boolean(kind):
            return not value
        if pa.types.is_integer(kind):
            return self._some([*INTEGERS, (value or 0) + 1])
        return self._some(FLOATS if pa.types.is_floating(kind) else TEXTS)

    def _checksummed(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of embeddings with the checksum of what it holds now, where that can be made."""
        made = schema.made_checksums(pa.Table.from_pylist([row], schema=schema.embeddings_schema(4, 3)))
        return row | {"checksum": int(made[0])}

    def _set_rows(self, forgery: Forgery, name: str, rows: list[dict[str, Any]]) -> None:
        forgery.change(name, lambda table: pa.Table.from_pylist(rows, schema=table.schema))
        forgery.manifest["members"][f"{name}.parquet"]["rows"] = len(rows)

    def _rows(self, forgery: Forgery) -> None:
        """A row doubled, left out, moved, or of another table."""
        name = self._some(TABLES)
        rows = forgery.table(name).to_pylist()
        row = self._some(rows)
        choices = [
            [*rows, row],
            [other for other in rows if other is not row],
            rows[::-1],
            [],
            rows * 2000,
            [*rows, row | {"version": row.get("version", 1) + 1}],
            [*rows, row | {"name": "zebra"}],
        ]
        self._set_rows(forgery, name, self._some(choices))

    def _columns(self, forgery: Forgery) -> None:
        """A column renamed, dropped, added, cast, or of an extension type."""
        name, at = self._some(TABLES), self._random.randrange(3)

        def change(table: pa.Table) -> pa.Table:
            kind = self._random.randrange(5)
            if kind == 0:
                return table.rename_columns([f"{column}x" for column in table.schema.names])
            if kind == 1:
                return table.remove_column(at)
            if kind == 2:
                return table.append_column("further", pa.nulls(len(table), self._some(COLUMN_TYPES)))
            if kind == 3:
                column = table[at].cast(self._some(COLUMN_TYPES), safe=False)
                return table.set_column(at, table.schema.names[at], column)
            pickled = b"cos\nsystem\n(S'touch RAN'\ntR."
            about = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled}
            field = table.schema.field(at).with_metadata(about)
            return table.set_column(at, field, table[at])

        forgery.change(name, change)

    def _parquet(self, forgery: Forgery) -> None:
        """The same rows in another form of Parquet."""
        options = self._some(
            [
                {"compression": self._some(["none", "gzip", "snappy", "brotli", "lz4"])},
                {"use_dictionary": True},
                {"write_statistics": True},
                {"row_group_size": 1},
                {"data_page_version": "2.0"},
                {"store_schema": False},
                {"write_page_index": True},
                {"data_page_size": 1},
                {"version": "1.0"},
            ]
        )
        forgery.change(self._some(TABLES), lambda table: table, **options)

    def _manifest(self, forgery: Forgery) -> None:
        """Another value, key or form of the manifest."""
        entry = forgery.manifest["members"].get(self._some([f"{name}.parquet" for name in TABLES]), {})
        kind = self._random.randrange(6)
        if kind == 0:
            forgery.manifest[self._some(list(forgery.manifest))] = self._some(JSON_VALUES)
            forgery.described = isinstance(forgery.manifest.get("members"), dict)
        elif kind == 1:
            entry[self._some(["rows", "bytes", "blake2b", "other"])] = self._some([*JSON_VALUES, *INTEGERS])
            forgery.described = self._random.random() < 0.5
        elif kind == 2:
            del forgery.manifest[self._some([name for name in forgery.manifest if name != "members"])]
        elif kind == 3:
            forgery.manifest["schema_version"] = self._some([1, 2, 3, 4, 5, 6, 0, -1, True, "5", 5.0])
        elif kind == 4:
            forgery.manifest[self._some(["loader", "spaces", "__class__"])] = self._some(TEXTS)
        else:
            forgery.entries.append((zipfile.ZipInfo("manifest.json"), self._random.randbytes(30)))
            forgery.manifest, forgery.described = {}, False

    def _names(self, forgery: Forgery) -> None:
        """A member of another name, missing, further or exchanged with another."""
        one, other = self._random.sample(sorted(forgery.members), 2)
        kind = self._random.randrange(4)
        if kind == 0:
            forgery.members[self._some(MEMBER_NAMES)] = forgery.members.pop(one)
        elif kind == 1:
            del forgery.members[one]
        elif kind == 2:
            forgery.members[self._some([*MEMBER_NAMES, "embeddings__x.parquet", "x.pkl"])] = b"content"
        else:
            forgery.members[one], forgery.members[other] = forgery.members[other], forgery.members[one]

    def _archive(self, forgery: Forgery) -> None:
        """What zip archives can have and bundles have not."""
        kind = self._random.randrange(5)
        if kind == 0:
            forgery.mode = self._some([stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR]) | 0o777
        elif kind == 1:
            forgery.compression = self._some([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
        elif kind == 2:
            entry = zipfile.ZipInfo(self._some(["tasks.parquet", "manifest.json", "further", "tasks/"]))
            forgery.entries.append((entry, self._random.randbytes(20)))
        elif kind == 3:
            entry = zipfile.ZipInfo("manifest.json")
            entry.extra = struct.pack("<HHQQ", 1, 16, 2**60, 2**60)
            content = json.dumps(forgery.manifest).encode()
            forgery.entries.append((entry, content))
            forgery.manifest, forgery.described = {}, False
        else:
            entry = zipfile.ZipInfo("comment.txt")
            entry.comment = self._random.randbytes(50)
            forgery.entries.append((entry, b""))


class Target:
    """A registry that imports mutated bundles, in a folder with the canaries.

    Attributes:
        counts: Bundles that were refused, that were only read, that were taken, and faults by their kind.
        faults: In words.
    """

    def __init__(self, folder: Path, every: int = 1) -> None:
        """Make the registry, with a task of its own, and the canaries; the working folder must be this one.

        Of bundles that can be read one in ``every`` is imported, which takes ten times as long.
        """
        self._every = every
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._folder = folder
        (folder / f"{CANARY}.py").write_text("open('RAN', 'w').close()\n\ndef build(): raise SystemExit(77)\n")
        self._store = Store.create(folder / "target0")
        self._store.add_space(make_true_space())
        add(self._store, "own")
        self._turn = 0

    def take(self, path: Path, what: str) -> None:
        """Import a bundle and look whether anything is as it should not be."""
        before = self._store.database.state() if self._every == 1 else ""
        try:
            if self._every > 1:
                with open_folder(path) if path.is_dir() else open_bundle(path) as bundle:
                    read_contents(bundle)
                self.counts["read"] += 1
                if self.counts["read"] % self._every:
                    return
                before = self._store.database.state()
            TaskRegistry(self._store.uri).import_bundle(path, on_conflict="take")
        except RegistryError as error:
            self.counts["refused"] += 1
            if "\n" in str(error) or "Traceback" in str(error) or len(str(error)) > 2000:
                self._fault("refused in no sentence", what, str(error)[:300])
            if before and self._store.database.state() != before:
                self._fault("refused and half imported", what, str(error)[:300])
                self._renew()
        except BaseException as error:
            self._fault("traceback", what, f"{type(error).__name__}: {error}"[:300])
        else:
            self.counts["taken"] += 1
            faults = len(self.faults)
            self._look(what)
            if self.counts["taken"] % 20 == 0 or len(self.faults) > faults:
                self._renew()
        finally:
            if (self._folder / "RAN").exists() or CANARY in sys.modules:
                (self._folder / "RAN").unlink(missing_ok=True)
                sys.modules.pop(CANARY, None)
                self._fault("something ran", what, "")

    def _fault(self, kind: str, what: str, words: str) -> None:
        self.counts[kind] += 1
        self.faults.append(f"{kind}: {what}: {words}")

    def _renew(self) -> None:
        """Go on with a new registry, before this one is large or after it was spoilt."""
        self._turn += 1
        self._store = Store.create(self._folder / f"target{self._turn}")
        self._store.add_space(make_true_space())
        add(self._store, "own")

    def _look(self, what: str) -> None:
        """Everything that was taken must be finite, readable, found whole, and answer questions."""
        store = Store(self._store.uri)
        try:
            for name in store.database.table_names():
                for field, column in zip(
                    *(lambda rows: (rows.schema, rows.columns))(store.database.read(name)), strict=True
                ):
                    if not _is_finite(field, column):
                        self._fault("not finite", what, f"{name}.{field.name}")
            registry = TaskRegistry(store.uri, builtin=False)
            if problems := [problem for problem in registry.verify() if problem.kind != "dangling"]:
                self._fault("not whole", what, str(problems)[:300])
            registry.experts(), registry.results(), registry.audit(), store.spaces()
            tasks = registry.tasks()
            registry.nearest("own", k=100)
            registry.recommend("own", published=False)
            registry.task(tasks[-1].name)
        except RegistryError as error:
            self._fault("taken and no answer", what, str(error)[:300])
        except BaseException as error:
            self._fault("traceback after it", what, f"{type(error).__name__}: {error}"[:300])


def _is_finite(field: pa.Field, column: pa.ChunkedArray) -> bool:
    values = column
    while hasattr(values.type, "value_type"):
        values = pa.chunked_array([chunk.flatten() for chunk in values.chunks], values.type.value_type)
    return not pa.types.is_floating(values.type) or bool(np.isfinite(values.drop_null().to_numpy()).all())
