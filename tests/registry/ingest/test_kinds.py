"""Tasks of every kind, and what may be said about embedding them, from the command line to the tables."""

import json
import re

import numpy as np
import pytest
from builders import make_embedding, make_space, make_task
from builders_datasets import noise_image, write_folder, write_manifest
from command_lines import RECIPE, answer, ok, t2v

from registry import TaskRegistry
from registry.errors import IngestError, InvalidQueryError
from registry.ingest import networks
from registry.options import DataOptions, EmbeddingOptions
from registry.storage.store import Store

ROUGH = "Warning: only 12 samples; below 100 an embedding is a rough guess\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One folder of 12 images, and manifests that make a multi-label task and a regression of it."""
    root = tmp_path_factory.mktemp("data")
    for number in range(12):
        noise_image(number).save(root / f"{number}.png")
    labels = ["red|round", "round", "red", ""]
    several = [(f"{number}.png", labels[number % 4]) for number in range(12)]
    numbers = [(f"{number}.png", f"{number / 7}|{-number}|{number % 3}") for number in range(12)]
    write_manifest(root / "several.csv", several)
    write_manifest(root / "numbers.csv", numbers, ("path", "target"))
    write_folder(root / "one", {"no": 6, "yes": 6})
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data):
    """A registry with a task of each kind, really embedded; tests only read it."""
    folder = tmp_path_factory.mktemp("kinds")
    registry = TaskRegistry(folder)
    registry.init(empty=True)
    registry.add_task("one", str(data / "one"))
    registry.add_task("several", str(data / "several.csv"))
    registry.add_task("numbers", str(data / "numbers.csv"), tolerance=0.001)
    return folder


def store_of_kinds(folder):
    """A registry with a task of each kind in a space of width 4, not embedded."""
    store = Store.create(folder)
    store.add_space(make_space(description=RECIPE))
    for kind, accuracy in (("single_label", 0.75), ("multi_label", 0.5), ("regression", -0.125)):
        settings = {"max_samples": 60, "seed": 0, "split": None}
        if kind == "regression":
            settings["tolerance"] = 0.2
        task = make_task(kind, kind=kind, settings=json.dumps(settings))
        embedding = make_embedding(kind, head_accuracy=accuracy, num_samples_used=40)
        store.add_task(task, "space0", embedding)
    return folder


@pytest.mark.parametrize(
    ("kind", "lines", "row"),
    [
        ("single_label", ["classes no, yes"], "signed filter_mean space0 40 0.750"),
        ("multi_label", ["labels no, yes"], "signed filter_mean space0 40 0.500"),
        ("regression", ["targets no, yes"], "signed filter_mean space0 40 of 60 -0.125"),
    ],
)
def test_a_card_says_what_the_names_and_the_score_are(tmp_path, kind, lines, row):
    shown = ok(store_of_kinds(tmp_path), "task", "show", kind).stdout
    words = [" ".join(line.split()) for line in shown.splitlines()]
    assert {f"kind {kind}", *lines} <= set(words)
    assert any(line.startswith(f"tiny.test {row}") for line in words)
    metric = {"single_label": "balanced accuracy", "multi_label": "mean average precision", "regression": "R²"}[
        kind
    ]
    assert f"\t{metric}\t" in shown
    assert words[-1].endswith("0.100 (tolerance 0.2)" if kind == "regression" else "0.100")


def test_lists_tell_the_kind_and_filter_by_it(tmp_path):
    folder = store_of_kinds(tmp_path)
    documents = answer(folder, "task", "list", "--where", "kind in ('multi_label', 'regression')")
    assert [(it["task"], it["kind"], it["head_metric"], it["num_classes"]) for it in documents] == [
        ("multi_label", "multi_label", "mean average precision", 2),
        ("regression", "regression", "R²", 2),
    ]
    shown = ok(folder, "task", "list", "--where", "kind = 'regression'").stdout
    assert shown.splitlines()[-1].split()[:4] == ["regression", "1", "regression", "2"]


def test_a_card_in_json_says_how_many_samples_were_drawn_and_asked_for(tmp_path):
    card = answer(store_of_kinds(tmp_path), "task", "show", "regression")
    assert (card["num_samples_drawn"], card["tolerance"]) == (60, 0.2)
    assert [(it["num_samples_used"], it["estimator"], it["pooling"]) for it in card["embeddings"]] == [
        (40, "signed", "filter_mean")
    ]


