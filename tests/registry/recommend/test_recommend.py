"""registry.recommend.recommend: what the answer holds, whatever it is asked."""

import math
import random
import re

import numpy as np
import pytest
from builders import make_expert, make_result
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.answers import Query
from registry.errors import InvalidRecordError
from registry.recommend.recommend import TaskDistances, load_line, recommend
from registry.recommend.results import ResultTable

NEW = Query(task="./photos", version=0, space="s")
EXPERTS = [
    make_expert("a.w", num_params=3_000_000),
    make_expert("b.w", num_params=9_000_000, source_task="pets"),
    make_expert("c.w", num_params=2_000_000),
]
RESULTS = [
    make_result(task, expert, accuracy)
    for task, accuracies in {
        "birds": (0.9, 0.8, 0.7),
        "cats": (0.88, 0.82, 0.7),
        "dogs": (0.9, 0.85, 0.75),
        "texts": (0.5, 0.6, 0.75),
        "digits": (0.52, 0.6, 0.8),
    }.items()
    for expert, accuracy in zip(("a.w", "b.w", "c.w"), accuracies, strict=True)
]
NAMES = ("birds", "cats", "digits", "dogs", "pets", "texts")


def line_distances(place, *, names=NAMES):
    """Distances on a line: animals at 0, glyphs at 10, each a little apart."""
    line = {"birds": 0.0, "cats": 0.3, "dogs": 0.7, "pets": 0.4, "texts": 10.0, "digits": 10.5}
    points = np.array([line[name] for name in names])
    return TaskDistances(names, np.abs(points[:, None] - points), np.abs(points - place))


def test_recommend_follows_the_near_tasks():
    animals = recommend(NEW, EXPERTS, RESULTS, distances=line_distances(0.1))
    glyphs = recommend(NEW, EXPERTS, RESULTS, distances=line_distances(10.2))
    assert [r.expert for r in animals.recommendations] == ["a.w", "b.w", "c.w"]
    assert [r.expert for r in glyphs.recommendations] == ["c.w", "b.w", "a.w"]
    assert [n.task for n in glyphs.recommendations[0].evidence.neighbors] == ["texts", "digits", "dogs"]
    assert glyphs.recommendations[0].evidence.neighbors[0].distance == pytest.approx(0.2)
    assert glyphs.recommendations[0].evidence.neighbors[0].accuracy == 0.75
    assert glyphs.recommendations[0].evidence.results == 5
    assert [r.rank for r in glyphs.recommendations] == [1, 2, 3]


def test_recommend_baselines_pick_by_their_rules():
    answer = recommend(NEW, EXPERTS, RESULTS, distances=line_distances(10.2), k=2)
    assert {name: b.expert for name, b in answer.baselines.items()} == {
        "static": "a.w",
        "nearest": "c.w",
        "largest": "b.w",
        "random": None,
    }
    accuracy = {
        r.expert: r.expected_accuracy
        for r in recommend(NEW, EXPERTS, RESULTS, distances=line_distances(10.2)).recommendations
    }
    for baseline in answer.baselines.values():
        expected = np.mean(list(accuracy.values())) if baseline.expert is None else accuracy[baseline.expert]
        assert baseline.expected_accuracy == pytest.approx(expected)
    assert len(answer.recommendations) == 2


def test_recommend_ignores_results_on_the_source_task():
    leaked = [*RESULTS, make_result("pets", "b.w", 1.0)]
    assert recommend(NEW, EXPERTS, leaked, distances=line_distances(0.4)) == recommend(
        NEW, EXPERTS, RESULTS, distances=line_distances(0.4)
    )


def test_recommend_uses_results_on_the_query_itself():
    query = Query(task="photos", version=1, space="s")
    own = [make_result("photos", "a.w", 0.7), make_result("photos", "c.w", 0.95)]
    answer = recommend(query, EXPERTS, [*RESULTS, *own], distances=line_distances(0.1)).recommendations
    best = answer[0]
    assert best.expert == "c.w"
    assert best.expected_accuracy == pytest.approx(0.95, abs=0.06)  # it was expected to be the worst
    assert (best.evidence.neighbors[0].task, best.evidence.neighbors[0].distance) == ("photos", 0)
    assert best.evidence.results == 6
    data = recommend(NEW, EXPERTS, [*RESULTS, *own], distances=line_distances(0.1)).recommendations
    assert (data[0].expert, data[0].evidence.results) == ("a.w", 6)


