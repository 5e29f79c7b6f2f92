"""The part of ``TaskRegistry`` that keeps tasks."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from registry.errors import InvalidQueryError, InvalidRecordError, NotFoundError
from registry.gate import checked_name
from registry.ingest.data import data_spec, make_settings, module_folder
from registry.library.base import RegistryBase
from registry.names import Key
from registry.notebooks import Records
from registry.options import BATCH, Data, EngineOptions, ManyOptions, OneOptions, Progress
from registry.records import EmbeddingRecord, SpaceRecord, TaskRecord
from registry.storage.locks import patience
from registry.storage.rows import SheetLayout, SheetRecord, note_registered
from registry.task_answers import (
    SORTS,
    AddedMany,
    AddedTask,
    Report,
    TaskHistory,
    TaskPage,
)

if TYPE_CHECKING:
    from registry.ingest.manifests import TaskRow

MAX_LIMIT = 1000
"""Most tasks on a page."""

MAX_WORDS = 16
"""Most words that are searched for at once."""

MAX_PROBLEMS_SHOWN = 100


class Tasks(RegistryBase):
    """The part of ``TaskRegistry`` that keeps tasks."""

    def add_task(
        self,
        name: str,
        data: Data,
        *,
        tags: Sequence[str] = (),
        thumbnails: bool = True,
        progress: Progress | None = None,
        **options: Unpack[OneOptions],
    ) -> AddedTask:
        """Embed a labelled dataset and remember it.

        The same data with the same settings is written once; from another place, or with further tags, it only
        gets these. Changed data or settings make the next version,
        which keeps the tags of the one before; the same data in another space makes another embedding of the
        same version. If anything fails, nothing was written.

        Args:
            name: Name of the task.
            data: A data spec: class folders, a manifest of images or texts, npz, tars, ``hf-data:NAME``, or
                ``sklearn:digits``; a path; or data that the program holds, see ``registry.options.Data``,
                which is registered by its content and not kept.
            tags: Free words.
            thumbnails: Whether a few samples are kept too, as one small picture; without it, one that was kept
                of this very data is deleted for good.
            progress: Called as ``progress(stage, done, total)``.
            **options: Probe, estimator, most samples and so on, see ``registry.options.EmbeddingOptions``; for
                a huge dataset ``shards``, and where these are computed, see ``registry.options.OneOptions``.

        Raises:
            InvalidRecordError: If the name or a tag is not allowed.
            IngestError: If the data cannot be read or makes no task, or an option is out of its range.
            NotFoundError: If there is no such probe, estimator or engine.
            MissingExtraError: If the engine needs a library that is not installed.
            StorageError: If the registry cannot be written.
        """
        from registry.ingest.prepare import prepare_one
        from registry.ingest.writer import NamedEmbedding, has_content, refreshed, sheet_again, write_tasks

        if not isinstance(name, str):
            raise InvalidRecordError(
                f"the name of a task must be text, got {type(name).__name__}: add_task(NAME, DATA)"
            )
        for kind, word in (("task", name), *(("tag", tag) for tag in tags)):
            checked_name(kind, word)  # this and the place before the work, not after it
        self._store.check_place()
        prepared = prepare_one(data_spec(data), progress, **options)
        task = self._store.latest_tasks([name]).get(name)
        if task and has_content(task, prepared.fingerprint, prepared.settings_key):
            present = self._store.embedding(prepared.space_id, name, task.version)
            if present:
                task, notes = refreshed(self._store, task, data_spec(data), tags)
                notes += sheet_again(self._store, task, prepared, thumbnails=thumbnails)
                return prepared.added(task, present, created=False, notes=notes)
        embedding = prepared.embed(progress)
        self._create_with_space(prepared.space_id, prepared.space_record)
        named = [NamedEmbedding(name, tuple(tags), embedding)]
        (written,) = write_tasks(self._store, prepared.space_id, named, thumbnails=thumbnails)
        is_new = written.new != "nothing"  # or another process was first
        notes = written.notes
        if written.new == "version" and task and task.settings == prepared.settings_key:
            notes = (f"its data is not that of {name}@{task.version}, whose results stay with that version",)
        fallbacks = embedding.fallbacks if is_new else ()
        return prepared.added(written.task, written.embedding, created=is_new, fallbacks=fallbacks, notes=notes)

    def add_many(
        self,
        tasks: "str | Path | Iterable[TaskRow]",
        *,
        tags: Sequence[str] = (),
        thumbnails: bool = True,
        batch: int = BATCH,
        report: Report | None = None,
        **options: Unpack[ManyOptions],
    ) -> AddedMany:
        """Embed many labelled datasets and remember them.

        A task that is registered with the same data and settings is left alone; its sample is read to find that
        out, but not embedded. So a run that was interrupted, or in which tasks failed, is finished by the same
        call. What was reported as added is on disk. If the run is interrupted, what is embedded by then is
        written first.

        Args:
            tasks: A .csv, .parquet or .jsonl file, a folder of task folders, see ``registry.ingest.manifests``,
                or rows that a program made.
            tags: Free words for all of them, besides their own.
            thumbnails: Whether a few samples of each new version are kept too, as one small picture.
            batch: Embeddings of a commit, at least 1; fewer where they come slowly.
            report: Called about once a second, and whenever there is news.
            **options: How to embed, see ``add_task``, and where, see ``registry.options.EngineOptions``. With
                ``skip_bad`` it goes on without rows that are no task, else one such row stops it all.

        Raises:
            InvalidRecordError: If the file cannot be read, a tag is not allowed, or a row is no task.
            IngestError: If the probe cannot be loaded, an option is out of its range, or an engine cannot work.
            NotFoundError: If there is no such probe, estimator or engine.
            MissingExtraError: If the engine needs a library that is not installed.
            StorageError: If the registry cannot be written.
        """
        from registry.ingest.many import add_rows
        from registry.ingest.prepare import space_record
        from registry.ingest.runs import make_run
        from registry.ingest.writer import TaskWriter

        start = time.monotonic()
        if batch < 1:
            raise InvalidRecordError(f"batch must be at least 1, got {batch}")
        all_tags = tuple(checked_name("tag", tag) for tag in tags)
        rows, problems = _rows_of(tasks)
        if problems and not options.get("skip_bad"):
            raise InvalidRecordError(_all_of(problems))
        given: dict[str, Any] = dict(options)
        where = {name: given.pop(name) for name in EngineOptions.__annotations__ if name in given}
        self._store.check_place()
        run = make_run(make_settings(**given), **where)
        with patience():
            self._create_with_space(run.space_id, lambda: space_record(run.probe, run.settings))
        writer = TaskWriter(self._store, run.space_id, tags=all_tags, batch=batch, thumbnails=thumbnails)
        return add_rows(rows, problems, run, writer, self._store, report=report, start=start)

    def sheet(self, reference: str) -> SheetRecord | None:
        """A few samples of a task as one small picture, if they were kept when it was added.

        Raises:
            NotFoundError: If there is no such task.
            StorageError: If there is no registry, or the picture is damaged.
        """
        task = self.task(reference)
        return self._store.sheet(task.name, task.version)

    def sheet_layouts(self, names: Collection[str] | None = None) -> dict[Key, SheetLayout]:
        """What the contact sheets of tasks look like, by name and version; of some names, or all."""
        return self._opened().sheet_layouts(names)

    def _create_with_space(self, space_id: str, make: Callable[[], SpaceRecord]) -> None:
        """Make the registry, and a space in it, unless they are there."""
        store = self._create_if_missing()
        if space_id not in {space.space_id for space in store.spaces()}:
            store.add_space(space := make())
            folder = module_folder(space.probe_source)
            note_registered(store.database, "space", space_id, space.probe_source, folder)

    def tasks(self, *, where: str | None = None) -> Records[TaskRecord]:
        """The latest version of every task, in order of name.

        Args:
            where: A filter such as ``num_classes < 20 and tags = 'medical'``, see ``registry.filters``.

        Raises:
            InvalidQueryError: If the filter does not parse.
        """
        return Records(self._opened().tasks(where=where, builtin=self.builtin))

    def find_tasks(
        self,
        *,
        search: str | None = None,
        where: str | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> TaskPage:
        """A page of the latest versions of tasks.

        Args:
            search: Words, each of which must be part of the name or of a tag, in either case.
            where: A filter that they must pass, see ``registry.filters``.
            sort: One of ``registry.task_answers.SORTS``; ties in order of name.
            descending: Largest or last first.
            limit: Most tasks returned, 1 to 1,000.
            offset: How many are passed over, at least 0; after the last one a page is empty.

        Raises:
            InvalidQueryError: If the filter does not parse, or anything is out of its range.
        """
        _check_page(search, sort, limit, offset)
        store = self._opened()
        catalogue = self._snapshots.catalogue()
        mask = catalogue.answerable(builtin=self.builtin, where=where)
        for word in (search or "").split():
            mask = mask & catalogue.holding(word)
        order = catalogue.order(sort, descending=descending)
        positions = order[mask[order]]
        keys = [catalogue.key(position) for position in positions[offset : offset + limit].tolist()]
        return TaskPage(len(positions), offset, limit, Records(store.task_versions(keys)))

    def tag_counts(self) -> dict[str, int]:
        """How many tasks have each tag, the most first, then by name.

        Raises:
            StorageError: If there is no registry.
        """
        self._opened()
        catalogue = self._snapshots.catalogue()
        return catalogue.tag_counts(catalogue.answerable(builtin=self.builtin, where=None))

    def has_task(self, reference: str) -> bool:
        """Whether ``name``, ``name@version`` or ``name@alias`` is there; nothing is taken for data."""
        self._opened()
        return self._snapshots.catalogue().find(reference) is not None

    def task(self, reference: str) -> TaskRecord:
        """One task by ``name`` (its latest version), ``name@version`` or ``name@alias``.

        Raises:
            NotFoundError: If it is not there.
        """
        return self._opened().task(reference)

    def embeddings_of(self, reference: str) -> list[tuple[SpaceRecord, EmbeddingRecord]]:
        """The embeddings of a task, one for each space that it was embedded in.

        Raises:
            NotFoundError: If there is no such task.
        """
        return self._embeddings_of(reference)

    def tag_task(self, name: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> TaskRecord:
        """Add and take away tags of a task.

        Raises:
            NotFoundError: If it is not there.
            InvalidRecordError: If a tag is not allowed.
        """
        store = self._opened()
        with store.write_lock():
            tags = (set(store.task(name).tags) | {checked_name("tag", tag) for tag in add}) - set(remove)
            store.set_tags(name, tuple(sorted(tags)))
        return store.task(name)

    def alias_task(self, reference: str, alias: str) -> TaskRecord:
        """Let ``name@alias`` stand for one version of a task, and no longer for another.

        Args:
            reference: ``name``, for the latest version, ``name@version`` or ``name@alias``.
            alias: A word of the characters of a name, with a letter in it; not ``latest``.

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
            name: Name of the task.
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

    def history(self, name: str, *, limit: int | None = None) -> TaskHistory:
        """All versions of a task, removed ones too, and the lines of the audit about it.

        Args:
            name: Of the task.
            limit: Only the last so many lines; the answer says how many were before.

        Raises:
            NotFoundError: If there never was a task of that name.
        """
        store = self._opened()
        versions = store.versions(name) + store.versions(name, removed=True)
        lines, earlier = store.last_lines(name, limit, ("task.", "result."))
        if not (versions or lines or earlier):
            raise NotFoundError("task", name, store.task_names())
        versions.sort(key=lambda task: task.version)
        return TaskHistory(name, tuple(versions), tuple(lines), earlier)


