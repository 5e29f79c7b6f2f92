"""What carries a registry from one place to another, as one file."""

from collections.abc import Sequence
from pathlib import Path

from registry.answers import ExportSummary, ImportSummary
from registry.errors import InvalidQueryError
from registry.lifecycle import Lifecycle
from registry.options import POLICIES, Policy


class Transfer(Lifecycle):
    """The part of ``TaskRegistry`` that exports and imports."""

    builtin: bool

    def export(
        self,
        path: str | Path,
        *,
        tasks: Sequence[str] = (),
        where: str | None = None,
        results: bool = True,
        experts: bool = True,
    ) -> ExportSummary:
        """Write the registry, or some of its tasks and what belongs to them, to one file for ``import_bundle``.

        Removed tasks and experts stay behind. The same content makes the same bytes.

        Args:
            path: Of the file; one that is there is replaced once the new one is whole.
            tasks: Names of tasks, which go with all their versions, embeddings and results, and the experts of
                those; everything if none is given.
            where: Only tasks whose latest version passes this filter, see ``registry.filters``.
            results: Whether results go along.
            experts: Whether experts do.

        Returns:
            What is in the file.

        Raises:
            NotFoundError: If there is no such task.
            InvalidQueryError: If the filter does not parse, or no task is left.
            StorageError: If there is no registry, it is damaged, or the file cannot be written.
        """
        from registry.exporting import Selection, export_bundle  # Parquet takes a while to load

        selection = Selection(tasks, where, results, experts, self.builtin)
        return export_bundle(self._opened(), Path(path), selection)

    def import_bundle(self, path: str | Path, *, on_conflict: Policy = "fail") -> ImportSummary:
        """Bring what ``export`` wrote into this registry, which is made, empty, if it is not there.

        The whole file is checked before anything is written. What is here already is not written again, so an
        import that was killed is finished by importing again. Tags and aliases that a version lacks are added.

        Args:
            path: Of the file.
            on_conflict: What to do about tasks and experts that are others here, see
                ``registry.options.POLICIES``.

        Returns:
            What was written.

        Raises:
            BundleError: If the file is no bundle, or is damaged.
            SchemaVersionError: If a newer version of this package wrote it.
            ConflictError: If something is another here and ``on_conflict`` is ``fail``; all of it is named.
            InvalidQueryError: If there is no such way to deal with conflicts.
            StorageError: If the file cannot be read or the registry cannot be written.
        """
        from registry.importing import import_bundle

        if on_conflict not in POLICIES:
            raise InvalidQueryError(f"on_conflict must be {' or '.join(POLICIES)}, got {on_conflict!r}")
        return import_bundle(self._store, Path(path), on_conflict)
