"""No damage to a file of a registry makes it answer wrongly, or in any other way than an error in one line.

Every file is cut off, has a bit flipped, or is deleted, one at a time, and everything is asked of a registry
that is opened anew: each answer is right or a ``RegistryError``. By default a sample drawn by a seed is tried,
of every kind of file; ``-m slow`` tries 20 places of each way in every file, in parts of a minute. After one
damage of each way, a folder in its place and a file that may not be read among them, ``t2v verify --repair``
runs, and whatever is answered otherwise then it must have said to be lost. As a script this file is the process
that asks, with bounded memory and time, so that one that dies or hangs is noticed too.
"""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import lancedb
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from click.testing import CliRunner
from kill_points import INDEXED_FROM, OTHER_SPACE, SPACE, TASKS, ask
from small_stores import add

from registry import TaskRegistry
from registry.cli.main import main as t2v
from registry.errors import RegistryError
from registry.index import neighbors
from registry.notebooks import to_json
from registry.storage.store import Store

PLACES = 20
NOBODY = 65534
PARTS = 20
MEMORY_BYTES = 8 * 2**30
SECONDS_PER_DAMAGE = 30
ASKED = ("a", "b", "c", "t07")


@dataclass(frozen=True)
class Damage:
    """What is done to a file: cut off at a place, its bit flipped there, deleted, made a folder, or locked."""

    path: str
    way: str
    place: int = 0

    def apply(self, folder):
        path = folder / self.path
        content = bytearray(path.read_bytes())
        if self.way in {"delete", "folder"}:
            path.unlink()
            if self.way == "folder":
                path.mkdir()
        elif self.way == "lock":
            path.chmod(0)
        elif self.way == "truncate":
            path.write_bytes(content[: self.place])
        else:
            content[self.place // 8] ^= 1 << self.place % 8
            path.write_bytes(content)


def files_of(folder):
    """Every file by its path in the registry, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def every_damage(folder):
    """The same for the same registry; a small file has fewer places."""
    damages = []
    for path in files_of(folder):
        size, generator = (folder / path).stat().st_size, random.Random(path)
        cuts = sorted({size * number // PLACES for number in range(PLACES)}) if size else []
        flips = generator.sample(range(8 * size), min(PLACES, 8 * size))
        damages += [Damage(path, "delete"), *(Damage(path, "truncate", cut) for cut in cuts)]
        damages += [Damage(path, "flip", place) for place in flips]
    return damages


def one_of_each(folder):
    """Every file in every way: deleted, empty, cut in half, a bit flipped, a folder in its place, locked."""
    damages = []
    for path in files_of(folder):
        size = (folder / path).stat().st_size
        cuts = {Damage(path, "truncate"), Damage(path, "truncate", size // 2)} if size else set()
        flips = [Damage(path, "flip", random.Random(path).randrange(8 * size))] if size else []
        damages += [
            *sorted(cuts, key=str),
            *flips,
            *(Damage(path, way) for way in ("delete", "folder", "lock")),
        ]
    return damages


def sampled(damages, number):
    """As many of each kind of file and each way as of any other, as far as there are."""
    generator, by_kind = random.Random(0), {}
    for damage in damages:
        parts = Path(damage.path).parts
        by_kind.setdefault((parts[0], *parts[1:-1], Path(parts[-1]).suffix, damage.way), []).append(damage)
    rounds = [generator.sample(kind, len(kind)) for kind in by_kind.values()]
    generator.shuffle(rounds)
    ordered = [kind[turn] for turn in range(max(map(len, rounds))) for kind in rounds if turn < len(kind)]
    return ordered[:number]


def chosen(damages, number, part):
    """A sample of the damages, or one part of them all if ``number`` is 0."""
    return sampled(damages, number) if number else damages[part::PARTS]


def build_registry(folder):
    """Something of each kind, rows deleted so that there are deletion files, and an index."""
    store = Store.create(folder, lambda new: new.add_space(make_space()))
    names = (*TASKS, "gone", "hidden")
    store.add_tasks([(make_task(name), make_embedding(name)) for name in names], SPACE)
    store.add_task(make_task("a", 2, tags=("red",)), SPACE, make_embedding("a", 2))
    store.add_space(make_space(OTHER_SPACE, dim=3, probe="other.test"))
    store.add_embedding(OTHER_SPACE, make_embedding("b", dim=3))
    store.add_experts([make_expert("one.test"), make_expert("two.test")])
    store.add_results([make_result(task, "one.test") for task in ("a", "b", "gone")])
    store.set_alias("a@1", "first")
    store.purge_task("gone")
    store.remove_task("hidden")
    store.remove_expert("two.test")
    ask(folder)


QUESTIONS = {
    "tasks": lambda registry, store: registry.tasks(),
    "versions": lambda registry, store: store.tasks(latest=False),
    "experts": lambda registry, store: registry.experts(),
    "results": lambda registry, store: registry.results(),
    "spaces": lambda registry, store: store.spaces(),
    "audit": lambda registry, store: store.audit(),
    "other space": lambda registry, store: store.embeddings(OTHER_SPACE),
} | {
    f"{kind} {name}": question
    for name in ASKED
    for kind, question in {
        "nearest": lambda registry, store, name=name: registry.nearest(name, probe=SPACE, k=3),
        "embedding": lambda registry, store, name=name: registry.embeddings_of(name),
    }.items()
}


def answers(folder):
    """What a registry that is opened anew answers to everything; an error as its message."""
    registry, store, found = TaskRegistry(folder), Store(folder), {}
    for name, question in QUESTIONS.items():
        try:
            found[name] = repr(plain(question(registry, store)))
        except RegistryError as error:
            found[name] = error
    return found


def plain(answer):
    """Lists and numbers of an answer, arrays in full."""
    if hasattr(answer, "__dataclass_fields__"):
        return {name: plain(getattr(answer, name)) for name in answer.__dataclass_fields__}
    if isinstance(answer, list | tuple):
        return [plain(value) for value in answer]
    return answer.tolist() if hasattr(answer, "tolist") else to_json(answer)


def faults_of(found, right):
    """Answers that are neither right nor an error in one line."""
    faults = []
    for name, answer in found.items():
        if isinstance(answer, RegistryError):
            if len(str(answer).splitlines()) != 1:
                faults.append(f"{name}: not one line: {answer}")
        elif answer != right[name]:
            faults.append(f"{name}: wrong: {answer[:300]}, not {right[name][:300]}")
    return faults


def verify_faults(folder):
    """What is wrong with what `t2v verify` does: other than 0 or 1, or a traceback."""
    result = CliRunner().invoke(t2v, ["--registry", str(folder), "verify"])
    if result.exit_code not in {0, 1} or (result.exception and not isinstance(result.exception, SystemExit)):
        return [f"verify: exit code {result.exit_code}, {result.exception!r}"]
    return []


def repair_faults(folder, right):
    """What is wrong with `t2v verify --repair`; what is answered otherwise after it must be said to be lost."""
    result = CliRunner().invoke(t2v, ["--registry", str(folder), "verify", "--repair"])
    if result.exit_code not in {0, 1} or (result.exception and not isinstance(result.exception, SystemExit)):
        return [f"repair: exit code {result.exit_code}, {result.exception!r}"]
    found = answers(folder)
    faults = faults_of(found, right) if "lost" not in result.output else []
    if result.exit_code == 0:
        try:
            Store(folder).add_task(make_task("after"), SPACE, make_embedding("after"))
            Store(folder).add_experts([make_expert("after")])
            assert {"after"} < Store(folder).task_names()
            assert not any(isinstance(answer, RegistryError) for answer in found.values())
        except (RegistryError, AssertionError) as error:
            faults.append(f"all is well, says repair, but {error}"[:300])
    if len(result.output.splitlines()) > 40:
        faults.append(f"repair says {len(result.output.splitlines())} lines")
    return [f"after repair: {fault}; it said {result.output[-300:]!r}" for fault in faults]


def say(line):
    """To the test that started this process, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def work(pristine, folder, repairs, number, part, start):
    """Try the damages from one number on; print which, then what was found."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    neighbors.EXACT_BELOW = INDEXED_FROM
    right = answers(folder)
    damages = chosen((one_of_each if repairs else every_damage)(pristine), number, part)
    if os.geteuid() == 0:  # who may read everything
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    for position, damage in enumerate(damages[start:], start):
        say(json.dumps({"position": position, "damage": str(damage)}))
        signal.alarm(SECONDS_PER_DAMAGE)
        damage.apply(folder)
        found = answers(folder)
        faults = faults_of(found, right) + verify_faults(folder)
        refused = any(isinstance(answer, RegistryError) for answer in found.values())
        if repairs:
            faults += repair_faults(folder, right)
            clear(folder)
            shutil.copytree(pristine, folder, dirs_exist_ok=True)
        else:
            shutil.copyfile(pristine / damage.path, folder / damage.path)
            shutil.rmtree(folder / "index")
            shutil.copytree(pristine / "index", folder / "index")
        say(json.dumps({"faults": faults, "refused": refused}))
    signal.alarm(0)


def clear(folder):
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def try_damages(folder, number, part=0, *, repairs=False):
    """Run the process that asks, again after a damage that ends it.

    Returns:
        How many were tried, how many were refused, and what was at fault.
    """
    build_registry(folder / "registry")
    with TemporaryDirectory() as name:  # that of pytest is closed to others, whom the process is one of
        return _try_damages(folder / "registry", Path(name), number, part, repairs=repairs)


def _try_damages(registry, folder, number, part, *, repairs):
    tried, refused, faults = 0, 0, []
    while True:
        clear(folder)
        pristine = shutil.copytree(registry, folder / "pristine")
        shutil.copytree(registry, folder / "damaged")
        for path in (folder, *folder.rglob("*")) if os.geteuid() == 0 else ():
            os.chown(path, NOBODY, NOBODY)
        numbers = map(str, (int(repairs), number, part, tried))
        command = [sys.executable, __file__, str(pristine), str(folder / "damaged"), *numbers]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in process.stdout.splitlines()]
        current = ""
        for line in lines:
            if "damage" in line:
                current, tried = line["damage"], line["position"] + 1
            else:
                faults += [f"{current}: {fault}" for fault in line["faults"]]
                refused += line["refused"]
        if process.returncode == 0:
            return tried, refused, faults
        assert current, process.stderr[-2000:]
        faults.append(f"{current}: the process ended with {process.returncode}: {process.stderr[-500:]}")


@pytest.fixture
def indexed(monkeypatch):
    """The few tasks of these tests have an index."""
    monkeypatch.setattr(neighbors, "EXACT_BELOW", INDEXED_FROM)


@pytest.mark.slow
def test_a_damaged_file_never_makes_an_answer_wrong(tmp_path, indexed):
    tried, refused, faults = try_damages(tmp_path, 16)
    assert faults == []
    assert tried == 16
    assert refused > 4


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_damage_to_any_file_makes_an_answer_wrong(tmp_path, indexed, part):
    tried, refused, faults = try_damages(tmp_path, 0, part)
    assert faults == []
    assert tried > refused > 1000 / PARTS


@pytest.mark.parametrize(
    ("where", "way", "said"),
    [
        ("seals/tasks", "folder", "the checksums of its files are missing or damaged\tyes"),
        ("tasks.lance/data/*", "folder", "restore the registry from a copy\tno"),
        ("tasks.lance/_versions/*", "empty", "and what was written to it since is lost"),
    ],
)
def test_repair_mends_a_file_or_says_that_it_cannot(store, where, way, said):
    add(store, "a")
    add(store, "b")
    path = min(Path(store.uri).glob(where))
    Damage(path.name, "truncate" if way == "empty" else way).apply(path.parent)
    repaired = CliRunner().invoke(t2v, ["--registry", str(store.uri), "verify", "--repair"])
    assert said in repaired.output
    assert repaired.exit_code == ("no" in said.split("\t"))
    if repaired.exit_code == 0:
        add(Store(store.uri), "c")
        assert Store(store.uri).verify() == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_repair_cannot_mend_it_says(tmp_path, indexed, part):
    tried, refused, faults = try_damages(tmp_path, 0, part, repairs=True)
    assert faults == []
    assert tried > refused > 0


def versions_of(folder, table):
    """The manifests of a table, newest first: they are numbered downwards."""
    return sorted((folder / f"{table}.lance" / "_versions").glob("*.manifest"))


def test_a_version_that_a_killed_writer_did_not_list_stands_for_the_ones_before(tmp_path):
    """As after a kill in the middle of a compaction, which deletes old versions before its own is listed."""
    store = Store.create(tmp_path)
    store.add_experts([make_expert("one.test")])
    listed = versions_of(tmp_path, "experts")
    lancedb.connect(tmp_path).open_table("experts").delete("name = ''")
    for path in listed:
        path.unlink()
    assert [expert.name for expert in Store(tmp_path).experts()] == ["one.test"]
    assert Store(tmp_path).verify() == []
    versions_of(tmp_path, "experts")[0].unlink()
    with pytest.raises(RegistryError, match=re.escape("table experts is damaged: its newest version, ")):
        Store(tmp_path).experts()


@pytest.mark.slow
def test_what_lancedb_had_not_finished_is_not_missed(tmp_path):
    store = Store.create(tmp_path)
    unfinished = tmp_path / "experts.lance" / "_versions" / ".tmpAbCdEf"
    unfinished.write_bytes(b"half")
    store.add_experts([make_expert("one.test")])
    unfinished.unlink()
    assert [expert.name for expert in Store(tmp_path).experts()] == ["one.test"]
    assert Store(tmp_path).verify() == []


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
