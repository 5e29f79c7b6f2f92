"""The commands that keep records, on small registries and on real images."""

import json

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_space, make_task
from click.testing import CliRunner
from command_lines import EXPERT, TASKS, answer, make_small_registry, ok, shown, t2v

from registry import TaskRegistry
from registry.cli.main import main
from registry.storage.store import Store


@pytest.fixture
def small(tmp_path):
    """A registry of five tasks, to be changed."""
    return make_small_registry(tmp_path / "small")


def test_task_add_embeds_once_and_says_when_it_did_nothing(empty, images):
    first = answer(empty, "task", "add", "images", images, "--tag", "noise", "--max-samples", 10)
    assert list(first) == [
        "task",
        "version",
        "created",
        "kind",
        "space",
        "num_samples_drawn",
        "num_samples_used",
        "tolerance",
        "head_metric",
        "head_accuracy",
        "norm",
        "relative_error",
        "skipped_files",
        "seconds",
        "warnings",
        "num_samples",
        "class_names",
        "class_sizes",
        "taken",
        "passed_over",
        "notes",
    ]
    assert (first["task"], first["version"], first["created"]) == ("images", 1, True)
    assert (first["num_samples_used"], first["skipped_files"]) == (10, 0)
    again = ok(empty, "task", "add", "images", images, "--max-samples", 10)
    assert (
        "images@1 is registered already, with this very data and these settings: nothing was written.\n"
        in again.stderr
    )
    assert answer(empty, "task", "list")[0]["tags"] == ["noise"]


def test_task_add_prints_a_card_and_warns(empty, images):
    done = shown(empty, "task", "add", "images", images)
    assert done.stderr.splitlines() == [
        "Added images@1.",
        "Warning: only 12 samples; below 100 an embedding is a rough guess",
        "Next: t2v recommend images",
    ]
    assert done.stdout.startswith("images@1\n")
    assert "  samples used:   12\n" in done.stdout


