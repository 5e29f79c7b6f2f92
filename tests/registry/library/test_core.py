"""TaskRegistry from end to end, on small data that is really embedded."""

import shutil

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_space, make_task
from builders_datasets import write_folder
from small_stores import fails

from registry import TaskRegistry
from registry.answers import ImportedExperts
from registry.builtin import starter
from registry.errors import (
    DuplicateError,
    IngestError,
    InvalidQueryError,
    InvalidRecordError,
    NotFoundError,
    StorageError,
)
from registry.storage.store import Store

DIGITS = "sklearn:digits"


def versions(registry):
    """Version of every table: rises with every write."""
    database = Store(registry.uri).database
    return {name: database.table_version(name) for name in database.table_names()}


@pytest.fixture(autouse=True)
def small_starter(monkeypatch):
    """A registry that comes into being by a first write is given one task instead of all that ship."""

    def populate(store):
        store.add_space(make_space())
        store.add_task(
            make_task("starter", builtin=True, data="not shipped: starter"), "space0", make_embedding("starter")
        )
        store.add_experts([make_expert("starter.x", builtin=True)])

    monkeypatch.setattr(starter, "populate", populate)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Class folders of 12 small images."""
    return write_folder(tmp_path_factory.mktemp("data") / "images", {"no": 6, "yes": 6})


@pytest.fixture(scope="module")
def template(tmp_path_factory, images):
    """The tasks digits (50 samples) and images, really embedded."""
    registry = TaskRegistry(tmp_path_factory.mktemp("template"))
    registry.init(empty=True)
    registry.add_task("digits", DIGITS, max_samples=50, tags=["grey"])
    registry.add_task("images", str(images))
    return registry


@pytest.fixture
def registry(template, tmp_path):
    """A copy of the template, to be changed; it must be sound in the end."""
    shutil.copytree(template.uri, tmp_path / "registry")
    copy = TaskRegistry(tmp_path / "registry")
    yield copy
    assert copy.verify() == []


# The place


def test_the_place_is_the_argument_the_environment_or_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("T2V_REGISTRY", raising=False)
    assert TaskRegistry().uri == f"{tmp_path}/.task2vec"
    monkeypatch.setenv("T2V_REGISTRY", "~/mine")
    assert TaskRegistry().uri == f"{tmp_path}/mine"
    assert TaskRegistry("~/other").uri == f"{tmp_path}/other"
    assert not (tmp_path / "mine").exists()


def test_another_url_is_refused_as_it_was_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    message = (
        "ftp://host/place: a registry lies in a local folder or at one of s3://BUCKET/PREFIX, "
        "gs://BUCKET/PREFIX, az://BUCKET/PREFIX"
    )
    with fails(StorageError, message):
        TaskRegistry("ftp://host/place")
    assert list(tmp_path.iterdir()) == []


def test_the_home_of_nobody_is_refused():
    with fails(StorageError, "~nobody-at-all/x: there is no such home folder; write the path out"):
        TaskRegistry("~nobody-at-all/x")


READS = {
    "tasks": lambda registry: registry.tasks(),
    "task": lambda registry: registry.task("x"),
    "embeddings_of": lambda registry: registry.embeddings_of("x"),
    "experts": lambda registry: registry.experts(),
    "expert": lambda registry: registry.expert("x"),
    "results": lambda registry: registry.results(),
    "nearest": lambda registry: registry.nearest("x"),
    "distance": lambda registry: registry.distance("x", "y"),
    "recommend": lambda registry: registry.recommend("x"),
    "verify": lambda registry: registry.verify(),
    "remove_task": lambda registry: registry.remove_task("x"),
    "tag_task": lambda registry: registry.tag_task("x", add=["y"]),
    "remove_expert": lambda registry: registry.remove_expert("x"),
    "measure": lambda registry: registry.measure("x", "y"),
}


@pytest.mark.parametrize("ask", READS.values(), ids=READS.keys())
def test_what_needs_a_registry_says_that_there_is_none_and_makes_none(tmp_path, ask):
    missing, file = tmp_path / "none", tmp_path / "file"
    with fails(StorageError, f"{missing}: there is no registry yet; make one with `t2v init`, or add a task"):
        ask(TaskRegistry(missing))
    file.touch()
    with fails(StorageError, f"{file} is a file; a registry needs a folder of its own"):
        ask(TaskRegistry(file))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_init_makes_an_empty_registry_or_one_with_starter_content(tmp_path):
    full, empty = TaskRegistry(tmp_path / "full"), TaskRegistry(tmp_path / "empty")
    full.init()
    empty.init(empty=True)
    assert [task.name for task in full.tasks()] == ["starter"]
    assert empty.tasks() == empty.experts() == empty.results() == []
    with fails(StorageError, f"{full.uri}: there is a registry already"):
        full.init()
    with fails(
        InvalidQueryError, "there is no task to compare with yet; add one with `t2v task add NAME DATA`"
    ):
        empty.nearest("x")


# Adding tasks


def test_a_first_task_creates_the_registry_with_starter_content(tmp_path, images):
    registry = TaskRegistry(tmp_path / "new")
    added = registry.add_task("images", str(images), tags=["noise"])
    assert (added.task, added.version, added.created, added.num_samples_used) == ("images", 1, True, 12)
    assert [(task.name, task.tags, task.builtin) for task in registry.tasks()] == [
        ("images", ("noise",), False),
        ("starter", (), True),
    ]
    assert [task.name for task in TaskRegistry(registry.uri, builtin=False).tasks()] == ["images"]
    assert registry.verify() == []


@pytest.mark.parametrize(
    ("name", "data", "options", "error"),
    [
        ("new", "flat", {}, IngestError),
        ("new", "nonesuch", {}, IngestError),
        ("a b", "good", {}, InvalidRecordError),
        ("new", "good", {"tags": ["a b"]}, InvalidRecordError),
        ("new", "good", {"probe": "resnet18.V9"}, NotFoundError),
        ("new", "good", {"seed": 2**32}, IngestError),
        ("new", "good", {"device": "tpu"}, IngestError),
    ],
    ids=["no-task", "no-data", "name", "tag", "probe", "seed", "device"],
)
def test_a_task_that_fails_leaves_nothing(tmp_path, name, data, options, error):
    write_folder(tmp_path / "good", {"no": 2, "yes": 2})
    (tmp_path / "flat").mkdir()
    with pytest.raises(error, match=r"\w"):
        TaskRegistry(tmp_path / "registry").add_task(name, str(tmp_path / data), **options)
    assert not (tmp_path / "registry").exists()


def test_an_embedding_that_fails_halfway_leaves_nothing(tmp_path, images):
    def stop(stage, done, total):
        if stage == "fisher":
            raise KeyboardInterrupt("pressed")

    with pytest.raises(KeyboardInterrupt, match="pressed"):
        TaskRegistry(tmp_path / "registry").add_task("images", str(images), progress=stop)
    assert not (tmp_path / "registry").exists()


def test_a_place_that_can_be_no_registry_is_refused_before_the_work(tmp_path, images):
    (tmp_path / "thesis.txt").touch()
    foreign = f"{tmp_path} is not empty and holds no registry; give a new or empty folder"
    for place, message in (
        (tmp_path, foreign),
        (tmp_path / "thesis.txt", f"{tmp_path}/thesis.txt is a file; a registry needs a folder of its own"),
    ):
        registry = TaskRegistry(place)
        with fails(StorageError, message):
            registry.add_task(
                "images", str(images), progress=lambda *event: pytest.fail("it has begun to work")
            )
        with fails(StorageError, message):
            registry.add_expert("resnet18.NO_SUCH_WEIGHTS")


def test_the_same_again_writes_nothing(registry):
    before = versions(registry)
    [(space, stored)] = registry.embeddings_of("digits")
    again = registry.add_task("digits", DIGITS, max_samples=50, tags=["grey"])
    assert versions(registry) == before
    assert (again.version, again.created, again.space) == (1, False, space.space_id)
    assert (again.norm, again.num_samples_used, again.seconds) == (stored.norm, 50, stored.seconds)
    assert again.notes == ()
    assert registry.add_task("digits", DIGITS, max_samples=50, tags=["other"]).notes == (
        "it got the tags other",
    )
    assert registry.task("digits").tags == ("grey", "other")


def test_other_settings_make_the_next_version_with_the_same_tags(registry):
    added = registry.add_task("digits", DIGITS, max_samples=40, tags=["small"])
    assert (added.version, added.created, added.num_samples_used) == (2, True, 40)
    assert registry.task("digits").tags == ("grey", "small")
    first, second = registry.task("digits@1"), registry.task("digits@2")
    assert (first.settings, first.num_samples) != (second.settings, second.num_samples)
    assert registry.task("digits") == second
    query, found = registry.nearest("digits@1")
    assert (query.task, query.version) == ("digits", 1)
    assert [(neighbor.task, neighbor.version) for neighbor in found] == [("images", 1)]
    assert registry.distance("digits@1", "digits@2") > 0


def test_changed_data_makes_the_next_version(registry, images, tmp_path):
    changed = shutil.copytree(images, tmp_path / "images")
    assert not registry.add_task("images", str(changed)).created  # it has only moved
    (changed / "no" / "000.png").unlink()
    added = registry.add_task("images", str(changed))
    assert (added.version, added.num_samples_used) == (2, 11)
    assert registry.task("images").data == str(changed)


def test_another_probe_makes_a_second_space_of_the_same_version(registry, images, shared, monkeypatch):
    monkeypatch.chdir(shared / "weights")
    probe = "resnet20@resnet20.cifar10.safetensors"
    added = registry.add_task("images", str(images), probe=probe)
    assert (added.version, added.created) == (1, True)
    assert not registry.add_task("images", str(images), probe=probe).created
    assert len(registry.embeddings_of("images")) == 2
    query, found = registry.nearest("images", probe=probe)
    assert (query.space, found) == (added.space, [])
    assert registry.nearest(str(images), probe="resnet20.cifar10", k=1)[1][0].distance == pytest.approx(
        0, abs=1e-6
    )
    assert registry.nearest("images")[0].space != added.space
    with fails(NotFoundError, "no task embedded with resnet20.cifar10 is named 'digits'; known are images"):
        registry.distance("digits", "images", probe=added.space)


def test_a_task_that_was_removed_can_be_added_again_as_a_new_version(registry, images):
    registry.remove_task("images")
    assert [task.name for task in registry.tasks()] == ["digits"]
    with fails(NotFoundError, "no task is named 'images'; known are digits"):
        registry.task("images")
    assert registry.add_task("images", str(images)).version == 2


def test_tags_are_added_and_taken_away(registry):
    assert registry.tag_task("digits", add=["b", "a"], remove=["grey", "none"]).tags == ("a", "b")
    assert [task.name for task in registry.tasks(where="tags = 'b'")] == ["digits"]
    with pytest.raises(InvalidRecordError, match="'a b' cannot name a tag"):
        registry.tag_task("digits", add=["a b"])


# Questions about data


def test_data_is_asked_about_as_its_own_task_and_not_remembered(registry, images):
    before = versions(registry)
    query, found = registry.nearest(str(images))
    named = {neighbor.task: neighbor.distance for neighbor in registry.nearest("images")[1]}
    assert (query.task, query.version) == (str(images), 0)
    assert [neighbor.task for neighbor in found] == ["images", "digits"]
    assert found[0].distance == pytest.approx(0, abs=1e-6)
    assert found[1].distance == pytest.approx(named["digits"], abs=1e-9)
    assert registry.distance(str(images), "digits") == pytest.approx(
        registry.distance("images", "digits"), abs=1e-9
    )
    assert versions(registry) == before


def test_embed_is_what_adding_would_have_written_and_needs_no_registry(registry, images, tmp_path):
    embedding = TaskRegistry(tmp_path / "none").embed(str(images))
    [(_, stored)] = registry.embeddings_of("images")
    np.testing.assert_array_equal(embedding.fisher, stored.fisher)
    assert not (tmp_path / "none").exists()


def test_a_registered_name_goes_before_a_folder_of_that_name(registry, images, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(images.parent, tmp_path / "work"))
    (tmp_path / "work" / "images").rename("digits")
    assert registry.nearest("digits")[0].version == 1
    query, found = registry.nearest("./digits")
    assert (query.version, found[0].task) == (0, "images")
    registry.remove_task("digits")
    assert registry.nearest("digits")[0].version == 0


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("image", NotFoundError, "no task is named 'image'; did you mean images?"),
        ("digits@7", NotFoundError, "no task is named 'digits@7'; did you mean digits@1?"),
        ("x" * 300, NotFoundError, f"no task is named '{'x' * 300}'; known are digits, images"),
    ],
)
def test_what_is_neither_task_nor_data_is_not_found(template, query, error, message):
    for ask in (template.nearest, template.recommend, lambda query: template.distance("digits", query)):
        with fails(error, message):
            ask(query)


def test_data_that_cannot_be_embedded_in_the_space_is_refused(tmp_path, images):
    store = Store.create(tmp_path)
    store.add_space(make_space(probe_source="resnet14w32.mnist"))
    store.add_task(make_task(), "space0", make_embedding())
    with pytest.raises(
        IngestError,
        match=r"cannot be compared with the tasks of space space0: the weights of resnet14w32\.mnist",
    ):
        TaskRegistry(tmp_path).nearest(str(images))


# Experts


def test_an_expert_is_added_measured_and_removed(registry):
    expert = registry.add_expert("resnet14w32.mnist", name="mine", source_task="digits", license="MIT")
    assert registry.expert("mine") == expert
    first = registry.measure("images", "mine", record=False)
    assert registry.results() == []
    second = registry.measure("images", "mine", seed=0)
    assert (second.accuracy, second.recorded, first.recorded) == (first.accuracy, True, False)
    [result] = registry.results(task="images", expert="mine")
    assert (result.accuracy, result.protocol, result.seed, result.source) == (
        second.accuracy,
        second.protocol,
        0,
        "t2v result measure",
    )
    with fails(DuplicateError, "expert mine is registered already; remove it first or choose another name"):
        registry.add_expert("resnet14w32.mnist", name="mine")
    registry.remove_expert("mine")
    assert registry.experts() == []


def test_starter_tasks_cannot_be_measured(tmp_path):
    registry = TaskRegistry(tmp_path / "new")
    registry.init()
    with pytest.raises(IngestError, match=r"^task starter is starter content, whose images do not ship"):
        registry.measure("starter", "starter.x")


def test_experts_are_imported_all_or_none(tmp_path):
    registry, path = TaskRegistry(tmp_path / "new"), tmp_path / "experts.csv"
    path.write_text("expert,num_params\na.x,-1\nb.x,5\nb.x,5\n")
    with fails(
        InvalidRecordError,
        f"{path}, line 2: expert a.x: num_params must be at least 1, got -1; "
        f"{path}, line 4: expert b.x is given twice",
    ):
        registry.import_experts(path)
    assert not (tmp_path / "new").exists()
    path.write_text("expert,num_params\na.x,\nb.x,5\n")
    assert registry.import_experts(str(path)) == ImportedExperts(str(path), 2, 0, 0)
    assert [expert.name for expert in registry.experts()] == ["a.x", "b.x", "starter.x"]
