"""indexer.experts.few_shot: the few-shot linear probe on made features, and on real digits."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from indexer.errors import DataError, TooFewSamplesError
from indexer.experts.few_shot import MOST_DRAWS, PROTOCOL, SHOTS, measure_expert, num_draws, score_features
from indexer.heads.heads import choose_per_class, fit_head

EXPERT = "resnet14w16.tiny_imagenet"


def blobs(sizes: list[int], distance: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[N, 12]`` of Gaussian classes, their means unit vectors times ``distance``."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.random.default_rng(0).normal(size=(len(labels), 12))
    return (noise + distance * np.eye(12)[labels]).astype(np.float32), labels


def test_protocol_is_named():
    assert PROTOCOL == "linear_probe_20shot"


@pytest.mark.parametrize("sizes", [[60, 45, 80], [60, 5, 39], [2, 3, 80]], ids=str)
def test_score_matches_a_plain_loop(sizes: list[int]):
    """Fitted on 20 of each class, or half of a small one; scored on the rest, every class alike."""
    features, labels = blobs(sizes)
    accuracies = []
    for repeat in range(20):  # 60 classes in all
        draw = 3 * MOST_DRAWS + repeat
        train = choose_per_class(labels, lambda count: SHOTS if count >= 2 * SHOTS else count // 2, draw)
        head = fit_head(features[train], labels[train])
        guesses = [int(head.logits(row[None])[0].argmax()) for row in features]
        shares = []
        for label in range(len(sizes)):
            rest = [row for row in np.flatnonzero(labels == label) if not train[row]]
            shares.append(sum(guesses[row] == label for row in rest) / len(rest))
        accuracies.append(sum(shares) / len(shares))
    found = score_features(features, labels, seed=3)
    assert found.accuracy == pytest.approx(np.mean(accuracies))
    assert found.deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert (found.protocol, found.seed) == (PROTOCOL, 3)


@pytest.mark.parametrize(
    ("sizes", "train", "rest"), [([60, 45, 80], 60, 125), ([60, 5, 39], 20 + 2 + 19, 63)], ids=str
)
def test_what_a_draw_was_fitted_and_scored_on_is_told(sizes: list[int], train: int, rest: int):
    found = score_features(*blobs(sizes), seed=3)
    assert (found.num_train, found.num_held_out) == (train, rest)


def test_names_of_classes_do_not_matter():
    features, labels = blobs([30, 25])
    assert score_features(features, 7 * labels - 3, seed=0) == score_features(features, labels, seed=0)


@pytest.mark.parametrize(
    ("num_classes", "each", "distance"),
    [pytest.param(2, 70, 1.5, marks=pytest.mark.slow), (6, 12, 2.0)],
    ids=str,
)
def test_standard_error_is_that_of_repeated_sampling(num_classes: int, each: int, distance: float):
    """Over samples that differ; the standard deviation of 24 of them is itself off by a seventh."""
    labels = np.repeat(np.arange(num_classes), each)
    found = []
    for seed in range(24):
        noise = np.random.default_rng(seed).normal(size=(len(labels), 8))
        found.append(score_features(noise + distance * np.eye(8)[labels], labels, seed))
    true = np.std([it.accuracy for it in found], ddof=1)
    told = np.sqrt(np.mean([it.standard_error**2 for it in found]))
    assert 0.65 * true < told < 1.5 * true


@pytest.mark.parametrize(
    ("labels", "few"), [([0, 0, 0], "there is one class"), ([4, 4, 9], "class 9 has 1")], ids=["one", "single"]
)
def test_too_few_samples_are_told(labels: list[int], few: str):
    message = f"labels: {few}; a linear probe needs two classes or more, each on two samples or more"
    with pytest.raises(TooFewSamplesError, match=f"^{re.escape(message)}$"):
        score_features(np.eye(3), np.array(labels), seed=0)


@pytest.mark.parametrize(("num_classes", "draws"), [(2, 30), (3, 20), (10, 6), (12, 5), (1000, 5)])
def test_tasks_of_few_classes_are_drawn_more_often(num_classes: int, draws: int):
    assert num_draws(num_classes) == draws


def test_neighbouring_seeds_share_no_draw(monkeypatch: pytest.MonkeyPatch):
    drawn = []

    def spy(labels, number, seed):
        drawn.append(seed)
        return choose_per_class(labels, number, seed)

    monkeypatch.setattr("indexer.experts.few_shot.choose_per_class", spy)
    for seed in range(4):
        score_features(*blobs([6, 6]), seed=seed)
    assert len(set(drawn)) == len(drawn) == 4 * MOST_DRAWS


def test_separate_classes_are_told_apart():
    found = score_features(*blobs([30, 30, 30], distance=50.0), seed=0)
    assert (found.accuracy, found.deviation, found.standard_error) == (1.0, 0.0, 0.0)


def test_labels_without_relation_are_guessed_by_chance():
    features, labels = blobs([300, 300, 300])
    shuffled = np.random.default_rng(1).permutation(labels)
    assert score_features(features, shuffled, seed=0).accuracy == pytest.approx(1 / 3, abs=0.06)


@pytest.fixture(scope="module")
def measured() -> dict[int, tuple]:
    """By seed: the result of an expert on digits, and the reports of its progress."""
    found = {}
    for seed in (0, 1):
        reports: list[tuple[str, int, int]] = []
        result = measure_expert(
            EXPERT,
            "sklearn:digits",
            max_samples=160,
            seed=seed,
            progress=lambda *report, reports=reports: reports.append(report),
        )
        found[seed] = result, reports
    return found


def test_expert_on_digits_is_far_above_chance(measured: dict[int, tuple]):
    result, _ = measured[0]
    assert 0.5 < result.accuracy <= 1
    assert 0 < result.deviation < 0.2
    assert (result.protocol, result.seed) == (PROTOCOL, 0)


def test_same_seed_gives_the_same_result_and_another_seed_another(measured: dict[int, tuple]):
    again = measure_expert(EXPERT, "sklearn:digits", max_samples=160, seed=0)
    assert again == measured[0][0]
    assert again.accuracy != measured[1][0].accuracy


def test_progress_is_reported_by_stage(measured: dict[int, tuple]):
    _, reports = measured[0]
    assert [stage for stage, done, total in reports if done == total] == ["decode", "features"]
    assert {total for _, _, total in reports} == {160}


def test_channels_and_range_reach_the_images(tmp_path: Path):
    """Digits as channel 2 of noise, of 16 bits, read as what they are."""
    digits = load_digits()
    grey = np.rint(digits.images[:80] * (255 / 16)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 1000, (80, 8, 8, 4))
    noise[..., 2] = 100 + 3 * grey.astype(int)
    np.savez(tmp_path / "grey.npz", images=grey, labels=digits.target[:80])
    np.savez(tmp_path / "deep.npz", images=noise.astype(np.uint16), labels=digits.target[:80])
    plain = measure_expert(EXPERT, str(tmp_path / "grey.npz"), seed=3)
    chosen = {"channels": "2,2,2", "value_range": (100, 865)}
    # Resized as numbers and not as bytes: a grey level is off now and then.
    same = measure_expert(EXPERT, str(tmp_path / "deep.npz"), seed=3, **chosen)
    assert same.accuracy == pytest.approx(plain.accuracy, abs=0.01)
    assert measure_expert(EXPERT, str(tmp_path / "deep.npz"), seed=3).accuracy < plain.accuracy - 0.05


@pytest.mark.parametrize(
    ("labels", "task"),
    [(np.arange(12)[:, None] % [2, 3] == 0, "a multi-label task"), (np.arange(12) / 7, "a regression")],
    ids=["multi_label", "regression"],
)
def test_other_kinds_of_task_are_refused(labels: np.ndarray, task: str, tmp_path: Path):
    data = str(tmp_path / "task.npz")
    np.savez(data, images=np.arange(12 * 64, dtype=np.uint8).reshape(12, 8, 8), labels=labels)
    message = (
        f"{data}: is {task}, and linear_probe_20shot measures experts on single-label tasks only; measure with "
        "a metric of your own from 0 to 1 and record it with `t2v result add`"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        measure_expert(EXPERT, data)
