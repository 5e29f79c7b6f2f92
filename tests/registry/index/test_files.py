"""registry.index.files: what is saved is loaded again, and nothing that is on the disk is believed untested."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.index import files as index_files
from registry.index.files import BusyIndexError, IndexFiles, UnusableIndexError, row_checksums
from registry.index.vector_index import VectorIndex

REGISTRY, SPACE = "a" * 32, "0123456789abcdef"
KINDS = ("json", "rows", "faiss", "vectors")
DIM = 4


def rows_of(num_rows, seed=0):
    return np.random.default_rng(seed).lognormal(-3, 1, (num_rows, DIM)).astype(np.float32)


ROWS = rows_of(60)
INDEX = VectorIndex.build(ROWS)


def identities(num_rows, first=0):
    return pa.chunked_array([[f"task{row}@1:{row}" for row in range(first, first + num_rows)]])


def files_in(folder, *, registry=REGISTRY, space=SPACE):
    return IndexFiles(folder, registry, space)


def save(files, rows=ROWS, index=INDEX):
    with files.writing(wait=True):
        writer = files.new_vectors(DIM)
        for start in range(0, len(rows), 25):
            writer.append(rows[start : start + 25])
        files.save(index, identities(len(rows)), writer, built_rows=len(rows))


def extend(files, further, index=None):
    """Add rows to what is saved, as another process might."""
    saved = files.load()
    with files.writing(wait=True):
        writer = files.further_vectors(saved)
        writer.append(further)
        files.save(
            index or saved.index.extended(further),
            pa.chunked_array([saved.identities, *identities(len(further), len(saved.vectors)).chunks]),
            writer,
            built_rows=saved.built_rows,
        )


def paths(folder, kind):
    return sorted(folder.glob(f"{SPACE}.*{kind}"))


def path_of(folder, kind):
    (path,) = paths(folder, kind)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_whole(files, rows=ROWS):
    """Whether what is loaded is exactly what was saved."""
    saved = files.load()
    numbers = np.arange(len(saved.vectors))
    return (
        np.array_equal(saved.vectors, rows)
        and saved.damaged_row(numbers) is None
        and saved.identities.to_pylist() == [f"task{row}@1:{row}" for row in range(len(rows))]
        and len(saved.index) == len(rows)
    )


@pytest.fixture
def folder(tmp_path):
    """A folder with a saved index."""
    save(files_in(tmp_path / "index"))
    return tmp_path / "index"


def test_what_was_saved_is_loaded(folder):
    saved = files_in(folder).load()
    assert is_whole(files_in(folder))
    assert (saved.built_rows, saved.vectors.dtype, saved.verified.any()) == (60, np.float32, False)
    assert saved.index.to_bytes() == INDEX.to_bytes()
    assert files_in(folder).generation() == f"{saved.generation}:60"
    assert [path_of(folder, kind).exists() for kind in KINDS] == [True] * 4
    assert len(names(folder)) == 5  # and the lock


def test_vectors_are_mapped_and_cannot_be_changed(folder):
    saved = files_in(folder).load()
    assert isinstance(saved.vectors, np.memmap)
    with pytest.raises(ValueError, match=r"^assignment destination is read-only$"):
        saved.vectors[0, 0] = 1


def test_nothing_saved_is_missing(tmp_path):
    files = files_in(tmp_path / "nowhere")
    assert files.generation() is None
    with pytest.raises(UnusableIndexError, match=r"^missing$"):
        files.load()
    assert not (tmp_path / "nowhere").exists()


def test_saving_again_replaces_every_file(folder):
    before, generation = names(folder), files_in(folder).load().generation
    other = rows_of(80, seed=1)
    save(files_in(folder), other, VectorIndex.build(other))
    assert is_whole(files_in(folder), other)
    assert files_in(folder).load().generation != generation
    assert set(before) & set(names(folder)) == {"lock", f"{SPACE}.json"}


def test_further_rows_are_appended_to_the_same_vectors(folder):
    vectors, old = path_of(folder, "vectors"), files_in(folder).load()
    further = rows_of(7, seed=1)
    extend(files_in(folder), further)
    assert path_of(folder, "vectors") == vectors
    assert is_whole(files_in(folder), np.concatenate([ROWS, further]))
    assert files_in(folder).load().built_rows == 60
    assert len(names(folder)) == 5
    np.testing.assert_array_equal(old.vectors, ROWS)  # who mapped it before goes on


def test_what_a_killed_writer_appended_is_overwritten(folder):
    vectors = path_of(folder, "vectors")
    with vectors.open("ab") as file:
        file.write(b"\xff" * 999)
    assert is_whole(files_in(folder))
    further = rows_of(7, seed=1)
    extend(files_in(folder), further)
    assert is_whole(files_in(folder), np.concatenate([ROWS, further]))
    extend(files_in(folder), further)
    assert is_whole(files_in(folder), np.concatenate([ROWS, further, further]))


def test_spaces_lie_side_by_side(folder):
    other = files_in(folder, space="f" * 16)
    save(other, ROWS[:50], VectorIndex.build(ROWS[:50]))
    save(files_in(folder))
    assert is_whole(files_in(folder))
    assert is_whole(other, ROWS[:50])


def test_row_checksums_tell_rows_apart():
    checksums = row_checksums(ROWS)
    assert checksums.shape == (60,)
    assert len(set(checksums.tolist())) == 60
    np.testing.assert_array_equal(row_checksums(ROWS[::-2]), checksums[::-2])
    assert row_checksums(ROWS[:0]).shape == (0,)


# Damage


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def edit_manifest(folder, **changes):
    path = path_of(folder, "json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


DAMAGES = {
    "rows_gone": (lambda folder: path_of(folder, "rows").unlink(), "missing"),
    "faiss_gone": (lambda folder: path_of(folder, "faiss").unlink(), "missing"),
    "vectors_gone": (lambda folder: path_of(folder, "vectors").unlink(), "missing"),
    "manifest_gone": (lambda folder: path_of(folder, "json").unlink(), "missing"),
    "rows_empty": (lambda folder: truncate(path_of(folder, "rows"), 0), "damaged (its rows file"),
    "faiss_empty": (lambda folder: truncate(path_of(folder, "faiss"), 0), "damaged (its faiss file"),
    "vectors_empty": (lambda folder: truncate(path_of(folder, "vectors"), 0), "unreadable ("),
    "vectors_cut": (lambda folder: truncate(path_of(folder, "vectors"), 959), "unreadable ("),
    "manifest_empty": (lambda folder: truncate(path_of(folder, "json"), 0), "unreadable ("),
    "manifest_is_a_list": (lambda folder: path_of(folder, "json").write_text("[1, 2]"), "unreadable ("),
    "manifest_is_a_text": (lambda folder: path_of(folder, "json").write_text('"x"'), "unreadable ("),
    "manifest_is_nothing": (lambda folder: path_of(folder, "json").write_text("{}"), "unreadable ("),
    "manifest_is_not_unicode": (lambda folder: path_of(folder, "json").write_bytes(b"\xff"), "unreadable ("),
    "manifest_edited": (lambda folder: edit_manifest(folder, num_rows=59), "damaged (its manifest"),
    "manifest_points_elsewhere": (lambda folder: edit_manifest(folder, generation="../x"), "damaged (its"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_and_saving_mends_it(folder, damage):
    harm, reason = DAMAGES[damage]
    harm(folder)
    with pytest.raises(UnusableIndexError, match=f"^{re.escape(reason)}"):
        files_in(folder).load()
    save(files_in(folder))
    assert is_whole(files_in(folder))
    assert len(names(folder)) == 5


def test_a_folder_in_place_of_a_file_is_unreadable(folder):
    path = path_of(folder, "rows")
    path.unlink()
    path.mkdir()
    with pytest.raises(UnusableIndexError, match=r"^unreadable \("):
        files_in(folder).load()


def still_right(folder):
    """Whether a damaged index is refused or, row by row, says what is damaged."""
    try:
        saved = files_in(folder).load()
    except UnusableIndexError:
        return True
    right = np.all(saved.vectors == ROWS, axis=1)
    whole = np.array([saved.damaged_row(np.array([row])) is None for row in range(len(ROWS))])
    found = [saved.index.search(row, 5)[0].tolist() for row in saved.index.project(ROWS)]
    return (
        np.array_equal(whole, right)
        and saved.identities.equals(identities(60).combine_chunks())
        and found == [INDEX.search(row, 5)[0].tolist() for row in INDEX.project(ROWS)]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_goes_unnoticed(folder, kind):
    path = path_of(folder, kind)
    content = path.read_bytes()
    positions = np.random.default_rng(0).permutation(len(content))[:80]
    for position in positions.tolist():
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert still_right(folder), position
    path.write_bytes(content)
    assert is_whole(files_in(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_no_truncation_goes_unnoticed(folder, kind):
    path = path_of(folder, kind)
    content = path.read_bytes()
    for size in np.linspace(0, len(content) - 1, 25).astype(int).tolist():
        path.write_bytes(content[:size])
        with pytest.raises(UnusableIndexError, match=r"^(damaged|unreadable) \("):
            files_in(folder).load()


@settings(deadline=None, max_examples=60)
@given(content=st.one_of(st.binary(max_size=80), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["checksum", "format", "files", "generation"]), inner, max_size=4),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_whatever_lies_in_place_of_the_manifest_is_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("index")
    (folder / f"{SPACE}.json").write_bytes(content)
    assert files_in(folder).generation() is None
    with pytest.raises(UnusableIndexError, match=r"^(damaged|unreadable) \("):
        files_in(folder).load()


def test_index_of_another_space_is_refused(folder):
    other = "f" * 16
    for path in folder.glob(f"{SPACE}*"):
        path.rename(folder / path.name.replace(SPACE, other))
    with pytest.raises(UnusableIndexError, match=r"^of another registry or space$"):
        files_in(folder, space=other).load()


def test_index_of_another_registry_is_refused(folder):
    with pytest.raises(UnusableIndexError, match=r"^of another registry or space$"):
        files_in(folder, registry="b" * 32).load()


def test_index_made_by_other_code_is_refused(folder, monkeypatch):
    monkeypatch.setattr(index_files, "FORMAT", index_files.FORMAT | {"log_floor": 1e-3})
    with pytest.raises(UnusableIndexError, match=r"^of another format$"):
        files_in(folder).load()


def test_bytes_that_faiss_does_not_understand_are_refused(tmp_path):
    """As after a downgrade of faiss: the checksum is right and the content not understood."""

    class FutureIndex:
        dim = DIM

        def to_bytes(self):
            return b"index of the future"

    save(files_in(tmp_path), index=FutureIndex())
    with pytest.raises(UnusableIndexError, match=r"^unreadable \(not understood by faiss"):
        files_in(tmp_path).load()


# Writers that fail, or meet


def test_another_writer_is_waited_for_or_not(folder, monkeypatch):
    monkeypatch.setattr(index_files, "BUILD_TIMEOUT_SECONDS", 0.05)
    with files_in(folder).writing(wait=True):
        for wait in (False, True):
            with pytest.raises(BusyIndexError, match=r"^another process"), files_in(folder).writing(wait=wait):
                pass
        assert is_whole(files_in(folder))  # a reader does not wait
    with files_in(folder).writing(wait=False):
        pass


@pytest.mark.parametrize("writes_left", range(4))
def test_full_disk_while_saving_leaves_what_was_there_and_no_more(folder, monkeypatch, writes_left):
    before = names(folder)
    other = rows_of(80, seed=1)
    left = [writes_left]

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1

    monkeypatch.setattr(os, "fsync", refuse)
    if writes_left < 3:  # rows, faiss, manifest
        with pytest.raises(OSError, match="No space left on device"):
            save(files_in(folder), other, VectorIndex.build(other))
        assert names(folder) == before
        assert is_whole(files_in(folder))
    else:
        save(files_in(folder), other, VectorIndex.build(other))
        assert is_whole(files_in(folder), other)


def test_an_error_while_vectors_are_written_leaves_no_vectors(tmp_path):
    files = files_in(tmp_path)

    def write():
        with files.writing(wait=True):
            files.new_vectors(DIM).append(ROWS)
            raise LookupError("a row of the table makes no sense")

    with pytest.raises(LookupError, match=r"^a row of the table makes no sense$"):
        write()
    assert names(tmp_path) == ["lock"]


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    """A file where the folder should be: refused to every user, unlike a mode that root ignores."""
    (tmp_path / "index").write_text("in the way")
    files = files_in(tmp_path / "index")
    with pytest.raises(OSError, match="index"), files.writing(wait=True):
        pass
    with pytest.raises(UnusableIndexError, match=r"^unreadable \("):
        files.load()


@pytest.mark.parametrize("how", ["replaced", "extended"])
def test_files_that_another_process_saves_while_they_are_read_are_read_again(folder, monkeypatch, how):
    """After the manifest was read, and before the files that it names, which are removed then."""
    other = rows_of(80, seed=1)
    read = IndexFiles._checked
    calls = []

    def checked(self, manifest, kind):
        calls.append(kind)
        if len(calls) == 1 and how == "replaced":
            save(files_in(folder), other, VectorIndex.build(other))
        elif len(calls) == 1:
            extend(files_in(folder), other)
        return read(self, manifest, kind)

    monkeypatch.setattr(IndexFiles, "_checked", checked)
    expected = other if how == "replaced" else np.concatenate([ROWS, other])
    assert is_whole(files_in(folder), expected)


KILLED_WRITER = """
import os, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
import test_files as tests

