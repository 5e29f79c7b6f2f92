"""Contact sheets belong to a version of a task: kept, left out, taken back, copied and deleted with it."""

import io

import numpy as np
import pytest
from builders import make_embedding, make_task
from command_lines import answer
from PIL import Image

from registry import TaskRegistry
from registry.errors import InvalidRecordError
from registry.storage.rows import MAX_SHEET_BYTES, SheetRecord
from registry.storage.store import Store


def picture(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 128, 3), np.uint8)
    Image.fromarray(pixels).save(out := io.BytesIO(), "WEBP")
    return out.getvalue()


def make_sheet(name="flowers", version=1, seed=0):
    return SheetRecord(name, version, seed, ("no", "yes"), 1, picture(seed))


def add(store, name="flowers", version=1, *, seed=None):
    sheets = [] if seed is None else [make_sheet(name, version, seed)]
    store.add_tasks([(make_task(name, version), make_embedding(name, version))], "space0", sheets)


def bytes_below(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folders(tmp_path):
    """Two classes of tiny images."""
    for name in ("dark", "bright"):
        (tmp_path / "many" / "data" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 128, (24, 24, 3), np.uint8)
            shown = pixels + 127 * (name == "bright")
            Image.fromarray(shown.astype(np.uint8)).save(tmp_path / "many" / "data" / name / f"{number}.png")
    return tmp_path / "many" / "data"


def test_a_sheet_is_kept_unless_it_is_declined_and_deleted_when_it_is(folders, tmp_path):
    registry = TaskRegistry(tmp_path / "registry")
    registry.add_task("light", folders)
    sheet = registry.sheet("light")
    assert (sheet.columns, sheet.rows, sheet.seed) == (("bright", "dark"), 5, 0)
    assert Image.open(io.BytesIO(sheet.image)).size == (128, 320)
    assert registry.sheet_layouts() == {("light", 1): (sheet.columns, 5, sheet.checksum)}  # no starter task
    assert registry.add_task("light", folders).notes == ()
    assert answer(tmp_path / "registry", "task", "add", "light", str(folders), "--no-thumbnails")["notes"] == [
        "its contact sheet was deleted for good"
    ]
    assert registry.sheet("light") is None
    assert sheet.image[20:200] not in bytes_below(tmp_path / "registry")
    (note,) = registry.add_task("light", folders).notes
    assert "it got a contact sheet" in note
    assert registry.sheet("light") == sheet
    added = registry.add_many(folders.parent, thumbnails=False, max_samples=10)
    assert [(task.task, task.status) for task in added.tasks] == [("data", "added")]
    assert registry.sheet("data") is None
    assert registry.verify() == []


def test_undo_backup_purge_and_export_treat_a_sheet_as_part_of_its_version(store, tmp_path):
    registry, kept = TaskRegistry(store.uri), make_sheet()
    add(store, seed=0)
    add(store, version=2)
    assert (registry.sheet("flowers@1"), registry.sheet("flowers")) == (kept, None)
    registry.undo()
    registry.undo()
    assert registry.sheet_layouts() == {}
    registry.undo(redo=True)
    assert registry.sheet("flowers") == kept
    registry.backup(tmp_path / "backup")
    TaskRegistry(tmp_path / "restored").restore(tmp_path / "backup")
    assert TaskRegistry(tmp_path / "restored").sheet("flowers") == kept
    registry.remove_task("flowers")
    assert Store(store.uri).sheet("flowers", 1) is None
    registry.restore_task("flowers")
    registry.export(tmp_path / "team.t2v")
    assert kept.image[20:200] not in (tmp_path / "team.t2v").read_bytes()
    add(store, "birds", seed=1)
    registry.remove_task("flowers", purge=True)
    assert kept.image[20:200] not in bytes_below(tmp_path / store.uri)
    assert registry.sheet("birds") == make_sheet("birds", seed=1)
    assert registry.verify() == []


def test_what_a_killed_writer_left_is_found_and_never_shown(store):
    add(store)
    store.database.append("sheets", [make_sheet("birds"), make_sheet()])
    problems = {(problem.kind, problem.where) for problem in store.verify()}
    assert problems == {("orphan", "sheets")}
    add(store, "birds")
    assert store.sheet("birds", 1) is None
    assert store.verify(repair=True) == []
    store.add_sheets([make_sheet(seed=5)])
    assert store.sheet("flowers", 1) == make_sheet(seed=5)
    assert store.verify() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": ()}, "must have columns and rows"),
        ({"image": b"GIF89a"}, "picture of the kind WebP"),
        ({"image": picture() + bytes(MAX_SHEET_BYTES)}, "at most 100,000 bytes"),
        ({"checksum": 1}, "not what its checksum was made of"),
    ],
)
def test_a_record_that_is_no_sheet_is_refused(changes, message):
    values = {"task": "flowers", "version": 1, "seed": 0, "columns": ("a",), "rows": 1, "image": picture()}
    with pytest.raises(InvalidRecordError, match=message):
        SheetRecord(**values | changes)
