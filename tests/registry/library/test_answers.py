"""TaskRegistry over synthetic embeddings: results, recommendations, and what starter content takes part in."""

import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from small_stores import OwnResults, fails
from templates import copied

from indexer.experts.few_shot import PROTOCOL
from registry.errors import InvalidQueryError, InvalidRecordError, NotFoundError
from registry.storage.store import Store


def make_synthetic(folder):
    store = Store.create(folder, lambda new: new.add_space(make_space()))
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


@pytest.fixture
def synthetic(tmp_path):
    """Five tasks of width 4, of which ``a`` is built in; three experts and four results."""
    copied("synthetic", make_synthetic, tmp_path / "synthetic")
    return OwnResults(tmp_path / "synthetic")


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


# Which experts, and what the answer is about


def make_mixed(folder):
    store = Store.create(folder, lambda new: new.add_space(make_space()))
    store.add_tasks([(make_task(name), make_embedding(name)) for name in ("pets", "birds")], "space0")
    store.add_experts([make_expert(f"toy.{name}", toy=True, builtin=True) for name in "ab"])
    store.add_experts([make_expert("real.a", num_params=9), make_expert("real.b", num_params=8)])
    store.add_results(
        [make_result(task, "toy.a", protocol=PROTOCOL, builtin=True) for task in ("pets", "birds")]
    )


@pytest.fixture
def mixed(tmp_path):
    """Two tasks, two toys and two real experts; one toy was measured on both by the package."""
    copied("mixed", make_mixed, tmp_path / "mixed")
    return OwnResults(tmp_path / "mixed")


def names_of(answer):
    return {it.expert for it in answer.recommendations}


def test_toys_are_left_out_where_a_real_expert_is(mixed):
    answer = mixed.recommend("pets")
    assert names_of(answer) == {"real.a", "real.b"}
    assert answer.verdict.left_out == {"toys": 2}
    assert names_of(mixed.recommend("pets", toys=True)) == {"real.a", "real.b", "toy.a", "toy.b"}
    assert names_of(mixed.recommend("pets", experts=["toy*"])) == {"toy.a", "toy.b"}


def test_a_toy_that_the_user_measured_here_stays(mixed):
    mixed.add_result("pets", "toy.b", accuracy=0.6)
    assert names_of(mixed.recommend("pets")) == {"real.a", "real.b", "toy.b"}
    assert names_of(mixed.recommend("birds")) == {"real.a", "real.b"}
    given = mixed.recommend("birds", given={"toy.b": 0.5})
    assert names_of(given) == {"real.a", "real.b", "toy.b"}
    assert given.verdict.left_out == {"toys": 1}


def test_limits_say_how_many_they_left_out_and_none_left_is_said(mixed):
    answer = mixed.recommend("pets", experts=["REAL.*"], max_params=8)
    assert names_of(answer) == {"real.b"}
    assert answer.verdict.left_out == {"experts": 2, "max_params": 1}
    none = mixed.recommend("pets", max_params=1)
    assert (none.recommendations, none.baselines) == ((), {})
    assert none.warnings == (
        "no expert is within the limits (max_params left out 4): widen them, or add an expert",
    )
    with fails(InvalidQueryError, "no expert is named swin*; `t2v expert list` shows the names"):
        mixed.recommend("pets", experts=["swin*"])


def test_an_answer_is_about_one_protocol_and_metric(mixed):
    mixed.add_result("birds", "real.a", accuracy=0.1, metric="error_rate", protocol="fine_tuned")
    answer = mixed.recommend("birds")
    assert (answer.metric, answer.protocol) == ("accuracy", "fine_tuned")
    first = answer.recommendations[0]
    assert (first.expert, first.measured, first.expected_accuracy) == ("real.a", True, pytest.approx(0.9))
    assert answer.verdict.protocol == "accuracy after fine-tuning"
    probed = mixed.recommend("birds", protocol=PROTOCOL)
    assert (probed.protocol, {it.measured for it in probed.recommendations}) == (PROTOCOL, {False})
    assert set(probed.baselines) == {"static", "nearest", "largest", "random"}
    assert probed.baselines["largest"].expert == "real.a"
    with fails(NotFoundError, "no protocol of any result is named 'fine_tune'; did you mean fine_tuned?"):
        mixed.recommend("birds", protocol="fine_tune")


def test_names_that_join_experts_of_other_results_are_told(mixed):
    store = Store(mixed.uri)
    store.add_experts([make_expert("other.a", aliases=("real.a",)), make_expert("same.b", aliases=("real.b",))])
    mixed.add_result("birds", "real.a", accuracy=0.9)
    mixed.add_result("birds", "other.a", accuracy=0.5)
    answer = mixed.recommend("pets")
    assert names_of(answer) == {"real.a", "real.b", "other.a"}
    assert answer.verdict.left_out == {"toys": 2, "same weights": 1}
    assert answer.warnings[-1] == (
        "other.a and real.a are named as the same weights, but they measured 0.5 and 0.9 on birds@1 (accuracy, "
        "unspecified): they count as two experts until that is corrected"
    )


def test_results_that_contradict_are_refused_and_the_same_one_is_kept_once(mixed):
    for _ in range(2):
        mixed.add_result("birds", "real.a", accuracy=0.9, seed=0)
    assert len(mixed.results(expert="real.a")) == 1
    with fails(
        InvalidRecordError,
        "result of real.a on birds: accuracy 0.5 contradicts 0.9, which is there by the same protocol "
        "(unspecified) and seed (0); give another seed, or the id of the run that measured it",
    ):
        mixed.add_result("birds", "real.a", accuracy=0.5, seed=0)
    with fails(
        InvalidRecordError,
        "result of real.a on birds: accuracy must be from 0 to 1, got 95.0; if it is in per cent, write 0.95",
    ):
        mixed.add_result("birds", "real.a", accuracy=95)
