"""A dataset in parts gives what it gives in one process, up to rounding."""

import re

import numpy as np
import pytest
from builders_datasets import write_folder, write_manifest

from indexer.embed import embed_dataset
from indexer.engines.shards import FisherWork, Workers, embed_shards, load_shards
from indexer.engines.work import EngineSettings
from indexer.errors import DataError, SettingsError
from indexer.networks.load import load_network
from indexer.records import EmbeddingSettings

PROBE = load_network("resnet14w16.tiny_imagenet")  # the smallest that ships
WORKERS = Workers(3, "serial", EngineSettings())


def settings_of(**options):
    """Settings of the small probe."""
    return EmbeddingSettings(probe="resnet14w16.tiny_imagenet", **options)


def check_same(found, expected):
    """Everything but the wall time, up to rounding in float32."""
    assert (found.space, found.dataset, found.settings) == (expected.space, expected.dataset, expected.settings)
    assert found.num_samples_used == expected.num_samples_used
    assert (found.head_accuracy, found.fallbacks) == (expected.head_accuracy, expected.fallbacks)
    assert found.head_loss == pytest.approx(expected.head_loss, rel=1e-5)
    for name in ("fisher", "standard_error", "domain"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6 * np.abs(other).max(), err_msg=name)


def embedded(data, workers, settings):
    """The embedding of data in parts."""
    sample = load_shards(str(data), PROBE, settings, workers)
    return embed_shards(sample, PROBE, settings, workers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes; one of 32 files cannot be decoded."""
    root = write_folder(tmp_path_factory.mktemp("shards") / "images", {"a": 12, "b": 11, "c": 9})
    (root / "b" / "003.png").write_bytes(b"no image")
    return root


@pytest.mark.parametrize(
    "estimator",
    ["signed", "exact", *(pytest.param(it, marks=pytest.mark.slow) for it in ("montecarlo", "empirical"))],
)
def test_parts_add_up_to_the_whole(folder, estimator):
    settings = settings_of(estimator=estimator, seed=5)
    expected = embed_dataset(str(folder), settings)
    assert expected.dataset.num_skipped == 1
    check_same(embedded(folder, WORKERS, settings), expected)


def test_the_random_numbers_are_those_of_one_process(folder):
    """Another seed, or parts that each began with the first numbers, would be far from the tolerance."""
    settings = settings_of(estimator="montecarlo")
    sample = load_shards(str(folder), PROBE, settings, WORKERS)
    expected = embed_shards(sample, PROBE, settings, WORKERS).fisher

    class Forgetful(Workers):
        def run(self, works, stage, progress):
            started = [FisherWork(it.shard, it.digests, it.head, it.labels, 0) for it in works]
            return super().run(started, stage, progress)

    wrong = embed_shards(sample, PROBE, settings, Forgetful(3, "serial", EngineSettings())).fisher
    assert np.median(np.abs(wrong - expected) / expected.clip(1e-9)) > 1e-2


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_other_kinds_of_tasks_in_parts(tmp_path, kind):
    write_folder(tmp_path, {"x": 24})
    rows = [
        (
            f"x/{number:03d}.png",
            ("red|round", "red", "round", "")[number % 4] if kind == "multi_label" else number / 7,
        )
        for number in range(24)
    ]
    columns = ("path", "label" if kind == "multi_label" else "target")
    manifest = write_manifest(tmp_path / "list.csv", rows, columns)
    expected = embed_dataset(manifest, settings_of())
    assert expected.dataset.kind == kind
    check_same(embedded(manifest, WORKERS, settings_of()), expected)


def test_any_number_of_parts(tmp_path):
    """With 1,000 there is one for each sample, and the one of an unreadable file has none."""
    root = write_folder(tmp_path / "images", {"a": 6, "b": 6})
    (root / "a" / "000.png").write_bytes(b"no image")
    expected = embed_dataset(str(root), settings_of())
    for shards in (1, 4, 1000):
        check_same(embedded(root, Workers(shards, "serial", EngineSettings()), settings_of()), expected)


@pytest.mark.slow
def test_processes_give_the_same_bytes_as_serial_parts(folder):
    there = embedded(folder, Workers(2, "processes", EngineSettings(jobs=2)), settings_of())
    here = embedded(folder, Workers(2, "serial", EngineSettings()), settings_of())
    assert there.fisher.tobytes() == here.fisher.tobytes()
    assert there.standard_error.tobytes() == here.standard_error.tobytes()


def test_data_that_changes_between_the_passes_is_told(tmp_path):
    root = write_folder(tmp_path / "images", {"a": 3, "b": 3})
    sample = load_shards(str(root), PROBE, settings_of(), WORKERS)
    (root / "a" / "000.png").write_bytes((root / "b" / "000.png").read_bytes())
    with pytest.raises(
        DataError, match=re.escape(f"{root}: has changed while it was embedded; embed it again")
    ):
        embed_shards(sample, PROBE, settings_of(), WORKERS)


def test_what_cannot_be_done_in_parts_is_refused(folder):
    message = "shards use every sample, so a tolerance would stop nothing; leave one of them out"
    with pytest.raises(SettingsError, match=re.escape(message)):
        load_shards(str(folder), PROBE, settings_of(tolerance=0.1), WORKERS)


@pytest.mark.parametrize("shards", [0, 100_001])
def test_numbers_of_parts_out_of_range_are_refused(shards):
    with pytest.raises(SettingsError, match=re.escape(f"shards must be from 1 to 100000, got {shards}")):
        Workers(shards, "serial", EngineSettings())
