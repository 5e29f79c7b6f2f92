"""A registry in an object store, used from two machines, each with a cache of its own.

The other machine is a second registry in this process; the slow tests make it a process.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_embedding, make_space, make_task
from command_lines import RECIPE
from markdown_pages import ROOT
from references_nearest import assert_nearest, plain_nearest
from s3_server import ACCESS

from registry import TaskRegistry
from registry.index import neighbors
from registry.ingest import networks
from registry.snapshots import embeddings
from registry.storage.object_store import ObjectPlace
from registry.storage.store import Store

SPACE = "space0"
SETTINGS = '{"max_samples": 2000, "seed": 0}'
FIRST = [f"t{number:02}" for number in range(60)]
LIMITS = {"EXACT_BELOW": 50, "SAVE_ROWS": 5}
"""From fifty tasks on there is an index, which is saved with every fifth further one."""

# Another machine: keeps a registry open, and does what lines of JSON ask for.
OTHER = """
import json
import sys
from test_many_machines import answers, shorten, write

shorten()
registry = None
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if registry is None or registry.uri != order["uri"]:
        from registry import TaskRegistry

        registry = TaskRegistry(order["uri"])
    write(registry, order)
    print(json.dumps(answers(registry, order["ask"])), flush=True)
"""


def shorten():
    """Reach the limits with few tasks, and load no probe to know its layers."""
    neighbors.EXACT_BELOW, embeddings.SAVE_ROWS = LIMITS.values()
    networks.probe_layers = lambda space: (("stem", 1), ("body", space.dim - 1))


def write(registry, order):
    """Add, version, remove and purge tasks."""
    store = registry._store
    if names := order.get("add"):
        entries = [(make_task(name, settings=SETTINGS), make_embedding(name)) for name in names]
        store.add_tasks(entries, SPACE)
    for name in order.get("version", ()):
        store.add_task(make_task(name, 2, settings=SETTINGS), SPACE, make_embedding(name, 2))
    for name in order.get("remove", ()):
        registry.remove_task(name)
    for name in order.get("purge", ()):
        registry.remove_task(name, purge=True)
    if order.get("optimize"):
        registry.optimize()


def answers(registry, names):
    """Neighbours of tasks, the tasks on the map, and the layers that two tasks are compared in."""
    drawn = registry.map(seed=1)
    return {
        "near": {name: [[it.task, it.version] for it in registry.nearest(name, k=5)[1]] for name in names},
        "map": sorted(map(list, zip(drawn.names, drawn.versions.tolist(), strict=True))),
        "positions": dict(zip(drawn.names, drawn.positions.round(6).tolist(), strict=True)),
        "layers": [layer.layer for layer in registry.profile(*names[:2]).layers],
    }


class Machine:
    """A process with a cache of its own."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        environment = os.environ | {
            "XDG_CACHE_HOME": str(cache),
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), str(Path(__file__).parent), str(ROOT / "tests" / "support")]
            ),
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", OTHER], env=environment, **pipes)
        assert self.process.stdout.readline() == "ready\n"

    def do(self, uri: str, *, ask: list[str], **order: object) -> dict:
        self.process.stdin.write(json.dumps({"uri": uri, "ask": ask, **order}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass


class Here:
    """The same in this process."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.registry = None

    def do(self, uri: str, *, ask: list[str], **order: object) -> dict:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(self.cache))
            if self.registry is None or self.registry.uri != uri:
                self.registry = TaskRegistry(uri)
            write(self.registry, order)
            return json.loads(json.dumps(answers(self.registry, ask)))

    def end(self) -> None:
        """Nothing to end."""


@pytest.fixture(scope="module", params=[Here, pytest.param(Machine, marks=pytest.mark.slow)])
def theirs(request, s3_server, tmp_path_factory):
    """The other machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        machine = request.param(tmp_path_factory.mktemp("theirs"))
    yield machine
    machine.end()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of this machine."""
    monkeypatch.setattr(neighbors, "EXACT_BELOW", LIMITS["EXACT_BELOW"])
    monkeypatch.setattr(embeddings, "SAVE_ROWS", LIMITS["SAVE_ROWS"])
    monkeypatch.setattr(networks, "probe_layers", lambda space: (("stem", 1), ("body", space.dim - 1)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "ours"))
    return tmp_path / "ours"


@pytest.fixture
def uri(bucket, cache):
    """A registry of sixty tasks, which this machine has made."""
    uri = f"{bucket}/team/registry"
    store = Store.create(uri, lambda new: new.add_space(make_space(description=RECIPE)))
    entries = [(make_task(name, settings=SETTINGS), make_embedding(name)) for name in FIRST]
    store.add_tasks(entries, SPACE)
    return uri


def kept(cache, uri):
    """Files of the cache of a registry, by name."""
    folder = cache / "task2vec" / Store(uri).database.registry_id()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix}


def check(uri, registry, names):
    """Answers are those of a loop over the tables."""
    for name in names:
        expected = plain_nearest(Store(uri), SPACE, name, distance="task2vec")
        assert_nearest(registry.nearest(name, k=5)[1], expected, 5)


def test_what_one_machine_writes_the_other_answers(uri, cache, theirs):
    """Both keep the registry open, and each has files of its own, which follow the tables."""
    ours = TaskRegistry(uri)
    before = answers(ours, ["t00", "t01"])
    there = theirs.do(uri, ask=["t00", "t01"])
    assert there["near"] == before["near"]
    assert sorted(kept(theirs.cache, uri)) != []
    ends = {"json", "faiss", "vectors", "rows", "arrow"}
    assert {name.rpartition(".")[2] for name in kept(cache, uri)} == ends
    assert f"layers-{SPACE}.json" in kept(cache, uri)

    added = [f"new{number}" for number in range(7)]
    there = theirs.do(uri, ask=["new0", "t01"], add=added, version=["t02"], remove=["t03"], purge=["t04"])
    assert [it for it in there["map"] if it[0] in {"t02", "new6"}][::-1] == [["t02", 2], ["new6", 1]]
    assert not {"t03", "t04"} & {name for name, _ in there["map"]}

    now = answers(ours, ["new0", "t01"])  # without being told of anything
    assert (now["near"], now["map"], now["layers"]) == (there["near"], there["map"], there["layers"])
    stayed = {"t05", "t30", "t59"}
    assert {name: now["positions"][name] for name in stayed} == {
        name: before["positions"][name] for name in stayed
    }
    check(uri, ours, ["new0", "t02", "t59"])
    check(uri, TaskRegistry(uri), ["new0", "t02", "t59"])  # by the files alone
    assert Store(uri).verify() == []


@pytest.mark.slow
def test_a_cache_that_was_left_behind_is_brought_up_to_date(uri, cache, theirs):
    """This machine is away while the other purges, adds and compacts."""
    answers(TaskRegistry(uri), ["t00", "t01"])
    old = kept(cache, uri)
    more = [f"new{number:02}" for number in range(40)]
    there = theirs.do(uri, ask=["t09", "new39"], add=more, purge=FIRST[:5], optimize=True)
    assert kept(cache, uri) == old  # nobody else touches it
    back = TaskRegistry(uri)
    now = answers(back, ["t09", "new39"])
    assert (now["near"], now["map"]) == (there["near"], there["map"])
    check(uri, back, ["t09", "new39"])
    assert kept(cache, uri) != old


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_a_damaged_cache_is_made_again(uri, cache, damage):
    before = answers(TaskRegistry(uri), ["t00", "t01"])
    for path in (cache / "task2vec" / Store(uri).database.registry_id()).glob("*.*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes({"flipped": content, "cut": content[: len(content) // 2], "emptied": b""}[damage])
    again = answers(TaskRegistry(uri), ["t00", "t01"])
    assert again == before
    assert answers(TaskRegistry(uri), ["t00", "t01"]) == before


@pytest.mark.slow
def test_another_registry_at_the_same_place_has_a_cache_of_its_own(uri, cache, theirs):
    theirs.do(uri, ask=["t00", "t01"])
    answers(TaskRegistry(uri), ["t00", "t01"])
    place = ObjectPlace(uri)
    place._delete([path for path in place._list() if not path.startswith("write.lock")])
    store = Store.create(uri, lambda new: new.add_space(make_space(description=RECIPE)))
    names = [f"o{number:02}" for number in range(55)]
    store.add_tasks([(make_task(name, settings=SETTINGS), make_embedding(name)) for name in names], SPACE)
    now = answers(TaskRegistry(uri), ["o00", "o01"])
    assert {name for name, _ in now["map"]} == set(names)
    check(uri, TaskRegistry(uri), ["o00"])
    assert len(list((cache / "task2vec").iterdir())) == 2


@pytest.mark.slow
def test_a_machine_that_can_keep_nothing_answers_all_the_same(uri, cache, tmp_path, monkeypatch):
    before = answers(TaskRegistry(uri), ["t00", "t01"])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert answers(TaskRegistry(uri), ["t00", "t01"]) == before
    shutil.rmtree(cache)  # while nobody has it open
    check(uri, TaskRegistry(uri), ["t00"])


@pytest.mark.slow
def test_credentials_are_kept_nowhere(uri, cache):
    """Neither in the store, nor in caches, nor in what is printed."""
    answers(TaskRegistry(uri), ["t00", "t01"])
    import obstore

    place = ObjectPlace(uri)
    contents = [bytes(obstore.get(place._reached(), path).bytes()) for path in place._list()]
    contents += [*kept(cache, uri).values()]
    contents.append(repr([TaskRegistry(uri), vars(place), TaskRegistry(uri).audit()]).encode())
    assert len(contents) > 20
    secret = ACCESS["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [content for content in contents if secret in content]


@pytest.mark.slow
def test_a_server_answers_what_another_machine_writes(uri, cache, theirs, tmp_path):
    """``t2v serve`` of a store, in a process of its own; what it keeps itself goes where the test says."""
    import httpx2
    from web_servers import BEARER, Served

    with Served(uri, tmp_path / "state", tmp_path / "log") as server:
        address = f"{server.url}/api/v1"

        def told(path):
            return httpx2.get(f"{address}{path}", headers=BEARER, timeout=60).json()

        before = told("/version")
        theirs.do(uri, ask=["new0", "t01"], add=["new0"], remove=["t00"])
        assert told("/version") != before
        found = told("/tasks/new0/neighbors?k=5")
        check(uri, TaskRegistry(uri), ["new0"])
        near = TaskRegistry(uri).nearest("new0", k=5)[1]
        assert [it["task"] for it in found["neighbors"]] == [it.task for it in near]
        assert httpx2.delete(f"{address}/tasks/t05", headers=BEARER, timeout=60).status_code < 300
        assert "t05" not in {name for name, _ in theirs.do(uri, ask=["new0", "t01"])["map"]}
        assert server.end() == 0
    assert (tmp_path / "state").is_dir()
    assert "not-a-secret" not in (tmp_path / "log").read_text()
