"""The starter content: the form it is kept in, and that what ships is whole and true to itself."""

import dataclasses
import json

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task

from indexer.networks.loaders import BUILTIN_FOLDER, list_builtin
from indexer.networks.packaged import PACKAGED
from registry import TaskRegistry
from registry.builtin.starter import FOLDER, VECTORS, Starter, load_starter, populate, save_starter
from registry.ingest.data import NOT_SHIPPED, default_probe
from registry.storage.store import Store

NAMES = ("birds", "trees")


@pytest.fixture
def starter():
    return Starter(
        space=make_space(trivial=np.array([0.1, 0.2, 0.3, 0.4], np.float32), builtin=True),
        tasks=tuple(
            make_task(name, class_names=("größer", "kleiner"), tags=("b", "a"), builtin=True) for name in NAMES
        ),
        embeddings=tuple(make_embedding(name, head_loss=0.1 + 0.2) for name in NAMES),
        experts=(
            make_expert("a.x", source_task="birds", builtin=True),
            make_expert("b.x", flops=None, builtin=True),
        ),
        results=(
            make_result("birds", "b.x", 0.1234, source='Kim, "2024"', builtin=True),
            make_result("trees", "a.x", 1.0, seed=7, protocol="full", builtin=True),
        ),
    )


def plain(record):
    """Values of a record that can be compared; vectors bit by bit."""
    values = dataclasses.asdict(record)
    return {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def assert_same(one, other):
    assert plain(one.space) == plain(other.space)
    for part in ("tasks", "embeddings", "experts", "results"):
        found, expected = ([plain(record) for record in getattr(starter, part)] for starter in (one, other))
        assert found == expected


def test_saved_content_is_loaded_again(starter, tmp_path):
    save_starter(starter, tmp_path / "new")
    assert_same(load_starter(tmp_path / "new"), starter)


def test_loaded_content_is_builtin_whatever_it_was(starter, tmp_path):
    mine = dataclasses.replace(starter, tasks=(make_task("birds"), make_task("trees")))
    save_starter(mine, tmp_path)
    assert all(task.builtin for task in load_starter(tmp_path).tasks)


def test_accuracies_are_kept_to_four_decimals(starter, tmp_path):
    save_starter(dataclasses.replace(starter, results=(make_result(accuracy=2 / 3),)), tmp_path)
    assert load_starter(tmp_path).results[0].accuracy == 0.6667


def test_same_content_makes_the_same_files(starter, tmp_path):
    for name in ("one", "two"):
        save_starter(starter, tmp_path / name)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")
    ]
    assert contents[0] == contents[1]
    assert sorted(contents[0]) == ["embeddings.npz", "results.csv", "starter.json"]
    assert contents[0]["results.csv"].splitlines()[0].startswith(b"task,expert,accuracy,")
    assert [task["name"] for task in json.loads(contents[0]["starter.json"])["tasks"]] == list(NAMES)


def test_populate_makes_a_sound_registry_of_everything(starter, tmp_path):
    save_starter(starter, tmp_path / "content")
    store = Store.create(tmp_path / "registry", lambda new: populate(new, tmp_path / "content"))
    assert store.verify() == []
    (space,) = store.spaces()
    found = Starter(
        space,
        tuple(store.tasks()),
        tuple(store.embedding(space.space_id, name, 1) for name in NAMES),
        tuple(store.experts()),
        tuple(store.results()),
    )
    assert_same(found, starter)
    assert store.tasks(builtin=False) == store.experts(builtin=False) == store.results(builtin=False) == []


