"""The main job on real data, in a registry that is removed afterwards.

First photos of the starter content: their results are taken out, experts are recommended, and what was
expected is put beside what had been measured. Then handwritten digits that ship with scikit-learn, a new task:
which known tasks it is like, which expert to start from, and how good that is, measured now.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from registry.answers import Recommendation
from registry.core import TaskRegistry
from registry.faces import show_answers, show_records, terminal
from registry.faces.show_answers import Compared

PHOTOS = ("cats_dogs", "natural_images", "ants_bees")  # no toy was trained on any of them
TASK, DATA = "digits", "sklearn:digits"
SAMPLES = 500  # of 1,797: sure enough to find neighbours, in a quarter of the time
RULES = ("static", "nearest", "largest")


def run_demo() -> list[Compared]:
    """Print the steps, each under the command that does the same.

    Returns:
        What was expected and what was measured of experts that were recommended, and that simple rules pick.
    """
    with tempfile.TemporaryDirectory(prefix="t2v-demo-") as folder, terminal.for_people():
        registry = TaskRegistry(Path(folder) / "registry")
        registry.init()
        terminal.message(
            f"A fresh registry with the starter content: {len(registry.tasks())} tasks, "
            f"{len(registry.experts())} experts, {len(registry.results())} results."
        )
        compared = [*_compare_photos(registry, Path(folder)), _measure_digits(registry)]
    terminal.message("")
    terminal.say(
        f"Expected beside measured. On {', '.join(PHOTOS)}: measured when the starter content was made, and "
        f"kept from the recommender here. On {TASK}: measured now. The best toy is known only by measuring all."
    )
    show_answers.show_compared(compared)
    terminal.say(
        "Toys are the small networks of this package. Some that were trained on handwriting do better on "
        "digits than a network of photos; they are recommended with --toys only."
    )
    return compared


def _compare_photos(registry: TaskRegistry, folder: Path) -> list[Compared]:
    """Recommend for photos whose results were taken out, toys too, and compare with these results."""
    measured = {
        task: {result.expert: result.accuracy for result in registry.results(task=task)} for task in PHOTOS
    }
    toys = {expert.name for expert in registry.experts() if expert.toy}
    _forget(registry, folder / "photos.t2v")
    terminal.message(
        f"Taken out, as if nobody had measured them: all results on the photos of {', '.join(PHOTOS)}."
    )
    compared = []
    for task in PHOTOS:
        answer = registry.recommend(task, toys=True)
        if task == PHOTOS[0]:
            terminal.command(f"t2v recommend {task} --toys")
            show_answers.show_recommendation(answer)
        compared += picks(task, answer, measured[task])
        best = max(toys & measured[task].keys(), key=measured[task].__getitem__)
        compared.append(Compared(task, "best toy", best, None, measured[task][best]))
    return compared


def _forget(registry: TaskRegistry, path: Path) -> None:
    """Take out all results on the photos, and other tasks that have images of theirs."""
    registry.export(path, tasks=PHOTOS, results=False, experts=False)
    of_same_images = {task.name for name in PHOTOS for task in registry.tasks(where=f"tags = 'images.{name}'")}
    for name in sorted({*PHOTOS, *of_same_images}):
        registry.remove_task(name, purge=True)
    registry.import_bundle(path, on_conflict="take")


def picks(task: str, answer: Recommendation, measured: Mapping[str, float]) -> list[Compared]:
    """The recommended expert and what simple rules pick, each expert once, where its accuracy is known."""
    best = answer.recommendations[0]
    chosen = {best.expert: (["recommended"], best.expected_accuracy)}
    for rule in RULES:
        pick = answer.baselines[rule]
        if pick.expert is not None:
            chosen.setdefault(pick.expert, ([], pick.expected_accuracy))[0].append(rule)
    return [
        Compared(task, ", ".join(rules), expert, expected, measured[expert])
        for expert, (rules, expected) in chosen.items()
        if expert in measured
    ]


def _measure_digits(registry: TaskRegistry) -> Compared:
    """Register digits as a new task, ask about it, and measure the expert that is recommended."""
    terminal.command(f"t2v task add {TASK} {DATA} --max-samples {SAMPLES}")
    with terminal.progress_bar() as progress:
        show_records.show_added(registry.add_task(TASK, DATA, max_samples=SAMPLES, progress=progress))
    terminal.command(f"t2v nearest {TASK} -k 5")
    query, neighbors = registry.nearest(TASK, k=5)
    show_answers.show_neighbors(query, "task2vec", neighbors)
    terminal.command(f"t2v recommend {TASK} --loadable-offline")
    answer = registry.recommend(TASK, loadable_offline=True)  # some come with an extra
    show_answers.show_recommendation(answer)
    best = answer.recommendations[0]
    terminal.command(f"t2v result measure {TASK} {best.expert}")
    with terminal.progress_bar() as progress:
        result = registry.measure(TASK, best.expert, progress=progress)
    show_answers.show_measurement(result)
    return Compared(TASK, "recommended", best.expert, best.expected_accuracy, result.accuracy)
