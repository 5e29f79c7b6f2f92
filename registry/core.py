"""The library: one class that wires store, index, neighbours, recommender and indexer together.

    registry = TaskRegistry("~/.task2vec")
    registry.add_task("flowers", "./flowers", tags=["plants"])
    registry.nearest("flowers", k=5)
    registry.recommend("./new-photos", max_params=30_000_000)

Axes: T tasks, D filters of the probe.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from registry.answers import AddedTask, Neighbor, Problem, Query
from registry.builtin.starter import populate
from registry.distances import get_distance
from registry.errors import InvalidQueryError, NotFoundError, StorageError
from registry.index.neighbors import DamagedIndexError
from registry.ingest import ingest, runs
from registry.library.advice import Advice
from registry.library.asking import Answer, space_of
from registry.library.many import ManyTasks
from registry.library.maps import MapCache, Maps
from registry.library.task_pages import TaskPages
from registry.notebooks import Records
from registry.options import DataOptions, OneOptions, Progress, check_k
from registry.records import EmbeddingRecord, SpaceRecord, TaskRecord, checked_name
from registry.snapshots.snapshots import Snapshots
from registry.snapshots.view import NotEmbeddedError, Point, View
from registry.storage.store import Store

if TYPE_CHECKING:
    from registry.ingest.ingest import TaskEmbedding


DEFAULT_URI = "~/.task2vec"
DEFAULT_DISTANCE = "task2vec"


class TaskRegistry(Advice, Maps, TaskPages, ManyTasks):
    """Every task a team has met, every expert it owns, and what was measured of them.

    Args:
        uri: A folder, or a place such as ``s3://bucket/prefix``; ``$T2V_REGISTRY``, or ``~/.task2vec``, if
            ``None``. It need not exist: the first write creates it, with the starter content that ships with
            this package.
        builtin: Whether starter content is part of lists and answers.
    """

    def __init__(self, uri: str | Path | None = None, *, builtin: bool = True) -> None:
        """Remember the place.

        Raises:
            StorageError: If it is in the home of a user who is not known, or at a URL of no object store.
        """
        self.uri = _expanded(str(uri or os.environ.get("T2V_REGISTRY") or DEFAULT_URI))
        self.builtin = builtin
        self._use(Store(self.uri))

    def init(self, *, empty: bool = False) -> None:
        """Create the registry.

        Args:
            empty: Leave the starter content out.

        Raises:
            StorageError: If there is a registry already, or the place cannot be written.
        """
        if self._store.exists:
            raise StorageError(f"{self.uri}: there is a registry already")
        self._use(Store.create(self.uri, None if empty else populate))

    # Tasks

    def add_task(
        self,
        name: str,
        data: str,
        *,
        tags: Sequence[str] = (),
        progress: Progress | None = None,
        **options: Unpack[OneOptions],
    ) -> AddedTask:
        """Embed a labelled dataset and remember it.

        The same data with the same settings is written once; changed data or settings make the next version,
        which keeps the tags of the one before; the same data in another space makes another embedding of the
        same version. If anything fails, nothing was written.

        Args:
            name: Of the task.
            data: A data spec: class folders, a manifest of images or texts, npz, tars, ``hf-data:NAME``, or
                ``sklearn:digits``.
            tags: Free words.
            progress: Called as ``progress(stage, done, total)``.
            **options: Probe, estimator, most samples and so on, see ``registry.options.EmbeddingOptions``; of a
                huge dataset ``shards``, and where these are computed, see ``registry.options.OneOptions``.

        Returns:
            What was done.

        Raises:
            InvalidRecordError: If the name or a tag is not allowed.
            IngestError: If the data cannot be read or makes no task, or an option is out of its range.
            NotFoundError: If there is no such probe, estimator or engine.
            MissingExtraError: If the engine needs a library that is not installed.
            StorageError: If the registry cannot be written.
        """
        for kind, word in (("task", name), *(("tag", tag) for tag in tags)):
            checked_name(kind, word)  # this and the place before the work, not after it
        self._store.check_place()
        prepared = runs.prepare_one(data, progress, **options)
        if (known := self._same_content(name, prepared)) and (present := self._embedding(known, prepared)):
            return prepared.added(known, present, created=False)
        embedding = prepared.embed(progress)
        self._create_if_missing()
        if prepared.space_id not in {space.space_id for space in self._store.spaces()}:
            self._store.add_space(prepared.space_record())
        return self._write_task(name, tags, prepared, embedding)

    def embed(
        self,
        data: str,
        *,
        progress: Progress | None = None,
        **options: Unpack[OneOptions],
    ) -> "TaskEmbedding":
        """Embed a labelled dataset without remembering it; the arguments are those of ``add_task``.

        Raises:
            IngestError: If the data cannot be read or makes no task, or an option is out of its range.
            NotFoundError: If there is no such probe or estimator.
        """
        return runs.prepare_one(data, progress, **options).embed(progress)

    def tasks(self, *, where: str | None = None) -> Records[TaskRecord]:
        """The latest version of every task, in order of name.

        Args:
            where: A filter such as ``num_classes < 20 and tags = 'medical'``, see ``registry.filters``.

        Raises:
            InvalidQueryError: If the filter does not parse.
            StorageError: If there is no registry.
        """
        return Records(self._opened().tasks(where=where, builtin=self.builtin))

    def task(self, reference: str) -> TaskRecord:
        """One task by ``name`` (its latest version), ``name@version`` or ``name@alias``.

        Raises:
            NotFoundError: If it is not there.
            StorageError: If there is no registry.
        """
        return self._opened().task(reference)

    def embeddings_of(self, reference: str) -> list[tuple[SpaceRecord, EmbeddingRecord]]:
        """The embeddings of a task, one for each space that it was embedded in.

        Raises:
            NotFoundError: If there is no such task.
        """
        store = self._opened()
        task = store.task(reference)
        pairs = ((space, store.embedding(space.space_id, task.name, task.version)) for space in store.spaces())
        return [(space, embedding) for space, embedding in pairs if embedding]

    def tag_task(self, name: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> TaskRecord:
        """Add and take away tags of a task.

        Returns:
            The task as it is now.

        Raises:
            NotFoundError: If it is not there.
            InvalidRecordError: If a tag is not allowed.
        """
        store = self._opened()
        with store.write_lock():
            tags = (set(store.task(name).tags) | {checked_name("tag", tag) for tag in add}) - set(remove)
            store.set_tags(name, tuple(sorted(tags)))
        return store.task(name)

    # Questions

    def nearest(
        self,
        query: "str | TaskEmbedding",
        *,
        k: int = 10,
        distance: str = DEFAULT_DISTANCE,
        where: str | None = None,
        probe: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[DataOptions],
    ) -> tuple[Query, Records[Neighbor]]:
        """The registered tasks that are most like a task.

        Args:
            query: Name of a registered task, a data spec, which is embedded and not remembered, or what
                ``embed`` made of one.
            k: Most neighbours returned, at least 1.
            distance: Name in ``registry.distances.DISTANCES``; an asymmetric one is measured from the
                registered task to the query.
            where: Only among tasks that pass this filter, see ``registry.filters``.
            probe: Loader of the probe, or id of the space, in which to compare; of an embedding its own.
            progress: Called as ``progress(stage, done, total)`` while data is embedded.
            **options: How data is read, see ``registry.options.DataOptions``; what makes an embedding
                comparable, such as the estimator, is that of the space.

        Returns:
            What was asked, and its neighbours, nearest first, ties in order of name; never the query itself.

        Raises:
            InvalidQueryError: If ``k`` is below 1, the filter does not parse, or options are given for a
                registered task or an embedding.
            NotFoundError: If there is no such task, data, distance or probe.
            IngestError: If the data cannot be read.
        """
        check_k(k)
        kind = get_distance(distance)

        def ask(view: View) -> tuple[Query, Records[Neighbor]]:
            (point,) = self._locate([query], view, options, progress)
            return point.query, Records(view.nearest(point, k=k, distance=kind.name))

        return self._answer(ask, probe or space_of(query), where)

    def distance(
        self,
        source: "str | TaskEmbedding",
        target: "str | TaskEmbedding",
        *,
        name: str = DEFAULT_DISTANCE,
        probe: str | None = None,
        **options: Unpack[DataOptions],
    ) -> float:
        """Distance from one task to another, each a registered name, a data spec or an embedding.

        Raises:
            InvalidQueryError: If options are given and there is no data, or two embeddings are of two spaces.
            NotFoundError: If there is no such task, data, distance or probe.
            IngestError: If data cannot be read.
        """
        kind = get_distance(name)

        def ask(view: View) -> float:
            return view.distance(kind.name, *self._locate([source, target], view, options, None))

        return self._answer(ask, probe or space_of(source) or space_of(target))

    # Care

    def verify(self, *, repair: bool = False) -> Records[Problem]:
        """Check every row of the registry, and mend what can be mended.

        Raises:
            StorageError: If there is no registry, or it cannot be read at all.
        """
        return Records(self._opened().verify(repair=repair))

    # How it is done

    def _create_if_missing(self) -> None:
        if not self._store.exists:
            self._use(Store.create(self.uri, populate))

    def _use(self, store: Store) -> None:
        """Work with a store from now on."""
        self._store, self._snapshots, self._maps = store, Snapshots(store), MapCache(store)

    def _answer(self, ask: Callable[[View], Answer], probe: str | None, where: str | None = None) -> Answer:
        """Answer a question in the space of a probe, or where none is named in one that has the task.

        Raises:
            InvalidQueryError: If a task of texts is asked about where tasks of images are compared, or the
                other way round.
            NotEmbeddedError: If a task is asked about that was not embedded there.
        """
        space = self.space(probe)
        try:
            return self._answer_in(space, ask, where)
        except NotEmbeddedError as err:
            own = [own for own, _ in self.embeddings_of(err.name)]
            if probe is None and own:
                recipe = ingest.default_recipe()
                space = min(own, key=lambda it: (it.recipe != recipe, it.space_id))
                return self._answer(ask, space.space_id, where)
            if own and all(it.content != space.content for it in own):
                raise InvalidQueryError(
                    f"task {err.name} holds {own[0].content}, and in the space of {space.probe} tasks of "
                    f"{space.content} are compared; the two never mix: ask about it with --probe {own[0].probe}"
                ) from err
            raise

    def _answer_in(self, space: SpaceRecord, ask: Callable[[View], Answer], where: str | None) -> Answer:
        """Answer a question in a space; once more if the index turns out to be damaged."""
        try:
            return ask(View.open(self._snapshots, space, builtin=self.builtin, where=where))
        except DamagedIndexError as err:
            self._snapshots.discard_index(space, err)
            return ask(View.open(self._snapshots, space, builtin=self.builtin, where=where))

    def _embedding(self, task: TaskRecord, prepared: ingest.PreparedTask) -> EmbeddingRecord | None:
        return self._store.embedding(prepared.space_id, task.name, task.version)

    def _write_task(
        self, name: str, tags: Sequence[str], prepared: ingest.PreparedTask, embedding: "TaskEmbedding"
    ) -> AddedTask:
        """Write the embedding as one of the latest version or of the next one, as the content asks."""
        with self._store.write_lock():
            if known := self._same_content(name, prepared):
                if present := self._embedding(known, prepared):  # another process was first
                    return prepared.added(known, present, created=False)
                record = ingest.embedding_record(name, known.version, embedding)
                self._store.add_embedding(prepared.space_id, record)
                return prepared.added(known, record, created=True, fallbacks=embedding.fallbacks)
            latest = self._latest(name)
            kept = latest.tags if latest else ()
            task = prepared.task_record(name, self._store.next_version(name), (*kept, *tags))
            record = ingest.embedding_record(name, task.version, embedding)
            self._store.add_task(task, prepared.space_id, record)
        return prepared.added(task, record, created=True, fallbacks=embedding.fallbacks)

    def _latest(self, name: str) -> TaskRecord | None:
        try:
            return self._store.task(name)
        except NotFoundError:
            return None

    def _same_content(self, name: str, prepared: ingest.PreparedTask) -> TaskRecord | None:
        """The latest version of a task, if it is of the same data and settings."""
        latest = self._latest(name)
        same = latest and (latest.fingerprint, latest.settings) == (prepared.fingerprint, prepared.settings_key)
        return latest if same else None

    def _locate(
        self,
        queries: "Sequence[str | TaskEmbedding]",
        view: View,
        options: DataOptions,
        progress: Progress | None,
    ) -> list[Point]:
        """The points of registered tasks, of embeddings, and of data that is embedded now in the view's space.

        Raises:
            InvalidQueryError: If options are given, and there is no data for which they could hold; or an
                embedding is of another space.
        """
        points = [self._known(query, view) for query in queries]
        given = sorted(name for name, value in options.items() if value is not None)
        if given and None not in points:
            named = " and ".join(point.query.task for point in points if point)
            raise InvalidQueryError(
                f"{' and '.join(given)} would change nothing: {named} "
                f"{'is' if len(queries) == 1 else 'are'} embedded already; options say how data is read"
            )
        return [
            point or self._embedded(str(query), view.space, options, progress)
            for query, point in zip(queries, points, strict=True)
        ]

    def _known(self, query: "str | TaskEmbedding", view: View) -> Point | None:
        """The point of what is embedded, ``None`` for data that is yet to be.

        Raises:
            InvalidQueryError: If it is an embedding of another space.
        """
        if isinstance(query, str):
            position = self._registered(query, view)
            return None if position is None else view.point(position)
        spec, space_id = query.dataset.spec, query.space.space_id
        if space_id != view.space.space_id:
            raise InvalidQueryError(
                f"{spec} was embedded in space {space_id} and cannot be compared with tasks of space "
                f"{view.space.space_id}; embed it with {view.space.probe_source}"
            )
        return Point(Query(spec, 0, space_id), query.fisher, query.domain)

    def _registered(self, query: str, view: View) -> int | None:
        """Position of the task of that name in the catalogue, or ``None`` for data.

        A registered name goes before a folder of that name; ``./name`` is the folder. What is no registered
        task, and nothing that could be data, is a ``NotFoundError``.
        """
        position = view.find(query)
        if position is None and not ingest.looks_like_data(query):
            self._store.task(query)  # says what is known instead
        return position

    def _embedded(
        self, data: str, space: SpaceRecord, options: DataOptions, progress: Progress | None
    ) -> Point:
        embedding = ingest.embed_in_space(data, space, progress, **options)
        return Point(Query(data, 0, space.space_id), embedding.fisher, embedding.domain)


def _expanded(uri: str) -> str:
    """A place with ``~`` replaced; an URL stays as it is.

    Raises:
        StorageError: If ``~`` stands for the home of nobody.
    """
    try:
        return uri if "://" in uri else str(Path(uri).expanduser())
    except RuntimeError as err:
        raise StorageError(f"{uri}: there is no such home folder; write the path out") from err
