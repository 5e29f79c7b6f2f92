"""The bridge to the indexer: what a spec means from anywhere, its records, and its errors in our words."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from builders import make_space, make_task
from builders_datasets import write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.experts.few_shot import PROTOCOL, measure_expert
from indexer.records import DEFAULT_PROBE, HEAD_METRICS, MAX_SEED, EmbeddingSettings
from registry.errors import IngestError, NotFoundError
from registry.experts import sources as expert_sources
from registry.ingest import data, networks, prepare
from registry.options import EmbeddingOptions


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Class folders of 12 small images."""
    return write_folder(tmp_path_factory.mktemp("data") / "images", {"no": 6, "yes": 6})


@pytest.fixture(scope="module")
def prepared(images):
    """The images, ready to be embedded."""
    return prepare.prepare_task(str(images), data.make_settings(max_samples=10))


def fails(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}")


# Specs and settings


def test_a_loader_of_a_file_means_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.absolute_loader("resnet20@a.pt") == f"resnet20@{tmp_path}/a.pt"
    assert data.absolute_loader("resnet20@~/b@c.pt") == f"resnet20@{tmp_path}/home/b@c.pt"
    assert data.absolute_loader(f"resnet20@{tmp_path}/a.pt") == f"resnet20@{tmp_path}/a.pt"


def test_a_loader_by_name_is_no_file_even_beside_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18.IMAGENET1K_V1").touch()
    assert data.absolute_loader("resnet18.IMAGENET1K_V1") == "resnet18.IMAGENET1K_V1"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("images", True),
        ("./nonesuch", True),
        ("nonesuch.csv", True),
        ("sklearn:digits", True),
        ("nonesuch", False),
        ("flowers@2", False),
        ("x" * 5000, False),
        ("nul\0", False),
    ],
)
def test_what_looks_like_data(images, monkeypatch, query, expected):
    monkeypatch.chdir(images.parent)
    assert data.looks_like_data(query) is expected


@given(query=st.text(max_size=300))
@settings(deadline=None)
def test_whether_it_looks_like_data_can_be_asked_of_any_text(query):
    assert data.looks_like_data(query) in {True, False}
    assert not ("/" in query or ":" in query) or data.looks_like_data(query)


def test_settings_left_out_are_the_defaults():
    assert data.make_settings(probe=None, max_samples=None, seed=None, split=None) == EmbeddingSettings()
    assert data.make_settings(seed=MAX_SEED).seed == 2**32 - 1
    assert data.default_probe() == DEFAULT_PROBE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
        ({"max_samples": 1}, "max_samples must be at least 2, got 1"),
        ({"tolerance": 1.0}, "tolerance must be between 0 and 1, got 1"),
        ({"memory_budget": 1e6}, "memory_budget must be at least 16777216, got 1000000"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"value_range": (3, 2)}, "value_range must be two rising finite numbers, got 3 and 2"),
        ({"channels": "grey"}, "channels must be auto, mean, tile or three indices such as 3,2,1, got 'grey'"),
    ],
)
def test_a_setting_out_of_range_is_an_error_of_ours(values, message):
    with fails(IngestError, f"{message}"):
        data.make_settings(**values)


def test_options_are_the_settings_of_the_indexer():
    assert set(EmbeddingOptions.__annotations__) == {it.name for it in dataclasses.fields(EmbeddingSettings)}


def test_the_default_recipe_is_that_of_the_default_settings(prepared):
    description = json.loads(prepared.space_record().description)
    assert data.default_recipe() == (description["estimator"], description["pooling"])


def test_head_metrics_are_named_by_kind():
    assert {kind: data.head_metric(kind) for kind in HEAD_METRICS} == HEAD_METRICS


def test_estimators_are_listed_with_a_summary():
    found = {estimator.name: estimator.summary for estimator in networks.list_estimators()}
    assert {"montecarlo", "signed", "exact", "empirical"} <= set(found)
    assert all(found.values())


def test_an_unknown_estimator_is_refused_before_the_work(images):
    settings = data.make_settings(estimator="sined")
    with fails(NotFoundError, "no estimator is named 'sined'; did you mean signed?"):
        prepare.prepare_task(str(images), settings, lambda *event: pytest.fail("it has begun to work"))


# What a task remembers of its settings


