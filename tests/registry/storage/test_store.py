"""Records of tasks, embeddings, experts and results come back from the store as they went in."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from small_stores import SPACE, add, insert, keys, same_embedding

from registry.errors import DuplicateError, InvalidQueryError, InvalidRecordError, NotFoundError
from registry.storage.experts import SAME_MEASUREMENT
from registry.storage.store import Store


def test_task_and_embedding_come_back_as_they_went_in(store):
    task = make_task("flowers", class_names=("a'", 'b"', "ü"), tags=("x", "medical"), data="./it's")
    embedding = make_embedding("flowers")
    store.add_task(task, SPACE, embedding)
    other = Store(store.uri)
    assert other.tasks() == [task]
    assert other.task("flowers") == task
    assert same_embedding(other.embedding(SPACE, "flowers", 1), embedding)


def test_space_comes_back_as_it_went_in_and_is_added_once(store):
    store.add_space(make_space(probe="another.one"))
    assert [space.probe for space in store.spaces()] == ["tiny.test"]
    space = store.space(SPACE)
    assert space.dim == 4
    np.testing.assert_array_equal(space.trivial, make_space().trivial)
    assert {**vars(space), "trivial": None} == {**vars(make_space()), "trivial": None}


def test_versions_and_references(store):
    assert store.next_version("flowers") == 1
    for version in (1, 2, 10):
        add(store, "flowers", version)
    add(store, "birds")
    assert store.next_version("flowers") == 11
    assert keys(store) == [("birds", 1), ("flowers", 10)]
    assert keys(store, latest=False) == [("birds", 1), ("flowers", 1), ("flowers", 2), ("flowers", 10)]
    assert store.task("flowers").version == 10
    assert store.task("flowers@2").version == 2


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("flower", "no task is named 'flower'; did you mean flowers?"),
        ("flowers@3", "no task is named 'flowers@3'; did you mean flowers@2 or flowers@1?"),
        ("flowers@", "no task is named 'flowers@'; did you mean flowers@1 or flowers@2?"),
        ("flowers@01", "no task is named 'flowers@01'; did you mean flowers@1 or flowers@2?"),
        ("' or 1 = 1 --", 'no task is named "\' or 1 = 1 --"; known are flowers'),
        ("x@y@z", "no task is named 'x@y@z'; known are flowers"),
    ],
)
def test_unknown_reference_offers_what_is_there(store, reference, message):
    add(store, "flowers", 1)
    add(store, "flowers", 2)
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        store.task(reference)


def test_version_is_immutable(store):
    add(store, "flowers")
    message = "task flowers@1 is registered already; remove it first or choose another name"
    with pytest.raises(DuplicateError, match=re.escape(message)):
        add(store, "flowers")


def test_add_tasks_is_all_or_none(store):
    entries = [(make_task(name), make_embedding(name)) for name in ("a", "b", "a")]
    with pytest.raises(DuplicateError, match=re.escape("task a@1 is given twice")):
        store.add_tasks(entries, SPACE)
    assert store.tasks() == []
    store.add_tasks(entries[:2], SPACE)
    assert keys(store) == [("a", 1), ("b", 1)]
    assert store.embeddings(SPACE).keys == (("a", 1), ("b", 1))


def test_embedding_of_another_task_or_width_is_refused(store):
    message = "task flowers@1 came with the embedding of birds@1"
    with pytest.raises(InvalidRecordError, match=re.escape(message)):
        store.add_task(make_task("flowers"), SPACE, make_embedding("birds"))
    message = (
        "embedding of task flowers: the widths of fisher, standard_error and domain must be (4, 4, 3) "
        "in space space0, got (5, 5, 3)"
    )
    with pytest.raises(InvalidRecordError, match=re.escape(message)):
        store.add_task(make_task("flowers"), SPACE, make_embedding("flowers", dim=5))
    with pytest.raises(NotFoundError, match=re.escape("no space is named 'space1'; did you mean space0?")):
        store.add_task(make_task("flowers"), "space1", make_embedding("flowers"))
    assert store.tasks() == []


def test_removed_task_is_hidden_and_its_versions_are_not_given_again(store):
    for name, version in (("flowers", 1), ("flowers", 2), ("birds", 1)):
        add(store, name, version)
    store.remove_task("flowers")
    assert keys(store, latest=False) == [("birds", 1)]
    assert store.embeddings(SPACE).keys == (("birds", 1),)
    assert store.embedding(SPACE, "flowers", 1) is None
    assert store.next_version("flowers") == 3
    for lost in ("flowers", "flowers@1"):
        with pytest.raises(NotFoundError, match=re.escape(f"no task is named '{lost}'; known are birds")):
            store.task(lost)
    with pytest.raises(NotFoundError, match=re.escape("no task is named 'flowers'; known are birds")):
        store.remove_task("flowers")
    add(store, "flowers", 3)
    assert store.task("flowers").version == 3


@pytest.mark.parametrize("tags", [(), ("medical",), ("b", "a")])
def test_set_tags_replaces_tags_of_all_versions_of_that_task_only(store, tags):
    for name, version in (("flowers", 1), ("flowers", 2), ("birds", 1)):
        add(store, name, version, tags=("old",))
    store.set_tags("flowers", tags)
    assert [store.task(f"flowers@{version}").tags for version in (1, 2)] == [tuple(sorted(tags))] * 2
    assert store.task("birds").tags == ("old",)
    assert store.task("flowers@1") == make_task("flowers", 1, tags=tags)
    assert store.verify() == []


def test_tags_and_removal_need_a_known_name(store):
    add(store, "flowers")
    for change in (lambda name: store.set_tags(name, ()), store.remove_task):
        with pytest.raises(
            NotFoundError, match=re.escape("no task is named 'flowers@1'; did you mean flowers?")
        ):
            change("flowers@1")
    with pytest.raises(InvalidRecordError, match=re.escape("'a b' cannot name a tag")):
        store.set_tags("flowers", ["a b"])


def test_lists_can_leave_out_starter_content_and_filter(store):
    add(store, "flowers", builtin=True, num_classes=5)
    add(store, "birds", num_classes=50)
    add(store, "birds", 2, num_classes=5)
    store.add_experts([make_expert("a.x", builtin=True), make_expert("b.x")])
    store.add_results([make_result("birds", builtin=True), make_result("birds", accuracy=0.5)])
    assert keys(store, builtin=False) == [("birds", 2)]
    assert keys(store, where="num_classes < 20") == [("birds", 2), ("flowers", 1)]
    assert keys(store, where="num_classes > 20") == []
    assert keys(store, where="num_classes > 20", latest=False) == [("birds", 1)]
    assert [expert.name for expert in store.experts(builtin=False)] == ["b.x"]
    assert [result.accuracy for result in store.results(builtin=False)] == [0.5]
    with pytest.raises(InvalidQueryError, match=re.escape("character 1: expected a field")):
        store.tasks(where="")


def test_embeddings_match_row_by_row_reading(store):
    entries = [
        (make_task(name, version), make_embedding(name, version)) for name in "cab" for version in (2, 1)
    ]
    store.add_tasks(entries[:4], SPACE)
    store.add_tasks(entries[4:], SPACE)
    store.remove_task("a")
    table = store.embeddings(SPACE)
    assert table.keys == (("b", 1), ("b", 2), ("c", 1), ("c", 2))
    rows = [store.embedding(SPACE, *key) for key in table.keys]
    np.testing.assert_array_equal(table.fisher, np.stack([row.fisher for row in rows]))
    np.testing.assert_array_equal(table.domain, np.stack([row.domain for row in rows]))
    assert table.fisher.dtype == table.domain.dtype == np.float32


def test_embeddings_of_an_empty_space_have_its_widths(store):
    table = store.embeddings(SPACE)
    assert (table.keys, table.fisher.shape, table.domain.shape) == ((), (0, 4), (0, 3))


def test_embedding_in_a_further_space(store):
    add(store, "flowers")
    store.add_space(make_space("wide", dim=6, domain_dim=2))
    embedding = make_embedding("flowers", dim=6, domain_dim=2)
    store.add_embedding("wide", embedding)
    assert same_embedding(store.embedding("wide", "flowers", 1), embedding)
    assert store.embedding(SPACE, "flowers", 1).fisher.shape == (4,)
    with pytest.raises(
        DuplicateError, match=re.escape("task flowers@1 has an embedding in space wide already")
    ):
        store.add_embedding("wide", embedding)
    with pytest.raises(NotFoundError, match=re.escape("no task is named 'birds@1'; known are flowers")):
        store.add_embedding("wide", make_embedding("birds", dim=6, domain_dim=2))


def test_embedding_of_an_uncommitted_task_is_invisible_and_replaced(store):
    """A killed writer's row must not become the embedding of a task that is added later, in any space."""
    store.add_space(make_space("other"))
    stray = make_embedding("flowers", fisher=np.full(4, 9))
    for space_id in (SPACE, "other"):
        insert(store, f"embeddings__{space_id}", [stray])
        assert store.embedding(space_id, "flowers", 1) is None
        assert store.embeddings(space_id).keys == ()
    add(store, "flowers")
    np.testing.assert_array_equal(store.embeddings(SPACE).fisher, [make_embedding("flowers").fisher])
    assert store.embedding("other", "flowers", 1) is None
    assert store.verify() == []


