"""indexer.embed: the pipeline on real digits and small folders, against its parts one sample at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders_datasets import write_folder, write_splits
from references_fisher import check_layers, square_grads_one_by_one
from torch import nn

from indexer.embed import embed_dataset, embed_sample, embed_trivial, load_task_sample, space_of
from indexer.errors import DataSpecError, SettingsError, UnknownNameError
from indexer.fisher.estimate import ESTIMATORS
from indexer.fisher.likelihoods import likelihood_of
from indexer.heads.heads import FISHER_L2, fit_head, held_out_score
from indexer.networks.load import load_network
from indexer.networks.run import PretrainedNetwork
from indexer.records import EmbeddingSettings, TaskEmbedding

DIGITS = EmbeddingSettings(max_samples=40, device="cpu", probe="resnet14w16.tiny_imagenet")
SMALL = EmbeddingSettings(device="cpu", probe="resnet14w16.tiny_imagenet")
"""The smallest probe that ships."""


@pytest.fixture(scope="module")
def probe() -> PretrainedNetwork:
    return load_network(SMALL.probe)


@pytest.fixture(scope="module")
def digits() -> tuple[TaskEmbedding, list]:
    """Digits, and the reports of the progress."""
    reports: list[tuple[str, int, int]] = []
    return embed_dataset("sklearn:digits", DIGITS, progress=lambda *report: reports.append(report)), reports


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_folder(tmp_path_factory.mktemp("pets"), {"cat": 4, "dog": 5}))


@pytest.fixture(scope="module")
def pets(folder: str) -> TaskEmbedding:
    return embed_dataset(folder, SMALL)


def count_filters(probe: PretrainedNetwork, *kinds: type[nn.Module]) -> int:
    return sum(len(layer.weight) for layer in probe.body.modules() if isinstance(layer, kinds))


def relative_error(embedding: TaskEmbedding) -> float:
    return float(np.linalg.norm(embedding.standard_error) / np.linalg.norm(embedding.fisher))


def assert_same(found: TaskEmbedding, expected: TaskEmbedding) -> None:
    """Everything is equal to the byte, but for the time that it took."""
    for name in ("fisher", "standard_error", "domain"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    for name in ("space", "dataset", "settings", "num_samples_used", "head_accuracy", "head_loss"):
        assert getattr(found, name) == getattr(expected, name)


def test_embedding_has_a_value_per_filter(digits: tuple, probe: PretrainedNetwork):
    embedding, _ = digits
    num_filters = count_filters(probe, nn.Conv2d)
    for values in (embedding.fisher, embedding.standard_error):
        assert (values.shape, values.dtype) == ((num_filters,), np.float32)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert (embedding.fisher > 0).mean() > 0.9
    assert (embedding.domain.shape, embedding.domain.dtype) == ((probe.num_features,), np.float32)
    assert np.isfinite(embedding.domain).all()


def test_embedding_says_where_it_comes_from(digits: tuple, probe: PretrainedNetwork):
    embedding, _ = digits
    assert embedding.dataset.spec == "sklearn:digits"
    assert (embedding.dataset.num_samples, embedding.dataset.num_classes) == (1797, 10)
    assert (embedding.settings, embedding.num_samples_used) == (DIGITS, 40)
    assert embedding.space == space_of(probe, DIGITS)
    assert 0.2 < embedding.head_accuracy <= 1  # one in ten by chance
    assert embedding.head_loss > 0
    assert 0 < relative_error(embedding) < 1
    assert embedding.seconds > 0


def test_progress_is_reported_by_stage(digits: tuple):
    _, reports = digits
    assert [stage for stage, done, total in reports if done == total] == ["decode", "features", "fisher"]
    assert {total for _, _, total in reports} == {40}
    assert [done for stage, done, _ in reports if stage == "decode"] == list(range(1, 41))


@pytest.mark.parametrize(
    "norm_weights", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["filters", "norms"]
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_embedding_matches_its_parts_one_by_one(
    folder: str, probe: PretrainedNetwork, estimator: str, norm_weights: bool
):
    settings = replace(SMALL, estimator=estimator, norm_weights=norm_weights)
    found = embed_dataset(folder, settings)
    sample = load_task_sample(folder, probe, settings)
    inputs = probe.normalize(torch.from_numpy(sample.images))
    features = np.stack([probe.body(image[None])[0].numpy() for image in inputs])
    head = fit_head(features, sample.labels, l2=FISHER_L2)
    logits = torch.from_numpy(head.logits(features)).float()
    directions = torch.stack(
        list(
            ESTIMATORS[estimator].directions(
                likelihood_of(head),
                logits,
                torch.from_numpy(sample.labels),
                torch.Generator().manual_seed(settings.seed),
            )
        )
    )
    weight = torch.from_numpy(head.weight).float()
    trainable = load_network(settings.probe).body.requires_grad_(requires_grad=True)
    rows = square_grads_one_by_one(trainable, inputs, directions @ weight, norm_weights=norm_weights)
    stops = np.cumsum([0, *(value.shape[1] for value in rows.values())])
    slices = {name: slice(*stops[index : index + 2]) for index, name in enumerate(rows)}
    means = {name: value.mean(dim=0, keepdim=True) for name, value in rows.items()}
    check_layers(torch.from_numpy(found.fisher)[None], slices, means, 2e-3)
    np.testing.assert_allclose(found.domain, features.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert len(found.fisher) == stops[-1]


def test_head_score_is_that_of_a_held_out_quarter(pets: TaskEmbedding, folder: str, probe: PretrainedNetwork):
    sample = load_task_sample(folder, probe, SMALL)
    features = probe.body(probe.normalize(torch.from_numpy(sample.images))).numpy()
    score = held_out_score(features, sample.labels, SMALL.seed)
    assert pets.head_accuracy == score.accuracy
    assert pets.head_loss == pytest.approx(score.loss, rel=1e-3)


def test_same_seed_gives_the_same_bytes(digits: tuple):
    assert_same(embed_dataset("sklearn:digits", DIGITS), digits[0])


def test_probe_that_was_used_before_gives_the_same_bytes(pets: TaskEmbedding, folder: str):
    used = load_network(SMALL.probe)
    for _ in range(2):
        assert_same(embed_sample(load_task_sample(folder, used, SMALL), used, SMALL), pets)


def test_defaults_are_the_settings_without_arguments(folder: str):
    embedding = embed_dataset(folder)
    assert embedding.settings == EmbeddingSettings()
    assert embedding.space == space_of(load_network(EmbeddingSettings().probe), EmbeddingSettings())


def test_another_seed_draws_other_samples(digits: tuple):
    other = embed_dataset("sklearn:digits", replace(DIGITS, seed=1))
    assert other.dataset.fingerprint != digits[0].dataset.fingerprint
    assert not np.array_equal(other.domain, digits[0].domain)
    assert not np.array_equal(other.fisher, digits[0].fisher)


def test_another_seed_draws_other_label_directions(pets: TaskEmbedding, folder: str):
    """All images are used, so that the draw of the samples cannot differ."""
    other = embed_dataset(folder, replace(SMALL, seed=1))
    np.testing.assert_array_equal(other.domain, pets.domain)
    assert not np.array_equal(other.fisher, pets.fisher)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_batch_size_changes_only_the_rounding(folder: str, estimator: str):
    settings = replace(SMALL, estimator=estimator)
    whole, parts = (embed_dataset(folder, replace(settings, batch_size=size)) for size in (64, 2))
    tolerance = 1e-3 * whole.fisher.max()
    np.testing.assert_allclose(parts.fisher, whole.fisher, rtol=2e-3, atol=tolerance)
    np.testing.assert_allclose(parts.standard_error, whole.standard_error, rtol=2e-3, atol=tolerance)
    np.testing.assert_allclose(parts.domain, whole.domain, rtol=1e-4, atol=1e-5)
    assert parts.space == whole.space


def test_domain_is_blind_to_labels_and_fisher_is_not(
    probe: PretrainedNetwork, folder: str, pets: TaskEmbedding
):
    sample = load_task_sample(folder, probe, SMALL)
    shuffled = replace(sample, labels=sample.labels[::-1].copy())
    other = embed_sample(shuffled, probe, SMALL)
    np.testing.assert_array_equal(other.domain, pets.domain)
    assert not np.allclose(other.fisher, pets.fisher, rtol=0.01)


def test_split_is_respected(tmp_path: Path):
    write_splits(tmp_path)
    used = {
        split: embed_dataset(str(tmp_path), replace(SMALL, split=split)) for split in (None, "train", "test")
    }
    assert {split: embedding.num_samples_used for split, embedding in used.items()} == {
        None: 9,
        "train": 9,
        "test": 5,
    }
    np.testing.assert_array_equal(used[None].fisher, used["train"].fisher)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"estimator": "exact"}, False),
        ({"norm_weights": True}, False),
        ({"seed": 7}, True),
        ({"max_samples": 50}, True),
        ({"batch_size": 3}, True),
        ({"device": "cuda"}, True),
        ({"split": "train"}, True),
    ],
    ids=str,
)
def test_space_depends_on_what_is_estimated_only(probe: PretrainedNetwork, changes: dict, same: bool):
    other = space_of(probe, replace(SMALL, **changes))
    assert (other.space_id == space_of(probe, SMALL).space_id) == same


@pytest.mark.parametrize("name", ["name", "weights_hash", "transform"])
def test_space_depends_on_the_probe(probe: PretrainedNetwork, name: str):
    other = replace(probe, **{name: replace(probe.transform, crop=48) if name == "transform" else "other"})
    assert space_of(other, SMALL).space_id != space_of(probe, SMALL).space_id


def test_trivial_embedding_depends_on_the_space_alone(probe: PretrainedNetwork):
    trivial = embed_trivial(probe, SMALL)
    assert (trivial.shape, trivial.dtype) == ((count_filters(probe, nn.Conv2d),), np.float32)
    assert np.isfinite(trivial).all()
    assert (trivial > 0).all()
    again = embed_trivial(probe, replace(SMALL, seed=5, max_samples=9, split="train"))
    np.testing.assert_array_equal(again, trivial)


def test_trivial_task_asks_less_of_the_probe_than_digits(probe: PretrainedNetwork, digits: tuple):
    assert np.linalg.norm(embed_trivial(probe, DIGITS)) < np.linalg.norm(digits[0].fisher)


@pytest.mark.parametrize(
    ("data", "changes", "error", "message"),
    [
        (
            "folder",
            {"estimator": "exat"},
            UnknownNameError,
            "no estimator is named 'exat'; did you mean exact?",
        ),
        ("folder", {"device": "tpu"}, SettingsError, "no device is named 'tpu'"),
        ("folder", {"probe": "resnet14w32"}, UnknownNameError, "no network is named 'resnet14w32'"),
        ("./nowhere", {}, DataSpecError, "^./nowhere: "),
    ],
)
def test_wrong_settings_are_refused(
    folder: str, data: str, changes: dict, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        embed_dataset(folder if data == "folder" else data, replace(SMALL, **changes))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_cuda_agree():
    settings = replace(DIGITS, estimator="exact")  # its directions are not random
    on_cpu = embed_dataset("sklearn:digits", settings)
    on_cuda = embed_dataset("sklearn:digits", replace(settings, device="cuda"))
    assert on_cuda.space == on_cpu.space
    np.testing.assert_allclose(on_cuda.fisher, on_cpu.fisher, rtol=0.05, atol=0.01 * on_cpu.fisher.max())
    np.testing.assert_allclose(
        on_cuda.domain, on_cpu.domain, rtol=0.01, atol=0.01 * np.abs(on_cpu.domain).max()
    )
