"""registry.index: what it finds, and that no file on disk can make it wrong or fatal."""

import json
import logging
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import index
from registry.distances import pairwise
from registry.errors import InvalidQueryError, InvalidRecordError
from registry.index import VectorIndex, open_index

SPACE = "0123456789abcdef"


def synthetic_tasks(num_tasks, dim=96, *, seed=0, dead=0.02):
    """Keys and embeddings drawn around a few log-normal centres, some filters dead."""
    generator = np.random.default_rng(seed)
    centres = 1.5 * generator.standard_normal((8, dim)) + generator.standard_normal(dim)
    logs = generator.dirichlet(np.full(8, 0.2), size=num_tasks) @ centres
    logs += 0.3 * generator.standard_normal((num_tasks, dim)) + generator.standard_normal((num_tasks, 1))
    fisher = 1e-7 * np.exp(logs)
    fisher[generator.random((num_tasks, dim)) < dead] = 0
    return [(f"task{i:05}", 1) for i in range(num_tasks)], fisher.astype(np.float32)


def same_answers(one, other, queries, k=10):
    return all(one.search(query, k).tolist() == other.search(query, k).tolist() for query in queries)


@pytest.fixture
def tasks():
    return synthetic_tasks(60)


@pytest.fixture
def saved(tmp_path, tasks):
    """The folder of an index saved at token v1."""
    open_index(tmp_path, SPACE, "v1", *tasks)
    return tmp_path


@pytest.fixture
def count_builds(monkeypatch):
    """Grows by one with every index built from scratch."""
    built = []
    build = VectorIndex.build

    def counting(keys, fisher, **options):
        built.append(len(keys))
        return build(keys, fisher, **options)

    monkeypatch.setattr(VectorIndex, "build", counting)
    return built


def manifest_of(folder):
    return folder / f"{SPACE}.json"


def data_of(folder):
    (path,) = folder.glob("*.faiss")
    return path


# Search


def test_search_orders_rows_as_brute_force_over_projected_logs(tasks):
    """With as many directions as filters a projection keeps distances, so plain numpy is the twin."""
    keys, fisher = synthetic_tasks(60, dim=12)
    floored = fisher.astype(float) + index.LOG_FLOOR * fisher.mean(axis=1, keepdims=True, dtype=float)
    logs = np.log(floored) - np.log(floored).mean(axis=1, keepdims=True)
    built = VectorIndex.build(keys, fisher)
    for row in range(0, 60, 7):
        expected = np.argsort(np.linalg.norm(logs - logs[row], axis=1))
        np.testing.assert_array_equal(built.search(fisher[row], 20), expected[:20])


@pytest.mark.parametrize("exact_below", [10_000, 100], ids=["flat", "inverted_lists"])
def test_shortlist_holds_the_true_nearest(exact_below):
    _, fisher = synthetic_tasks(3040)
    queries, rows = fisher[:40], fisher[40:]
    built = VectorIndex.build([(f"t{i}", 1) for i in range(3000)], rows, exact_below=exact_below)
    exact = np.argsort(pairwise("task2vec", rows, queries), axis=0)[:10].T
    recalls = [
        len(set(built.search(query, 200)) & set(best)) / 10 for query, best in zip(queries, exact, strict=True)
    ]
    assert np.mean(recalls) >= 0.95


@pytest.mark.slow
def test_shortlist_holds_the_true_nearest_of_many_tasks():
    _, fisher = synthetic_tasks(25_040, dim=256)
    queries, rows = fisher[:40], fisher[40:]
    built = VectorIndex.build([(f"t{i}", 1) for i in range(25_000)], rows)
    exact = np.argsort(pairwise("task2vec", rows, queries), axis=0)[:10].T
    recalls = [
        len(set(built.search(query, 1000)) & set(best)) / 10 for query, best in zip(queries, exact, strict=True)
    ]
    assert np.mean(recalls) >= 0.95


def test_search_ignores_a_factor_common_to_all_filters(tasks):
    built = VectorIndex.build(*tasks)
    query = tasks[1][7]
    np.testing.assert_array_equal(built.search(query * 1024, 60), built.search(query, 60))
    assert built.search(query, 1).tolist() == [7]


