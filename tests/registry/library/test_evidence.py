"""registry.library.evidence: which results count for whom, and what the answer is about."""

import re

import pytest
from builders import make_expert, make_result

from registry.errors import NotFoundError
from registry.library.evidence import gather_evidence, same_weights, versioned
from registry.records import InvalidRecordError, ResultRecord

PROBE = "linear_probe_20shot"
RESNET = "resnet50.IMAGENET1K_V2"


def gather(experts=(), results=(), *, published=False, latest=None, **options):
    latest = latest or {}
    return gather_evidence(experts, results, content="images", latest=latest, published=published, **options)


# One expert for all names of the same weights


@pytest.mark.parametrize("turned", [False, True])
def test_names_of_the_same_weights_are_the_one_with_most_results(turned):
    experts = [
        make_expert("a.x", aliases=("shared.x",)),
        make_expert("b.x", aliases=("shared.x", "c.x")),
        make_expert("c.x"),
        make_expert("d.x"),
    ]
    results = [make_result("t1", "c.x"), make_result("t2", "c.x"), make_result("t1", "a.x", 0.91)]
    counting, alias, warnings = same_weights(experts[::-1] if turned else experts, results)
    assert {expert.name for expert in counting} == {"c.x", "d.x"}
    assert alias == dict.fromkeys(("a.x", "b.x", "shared.x"), "c.x")
    assert warnings == []


def test_published_names_join_what_libraries_call_the_same():
    experts = [make_expert(RESNET), make_expert("resnet50.tv2_in1k")]
    (first,), alias, _ = same_weights(experts, [make_result("t", "resnet50.tv2_in1k")])
    assert first.name == "resnet50.tv2_in1k"
    assert alias[RESNET] == "resnet50.tv2_in1k"


def test_names_do_not_join_experts_whose_results_contradict():
    experts = [make_expert("a.x"), make_expert("b.x", aliases=("a.x",)), make_expert("c.x", aliases=("a.x",))]
    results = [
        make_result("t", "a.x", 0.9, protocol="p", seed=0),
        make_result("t", "b.x", 0.6, protocol="p", seed=0),
        make_result("t", "c.x", 0.88, protocol="p", seed=0),
        make_result("u", "a.x", 0.2, protocol="p"),
        make_result("u", "b.x", 0.9, protocol="q"),
    ]
    counting, alias, warnings = same_weights(experts, results)
    assert [expert.name for expert in counting] == ["a.x", "b.x"]
    assert alias == {"c.x": "a.x"}
    assert warnings == [
        (
            "a.x and b.x are named as the same weights, but they measured 0.9 and 0.6 on t (accuracy, p): they "
            "count as two experts until that is corrected"
        )
    ]
    assert gather(experts, results).warnings == tuple(warnings)


def test_names_do_not_join_weights_that_differ():
    experts = [make_expert("a.x", weights_hash="1"), make_expert("b.x", aliases=("a.x",), weights_hash="2")]
    counting, alias, warnings = same_weights(experts, [])
    assert len(counting) == 2
    assert alias == {}
    assert warnings == [
        (
            "a.x and b.x are named as the same weights, but the weights that were loaded differ: they count as "
            "two experts until that is corrected"
        )
    ]


# Which results count


def test_results_are_of_the_version_that_was_measured():
    results = [
        make_result("pets", "a.x", 0.1, task_version=1),
        make_result("pets", "a.x", 0.2, task_version=2),
        make_result("pets", "a.x", 0.3),
        make_result("gone", "a.x", 0.4, task_version=3),
    ]
    rows = gather([make_expert("a.x")], results, latest={"pets": 2}).results
    assert [(row.task, row.accuracy) for row in rows] == [
        ("pets@1", 0.1),
        ("pets", 0.2),
        ("pets", 0.3),
        ("gone", 0.4),
    ]
    assert versioned("pets", 1, {"pets": 1}) == versioned("pets", 0, {"pets": 2}) == "pets"


def test_results_of_other_weights_of_that_name_do_not_count():
    results = [make_result("t", "a.x", n / 10, weights_hash=text) for n, text in enumerate(("", "old", "new"))]
    rows = gather([make_expert("a.x", weights_hash="new")], results).results
    assert [row.accuracy for row in rows] == [0.0, 0.2]
    assert len(gather([make_expert("a.x")], results).results) == 3


def test_error_rates_count_as_accuracies_and_losses_upside_down():
    metrics = [("error_rate", 0.02), ("top1_error", 0.25), ("loss", 0.0), ("accuracy", 0.5)]
    results = [make_result("t", "a.x", value, metric=metric) for metric, value in metrics]
    rows = gather([make_expert("a.x")], results).results
    assert [(row.metric, row.accuracy) for row in rows] == [
        ("accuracy", 0.98),
        ("top1", 0.75),
        ("loss", 1.0),
        ("accuracy", 0.5),
    ]


def test_published_results_and_experts_are_there_unless_left_out():
    own = [make_expert(RESNET, flops=None, num_params=None)]
    with_published, without = gather(own, published=True), gather(own)
    assert len(with_published.results) > 1000
    assert {row.seed for row in with_published.results} == {None}
    assert (without.results, [expert.name for expert in without.experts]) == ([], [RESNET])
    (first, *others) = with_published.experts
    assert first.name == RESNET
    assert first.num_params == pytest.approx(25.6e6, rel=0.02)  # what the registry does not know
    names = {expert.name for expert in others}
    assert not names & {RESNET, *with_published.alias}


# What the answer is about


def test_the_way_is_that_of_own_results_then_of_starter_content_then_of_publications():
    starter = [make_result("t", "a.x", protocol=PROBE, builtin=True)] * 3
    own = [make_result("t", "a.x", 0.1, metric="error_rate", protocol="fine_tuned")]
    assert gather(results=[*starter, *own]).way == ("accuracy", "fine_tuned")
    assert gather(results=starter).way == ("accuracy", PROBE)
    assert gather(results=[*starter, *own], protocol=PROBE).way == ("accuracy", PROBE)
    assert gather().way == ("accuracy", PROBE)
    assert gather(published=True).way[0] == "accuracy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "fine_tune"}, "no protocol of any result is named 'fine_tune'; did you mean fine_tuned?"),
        ({"protocol": "x"}, f"no protocol of any result is named 'x'; known are fine_tuned, {PROBE}"),
        ({"metric": "f1"}, "no metric of any result is named 'f1'; known are accuracy"),
    ],
    ids=["close", "protocol", "metric"],
)
def test_a_way_that_nobody_used_names_those_that_were(options, message):
    results = [make_result(protocol=PROBE), make_result(metric="error_rate", protocol="fine_tuned")]
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        gather(results=results, **options)


# Bad input, before it becomes evidence


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accuracy": 95.0}, "accuracy must be from 0 to 1, got 95.0; if it is in per cent, write 0.95"),
        (
            {"accuracy": 0.5, "metric": "quality"},
            (
                "metric 'quality' is not known: say whether lower or higher values are better "
                "(lower_is_better=True or lower_is_better=False), or use a known metric such as accuracy or "
                "error_rate"
            ),
        ),
    ],
    ids=["percent", "direction"],
)
def test_a_result_that_cannot_be_read_is_told(values, message):
    with pytest.raises(InvalidRecordError, match=f"^{re.escape(f'result of a.x on t: {message}')}$"):
        ResultRecord("t", "a.x", **values)