# Experts and results


def test_experts_come_back_sorted_with_unknown_numbers(store):
    experts = [
        make_expert("b.x", num_params=None, flops=None, input_size=None),
        make_expert("a.x", license="MIT"),
    ]
    store.add_experts(experts)
    assert store.experts() == [experts[1], experts[0]]
    assert store.expert("b.x") == experts[0]
    with pytest.raises(NotFoundError, match=re.escape("no expert is named 'c.x'; did you mean b.x or a.x?")):
        store.expert("c.x")


def test_expert_names_are_taken_until_removed(store):
    store.add_experts([make_expert("a.x")])
    message = "expert a.x is registered already; remove it first or choose another name"
    with pytest.raises(DuplicateError, match=re.escape(message)):
        store.add_experts([make_expert("b.x"), make_expert("a.x")])
    with pytest.raises(DuplicateError, match=re.escape("expert b.x is given twice")):
        store.add_experts([make_expert("b.x"), make_expert("b.x")])
    assert [expert.name for expert in store.experts()] == ["a.x"]
    store.remove_expert("a.x")
    assert store.experts() == []
    store.add_experts([make_expert("a.x", num_params=1)])
    assert store.expert("a.x").num_params == 1
    assert store.verify() == []


def test_results_are_appended_and_filtered(store):
    first = make_result("a", "m.x", 0.5, created_at="2024-01-01", seed=3)
    again = make_result("a", "m.x", 0.6, created_at="2024-01-02", source="o'neill")
    other = make_result("b", "n.x", 1 / 3)
    store.add_results([other, again, first])
    assert store.results() == [first, again, other]
    assert store.results(task="a") == [first, again]
    assert store.results(expert="n.x") == [other]
    assert store.results(task="a", expert="n.x") == store.results(task="a' or 'a' = 'a") == []
    store.add_results([])
    assert len(store.results()) == 3


