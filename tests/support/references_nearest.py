"""Slow, obviously right twin of ``TaskRegistry.nearest``: reads all tables, compares pair after pair."""

from references_distances import reference

from registry.distances import DEFAULT_ALPHA
from registry.storage.store import Store


def plain_nearest(store: Store, space_id: str, asked: str, *, distance: str, builtin=True, where=None):
    """Distance and key of every task that may be an answer, nearest first."""
    trivial = store.space(space_id).trivial.tolist()
    query = store.task(asked)
    table = store.embeddings(space_id)
    fisher = {key: row.tolist() for key, row in zip(table.keys, table.fisher, strict=True)}
    target = fisher[query.name, query.version]
    keys = [(task.name, task.version) for task in store.tasks(where=where, builtin=builtin)]
    return sorted(
        (reference(distance, fisher[key], target, trivial, DEFAULT_ALPHA), key)
        for key in keys
        if key in fisher and key[0] != query.name
    )


def assert_nearest(found, expected, k):
    """Compare neighbours with the twin's; of two that are equally far up to rounding, either may be first."""
    distances = {key: value for value, key in expected}
    keys = [(neighbor.task, neighbor.version) for neighbor in found]
    values = [neighbor.distance for neighbor in found]
    assert len(set(keys)) == len(keys) == min(k, len(expected)), (keys, expected)
    assert [neighbor.rank for neighbor in found] == list(range(1, len(keys) + 1))
    assert values == sorted(values)
    for key, value, (least, _) in zip(keys, values, expected, strict=False):
        assert abs(value - distances[key]) <= tolerance(value), (key, value, distances[key])
        assert abs(value - least) <= tolerance(value), (keys, expected)


def tolerance(value):
    """Stored embeddings are float32, and ``task2vec`` computes in it."""
    return 2e-6 + 1e-5 * abs(value)