@pytest.mark.parametrize("exact_below", [10_000, 10], ids=["flat", "inverted_lists"])
def test_search_for_more_than_there_are_pads_with_nothing(exact_below):
    keys, fisher = synthetic_tasks(400)
    found = VectorIndex.build(keys, fisher, exact_below=exact_below).search(fisher[0], 1000)
    assert len(set(found)) == len(found) <= 400
    assert found.min() >= 0


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(
        st.lists(st.sampled_from([0.0, 1e-45, 1e-38, 1e-7, 1.0, 3e38]), min_size=4, max_size=4), max_size=6
    ).map(lambda rows: np.array(rows, dtype=np.float32).reshape(-1, 4))
)
def test_any_valid_table_can_be_indexed_and_searched(rows):
    built = VectorIndex.build([(f"t{i}", 1) for i in range(len(rows))], rows)
    found = built.search(np.ones(4), 10)
    assert sorted(found.tolist()) == list(range(len(rows)))


def test_build_is_deterministic(tasks):
    one, other = VectorIndex.build(*tasks, exact_below=10), VectorIndex.build(*tasks, exact_below=10)
    assert same_answers(one, other, tasks[1], k=60)


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        (np.ones(95), 5, "the index is asked with one finite, non-negative embedding of 96 filters"),
        (np.full(96, np.nan), 5, "the index is asked with one finite, non-negative embedding of 96 filters"),
        (np.full(96, -1.0), 5, "the index is asked with one finite, non-negative embedding of 96 filters"),
        (np.ones(96), 0, "k must be at least 1, got 0"),
    ],
)
def test_bad_query_is_refused(tasks, query, k, message):
    with pytest.raises(InvalidQueryError, match=f"^{re.escape(message)}$"):
        VectorIndex.build(*tasks).search(query, k)


@pytest.mark.parametrize(
    ("keys", "fisher", "message"),
    [
        ([("a", 1), ("a", 1)], np.ones((2, 3)), "task a@1 has two embeddings; run `t2v verify --repair`"),
        ([("a", 1)], np.ones((2, 3)), "1 tasks need as many embeddings, got shape [2, 3]"),
        ([("a", 1)], np.full((1, 3), np.nan), "the embedding of task a@1 must be finite and non-negative"),
        ([("a", 1), ("b", 2)], [[1.0], [-1.0]], "the embedding of task b@2 must be finite and non-negative"),
    ],
)
def test_what_faiss_would_take_silently_is_refused(keys, fisher, message):
    with pytest.raises(InvalidRecordError, match=f"^{re.escape(message)}$"):
        VectorIndex.build(keys, fisher)


# Extend


@pytest.mark.parametrize("exact_below", [10_000, 100], ids=["flat", "inverted_lists"])
def test_extended_index_finds_old_and_new_rows_and_leaves_the_old_one(exact_below):
    keys, fisher = synthetic_tasks(500)
    old = VectorIndex.build(keys[:400], fisher[:400], exact_below=exact_below)
    new = old.extend(keys[400:], fisher[400:])
    assert (len(old), len(new), new.keys) == (400, 500, tuple(keys))
    assert [new.search(fisher[row], 1).item() for row in (3, 450)] == [3, 450]
    assert old.search(fisher[450], 400).max() < 400


def test_extending_refuses_known_tasks_and_other_widths(tasks):
    keys, fisher = tasks
    built = VectorIndex.build(keys[:50], fisher[:50])
    with pytest.raises(InvalidRecordError, match=r"^task task00049@1 is in the index already$"):
        built.extend(keys[49:], fisher[49:])
    with pytest.raises(InvalidRecordError, match=r"^the index holds embeddings of 96 filters, got 95$"):
        built.extend(keys[50:], fisher[50:, 1:])


# Keeping it


def test_saved_index_answers_as_before(tmp_path, tasks):
    built = VectorIndex.build(*tasks, exact_below=10).save(tmp_path / "new" / "folder", SPACE, "v1")
    loaded, reason = VectorIndex.load(tmp_path / "new" / "folder", SPACE)
    assert reason == ""
    assert (loaded.keys, loaded.token, loaded.built_rows, loaded.dim) == (built.keys, "v1", 60, 96)
    assert same_answers(built, loaded, tasks[1])


def test_versions_may_be_numpy_integers(tmp_path):
    VectorIndex.build([("a", np.int64(3))], np.ones((1, 4))).save(tmp_path, SPACE, "v1")
    assert VectorIndex.load(tmp_path, SPACE)[0].keys == (("a", 3),)


def test_loading_from_nowhere_gives_the_reason(tmp_path):
    assert VectorIndex.load(tmp_path, SPACE) == (None, "missing")


def test_fresh_index_is_not_built_again(saved, tasks, count_builds):
    assert open_index(saved, SPACE, "v1", *tasks).token == "v1"
    assert count_builds == []


