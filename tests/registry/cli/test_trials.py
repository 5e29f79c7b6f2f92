"""``t2v recommend --try`` and ``--given``: what is printed where, and the document."""

import json
import re
import shutil

import pytest
from command_lines import answer, ok, shown, t2v

from registry import TaskRegistry
from registry.answers import Trial, TrialScores
from registry.cli.options import Duration
from registry.faces.show_answers import show_trial
from registry.scores.scores import list_scores

EXPERTS = ("resnet14w32.cifar10", "resnet14w32.mnist")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, images):
    """The images as a task, and two built-in experts with a result each."""
    registry = TaskRegistry(tmp_path_factory.mktemp("registry"))
    registry.init(empty=True)
    for name in ("images", "twin"):
        registry.add_task(name, str(images))
    for number, name in enumerate(EXPERTS):
        registry.add_expert(name)
        registry.add_result("twin", name, accuracy=0.5 + number / 10, protocol="linear_probe_20shot")
    return registry.uri


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_trials_are_in_the_document_and_told_as_they_go(folder):
    done = ok(folder, "recommend", "images", "--try", 2, "--time-budget", "5m", "--stop-below", "0", "--json")
    document = json.loads(done.stdout)
    assert [list(trial) for trial in document["trials"]] == [
        ["expert", "expected_accuracy", "expected_improvement", "found"]
    ] * 2
    found = {it["expert"]: it["evidence"]["trial"] for it in document["recommendations"]}
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for trial, line in zip(document["trials"], lines, strict=True):
        assert found[trial["expert"]] == trial["found"]
        assert list(trial["found"]) == ["scores", "accuracy", "seconds"]
        assert list(trial["found"]["scores"]) == ["linear_probe", "linear_fit", "knn"]
        assert re.fullmatch(
            rf"Tried {trial['expert']}: expected 0\.\d{{3}}, "
            rf"found {trial['found']['accuracy']:.3f} in \d+\.\d s\.",
            line,
        )


def test_trials_are_shown_as_a_table(folder):
    document = json.loads(ok(folder, "recommend", "images", "--try", 1, "--json").stdout)
    done = shown(folder, "recommend", "images", "--try", 1)
    (trial,) = document["trials"]
    after = done.stdout.split("What was tried, in this order:\n")[1].splitlines()
    assert after[0].split() == ["tried", "expected", "measured", "seconds"]
    row = after[2].split()
    assert row[:3] == [
        trial["expert"],
        f"{trial['expected_accuracy']:.3f}",
        f"{trial['found']['accuracy']:.3f}",
    ]
    assert (
        f"{trial['expert']}: {trial['found']['accuracy']:.3f} in a trial, 1 result, nearest twin" in done.stdout
    )
    assert "What was tried" not in shown(folder, "recommend", "images").stdout


def test_what_is_recorded_is_told_and_listed(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    done = ok(copy, "recommend", "images", "--try", 2, "--record", "--seed", 1)
    assert done.stderr.splitlines()[2] == "Recorded 2 results."
    for result in answer(copy, "result", "list", "--task", "images"):
        assert (result["source"], result["seed"]) == ("t2v recommend --try", 1)


def test_scores_of_an_expert_are_those_that_its_head_and_the_labels_allow(folder, images):
    before = answer(folder, "result", "list")
    document = answer(folder, "score", "images", EXPERTS[0])
    assert [list(row) for row in document] == [["score", "value", "summary"]] * len(document)
    values = {row["score"]: row["value"] for row in document}
    headless = {it.name for it in list_scores("single_label", source_head=False)}
    assert headless <= values.keys() <= {it.name for it in list_scores("single_label")}
    assert 0 <= values["knn"] <= 1
    of_data = answer(folder, "score", str(images), EXPERTS[0])
    assert {row["score"]: row["value"] for row in of_data} == pytest.approx(values)
    (printed,) = re.findall(r"^knn +(\S+) ", shown(folder, "score", "images", EXPERTS[0]).stdout, re.M)
    assert float(printed) == pytest.approx(values["knn"], abs=1e-3)
    assert "no expert is named 'none'" in t2v(folder, "score", "images", "none").stderr
    assert answer(folder, "result", "list") == before


def test_what_is_given_is_an_option_that_may_be_repeated(folder):
    expected = TaskRegistry(folder).recommend("images", given=dict.fromkeys(EXPERTS, 0.75))
    words = [word for name in EXPERTS for word in ("--given", f"{name}=0.75")]
    document = answer(folder, "recommend", "images", *words)
    assert [(it["expert"], it["expected_accuracy"]) for it in document["recommendations"]] == [
        (it.expert, it.expected_accuracy) for it in expected.recommendations
    ]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), (" 2H ", 7200), ("5m", 300)], ids=str
)
def test_durations(text, seconds):
    assert Duration().convert(text, None, None) == seconds


def test_a_trial_without_accuracy_shows_its_scores(capsys):
    show_trial(Trial("a.b", 0.5, 0.1, TrialScores({"logme": -1.25}, None, 2.0)))
    assert capsys.readouterr().err == "Tried a.b: expected 0.500, found logme -1.25 in 2.0 s.\n"
