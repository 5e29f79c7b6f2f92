"""The part of ``TaskRegistry`` that looks after the registry as a whole: made, checked, tidied, carried."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Self

from registry.answers import ExportSummary, ImportSummary, OptimizedTable, Origin, Problem
from registry.errors import InvalidQueryError, NotFoundError, StorageError
from registry.ingest.data import names_only
from registry.library.base import RegistryBase
from registry.notebooks import Records
from registry.options import EXPORT_FORMATS, POLICIES, ExportFormat, Policy
from registry.records import AuditRecord
from registry.storage.moments import KEEP, UNASKED
from registry.storage.rows import audit_lines, note_trusted, read_origins
from registry.task_answers import BackupSummary, Write

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)(?: ago)?")
_DAYS_AGO = {"now": 0, "yesterday": 1}  # at this time of the day
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Care(RegistryBase):
    """The part of ``TaskRegistry`` that looks after the registry as a whole."""

    def init(self, *, empty: bool = False, exist_ok: bool = False) -> None:
        """Create the registry.

        Args:
            empty: Leave the starter content out.
            exist_ok: Leave a registry that is there as it is.

        Raises:
            StorageError: If there is a registry already, or the place cannot be written.
        """
        if self._store.exists:
            if exist_ok:
                return
            raise StorageError(f"{self.uri}: there is a registry already")
        self._create(empty=empty)

    def version(self) -> str:
        """A text that changes with every write to the registry; empty where there is none."""
        return self._snapshots.version()

    def verify(self, *, repair: bool = False) -> Records[Problem]:
        """Check every row of the registry, and repair what can be repaired.

        Raises:
            StorageError: If there is no registry, or it cannot be read at all.
        """
        return Records(self._opened().verify(repair=repair))

    def optimize(self, *, keep: timedelta = KEEP) -> Records[OptimizedTable]:
        """Put the rows of every table into few files, and delete versions that nothing needs any more.

        A reader whose files are deleted meanwhile starts over.

        Args:
            keep: For how long what was can be asked and taken back; nothing of before, and no file of it, is
                kept at ``timedelta(0)``.

        Returns:
            Every table with its files before and after.

        Raises:
            StorageError: If there is no registry, or it cannot be written.
        """
        return Records(self._opened().optimize(keep=keep))

    # What was, and copies

    def writes(self) -> Records[Write]:
        """The writes of which it is known what was before, in order, with those that were taken back."""
        return Records(self._opened().database.moments.writes())

    def undo(self, write: int | None = None, *, redo: bool = False, preview: bool = False) -> Write:
        """Take back the last write that stands; once more, the one before. The history keeps its lines.

        It is a write itself: ``redo`` does again what the last undo took back, as long as nothing else was
        written since. A purge, a repair and a restore cannot be taken back, nor can what was before them.

        Args:
            write: Number of the write that is meant; nothing is done if another came after it.
            redo: Whether to do again.
            preview: Whether only to say which write it would be.

        Raises:
            StorageError: If there is none, it is not kept or cannot be taken back, or the registry cannot be
                written.
        """
        return self._opened().database.moments.undo(write, redo=redo, preview=preview)

    def at(self, when: int | str | datetime) -> Self:
        """The registry as it was, for questions: whatever writes is refused.

        Args:
            when: Number of a write, for what was after it; a time, ISO 8601, of this machine if it says no
                zone; or how long ago, such as ``2h`` or ``3d``.

        Raises:
            InvalidQueryError: If it is none of these, or a time to come.
            NotFoundError: If there is no such write.
            StorageError: If there is no registry, or what was then is not kept.
        """
        past = type(self)(self.uri, builtin=self.builtin, durability=self._durability)
        past._store, past.as_of = self._opened().as_of(_meant(when))
        return past

    def backup(self, place: str | Path, *, verify: bool = True) -> BackupSummary:
        """Copy the registry to a folder, as it is at one moment; what is there already is not copied again.

        The folder holds the last backup only, so nothing in it was purged before.

        Args:
            place: A new folder, or one of a former backup of this registry.
            verify: Whether a trial restore is checked row by row before the former backup is given up.

        Raises:
            StorageError: If there is no registry, it is damaged or in an object store, or the folder holds
                anything else or cannot be written.
        """
        from registry.bundles.backup import back_up

        return back_up(self._opened(), _folder(place), verify=verify)

    def restore(self, place: str | Path, *, replace: bool = False) -> BackupSummary:
        """Bring back what ``backup`` wrote, checked, as the registry in this place.

        Paths and code that it names are not used before ``trust(place)``, unless the registry that it replaces
        may load the same.

        Args:
            place: The folder of the backup.
            replace: Whether to put it in place of a registry that is here, which is kept beside it.

        Raises:
            StorageError: If there is no backup, it is damaged, the place cannot be written, or there is a
                registry and ``replace`` is false.
        """
        from registry.bundles.backup import restore

        return restore(self._store, _folder(place), replace=replace, is_name=names_only)

    def audit(self, subject: str | None = None, *, limit: int | None = None) -> Records[AuditRecord]:
        """Who wrote what, in order of time.

        Args:
            subject: Only lines about this task or expert, or results on or of it.
            limit: Only the last so many lines.
        """
        return Records(self._opened().audit(subject, limit=limit))

    def export(
        self,
        path: str | Path,
        *,
        tasks: Sequence[str] = (),
        where: str | None = None,
        results: bool = True,
        experts: bool = True,
        format: ExportFormat = "file",
        license: str = "",
        sign: str | Path | None = None,
    ) -> ExportSummary:
        """Write the registry, or some of its tasks and what belongs to them, for ``import_bundle``.

        Removed tasks and experts are left out. The same content makes the same bytes.

        Args:
            path: The file or folder; one that is there is replaced once the new one is whole.
            tasks: Names of tasks, which go with all their versions, embeddings and results, and the experts of
                those; everything if none is given.
            where: Only tasks whose latest version passes this filter, see ``registry.filters``.
            results: Whether results go along.
            experts: Whether experts do.
            format: ``file``; or ``folder``, with a card, which can be pushed to a hub as a dataset repository.
            license: Identifier of the licence of the records, for the card.
            sign: A PEM file with the private Ed25519 key that signs it; the signature is written beside it.

        Raises:
            NotFoundError: If there is no such task.
            InvalidQueryError: If the filter does not parse, no task is left, or there is no such format or
                licence or key.
            MissingExtraError: If cryptography, which signs, is not installed.
            StorageError: If there is no registry, it is damaged, or the file cannot be written.
        """
        from registry.bundles.card import check_license  # Parquet takes a while to load
        from registry.bundles.exporting import Selection, export_bundle

        if format not in EXPORT_FORMATS:
            raise InvalidQueryError(f"format must be {' or '.join(EXPORT_FORMATS)}, got {format!r}")
        if license and format != "folder":
            raise InvalidQueryError(
                "a licence is for the card of a folder; leave it out, or give format='folder'"
            )
        if license:
            check_license(license)
        selection = Selection(tasks, where, results, experts, self.builtin)
        return export_bundle(
            self._opened(),
            Path(path),
            selection,
            as_folder=format == "folder",
            license=license,
            key=Path(sign) if sign else None,
        )

    def import_bundle(
        self,
        path: str | Path,
        *,
        on_conflict: Policy = "fail",
        require_signature: str | Path | None = None,
        allow_older: bool = False,
    ) -> ImportSummary:
        """Bring what ``export`` wrote into this registry, which is made, empty, if it is not there.

        The whole file is checked before anything is written. What is here already is not written again, so an
        import that was killed is finished by importing again. Tags and aliases that a version lacks are added.

        Args:
            path: The file or folder.
            on_conflict: What to do about tasks and experts that are others here, see
                ``registry.options.POLICIES``.
            require_signature: A PEM file with the public key whose holder must have signed it, not before what
                was imported here with that key of the same registry.
            allow_older: Whether it may have been signed before that.

        Raises:
            MissingExtraError: If cryptography, which checks signatures, is not installed.
            BundleError: If the file or folder is no bundle, or is damaged.
            SchemaVersionError: If a newer version of this package wrote it.
            ConflictError: If something is another here and ``on_conflict`` is ``fail``; all of it is named.
            InvalidQueryError: If there is no such way to deal with conflicts.
            StorageError: If the file cannot be read or the registry cannot be written.
        """
        from registry.builtin.starter import shipped_loaders
        from registry.bundles.importing import import_bundle

        if on_conflict not in POLICIES:
            raise InvalidQueryError(f"on_conflict must be {' or '.join(POLICIES)}, got {on_conflict!r}")
        key = Path(require_signature) if require_signature else None
        store = self._store
        return import_bundle(store, Path(path), on_conflict, shipped_loaders(), key, allow_older=allow_older)

    def note_token(self, done: str, name: str, **details: str) -> None:
        """Say in the history, if there is a registry, what was done with a token; exports leave the line out.

        Args:
            done: ``add`` or ``revoke``; ``limited`` or ``jobs``, which are no writes that undo takes back.
            name: Of the token.
            **details: Such as its role.

        Raises:
            StorageError: If it cannot be written.
        """
        if self._store.exists:
            with self._store.write_lock():
                if f"token.{done}" in UNASKED:
                    self._store.database.moments.pass_over()
                self._store.database.append("audit", audit_lines(f"token.{done}", [name], **details))

    def origins(self) -> Records[Origin]:
        """Where imported experts and spaces came from, by kind and name, and who trusted them."""
        origins = read_origins(self._opened().database)
        return Records(origins[key] for key in sorted(origins) if origins[key].file)

    def trust(self, name: str) -> Records[Origin]:
        """Allow what was imported to be loaded: the files that it names to be opened, its code to be run.

        Args:
            name: Of an expert or of a space, or the file that was imported, for all that came from it.

        Raises:
            NotFoundError: If nothing of that name was imported.
            StorageError: If there is no registry, or it cannot be written.
        """
        everything = self.origins()
        file = str(Path(name).resolve())
        chosen = [origin for origin in everything if origin.name == name]
        chosen = chosen or [origin for origin in everything if origin.file == file]
        if not chosen:
            named = [word for origin in everything for word in (origin.name, origin.file)]
            raise NotFoundError("imported expert, space or file", name, set(named))
        return Records(note_trusted(self._store.database, chosen))


def _folder(place: str | Path) -> Path:
    """The folder of a backup; ``StorageError`` if it is the address of an object store."""
    if "://" in str(place):
        raise StorageError(f"{place}: a backup is made in a folder; give one, and copy it from there")
    return Path(place)


def _meant(when: int | str | datetime) -> int | datetime:
    """The number of a write, or a time that has been, UTC; ``InvalidQueryError`` if it is neither."""
    now = datetime.now(UTC)
    text = str(when).strip()
    if isinstance(when, int) or text.isdecimal():
        return int(text)
    try:
        if isinstance(when, datetime):
            moment = when
        elif text in _DAYS_AGO:
            moment = now - timedelta(days=_DAYS_AGO[text])
        elif ago := _AGO.fullmatch(text):
            moment = now - timedelta(**{_UNITS[ago[2][0]]: float(ago[1])})
        elif re.fullmatch(r"[0-9]{1,2}:[0-9:.]+", text):
            moment = datetime.combine(
                now.astimezone(), time.fromisoformat(text if text[2] == ":" else f"0{text}")
            )
        else:
            moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC)  # without a zone: that of this machine
    except (ValueError, OverflowError) as err:
        raise InvalidQueryError(
            f"{text!r} is no moment; give the number of a write, a time such as 2026-11-30T14:00, "
            "or how long ago, such as 2h or 3d"
        ) from err
    if moment > now:
        raise InvalidQueryError(f"{moment.isoformat(timespec='seconds')} is not yet; give a time that has been")
    return moment
