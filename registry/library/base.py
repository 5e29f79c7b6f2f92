"""What all parts of ``TaskRegistry`` stand on: the store, what this process knows of it, and its views.

Axes: D filters of the probe.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from difflib import get_close_matches
from functools import cached_property, wraps
from inspect import Parameter, isfunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack, cast, get_args

from registry.answers import Query
from registry.errors import InvalidQueryError, NoRegistryError, StorageError
from registry.files import Durability, is_durable
from registry.index.neighbors import DamagedIndexError
from registry.ingest.data import (
    as_query,
    default_probe,
    default_recipe,
    looks_like_data,
    meant_loader,
    names_only,
    opening,
)
from registry.options import DEFAULT_PLACE, Data, DataOptions, Progress
from registry.records import EmbeddingRecord, SpaceRecord
from registry.snapshots.snapshots import Snapshots
from registry.snapshots.view import Point, View, choose_space
from registry.storage.places import together
from registry.storage.rows import read_origins
from registry.storage.store import Store

if TYPE_CHECKING:
    from registry.ingest.prepare import TaskEmbedding

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
AnyPart = TypeVar("AnyPart", bound="RegistryBase")


def heals_index(
    question: Callable[Concatenate[AnyPart, Parameters], Answer],
) -> Callable[Concatenate[AnyPart, Parameters], Answer]:
    """Make a question be asked once more where it meets a damaged index, which is then built again.

    Rows of the index are compared with their checksums when they are first read, so damage shows up while a
    question is answered and not before.
    """

    @wraps(question)
    def ask(self: AnyPart, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        try:
            return question(self, *args, **kwargs)
        except DamagedIndexError as damage:
            self._snapshots.discard_index(damage)
        return question(self, *args, **kwargs)

    return ask


def keywords_of(method: Callable[..., Any]) -> list[str]:
    """What may be said to a method by name, with the fields of a record of options; none where anything may."""
    names = list[str]()
    for name, parameter in signature(method).parameters.items():
        if parameter.kind is not Parameter.VAR_KEYWORD:
            names.append(name)
        elif record := get_args(parameter.annotation):
            names += record[0].__annotations__
        else:
            return []
    return names[1:]


def checks_arguments(method: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """Make wrong arguments of a method an error of ours, which offers the names that are close."""
    shape, names = signature(method), keywords_of(method)

    @wraps(method)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        for word in kwargs:
            if names and word not in names:
                close = get_close_matches(word, names, n=3)
                hint = f"did you mean {' or '.join(close)}?" if close else f"it takes {', '.join(names)}"
                raise InvalidQueryError(f"{method.__name__} has no argument {word!r}; {hint}")
        try:
            shape.bind(*args, **kwargs)
        except TypeError as err:
            raise InvalidQueryError(f"{method.__name__}: {err}; it takes {', '.join(names)}") from err
        with together():  # all that it writes is one write
            return method(*args, **kwargs)

    return checked


class RegistryBase:
    """A registry at a place, without any of the methods of ``TaskRegistry``.

    Attributes:
        builtin: Whether starter content is part of lists and answers.
        as_of: Of which time it is, in words; empty for now.
        when_created: What is called with one sentence, once a call has made the registry.
    """

    as_of = ""

    def __init_subclass__(cls) -> None:
        """Check the arguments of every public method, as ``checks_arguments`` does."""
        for name, method in list(vars(cls).items()):
            if isfunction(method) and not name.startswith("_"):
                setattr(cls, name, checks_arguments(method))

    def __init__(
        self, uri: str | Path | None = None, *, builtin: bool = True, durability: Durability | None = None
    ) -> None:
        """Remember the place.

        Raises:
            StorageError: If it is in the home of a user who is not known, at a URL of no object store, or there
                is no such durability.
        """
        self.uri = _expanded(str(uri or os.environ.get("T2V_REGISTRY") or DEFAULT_PLACE))
        self.builtin = builtin
        self._durability = durability
        if durability:
            is_durable(durability)  # says what it may be
        self._store = Store(self.uri, durability)
        self.when_created: Callable[[str], None] = lambda sentence: None

    def __enter__(self) -> Self:
        """The registry, of which the tables are left for the next process to read at once; see ``__exit__``."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave the tables in the read cache, if they had to be read or were written; not after an error."""
        if kind is None:
            self._store.database.renew_cache()

    @cached_property
    def _snapshots(self) -> Snapshots:
        """What this process knows of the tables."""
        return Snapshots(self._store.database)

    def _opened(self) -> Store:
        """The store of a registry that is there; ``NoRegistryError`` if it is not."""
        if not self._store.database.is_present():
            raise NoRegistryError(
                f"{self.uri}: there is no registry yet; make one with `t2v init`, or add a task"
            )
        return self._store

    def _create(self, *, empty: bool = False) -> None:
        """Make the registry, with the starter content unless it is to be empty."""
        from registry.builtin.starter import populate

        Store.create(self.uri, None if empty else populate, self._durability)
        self.when_created(f"Created {self.uri}{'' if empty else ', with the starter content'}.")

    def _create_if_missing(self) -> Store:
        """The store of a registry that is made, with the starter content, if it is not there."""
        if not self._store.exists:
            self._create()
        return self._store

    # The view in which a question is answered

    def _space(self, probe: str | None) -> SpaceRecord:
        """The space of a probe, see ``TaskRegistry.space``.

        Raises:
            NotFoundError: If no task was embedded with that probe.
            InvalidQueryError: If several spaces fit, or there is none at all.
        """
        self._opened()
        spaces = self._snapshots.spaces()
        if probe is None and len(spaces) == 1:
            return spaces[0]
        return choose_space(
            spaces,
            meant_loader(probe, [space.probe_source for space in spaces]) if probe else None,
            default_probe=default_probe(),
            default_recipe=default_recipe(),
        )

    def _view(
        self, queries: "Sequence[str | TaskEmbedding]", probe: str | None, where: str | None = None
    ) -> View:
        """The registry as seen in the space in which queries are to be compared.

        That is the space of ``probe``, else the one of the first embedding among the queries, else the default
        one; or, where a registered task was not embedded in the default one, one that it was embedded in.

        Raises:
            NotFoundError: If no task was embedded with that probe.
            InvalidQueryError: If the filter does not parse, no space or several fit, or a task of texts is
                asked about where tasks of images are compared, or the other way round.
        """
        asked = probe or next((query.space.space_id for query in queries if not isinstance(query, str)), None)
        view = self._view_of(self._space(asked), where)
        absent, own = self._absent(queries, view)
        if own and asked is None:
            recipe = default_recipe()
            view = self._view_of(min(own, key=lambda space: (space.recipe != recipe, space.space_id)), where)
            absent, own = self._absent(queries, view)
        if own and all(space.content != view.space.content for space in own):
            raise InvalidQueryError(
                f"task {absent} holds {own[0].content}, and in the space of {view.space.probe} tasks of "
                f"{view.space.content} are compared; the two never mix: ask about it with "
                f"probe={own[0].probe!r}"
            )
        return view

    def _view_of(self, space: SpaceRecord, where: str | None) -> View:
        return View.open(self._snapshots, space, builtin=self.builtin, where=where)

    def _absent(self, queries: "Sequence[str | TaskEmbedding]", view: View) -> tuple[str, list[SpaceRecord]]:
        """The first registered task among queries that lacks an embedding in a view, and its spaces."""
        for query in queries:
            if isinstance(query, str) and view.lacks(query):
                return query, [space for space, _ in self._embeddings_of(query)]
        return "", []

    def _embeddings_of(self, reference: str) -> list[tuple[SpaceRecord, EmbeddingRecord]]:
        """The embeddings of a task, one for each space that it was embedded in.

        Raises:
            NotFoundError: If there is no such task.
        """
        store = self._opened()
        task = store.task(reference)
        pairs = ((space, store.embedding(space.space_id, task.name, task.version)) for space in store.spaces())
        return [(space, embedding) for space, embedding in pairs if embedding]

    # What may be loaded

    def _opening(self, kind: str, name: str, loader: str) -> AbstractContextManager[None]:
        """Let what loads a registered expert or space be used; ``UntrustedError`` if it must not be."""
        origin = None if names_only(loader) else read_origins(self._store.database).get((kind, name))
        return opening(kind, name, loader, origin)

    def _embedded(
        self, data: str, space: SpaceRecord, progress: Progress | None, **options: Unpack[DataOptions]
    ) -> "TaskEmbedding":
        """Data embedded in a registered space, if its probe may be loaded."""
        with self._opening("space", space.space_id, space.probe_source):
            from registry.ingest.prepare import embed_in_space

            return embed_in_space(data, space, progress, **options)

    # What is asked about

    def _asked(self, query: Data) -> "str | TaskEmbedding":
        """A name or a data spec, or what ``embed`` made of data."""
        return query if isinstance(query, str) else as_query(query)

    def _locate(
        self,
        queries: "Sequence[str | TaskEmbedding]",
        view: View,
        options: DataOptions,
        progress: Progress | None = None,
    ) -> list[Point]:
        """The points of registered tasks, of embeddings, and of data that is embedded now in the view's space.

        Raises:
            InvalidQueryError: If options are given, and there is no data for which they could hold; or an
                embedding is of another space.
            NotFoundError: If a task was not embedded in that space, or a query is neither a task nor data.
        """
        points = [self._embedded_point(query, view) for query in queries]
        given = sorted(name for name, value in options.items() if value is not None)
        if given and None not in points:
            named = " and ".join(point.query.task for point in points if point)
            raise InvalidQueryError(
                f"{' and '.join(given)} would change nothing: {named} "
                f"{'is' if len(queries) == 1 else 'are'} embedded already; options say how data is read"
            )
        return [
            point or _point(str(query), self._embedded(cast("str", query), view.space, progress, **options))
            for query, point in zip(queries, points, strict=True)
        ]

    def _embedded_point(self, query: "str | TaskEmbedding", view: View) -> Point | None:
        """The point of a registered task or an embedding, ``None`` for data that is yet to be embedded.

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
        return _point(spec, query)

    def _registered(self, query: str, view: View) -> int | None:
        """Position of the task of that name in the catalogue, or ``None`` for data.

        A registered name takes precedence over a folder of that name; ``./name`` is the folder. What is no
        registered task, and nothing that could be data, is a ``NotFoundError``.
        """
        position = view.find(query)
        if position is None and not looks_like_data(query):
            self._store.task(query)  # raises an error that lists what is registered
        return position


def _point(spec: str, embedding: "TaskEmbedding") -> Point:

    from registry.recommend.levels import TaskFacts

    dataset = embedding.dataset
    facts = TaskFacts(embedding.head_accuracy, dataset.num_classes, dataset.num_samples)
    return Point(
        Query(spec, 0, embedding.space.space_id, dataset.taken), embedding.fisher, embedding.domain, facts
    )


def _expanded(uri: str) -> str:
    """A place with ``~`` replaced; an URL stays as it is.

    Raises:
        StorageError: If ``~`` stands for the home of nobody.
    """
    try:
        return uri if "://" in uri else str(Path(uri).expanduser())
    except RuntimeError as err:
        raise StorageError(f"{uri}: there is no such home folder; write the path out") from err
