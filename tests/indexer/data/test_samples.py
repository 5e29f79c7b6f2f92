"""Loading of whole datasets: drawn, decoded, checked and fingerprinted."""

import io
import os
import re
import shutil
import threading
import warnings

import numpy as np
import pytest
from builders_datasets import (
    drawn_rows,
    encoded,
    fails,
    listed,
    noise_image,
    write_folder,
    write_manifest,
    write_npz,
    write_splits,
)
from PIL import Image

from indexer.data.images import decode_image, fit_image, image_input
from indexer.data.samples import load_sample
from indexer.data.sampling import draw
from indexer.data.specs import open_dataset
from indexer.errors import DataError, SettingsError, TooFewSamplesError, UnreadableFilesError
from indexer.records import InputTransform

SMALL = InputTransform(resize=9, crop=8)


def sample_of(spec, *, transform=SMALL, max_samples=100, seed=0, **options):
    return load_sample(str(spec), transform, max_samples=max_samples, seed=seed, **options)


# Loading


def test_real_tar(shared):
    spec = shared / "pretrain" / "tiny_imagenet_20k.tar"
    sample = sample_of(spec, transform=InputTransform(64, 64), max_samples=400)
    assert sample.images.shape == (400, 3, 64, 64)
    assert np.bincount(sample.labels).tolist() == [2] * 200
    assert (sample.description.num_samples, sample.description.num_skipped) == (20_000, 0)


def test_real_folder(shared):
    sample = sample_of(shared / "data" / "mnist", transform=InputTransform(32, 28), max_samples=100)
    assert sample.images.shape == (100, 3, 28, 28)
    assert sample.description.class_names == tuple("0123456789")
    assert np.bincount(sample.labels).tolist() == [10] * 10
    assert np.array_equal(sample.images[:, 0], sample.images[:, 2])


def test_load_decodes_what_was_drawn(tmp_path):
    root = write_folder(tmp_path, {"cat": 9, "dog": 7})
    found = listed(root)
    chosen = drawn_rows(found, 6, seed=3)
    sample = sample_of(root, max_samples=6, seed=3)
    expected = [fit_image(decode_image(found.read(index)), SMALL) for index in chosen]
    assert np.array_equal(sample.images, expected)
    assert (sample.images.dtype, sample.images.shape) == (np.uint8, (6, 3, 8, 8))
    assert np.array_equal(sample.labels, found.labels[chosen])
    assert np.bincount(sample.labels).tolist() == [3, 3]
    description = sample.description
    assert (description.spec, description.num_samples) == (str(root), 16)
    assert (description.kind, description.class_sizes) == ("single_label", (9, 7))
    assert (description.num_skipped, description.skipped_files) == (0, ())


def test_load_reads_only_what_was_drawn(tmp_path):
    """The listing is enough for files that are not drawn: half of them may be rubbish."""
    root = write_folder(tmp_path, {"cat": 20, "dog": 20})
    found = listed(root)
    for index in set(range(40)) - set(drawn_rows(found, 10)):
        (root / found.names[index]).write_bytes(b"rubbish")
    assert sample_of(root, max_samples=10).description.num_skipped == 0


