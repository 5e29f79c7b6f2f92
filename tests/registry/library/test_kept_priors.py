"""A model that was read from a file answers what one that is fitted now does, whatever becomes of the file."""

import json
import os

import numpy as np
import pytest
from command_lines import make_small_registry, t2v
from written_registries import DAMAGES, answers, writes

from registry import TaskRegistry
from registry.library import kept_priors
from registry.library.kept_priors import KeptPriors
from registry.recommend import prior
from registry.recommend.facts import ExpertFacts
from registry.recommend.results import Table

FIT = prior.fit_prior
FLOWERS = ("recommend", "flowers", "--json", "--no-published")
BIRDS = ("recommend", "birds", "--json", "--no-published")


@pytest.fixture
def folder(tmp_path):
    return make_small_registry(tmp_path / "small")


def recommended(folder, questions=(FLOWERS,), *, anew=False):
    """What is recommended by a process that has not fitted anything, and how often it had to fit."""
    prior._KEPT.forget()
    counted = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior, "fit_prior", lambda *inputs: counted.append(inputs) or FIT(*inputs))
        if anew:
            patch.setattr(KeptPriors, "load", lambda *_: None)
            patch.setattr(KeptPriors, "save", lambda *_: None)
        return answers(folder, questions), len(counted)


def test_a_kept_model_recommends_what_one_fitted_anew_does_after_every_kind_of_write(folder):
    results = 0
    for name, write in [("nothing", lambda _: None), *writes().items()]:
        write(TaskRegistry(folder))
        right, _ = recommended(folder, anew=True)
        (first, fits), second = recommended(folder), recommended(folder)
        assert (first, second) == (right, (right, 0)), name
        results += fits > 0
    assert results >= 4  # what changes results or experts makes another model


def test_a_model_with_published_results_is_read_as_it_was_fitted(folder):
    words = FLOWERS[:-1]
    first = t2v(folder, *words).output
    prior._KEPT.forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior, "fit_prior", lambda *_: pytest.fail("fitted"))
        assert t2v(folder, *words).output == first


def test_a_damaged_model_and_one_of_other_inputs_or_code_are_fitted_anew(folder, monkeypatch):
    both = FLOWERS, BIRDS
    right, _ = recommended(folder, both)
    paths = sorted((folder / "index").glob("*.prior"))
    for damage, apply in DAMAGES.items():
        for path in paths:
            apply(path)
        assert recommended(folder, both) == (right, len(paths)), damage
        for path in paths:
            if path.is_dir():
                path.rmdir()
        assert recommended(folder, both)[0] == right, damage
    first, second = (path.read_bytes() for path in paths)
    paths[0].write_bytes(second)
    paths[1].write_bytes(first)
    assert recommended(folder, both) == (right, 2)
    with monkeypatch.context() as patch:
        patch.setattr(kept_priors, "_code_version", lambda: "0" * 16)
        assert recommended(folder, both) == (right, 2)
    TaskRegistry(folder).remove_task("birds", purge=True)
    assert list((folder / "index").glob("*.prior")) == []


def test_models_beyond_the_most_that_are_kept_are_deleted(tmp_path):
    table = Table(("a", "b"), (("accuracy", "fine_tuned"),) * 2, ("x",), np.array([[0.5], [0.6]]))
    model, files = FIT(table, [ExpertFacts("x")], {}), KeptPriors(tmp_path)
    for number in range(kept_priors.MOST_FILES + 2):
        files.save(bytes([number]), model)
        os.utime(files._path(bytes([number])), (number, number))
    files.save(b"last", model)
    assert len(list(tmp_path.iterdir())) == kept_priors.MOST_FILES
    assert files.load(b"last") is not None
    assert files.load(bytes([0])) is None
    (tmp_path / "file").write_text("")
    KeptPriors(tmp_path / "file").save(b"nowhere", model)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0)[:, ::2],
        np.array(["a", "bc"]),
        np.zeros((0, 3)),
        np.where(np.arange(10_000) % 9, 0.0, -1.5).reshape(100, 100).T,
        np.where(np.arange(10_000) % 9, np.nan, 0.1).reshape(100, 100),
        np.full(5000, -0.0),
    ],
)
def test_an_array_is_read_with_its_bits_and_in_its_order(array):
    about, content = kept_priors._as_bytes(array)
    [read] = kept_priors._arrays([json.loads(json.dumps(about))], content)
    assert read.dtype == array.dtype
    assert read.tobytes() == array.tobytes()
    assert (
        not array.size
        or np.argsort(read.strides, kind="stable").tolist() == np.argsort(array.strides, kind="stable").tolist()
    )
