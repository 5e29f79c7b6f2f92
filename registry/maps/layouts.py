"""Keeps the layout of each space: loaded, made, or extended by tasks that were added since.

Axes: T tasks, N tasks that are not laid out yet, L landmarks.
"""

import logging
import threading

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from registry.index import landmarks
from registry.index.landmarks import ComparedTasks
from registry.index.neighbors import NO_KEY, EmbeddingRows
from registry.maps import projection
from registry.maps.files import LAID_OUT, LATER, PLACED, Layout, LayoutFiles, UnusableLayoutError
from registry.options import Progress
from registry.snapshots.snapshots import Snapshot

SEEDS_KEPT = 4
SAMPLE = 200
"""Tasks that stress and trustworthiness are measured on where not all pairs are compared."""

Positions = NDArray[np.float64]

logger = logging.getLogger(__name__)


class Layouts:
    """The layouts of one space, by seed; threads may share it."""

    def __init__(self, files: LayoutFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._layouts: dict[int, Layout] = {}
        self._answers: dict[int, tuple[Snapshot, Layout]] = {}

    def of(
        self, snapshot: Snapshot, *, seed: int = 0, rebuild: bool = False, progress: Progress | None = None
    ) -> tuple[Layout, list[str]]:
        """The layout of the latest version of every task, and what happened to it, in sentences."""
        with self._lock:
            answer = self._answers.get(seed)
            if answer and answer[0] is snapshot and not rebuild:
                return answer[1], []
            layout, notes = self._made(snapshot, seed, rebuild, progress)
            if len(self._layouts) >= SEEDS_KEPT:
                self._layouts.clear()
                self._answers.clear()
            self._layouts[seed] = layout
            self._answers[seed] = (snapshot, layout)
            return layout, notes

    def _made(
        self, snapshot: Snapshot, seed: int, rebuild: bool, progress: Progress | None
    ) -> tuple[Layout, list[str]]:
        rows = latest_rows(snapshot)
        identities = _identities(snapshot.rows, rows)
        layout = self._layouts.get(seed)
        if layout is not None and not rebuild and not _missing(layout, identities).any():
            return layout, []
        with self._files.writing():
            if not rebuild:
                layout, reason = self._load(seed, layout)
                if layout is not None:
                    missing = _missing(layout, identities)
                    reason = _why_again(layout, identities, missing, snapshot.rows)
                    if not reason:
                        return self._followed(layout, snapshot.rows, rows, identities, missing, progress)
            else:
                reason = "as asked"
            layout = _lay_out(ComparedTasks(snapshot.rows, rows), identities, seed, progress)
            self._save(layout)
        return layout, [f"The tasks were laid out anew: {reason}."] if reason else []

    def _load(self, seed: int, layout: Layout | None) -> tuple[Layout | None, str]:
        """The saved layout, which another process may have extended, or this one; or why there is none."""
        try:
            return self._files.load(seed), ""
        except UnusableLayoutError as err:
            reason = str(err)
            if layout is not None or reason == "missing":
                return layout, ""
            logger.warning("the layout is made again: the saved one is %s", reason)
            return None, f"the saved layout is {reason}"

    def _followed(
        self,
        layout: Layout,
        embeddings: EmbeddingRows,
        rows: NDArray[np.int64],
        identities: pa.StringArray,
        missing: NDArray[np.bool_],
        progress: Progress | None,
    ) -> tuple[Layout, list[str]]:
        """The layout with tasks placed that were added; those gone are dropped, landmarks if purged."""
        if not missing.any():
            return layout, []
        positions = _place_rows(layout, embeddings, rows[missing], progress)
        kept = pc.is_in(layout.identities, value_set=identities).to_numpy(zero_copy_only=False).copy()
        kept[_anchors(layout, embeddings)[0]] = True
        followed = layout.with_placed(identities.filter(pa.array(missing)), positions, pa.array(kept))
        self._save(followed)
        return followed, []

    def _save(self, layout: Layout) -> None:
        if not len(layout):
            return
        try:
            self._files.save(layout)
        except OSError as err:
            logger.warning("the layout is not kept: %s", err)


def latest_rows(snapshot: Snapshot) -> NDArray[np.int64]:
    """Rows ``[T]`` of the latest version of every task, in order of their identity."""
    rows = np.flatnonzero(snapshot.answerable(builtin=True, where=None))
    order = pc.sort_indices(_identities(snapshot.rows, rows)).to_numpy()
    return np.asarray(rows[order], np.int64)


def place_vectors(layout: Layout, embeddings: EmbeddingRows, vectors: NDArray[np.float32]) -> Positions:
    """Positions ``[N, 2]`` of embeddings ``[N, D]`` that are not registered."""
    numbers, rows = _anchors(layout, embeddings)
    positions = np.empty((len(vectors), 2))
    for place, vector in enumerate(vectors):
        distances = embeddings.distances("task2vec", vector, rows, trivial=None, alpha=0.0)
        near = np.argsort(distances, kind="stable")[: projection.PLACING_NEIGHBORS]
        anchors = layout.positions[numbers[near]]
        positions[place] = projection.place(distances[near][None], anchors[None], num_anchors=len(rows))[0]
    return positions


def positions_of(layout: Layout, embeddings: EmbeddingRows, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers ``[N]`` within a layout of the tasks of some rows; all must be there."""
    return np.asarray(
        pc.index_in(_identities(embeddings, rows), value_set=layout.identities).to_numpy(), np.int64
    )


def _identities(embeddings: EmbeddingRows, rows: NDArray[np.int64]) -> pa.StringArray:
    of_rows = embeddings.keys if embeddings.identities is None else embeddings.identities
    return of_rows.take(pa.array(rows, pa.int64()))


def _missing(layout: Layout, identities: pa.StringArray) -> NDArray[np.bool_]:
    """Which of the tasks are not in a layout."""
    present = pc.is_in(identities, value_set=layout.identities)
    return ~np.asarray(present.to_numpy(zero_copy_only=False), bool)


def _anchors(layout: Layout, embeddings: EmbeddingRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which tasks of a layout were laid out and still have an embedding, and its rows."""
    numbers = np.flatnonzero(layout.roles == LAID_OUT)
    kept = np.flatnonzero(pc.not_equal(embeddings.keys, NO_KEY).to_numpy(zero_copy_only=False))
    places = pc.index_in(layout.identities.take(pa.array(numbers)), value_set=_identities(embeddings, kept))
    there = np.asarray(places.is_valid().to_numpy(zero_copy_only=False), bool)
    return numbers[there], kept[places.drop_null().to_numpy()]


def _why_again(
    layout: Layout, identities: pa.StringArray, missing: NDArray[np.bool_], embeddings: EmbeddingRows
) -> str:
    """Why all tasks are laid out again instead of placing those that were added; empty if they are placed."""
    if not missing.any():
        return ""
    num_anchors, num_laid_out = len(_anchors(layout, embeddings)[0]), int((layout.roles == LAID_OUT).sum())
    if num_laid_out < projection.TSNE_FROM:
        return f"the map was of {num_laid_out} tasks only"
    if 2 * num_anchors < num_laid_out:
        return "most tasks of the map are gone"
    present = np.asarray(pc.is_in(layout.identities, value_set=identities).to_numpy(zero_copy_only=False), bool)
    num_later = int((layout.roles[present] == LATER).sum()) + int(missing.sum())
    if num_later > (first := int((layout.roles[present] != LATER).sum())):
        return f"{num_later} tasks were added since, more than the {first} of the map"
    return ""


def _lay_out(tasks: ComparedTasks, identities: pa.StringArray, seed: int, progress: Progress | None) -> Layout:
    """Lay out all tasks, or landmarks with the others between them, and measure how well that went."""
    chosen = landmarks.draw_landmarks(len(tasks), seed)

    def report(stage: str) -> landmarks.Report | None:
        return None if progress is None else lambda done, total: progress(stage, done, total)

    distances = tasks.matrix(chosen, report("distances"))
    positions = np.zeros((len(tasks), 2))
    positions[chosen] = projection.lay_out(distances, seed=seed)
    roles = np.full(len(tasks), PLACED, np.uint8)
    roles[chosen] = LAID_OUT
    if len(chosen) == len(tasks):
        sample, true = chosen, distances
    else:
        others = np.flatnonzero(roles == PLACED)
        numbers, near = tasks.nearest(others, chosen, projection.PLACING_NEIGHBORS, report("placing"))
        positions[others] = projection.place(near, positions[chosen][numbers], num_anchors=len(chosen))
        sample = np.sort(np.random.default_rng([seed, 1]).permutation(len(tasks))[:SAMPLE])
        true = tasks.to_all(sample, report("measuring"))
    drawn = projection.between(positions[sample], positions)
    return Layout(
        identities,
        positions,
        roles,
        stress=projection.stress_1(true, drawn),
        trustworthiness=projection.trustworthiness(true, drawn, sample),
        num_measured=len(sample),
        method=projection.method_of(len(chosen)),
        seed=seed,
    )


def _place_rows(
    layout: Layout, embeddings: EmbeddingRows, rows: NDArray[np.int64], progress: Progress | None
) -> Positions:
    """Positions ``[N, 2]`` of tasks that were added, given by their rows."""
    numbers, of_anchors = _anchors(layout, embeddings)
    tasks = ComparedTasks(embeddings, np.concatenate([of_anchors, rows]))
    first = len(of_anchors)
    report = None if progress is None else lambda done, total: progress("placing", done, total)
    nearest, near = tasks.nearest(
        np.arange(first, len(tasks)), np.arange(first), projection.PLACING_NEIGHBORS, report
    )
    return projection.place(near, layout.positions[numbers][nearest], num_anchors=first)
