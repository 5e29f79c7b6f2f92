"""Hostile files: one sentence or a skipped file, in bounded memory; no warning escapes."""

import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import textwrap
import tracemalloc
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from builders_datasets import (
    add_member,
    encoded,
    fails,
    listed,
    noise_image,
    png_header,
    write_folder,
    write_manifest,
    write_tar,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from indexer.data import images, manifests
from indexer.data.images import UnreadableImageError, decode_image, image_input
from indexer.data.specs import open_dataset
from indexer.errors import DataError, IndexerError, WeightsError, one_line
from indexer.networks.weights import read_weights
from indexer.records import InputTransform
from indexer.tables import parquet

SMALL = InputTransform(16, 16)
LIMIT = 600 * 2**20  # bytes beyond what the imports take; each bomb below would need 1 to 16,000 GB


def opens_or_refuses(path):
    """A damaged file opens, or is refused in one line that names it."""
    try:
        found = listed(path)
        for entry in found.entries[:3]:
            found.dataset.read(entry)
    except DataError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 (either way is right)
        assert str(error).isprintable()  # noqa: PT017


def npy_header(shape, dtype="|u1"):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": shape, "fortran_order": False, "descr": dtype})
    return header.getvalue()


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def write_zip(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


# Archives


def test_tar_names_are_never_paths(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    path = tmp_path / "inner" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as archive:
        add_member(archive, "cat/0.png", b"good")
        for name in ("cat/../../secret.png", f"{tmp_path}/secret.png", "C:/cat/1.png", "c:\\x/cat/1.png"):
            add_member(archive, name, b"unsafe")
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
            member = tarfile.TarInfo(f"cat/1{number}.png")
            member.type, member.linkname = kind, str(tmp_path / "secret.png")
            archive.addfile(member)
    found = listed(path)
    assert (found.names, found.read(0)) == (["cat/0.png"], b"good")
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["a.tar", "inner", "secret.png"]


def patched(content, offset, field):
    """A tar whose header at ``offset`` has another size, and a checksum that fits."""
    header = bytearray(content[offset : offset + 512])
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:offset] + bytes(header) + content[offset + 512 :]


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (b"77777777777\0", "unexpected end of data"),
        (b"\x80" + b"\0" * 6 + b"\x01" * 5, "unexpected end of data"),
        (b"\xff" * 10 + b"\xfc\x00", "member 'cat/2.png' has a size of -1024 bytes"),
    ],
    ids=["8 GB", "a terabyte", "negative"],
)
def test_tar_with_a_forged_size(tmp_path, size, problem):
    path = write_tar(tmp_path / "a.tar", {"cat/1.png": b"1", "cat/2.png": b"2"})
    path.write_bytes(patched(path.read_bytes(), 1024, size))
    with fails(DataError, path, f"is not a complete, uncompressed tar file: {problem}"):
        open_dataset(str(path))


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_tar_damaged_between_members_is_not_taken_for_a_short_one(tmp_path, damage):
    path = write_tar(tmp_path / "a.tar", {f"cat/{number}.png": b"x" for number in range(3)})
    content = bytearray(path.read_bytes())
    content[2048 + 20] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:2048])
    problem = "it is damaged or cut after member 'cat/1.png'"
    with fails(DataError, path, f"is not a complete, uncompressed tar file: {problem}"):
        open_dataset(str(path))


# Arrays


@pytest.mark.parametrize("shape", [(10**12, 4, 4), (2, 40_000, 40_000), (10**30, 4, 4), (-3, 4, 4), (3, 4, 4)])
def test_npz_that_claims_another_shape(tmp_path, shape):
    path = write_zip(tmp_path / "a.npz", images=npy_header(shape) + bytes(32), labels=npy(np.array([0, 1])))
    with fails(
        DataError,
        path,
        f"array 'images' claims the shape {list(shape)} of uint8, which is not what the file holds",
    ):
        open_dataset(str(path))


def test_npz_bomb(tmp_path):
    shape = (2, 8192, 8192)
    path = write_zip(tmp_path / "a.npz", images=npy_header(shape) + bytes(2**27), labels=npy(np.array([0, 1])))
    with pytest.raises(
        DataError, match=r"array 'images' is 1\d\d\d times larger than in the file, more than 200,"
    ):
        open_dataset(str(path))


