"""Tasks of texts in a registry: added, compared, recommended for, measured; and never mixed with images."""

import re
from pathlib import Path

import numpy as np
import pytest
from builders_texts import save_encoder, write_reviews, write_texts
from command_lines import answer, ok, t2v
from small_stores import OwnResults

from registry import TaskRegistry
from registry.errors import IngestError, InvalidQueryError, NotFoundError
from registry.ingest import data
from registry.snapshots.view import NotEmbeddedError


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    """A folder with the data of three tasks of texts."""
    folder = tmp_path_factory.mktemp("reviews")
    for seed, name in enumerate(("films", "books", "songs")):
        write_reviews(folder / f"{name}.csv", seed=seed)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, texts: Path, encoder: Path, images: Path) -> Path:
    """A registry with tasks of texts in a space, one of them in another too, and a task of images."""
    place = tmp_path_factory.mktemp("registry") / "tasks"
    tasks = TaskRegistry(place)
    tasks.init(empty=True)
    tasks.add_task("photos", str(images))
    for name in ("films", "books", "songs"):
        tasks.add_task(name, str(texts / f"{name}.csv"), probe=f"hf:{encoder}")
    tasks.add_task("films", str(texts / "films.csv"), probe=f"hf:{encoder}?pooling=cls")
    other = save_encoder(place.parent / "other", seed=1)
    tasks.add_expert(f"hf:{encoder}", license="mit")
    tasks.add_expert(f"hf:{other}?max_tokens=8")
    tasks.add_expert("resnet14w16.tiny_imagenet")
    return place


@pytest.fixture
def tasks(place: Path) -> TaskRegistry:
    return OwnResults(place)


def test_each_pooling_and_each_kind_of_sample_is_a_space_of_its_own(tasks: TaskRegistry):
    spaces = {space.probe: space for space in tasks.spaces()}
    assert {name: space.content for name, space in spaces.items()} == {
        "encoder": "texts",
        "encoder.cls": "texts",
        "resnet14w32.tiny_imagenet": "images",
    }
    assert spaces["encoder"].probe_source.endswith("/encoder?pooling=mean&max_tokens=32")
    for space in spaces.values():
        assert (space.trivial > 0).all()


def test_a_loader_that_says_less_means_the_space_that_it_would_make(tasks: TaskRegistry, encoder: Path):
    named = {
        loader: tasks.space(loader).probe
        for loader in (f"hf:{encoder}", f"hf:{encoder}?pooling=cls", "encoder")
    }
    assert list(named.values()) == ["encoder", "encoder.cls", "encoder"]
    with pytest.raises(NotFoundError, match="no probe with embedded tasks is named"):
        tasks.space(f"hf:{encoder}?max_tokens=5")


def test_the_same_texts_again_write_nothing(tasks: TaskRegistry, texts: Path, encoder: Path):
    assert not tasks.add_task("films", str(texts / "films.csv"), probe=f"hf:{encoder}").created


def test_nearest_of_a_task_of_texts_is_asked_in_its_own_space(tasks: TaskRegistry, texts: Path, encoder: Path):
    query, found = tasks.nearest("books")
    assert {neighbor.task for neighbor in found} == {"films", "songs"}
    assert query.space == tasks.space("encoder").space_id
    _, of_data = tasks.nearest(str(texts / "books.csv"), probe=f"hf:{encoder}")
    assert (of_data[0].task, of_data[0].distance) == ("books", pytest.approx(0, abs=1e-6))
    assert {neighbor.task for neighbor in of_data} == {"films", "books", "songs"}
    assert tasks.distance("films", "books") > 0


def test_texts_and_images_are_never_compared(tasks: TaskRegistry, texts: Path, images: Path, encoder: Path):
    vision = "resnet14w32.tiny_imagenet"

    def message(task: str, content: str, space: str, own: str) -> str:
        others = {"texts": "images", "images": "texts"}[content]
        return (
            f"task {task} holds {content}, and in the space of {space} tasks of {others} are compared; the two "
            f"never mix: ask about it with probe={own!r}"
        )

    of_books = message("books", "texts", vision, "encoder")
    of_photos = message("photos", "images", "encoder", vision)
    for ask, expected in (
        (lambda: tasks.nearest("books", probe=vision), of_books),
        (lambda: tasks.recommend("books", probe=vision), of_books),
        (lambda: tasks.nearest("photos", probe="encoder"), of_photos),
        (lambda: tasks.distance("photos", "books"), of_photos),
    ):
        with pytest.raises(InvalidQueryError, match=f"^{re.escape(expected)}$"):
            ask()
    with pytest.raises(NotEmbeddedError, match=r"^no task embedded with encoder\.cls is named 'books'"):
        tasks.nearest("books", probe="encoder.cls")


def test_data_of_texts_needs_a_text_encoder_and_images_none(tasks: TaskRegistry, texts: Path, images: Path):
    csv = str(texts / "books.csv")
    problem = f"{csv}: holds texts, and the network takes images; use a text encoder, such as hf:./encoder"
    for ask in (lambda: tasks.nearest(csv), lambda: tasks.add_task("wrong", csv), lambda: tasks.embed(csv)):
        with pytest.raises(IngestError, match=f"^{re.escape(problem)}$"):
            ask()
    with pytest.raises(IngestError, match=r"holds images, and the network is a text encoder; use one of"):
        tasks.nearest(str(images), probe="encoder")