def _rows_of(tasks: "str | Path | Iterable[TaskRow]") -> "tuple[list[TaskRow], list[str]]":
    """Rows, and what is wrong with others."""
    from registry.ingest import manifests

    if isinstance(tasks, str | Path):
        return manifests.read_task_rows(Path(tasks))
    return manifests.checked_rows(tasks), []


def _all_of(problems: Sequence[str]) -> str:
    """All that is wrong with the rows of a file, in one sentence."""
    more = len(problems) - MAX_PROBLEMS_SHOWN
    shown = "; ".join(problems[:MAX_PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    rows = "1 row is no task" if len(problems) == 1 else f"{len(problems)} rows are no tasks"
    return f"{rows}, so nothing was started: {shown}; correct them, or go on without them with skip_bad=True"


def _check_page(search: str | None, sort: str, limit: int, offset: int) -> None:
    """Check what a page is asked for by; ``InvalidQueryError`` if anything is out of its range."""
    if len((search or "").split()) > MAX_WORDS:
        raise InvalidQueryError(f"search must be at most {MAX_WORDS} words, got {len((search or '').split())}")
    if sort not in SORTS:
        raise InvalidQueryError(f"tasks cannot be sorted by {sort!r}; choose {', '.join(SORTS)}")
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidQueryError(f"limit must be from 1 to {MAX_LIMIT}, got {limit}")
    if offset < 0:
        raise InvalidQueryError(f"offset must be at least 0, got {offset}")