def test_npz_of_too_many_labels(tmp_path):
    labels = np.zeros((4, 100_001), bool)
    path = write_zip(tmp_path / "a.npz", images=npy(np.zeros((4, 2, 2), np.uint8)), labels=npy(labels))
    with fails(DataError, path, "labels have 100001 columns; at most 100000 are possible"):
        open_dataset(str(path))


@pytest.mark.parametrize(
    "header",
    [
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 900) + b"(" * 900,
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**8) + b" " * 1000,
        b"\x93NUMPY\x09\x00" + bytes(100),
        npy_header((2, 4, 4), "|O") + bytes(256),
        b"",
    ],
    ids=["nested", "long", "version", "objects", "empty"],
)
def test_npz_with_a_bad_header(tmp_path, header):
    path = write_zip(tmp_path / "a.npz", images=header, labels=npy(np.array([0, 1])))
    with pytest.raises(DataError, match=r"is not an \.npz file of plain number arrays: "):
        open_dataset(str(path))


# Manifests


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifest_columns_are_there_once(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        path.write_text("path,path,label\na.png,b.png,x\n")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * 3, names=["path", "path", "label"]), path)
    with fails(DataError, path, "has 2 columns 'path'; keep the one that is meant"):
        open_dataset(str(path))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("path,label," + "c," * 600_000, "line 1: is not CSV: a line is longer than 1048576 characters"),
        ("path,label\n" + "a/" * 3000 + "b.png,x\n", "cannot be read: File name too long"),
        ("path,label\n/dev/zero,x\n", "line 2: '/dev/zero' is not a file"),
        (
            'path,label\n"\x1b[2J\n.png",x\n',
            "line 3: a cell holds several lines; a quote before it may not be closed",
        ),
        ("path,target\n0.png," + "9" * 9000, "must be finite and fit 32-bit floats"),
    ],
    ids=["columns", "long path", "device", "control characters", "long number"],
)
def test_hostile_csv(tmp_path, content, problem):
    (tmp_path / "0.png").write_bytes(b"")
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(problem)) as caught:
        open_dataset(str(path))
    assert str(caught.value).endswith(problem)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1100


def test_parquet_of_repeated_text_is_held_once(tmp_path):
    write_folder(tmp_path, {"a": 2})
    label = "x" * 100_000
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2, np.int32)), [label])
    pq.write_table(pa.table({"path": ["a/000.png", "a/001.png"], "label": repeated}), tmp_path / "a.parquet")
    found = listed(tmp_path / "a.parquet")
    assert (found.class_names, found.labels.tolist()) == ((label,), [0, 0])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifest_of_too_much_text(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(manifests, "MAX_TEXT", 9)
    spec = write_manifest(tmp_path / f"a{suffix}", [("a", "xxxxxx"), ("b", "xxxxxx"), ("cc", "xxxxxx")])
    with pytest.raises(DataError, match=r" [34]: more than 9 characters are not held; split it"):
        open_dataset(spec)


def test_parquet_refused_by_its_footer(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"path": ["a"] * 50, "label": ["x"] * 50}), path)
    monkeypatch.setattr(parquet, "MAX_ROWS", 49)
    with pytest.raises(DataError, match="claims 50 rows; at most 49 are read"):
        open_dataset(str(path))
    monkeypatch.undo()
    monkeypatch.setattr(parquet, "MAX_CELL", 0)
    with fails(DataError, path, "column 'path' holds a text of 1 bytes; at most 0 are read"):
        open_dataset(str(path))


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (pa.array([{"a": 1}]), "is of type struct<a: int64>; expected text or numbers"),
        (pa.array([b"\xff"]), "is missing; name it by label_col=, of path, label"),
        (pa.array([2**62], pa.timestamp("ns")), "is of type timestamp[ns]; expected text or numbers"),
    ],
    ids=["struct", "binary", "date"],
)
def test_parquet_cells_are_text_or_numbers(tmp_path, label, problem):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"path": ["a.png"], "label": label}), path)
    with fails(DataError, path, f"column 'label' {problem}"):
        open_dataset(str(path))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv: is neither a file nor a folder; supported are"):
        open_dataset(str(tmp_path / "a.csv"))


# Damage of any kind, to any kind of file


def whole_files():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)
    table, arrays = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"path": [f"{i}.png" for i in range(9)], "label": ["x", "y", "z"] * 3}), table)
    np.savez_compressed(arrays, images=pixels, labels=np.arange(6) % 2)
    return {".parquet": table.getvalue(), ".npz": arrays.getvalue()}


