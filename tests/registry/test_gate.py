"""The gate of records: no door lets through what is of another type, not finite, or out of range."""

import re
from dataclasses import replace
from typing import get_type_hints

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task

from registry.errors import InvalidRecordError
from registry.gate import MAX_MAGNITUDE, MAX_TEXT, MAX_VERSION, json_object
from registry.records import AuditRecord


def make_line(**changes):
    values = {"action": "task.add", "subject": "flowers@1", "details": "{}", "actor": "me", "host": "here"}
    return AuditRecord(**values | {"process_id": 7, "versions": "{}"} | changes)


MAKERS = [make_task, make_space, make_embedding, make_expert, make_result, make_line]
WRONG = {
    int: [True, 1.5, "1", float("nan"), 10**30, np.float64(2)],
    float: [True, "1", float("nan"), float("inf"), -float("inf"), 10**400, np.bool_(True)],
    bool: [1, "yes", 0.0],
    str: [5, b"text", "x" * (2**20 + 1), "\ud800", ["a"]],
    tuple: ["text", 5, ["a", 5], ["\ud800"]],
    np.ndarray: ["text", 1.0, [[1.0]], [np.nan], [np.inf], [3e38], []],
}


def kind_of(hint):
    return next((kind for kind in WRONG if hint == kind or str(hint).startswith(kind.__name__)), str)


def test_every_field_of_every_record_refuses_other_types_and_numbers_that_are_none():
    tried = 0
    for make in MAKERS:
        record = make()
        whole = {"checksum": None} if make is make_embedding else {}
        for name, hint in get_type_hints(type(record)).items():
            for wrong in WRONG[kind_of(hint)]:
                with pytest.raises(InvalidRecordError, match=r"^.{1,500}$"):
                    replace(record, **whole | {name: wrong})
                tried += 1
    assert tried > 300


OUT_OF_RANGE = [
    (make_task, "version", MAX_VERSION + 1, f"task flowers: version must be at most {MAX_VERSION}"),
    (make_task, "num_samples", -5, "task flowers: num_samples must be at least 1, got -5"),
    (
        make_result,
        "task_version",
        -2,
        "result of resnet18.tv_in1k on flowers: task_version must be at least -1",
    ),
    (make_embedding, "num_samples_used", 1, "embedding of task flowers: num_samples_used must be at least 2"),
    (make_embedding, "head_accuracy", 1.01, "embedding of task flowers: head_accuracy must be at most 1"),
    (make_embedding, "seconds", -1.0, "embedding of task flowers: seconds must be at least 0"),
    (
        make_embedding,
        "standard_error",
        [-1.0],
        "embedding of task flowers: standard_error must not be negative",
    ),
    (make_space, "trivial", [0.0], "space space0: trivial must be positive everywhere"),
    (make_space, "description", '{"estimator": ["x"]}', "space space0: probe, estimator and pooling"),
    (make_space, "description", '{"x": NaN}', "space space0: description must be JSON without NaN"),
    (make_task, "created_at", "soon", "task flowers: created_at must be a time such as"),
    (make_task, "data", "x" * (MAX_TEXT + 1), "task flowers: data must be a text of at most 65536 characters"),
]


@pytest.mark.parametrize(("make", "field", "value", "message"), OUT_OF_RANGE)
def test_what_is_out_of_range_is_refused(make, field, value, message):
    with pytest.raises(InvalidRecordError, match=f"^{re.escape(message)}"):
        make(**{field: value})


def test_numbers_of_libraries_become_plain_ones():
    result = make_result(accuracy=np.float32(0.5), seed=np.int64(3), task_version=np.uint8(2))
    assert [type(value) for value in (result.accuracy, result.seed, result.task_version)] == [float, int, int]


def test_a_result_of_minus_zero_is_no_other_one_than_of_zero():
    assert repr(make_result(accuracy=-0.0).accuracy) == "0.0"


def test_the_largest_vectors_have_finite_norms_and_errors():
    most = np.full(4, MAX_MAGNITUDE, np.float32)
    least = np.full(4, 1e-45, np.float32)
    assert np.isfinite(make_embedding(fisher=most, dim=4).norm)
    assert np.isfinite(make_embedding(fisher=least, standard_error=most).relative_error)


@pytest.mark.parametrize("text", ["[]", "1", "", "{", "[" * 100_000, '{"a": Infinity}'])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        json_object(text)
