import pickle
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task

from indexer.records import HEAD_METRICS
from registry import errors
from registry.answers import Baseline, Evidence, EvidenceNeighbor, Query, Recommendation
from registry.errors import (
    BundleError,
    ConflictError,
    DuplicateError,
    IngestError,
    InvalidQueryError,
    InvalidRecordError,
    MissingExtraError,
    NoRegistryError,
    NotFoundError,
    RegistryError,
    SchemaVersionError,
    StorageError,
    UntrustedError,
)
from registry.notebooks import to_json
from registry.records import KINDS, utc_now

ALLOWED = "allowed are 1 to 128 of the characters A-Z a-z 0-9 . _ -"
ALLOWED_EXPERT = "allowed are 1 to 160 of the characters A-Z a-z 0-9 . _ - / :, as in timm/resnet50.a1_in1k"


@pytest.mark.parametrize("name", ["a", "Flowers-102_v.2", "x" * 128, ".."])
def test_allowed_names_are_kept(name):
    assert make_task(name).name == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a/b", "a@2", "ü", "a\n", "'"])
def test_other_names_are_refused(name):
    with pytest.raises(InvalidRecordError, match=f"^{re.escape(f'{name!r} cannot name a task: {ALLOWED}')}$"):
        make_task(name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_task(version=0), "task flowers: version must be at least 1, got 0"),
        (
            lambda: make_task(kind="binary"),
            "task flowers: kind must be single_label or multi_label or regression, got 'binary'",
        ),
        (lambda: make_task(tags=("ok", "not ok")), f"'not ok' cannot name a tag: {ALLOWED}"),
        (lambda: make_expert("a b"), f"'a b' cannot name an expert: {ALLOWED_EXPERT}"),
        (lambda: make_expert(source_task="s t"), f"'s t' cannot name a task: {ALLOWED}"),
        (lambda: make_expert("a.x", num_params=0), "expert a.x: num_params must be at least 1, got 0"),
        (lambda: make_expert("a.x", flops=-1), "expert a.x: flops must be at least 1, got -1"),
        (lambda: make_expert("a.x", input_size=0), "expert a.x: input_size must be at least 1, got 0"),
        (
            lambda: make_expert("a.x", source_accuracy=76.1),
            "expert a.x: source_accuracy must be from 0 to 1, got 76.1",
        ),
        (
            lambda: make_expert("a.x", source_accuracy=float("nan")),
            "expert a.x: source_accuracy must be from 0 to 1, got nan",
        ),
        (
            lambda: make_expert("a.x", cached_as="torch:../b.pth"),
            "expert a.x: cached_as must be torch:FILE or hf:ORG/NAME, got 'torch:../b.pth'",
        ),
        (
            lambda: make_expert("a.x", cached_as="hf:../name"),
            "expert a.x: cached_as must be torch:FILE or hf:ORG/NAME, got 'hf:../name'",
        ),
        (lambda: make_result("a b"), f"'a b' cannot name a task: {ALLOWED}"),
        (lambda: make_result(expert=""), f"'' cannot name an expert: {ALLOWED_EXPERT}"),
        (lambda: make_result(metric="top 1"), f"'top 1' cannot name a metric: {ALLOWED}"),
        (lambda: make_result(protocol=""), f"'' cannot name a protocol: {ALLOWED}"),
        (lambda: make_result("a", "b.x", 1.5), "result of b.x on a: accuracy must be from 0 to 1, got 1.5"),
        (lambda: make_result("a", "b.x", -0.1), "result of b.x on a: accuracy must be from 0 to 1, got -0.1"),
        (
            lambda: make_result("a", "b.x", float("nan"), metric="top1"),
            "result of b.x on a: top1 must be from 0 to 1, got nan",
        ),
        (
            lambda: make_embedding("a", fisher=[1, np.nan]),
            "embedding of task a: fisher must be one finite vector",
        ),
        (
            lambda: make_embedding("a", domain=np.ones((2, 2))),
            "embedding of task a: domain must be one finite vector",
        ),
        (
            lambda: make_embedding("a", standard_error=[np.inf]),
            "embedding of task a: standard_error must be one finite vector",
        ),
        (
            lambda: make_embedding("a", fisher=[1, -1]),
            "embedding of task a: Fisher information must be non-negative, not zero everywhere",
        ),
        (
            lambda: make_embedding("b", fisher=[0, 0]),
            "embedding of task b: Fisher information must be non-negative, not zero everywhere",
        ),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(InvalidRecordError, match=f"^{re.escape(message)}$"):
        make()


def test_bounds_themselves_are_allowed():
    assert [make_result(accuracy=accuracy).accuracy for accuracy in (0, 1)] == [0, 1]
    assert make_expert(num_params=1, flops=None, input_size=None).flops is None


