"""indexer.embed on every kind of labels and images: what is read, what is scored, what is said."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from indexer.embed import embed_dataset
from indexer.errors import DataError
from indexer.records import DEFAULT_PROBE, EmbeddingSettings, TaskEmbedding

PROBE = "resnet14w16.tiny_imagenet"
"""The smallest that ships."""

SETTINGS = EmbeddingSettings(device="cpu", max_samples=80, probe=PROBE)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images ``[N, 8, 8]`` with values 0 to 16, and labels ``[N]``, in random order."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return data.images[order], data.target[order]


def save(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    np.savez(path, images=images, labels=labels)
    return str(path)


def grey(images: np.ndarray) -> np.ndarray:
    return np.rint(images * (255 / 16)).astype(np.uint8)


def check_numbers(embedding: TaskEmbedding) -> None:
    """An embedding that says something: finite, mostly positive, with errors below its values."""
    assert np.isfinite(embedding.fisher).all()
    assert (embedding.fisher > 0).mean() > 0.9
    assert np.isfinite(embedding.standard_error).all()
    assert np.median(embedding.standard_error / embedding.fisher.clip(min=1e-12)) < 1


def log_correlation(one: TaskEmbedding, other: TaskEmbedding) -> float:
    logs = [np.log(embedding.fisher + 1e-12) for embedding in (one, other)]
    return float(np.corrcoef(logs)[0, 1])


@pytest.fixture(scope="module")
def plain(digits: tuple, tmp_path_factory: pytest.TempPathFactory) -> TaskEmbedding:
    images, labels = digits
    return embed_dataset(save(tmp_path_factory.mktemp("plain") / "a.npz", grey(images), labels), SETTINGS)


def test_multi_label_manifest(digits: tuple, tmp_path: Path):
    images, labels = digits
    lines = ["path,label"]
    for row in range(80):
        Image.fromarray(grey(images[row])).save(tmp_path / f"{row}.png")
        names = [name for name, holds in traits(int(labels[row])).items() if holds]
        lines.append(f"{row}.png,{'|'.join(names)}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    embedding = embed_dataset(str(tmp_path / "list.csv"), SETTINGS)
    check_numbers(embedding)
    assert embedding.dataset.kind == "multi_label"
    assert embedding.dataset.class_names == ("even", "large", "round")
    assert 0.5 < embedding.head_accuracy <= 1  # mean average precision; by chance the share of a label
    assert embedding.head_loss > 0


def traits(digit: int) -> dict[str, bool]:
    return {"even": digit % 2 == 0, "large": digit > 4, "round": digit in (0, 3, 6, 8, 9)}


def test_regression(digits: tuple, tmp_path: Path):
    images, _ = digits
    ink = images.mean(axis=(1, 2), keepdims=False).astype(np.float32)
    other = np.stack([ink * 1000 + 3, -ink], axis=1)  # the unit of a target says nothing
    settings = replace(SETTINGS, probe=DEFAULT_PROBE)  # the small one does not see how much ink there is
    one = embed_dataset(save(tmp_path / "one.npz", grey(images), ink), settings)
    check_numbers(one)
    assert (one.dataset.kind, one.dataset.class_names, one.dataset.num_classes) == (
        "regression",
        ("target",),
        1,
    )
    assert 0.5 < one.head_accuracy <= 1  # R squared: how much ink there is can be seen
    two = embed_dataset(save(tmp_path / "two.npz", grey(images), other), settings)
    assert two.dataset.num_classes == 2
    assert log_correlation(one, two) > 0.9


def test_sixteen_bit_grey_files_are_like_eight_bit_ones(digits: tuple, plain: TaskEmbedding, tmp_path: Path):
    images, labels = digits
    for row in range(200):
        folder = tmp_path / "deep" / str(labels[row])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[row] * 250).astype(np.uint16)).save(folder / f"{row:03}.png")  # 0 to 4,000
    deep = embed_dataset(str(tmp_path / "deep"), replace(SETTINGS, value_range=(0, 4000)))
    check_numbers(deep)
    assert log_correlation(deep, plain) > 0.9
    dark = embed_dataset(str(tmp_path / "deep"), SETTINGS)  # of 65,535: nearly black
    assert dark.domain.tolist() != deep.domain.tolist()


def test_twelve_channels(digits: tuple, plain: TaskEmbedding, tmp_path: Path):
    images, labels = digits
    bands = np.repeat(images[..., None] / 16, 12, axis=3).astype(np.float32)
    bands[..., 3:] *= np.linspace(0.5, 1, 9, dtype=np.float32)
    spec = save(tmp_path / "bands.npz", bands, labels)
    for channels in ("auto", "mean", "2,1,0"):
        embedding = embed_dataset(spec, replace(SETTINGS, channels=channels))
        check_numbers(embedding)
        assert embedding.space == plain.space
    assert log_correlation(embedding, plain) > 0.99  # the first three are the grey image
    with pytest.raises(DataError, match=re.escape("has 12 channels, so there is no channel 12 to take")):
        embed_dataset(spec, replace(SETTINGS, channels="12,1,0"))


def test_two_samples_a_class(digits: tuple, tmp_path: Path):
    images, labels = digits
    rows = np.concatenate([np.flatnonzero(labels == digit)[:2] for digit in range(10)])
    embedding = embed_dataset(save(tmp_path / "few.npz", grey(images)[rows], labels[rows]), SETTINGS)
    check_numbers(embedding)
    assert embedding.num_samples_used == 20
    assert 0 <= embedding.head_accuracy <= 1


def test_imbalance_of_a_hundred_to_one(digits: tuple, tmp_path: Path):
    images, labels = digits
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    rows = np.concatenate([np.resize(ones, 300), zeros[:3]])
    embedding = embed_dataset(save(tmp_path / "rare.npz", grey(images)[rows], labels[rows]), SETTINGS)
    check_numbers(embedding)
    assert embedding.dataset.class_sizes == (3, 300)
    assert embedding.num_samples_used == 80
    assert embedding.head_accuracy > 0.7  # of both classes alike: the common one alone would give a half


@pytest.mark.slow
def test_a_thousand_classes(digits: tuple, tmp_path: Path):
    images, _ = digits
    spec = save(tmp_path / "many.npz", np.concatenate([grey(images)] * 2)[:3000], np.arange(3000) % 1000)
    embedding = embed_dataset(spec, EmbeddingSettings(device="cpu", probe=PROBE))
    check_numbers(embedding)
    assert embedding.num_samples_used == 2000
    assert embedding.dataset.num_classes == 1000


def test_tolerance_stops_early_and_is_met(digits: tuple, tmp_path: Path):
    images, labels = digits
    spec = save(tmp_path / "a.npz", grey(images), labels)
    settings = EmbeddingSettings(device="cpu", max_samples=250, batch_size=20, tolerance=0.25, probe=PROBE)
    stopped, whole = embed_dataset(spec, settings), embed_dataset(spec, replace(settings, tolerance=None))
    assert 100 <= stopped.num_samples_used < 250
    assert np.median(stopped.standard_error / stopped.fisher.clip(min=1e-12)) < 0.25
    # Both are of the same task: most filters differ by no more than their errors allow.
    error = np.hypot(stopped.standard_error, whole.standard_error)
    assert np.median(np.abs(stopped.fisher - whole.fisher)[error > 0] / error[error > 0]) < 1.5


def test_memory_budget_changes_results_by_rounding_only(digits: tuple, plain: TaskEmbedding, tmp_path: Path):
    images, labels = digits
    spec = save(tmp_path / "a.npz", grey(images), labels)
    small = embed_dataset(spec, replace(SETTINGS, memory_budget=16 * 2**20))
    np.testing.assert_allclose(small.fisher, plain.fisher, rtol=1e-3, atol=1e-3 * plain.fisher.max())
