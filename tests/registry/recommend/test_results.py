"""registry.recommend.results: which results make which cell of the table."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references_recommend import gather_reference

from registry.recommend.results import choose_way, from_logit, gather, logit_noise, to_logit

SOURCES = {"x": "", "y": "t0"}
ALIAS = {"z": "x"}


@dataclass(frozen=True)
class Row:
    task: str
    expert: str
    metric: str
    protocol: str
    accuracy: float
    seed: int | None


rows = st.lists(
    st.builds(
        Row,
        task=st.sampled_from(["t0", "t1", "t2"]),
        expert=st.sampled_from(["x", "y", "z", "gone"]),
        metric=st.just("accuracy"),
        protocol=st.sampled_from(["p", "q"]),
        accuracy=st.sampled_from([0.25, 0.5, 1.0]),
        seed=st.sampled_from([None, 0, 1]),
    ),
    max_size=12,
)


@given(rows, st.sampled_from(["t0", "t1", None]), st.randoms(use_true_random=False))
def test_gather_is_the_slow_twin_told_twice_and_in_any_order(results, asked, random):
    way = ("accuracy", "p")
    cells, own, counts = gather_reference(results, SOURCES, way, asked, ALIAS)
    told = [*results, *results]
    random.shuffle(told)
    made = gather(told, SOURCES, way=way, asked=asked, alias=ALIAS)
    table = made.table
    places = zip(*np.nonzero(table.known), strict=True)
    made_cells = {(table.tasks[r], table.ways[r], table.experts[c]): table.accuracy[r, c] for r, c in places}
    assert made_cells == pytest.approx(cells)
    assert {name: value for name, value in zip(SOURCES, made.own, strict=True) if value == value} == own
    assert {name: made.counts[name] for name in SOURCES} == counts


def test_the_way_is_that_of_ones_own_results_first():
    results = [Row("t1", "x", "accuracy", "q", 0.5, None), *[Row("t2", "x", "accuracy", "p", 0.5, 0)] * 3]
    assert choose_way(results, None, None, lambda row: row.protocol == "q") == ("accuracy", "q")
    assert choose_way(results, None, None, lambda row: False) == ("accuracy", "p")
    assert choose_way(results, "q", None, lambda row: row.protocol == "p") == ("accuracy", "q")
    assert choose_way([], None, "f1", lambda row: True) == ("f1", "linear_probe_20shot")


def test_log_odds_keep_accuracies_but_for_the_edges():
    accuracy = np.array([0.004, 0.3, 0.5, 0.996])
    np.testing.assert_allclose(from_logit(to_logit(accuracy)), accuracy)
    np.testing.assert_allclose(from_logit(to_logit([0.0, 1.0])), [0.004, 0.996])
    np.testing.assert_allclose(logit_noise(to_logit(0.5), 0.01), 0.04)
