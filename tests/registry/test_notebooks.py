"""Answers as pandas tables and as what a notebook shows."""

import sys
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest
from builders import make_task

from registry.answers import (
    Baseline,
    Evidence,
    EvidenceNeighbor,
    Measurement,
    Query,
    Recommendation,
    RecommendedExpert,
    Trial,
    TrialScores,
)
from registry.errors import MissingExtraError
from registry.notebooks import ROWS_SHOWN, Records, html_table

EXPERT = RecommendedExpert(
    rank=1,
    expert="small.birds",
    expected_accuracy=0.81234,
    interval=(0.7, 0.9),
    expected_regret=0.01,
    num_params=1000,
    license="mit",
    load="load_expert('small.birds')",
    evidence=Evidence((EvidenceNeighbor("owls", 0.1, 0.85),), results=3),
)
ANSWER = Recommendation(
    Query("new", 0, "space"),
    (EXPERT,),
    {"static": Baseline("big.birds", 0.7), "random": Baseline(None, 0.5)},
    warnings=("far from <all>",),
)


class Cells(HTMLParser):
    """The text of a page, and the tags that it is made of."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_records_are_a_list_and_stay_records_when_cut():
    records = Records([make_task("a"), make_task("b")])
    assert records == [make_task("a"), make_task("b")]
    assert records[1] == make_task("b")
    assert isinstance(records[:1], Records)
    assert records[:1] == [make_task("a")]


def test_a_frame_has_a_row_for_each_record_and_a_column_for_each_field():
    tasks = Records([make_task("a", tags=("x", "y")), make_task("b", version=2)])
    frame = tasks.to_pandas()
    assert list(frame.columns) == list(tasks[0].__dataclass_fields__)
    assert frame["name"].tolist() == ["a", "b"]
    assert frame["tags"].tolist() == [("x", "y"), ()]
    assert Records([]).to_pandas().empty


def test_records_within_records_and_intervals_become_columns():
    trial = Trial("small.birds", 0.7, 0.01, TrialScores({"logme": 1.5, "knn": 0.6}, 0.65, 2.0))
    (row,) = Records([trial]).to_pandas().to_dict("records")
    assert row == {
        "expert": "small.birds",
        "expected_accuracy": 0.7,
        "expected_improvement": 0.01,
        "found.scores.logme": 1.5,
        "found.scores.knn": 0.6,
        "found.accuracy": 0.65,
        "found.seconds": 2.0,
    }
    (row,) = ANSWER.to_pandas().to_dict("records")
    assert (row["interval_low"], row["interval_high"], row["evidence.results"]) == (0.7, 0.9, 3)


def test_one_answer_is_a_card_and_a_row():
    measured = Measurement("birds", "small.birds", 0.8, 0.01, "linear_probe_10shot", recorded=True)
    assert measured.to_pandas()["accuracy"].tolist() == [0.8]
    texts = Cells(measured._repr_html_()).texts
    assert texts[:5] == ["Measurement", "task", "birds", "expert", "small.birds"]


def test_a_notebook_is_shown_the_first_rows_and_told_of_the_others():
    page = Records([make_task(f"t{number:03}") for number in range(ROWS_SHOWN + 7)])._repr_html_()
    texts = Cells(page).texts
    assert f"t{ROWS_SHOWN - 1:03}" in texts
    assert f"t{ROWS_SHOWN:03}" not in texts
    assert texts[-1] == "and 7 more"
    assert Cells(Records([])._repr_html_()).texts == ["none"]


def test_text_is_shown_and_never_obeyed():
    evil = '<script>alert("x")</script>'
    page = Cells(html_table([{evil: evil}], caption=evil))
    assert page.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert page.texts == [evil] * 3
    page = Cells(ANSWER._repr_html_())
    assert "far from <all>" in page.texts
    assert {"small.birds", "0.8123", "0.70 to 0.90", "owls 0.850", "(average of all)"} <= set(page.texts)


def test_a_long_cell_is_shortened():
    @dataclass(frozen=True)
    class Long:
        text: str

    *_, cell = Cells(Records([Long("x" * 500)])._repr_html_()).texts
    assert len(cell) == 80
    assert cell.endswith("…")


def test_without_pandas_the_line_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        MissingExtraError,
        match=r"^to_pandas needs pandas; install it with `pip install 'task2vec-registry\[pandas\]'`$",
    ):
        Records([make_task()]).to_pandas()
