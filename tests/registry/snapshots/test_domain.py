"""Domain embeddings of tasks: those of the table, as it is."""

import numpy as np
import pytest
from builders import make_embedding, make_space, make_task

from registry.distances import cosine_distances
from registry.errors import StorageError
from registry.snapshots.domain import DomainVectors
from registry.storage.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path)
    store.add_space(make_space())
    store.add_tasks([(make_task(name), make_embedding(name)) for name in ("a", "b")], "space0")
    return store


def test_vectors_come_in_the_order_that_was_asked_for(store):
    vectors = DomainVectors(store.database, "space0")
    expected = np.stack([make_embedding(name).domain for name in ("b", "a", "b")])
    np.testing.assert_array_equal(vectors.of([("b", 1), ("a", 1), ("b", 1)], token=1), expected)


def test_another_state_of_the_table_is_read_anew(store):
    vectors = DomainVectors(store.database, "space0")
    before = vectors.of([("a", 1)], token=1)
    store.purge_task("a")
    np.testing.assert_array_equal(vectors.of([("a", 1)], token=1), before)
    with pytest.raises(StorageError, match=r"the embedding of a@1 was removed meanwhile; ask again"):
        vectors.of([("a", 1)], token=2)
    np.testing.assert_array_equal(vectors.of([("b", 1)], token=2)[0], make_embedding("b").domain)


def test_distances_are_of_directions_and_zero_vectors_point_nowhere():
    rows = np.array([[1.0, -1.0], [2.0, -2.0], [0.0, 0.0]])
    expected = [[0, 2], [0, 2], [1, 1]]
    np.testing.assert_allclose(
        cosine_distances(rows, np.array([[3.0, -3.0], [-1.0, 1.0]])), expected, atol=1e-12
    )