def test_tasks_of_every_kind_are_embedded_and_compared(folder):
    registry = TaskRegistry(folder)
    assert {task.name: (task.kind, task.class_names) for task in registry.tasks()} == {
        "one": ("single_label", ("no", "yes")),
        "several": ("multi_label", ("red", "round")),
        "numbers": ("regression", registry.task("numbers").class_names),
    }
    assert registry.task("numbers").num_classes == 3
    assert {it.task for it in registry.nearest("several")[1]} == {"one", "numbers"}
    assert registry.verify() == []


def test_adding_a_regression_names_its_metric_and_says_that_the_tolerance_was_not_reached(folder, data):
    done = ok(folder, "task", "add", "numbers", data / "numbers.csv", "--tolerance", 0.001)
    assert re.search(r"\nhead\tR² -?\d\.\d{3}\n", done.stdout)
    assert "samples used\t12 of 12\n" in done.stdout
    assert re.search(r"\nrelative error\t\d\.\d{3} \(tolerance 0.001\)\n", done.stdout)
    assert ROUGH in done.stderr
    assert re.search(
        r"Warning: relative error \S+ is above the tolerance 0\.001 asked for: there are no more samples\n",
        done.stderr,
    )
    assert "numbers@1 is registered already" in done.stderr


def test_embedding_a_multi_label_task_names_its_metric(folder, data):
    document = answer(folder, "embed", data / "several.csv")
    assert (document["kind"], document["head_metric"], document["num_classes"]) == (
        "multi_label",
        "mean average precision",
        2,
    )
    assert "labels\t2 (" in ok(folder, "embed", data / "several.csv").stdout


@pytest.mark.parametrize("name", ["several", "numbers"])
def test_experts_are_measured_on_single_label_tasks_only(folder, name):
    task = TaskRegistry(folder).task(name)
    with pytest.raises(IngestError, match="measures experts on single-label tasks only"):
        networks.measure_expert("resnet14w32.mnist", task, seed=0, device="cpu", progress=None)


# Options


def test_options_of_data_are_those_that_make_no_space():
    assert set(EmbeddingOptions.__annotations__) - set(DataOptions.__annotations__) == {
        "probe",
        "estimator",
        "norm_weights",
    }


SAID = {
    "--max-samples": ("10", "max_samples", 10),
    "--tolerance": ("0.25", "tolerance", 0.25),
    "--seed": ("3", "seed", 3),
    "--split": ("test", "split", "test"),
    "--class-level": ("-2", "class_level", -2),
    "--skip-bad": ("", "skip_bad", True),
    "--image-col": ("id", "image_col", "id"),
    "--text-col": ("body", "text_col", "body"),
    "--label-col": ("cat,dog", "label_col", "cat,dog"),
    "--target-col": ("price", "target_col", "price"),
    "--split-col": ("fold", "split_col", "fold"),
    "--image-root": ("train", "image_root", "train"),
    "--image-suffix": (".jpg", "image_suffix", ".jpg"),
    "--delimiter": ("tab", "delimiter", "tab"),
    "--encoding": ("latin-1", "encoding", "latin-1"),
    "--channels": ("2,1,0", "channels", "2,1,0"),
    "--value-range": ("0,4095", "value_range", (0.0, 4095.0)),
    "--memory-budget": ("500M", "memory_budget", 5e8),
    "--batch-size": ("8", "batch_size", 8),
    "--device": ("cpu", "device", "cpu"),
}
SAID_OF_SPACES = {
    "--probe": ("resnet14w32.mnist", "probe", "resnet14w32.mnist"),
    "--estimator": ("exact", "estimator", "exact"),
}


def given(monkeypatch, folder, method, *words):
    """What a command gives to a method of the registry."""
    options = {}

    def stop(self, *args, **given):
        options.update(given)
        raise InvalidQueryError("that is all")

    monkeypatch.setattr(TaskRegistry, method, stop)
    assert t2v(folder, *words).stderr == "Error: that is all\n"
    return options


