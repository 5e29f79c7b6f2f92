"""Run command lines in this process, on small registries."""

import json
from pathlib import Path

from builders import make_embedding, make_expert, make_result, make_space, make_task
from click.testing import CliRunner
from templates import copied

from registry.cli.main import main
from registry.faces import terminal
from registry.storage.store import Store

SETTINGS = '{"max_samples": 2000, "seed": 0, "split": null}'
RECIPE = '{"estimator": "signed", "pooling": "filter_mean", "probe": "tiny.test"}'
TASKS = ("birds", "digits", "flowers", "letters", "trees")
EXPERT = "resnet18.tv_in1k"


def make_small_registry(folder):
    """A registry of five tasks in a space of width 4, two experts and two results."""
    if isinstance(folder, Path):
        copied("small", fill_small_registry, folder)
    else:
        fill_small_registry(folder)
    return folder


def fill_small_registry(folder):
    """See ``make_small_registry``."""
    store = Store.create(folder)
    store.add_space(make_space(description=RECIPE))
    entries = [
        (
            make_task(name, tags=("plants",) if name in {"flowers", "trees"} else (), settings=SETTINGS),
            make_embedding(name),
        )
        for name in TASKS
    ]
    store.add_tasks(entries, "space0")
    store.add_experts([make_expert(), make_expert("small.mit", num_params=40_000, license="mit", flops=None)])
    store.add_results([make_result("birds"), make_result("trees", accuracy=0.7)])


def t2v(folder, *words):
    """Run a command line in this process."""
    return CliRunner().invoke(main, ["--registry", str(folder), *map(str, words)], catch_exceptions=False)


def ok(folder, *words):
    """The same, and it must succeed."""
    done = t2v(folder, *words)
    assert done.exit_code == 0, done.output
    return done


def shown(folder, *words):
    """The same, as a person sees it on a wide terminal."""
    with terminal.for_people():
        return ok(folder, *words)


def answer(folder, *words):
    """The JSON document of a command that says nothing else."""
    done = ok(folder, *words, "--json")
    assert done.stderr == ""
    return json.loads(done.stdout)
