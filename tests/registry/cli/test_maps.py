"""The commands that draw."""

import json
import re

import pytest
from builders_maps import make_registry
from click.testing import CliRunner
from extras import skip_without

from registry.cli.main import main
from registry.faces import terminal
from registry.ingest import networks

LAYERS = (("conv1", 16), ("layer1", 40), ("fc", 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A registry of 12 tasks in three groups."""
    folder = tmp_path_factory.mktemp("cli") / "registry"
    make_registry(folder, 12, spread=0.3)
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.setattr(networks, "probe_layers", lambda _space: LAYERS)

    def run(*words, code=0):
        with terminal.for_people():
            result = CliRunner().invoke(main, ["--registry", str(folder), *words])
        assert result.exit_code == code, result.output
        return result

    return run


def test_map_prints_a_summary_and_what_to_do_next(run):
    result = run("map", "task003")
    assert "Map by task2vec distance\n  tasks:          12\n" in result.stdout
    assert "trustworthiness 0." in result.stdout
    assert "stress-1 0." in result.stdout
    assert "task003" in result.stdout
    assert result.stderr == "`t2v map --out map.html` draws it; `t2v cluster` names the groups.\n"


def test_map_as_json_is_one_document(run):
    document = json.loads(run("map", "task003", "--json").stdout)
    assert [task["task"] for task in document["tasks"]] == [f"task{number:03}" for number in range(12)]
    (query,) = document["queries"]
    at = next(task for task in document["tasks"] if task["task"] == "task003")
    assert (query["x"], query["y"]) == (at["x"], at["y"])
    assert len(query["nearest"]) == 3
    assert {"stress", "trustworthiness", "seed", "method", "num_landmarks", "notes"} <= document.keys()


@pytest.mark.parametrize(
    ("colour", "name"), [("cluster", "map.svg"), ("tag", "map.html"), ("kind", "map.html")]
)
def test_map_draws(run, tmp_path, colour, name):
    skip_without("matplotlib")
    path = tmp_path / name
    result = run("map", "--colour", colour, "--theme", "dark", "--where", "tags = 'even'", "--out", str(path))
    assert result.stderr == f"Wrote {path}.\n"
    assert b"Map of 6 tasks" in path.read_bytes()


def test_map_is_laid_out_anew_when_asked(run):
    run("map", "--seed", "3")
    assert "The tasks were laid out anew: as asked." in run("map", "--seed", "3", "--rebuild").stderr


def test_cluster_prints_clusters(run):
    result = run("cluster")
    assert "hold 12 of 12 tasks, by task2vec (agglomerative), the largest first:" in result.stdout
    assert "group1 100% (others 0%)" in result.stdout
    assert "The tree is cut at a distance of 0." in result.stdout
    assert "Silhouette 0." in result.stdout


def test_cluster_shows_noise_and_what_is_alone(run):
    assert "In no cluster (noise): " in run("cluster", "--method", "hdbscan").stdout
    assert "Alone: 12: task000, task001" in run("cluster", "--clusters", "12").stdout


def test_pairs_and_single_tasks_are_not_called_clusters(run):
    shown = run("cluster", "--clusters", "8").stdout
    assert "Pairs: " in shown
    assert "Alone: " in shown
    assert "No three tasks make a cluster" in run("cluster", "--clusters", "12").stdout


def test_a_distance_says_what_it_means_beside_others_everywhere(run):
    assert re.fullmatch(r"0\.\d+: nearer than \d+% of pairs\n", run("distance", "task000", "task001").stdout)
    value = json.loads(run("distance", "task000", "task001", "--json").stdout)
    first = json.loads(run("nearest", "task000", "-k", "11", "--json").stdout)["neighbors"]
    near = next(neighbor for neighbor in first if neighbor["task"] == "task001")
    assert value["nearer_than"] == near["nearer_than"]
    assert [it["nearer_than"] for it in first] == sorted((it["nearer_than"] for it in first), reverse=True)
    assert "% of pairs" in run("nearest", "task000").stdout


def test_cluster_as_json_is_one_document(run):
    document = json.loads(run("cluster", "--clusters", "3", "--json").stdout)
    assert [cluster["size"] for cluster in document["clusters"]] == [4, 4, 4]
    assert document["clusters"][0]["tags"][0] == {
        "tag": document["clusters"][0]["tasks"][0].replace("task00", "group"),
        "inside": 1.0,
        "outside": 0.0,
    }
    assert document["noise"] == []


def test_cluster_draws_the_matrix(run, tmp_path):
    skip_without("matplotlib")
    path = tmp_path / "matrix.svg"
    assert run("cluster", "--cut-height", "0.3", "--plot", str(path)).stderr == f"Wrote {path}.\n"
    assert b"between 12 tasks" in path.read_bytes()


def test_distance_shows_and_draws_layers(run, tmp_path):
    skip_without("matplotlib")
    path = tmp_path / "layers.svg"
    result = run("distance", "task000", "task001", "--layers", "--plot", str(path))
    assert [line.split()[0] for line in result.stdout.splitlines()[3:6]] == ["conv1", "layer1", "fc"]
    assert b"layer by layer" in path.read_bytes()
    document = json.loads(run("distance", "task000", "task001", "--layers", "--json").stdout)
    assert [layer["layer"] for layer in document["layers"]] == ["conv1", "layer1", "fc"]
    plain = json.loads(run("distance", "task000", "task001", "--json").stdout)
    assert plain["value"] == pytest.approx(document["value"], abs=1e-6)
    assert "layers" not in plain


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["map", "--out", "map.gif"], 1, "map.gif: a picture ends in .html, .png or .svg"),
        (["map", "--max-samples", "5"], 1, "max_samples would change nothing"),
        (["map", "nonesuch"], 1, "no task is named 'nonesuch'"),
        (["map", "--where", "num_classes > 9"], 1, "there is no task to draw"),
        (["cluster", "--plot", "matrix.pdf"], 1, "matrix.pdf: a picture ends in"),
        (["cluster", "--clusters", "13"], 1, "there are 12 tasks, which make no 13 clusters"),
        (["cluster", "--clusters", "2", "--cut-height", "0.2"], 1, "exclude each other"),
        (["cluster", "--distance", "task2vec_asymmetric"], 1, "depends on the direction"),
        (["distance", "task000", "task001", "--plot", "x.bmp"], 1, "x.bmp: a picture ends in"),
        (["distance", "task000", "task001", "--layers", "--distance", "kl"], 2, "show the task2vec distance"),
    ],
)
def test_what_cannot_be_done_is_reported(run, words, code, message):
    assert message in run(*words, code=code).stderr