def test_recommend_of_texts_knows_text_encoders_only(tasks: TaskRegistry):
    assert {it.expert for it in tasks.recommend("books").recommendations} == {"encoder", "other"}
    assert {it.expert for it in tasks.recommend("photos").recommendations} == {"resnet14w16.tiny_imagenet"}
    with pytest.raises(
        InvalidQueryError,
        match=r"^resnet14w16.tiny_imagenet is given, which does not take texts, as tasks here hold; leave",
    ):
        tasks.recommend("books", given={"resnet14w16.tiny_imagenet": 0.5})


def test_recommend_without_a_text_encoder_says_what_left_it_out_or_how_to_add_one(
    tasks: TaskRegistry, tmp_path: Path, texts: Path, encoder: Path
):
    answer = tasks.recommend("books", licenses=["apache-2.0"])
    assert answer.warnings == (
        "no expert is within the limits (license left out 2): widen them, or add an expert",
    )
    empty = TaskRegistry(tmp_path / "none")
    empty.init(empty=True)
    empty.add_task("books", str(texts / "books.csv"), probe=f"hf:{encoder}")
    assert empty.recommend("books").warnings == (
        "there is no text encoder: add one with `t2v expert add hf:./encoder`",
    )


def test_text_encoders_are_tried_and_measured_on_texts(tasks: TaskRegistry):
    answer = tasks.recommend("songs", num_trials=2)
    assert {trial.expert for trial in answer.trials} == {"encoder", "other"}
    measured = tasks.measure("songs", "encoder", record=False)
    assert 0 <= measured.accuracy <= 1
    with pytest.raises(IngestError, match=r"songs.csv: holds texts, and the network takes images"):
        tasks.measure("songs", "resnet14w16.tiny_imagenet", record=False)
    with pytest.raises(IngestError, match=r"holds images, and the network is a text encoder"):
        tasks.measure("photos", "encoder", record=False)


def test_results_on_texts_decide_about_texts(tmp_path: Path, texts: Path, encoder: Path):
    tasks = TaskRegistry(tmp_path / "tasks")
    tasks.init(empty=True)
    for name in ("films", "books", "songs"):
        tasks.add_task(name, str(texts / f"{name}.csv"), probe=f"hf:{encoder}", max_samples=12)
    for seed, name in enumerate(("good", "bad")):
        tasks.add_expert(f"hf:{save_encoder(tmp_path / name, seed=seed)}")
        for task in ("films", "books"):
            tasks.add_result(task, name, accuracy=0.9 if name == "good" else 0.6)
    assert [it.expert for it in tasks.recommend("songs").recommendations] == ["good", "bad"]


def test_cli_adds_embeds_and_asks(place: Path, texts: Path, encoder: Path, tmp_path: Path):
    new = write_texts(
        tmp_path / "new.csv", [(f"{word} film {n}", word) for n in range(8) for word in ("good", "bad")]
    )
    document = answer(place, "embed", new, "--probe", f"hf:{encoder}")
    assert document["head_metric"] == "balanced accuracy"
    assert "holds texts" in t2v(place, "nearest", new).stderr
    found = answer(place, "nearest", new, "--probe", f"hf:{encoder}")
    assert {it["task"] for it in found["neighbors"]} == {"films", "books", "songs"}
    card = answer(place, "probes", "show", f"hf:{encoder}")
    assert (card["takes"], card["max_tokens"], card["pooling"]) == ("texts", 32, "mean")
    assert "first 32 tokens" in ok(place, "probes", "show", f"hf:{encoder}").stdout
    assert "encoder" in ok(place, "expert", "list").stdout


# --- where data lies -------------------------------------------------------------------------------------


def test_data_that_is_more_than_a_path_is_absolute_and_there_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("a-0.tar", "a-1.tar", "x.parquet"):
        (tmp_path / name).touch()
    there = {
        "a-{0..1}.tar": True,
        "a-{0..2}.tar": False,
        "a-{1..0}.tar": False,
        "hf-data:./x.parquet": True,
        "hf-data:./*.parquet": True,
        "hf-data:./none": False,
        "hf-data:imdb?config=plain": True,
        "hf-data:imdb?what=x": False,
    }
    assert {spec: data.is_there(spec) for spec in there} == there
    assert all(data.looks_like_data(spec) for spec, here in there.items() if here)
    absolute = {spec: data.absolute_data(spec) for spec in list(there)[:1] + list(there)[3:5]}
    assert absolute == {
        "a-{0..1}.tar": f"{tmp_path}/a-{{0..1}}.tar",
        "hf-data:./x.parquet": f"hf-data:{tmp_path}/x.parquet",
        "hf-data:./*.parquet": f"hf-data:{tmp_path}/*.parquet",
    }
    assert data.absolute_data("hf-data:./d?text=a b") == f"hf-data:{tmp_path}/d?text=a+b"
    assert data.absolute_data("hf-data:imdb?config=plain") == "hf-data:imdb?config=plain"


def test_exact_and_signed_estimators_agree_on_texts(texts: Path, encoder: Path):
    tasks = TaskRegistry("/nonexistent")
    data, probe = str(texts / "films.csv"), f"hf:{encoder}"
    exact = tasks.embed(data, probe=probe, estimator="exact").fisher
    signed = tasks.embed(data, probe=probe, estimator="signed").fisher
    assert np.corrcoef(np.log(exact + 1e-12), np.log(signed + 1e-12))[0, 1] > 0.9
