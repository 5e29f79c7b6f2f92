"""Counting, hashing and drawing from streams of samples."""

import os
import tracemalloc

import numpy as np
import pytest
from builders_datasets import encoded, noise_image
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.data.listings import Entry, Listing
from indexer.data.samples import load_sample
from indexer.data.sampling import allocate, draw, survey
from indexer.data.specs import open_dataset
from indexer.records import InputTransform


def listing(labels, kind="single_label", order=None):
    """A listing of samples with these labels, in the order given, and named by their place in ``labels``."""
    num_labels = 1 + max((label for several in labels for label in several), default=0)
    entries = [Entry(f"{row:04d}", None, tuple(several)) for row, several in enumerate(labels)]
    return Listing(
        spec="made up",
        kind=kind,
        class_names=tuple(f"c{label}" for label in range(num_labels)),
        scan=lambda: iter([entries[row] for row in order] if order is not None else entries),
        size=lambda entry: 10 + len(entry.labels),
        read=lambda entry: b"",
    )


def drawn(dataset, max_samples, seed=0):
    """Rows of the drawn samples."""
    return [int(entry.name) for entry in draw(dataset, survey(dataset), max_samples, seed)]


# How many of each class


def slow_counts(available, max_samples):
    """Hand out one sample at a time to a class that has least so far and is not used up."""
    counts = [0] * len(available)
    for _ in range(min(max_samples, sum(available))):
        open_classes = [c for c in range(len(available)) if counts[c] < available[c]]
        counts[min(open_classes, key=counts.__getitem__)] += 1
    return counts


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(available=sizes, max_samples=st.integers(1, 200))
def test_allocation_is_as_even_as_can_be(available, max_samples):
    counts = allocate(available, max_samples)
    assert sum(counts) == min(max_samples, sum(available))
    assert all(count <= size for count, size in zip(counts, available, strict=True))
    assert sorted(counts) == sorted(slow_counts(available, max_samples))


@pytest.mark.parametrize(
    ("available", "max_samples", "counts"),
    [
        ([10_000, 100], 500, [400, 100]),
        ([10_000, 100], 100, [50, 50]),
        ([3] * 1000, 2000, [2] * 1000),
        ([2] * 500 + [1000] * 500, 2000, [2] * 1000),
        ([2] * 999 + [10**6], 3000, [2] * 999 + [1002]),
    ],
    ids=["100:1", "100:1, few", "1,000 classes", "1,000 classes, half of them tiny", "one giant"],
)
def test_no_class_starves(available, max_samples, counts):
    assert allocate(available, max_samples) == counts


# Which samples


label_lists = {
    "single_label": st.lists(st.integers(0, 5).map(lambda label: [label]), min_size=1, max_size=60),
    "multi_label": st.lists(st.sets(st.integers(0, 5)).map(sorted), min_size=1, max_size=60),
    "regression": st.lists(st.just([]), min_size=1, max_size=60),
}


@pytest.mark.parametrize("kind", label_lists)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), max_samples=st.integers(1, 80), seed=st.integers(0, 2**32 - 1))
def test_draw_is_without_replacement_and_depends_on_no_order(kind, data, max_samples, seed):
    labels = data.draw(label_lists[kind])
    order = data.draw(st.permutations(range(len(labels))))
    rows = drawn(listing(labels, kind), max_samples, seed)
    assert rows == sorted(set(rows))
    assert len(rows) == min(max_samples, len(labels))
    assert rows == drawn(listing(labels, kind, order), max_samples, seed)
    assert survey(listing(labels, kind)) == survey(listing(labels, kind, order))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), max_samples=st.integers(1, 80))
def test_draw_takes_of_each_class_what_is_allocated(data, max_samples):
    labels = data.draw(label_lists["single_label"])
    found = np.bincount([label for (label,) in labels])
    taken = np.bincount([labels[row][0] for row in drawn(listing(labels), max_samples)], minlength=len(found))
    assert taken.tolist() == allocate(found.tolist(), max_samples)


def test_draw_grows_with_its_size_and_keeps_what_it_had():
    labels = [[0]] * 40
    draws = [set(drawn(listing(labels), count)) for count in (5, 10, 40)]
    assert draws[0] < draws[1] < draws[2] == set(range(40))


def test_draw_is_uniform():
    """Each of 30 samples is among the 10 drawn in a third of the draws, each pair in 10/30 * 9/29 of them."""
    dataset, num_draws = listing([[0]] * 30), 1500
    chosen = np.zeros((num_draws, 30))
    for seed in range(num_draws):
        chosen[seed, drawn(dataset, 10, seed)] = 1
    together = chosen.T @ chosen / num_draws
    expected = np.where(np.eye(30), 1 / 3, 10 / 30 * 9 / 29)
    sigma = np.sqrt(expected * (1 - expected) / num_draws)
    assert (np.abs(together - expected) < 5 * sigma).all()


def test_draw_counts_a_sample_to_its_rarest_label():
    """Label 0 is everywhere; the rare 1, the rare 2 and no label at all are drawn as often as 0 alone."""
    several = [[0]] * 500 + [[0, 1]] * 20 + [[0, 2]] * 20 + [[]] * 20
    chosen = [several[row] for row in drawn(listing(several, "multi_label"), 40)]
    assert [chosen.count(labels) for labels in ([0], [0, 1], [0, 2], [])] == [10] * 4


def test_survey_counts_every_label_of_a_sample():
    found = survey(listing([[0, 2], [2], [], [0, 1, 2]], "multi_label"))
    assert (found.num_samples, found.sizes) == (4, (2, 1, 3))


def test_survey_of_a_regression_counts_no_classes():
    found = survey(listing([[], []], "regression"))
    assert (found.num_samples, found.sizes) == (2, ())


def test_survey_hashes_samples_not_their_parts():
    """Two samples that swap their labels are another listing, though names and labels are the same."""
    hashes = {survey(listing(labels)).listing_hash for labels in ([[0], [1]], [[1], [0]], [[0], [1], [1]])}
    assert len(hashes) == 3


# Memory

PEAK_BYTES = 2**20


def make_links(root, count):
    """Two class folders of that many hard links in all; file systems allow some 65,000 to a file."""
    for number in range(count):
        if number % 10_000 == 0:
            source = root / f"{number}.png"
            source.write_bytes(encoded(noise_image(number), "PNG"))
        folder = root / "data" / f"class{number % 2}"
        if number < 2:
            folder.mkdir(parents=True)
        os.link(source, folder / f"{number:07d}.png")
    return str(root / "data")


def traced_peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_folder(tmp_path, count):
    spec = make_links(tmp_path, count)

    def load():
        sample = load_sample(spec, InputTransform(8, 8), max_samples=100, seed=0)
        assert sample.description.class_sizes == (count // 2, count // 2)
        assert len(sample.labels) == 100

    load_sample("sklearn:digits", InputTransform(8, 8), max_samples=20, seed=0)  # modules are imported by now
    assert traced_peak(load) < PEAK_BYTES
    assert traced_peak(lambda: sorted(open_dataset(spec).scan(), key=lambda entry: entry.name)) > 3 * PEAK_BYTES