def test_embed_keeps_vectors_in_the_file_and_nothing_in_the_registry(embedded, images, tmp_path):
    out = tmp_path / "vectors.bin"
    document = answer(embedded, "embed", images, "--out", out)
    registry = TaskRegistry(embedded)
    [(space, stored)] = registry.embeddings_of("images")
    with np.load(out, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["description", "domain", "fisher", "standard_error"]
        assert (arrays["fisher"] == stored.fisher).all()
        assert (arrays["standard_error"] == stored.standard_error).all()
        assert (arrays["domain"] == stored.domain).all()
        assert json.loads(str(arrays["description"])) == document
    assert (document["space"], document["dim"]) == (space.space_id, len(stored.fisher))
    assert document["norm"] == stored.norm
    assert len(registry.tasks()) == 1


def test_embed_says_that_the_vectors_are_gone(embedded, images):
    done = shown(embedded, "embed", images, "--max-samples", 8)
    assert "  samples used:   8\n" in done.stdout
    following, kept = done.stderr.splitlines()[-2:]
    assert kept == "The vectors were not kept; --out FILE.npz keeps them."
    assert following == f"Next: t2v task add NAME {images}"


def test_nearest_of_data_finds_its_own_task(embedded, images):
    document = answer(embedded, "nearest", images)
    assert document["query"] | {"space": ""} == {"task": str(images), "version": 0, "space": "", "taken": []}
    assert [(row["task"], row["distance"]) for row in document["neighbors"]] == [
        ("images", pytest.approx(0, abs=1e-6))
    ]
    assert f"Nearest to {images} by task2vec:\n" in shown(embedded, "nearest", images).stdout


def test_expert_is_added_measured_shown_and_removed(empty, images):
    ok(empty, "task", "add", "images", images)
    loader = "resnet14w32.tiny_imagenet"
    words = ("--source-task", "images", "--source-accuracy", "0.5", "--license", "MIT")
    added = answer(empty, "expert", "add", loader, "--name", "mine", *words)
    assert (added["expert"], added["loader"], added["license"]) == ("mine", loader, "mit")
    assert (added["source_task"], added["source_accuracy"], added["cached_as"]) == ("images", 0.5, "")
    assert added["num_params"] > 100_000
    assert answer(empty, "expert", "show", "mine") == added
    assert answer(empty, "expert", "list") == [added]
    card = shown(empty, "expert", "show", "mine").stdout
    assert "  accuracy there: 0.500\n" in card
    assert "  licence:        mit\n" in card
    measured = answer(empty, "result", "measure", "images", "mine", "--no-record")
    assert (measured["protocol"], measured["recorded"]) == ("linear_probe_20shot", False)
    assert answer(empty, "result", "list") == []
    done = shown(empty, "result", "measure", "images", "mine")
    assert done.stdout.startswith(f"mine on images: accuracy {measured['accuracy']:.3f} (")
    assert [row["accuracy"] for row in answer(empty, "result", "list")] == [measured["accuracy"]]
    assert ok(empty, "expert", "remove", "mine").stderr == "Removed expert mine.\n"
    assert answer(empty, "expert", "list") == []


def test_tags_are_added_and_taken_away(small):
    done = ok(small, "task", "tag", "birds", "--add", "b", "--add", "a")
    assert (done.stdout, done.stderr) == ("", "Tags of birds: a, b.\n")
    assert (
        ok(small, "task", "tag", "birds", "--remove", "a", "--remove", "b").stderr == "Tags of birds: none.\n"
    )
    nothing = t2v(small, "task", "tag", "birds")
    assert nothing.exit_code == 2
    assert nothing.stderr.endswith("\nError: nothing to change; give --add T or --remove T\n")


def test_a_removed_task_is_gone_from_lists(small):
    done = ok(small, "task", "remove", "birds")
    assert (done.stdout, done.stderr) == ("", "Removed task birds.\n")
    assert [row["task"] for row in answer(small, "task", "list")] == [name for name in TASKS if name != "birds"]


def test_results_are_added_and_imported(small, tmp_path):
    done = ok(
        small, "result", "add", "birds", EXPERT, "--accuracy", 0.5, "--protocol", "full", "--source", "me"
    )
    assert done.stderr == f"Added the result of {EXPERT} on birds.\n"
    added = ("result", "add", "birds", EXPERT, "--protocol", "full", "--accuracy")
    assert (
        ok(small, *added, 0.5).stderr
        == f"The result of {EXPERT} on birds was there already: nothing was written.\n"
    )
    both = "; of the 2 by its metric and protocol the mean counts"
    assert ok(small, *added, 0.6).stderr == f"Added the result of {EXPERT} on birds{both}.\n"
    table = tmp_path / "results.csv"
    table.write_text(f"task,expert,accuracy\ntrees,{EXPERT},0.25\ntrees,{EXPERT},2\n")
    refused = t2v(small, "result", "import", table)
    sentence = f"{table}, line 3: result of {EXPERT} on trees: accuracy must be from 0 to 1, got 2.0"
    assert (refused.exit_code, refused.stderr) == (1, f"Error: {sentence}\n")
    assert (
        ok(small, "result", "import", table, "--skip-bad").stderr == f"Warning: {sentence}\nAdded 1 result.\n"
    )
    found = answer(small, "result", "list")
    assert [(row["task"], row["accuracy"], row["protocol"], row["source"]) for row in found] == [
        ("birds", 0.5, "full", "me"),
        ("birds", 0.6, "full", ""),
        ("birds", 0.9, "unspecified", ""),
        ("trees", 0.7, "unspecified", ""),
        ("trees", 0.25, "unspecified", ""),
    ]


def test_experts_are_imported(small, tmp_path):
    table = tmp_path / "experts.csv"
    table.write_text("expert,num_params\na.x,1000\nb.x,\n")
    assert ok(small, "expert", "import", table).stderr == "Added 2 experts.\n"
    assert "a.x\t-\t-\t1k\t-\t-\t-\t-" in ok(small, "expert", "list").stdout.splitlines()
    assert [row["num_params"] for row in answer(small, "expert", "list")] == [1000, None, 11_000_000, 40_000]


@pytest.mark.parametrize("command", ["task", "expert"])
def test_no_builtin_leaves_starter_content_out(tmp_path, command):
    store = Store.create(tmp_path)
    store.add_space(make_space())
    store.add_task(make_task("birds", builtin=True), "space0", make_embedding("birds"))
    store.add_experts([make_expert(builtin=True)])
    assert len(answer(tmp_path, command, "list")) == 1
    done = CliRunner().invoke(main, ["--no-builtin", "--registry", str(tmp_path), command, "list", "--json"])
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("task", "list"), "There is no task yet; add one with `t2v task add NAME DATA`."),
        (("expert", "list"), "There is no expert yet; add one with `t2v expert add LOADER`."),
        (
            ("result", "list"),
            (
                "There is no such result yet; add one with `t2v result add TASK EXPERT --accuracy A`, "
                "or measure one with `t2v result measure TASK EXPERT`."
            ),
        ),
        (
            ("task", "list", "--where", "version = 1"),
            "No task passes the filter; `t2v task list` shows them all.",
        ),
    ],
    ids=" ".join,
)
def test_an_empty_list_says_what_to_do(empty, words, hint):
    done = ok(empty, *words)
    assert (done.stdout, done.stderr) == ("", hint + "\n")


def test_nearest_without_neighbours_says_what_to_do(embedded):
    done = ok(embedded, "nearest", "images")
    hint = "There is no other task to compare with; add some with `t2v task add NAME DATA`.\n"
    assert (done.stdout, done.stderr) == ("", hint)
