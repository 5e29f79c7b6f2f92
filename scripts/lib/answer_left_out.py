"""Experts left out: those of a table ranked by attributes, or by results of the same weights in another table.

Axes: M experts.
"""

import csv
from dataclasses import replace

import numpy as np
from answer_data import SHARED, Measured, Tasks, open_clip_name, published_facts, read_published, read_results
from answer_rules import Figures, judge
from answer_worlds import World

from registry.recommend.levels import TaskFacts
from registry.recommend.prediction import Prediction
from registry.recommend.prior import Asked, Prior
from registry.recommend.results import Way

NOTHING = Tasks([], {}, {"domain": np.zeros((0, 0))})
FINE_TUNED: Way = ("accuracy", "fine_tuned")
NUM_FOLDS = 5


def bench_transfergraph(*, quick: bool) -> Figures:
    """A fifth of the experts of TransferGraph left out in turn, in four ways of cutting it up."""
    with (SHARED / "tables" / "transfergraph.csv").open(newline="", encoding="utf-8") as file:
        results = [
            Measured(row["task"], row["expert"], float(row["accuracy"]), *FINE_TUNED)
            for row in csv.DictReader(file)
        ]
    return _fifths_left_out(results, 1 if quick else 4)


def bench_texts() -> Figures:
    """A fifth of the text encoders of MTEB left out in turn."""
    return _fifths_left_out(read_results(SHARED / "tables" / "public" / "mteb_text_english.csv"), 1)


def _fifths_left_out(results: list[Measured], num_cuts: int) -> Figures:
    """Those left out are ranked by attributes, on every task in its own way."""
    names = sorted({row.expert for row in results})
    world = World(NOTHING, published_facts(names), results)
    ways = sorted({(row.metric, row.protocol) for row in results})
    rows: Figures = {}
    for seed in range(num_cuts):
        order = np.random.default_rng(seed).permutation(len(names)) if seed else np.arange(len(names))
        for fold in range(NUM_FOLDS):
            left = np.sort(order[fold::NUM_FOLDS])
            prior = world.fit(unknown=[names[place] for place in left])
            for way in ways:
                _judge_left_out(rows, world, prior, left, way)
    return rows


def _judge_left_out(rows: Figures, world: World, prior: Prior, left: np.ndarray, way: Way) -> None:
    """Judge experts at places ``left`` on all tasks of a way."""
    tasks = sorted({row.task for row in world.results if (row.metric, row.protocol) == way})
    truth, prediction = world.truth(tasks, way), ask(prior, way).of(left)
    sizes = np.array([world.experts[place].num_params or 0 for place in left])
    rest = np.setdiff1d(np.arange(truth.shape[1]), left)
    for number in range(len(tasks)):
        accuracy = truth[number, left]
        if np.isfinite(accuracy).sum() < 3 or np.isfinite(truth[number, rest]).sum() < 3:
            continue
        rows.setdefault("largest", []).append(judge(sizes, accuracy))
        rows.setdefault("ours", []).append(judge(prediction.logit, accuracy, prediction))
        if len(tasks) > 1:
            others = np.delete(truth, number, axis=0)
            rows.setdefault("their own static", []).append(judge(_static(others)[left], accuracy))


def bench_alias() -> Figures:
    """Image encoders of one table ranked by zero-shot accuracies of the same weights in another.

    And as if those had not been published: by attributes, and what these are worth for other encoders there.
    """
    way = ("accuracy", "linear_probe_16shot")
    images, zero_shot = read_published(["mteb_image"]), read_published(["open_clip_zero_shot"])
    there = {row.expert for row in zero_shot}
    alias = {name: open_clip_name(name) for name in sorted({row.expert for row in images})}
    alias = {name: other for name, other in alias.items() if other in there}
    sizes = dict(zip(alias.values(), published_facts(alias), strict=True))
    names = sorted(there)
    facts = [
        replace(fact, num_params=sizes[fact.name].num_params or fact.num_params) if fact.name in sizes else fact
        for fact in published_facts(names)
    ]
    world = World(NOTHING, facts, zero_shot)
    places = np.array([names.index(other) for other in alias.values()])
    prediction = ask(world.fit(), way).of(places)
    without = ask(world.fit(unknown=alias.values()), way).of(places)
    truth = {(row.task, row.expert): row.accuracy for row in images}
    means = world.truth(sorted({row.task for row in zero_shot}), ("accuracy", "zero_shot"))
    rows: Figures = {}
    for task in sorted({row.task for row in images}):
        accuracy = np.array([truth.get((task, name), np.nan) for name in alias])
        if np.isfinite(accuracy).sum() > 2:
            rows.setdefault("mean zero-shot", []).append(judge(np.nanmean(means[:, places], axis=0), accuracy))
            rows.setdefault("ours", []).append(judge(prediction.logit, accuracy, prediction))
            rows.setdefault("ours, theirs left out", []).append(judge(without.logit, accuracy, without))
    return rows


def bench_supervised() -> Figures:
    """Each of 11 supervised networks ranked as if it had never been measured."""
    results = read_results(SHARED / "tables" / "public" / "sfda_supervised.csv")
    names = sorted({row.expert for row in results})
    world = World(NOTHING, published_facts(names), results)
    tasks = sorted({row.task for row in results})
    measured = {(row.task, row.expert): row.accuracy for row in results}  # in the metric of each task
    truth = np.array([[measured.get((task, name), np.nan) for name in names] for task in tasks])
    alone = [ask(world.fit(unknown=[name]), FINE_TUNED).of(np.array([i])) for i, name in enumerate(names)]
    joined = Prediction(
        logit=np.concatenate([single.logit for single in alone]),
        covariance=np.diag([single.covariance[0, 0] for single in alone]),
        level_sd=float(np.mean([single.level_sd for single in alone])),
        quantile=np.concatenate([single.quantile for single in alone]),
        measured=np.full(len(names), np.nan),
    )
    sizes = np.array([expert.num_params or 0 for expert in world.experts])
    rows: Figures = {}
    for number in range(len(tasks)):
        rows.setdefault("largest", []).append(judge(sizes, truth[number]))
        rows.setdefault("ours", []).append(judge(joined.logit, truth[number], joined))
    return rows


def ask(prior: Prior, way: Way) -> Prediction:
    """What a fit expects of a task of which nothing is known."""
    nothing = np.full(len(prior.table.experts), np.nan)
    return prior.predict(Asked(way, TaskFacts(), {}, nothing))


def _static(accuracy: np.ndarray) -> np.ndarray:
    """Mean standing; experts never measured come last."""
    off = accuracy - np.nanmean(accuracy, axis=1, keepdims=True)
    z = off / np.maximum(np.nanstd(accuracy, axis=1, keepdims=True), 1e-12)
    count = np.isfinite(z).sum(axis=0)
    return np.where(count > 0, np.nansum(z, axis=0) / np.maximum(count, 1), -9.0)
