"""Change a bundle as somebody would who means harm: its manifest says what was made of it."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from registry.bundles import format as bundle_format


@dataclass
class Forgery:
    """A bundle taken apart: its members by name, and what its manifest says; ``write`` makes a file of it.

    Attributes:
        entries: Further members, as they are, which the manifest does not name.
        described: Whether ``write`` brings the manifest's checksums and sizes up to date.
    """

    members: dict[str, bytes] = field(repr=False)
    manifest: dict[str, Any]
    entries: list[tuple[zipfile.ZipInfo, bytes]] = field(default_factory=list)
    described: bool = True
    compression: int = zipfile.ZIP_STORED
    mode: int = 0o100644

    @classmethod
    def of(cls, path: Path) -> "Forgery":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        return cls(members, json.loads(members.pop(bundle_format.MANIFEST)))

    def table(self, name: str) -> pa.Table:
        return pq.read_table(io.BytesIO(self.members[f"{name}.parquet"]))

    def change(self, name: str, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
        """Put another table in place of one."""
        options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False} | options
        sink = io.BytesIO()
        pq.write_table(change(self.table(name)), sink, **options)
        self.members[f"{name}.parquet"] = sink.getvalue()

    def set(self, name: str, column: str, values: Any, **options: Any) -> None:
        """Put other values in a column; those of the first row go to all where only one is given."""

        def change(rows: pa.Table) -> pa.Table:
            field = rows.schema.field(column)
            return rows.set_column(rows.schema.names.index(column), field, pa.array(values, field.type))

        self.change(name, change, **options)

    def write(self, path: Path) -> Path:
        if self.described:
            described = self.manifest["members"]
            for name, content in self.members.items():
                entry = described.setdefault(name, {"rows": 0})
                entry |= {"bytes": len(content), "blake2b": bundle_format.checksum(content)}
            for name in [name for name in described if name not in self.members]:
                del described[name]
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in self.members.items():
                archive.writestr(self._entry(name), content, self.compression)
            if self.manifest:
                archive.writestr(self._entry(bundle_format.MANIFEST), json.dumps(self.manifest))
            for entry, content in self.entries:
                archive.writestr(entry, content)
        return path

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = self.mode << 16
        return entry
