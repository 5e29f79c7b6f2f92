"""The demo: the whole product on real digits, and what it chooses to measure."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from registry.answers import Baseline, Evidence, Query, Recommendation, RecommendedExpert
from registry.cli import demo
from registry.cli.demo import picks, run_demo


def test_demo_does_the_main_job(capsys, tmp_path, monkeypatch):
    digits = load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", images=images[:300], labels=digits.target[:300])  # a sixth of them
    monkeypatch.setattr(demo, "DATA", str(tmp_path / "digits.npz"))
    measured = run_demo()
    printed = capsys.readouterr()
    for command in ("task add digits", "nearest digits", "recommend digits", "result measure digits"):
        assert f"$ t2v {command}" in printed.out
    assert "mnist" in printed.out.split("t2v recommend")[0]
    assert "A fresh registry with the starter content: 49 tasks, 26 experts" in printed.err
    rules, experts = [rule for rule, _, _ in measured], [result.expert for _, _, result in measured]
    assert sum("recommended" in rule for rule in rules) == sum("static" in rule for rule in rules) == 1
    assert len(set(experts)) == len(experts)
    for _, expected, result in measured:
        assert 0 < expected < 1
        assert result.accuracy > 0.5  # chance is 0.1
        assert f"{result.accuracy:.3f}" in printed.out


@pytest.mark.parametrize(
    ("static", "nearest", "expected"),
    [
        ("a", "a", [("recommended and static and nearest", "a", 0.9)]),
        ("b", "b", [("recommended", "a", 0.9), ("static and nearest", "b", 0.7)]),
        ("b", "c", [("recommended", "a", 0.9), ("static", "b", 0.7), ("nearest", "c", 0.7)]),
        (None, None, [("recommended", "a", 0.9)]),
    ],
)
def test_each_expert_is_measured_once(static: str | None, nearest: str | None, expected: list):
    best = RecommendedExpert(1, "a", 0.9, (0.8, 1.0), 0.0, None, "", "", Evidence((), 0))
    baselines = {
        "static": Baseline(static, 0.7),
        "nearest": Baseline(nearest, 0.7),
        "random": Baseline(None, 0.5),
    }
    assert picks(Recommendation(Query("t", 1, "s"), (best,), baselines)) == expected
