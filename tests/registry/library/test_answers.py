"""TaskRegistry over synthetic embeddings: results, recommendations, and what starter content takes part in."""

import re

import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from small_stores import OwnResults

from registry.errors import InvalidQueryError, InvalidRecordError, NotFoundError
from registry.storage.store import Store


def fails(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


@pytest.fixture
def synthetic(tmp_path):
    """Five tasks of width 4, of which ``a`` is built in; three experts and four results."""
    store = Store.create(tmp_path / "synthetic")
    store.add_space(make_space())
    store.add_tasks(
        [(make_task(name, builtin=name == "a"), make_embedding(name)) for name in "abcde"], "space0"
    )
    store.add_experts(
        [
            make_expert("big.x", builtin=True),
            make_expert(
                "small.x",
                loader="resnet14w32.mnist",
                num_params=1_000_000,
                flops=50_000_000,
                input_size=64,
                license="mit",
            ),
            make_expert("unknown.x", num_params=None, flops=None, input_size=None, license=""),
        ]
    )
    store.add_results(
        [
            make_result("a", "big.x", 0.9, builtin=True),
            make_result("a", "small.x", 0.5, builtin=True),
            make_result("b", "small.x", 0.8),
            make_result("c", "big.x", 0.7),
        ]
    )
    return OwnResults(store.uri)


# Results


def test_results_are_imported_all_or_none_unless_bad_ones_are_skipped(synthetic, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("task,expert,accuracy\nd,big.x,0.5\nz,big.x,0.5\ne,small.x,0.25\n")
    before = synthetic.results()
    with fails(InvalidRecordError, f"{path}, line 3: no task is named 'z'; known are a, b, c, d, e"):
        synthetic.import_results(path)
    assert synthetic.results() == before
    assert synthetic.import_results(str(path), skip_bad=True) == (
        2,
        [f"{path}, line 3: no task is named 'z'; known are a, b, c, d, e"],
    )
    assert [result.accuracy for result in synthetic.results(task="e")] == [0.25]


def test_a_result_needs_a_task_and_an_expert(synthetic):
    result = synthetic.add_result(
        "e", "small.x", accuracy=1, metric="top1", protocol="full", seed=3, source="me"
    )
    assert synthetic.results(task="e") == [result]
    with fails(NotFoundError, "no task is named 'z'; known are a, b, c, d, e"):
        synthetic.add_result("z", "small.x", accuracy=1)
    with fails(NotFoundError, "no expert is named 'smal.x'; did you mean small.x?"):
        synthetic.add_result("a", "smal.x", accuracy=1)
    with pytest.raises(InvalidRecordError, match="accuracy must be from 0 to 1, got 95"):
        synthetic.add_result("a", "small.x", accuracy=95)


# Questions about tasks


def test_recommend_keeps_within_limits_which_the_unknown_does_not(synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # with nothing in it
    for limits, expected in (
        ({}, {"big.x", "small.x", "unknown.x"}),
        ({"max_params": 1e6}, {"small.x"}),
        ({"max_params": 11e6}, {"small.x", "big.x"}),
        ({"max_flops": 1e9}, {"small.x"}),
        ({"licenses": ["MIT", "isc"]}, {"small.x"}),
        ({"licenses": ["bsd-3-clause"], "max_params": 1e6}, set()),
        ({"input_size": 224}, {"big.x", "small.x"}),
        ({"input_size": 64}, {"small.x"}),
        ({"loadable_offline": True}, {"small.x"}),
        ({"loadable_offline": True, "max_params": 1e3}, set()),
    ):
        answer = synthetic.recommend("e", **limits)
        assert {it.expert for it in answer.recommendations} == expected, limits
        assert {it.expert for it in answer.baselines.values()} - {None} <= expected


def test_without_builtin_starter_content_takes_no_part(synthetic):
    mine = OwnResults(synthetic.uri, builtin=False)
    assert {task.name for task in mine.tasks()} == {"b", "c", "d", "e"}
    assert {neighbor.task for neighbor in mine.nearest("a")[1]} == {"b", "c", "d", "e"}
    answer, everything = mine.recommend("e"), synthetic.recommend("e")
    assert {it.expert for it in answer.recommendations} == {"small.x", "unknown.x"}
    for found, tasks in ((answer, {"b"}), (everything, {"a", "b", "c"})):
        assert {near.task for it in found.recommendations for near in it.evidence.neighbors} == tasks


def test_a_question_without_an_answer(synthetic):
    for ask in (synthetic.nearest, synthetic.recommend):
        with fails(InvalidQueryError, "k must be at least 1, got 0"):
            ask("a", k=0)
    with fails(NotFoundError, "no distance is named 'cosin'; did you mean cosine?"):
        synthetic.nearest("a", distance="cosin")
    with fails(NotFoundError, "no distance is named 'cosin'; did you mean cosine?"):
        synthetic.distance("a", "b", name="cosin")
    with fails(NotFoundError, "no probe with embedded tasks is named 'tiny.tset'; did you mean tiny.test?"):
        synthetic.nearest("a", probe="tiny.tset")
