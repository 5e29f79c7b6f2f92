"""The main job on real data that ships with scikit-learn, in a registry that is removed afterwards.

Registers handwritten digits as a new task, asks which known tasks it is like and which expert to start
from, then measures how good these are.
"""

import tempfile
from pathlib import Path

from registry.answers import Measurement, Recommendation
from registry.cli import show_answers, show_records
from registry.core import TaskRegistry
from registry.faces import terminal

TASK, DATA = "digits", "sklearn:digits"
SAMPLES = 500  # of 1,797: sure enough to find neighbours, in a quarter of the time


def run_demo() -> list[tuple[str, float, Measurement]]:
    """Print the four steps, each under the command that does the same.

    Returns:
        Rule, expected accuracy and measured accuracy of what the recommender and simple rules pick.
    """
    with tempfile.TemporaryDirectory(prefix="t2v-demo-") as folder:
        registry = TaskRegistry(Path(folder) / "registry")
        registry.init()
        tasks, experts, results = registry.tasks(), registry.experts(), registry.results()
        terminal.message(
            f"A fresh registry with the starter content: {len(tasks)} tasks, {len(experts)} experts, "
            f"{len(results)} results."
        )
        terminal.command(f"t2v task add {TASK} {DATA} --max-samples {SAMPLES}")
        with terminal.progress_bar() as progress:
            show_records.show_added(registry.add_task(TASK, DATA, max_samples=SAMPLES, progress=progress))
        terminal.command(f"t2v nearest {TASK} -k 5")
        query, neighbors = registry.nearest(TASK, k=5)
        show_answers.show_neighbors(query, "task2vec", neighbors)
        terminal.command(f"t2v recommend {TASK} --loadable-offline")
        answer = registry.recommend(TASK, loadable_offline=True)  # some come with an extra
        show_answers.show_recommendation(answer)
        measured = []
        for rule, expert, expected in picks(answer):
            terminal.command(f"t2v result measure {TASK} {expert}")
            with terminal.progress_bar() as progress:
                measured.append((rule, expected, registry.measure(TASK, expert, progress=progress)))
            show_answers.show_measurement(measured[-1][2])
        terminal.message("")
        show_answers.show_expectations(measured)
    return measured


def picks(answer: Recommendation) -> list[tuple[str, str, float]]:
    """What to measure: the recommended expert, and what two simple rules pick; each expert once."""
    best = answer.recommendations[0]
    chosen = {best.expert: (["recommended"], best.expected_accuracy)}
    for rule in ("static", "nearest"):
        pick = answer.baselines[rule]
        if pick.expert is not None:
            chosen.setdefault(pick.expert, ([], pick.expected_accuracy))[0].append(rule)
    return [(" and ".join(rules), expert, expected) for expert, (rules, expected) in chosen.items()]
