"""What becomes of records once they are there: named, removed, restored, purged; and who wrote what when."""

from datetime import timedelta

from registry.answers import OptimizedTable, TaskHistory
from registry.errors import NoRegistryError, NotFoundError
from registry.notebooks import Records
from registry.records import AuditRecord, TaskRecord
from registry.storage.store import Store


class Lifecycle:
    """The part of ``TaskRegistry`` that knows no data and asks no question."""

    uri: str
    _store: Store

    def alias_task(self, reference: str, alias: str) -> TaskRecord:
        """Let ``name@alias`` stand for one version of a task, and no longer for another.

        Args:
            reference: ``name``, for the latest version, ``name@version`` or ``name@alias``.
            alias: A word of the characters of a name, with a letter in it; not ``latest``.

        Returns:
            The version as it is now.

        Raises:
            NotFoundError: If it is not there.
            InvalidRecordError: If the word cannot be an alias.
        """
        store = self._opened()
        with store.write_lock():
            task = store.task(reference)
            store.set_alias(reference, alias)
            return store.task(f"{task.name}@{task.version}")

    def unalias_task(self, name: str, alias: str) -> None:
        """Let an alias of a task stand for nothing.

        Raises:
            NotFoundError: If there is no such task, or it has no such alias.
        """
        self._opened().remove_alias(name, alias)

    def remove_task(self, name: str, *, purge: bool = False) -> None:
        """Take a task, with all its versions, out of every list and answer.

        Args:
            name: Of the task.
            purge: Delete its rows, also those removed before, its embeddings and the results on it for good;
                without it all of that stays, and ``restore_task`` brings it back. ``optimize`` then deletes the
                files that still hold what was purged.

        Raises:
            NotFoundError: If it is not there.
        """
        store = self._opened()
        (store.purge_task if purge else store.remove_task)(name)

    def restore_task(self, name: str) -> None:
        """Bring back a task that was removed; an alias that another version has by now stays with that one.

        Raises:
            NotFoundError: If no task of that name was removed.
        """
        self._opened().restore_task(name)

    def remove_expert(self, name: str, *, purge: bool = False) -> None:
        """Take an expert out of every list and answer.

        Args:
            name: Of the expert.
            purge: Delete its rows and the results of it for good; without it they stay.

        Raises:
            NotFoundError: If it is not there.
        """
        store = self._opened()
        (store.purge_expert if purge else store.remove_expert)(name)

    def restore_expert(self, name: str) -> None:
        """Bring back the expert of that name that was removed last.

        Raises:
            NotFoundError: If no expert of that name was removed.
            DuplicateError: If another one has the name now.
        """
        self._opened().restore_expert(name)

    def history(self, name: str) -> TaskHistory:
        """All versions of a task, removed ones too, and every line of the audit about it.

        Raises:
            NotFoundError: If there never was a task of that name.
        """
        store = self._opened()
        versions = store.versions(name) + store.versions(name, removed=True)
        lines = [line for line in store.audit(name) if line.action.startswith(("task.", "result."))]
        if not versions and not lines:
            raise NotFoundError("task", name, store.task_names())
        return TaskHistory(name, tuple(sorted(versions, key=lambda task: task.version)), tuple(lines))

    def audit(self, subject: str | None = None, *, limit: int | None = None) -> Records[AuditRecord]:
        """Who wrote what, in order of time.

        Args:
            subject: Only lines about this task or expert, or results on or of it.
            limit: Only the last so many lines.

        Raises:
            StorageError: If there is no registry.
        """
        lines = self._opened().audit(subject)
        return Records(lines if limit is None else lines[max(len(lines) - limit, 0) :])

    def optimize(self) -> Records[OptimizedTable]:
        """Put the rows of every table into few files, and delete all files that no row is read from any more.

        What was purged is in no file afterwards. A reader whose files are deleted meanwhile starts over.

        Returns:
            Every table with its files before and after.

        Raises:
            StorageError: If there is no registry, or it cannot be written.
        """
        # Not zero, of which LanceDB warns for the sake of readers: ours start over.
        return Records(self._opened().optimize(keep=timedelta(milliseconds=1)))

    def _opened(self) -> Store:
        """The store of a registry that is there.

        Raises:
            NoRegistryError: If it is not.
        """
        if not self._store.database.is_present():
            raise NoRegistryError(
                f"{self.uri}: there is no registry yet; make one with `t2v init`, or add a task"
            )
        return self._store