def test_load_of_arrays_matches_load_of_files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)
    for row in range(6):
        folder = tmp_path / str(row // 3)
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels[row]).save(folder / f"{row}.png")
    arrays = sample_of(write_npz(tmp_path / "a.npz", images=pixels, labels=np.arange(6) // 3))
    files = sample_of(tmp_path)
    assert np.array_equal(arrays.images, files.images)
    assert np.array_equal(arrays.labels, files.labels)


def test_load_does_not_depend_on_threads(tmp_path):
    root = write_folder(tmp_path, {"cat": 15, "dog": 15})
    (root / "cat" / "003.png").write_bytes(b"broken")
    one, many = (sample_of(root, threads=threads) for threads in (1, 7))
    assert np.array_equal(one.images, many.images)
    assert one.description == many.description
    assert one.description.num_skipped == 1


def test_load_tells_its_progress(tmp_path):
    calls = []
    root = write_folder(tmp_path, {"cat": 3, "dog": 3})
    here = threading.get_ident
    sample_of(root, max_samples=4, progress=lambda done, total: calls.append((done, total, here())))
    assert calls == [(done, 4, here()) for done in (1, 2, 3, 4)]


def test_load_stops_when_interrupted(tmp_path, monkeypatch):
    root = write_folder(tmp_path, {"cat": 30, "dog": 30})
    decoded = []
    monkeypatch.setattr(
        "indexer.data.samples.image_input", lambda *args: decoded.append(1) or image_input(*args)
    )

    def interrupt(done, total):
        raise KeyboardInterrupt("stop")

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt, match="stop"):
        sample_of(root, threads=1, progress=interrupt)
    assert len(decoded) < 60
    assert set(threading.enumerate()) <= before


def test_load_skips_and_names_unreadable_files(tmp_path):
    root = write_folder(tmp_path, {"cat": 40, "dog": 40}, suffix=".jpg")
    jpeg = encoded(noise_image(0, 60, 60), "JPEG")
    broken = {
        "cat/001.jpg": b"", "cat/002.jpg": b"text", "cat/003.jpg": jpeg[: len(jpeg) // 2],
        "dog/004.jpg": b"\xff\xd8\xff", "dog/005.jpg": b"", "dog/006.jpg": b"", "dog/007.jpg": b"",
    }  # fmt: skip
    whole = sample_of(root)
    for name, content in broken.items():
        (root / name).write_bytes(content)
    sample = sample_of(root)
    kept = [index for index, name in enumerate(listed(root).names) if name not in broken]
    assert np.array_equal(sample.images, whole.images[kept])
    assert np.array_equal(sample.labels, whole.labels[kept])
    assert sample.description.num_skipped == 7
    assert sample.description.skipped_files == tuple(broken)[:5]
    assert sample.description.num_samples == 80


def test_load_skips_files_that_are_gone_by_then(tmp_path, monkeypatch):
    root = write_folder(tmp_path, {"cat": 10, "dog": 10})

    def draw_and_lose(*args):
        chosen = draw(*args)
        (root / "dog" / "004.png").unlink()
        return chosen

    monkeypatch.setattr("indexer.data.sampling.draw", draw_and_lose)
    assert sample_of(root).description.skipped_files == ("dog/004.png",)


def test_load_of_a_folder_that_goes_away_meanwhile(tmp_path, monkeypatch):
    root = write_folder(tmp_path, {"cat": 2, "dog": 2})

    def open_and_lose(spec, reading):
        dataset = open_dataset(spec, reading)
        shutil.rmtree(root / "dog")
        return dataset

    monkeypatch.setattr("indexer.data.samples.open_dataset", open_and_lose)
    with pytest.raises(DataError, match=f"^{re.escape(str(root))}: cannot be read: .*dog"):
        sample_of(root)


def test_load_names_undecodable_names_as_text(tmp_path):
    """File names may hold bytes that are no Unicode; records may not."""
    root = write_folder(tmp_path, {"cat": 6, "dog": 6})
    try:
        os.rename(root / "cat" / "000.png", os.fsencode(root) + b"/cat/caf\xe9.png")  # noqa: PTH104 (pathlib takes no bytes)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    (root / "cat" / "caf\udce9.png").write_bytes(b"")
    assert sample_of(root).description.skipped_files == ("cat/caf\\udce9.png",)


def test_load_refuses_more_than_a_tenth_unreadable(tmp_path):
    root = write_folder(tmp_path, {"cat": 10, "dog": 10})
    for number in (0, 1):
        (root / "cat" / f"{number:03d}.png").write_bytes(b"")
    assert sample_of(root).description.num_skipped == 2
    (root / "dog" / "009.png").write_bytes(b"")
    problem = (
        "3 of 20 sampled files cannot be decoded, more than a tenth: cat/000.png and 2 more "
        "(empty file); repair or remove them"
    )
    with fails(UnreadableFilesError, root, problem):
        sample_of(root)


def test_load_counts_unreadable_files_by_what_is_wrong_with_them(tmp_path):
    root = write_folder(tmp_path, {"cat": 8, "dog": 8})
    for path in (root / "cat").iterdir():
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    (root / "dog" / "000.png").write_bytes(b"<!DOCTYPE html>\n<title>404</title>")
    problem = (
        "9 of 16 sampled files cannot be decoded, more than a tenth: cat/000.png and 7 more (pointer "
        "of git LFS, which `git lfs pull` replaces by the file), dog/000.png (web page, as a failed "
        "download leaves it); repair or remove them"
    )
    with fails(UnreadableFilesError, root, problem):
        sample_of(root)


def test_load_counts_copies_and_refuses_nothing_but_copies(tmp_path):
    root = write_folder(tmp_path, {"cat": 4, "dog": 4})
    copied = (root / "cat" / "000.png").read_bytes()
    for path in [*(root / "cat").iterdir(), root / "dog" / "003.png"]:
        path.write_bytes(copied)
    assert sample_of(root).description.num_alike == 5
    for path in (root / "dog").iterdir():
        path.write_bytes(copied)
    with fails(
        DataError, root, "all 8 sampled images are the same, byte for byte; there is nothing to learn from them"
    ):
        sample_of(root)


def test_load_keeps_warnings_of_pillow_to_itself(tmp_path):
    """Pillow warns of this EXIF block, which is cut off, and decodes the image all the same."""
    root = write_folder(tmp_path, {"cat": 2, "dog": 2})
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\x40\0\0\0\x1a\0\0\0\0\0\0\0short"
    content = encoded(noise_image(0), "JPEG", exif=exif)
    with pytest.warns(UserWarning, match="Tag data larger than file"), Image.open(io.BytesIO(content)) as image:
        image.getexif()
    (root / "cat" / "001.png").write_bytes(content)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert sample_of(root).description.num_skipped == 0
    assert heard == []


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        (
            {"cat": 4},
            (
                "has only the class 'cat'; a task needs at least two classes"
                ", which folders around samples name, or a table beside them"
            ),
        ),
        (
            {"cat": 4, "dog": 1},
            "class 'dog' has one sample; every class needs at least two, or is left out with skip_bad=True",
        ),
    ],
    ids=["one class", "one sample"],
)
def test_load_refuses_too_little_data(tmp_path, counts, problem):
    root = write_folder(tmp_path, counts)
    with fails(TooFewSamplesError, root, problem):
        sample_of(root)


