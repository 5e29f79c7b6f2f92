"""What is said about an embedding that is less sure than it looks: one sentence for each fact."""

import numpy as np
import pytest
from builders import make_embedding

from indexer.records import DatasetDescription
from registry.ingest.prepare import embedding_warnings

ROUGH = "only {} samples; below 100 an embedding is a rough guess"
EVEN = "the sample is as even as they allow, and {} weigh the same in the head and in its score"
SEVERAL = "have no rule of their own and took a slow exact route"


def dataset(num_classes=2, num_samples=500, **changes):
    values = {"class_sizes": (num_samples // num_classes,) * num_classes} | changes
    return DatasetDescription("x", num_samples, tuple(map(str, range(num_classes))), "", **values)


def embedding(used=500, relative_error=0.05):
    """An embedding whose relative error is as said, exactly."""
    return make_embedding(fisher=np.ones(3), standard_error=np.full(3, relative_error), num_samples_used=used)


def test_a_large_even_readable_dataset_is_not_warned_about():
    assert embedding_warnings(embedding(), dataset(), max_samples=2000) == ()


@pytest.mark.parametrize(
    ("num_samples", "classes", "kind", "expected"),
    [
        (100, 20, "single_label", []),
        (99, 2, "single_label", [ROUGH.format(99)]),
        (4, 2, "single_label", [ROUGH.format(4)]),
        (100, 21, "single_label", ["only 100 samples for 21 classes: the head is a rough guess"]),
        (2000, 1000, "single_label", ["only 2000 samples for 1000 classes: the head is a rough guess"]),
        (100, 21, "multi_label", ["only 100 samples for 21 labels: the head is a rough guess"]),
        (100, 21, "regression", []),
        (99, 21, "regression", [ROUGH.format(99)]),
    ],
)
def test_few_samples(num_samples, classes, kind, expected):
    sizes = () if kind == "regression" else (5,) * classes
    data = dataset(classes, num_samples, kind=kind, class_sizes=sizes)
    assert embedding_warnings(embedding(num_samples), data, max_samples=2000) == tuple(expected)


def test_the_head_learns_from_what_was_drawn_and_read_not_from_what_the_tolerance_left():
    data = dataset(num_classes=100, num_samples=5000)
    assert embedding_warnings(embedding(128), data, max_samples=500, tolerance=0.1) == ()
    assert embedding_warnings(embedding(128), data, max_samples=499, tolerance=0.1) == (
        "only 499 samples for 100 classes: the head is a rough guess",
    )


@pytest.mark.parametrize(
    ("tolerance", "num_samples", "expected"),
    [
        (None, 500, []),
        (0.051, 500, []),
        (0.05, 500, ["relative error 0.05 is above the tolerance 0.05 asked for: there are no more samples"]),
        (0.01, 400, ["relative error 0.05 is above the tolerance 0.01 asked for: there are no more samples"]),
        (0.01, 501, ["relative error 0.05 is above the tolerance 0.01 asked for: max_samples is 500"]),
    ],
)
def test_a_tolerance_that_was_not_reached(tolerance, num_samples, expected):
    found = embedding_warnings(
        embedding(min(500, num_samples)), dataset(num_samples=num_samples), max_samples=500, tolerance=tolerance
    )
    assert found == tuple(expected)


@pytest.mark.parametrize(
    ("kind", "sizes", "expected"),
    [
        ("single_label", (9, 89), []),
        ("single_label", (9, 50, 90), ["class sizes run from 9 to 90 samples: " + EVEN.format("classes")]),
        ("multi_label", (500, 5), ["label sizes run from 5 to 500 samples: " + EVEN.format("labels")]),
        ("regression", (), []),
    ],
)
def test_imbalance(kind, sizes, expected):
    data = dataset(len(sizes) or 1, kind=kind, class_sizes=sizes)
    assert embedding_warnings(embedding(), data, max_samples=2000) == tuple(expected)


@pytest.mark.parametrize(
    ("skipped", "expected"),
    [
        (0, []),
        (1, ["1 unreadable file was skipped: f0 (empty file)"]),
        (6, ["6 unreadable files were skipped: f0 (empty file)"]),
    ],
)
def test_skipped_files(skipped, expected):
    data = dataset(num_skipped=skipped, skipped_why="f0 (empty file)")
    assert embedding_warnings(embedding(), data, max_samples=2000) == tuple(expected)


@pytest.mark.parametrize(
    ("alike", "drawn", "expected"),
    [(250, 500, []), (251, 500, ["251 of the 500 samples are the same, byte for byte: little can be learned"])],
)
def test_copies(alike, drawn, expected):
    assert embedding_warnings(embedding(), dataset(num_alike=alike), max_samples=drawn) == tuple(expected)


@pytest.mark.parametrize(
    ("fallbacks", "expected"),
    [
        ((), []),
        (("a.0 (LSTM)",), ["the probe's layer a.0 (LSTM) has no rule of its own and took a slow exact route"]),
        (("a (X)", "b (Y)", "c (Z)"), [f"3 layers of the probe {SEVERAL}: a (X), b (Y), c (Z)"]),
        (("a (X)", "b (Y)", "c (Z)", "d (W)"), [f"4 layers of the probe {SEVERAL}: a (X), b (Y), c (Z), ..."]),
    ],
)
def test_fallbacks(fallbacks, expected):
    assert embedding_warnings(embedding(), dataset(), max_samples=2000, fallbacks=fallbacks) == tuple(expected)


def test_every_fact_is_told_once():
    data = dataset(num_samples=60, class_sizes=(5, 55), num_skipped=1, skipped_why="f0 (empty file)")
    found = embedding_warnings(embedding(59), data, max_samples=2000, tolerance=0.01, fallbacks=("a (LSTM)",))
    assert [sentence.split()[0] for sentence in found] == ["only", "relative", "class", "1", "the"]
