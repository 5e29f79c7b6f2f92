"""A registry survives ``kill -9`` at any moment, and several processes that write at once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import make_embedding

from registry.store import Store

SPACE = "space0"
ROOT = Path(__file__).parents[1]

# Adds tasks PREFIX0, PREFIX1, ... until COUNT or a kill, and prints every name when it is stored. With several
# names a commit, and a low threshold, creation, batches and compactions are under way at some of the kills.
WRITER = """
import sys
from builders import make_embedding, make_space, make_task
from registry import database
from registry.errors import DuplicateError
from registry.store import Store

uri, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
database.MAX_FRAGMENTS = 4
print("ready", flush=True)
store = Store.create(uri, lambda new: new.add_space(make_space()))
for start in range(0, count, 2):
    for names in ([f"{prefix}{start}", f"{prefix}{start}-twin"], [f"shared{start}"]):
        try:
            store.add_tasks([(make_task(name), make_embedding(name)) for name in names], "space0")
        except DuplicateError:
            continue
        print(*names, sep="\\n", flush=True)
"""


def start_writer(uri, prefix, count=1_000_000):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(uri), prefix, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def kill_after(writer, seconds):
    """Wait until a writer is about to write, let it for a while, kill it; return the names it acknowledged."""
    assert writer.stdout.readline() == "ready\n", writer.stderr.read()
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    output, _ = writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    return output.split("\n")[:-1]  # what follows the last line end is empty or cut off


def check_whole(uri, acknowledged):
    """Everything acknowledged is there, and at most orphans have to be repaired."""
    store = Store(uri)
    assert store.exists or not acknowledged
    before = {task.name for task in store.tasks()}
    assert before >= set(acknowledged)
    assert {problem.kind for problem in store.verify()} <= {"orphan", "stale"}
    store.verify(repair=True)
    assert store.verify() == []
    store = Store.create(uri)
    assert {task.name for task in store.tasks()} == before
    for name in acknowledged:
        assert store.embedding(SPACE, name, 1).fisher.tolist() == make_embedding(name).fisher.tolist()
    if before:
        assert [name for name, _ in store.embeddings(SPACE).keys] == sorted(before)


def test_kill_loses_nothing_acknowledged(tmp_path):
    """Six writers on six registries, for their start-up to overlap; killed at once to after some writes."""
    generator = random.Random(0)
    writers = [start_writer(tmp_path / str(number), "task") for number in range(6)]
    for number, writer in enumerate(writers):
        acknowledged = kill_after(writer, generator.uniform(0, 0.12) * number)
        check_whole(tmp_path / str(number), acknowledged)


@pytest.mark.slow
def test_many_kills_on_one_registry_lose_nothing_acknowledged(tmp_path):
    generator = random.Random(1)
    acknowledged = []
    for number in range(24):
        acknowledged += kill_after(start_writer(tmp_path / "one", f"round{number}-"), generator.uniform(0, 0.6))
        check_whole(tmp_path / "one", acknowledged)
    assert len(acknowledged) > 24


def test_three_writers_store_every_name_once(tmp_path):
    """They race for the creation too; each has names of its own, and all want the shared ones."""
    writers = [start_writer(tmp_path / "one", prefix, 8) for prefix in "abc"]
    outputs = [writer.communicate(timeout=120) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], outputs
    acknowledged = [name for output, _ in outputs for name in output.split() if name != "ready"]
    shared = {f"shared{start}" for start in range(0, 8, 2)}
    own = {f"{prefix}{start}{twin}" for prefix in "abc" for start in range(0, 8, 2) for twin in ("", "-twin")}
    assert sorted(acknowledged) == sorted(shared | own)
    store = Store(tmp_path / "one")
    assert [task.name for task in store.tasks()] == sorted(acknowledged)
    assert (
        len(store.database.read("tasks")) == len(store.database.read("embeddings__space0")) == len(acknowledged)
    )
    assert store.verify() == []