renames_left = int(sys.argv[3])
rename = Path.replace

def replace(self, target):
    global renames_left
    if not renames_left:
        os._exit(9)
    renames_left -= 1
    return rename(self, target)

Path.replace = replace
further = tests.rows_of(80, seed=1)
files = tests.files_in(Path(sys.argv[2]))
if sys.argv[4] == "extend":
    tests.extend(files, further)
else:
    tests.save(files, further, tests.VectorIndex.build(further))
"""


@pytest.mark.parametrize(
    ("how", "renames"),
    [
        pytest.param("save", 0, marks=pytest.mark.slow),
        ("save", 2),
        pytest.param("extend", 2, marks=pytest.mark.slow),
    ],
    ids=["first", "manifest", "extended"],
)
def test_writer_killed_before_a_rename_leaves_the_old_index(folder, how, renames):
    command = [sys.executable, "-c", KILLED_WRITER, str(Path(__file__).parent), str(folder), str(renames), how]
    assert subprocess.run(command, check=False).returncode == 9
    assert is_whole(files_in(folder))
    assert len(list(folder.glob("*.tmp"))) == 1
    further = rows_of(3, seed=2)
    extend(files_in(folder), further)
    assert is_whole(files_in(folder), np.concatenate([ROWS, further]))
    assert len(names(folder)) == 5
