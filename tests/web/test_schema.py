"""The OpenAPI document against the server: schemathesis sends what it allows, and what it does not."""

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS, load_all_checks
from web_servers import BEARER, URL, settings_of, small_limits

from registry import TaskRegistry
from registry.web.api import models_jobs
from registry.web.app import create_app
from registry.web.http import sessions
from registry.web.jobs.requests import OPTIONS

EXAMPLES = 5
HEADERS = {**BEARER, "Host": "127.0.0.1"}
ACCEPTED = ["2xx", "3xx", "400", "404", "409"]
"""Answers to what fits the document; 400 since no schema can tell a filter, a zip or a job from others."""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    TaskRegistry(folder / "registry").init()
    app = create_app(settings_of(folder / "registry", folder / "state", limits=small_limits(), rate=0))
    with pytest.MonkeyPatch.context() as patch, TestClient(app, base_url=URL) as client:
        patch.setattr(sessions, "ATTEMPTS", 10**6)  # a check tries wrong tokens
        yield client


@pytest.fixture
def operations(client):
    """All of them, of a server that runs already: schemathesis would start and end it for each request."""

    async def running(scope, receive, send):
        if scope["type"] != "lifespan":
            await client.app(scope, receive, send)
            return
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})

    load_all_checks()
    config = {
        "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
        "generation": {"with-security-parameters": False},  # the token is sent in any case
    }
    schema = schemathesis.openapi.from_asgi(
        "/api/v1/openapi.json", running, headers=HEADERS, config=schemathesis.Config.from_dict(config)
    )
    return [operation.ok() for operation in schema.get_all_operations()]


@pytest.mark.slow
@pytest.mark.parametrize("mode", schemathesis.GenerationMode, ids=lambda mode: mode.value)
def test_every_operation_passes_every_check(operations, mode):
    """Statuses, headers and bodies are as the document says; what is wrong is refused; no 5xx."""
    checks = CHECKS.get_all()
    assert {"not_a_server_error", "response_schema_conformance", "ignored_auth"} <= {
        entry.__name__ for entry in checks
    }
    asked = set()
    if mode.is_negative:  # nothing can be wrong with a request that takes no input
        operations = [one for one in operations if one.body or list(one.iter_parameters())]
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case):
            asked.add(f"{case.operation.method.upper()} {case.operation.path}")
            case.call_and_validate(headers=HEADERS, checks=checks)

        ask()
    assert len(asked) == len(operations) > 25


def document(client):
    return client.get("/api/v1/openapi.json").json()


def resolved(spec, schema):
    """A schema with its reference followed."""
    while "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def has_example(spec, schema) -> bool:
    """Whether a schema says what a value of it looks like, itself or in all of its parts."""
    schema = resolved(spec, schema)
    if "example" in schema or "examples" in schema or "default" in schema or "enum" in schema:
        return True
    if schema.get("type") == "object" and "properties" in schema:
        return all(
            has_example(spec, part) for name, part in schema["properties"].items() if is_needed(schema, name)
        )
    if schema.get("type") == "array":
        return has_example(spec, schema["items"])
    if "additionalProperties" in schema:
        return has_example(spec, schema["additionalProperties"])
    return any(has_example(spec, part) for part in schema.get("anyOf", [])) or schema.get("type") in {
        "boolean",
        "null",
    }


def is_needed(schema, name) -> bool:
    return name in schema.get("required", ())


def test_every_operation_has_examples(client):
    spec, missing = document(client), []
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            needed = [entry for entry in operation.get("parameters", []) if entry["required"]]
            missing += [
                f"{method} {path} {parameter['name']}"
                for parameter in needed
                if "examples" not in parameter and not has_example(spec, parameter["schema"])
            ]
            bodies = [
                answer.get("content", {})
                for status, answer in operation["responses"].items()
                if status.startswith("2")
            ]
            for kind, content in [entry for body in bodies for entry in body.items()]:
                if "example" not in content and not has_example(spec, content["schema"]):
                    missing.append(f"{method} {path} {kind}")
    assert missing == []


def test_examples_of_parameters_work(client):
    """What the document gives as examples of a GET is answered, by the starter content."""
    spec, asked = document(client), 0
    for path, methods in spec["paths"].items():
        if "get" not in methods or "_id}" in path:
            continue
        where, query = path, {}
        for parameter in methods["get"].get("parameters", []):
            for example in parameter.get("examples") or parameter["schema"].get("examples") or []:
                if parameter["in"] == "path":
                    where = where.replace(f"{{{parameter['name']}}}", str(example))
                elif parameter["required"]:
                    query[parameter["name"]] = example
        answer = client.get(where, params=query, headers=BEARER)
        assert answer.status_code == 200, (where, query, answer.text)
        asked += 1
    assert asked >= 12


def test_every_operation_describes_errors_in_the_one_shape(client):
    for path, methods in document(client)["paths"].items():
        for method, operation in methods.items():
            for status in ("4XX", "5XX"):
                schema = operation["responses"][status]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (method, path)


def test_writing_operations_say_that_they_need_the_token(client):
    open_to_readers = {
        (method, path)
        for path, methods in document(client)["paths"].items()
        for method, operation in methods.items()
        if not operation.get("security")
    }
    assert {method for method, _ in open_to_readers} == {"get"}
    assert ("get", "/api/v1/jobs") not in open_to_readers


def test_options_of_jobs_are_those_that_the_api_takes():
    assert set().union(*OPTIONS.values()) == set(models_jobs.JobOptions.model_fields)
