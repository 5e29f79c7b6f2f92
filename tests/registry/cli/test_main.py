"""The questions of the command line: same answers as the library, in the promised documents."""

import json
import re
import sys
import types
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
from builders import make_embedding
from click.testing import CliRunner
from command_lines import EXPERT, TASKS, answer, make_small_registry, ok, shown, t2v

from registry import TaskRegistry
from registry.answers import Problem
from registry.cli import show_care
from registry.cli.main import main
from registry.distances import DISTANCES, pairwise
from registry.faces import terminal


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A registry of five tasks; tests only read it."""
    return make_small_registry(tmp_path_factory.mktemp("registry"))


def test_nearest_is_the_contract_and_the_plain_distances(folder):
    document = answer(folder, "nearest", "flowers", "-k", 3)
    others = [name for name in TASKS if name != "flowers"]
    fisher = np.stack([make_embedding(name).fisher for name in others])
    distances = pairwise("task2vec", fisher, make_embedding("flowers").fisher[None])[:, 0]
    expected = sorted(zip(distances, others, strict=True))[:3]
    assert document == {
        "query": {"task": "flowers", "version": 1, "space": "space0", "taken": []},
        "distance": "task2vec",
        "neighbors": [
            {
                "rank": rank,
                "task": name,
                "version": 1,
                "distance": pytest.approx(distance, abs=1e-6),
                "num_classes": 2,
                "num_samples": 100,
                "tags": ["plants"] if name == "trees" else [],
                "nearer_than": pytest.approx(TaskRegistry(folder).distance("flowers", name).nearer_than),
            }
            for rank, (distance, name) in enumerate(expected, start=1)
        ],
    }


def test_nearest_takes_a_filter_and_any_distance(folder):
    document = answer(folder, "nearest", "flowers", "--where", "tags = 'plants'", "--distance", "cosine")
    assert [neighbor["task"] for neighbor in document["neighbors"]] == ["trees"]
    assert document["distance"] == "cosine"


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_distance_is_that_of_the_library(folder, name):
    expected = TaskRegistry(folder).distance("flowers", "birds", name=name)
    document = answer(folder, "distance", "flowers", "birds", "--distance", name)
    ends = {"source": "flowers", "target": "birds", "distance": name}
    assert document == {**ends, "value": expected, "nearer_than": expected.nearer_than}
    assert float(ok(folder, "distance", "flowers", "birds", "--distance", name).stdout) == pytest.approx(
        expected, rel=1e-3
    )


def test_recommend_is_the_contract(folder):
    document = answer(folder, "recommend", "flowers")
    assert list(document) == [
        "query",
        "recommendations",
        "baselines",
        "warnings",
        "trials",
        "verdict",
        "metric",
        "protocol",
    ]
    assert document["trials"] == []
    assert list(document["verdict"]) == [
        "take",
        "protocol",
        "expected",
        "interval",
        "ties",
        "cheapest",
        "confidence",
        "why",
        "next",
        "left_out",
        "compared",
    ]
    assert (document["metric"], document["protocol"]) == ("accuracy", "unspecified")
    first = document["recommendations"][0]
    assert document["verdict"]["take"] == first["expert"]
    assert list(first) == [
        "rank",
        "expert",
        "expected_accuracy",
        "interval",
        "expected_regret",
        "num_params",
        "license",
        "load",
        "evidence",
        "measured",
    ]
    assert (first["rank"], first["measured"]) == (1, False)
    assert list(first["evidence"]) == ["neighbors", "results", "trial"]
    known = next(row for row in document["recommendations"] if row["expert"] == EXPERT)
    assert set(known["evidence"]["neighbors"][0]) == {"task", "distance", "accuracy"}
    assert set(document["baselines"]) == {"static", "nearest", "largest", "random"}
    assert document["baselines"]["static"]["expert"] == EXPERT


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (("--max-params", "40k"), ["small.mit"]),
        (("--max-params", "12M"), [EXPERT, "small.mit"]),
        (("--max-flops", "2G"), [EXPERT]),
        (("--license", "mit,apache-2.0"), ["small.mit"]),
        (("--max-params", "10"), []),
        (("--input-size", "224"), [EXPERT, "small.mit"]),
        (("--input-size", "223"), []),
        (("--loadable-offline",), []),
    ],
)
def test_recommend_keeps_within_limits(folder, limit, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # with nothing in it
    document = answer(folder, "recommend", "flowers", *limit)
    assert sorted(row["expert"] for row in document["recommendations"]) == expected


def test_recommend_shows_experts_baselines_warnings_and_how_to_load(folder):
    document, done = answer(folder, "recommend", "flowers"), shown(folder, "recommend", "flowers")
    first = document["recommendations"][0]
    expert = next(it for it in document["recommendations"] if it["expert"] == EXPERT)
    start = [str(expert["rank"]), EXPERT]
    row = next(line.split() for line in done.stdout.splitlines() if line.split()[:2] == start)
    low, high = expert["interval"]
    assert row == [
        str(expert["rank"]),
        EXPERT,
        f"{expert['expected_accuracy']:.3f}",
        f"{low:.2f}-{high:.2f}",
        *(f"{expert['evidence']['results']} results elsewhere").split(),
        f"{expert['expected_regret']:.3f}",
        "11M",
        "bsd-3-clause",
    ]
    near = expert["evidence"]["neighbors"][0]
    results = f"{expert['evidence']['results']} results, nearest {near['task']} {near['accuracy']:.3f}"
    assert f"{expert['rank']}. {EXPERT}: {results}" in done.stdout
    for rule, pick in document["baselines"].items():
        assert re.search(rf"{rule} +{re.escape(pick['expert'] or '(average of all)')} ", done.stdout)
    assert done.stderr.splitlines() == [f"Warning: {warning}" for warning in document["warnings"]] != []
    assert done.stdout.endswith(f"\nLoad the first:\n  {first['load'].replace('; ', chr(10) + '  ')}\n")


def test_task_list_is_the_contract(folder):
    documents = answer(folder, "task", "list", "--where", "tags = 'plants'")
    assert documents == [
        {
            "task": name,
            "version": 1,
            "kind": "single_label",
            "head_metric": "balanced accuracy",
            "num_classes": 2,
            "num_samples": 100,
            "fingerprint": f"fingerprint-{name}-1",
            "tags": ["plants"],
            "aliases": [],
            "created_at": "2024-05-06T07:08:09+00:00",
        }
        for name in ("flowers", "trees")
    ]


def test_task_show_has_a_card_for_each_space(folder):
    document, done = answer(folder, "task", "show", "flowers@1"), ok(folder, "task", "show", "flowers")
    record = make_embedding("flowers")
    assert document["class_names"] == ["no", "yes"]
    assert (document["num_samples_drawn"], document["tolerance"]) == (100, None)
    assert document["embeddings"] == [
        {
            "space": "space0",
            "probe": "tiny.test",
            "estimator": "signed",
            "pooling": "filter_mean",
            "num_samples_used": 100,
            "head_accuracy": 0.75,
            "head_loss": 0.5,
            "norm": record.norm,
            "relative_error": record.relative_error,
            "seed": 0,
            "seconds": 1.5,
        }
    ]
    row = f"tiny.test signed filter_mean space0 100 0.750 {record.norm:.4g} 0.100"
    assert row.split() in [line.split() for line in done.stdout.splitlines()]


def test_result_list_filters(folder):
    assert [row["task"] for row in answer(folder, "result", "list", "--expert", EXPERT)] == ["birds", "trees"]
    assert [row["accuracy"] for row in answer(folder, "result", "list", "--task", "trees")] == [0.7]


def test_distances_lists_the_catalogue_without_infinity(folder):
    document = answer(folder, "distances")
    assert [row["distance"] for row in document] == sorted(DISTANCES)
    assert next(row["bounds"] for row in document if row["distance"] == "euclidean") == [0, None]
    assert all(name in ok(folder, "distances").stdout for name in DISTANCES)


def test_probes_lists_builtin_networks_first(folder, capsys):
    document = answer(folder, "probes")
    assert set(document[0]) == {"network", "source", "num_params", "input_size"}
    sources = [network["source"] for network in document]
    assert sources == sorted(sources)
    with terminal.for_people():
        show_care.show_networks(document)
    assert re.search(r"resnet18\.IMAGENET1K_V1 +torchvision +11\.7M +224", capsys.readouterr().out)


def test_init_creates_once(tmp_path):
    place = tmp_path / "new"
    done = ok(place, "init", "--empty")
    assert (done.stdout, done.stderr) == ("", f"Created {place}.\n")
    again = t2v(place, "init", "--empty")
    assert (again.exit_code, again.stderr) == (1, f"Error: {place}: there is a registry already\n")


def test_registry_is_named_by_the_environment(folder):
    done = CliRunner(env={"T2V_REGISTRY": str(folder)}).invoke(main, ["task", "list", "--json"])
    assert [row["task"] for row in json.loads(done.stdout)] == list(TASKS)


def test_verify_of_a_sound_registry(folder):
    assert ok(folder, "verify").stderr == f"{folder}: all is well.\n"
    assert answer(folder, "verify") == []


@pytest.mark.parametrize(
    ("kind", "repaired", "exit_code"), [("orphan", False, 1), ("orphan", True, 0), ("dangling", False, 0)]
)
def test_verify_fails_if_problems_remain(monkeypatch, folder, kind, repaired, exit_code):
    problem = Problem(kind, "tasks", "2 rows", repaired)
    monkeypatch.setattr(TaskRegistry, "verify", lambda self, *, repair: [problem])
    done = t2v(folder, "verify")
    assert done.exit_code == exit_code
    assert [kind, "tasks", "2", "rows", "yes" if repaired else "no"] in [
        line.split() for line in done.stdout.splitlines()
    ]
    assert ("--repair" in done.stderr) == bool(exit_code)
    document = {"kind": kind, "where": "tasks", "message": "2 rows", "repaired": repaired}
    assert json.loads(t2v(folder, "verify", "--json").stdout) == [document]


def test_demo_runs(monkeypatch, folder):
    stub = types.ModuleType("registry.cli.demo")
    stub.run_demo = lambda: terminal.say("It works.")
    monkeypatch.setitem(sys.modules, "registry.cli.demo", stub)
    assert ok(folder, "demo").stdout == "It works.\n"


def test_version_is_that_of_the_package():
    try:
        expected = version("task2vec-registry")
    except PackageNotFoundError:
        pytest.skip("the package is not installed")
    assert CliRunner().invoke(main, ["--version"]).stdout == f"t2v, version {expected}\n"


def test_the_first_result_makes_the_registry_and_what_cannot_be_or_only_reads_does_not(tmp_path):
    place, real, table = tmp_path / "new", "tf_efficientnet_lite0.in1k", tmp_path / "results.csv"
    table.write_text(f"task,expert,accuracy\nmnist,{real},0.9\n")
    for words, said in (
        (("result", "add", "mnist", "none.such", "--accuracy", "0.9"), "no expert is named 'none.such'"),
        (("result", "add", "none", real, "--accuracy", "0.9"), "no task is named 'none'"),
        (("result", "import", str(table), "--dry-run"), "there is no registry yet"),
        (("result", "list"), "there is no registry yet"),
    ):
        assert said in t2v(place, *words).stderr
        assert not place.exists()
    for number, words in enumerate((("add", "mnist", real, "--accuracy", "0.9"), ("import", str(table)))):
        made = ok(tmp_path / str(number), "result", *words)
        assert f"Created {tmp_path / str(number)}, with the starter content.\n" in made.stderr
        assert "Created" not in ok(tmp_path / str(number), "result", *words).stderr