def key_of(**options):
    return prepare.PreparedTask(None, None, data.make_settings(**options)).settings_key


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, '{"max_samples": 2000, "seed": 0, "split": null}'),
        ({"max_samples": 50}, '{"max_samples": 50, "seed": 0, "split": null}'),
        ({"seed": 3, "split": "test"}, '{"max_samples": 2000, "seed": 3, "split": "test"}'),
        (
            {"channels": "auto", "tolerance": None, "value_range": None},
            '{"max_samples": 2000, "seed": 0, "split": null}',
        ),
        (
            {"batch_size": 8, "memory_budget": 2**29, "device": "cpu", "estimator": "exact"},
            '{"max_samples": 2000, "seed": 0, "split": null}',
        ),
        ({"channels": "3,2,1"}, '{"channels": "3,2,1", "max_samples": 2000, "seed": 0, "split": null}'),
        (
            {"tolerance": 0.1, "value_range": (0, 4095)},
            ('{"max_samples": 2000, "seed": 0, "split": null, "tolerance": 0.1, "value_range": [0.0, 4095.0]}'),
        ),
    ],
)
def test_the_settings_of_a_task_are_these_very_bytes(options, key):
    """Registered tasks are found again by this text: the first two are what version 1 wrote."""
    assert key_of(**options) == key


def test_whole_numbers_mean_the_same_range():
    assert key_of(value_range=(0, 255)) == key_of(value_range=(0.0, 255.0))


# Tasks


def test_a_task_record_says_what_the_data_is_and_where(images, monkeypatch):
    monkeypatch.chdir(images.parent)
    prepared = prepare.prepare_task("images", data.make_settings(max_samples=10, seed=3))
    record = prepared.task_record("noise", 2, ("b", "a"))
    assert (record.name, record.version, record.tags, record.builtin) == ("noise", 2, ("a", "b"), False)
    assert record.data == str(images)
    assert (record.num_classes, record.num_samples, record.class_names) == (2, 12, ("no", "yes"))
    assert record.fingerprint == prepared.fingerprint
    assert json.loads(record.settings) == {"max_samples": 10, "seed": 3, "split": None}


def test_data_with_an_at_sign_is_no_loader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "a@b", {"no": 2, "yes": 2})
    (tmp_path / "b").mkdir()
    assert prepare.prepare_task("a@b", data.make_settings()).task_record("x", 1, ()).data == f"{tmp_path}/a@b"


def test_embedding_and_space_records_fit_each_other(prepared):
    embedding, space = prepared.embed(), prepared.space_record()
    record = prepare.embedding_record("noise", 1, embedding)
    assert prepared.space_id == space.space_id == embedding.space.space_id
    assert (len(record.fisher), len(record.standard_error), len(record.domain)) == (
        space.dim,
        space.dim,
        space.domain_dim,
    )
    assert (space.trivial > 0).all()
    assert (space.probe, space.probe_source) == (DEFAULT_PROBE, DEFAULT_PROBE)
    description = json.loads(space.description)
    assert (description["probe"], description["estimator"]) == (DEFAULT_PROBE, EmbeddingSettings().estimator)
    added = prepared.added(prepared.task_record("noise", 1, ()), record, created=True)
    assert (added.space, added.norm, added.num_samples_used) == (space.space_id, record.norm, 10)
    assert added.warnings == ("only 10 samples; below 100 an embedding is a rough guess",)


def test_the_space_depends_on_the_probe_but_not_on_data_and_seed(images, prepared):
    other = prepare.prepare_task(str(images), data.make_settings(max_samples=8, seed=9))
    assert other.space_id == prepared.space_id
    assert other.settings_key != prepared.settings_key
    expert = prepare.prepare_task(str(images), data.make_settings(probe="resnet14w32.mnist", max_samples=10))
    assert expert.space_id != prepared.space_id
    assert (expert.fingerprint, expert.settings_key) == (prepared.fingerprint, prepared.settings_key)


def test_errors_of_the_indexer_become_ours(images, tmp_path):
    with fails(IngestError, f"{tmp_path}: holds no class folders") as caught:
        prepare.prepare_task(str(tmp_path), data.make_settings())
    assert type(caught.value.__cause__).__name__ == "DataError"
    with fails(NotFoundError, "no network is named 'resnet18.V9'; did you mean"):
        prepare.prepare_task(str(images), data.make_settings(probe="resnet18.V9"))


def test_a_space_that_is_made_no_more_cannot_be_compared_with(images, prepared):
    made = prepared.space_record()
    assert prepare.embed_in_space(str(images), made).space.space_id == made.space_id
    former = make_space("former", probe=DEFAULT_PROBE, probe_source=DEFAULT_PROBE)
    with fails(
        IngestError,
        f"{images} cannot be compared with the tasks of space former: the weights of {DEFAULT_PROBE},",
    ):
        prepare.embed_in_space(str(images), former)