@pytest.mark.parametrize(("broken", "left"), [(1, "one"), (2, "no")])
def test_load_refuses_a_class_that_skipping_emptied(tmp_path, broken, left):
    root = write_folder(tmp_path, {"cat": 40, "dog": 2})
    for number in range(broken):
        (root / "dog" / f"{number:03d}.png").write_bytes(b"")
    problem = f"class 'dog' has {left} readable sample; every class needs at least two"
    with fails(TooFewSamplesError, root, problem):
        sample_of(root)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_samples": 1}, "max_samples must be at least 2, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"transform": InputTransform(8, 0)}, "crop of the input transform must be at least 1, got 0"),
        (
            {"transform": InputTransform(8, 9)},
            "resize of the input transform must be at least its crop, got resize 8 and crop 9",
        ),
        ({"channels": "red"}, "channels must be auto, mean, tile or three indices such as 3,2,1, got 'red'"),
        ({"value_range": (1, 1)}, "value_range must be two rising finite numbers, got 1 and 1"),
        ({"max_samples": 5}, "max_samples must be at least 2 per class, 6 for the 3 classes of {root}, got 5"),
    ],
    ids=["max_samples", "seed", "threads", "crop", "resize", "channels", "value_range", "per class"],
)
def test_load_refuses_settings(tmp_path, options, problem):
    root = write_folder(tmp_path, {"a": 3, "b": 3, "c": 3})
    with pytest.raises(SettingsError, match=f"^{re.escape(problem.format(root=root))}$"):
        sample_of(root, **options)


