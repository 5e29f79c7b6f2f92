"""Loading of sets of every kind of labels, size of classes, number of channels and type of pixels."""

import re

import numpy as np
import pytest
from builders_datasets import drawn_rows, fails, listed, write_folder, write_manifest, write_npz

from indexer.data.samples import load_sample
from indexer.errors import DataError, SettingsError, TooFewSamplesError
from indexer.records import InputTransform

SMALL = InputTransform(resize=9, crop=8)


def sample_of(spec, *, transform=SMALL, max_samples=100, seed=0, **options):
    return load_sample(str(spec), transform, max_samples=max_samples, seed=seed, **options)


# Kinds of labels and sizes of classes


def random_labels(shape, share, seed=0):
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


def pixels_of(count):
    return np.random.default_rng(1).integers(0, 256, (count, 4, 4), dtype=np.uint8)


def test_load_of_a_multi_label_set(tmp_path):
    labels = random_labels((300, 4), [0.5, 0.2, 0.1, 0.02])
    sample = sample_of(write_npz(tmp_path / "a.npz", images=pixels_of(300), labels=labels), max_samples=40)
    assert (sample.labels.shape, sample.labels.dtype) == ((40, 4), np.uint8)
    assert sample.description.kind == "multi_label"
    assert sample.description.class_sizes == tuple(labels.sum(axis=0).tolist())
    assert sample.description.class_names == ("0", "1", "2", "3")
    assert sample.labels.sum(axis=0)[3] == labels.sum(axis=0)[3], "the rarest label is used up"


def test_load_of_a_regression(tmp_path):
    targets = np.random.default_rng(0).normal(size=(300, 2))
    path = write_npz(tmp_path / "a.npz", images=pixels_of(300), labels=targets)
    sample = sample_of(path, max_samples=40)
    assert (sample.labels.shape, sample.labels.dtype) == ((40, 2), np.float64)
    assert sample.description.kind == "regression"
    assert (sample.description.class_sizes, sample.description.num_classes) == ((), 2)
    assert np.array_equal(sample.labels, targets.astype(np.float64)[drawn_rows(listed(path), 40)])


def test_load_of_a_thousand_classes(tmp_path):
    path = write_npz(tmp_path / "a.npz", images=pixels_of(3000), labels=np.arange(3000) % 1000)
    sample = sample_of(path, max_samples=2000)
    assert np.bincount(sample.labels).tolist() == [2] * 1000
    assert sample.description.class_sizes == (3,) * 1000


def test_load_of_a_hundred_to_one(tmp_path):
    path = write_npz(tmp_path / "a.npz", images=pixels_of(2020), labels=np.arange(2020) // 2000)
    sample = sample_of(path, max_samples=500)
    assert np.bincount(sample.labels).tolist() == [480, 20]
    assert sample.description.class_sizes == (2000, 20)


def test_load_of_two_samples_a_class(tmp_path):
    sample = sample_of(write_folder(tmp_path, {"cat": 2, "dog": 2}))
    assert np.bincount(sample.labels).tolist() == [2, 2]


WITH_AND_WITHOUT = (
    "every label needs at least two that have it and two that have not: "
    "merge or remove it, or raise max_samples"
)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([[1, 0, 1], [0, 0, 0]] * 6, f"label '1' is on no sample; {WITH_AND_WITHOUT}"),
        ([[1, 0], [0, 1]] * 5 + [[1, 0]] * 2, None),
        ([[0, 0]] * 11 + [[1, 1]], f"label '0' is on one sample; {WITH_AND_WITHOUT}"),
        ([[1, 1], [1, 0]] * 6, f"label '0' is missing on no sample; {WITH_AND_WITHOUT}"),
        ([[1, 1], [1, 0]] * 5 + [[0, 1], [1, 1]], f"label '0' is missing on one sample; {WITH_AND_WITHOUT}"),
        ([0.5] * 12, "'target' is 0.5 in every drawn sample; there is nothing to learn, so leave it out"),
        (
            [[0.5, 3.0], [1.5, 3.0]] * 6,
            "'target_1' is 3 in every drawn sample; there is nothing to learn, so leave it out",
        ),
    ],
)
def test_load_refuses_labels_that_teach_nothing(tmp_path, labels, problem):
    path = write_npz(tmp_path / "a.npz", labels=np.array(labels))
    if problem is None:
        assert len(sample_of(path).labels) == 12
        return
    with fails(DataError, path, problem):
        sample_of(path)