@pytest.mark.parametrize(
    "recipe", [{"estimator": "exact"}, {"norm_weights": True}], ids=["estimator", "pooling"]
)
def test_data_is_embedded_as_the_space_was(images, recipe):
    made = prepare.prepare_task(str(images), data.make_settings(max_samples=8, **recipe))
    space = made.space_record()
    assert space.recipe != data.default_recipe()
    embedding = prepare.embed_in_space(str(images), space, max_samples=8)
    assert embedding.space.space_id == space.space_id
    np.testing.assert_array_equal(embedding.fisher, made.embed().fisher)


def test_data_is_read_as_the_options_say(tmp_path, prepared):
    folder = write_folder(tmp_path / "train", {"no": 5, "yes": 4}) and write_folder(
        tmp_path / "test", {"no": 3, "yes": 3}
    )
    embedding = prepare.embed_in_space(
        str(folder.parent), prepared.space_record(), split="test", max_samples=5, seed=1
    )
    assert (embedding.num_samples_used, embedding.settings.seed) == (5, 1)
    assert embedding.dataset.num_samples == 6


# Experts


def test_an_expert_is_described_by_what_is_measured(monkeypatch, shared):
    monkeypatch.chdir(shared)
    expert = expert_sources.describe_expert(
        None, "resnet20@weights/resnet20.cifar10.safetensors", license="MIT"
    )
    assert (expert.name, expert.input_size, expert.license) == ("resnet20.cifar10", 32, "mit")
    assert expert.loader == f"resnet20@{Path('weights/resnet20.cifar10.safetensors').resolve()}"
    # He et al. count 0.27M parameters and 41M multiply-adds.
    assert expert.num_params == pytest.approx(0.27e6, rel=0.02)
    assert expert.flops == pytest.approx(41e6, rel=0.02)


def task_of(data, split=None):
    settings = json.dumps({"max_samples": 2000, "seed": 0, "split": split})
    return make_task("noise", data=str(data), settings=settings)


def test_an_expert_is_measured_on_the_data_as_the_task_reads_it(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "indexer.experts.few_shot.measure_expert", lambda *words, **options: seen.update(options)
    )
    settings = {"max_samples": 9, "seed": 5, "split": "test", "channels": "2,1,0", "value_range": [0.0, 9.0]}
    task = make_task(data=str(tmp_path), settings=json.dumps(settings | {"tolerance": 0.1}))
    measured(task)
    assert seen == {
        "split": "test",
        "channels": "2,1,0",
        "value_range": (0.0, 9.0),
        "skip_bad": True,
        "seed": 0,
        "device": "cpu",
        "progress": None,
    }


def measured(task, **options):
    options = {"seed": 0, "device": "cpu", "progress": None} | options
    return networks.measure_expert("resnet14w32.mnist", task, **options)


def test_an_expert_is_measured_on_the_split_that_was_registered(tmp_path):
    for split, seed in (("train", 4), ("test", 7)):
        write_folder(tmp_path / split, {"no": seed, "yes": seed})
    on_test = measure_expert("resnet14w32.mnist", str(tmp_path / "test"), device="cpu")
    assert on_test.protocol == PROTOCOL
    assert measured(task_of(tmp_path, "test")) == on_test
    assert measured(task_of(tmp_path)) == measure_expert(
        "resnet14w32.mnist", str(tmp_path / "train"), device="cpu"
    )


def test_data_that_did_not_ship_or_has_moved_cannot_be_measured(tmp_path):
    with fails(
        IngestError,
        "task noise is starter content, whose images do not ship with this package; "
        "experts can be measured on tasks that you add",
    ):
        measured(task_of(f"{data.NOT_SHIPPED}noise"))
    with fails(
        IngestError, f"the data of task noise is no longer at {tmp_path / 'gone'}; put it back, or say where"
    ):
        measured(task_of(tmp_path / "gone"))


def test_a_seed_that_cannot_be_stored_is_refused_before_the_work(tmp_path):
    with fails(IngestError, "seed must be at most 4294967295, got 18446744073709551616"):
        measured(task_of(tmp_path / "gone"), seed=2**64)


def test_networks_are_listed_with_the_default_probe_among_them():
    assert DEFAULT_PROBE in {
        network.name for network in networks.list_networks() if network.source == "builtin"
    }


def test_progress_is_told_stage_by_stage(prepared, images):
    seen = []
    prepare.prepare_task(str(images), prepared.settings, lambda *event: seen.append(event)).embed(
        lambda *event: seen.append(event)
    )
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages[0] == "decode"
    assert stages[-1] == "fisher"
    assert all(1 <= done <= total == 10 for _, done, total in seen)
