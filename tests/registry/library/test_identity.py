"""Identity is content: data and weights that changed, moved, or came under a name that was another's."""

import json
import re
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_expert, make_result, make_task
from builders_datasets import encoded, noise_image, write_folder, write_manifest, write_npz, write_tar
from builders_texts import write_texts
from command_lines import ok, t2v
from small_stores import add, insert
from torch import nn

from indexer.data.samples import SurveyedDataset
from indexer.networks.loaders import BUILTIN_FOLDER
from indexer.records import EmbeddingSettings
from registry import TaskRegistry
from registry.errors import IngestError, InvalidQueryError, InvalidRecordError, NotFoundError
from registry.gate import OTHER_DATA
from registry.ingest.identity import changed_weights, data_difference
from registry.storage.store import Store

MNIST, OTHER = (BUILTIN_FOLDER / f"resnet14w32.{name}.safetensors" for name in ("mnist", "hiragana"))


def refuses(*parts, error=InvalidRecordError):
    """The error of a change, which names all of these."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, parts)))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twelve images as a task, measured with a network in a file of its own; tests work on copies."""
    root = tmp_path_factory.mktemp("made")
    shutil.copy(MNIST, write_folder(root / "images", {"no": 6, "yes": 6}).parent / "best.safetensors")
    registry = TaskRegistry(root / "registry")
    registry.init(empty=True)
    registry.add_task("images", str(root / "images"), tags=["grey"])
    registry.add_expert(f"resnet14w32@{root / 'best.safetensors'}", name="mine")
    (root / "more.csv").write_text("expert,loader,license\ncatalogue.x,resnet14w32@best.safetensors,mit\n")
    registry.import_experts(root / "more.csv")
    return root


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of all that, as if it had always been there."""
    shutil.copytree(made, tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    store = Store(tmp_path / "made" / "registry")
    with store.write_lock():
        store.update_tasks([make_moved(task, str(tmp_path / "made" / "images")) for task in store.tasks()])
        file = f"resnet14w32@{tmp_path / 'made' / 'best.safetensors'}"
        store.update_experts([make_moved(expert, file) for expert in store.experts()])
    return tmp_path / "made"


def make_moved(record, place):
    return replace(record, **{"data" if hasattr(record, "data") else "loader": place})


# What tells data from other data


def registered(spec, max_samples=2000):
    """A task of a data spec, nothing embedded."""
    asked = {"max_samples": max_samples, "seed": 0, "split": None}
    data = SurveyedDataset.open(str(spec), EmbeddingSettings(max_samples=max_samples))
    return make_task(
        "data",
        data=str(spec),
        kind=data.listing.kind,
        class_names=data.listing.class_names,
        num_samples=data.survey.num_samples,
        fingerprint=data.fingerprint(),
        settings=json.dumps(asked),
    )


def manifest_of(root, *, labels=("a", "b", "a", "b"), suffix=".csv"):
    write_folder(root, {"x": 4})
    return write_manifest(
        root / f"list{suffix}", [(f"x/00{row}.png", label) for row, label in enumerate(labels)]
    )


def test_every_layout_tells_what_changed(tmp_path):
    images = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    noise = {f"{name}/{n}.png": encoded(noise_image(n), "PNG") for n in range(2) for name in "ab"}
    folder = write_folder(tmp_path / "folder", {"cat": 3, "dog": 3})
    renamed = write_folder(tmp_path / "renamed", {"cat": 3, "dog": 3})
    manifest = manifest_of(tmp_path / "manifest")
    array = write_npz(tmp_path / "a.npz", images=images, labels=np.array([0, 1, 0, 1]))
    labels = write_npz(tmp_path / "l.npz", images=images, labels=np.array([0, 1, 0, 1]))
    tar = write_tar(tmp_path / "t.tar", noise)
    texts = write_texts(
        tmp_path / "texts.csv", [("good", "yes"), ("fine", "yes"), ("bad", "no"), ("ill", "no")]
    )
    tasks = [registered(spec) for spec in (folder, renamed, manifest, array, labels, tar, texts)]
    assert [data_difference(task) for task in tasks] == [""] * 7

    pixels = bytearray((folder / "cat" / "000.png").read_bytes())
    pixels[-20] ^= 1  # another file of the same name and size
    (folder / "cat" / "000.png").write_bytes(pixels)
    (renamed / "dog").rename(renamed / "wolf")
    manifest_of(tmp_path / "again", labels=("a", "b", "b", "a"))
    shutil.copy(tmp_path / "again" / "list.csv", manifest)
    write_npz(array, images=images[::-1], labels=np.array([0, 1, 0, 1]))
    write_npz(labels, images=images, labels=np.array([1, 0, 0, 1]))
    write_tar(tar, noise | {"a/0.png": encoded(noise_image(7), "PNG")})
    write_texts(texts, [("good", "yes"), ("fine", "yes"), ("bad", "no"), ("all", "no")])
    for task in tasks:
        before, now = data_difference(task).split("; now")
        assert f"samples of {', '.join(task.class_names)}, fingerprint {task.fingerprint[:8]}" in before
        assert "samples of" in now
        assert task.fingerprint[:8] not in now
    assert data_difference(tasks[1]).endswith("; now: 6 samples of cat, wolf")
    shutil.rmtree(renamed)
    assert "; now it makes no task: " in data_difference(tasks[1])


# Measuring, trying and recording


def change_images(place):
    shutil.rmtree(place / "images")
    write_folder(place / "images", {"x": 5, "y": 5, "z": 5}, first_seed=7)


def test_changed_data_is_refused_wherever_results_come_from(place):
    registry = TaskRegistry(place / "registry")
    (place / "results.csv").write_text("task,expert,accuracy\nimages,mine,0.25\n")
    change_images(place)
    how = "12 samples of no, yes", "now: 15 samples of x, y, z", "as_new_version=True", "anyway=True"
    for attempt in (
        lambda: registry.measure("images", "mine"),
        lambda: registry.measure("images@1", "mine", record=False),
        lambda: registry.recommend("images", num_trials=1),
        lambda: registry.add_result("images", "mine", accuracy=0.5),
        lambda: registry.import_results(place / "results.csv"),
    ):
        with refuses("the data of images@1 at", *how):
            attempt()
    done = t2v(place / "registry", "result", "measure", "images", "mine")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    with refuses("anyway and as_new_version exclude each other", error=InvalidQueryError):
        registry.measure("images", "mine", anyway=True, as_new_version=True)
    with refuses("would change nothing without trials", error=InvalidQueryError):
        registry.recommend("images", anyway=True)
    assert registry.results() == []


def test_anyway_marks_results_as_of_other_data_and_a_new_version_takes_them(place):
    registry = TaskRegistry(place / "registry")
    registry.add_result("images", "mine", accuracy=0.9, protocol="p")
    change_images(place)
    assert (
        registry.add_result("images", "mine", accuracy=0.1, protocol="p", anyway=True).task_version
        == OTHER_DATA
    )
    answer_of_own = registry.recommend("images", protocol="p", toys=True, experts=["mine"], published=False)
    (expert,) = answer_of_own.recommendations
    assert (expert.expected_accuracy, expert.evidence.results) == (pytest.approx(0.9, abs=0.02), 1)
    listed = ok(place / "registry", "result", "list", "--task", "images").stdout
    assert "other data" in listed
    said = ok(place / "registry", "result", "measure", "images", "mine", "--anyway").stderr
    assert said.endswith("Recorded, marked as of other data than is registered.\n")

    (place / "results.csv").write_text("task,expert,accuracy\nimages,mine,0.25\n")
    assert registry.import_results(place / "results.csv", as_new_version=True) == (1, [])
    latest = registry.task("images")
    assert (latest.version, latest.class_names, latest.tags) == (2, ("x", "y", "z"), ("grey",))
    assert registry.measure("images", "mine").task_version == 2
    versions = [(result.task_version, result.accuracy) for result in registry.results(task="images")]
    assert {(1, 0.9), (OTHER_DATA, 0.1), (2, 0.25)} <= set(versions)
    # The same file again is the same measurement, also once there is other data under the name.
    change = place / "images" / "x" / "000.png"
    noise_image(99).save(change)
    registry.add_task("images", str(place / "images"))
    assert registry.import_results(place / "results.csv") == (0, [])
    # What names a version of its own is a result of that, whatever is at its place now.
    assert registry.add_result("images@1", "mine", accuracy=0.7).task_version == 1


def test_overwritten_weights_are_refused_wherever_results_come_from(place):
    registry = TaskRegistry(place / "registry")
    assert registry.measure("images", "catalogue.x").weights_hash == registry.expert("mine").weights_hash
    assert (
        registry.expert("catalogue.x").weights_hash == registry.expert("mine").weights_hash
    )  # held from now on
    shutil.copy(OTHER, place / "best.safetensors")
    (place / "results.csv").write_text("task,expert,accuracy\nimages,mine,0.25\n")
    before = registry.expert("mine").weights_hash[:8]
    for attempt in (
        lambda: registry.measure("images", "mine"),
        lambda: registry.measure("images", "catalogue.x"),
        lambda: registry.add_result("images", "mine", accuracy=0.5),
        lambda: registry.import_results(place / "results.csv"),
    ):
        with refuses(
            "are not those that were registered", f"hash {before}; now: ", "--name NAME", "anyway=True"
        ):
            attempt()
    tried = registry.recommend("images", num_trials=1, toys=True, experts=["mine"])
    assert tried.trials == ()
    assert any("not those that were registered" in warning for warning in tried.warnings)
    marked = registry.measure("images", "mine", anyway=True)
    assert marked.weights_hash[:8] not in {before, ""}
    assert "mine (other weights)" in ok(place / "registry", "result", "list").stdout
    assert registry.recommend("images").recommendations[0].evidence.results <= 1  # that of catalogue.x


def test_recorded_trials_carry_what_was_tried(place):
    registry = TaskRegistry(place / "registry")
    registry.recommend("images", num_trials=2, toys=True, record=True)
    results = registry.results(task="images")
    assert {result.expert for result in results} == {"mine", "catalogue.x"}
    assert {(it.task_version, it.weights_hash) for it in results} == {(1, registry.expert("mine").weights_hash)}
    assert registry.expert("catalogue.x").weights_hash


def test_files_are_read_only_if_they_were_written_since(tmp_path):
    path = tmp_path / "net.pt"

    def save(value):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
        for weights in network.parameters():
            nn.init.constant_(weights, value)
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
            torch.jit.trace(network, torch.zeros(1, 3, 224, 224)).save(str(path))

    registry = TaskRegistry(tmp_path / "registry")
    registry.init(empty=True)
    save(0.1)
    expert = registry.add_expert(f"torchscript:{path}", name="script")
    assert changed_weights(expert) == ""
    save(0.2)
    assert changed_weights(expert) not in {"", expert.weights_hash}
    save(0.1)
    assert changed_weights(expert) == ""
    path.write_bytes(b"none of it")
    early = make_expert(loader=expert.loader, created_at="2999-01-01T00:00:00+00:00", weights_hash="1")
    assert changed_weights(early) == ""  # not opened
    assert changed_weights(make_expert("unread.x", loader=expert.loader)) == ""
    with pytest.raises(IngestError, match="not TorchScript"):
        changed_weights(expert)


# Moving


def test_moved_data_is_read_from_its_new_place(place):
    registry = TaskRegistry(place / "registry")
    (place / "images").rename(place / "new")
    with refuses("is no longer at", "`t2v task move images NEW-PLACE`", error=IngestError):
        registry.measure("images", "mine")
    assert registry.add_result("images", "mine", accuracy=0.5).task_version == 1  # nothing to compare with
    with refuses("there is nothing at", error=IngestError):
        registry.move_task("images", "elsewhere")
    write_folder(place / "else", {"no": 6, "yes": 6}, first_seed=3)
    with refuses("else does not hold the data of images@1", "so nothing was moved"):
        registry.move_task("images", "else")
    done = ok(place / "registry", "task", "move", "images", "new")  # of this working folder
    assert done.stderr == f"images@1 is now read from {place / 'new'}.\n"
    assert registry.task("images").data == str(place / "new")
    assert [line.action for line in registry.history("images").audit][-1] == "task.move"
    assert registry.measure("images", "mine").recorded


def test_adding_again_from_another_place_moves_and_keeps_tags(place):
    shutil.copytree(place / "images", place / "copy")
    done = ok(place / "registry", "task", "add", "images", "copy", "--tag", "more")
    assert done.stderr.splitlines()[:3] == [
        "images@1 is registered already, with this very data and these settings.",
        f"images@1: its data is now read from {place / 'copy'}, no longer from {place / 'images'}.",
        "images@1: it got the tags more.",
    ]
    (place / "many.csv").write_text("name,data,tags\nimages,images,most\n")
    many = TaskRegistry(place / "registry").add_many(place / "many.csv").tasks[0]
    assert (many.status, len(many.notes)) == ("unchanged", 2)
    task = TaskRegistry(place / "registry").task("images")
    assert (task.data, task.tags) == (str(place / "images"), ("grey", "more", "most"))
    noise_image(5).save(place / "images" / "no" / "000.png")
    added = TaskRegistry(place / "registry").add_task("images", "images")
    assert (added.version, added.notes) == (
        2,
        ("its data is not that of images@1, whose results stay with that version",),
    )


# Names that were another's


def test_a_name_that_is_given_again_inherits_nothing(store, tmp_path):
    registry = TaskRegistry(store.uri)
    store.add_experts([make_expert("a.x"), make_expert("b.x")])
    unsaid = make_result("flowers", "a.x", 0.9, protocol="before")  # of before results named versions
    insert(store, "results", [unsaid])
    add(store, "flowers")
    assert store.add_results([make_result("flowers", "a.x", 0.8)])[0].task_version == 1
    store.remove_task("flowers")
    add(store, "flowers", 2, fingerprint="other")
    assert {result.task_version for result in store.results()} == {1}
    assert store.add_results([make_result("flowers", "b.x", 0.3)])[0].task_version == 2

    store.remove_expert("a.x")
    store.add_experts([make_expert("a.x", num_params=7)])
    (weights,) = {result.weights_hash for result in store.results(expert="a.x")}
    assert ("a.x", weights) in store.removed_weights()
    store.add_results([make_result("flowers", "a.x", 0.4)])
    asked = registry.recommend("flowers", published=False, protocol="unspecified").recommendations
    assert {line.expert: (line.measured, line.evidence.results) for line in asked} == {
        "a.x": (True, 1),
        "b.x": (True, 1),
    }
    store.remove_expert("a.x")
    store.restore_expert("a.x")
    assert store.expert("a.x").num_params == 7
    assert [(it.accuracy, it.weights_hash) for it in store.results(expert="a.x") if not it.weights_hash] == [
        (0.4, "")
    ]


def test_a_further_version_leaves_results_with_the_data_before(store):
    add(store, "flowers")
    insert(store, "results", [make_result("flowers", "a.x", 0.9)])
    add(store, "flowers", 2, fingerprint="other")
    assert [result.task_version for result in store.results()] == [1]


# Other names of an expert


def test_an_alias_joins_the_same_weights_and_no_others(store):
    registry = TaskRegistry(store.uri)
    add(store, "flowers")
    store.add_experts([make_expert("a.x"), make_expert("b.x"), make_expert("c.x")])
    for name, accuracy in (("a.x", 0.9), ("b.x", 0.6), ("c.x", 0.9)):
        store.add_results([make_result("flowers", name, accuracy)])
    message = (
        "b.x cannot be another name of a.x: a.x and b.x are named as the same weights, but they measured 0.9 "
        "and 0.6 on flowers@1 (accuracy, unspecified); choose another alias, or correct the results first"
    )
    with refuses(message):
        registry.alias_expert("a.x", "b.x")
    assert ok(store.uri, "expert", "alias", "a.x", "c.x").stderr == "a.x is also called c.x.\n"
    assert ok(store.uri, "expert", "alias", "a.x", "team/best").stderr == "a.x is also called c.x, team/best.\n"
    assert registry.expert("team/best").name == "a.x"
    assert registry.add_result("flowers", "team/best", accuracy=0.88, seed=1).expert == "a.x"
    with refuses("'no such' cannot name an expert"):
        registry.alias_expert("a.x", "no such")
    assert ok(store.uri, "expert", "alias", "a.x", "team/best", "--remove").exit_code == 0
    with refuses("no alias is named 'team/best'", error=NotFoundError):
        registry.unalias_expert("a.x", "team/best")
    assert registry.expert("a.x").aliases == ("c.x",)
    actions = [line.details for line in store.audit("a.x") if line.action == "expert.update"]
    assert [json.loads(one) for one in actions] == [
        {"alias": "c.x"},
        {"alias": "team/best"},
        {"unalias": "team/best"},
    ]
