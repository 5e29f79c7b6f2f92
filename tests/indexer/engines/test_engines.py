"""Engines: the same results from each, errors as values, and processes that die."""

import re
import sys
from pathlib import Path

import pytest
import torch
from builders_datasets import write_folder
from engine_works import Dying, Slow, Square

from indexer.engines.engines import ENGINES, HEEDED_BY_SOME, run_works
from indexer.engines.processes import DEPTH
from indexer.engines.work import EmbedWork, EngineSettings, limited_threads
from indexer.errors import DataError, EngineError, MissingLibraryError, SettingsError, UnknownNameError
from indexer.records import EmbeddingSettings


def outcomes_of(works, engine="serial", **settings):
    """Outcomes in the order of the work, and each exactly once."""
    outcomes = [outcome for outcome in run_works(works, engine, EngineSettings(**settings)) if outcome]
    outcomes.sort(key=lambda outcome: outcome.number)
    assert [outcome.number for outcome in outcomes] == list(range(len(works)))
    return outcomes


def check_all_went_on(outcomes):
    """One outcome of each of 20 squares, two of them errors."""
    values = [outcome.value for outcome in outcomes]
    assert values == [None if number in {13, 14} else number**2 for number in range(20)]
    assert str(outcomes[13].error) == "thirteen: brings bad luck"
    assert isinstance(outcomes[13].error, DataError)
    assert str(outcomes[14].error) == "square of 14: ZeroDivisionError: as of a library"
    assert [outcome.error is None for outcome in outcomes] == [number not in {13, 14} for number in range(20)]


def embedded_bytes(outcome):
    """All vectors of an embedding."""
    embedding = outcome.value
    return [array.tobytes() for array in (embedding.fisher, embedding.standard_error, embedding.domain)]


def make_embeddings(folder, count):
    """Work on that many folders of noise."""
    return [
        EmbedWork(str(write_folder(folder / f"t{number}", {"no": 2, "yes": 2}, first_seed=number)), SETTINGS)
        for number in range(count)
    ]


SETTINGS = EmbeddingSettings(probe="resnet14w16.tiny_imagenet")


def test_catalogue_is_named_by_its_keys():
    assert list(ENGINES) == [engine.name for engine in ENGINES.values()] == ["serial", "processes", "ray"]
    assert {name for engine in ENGINES.values() for name in engine.heeds} == set(HEEDED_BY_SOME)


def test_serial_tells_errors_as_values():
    check_all_went_on(outcomes_of([Square(number) for number in range(20)]))


def test_serial_takes_work_only_as_it_is_asked_for():
    taken = []

    def works():
        for number in range(5):
            taken.append(number)
            yield Square(number)

    outcomes = run_works(works())
    assert taken == []
    assert next(outcomes).value == 0
    assert taken == [0]


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with limited_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_processes_outlive_work_that_kills_them_and_give_the_same_bytes(tmp_path):
    """One pool for it all, as starting processes takes seconds."""
    once, always = Dying(str(tmp_path / "once"), 1), Dying(str(tmp_path / "always"), 99)
    works = [*make_embeddings(tmp_path, 2), once, always, Square(13), Square(3)]
    outcomes = outcomes_of(works, "processes", jobs=2)
    serial = outcomes_of(works[:2])
    assert [embedded_bytes(outcome) for outcome in outcomes[:2]] == [*map(embedded_bytes, serial)]
    assert (outcomes[2].value, outcomes[2].attempts) == ("alive", 2)
    assert outcomes[3].attempts == 2
    assert str(outcomes[3].error) == (
        "a deadly one: the process that computed it was killed by SIGKILL, 2 times of 2; if the memory does "
        "not suffice, use fewer jobs or a smaller memory budget"
    )
    assert len((tmp_path / "always").read_text().split()) == 2
    assert str(outcomes[4].error) == "thirteen: brings bad luck"
    assert outcomes[5].value == 9


def test_processes_end_when_nobody_listens_any_more(tmp_path):
    path = tmp_path / "pid"
    taken = []

    def works():
        for _ in range(100):
            taken.append(1)
            yield Slow(str(path))

    outcomes = run_works(works(), "processes", EngineSettings(jobs=1))
    while not (path.exists() and path.read_text()):
        assert next(outcomes) is None  # nothing is done, and whoever waits hears so
    assert len(taken) == DEPTH
    process = int(path.read_text())
    outcomes.close()
    assert not Path(f"/proc/{process}").exists()


def test_processes_that_cannot_start_are_told(monkeypatch, tmp_path):
    (tmp_path / "queue.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    wanted = "processes cannot be started: 3 ended (ended with code 3) before they could compute; "
    with pytest.raises(EngineError, match=re.escape(wanted)):
        outcomes_of([Square(1)], "processes", jobs=1)


def test_an_unknown_engine_is_told():
    with pytest.raises(
        UnknownNameError, match=re.escape("no engine is named 'procesess'; did you mean proces")
    ):
        run_works([], "procesess")


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        ("serial", {"jobs": 2}, "the engine serial does not heed jobs; use processes or ray, or leave it out"),
        (
            "processes",
            {"address": "auto"},
            "the engine processes does not heed address; use ray, or leave it out",
        ),
        (
            "serial",
            {"gpus_per_task": 1.0},
            "the engine serial does not heed gpus_per_task; use ray, or leave it out",
        ),
    ],
)
def test_settings_that_would_change_nothing_are_refused(engine, settings, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        run_works([], engine, EngineSettings(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"threads": 5000}, "threads must be at most 1024, got 5000"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"gpus_per_task": float("nan")}, "gpus_per_task must be at least 0, got nan"),
        ({"memory_per_task": 0}, "memory_per_task must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        EngineSettings(**settings)


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    wanted = "the engine ray needs ray; install it with `pip install 'task2vec-registry[ray]'`"
    with pytest.raises(MissingLibraryError, match=re.escape(wanted)):
        outcomes_of([Square(1)], "ray")


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_goes_on_after_errors_and_deaths(tmp_path, capfd):
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules["engine_works"])  # which Ray's processes do not find
    once, always = Dying(str(tmp_path / "once"), 1), Dying(str(tmp_path / "always"), 99)
    works = [*make_embeddings(tmp_path, 2), once, always, Square(13), Square(3)]
    outcomes = outcomes_of(works, "ray", jobs=2)
    serial = outcomes_of(works[:2])
    assert [embedded_bytes(outcome) for outcome in outcomes[:2]] == [*map(embedded_bytes, serial)]
    assert outcomes[2].value == "alive"
    printed = capfd.readouterr()
    assert printed.out == ""  # where answers go
    assert "died" in printed.err
    assert "Ray lost it 2 times: WorkerCrashedError" in str(outcomes[3].error)
    assert str(outcomes[4].error) == "thirteen: brings bad luck"
    assert outcomes[5].value == 9
    import ray

    assert not ray.is_initialized()


@pytest.mark.slow
def test_an_address_without_a_cluster_is_told():
    pytest.importorskip("ray")
    with pytest.raises(EngineError, match=re.escape("there is no Ray cluster at 127.0.0.1:1: ")):
        outcomes_of([Square(1)], "ray", address="127.0.0.1:1")
