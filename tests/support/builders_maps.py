"""Synthetic tasks of 64 filters for tests of maps and clusters, in groups that lie apart."""

import numpy as np
from builders import make_embedding, make_space, make_task

from registry import TaskRegistry
from registry.storage.store import Store

DIM = 64
NUM_GROUPS = 3


def grouped(count, *, seed=0, spread=0.4):
    """Embeddings ``[count, DIM]`` float32 around ``NUM_GROUPS`` centres, group after group in turn."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 1.5, (NUM_GROUPS, DIM))
    logs = centres[np.arange(count) % NUM_GROUPS] + generator.normal(0, spread, (count, DIM))
    return np.exp(logs).astype(np.float32)


def record(name, fisher, **changes):
    """A task and its embedding."""
    return make_task(name, **changes), make_embedding(name, dim=DIM, fisher=fisher, standard_error=fisher / 10)


def records(fisher, first=0):
    """Tasks ``task000`` on; the tags of a task are its group and, of every other one, ``even``."""
    return [
        record(
            f"task{first + row:03}",
            vector,
            tags=(f"group{row % NUM_GROUPS}", *(("even",) if row % 2 == 0 else ())),
        )
        for row, vector in enumerate(fisher)
    ]


def make_registry(folder, count, **options):
    """A registry of so many grouped tasks; with its store, to add more."""
    store = Store.create(folder, lambda new: new.add_space(make_space(dim=DIM)))
    if count:
        store.add_tasks(records(grouped(count, **options)), "space0")
    return TaskRegistry(folder), store
