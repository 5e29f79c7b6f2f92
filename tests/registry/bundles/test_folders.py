"""Bundles as folders for a hub: what goes comes back, and what somebody damaged or forged is refused."""

import json
import os
import re
import shutil

import pytest
from exportable import SPACE0, SPACE1, as_written, content, exported, imported, is_own, make_source
from extras import skip_without

from registry import TaskRegistry
from registry.bundles import format as bundle_format
from registry.errors import BundleError, InvalidQueryError, StorageError
from registry.storage.store import Store

TABLES = ["spaces", "tasks", "experts", "results", "audit"]
TABLES += sorted(f"embeddings__{space_id}" for space_id in (SPACE0, SPACE1))
NAMES = sorted(["README.md", "manifest.json", *(f"{name}.parquet" for name in TABLES)])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A registry, its export as a folder, and as a file."""
    root = tmp_path_factory.mktemp("folders")
    store = make_source(root / "source")
    exported(store, root / "folder", format="folder", license="cc-by-4.0")
    exported(store, root / "file.t2v")
    return root


@pytest.fixture
def folder(written, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(written / "folder", tmp_path / "folder")


def refuse(folder, tmp_path, message, error=BundleError):
    target = tmp_path / "target"
    with pytest.raises(error, match=re.escape(message)) as refused:
        TaskRegistry(target).import_bundle(folder)
    assert "\n" not in str(refused.value)
    assert not target.exists()


def test_everything_comes_back_from_a_folder(written, folder, tmp_path):
    assert sorted(it.name for it in folder.iterdir()) == NAMES
    taken = imported(folder, tmp_path / "target")
    assert (taken.created, taken.tasks, taken.embeddings) == (True, 4, 5)
    target, source = Store(tmp_path / "target"), Store(written / "source")
    here, there = content(target), content(source)
    there["audit"] += [
        as_written(line) for line in target.audit() if line.action == "space.add" and not is_own(line)
    ]
    assert {name: set(rows) for name, rows in here.items()} == {name: set(rows) for name, rows in there.items()}
    assert target.verify() == []
    again = imported(written / "file.t2v", tmp_path / "target")  # the same, whatever its form
    assert (again.checksum, again.tasks, again.audit_lines) == (taken.checksum, 0, 0)


def test_the_same_content_makes_the_same_bytes(written, tmp_path):
    store = Store(written / "source")
    summary = exported(store, tmp_path / "again", format="folder", license="cc-by-4.0")
    for name in NAMES:
        assert (tmp_path / "again" / name).read_bytes() == (written / "folder" / name).read_bytes(), name
    assert summary.bytes == sum(it.stat().st_size for it in (tmp_path / "again").iterdir())


def test_the_card_tells_what_is_in_it(written):
    yaml = pytest.importorskip("yaml")
    text = (written / "folder" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    values = yaml.safe_load(head)
    assert (values["license"], values["size_categories"]) == ("cc-by-4.0", ["n<1K"])
    assert "task2vec-registry" in values["tags"]
    assert values["configs"] == [
        {"config_name": name, "data_files": f"{name}.parquet"} | ({"default": True} if name == "tasks" else {})
        for name in TABLES
    ]
    assert {key: values["task2vec_registry"][key] for key in ("tasks", "experts", "results")} == {
        "tasks": 3,
        "experts": 3,
        "results": 5,
    }
    assert "3 tasks, 3 experts, 5 results of experts on tasks" in body
    assert "| flowers | 2 | single_label | 2 | 100 | new, plants |" in body
    assert "t2v --registry ./registry import" in body


def test_an_empty_registry_has_a_card(tmp_path):
    exported(Store.create(tmp_path / "source"), tmp_path / "none", format="folder")
    text = (tmp_path / "none" / "README.md").read_text()
    assert 'license: "unknown"\n' in text
    assert "| none | | |" in text
    assert imported(tmp_path / "none", tmp_path / "target").tasks == 0


@pytest.mark.slow
def test_the_datasets_library_opens_it(written):
    """As the viewer of the hub does."""
    skip_without("datasets")
    from datasets import load_dataset

    tasks = load_dataset(str(written / "folder"), "tasks", split="train")
    assert tasks["name"] == ["birds", "cars", "flowers", "flowers"]
    assert len(load_dataset(str(written / "folder"), f"embeddings__{SPACE0}", split="train")[0]["fisher"]) == 4


# Writing


def test_a_clone_of_a_repository_is_brought_up_to_date(written, folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs")
    exported(Store(written / "source"), folder, format="folder", tasks=["cars"])
    names = {it.name for it in folder.iterdir()}
    assert names == {*NAMES, ".git", ".gitattributes"} - {f"embeddings__{SPACE0}.parquet"}
    assert not [it for it in folder.parent.iterdir() if it.name.endswith(".tmp")]
    (folder / "tasks.parquet").chmod(0o644)
    assert imported(folder, folder.parent / "target").tasks == 1


def test_a_former_folder_stays_if_writing_fails(written, folder, monkeypatch):
    before = {it.name: it.read_bytes() for it in folder.iterdir()}

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_format.BundleWriter, "finish", fail)
    with pytest.raises(StorageError, match="folder: the folder cannot be written: No space left on device"):
        exported(Store(written / "source"), folder, format="folder", tasks=["cars"])
    assert {it.name: it.read_bytes() for it in folder.iterdir()} == before
    assert [it.name for it in folder.parent.iterdir()] == ["folder"]


def test_a_move_that_is_cut_short_is_no_bundle(written, folder, tmp_path, monkeypatch):
    moved = type(folder).replace

    def fail(self, target):
        if self.name == "tasks.parquet":
            raise OSError(5, "Input/output error")
        return moved(self, target)

    monkeypatch.setattr(type(folder), "replace", fail)
    with pytest.raises(StorageError, match="folder: the folder cannot be written: Input/output error"):
        exported(Store(written / "source"), folder, format="folder", tasks=["cars"])
    monkeypatch.undo()
    refuse(folder, tmp_path, "there is no manifest.json in it")
    exported(Store(written / "source"), folder, format="folder", tasks=["cars"])
    assert imported(folder, tmp_path / "target").tasks == 1


def test_folders_of_other_things_are_left_alone(written, tmp_path):
    store = Store(written / "source")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds 'notes\.txt', which no export writes; give a new"):
        exported(store, tmp_path, format="folder")
    (tmp_path / "notes.txt").rename(tmp_path / "README.md")
    with pytest.raises(StorageError, match=r"holds a README\.md that no export wrote"):
        exported(store, tmp_path, format="folder")
    with pytest.raises(StorageError, match=r"README\.md is a file; give the folder to write"):
        exported(store, tmp_path / "README.md", format="folder")
    assert [it.read_text() for it in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zip"}, "format must be file or folder, got 'zip'"),
        ({"license": "mit"}, "a licence is for the card of a folder"),
        ({"format": "folder", "license": "mit\n---"}, "a licence must be an identifier such as apache-2.0"),
        ({"format": "folder", "license": "see file"}, "a licence must be an identifier such as apache-2.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(written, tmp_path, options, message):
    with pytest.raises(InvalidQueryError, match=f"^{message}"):
        exported(Store(written / "source"), tmp_path / "out", **options)


# Folders that somebody changed


@pytest.mark.parametrize("name", [f"{name}.parquet" for name in TABLES])
def test_a_flipped_bit_is_noticed(folder, tmp_path, name):
    changed = bytearray((folder / name).read_bytes())
    changed[len(changed) // 2] ^= 1
    (folder / name).write_bytes(changed)
    refuse(folder, tmp_path, f"{name} is not what its checksum was made of")


def test_a_file_of_another_size_is_noticed(folder, tmp_path):
    with (folder / "tasks.parquet").open("ab") as file:
        file.write(b"x")
    refuse(folder, tmp_path, "bytes, the manifest says")


@pytest.mark.parametrize("name", [*(f"{name}.parquet" for name in TABLES), "manifest.json"])
def test_a_missing_file_is_noticed(folder, tmp_path, name):
    (folder / name).unlink()
    refuse(folder, tmp_path, f"there is no {name}" if name == "manifest.json" else f"{name} is missing")


@pytest.mark.parametrize("name", ["notes.txt", "tasks.parquet.bak", ".hidden", "index.faiss", "x" * 200])
def test_further_files_are_refused(folder, tmp_path, name):
    (folder / name).write_bytes(b"x")
    refuse(folder, tmp_path, f"'{name}' has no place in a bundle")


def test_a_further_table_is_refused(folder, tmp_path):
    shutil.copy(folder / f"embeddings__{SPACE0}.parquet", folder / "embeddings__other.parquet")
    refuse(folder, tmp_path, "'embeddings__other.parquet' has no place in a bundle")


@pytest.mark.parametrize("name", ["tasks.parquet", "manifest.json", "README.md"])
@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_what_is_no_plain_file_is_refused(folder, tmp_path, name, kind):
    (folder / name).rename(tmp_path / "elsewhere")
    if kind == "link":
        (folder / name).symlink_to(tmp_path / "elsewhere")
    elif kind == "dangling":
        (folder / name).symlink_to("/nowhere")
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        os.mkfifo(folder / name)
    refuse(folder, tmp_path, f"'{name}' is no plain file")


@pytest.mark.parametrize(
    "name", ["../secret.parquet", "/etc/passwd", "sub/tasks.parquet", "README.md", "..", ""]
)
def test_a_manifest_that_names_other_places_is_refused(folder, tmp_path, name):
    (tmp_path / "secret.parquet").write_bytes(b"x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["members"][name] = {"blake2b": bundle_format.checksum(b"x"), "bytes": 1, "rows": 0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refuse(folder, tmp_path, f"{name!r} has no place in a bundle")


def test_a_huge_manifest_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("registry.bundles.folders.MAX_MANIFEST_BYTES", 100)
    refuse(folder, tmp_path, "manifest.json is larger than 100 bytes")


def test_what_hubs_keep_beside_it_is_passed_over(folder, tmp_path):
    for name in (".git", ".cache"):
        (folder / name).mkdir()
    (folder / ".gitattributes").symlink_to("/nowhere")
    (folder / "README.md").write_text("Another card")
    assert imported(folder, tmp_path / "target").tasks == 4


def test_a_folder_that_cannot_be_read_is_told(folder, tmp_path, monkeypatch):
    def fail(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("registry.bundles.folders.os.open", fail)
    refuse(folder, tmp_path, "folder: the folder cannot be read: Permission denied", OSError)