WHOLE = whole_files()
damages = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), max_size=4)


@settings(max_examples=120, deadline=None)
@given(suffix=st.sampled_from(sorted(WHOLE)), damage=damages, cut=st.none() | st.integers(0, 3000))
def test_damaged_file_opens_or_is_refused(tmp_path_factory, suffix, damage, cut):
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    content = bytearray(WHOLE[suffix])
    for position, bit in damage:
        content[position % len(content)] ^= 1 << bit
    path.write_bytes(content[:cut])
    opens_or_refuses(path)


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=2000), start=st.sampled_from([b"", b"path,label\n", b"\x93NUMPY\1\0", b"PAR1"])
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".tar"])
def test_noise_opens_or_is_refused(tmp_path_factory, suffix, start, content):
    path = tmp_path_factory.getbasetemp() / f"noise{suffix}"
    path.write_bytes(start + content)
    opens_or_refuses(path)


@settings(max_examples=60, deadline=None)
@given(suffix=st.sampled_from([".safetensors", ".pt"]), damage=damages, cut=st.none() | st.integers(0, 1500))
def test_damaged_weights_are_read_or_refused(tmp_path_factory, suffix, damage, cut):
    path = tmp_path_factory.getbasetemp() / f"weights{suffix}"
    state = {"conv.weight": torch.ones(2, 3), "bias": torch.zeros(4)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = bytearray(path.read_bytes())
    for position, bit in damage:
        content[position % len(content)] ^= 1 << bit
    path.write_bytes(content[:cut])
    try:
        read_weights(path)
    except WeightsError as error:
        assert str(error).isprintable()  # noqa: PT017 (either way is right)


# Weights


@pytest.mark.parametrize("length", [2**63 - 1, 2**40, 99_000_000, 0])
def test_safetensors_with_a_forged_length(tmp_path, length):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(WeightsError, match="not a safetensors file or a PyTorch checkpoint of plain tensors"):
        read_weights(path)


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(1, dtype=torch.float16).expand(2**40), torch.eye(3).to_sparse(), torch.empty(3, device="meta")],
    ids=["repeated", "sparse", "absent"],
)
def test_checkpoint_of_tensors_that_are_not_in_the_file(tmp_path, tensor):
    torch.save({"weight": tensor}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weights(tmp_path / "a.pt")


def test_compressed_checkpoint_is_not_unpacked(tmp_path):
    torch.save({"weight": torch.zeros(2**20)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as packed:
        for member in whole.infolist():
            packed.writestr(member.filename, whole.read(member))
    assert read_weights(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="not a safetensors file or a PyTorch checkpoint") as caught:
        read_weights(tmp_path / "b.pt")
    assert "unpacks to 41" in str(caught.value.__cause__)


# Images


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(extra):
    whole = encoded(noise_image(0, 4, 4), "PNG")
    return whole[:33] + extra + whole[33:]


def tiff(tags, content=b""):
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def forged_jpeg(side):
    whole = bytearray(encoded(noise_image(0, 16, 16), "JPEG"))
    start = whole.find(b"\xff\xc0")
    whole[start + 5 : start + 9] = struct.pack(">HH", side, side)
    return bytes(whole)


def gif(width, height, frame_width, frame_height):
    screen, frame = struct.pack("<HH", width, height), struct.pack("<HHHH", 0, 0, frame_width, frame_height)
    return b"GIF89a" + screen + b"\x80\0\0" + bytes(6) + b"," + frame + b"\0\x02\x02D\x01\0;"


def tiled(side):
    zeros = zlib.compress(bytes(1000))
    tags = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 134), (325, 4, 1, len(zeros))]
    return tiff(tags, zeros)


TEXT = zlib.compress(bytes(2**27), 9)
WORDS = {
    "text": chunk(b"zTXt", b"k\0\0" + TEXT),
    "international text": chunk(b"iTXt", b"k\0\1\0\0\0" + TEXT),
    "profile": chunk(b"iCCP", b"k\0\0" + TEXT),
}
BOMBS = {
    "png": png_header(50_000, 50_000),
    "png line": png_header(2**31 - 1, 1),
    "jpeg": forged_jpeg(65_500),
    "gif screen": gif(65_535, 65_535, 1, 1),
    "gif frame": gif(1, 1, 65_535, 65_535),
    "tiff": tiff(
        [(256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)]
    ),
    "tiff tag": tiff([(256, 4, 1, 9), (257, 4, 1, 9), (273, 4, 2**32 - 1, 8), (315, 2, 2**31, 8)]),
    "tiff tile": tiled(46_336),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, *[0] * 6),
    "ppm": b"P6 60000 60000 255\n",
    "ppm digits": b"P6 " + b"9" * 5000 + b" 1 255\n",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_bomb_is_unreadable(content):
    with pytest.raises(UnreadableImageError, match=r"."):
        decode_image(content)


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())
def test_words_beside_pixels_are_not_unpacked(words):
    """Pillow stops at 1 MB of the 128 MB; the image is then read without them."""
    tracemalloc.start()
    try:
        assert decode_image(png_with(words)).size == (4, 4)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_array_beyond_the_limit_is_unreadable():
    with pytest.raises(UnreadableImageError, match="100010000 pixels are more than 100000000"):
        decode_image(np.broadcast_to(np.uint8(0), (10_001, 10_000)))