def test_recommend_takes_one_good_result_for_an_easy_task():
    query = Query(task="photos", version=1, space="s")
    before = recommend(query, EXPERTS, RESULTS, distances=line_distances(0.1)).recommendations
    own = make_result("photos", "c.w", 0.75)
    after = recommend(query, EXPERTS, [*RESULTS, own], distances=line_distances(0.1)).recommendations
    assert [r.expert for r in after] == [r.expert for r in before]
    assert after[0].expected_accuracy > before[0].expected_accuracy + 0.01
    assert after[2].expected_accuracy == pytest.approx(0.75, abs=0.01)


def test_recommend_averages_repeats_and_keeps_ways_apart():
    repeats = [*RESULTS, make_result("birds", "a.w", 0.8), make_result("birds", "a.w", 1.0)]
    answer = recommend(NEW, EXPERTS, repeats, distances=line_distances(0.1))
    first = answer.recommendations[0]
    assert first.evidence.neighbors[0].accuracy == pytest.approx(0.9)
    assert first.evidence.results == 7
    other_way = [
        make_result("cats", name, accuracy, protocol="fine_tune")
        for name, accuracy in (("a.w", 0.99), ("b.w", 0.98), ("c.w", 0.97))
    ]
    answer = recommend(NEW, EXPERTS, [*RESULTS, *other_way], distances=line_distances(0.1))
    assert answer.recommendations[0].expected_accuracy < 0.95
    assert (
        "results were measured in 2 ways: expected accuracies refer to accuracy by unspecified"
        in answer.warnings
    )


def test_recommend_does_not_depend_on_the_order_of_inputs():
    shuffler = random.Random(0)
    reference = recommend(NEW, EXPERTS, RESULTS, distances=line_distances(0.4))
    for _ in range(5):
        experts, results, names = list(EXPERTS), list(RESULTS), list(NAMES)
        for items in (experts, results, names):
            shuffler.shuffle(items)
        again = recommend(NEW, experts, results, distances=line_distances(0.4, names=tuple(names)))
        assert again == reference


def test_recommend_without_results_goes_by_source_then_size():
    experts = [
        make_expert("far.w", source_task="texts"),
        make_expert("large.w", num_params=9_000_000),
        make_expert("near.w", source_task="pets"),
        make_expert("small.w", num_params=1_000_000),
        make_expert("unknown.w", num_params=None),
    ]
    answer = recommend(NEW, experts, [], distances=line_distances(0.1))
    assert [r.expert for r in answer.recommendations] == ["near.w", "far.w", "large.w", "small.w", "unknown.w"]
    assert {r.interval for r in answer.recommendations} == {(0.0, 1.0)}
    assert answer.warnings == (
        (
            "there is no result of these experts to learn from: ranked by distance of the source task, "
            "then by accuracy on it, then by size; expected accuracies are a guess"
        ),
    )
    assert {name: b.expert for name, b in answer.baselines.items()} == {
        "static": None,
        "nearest": None,
        "largest": "far.w",
        "random": None,
    }


def test_recommend_without_experts_says_so():
    answer = recommend(NEW, [], RESULTS)
    assert (answer.recommendations, answer.baselines) == ((), {})
    assert answer.warnings == ("there is no expert to recommend: add one, or ask for less",)


def test_recommend_warns_of_what_it_cannot_know():
    query = Query(task="pets", version=2, space="s")
    experts = [*EXPERTS, make_expert("new.w")]
    answer = recommend(query, experts, RESULTS, distances=line_distances(100.0))
    assert answer.warnings == (
        "results on 5 other tasks only: a 90% interval needs 9, until then it is 0 to 1",
        (
            "unlike all tasks with results: the nearest is at distance 89.5, while each of them has another "
            "within 0.5; expect little more than average past results"
        ),
        "without any result, so placed by source task alone: new.w",
        "trained on pets itself, results there not counted: b.w",
    )
    assert recommend(NEW, EXPERTS, RESULTS).warnings[1] == (
        "no distance to any task with results is known: ranked by average past results"
    )


