"""indexer.records and indexer.errors: identity of a space, ranges of settings, whole messages, pickling."""

import builtins
import pickle
import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer import errors
from indexer.errors import (
    DataError,
    DataSpecError,
    EngineError,
    IndexerError,
    MissingLibraryError,
    NetworkError,
    SettingsError,
    TooFewSamplesError,
    UnknownNameError,
    UnreadableFilesError,
    UnsupportedLayerError,
    WeightsError,
)
from indexer.records import DatasetDescription, EmbeddingSettings, InputTransform, Space, TaskEmbedding

SPACE = Space("tiny.test", "00ff", "exact", "filter_mean", InputTransform(8, 8), "logistic")


def test_space_id_is_the_same_on_every_machine_and_in_every_version():
    """A stored registry finds its embeddings by this value: it may change only with a migration."""
    pinned = replace(SPACE, head="logistic", sampling="balanced")
    assert pinned.space_id == "dd36e01e41a15cc8"


@pytest.mark.parametrize("name", [field.name for field in fields(Space)])
def test_space_id_depends_on_every_field(name: str):
    other = InputTransform(9, 8) if name == "transform" else "other"
    assert replace(SPACE, **{name: other}).space_id != SPACE.space_id


@pytest.mark.parametrize(
    "changes", [{"resize": 9}, {"crop": 7}, {"mean": (0.0, 0.0, 0.0)}, {"std": (1.0, 1.0, 1.0)}], ids=str
)
def test_space_id_depends_on_the_whole_transform(changes: dict):
    assert replace(SPACE, transform=replace(SPACE.transform, **changes)).space_id != SPACE.space_id


@given(st.text(), st.text())
@hypothesis_settings(deadline=None, max_examples=50)
def test_space_id_does_not_run_neighbouring_fields_together(probe: str, weights_hash: str):
    moved = replace(SPACE, probe=probe + weights_hash, weights_hash="")
    assert (moved.space_id == replace(SPACE, probe=probe, weights_hash=weights_hash).space_id) == (
        weights_hash == ""
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_samples", 1, "max_samples must be at least 2, got 1"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("seed", -1, "seed must be at least 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: int, message: str):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        EmbeddingSettings(**{name: value})


def test_settings_take_the_ends_of_their_ranges():
    settings = EmbeddingSettings(max_samples=2, batch_size=1, seed=0)
    assert (settings.max_samples, settings.batch_size, settings.seed) == (2, 1, 0)


def make_embedding() -> TaskEmbedding:
    return TaskEmbedding(
        space=SPACE,
        dataset=DatasetDescription("./folder", 9, ("cat", "dog"), "abcd", 1, ("cat/1.jpg",)),
        settings=EmbeddingSettings(),
        fisher=np.ones(3, np.float32),
        standard_error=np.ones(3, np.float32),
        domain=np.ones(2, np.float32),
        num_samples_used=8,
        head_accuracy=0.5,
        head_loss=0.7,
        seconds=1.0,
    )


def test_number_of_classes_is_that_of_their_names():
    assert make_embedding().dataset.num_classes == 2


def test_embedding_survives_pickling():
    embedding = make_embedding()
    copy = pickle.loads(pickle.dumps(embedding))
    for field in fields(TaskEmbedding):
        np.testing.assert_array_equal(getattr(copy, field.name), getattr(embedding, field.name), field.name)
    assert copy.space.space_id == embedding.space.space_id


def test_embedding_prints_without_its_arrays():
    assert "array" not in repr(make_embedding())


@pytest.mark.parametrize("record", [SPACE, SPACE.transform, EmbeddingSettings(), make_embedding()], ids=repr)
def test_records_are_frozen(record: object):
    name = fields(record)[0].name
    with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(record, name, None)


ERRORS = {
    DataError("./a", "is empty"): "./a: is empty",
    DataSpecError("./a", "is empty"): "./a: is empty",
    TooFewSamplesError("./a", "is empty"): "./a: is empty",
    UnreadableFilesError("./a", "is empty"): "./a: is empty",
    WeightsError("a.pt: no such file"): "a.pt: no such file",
    NetworkError("a.pt: does not run"): "a.pt: does not run",
    UnsupportedLayerError("layer has no rule"): "layer has no rule",
    SettingsError("seed is wrong"): "seed is wrong",
    EngineError("the process was lost"): "the process was lost",
    MissingLibraryError("the engine ray", "Ray", "ray"): (
        "the engine ray needs Ray; install it with `pip install 'task2vec-registry[ray]'`"
    ),
    UnknownNameError("probe", "resnet", ["vgg", "resnet18"]): (
        "no probe is named 'resnet'; did you mean resnet18?"
    ),
}


@pytest.mark.parametrize(("error", "message"), ERRORS.items(), ids=lambda value: type(value).__name__)
def test_errors_say_their_message_and_survive_pickling(error: IndexerError, message: str):
    copy = pickle.loads(pickle.dumps(error))
    assert str(error) == message
    assert (type(copy), str(copy), vars(copy)) == (type(error), message, vars(error))


def test_every_error_is_tested_here_and_drawn_in_the_tree():
    """Each also derives from the built-in error that the tree names beside it."""
    tree = dict(re.findall(r"[├└]── (\w+) +(?:\((\w+)\))?", errors.__doc__))
    defined = {
        name: error
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, IndexerError) and error is not IndexerError
    }
    assert set(tree) == set(defined) == {type(error).__name__ for error in ERRORS}
    bases = {name: getattr(builtins, name or "ValueError") for name in tree.values()}
    wrong = [name for name, error in defined.items() if not issubclass(error, bases[tree[name]])]
    assert not wrong


def test_unknown_name_lists_the_known_when_none_is_close():
    error = UnknownNameError("estimator", "zzz", [f"name{number}" for number in range(10)])
    known = ", ".join(f"name{number}" for number in range(8))
    assert str(error) == f"no estimator is named 'zzz'; known are {known}"
    assert error.known == [f"name{number}" for number in range(10)]


def test_unknown_name_offers_at_most_three():
    error = UnknownNameError("probe", "resnet", ["resnet1", "resnet2", "resnet3", "resnet4"])
    assert str(error).count("resnet") == 4  # the name asked for and three others
