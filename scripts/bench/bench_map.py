"""What the map costs and how far it can be trusted: real tasks, and 100,000 drawn around them.

    python scripts/bench/bench_map.py [--tasks 100000] [--quick] [--seed 0] [--json FILE]

Each set of tasks is laid out in a registry of its own, in a fresh process: the first time; again; with one
more task; and as a page. Trustworthiness (10 neighbours) and stress-1 are as of `registry.maps.projection`.
The peers
are laid out and measured in the same way in the same run: classical MDS and metric MDS (scikit-learn's SMACOF)
on the same distances; landmark MDS (de Silva and Tenenbaum, 2004) on those to 500 landmarks; PCA of the centred
logs of the embeddings, and scikit-learn's t-SNE on 50 of its components as it comes.
"""

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import print_machine, save_figures
from registry_measures import memory, run_alone
from synthetic_tasks import CHUNK_ROWS, SyntheticTasks, real_logs

from registry import TaskRegistry
from registry.builtin.starter import populate
from registry.distances import pairwise
from registry.maps import projection
from registry.pictures import pictures
from registry.storage.store import Store

BENCHMARK = Path(__file__).parent / "data"
SMACOF_UP_TO = 2000
MATRIX_UP_TO = 3000
TSNE_UP_TO = 3000
PLACING_UP_TO = 1000
SAMPLE = 200
FIRST_ADDED = 10_000_000
Figures = dict[str, Any]
Array = np.ndarray[Any, Any]


