"""What an experienced practitioner would say of answers: four stories, on the starter content."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from answer_data import Expert, Measured
from scipy.stats import weightedtau

from registry.distances import cosine_distances, pairwise
from registry.recommend.levels import TaskFacts
from registry.recommend.recommend import Answer, Asking, answer
from registry.recommend.results import TaskDistances
from registry.wording import sureness

STARTER = Path(__file__).resolve().parents[3] / "registry" / "builtin"
PROBE = "linear_probe_20shot"


CATALOGUE = [
    Expert(name, "imagenet1k", params, flops, 224, accuracy)
    for name, params, flops, accuracy in (
        ("alexnet.IMAGENET1K_V1", 6.11e7, 0.71e9, 0.565),
        ("squeezenet1_1.IMAGENET1K_V1", 1.24e6, 0.35e9, 0.582),
        ("mobilenet_v2.IMAGENET1K_V1", 3.5e6, 0.3e9, 0.719),
        ("resnet18.IMAGENET1K_V1", 1.17e7, 1.81e9, 0.698),
        ("resnet50.IMAGENET1K_V1", 2.56e7, 4.09e9, 0.761),
        ("resnet50.IMAGENET1K_V2", 2.56e7, 4.09e9, 0.809),
        ("densenet121.IMAGENET1K_V1", 7.98e6, 2.83e9, 0.744),
        ("vgg16.IMAGENET1K_V1", 1.38e8, 15.5e9, 0.716),
        ("efficientnet_b0.IMAGENET1K_V1", 5.29e6, 0.39e9, 0.777),
        ("convnext_tiny.IMAGENET1K_V1", 2.86e7, 4.46e9, 0.825),
        ("vit_b_16.IMAGENET1K_V1", 8.66e7, 17.6e9, 0.811),
        ("swin_b.IMAGENET1K_V1", 8.78e7, 15.4e9, 0.836),
        ("vit_h_14.IMAGENET1K_SWAG_E2E_V1", 6.33e8, 1.02e12, 0.886),
    )
]
TUNED = Measured("flowers5", "resnet50.IMAGENET1K_V2", 0.95, protocol="fine_tuned")


@cache
def starter() -> tuple[dict[str, TaskFacts], dict[str, np.ndarray], list[Expert], list[Measured]]:
    told = json.loads((STARTER / "starter.json").read_text(encoding="utf-8"))
    tasks = {row["name"]: row for row in told["tasks"]}
    facts = {
        row["task"]: TaskFacts(
            row["head_accuracy"], tasks[row["task"]]["num_classes"], tasks[row["task"]]["num_samples"]
        )
        for row in told["embeddings"]
    }
    with np.load(STARTER / "embeddings.npz", allow_pickle=False) as arrays:
        domain = cosine_distances(arrays["domain"], arrays["domain"])
        root = pairwise("root_ratio", arrays["fisher"], arrays["fisher"])
    names = ("name", "source_task", "num_params", "flops", "input_size", "source_accuracy")
    shipped = [Expert(*(row.get(name) for name in names), toy=row.get("toy", False)) for row in told["experts"]]
    lines = (STARTER / "results.csv").read_text(encoding="utf-8").splitlines()[1:]
    results = [Measured(*line.split(",")[:2], float(line.split(",")[2])) for line in lines]
    return facts, {"domain": domain, "root_ratio": root}, shipped, results


def ask(
    task: str, *own: Measured, known: bool = False, toys: bool = False, among: str = "", **options: str
) -> Answer:
    """Ask about a starter task as if it were new (``known``: as if its results were one's own)."""
    facts, distances, small, results = starter()
    place = list(facts).index(task)
    return answer(
        Asking(task, True, facts[task], **options),
        [*small, *CATALOGUE],
        [row for row in results if known or row.task != task] + list(own),
        tasks=facts,
        descriptors={name: TaskDistances(tuple(facts), it, it[:, place]) for name, it in distances.items()},
        candidates=None if toys else [expert.name for expert in CATALOGUE if among in expert.name],
        k=100,
    )


def accuracies(found: Answer) -> dict[str, float]:
    return {line.expert: line.expected_accuracy for line in found.ranked}


@pytest.mark.parametrize("task", ["flowers5", "cats_dogs", "pacs_photo", "caltech101"])
def test_imported_catalogue_puts_a_good_imagenet_network_first_for_photos(task):
    found = ask(task)
    published = {expert.name: expert.source_accuracy for expert in CATALOGUE}
    assert published[found.ranked[0].expert] >= 0.7
    names = list(published)
    expected = accuracies(found)
    tau = weightedtau([expected[name] for name in names], [published[name] for name in names]).statistic
    assert tau >= 0.6


def test_imagenet_networks_stand_above_toys_on_photos():
    order = [line.expert for line in ask("pacs_photo", toys=True).ranked]
    toys = [order.index(it.name) for it in starter()[2] if it.toy and it.source_task != "pacs_photo"]
    assert order.index("resnet50.IMAGENET1K_V2") < min(toys)
    assert order.index("vit_b_16.IMAGENET1K_V1") < min(toys)


def test_what_toys_measured_on_the_task_moves_no_real_expert():
    lite = Measured("cats_dogs", "tf_efficientnet_lite0.in1k", 0.919)
    toys = [replace(lite, expert=it.name, accuracy=0.5) for it in starter()[2] if it.toy]
    beside_toys, alone = (accuracies(ask("cats_dogs", lite, *own, protocol=PROBE)) for own in (toys, []))
    assert beside_toys == pytest.approx(alone)
    assert alone["swin_b.IMAGENET1K_V1"] > 0.9  # ImageNet's .836, where one of .755 measured .919


@pytest.mark.parametrize("protocol", ["fine_tuned", PROBE])
def test_who_may_be_recommended_changes_nothing_of_what_is_expected_of_the_others(protocol):
    own = [TUNED, replace(TUNED, expert="resnet14w32.tiny_imagenet", accuracy=0.6)]
    answers = [
        ask("flowers5", *own, known=True, protocol=protocol, **limit)
        for limit in ({}, {"toys": True}, {"among": "v"}, {"among": "vit"})
    ]
    rows = [
        {
            it.expert: [*np.round([it.expected_accuracy, *it.interval], 9), it.measured, it.neighbors]
            for it in some
        }
        for some in (found.ranked for found in answers)
    ]
    assert len(rows[1]) > len(rows[0]) > len(rows[2]) > len(rows[3]) > 1
    for fewer, more in ((rows[0], rows[1]), (rows[2], rows[0]), (rows[3], rows[0])):
        assert {name: more[name] for name in fewer} == fewer
    regrets = [{it.expert: it.expected_regret for it in found.ranked} for found in answers[:2]]
    assert {name: regrets[1][name] for name in regrets[0]} == pytest.approx(regrets[0], abs=1e-3)


@pytest.mark.parametrize("toys", [False, True])
def test_one_fine_tuned_result_is_first_in_its_protocol(toys):
    found = ask("flowers5", TUNED, known=True, toys=toys, protocol="fine_tuned")
    first = found.ranked[0]
    assert (first.expert, first.measured) == (TUNED.expert, True)
    assert first.expected_accuracy == pytest.approx(0.95)
    assert found.verdict is not None
    assert found.verdict.protocol == "accuracy after fine-tuning"


def test_no_toy_that_was_never_fine_tuned_comes_before_a_real_expert_that_was():
    real = "tf_efficientnet_lite0.in1k"
    tuned = [replace(TUNED, task=task, expert=real) for task in ("cats_dogs", "mnist")]
    order = [line.expert for line in ask("mnist", *tuned, known=True, toys=True, protocol="fine_tuned").ranked]
    assert order.index(real) < min(order.index(it.name) for it in starter()[2] if it.toy)


def test_one_fine_tuned_result_does_not_move_what_toys_measured_as_probes():
    before = accuracies(ask("flowers5", known=True, toys=True, protocol=PROBE))
    after = accuracies(ask("flowers5", TUNED, known=True, toys=True, protocol=PROBE))
    for expert in starter()[2]:
        assert after[expert.name] == pytest.approx(before[expert.name], abs=0.01)


def test_mixed_protocols_leave_each_others_levels_alone():
    tuned = [replace(TUNED, task=task) for task in list(starter()[0])[::3] if task != "cats_dogs"]
    before, after = (ask("cats_dogs", *own, toys=True, protocol=PROBE) for own in ((), tuned))
    assert after.prediction is not None
    assert before.prediction is not None
    moved = np.median(after.prediction.mean) - np.median(before.prediction.mean)
    assert abs(moved) < 0.06
    assert np.median(ask("cats_dogs", *tuned, toys=True, protocol="fine_tuned").prediction.mean) > np.median(
        after.prediction.mean
    )


def test_measured_once_it_rises_on_like_tasks():
    name = "mobilenet_v2.IMAGENET1K_V1"
    before = ask("cifar10", protocol=PROBE)
    after = ask("cifar10", Measured("natural_images", name, 0.97), protocol=PROBE)
    assert accuracies(after)[name] > accuracies(before)[name] + 0.01
    assert _rank(after, name) <= _rank(before, name)


def _rank(found: Answer, name: str) -> int:
    return next(line.rank for line in found.ranked if line.expert == name)


def test_unmeasured_means_wide():
    found = ask("pokemon", toys=True)
    toys = {expert.name for expert in starter()[2] if expert.toy}
    widths = {line.expert: line.interval[1] - line.interval[0] for line in found.ranked}
    measured = np.mean([width for name, width in widths.items() if name in toys])
    unmeasured = np.mean([width for name, width in widths.items() if name not in toys])
    assert unmeasured > 1.2 * measured
    assert unmeasured > 0.3


def test_the_default_protocol_is_that_of_ones_own_results():
    facts, _, small, results = starter()
    found = answer(
        Asking("flowers5", True, facts["flowers5"]),
        [*small, *CATALOGUE],
        [*results, TUNED],
        tasks=facts,
        is_own=lambda row: row.protocol == "fine_tuned",
    )
    assert found.way == ("accuracy", "fine_tuned")


def test_order_of_inputs_does_not_matter():
    facts, _, small, results = starter()
    asking = Asking("flowers5", True, facts["flowers5"])
    one = answer(asking, [*small, *CATALOGUE], results, tasks=facts, k=50)
    other = answer(asking, [*CATALOGUE, *small][::-1], results[::-1], tasks=facts, k=50)
    assert [line.expert for line in one.ranked] == [line.expert for line in other.ranked]


def test_verdict_says_what_is_as_good_what_is_cheapest_and_what_to_measure():
    found = ask("flowers5")
    verdict, expected = found.verdict, accuracies(found)
    assert verdict is not None
    cost = {expert.name: expert.flops for expert in CATALOGUE}
    close = [name for name in (verdict.take, *verdict.ties) if expected[verdict.take] - expected[name] <= 0.01]
    assert cost[verdict.cheapest] == min(cost[name] for name in close)
    assert verdict.next[0] == verdict.take  # it was never measured
    assert verdict.confidence == "low"
    assert verdict.why.endswith(".")


def test_a_single_expert_is_said_to_be_compared_with_none():
    verdict = answer(Asking("x"), CATALOGUE[:1], [], tasks={}).verdict
    assert verdict is not None
    assert (verdict.compared, verdict.why) == (1, f"{verdict.take} is the only expert that was compared.")
    assert sureness(verdict.confidence, verdict.compared) == "none: there is no other to compare it with"


def test_no_expert_is_a_sentence():
    found = answer(Asking("x"), [], [], tasks={})
    assert found.warnings == ("there is no expert to recommend: add one, or ask for less",)
    assert found.verdict is None
