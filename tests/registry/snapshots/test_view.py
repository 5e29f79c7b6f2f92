"""What a question sees of a registry: which tasks may answer, in which space."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from builders import make_embedding, make_space, make_task

from registry.answers import Query
from registry.distances import DISTANCES, pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.recommend.levels import TaskFacts
from registry.snapshots.snapshots import Snapshots
from registry.snapshots.view import View, choose_space
from registry.storage.store import Store

NAMES = [f"task{number:02}" for number in range(30)]
BUILTIN = set(NAMES[::3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty tasks, a third of them built in; ``task05`` has two versions. Tests only read it."""
    folder = tmp_path_factory.mktemp("registry")
    store = Store.create(folder)
    store.add_space(make_space())
    store.add_tasks(
        [entry(name, num_classes=2 + i, builtin=name in BUILTIN) for i, name in enumerate(NAMES)], "space0"
    )
    store.add_task(make_task("task05", 2), "space0", make_embedding("task05", 2))
    store.set_alias("task05@1", "old")
    return folder


@pytest.fixture
def store(folder):
    return Store(folder)


def entry(name, version=1, **changes):
    return make_task(name, version, **changes), make_embedding(name, version)


def view_of(store, **options):
    return View.open(Snapshots(store.database), store.space("space0"), **options)


def point_of(view, reference):
    return view.point(view.find(reference))


def plain_nearest(query, others, distance, trivial):
    """Slow twin: one distance after another, in order of distance and name."""
    found = []
    for name, version in others:
        fisher = make_embedding(name, version).fisher
        found.append((pairwise(distance, fisher[None], query[None], trivial=trivial)[0, 0], name))
    return sorted(found)


def latest(names):
    return [(name, 2 if name == "task05" else 1) for name in names]


def answers(found):
    return [(neighbor.task, neighbor.version) for neighbor in found]


@pytest.mark.parametrize("distance", sorted(DISTANCES))
def test_nearest_is_the_plain_sort_of_the_latest_versions(store, distance):
    view = view_of(store)
    point = point_of(view, "task04")
    found = view.nearest(point, k=40, distance=distance)
    others = latest(name for name in NAMES if name != "task04")
    expected = plain_nearest(point.fisher, others, distance, view.space.trivial)
    assert [neighbor.task for neighbor in found] == [name for _, name in expected]
    np.testing.assert_allclose(
        [neighbor.distance for neighbor in found], [value for value, _ in expected], atol=1e-6
    )
    assert [neighbor.rank for neighbor in found] == list(range(1, 30))


def test_nearest_tells_what_the_neighbours_are(store):
    view = view_of(store, where="name = 'task07'")
    [found] = view.nearest(point_of(view, "task04"), k=5, distance="task2vec")
    assert (found.task, found.version, found.num_classes, found.num_samples, found.tags) == (
        "task07",
        1,
        9,
        100,
        (),
    )


def test_a_former_version_is_asked_about_but_never_an_answer(store):
    view = view_of(store)
    former, now = (point_of(view, reference) for reference in ("task05@1", "task05"))
    assert (former.query.version, now.query.version) == (1, 2)
    assert not np.array_equal(former.fisher, now.fisher)
    assert "task05" not in dict(answers(view.nearest(former, k=40, distance="cosine")))
    assert ("task05", 2) in answers(view.nearest(point_of(view, "task00"), k=40, distance="cosine"))


@pytest.mark.parametrize(
    ("reference", "version"),
    [("task05", 2), ("task05@latest", 2), ("task05@2", 2), ("task05@1", 1), ("task05@old", 1), ("task00", 1)],
)
def test_tasks_are_found_by_name_version_and_alias(store, reference, version):
    view = view_of(store)
    assert view.snapshot.catalogue.key(view.find(reference)) == (reference.partition("@")[0], version)
    assert point_of(view, reference).query == Query(reference.partition("@")[0], version, "space0")
    np.testing.assert_array_equal(
        point_of(view, reference).fisher, make_embedding(reference.partition("@")[0], version).fisher
    )


@pytest.mark.parametrize("reference", ["task99", "task05@3", "task05@01", "task05@", "@1", "", "task05@old@1"])
def test_what_is_not_registered_is_not_found(store, reference):
    assert view_of(store).find(reference) is None


def test_without_builtin_starter_tasks_are_no_answers_but_may_be_asked_about(store):
    view = view_of(store, builtin=False)
    found = view.nearest(point_of(view, "task00"), k=40, distance="task2vec")
    assert {neighbor.task for neighbor in found} == set(NAMES) - BUILTIN


def test_a_filter_is_for_answers_only(store):
    view = view_of(store, where="num_classes < 6")
    found = view.nearest(point_of(view, "task20"), k=40, distance="task2vec")
    assert {neighbor.task for neighbor in found} == {*NAMES[:4], "task05"}  # its second version has two classes


def test_distance_goes_from_source_to_target(store):
    view = view_of(store)
    source, target = (point_of(view, name) for name in ("task01", "task02"))
    name = "task2vec_asymmetric"
    there, back = view.distance(name, source, target), view.distance(name, target, source)
    expected = pairwise(name, source.fisher[None], target.fisher[None], trivial=view.space.trivial)[0, 0]
    assert there == expected != back


@pytest.mark.parametrize("distance", ["task2vec", "task2vec_asymmetric", "kl"])
def test_a_distance_is_placed_among_those_of_all_pairs(store, distance):
    view = view_of(store)
    names = sorted(view.latest_versions())
    points = {name: point_of(view, name) for name in names}
    apart = [
        view.distance(distance, points[one], points[other]) for one in names for other in names if one != other
    ]
    for value in apart:
        assert value.nearer_than == pytest.approx(sum(float(it) > value for it in apart) / len(apart), abs=0.02)


