"""What the recommender is measured on, and the scripts that make it."""

import json

import bench_recommend
import feature_files
import numpy as np
import pytest
import relabelled_tasks
from answer_data import BENCHMARK, FAMILIES, read_starter
from answer_rules import first_three_measured, judge, nearest_scores, static_scores, summarise
from answer_worlds import DEVELOPMENT, World
from click.testing import CliRunner
from feature_files import FeatureFile
from PIL import Image

from indexer.data.samples import load_sample
from indexer.networks.load import load_network
from indexer.records import DEFAULT_PROBE


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def toys():
    return World(*read_starter(BENCHMARK, toys=False))


def test_no_expert_is_judged_on_images_that_it_has_seen(toys):
    names = toys.tasks.names
    assert (len(names), len(toys.experts)) == (107, 28)
    assert set().union(*FAMILIES, DEVELOPMENT) <= set(names)
    truth = toys.truth(names)
    for column, expert in enumerate(toys.experts):
        seen = [expert.name.split(".")[1] in toys.tasks.images[name] for name in names]
        np.testing.assert_array_equal(np.isnan(truth[:, column]), seen)


def test_what_asks_the_same_and_what_shows_the_same_is_left_out(toys):
    tasks = toys.tasks
    assert tasks.without_task("cifar10") == {"cifar10"}
    assert tasks.without_task("mnist") == {"mnist", "digits_values"}
    assert tasks.without_task("pacs_objects") >= {"pacs_objects", "pacs_art", "pacs_photo"}
    family = tasks.without_family("mnist")
    assert family >= {"mnist", "mnist_parity", "thai_digits", "digits_sources", "digits_values"}
    assert "omniglot_korean" not in family
    assert tasks.without_family("cifar10") >= {"cats_dogs", "caltech101_edges", "natural_images"}


def test_an_answer_does_not_rest_on_what_was_left_out(toys):
    left = toys.tasks.without_family("mnist")
    fewer = World(toys.tasks, toys.experts, [row for row in toys.results if row.task not in left])
    answers = [world.predict(world.fit(left), "mnist").logit for world in (toys, fewer)]
    np.testing.assert_array_equal(*answers)


def test_measures_of_a_task():
    truth = np.array([0.9, 0.8, np.nan, 0.5, 0.2])
    tau, first, three, *of_intervals = judge(np.array([1.0, 2.0, 9.0, 0.0, -1.0]), truth)
    assert 0 < tau < 1
    assert (first, three) == pytest.approx((0.1, 0.0))
    assert np.isnan(of_intervals).all()
    assert judge(truth, truth)[:3] == pytest.approx([1, 0, 0])
    assert np.isnan(judge(np.ones(5), truth)[0])


def test_rules_go_by_averages_the_nearest_task_or_three_measurements():
    accuracy = np.array([[0.5, 0.6, 0.9], [0.2, 0.4, np.nan]])
    static = static_scores(accuracy)
    assert np.argsort(-static).tolist() == [2, 1, 0]
    assert np.argsort(-nearest_scores(accuracy, np.array([0.3, 0.1]), static)).tolist() == [1, 0, 2]
    ranking, truth = np.array([4.0, 3.0, 2.0, 1.0]), np.array([0.5, 0.7, 0.6, 0.9])
    assert np.argmax(first_three_measured(ranking, truth)) == 1


def test_figures_that_are_not_defined_are_left_out_of_means():
    rows = {"ours": [[0.5, 0.1, 0.0, 0.9, 0.3], [np.nan, 0.3, 0.0, 0.7, 0.5]], "static": [[np.nan] * 5] * 2}
    summary = summarise(rows, draws=50, seed=0)
    assert summary["ours"]["tau_w"]["mean"] == 0.5
    assert summary["ours"]["regret@1"]["mean"] == pytest.approx(0.2)
    assert summary["static"]["tau_w"] is None


@pytest.mark.slow
def test_without_shared_files_the_toys_are_judged_and_the_rest_is_said_to_be_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_recommend, "SHARED", tmp_path)
    out = tmp_path / "figures.json"
    result = CliRunner().invoke(bench_recommend.main, ["--quick", "--json", str(out)])
    assert result.exit_code == 0, result.output
    for part in ("real", "tables"):
        assert f"{tmp_path / part} is not there: worlds that need it are skipped" in result.output
    figures = json.loads(out.read_text())["figures"]
    assert all(title.startswith("toys, ") for title in figures)
    world = figures["toys, one task left out, own labels"]
    assert world["ours"]["tau_w"]["mean"] > world["static"]["tau_w"]["mean"]


def images_of(folder, names, generator):
    for name in names:
        for label in ("cat", "dog", "ship"):
            place = folder / name / label
            place.mkdir(parents=True)
            for number in range(4):
                pixels = generator.integers(0, 60 + 60 * number, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")


def test_relabelled_tasks_share_images_and_load(tmp_path, generator, monkeypatch):
    monkeypatch.setattr(relabelled_tasks, "SPLIT_SETS", ("one", "two"))
    monkeypatch.setattr(
        relabelled_tasks, "GROUPS", {"one_animals": ("one", {"animal": "cat dog", "rest": "*"})}
    )
    for name in ("PACS", "DIGITS", "OMNIGLOT"):
        monkeypatch.setattr(relabelled_tasks, name, ("one", "two"))
    images_of(tmp_path / "data", ("one", "two"), generator)
    runs = []
    for out in ("first", "second"):
        result = CliRunner().invoke(relabelled_tasks.main, [str(tmp_path / "data"), str(tmp_path / out)])
        assert result.exit_code == 0, result.output
        runs.append({path.name: path.read_text() for path in (tmp_path / out).iterdir()})
    assert runs[0] == runs[1]
    tags = json.loads(runs[0]["tags.json"])
    assert tags["one_animals"] == ["relabelled", "coarse", "images.one"]
    assert tags["pacs_sources"] == ["relabelled", "merged", "images.one", "images.two"]
    assert {"one_group1", "two_brightness", "two_saturation", "two_edges"} <= set(tags)
    transform = load_network(DEFAULT_PROBE).transform
    sample = load_sample(str(tmp_path / "first" / "one_brightness.csv"), transform, max_samples=100, seed=0)
    assert sample.description.class_names == ("high", "low")
    means = sample.images.mean(axis=(1, 2, 3))
    assert means[sample.labels == 0].min() > means[sample.labels == 1].max() - 5


def test_features_of_an_image_are_computed_once(tmp_path, generator, monkeypatch):
    network = load_network(DEFAULT_PROBE)
    images = generator.integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    file = FeatureFile(tmp_path, network)
    features = file.of(images)
    file.save()
    assert features.shape == (3, network.num_features)

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(feature_files, "extract_features", refuse)
    np.testing.assert_array_equal(FeatureFile(tmp_path, network).of(images[[2, 0]]), features[[2, 0]])