def test_records_normalise_themselves():
    assert make_task(tags=["b", "a", "b"]).tags == ("a", "b")
    assert make_expert(license="Apache-2.0").license == "apache-2.0"
    embedding = make_embedding(fisher=[1.0, 2.0])
    assert (embedding.fisher.dtype, embedding.fisher.tolist()) == (np.float32, [1.0, 2.0])
    assert make_space(dim=6).dim == 6


def test_kinds_and_their_metrics_are_those_of_the_indexer():
    assert set(KINDS) == set(HEAD_METRICS)
    assert {make_task(kind=kind).kind for kind in KINDS} == set(KINDS)


@pytest.mark.parametrize(("num_samples", "drawn"), [(30, 30), (40, 40), (50, 40)])
def test_a_task_knows_how_many_samples_were_drawn(num_samples, drawn):
    task = make_task(num_samples=num_samples, settings='{"max_samples": 40, "seed": 3, "split": null}')
    assert task.asked == {"max_samples": 40, "seed": 3, "split": None}
    assert task.num_samples_drawn == drawn


def test_a_space_knows_its_recipe():
    assert make_space(description='{"estimator": "exact", "pooling": "filter_mean+norm"}').recipe == (
        "exact",
        "filter_mean+norm",
    )
    assert make_space().recipe == ("", "")


def test_the_score_of_a_regression_may_be_negative():
    assert make_embedding(head_accuracy=-0.5).head_accuracy == -0.5


def test_utc_now_is_an_aware_time():
    before = datetime.now(UTC)
    now = datetime.fromisoformat(utc_now())
    assert before <= now <= datetime.now(UTC)


def test_to_json_gives_plain_values():
    evidence = Evidence((EvidenceNeighbor("birds", 0.5, 0.75),), 3)
    answer = Recommendation(Query("flowers", 1, "s"), (), {"static": Baseline(None, 0.5)}, ("few results",))
    assert to_json(evidence) == {
        "neighbors": [{"task": "birds", "distance": 0.5, "accuracy": 0.75}],
        "results": 3,
        "trial": None,
    }
    assert to_json([answer]) == [
        {
            "query": {"task": "flowers", "version": 1, "space": "s", "taken": []},
            "recommendations": [],
            "baselines": {"static": {"expert": None, "expected_accuracy": 0.5}},
            "warnings": ["few results"],
            "trials": [],
            "verdict": None,
            "metric": "accuracy",
            "protocol": "",
        }
    ]


ERRORS = {
    InvalidRecordError("a value"): ValueError,
    InvalidQueryError("a question"): ValueError,
    DuplicateError("a name"): ValueError,
    ConflictError("./file", ["a task", "an expert"]): ValueError,
    BundleError("a file"): ValueError,
    UntrustedError("an expert"): ValueError,
    IngestError("a dataset"): ValueError,
    MissingExtraError("a page", "fastapi", "web"): ImportError,
    StorageError("a place"): OSError,
    NoRegistryError("nowhere"): OSError,
    SchemaVersionError("./here", 3, 1): ValueError,
    NotFoundError("task", "flower", ["flowers", "birds"]): LookupError,
}


def test_every_error_is_in_the_list():
    leaves = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RegistryError)
    }
    assert {type(error) for error in ERRORS} == leaves - {RegistryError}


@pytest.mark.parametrize(("error", "builtin"), ERRORS.items(), ids=lambda value: type(value).__name__)
def test_errors_survive_pickling_and_are_standard_ones(error, builtin):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert isinstance(error, RegistryError)
    assert isinstance(error, builtin)


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("flower", ["birds", "flowers"], "no task is named 'flower'; did you mean flowers?"),
        ("xx1", ["xx3", "xx2"], "no task is named 'xx1'; did you mean xx3 or xx2?"),
        ("zebra", ["b", "a"], "no task is named 'zebra'; known are a, b"),
        (
            "zebra",
            list("ihgfdcbyj"),
            "no task is named 'zebra'; known are b, c, d, f, g, h, i, j, ...; `t2v task list` lists all",
        ),
        ("zebra", [], "no task is named 'zebra'; there is no task yet; add one with `t2v task add NAME DATA`"),
    ],
)
def test_not_found_offers_close_names_then_known_ones(name, known, message):
    assert str(NotFoundError("task", name, known)) == message


def test_schema_version_error_says_what_to_do():
    assert str(SchemaVersionError("./here", 3, 1)) == (
        "./here: schema version 3 is newer than 1, the newest that this version understands; "
        "upgrade task2vec-registry"
    )
