"""Tar files: what is listed, and what is refused."""

import re
import tarfile
import threading

import pytest
from builders_datasets import add_member, fails, listed, write_folder, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.data.specs import open_dataset
from indexer.errors import DataError


def test_tar_lists_and_reads_like_extracted(tmp_path):
    root = write_folder(tmp_path / "pets", {"dog": 3, "cat": 4})
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(root, ".")
    dataset, extracted = listed(tmp_path / "pets.tar"), listed(root)
    assert dataset.class_names == extracted.class_names
    assert dataset.names == extracted.names
    assert dataset.sizes == extracted.sizes
    assert dataset.labels.tolist() == extracted.labels.tolist()
    for index in range(7):
        assert dataset.read(index) == extracted.read(index)


def test_tar_class_is_the_folder_of_the_file(tmp_path):
    long = "x" * 150
    members = {"a/b/cat/1.png": b"1", f"{long}/dog/2.JPG": b"22"}
    dataset = listed(write_tar(tmp_path / "a.tar", members), class_level=-1)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.names == list(members)
    assert [dataset.read(i) for i in range(2)] == [b"1", b"22"]


def test_tar_passes_over_unsafe_and_other_members(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("cat/0.png", "cat/00.png"):
            add_member(archive, name, b"good")
        for name in ("../cat/1.png", "cat/../../dog/2.png", "/cat/3.png", "//cat/4.png"):
            add_member(archive, name, b"unsafe")
        for name in ("cat/._5.png", ".x/cat/6.png"):
            add_member(archive, name, b"hidden")
        add_member(archive, "7.png", b"of no class")
        add_member(archive, "cat/notes.txt", b"text")
        for number, kind in enumerate(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE)
        ):
            member = tarfile.TarInfo(f"cat/1{number}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert listed(path).names == ["cat/0.png", "cat/00.png"]


def test_tar_member_written_again_replaces_the_first(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for content in (b"old", b"newer"):
            add_member(archive, "cat/1.png", content)
    dataset = listed(path)
    assert (dataset.sizes, dataset.read(0)) == ([5], b"newer")


def test_tar_split_is_chosen(tmp_path):
    names = ["train/cat/1", "train/cat/2", "train/dog/3", "train/dog/4", "Test/cat/5", "Test/cat/6"]
    spec = str(write_tar(tmp_path / "a.tar", {f"d/{name}.png": b"" for name in names}))
    assert listed(spec).names == ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"]
    assert listed(spec, split="test").names == ["cat/5.png", "cat/6.png"]


def test_tar_without_images(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"000.jpg": b"", "cat/notes.md": b"3"})
    with pytest.raises(DataError, match="inside it, or a table that names its images"):
        open_dataset(str(path))
    with fails(
        DataError,
        write_tar(tmp_path / "b.tar", {"cat/a.md": b""}),
        "holds no images; expected members <class>/<name>.jpg, or KEY.jpg with KEY.cls",
    ):
        open_dataset(str(tmp_path / "b.tar"))


@pytest.mark.parametrize("damage", ["empty", "text", "gzip", "cut"])
def test_tar_of_noise(tmp_path, damage):
    path = write_tar(tmp_path / "a.tar", {"cat/1.png": b"x" * 3000}, format=tarfile.PAX_FORMAT)
    whole = path.read_bytes()
    content = {"empty": b"", "text": b"no tar" * 200, "gzip": b"\x1f\x8b" + whole, "cut": whole[:2000]}[damage]
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{path}: is not a complete, uncompressed tar file: ")):
        open_dataset(str(path))


@settings(max_examples=100, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_tar_opens_or_is_refused(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("damaged") / "a.tar"
    write_tar(path, {"cat/é" + "x" * 120 + ".png": b"1" * 600, "dog/2.png": b"2"}, format=tarfile.PAX_FORMAT)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position] = value
    path.write_bytes(content)
    try:
        dataset = listed(path)
        assert len(dataset.names) == len(dataset.labels) > 0
    except DataError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 (either way is right)


def test_tar_is_read_by_many_threads_at_once(tmp_path):
    members = {f"c{number % 7}/{number:04d}.png": bytes([number % 256]) * (number + 1) for number in range(300)}
    dataset = listed(write_tar(tmp_path / "a.tar", members))
    wrong = []

    def read_all(start):
        for step in range(300):
            index = (start + step) % 300
            if dataset.read(index) != members[dataset.names[index]]:
                wrong.append(index)

    threads = [threading.Thread(target=read_all, args=(start,)) for start in (0, 100, 200, 299)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.slow
def test_real_tar(shared):
    spec = str(shared / "pretrain" / "tiny_imagenet_20k.tar")
    dataset = listed(spec)
    assert (len(dataset.names), len(dataset.class_names)) == (20_000, 200)
    with tarfile.open(spec) as archive:
        for index in (0, 9_999, 19_999):
            assert dataset.read(index) == archive.extractfile(dataset.names[index]).read()
