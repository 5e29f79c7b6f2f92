"""What the recommender is measured on, and the scripts that make it."""

import json

import click
import feature_files
import numpy as np
import pytest
import relabelled_tasks
from bench_recommend import BENCHMARK, judge, measures, summarise
from click.testing import CliRunner
from feature_files import FeatureFile
from PIL import Image
from recommend_rules import LeftOut, sequential_picks, with_trials
from recommend_worlds import DEVELOPMENT, FAMILIES, World, read_starters, read_table

from indexer.data.samples import load_sample
from indexer.networks.load import load_network
from indexer.records import DEFAULT_PROBE


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def world():
    return read_starters([BENCHMARK], [BENCHMARK / "scores.csv"])


def test_benchmark_is_what_the_docs_say(world):
    assert (len(world.tasks), len(world.experts)) == (107, 28)
    reported = [world.is_reported(task) for task in range(len(world.tasks))]
    assert (sum(reported), len(reported) - sum(reported)) == (59, 48)
    assert sum(not world.is_relabelled(task) for task in range(len(world.tasks))) == 31
    assert {name for images in world.images for name in images} >= DEVELOPMENT | set().union(*FAMILIES)


def test_no_expert_is_judged_on_images_that_it_has_seen(world):
    for column, expert in enumerate(world.experts):
        seen = [expert.split(".")[1] in images for images in world.images]
        np.testing.assert_array_equal(np.isnan(world.accuracy[:, column]), seen)
    for name, scores in world.scores.items():
        known = np.isfinite(scores)
        assert not (known & np.isnan(world.accuracy)).any()
        assert known.sum() == np.isfinite(world.accuracy).sum(), name


def test_what_asks_the_same_and_what_shows_the_same_is_left_out(world):
    def left(rows):
        return set(world.tasks) - {world.tasks[row] for row in rows}

    place = world.tasks.index
    assert left(world.without_task(place("cifar10"))) == {"cifar10"}
    assert left(world.without_task(place("mnist"))) == {"mnist", "digits_values"}
    assert left(world.without_task(place("pacs_objects"))) >= {"pacs_objects", "pacs_art", "pacs_photo"}
    family = left(world.without_family(place("mnist")))
    assert family >= {"mnist", "mnist_parity", "thai_digits", "digits_sources", "digits_values"}
    assert "omniglot_korean" not in family
    assert left(world.without_family(place("cifar10"))) >= {"cats_dogs", "caltech101_edges", "natural_images"}


def test_a_few_tasks_are_judged_beside_their_baselines(world):
    tasks = [world.tasks.index(name) for name in ("cifar10_brightness", "pokemon", "mnist")]
    judged, rows, calibration = judge(world, tasks, world.without_task, seed=0)
    assert judged == tasks
    assert {len(values) for values in rows.values()} == {3}
    summary = summarise(rows, ("tau_w", "regret@1"), np.arange(3), draws=50, seed=0)
    assert summary["ours"]["tau_w"]["mean"] > summary["static"]["tau_w"]["mean"]
    assert summary["ours, all tried"]["regret@1"]["mean"] <= summary["random"]["regret@1"]["mean"]
    for tried in ("ours, --try 1", "ours, --try 3", "ours, a quarter tried", "ours, all tried"):
        assert len(rows[tried]) == 3
    low, high = summary["ours"]["tau_w"]["interval"]
    assert low <= summary["ours"]["tau_w"]["mean"] <= high
    assert all(0 <= row[0] <= 1 for row in calibration["ours"])


def test_trials_see_scores_and_never_the_accuracy(world):
    task = world.tasks.index("pokemon")
    hidden = world.accuracy.copy()
    hidden[task] = np.where(np.isfinite(hidden[task]), 0.5, np.nan)
    blind = World(**{**vars(world), "accuracy": hidden})
    found = []
    for it in (world, blind):
        left = LeftOut(it, task, it.without_task(task))
        _, prediction = left.fit(("root_ratio",))
        found.append([current.mean for _, current in with_trials(left, prediction, (1, 4))])
    np.testing.assert_array_equal(found[0], found[1])


def test_picks_are_measured_before_the_next(world):
    task = world.tasks.index("pokemon")
    left = LeftOut(world, task, world.without_task(task))
    _, prediction = left.fit(())
    picks = sequential_picks(left, prediction, 5)
    assert len(set(picks)) == 5
    assert picks[0] == np.nanargmax(np.where(left.known, prediction.mean, np.nan))


def test_measures_of_a_known_order():
    truth = np.array([0.9, 0.8, 0.5, 0.2])
    tau, *regrets, error = measures(np.array([1.0, 2.0, 0.0, -1.0]), truth, relative_error=False)
    assert regrets == pytest.approx([0.1, 0.0, 0.0])
    assert error == pytest.approx(1.0)
    assert 0 < tau < 1
    assert measures(truth, truth, relative_error=True)[1:] == [0, 0, 0, 0]


def test_a_published_table_knows_no_likeness(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("task,expert,accuracy\na,x,0.5\nb,x,0.6\na,b,0.7\nb,b,0.9\n")
    table = read_table(path)
    np.testing.assert_array_equal(table.accuracy, [[0.7, 0.5], [np.nan, 0.6]])
    assert table.likeness == {}


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


def test_tasks_of_your_own_join_the_benchmark_and_are_judged_alone(tmp_path, generator):
    images_of(tmp_path / "data", ("mine",), generator)
    results = tmp_path / "results.csv"
    results.write_text("task,expert,accuracy\nmine,resnet14w32.mnist,0.5\nmine,ours.private,0.8\n")
    joined = read_starters([BENCHMARK], own=(tmp_path / "data", results))
    assert (len(joined.tasks), len(joined.experts)) == (108, 29)
    assert [name for place, name in enumerate(joined.tasks) if joined.is_reported(place)] == ["mine"]
    mine = dict(zip(joined.experts, joined.accuracy[-1].tolist(), strict=True))
    assert (mine["resnet14w32.mnist"], mine["ours.private"]) == (0.5, 0.8)
    assert np.isfinite(joined.accuracy[-1]).sum() == 2
    assert np.isfinite(joined.likeness["root_ratio"]).all()


@pytest.mark.parametrize("row", ["other,resnet14w32.mnist,0.5", "mine,resnet14w32.mnist,1.5"])
def test_a_result_of_your_own_that_cannot_be_is_told(tmp_path, generator, row):
    images_of(tmp_path / "data", ("mine",), generator)
    results = tmp_path / "results.csv"
    results.write_text(f"task,expert,accuracy\n{row}\n")
    with pytest.raises(click.ClickException, match=r"results\.csv: .*line 2"):
        read_starters([BENCHMARK], own=(tmp_path / "data", results))