@click.command()
@click.option("--quick", is_flag=True, help="The tasks that ship, and 4,000 drawn ones.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True, help="Of the tasks that are drawn.")
@click.option("--tasks", "num_tasks", default=100_000, show_default=True)
def main(quick: bool, json_path: Path | None, seed: int, num_tasks: int) -> None:
    """Print seconds, trustworthiness, stress, size of the page and memory, beside those of the peers."""
    figures: Figures = {"machine": print_machine(), "seed": seed}
    sets = {
        "starter tasks": (-1, 0),
        "benchmark tasks": (-2, 0),
        "54 tasks": (54, seed),
        "1,000 tasks": (1000, seed),
    }
    sets |= {f"{count:,} tasks": (count, seed) for count in ([4000] if quick else [3000, num_tasks])}
    for title, which in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            run_alone(fill, folder, *which)
            figures[title] = {}
            if placed := run_alone(measure_placing, folder).value:
                figures[title]["left out and placed"] = placed
                tell(f"{title}, left out and placed", placed)
            for name in PEERS:
                theirs = run_alone(measure_peer, folder, name)
                if theirs.value:
                    figures[title][name] = theirs.value | {"peak_mb": theirs.peak_bytes / 1e6}
                    tell(f"{title}, {name}", figures[title][name])
            ours = run_alone(measure_ours, folder, seed)  # last, for it adds a task
            figures[title]["ours"] = ours.value | {"peak_mb": ours.peak_bytes / 1e6}
            tell(f"{title}, ours", figures[title]["ours"])
        save_figures(json_path, figures)


def fill(folder: str, count: int, seed: int) -> None:
    """A registry of the starter tasks (-1), those of the benchmark (-2), or so many drawn ones."""
    if count < 0:
        Store.create(folder, populate if count == -1 else lambda store: populate(store, BENCHMARK))
        return
    drawn = SyntheticTasks(seed)
    store = Store.create(folder, lambda new: new.add_space(drawn.space))
    batch: list[Any] = []
    for chunk in drawn.chunks(count):
        batch += drawn.records(chunk)
        if len(batch) >= 10 * CHUNK_ROWS or chunk.first + CHUNK_ROWS >= count:
            store.add_tasks(batch, drawn.space.space_id)
            batch = []


def measure_ours(folder: str, seed: int) -> Figures:
    """The map of a registry: first, again, in another process's eyes, with one more task, and drawn."""
    registry = TaskRegistry(folder)
    registry.tasks(where="num_classes < 0")  # opens the tables
    opening, _ = timed(lambda: registry.nearest(some_name(folder), k=1))
    first, shown = timed(registry.map)
    again, _ = timed(registry.map)
    loaded, _ = timed(TaskRegistry(folder).map)
    page, clustering = timed(registry.clusters)
    path = Path(folder) / "map.html"
    drawing, _ = timed(lambda: pictures.write_map(path, shown, clustering=clustering))
    before = dict(zip(shown.names, map(tuple, shown.positions.tolist()), strict=True))
    drawn = SyntheticTasks(seed)
    (record,) = [drawn.records(chunk)[0] for chunk in drawn.chunks(1, first=FIRST_ADDED)]
    Store(folder).add_tasks([record], registry.space().space_id)
    one_more, after = timed(registry.map)
    moved = sum(
        before[name] != tuple(place)
        for name, place in zip(after.names, after.positions.tolist(), strict=True)
        if name in before
    )
    return {
        "opening_s": opening,
        "first_s": first,
        "again_s": again,
        "loaded_s": loaded,
        "one_more_s": one_more,
        "moved": moved,
        "trustworthiness": shown.trustworthiness,
        "stress": shown.stress,
        "landmarks": shown.num_landmarks,
        "clusters_s": page,
        "clusters": len(clustering.clusters),
        "silhouette": clustering.silhouette or 0.0,
        "page_s": drawing,
        "page_mb": path.stat().st_size / 1e6,
        "now_mb": memory()["resident"] / 1e6,
    }


def some_name(folder: str) -> str:
    """A task of the registry."""
    return TaskRegistry(folder).find_tasks(limit=1).tasks[0].name


def measure_placing(folder: str) -> Figures:
    """Tasks left out, a fifth at a time, and placed: how many of their 5 nearest are the 5 drawn nearest.

    Beside it: the same of the tasks that were laid out, and of placing by the least stress.
    """
    fisher = embeddings(folder)
    if len(fisher) > PLACING_UP_TO:
        return {}
    distances, everyone = matrix(fisher), np.arange(len(fisher))
    found: dict[str, list[float]] = {"placed": [], "by stress": [], "laid out": []}
    for left_out in np.array_split(np.random.default_rng(0).permutation(len(fisher)), 5):
        rest = np.setdiff1d(everyone, left_out)
        between, to_rest = distances[np.ix_(rest, rest)], distances[np.ix_(left_out, rest)]
        positions = projection.lay_out(between)
        near = np.argsort(to_rest, axis=1, kind="stable")[:, : projection.PLACING_NEIGHBORS]
        known = np.take_along_axis(to_rest, near, axis=1), positions[near]
        for title, few in (("placed", len(rest)), ("by stress", 2)):
            spots = projection.place(*known, num_anchors=few)
            found[title].append(common_neighbors(to_rest, projection.between(spots, positions)))
        drawn = projection.between(positions)
        for square in (between, drawn):
            np.fill_diagonal(square, np.inf)
        found["laid out"].append(common_neighbors(between, drawn))
    return {title: float(np.mean(values)) for title, values in found.items()}


def common_neighbors(true: Array, drawn: Array) -> float:
    """Part of the 5 nearest of each row that are the 5 drawn nearest."""
    pairs = zip(
        np.argsort(true, axis=1)[:, :5].tolist(), np.argsort(drawn, axis=1)[:, :5].tolist(), strict=True
    )
    return float(np.mean([len(set(a) & set(b)) / 5 for a, b in pairs]))


def measure_peer(folder: str, name: str) -> Figures:
    """A peer on the same tasks; nothing where it cannot take so many."""
    fisher = embeddings(folder)
    if len(fisher) > PEERS[name][1]:
        return {}
    seconds, positions = timed(lambda: PEERS[name][0](fisher))
    sample = np.arange(len(fisher))
    if len(fisher) > MATRIX_UP_TO:
        sample = np.sort(np.random.default_rng([0, 1]).permutation(len(fisher))[:SAMPLE])
    true = pairwise("task2vec", fisher, fisher[sample]).T
    true[np.arange(len(sample)), sample] = 0
    shown = projection.between(positions[sample], positions)
    return {
        "seconds": seconds,
        "trustworthiness": projection.trustworthiness(true, shown, sample),
        "stress": projection.stress_1(true, shown),
    }


def embeddings(folder: str) -> Array:
    """All embeddings ``[T, D]`` of a registry of one space, in its order."""
    registry = TaskRegistry(folder)
    rows = registry._snapshots.of(registry.space()).rows
    return np.asarray(rows.take(np.arange(len(rows))))


def matrix(fisher: Array) -> Array:
    """All distances."""
    found = np.tril(pairwise("task2vec", fisher, fisher), -1)
    return np.asarray(found + found.T)


def classical(fisher: Array) -> Array:
    """Classical MDS of the distances."""
    return projection.classical_mds(matrix(fisher))


def landmark_mds(fisher: Array) -> Array:
    """Classical MDS of 500 landmarks, and every task where its distances to these put it."""
    landmarks = np.sort(np.random.default_rng(0).permutation(len(fisher))[:500])
    found = projection.classical_mds(matrix(fisher[landmarks]))
    squares = np.square(matrix(fisher[landmarks])).mean(axis=0)
    to_landmarks = np.square(pairwise("task2vec", fisher, fisher[landmarks]))
    return np.asarray((squares - to_landmarks) @ (found / np.square(found).sum(axis=0)) / 2)


def smacof(fisher: Array) -> Array:
    """scikit-learn's metric MDS of the distances, from the classical one."""
    from sklearn.manifold import smacof as run_smacof

    distances = matrix(fisher)
    return np.asarray(
        run_smacof(distances, init=projection.classical_mds(distances), n_init=1, normalized_stress=False)[0]
    )


def pca(fisher: Array, components: int = 2) -> Array:
    """Principal components of the centred logs."""
    from sklearn.decomposition import PCA

    wanted = min(components, len(fisher) - 1)
    return np.asarray(PCA(wanted, svd_solver="randomized", random_state=0).fit_transform(real_logs(fisher)))


def tsne_of_pca(fisher: Array) -> Array:
    """scikit-learn's t-SNE with its own settings on 50 principal components."""
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(fisher) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, random_state=0).fit_transform(pca(fisher, 50)))


PEERS = {
    "classical MDS": (classical, MATRIX_UP_TO),
    "scikit-learn SMACOF": (smacof, SMACOF_UP_TO),
    "PCA of logs": (pca, 10**9),
    "landmark MDS": (landmark_mds, 10**9),
    "scikit-learn t-SNE of 50 components": (tsne_of_pca, TSNE_UP_TO),
}
"""Peers by name, and the most tasks they are run on."""


def timed(ask: Any) -> tuple[float, Any]:
    """Seconds and the answer."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peers
        found = ask()
    return time.perf_counter() - start, found


def tell(title: str, figures: Figures) -> None:
    """Print figures on one line."""
    click.echo(
        f"{title}: "
        + "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in figures.items()
        )
    )


if __name__ == "__main__":
    main()
