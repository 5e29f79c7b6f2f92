"""What an experienced practitioner would say to the answers: stories of new users, on the starter content."""

import shutil

import numpy as np
import pytest
from scipy.stats import weightedtau
from templates import starter

from registry import TaskRegistry

PHOTOS = (
    "flowers5",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("cats_dogs", "natural_images", "pacs_photo")),
)
RESNET = "resnet50.IMAGENET1K_V2"
LITE = "tf_efficientnet_lite0.in1k"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A registry with the starter content and the catalogue of torchvision."""
    registry = starter(tmp_path_factory.mktemp("stories") / "imported")
    registry.import_experts("torchvision")
    return registry


@pytest.fixture
def registry(imported, tmp_path):
    """A copy of it that a test may change."""
    folder = tmp_path / "registry"
    shutil.copytree(imported.uri, folder)
    return TaskRegistry(folder)


def expected_of(answer):
    return {expert.expert: expert.expected_accuracy for expert in answer.recommendations}


@pytest.mark.parametrize("task", PHOTOS)
def test_an_imported_catalogue_is_ranked_as_imagenet_ranks_it(imported, task):
    accuracy = {expert.name: expert.source_accuracy for expert in imported.experts(toys=False)}
    answer = imported.recommend(task, k=1000)
    assert accuracy[answer.recommendations[0].expert] >= 0.7
    assert not any(expert.toy for expert in imported.experts() if expert.name in expected_of(answer))
    expected = {name: value for name, value in expected_of(answer).items() if accuracy[name]}
    tau = weightedtau([expected[name] for name in expected], [accuracy[name] for name in expected]).statistic
    assert tau >= 0.6


@pytest.mark.parametrize("task", PHOTOS)
def test_no_toy_is_above_an_unmeasured_network_of_imagenet_on_photos(imported, task):
    answer = imported.recommend(task, k=1000, toys=True)
    ranks = {expert.expert: expert.rank for expert in answer.recommendations}
    toys = [ranks[expert.name] for expert in imported.experts() if expert.toy and expert.source_task != task]
    assert ranks[RESNET] < np.median(toys)  # some were measured on photos like these
    assert ranks[LITE] < min(toys)


def test_one_fine_tuned_result_is_first_and_moves_no_level(registry):
    before = expected_of(registry.recommend("flowers5", k=1000, protocol="linear_probe_20shot"))
    registry.add_result("flowers5", RESNET, accuracy=0.95, protocol="fine_tuned")
    answer = registry.recommend("flowers5", k=1000)
    first = answer.recommendations[0]
    assert (answer.protocol, first.expert, first.measured) == ("fine_tuned", RESNET, True)
    assert first.expected_accuracy == pytest.approx(0.95, abs=0.005)
    after = expected_of(registry.recommend("flowers5", k=1000, protocol="linear_probe_20shot"))
    measured = {result.expert for result in registry.results(task="flowers5")} - {RESNET}
    assert max(abs(after[name] - before[name]) for name in measured & before.keys()) < 0.005
    others = [abs(after[name] - before[name]) for name in before if name != RESNET]
    assert np.median(others) < 0.02


def test_published_results_of_a_protocol_do_not_make_all_networks_alike(registry):
    """Fine-tuned numbers that the world has published are of few networks and medical images, mostly."""
    registry.add_result("flowers5", RESNET, accuracy=0.95, protocol="fine_tuned")
    expected = expected_of(registry.recommend("flowers5", k=1000))
    small, large = (
        ("resnet18.IMAGENET1K_V1", "mobilenet_v2.IMAGENET1K_V1"),
        ("vit_l_16.IMAGENET1K_SWAG_E2E_V1", "convnext_large.IMAGENET1K_V1"),
    )
    assert min(expected[name] for name in large) > max(expected[name] for name in small) + 0.01
    assert expected["alexnet.IMAGENET1K_V1"] < expected[RESNET] - 0.02  # whatever it measured on medical images


def test_what_the_readme_shows_works(registry):
    registry.add_result("flowers5", RESNET, accuracy=0.95)
    answer = registry.recommend("flowers5")
    assert answer.recommendations[0].expert == answer.verdict.take == RESNET
    assert answer.verdict.expected == pytest.approx(0.95, abs=0.005)


@pytest.mark.slow  # those of recommend tell the same of the same content
def test_an_expert_that_is_measured_once_rises_on_like_tasks(registry):
    protocol = "linear_probe_20shot"
    before = registry.recommend("pacs_photo", k=1000, protocol=protocol)
    registry.add_result("natural_images", RESNET, accuracy=0.995, protocol=protocol)
    after = registry.recommend("pacs_photo", k=1000, protocol=protocol)
    moved = {name: value - expected_of(before)[name] for name, value in expected_of(after).items()}
    assert moved[RESNET] > 0
    line = {expert.expert: expert for expert in after.recommendations}[RESNET]
    was = {expert.expert: expert for expert in before.recommendations}[RESNET]
    assert line.rank <= was.rank
    assert line.interval[1] - line.interval[0] < was.interval[1] - was.interval[0]


@pytest.mark.slow  # those of recommend tell the same of the same content
def test_each_protocol_has_its_own_answer(registry):
    for number, task in enumerate(("flowers5", "cats_dogs", "pacs_photo", "natural_images", "caltech101")):
        registry.add_result(task, RESNET, accuracy=0.97 - number / 100, protocol="fine_tuned")
        registry.add_result(task, LITE, accuracy=0.95 - number / 100, protocol="fine_tuned")
    tuned = registry.recommend("trashnet", protocol="fine_tuned", k=1000)
    probed = registry.recommend("trashnet", protocol="linear_probe_20shot", k=1000)
    assert (tuned.protocol, probed.protocol) == ("fine_tuned", "linear_probe_20shot")
    assert expected_of(tuned)[LITE] > expected_of(probed)[LITE]
    assert expected_of(probed)[LITE] == pytest.approx(
        next(r.accuracy for r in registry.results(task="trashnet", expert=LITE)), abs=0.005
    )
    assert registry.recommend("trashnet", k=1).protocol == "fine_tuned"  # that of one's own results


@pytest.mark.slow  # those of recommend tell the same of the same content
def test_unmeasured_means_wide(imported):
    lines = imported.recommend("flowers5", k=1000).recommendations
    width = {line.expert: line.interval[1] - line.interval[0] for line in lines}
    measured = [width[line.expert] for line in lines if line.measured]
    assert min(width[line.expert] for line in lines if not line.measured) > max(measured)
    assert np.median([width[line.expert] for line in lines if not line.evidence.results]) > 0.1