def test_no_warning_escapes_whatever_the_filters(monkeypatch):
    """Filters make errors of warnings in these tests: one that got out would make the image unreadable."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_image(encoded(noise_image(0, 4, 4), "PNG")).size == (4, 4)


def test_large_images_wait_for_each_other(monkeypatch):
    """With a limit of one image at a time, eight threads are never in two."""
    from concurrent.futures import ThreadPoolExecutor

    inside, most = [], []
    fit = images.fit_image

    def watched(picture, transform):
        inside.append(1)
        most.append(len(inside))
        try:
            return fit(picture, transform)
        finally:
            inside.pop()

    monkeypatch.setattr(images, "fit_image", watched)
    monkeypatch.setattr(images, "MAX_PIXELS", 50 * 50)
    content = encoded(noise_image(0, 50, 50), "PNG")
    with ThreadPoolExecutor(8) as pool:
        fitted = list(pool.map(lambda _: image_input(content, SMALL), range(40)))
    assert max(most) == 1
    assert all(np.array_equal(one, fitted[0]) for one in fitted)


def test_file_beyond_the_limit_is_not_read(tmp_path):
    root = write_folder(tmp_path / "data", {"a": 2, "b": 2})
    with (root / "a" / "000.png").open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no room on the disk
    found = listed(root)
    with pytest.raises(OSError, match="1099511627776 bytes are more than 1073741824"):
        found.read(0)


def test_bombs_take_bounded_memory(tmp_path):
    """All of them in one process, which says how much memory it has taken at most."""
    root = tmp_path / "data"
    for number, content in enumerate(BOMBS.values()):
        (root / f"c{number % 2}").mkdir(parents=True, exist_ok=True)
        (root / f"c{number % 2}" / f"{number}.png").write_bytes(content)
    write_zip(tmp_path / "a.npz", images=npy_header((10**12, 4, 4)), labels=npy(np.array([0, 1])))
    write_zip(
        tmp_path / "b.npz", images=npy_header((1, 2**15, 2**15)) + bytes(2**26), labels=npy(np.array([0, 1]))
    )
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), ["a" * 100_000])
    pq.write_table(pa.table({"path": text, "label": text}), tmp_path / "a.parquet")
    program = """
        import resource, sys
        from indexer.data.samples import load_sample
        from indexer.errors import IndexerError
        from indexer.records import InputTransform
        import pyarrow.compute, pyarrow.parquet
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for spec in sys.argv[1:]:
            try:
                load_sample(spec, InputTransform(16, 16), max_samples=50, seed=0)
            except IndexerError as error:
                print(type(error).__name__)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    specs = [str(tmp_path / name) for name in ("data", "a.npz", "b.npz", "a.parquet")]
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *specs]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *errors, kibibytes = done.stdout.split()
    assert errors == ["UnreadableFilesError", "DataError", "DataError", "DataError"]
    assert int(kibibytes) * 1024 < LIMIT


@given(text=st.text(max_size=50) | st.text(min_size=990, max_size=1010))
@settings(max_examples=60)
def test_messages_print_safely(text):
    message = str(IndexerError(text))
    assert message.isprintable()
    assert len(message) <= 1000
    assert one_line(message) == message