def test_content_that_cannot_be_read_leaves_no_registry(starter, tmp_path):
    save_starter(starter, tmp_path / "content")
    (tmp_path / "content" / "results.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"results\.csv"):
        Store.create(tmp_path / "registry", lambda new: populate(new, tmp_path / "content"))
    assert not Store(tmp_path / "registry").exists


# What ships


@pytest.fixture(scope="module")
def shipped():
    return load_starter()


def test_shipped_content_is_worth_starting_from(shipped):
    assert len(shipped.tasks) >= 20
    assert len(shipped.experts) >= 9
    assert len({task.name for task in shipped.tasks}) == len(shipped.tasks)
    assert len({expert.name for expert in shipped.experts}) == len(shipped.experts)
    assert all(task.tags for task in shipped.tasks)
    assert all(task.data == f"{NOT_SHIPPED}{task.name}" for task in shipped.tasks)


def test_shipped_experts_are_the_shipped_weights(shipped):
    assert sorted(expert.name for expert in shipped.experts if expert.toy) == list_builtin()
    real = {expert.name for expert in shipped.experts if not expert.toy}
    assert real == {"tf_efficientnet_lite0.in1k"} <= set(PACKAGED)
    assert all(expert.name == expert.loader for expert in shipped.experts)
    assert all(expert.license and expert.num_params and expert.flops for expert in shipped.experts)


def test_shipped_embeddings_are_those_of_the_tasks_in_the_space(shipped):
    assert [(it.task, it.version) for it in shipped.embeddings] == [
        (it.name, it.version) for it in shipped.tasks
    ]
    dims = (shipped.space.dim, shipped.space.dim, shipped.space.domain_dim)
    for embedding in shipped.embeddings:
        vectors = [getattr(embedding, name) for name in VECTORS]
        assert tuple(len(vector) for vector in vectors) == dims
        assert all(np.isfinite(vector).all() for vector in vectors)
        assert (embedding.fisher >= 0).all()
        assert embedding.norm > 0
    assert len({embedding.fisher.tobytes() for embedding in shipped.embeddings}) == len(shipped.tasks)


def test_shipped_space_is_that_of_the_default_probe_as_it_embeds_now(shipped):
    from indexer.embed import space_of
    from indexer.networks.load import load_network
    from indexer.records import EmbeddingSettings

    assert shipped.space.probe == shipped.space.probe_source == default_probe()
    assert (shipped.space.trivial > 0).all()
    assert space_of(load_network(default_probe()), EmbeddingSettings()).space_id == shipped.space.space_id


def test_shipped_results_name_known_tasks_and_experts_and_never_images_that_an_expert_has_seen(shipped):
    images = {
        task.name: {tag.removeprefix("images.") for tag in task.tags if tag.startswith("images.")}
        or {task.name}
        for task in shipped.tasks
    }
    sources = {expert.name: expert.source_task for expert in shipped.experts}
    pairs = [(result.task, result.expert) for result in shipped.results]
    assert len(set(pairs)) == len(pairs)
    expected = {
        (task, name) for task in images for name, source in sources.items() if source not in images[task]
    }
    assert set(pairs) == expected
    assert len({(result.metric, result.protocol) for result in shipped.results}) == 1


def test_shipped_results_are_as_they_were_measured(shipped):
    """Above chance on the whole, and not all alike: a column swapped or a task mislabelled would show."""
    by_task = {
        task.name: [r.accuracy for r in shipped.results if r.task == task.name] for task in shipped.tasks
    }
    for task in shipped.tasks:
        assert max(by_task[task.name]) > 1 / task.num_classes
        assert len(set(by_task[task.name])) > 1


def test_shipped_files_are_small_and_described():
    assert sum(path.stat().st_size for path in BUILTIN_FOLDER.glob("*.safetensors")) < 20e6
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5e6
    assert (FOLDER / "CARD.md").is_file()


def test_a_new_registry_holds_what_ships(shipped, tmp_path):
    registry = TaskRegistry(tmp_path / "new")
    registry.init()
    assert len(registry.tasks()) == len(shipped.tasks)
    assert len(registry.experts()) == len(shipped.experts)
    assert len(registry.results()) == len(shipped.results)
    assert registry.verify() == []
    for task in registry.tasks():
        assert registry.nearest(task.name, k=1)[1][0].task != task.name
    assert registry.recommend(shipped.tasks[0].name).recommendations