def test_added_tasks_extend_the_saved_index(tmp_path, count_builds):
    keys, fisher = synthetic_tasks(60)
    open_index(tmp_path, SPACE, "v1", keys[10:], fisher[10:])
    extended = open_index(tmp_path, SPACE, "v2", keys, fisher)
    assert count_builds == [50]
    assert extended.keys[extended.search(fisher[4], 1).item()] == keys[4]
    assert extended.keys[extended.search(fisher[40], 1).item()] == keys[40]
    loaded, _ = VectorIndex.load(tmp_path, SPACE)
    assert (len(loaded), loaded.token, loaded.built_rows) == (60, "v2", 50)


def test_order_of_the_table_does_not_matter(saved, tasks, count_builds):
    keys, fisher = tasks
    opened = open_index(saved, SPACE, "v1", keys[::-1], fisher[::-1])
    assert count_builds == []
    assert opened.keys[opened.search(fisher[4], 1).item()] == keys[4]


def test_new_token_alone_is_taken_over_without_building(saved, tasks, count_builds):
    assert open_index(saved, SPACE, "v2", *tasks).token == "v2"
    assert VectorIndex.load(saved, SPACE)[0].token == "v2"
    assert count_builds == []


@pytest.mark.parametrize("change", ["removed", "replaced", "narrower", "doubled", "large"])
def test_stale_index_is_built_again(saved, tasks, count_builds, change):
    keys, fisher = tasks
    exact_below = index.EXACT_BELOW
    if change == "removed":
        keys, fisher = keys[1:], fisher[1:]
    elif change == "replaced":
        fisher = fisher.copy()
        fisher[3, 5] *= 2
    elif change == "narrower":
        fisher = fisher[:, 1:]
    elif change == "doubled":
        keys, fisher = synthetic_tasks(121)
        fisher[:60] = tasks[1]
    elif change == "large":
        keys, fisher, exact_below = [*keys, ("new", 1)], np.vstack([fisher, fisher[:1]]), 61
    opened = open_index(saved, SPACE, "v2", keys, fisher, exact_below=exact_below)
    assert count_builds == [len(keys)]
    assert same_answers(opened, VectorIndex.build(keys, fisher, exact_below=exact_below), fisher[:5])


def test_same_token_with_other_tasks_is_not_trusted(saved, tasks, count_builds):
    keys, fisher = tasks
    assert open_index(saved, SPACE, "v1", keys[:-1], fisher[:-1]).keys == tuple(keys[:-1])
    assert count_builds == [59]


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def edit_manifest(folder, **changes):
    manifest = json.loads(manifest_of(folder).read_bytes())
    manifest_of(folder).write_text(json.dumps(manifest | changes))