def test_load_refuses_a_draw_with_too_little_of_a_label(tmp_path):
    """Label 0 always goes with a rarer one, so that only luck brings it into a small draw."""
    labels = np.kron(np.eye(51, dtype=np.uint8)[1:], np.ones((10, 1), np.uint8))
    labels[: 11 * 10 : 10, 0] = 1
    path = write_npz(tmp_path / "a.npz", images=pixels_of(500), labels=labels)
    with fails(TooFewSamplesError, path, f"label '0' is on one drawn sample; {WITH_AND_WITHOUT}"):
        sample_of(path, max_samples=102, seed=1)
    assert sample_of(path, max_samples=500).labels[:, 0].sum() == 11


def test_load_refuses_a_regression_of_one_sample(tmp_path):
    path = write_npz(tmp_path / "a.npz", images=pixels_of(1), labels=np.array([0.5]))
    with fails(TooFewSamplesError, path, "has one drawn sample; a regression needs at least two"):
        sample_of(path)


def test_load_refuses_a_label_that_skipping_emptied(tmp_path):
    write_folder(tmp_path, {"x": 40})
    rows = [(f"x/{number:03d}.png", "a|b" if number < 2 else "a" if number % 2 else "") for number in range(40)]
    spec = write_manifest(tmp_path / "list.csv", rows)
    assert sample_of(spec).labels.sum(axis=0).tolist() == [21, 2]
    (tmp_path / "x" / "001.png").write_bytes(b"")
    with fails(TooFewSamplesError, spec, f"label 'b' is on one readable sample; {WITH_AND_WITHOUT}"):
        sample_of(spec)


def test_load_refuses_too_small_a_draw_of_labels(tmp_path):
    path = write_npz(tmp_path / "a.npz", labels=np.array([[1, 0, 0], [0, 1, 1]] * 6))
    problem = f"max_samples must be at least 2 per label, 6 for the 3 labels of {path}, got 5"
    with pytest.raises(SettingsError, match=f"^{re.escape(problem)}$"):
        sample_of(path, max_samples=5)


# Channels and ranges


@pytest.mark.parametrize("channels", ["auto", "mean", "11,5,0"])
def test_load_of_many_channels(tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 4096, (12, 8, 8, 12), dtype=np.uint16)
    path = write_npz(tmp_path / "a.npz", images=pixels)
    options = {"transform": InputTransform(8, 8), "value_range": (0, 4095)}
    sample = sample_of(path, channels=channels, **options)
    colours = {
        "auto": [pixels[..., first::3].mean(axis=3) for first in range(3)],
        "mean": [pixels.mean(axis=3)] * 3,
        "11,5,0": [pixels[..., channel].astype(float) for channel in (11, 5, 0)],
    }[channels]
    assert np.array_equal(sample.images, np.rint(np.stack(colours, axis=1) * 255 / 4095))


def test_load_refuses_a_missing_channel(tmp_path):
    problem = "sample 0 has 5 channels, so there is no channel 5 to take; channels are counted from 0 to 4"
    path = write_npz(tmp_path / "a.npz", images=np.zeros((12, 4, 4, 5), np.uint8))
    with fails(DataError, path, problem):
        sample_of(path, channels="5,0,0")


def test_load_refuses_an_undeclared_range(tmp_path):
    pixels = np.zeros((12, 4, 4))
    pixels[7, 2, 2] = 3.5
    path = write_npz(tmp_path / "a.npz", images=pixels)
    problem = (
        "sample 7 has a pixel of 3.5, and floats without a range are 0 to 1; "
        "declare the values of black and white with value_range=(LOW, HIGH)"
    )
    with fails(DataError, path, problem):
        sample_of(path)
    assert sample_of(path, value_range=(0, 7)).images.max() > 0