def test_a_task_of_another_space_is_not_found_in_this_one(tmp_path):
    store = Store.create(tmp_path)
    for number, name in enumerate(("birds", "trees")):
        store.add_space(make_space(f"space{number}", probe=f"tiny.{number}"))
        store.add_task(make_task(name), f"space{number}", make_embedding(name))
    message = "no task embedded with tiny.0 is named 'trees'; known are birds"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        point_of(view_of(store), "trees")


# What the model of past results is told


def plain_distances(measure, point, tasks, descriptor):
    """Slow twin: every distance by itself, between tasks and to the point."""
    vectors = [getattr(make_embedding(name, version), descriptor) for name, version in tasks]
    query = getattr(make_embedding(point.query.task, point.query.version), descriptor)
    between = np.array([[measure(row, column) for column in vectors] for row in vectors])
    return between, np.array([measure(row, query) for row in vectors])


def cosine(source, target):
    return 1 - source @ target / np.linalg.norm(source) / np.linalg.norm(target)


def root_ratio(source, target):
    return pairwise("root_ratio", source[None], target[None])[0, 0]


@pytest.mark.parametrize("builtin", [True, False])
@pytest.mark.parametrize("reference", ["task04", "task05@1"])
def test_likeness_is_of_the_latest_versions_that_may_be_answers(store, builtin, reference):
    view = view_of(store, builtin=builtin)
    point = point_of(view, reference)
    distances, facts = view.likeness(point, {"task03", "task01", "task05", "gone", "task05@1"})
    names = [name for name in ("task01", "task03", "task05") if builtin or name not in BUILTIN]
    assert list(facts) == names
    for name, measure, descriptor in (
        ("domain", cosine, "domain"),
        ("root_ratio", root_ratio, "fisher"),
        ("cosine", cosine, "fisher"),
    ):
        between, to_query = plain_distances(measure, point, latest(names), descriptor)
        assert distances[name].tasks == tuple(names)
        np.testing.assert_allclose(distances[name].between(names, names), between, atol=1e-6)
        np.testing.assert_allclose(distances[name].from_tasks(names), to_query, atol=1e-6)
    assert facts["task01"] == TaskFacts(0.75, 3, 100)
    assert facts["task05"] == TaskFacts(0.75, 2, 100)  # its second version


def test_likeness_of_nothing(store):
    view = view_of(store)
    distances, facts = view.likeness(point_of(view, "task04"), {"gone"})
    assert facts == {}
    assert np.isnan(distances["domain"].from_tasks(["gone"])).all()


def test_facts_are_of_the_version_that_is_asked_about(store):
    view = view_of(store)
    assert view.facts(point_of(view, "task05@1")) == TaskFacts(0.75, 7, 100)
    assert view.facts(point_of(view, "task05")) == TaskFacts(0.75, 2, 100)
    own = TaskFacts(0.5, 9, 90)
    assert view.facts(replace(point_of(view, "task05"), facts=own)) is own


def test_latest_versions(store):
    assert view_of(store).latest_versions() == dict(latest(NAMES))


# Choose a space


SPACES = [
    make_space("id0", probe="a.x"),
    make_space("id1", probe="b.x", probe_source="b@/w.pt"),
    make_space("id2", probe="b.x"),
]

RECIPES = [
    make_space(space_id, probe="a.x", description=json.dumps({"estimator": estimator, "pooling": pooling}))
    for space_id, estimator, pooling in (
        ("id3", "signed", "mean"),
        ("id4", "exact", "mean"),
        ("id5", "signed", "mean+norm"),
    )
]
"""Three spaces of one probe."""


def choose(spaces, probe):
    return choose_space(spaces, probe, default_probe="a.x", default_recipe=("signed", "mean"))


@pytest.mark.parametrize(
    ("spaces", "probe", "expected"),
    [
        (SPACES, None, "id0"),
        (SPACES[1:2], None, "id1"),
        (SPACES, "a.x", "id0"),
        (SPACES, "b@/w.pt", "id1"),
        (SPACES, "id2", "id2"),
        (RECIPES, None, "id3"),
        (RECIPES, "a.x", "id3"),
        (RECIPES, "id4", "id4"),
        (RECIPES[1:2], None, "id4"),
    ],
    ids=[
        "default",
        "only",
        "name",
        "loader",
        "id",
        "default-recipe",
        "name-recipe",
        "id-recipe",
        "only-recipe",
    ],
)
def test_choose_space(spaces, probe, expected):
    assert choose(spaces, probe).space_id == expected


@pytest.mark.parametrize(
    ("spaces", "probe", "error", "message"),
    [
        (SPACES, "c.x", NotFoundError, "no probe with embedded tasks is named 'c.x'; did you mean b.x or a.x?"),
        (
            SPACES,
            "b.x",
            InvalidQueryError,
            "several embedding spaces fit; name one as the probe: id1 (b.x), id2 (b.x)",
        ),
        (
            SPACES[1:],
            None,
            InvalidQueryError,
            "several embedding spaces fit; name one as the probe: id1 (b.x), id2 (b.x)",
        ),
        (
            RECIPES[1:],
            None,
            InvalidQueryError,
            (
                "several embedding spaces fit; name one as the probe: id4 (a.x, exact, mean), "
                "id5 (a.x, signed, mean+norm)"
            ),
        ),
        (
            [],
            None,
            InvalidQueryError,
            "there is no task to compare with yet; add one with `t2v task add NAME DATA`",
        ),
    ],
    ids=["unknown", "ambiguous-name", "ambiguous-default", "none", "other-recipes"],
)
def test_choose_space_refuses(spaces, probe, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        choose(spaces, probe)
