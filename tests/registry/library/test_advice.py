"""TaskRegistry.recommend with trials of real experts, and with what the user measured."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_expert
from builders_datasets import write_folder
from safetensors.torch import load_file, save_file
from small_stores import OwnResults, fails
from templates import starter

from indexer.errors import DataError
from indexer.experts.feature_cache import FeatureCache
from indexer.experts.few_shot import PROTOCOL, num_draws
from indexer.heads.heads import fit_head
from indexer.networks.load import ARCHITECTURES
from indexer.networks.loaders import BUILTIN_FOLDER
from registry.errors import IngestError, InvalidQueryError, NotFoundError
from registry.scores.trial_scores import WEIGHTS, trial_scores
from registry.storage.store import Store

DIGITS = "sklearn:digits"
EXPERTS = ("cifar10", "hiragana", "mnist")
KNOWN = tuple(f"resnet14w32.{name}" for name in EXPERTS)
FIRST_FAILING = num_draws(2) + 1
"""The first head of the second expert, of two classes."""
FILES = {name: BUILTIN_FOLDER / f"resnet14w32.{name}.safetensors" for name in EXPERTS}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An own cache for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return FeatureCache(tmp_path / "cache" / "task2vec" / "features")


@pytest.fixture(scope="module")
def template(tmp_path_factory, images):
    """Twelve images as a task, three built-in experts with made results; tests only read it."""
    registry = OwnResults(tmp_path_factory.mktemp("template"))
    registry.init(empty=True)
    registry.add_task("images", str(images))
    other = write_folder(tmp_path_factory.mktemp("other") / "other", {"a": 4, "b": 4})
    registry.add_task("other", str(other))
    for number, name in enumerate(EXPERTS):
        registry.add_expert(f"resnet14w32.{name}", license="mit" if name == "mnist" else "")
        registry.add_result("other", f"resnet14w32.{name}", accuracy=0.5 + number / 10, protocol=PROTOCOL)
    return registry


@pytest.fixture
def registry(template, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(template.uri, tmp_path / "registry")
    return OwnResults(tmp_path / "registry")


def test_without_trials_nothing_is_run(template, cache):
    answer = template.recommend("images")
    assert answer == template.recommend("images", num_trials=0, given={})
    assert answer.trials == ()
    assert {it.evidence.trial for it in answer.recommendations} == {None}
    assert not cache.folder.exists()


def test_a_trial_finds_what_measuring_finds_and_moves_what_is_expected(template):
    seen, stages = [], []
    answer = template.recommend(
        "images",
        num_trials=2,
        on_trial=seen.append,
        progress=lambda stage, done, total: stages.append((stage, done == total)),
    )
    assert answer.trials == tuple(seen)
    assert len(seen) == 2
    found = {it.expert: it for it in answer.recommendations}
    before = {it.expert: it for it in template.recommend("images").recommendations}
    assert seen[0].expected_accuracy == before[seen[0].expert].expected_accuracy
    for trial in seen:
        measured = template.measure("images", trial.expert, record=False)
        assert trial.found.accuracy == pytest.approx(measured.accuracy)
        assert found[trial.expert].evidence.trial == trial.found
        assert found[trial.expert].expected_accuracy == pytest.approx(measured.accuracy, abs=0.05)
        assert trial.found.scores.keys() == WEIGHTS.keys()
        assert trial.found.seconds > 0
    (untried,) = found.keys() - {trial.expert for trial in seen}
    assert found[untried].evidence.trial is None
    assert [stage for stage, whole in stages if whole] == ["decode", "features", "features", "trials"]


def test_trials_on_data_are_those_on_the_task(template, images):
    """A folder of that name, not the task: it is embedded, then tried."""
    answer = template.recommend(str(images), num_trials=3)
    registered = template.recommend("images", num_trials=3)
    found = {trial.expert: trial.found for trial in registered.trials}
    assert {trial.expert for trial in answer.trials} == found.keys()
    for trial in answer.trials:
        assert trial.found.accuracy == found[trial.expert].accuracy
        assert trial.found.scores == found[trial.expert].scores


def test_features_in_the_cache_are_used(template, cache):
    """Features that tell the classes apart are found, if there are any."""
    template.recommend("images", num_trials=3)
    first = {path: path.read_bytes() for path in cache.folder.iterdir()}
    assert len(first) == 3
    again = template.recommend("images", num_trials=3)
    assert {path: path.read_bytes() for path in cache.folder.iterdir()} == first
    real, put = FeatureCache.get, []

    def told(self, key):
        features, labels = real(self, key)
        put.append((key, np.eye(2, dtype=np.float32)[labels], labels))
        return features, labels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureCache, "get", told)
        template.recommend("images", num_trials=3)
    for entry in put:
        cache.put(*entry)
    assert any(trial.found.accuracy < 1 for trial in again.trials)
    assert [t.found.accuracy for t in template.recommend("images", num_trials=3).trials] == [1.0] * 3


def test_a_damaged_cache_changes_nothing(template, cache):
    first = template.recommend("images", num_trials=3)
    for path in cache.folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    second = template.recommend("images", num_trials=3)
    by_expert = [
        sorted((t.expert, t.found.accuracy, t.found.scores["knn"]) for t in a.trials) for a in (first, second)
    ]
    assert by_expert[0] == by_expert[1]


def test_experts_that_fail_are_told_and_skipped(registry, tmp_path):
    files = {name: tmp_path / f"resnet14w32.{name}.safetensors" for name in ("nan", "cut", "gone")}
    for name, path in files.items():
        shutil.copy(FILES["mnist"], path)
        registry.add_expert(f"resnet14w32@{path}", name=f"x.{name}")
    state = load_file(files["nan"])
    save_file({k: v * float("nan") if v.is_floating_point() else v for k, v in state.items()}, files["nan"])
    files["cut"].write_bytes(files["cut"].read_bytes()[:1000])
    files["gone"].unlink()
    answer = registry.recommend("images", num_trials=6)
    assert {trial.expert for trial in answer.trials} == set(KNOWN)
    told = sorted(warning for warning in answer.warnings if "could not be tried" in warning)
    reasons = {
        "cut": f"{files['cut']}: not a safetensors file or a PyTorch checkpoint of plain tensors",
        "gone": f"{files['gone']}: no such weights file; expected .safetensors or a PyTorch checkpoint",
        "nan": f"resnet14w32@{files['nan']}: its weights conv1.weight and 64 others hold NaN or infinity",
    }
    for warning, (name, reason) in zip(told, reasons.items(), strict=True):
        assert warning.startswith(f"x.{name} could not be tried: {reason}")
    assert "stopped after 3 of 6 trials: no other expert is left to try" in answer.warnings
    assert "x.gone" in {it.expert for it in registry.recommend("images", k=9, num_trials=6).recommendations}


def test_a_head_that_cannot_be_fitted_leaves_the_scores_and_the_other_trials(template, monkeypatch):
    """One expert in three has a head that does not converge."""
    whole = template.recommend("images", num_trials=3)
    second, calls = whole.trials[1].expert, []

    def fit(features, labels, *rest):
        calls.append(features)
        if len(calls) == FIRST_FAILING:
            raise DataError("features", "the head did not converge in 100 steps; check the network's weights")
        return fit_head(features, labels, *rest)

    monkeypatch.setattr("indexer.experts.few_shot.fit_head", fit)
    answer = template.recommend("images", num_trials=3)
    assert {it.expert for it in answer.trials} == set(KNOWN)
    found = {it.expert: it.found for it in answer.trials}
    assert [it.expert for it in answer.trials][1] == second
    assert found[second].accuracy is None
    assert found[second].scores == whole.trials[1].found.scores
    assert all(found[name].accuracy is not None for name in found.keys() - {second})
    assert answer.warnings[-1] == (
        f"{second}: no accuracy was measured, its scores count (features: the head did not converge in 100 "
        "steps; check the network's weights)"
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (np.linalg.LinAlgError("odd"), "its features cannot be scored (LinAlgError: odd)"),
        (InvalidQueryError("features are odd"), "features are odd"),
    ],
    ids=["foreign", "own"],
)
def test_an_expert_that_cannot_be_scored_is_passed_over(template, monkeypatch, error, reason):
    calls = []

    def once(features, labels):
        calls.append(len(labels))
        if len(calls) == 1:
            raise error
        return trial_scores(features, labels)

    monkeypatch.setattr("registry.scores.trial_scores.trial_scores", once)
    answer = template.recommend("images", num_trials=3)
    assert len(answer.trials) == 2
    (failed,) = set(KNOWN) - {it.expert for it in answer.trials}
    assert f"{failed} could not be tried: {reason}" in answer.warnings


def test_data_that_is_gone_in_between_leaves_the_trials_done(registry, tmp_path, monkeypatch):
    data = write_folder(tmp_path / "data", {"a": 4, "b": 4})
    monkeypatch.setattr("indexer.experts.trials.MAX_DECODED_BYTES", 0)
    torch.manual_seed(0)
    small = tmp_path / "resnet20.mine.safetensors"
    save_file(ARCHITECTURES["resnet20"].build(10).state_dict(), small)
    registry.add_expert(f"resnet20@{small}", name="x.small")
    answer = registry.recommend(str(data), num_trials=4, on_trial=lambda trial: shutil.rmtree(data, True))
    assert answer.trials
    assert {it.expert for it in answer.trials} != {*KNOWN, "x.small"}
    assert sum("could not be tried" in warning for warning in answer.warnings) == 4 - len(answer.trials)


def test_a_budget_that_is_too_small_tries_nothing(template):
    answer = template.recommend("images", num_trials=2, time_budget=1e-6)
    assert answer.trials == ()
    assert answer.warnings[-1] == (
        "stopped after 0 of 2 trials: the next would pass the time budget of 1e-06 seconds"
    )
    assert answer.recommendations == template.recommend("images").recommendations
    assert len(template.recommend("images", num_trials=2, time_budget=600).trials) == 2


def test_it_stops_below_a_gain(template):
    answer = template.recommend("images", num_trials=3, stop_below=1)
    assert answer.trials == ()
    assert "no other is expected to improve by 1, the most is" in answer.warnings[-1]


@pytest.mark.parametrize("done", [0, 1])
def test_an_interrupt_gives_the_answer_so_far(template, done):
    def interrupt(trial):
        raise KeyboardInterrupt("pressed")

    def progress(stage, *numbers):
        if stage == "features":
            raise KeyboardInterrupt("pressed")

    if not done:
        with pytest.raises(KeyboardInterrupt, match="pressed"):
            template.recommend("images", num_trials=3, progress=progress)
        return
    answer = template.recommend("images", num_trials=3, on_trial=interrupt)
    assert len(answer.trials) == 1
    assert answer.warnings[-1] == "stopped after 1 of 3 trials: interrupted"
    (tried,) = (it for it in answer.recommendations if it.evidence.trial)
    assert tried.expert == answer.trials[0].expert


# Recording


def test_what_is_recorded_is_what_was_measured(registry):
    answer = registry.recommend("images", num_trials=2, record=True, seed=3)
    recorded = {it.expert: it for it in registry.results(task="images")}
    assert recorded.keys() == {trial.expert for trial in answer.trials}
    for trial in answer.trials:
        result = recorded[trial.expert]
        assert (result.accuracy, result.metric, result.protocol, result.seed, result.source) == (
            trial.found.accuracy,
            "accuracy",
            PROTOCOL,
            3,
            "t2v recommend --try",
        )
        assert registry.measure("images", trial.expert, seed=3, record=False).accuracy == result.accuracy
    after = registry.recommend("images", num_trials=5)
    assert {t.expert for t in after.trials} == set(KNOWN) - recorded.keys()
    assert registry.verify() == []


def test_without_record_nothing_is_stored(registry):
    registry.recommend("images", num_trials=1)
    assert registry.results(task="images") == []


def test_only_registered_single_label_tasks_are_recorded(registry, images, tmp_path, cache):
    with fails(
        InvalidQueryError,
        f"trials on {images} cannot be recorded: results are kept of registered tasks; register it with "
        f"`t2v task add NAME {images}` and ask for NAME",
    ):
        registry.recommend(str(images), num_trials=1, record=True)
    rows = [f"{path},{number % 3}" for number, path in enumerate(sorted(images.rglob("*.png")))]
    (tmp_path / "numbers.csv").write_text("\n".join(["path,target", *rows]))
    registry.add_task("numbers", str(tmp_path / "numbers.csv"))
    with fails(
        InvalidQueryError,
        "trials on numbers cannot be recorded: accuracy is measured on single-label tasks only, and numbers is "
        "regression",
    ):
        registry.recommend("numbers", num_trials=1, record=True)
    assert not cache.folder.exists()
    answer = registry.recommend("numbers", num_trials=1)
    assert answer.trials[0].found.accuracy is None
    assert answer.warnings[-1] == (
        "trials of tasks with several labels or numbers to predict give scores only: they compare the experts "
        "tried, and say nothing of how well these do"
    )


# What may be asked


def test_a_starter_task_cannot_be_tried(tmp_path):
    registry = starter(tmp_path / "starter")
    with fails(
        IngestError,
        "task mnist is starter content, whose images do not ship with this package; experts can be measured on "
        "tasks that you add",
    ):
        registry.recommend("mnist", num_trials=1)


def test_an_expert_is_not_tried_on_its_own_source(registry):
    registry.add_expert("resnet14w32.flowers5", source_task="images")
    answer = registry.recommend("images", num_trials=9)
    assert {trial.expert for trial in answer.trials} == set(KNOWN)


def test_options_of_trials_go_with_a_registered_task(template):
    small = template.recommend("images", num_trials=1, max_samples=6, seed=1, batch_size=2, device="cpu")
    assert small.trials[0].found != template.recommend("images", num_trials=1).trials[0].found
    for options in ({"max_samples": 6}, {"num_trials": 1, "channels": "mean"}):
        with pytest.raises(InvalidQueryError, match=r"would change nothing: images is embedded already"):
            template.recommend("images", **options)


def test_a_task_is_tried_as_it_was_read(registry, images):
    registry.add_task("grey", str(images), channels="mean")
    (trial,) = registry.recommend("grey", num_trials=1).trials
    assert trial.found.accuracy == registry.measure("grey", trial.expert, record=False).accuracy


def test_an_embedding_is_asked_about_as_its_data_is(template, images):
    embedding = template.embed(str(images))
    assert template.nearest(embedding) == template.nearest(str(images))
    assert template.distance(embedding, "other") == template.distance(str(images), "other")
    assert template.distance("other", embedding) == template.distance("other", str(images))
    asked, expected = template.recommend(embedding, num_trials=1), template.recommend(str(images), num_trials=1)
    assert asked.recommendations[0].expert == expected.recommendations[0].expert
    assert asked.trials[0].found.scores == expected.trials[0].found.scores


def test_trials_on_an_embedding_read_its_data_as_it_was_read(template, images):
    grey = template.embed(str(images), channels="mean", max_samples=8)
    (trial,) = template.recommend(grey, num_trials=1).trials
    (same,) = template.recommend(str(images), num_trials=1, channels="mean", max_samples=8).trials
    (larger,) = template.recommend(grey, num_trials=1, max_samples=12).trials
    assert trial.found.scores == same.found.scores != larger.found.scores


def test_an_embedding_is_refused_where_it_changes_nothing_or_cannot_be_compared(template, images, registry):
    embedding = template.embed(str(images))
    with fails(
        InvalidQueryError,
        f"seed would change nothing: {images} is embedded already; options say how data is read",
    ):
        template.nearest(embedding, seed=1)
    exact = registry.add_task("exact", str(images), estimator="exact")
    with fails(
        InvalidQueryError,
        f"{images} was embedded in space {embedding.space.space_id} and cannot be compared with tasks of space "
        f"{exact.space}; embed it with {embedding.space.probe}",
    ):
        registry.nearest(embedding, probe=exact.space)
    with pytest.raises(InvalidQueryError, match=r"cannot be recorded: results are kept of registered tasks"):
        template.recommend(embedding, num_trials=1, record=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_trials": -1}, "the number of trials must be 0 or more, got -1"),
        ({"record": True}, "record would change nothing without trials; say how many to make"),
        (
            {"given": {"resnet14w32.mnist": 1.5}},
            "the accuracy given of resnet14w32.mnist must be from 0 to 1, got 1.5",
        ),
        (
            {"given": {"resnet14w32.mnist": float("nan")}},
            "the accuracy given of resnet14w32.mnist must be from 0 to 1, got nan",
        ),
        (
            {"given": {"resnet14w32.cifar10": 0.5}, "licenses": ["mit"]},
            "resnet14w32.cifar10 is given, which is not within the limits; widen them, or leave it out",
        ),
    ],
    ids=["trials", "record", "accuracy", "nan", "limits"],
)
def test_what_makes_no_question_is_refused(template, options, message):
    with fails(InvalidQueryError, message):
        template.recommend("images", **options)


# What the user measured


def test_an_expert_that_is_given_must_be_known(template):
    with fails(NotFoundError, "no expert is named 'mnist'; known are " + ", ".join(KNOWN)):
        template.recommend("images", given={"mnist": 0.5})


def test_what_is_given_counts_as_measured(template, images):
    before = {it.expert: it for it in template.recommend("images").recommendations}
    last = min(before, key=lambda name: before[name].expected_accuracy)
    for query in ("images", str(images)):
        answer = template.recommend(query, given={last: 0.99})
        found = {it.expert: it for it in answer.recommendations}
        assert found[last].expected_accuracy == pytest.approx(0.99, abs=0.02)
        assert all(found[name].expected_accuracy > before[name].expected_accuracy for name in before)
        assert {name for name in found if found[name].measured} == {last}
        assert (answer.verdict.take, answer.verdict.ties) == (last, ())
    assert template.results(task="images") == []
    tried = template.recommend("images", given={last: 0.99}, num_trials=9)
    assert {trial.expert for trial in tried.trials} == before.keys() - {last}


def test_what_is_given_goes_before_what_was_recorded(registry):
    registry.add_result("images", "resnet14w32.mnist", accuracy=0.2, protocol=PROTOCOL)
    answer = registry.recommend("images", given={"resnet14w32.mnist": 0.9})
    (found,) = (it for it in answer.recommendations if it.expert == "resnet14w32.mnist")
    assert found.expected_accuracy == pytest.approx(0.9, abs=0.03)


# Which experts


def test_nothing_is_fetched_without_download(template, registry):
    Store(registry.uri).add_experts([make_expert("resnet18.tv_in1k", loader="resnet18.tv_in1k")])
    answer = registry.recommend("images", num_trials=1, experts=["resnet18*"])
    assert answer.trials == ()
    assert answer.warnings[-1] == (
        "1 expert was not tried, as the weights are not on this machine; download=True fetches them"
    )


def test_trials_of_another_protocol_only_compare(registry):
    registry.add_result("other", KNOWN[0], accuracy=0.5, protocol="fine_tuned")
    registry.add_result("images", KNOWN[1], accuracy=0.31, protocol=PROTOCOL)
    answer = registry.recommend("images", num_trials=2, protocol="fine_tuned")
    assert {it.measured for it in answer.recommendations} == {False}
    assert answer.warnings[-1] == (
        "what was expected and found in trials is accuracy of a linear probe, 20 samples a class; of accuracy "
        "after fine-tuning that says which of the experts tried is better, not how good it is"
    )
    probes = registry.recommend("images", protocol=PROTOCOL)
    expected = {it.expert: it.expected_accuracy for it in probes.recommendations}
    assert answer.trials[0].expected_accuracy == pytest.approx(expected[answer.trials[0].expert], abs=0.05)
    (single,) = registry.recommend("images", num_trials=1, protocol="fine_tuned").trials
    assert single == replace(answer.trials[0], found=single.found)


# Real data


@pytest.mark.slow
def test_trials_find_the_expert_for_handwriting(tmp_path):
    """Sklearn's digits are not MNIST's, but its expert is the best of the nine here, and is found."""
    registry = starter(tmp_path / "starter")
    answer = registry.recommend(DIGITS, num_trials=9, max_samples=60, experts=["resnet14w32.*"])
    assert len(answer.trials) == 9
    assert answer.recommendations[0].expert == "resnet14w32.mnist"
    best = max(answer.trials, key=lambda trial: trial.found.accuracy)
    assert best.expert == "resnet14w32.mnist"
    assert answer.recommendations[0].expected_regret < 0.02


def test_trials_on_a_folder_of_real_images(shared, tmp_path):
    registry = starter(tmp_path / "starter")
    data = str(shared / "data" / "flowers5")
    answer = registry.recommend(data, num_trials=2, max_samples=20, toys=True, published=False)
    assert len(answer.trials) == 2
    for trial in answer.trials:
        assert 0 <= trial.found.accuracy <= 1


def test_scores_are_those_of_the_features(template, cache):
    entries, real = [], FeatureCache.put

    def keep(self, key, features, labels):
        entries.append((features, labels))
        real(self, key, features, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureCache, "put", keep)
        (trial,) = template.recommend("images", num_trials=1).trials
    assert trial.found.scores == trial_scores(*entries[0])