DAMAGES = {
    "data_flipped_first_byte": lambda folder: flip(data_of(folder), 0),
    "data_flipped_last_byte": lambda folder: flip(data_of(folder), -1),
    "data_truncated": lambda folder: data_of(folder).write_bytes(data_of(folder).read_bytes()[:-100]),
    "data_empty": lambda folder: data_of(folder).write_bytes(b""),
    "data_gone": lambda folder: data_of(folder).unlink(),
    "manifest_flipped": lambda folder: flip(manifest_of(folder), 40),
    "manifest_truncated": lambda folder: manifest_of(folder).write_bytes(
        manifest_of(folder).read_bytes()[:-100]
    ),
    "manifest_empty": lambda folder: manifest_of(folder).write_bytes(b""),
    "manifest_gone": lambda folder: manifest_of(folder).unlink(),
    "manifest_is_a_list": lambda folder: manifest_of(folder).write_text("[1, 2]"),
    "manifest_without_checksum": lambda folder: manifest_of(folder).write_text("{}"),
    "manifest_names_other_rows": lambda folder: edit_manifest(folder, built_rows=7),
    "manifest_points_elsewhere": lambda folder: edit_manifest(folder, checksum="../../\0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_index_is_built_again(saved, tasks, count_builds, caplog, damage):
    DAMAGES[damage](saved)
    loaded, reason = VectorIndex.load(saved, SPACE)
    assert loaded is None
    assert re.match("missing|corrupt", reason)
    with caplog.at_level(logging.INFO, logger="registry.index"):
        opened = open_index(saved, SPACE, "v1", *tasks)
    assert caplog.messages == [f"index of space {SPACE} is built, not loaded: the saved one is {reason}"]
    assert count_builds == [60]
    assert same_answers(opened, VectorIndex.build(*tasks), tasks[1][:5])
    assert VectorIndex.load(saved, SPACE)[1] == ""


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_no_flipped_byte_goes_unnoticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("index")
    built = VectorIndex.build([("a", 1), ("b", 1)], np.array([[1, 2], [3, 1]])).save(folder, SPACE, "v1")
    path = data.draw(st.sampled_from([manifest_of(folder), data_of(folder)]))
    flip(path, data.draw(st.integers(0, path.stat().st_size - 1)))
    loaded, reason = VectorIndex.load(folder, SPACE)
    # A flip may turn one spelling of the manifest into another of the same content.
    assert reason if loaded is None else loaded.keys == built.keys


def test_index_of_another_space_is_foreign(saved, tasks):
    other = "f" * 16
    data = data_of(saved)
    data.rename(saved / data.name.replace(SPACE, other))
    manifest_of(saved).rename(saved / f"{other}.json")
    assert VectorIndex.load(saved, other) == (None, f"foreign (of space {SPACE})")
    assert len(open_index(saved, other, "v1", *tasks)) == 60


def test_index_made_by_other_code_is_not_used(saved, monkeypatch):
    monkeypatch.setattr(index, "FORMAT", {"version": 2})
    loaded, reason = VectorIndex.load(saved, SPACE)
    assert loaded is None
    assert reason.endswith("not {'version': 2}")


def test_file_that_faiss_cannot_read_is_not_fatal(tmp_path, tasks, monkeypatch):
    """As after a downgrade of faiss: the checksum is right and the content not understood."""
    monkeypatch.setattr(index.faiss, "serialize_index", lambda _: np.frombuffer(b"no index", dtype=np.uint8))
    VectorIndex.build(*tasks).save(tmp_path, SPACE, "v1")
    loaded, reason = VectorIndex.load(tmp_path, SPACE)
    assert loaded is None
    assert reason.startswith("not understood by faiss")


def test_spaces_lie_side_by_side(saved, tasks):
    keys, fisher = tasks
    open_index(saved, "f" * 16, "v1", keys[:20], fisher[:20])
    assert len(VectorIndex.load(saved, SPACE)[0]) == 60
    assert len(VectorIndex.load(saved, "f" * 16)[0]) == 20


def test_saving_again_leaves_one_pair_and_no_old_temporary(saved, tasks):
    old, young = saved / f"{SPACE}.json.a.tmp", saved / f"{SPACE}.json.b.tmp"
    old.write_text("")
    young.write_text("")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    VectorIndex.build(tasks[0][:9], tasks[1][:9]).save(saved, SPACE, "v2")
    assert sorted(saved.iterdir()) == sorted([manifest_of(saved), data_of(saved), young])


KILLED_WRITER = """
import os, sys
from pathlib import Path
import numpy as np
from registry.index import VectorIndex

renames_left = int(sys.argv[2])
rename = Path.replace

def replace(self, target):
    global renames_left
    if not renames_left:
        os._exit(9)
    renames_left -= 1
    return rename(self, target)

Path.replace = replace
VectorIndex.build([("only", 1)], np.ones((1, 96))).save(Path(sys.argv[1]), sys.argv[3], "v2")
"""


@pytest.mark.parametrize("renames", [0, 1], ids=["before_data", "before_manifest"])
def test_writer_killed_before_a_rename_leaves_the_old_index(saved, tasks, renames):
    command = [sys.executable, "-c", KILLED_WRITER, str(saved), str(renames), SPACE]
    assert subprocess.run(command, check=False).returncode == 9
    loaded, reason = VectorIndex.load(saved, SPACE)
    assert (reason, loaded.token, len(loaded)) == ("", "v1", 60)
    assert len(list(saved.glob("*.tmp"))) == 1
    open_index(saved, SPACE, "v3", tasks[0][1:], tasks[1][1:])
    assert len(list(saved.glob("*.faiss"))) == 1


def test_folder_that_cannot_be_written_costs_no_answer(tmp_path, tasks, caplog):
    """A file where the folder should be: refused to every user, unlike a mode that root ignores."""
    (tmp_path / "index").write_text("in the way")
    opened = open_index(tmp_path / "index", SPACE, "v1", *tasks)
    assert opened.search(tasks[1][5], 1).tolist() == [5]
    assert caplog.messages[0].startswith(f"index of space {SPACE} cannot be kept and will be built again: ")


def test_full_disk_leaves_no_temporary_file(saved, tasks, monkeypatch):
    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index.os, "fsync", refuse)
    assert len(open_index(saved, SPACE, "v2", tasks[0][1:], tasks[1][1:])) == 59
    assert list(saved.glob("*.tmp")) == []
    assert VectorIndex.load(saved, SPACE)[0].token == "v1"
