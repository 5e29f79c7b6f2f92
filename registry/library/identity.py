"""The part of ``TaskRegistry`` that compares data and weights with what was registered."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from registry.errors import InvalidQueryError, InvalidRecordError, UntrustedError
from registry.gate import OTHER_DATA
from registry.ingest.data import NORM_POOLING, absolute_data, check_data_is_there, data_spec
from registry.library.tasks import Tasks
from registry.names import Reference
from registry.options import Progress
from registry.records import ExpertRecord, ResultRecord, TaskRecord


class Subject(NamedTuple):
    """A registered task, and the version that results on its data are of: its own or ``OTHER_DATA``."""

    task: TaskRecord
    version: int

    @property
    def is_other_data(self) -> bool:
        """Whether the data is none that is registered."""
        return self.version == OTHER_DATA


class Identity(Tasks):
    """The part of ``TaskRegistry`` that tells data and weights by their content."""

    def move_task(self, reference: str, data: str | Path) -> TaskRecord:
        """Let a task be read from another place, where the same data is.

        Other versions of the task that were read from the former place, and are the same at the new one, move
        along.

        Args:
            reference: ``name``, for the latest version, ``name@version`` or ``name@alias``.
            data: The data spec of the new place.

        Raises:
            NotFoundError: If there is no such task.
            IngestError: If there is nothing at that place.
            InvalidRecordError: If other data is there; nothing is changed then.
        """
        from registry.ingest.identity import data_difference

        store = self._opened()
        task, place = store.task(reference), absolute_data(data_spec(data))
        check_data_is_there(task, place)
        if difference := data_difference(task, place):
            raise InvalidRecordError(
                f"{place} does not hold the data of {task.name}@{task.version} ({difference}), so nothing was "
                f"moved: name the place that does, or add it as another version with `t2v task add {task.name} "
                f"{place}`"
            )
        others = [one for one in store.versions(task.name) if one.data == task.data and one != task]
        moved = [task, *(one for one in others if not data_difference(one, place))]
        store.move_tasks(moved, place)
        return store.task(f"{task.name}@{task.version}")

    def _subject(
        self,
        reference: str,
        *,
        measured: bool,
        anyway: bool,
        as_new_version: bool,
        progress: Progress | None = None,
    ) -> Subject:
        """The task that is measured, or of which a result is recorded, once its data was compared.

        Args:
            reference: Name of a task, or ``name@version``.
            measured: Whether the data is read now. What was measured elsewhere is compared only where the data
                is at hand and the latest version is meant.
            anyway: Whether to go on where the data is not what was registered.
            as_new_version: Whether to register such data as the next version.
            progress: As of ``add_task``.

        Raises:
            NotFoundError: If there is no such task.
            IngestError: If the data is not there, and is to be measured.
            InvalidQueryError: If both ways out are asked for.
            InvalidRecordError: If the data is not what was registered, and no way out is asked for.
        """
        from registry.ingest.identity import data_difference, is_at_hand

        if anyway and as_new_version:
            raise InvalidQueryError(
                "anyway and as_new_version exclude each other: a result is of other data, or that data is "
                "registered; give one of them"
            )
        task = self._opened().task(reference)
        if measured:
            check_data_is_there(task)
        elif not Reference.parse(reference).is_latest or not is_at_hand(task):
            return Subject(task, task.version)
        difference = data_difference(task)
        if difference and as_new_version:
            task = self._add_version(task, progress)
        elif difference and not anyway:
            raise InvalidRecordError(
                f"the data of {task.name}@{task.version} at {task.data} is not what was registered "
                f"({difference}): as_new_version=True registers it as the next version, and anyway=True goes "
                "on and marks results as of other data"
            )
        return Subject(task, OTHER_DATA if difference and anyway else task.version)

    def _add_version(self, task: TaskRecord, progress: Progress | None) -> TaskRecord:
        """Register the data of a task as it is now, with the same settings and in the same spaces."""
        for space, _ in self._embeddings_of(f"{task.name}@{task.version}"):
            estimator, pooling = space.recipe
            how: dict[str, Any] = {"probe": space.probe_source, "estimator": estimator or None}
            how |= {"norm_weights": pooling == NORM_POOLING, **task.asked}
            with self._opening("space", space.space_id, space.probe_source):
                self.add_task(task.name, task.data, progress=progress, **how)
        return self._opened().task(task.name)

    def _compared(
        self, results: Sequence[ResultRecord], *, anyway: bool, as_new_version: bool
    ) -> list[ResultRecord]:
        """Results that were measured elsewhere, once data and weights at hand were compared, each once.

        Those of other data or weights are marked, if that is asked for.

        Raises:
            InvalidRecordError: If data or weights are not what was registered, and no way out is asked for.
        """
        store = self._opened()
        experts = {expert.name: expert for expert in store.experts()}
        unsaid = {result.task for result in results if not result.task_version}
        others = {
            task
            for task in sorted(unsaid & store.task_names())
            if self._subject(task, measured=False, anyway=anyway, as_new_version=as_new_version).is_other_data
        }
        weights = {
            name: self._check_weights(experts[name], None, anyway=anyway)
            for name in sorted({result.expert for result in results} & experts.keys())
        }
        changed = {name: read for name, read in weights.items() if read != experts[name].weights_hash}
        return [
            replace(
                result,
                task_version=result.task_version or (OTHER_DATA if result.task in others else 0),
                weights_hash=result.weights_hash or changed.get(result.expert, ""),
            )
            for result in results
        ]

    def _check_weights(self, expert: ExpertRecord, weights_hash: str | None, *, anyway: bool) -> str:
        """The hash of the weights that a result is of, once they were compared.

        Args:
            expert: A registered expert.
            weights_hash: That of the weights as they were loaded; if ``None``, files written since the expert
                was added are read.
            anyway: Whether to go on where the weights are not what was registered.

        Raises:
            InvalidRecordError: If they are not, and that is not asked for.
        """
        from registry.ingest.identity import changed_weights_message, weights_difference

        if weights_hash is None:
            weights_hash = self._changed_weights(expert) or expert.weights_hash
        if (difference := weights_difference(expert, weights_hash)) and not anyway:
            raise InvalidRecordError(changed_weights_message(expert, difference))
        return weights_hash

    def _changed_weights(self, expert: ExpertRecord) -> str:
        """As ``ingest.identity.changed_weights`` says; nothing is opened that nobody trusts yet."""
        from registry.ingest.identity import changed_weights

        try:
            with self._opening("expert", expert.name, expert.loader):
                return changed_weights(expert)
        except UntrustedError:
            return ""