@pytest.mark.parametrize(
    ("method", "words"),
    [("add_task", ("task", "add", "x", "sklearn:digits")), ("embed", ("embed", "sklearn:digits"))],
)
def test_every_option_of_embedding_reaches_the_registry(monkeypatch, tmp_path, method, words):
    said = SAID | SAID_OF_SPACES
    line = [word for option, (text, _, _) in said.items() for word in (option, text) if word]
    options = given(monkeypatch, tmp_path, method, *words, *line, "--norm-weights")
    expected = {name: value for _, name, value in said.values()} | {"norm_weights": True}
    assert {name: options.get(name) for name in EmbeddingOptions.__annotations__} == expected


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("nearest", ("nearest", "sklearn:digits")),
        ("recommend", ("recommend", "sklearn:digits")),
        ("distance", ("distance", "sklearn:digits", "x")),
    ],
)
def test_every_option_of_reading_reaches_the_questions(monkeypatch, tmp_path, method, words):
    line = [word for option, (text, _, _) in SAID.items() for word in (option, text) if word]
    options = given(monkeypatch, tmp_path, method, *words, *line)
    expected = {name: value for _, name, value in SAID.values()}
    assert {name: options.get(name) for name in DataOptions.__annotations__} == expected
    nothing = given(monkeypatch, tmp_path, method, *words)
    assert {nothing.get(name) for name in DataOptions.__annotations__} == {None}


def test_a_question_about_data_reads_it_as_its_options_say(folder, data, tmp_path):
    for name in ("train", "test"):
        write_folder(tmp_path / "both" / name, {"no": 6, "yes": 6} if name == "test" else {"no": 9, "yes": 3})
    registry = TaskRegistry(folder)
    asked = [registry.nearest(str(tmp_path / "both"), k=1, split=split)[1][0] for split in ("test", "train")]
    assert (asked[0].task, asked[0].distance) == ("one", pytest.approx(0, abs=1e-6))
    assert asked[1].distance > 1e-3
    assert registry.distance("one", str(tmp_path / "both"), split="test") == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nearest", "one", "--split", "test"), "split would change nothing: one is embedded already"),
        (
            ("recommend", "one", "--seed", "1", "--channels", "mean"),
            "channels and seed would change nothing: one is embedded already",
        ),
        (
            ("distance", "one", "several", "--max-samples", "9"),
            "max_samples would change nothing: one and several are embedded already",
        ),
    ],
)
def test_options_of_reading_are_refused_where_nothing_is_read(folder, words, says):
    done = t2v(folder, *words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: {says}; options say how data is read\n"
    with pytest.raises(InvalidQueryError, match="seed would change nothing"):
        TaskRegistry(folder).nearest("one", seed=0)


@pytest.mark.slow
def test_another_estimator_makes_another_space_and_the_default_one_goes_on_answering(tmp_path, data):
    registry = TaskRegistry(tmp_path / "spaces")
    registry.init(empty=True)
    plain = registry.add_task("one", str(data / "one"))
    exact = registry.add_task("one", str(data / "one"), estimator="exact")
    both = registry.add_task("one", str(data / "one"), norm_weights=True, batch_size=5)
    assert [(it.version, it.created) for it in (plain, exact, both)] == [(1, True)] * 3
    assert len({plain.space, exact.space, both.space}) == 3
    assert registry.nearest(str(data / "one"))[0].space == plain.space
    for added in (plain, exact, both):
        query, [found] = registry.nearest(str(data / "one"), probe=added.space)
        assert (query.space, found.task) == (added.space, "one")
        assert found.distance == pytest.approx(0, abs=1e-5)
    recipes = {space.space_id: space.recipe for space, _ in registry.embeddings_of("one")}
    assert recipes[exact.space] == ("exact", "filter_mean")
    assert recipes[both.space] == ("signed", "filter_mean+norm")
    dims = {space.space_id: space.dim for space, _ in registry.embeddings_of("one")}
    assert dims[both.space] > dims[plain.space]


def test_how_data_is_read_is_part_of_what_makes_a_version(tmp_path, data):
    registry = TaskRegistry(tmp_path / "versions")
    registry.init(empty=True)
    versions = [
        registry.add_task("one", str(data / "one"), **options).version
        for options in ({}, {"channels": "2,1,0"}, {"channels": "2,1,0"}, {"channels": "auto"})
    ]
    assert versions == [1, 2, 2, 3]
    first, second = (registry.embeddings_of(f"one@{version}")[0][1].fisher for version in (1, 2))
    assert not np.array_equal(first, second)
