"""What a question sees of a registry: which tasks may answer, in which space."""

import json
import re

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task

from registry.answers import Query
from registry.distances import DISTANCES, pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.recommend.recommend import TaskDistances, recommend
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
    return View.open(Snapshots(store), store.space("space0"), **options)


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


def test_a_task_of_another_space_is_not_found_in_this_one(tmp_path):
    store = Store.create(tmp_path)
    for number, name in enumerate(("birds", "trees")):
        store.add_space(make_space(f"space{number}", probe=f"tiny.{number}"))
        store.add_task(make_task(name), f"space{number}", make_embedding(name))
    message = "no task embedded with tiny.0 is named 'trees'; known are birds"
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        point_of(view_of(store), "trees")


# Recommend


@pytest.fixture
def measured(tmp_path):
    """Four tasks, of which ``a`` is built in; three experts, one of them without results."""
    store = Store.create(tmp_path)
    store.add_space(make_space())
    store.add_tasks([entry(name, builtin=name == "a") for name in "abcd"], "space0")
    store.add_experts(
        [make_expert("x.b", source_task="b"), make_expert("y.none"), make_expert("z.c", source_task="c")]
    )
    store.add_results(
        [
            make_result(task, expert, accuracy, builtin=task == "a")
            for task, expert, accuracy in [
                ("a", "x.b", 0.9),
                ("a", "y.none", 0.6),
                ("b", "y.none", 0.7),
                ("c", "x.b", 0.5),
                ("c", "y.none", 0.8),
            ]
        ]
    )
    return store


def plain_distances(name, view, tasks, point, descriptor="fisher"):
    """Slow twin: every distance by itself."""
    trivial = view.space.trivial
    query = getattr(make_embedding(point.query.task), descriptor)

    def one(source, target):
        if descriptor == "domain":
            return 1 - source @ target / np.linalg.norm(source) / np.linalg.norm(target)
        return pairwise(name, source[None], target[None], trivial=trivial)[0, 0]

    vectors = {task: getattr(make_embedding(task), descriptor) for task in tasks}
    matrix = np.array([[one(vectors[row], vectors[column]) for column in tasks] for row in tasks])
    return TaskDistances(tuple(tasks), matrix, np.array([one(vectors[task], query) for task in tasks]))


@pytest.mark.parametrize(("builtin", "tasks"), [(True, "abc"), (False, "bc")])
def test_recommend_measures_what_has_results_or_is_a_source(measured, builtin, tasks):
    view = view_of(measured, builtin=builtin)
    point = point_of(view, "d")
    experts, results = measured.experts(), measured.results(builtin=builtin)
    expected = recommend(
        point.query,
        experts,
        results,
        k=3,
        distances=plain_distances("task2vec", view, tasks, point),
        descriptors={
            "root_ratio": plain_distances("root_ratio", view, tasks, point),
            "domain": plain_distances("", view, tasks, point, "domain"),
        },
        source_distances=plain_distances("task2vec_asymmetric", view, tasks, point),
    )
    found = view.recommend(point, experts, results, k=3)
    assert [(it.rank, it.expert, it.interval) for it in found.recommendations] == [
        (it.rank, it.expert, pytest.approx(it.interval, abs=1e-6)) for it in expected.recommendations
    ]
    assert {near.task for it in found.recommendations for near in it.evidence.neighbors} == set(tasks)
    assert found.warnings == expected.warnings


def test_recommend_without_any_result_ranks_by_source(measured):
    view = view_of(measured)
    point = point_of(view, "d")
    found = view.recommend(point, measured.experts(), [], k=3)
    sources = plain_distances("task2vec_asymmetric", view, "bc", point).to_query
    nearer = ["x.b", "z.c"] if sources[0] < sources[1] else ["z.c", "x.b"]
    assert [it.expert for it in found.recommendations] == [*nearer, "y.none"]


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
