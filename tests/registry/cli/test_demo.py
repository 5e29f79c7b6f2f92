"""The demo: the whole product on real digits, and what it chooses to measure."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from registry.answers import Baseline, Evidence, Query, Recommendation, RecommendedExpert
from registry.cli import demo
from registry.cli.demo import picks, run_demo
from registry.faces.show_answers import Compared

REAL = "tf_efficientnet_lite0.in1k"
PHOTOS = demo.PHOTOS[:1]  # `scripts/demo.sh` shows all


def test_demo_does_the_main_job(capsys, tmp_path, monkeypatch):
    digits = load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", images=images[:60], labels=digits.target[:60])
    monkeypatch.setattr(demo, "PHOTOS", PHOTOS)
    monkeypatch.setattr(demo, "DATA", str(tmp_path / "digits.npz"))
    compared = run_demo()
    printed = capsys.readouterr()
    for command in ("recommend cats_dogs", "task add digits", "nearest digits", "result measure digits"):
        assert f"$ t2v {command}" in printed.out
    assert "mnist" in printed.out.split("$ t2v recommend digits")[0]
    assert "A fresh registry with the starter content: 49 tasks, 26 experts" in printed.err
    assert [row.task for row in compared if row.rule.startswith("recommended")] == [*PHOTOS, "digits"]
    for task in PHOTOS:
        best = max(row.measured for row in compared if row.task == task)
        taken = next(row for row in compared if row.task == task and row.rule.startswith("recommended"))
        assert (taken.expert, taken.measured) == (REAL, best)
    assert all(f"{row.measured:.3f}" in printed.out for row in compared)


@pytest.mark.parametrize(
    ("static", "nearest", "expected"),
    [
        ("a", "a", [("recommended, static, nearest", "a", 0.9)]),
        ("b", "b", [("recommended", "a", 0.9), ("static, nearest", "b", 0.7)]),
        ("b", "c", [("recommended", "a", 0.9), ("static", "b", 0.7), ("nearest", "c", 0.7)]),
        (None, "new", [("recommended", "a", 0.9)]),
    ],
)
def test_each_expert_is_compared_once(static: str | None, nearest: str | None, expected: list):
    best = RecommendedExpert(1, "a", 0.9, (0.8, 1.0), 0.0, None, "", "", Evidence((), 0))
    baselines = {
        "static": Baseline(static, 0.7),
        "nearest": Baseline(nearest, 0.7),
        "largest": Baseline(None, 0.7),
        "random": Baseline(None, 0.5),
    }
    measured = {"a": 0.5, "b": 0.6, "c": 0.7}
    assert picks("t", Recommendation(Query("t", 1, "s"), (best,), baselines), measured) == [
        Compared("t", rules, expert, accuracy, measured[expert]) for rules, expert, accuracy in expected
    ]