def test_load_line_quotes_the_loader():
    expert = make_expert("mine.w", loader='resnet18@C:\\w "x".safetensors')
    scope = {}
    line = load_line(expert).removeprefix("from indexer import load_expert; ")
    exec(line, {"load_expert": lambda loader: loader}, scope)
    assert scope["network"] == expert.loader


def test_result_table_and_distances_refuse_wrong_shapes():
    with pytest.raises(
        InvalidRecordError, match=re.escape("accuracy must be tasks by experts (1, 2), got (2, 1)")
    ):
        ResultTable(("t",), ("a", "b"), np.zeros((2, 1)))
    with pytest.raises(InvalidRecordError, match=re.escape("accuracies must be from 0 to 1")):
        ResultTable(("t",), ("a",), np.full((1, 1), 1.5))
    with pytest.raises(InvalidRecordError, match=re.escape("reference must have one per row (1,), got (2,)")):
        ResultTable(("t",), ("a",), np.zeros((1, 1)), np.ones(2, dtype=bool))
    with pytest.raises(InvalidRecordError, match=re.escape("to_query must have shape (1,), got (2,)")):
        TaskDistances(("t",), np.zeros((1, 1)), np.zeros(2))
    with pytest.raises(InvalidRecordError, match=re.escape("every task must be named once")):
        TaskDistances(("t", "t"), np.zeros((2, 2)), np.zeros(2))


TASKS = st.sampled_from(["t0", "t1", "t2", "t3", "q"])
DISTANCE = st.one_of(st.floats(-1, 1e6), st.sampled_from([0.0, math.nan, math.inf, 1e-300]))


@st.composite
def questions(draw):
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, min_size=1))
    experts = [
        make_expert(
            name, source_task=draw(st.one_of(st.just(""), TASKS)), num_params=draw(st.none() | st.just(5))
        )
        for name in names
    ]
    accuracy = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]))
    results = draw(
        st.lists(
            st.builds(
                make_result, TASKS, st.sampled_from(names), accuracy, protocol=st.sampled_from(["p", "r"])
            ),
            max_size=30,
        )
    )
    tasks = ("t0", "t1", "t2", "t3", "q")
    numbers = np.array(draw(st.lists(DISTANCE, min_size=30, max_size=30)))
    distances = TaskDistances(tasks, numbers[:25].reshape(5, 5), numbers[25:])
    query = Query(task="q", version=draw(st.sampled_from([0, 1])), space="s")
    return query, experts, results, draw(st.none() | st.just(distances))


@given(questions())
@settings(deadline=None, max_examples=150)
def test_recommend_is_finite_and_in_range_whatever_it_is_given(question):
    query, experts, results, distances = question
    answer = recommend(query, experts, results, distances=distances)
    assert len(answer.recommendations) == min(5, len(experts))
    assert set(answer.baselines) == {"static", "nearest", "largest", "random"}
    for baseline in answer.baselines.values():
        assert 0 <= baseline.expected_accuracy <= 1
    for entry in answer.recommendations:
        low, high = entry.interval
        assert 0 <= low <= entry.expected_accuracy <= high <= 1
        assert 0 <= entry.expected_regret <= 1
    regrets = [entry.expected_regret for entry in answer.recommendations]
    accuracies = [entry.expected_accuracy for entry in answer.recommendations]
    np.testing.assert_allclose(regrets, sorted(regrets), atol=1e-9)
    np.testing.assert_allclose(accuracies, sorted(accuracies, reverse=True), atol=1e-9)


def test_experts_of_which_nothing_is_known_go_by_accuracy_on_their_source_then_by_size():
    experts = [
        make_expert("small.w", source_accuracy=0.8, num_params=10),
        make_expert("large.w", source_accuracy=0.8, num_params=1000),
        make_expert("huge.w", source_accuracy=0.7, num_params=10**6),
        make_expert("untold.w", num_params=10**9),
    ]
    found = recommend(NEW, experts, []).recommendations
    assert [it.expert for it in found] == ["large.w", "small.w", "huge.w", "untold.w"]