def test_the_same_result_is_kept_once(store):
    result = make_result("a", "m.x", 0.5, seed=3)
    assert store.add_results([result, replace(result, created_at="2024-01-01")]) == [result]
    assert store.add_results([replace(result, source="nightly import")]) == []
    assert len(store.results()) == 1
    assert len(store.add_results([replace(result, seed=None), replace(result, run_id="r1", accuracy=0.6)])) == 2
    assert store.add_results([replace(result, run_id="r1", accuracy=0.9)]) == []


def test_results_of_one_seed_must_agree(store):
    result = make_result("a", "m.x", 0.5, seed=3, protocol="full")
    store.add_results([result])
    assert store.add_results([replace(result, accuracy=0.5 + SAME_MEASUREMENT / 2)]) == []
    message = (
        "result of m.x on a: accuracy 0.9 contradicts 0.5, which is there by the same protocol (full) and seed "
        "(3); give another seed, or the id of the run that measured it"
    )
    with pytest.raises(InvalidRecordError, match=f"^{re.escape(message)}$"):
        store.add_results([make_result("b", "m.x", 0.5), replace(result, accuracy=0.9)])
    assert len(store.results()) == 1
    store.add_results([replace(result, accuracy=0.9, task_version=2), replace(result, accuracy=0.9, seed=4)])
    assert len(store.results()) == 3


@pytest.mark.slow
def test_the_rest_client_of_lancedb_runs_only_when_something_of_it_is_asked_for(tmp_path):
    code = (
        "import sys\n"
        "from registry.storage.store import Store\n"
        f"Store.create({str(tmp_path / 'registry')!r}).add_space\n"
        "client = 'lance_namespace_urllib3_client'\n"
        "print('lancedb' in sys.modules, client in sys.modules, client + '.api' in sys.modules)\n"
        "from lance_namespace_urllib3_client import ApiClient\n"
        "print(ApiClient.__name__, client + '.api' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["True True False", "ApiClient True"]
