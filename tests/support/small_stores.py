"""A small registry of one space, and what tests do to it."""

import re

import numpy as np
import pytest
from builders import make_embedding, make_task

from registry import TaskRegistry

SPACE = "space0"


class OwnResults(TaskRegistry):
    """Asked without published results unless a test says so: models of those thousands take half a second."""

    def recommend(self, query, *, published=False, **options):
        return super().recommend(query, published=published, **options)


def fails(error, message):
    """An error of exactly this message."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def add(store, name, version=1, **changes):
    store.add_task(make_task(name, version, **changes), SPACE, make_embedding(name, version))


def keys(store, **options):
    return [(task.name, task.version) for task in store.tasks(**options)]


def insert(store, table, records):
    """Append rows without any check, as a foreign hand might."""
    store.database.append(table, records)


def same_embedding(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("fisher", "standard_error", "domain")
    ) and (a.task, a.version, a.head_loss, a.seed) == (b.task, b.version, b.head_loss, b.seed)
