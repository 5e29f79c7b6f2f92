"""The commands that list and show networks, and that list estimators."""

import json
import re

import pytest
from click.testing import CliRunner
from command_lines import answer, ok, shown, t2v

from indexer.fisher.estimate import ESTIMATORS
from indexer.networks.load import count_flops, load_network
from indexer.networks.loaders import LOADER_FORMS
from registry.builtin.starter import load_starter
from registry.cli.main import main
from registry.errors import IngestError
from registry.ingest import networks

PROBE = "resnet14w32.tiny_imagenet"


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    """A place without a registry: none of these commands needs one."""
    return tmp_path_factory.mktemp("nowhere") / "registry"


@pytest.fixture(scope="module")
def costs(nowhere):
    """The costs of the built-in probe."""
    return answer(nowhere, "probes", "show", PROBE, "--costs")


def test_a_card_in_json_is_what_the_network_is(nowhere):
    network = load_network(PROBE)
    assert answer(nowhere, "probes", "show", PROBE) == {
        "network": PROBE,
        "loader": PROBE,
        "num_params": network.num_params,
        "flops": count_flops(network),
        "takes": "images",
        "input_size": network.transform.crop,
        "resize": network.transform.resize,
        "mean": list(network.transform.mean),
        "std": list(network.transform.std),
        "num_features": network.num_features,
        "dim": load_starter().space.dim,
        "weights_hash": network.weights_hash,
        "costs": None,
    }
    assert not nowhere.exists()


def test_a_card_for_people(nowhere):
    lines = shown(nowhere, "probes", "show", PROBE).stdout.splitlines()
    assert lines[0] == PROBE
    assert "  input size:     64, cut from a shorter side of 64" in lines
    assert "  mean:           0.485, 0.456, 0.406" in lines
    assert f"  filters:        {load_starter().space.dim}" in lines
    assert f"  weights hash:   {load_network(PROBE).weights_hash}" == lines[-1]


def test_costs_are_told_layer_by_layer(nowhere, costs):
    layers = costs["costs"]["layers"]
    assert sum(layer["filters"] for layer in layers) == costs["dim"]
    assert all(layer["multiply_adds"] > 0 and layer["temporary_bytes"] >= 0 for layer in layers)
    rows = [line.split() for line in shown(nowhere, "probes", "show", PROBE, "--costs").stdout.splitlines()]
    for layer in layers:
        cells = [str(layer[key]) for key in ("name", "kind", "filters", "weights", "positions", "form")]
        assert cells in [row[:6] for row in rows]
    batch = costs["costs"]["batch_size"]
    assert f"batches of {batch} fit a budget of 1.07G." in " ".join(rows[-1])


def test_a_smaller_budget_takes_smaller_batches(nowhere, costs):
    document = answer(nowhere, "probes", "show", PROBE, "--costs", "--memory-budget", "20M")
    assert document["costs"]["memory_budget"] == 20_000_000
    assert 1 <= document["costs"]["batch_size"] < costs["costs"]["batch_size"]


def test_a_budget_that_is_too_small_or_without_costs_is_refused(nowhere):
    done = t2v(nowhere, "probes", "show", PROBE, "--memory-budget", "1G")
    assert done.exit_code == 2
    assert done.stderr.endswith("\nError: --memory-budget belongs to --costs; give --costs too\n")
    with pytest.raises(IngestError, match=re.escape("memory_budget must be at least 16777216, got 1000")):
        networks.describe_probe(PROBE, costs=True, memory_budget=1e3)


def test_a_network_that_is_not_there_is_not_found(nowhere):
    done = t2v(nowhere, "probes", "show", "resnet14w32.mnost")
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "Error: no network is named 'resnet14w32.mnost'; did you mean resnet14w32.mnist"
    )


def test_probes_alone_lists_and_with_a_command_does_not(nowhere):
    names = [network["network"] for network in answer(nowhere, "probes")]
    assert PROBE in names
    assert isinstance(json.loads(ok(nowhere, "probes", "show", PROBE, "--json").stdout), dict)


def test_help_names_every_form_of_a_loader():
    text = " ".join(CliRunner().invoke(main, ["probes", "--help"]).stdout.split())
    assert {form for form in LOADER_FORMS if form not in text} == set()
    meanings = {meaning for form, meaning in LOADER_FORMS.items() if form != "ARCHITECTURE.WEIGHTS"}
    assert {meaning for meaning in meanings if meaning not in text} == set()


def test_estimators_lists_the_catalogue(nowhere):
    document = answer(nowhere, "estimators")
    assert [(row["estimator"], row["summary"]) for row in document] == [
        (name, estimator.summary) for name, estimator in ESTIMATORS.items()
    ]
    text = shown(nowhere, "estimators").stdout
    assert all(re.search(rf"(?m)^{name} +{re.escape(row.summary)}", text) for name, row in ESTIMATORS.items())
