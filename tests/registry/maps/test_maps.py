"""Maps and clusters of a registry: what moves, what does not, and what is remembered."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from builders import make_embedding, make_task
from builders_maps import DIM, grouped, make_registry, record, records
from extras import skip_without

from registry import TaskRegistry
from registry.distances import pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.index import landmarks
from registry.ingest import networks
from registry.maps import layouts
from registry.storage.store import Store

COUNT = 24


@pytest.fixture(scope="module")
def grouped_registry(tmp_path_factory):
    """A registry of 24 tasks, which tests only read."""
    return make_registry(tmp_path_factory.mktemp("grouped_registry") / "registry", COUNT)[0]


@pytest.fixture
def grown(tmp_path):
    """One of their own, with its store."""
    return make_registry(tmp_path / "registry", COUNT)


def registry_folder(registry):
    return Path(registry.uri) / "index"


def where(shown):
    return dict(zip(shown.names, shown.positions.tolist(), strict=True))


def add(store, count, first, seed=5):
    store.add_tasks(records(grouped(count, seed=seed), first=first), "space0")


def test_a_map_describes_every_task(grouped_registry):
    shown = grouped_registry.map(neighbors=2)
    assert shown.names == tuple(task.name for task in grouped_registry.tasks())
    assert shown.positions.shape == (COUNT, 2)
    assert shown.tags[:2] == (("even", "group0"), ("group1",))
    assert shown.versions.tolist() == [1] * COUNT
    assert not shown.placed.any()
    assert (shown.num_landmarks, shown.num_measured, shown.num_neighbors, shown.notes) == (0, COUNT, 10, ())
    assert 0 < shown.stress < 0.6
    assert 0.8 < shown.trustworthiness <= 1
    assert [len(near) for near in shown.nearest] == [2] * COUNT


def test_nearest_tasks_of_a_map_are_those_of_nearest(grouped_registry):
    shown = grouped_registry.map(neighbors=3)
    for place in (0, 11):
        _, near = grouped_registry.nearest(shown.names[place], k=3)
        expected = [(task.task, pytest.approx(task.distance, abs=2e-6)) for task in near]
        assert list(shown.nearest[place]) == expected


def test_asking_again_gives_the_same_bytes_here_and_elsewhere(grouped_registry):
    first = grouped_registry.map().positions.tobytes()
    assert grouped_registry.map().positions.tobytes() == first
    assert TaskRegistry(grouped_registry.uri).map().positions.tobytes() == first


def test_the_order_in_which_tasks_came_changes_nothing(grouped_registry, tmp_path):
    store = Store.create(tmp_path, lambda new: new.add_space(grouped_registry.space()))
    for part in np.array_split(np.arange(COUNT)[::-1], 3):
        store.add_tasks([records(grouped(COUNT))[place] for place in part], "space0")
    assert TaskRegistry(tmp_path).map().positions.tobytes() == grouped_registry.map().positions.tobytes()


def test_tasks_that_are_added_move_no_other(grown):
    registry, store = grown
    before = where(registry.map())
    add(store, 3, first=900)
    shown = registry.map()
    after = where(shown)
    assert {name: after[name] for name in before} == before
    assert [name for name, placed in zip(shown.names, shown.placed, strict=True) if placed] == [
        "task900",
        "task901",
        "task902",
    ]
    assert where(TaskRegistry(registry.uri).map()) == after
    assert shown.notes == ()


def test_a_placed_task_lies_with_its_group(grown):
    registry, store = grown
    registry.map()
    store.add_tasks(
        [record("copy", grouped(COUNT)[4] * 3)], "space0"
    )  # group 1, of which distances know no scale
    shown = registry.map()
    gaps = np.linalg.norm(shown.positions - shown.positions[shown.names.index("copy")], axis=1)
    nearest = [shown.names[place] for place in np.argsort(gaps)[1:5]]
    assert all(int(name[4:]) % 3 == 1 for name in nearest)


def test_more_tasks_than_before_are_laid_out_anew(grown):
    registry, store = grown
    before = where(registry.map())
    add(store, COUNT, first=500)
    assert where(registry.map())["task000"] == before["task000"]  # as many, not more
    add(store, 1, first=900)
    shown = registry.map()
    assert shown.notes == (
        f"The tasks were laid out anew: {COUNT + 1} tasks were added since, more than the {COUNT} of the map.",
    )
    assert not shown.placed.any()
    assert registry.map().notes == ()


def test_a_small_map_is_laid_out_anew_with_each_task(tmp_path):
    registry, store = make_registry(tmp_path, 4)
    assert registry.map().method == "metric MDS"
    add(store, 1, first=900)
    assert registry.map().notes == ("The tasks were laid out anew: the map was of 4 tasks only.",)


def test_rebuild_lays_out_anew(grown):
    registry, store = grown
    registry.map()
    add(store, 2, first=900)
    registry.map()
    shown = registry.map(rebuild=True)
    assert shown.notes == ("The tasks were laid out anew: as asked.",)
    assert not shown.placed.any()
    assert where(TaskRegistry(registry.uri).map()) == where(shown)


def test_each_seed_has_a_map(grouped_registry):
    assert grouped_registry.map(seed=1).seed == 1
    assert where(grouped_registry.map(seed=1)) == where(TaskRegistry(grouped_registry.uri).map(seed=1))


def test_a_removed_task_is_gone_and_comes_back_where_it_was(grown):
    registry, store = grown
    before = where(registry.map())
    registry.remove_task("task003")
    after = where(registry.map())
    assert "task003" not in after
    assert {name: before[name] for name in after} == after
    add(store, 1, first=900)
    registry.map()
    registry.restore_task("task003")
    assert where(registry.map())["task003"] == before["task003"]


def test_a_new_version_takes_the_place_of_the_old_one(grown):
    registry, store = grown
    before = where(registry.map())
    vector = grouped(COUNT)[1]
    store.add_task(
        make_task("task000", 2),
        "space0",
        make_embedding("task000", 2, dim=DIM, fisher=vector, standard_error=vector),
    )
    shown = registry.map()
    assert shown.versions[0] == 2
    assert shown.placed[0]
    assert where(shown)["task000"] != before["task000"]
    assert {name: place for name, place in where(shown).items() if name != "task000"} == {
        name: place for name, place in before.items() if name != "task000"
    }


def test_nothing_is_kept_of_a_purged_task(grown):
    registry, store = grown
    registry.map()
    registry.remove_task("task003", purge=True)
    assert list(registry_folder(registry).glob("map-*.arrow")) == []
    add(store, 1, first=900)
    registry.map()
    (path,) = registry_folder(registry).glob("map-*.arrow")
    assert b"task004" in path.read_bytes()
    assert b"task003" not in path.read_bytes()


def test_most_of_a_map_gone_is_a_new_map(tmp_path):
    registry, store = make_registry(tmp_path, 11)
    registry.map()
    for number in range(6):
        registry.remove_task(f"task{number:03}", purge=True)
    add(store, 1, first=900)
    assert registry.map().notes == ("The tasks were laid out anew: most tasks of the map are gone.",)


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 20])
def test_a_damaged_cache_is_made_again(grown, damage):
    registry, _ = grown
    before = where(registry.map())
    (path,) = (registry_folder(registry)).glob("map-*.arrow")
    path.write_bytes(damage)
    shown = TaskRegistry(registry.uri).map()
    assert where(shown) == before
    assert re.fullmatch(r"The tasks were laid out anew: the saved layout is .*\.", shown.notes[0])
    assert TaskRegistry(registry.uri).map().notes == ()


def test_the_cache_of_another_registry_is_not_believed(grouped_registry, grown):
    registry, store = grown
    grouped_registry.map()
    add(store, 1, first=900)
    registry_folder(registry).mkdir(exist_ok=True)
    for path in registry_folder(grouped_registry).glob("map-space0-0.arrow"):
        (registry_folder(registry) / path.name).write_bytes(path.read_bytes())
    shown = registry.map()
    assert shown.notes == (
        "The tasks were laid out anew: the saved layout is of another registry, space or format.",
    )
    assert len(shown) == COUNT + 1


def test_a_registry_that_cannot_be_written_is_drawn(grown, caplog):
    registry, _ = grown
    folder = registry_folder(registry)
    if folder.exists():
        folder.rename(folder.with_name("moved"))
    folder.write_text("in the way")
    assert len(registry.map()) == COUNT
    assert "the layout is not kept" in caplog.text


def test_threads_share_one_layout(grown, monkeypatch):
    registry, _ = grown
    made = []
    lay_out = layouts._lay_out
    monkeypatch.setattr(layouts, "_lay_out", lambda *args: made.append(1) or lay_out(*args))
    positions = []
    threads = [
        threading.Thread(target=lambda: positions.append(registry.map().positions.tobytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(set(positions)), len(positions), len(made)) == (1, 4, 1)


def test_a_filter_hides_tasks_and_moves_none(grouped_registry):
    everywhere = where(grouped_registry.map())
    some = where(grouped_registry.map(where="tags = 'group1'"))
    assert len(some) == COUNT // 3
    assert {name: everywhere[name] for name in some} == some


def test_queries_are_placed_and_not_remembered(grouped_registry):
    vector = grouped(COUNT)[5]
    assert grouped_registry.map("task002").queries == ("task002",)
    shown = grouped_registry.map(["task002", ("mine", vector)])
    assert shown.queries == ("task002", "mine")
    np.testing.assert_array_equal(shown.query_positions[0], where(shown)["task002"])
    assert shown.query_nearest[1][0] == ("task005", 0.0)
    assert np.linalg.norm(shown.query_positions[1] - where(shown)["task005"]) < 0.1
    assert len(grouped_registry.map()) == COUNT


def test_an_old_version_is_placed_beside_the_new_one(grown):
    registry, store = grown
    vector = grouped(COUNT)[1]
    store.add_task(
        make_task("task000", 2),
        "space0",
        make_embedding("task000", 2, dim=DIM, fisher=vector, standard_error=vector),
    )
    shown = registry.map(["task000", "task000@1"])
    assert shown.query_positions[0].tolist() == where(shown)["task000"]
    assert shown.query_positions[1].tolist() != where(shown)["task000"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "the seed must be from 0 to 4294967295, got -1"),
        (
            {"where": "num_classes > 5"},
            "there is no task to draw: none is registered in this space, or none passes",
        ),
        ({"where": "nonsense ="}, "nonsense"),
        ({"queries": [("mine", np.ones(3))]}, "mine has 3 filters, and space space0 has 64"),
        ({"queries": [("mine", -np.ones(DIM))]}, "mine"),
        (
            {"max_samples": 5},
            "max_samples would change nothing: options say how data is read, and there is none",
        ),
        ({"queries": ["task001"], "max_samples": 5}, "max_samples would change nothing: task001"),
    ],
    ids=["seed", "nobody passes", "filter", "width", "negative", "option", "option of a task"],
)
def test_what_cannot_be_drawn_is_reported(grouped_registry, options, message):
    with pytest.raises(InvalidQueryError, match=re.escape(message)):
        grouped_registry.map(options.pop("queries", ()), **options)


def test_an_unknown_task_is_reported(grouped_registry):
    with pytest.raises(NotFoundError, match="no task is named 'task0O1'; did you mean task021"):
        grouped_registry.map(["task0O1"])


def test_a_registry_without_tasks_is_reported(tmp_path):
    registry, _ = make_registry(tmp_path, 0)
    for ask in (registry.map, registry.clusters):
        with pytest.raises(InvalidQueryError, match=r"^there is no task to draw"):
            ask()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_tasks_are_drawn_and_parted(tmp_path, count):
    registry, _ = make_registry(tmp_path, count)
    shown = registry.map([("mine", grouped(1, seed=8)[0])])
    assert len(shown) == count
    assert np.isfinite(shown.query_positions).all()
    assert [cluster.size for cluster in registry.clusters().clusters] == [count]
    assert sum(cluster.size for cluster in registry.clusters(method="hdbscan").clusters) in {0, count}


def test_many_tasks_are_laid_out_by_landmarks(tmp_path, monkeypatch):
    monkeypatch.setattr(landmarks, "ALL_PAIRS", 100)
    monkeypatch.setattr(landmarks, "NUM_LANDMARKS", 60)
    monkeypatch.setattr(landmarks, "SHORTLISTED_FROM", 1)
    monkeypatch.setattr(layouts, "SAMPLE", 40)
    registry, store = make_registry(tmp_path, 150)
    shown = registry.map()
    assert (shown.num_landmarks, shown.num_measured) == (60, 40)
    assert shown.trustworthiness > 0.85
    assert not shown.placed.any()
    before = where(shown)
    add(store, 1, first=900)
    after = where(registry.map())
    assert {name: after[name] for name in before} == before
    clustering = registry.clusters(num_clusters=3)
    assert clustering.num_landmarks == 60
    assert clustering.matrix is None
    assert clustering.notes == (
        "60 of the 151 tasks were clustered; each other one is in the cluster of the nearest of these",
    )
    groups = {
        cluster.number: {int(name[4:]) % 3 for name in cluster.members if name < "task9"}
        for cluster in clustering.clusters
    }
    assert sorted(groups.values(), key=min) == [{0}, {1}, {2}]


def test_clusters_have_names(grouped_registry):
    clustering = grouped_registry.clusters()
    assert [(cluster.number, cluster.size) for cluster in clustering.clusters] == [(1, 8), (2, 8), (3, 8)]
    assert {cluster.tags[0].tag for cluster in clustering.clusters} == {"group0", "group1", "group2"}
    assert all(
        cluster.label == f"{cluster.medoid} ({cluster.tags[0].tag}{', even' if len(cluster.tags) > 1 else ''})"
        for cluster in clustering.clusters
    )
    assert clustering.names == tuple(task.name for task in grouped_registry.tasks())
    assert [clustering.labels[clustering.names.index(name)] for name in clustering.clusters[2].members] == [
        3
    ] * 8
    assert clustering.silhouette > 0.3
    assert clustering.noise == ()
    fisher = grouped(COUNT)
    np.testing.assert_allclose(clustering.matrix, pairwise("task2vec", fisher, fisher), atol=2e-6)


def test_clusters_are_made_once_while_nothing_changes(grown):
    registry, store = grown
    clustering = registry.clusters()
    assert registry.clusters() is clustering
    assert registry.clusters(num_clusters=2) is not clustering
    add(store, 1, first=900)
    assert len(registry.clusters().names) == COUNT + 1


def test_clusters_take_other_distances_and_filters(grouped_registry):
    clustering = grouped_registry.clusters(distance="log_euclidean", where="tags = 'even'", num_clusters=3)
    assert clustering.distance == "log_euclidean"
    assert [cluster.size for cluster in clustering.clusters] == [4, 4, 4]


def test_a_clustering_of_too_many_clusters_is_reported(grouped_registry):
    message = "there are 24 tasks, which make no 25 clusters; ask for at most 24"
    with pytest.raises(InvalidQueryError, match=f"^{message}$"):
        grouped_registry.clusters(num_clusters=25)


def test_progress_of_a_map_is_reported(grown):
    steps = []
    grown[0].map(progress=lambda *step: steps.append(step))
    assert steps[-1] == ("distances", COUNT, COUNT)


def test_maps_clusters_and_profiles_are_tables(grouped_registry, monkeypatch):
    skip_without("pandas")
    monkeypatch.setattr(networks, "probe_layers", lambda _space: (("conv1", 60), ("fc", 4)))
    shown, clustering, profile = (
        grouped_registry.map(),
        grouped_registry.clusters(),
        grouped_registry.profile("task000", "task001"),
    )
    table = shown.to_pandas()
    assert table["task"].tolist() == list(shown.names)
    np.testing.assert_array_equal(table[["x", "y"]].to_numpy(), shown.positions)
    assert clustering.to_pandas()["size"].tolist() == [8, 8, 8]
    assert profile.to_pandas()["layer"].tolist() == ["conv1", "fc"]
    for answer in (shown, clustering, profile):
        assert answer._repr_html_().startswith("<table><caption>")