# Fingerprints


def fingerprint(spec, **options):
    return sample_of(spec, **options).description.fingerprint


def test_fingerprint_does_not_depend_on_place_or_dates(tmp_path):
    root = write_folder(tmp_path / "here", {"cat": 6, "dog": 6})
    copy = shutil.copytree(root, tmp_path / "there" / "pets", copy_function=shutil.copyfile)
    assert fingerprint(copy, max_samples=8) == fingerprint(root, max_samples=8)
    assert re.fullmatch("[0-9a-f]{32}", fingerprint(root))


def test_fingerprint_of_a_split_is_that_of_its_folder(tmp_path):
    root = write_splits(tmp_path)
    assert fingerprint(root) == fingerprint(root / "train") != fingerprint(root, split="test")


def rename_file(root):
    (root / "cat" / "000.png").rename(root / "cat" / "zzz.png")


def move_file(root):
    (root / "cat" / "000.png").rename(root / "dog" / "999.png")


def remove_file(root):
    (root / "cat" / "005.png").unlink()


def change_byte(root):
    path = root / "dog" / "005.png"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", [rename_file, move_file, remove_file, change_byte])
def test_fingerprint_notices(tmp_path, change):
    root = write_folder(tmp_path, {"cat": 6, "dog": 6})
    before = fingerprint(root)
    change(root)
    assert fingerprint(root) != before


def test_fingerprint_notices_labels_of_a_manifest(tmp_path):
    write_folder(tmp_path, {"x": 4})
    prints = set()
    for labels in ("aabb", "abab", "aacc"):
        rows = [(f"x/{number:03d}.png", label) for number, label in enumerate(labels)]
        prints.add(fingerprint(write_manifest(tmp_path / "list.csv", rows)))
    assert len(prints) == 3


def test_fingerprint_notices_a_kind_of_labels(tmp_path):
    """A class of each number, or numbers to predict."""
    write_folder(tmp_path, {"x": 4})
    rows = [(f"x/{number:03d}.png", f"{number % 2}.0") for number in range(4)]
    prints = {
        fingerprint(write_manifest(tmp_path / f"{column}.csv", rows, ("path", column)))
        for column in ("label", "target")
    }
    assert len(prints) == 2


def test_fingerprint_of_arrays_notices_pixels_labels_and_shape(tmp_path):
    pixels = np.arange(12 * 20, dtype=np.uint8).reshape(12, 5, 4)
    changed = pixels.copy()
    changed[11, 4, 3] ^= 1
    variants = [
        {"images": pixels},
        {"images": changed},
        {"images": pixels.reshape(12, 4, 5)},
        {"images": pixels.view(np.int8), "value_range": (0, 255)},
        {"images": pixels, "labels": np.array([20, 3, 100] * 4)},
    ]
    prints = []
    for number, arrays in enumerate(variants):
        value_range = arrays.pop("value_range", None)
        prints.append(fingerprint(write_npz(tmp_path / f"{number}.npz", **arrays), value_range=value_range))
    assert len(set(prints)) == 5
    assert fingerprint(write_npz(tmp_path / "again.npz", images=pixels)) == prints[0]


def test_fingerprint_stays_the_same_between_versions(tmp_path):
    """Registered fingerprints must be found again: a change here needs a migration."""
    pixels = np.arange(12 * 20, dtype=np.uint8).reshape(12, 5, 4)
    assert fingerprint(write_npz(tmp_path / "a.npz", images=pixels)) == "88593f4370291bfcc26c88bf1f25f1d5"
